"""The computations on one tile: features, content terms, style summaries and the gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfstyle.losses import Objective, StyleLoss, Summaries, Summary, Tensors, weighted_content_loss
from tfstyle.optim import only_first_derivatives

#: For each region, layer -> the summary of each style loss.
RegionSummaries = tuple[Summaries, ...]


class LayerSize(NamedTuple):
    """The size of a layer's feature map in a tile.

    Attributes:
        layer: name of the layer.
        rows, columns: number of rows and columns of the tile's inside.
        image_positions: number of positions of the whole image.
    """

    layer: str
    rows: int
    columns: int
    image_positions: int


class TilePlace(NamedTuple):
    """The position of a tile's inside in the feature map of each layer.

    Attributes:
        sizes: size of the inside in each layer. One function is compiled for each different value.
        begins: layer -> first row and column of the inside in the features of the crop, int ``[2]``.
        slices: layer -> rows and columns of the inside in the features of the whole image.
    """

    sizes: tuple[LayerSize, ...]
    begins: dict[str, tf.Tensor]
    slices: dict[str, tuple[slice, slice]]


class LossDerivatives(NamedTuple):
    """Results of the first pass that the second pass needs: derivatives of the total, times a factor.

    Attributes:
        content: layer -> derivative with respect to ½ Σ (F - P)² of the layer.
        style: derivatives with respect to the summaries of the whole image.
        summaries: the summaries of the whole image.
        factor: the factor in `content` and `style`, a power of 2.
    """

    content: Tensors
    style: RegionSummaries
    summaries: RegionSummaries
    factor: tf.Tensor


class TileStep:
    """The contribution of a tile to an `Objective`.

    The functions are compiled once for each size of crop and inside.

    Args:
        objective: the objective of the whole image.
        layers_by_size: names of its style layers, from the largest feature map to the smallest.
        compile: ``xla``, ``graph`` or ``eager``.
    """

    def __init__(self, objective: Objective, layers_by_size: Sequence[str], *, compile: str) -> None:
        self._objective, self._layers_by_size, self._compile = objective, list(layers_by_size), compile
        self._functions: dict[Any, Callable[..., Any]] = {}

    def content(self, place: TilePlace, crop: tf.Tensor) -> tuple[Tensors, Tensors]:
        """Return the features of the inside in the content layers, and ½ Σ F² of each layer."""
        return self._compiled(self._content, place.sizes)(crop, place.begins)

    def terms(
        self,
        place: TilePlace,
        crop: tf.Tensor,
        *,
        weights: Sequence[Tensors],
        content: Tensors,
        content_weights: Tensors,
    ) -> tuple[Tensors, RegionSummaries]:
        """Return ½ Σ (F - P)² of each content layer, and the style losses' summaries of the inside.

        Args:
            place: position of the tile's inside.
            crop: crop of the image, float32 ``[1, height, width, 3]`` in 0..1.
            weights: for each region, layer -> weights of the inside's positions ``[1, rows, columns, 1]``,
                with mean 1; empty if the image has no regions.
            content: layer -> content target of the inside.
            content_weights: layer -> `Targets.content_weights` of the inside.
        """
        function = self._compiled(self._terms, place.sizes)
        return function(crop, place.begins, weights, content, content_weights)

    def gradient(
        self,
        place: TilePlace,
        crop: tf.Tensor,
        *,
        weights: Sequence[Tensors],
        content: Tensors,
        content_weights: Tensors,
        shares: Sequence[Tensors],
        derivatives: LossDerivatives,
    ) -> tf.Tensor:
        """Return the gradient of the inside's content and style terms with respect to the crop.

        The terms are the inside's contribution to the total of the whole image, without the total variation.

        Args:
            place, crop, weights, content, content_weights: as for `terms`.
            shares: for each region, layer -> share of the inside in the whole image, float32 scalar.
            derivatives: derivatives of the total, from the first pass.
        """
        function = self._compiled(self._gradient, place.sizes)
        return function(crop, place.begins, weights, content, content_weights, shares, derivatives)

    def _compiled(self, function: Callable[..., Any], sizes: tuple[LayerSize, ...]) -> Callable[..., Any]:
        """Return the function, compiled for tiles whose insides have these sizes."""
        key = function.__name__, sizes
        if key not in self._functions:
            bound = functools.partial(function, sizes)
            xla = self._compile == "xla"
            self._functions[key] = (
                bound if self._compile == "eager" else tf.function(bound, jit_compile=xla, autograph=False)
            )
        return self._functions[key]

    def _inside(
        self, sizes: Sequence[LayerSize], crop: tf.Tensor, begins: Mapping[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Return the features of a tile's inside."""
        inside = {}
        with only_first_derivatives():  # the image of an optimiser may leave 0..1
            features = self._objective.encoder(crop)
        for layer, rows, columns, _ in sizes:
            maps = features[layer]
            if tuple(maps.shape[1:3]) != (rows, columns):
                begin = tf.concat([[0], begins[layer], [0]], 0)
                maps = tf.slice(maps, begin, [1, rows, columns, maps.shape[-1]])
            inside[layer] = maps
        return inside

    def _content(
        self, sizes: Sequence[LayerSize], crop: tf.Tensor, begins: Mapping[str, tf.Tensor]
    ) -> tuple[Tensors, Tensors]:
        inside = self._inside(sizes, crop, begins)
        content = {layer: inside[layer] for layer in self._objective.content_layers}
        return content, {layer: tf.nn.l2_loss(tf.cast(f, tf.float32)) for layer, f in content.items()}

    def _terms(
        self,
        sizes: Sequence[LayerSize],
        crop: tf.Tensor,
        begins: Mapping[str, tf.Tensor],
        weights: Sequence[Tensors],
        content: Tensors,
        content_weights: Tensors,
    ) -> tuple[Tensors, RegionSummaries]:
        inside = self._inside(sizes, crop, begins)
        energies = {
            layer: weighted_content_loss(inside[layer], target, root_weights=content_weights.get(layer))
            for layer, target in content.items()
        }
        return energies, self._summaries(sizes, inside, weights)

    def _gradient(
        self,
        sizes: Sequence[LayerSize],
        crop: tf.Tensor,
        begins: Mapping[str, tf.Tensor],
        weights: Sequence[Tensors],
        content: Tensors,
        content_weights: Tensors,
        shares: Sequence[Tensors],
        derivatives: LossDerivatives,
    ) -> tf.Tensor:
        with tf.GradientTape() as tape, only_first_derivatives():
            tape.watch(crop)
            inside = self._inside(sizes, crop, begins)
            tile_summaries = self._summaries(sizes, inside, weights)
            terms = [
                derivatives.content[layer]
                * weighted_content_loss(inside[layer], target, root_weights=content_weights.get(layer))
                for layer, target in content.items()
            ]
            regions = zip(tile_summaries, derivatives.summaries, derivatives.style, shares, strict=True)
            for tile, whole, derivative, share in regions:
                for layer in tile:
                    losses = zip(
                        self._objective.style_losses,
                        tile[layer],
                        whole[layer],
                        derivative[layer],
                        strict=True,
                    )
                    terms += [
                        share[layer] * _dot(by_summary, _contribution(loss, tile_summary, whole_summary))
                        for (loss, _), tile_summary, whole_summary, by_summary in losses
                    ]
            total = tf.add_n(terms)
        gradient = tape.gradient(total, crop, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return gradient / derivatives.factor

    def _summaries(
        self, sizes: Sequence[LayerSize], inside: Mapping[str, tf.Tensor], weights: Sequence[Tensors]
    ) -> RegionSummaries:
        """Return the summaries of the inside. A layer without positions in it gets the summary of zeros."""
        fractions = {size.layer: size.rows * size.columns / size.image_positions for size in sizes}
        regions = weights or ({},)
        return tuple(
            {
                layer: tuple(
                    self._summary(loss, layer, fractions, inside, region.get(layer))
                    for loss, _ in self._objective.style_losses
                )
                for layer in self._objective.style_layers
            }
            for region in regions
        )

    def _summary(
        self,
        loss: StyleLoss,
        layer: str,
        fractions: Mapping[str, float],
        inside: Mapping[str, tf.Tensor],
        weight: tf.Tensor | None,
    ) -> Summary:
        index = self._layers_by_size.index(layer)
        names = self._layers_by_size[index : index + loss.deeper_layers + 1]
        zeros = [tf.zeros([1, 1, 1, inside[name].shape[-1]]) for name in names]
        present = [name for name in names if fractions[name] > 0]
        if not loss.deeper_layers:
            return loss.summary(inside[layer] if present else zeros[0], weight if present else None)
        # The summary has one matrix for each deeper layer. It is a mean over the positions of that layer, of
        # which the tile's share can differ from its share of this layer.
        matrices = list(loss.summary(zeros, None))
        deep_layers = names[1:] or names
        if layer in present and set(present) & set(deep_layers):
            features = [inside[name] for name in present]
            matrix_of = dict(zip(present[1:] or present, loss.summary(features, weight)))
            for i, name in enumerate(deep_layers):
                if name in matrix_of:
                    matrices[i] = matrix_of[name] * (fractions[name] / fractions[layer])
        return tuple(matrices)


def _dot(derivatives: Summary, summary: Summary) -> tf.Tensor:
    """Return the inner product of a summary's tensors and the derivatives with respect to them."""
    pairs = zip(tf.nest.flatten(derivatives), tf.nest.flatten(summary), strict=True)
    return tf.add_n([tf.reduce_sum(derivative * value) for derivative, value in pairs])


def _contribution(loss: StyleLoss, tile: Summary, whole: Summary) -> Summary:
    return tile if loss.contribution is None else loss.contribution(tile, whole)

"""The computations on one tile: its features, the style losses' summaries of its inside, and its gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfstyle.losses import Objective, StyleLoss, Summaries, Summary, Tensors, content_loss

#: For each region, layer -> the summary that each style loss takes.
RegionSummaries = tuple[Summaries, ...]


class LayerSize(NamedTuple):
    """A layer's name, its rows and columns inside a tile, and its positions in the whole image."""

    layer: str
    rows: int
    columns: int
    image_positions: int


class TilePlace(NamedTuple):
    """Where a tile's inside lies in each layer.

    Attributes:
        sizes: of the inside in each layer; a function is compiled for each value of it.
        begins: layer -> first row and column in the crop.
        slices: layer -> rows and columns in the whole image.
    """

    sizes: tuple[LayerSize, ...]
    begins: dict[str, tf.Tensor]
    slices: dict[str, tuple[slice, slice]]


class LossDerivatives(NamedTuple):
    """Derivatives of the total that the first pass yields and the second needs, times a factor.

    Attributes:
        content: layer -> derivative with respect to its ½ Σ (F - P)².
        style: derivatives with respect to the whole image's summaries.
        summaries: the whole image's summaries.
        factor: a power of 2.
    """

    content: Tensors
    style: RegionSummaries
    summaries: RegionSummaries
    factor: tf.Tensor


class TileStep:
    """A tile's contribution to an `Objective`, by functions compiled once for each size of crop and inside.

    Args:
        objective: of the whole image.
        layers_by_size: its style layers, those with larger maps first.
        compile: ``xla``, ``graph`` or ``eager``.
    """

    def __init__(self, objective: Objective, layers_by_size: Sequence[str], *, compile: str) -> None:
        self._objective, self._layers_by_size, self._compile = objective, list(layers_by_size), compile
        self._functions: dict[Any, Callable[..., Any]] = {}

    def content(self, place: TilePlace, crop: tf.Tensor) -> tuple[Tensors, Tensors]:
        """The inside's features in the content layers, and ½ Σ F² of each."""
        return self._compiled(self._content, place.sizes)(crop, place.begins)

    def terms(
        self, place: TilePlace, crop: tf.Tensor, *, weights: Sequence[Tensors], content: Tensors
    ) -> tuple[Tensors, RegionSummaries]:
        """½ Σ (F - P)² of each content layer, and the style losses' summaries of the inside.

        Args:
            place: of the tile.
            crop: float32 ``[1, height, width, 3]`` in 0..1.
            weights: for each region, layer -> weights of the inside's positions, of mean 1; or empty.
            content: layer -> the inside's target.
        """
        return self._compiled(self._terms, place.sizes)(crop, place.begins, weights, content)

    def gradient(
        self,
        place: TilePlace,
        crop: tf.Tensor,
        *,
        weights: Sequence[Tensors],
        content: Tensors,
        shares: Sequence[Tensors],
        derivatives: LossDerivatives,
    ) -> tf.Tensor:
        """The gradient of the inside's contribution to the whole image's total, with respect to the crop.

        Args:
            place, crop, weights, content: as for `terms`.
            shares: for each region, layer -> the inside's share of the whole.
            derivatives: of the total.
        """
        function = self._compiled(self._gradient, place.sizes)
        return function(crop, place.begins, weights, content, shares, derivatives)

    def _compiled(self, function: Callable[..., Any], sizes: tuple[LayerSize, ...]) -> Callable[..., Any]:
        """The function for tiles whose insides have these sizes."""
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
        """The features of a tile's inside."""
        features, inside = self._objective.encoder(crop), {}
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
    ) -> tuple[Tensors, RegionSummaries]:
        inside = self._inside(sizes, crop, begins)
        energies = {layer: content_loss(inside[layer], target) for layer, target in content.items()}
        return energies, self._summaries(sizes, inside, weights)

    def _gradient(
        self,
        sizes: Sequence[LayerSize],
        crop: tf.Tensor,
        begins: Mapping[str, tf.Tensor],
        weights: Sequence[Tensors],
        content: Tensors,
        shares: Sequence[Tensors],
        derivatives: LossDerivatives,
    ) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(crop)
            inside = self._inside(sizes, crop, begins)
            tile_summaries = self._summaries(sizes, inside, weights)
            terms = [
                derivatives.content[layer] * content_loss(inside[layer], target)
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
        """The summaries of the inside; of zeros where a layer has no position in it."""
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
        # One matrix for each deeper layer: a mean over its positions, of which a tile may have another share.
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
    """The sum over all tensors of a summary of the products with their derivatives."""
    pairs = zip(tf.nest.flatten(derivatives), tf.nest.flatten(summary), strict=True)
    return tf.add_n([tf.reduce_sum(derivative * value) for derivative, value in pairs])


def _contribution(loss: StyleLoss, tile: Summary, whole: Summary) -> Summary:
    return tile if loss.contribution is None else loss.contribution(tile, whole)

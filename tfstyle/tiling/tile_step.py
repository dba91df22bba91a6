"""What happens to one tile: its features, what the style losses keep of its inside, and its gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfstyle.losses import Objective, StyleLoss, Summaries, Summary, Tensors, content_loss

#: For each region, layer -> of each style loss.
RegionSummaries = tuple[Summaries, ...]
#: Layer, rows and columns of it inside a tile, and its positions in the whole picture.
Size = tuple[str, int, int, int]


class TilePlace(NamedTuple):
    """Where a tile's inside lies in each layer.

    Attributes:
        sizes: what a compiled function is made for.
        begins: layer -> first row and column in the crop.
        whole: layer -> rows and columns in the whole picture.
    """

    sizes: tuple[Size, ...]
    begins: dict[str, tf.Tensor]
    whole: dict[str, tuple[slice, slice]]


class LossDerivatives(NamedTuple):
    """What the second pass needs of the first: the total's derivatives, times a factor.

    Attributes:
        content: layer -> by its ½ Σ (F - P)².
        style: by the whole image's summaries.
        found: those summaries.
        factor: a power of 2.
    """

    content: Tensors
    style: RegionSummaries
    found: RegionSummaries
    factor: tf.Tensor


class TileStep:
    """The part that a tile has in an `Objective`: functions compiled once for each size of crop and inside.

    Args:
        objective: of the whole image.
        upwards: its style layers, those with larger maps first.
        compile: ``xla``, ``graph`` or ``eager``.
    """

    def __init__(self, objective: Objective, upwards: Sequence[str], compile: str) -> None:
        self._objective, self._upwards, self._compile = objective, list(upwards), compile
        self._made: dict[Any, Callable[..., Any]] = {}

    def content(self, place: TilePlace, crop: tf.Tensor) -> tuple[Tensors, Tensors]:
        """The inside's features in the content layers, and ½ Σ F² of each."""
        return self._compiled(self._content, place.sizes)(crop, place.begins)

    def terms(
        self, place: TilePlace, crop: tf.Tensor, weights: Sequence[Tensors], content: Tensors
    ) -> tuple[Tensors, RegionSummaries]:
        """½ Σ (F - P)² of each content layer, and what the style losses keep of the inside.

        Args:
            place: of the tile.
            crop: float32 ``[1, height, width, 3]`` in 0..1.
            weights: for each region, layer -> what the inside's positions count, of mean 1; or none.
            content: layer -> the inside's target.
        """
        return self._compiled(self._terms, place.sizes)(crop, place.begins, weights, content)

    def gradient(
        self,
        place: TilePlace,
        crop: tf.Tensor,
        weights: Sequence[Tensors],
        content: Tensors,
        shares: Sequence[Tensors],
        slopes: LossDerivatives,
    ) -> tf.Tensor:
        """The gradient with respect to the crop of what its inside adds to the whole image's total.

        Args:
            place, crop, weights, content: as `terms`.
            shares: for each region, layer -> the inside's share of the whole.
            slopes: the total's derivatives.
        """
        function = self._compiled(self._gradient, place.sizes)
        return function(crop, place.begins, weights, content, shares, slopes)

    def _compiled(self, function: Callable[..., Any], sizes: tuple[Size, ...]) -> Callable[..., Any]:
        """The function for tiles whose insides have these sizes."""
        key = function.__name__, sizes
        if key not in self._made:
            bound = functools.partial(function, sizes)
            xla = self._compile == "xla"
            self._made[key] = (
                bound if self._compile == "eager" else tf.function(bound, jit_compile=xla, autograph=False)
            )
        return self._made[key]

    def _inside(
        self, sizes: Sequence[Size], crop: tf.Tensor, begins: Mapping[str, tf.Tensor]
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
        self, sizes: Sequence[Size], crop: tf.Tensor, begins: Mapping[str, tf.Tensor]
    ) -> tuple[Tensors, Tensors]:
        inside = self._inside(sizes, crop, begins)
        kept = {layer: inside[layer] for layer in self._objective.content_layers}
        return kept, {layer: tf.nn.l2_loss(tf.cast(f, tf.float32)) for layer, f in kept.items()}

    def _terms(
        self,
        sizes: Sequence[Size],
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
        sizes: Sequence[Size],
        crop: tf.Tensor,
        begins: Mapping[str, tf.Tensor],
        weights: Sequence[Tensors],
        content: Tensors,
        shares: Sequence[Tensors],
        slopes: LossDerivatives,
    ) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(crop)
            inside = self._inside(sizes, crop, begins)
            parts = self._summaries(sizes, inside, weights)
            terms = [slopes.content[k] * content_loss(inside[k], target) for k, target in content.items()]
            for part, whole, slope, share in zip(parts, slopes.found, slopes.style, shares, strict=True):
                for layer in part:
                    columns = zip(
                        self._objective.style_losses, part[layer], whole[layer], slope[layer], strict=True
                    )
                    terms += [
                        share[layer] * _product(by, _addend(loss, one, all_of_it))
                        for (loss, _), one, all_of_it, by in columns
                    ]
            total = tf.add_n(terms)
        found = tape.gradient(total, crop, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return found / slopes.factor

    def _summaries(
        self, sizes: Sequence[Size], inside: Mapping[str, tf.Tensor], weights: Sequence[Tensors]
    ) -> RegionSummaries:
        """What each style loss keeps of the inside; zero where a layer has no position in it."""
        fractions = {layer: rows * columns / whole for layer, rows, columns, whole in sizes}
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
        names = self._upwards[self._upwards.index(layer) :][: loss.deeper + 1]
        nothing = [tf.zeros([1, 1, 1, inside[name].shape[-1]]) for name in names]
        there = [name for name in names if fractions[name] > 0]
        if not loss.deeper:
            return loss.summary(inside[layer] if there else nothing[0], weight if there else None)
        # One matrix for each deeper layer: a mean over its positions, of which a tile may have another share.
        matrices = list(loss.summary(nothing, None))
        others = names[1:] or names
        if layer in there and set(there) & set(others):
            found = dict(zip(there[1:] or there, loss.summary([inside[name] for name in there], weight)))
            for i, name in enumerate(others):
                if name in found:
                    matrices[i] = found[name] * (fractions[name] / fractions[layer])
        return tuple(matrices)


def _product(slopes: Summary, summary: Summary) -> tf.Tensor:
    pairs = zip(tf.nest.flatten(slopes), tf.nest.flatten(summary), strict=True)
    return tf.add_n([tf.reduce_sum(slope * value) for slope, value in pairs])


def _addend(loss: StyleLoss, part: Summary, whole: Summary) -> Summary:
    return part if loss.addend is None else loss.addend(part, whole)

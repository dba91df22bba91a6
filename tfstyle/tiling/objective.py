"""The same loss and the same gradient as the whole image's, tile by tile, in bounded memory.

A first pass sends every tile, with the halo that its features need, through the encoder and adds up what the
style losses keep of them: of the features inside the tile only, so that each position counts once. Then the
losses and their derivatives with respect to the whole image's summaries are known, and a second pass sends
each tile back with these. The gradient of a position's features reaches into the halo, where it is added to
the neighbours'. So a halo of one field of view is enough, and the sum is exact but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.losses import Band, ContentExtent, Objective, Region, Summaries, Targets, Tensors, restore_kept
from tfstyle.network import Encoder
from tfstyle.optim import loss_scale
from tfstyle.tiling.geometry import Tile, layer_positions, receptive_field, tiles
from tfstyle.tiling.host_step import BAND
from tfstyle.tiling.tile_step import LossDerivatives, RegionSummaries, TilePlace, TileStep

Arrays = dict[str, np.ndarray]


class TiledObjective:
    """An `Objective` of an image that lies in host memory and passes through the encoder in tiles.

    Args:
        objective: whose encoder is ``encoder.features``.
        encoder: VGG-19 or VGG-16.
        side: a tile's inside in pixels, rounded up to the encoder's largest stride; or two, down and across.
        compile: ``xla``, ``graph`` or ``eager``.

    Raises:
        ConfigError: a style loss that needs all positions at once, unit gradients, or an encoder whose
            fields of view are not known.
    """

    def __init__(
        self, objective: Objective, encoder: Encoder, side: int | Sequence[int], compile: str = "graph"
    ) -> None:
        self.side, self.view = side, receptive_field(encoder)
        self._objective = objective
        if objective.unit_gradients:
            raise ConfigError("normalize_gradients needs all of a layer at once; use tile=off")
        if any(loss.addend is None for loss, _ in objective.style_losses):
            raise ConfigError(
                "style_losses that sort, blur or look at places need the whole picture at once; "
                "use tile=off, or gram, mean_deviation, wasserstein, shift, chain or across"
            )
        strides = self.view.strides
        upwards = sorted(objective.style_layers, key=lambda layer: strides[layer])
        self.losses = TileStep(objective, upwards, compile)
        self._smooth = tf.function(self._smoothness, autograph=False)

    def style_summary(self, image: np.ndarray, weights: Mapping[str, Any] | None = None) -> Summaries:
        """As `Objective.style_summary`, of an image ``[1, height, width, 3]`` in host memory."""
        regions = [{k: np.asarray(w) for k, w in weights.items()}] if weights else []
        _, found = self._first_pass(np.asarray(image), regions, {})
        return found[0]

    def targets(
        self,
        content: np.ndarray,
        styles: Sequence[Summaries],
        blend_weights: Sequence[float] | None = None,
        regions: Sequence[Region] = (),
        keep: np.ndarray | None = None,
    ) -> Targets:
        """As `Objective.targets`; the content's features, weights and masks are arrays in host memory."""
        objective, content = self._objective, np.asarray(content)
        # Where no features are, only the layers' order and channels count.
        probe = objective.encoder(tf.zeros([1, 4 * self.view.alignment, 4 * self.view.alignment, 3]))
        goals = objective.goals(styles, blend_weights, len(regions))
        kept, extents = self._content_targets(content)
        return Targets(
            kept,
            goals,
            {layer: objective.normalization.content(extent) for layer, extent in extents.items()},
            objective.style_scales(goals, regions, probe),
            tuple({k: np.asarray(w) for k, w in region.weights.items()} for region in regions),
            () if keep is None else (np.asarray(keep), content),
        )

    def value_and_gradient(self, image: np.ndarray, targets: Targets) -> tuple[Tensors, np.ndarray]:
        """The objective's terms, as `Objective` gives them, and the total's gradient.

        Args:
            image: float32 ``[1, height, width, 3]`` in 0..1, in host memory.
            targets: of `targets`, at the same size.

        Returns:
            The terms, and the gradient, float32 in host memory.
        """
        objective = self._objective
        image = np.asarray(restore_kept(np.asarray(image), targets))
        energies, found = self._first_pass(image, targets.weights, targets.content)
        smooth, gradient = self._variation(image)
        with tf.GradientTape() as tape:
            tape.watch(found)
            terms = {
                f"style/{layer}": objective.style_weight
                * weight
                * objective.compared(layer, [summaries[layer] for summaries in found], targets)
                for layer, weight in objective.style_layers.items()
            }
            style = tf.add_n(list(terms.values())) if terms else tf.constant(0.0)
        by_content = {
            layer: objective.content_weight * weight * targets.content_scale[layer]
            for layer, weight in objective.content_layers.items()
        }
        content = tf.add_n([tf.constant(0.0), *(by_content[k] * energies[k] for k in by_content)])
        total = content + style + smooth
        # As in `tfstyle.step.value_and_gradient`: clear of float16's zero, and no digit changed.
        factor = loss_scale(total)
        by_style = tape.gradient(style, found, output_gradients=factor) if terms else found
        by_content = {layer: factor * slope for layer, slope in by_content.items()}
        self._second_pass(image, targets, LossDerivatives(by_content, by_style, found, factor), gradient)
        if targets.kept:
            gradient *= 1.0 - np.asarray(targets.kept[0])
        return {"total": total, "content": content, "style": style, "tv": smooth, **terms}, gradient

    def _content_targets(self, content: np.ndarray) -> tuple[Arrays, dict[str, ContentExtent]]:
        """The features of the content layers, in host memory, and how much there is of them."""
        _, height, width, _ = content.shape
        kept: Arrays = {}
        energies = dict.fromkeys(self._objective.content_layers, tf.constant(0.0))
        for tile, place in self._places(content):
            features, energy = self.losses.content(place, tf.constant(tile.cut(content)))
            for layer, values in features.items():
                array, stride = values.numpy(), self.view.strides[layer]
                if layer not in kept:
                    kept[layer] = np.empty(
                        (1, height // stride, width // stride, array.shape[-1]), array.dtype
                    )
                rows, columns = place.whole[layer]
                kept[layer][:, rows, columns] = array
                energies[layer] += energy[layer]
        extents = {
            layer: ContentExtent(
                energies[layer],
                *(tf.constant(float(n)) for n in (math.prod(p.shape[1:3]), p.shape[-1], height * width)),
            )
            for layer, p in kept.items()
        }
        return kept, extents

    def _places(self, picture: np.ndarray) -> list[tuple[Tile, TilePlace]]:
        _, height, width, _ = picture.shape
        return [
            (tile, self._place(tile, height, width)) for tile in tiles((height, width), self.side, self.view)
        ]

    def _place(self, tile: Tile, height: int, width: int) -> TilePlace:
        sizes, begins, whole = [], {}, {}
        for layer, stride in self.view.strides.items():
            top, rows, all_rows = layer_positions(tile.rows, height, stride)
            left, columns, all_columns = layer_positions(tile.columns, width, stride)
            sizes.append((layer, rows, columns, all_rows * all_columns))
            begins[layer] = tf.constant([top, left])
            first, second = tile.rows.begin // stride, tile.columns.begin // stride
            whole[layer] = slice(first, first + rows), slice(second, second + columns)
        return TilePlace(tuple(sizes), begins, whole)

    def _first_pass(
        self, image: np.ndarray, regions: Sequence[Arrays], content: Arrays
    ) -> tuple[Tensors, RegionSummaries]:
        """½ Σ (F - P)² of each content layer, and what the style losses keep of the whole image."""
        energies = dict.fromkeys(content, tf.constant(0.0))
        found: Any = None
        taken = None
        for tile, place in self._places(image):
            weights, shares = self._weights(place, regions)
            terms, parts = self.losses.terms(
                place, tf.constant(tile.cut(image)), weights, _cut(content, place)
            )
            energies = {layer: energies[layer] + terms[layer] for layer in energies}
            if found is None:
                found, taken = parts, shares
            else:
                found, taken = self._merged(found, taken, parts, shares)
        return energies, found

    def _merged(
        self, found: RegionSummaries, taken: Any, parts: RegionSummaries, shares: Any
    ) -> tuple[RegionSummaries, Any]:
        """Two sets of positions together, of which each has its share of the whole."""
        both = []
        for before, part, much, more in zip(found, parts, taken, shares, strict=True):
            both.append(
                {
                    layer: tuple(
                        loss.blend([one, other], [much[layer], more[layer]])
                        if much[layer] + more[layer] > 0
                        else one
                        for (loss, _), one, other in zip(
                            self._objective.style_losses, before[layer], part[layer], strict=True
                        )
                    )
                    for layer in before
                }
            )
        sums = [
            {layer: one[layer] + other[layer] for layer in one}
            for one, other in zip(taken, shares, strict=True)
        ]
        return tuple(both), sums

    def _second_pass(
        self, image: np.ndarray, targets: Targets, slopes: LossDerivatives, gradient: np.ndarray
    ) -> None:
        """Add each tile's gradient to the image's."""
        for tile, place in self._places(image):
            weights, shares = self._weights(place, targets.weights)
            scaled = tuple({k: tf.constant(v, tf.float32) for k, v in share.items()} for share in shares)
            crop, content = tf.constant(tile.cut(image)), _cut(targets.content, place)
            found = self.losses.gradient(place, crop, weights, content, scaled, slopes)
            tile.add(found.numpy(), gradient)

    def _weights(
        self, place: TilePlace, regions: Sequence[Mapping[str, Any]]
    ) -> tuple[tuple[Tensors, ...], list[dict[str, float]]]:
        """For each region what the inside's positions count, of mean 1, and their share of the whole."""
        fractions = {
            layer: rows * columns / whole
            for layer, rows, columns, whole in place.sizes
            if layer in self._objective.style_layers
        }
        if not regions:
            return (), [fractions]
        weights, shares = [], []
        for region in regions:
            parts, share = {}, {}
            for layer, fraction in fractions.items():
                rows, columns = place.whole[layer]
                part = np.asarray(region[layer])[:, rows, columns]
                mean = float(part.mean(dtype=np.float64)) if part.size else 0.0
                parts[layer] = tf.constant(part / mean if mean > 0 else part)
                share[layer] = fraction * mean
            weights.append(parts)
            shares.append(share)
        return tuple(weights), shares

    def _smoothness(self, image: tf.Tensor, band: Band) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(image)
            value = self._objective.tv_weight * self._objective.variation(image, band)
        return value, tape.gradient(value, image)

    def _variation(self, image: np.ndarray) -> tuple[tf.Tensor, np.ndarray]:
        """The weighted total variation and its gradient, band by band."""
        value, gradient = tf.constant(0.0), np.zeros_like(image)
        if self._objective.tv_weight == 0:
            return value, gradient
        _, height, width, _ = image.shape
        rows = max(1, BAND // width)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            band = Band(height, top == 0, bottom == height)
            part, slope = self._smooth(tf.constant(image[:, top : bottom + 1]), band)
            value += part
            gradient[:, top : bottom + 1] += slope.numpy()
        return value, gradient


def _cut(content: Mapping[str, Any], place: TilePlace) -> Tensors:
    """The target of a tile's inside."""
    cut = {}
    for layer, target in content.items():
        rows, columns = place.whole[layer]
        cut[layer] = tf.constant(target[:, rows, columns])
    return cut

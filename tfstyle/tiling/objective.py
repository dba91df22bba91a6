"""The same loss and the same gradient as the whole image's, tile by tile, in bounded memory.

A first pass sends every tile, with the margin that its features need, through the encoder and adds up the
style losses' summaries: of the features inside the tile only, so that each position counts once. Then the
losses and their derivatives with respect to the whole image's summaries are known, and a second pass
propagates these back through each tile. The gradient of a position's features reaches into the margin, where
it is added to that of the neighbouring tiles. So a margin of one receptive field is enough, and the sum is
exact but for rounding.
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
from tfstyle.tiling.host_step import BAND_PIXELS
from tfstyle.tiling.tile_step import LayerSize, LossDerivatives, RegionSummaries, TilePlace, TileStep

Arrays = dict[str, np.ndarray]
#: Layer -> share of some positions in all of the image's, by their weights.
Shares = dict[str, float]


class TiledObjective:
    """An `Objective` of an image that lies in host memory and passes through the encoder in tiles.

    Args:
        objective: of the whole image, with the encoder ``encoder.features``.
        encoder: VGG-19 or VGG-16.
        side: a tile's inside in pixels, rounded up to the encoder's largest stride; or two, down and across.
        compile: ``xla``, ``graph`` or ``eager``.

    Raises:
        ConfigError: a style loss that needs all positions at once, unit gradients, or an encoder whose
            receptive fields are not known.
    """

    def __init__(
        self, objective: Objective, encoder: Encoder, *, side: int | Sequence[int], compile: str = "graph"
    ) -> None:
        self.side, self.receptive_field = side, receptive_field(encoder)
        self._objective = objective
        if objective.unit_gradients:
            raise ConfigError("normalize_gradients needs all of a layer at once; use tile=off")
        if any(loss.contribution is None for loss, _ in objective.style_losses):
            raise ConfigError(
                "style_losses that sort, blur or look at places need the whole picture at once; "
                "use tile=off, or gram, mean_deviation, wasserstein, shift, chain or across"
            )
        strides = self.receptive_field.strides
        layers_by_size = sorted(objective.style_layers, key=lambda layer: strides[layer])
        self.tile_step = TileStep(objective, layers_by_size, compile=compile)
        self._compiled_band_variation = tf.function(self._band_variation, autograph=False)

    def style_summary(self, image: np.ndarray, weights: Mapping[str, Any] | None = None) -> Summaries:
        """As `Objective.style_summary`, of an image ``[1, height, width, 3]`` in host memory."""
        regions = [{k: np.asarray(w) for k, w in weights.items()}] if weights else []
        _, summaries = self._first_pass(np.asarray(image), regions, {})
        return summaries[0]

    def targets(
        self,
        content: np.ndarray,
        styles: Sequence[Summaries],
        *,
        blend_weights: Sequence[float] | None = None,
        regions: Sequence[Region] = (),
        keep: np.ndarray | None = None,
    ) -> Targets:
        """As `Objective.targets`; the content's features, weights and masks are arrays in host memory."""
        objective, content = self._objective, np.asarray(content)
        # Features of any image: only the layers' order and channels count.
        side = 4 * self.receptive_field.alignment
        any_features = objective.encoder(tf.zeros([1, side, side, 3]))
        style_targets = objective.style_targets(styles, blend_weights, region_count=len(regions))
        features, extents = self._content_targets(content)
        return Targets(
            content=features,
            styles=style_targets,
            content_scale={
                layer: objective.normalization.content(extent) for layer, extent in extents.items()
            },
            style_scales=objective.style_scales(style_targets, regions, features=any_features),
            weights=tuple({k: np.asarray(w) for k, w in region.weights.items()} for region in regions),
            kept_region=() if keep is None else (np.asarray(keep), content),
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
        energies, summaries = self._first_pass(image, targets.weights, targets.content)
        tv, gradient = self._variation(image)
        with tf.GradientTape() as tape:
            tape.watch(summaries)
            terms = {
                f"style/{layer}": objective.style_weight
                * weight
                * objective.style_term(layer, [region[layer] for region in summaries], targets=targets)
                for layer, weight in objective.style_layers.items()
            }
            style = tf.add_n(list(terms.values())) if terms else tf.constant(0.0)
        by_content = {
            layer: objective.content_weight * weight * targets.content_scale[layer]
            for layer, weight in objective.content_layers.items()
        }
        content = tf.add_n([tf.constant(0.0), *(by_content[k] * energies[k] for k in by_content)])
        total = content + style + tv
        # As in `tfstyle.optim.value_and_gradient`, so that float16's gradients do not vanish.
        factor = loss_scale(total)
        by_summary = tape.gradient(style, summaries, output_gradients=factor) if terms else summaries
        by_content = {layer: factor * derivative for layer, derivative in by_content.items()}
        derivatives = LossDerivatives(by_content, by_summary, summaries, factor)
        self._second_pass(image, targets, derivatives=derivatives, gradient=gradient)
        if targets.kept_region:
            gradient *= 1.0 - np.asarray(targets.kept_region[0])
        return {"total": total, "content": content, "style": style, "tv": tv, **terms}, gradient

    def _content_targets(self, content: np.ndarray) -> tuple[Arrays, dict[str, ContentExtent]]:
        """The features of the content layers, in host memory, and their extents."""
        _, height, width, _ = content.shape
        features: Arrays = {}
        energies = dict.fromkeys(self._objective.content_layers, tf.constant(0.0))
        for tile, place in self._places(content):
            inside, energy = self.tile_step.content(place, tf.constant(tile.cut(content)))
            for layer, values in inside.items():
                array, stride = values.numpy(), self.receptive_field.strides[layer]
                if layer not in features:
                    shape = 1, height // stride, width // stride, array.shape[-1]
                    features[layer] = np.empty(shape, array.dtype)
                rows, columns = place.slices[layer]
                features[layer][:, rows, columns] = array
                energies[layer] += energy[layer]
        extents = {
            layer: ContentExtent(
                energies[layer],
                *(tf.constant(float(n)) for n in (math.prod(p.shape[1:3]), p.shape[-1], height * width)),
            )
            for layer, p in features.items()
        }
        return features, extents

    def _places(self, image: np.ndarray) -> list[tuple[Tile, TilePlace]]:
        _, height, width, _ = image.shape
        return [
            (tile, self._place(tile, height, width))
            for tile in tiles((height, width), self.side, receptive_field=self.receptive_field)
        ]

    def _place(self, tile: Tile, height: int, width: int) -> TilePlace:
        sizes, begins, slices = [], {}, {}
        for layer, stride in self.receptive_field.strides.items():
            top, rows, all_rows = layer_positions(tile.rows, height, stride=stride)
            left, columns, all_columns = layer_positions(tile.columns, width, stride=stride)
            sizes.append(LayerSize(layer, rows, columns, all_rows * all_columns))
            begins[layer] = tf.constant([top, left])
            row, column = tile.rows.begin // stride, tile.columns.begin // stride
            slices[layer] = slice(row, row + rows), slice(column, column + columns)
        return TilePlace(tuple(sizes), begins, slices)

    def _first_pass(
        self, image: np.ndarray, regions: Sequence[Arrays], content: Arrays
    ) -> tuple[Tensors, RegionSummaries]:
        """½ Σ (F - P)² of each content layer, and the style losses' summaries of the whole image."""
        energies = dict.fromkeys(content, tf.constant(0.0))
        summaries: Any = None
        shares: Any = None
        for tile, place in self._places(image):
            weights, tile_shares = self._weights(place, regions)
            terms, tile_summaries = self.tile_step.terms(
                place, tf.constant(tile.cut(image)), weights=weights, content=_cut(content, place)
            )
            energies = {layer: energies[layer] + terms[layer] for layer in energies}
            if summaries is None:
                summaries, shares = tile_summaries, tile_shares
                continue
            regions_so_far = zip(summaries, shares, tile_summaries, tile_shares, strict=True)
            summaries = tuple(self._merge(*region) for region in regions_so_far)
            shares = [
                {layer: share[layer] + tile_share[layer] for layer in share}
                for share, tile_share in zip(shares, tile_shares, strict=True)
            ]
        return energies, summaries

    def _merge(
        self, summaries: Summaries, shares: Shares, tile_summaries: Summaries, tile_shares: Shares
    ) -> Summaries:
        """The summaries of a region's positions so far and of a tile's, by their shares of the whole."""
        merged = {}
        for layer, layer_summaries in summaries.items():
            share, tile_share = shares[layer], tile_shares[layer]
            losses = zip(self._objective.style_losses, layer_summaries, tile_summaries[layer], strict=True)
            merged[layer] = tuple(
                loss.blend([summary, tile_summary], [share, tile_share])
                if share + tile_share > 0
                else summary
                for (loss, _), summary, tile_summary in losses
            )
        return merged

    def _second_pass(
        self, image: np.ndarray, targets: Targets, derivatives: LossDerivatives, gradient: np.ndarray
    ) -> None:
        """Add each tile's gradient to the image's."""
        for tile, place in self._places(image):
            weights, shares = self._weights(place, targets.weights)
            tile_gradient = self.tile_step.gradient(
                place,
                tf.constant(tile.cut(image)),
                weights=weights,
                content=_cut(targets.content, place),
                shares=tuple({k: tf.constant(v, tf.float32) for k, v in s.items()} for s in shares),
                derivatives=derivatives,
            )
            tile.add(tile_gradient.numpy(), gradient)

    def _weights(
        self, place: TilePlace, regions: Sequence[Mapping[str, Any]]
    ) -> tuple[tuple[Tensors, ...], list[Shares]]:
        """For each region the weights of the inside's positions, of mean 1, and its share of the whole."""
        fractions = {
            size.layer: size.rows * size.columns / size.image_positions
            for size in place.sizes
            if size.layer in self._objective.style_layers
        }
        if not regions:
            return (), [fractions]
        weights, shares = [], []
        for region in regions:
            inside, share = {}, {}
            for layer, fraction in fractions.items():
                rows, columns = place.slices[layer]
                array = np.asarray(region[layer])[:, rows, columns]
                mean = float(array.mean(dtype=np.float64)) if array.size else 0.0
                inside[layer] = tf.constant(array / mean if mean > 0 else array)
                share[layer] = fraction * mean
            weights.append(inside)
            shares.append(share)
        return tuple(weights), shares

    def _band_variation(self, image: tf.Tensor, band: Band) -> tuple[tf.Tensor, tf.Tensor]:
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
        rows = max(1, BAND_PIXELS // width)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            band = Band(height, top == 0, bottom == height)
            rows_and_next = slice(top, bottom + 1)
            band_value, band_gradient = self._compiled_band_variation(
                tf.constant(image[:, rows_and_next]), band
            )
            value += band_value
            gradient[:, rows_and_next] += band_gradient.numpy()
        return value, gradient


def _cut(content: Mapping[str, Any], place: TilePlace) -> Tensors:
    """The content target of a tile's inside."""
    cut = {}
    for layer, target in content.items():
        rows, columns = place.slices[layer]
        cut[layer] = tf.constant(target[:, rows, columns])
    return cut

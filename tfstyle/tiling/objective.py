"""The loss and gradient of the whole image, computed tile by tile with bounded memory.

The first pass evaluates the encoder on the crop of every tile, which is its inside and a margin, and combines
the style losses' summaries of all tiles. A summary includes only the features of the inside, so that each
position counts once. The losses and their derivatives with respect to the summaries of the whole image are
then known. The second pass propagates these derivatives back through every tile. The gradient of the features
of an inside extends into the margin, where it is added to the gradient of the neighbouring tiles. A margin as
wide as the receptive field is therefore sufficient, and the sum equals the gradient of the whole image up to
rounding errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.losses import (
    NEIGHBOURS,
    SPECTRUM,
    Band,
    ContentExtent,
    Objective,
    Region,
    Summaries,
    Targets,
    Tensors,
    may_have_spectrum,
    restore_kept,
)
from tfstyle.network import Encoder, check_range
from tfstyle.optim import loss_scale, only_first_derivatives
from tfstyle.tiling.geometry import Tile, layer_positions, receptive_field, tiles
from tfstyle.tiling.host_step import BAND_PIXELS
from tfstyle.tiling.spectrum import add_spectrum_gradient, spectrum_in_bands
from tfstyle.tiling.tile_step import LayerSize, LossDerivatives, RegionSummaries, TilePlace, TileStep

Arrays = dict[str, np.ndarray]
#: Layer -> share of a tile's positions in the whole image, by the positions' weights.
Shares = dict[str, float]


class TiledObjective:
    """An `Objective` for images in host memory, evaluated tile by tile.

    Its results equal those of the objective up to rounding errors.

    Args:
        objective: the objective of the whole image. Its `encoder` must be ``encoder.features``.
        encoder: an encoder with VGG-19 or VGG-16.
        side: side of a tile's inside in pixels, or its height and width. It is rounded up to a multiple of
            the encoder's largest stride.
        compile: ``xla``, ``graph`` or ``eager``.

    Raises:
        ConfigError: a style loss needs all positions at once, the objective has unit gradients or extra
            losses, or the receptive fields of the encoder are not known.

    Reference: Galerne et al. 2024, Scaling Painting Style Transfer, for the two passes.
    Differs from Galerne et al.: the gradient in the margin of a tile is added to the gradient of the
    neighbouring tiles instead of being left out.

    Example:
        >>> import numpy as np
        >>> from tfstyle import Encoder, Objective
        >>> from tfstyle.tiling import TiledObjective
        >>> encoder = Encoder(["conv1_1", "conv2_1"], "random")
        >>> objective = Objective(
        ...     encoder.features, {"conv2_1": 1.0},
        ...     style_layers={"conv1_1": 1.0}, content_weight=1.0, style_weight=1.0,
        ... )
        >>> tiled = TiledObjective(objective, encoder, side=32)
        >>> content, style, image = np.random.default_rng(0).random((3, 1, 64, 48, 3), np.float32)
        >>> targets = tiled.targets(content, [tiled.style_summary(style)])
        >>> terms, gradient = tiled.value_and_gradient(image, targets)
        >>> sorted(terms), gradient.shape
        (['content', 'style', 'style/conv1_1', 'total', 'tv'], (1, 64, 48, 3))
    """

    def __init__(
        self, objective: Objective, encoder: Encoder, *, side: int | Sequence[int], compile: str = "graph"
    ) -> None:
        self.side, self.receptive_field = side, receptive_field(encoder)
        self._objective = objective
        if objective.unit_gradients:
            raise ConfigError(
                'normalize_gradients needs the whole image at once; turn it off or use tile="off"'
            )
        if objective.extra_losses:
            names = ", ".join(objective.extra_losses)
            raise ConfigError(
                f'extra_losses ({names}) need the whole image at once; leave them out or use tile="off"'
            )
        if objective.self_similarity_weight > 0:
            raise ConfigError(
                "content_loss self_similarity needs the whole image at once; use content_loss features or "
                'tile="off"'
            )
        losses = [loss for loss, _ in objective.style_losses]
        if NEIGHBOURS in losses:
            raise ConfigError(
                'method="neighbours" and style_losses neighbours need the whole image at once; use tile="off"'
            )
        if any(loss.contribution is None for loss in losses):
            raise ConfigError(
                "style_losses that are not sums over positions, such as histogram, sliced, local, "
                'local_by_content and blurred, need the whole image at once; use tile="off", or gram, '
                "mean_deviation, wasserstein, shift, chain or across"
            )
        layers_by_size = [name for name in self.receptive_field.strides if name in objective.style_layers]
        self.tile_step = TileStep(objective, layers_by_size, compile=compile)
        self._compiled_band_variation = tf.function(self._band_variation, autograph=False)

    def style_summary(
        self, image: np.ndarray, weights: Mapping[str, Any] | None = None, *, mask: Any = None
    ) -> Summaries:
        """Return the summaries of a style image in host memory, as `Objective.style_summary` does.

        Args:
            image: float32 ``[1, height, width, 3]`` in 0..1.
            weights, mask: as in `tfstyle.losses.Region`.

        Returns:
            Layer -> the summary of each style loss; `tfstyle.losses.SPECTRUM` -> the local spectrum.

        Raises:
            ImageError: the image has values above 2 (see `tfstyle.network.check_range`).
        """
        check_range(image)
        regions = [{k: np.asarray(w) for k, w in weights.items()}] if weights else []
        _, (summaries,) = self._first_pass(np.asarray(image), regions, None)
        if self._objective.spectrum_weight > 0 and may_have_spectrum(image):
            summaries[SPECTRUM] = (spectrum_in_bands(image, mask),)
        return summaries

    def targets(
        self,
        content: np.ndarray,
        styles: Sequence[Summaries],
        *,
        blend_weights: Sequence[float] | None = None,
        regions: Sequence[Region] = (),
        keep: np.ndarray | None = None,
    ) -> Targets:
        """Return the targets of the objective for one scale, as `Objective.targets` does.

        Args:
            content: content image in host memory, float32 ``[1, height, width, 3]`` in 0..1.
            styles: the result of `style_summary` for each style image.
            blend_weights, regions, keep: as for `Objective.targets`.

        Returns:
            Targets whose content features, weights and masks are NumPy arrays.

        Raises:
            ConfigError, ImageError: as for `Objective.targets`, or the image cannot be divided into tiles
                (see `tiles`).
        """
        objective, content = self._objective, np.asarray(content)
        check_range(content)
        # The image is arbitrary: only the order and the number of channels of the layers matter.
        side = 4 * self.receptive_field.alignment
        any_features = objective.encoder(tf.zeros([1, side, side, 3]))
        style_targets = objective.style_targets(styles, blend_weights, region_count=len(regions))
        features, extents = self._content_targets(content)
        content_weights = {
            layer: weights.numpy() for layer, weights in objective.content_position_weights(features).items()
        }
        return Targets(
            content=features,
            styles=style_targets,
            content_scale={
                layer: objective.normalization.content(extent) for layer, extent in extents.items()
            },
            style_scales=objective.style_scales(style_targets, regions, features=any_features),
            weights=tuple({k: np.asarray(w) for k, w in region.weights.items()} for region in regions),
            kept_region=() if keep is None else (np.asarray(keep), content),
            spectra=objective.spectrum_targets(content, styles, blend_weights=blend_weights, regions=regions),
            content_weights=content_weights,
        )

    def value_and_gradient(self, image: np.ndarray, targets: Targets) -> tuple[Tensors, np.ndarray]:
        """Return the objective's terms and the gradient of the total with respect to the image.

        Args:
            image: float32 ``[1, height, width, 3]`` in 0..1, in host memory.
            targets: the result of `targets` for the same size.

        Returns:
            The terms, as `Objective` returns them, and the gradient, a float32 NumPy array
            ``[1, height, width, 3]``.
        """
        objective = self._objective
        image = np.asarray(restore_kept(np.asarray(image), targets))
        energies, summaries = self._first_pass(image, targets.weights, targets)
        tv, gradient = self._variation(image)
        pixel_terms = self._add_spectrum(image, targets, gradient) | _add_temporal(image, targets, gradient)
        with tf.GradientTape() as tape, only_first_derivatives():
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
        weighted = {"content": content, "style": style, "tv": tv, **pixel_terms}
        total = tf.add_n(list(weighted.values()))
        # The scale prevents underflow in float16, as in `tfstyle.optim.value_and_gradient`.
        factor = loss_scale(total)
        by_summary = tape.gradient(style, summaries, output_gradients=factor) if terms else summaries
        by_content = {layer: factor * derivative for layer, derivative in by_content.items()}
        derivatives = LossDerivatives(by_content, by_summary, summaries, factor)
        self._second_pass(image, targets, derivatives=derivatives, gradient=gradient)
        if targets.kept_region:
            gradient *= 1.0 - np.asarray(targets.kept_region[0])
        return {
            "total": total,
            "content": content,
            "style": style,
            "tv": tv,
            **pixel_terms,
            **terms,
        }, gradient

    def _add_spectrum(self, image: np.ndarray, targets: Targets, gradient: np.ndarray) -> Tensors:
        """Return the term of the local spectrum, if it is used, and add its gradient to `gradient`."""
        if not targets.spectra:
            return {}
        masks = [target.mask[0] if target.mask else None for target in targets.spectra]
        spectra = [spectrum_in_bands(image, mask) for mask in masks]
        with tf.GradientTape() as tape:
            tape.watch(spectra)
            term = self._objective.spectrum_term(spectra, targets)
        for mask, derivative in zip(masks, tape.gradient(term, spectra), strict=True):
            add_spectrum_gradient(image, mask, derivative=derivative, gradient=gradient)
        return {"spectrum": term}

    def _content_targets(self, content: np.ndarray) -> tuple[Arrays, dict[str, ContentExtent]]:
        """Return the features of the content layers, in host memory, and their extents."""
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
                tf.constant(float(math.prod(p.shape[1:3]))),
                tf.constant(float(p.shape[-1])),
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
        self, image: np.ndarray, regions: Sequence[Arrays], targets: Targets | None
    ) -> tuple[Tensors, RegionSummaries]:
        """Return ½ Σ (F - P)² of each content layer and the style losses' summaries of the whole image."""
        content = {} if targets is None else targets.content
        content_weights = {} if targets is None else targets.content_weights
        energies = dict.fromkeys(content, tf.constant(0.0))
        summaries: Any = None
        shares: Any = None
        for tile, place in self._places(image):
            weights, tile_shares = self._weights(place, regions)
            terms, tile_summaries = self.tile_step.terms(
                place,
                tf.constant(tile.cut(image)),
                weights=weights,
                content=_cut(content, place),
                content_weights=_cut(content_weights, place),
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
        """Return the summaries of a region so far and of a tile combined, weighted by their shares."""
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
        """Add the gradient of every tile to the gradient of the image."""
        for tile, place in self._places(image):
            weights, shares = self._weights(place, targets.weights)
            tile_gradient = self.tile_step.gradient(
                place,
                tf.constant(tile.cut(image)),
                weights=weights,
                content=_cut(targets.content, place),
                content_weights=_cut(targets.content_weights, place),
                shares=tuple({k: tf.constant(v, tf.float32) for k, v in s.items()} for s in shares),
                derivatives=derivatives,
            )
            tile.add(tile_gradient.numpy(), gradient)

    def _weights(
        self, place: TilePlace, regions: Sequence[Mapping[str, Any]]
    ) -> tuple[tuple[Tensors, ...], list[Shares]]:
        """Return the weights of the inside's positions, with mean 1, and the tile's share, per region."""
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
        """Return the weighted total variation and its gradient, computed band by band."""
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


def _add_temporal(image: np.ndarray, targets: Targets, gradient: np.ndarray) -> Tensors:
    """Return the temporal loss of a frame of a video, if there is one, and add its gradient to `gradient`."""
    terms: Tensors = {}
    for target in targets.temporal:
        reference, consistency = np.asarray(target.reference), np.asarray(target.consistency)
        weight = float(target.weight) / image.size
        total, rows = 0.0, max(1, BAND_PIXELS // image.shape[2])
        for top in range(0, image.shape[1], rows):
            band = slice(top, top + rows)
            difference = image[:, band] - reference[:, band]
            weighted = consistency[:, band] * difference
            total += float(np.sum(weighted * difference, dtype=np.float64))
            gradient[:, band] += 2.0 * weight * weighted
        terms["temporal"] = tf.constant(weight * total, tf.float32)
    return terms


def _cut(content: Mapping[str, Any], place: TilePlace) -> Tensors:
    """Return the part of maps of the whole image, by layer, that belongs to the inside of a tile."""
    cut = {}
    for layer, target in content.items():
        rows, columns = place.slices[layer]
        cut[layer] = tf.constant(target[:, rows, columns])
    return cut

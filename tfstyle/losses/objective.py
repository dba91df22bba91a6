"""The objective, a weighted sum of content loss, style losses and total variation, and its targets."""

from __future__ import annotations

import contextlib
import functools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.layers import as_names
from tfstyle.losses.neighbours import HypercolumnTarget, hypercolumn_loss, hypercolumns
from tfstyle.losses.normalization import ContentExtent, LossNormalization, balanced_normalization
from tfstyle.losses.self_similarity import (
    SelfSimilarityTarget,
    self_similarity_loss,
    self_similarity_target,
)
from tfstyle.losses.spectrum import (
    is_large_enough,
    local_spectrum,
    may_have_spectrum,
    spectrum_distance,
)
from tfstyle.losses.style import GRAM, StyleLoss, Summary
from tfstyle.losses.temporal import TemporalTarget, temporal_loss
from tfstyle.losses.variation import total_variation
from tfstyle.optim import all_derivatives

#: Layer -> tensor, or name of a term of the loss -> scalar.
Tensors = dict[str, tf.Tensor]
#: Layer -> summaries of its features, one for each style loss, in the order of the style losses. The key
#: `SPECTRUM` holds the local spectrum of the image itself.
Summaries = dict[str, tuple[Summary, ...]]
#: Key of the local spectrum in `Summaries`.
SPECTRUM = "spectrum"
#: A pair of a function and the weight of its loss. The function takes the image, float32 ``[1, height, width,
#: 3]``, and a dict from layers to float32 features, and returns a scalar.
ExtraLoss = tuple[Callable[[tf.Tensor, Mapping[str, tf.Tensor]], tf.Tensor], float]


class Region(NamedTuple):
    """A region of the image to which a style, or the blend of all styles, is applied.

    Attributes:
        share: weight of the style loss of this region, in 0..1. The shares of all regions add up to 1.
        weights: layer -> weights of its positions, float32 ``[1, h, w, 1]`` of mean 1, as `position_weights`
            returns them.
        mask: the region at the size of the image, float32 ``[1, height, width, 1]`` in 0..1; None for the
            whole image. It weights the windows of the local spectrum.
    """

    share: float
    weights: Mapping[str, tf.Tensor]
    mask: tf.Tensor | None = None


class SpectrumTarget(NamedTuple):
    """Target of the local spectrum of a region, or of the whole image.

    Attributes:
        share: weight of the region, as in `Region`, a float32 scalar.
        spectrum: the result of `tfstyle.losses.local_spectrum` for the style image.
        mask: the mask of the region, as in `Region`; empty for the whole image.
    """

    share: tf.Tensor
    spectrum: tf.Tensor
    mask: tuple[tf.Tensor, ...] = ()


class Targets(NamedTuple):
    """Targets of the objective for one scale, a structure of tensors.

    Attributes:
        content: content layer -> features of the content image, ``[1, h, w, N]``.
        styles: for each region, style layer -> the targets of the style losses. Without regions it has one
            entry, for the whole image.
        content_scale: content layer -> normalisation factor of its content loss.
        style_scales: for each region, style layer -> normalisation factors of the style losses, multiplied by
            the share of the region.
        weights: for each region, style layer -> weights of its positions; empty without regions.
        kept_region: mask ``[1, height, width, 1]`` of the region that is not changed, and the content image;
            empty if there is no such region.
        spectra: the target of the local spectrum of each region whose style has one; empty if the objective
            does not use it.
        content_weights: content layer -> square roots of the weights of the positions in the content loss,
            float32 ``[1, h, w, 1]``. Empty if all weights are 1.
        temporal: the target of the temporal loss of a frame of a video; empty for a single image.
        hypercolumns: the target of the hypercolumn loss, if it is the style loss; otherwise empty.
        self_similarity: content layer -> target of the self-similarity loss; empty if the objective does not
            use it.
    """

    content: Tensors
    styles: tuple[Summaries, ...]
    content_scale: Tensors
    style_scales: tuple[dict[str, tuple[tf.Tensor, ...]], ...]
    weights: tuple[Tensors, ...] = ()
    kept_region: tuple[tf.Tensor, ...] = ()
    spectra: tuple[SpectrumTarget, ...] = ()
    content_weights: Tensors = {}  # noqa: RUF012
    temporal: tuple[TemporalTarget, ...] = ()
    hypercolumns: tuple[HypercolumnTarget, ...] = ()
    self_similarity: dict[str, SelfSimilarityTarget] = {}  # noqa: RUF012


def content_loss(features: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Return the content loss ``½ Σ (F - P)²``, summed over all positions and channels.

    Args:
        features: features F of the generated image, ``[batch, height, width, N]`` of any float type. The sum
            is computed in float32.
        target: features P of the content image, of the same shape.

    Returns:
        float32 scalar.

    Reference: Gatys, Ecker, Bethge 2016, eq. 1.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle import content_loss
        >>> float(content_loss(tf.ones([1, 4, 4, 8]), tf.zeros([1, 4, 4, 8])))  # half of 4 * 4 * 8
        64.0
    """
    return tf.nn.l2_loss(tf.cast(features, tf.float32) - tf.cast(target, tf.float32))


def weighted_content_loss(
    features: tf.Tensor, target: tf.Tensor, *, root_weights: tf.Tensor | None
) -> tf.Tensor:
    """Return the content loss ``½ Σ w (F - P)²`` with a weight w for each position, a float32 scalar.

    Args:
        features: features F of the generated image, ``[1, h, w, N]``.
        target: features P of the content image, of the same shape.
        root_weights: ``√w``, float32 ``[1, h, w, 1]``, or None for weights of 1.
    """
    if root_weights is None:
        return content_loss(features, target)
    return tf.nn.l2_loss(root_weights * (tf.cast(features, tf.float32) - tf.cast(target, tf.float32)))


def border_weights(height: int | tf.Tensor, width: int | tf.Tensor, *, border: float) -> tf.Tensor:
    """Return weights of positions, float32 ``[1, height, width, 1]``: `border` on the border and 1 inside."""
    on_border = [
        tf.equal(tf.range(length), 0) | tf.equal(tf.range(length), length - 1) for length in (height, width)
    ]
    either = on_border[0][:, tf.newaxis] | on_border[1][tf.newaxis]
    return tf.where(either, border, 1.0)[tf.newaxis, :, :, tf.newaxis]


@dataclass(frozen=True, eq=False)
class Objective:
    """The total loss ``Σ_l v_l (α C_l + ζ D_l) + β Σ_l w_l E_l + γ TV + δ S`` as a function of an image.

    C_l is the content loss of layer l, D_l is its self-similarity loss, E_l is its style loss, TV is the
    total variation of the image, and S is the distance of its local spectrum from that of the style image.
    Targets for a frame of a video add the temporal loss, see `temporal_loss`. The caller can add further
    losses. The total can be differentiated twice, for example for Hessian-vector products.

    Args:
        encoder: function of images ``[batch, height, width, 3]`` in 0..1 that returns layer -> features, such
            as `Encoder.features`. Layers of the same size must be in the order of their depth.
        content_layers: content layer -> its weight v_l.
        style_layers: style layer -> its weight w_l.
        content_weight: the weight α of the content loss.
        style_weight: the weight β of the style loss.
        tv_weight: the weight γ of the total variation.
        spectrum_weight: the weight δ of the local spectrum. Images with a side below 32 pixels, and styles
            that are given without a local spectrum, are left out of this term.
        self_similarity_weight: the weight ζ of the self-similarity loss of the content layers.
        self_similarity_seed: seed of the positions at which the self-similarity loss compares features.
        border_weight: weight of the outermost positions in the content loss. The pixels at the border are in
            the receptive fields of fewer positions than other pixels. With a weight of 1, low style losses
            leave a frame there.
        normalization: the factors that multiply C_l and E_l, such as `balanced_normalization`.
        style_losses: pairs of a `StyleLoss` and its weight. E_l is their weighted sum.
        variation: function of an image that returns TV. For evaluation in tiles it must be a
            `tfstyle.losses.Variation`.
        unit_gradients: whether to divide the gradient of the loss of each layer with respect to the features
            of the layer by the sum of its absolute values, so that every layer has the same influence. The
            result is then not the gradient of a function, and has no second derivatives.
        extra_losses: name -> a function of the image and of its features, and the weight of this loss; see
            `ExtraLoss`. If a function calls `tfstyle.gram_matrix` and computes no gradients itself, it can
            have the attribute ``first_derivatives_only = True``: the step then uses a faster form of the Gram
            matrix, whose second derivatives are wrong.

    Raises:
        ConfigError: `content_layers` or `style_layers` is not a mapping, or `extra_losses` is not a mapping
            of names to functions and finite weights.

    Reference: Gatys, Ecker, Bethge 2016, eq. 5 and 7; unit gradients as in jcjohnson/neural-style.
    Differs from Gatys: the total variation, the local spectrum, the self-similarity loss, and the factors of
    a balanced normalisation.

    Example:
        >>> import numpy as np
        >>> import tensorflow as tf
        >>> from tfstyle import Encoder, Objective
        >>> encoder = Encoder(["conv1_1", "conv2_1"], "embedded")
        >>> objective = Objective(
        ...     encoder.features, {"conv2_1": 1.0}, style_layers={"conv1_1": 0.5, "conv2_1": 0.5},
        ...     content_weight=1.0, style_weight=100.0,
        ... )
        >>> content, style, image = np.random.default_rng(0).random((3, 1, 32, 48, 3), np.float32)
        >>> targets = objective.targets(tf.constant(content), [objective.style_summary(tf.constant(style))])
        >>> terms = objective(tf.constant(image), targets)
        >>> sorted(terms)
        ['content', 'style', 'style/conv1_1', 'style/conv2_1', 'total', 'tv']
    """

    encoder: Callable[[tf.Tensor], Mapping[str, tf.Tensor]]
    content_layers: Mapping[str, float]
    _: KW_ONLY
    style_layers: Mapping[str, float]
    content_weight: float
    style_weight: float
    tv_weight: float = 0.0
    spectrum_weight: float = 0.0
    self_similarity_weight: float = 0.0
    self_similarity_seed: int = 0
    border_weight: float = 1.0
    normalization: LossNormalization = balanced_normalization
    style_losses: Sequence[tuple[StyleLoss, float]] = ((GRAM, 1.0),)
    variation: Callable[..., tf.Tensor] = total_variation
    unit_gradients: bool = False
    extra_losses: Mapping[str, ExtraLoss] = field(default_factory=dict)
    #: The step evaluates it inside `tfstyle.optim.only_first_derivatives`, where the losses are faster.
    first_derivatives_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for option in ("content_layers", "style_layers"):
            value = getattr(self, option)
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"{option} is {value!r}; give a mapping of layers to weights, such as {{'conv4_2': 1.0}} "
                    "or tfstyle.losses.shares(layers, None)"
                )
        check_extra_losses(self.extra_losses)

    def targets(
        self,
        content: tf.Tensor,
        styles: Sequence[Summaries],
        *,
        blend_weights: Sequence[float] | None = None,
        regions: Sequence[Region] = (),
        keep: tf.Tensor | None = None,
    ) -> Targets:
        """Compute the targets from a content image and one or more styles.

        Args:
            content: the content image, float32 ``[1, height, width, 3]`` in 0..1, of the size of the
                generated image.
            styles: the result of `style_summary` for each style image.
            blend_weights: for each style its non-negative weight in the blend; by default 1.
            regions: the regions of the styles. Without regions the blend of all styles applies to the whole
                image, and with one region it applies to the region. Several regions are those of the styles,
                in the same order.
            keep: mask of the pixels that are not changed, float32 ``[1, height, width, 1]`` in 0..1, or None.

        Returns:
            The targets.

        Raises:
            ConfigError: there is no style, or the number of blend weights or of regions does not match the
                number of styles.
        """
        features = self.encoder(content)
        deepest = self._style_layers_by_size(features)[-1] if self.style_layers else ""
        assigned = any(loss.assign for loss, _ in self.style_losses)
        content_summaries = self._summaries(features, {}) if assigned else {}
        style_targets = self.style_targets(
            styles, blend_weights, region_count=len(regions), content=content_summaries, deepest=deepest
        )
        return self._content_targets(features)._replace(
            styles=style_targets,
            style_scales=self.style_scales(style_targets, regions, features=features),
            weights=tuple(dict(region.weights) for region in regions),
            kept_region=() if keep is None else (keep, content),
            spectra=self.spectrum_targets(content, styles, blend_weights=blend_weights, regions=regions),
        )

    def _content_targets(self, features: Mapping[str, tf.Tensor]) -> Targets:
        """Return the targets of the content loss and of the self-similarity loss alone."""
        content = {layer: features[layer] for layer in self.content_layers}
        return Targets(
            content=content,
            styles=(),
            content_scale={layer: self.normalization.content(_extent(f)) for layer, f in content.items()},
            style_scales=(),
            content_weights=self.content_position_weights(content),
            self_similarity=self._self_similarity_targets(content),
        )

    def _self_similarity_targets(self, content: Tensors) -> dict[str, SelfSimilarityTarget]:
        """Return the targets of the self-similarity loss, one for each content layer."""
        if self.self_similarity_weight == 0:
            return {}
        return {
            layer: self_similarity_target(features, seed=self.self_similarity_seed)
            for layer, features in content.items()
        }

    def content_position_weights(self, content: Mapping[str, tf.Tensor | np.ndarray]) -> Tensors:
        """Return `Targets.content_weights` for the features of the content layers."""
        if self.border_weight == 1:
            return {}
        sizes = {
            layer: (features.shape[1] or tf.shape(features)[1], features.shape[2] or tf.shape(features)[2])
            for layer, features in content.items()
        }
        return {
            layer: tf.sqrt(border_weights(*size, border=self.border_weight)) for layer, size in sizes.items()
        }

    def spectrum_targets(
        self,
        content: tf.Tensor,
        styles: Sequence[Summaries],
        *,
        blend_weights: Sequence[float] | None,
        regions: Sequence[Region],
    ) -> tuple[SpectrumTarget, ...]:
        """Compute the targets of the local spectrum of each region, or of the whole image.

        Args:
            content, styles, blend_weights, regions: as for `targets`. Styles without a spectrum are left
                out.

        Returns:
            One target for each region whose style has a spectrum, or one for the whole image.
        """
        if self.spectrum_weight == 0 or not may_have_spectrum(content):
            return ()
        weights = [1.0] * len(styles) if blend_weights is None else list(blend_weights)
        areas = list(regions) or [Region(1.0, {})]
        groups = [[i] for i in range(len(styles))] if len(regions) > 1 else [range(len(styles))]
        targets = []
        for region, group in zip(areas, groups, strict=True):
            chosen = [(styles[i][SPECTRUM][0], float(weights[i])) for i in group if SPECTRUM in styles[i]]
            if sum(weight for _, weight in chosen) > 0:
                # If the size of an image is known only when the graph runs, a small image has spectrum 0.
                parts = [tf.where(tf.reduce_any(spectrum != 0), weight, 0.0) for spectrum, weight in chosen]
                total = tf.add_n(parts)
                weighted = [spectrum * part for (spectrum, _), part in zip(chosen, parts, strict=True)]
                spectrum = tf.math.divide_no_nan(tf.add_n(weighted), total)
                usable = is_large_enough(content) & (total > 0)
                mask = () if region.mask is None else (region.mask,)
                targets.append(SpectrumTarget(tf.where(usable, region.share, 0.0), spectrum, mask))
        return tuple(targets)

    def style_targets(
        self,
        styles: Sequence[Summaries],
        blend_weights: Sequence[float] | None,
        *,
        region_count: int,
        content: Summaries | None = None,
        deepest: str = "",
    ) -> tuple[Summaries, ...]:
        """Compute the targets of the style losses for each region.

        Args:
            styles, blend_weights: as for `targets`.
            region_count: number of regions; 0 for the whole image.
            content: summaries of the content image, which `StyleLoss.assign` needs.
            deepest: the deepest style layer, whose summaries `StyleLoss.assign` compares.

        Returns:
            For each region, or for the whole image, style layer -> targets of the style losses.

        Raises:
            ConfigError: as for `targets`.
        """
        weights = [1.0] * len(styles) if blend_weights is None else list(blend_weights)
        if not styles or len(weights) != len(styles):
            raise ConfigError(
                f"{len(weights)} blend weights for {len(styles)} styles; give at least one style, and as "
                "many blend weights as styles"
            )
        if region_count > 1 and region_count != len(styles):
            raise ConfigError(
                f"{region_count} regions for {len(styles)} styles; give at most one region, or one for "
                "each style"
            )
        groups = [[i] for i in range(len(styles))] if region_count > 1 else [range(len(styles))]
        return tuple(
            self._blend([styles[i] for i in group], [weights[i] for i in group], content or {}, deepest)
            for group in groups
        )

    def style_summary(
        self,
        image: tf.Tensor,
        weights: Mapping[str, tf.Tensor] | None = None,
        *,
        mask: tf.Tensor | None = None,
    ) -> Summaries:
        """Return the summaries of an image for the style losses, and its local spectrum if it is used.

        Args:
            image: float32 ``[1, height, width, 3]`` in 0..1.
            weights: style layer -> weights of its positions, as in `Region`. In a layer without an entry, all
                positions have the same weight. None stands for no entries.
            mask: the region at the size of the image, as in `Region`.

        Returns:
            Style layer -> one summary for each style loss; `SPECTRUM` -> the local spectrum.
        """
        summaries = self._summaries(self.encoder(image), weights or {})
        if self.spectrum_weight > 0 and may_have_spectrum(image):
            summaries[SPECTRUM] = (local_spectrum(image, mask),)
        return summaries

    def _summaries(self, features: Mapping[str, tf.Tensor], weights: Mapping[str, tf.Tensor]) -> Summaries:
        return {
            layer: tuple(
                _summary(loss, self.layer_features(features, layer), weights.get(layer))
                for loss, _ in self.style_losses
            )
            for layer in self.style_layers
        }

    def layer_features(self, features: Mapping[str, tf.Tensor], layer: str) -> list[tf.Tensor]:
        """Return the features of a layer and of the deeper style layers that the style losses need.

        Args:
            features: layer -> features of an image, ``[1, h, w, N]``.
            layer: a style layer.

        Returns:
            The features of the layer, followed by those of the deeper style layers from shallow to deep.
        """
        deeper_layers = max((loss.deeper_layers for loss, _ in self.style_losses), default=0)
        if deeper_layers == 0:
            return [features[layer]]
        layers = self._style_layers_by_size(features)
        index = layers.index(layer)
        return [features[name] for name in layers[index : index + deeper_layers + 1]]

    def _style_layers_by_size(self, features: Mapping[str, tf.Tensor]) -> list[str]:
        """Return the style layers from shallow to deep: by descending height, then in the encoder's order."""
        layers = [name for name in features if name in self.style_layers]
        return sorted(layers, key=lambda name: -(features[name].shape[1] or 0))

    def _blend(
        self, styles: Sequence[Summaries], weights: Sequence[float], content: Summaries, deepest: str
    ) -> Summaries:
        blend = {}
        for layer in self.style_layers:
            targets = []
            for i, (loss, _) in enumerate(self.style_losses):
                summaries = [style[layer][i] for style in styles]
                if loss.assign is not None:
                    parts = [loss.assign(style[deepest][i], content[deepest][i]) for style in styles]
                    summaries = [_rearranged(s, indices) for s, indices in zip(summaries, parts, strict=True)]
                targets.append(loss.blend(summaries, weights))
            blend[layer] = tuple(targets)
        return blend

    def style_scales(
        self, styles: Sequence[Summaries], regions: Sequence[Region], *, features: Mapping[str, tf.Tensor]
    ) -> tuple[dict[str, tuple[tf.Tensor, ...]], ...]:
        """Compute the normalisation factors of the style losses.

        Args:
            styles: for each region, or for the whole image, the targets of the style losses.
            regions: as for `targets`.
            features: layer -> features of any image. Only the numbers of channels and the order of the
                heights matter.

        Returns:
            For each region, or for the whole image, style layer -> scalar factors of the style losses,
            multiplied by the share of the region.
        """
        region_shares = [region.share for region in regions] or [1.0]
        return tuple(
            self._region_scales(targets, share, features)
            for targets, share in zip(styles, region_shares, strict=True)
        )

    def _region_scales(
        self, targets: Summaries, share: float, features: Mapping[str, tf.Tensor]
    ) -> dict[str, tuple[tf.Tensor, ...]]:
        scales = {}
        for layer, layer_targets in targets.items():
            channels = features[layer].shape[-1]
            zeros = [tf.zeros([1, 1, 1, f.shape[-1]]) for f in self.layer_features(features, layer)]
            scales[layer] = tuple(
                share
                * self.normalization.style(loss, loss.distance(_summary(loss, zeros, None), target), channels)
                for (loss, _), target in zip(self.style_losses, layer_targets, strict=True)
            )
        return scales

    def __call__(self, image: tf.Tensor, targets: Targets) -> Tensors:
        """Evaluate the loss of an image.

        Args:
            image: the generated image, float32 ``[1, height, width, 3]`` in 0..1.
            targets: the result of `targets` for a content image of the same size.

        Returns:
            float32 scalars by name: ``total``; its weighted terms ``content``, ``style``, ``tv``, if the
            local spectrum is used ``spectrum``, if the self-similarity loss is used ``self_similarity``, for
            a frame of a video ``temporal``, and ``extra/<name>`` for each extra loss, which add up to
            ``total``; and ``style/<layer>`` for each style layer, which add up to ``style``.

        Raises:
            ConfigError: the function of an extra loss does not return a scalar.
        """
        image = restore_kept(image, targets)
        features = self.encoder(image)
        content_terms = [
            weight * self._evaluate(self._content_term(targets, layer), [features[layer]])
            for layer, weight in self.content_layers.items()
        ]
        style_terms = {} if targets.hypercolumns else self._style_terms(features, targets)
        style = tf.add_n(list(style_terms.values())) if style_terms else tf.constant(0.0)
        for columns in targets.hypercolumns:
            style = self.style_weight * hypercolumn_loss(features, list(self.style_layers), target=columns)
        content = self.content_weight * tf.add_n(content_terms) if content_terms else tf.constant(0.0)
        tv = self.tv_weight * self.variation(image) if self.tv_weight > 0 else tf.constant(0.0)
        terms = {"content": content, "style": style, "tv": tv}
        if targets.spectra:
            terms["spectrum"] = self.spectrum_term(
                [local_spectrum(image, *target.mask) for target in targets.spectra], targets
            )
        if targets.self_similarity:
            terms["self_similarity"] = self._self_similarity_term(features, targets)
        for target in targets.temporal:
            loss = temporal_loss(image, target.reference, consistency=target.consistency)
            terms["temporal"] = target.weight * loss
        terms |= self._extra_terms(image, features)
        return {"total": tf.add_n(list(terms.values())), **terms, **style_terms}

    def _style_terms(self, features: Mapping[str, tf.Tensor], targets: Targets) -> Tensors:
        """Return a dict from ``style/<layer>`` to the weighted style loss of the layer."""
        return {
            f"style/{layer}": self.style_weight
            * weight
            * self._evaluate(self._layer_style_term(targets, layer), self.layer_features(features, layer))
            for layer, weight in self.style_layers.items()
        }

    def hypercolumns(self, image: tf.Tensor) -> tf.Tensor:
        """Return the hypercolumns of an image over the style layers, see `tfstyle.losses.hypercolumns`.

        Args:
            image: float32 ``[1, height, width, 3]`` in 0..1.
        """
        return hypercolumns(self.encoder(image), list(self.style_layers), shape=tf.shape(image)[1:3])

    def hypercolumn_targets(
        self, content: tf.Tensor, columns: tf.Tensor, *, weights: tf.Tensor, keep: tf.Tensor | None = None
    ) -> Targets:
        """Compute targets with which the style loss is the hypercolumn loss.

        Args:
            content, keep: as for `targets`.
            columns: the hypercolumns that the image should have, ``[1, h, w, N]``, of length 1.
            weights: weights of the positions, float32 ``[1, h, w, 1]``.

        Returns:
            The targets, without summaries of style images and without local spectra.
        """
        features = self.encoder(content)
        parts = tf.split(columns, [features[layer].shape[-1] for layer in self.style_layers], -1)
        target = HypercolumnTarget(tuple(parts), weights)
        return self._content_targets(features)._replace(
            hypercolumns=(target,), kept_region=() if keep is None else (keep, content)
        )

    def blank_style_loss(self, targets: Targets) -> tf.Tensor:
        """Return the weighted style loss of an image whose features are all 0, a float32 scalar.

        It is the unit of the temporal weight of videos, so that the weight has the same meaning with every
        normalisation and style weight. With the balanced normalisation it equals the style weight.

        Args:
            targets: the targets of any scale.
        """
        side = 64  # arbitrary: only the order and the number of channels of the layers matter
        features = self.encoder(tf.zeros([1, side, side, 3]))
        terms = [tf.constant(0.0)]
        for layer, weight in self.style_layers.items():
            zeros = [tf.zeros([1, 1, 1, f.shape[-1]]) for f in self.layer_features(features, layer)]
            blank = tuple(_summary(loss, zeros, None) for loss, _ in self.style_losses)
            terms.append(weight * self.style_term(layer, [blank] * len(targets.styles), targets=targets))
        return self.style_weight * tf.add_n(terms)

    def _extra_terms(self, image: tf.Tensor, features: Mapping[str, tf.Tensor]) -> Tensors:
        """Return the weighted extra losses by the names ``extra/<name>``."""
        if not self.extra_losses:
            return {}
        features = {layer: tf.cast(maps, tf.float32) for layer, maps in features.items()}
        terms = {}
        for name, (function, weight) in self.extra_losses.items():
            fast = getattr(function, "first_derivatives_only", False)
            with contextlib.nullcontext() if fast else all_derivatives():
                value = function(image, features)
            if not tf.is_tensor(value) or not (value.dtype.is_floating or value.dtype.is_integer):
                kind = f"{value.dtype.name} tensor" if tf.is_tensor(value) else type(value).__name__
                raise ConfigError(
                    f"the extra loss {name!r} returned a {kind}; return a scalar tensor that is computed "
                    "from the image or the features"
                )
            loss = tf.cast(value, tf.float32)
            if loss.shape.rank is None:  # as that of tf.py_function
                loss = tf.ensure_shape(loss, [])
            if loss.shape.rank != 0:
                raise ConfigError(
                    f"the extra loss {name!r} returned shape {tuple(loss.shape)}; return a scalar, for "
                    "example by tf.reduce_mean"
                )
            terms[f"extra/{name}"] = weight * loss
        return terms

    def spectrum_term(self, spectra: Sequence[tf.Tensor], targets: Targets) -> tf.Tensor:
        """Return the weighted distance of local spectra from their targets, a float32 scalar.

        Args:
            spectra: the local spectrum of the generated image in the region of each entry of
                ``targets.spectra``.
            targets: the targets.
        """
        distances = [
            target.share * spectrum_distance(spectrum, target.spectrum)
            for spectrum, target in zip(spectra, targets.spectra, strict=True)
        ]
        return self.spectrum_weight * tf.add_n(distances)

    def _self_similarity_term(self, features: Mapping[str, tf.Tensor], targets: Targets) -> tf.Tensor:
        """Return the weighted self-similarity loss of the content layers, a float32 scalar."""
        losses = [
            self.content_layers[layer]
            * self._evaluate(functools.partial(self_similarity_loss, target=target), [features[layer]])
            for layer, target in targets.self_similarity.items()
        ]
        return self.self_similarity_weight * tf.add_n(losses)

    def _content_term(self, targets: Targets, layer: str) -> Callable[..., tf.Tensor]:
        """Return the normalised content loss C_l as a function of the features of the layer."""
        scale, target = targets.content_scale[layer], targets.content[layer]
        weights = targets.content_weights.get(layer)
        return lambda features: scale * weighted_content_loss(features, target, root_weights=weights)

    def _layer_style_term(self, targets: Targets, layer: str) -> Callable[..., tf.Tensor]:
        """Return the normalised style loss E_l as a function of the result of `layer_features`."""
        region_weights = [weights[layer] for weights in targets.weights] or [None]

        def term(*features: tf.Tensor) -> tf.Tensor:
            summaries = [
                tuple(_summary(loss, features, weight) for loss, _ in self.style_losses)
                for weight in region_weights
            ]
            return self.style_term(layer, summaries, targets=targets)

        return term

    def style_term(
        self, layer: str, summaries: Sequence[tuple[Summary, ...]], *, targets: Targets
    ) -> tf.Tensor:
        """Return the normalised style loss E_l of a layer, summed over the regions.

        Args:
            layer: a style layer.
            summaries: for each region, or for the whole image, one summary of the generated image for each
                style loss.
            targets: the targets.

        Returns:
            float32 scalar.
        """
        terms = []
        for region_summaries, style, scales in zip(
            summaries, targets.styles, targets.style_scales, strict=True
        ):
            losses = zip(self.style_losses, region_summaries, style[layer], scales[layer], strict=True)
            terms += [
                weight * scale * loss.distance(summary, target)
                for (loss, weight), summary, target, scale in losses
            ]
        return tf.add_n(terms)

    def _evaluate(self, loss: Callable[..., tf.Tensor], features: Sequence[tf.Tensor]) -> tf.Tensor:
        return _with_unit_gradient(loss, features) if self.unit_gradients else loss(*features)


def check_extra_losses(extra_losses: Any) -> None:
    """Check that extra losses are a mapping of names to pairs of a function and a finite weight.

    Raises:
        ConfigError: they are not.
    """
    expected = (
        'give a mapping of names to pairs of a function and its weight, such as {"dark": (function, 0.1)}'
    )
    if not isinstance(extra_losses, Mapping):
        raise ConfigError(f"extra_losses is a {type(extra_losses).__name__}; {expected}")
    for name, loss in extra_losses.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"extra_losses has the name {name!r}; {expected}")
        if not isinstance(loss, (tuple, list)) or len(loss) != 2 or not callable(loss[0]):
            raise ConfigError(f"the extra loss {name!r} is {loss!r}; {expected}")
        weight = loss[1]
        is_number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
        if not is_number or not math.isfinite(weight):
            raise ConfigError(f"the weight of the extra loss {name!r} is {weight!r}; give a finite number")


def restore_kept(image: tf.Tensor, targets: Targets) -> tf.Tensor:
    """Return the image with the content image in the region that is not changed.

    Args:
        image: float32 ``[1, height, width, 3]``.
        targets: targets of the same size.

    Returns:
        ``image + mask (content - image)``; the image itself if `Targets.kept_region` is empty.
    """
    if not targets.kept_region:
        return image
    mask, content = targets.kept_region
    return image + mask * (content - image)


def shares(layers: Sequence[str], given: Sequence[float] | None) -> dict[str, float]:
    """Return the weights of layers divided by their sum, so that they add up to 1 as in Gatys et al.

    Args:
        layers: names of the layers.
        given: a weight for each layer; None for equal weights.

    Returns:
        Layer -> its share of the loss.

    Raises:
        ConfigError: `layers` is a string, or not an iterable of strings.

    Example:
        >>> from tfstyle.losses import shares
        >>> shares(["conv1_1", "conv2_1"], [1.0, 3.0])
        {'conv1_1': 0.25, 'conv2_1': 0.75}
    """
    layers = as_names(layers)
    weights = given or [1.0] * len(layers)
    return {layer: weight / sum(weights) for layer, weight in zip(layers, weights, strict=True)}


def _extent(target: tf.Tensor) -> ContentExtent:
    _, height, width, channels = tf.unstack(tf.cast(tf.shape(target), tf.float32))
    return ContentExtent(tf.nn.l2_loss(tf.cast(target, tf.float32)), height * width, channels)


def _summary(loss: StyleLoss, features: Sequence[tf.Tensor], weight: tf.Tensor | None) -> Summary:
    return loss.summary(features[: loss.deeper_layers + 1] if loss.deeper_layers else features[0], weight)


def _rearranged(summary: Summary, indices: tf.Tensor) -> Summary:
    """Return a summary with its parts, along the first axis of its tensors, rearranged by indices."""
    return tf.nest.map_structure(lambda parts: tf.gather(parts, indices), summary)


def _with_unit_gradient(loss: Callable[..., tf.Tensor], features: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return ``loss(*features)`` with its gradient divided by the sum of the gradient's absolute values."""
    constants = [tf.stop_gradient(x) for x in features]
    with tf.GradientTape() as tape:
        tape.watch(constants)
        value = loss(*constants)
    gradients = [
        tf.cast(gradient, tf.float32)
        for gradient in tape.gradient(value, constants, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    ]
    total = tf.add_n([tf.reduce_sum(tf.abs(gradient)) for gradient in gradients])
    scale = 1.0 / (total + 1e-8)  # the constant of jcjohnson/neural-style
    # The added sums are zero, and their gradients are the scaled gradients.
    return tf.stop_gradient(value) + tf.add_n(
        [
            tf.reduce_sum(tf.stop_gradient(scale * gradient) * tf.cast(x - constant, tf.float32))
            for gradient, x, constant in zip(gradients, features, constants, strict=True)
        ]
    )

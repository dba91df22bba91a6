"""The objective: the weighted sum of content loss, style losses and total variation, and its targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.losses.normalization import ContentExtent, LossNormalization, balanced_normalization
from tfstyle.losses.style import GRAM, StyleLoss, Summary
from tfstyle.losses.variation import total_variation

#: Layer -> tensor, or name of a loss -> scalar.
Tensors = dict[str, tf.Tensor]
#: Layer -> the summary that each style loss takes of it, in the order of the losses.
Summaries = dict[str, tuple[Summary, ...]]


class Region(NamedTuple):
    """A region of the image that takes one style.

    Attributes:
        share: of the style loss that is this region's; all shares add up to 1.
        weights: layer -> weight of each position, float32 ``[1, h, w, 1]`` of mean 1.
    """

    share: float
    weights: Mapping[str, tf.Tensor]


class Targets(NamedTuple):
    """Targets of the objective for one scale; a structure of tensors.

    Attributes:
        content: layer -> features ``[1, h, w, N]``.
        styles: for each region, layer -> the target of each style loss.
        content_scale: layer -> factor of the layer's content loss.
        style_scales: for each region, layer -> factor of each style loss.
        weights: for each region, layer -> the weights of its positions; empty where all weigh the same.
        kept_region: ``()``, or a mask ``[1, height, width, 1]`` and the image that is not changed there.
    """

    content: Tensors
    styles: tuple[Summaries, ...]
    content_scale: Tensors
    style_scales: tuple[dict[str, tuple[tf.Tensor, ...]], ...]
    weights: tuple[Tensors, ...] = ()
    kept_region: tuple[tf.Tensor, ...] = ()


def content_loss(features: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """``½ Σ (F - P)²`` over positions and channels.

    Args:
        features: ``[batch, height, width, N]``, any float type; the sum is taken in float32.
        target: the content image's features, same shape.

    Returns:
        float32 scalar.

    Reference: Gatys, Ecker, Bethge 2016, eq. 1.
    """
    return tf.nn.l2_loss(tf.cast(features, tf.float32) - tf.cast(target, tf.float32))


@dataclass(frozen=True, eq=False)
class Objective:
    """``α Σ_l v_l C_l + β Σ_l w_l E_l + γ TV`` as a function of an image and targets.

    Args:
        encoder: a function from images to features by layer, such as `Encoder.features`.
        content_layers: layer -> its weight v_l.
        style_layers: layer -> its weight w_l.
        content_weight, style_weight, tv_weight: α, β, γ.
        normalization: factors of the layers' losses, such as `balanced_normalization`.
        style_losses: pairs of a `StyleLoss` and its weight; E_l is their weighted sum.
        variation: TV, a function of an image; for tiles a `tfstyle.losses.Variation`.
        unit_gradients: divide the gradient of each layer's loss with respect to its features by the sum
            of its absolute values, so that every layer has the same influence.

    Reference: Gatys, Ecker, Bethge 2016, eq. 5 and 7; unit gradients as in jcjohnson/neural-style.
    Differs from Gatys: the total-variation term, and the factors of a balanced normalization.
    """

    encoder: Callable[[tf.Tensor], Mapping[str, tf.Tensor]]
    content_layers: Mapping[str, float]
    _: KW_ONLY
    style_layers: Mapping[str, float]
    content_weight: float
    style_weight: float
    tv_weight: float = 0.0
    normalization: LossNormalization = balanced_normalization
    style_losses: Sequence[tuple[StyleLoss, float]] = ((GRAM, 1.0),)
    variation: Callable[..., tf.Tensor] = total_variation
    unit_gradients: bool = False

    def targets(
        self,
        content: tf.Tensor,
        styles: Sequence[Summaries],
        *,
        blend_weights: Sequence[float] | None = None,
        regions: Sequence[Region] = (),
        keep: tf.Tensor | None = None,
    ) -> Targets:
        """Compute the targets of a content image and of one or more styles.

        Args:
            content: ``[1, height, width, 3]`` in 0..1, of the size of the image to be made.
            styles: the result of `style_summary` for each style image.
            blend_weights: one number per style, the weight of its summaries in the blend; all 1 by default.
            regions: none: the blend of all styles everywhere; one: the blend inside it; else one per style.
            keep: mask ``[1, height, width, 1]``, 1 where the content image is not changed.

        Raises:
            ConfigError: no style, not one weight per style, or not one region per style.
        """
        features = self.encoder(content)
        content_features = {layer: features[layer] for layer in self.content_layers}
        deepest = self._style_layers_by_size(features)[-1] if self.style_layers else ""
        assigned = any(loss.assign for loss, _ in self.style_losses)
        content_summaries = self._summaries(features, {}) if assigned else {}
        style_targets = self.style_targets(
            styles, blend_weights, region_count=len(regions), content=content_summaries, deepest=deepest
        )
        extents = {layer: _extent(target, content) for layer, target in content_features.items()}
        return Targets(
            content=content_features,
            styles=style_targets,
            content_scale={layer: self.normalization.content(extent) for layer, extent in extents.items()},
            style_scales=self.style_scales(style_targets, regions, features=features),
            weights=tuple(dict(region.weights) for region in regions),
            kept_region=() if keep is None else (keep, content),
        )

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
            content: the content image's summaries, for a `StyleLoss.assign`.
            deepest: the layer whose summaries it compares.

        Raises:
            ConfigError: as for `targets`.
        """
        weights = [1.0] * len(styles) if blend_weights is None else list(blend_weights)
        if not styles or len(weights) != len(styles):
            raise ConfigError(f"{len(styles)} styles with {len(weights)} blend weights")
        if region_count > 1 and region_count != len(styles):
            raise ConfigError(f"{len(styles)} styles with {region_count} regions")
        groups = [[i] for i in range(len(styles))] if region_count > 1 else [range(len(styles))]
        return tuple(
            self._blend([styles[i] for i in group], [weights[i] for i in group], content or {}, deepest)
            for group in groups
        )

    def style_summary(self, image: tf.Tensor, weights: Mapping[str, tf.Tensor] | None = None) -> Summaries:
        """Layer -> the summary that each style loss takes of one image ``[1, height, width, 3]``.

        Args:
            image: float32 in 0..1.
            weights: layer -> the weights of its positions, as in `Region`.
        """
        return self._summaries(self.encoder(image), weights or {})

    def _summaries(self, features: Mapping[str, tf.Tensor], weights: Mapping[str, tf.Tensor]) -> Summaries:
        return {
            layer: tuple(
                _summary(loss, self.layer_features(features, layer), weights.get(layer))
                for loss, _ in self.style_losses
            )
            for layer in self.style_layers
        }

    def layer_features(self, features: Mapping[str, tf.Tensor], layer: str) -> list[tf.Tensor]:
        """The layer's features, and those of the deeper style layers that any of the style losses needs."""
        deeper_layers = max((loss.deeper_layers for loss, _ in self.style_losses), default=0)
        if deeper_layers == 0:
            return [features[layer]]
        layers = self._style_layers_by_size(features)
        index = layers.index(layer)
        return [features[name] for name in layers[index : index + deeper_layers + 1]]

    def _style_layers_by_size(self, features: Mapping[str, tf.Tensor]) -> list[str]:
        """The style layers, those with larger maps first."""
        return sorted(self.style_layers, key=lambda name: -(features[name].shape[1] or 0))

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
        """For each region, layer -> the factor of each style loss.

        Args:
            styles: for each region, the targets of the style losses.
            regions: as for `targets`.
            features: of any image; only their numbers of channels and the order of their sizes count.
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
        """Evaluate the loss.

        Args:
            image: float32 ``[1, height, width, 3]`` in 0..1.
            targets: of `targets`, at the same size.

        Returns:
            float32 scalars: ``total``, and its weighted terms ``content``, ``style`` and ``tv``, and
            ``style/<layer>`` for each style layer; the terms add up to the total.
        """
        image = restore_kept(image, targets)
        features = self.encoder(image)
        content_terms = [
            weight * self._evaluate(self._content_term(targets, layer), [features[layer]])
            for layer, weight in self.content_layers.items()
        ]
        style_terms = {
            f"style/{layer}": self.style_weight
            * weight
            * self._evaluate(self._layer_style_term(targets, layer), self.layer_features(features, layer))
            for layer, weight in self.style_layers.items()
        }
        style = tf.add_n(list(style_terms.values())) if style_terms else tf.constant(0.0)
        content = self.content_weight * tf.add_n(content_terms) if content_terms else tf.constant(0.0)
        tv = self.tv_weight * self.variation(image) if self.tv_weight > 0 else tf.constant(0.0)
        return {"total": content + style + tv, "content": content, "style": style, "tv": tv, **style_terms}

    def _content_term(self, targets: Targets, layer: str) -> Callable[..., tf.Tensor]:
        """C_l, scaled, as a function of the layer's features."""
        scale, target = targets.content_scale[layer], targets.content[layer]
        return lambda features: scale * content_loss(features, target)

    def _layer_style_term(self, targets: Targets, layer: str) -> Callable[..., tf.Tensor]:
        """E_l, scaled, as a function of `layer_features`."""
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
        """E_l, scaled, of the summaries that the style losses take of the image in each region."""
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


def restore_kept(image: tf.Tensor, targets: Targets) -> tf.Tensor:
    """The image with the content image put back in the kept region."""
    if not targets.kept_region:
        return image
    mask, content = targets.kept_region
    return image + mask * (content - image)


def shares(layers: Sequence[str], given: Sequence[float] | None) -> dict[str, float]:
    """Layer -> its share of the loss; the shares add up to 1, as Gatys et al. have them.

    Args:
        layers: their names.
        given: a weight for each layer; None for equal shares.
    """
    weights = given or [1.0] * len(layers)
    return {layer: weight / sum(weights) for layer, weight in zip(layers, weights, strict=True)}


def _extent(target: tf.Tensor, content: tf.Tensor) -> ContentExtent:
    sizes = tf.cast(tf.shape(target), tf.float32), tf.cast(tf.shape(content), tf.float32)
    (_, height, width, channels), (_, rows, columns, _) = (tf.unstack(size) for size in sizes)
    energy = tf.nn.l2_loss(tf.cast(target, tf.float32))
    return ContentExtent(energy, height * width, channels, rows * columns)


def _summary(loss: StyleLoss, features: Sequence[tf.Tensor], weight: tf.Tensor | None) -> Summary:
    return loss.summary(features[: loss.deeper_layers + 1] if loss.deeper_layers else features[0], weight)


def _rearranged(summary: Summary, indices: tf.Tensor) -> Summary:
    """The parts of a style's summary in the order of the content's parts that they are the targets of."""
    return tf.nest.map_structure(lambda parts: tf.gather(parts, indices), summary)


def _with_unit_gradient(loss: Callable[..., tf.Tensor], features: Sequence[tf.Tensor]) -> tf.Tensor:
    """``loss(*features)``, with its gradient divided by the sum of that gradient's absolute values."""
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
    # Sums of zeros, whose gradients are the scaled ones.
    return tf.stop_gradient(value) + tf.add_n(
        [
            tf.reduce_sum(tf.stop_gradient(scale * gradient) * tf.cast(x - constant, tf.float32))
            for gradient, x, constant in zip(gradients, features, constants, strict=True)
        ]
    )

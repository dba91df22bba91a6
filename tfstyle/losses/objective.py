"""Content and style losses, and the objective that is their weighted sum with the total variation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.losses.normalization import ContentExtent, LossNormalization, balanced_normalization
from tfstyle.losses.style import GRAM, StyleLoss, Summary
from tfstyle.losses.variation import total_variation


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
        normalization: what the layers' losses are multiplied by, such as `balanced_normalization`.
        style_losses: pairs of a `StyleLoss` and its weight; E_l is their weighted sum.
        variation: TV, a function of an image; for tiles one of `tfstyle.variation`.
        unit_gradients: divide the gradient of each layer's loss with respect to its features by the sum
            of its magnitudes, so that every layer pulls alike.

    Reference: Gatys, Ecker, Bethge 2016, eq. 5 and 7; unit gradients as in jcjohnson/neural-style.
    Differs from Gatys: the total-variation term, and the units where they are balanced.
    """

    encoder: Callable[[tf.Tensor], Mapping[str, tf.Tensor]]
    content_layers: Mapping[str, float]
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
        blend_weights: Sequence[float] | None = None,
        regions: Sequence[Region] = (),
        keep: tf.Tensor | None = None,
    ) -> Targets:
        """Compute the targets of a content image and of one or more styles.

        Args:
            content: ``[1, height, width, 3]`` in 0..1, of the size of the image to be made.
            styles: what `style_summary` made of each, now or at another time.
            blend_weights: one number per style, all 1 by default; they weigh what is summarised.
            regions: none: all styles everywhere, blended; one: the same in it; else one per style.
            keep: mask ``[1, height, width, 1]``, 1 where the content stays as it is.

        Raises:
            ConfigError: no style, not one weight per style, or not one region per style.
        """
        features = self.encoder(content)
        kept = {layer: features[layer] for layer in self.content_layers}
        deepest = self._upwards(features)[-1] if self.style_layers else ""
        own = self._summaries(features, {}) if any(loss.order for loss, _ in self.style_losses) else {}
        goals = self.goals(styles, blend_weights, len(regions), own, deepest)
        extents = {layer: _extent(target, content) for layer, target in kept.items()}
        return Targets(
            kept,
            goals,
            {layer: self.normalization.content(extent) for layer, extent in extents.items()},
            self.style_scales(goals, regions, features),
            tuple(dict(region.weights) for region in regions),
            () if keep is None else (keep, content),
        )

    def goals(
        self,
        styles: Sequence[Summaries],
        blend_weights: Sequence[float] | None,
        regions: int,
        content: Summaries | None = None,
        deepest: str = "",
    ) -> tuple[Summaries, ...]:
        """For each region what the style losses pull towards.

        Args:
            styles, blend_weights: as `targets`.
            regions: how many there are.
            content: the content's own summaries, and
            deepest: the layer, in which a `StyleLoss.order` compares it with the styles.

        Raises:
            ConfigError: as `targets`.
        """
        shares = [1.0] * len(styles) if blend_weights is None else list(blend_weights)
        if not styles or len(shares) != len(styles):
            raise ConfigError(f"{len(styles)} styles with {len(shares)} blend weights")
        if regions > 1 and regions != len(styles):
            raise ConfigError(f"{len(styles)} styles with {regions} regions")
        groups = [[i] for i in range(len(styles))] if regions > 1 else [range(len(styles))]
        return tuple(
            self._blended([styles[i] for i in g], [shares[i] for i in g], content or {}, deepest)
            for g in groups
        )

    def style_summary(self, image: tf.Tensor, weights: Mapping[str, tf.Tensor] | None = None) -> Summaries:
        """Layer -> what each style loss keeps of one image ``[1, height, width, 3]``.

        Args:
            image: float32 in 0..1.
            weights: layer -> what each position counts, as in `Region`.
        """
        return self._summaries(self.encoder(image), weights or {})

    def _summaries(self, features: Mapping[str, tf.Tensor], where: Mapping[str, tf.Tensor]) -> Summaries:
        return {
            layer: tuple(
                _summary(loss, self.parts(features, layer), where.get(layer)) for loss, _ in self.style_losses
            )
            for layer in self.style_layers
        }

    def parts(self, features: Mapping[str, tf.Tensor], layer: str) -> list[tf.Tensor]:
        """The layer's features, and those of deeper style layers that a style loss looks at with them."""
        deeper = max((loss.deeper for loss, _ in self.style_losses), default=0)
        if deeper == 0:
            return [features[layer]]
        upwards = self._upwards(features)
        at = upwards.index(layer)
        return [features[name] for name in upwards[at : at + deeper + 1]]

    def _upwards(self, features: Mapping[str, tf.Tensor]) -> list[str]:
        """The style layers, those with larger maps first."""
        return sorted(self.style_layers, key=lambda name: -(features[name].shape[1] or 0))

    def _blended(
        self, styles: Sequence[Summaries], shares: Sequence[float], content: Summaries, deepest: str
    ) -> Summaries:
        blended = {}
        for layer in self.style_layers:
            goals = []
            for i, (loss, _) in enumerate(self.style_losses):
                own = [style[layer][i] for style in styles]
                if loss.order is not None:
                    orders = [loss.order(style[deepest][i], content[deepest][i]) for style in styles]
                    own = [_arranged(goal, order) for goal, order in zip(own, orders, strict=True)]
                goals.append(loss.blend(own, shares))
            blended[layer] = tuple(goals)
        return blended

    def style_scales(
        self, goals: Sequence[Summaries], regions: Sequence[Region], features: Mapping[str, tf.Tensor]
    ) -> tuple[dict[str, tuple[tf.Tensor, ...]], ...]:
        """For each region what its style losses are multiplied with; of the features only channels count."""
        parts = [region.share for region in regions] or [1.0]
        return tuple(self._scales(goal, part, features) for goal, part in zip(goals, parts, strict=True))

    def _scales(
        self, goals: Summaries, share: float, features: Mapping[str, tf.Tensor]
    ) -> dict[str, tuple[tf.Tensor, ...]]:
        scales = {}
        for layer, targets in goals.items():
            channels = features[layer].shape[-1]
            nothing = [tf.zeros([1, 1, 1, part.shape[-1]]) for part in self.parts(features, layer)]
            scales[layer] = tuple(
                share
                * self.normalization.style(
                    loss, loss.distance(_summary(loss, nothing, None), target), channels
                )
                for (loss, _), target in zip(self.style_losses, targets, strict=True)
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
        content = [
            weight * self._apply(self._content_term(targets, layer), [features[layer]])
            for layer, weight in self.content_layers.items()
        ]
        terms = {
            f"style/{layer}": self.style_weight
            * weight
            * self._apply(self._style_term(targets, layer), self.parts(features, layer))
            for layer, weight in self.style_layers.items()
        }
        style = tf.add_n(list(terms.values())) if terms else tf.constant(0.0)
        kept = self.content_weight * tf.add_n(content) if content else tf.constant(0.0)
        smooth = self.tv_weight * self.variation(image) if self.tv_weight > 0 else tf.constant(0.0)
        return {"total": kept + style + smooth, "content": kept, "style": style, "tv": smooth, **terms}

    def _content_term(self, targets: Targets, layer: str) -> Callable[..., tf.Tensor]:
        scale, target = targets.content_scale[layer], targets.content[layer]
        return lambda features: scale * content_loss(features, target)

    def _style_term(self, targets: Targets, layer: str) -> Callable[..., tf.Tensor]:
        regions = [weights[layer] for weights in targets.weights] or [None]

        def term(*parts: tf.Tensor) -> tf.Tensor:
            found = [
                tuple(_summary(loss, parts, weight) for loss, _ in self.style_losses) for weight in regions
            ]
            return self.compared(layer, found, targets)

        return term

    def compared(self, layer: str, found: Sequence[tuple[Summary, ...]], targets: Targets) -> tf.Tensor:
        """E_l, scaled, of what each style loss keeps of the image in each region."""
        terms = []
        for summaries, goals, scales in zip(found, targets.styles, targets.style_scales, strict=True):
            columns = zip(self.style_losses, summaries, goals[layer], scales[layer], strict=True)
            terms += [
                part * scale * loss.distance(summary, goal) for (loss, part), summary, goal, scale in columns
            ]
        return tf.add_n(terms)

    def _apply(self, loss: Callable[..., tf.Tensor], parts: Sequence[tf.Tensor]) -> tf.Tensor:
        return _with_unit_gradient(loss, parts) if self.unit_gradients else loss(*parts)


def _extent(target: tf.Tensor, content: tf.Tensor) -> ContentExtent:
    sizes = tf.cast(tf.shape(target), tf.float32), tf.cast(tf.shape(content), tf.float32)
    (_, height, width, channels), (_, rows, columns, _) = (tf.unstack(size) for size in sizes)
    energy = tf.nn.l2_loss(tf.cast(target, tf.float32))
    return ContentExtent(energy, height * width, channels, rows * columns)


def _summary(loss: StyleLoss, parts: Sequence[tf.Tensor], weight: tf.Tensor | None) -> Summary:
    return loss.summary(parts[: loss.deeper + 1] if loss.deeper else parts[0], weight)


def _arranged(goal: Summary, order: tf.Tensor) -> Summary:
    return tf.nest.map_structure(lambda parts: tf.gather(parts, order), goal)


def _with_unit_gradient(loss: Callable[..., tf.Tensor], parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """``loss(*parts)``, with its gradient divided by the sum of that gradient's magnitudes."""
    fixed = [tf.stop_gradient(part) for part in parts]
    with tf.GradientTape() as tape:
        tape.watch(fixed)
        value = loss(*fixed)
    found = tape.gradient(value, fixed, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    gradients = [tf.cast(gradient, tf.float32) for gradient in found]
    total = tf.add_n([tf.reduce_sum(tf.abs(gradient)) for gradient in gradients])
    scale = 1.0 / (total + 1e-8)  # the Torch program's own constant
    # Sums of zeros, whose gradients are the scaled ones.
    return tf.stop_gradient(value) + tf.add_n(
        [
            tf.reduce_sum(tf.stop_gradient(scale * gradient) * tf.cast(part - still, tf.float32))
            for gradient, part, still in zip(gradients, parts, fixed, strict=True)
        ]
    )


Tensors = dict[str, tf.Tensor]

#: Layer -> what each style loss keeps of it, in the order of the losses.
Summaries = dict[str, tuple[Summary, ...]]


class Region(NamedTuple):
    """A part of the picture that a style is painted in.

    Attributes:
        share: of the style loss that is this region's; all shares add up to 1.
        weights: layer -> float32 ``[1, h, w, 1]`` of mean 1, what each position counts.
    """

    share: float
    weights: Mapping[str, tf.Tensor]


class Targets(NamedTuple):
    """What an `Objective` pulls towards, computed once per scale; a structure of tensors.

    Attributes:
        content: layer -> features ``[1, h, w, N]``.
        styles: for each region, layer -> the target of each style loss.
        content_scale: layer -> scalar that the layer's loss is multiplied with.
        style_scales: for each region, layer -> the same for each style loss.
        weights: for each region, layer -> what its positions count; empty where all count alike.
        kept: ``()``, or a mask ``[1, height, width, 1]`` and the picture that stays as it is there.
    """

    content: Tensors
    styles: tuple[Summaries, ...]
    content_scale: Tensors
    style_scales: tuple[dict[str, tuple[tf.Tensor, ...]], ...]
    weights: tuple[Tensors, ...] = ()
    kept: tuple[tf.Tensor, ...] = ()


def restore_kept(image: tf.Tensor, targets: Targets) -> tf.Tensor:
    """The image with the content put back where it is to stay as it is."""
    if not targets.kept:
        return image
    mask, picture = targets.kept
    return image + mask * (picture - image)


def shares(layers: Sequence[str], given: Sequence[float] | None) -> dict[str, float]:
    """Layer -> its share; the shares add up to 1, as Gatys et al. have them."""
    numbers = given or [1.0] * len(layers)
    return {layer: n / sum(numbers) for layer, n in zip(layers, numbers, strict=True)}

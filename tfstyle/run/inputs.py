"""What goes into a run, read, sized and checked: the content, the styles, their masks, and whose colours."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.config import INIT_NAMES, StyleConfig
from tfstyle.errors import ConfigError, ImageError
from tfstyle.files import digest
from tfstyle.images import ImageArray, color, load, resize
from tfstyle.losses import (
    Masks,
    Region,
    Style,
    Summaries,
    Targets,
    blur_mask,
    load_mask,
    mask_coverage,
    position_weights,
    require_images,
    resize_mask,
)
from tfstyle.network import IMAGENET_MEAN, Encoder
from tfstyle.run.layout import Layout
from tfstyle.run.setup import TransferSetup, call_as_graph, layer_shapes

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TransferInputs:
    """Made by `read_inputs`, all at the size of the last scale.

    Attributes:
        original: the content as it came.
        content: what is painted over: the same, or in grey where only lightness is transferred.
        styles: pictures, in the colours that they are used in, or kept styles.
        regions: for each style its region of the content, ``[height, width]`` in 0..1; or none.
        style_regions: for each style its own region, or None.
        keep: what stays as it is, ``[height, width]`` in 0..1, or None.
        digests: of everything as it was read, by its name in errors; empty where none were asked for.
    """

    original: ImageArray
    content: ImageArray
    styles: Sequence[ImageArray | Style]
    regions: Sequence[np.ndarray]
    style_regions: Sequence[np.ndarray | None]
    keep: np.ndarray | None
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def check(self, encoder: Encoder, layers: Sequence[str]) -> None:
        """Raise an InputError where an image is too small, or a kept style of another encoder's."""
        minimum = encoder.minimum_size
        pictures: dict[str, Any] = {"the content image": self.content}
        for i, style in enumerate(self.styles, 1):
            if isinstance(style, Style):
                style.check(encoder, layers)
            else:
                pictures[f"style image {i}"] = style
        for name, picture in pictures.items():
            height, width = picture.rgb.shape[:2]
            if min(height, width) < minimum:
                raise ImageError(
                    f"{name} is {width} x {height} pixels at this size; at least {minimum} a side are needed"
                )

    def start(self, config: StyleConfig, shape: tuple[int, int]) -> np.ndarray:
        """What the first scale starts from, float32 ``[height, width, 3]``, at its size."""
        if config.init == "content":
            return self.content.resized(shape).rgb
        generator = np.random.default_rng(config.seed)
        if config.init == "uniform":
            return generator.uniform(0, 1, (*shape, 3)).astype(np.float32)
        centre: Any = {"noise": 0.5, "grey": 0.5, "mean": np.array(IMAGENET_MEAN[::-1]) / config.pixel_range}
        spread: Any = {"noise": config.init_noise, "grey": 0.0, "mean": config.init_noise}
        if config.init == "style_stats":
            pixels = self._first_style(config).on_white()
            centre["style_stats"], spread["style_stats"] = pixels.mean((0, 1)), pixels.std((0, 1))
        if config.init in centre:
            noise = generator.normal(size=(*shape, 3)) * spread[config.init] + centre[config.init]
            return (np.clip(noise, 0, 1) if config.clamp else noise).astype(np.float32)
        named = config.init != "style"
        source = load(config.init, config.max_pixels) if named else self._first_style(config)
        return resize(source.on_white(), shape)

    def _first_style(self, config: StyleConfig) -> ImageArray:
        (picture,) = require_images(self.styles[:1], f"init is {config.init!r}, which")
        return picture

    def finished(self, config: StyleConfig, image: np.ndarray) -> np.ndarray:
        """The picture as the user gets it: within 0..1, in the right colours, what is kept put back."""
        image = np.clip(image, 0, 1)
        if config.color not in ("luminance", "content_chroma", "transport_result") and self.keep is None:
            return image
        content = self.original.resized(image.shape[:2]).rgb
        if config.color in ("luminance", "content_chroma"):
            image = color.with_luminance(content, color.luminance(image))
        elif config.color == "transport_result":
            image = color.match_colors(image, content)
        if self.keep is not None:
            image = image + resize_mask(self.keep, image.shape[:2])[..., None] * (content - image)
        return image.astype(np.float32)

    def guided(
        self,
        config: StyleConfig,
        shape: tuple[int, int],
        layer_weights: Callable[[np.ndarray, str], Mapping[str, tf.Tensor]],
    ) -> tuple[list[Region], tf.Tensor | None]:
        """The regions at a scale, and the mask of what stays as it is, as `Objective.targets` takes them.

        Args:
            config: its blend weights.
            shape: height and width of the picture.
            layer_weights: (mask, its name in errors) -> what each position of each style layer counts.

        Raises:
            ConfigError: at some layer nothing is left of a region.
        """
        keep = None if self.keep is None else resize_mask(self.keep, shape)
        free = 1.0 if keep is None else 1.0 - keep
        masks = [resize_mask(mask, shape) * free for mask in self.regions]
        names = [f"mask {i}" for i in range(1, len(masks) + 1)]
        if keep is not None and not masks:
            masks, names = [np.asarray(free)], ["what content_mask leaves"]
        blend = (
            config.style_blend if len(masks) == len(self.styles) and config.style_blend else [1] * len(masks)
        )
        areas = [float(mask.mean()) * share for mask, share in zip(masks, blend, strict=True)]
        regions = [
            Region(area / max(sum(areas), 1e-9), layer_weights(mask, name))
            for area, mask, name in zip(areas, masks, names, strict=True)
        ]
        return regions, None if keep is None else tf.constant(keep[None, :, :, None])


def read_inputs(
    content: Any, style: Any, config: StyleConfig, masks: Masks | None = None, digests: bool = False
) -> TransferInputs:
    """Read all pictures and masks that a run needs, at the size of its last scale.

    Args:
        content, style, config, masks: as `tfstyle.stylize`.
        digests: whether `Inputs.digests` is wanted.

    Raises:
        ImageError: one cannot be read.
        ConfigError: numbers or masks that do not go with the styles, or an option that a kept style
            cannot serve.
    """
    sources = list(style) if isinstance(style, (list, tuple)) else [style]
    if not sources:
        raise ConfigError("no style image")
    for name in ("style_blend", "style_scale", "style_size"):
        numbers = getattr(config, name)
        if numbers is not None and len(numbers) not in (
            {len(sources)} | ({1} if name != "style_blend" else set())
        ):
            raise ConfigError(f"{name} has {len(numbers)} numbers for {len(sources)} style images")
    known = _Digests(digests)
    original = fit_to_size(known.of("the content image", load(content, config.max_pixels)), config)
    read = [
        known.of(f"style image {i}", Style.from_source(source) or load(source, config.max_pixels))
        for i, source in enumerate(sources, 1)
    ]
    styles = [s if isinstance(s, Style) else _sized(s, i, original, config) for i, s in enumerate(read)]
    if digests and names_file(config.init):
        known.of("the start", load(config.init, config.max_pixels))
    masks = _merged(masks, config)
    needs_image = {
        f"style_losses {','.join(config.style_losses)}": config.style_losses != ("gram",),
        "style_masks": len(masks.styles) > 0,
    }
    for option, needed in needs_image.items():
        if needed:
            require_images(styles, option)
    shown, styles = _recolored(original, styles, config.color)
    read_mask = functools.partial(_mask, blur=config.mask_blur, known=known)
    regions = [read_mask(m, original, f"mask {i}") for i, m in enumerate(masks.content, 1)]
    own: list[np.ndarray | None]
    own = [read_mask(m, p, f"style mask {i}") for i, (m, p) in enumerate(zip(masks.styles, styles), 1)]
    for name, found in (("masks", masks.content), ("style_masks", masks.styles)):
        if len(found) not in (0, len(styles)):
            raise ConfigError(f"{len(found)} {name} for {len(styles)} style images: give one for each")
    keep = None if masks.keep is None else read_mask(masks.keep, original, "content_mask")
    if regions and (share := mask_coverage(regions if keep is None else [*regions, keep])) < 0.99:
        log.warning("the masks cover %.0f%% of the content; the rest takes no style", 100 * share)
    return TransferInputs(original, shown, styles, regions, own or [None] * len(styles), keep, known.found)


def _merged(masks: Masks | Sequence[Any] | None, config: StyleConfig) -> Masks:
    """The masks that were given, and those that the config names where none was."""
    given = masks if isinstance(masks, Masks) else Masks(content=() if masks is None else masks)
    return Masks(
        given.content if len(given.content) else config.masks or (),
        given.styles if len(given.styles) else config.style_masks or (),
        config.content_mask if given.keep is None else given.keep,
    )


def counted_side(shape: Sequence[int], config: StyleConfig) -> float:
    """What of a height and width `StyleConfig.size` counts."""
    height, width = shape[:2]
    sides = {"longest": max(height, width), "shortest": min(height, width), "area": math.sqrt(height * width)}
    return sides[config.size_of]


def fit_to_size(picture: ImageArray, config: StyleConfig) -> ImageArray:
    """At the last scale's size."""
    return _brought_to(config.size, picture, config)


def _brought_to(size: float, picture: ImageArray, config: StyleConfig) -> ImageArray:
    shape = picture.rgb.shape[:2]
    return picture.fitted(round(size * max(shape) / counted_side(shape, config)), config.enlarge)


def style_target_size(content: ImageArray, index: int, config: StyleConfig) -> tuple[float, bool]:
    """The size that a style is used at, and whether that is its longest side or what the config counts.

    The content's own size unless it is told otherwise, so that its strokes are as large as in the style.
    """
    if config.style_size is not None:
        return config.style_size[index % len(config.style_size)], True
    scales = config.style_scale or (1.0,)
    return counted_side(content.rgb.shape, config) * scales[index % len(scales)], False


def _sized(picture: ImageArray, index: int, content: ImageArray, config: StyleConfig) -> ImageArray:
    size, longest = style_target_size(content, index, config)
    return picture.fitted(round(size), config.enlarge) if longest else _brought_to(size, picture, config)


def _recolored(
    content: ImageArray, styles: Sequence[ImageArray | Style], how: str
) -> tuple[ImageArray, list[ImageArray | Style]]:
    """The content and the styles in the colours that the transfer sees.

    Reference: Gatys et al. 2017, Controlling Perceptual Factors, section 5.
    """
    if how == "luminance":
        lightness = color.luminance(content.on_white())
        grey = [
            ImageArray(color.grey(color.match_luminance(color.luminance(p.on_white()), lightness)))
            for p in require_images(styles, f"color {how}")
        ]
        return dataclasses.replace(content, rgb=color.grey(color.luminance(content.rgb))), [*grey]
    if how in color.COLOR_MATCHING:
        matched = [
            ImageArray(color.match_colors(p.on_white(), content.on_white(), how))
            for p in require_images(styles, f"color {how}")
        ]
        return content, [*matched]
    return content, list(styles)


def _mask(source: Any, picture: ImageArray | Style, what: str, blur: float, known: _Digests) -> np.ndarray:
    mask = known.of(what, load_mask(source, what))
    return blur_mask(resize_mask(mask, picture.rgb.shape[:2]), blur)  # type: ignore[union-attr]


def names_file(init: str) -> bool:
    """Whether `StyleConfig.init` names none of the starts that there are."""
    return init not in INIT_NAMES


class _Digests:
    """Collects digests of what is read: by the time it is used, it is resized and recoloured."""

    def __init__(self, wanted: bool) -> None:
        self.found: dict[str, str] = {}
        self._wanted = wanted

    def of(self, name: str, read: Any) -> Any:
        """Take the digest of a picture, a kept style or a mask, and hand it on."""
        if self._wanted:
            parts = (
                {} if isinstance(read, np.ndarray) else {k: v for k, v in vars(read).items() if k != "name"}
            )
            self.found[name] = digest(parts or read)
        return read


#: `StyleConfig.color` in which the styles stay as they are.
OWN_COLORS = ("style", "transport_result", "content_chroma")


class ScaleTargets:
    """The targets of a run, made of its inputs for one scale after another.

    Args:
        config: of the run.
        inputs: at the size of the last scale.
        preparation: of the run.
        full: height and width of the last scale.
    """

    def __init__(
        self, config: StyleConfig, inputs: TransferInputs, preparation: TransferSetup, full: tuple[int, int]
    ) -> None:
        self._config, self._inputs, self._preparation, self._full = config, inputs, preparation, full

    def style_shapes(self, shape: tuple[int, int]) -> list[tuple[int, int]]:
        """About the height and width of each style image at a scale."""
        factor = max(shape) / max(self._full)
        pictures = [style.rgb.shape for style in self._inputs.styles if not isinstance(style, Style)]
        return [(round(factor * height), round(factor * width)) for height, width, _ in pictures]

    def targets(self, shape: tuple[int, int], layout: Layout) -> Targets:
        """Of the content at this scale, and of the styles shrunk by the same factor."""
        factor = max(shape) / max(self._full)
        styles = [self._style_summary(i, factor, layout) for i in range(len(self._inputs.styles))]
        regions, keep = self._inputs.guided(self._config, shape, self._layer_weights)
        content, blend = self._inputs.content.resized(shape).rgb[None], self._config.style_blend
        if layout.side is not None:
            return self._preparation.tiled(layout.side).targets(content, styles, blend, regions, keep)
        image, objective = tf.constant(content), self._preparation.objective
        return call_as_graph(lambda: objective.targets(image, styles, blend, regions, keep))

    def _style_summary(self, index: int, factor: float, layout: Layout) -> Summaries:
        style, region = self._inputs.styles[index], self._inputs.style_regions[index]
        if isinstance(style, Style):
            size, _ = style_target_size(self._inputs.content, index, self._config)
            longest = (
                size if self._config.enlarge or not style.original_size else min(size, style.original_size)
            )
            return {layer: (tf.constant(gram[None]),) for layer, gram in style.at(factor * longest).items()}
        small = style.shrunk(factor, self._preparation.encoder.minimum_size)
        if region is not None:
            mask, name = resize_mask(region, small.rgb.shape[:2]), f"style mask {index + 1}"
            return self._encoded(small, self._layer_weights(mask, name), layout)
        if self._config.color not in OWN_COLORS:  # in the content's: another for each content
            return self._encoded(small, {}, layout)
        known, key = self._preparation.summaries, (index, small.rgb.shape, layout.style_side)
        if key not in known:
            known[key] = self._encoded(small, {}, layout)
        return known[key]

    def _encoded(self, style: ImageArray, weights: dict[str, tf.Tensor], layout: Layout) -> Summaries:
        if layout.style_side is not None:
            tiled = self._preparation.tiled(layout.style_side)
            return tiled.style_summary(style.on_white()[None], weights)
        image = tf.constant(style.on_white()[None])
        return call_as_graph(lambda: self._preparation.objective.style_summary(image, weights))

    def _layer_weights(self, mask: np.ndarray, name: str) -> dict[str, tf.Tensor]:
        shapes = layer_shapes(self._preparation.encoder, mask.shape[:2], self._preparation.style_layers)
        network = self._preparation.encoder.network
        return position_weights(mask, shapes, self._config.guidance, name, network)

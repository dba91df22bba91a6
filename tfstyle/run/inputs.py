"""The images and masks of a run at the size of its last scale, and the targets of each scale."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from tfstyle.config import INIT_NAMES, StyleConfig, check_init, check_mask_count, check_style_count
from tfstyle.errors import ImageError
from tfstyle.files import digest
from tfstyle.images import (
    COLOR_MATCHING,
    ImageArray,
    grey,
    load,
    luminance,
    match_chroma,
    match_colors,
    match_luminance,
    resize,
    with_luminance,
)
from tfstyle.losses import (
    NEIGHBOURS,
    SPECTRUM,
    Masks,
    Region,
    Style,
    Summaries,
    Targets,
    TemporalTarget,
    blur_mask,
    load_mask,
    mask_coverage,
    position_weights,
    require_images,
    resize_mask,
)
from tfstyle.network import IMAGENET_MEAN
from tfstyle.run.layout import Layout
from tfstyle.run.matching import StyleSource, match_hypercolumns, query_image, style_rotations
from tfstyle.run.setup import Scale, Shape, TransferSetup, layer_shapes, measured_side

log = logging.getLogger(__name__)

#: Values of `StyleConfig.color` that leave the style images independent of the content image.
STYLE_KEEPS_COLORS = ("style", "transport_result", "content_chroma", "style_chroma")
#: Values of `StyleConfig.color` with which the result has the colours of the style images. All but the first
#: recolour the style images before.
STYLE_GIVES_COLORS = ("style", *COLOR_MATCHING)
#: Number of pixels of the style images from which their mean colour and covariance are computed.
COLOR_SAMPLES = 2**18
#: Largest factor by which the method neighbours amplifies differences of colours. Without it, the noise of a
#: result that is nearly grey would turn into coloured spots.
MAX_COLOR_GAIN = 4.0
#: Values of `StyleConfig.color` that change the colours of the result after the optimisation.
RECOLORED_RESULT = ("luminance", "content_chroma", "transport_result", "style_chroma")

Value = TypeVar("Value", bound="ImageArray | Style | np.ndarray")


@dataclass(frozen=True, eq=False)
class TemporalReference:
    """The warped results with which a frame of a video is compared, at the size of the last scale.

    Attributes:
        image: the results of earlier frames, warped to this frame, float32 ``[height, width, 3]``.
        consistency: weights of the pixels, float32 ``[height, width]`` in 0..1.
        weight: weight of the temporal loss.
    """

    image: np.ndarray
    consistency: np.ndarray
    _: KW_ONLY
    weight: float

    def target(self, shape: Shape) -> TemporalTarget:
        """Return the target of the temporal loss at the size of a scale.

        Args:
            shape: height and width of the scale in pixels.
        """
        return TemporalTarget(
            tf.constant(self.weight, tf.float32),
            tf.constant(resize(self.image, shape)[None]),
            _as_image(resize_mask(self.consistency, shape)),
        )


@dataclass(frozen=True, eq=False)
class TransferInputs:
    """The images and masks of a run; `read_inputs` reads them.

    The content image and the masks of its regions have the size of the last scale. Each style image has the
    size that `StyleConfig.style_scale` or `StyleConfig.style_size` gives it for the last scale.

    Attributes:
        config: the options of the run.
        original: the content image in its original colours.
        content: the content image for the losses. It is `original`, or with ``color="luminance"`` a grey
            image of its luminance.
        styles: the style images, recoloured if `StyleConfig.color` says so, or styles extracted before.
        regions: for each style the mask of its region in the content image, float32 ``[height, width]`` in
            0..1; empty if the run has no masks.
        style_regions: for each style the mask of the part of its image that is used, or None if the whole
            image is used.
        keep: mask of the region in which the content image is not changed, float32 ``[height, width]`` in
            0..1, or None.
        digests: name of an input, such as ``style image 1`` -> SHA-256 digest of its values before they are
            resized and recoloured. It is empty unless `read_inputs` was asked for digests.
        start: initial image of the first scale in place of the one that `StyleConfig.init` names, float32
            ``[height, width, 3]`` at the size of the last scale, or None.
        temporal: the target of the temporal loss of a frame of a video, or None.
        matches_colors: whether `finish` gives the result the mean and covariance of the style images'
            colours, if `StyleConfig.color` leaves it the colours of the style. It does so for a single image
            with ``method="neighbours"``. In a video the colours would change from frame to frame.
    """

    config: StyleConfig
    original: ImageArray
    _: KW_ONLY
    content: ImageArray
    styles: Sequence[ImageArray | Style]
    regions: Sequence[np.ndarray]
    style_regions: Sequence[np.ndarray | None]
    keep: np.ndarray | None
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    start: np.ndarray | None = None
    temporal: TemporalReference | None = None
    matches_colors: bool = False

    def _in_colors_of_styles(self, image: np.ndarray) -> np.ndarray:
        """Return an image whose colours have the mean and covariance of those of the style images.

        The method neighbours needs it, because cosine distances do not depend on the contrast. Each region is
        matched to its own style, and pixels outside of all regions do not change.
        """
        shape = image.shape[:2]
        masks = [resize_mask(mask, shape) for mask in self.regions] or [np.ones(shape, np.float32)]
        separate = len(masks) > 1
        numbers = range(len(masks)) if separate else [None]
        targets = [self._pooled_pixels(number) for number in numbers]
        free = 1.0 if self.keep is None else 1.0 - resize_mask(self.keep, shape)
        coverage = np.stack(masks) * free
        labels = coverage.argmax(0)
        total = coverage.sum(0)
        matched = (1.0 - np.minimum(total, 1.0))[..., None] * image
        for number, (mask, pixels) in enumerate(zip(coverage, targets, strict=True)):
            region = image[(labels == number) & (mask > 0)]
            if len(region):
                recolored = match_colors(image, pixels, sample=region, max_gain=MAX_COLOR_GAIN)
                matched += (mask / np.maximum(total, 1.0))[..., None] * recolored
        return matched

    def _pooled_pixels(self, number: int | None = None) -> np.ndarray:
        """Return pixels of one style image or of all style images, float32 ``[pixels, 3]``.

        Args:
            number: index of the style; None for all styles, in the proportions of `StyleConfig.style_blend`.
        """
        images = require_images(self.styles, f"color {self.config.color}")
        shares = np.array(self.config.style_blend or [1.0] * len(images), float)
        if number is not None:
            shares = np.eye(len(images))[number]
        pooled = []
        for image, mask, share in zip(images, self.style_regions, shares / shares.sum(), strict=True):
            pixels = image.on_white()
            pixels = pixels.reshape(-1, 3) if mask is None else pixels[mask >= 0.5 * mask.max()]
            positions = np.linspace(0, len(pixels) - 1, round(COLOR_SAMPLES * share)).round().astype(int)
            pooled.append(pixels[positions])
        return np.concatenate(pooled)

    @property
    def shape(self) -> Shape:
        """Height and width of the last scale."""
        height, width = self.content.rgb.shape[:2]
        return height, width

    def for_frame(
        self,
        frame: ImageArray,
        *,
        start: np.ndarray | None = None,
        temporal: TemporalReference | None = None,
    ) -> TransferInputs:
        """Return the inputs for another frame of the same video, with the same styles and masks.

        The colours of the style images stay those that match the colours of the frame for which these inputs
        were read, so that the style does not change from frame to frame.

        Args:
            frame: the frame, of the same size as the content image.
            start: the initial image, as in the attribute `start`.
            temporal: the target of the temporal loss.
        """
        content = _without_chroma(frame) if self.config.color == "luminance" else frame
        return dataclasses.replace(
            self, original=frame, content=content, start=start, temporal=temporal, matches_colors=False
        )

    def check(self, setup: TransferSetup) -> None:
        """Check the images and styles against the encoder of a run.

        Args:
            setup: the setup of the run, with the encoder and the style layers.

        Raises:
            ImageError: a side of an image has fewer pixels than `Encoder.minimum_size`.
            ConfigError: a style was extracted with another encoder or lacks a style layer.
        """
        images: dict[str, ImageArray] = {"the content image": self.content}
        for number, style in enumerate(self.styles, 1):
            if isinstance(style, Style):
                style.check(setup.style_encoder, setup.style_layers)
            else:
                images[f"style image {number}"] = style
        for name, image in images.items():
            height, width = image.rgb.shape[:2]
            minimum = (setup.encoder if image is self.content else setup.style_encoder).minimum_size
            if min(height, width) < minimum:
                raise ImageError(
                    f"{name} is {width} x {height} pixels at this size, and each side needs at least "
                    f"{minimum} pixels; choose a larger size, and enlarge=True if the image is too small"
                )

    def content_at(self, shape: Shape) -> np.ndarray:
        """Return the content image for the losses at the size of a scale.

        Args:
            shape: height and width of the scale in pixels.

        Returns:
            float32 ``[height, width, 3]`` in 0..1.
        """
        return self.content.resized(shape).rgb

    def start_image(self, shape: Shape) -> np.ndarray:
        """Return the initial image of the first scale, as `StyleConfig.init` names it.

        Random images are drawn with the config's seed.

        Args:
            shape: height and width of the first scale in pixels.

        Returns:
            float32 ``[height, width, 3]``, in 0..1 unless `StyleConfig.clamp` is off and the image is random.

        Raises:
            ConfigError: ``init`` is ``style`` or ``style_stats``, and the first style has no image.
            ImageError: ``init`` names a file that cannot be read.
        """
        config = self.config
        if self.start is not None:
            return resize(self.start, shape)
        if config.init == "content":
            return self.content_at(shape)
        generator = np.random.default_rng(config.seed)
        if config.init == "uniform":
            return generator.uniform(0, 1, (*shape, 3)).astype(np.float32)
        mean: Any = {"noise": 0.5, "grey": 0.5, "mean": np.array(IMAGENET_MEAN[::-1]) / config.pixel_range}
        deviation: Any = {"noise": config.init_noise, "grey": 0.0, "mean": config.init_noise}
        if config.init == "style_stats":
            # In float32 the sums over millions of pixels would lose digits.
            pixels = self._first_style_image().on_white().astype(np.float64)
            mean["style_stats"], deviation["style_stats"] = pixels.mean((0, 1)), pixels.std((0, 1))
        if config.init in mean:
            noise = generator.normal(size=(*shape, 3)) * deviation[config.init] + mean[config.init]
            return (np.clip(noise, 0, 1) if config.clamp else noise).astype(np.float32)
        from_style = config.init == "style"
        image = self._first_style_image() if from_style else load(config.init, max_pixels=config.max_pixels)
        return resize(image.on_white(), shape)

    def _first_style_image(self) -> ImageArray:
        (image,) = require_images(self.styles[:1], f"init {self.config.init}")
        return image

    def finish(self, image: np.ndarray) -> np.ndarray:
        """Return the result image of an iterate.

        The iterate is clipped to 0..1 and recoloured if `StyleConfig.color` says so. In the region `keep` it
        is replaced by the original content image.

        Args:
            image: an iterate of any scale, float32 ``[height, width, 3]``.

        Returns:
            float32 ``[height, width, 3]`` in 0..1.
        """
        image = np.clip(image, 0, 1)
        if self.matches_colors and self.config.color in STYLE_GIVES_COLORS:
            image = self._in_colors_of_styles(image)
        if self.config.color not in RECOLORED_RESULT and self.keep is None:
            return image
        content = self.original.resized(image.shape[:2]).rgb
        if self.config.color in ("luminance", "content_chroma"):
            image = with_luminance(content, luminance(image))
        elif self.config.color == "transport_result":
            image = match_colors(image, content)
        elif self.config.color == "style_chroma":
            image = match_chroma(content, self._pooled_pixels(), y=luminance(image))
        if self.keep is not None:
            image = image + resize_mask(self.keep, image.shape[:2])[..., None] * (content - image)
        return image.astype(np.float32)

    def alpha_at(self, shape: Shape) -> np.ndarray | None:
        """Return the content image's alpha channel at a size, or None if the image has no alpha channel.

        Args:
            shape: height and width in pixels.

        Returns:
            float32 ``[height, width]`` in 0..1, or None.
        """
        alpha = self.original.alpha
        return None if alpha is None else resize(alpha[..., None], shape)[..., 0]


def read_inputs(
    content: Any,
    style: Any,
    config: StyleConfig,
    *,
    masks: Masks | Sequence[Any] | None = None,
    digests: bool = False,
) -> TransferInputs:
    """Read the images and masks of a run and resize them for its last scale.

    Args:
        content, style, config, masks: as for `tfstyle.stylize`.
        digests: whether to compute `TransferInputs.digests`, which checkpoints need.

    Returns:
        The inputs of the run.

    Raises:
        ImageError: an image or a mask cannot be read.
        ConfigError: the number of masks, blend weights or sizes does not match the number of styles, a mask
            is black everywhere, ``init`` is neither a name nor a file, or an option needs the pixels of a
            style that is given by its Gram matrices.

    Example:
        >>> import numpy as np
        >>> from tfstyle import StyleConfig
        >>> from tfstyle.run import read_inputs
        >>> content, style = np.zeros((48, 64, 3), np.float32), np.ones((60, 40, 3), np.float32)
        >>> inputs = read_inputs(content, style, StyleConfig(size=32))
        >>> inputs.shape, inputs.styles[0].rgb.shape
        ((24, 32), (32, 21, 3))
    """
    sources = list(style) if isinstance(style, (list, tuple)) else [style]
    check_style_count(config, len(sources))
    check_init(config)
    record = _Digests(digests)
    original = fit_to_size(
        record.add("the content image", load(content, max_pixels=config.max_pixels)), config
    )
    styles: list[ImageArray | Style] = []
    for number, source in enumerate(sources, 1):
        loaded = Style.from_source(source) or load(source, max_pixels=config.max_pixels)
        styles.append(record.add(f"style image {number}", loaded))
    styles = [
        image if isinstance(image, Style) else _fit_style(image, index, original, config)
        for index, image in enumerate(styles)
    ]
    if digests and config.init not in INIT_NAMES:
        record.add("the start", load(config.init, max_pixels=config.max_pixels))
    masks = _merge_masks(masks, config)
    losses = config.chosen_style_losses
    if losses not in (("gram",), ("normalized_gram",)):
        by_neighbours = config.method == "neighbours"
        require_images(styles, 'method="neighbours"' if by_neighbours else f"style_losses {','.join(losses)}")
    for value in styles:
        if isinstance(value, Style) and not value.spectra and config.spectrum_weight > 0:
            log.warning(
                "%s has no local spectrum, so that the result may have a ripple; extract it again",
                value.name or "the style",
            )
    if len(masks.styles):
        require_images(styles, "style_masks")
    if config.color == "style_chroma":
        require_images(styles, "color style_chroma")
    content_for_losses, styles = _recolor(original, styles, config.color)

    def read_mask(source: Any, image: ImageArray | Style, name: str) -> np.ndarray:
        mask = record.add(name, load_mask(source, name))
        return blur_mask(resize_mask(mask, image.rgb.shape[:2]), config.mask_blur)  # type: ignore[union-attr]

    regions = [read_mask(mask, original, f"mask {i}") for i, mask in enumerate(masks.content, 1)]
    style_regions: list[np.ndarray | None] = [
        read_mask(mask, image, f"style mask {i}")
        for i, (mask, image) in enumerate(zip(masks.styles, styles), 1)
    ]
    for name, given in (("masks", masks.content), ("style_masks", masks.styles)):
        check_mask_count(name, len(given), styles=len(styles))
    keep = None if masks.keep is None else read_mask(masks.keep, original, "content_mask")
    if regions and (share := mask_coverage(regions if keep is None else [*regions, keep])) < 0.99:
        log.warning(
            "the masks cover %.0f%% of the content image, and the rest takes no style; "
            "extend the masks to cover it",
            100 * share,
        )
    return TransferInputs(
        config,
        original,
        content=content_for_losses,
        styles=styles,
        regions=regions,
        style_regions=style_regions or [None] * len(styles),
        keep=keep,
        digests=record.digests,
        matches_colors=config.method == "neighbours",
    )


class _Digests:
    """Collects the digests of images, styles and masks before they are resized and recoloured."""

    def __init__(self, wanted: bool) -> None:
        self.digests: dict[str, str] = {}
        self._wanted = wanted

    def add(self, name: str, value: Value) -> Value:
        """Record the digest of an image, a style or a mask under a name, and return the value."""
        if self._wanted:
            fields: Mapping[str, Any] = {} if isinstance(value, np.ndarray) else vars(value)
            self.digests[name] = digest({k: v for k, v in fields.items() if k != "name"} or value)
        return value


def fit_to_size(image: ImageArray, config: StyleConfig, *, size: float | None = None) -> ImageArray:
    """Return an image resized to the size of the last scale.

    Args:
        image: the image as it was read.
        config: the options. ``size_of`` says which side is measured. Unless ``enlarge`` is set, an image that
            is smaller keeps its size. With ``size_of="area"``, so does an image whose measured size differs
            from `size` by less than one pixel.
        size: size of the measured side in pixels; by default the config's ``size``.

    Returns:
        The resized image, with the same proportions up to rounding.
    """
    height, width = image.rgb.shape[:2]
    shape = fitted_shape((height, width), config, size=size)
    return image if shape == (height, width) else image.resized(shape)


def fitted_shape(shape: Shape, config: StyleConfig, *, size: float | None = None) -> Shape:
    """Return the height and width that `fit_to_size` gives an image.

    Args:
        shape: height and width of the image in pixels.
        config, size: as for `fit_to_size`.
    """
    wanted = config.size if size is None else size
    measured = measured_side(shape, config)
    if config.size_of == "area" and abs(wanted - measured) < 1:
        return shape  # the square root of an area is rarely a whole number
    factor = round(wanted * max(shape) / measured) / max(shape)
    if factor >= 1 and not config.enlarge:
        return shape
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def style_size(content: ImageArray, index: int, config: StyleConfig) -> tuple[float, bool]:
    """Return the size of a style image at the last scale, and whether it measures the longest side.

    By default the style image gets the size of the content image. Unless the size measures the longest side,
    it measures the side that `StyleConfig.size_of` names.

    Args:
        content: the content image at the size of the last scale.
        index: position of the style in the list of styles, from 0.
        config: the options.

    Returns:
        The size in pixels, and True if it is the longest side's.
    """
    if config.style_size is not None:
        return config.style_size[index % len(config.style_size)], True
    scales = config.style_scale or (1.0,)
    return measured_side(content.rgb.shape, config) * scales[index % len(scales)], False


def _fit_style(image: ImageArray, index: int, content: ImageArray, config: StyleConfig) -> ImageArray:
    size, is_longest = style_size(content, index, config)
    if is_longest:
        return image.fitted(round(size), enlarge=config.enlarge)
    return fit_to_size(image, config, size=size)


def _merge_masks(masks: Masks | Sequence[Any] | None, config: StyleConfig) -> Masks:
    """Return the masks that were given; the config's replace each kind of mask that was not given."""
    given = masks if isinstance(masks, Masks) else Masks(content=masks)
    return Masks(
        given.content if len(given.content) else config.masks or (),
        given.styles if len(given.styles) else config.style_masks or (),
        keep=config.content_mask if given.keep is None else given.keep,
    )


def _recolor(
    content: ImageArray, styles: Sequence[ImageArray | Style], color: str
) -> tuple[ImageArray, list[ImageArray | Style]]:
    """Return the content image and the styles in the colours in which the losses compare them.

    Reference: Gatys et al. 2017, Controlling Perceptual Factors, section 5.
    """
    if color == "luminance":
        content_y = luminance(content.on_white())
        grey_styles = [
            ImageArray(grey(match_luminance(luminance(image.on_white()), content_y)))
            for image in require_images(styles, f"color {color}")
        ]
        return _without_chroma(content), [*grey_styles]
    if color in COLOR_MATCHING:
        matched = [
            ImageArray(match_colors(image.on_white(), content.on_white(), method=color))
            for image in require_images(styles, f"color {color}")
        ]
        return content, [*matched]
    return content, list(styles)


def _without_chroma(image: ImageArray) -> ImageArray:
    return dataclasses.replace(image, rgb=grey(luminance(image.rgb)))


def _as_image(mask: np.ndarray) -> tf.Tensor:
    """Return a mask ``[height, width]`` as a tensor ``[1, height, width, 1]``."""
    return tf.constant(mask[None, :, :, None], tf.float32)


class ScaleTargets:
    """Computes the targets of the scales of a run from its inputs.

    Args:
        inputs: the inputs of the run.
        setup: the setup of the run. Summaries of style images are stored in its cache.
    """

    def __init__(self, inputs: TransferInputs, setup: TransferSetup) -> None:
        self._inputs, self._setup = inputs, setup

    def style_shapes(self, scale: Scale) -> list[Shape]:
        """Return the approximate height and width of each style image at a scale.

        Styles that are given by their Gram matrices are left out. `compute` does not shrink an image below
        the encoder's minimum size, so its image may be larger than the shape returned here.
        """
        images = [style.rgb.shape for style in self._inputs.styles if not isinstance(style, Style)]
        return [(round(scale.factor * height), round(scale.factor * width)) for height, width, _ in images]

    def compute(self, scale: Scale, layout: Layout, *, start: np.ndarray | None = None) -> Targets:
        """Return the targets of the objective for one scale.

        The content image is resized to the shape of the scale, and the style images are shrunk by its factor.

        Args:
            scale: the scale.
            layout: the layout of the scale, which says whether images are evaluated in tiles.
            start: the image at the beginning of the scale, float32 ``[height, width, 3]``. Scales with
                `Scale.hypercolumns` need it.

        Raises:
            ConfigError: a region has no position left in a style layer.
        """
        targets = self._matched(scale, start) if scale.hypercolumns else self._summarised(scale, layout)
        if self._inputs.temporal is not None:
            targets = targets._replace(temporal=(self._inputs.temporal.target(scale.shape),))
        return targets

    def _matched(self, scale: Scale, start: np.ndarray | None) -> Targets:
        """Return the targets of a scale whose style loss is the hypercolumn loss."""
        assert start is not None
        inputs, config = self._inputs, self._inputs.config
        content = inputs.content_at(scale.shape)
        # At the first scale there is no result of a scale before that could take part in the search.
        query = content if scale.number == 1 else query_image(content, start, alpha=config.alpha)
        shares = [share / max(config.style_blend or (1.0,)) for share in config.style_blend or ()]
        shares = shares or [1.0] * len(inputs.styles)
        masks, _, keep = self._masks(scale.shape)
        separate = len(masks) > 1
        if separate:  # the share of a style is the weight of its region
            masks = [mask * share for mask, share in zip(masks, shares, strict=True)]
            shares = [1.0] * len(shares)
        sources = [self._style_source(index, scale, share) for index, share in enumerate(shares)]
        regions = [[source] for source in sources] if separate else [[s for s in sources if s.share > 0]]
        columns, weights = match_hypercolumns(
            self._setup,
            query,
            regions=regions,
            masks=masks or [np.ones(scale.shape, np.float32)],
            rotated=config.style_rotations,
            seed=config.seed,
        )
        return self._setup.evaluate(
            self._setup.objective.hypercolumn_targets,
            tf.constant(content[None]),
            columns,
            weights=weights,
            keep=None if keep is None else _as_image(keep),
        )

    def _style_source(self, index: int, scale: Scale, share: float) -> StyleSource:
        image, mask = self._style_image(index, scale), self._inputs.style_regions[index]
        pixels = image.on_white()
        return StyleSource(pixels, None if mask is None else resize_mask(mask, pixels.shape[:2]), share)

    def _style_image(self, index: int, scale: Scale) -> ImageArray:
        """Return a style image at the size of a scale. The style must have an image."""
        (image,) = require_images(self._inputs.styles[index : index + 1], "the style loss")
        return image.shrunk(scale.factor, minimum=self._setup.style_encoder.minimum_size)

    def _summarised(self, scale: Scale, layout: Layout) -> Targets:
        """Return the targets of a scale whose style losses compare summaries."""
        inputs, blend = self._inputs, self._inputs.config.style_blend
        styles = [self._style_summary(index, scale, layout) for index in range(len(inputs.styles))]
        regions, keep = self._regions(scale.shape)
        content = inputs.content_at(scale.shape)[None]
        if layout.side is not None:
            tiled = self._setup.tiled_objective(layout.side)
            targets = tiled.targets(content, styles, blend_weights=blend, regions=regions, keep=keep)
        else:
            image, objective = tf.constant(content), self._setup.objective
            targets = self._setup.evaluate(
                objective.targets, image, styles, blend_weights=blend, regions=regions, keep=keep
            )
        return targets

    def _masks(self, shape: Shape) -> tuple[list[np.ndarray], list[str], np.ndarray | None]:
        """Return the masks of the regions at a scale, their names, and the mask of the kept pixels."""
        inputs = self._inputs
        keep = None if inputs.keep is None else resize_mask(inputs.keep, shape)
        free = 1.0 if keep is None else 1.0 - keep
        masks = [resize_mask(mask, shape) * free for mask in inputs.regions]
        excluded = "" if keep is None else " outside content_mask"
        names = [f"mask {i}{excluded}" for i in range(1, len(masks) + 1)]
        if keep is not None and not masks:
            masks, names = [np.asarray(free)], ["the region outside content_mask"]
        return masks, names, keep

    def _regions(self, shape: Shape) -> tuple[list[Region], tf.Tensor | None]:
        """Return the regions of the styles at a scale, and the mask of the pixels that are not changed.

        Raises:
            ConfigError: a region has no position left in a style layer.
        """
        inputs = self._inputs
        masks, names, keep = self._masks(shape)
        blend = inputs.config.style_blend
        parts = blend if blend and len(masks) == len(inputs.styles) else [1] * len(masks)
        areas = [float(mask.mean()) * part for mask, part in zip(masks, parts, strict=True)]
        regions = [
            Region(area / max(sum(areas), 1e-9), self._position_weights(mask, name), _as_image(mask))
            for area, mask, name in zip(areas, masks, names, strict=True)
        ]
        return regions, None if keep is None else _as_image(keep)

    def _style_summary(self, index: int, scale: Scale, layout: Layout) -> Summaries:
        """Return the summaries of one style at a scale, from the setup's cache if possible."""
        inputs, config = self._inputs, self._inputs.config
        style, region = inputs.styles[index], inputs.style_regions[index]
        if isinstance(style, Style):
            size, _ = style_size(inputs.content, index, config)
            longest = size if config.enlarge or not style.original_size else min(size, style.original_size)
            grams = style.at(scale.factor * longest)
            summaries: Summaries = {layer: (tf.constant(gram[None]),) for layer, gram in grams.items()}
            if (spectrum := style.spectrum_at(scale.factor * longest)) is not None:
                summaries[SPECTRUM] = (tf.constant(spectrum),)
            return summaries
        image = self._style_image(index, scale).on_white()
        if region is not None:
            mask = resize_mask(region, image.shape[:2])
            return self._summarize(image, layout, mask=mask, name=f"style mask {index + 1}")
        if config.color not in STYLE_KEEPS_COLORS:  # the recoloured image depends on the content image
            return self._summarize(image, layout)
        cache, key = self._setup.style_summaries, (index, image.shape, layout.style_side)
        if key not in cache:
            cache[key] = self._summarize(image, layout)
        return cache[key]

    def _summarize(
        self, image: np.ndarray, layout: Layout, *, mask: np.ndarray | None = None, name: str = ""
    ) -> Summaries:
        """Return the summaries of a style image, and of its rotations if neighbours are searched in them."""
        losses = [loss for loss, _ in self._setup.objective.style_losses]
        rotated = self._inputs.config.style_rotations and NEIGHBOURS in losses
        images = style_rotations(image, rotated=rotated)
        masks = [None] * len(images) if mask is None else style_rotations(mask, rotated=rotated)
        first, *others = [
            self._summarize_one(pixels, layout, part, name)
            for pixels, part in zip(images, masks, strict=True)
        ]
        if NEIGHBOURS in losses:  # the samples are drawn here, so that the cache does not store all positions
            number = losses.index(NEIGHBOURS)
            for layer in self._setup.style_layers:
                samples = [summaries[layer][number] for summaries in (first, *others)]
                pooled = NEIGHBOURS.blend(samples, [1.0] * len(samples))
                first[layer] = (*first[layer][:number], pooled, *first[layer][number + 1 :])
        return first

    def _summarize_one(
        self, image: np.ndarray, layout: Layout, mask: np.ndarray | None, name: str
    ) -> Summaries:
        weights = {} if mask is None else self._position_weights(mask, name)
        pixels, region = image[None], None if mask is None else _as_image(mask)
        if layout.style_side is not None:
            tiled = self._setup.tiled_objective(layout.style_side, for_styles=True)
            return tiled.style_summary(pixels, weights, mask=region)
        summary = self._setup.style_objective.style_summary
        return self._setup.evaluate(summary, tf.constant(pixels), weights, mask=region)

    def _position_weights(self, mask: np.ndarray, name: str) -> dict[str, tf.Tensor]:
        encoder = self._setup.encoder
        return position_weights(
            mask,
            layer_shapes(encoder, mask.shape[:2], layers=self._setup.style_layers),
            guidance=self._inputs.config.guidance,
            name=name,
            network=encoder.network,
        )

"""Masks of regions of an image, and the weights that they give to the positions of a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from tfstyle.addons import gaussian_filter2d
from tfstyle.errors import ConfigError
from tfstyle.images import load
from tfstyle.layers import NETWORKS, Layer, layer_names


@dataclass(frozen=True, eq=False, repr=False)
class Masks:
    """Masks of regions of the content image and of the style images.

    White pixels are inside the region, black pixels are outside, and grey pixels are partly inside. Each mask
    is a path, a PIL image or an array. It may have any size, because it is resized to the size of its image.

    Attributes:
        content: a list with the mask of the region of the content image that gets each style, or a single
            mask. If it is empty, every style applies to the whole image.
        styles: a list with the mask of the part of each style image that is used, or a single mask. If it is
            empty, the whole style images are used.
        keep: mask of the region in which the content image is not changed, or None.

    Example:
        >>> import numpy as np
        >>> from tfstyle import Masks, stylize
        >>> generator = np.random.default_rng(0)
        >>> content, waves, scream = generator.random((3, 32, 48, 3), np.float32)
        >>> sky = np.zeros((32, 48), np.float32)
        >>> sky[:16] = 1.0  # the upper half is styled after the waves, the lower half after the scream
        >>> result = stylize(
        ...     content, [waves, scream], masks=Masks([sky, 1.0 - sky]), weights="random", size=48,
        ...     content_layers=["conv2_1"], style_layers=["conv1_1"], iterations=1, scales=1, compile="eager",
        ... )
        >>> result.image.shape
        (32, 48, 3)
    """

    content: Any = ()
    styles: Any = ()
    _: KW_ONLY
    keep: Any = None

    def __repr__(self) -> str:
        keep = "" if self.keep is None else ", keep"
        return f"Masks({len(self.content)} of content, {len(self.styles)} of styles{keep})"

    def __post_init__(self) -> None:
        for name in ("content", "styles"):
            object.__setattr__(self, name, _as_list(getattr(self, name)))


def _as_list(masks: Any) -> tuple[Any, ...]:
    """Return a single mask, a list of masks or an array ``[number, height, width]`` of masks as a tuple."""
    if masks is None:
        return ()
    stacked = isinstance(masks, np.ndarray) and masks.ndim == 3 and masks.shape[-1] > 4
    return tuple(masks) if stacked or isinstance(masks, (list, tuple)) else (masks,)


def load_mask(source: Any, name: str) -> np.ndarray:
    """Read a mask. Its values are the mean of the red, green and blue channels, times alpha.

    Args:
        source: a path, a PIL image or an array.
        name: name of the mask in error messages, such as ``mask 1``.

    Returns:
        float32 ``[height, width]`` in 0..1.

    Raises:
        ImageError: the mask cannot be read.
        ConfigError: the mask is black or transparent everywhere.
    """
    image = load(source)
    mask = image.rgb.mean(-1) if image.alpha is None else image.rgb.mean(-1) * image.alpha
    if not mask.max() > 0:
        raise ConfigError(f"{name} is empty: every pixel is black or transparent; make its region white")
    return mask.astype(np.float32)


def resize_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a mask resized by averaging (box filter), which preserves the weight of small regions.

    Args:
        mask: float32 ``[height, width]``.
        shape: the new height and width.

    Returns:
        float32 of this shape; the mask itself if it has this shape already.
    """
    if mask.shape == tuple(shape):
        return mask
    resized = Image.fromarray(mask).resize(shape[::-1], Image.Resampling.BOX)
    return np.asarray(resized, np.float32)


def blur_mask(mask: np.ndarray, blur: float) -> np.ndarray:
    """Return a mask blurred by a Gaussian.

    The Gaussian is cut off at three standard deviations, and the mask is mirrored at its borders. With a
    standard deviation of more than 32 pixels the mask is blurred at a smaller size and enlarged again, which
    changes its values by about 0.005 at most.

    Args:
        mask: float32 ``[height, width]`` in 0..1.
        blur: standard deviation as a fraction of the longer side; at 0 the mask itself is returned.

    Returns:
        float32 ``[height, width]`` in 0..1.
    """
    sigma = blur * max(mask.shape)
    if not sigma > 0:
        return mask
    if sigma > 32:  # the result is so smooth that a coarser grid represents it, at a fraction of the time
        smaller = [max(1, round(side * 16 / sigma)) for side in mask.shape]
        blurred = Image.fromarray(blur_mask(resize_mask(mask, (smaller[0], smaller[1])), blur))
        return np.asarray(blurred.resize(mask.shape[::-1], Image.Resampling.BICUBIC), np.float32).clip(
            0.0, 1.0
        )
    radii = [min(math.ceil(3 * sigma), side) for side in mask.shape]
    shape = (2 * radii[0] + 1, 2 * radii[1] + 1)
    with tf.device("/CPU:0"):  # masks are read before the run chooses its device
        return gaussian_filter2d(mask[None, :, :, None], shape, sigma=sigma, padding="SYMMETRIC").numpy()[
            0, :, :, 0
        ]


def position_weights(
    mask: np.ndarray,
    shapes: Mapping[str, tuple[int, int]],
    *,
    guidance: str,
    name: str,
    network: str = "vgg19",
) -> dict[str, tf.Tensor]:
    """Return the weights ``w = T² / mean(T²)`` of the positions of each layer, with the guidance channel T.

    The Gram matrix of √w F is that of the guided features T ∘ F of Gatys et al., with T normalised to
    mean(T²) = 1.

    Args:
        mask: float32 ``[height, width]`` in 0..1, of the size of the image.
        shapes: layer -> height and width of its features.
        guidance: how T is computed from the mask. ``average`` averages the mask over the pixels that a
            position covers. ``dilate`` includes every position whose receptive field overlaps the region.
            ``erode`` includes only positions whose receptive field lies inside the region.
        name: name of the mask in error messages, such as ``mask 1``.
        network: ``vgg19`` or ``vgg16``. For any other network the mask is averaged.

    Returns:
        layer -> float32 ``[1, h, w, 1]`` of mean 1.

    Raises:
        ConfigError: no position of a layer is inside the region.

    Reference: Gatys et al. 2017, Controlling Perceptual Factors, section 4.1.

    Example:
        >>> import numpy as np
        >>> from tfstyle.losses import position_weights
        >>> mask = np.zeros((32, 64), np.float32)
        >>> mask[:, :16] = 1.0  # a quarter of the image: each position inside it gets the weight 4
        >>> shapes = {"conv1_1": (32, 64), "conv3_1": (8, 16)}
        >>> weights = position_weights(mask, shapes, guidance="average", name="mask 1")
        >>> weights["conv3_1"][0, 0, :6, 0].numpy().tolist()
        [4.0, 4.0, 4.0, 4.0, 0.0, 0.0]
    """
    weights = {}
    for layer, shape in shapes.items():
        channel = _guidance_channel(mask, layer, guidance, network)
        channel = channel if channel.shape == shape else resize_mask(channel, shape)
        squares = np.square(channel, dtype=np.float64)
        if not squares.mean() > 1e-8:
            raise ConfigError(
                f"{name}: no position of {layer} ({shape[1]} x {shape[0]}) is inside the region; use a "
                'larger region or size, shallower style layers, or guidance="average"'
            )
        weights[layer] = tf.constant((squares / squares.mean()).astype(np.float32)[None, :, :, None])
    return weights


def _guidance_channel(mask: np.ndarray, layer: str, guidance: str, network: str) -> np.ndarray:
    """Return a mask propagated to a layer, through the convolutions only if it is dilated or eroded."""
    if layer not in layer_names(network):
        return mask
    deepest = Layer.parse(layer)
    below = [x for x in NETWORKS[network] if x <= deepest]
    convolutions = [sum(x.block == block for x in below) for block in range(1, deepest.block + 1)]
    if guidance == "erode":
        return 1.0 - _propagate(1.0 - mask, convolutions, dilate=True)
    return _propagate(mask, convolutions, dilate=guidance == "dilate")


def _propagate(mask: np.ndarray, convolutions: Sequence[int], dilate: bool) -> np.ndarray:
    """Propagate a mask to the size of the last block.

    Args:
        mask: ``[height, width]`` of the image.
        convolutions: number of convolutions in each block.
        dilate: whether to take maxima over the cells of the pooling layers and the kernels of the
            convolutions, instead of means over the cells alone.
    """
    for block, count in enumerate(convolutions):
        if block > 0:  # the pooling layer before the block, which drops an odd last row or column
            height, width = mask.shape[0] // 2, mask.shape[1] // 2
            cells = mask[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
            mask = cells.max((1, 3)) if dilate else cells.mean((1, 3))
        if dilate:
            mask = _dilate(mask, count)
    return mask


def _dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Return the maxima over a square of ``2 radius + 1`` pixels a side around each pixel."""
    for axis in (0, 1):
        padded = np.pad(mask, [(radius, radius) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        mask = np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1, axis).max(-1)
    return mask


def mask_coverage(masks: Sequence[np.ndarray]) -> float:
    """Return the fraction of the image that the masks cover together, in 0..1.

    Args:
        masks: float32 ``[height, width]`` in 0..1, all of the same size. Where they overlap, their sum counts
            up to 1.

    Example:
        >>> import numpy as np
        >>> from tfstyle.losses import mask_coverage
        >>> left, middle = np.zeros((2, 4, 4), np.float32)
        >>> left[:, :2], middle[:, 1:3] = 1.0, 1.0
        >>> mask_coverage([left, middle])
        0.75
    """
    return float(np.minimum(np.sum(masks, axis=0), 1.0).mean())

"""Masks of regions of an image, brought to the sizes of an encoder's layers."""

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


@dataclass(frozen=True, eq=False)
class Masks:
    """Regions of the content and style images: white is inside, black outside, grey partly inside.

    Each mask is a path, a PIL image or an array, of any size: it is resized to its image.

    Attributes:
        content: for each style, the region of the content image that takes it; empty for everywhere.
        styles: for each style, the region of the style image that it is taken from; empty for all of it.
        keep: the region in which the content image is not changed, or None.
    """

    content: Sequence[Any] = ()
    styles: Sequence[Any] = ()
    _: KW_ONLY
    keep: Any = None


def load_mask(source: Any, name: str) -> np.ndarray:
    """Read a mask as float32 ``[height, width]`` in 0..1: the mean of R, G and B, times alpha.

    Args:
        source: a path, a PIL image or an array.
        name: of the mask, for errors.

    Raises:
        ImageError: it cannot be read.
        ConfigError: it is black everywhere.
    """
    image = load(source)
    mask = image.rgb.mean(-1) if image.alpha is None else image.rgb.mean(-1) * image.alpha
    if not mask.max() > 0:
        raise ConfigError(f"{name} is empty: it is black all over")
    return mask.astype(np.float32)


def resize_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a mask by averaging (box filter), which loses no small region."""
    if mask.shape == tuple(shape):
        return mask
    resized = Image.fromarray(mask).resize(shape[::-1], Image.Resampling.BOX)
    return np.asarray(resized, np.float32)


def blur_mask(mask: np.ndarray, blur: float) -> np.ndarray:
    """Blur a mask ``[height, width]`` by a Gaussian; standard deviation in parts of the longer side."""
    sigma = blur * max(mask.shape)
    if not sigma > 0:
        return mask
    if sigma > 32:  # so smooth a mask can be blurred on a coarser grid
        smaller = [max(1, round(side * 16 / sigma)) for side in mask.shape]
        blurred = Image.fromarray(blur_mask(resize_mask(mask, (smaller[0], smaller[1])), blur))
        return np.asarray(blurred.resize(mask.shape[::-1], Image.Resampling.BICUBIC), np.float32).clip(
            0.0, 1.0
        )
    radii = [min(math.ceil(3 * sigma), side) for side in mask.shape]
    shape = (2 * radii[0] + 1, 2 * radii[1] + 1)
    with tf.device("/CPU:0"):  # before a device is chosen
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
    """The weight of each position of each layer, ``w = T² / mean(T²)`` of the guidance channel T.

    The Gram matrix of √w F is then that of Gatys et al.'s guided features T ∘ F.

    Args:
        mask: ``[height, width]`` of the image.
        shapes: layer -> height and width of its features.
        guidance: how the mask goes through the network: ``average`` takes the mean over what a position
            covers; ``dilate`` keeps positions whose receptive field meets the region; ``erode`` those whose
            receptive field lies inside it.
        name: of the mask, for errors.
        network: ``vgg19`` or ``vgg16``; for any other network the mask is averaged.

    Returns:
        layer -> float32 ``[1, h, w, 1]`` of mean 1.

    Raises:
        ConfigError: the region is empty at some layer.

    Reference: Gatys et al. 2017, Controlling Perceptual Factors, section 4.1.
    """
    weights = {}
    for layer, shape in shapes.items():
        channel = _guidance_channel(mask, layer, guidance, network)
        channel = channel if channel.shape == shape else resize_mask(channel, shape)
        squares = np.square(channel, dtype=np.float64)
        if not squares.mean() > 1e-8:
            raise ConfigError(
                f"{name}: nothing is left of it at {layer}, {shape[1]} x {shape[0]}; use a larger region or "
                "size, lower layers, or guidance average"
            )
        weights[layer] = tf.constant((squares / squares.mean()).astype(np.float32)[None, :, :, None])
    return weights


def _guidance_channel(mask: np.ndarray, layer: str, guidance: str, network: str) -> np.ndarray:
    """The mask passed through the poolings below a layer and, unless it is averaged, the convolutions."""
    if layer not in layer_names(network):
        return mask
    deepest = Layer.parse(layer)
    below = [x for x in NETWORKS[network] if x <= deepest]
    convolutions = [sum(x.block == block for x in below) for block in range(1, deepest.block + 1)]
    if guidance == "erode":
        return 1.0 - _propagate(1.0 - mask, convolutions, dilate=True)
    return _propagate(mask, convolutions, dilate=guidance == "dilate")


def _propagate(mask: np.ndarray, convolutions: Sequence[int], dilate: bool) -> np.ndarray:
    """The mean, or where dilated the maximum, of a mask over what each position of the last block sees.

    Args:
        mask: ``[height, width]`` of the image.
        convolutions: how many there are in each block.
        dilate: take maxima, over the poolings' cells and the convolutions' kernels.
    """
    for block, count in enumerate(convolutions):
        if block > 0:  # the pooling before it, which drops an odd last row
            height, width = mask.shape[0] // 2, mask.shape[1] // 2
            cells = mask[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
            mask = cells.max((1, 3)) if dilate else cells.mean((1, 3))
        if dilate:
            mask = _dilate(mask, count)
    return mask


def _dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """The maximum within a square of this radius around each pixel."""
    for axis in (0, 1):
        padded = np.pad(mask, [(radius, radius) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        mask = np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1, axis).max(-1)
    return mask


def mask_coverage(masks: Sequence[np.ndarray]) -> float:
    """The share of the image that lies in any of some masks of one size, 0..1."""
    return float(np.minimum(np.sum(masks, axis=0), 1.0).mean())

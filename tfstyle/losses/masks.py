"""Where a style counts: masks of a picture, brought to the sizes of an encoder's layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    """Regions of the pictures; white counts, black does not, grey in part.

    Each mask is a path, a PIL image or an array, of any size: it is resized to its picture.

    Attributes:
        content: for each style, the region of the content that is painted in it; none: everywhere.
        styles: for each style, the region of it that is looked at; none: all of it.
        keep: what stays as it is in the content, or None.
    """

    content: Sequence[Any] = ()
    styles: Sequence[Any] = ()
    keep: Any = None


def load_mask(source: Any, what: str) -> np.ndarray:
    """Read a mask as float32 ``[height, width]`` in 0..1: lightness, where it is transparent black.

    Args:
        source: a path, a PIL image or an array.
        what: its name in errors.

    Raises:
        ImageError: it cannot be read.
        ConfigError: it is black all over.
    """
    picture = load(source)
    mask = picture.rgb.mean(-1) if picture.alpha is None else picture.rgb.mean(-1) * picture.alpha
    if not mask.max() > 0:
        raise ConfigError(f"{what} is empty: it is black all over")
    return mask.astype(np.float32)


def resize_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Average a mask over the pixels of another size, which loses no small region."""
    if mask.shape == tuple(shape):
        return mask
    resized = Image.fromarray(mask).resize(shape[::-1], Image.Resampling.BOX)
    return np.asarray(resized, np.float32)


def blur_mask(mask: np.ndarray, blur: float) -> np.ndarray:
    """Blur a mask ``[height, width]`` by a Gaussian; its deviation is given in parts of the longer side."""
    sigma = blur * max(mask.shape)
    if not sigma > 0:
        return mask
    if sigma > 32:  # what is so smooth needs no finer grid
        smaller = [max(1, round(side * 16 / sigma)) for side in mask.shape]
        soft = Image.fromarray(blur_mask(resize_mask(mask, (smaller[0], smaller[1])), blur))
        return np.asarray(soft.resize(mask.shape[::-1], Image.Resampling.BICUBIC), np.float32).clip(0.0, 1.0)
    radii = [min(math.ceil(3 * sigma), side) for side in mask.shape]
    shape = (2 * radii[0] + 1, 2 * radii[1] + 1)
    with tf.device("/CPU:0"):  # before a device is chosen
        return gaussian_filter2d(mask[None, :, :, None], shape, sigma, "SYMMETRIC").numpy()[0, :, :, 0]


def position_weights(
    mask: np.ndarray,
    shapes: Mapping[str, tuple[int, int]],
    guidance: str,
    what: str,
    network: str = "vgg19",
) -> dict[str, tf.Tensor]:
    """What each position of each layer counts, ``w = T² / mean(T²)`` of the guidance channel T.

    The Gram matrix of √w F is then that of Gatys et al.'s guided features T ∘ F.

    Args:
        mask: ``[height, width]`` of the picture.
        shapes: layer -> height and width of its features.
        guidance: how the mask goes through the network: ``simple`` averages; ``all`` keeps positions that
            see any of the region; ``inside`` those that see nothing else.
        what: the mask's name in errors.
        network: of the encoder; where its layers are not known here, the mask is averaged.

    Returns:
        layer -> float32 ``[1, h, w, 1]`` of mean 1.

    Raises:
        ConfigError: at some layer nothing is left of the region.

    Reference: Gatys et al. 2017, Controlling Perceptual Factors, section 4.1.
    """
    weights = {}
    for layer, shape in shapes.items():
        channel = _guide(mask, layer, guidance, network)
        channel = channel if channel.shape == shape else resize_mask(channel, shape)
        squares = np.square(channel, dtype=np.float64)
        if not squares.mean() > 1e-8:
            raise ConfigError(
                f"{what}: nothing is left of it at {layer}, {shape[1]} x {shape[0]}; use a larger region or "
                "size, lower layers, or guidance simple"
            )
        weights[layer] = tf.constant((squares / squares.mean()).astype(np.float32)[None, :, :, None])
    return weights


def _guide(mask: np.ndarray, layer: str, guidance: str, network: str) -> np.ndarray:
    """The mask as the layer's positions see it, through the poolings and, but for "average", convolutions."""
    if layer not in layer_names(network):
        return mask
    deepest = Layer.parse(layer)
    below = [x for x in NETWORKS[network] if x <= deepest]
    convolutions = [sum(x.block == block for x in below) for block in range(1, deepest.block + 1)]
    if guidance == "erode":
        return 1.0 - _pooled(1.0 - mask, convolutions, _largest)
    return _pooled(mask, convolutions, _largest if guidance == "dilate" else None)


def _pooled(
    mask: np.ndarray, convolutions: Sequence[int], grow: Callable[[np.ndarray, int], np.ndarray] | None
) -> np.ndarray:
    for block, count in enumerate(convolutions):
        if block > 0:  # the pooling before it, which drops an odd last row
            height, width = mask.shape[0] // 2, mask.shape[1] // 2
            cells = mask[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
            mask = cells.mean((1, 3)) if grow is None else cells.max((1, 3))
        if grow is not None:
            mask = grow(mask, count)
    return mask


def _largest(mask: np.ndarray, radius: int) -> np.ndarray:
    """The largest value within so many pixels."""
    for axis in (0, 1):
        wide = np.pad(mask, [(radius, radius) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        mask = np.lib.stride_tricks.sliding_window_view(wide, 2 * radius + 1, axis).max(-1)
    return mask


def mask_coverage(masks: Sequence[np.ndarray]) -> float:
    """The share of the picture that lies in any of some masks of one size, 0..1."""
    return float(np.minimum(np.sum(masks, axis=0), 1.0).mean())

"""Textures by guided correspondence: every patch of the texture resembles a patch of the style image."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from tfstyle.config import PADDING
from tfstyle.errors import ConfigError
from tfstyle.images import (
    estimate_orientation,
    load,
    luminance,
    orientation_vectors,
    resize,
    resize_circular,
)
from tfstyle.layers import Layer
from tfstyle.losses import guided_correspondence_loss, nearest_patches, patch_starts, patches
from tfstyle.network import Encoder, Weights
from tfstyle.optim import adam
from tfstyle.papers.descent import Descent, descend

#: Layers of the loss, as in the paper.
CORRESPONDENCE_LAYERS = ("conv2_1", "conv3_1", "conv4_1")
#: Sizes of the scales relative to the size of the result.
SCALES = (0.25, 0.5, 1.0)
#: A scale other than the last one is left out if a side of the texture or of the style image would have fewer
#: pixels.
SMALLEST_SIDE = 32
#: A rotated copy is left out at a scale if a side would have fewer pixels.
SMALLEST_COPY = 16
#: Positions of a patch along each side, and the distance of neighbouring patches.
PATCH_SIZE, PATCH_STRIDE = 7, 3
#: Learning rate of Adam.
LEARNING_RATE = 0.01
#: Default weight of the repetition term, as in the paper.
AVOID_REPETITION = 0.05
#: Default weight of the maps.
GUIDANCE_WEIGHT = 2.0
#: Weight of the progression relative to the orientation.
PROGRESSION_WEIGHT = 10.0
#: With an orientation map, the style image is rotated by multiples of 180° / `TURNS`.
TURNS = 8


class Guidance(NamedTuple):
    """Guidance vectors of the texture and of the style image.

    Their squared distances are added to the distances of the patches.

    Attributes:
        texture, style: float32 ``[height, width, K]``, of any size.
        turned: index of the first of the two entries with the orientation, which change if the image is
            rotated; None without an orientation.
        progression: index of the entry with the progression; None without a progression.
    """

    texture: np.ndarray
    style: np.ndarray
    turned: int | None = None
    progression: int | None = None


class GuidedScale(NamedTuple):
    """The result of one scale.

    Attributes:
        descent: the texture and the losses.
        used: fraction of the style patches that are the nearest one of at least one texture patch; the mean
            over the layers.
    """

    descent: Descent
    used: float


def read_guidance(
    source: np.ndarray,
    *,
    orientation: Any = None,
    style_orientation: Any = None,
    progression: Any = None,
    style_progression: Any = None,
    weight: float,
) -> Guidance | None:
    """Read guidance maps and return them as vectors.

    The squared distance of two vectors is ``weight (sin² Δ + 10 (p - q)²)``, where Δ is the angle between the
    orientations, and p and q are the progressions.

    Args:
        source: style image, ``[height, width, 3]`` in 0..1.
        orientation, style_orientation: grey images of the texture's and of the style image's orientation;
            0..1 stands for 0 to 180 degrees. The style image's is estimated if it is None.
        progression, style_progression: grey images of the texture's and of the style image's progression.
        weight: weight of the guidance, at least 0.

    Returns:
        The vectors, or None without maps.

    Raises:
        ConfigError: the weight is negative or not finite, a style image's map is given without the texture's,
            or the style image's progression is missing.
        ImageError: a map cannot be read.
    """
    if not 0 <= weight < math.inf:
        raise ConfigError(f"guidance_weight is {weight:g}; it must be at least 0")
    pair = "give one map for the texture and one for the style image"
    if progression is not None and style_progression is None:
        raise ConfigError(f"progression needs style_progression too; {pair}")
    if progression is None and style_progression is not None:
        raise ConfigError(f"progression is missing, but style_progression was given; {pair}")
    if orientation is None and style_orientation is not None:
        raise ConfigError(
            "orientation is missing, but style_orientation was given; give the map that the texture follows"
        )
    texture_parts, style_parts = [], []
    if orientation is not None:
        style_map = estimate_orientation(source) if style_orientation is None else read_map(style_orientation)
        scale = math.sqrt(weight) / 2  # the distance of unit vectors of double angles is 4 sin² Δ
        texture_parts.append(scale * orientation_vectors(read_map(orientation)))
        style_parts.append(scale * orientation_vectors(style_map))
    if progression is not None:
        scale = math.sqrt(weight * PROGRESSION_WEIGHT)
        texture_parts.append(scale * read_map(progression)[..., None])
        style_parts.append(scale * read_map(style_progression)[..., None])
    if not texture_parts:
        return None
    return Guidance(
        _joined(texture_parts),
        _joined(style_parts),
        None if orientation is None else 0,
        None if progression is None else 2 * (orientation is not None),
    )


def synthesise_guided(
    source: np.ndarray,
    shape: tuple[int, int],
    *,
    layers: Sequence[str],
    vgg_weights: Weights,
    pooling: str,
    seamless: bool,
    iterations: int,
    guidance: Guidance | None,
    avoid_repetition: float,
    seed: int,
) -> Iterator[GuidedScale]:
    """Minimise the guided correspondence loss, from coarse to fine.

    Args:
        source: style image, float32 ``[height, width, 3]`` in 0..1, in the size of the last scale.
        shape: height and width of the texture in pixels.
        layers: names of the layers.
        vgg_weights: weights of the network.
        pooling: pooling of the encoder.
        seamless: whether the texture tiles.
        iterations: iterations of each scale.
        guidance: guidance vectors, or None.
        avoid_repetition: weight of the repetition term.
        seed: seed of the start.

    Yields:
        The result of each scale; the last one has the texture.
    """
    stride = Layer.parse(max(layers)).stride
    generator = np.random.default_rng(seed)
    texture_encoder, style_encoder = texture_encoders(
        layers, vgg_weights=vgg_weights, pooling=pooling, seamless=seamless
    )
    image = None
    for factor in _usable_scales(min(*shape, *source.shape[:2])):
        scale_shape = _scaled(shape, factor, multiple=stride if seamless else 1)
        if image is None:
            # The start is enlarged from half the size. Noise between neighbouring pixels would remain,
            # because the layers hardly respond to it.
            image = random_start(source, _scaled(scale_shape, 0.5), guidance=guidance, generator=generator)
        enlarge = resize_circular if seamless else resize
        result = _synthesise_scale(
            enlarge(image, scale_shape),
            *_style_copies(source, factor, guidance=guidance),
            texture_encoder=texture_encoder,
            style_encoder=style_encoder,
            seamless=seamless,
            iterations=iterations,
            guidance=None if guidance is None else guidance.texture,
            avoid_repetition=avoid_repetition,
        )
        image = result.descent.image
        yield result


def texture_encoders(
    layers: Sequence[str], *, vgg_weights: Weights, pooling: str, seamless: bool
) -> tuple[Encoder, Encoder]:
    """Return the encoder of a texture and the encoder of the style image.

    Args:
        layers: names of the layers.
        vgg_weights: weights of the network.
        pooling: pooling of both encoders.
        seamless: whether the texture tiles, so that its encoder has circular padding.

    Returns:
        The encoder of the texture, and that of the style image, which has the default padding.
    """
    make_encoder = functools.partial(
        Encoder, layers, vgg_weights, pooling=pooling, network=vgg_weights.network
    )
    return make_encoder(padding="circular" if seamless else PADDING), make_encoder(padding=PADDING)


def random_start(
    source: np.ndarray,
    shape: tuple[int, int],
    *,
    guidance: Guidance | None,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return an image whose pixels are random pixels of the style image.

    With a progression, each pixel is one of those with a similar progression.

    Args:
        source: style image, ``[height, width, 3]``.
        shape: height and width of the image.
        guidance: guidance vectors, or None.
        generator: generator of random numbers.

    Returns:
        float32 ``[*shape, 3]``.
    """
    pixels = source.reshape(-1, 3)
    count = shape[0] * shape[1]
    if guidance is None or guidance.progression is None:
        return pixels[generator.integers(len(pixels), size=count)].reshape(*shape, 3)
    entry = guidance.progression
    progression = resize(guidance.style, source.shape[:2], clip=False)[..., entry].ravel()
    wanted = resize(guidance.texture, shape, clip=False)[..., entry].ravel()
    order = np.argsort(progression, kind="stable")
    spread = max(1, len(pixels) // 50)
    places = np.searchsorted(progression[order], wanted) + generator.integers(-spread, spread + 1, count)
    return pixels[order[places.clip(0, len(pixels) - 1)]].reshape(*shape, 3)


def turned_copy(array: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate an image counter-clockwise, and return the largest upright rectangle inside of it.

    Args:
        array: float32 ``[height, width, channels]``.
        degrees: angle in degrees.

    Returns:
        float32 ``[height, width, channels]`` of another size.
    """
    if degrees % 90 == 0:
        return np.rot90(array, round(degrees / 90)).copy()
    height, width = _inner_rectangle(array.shape[0], array.shape[1], math.radians(degrees))
    planes = [
        np.asarray(Image.fromarray(plane).rotate(degrees, Image.Resampling.BICUBIC, expand=True))
        for plane in np.moveaxis(np.ascontiguousarray(array, np.float32), -1, 0)
    ]
    turned = np.stack(planes, -1)
    top, left = (turned.shape[0] - height) // 2, (turned.shape[1] - width) // 2
    return turned[top : top + height, left : left + width]


def _inner_rectangle(height: int, width: int, angle: float) -> tuple[int, int]:
    """Return the sides of the largest upright rectangle in a rotated one, less a margin of 2 pixels."""
    sine, cosine = abs(math.sin(angle)), abs(math.cos(angle))
    if min(height, width) <= 2 * sine * cosine * max(height, width) or math.isclose(sine, cosine):
        half = min(height, width) / 2
        inner_width, inner_height = half / sine, half / cosine
        if width < height:
            inner_width, inner_height = half / cosine, half / sine
    else:
        double = cosine**2 - sine**2
        inner_width = (width * cosine - height * sine) / double
        inner_height = (height * cosine - width * sine) / double
    return max(1, math.floor(inner_height) - 4), max(1, math.floor(inner_width) - 4)


def _style_copies(
    source: np.ndarray, factor: float, *, guidance: Guidance | None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the style image at the size of a scale, and its guidance vectors.

    With an orientation map, both lists also contain the rotated copies. Without guidance, the list of vectors
    is empty.
    """
    small = _scaled(source.shape[:2], factor)
    if guidance is None:
        return [resize(source, small)], []
    vectors = resize(guidance.style, source.shape[:2], clip=False)
    if guidance.turned is None:
        return [resize(source, small)], [vectors]
    images, maps = [], []
    for turn in range(TURNS):
        angle = 180.0 * turn / TURNS
        image = turned_copy(source, angle).clip(0, 1)
        shape = _scaled(image.shape[:2], factor)
        if turn and min(shape) < SMALLEST_COPY:
            continue
        images.append(resize(image, shape))
        turned = turned_copy(vectors, angle)
        double = math.radians(2 * angle)
        turning = np.array([[math.cos(double), math.sin(double)], [-math.sin(double), math.cos(double)]])
        pair = slice(guidance.turned, guidance.turned + 2)
        turned[..., pair] = turned[..., pair] @ turning
        maps.append(turned)
    return images, maps


def _synthesise_scale(
    start: np.ndarray,
    copies: Sequence[np.ndarray],
    copy_maps: Sequence[np.ndarray],
    *,
    texture_encoder: Encoder,
    style_encoder: Encoder,
    seamless: bool,
    iterations: int,
    guidance: np.ndarray | None,
    avoid_repetition: float,
) -> GuidedScale:
    """Minimise the loss at one scale.

    Args:
        start: first image.
        copies: style image and its rotated copies.
        copy_maps: guidance vectors of the copies; empty without guidance.
        texture_encoder, style_encoder: encoders of the texture and of the copies, with the same layers.
        guidance: guidance vectors of the texture, or None.
        seamless, iterations, avoid_repetition: as for `synthesise_guided`.
    """
    layers = texture_encoder.layers
    style_features = [style_encoder(tf.constant(image[None])) for image in copies]
    start_features = texture_encoder(tf.constant(start[None]))
    sizes = {
        layer: min(PATCH_SIZE, *(s for f in (start_features, *style_features) for s in f[layer].shape[1:3]))
        for layer in layers
    }
    targets = {}
    for layer in layers:
        options = {"size": sizes[layer], "stride": PATCH_STRIDE}
        target = {"style": tf.concat([patches(f[layer], **options) for f in style_features], 0)}
        if guidance is not None:
            target["style guidance"] = tf.concat(
                [
                    _patch_guidance(vectors, f[layer].shape[1:3], circular=False, **options)
                    for f, vectors in zip(style_features, copy_maps, strict=True)
                ],
                0,
            )
            target["texture guidance"] = _patch_guidance(
                guidance, start_features[layer].shape[1:3], circular=seamless, **options
            )
        targets[layer] = target

    def texture_patches(features: Mapping[str, tf.Tensor], layer: str) -> tf.Tensor:
        return patches(features[layer], size=sizes[layer], stride=PATCH_STRIDE, circular=seamless)

    def objective(image: tf.Tensor, targets: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        features = texture_encoder(image)
        losses = [
            guided_correspondence_loss(
                texture_patches(features, layer),
                targets[layer]["style"],
                guidance=_pair(targets[layer]),
                avoid_repetition=avoid_repetition,
            )
            for layer in layers
        ]
        return {"total": tf.add_n(losses) / len(losses)}

    descent = descend(objective, start, iterations=iterations, targets=targets, optimizer=adam(LEARNING_RATE))
    features = texture_encoder(tf.constant(descent.image[None]))
    shares = []
    for layer, target in targets.items():
        nearest = nearest_patches(texture_patches(features, layer), target["style"], guidance=_pair(target))
        shares.append(len(np.unique(nearest)) / target["style"].shape[0])
    return GuidedScale(descent, float(np.mean(shares)))


def _pair(target: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor] | None:
    if "texture guidance" not in target:
        return None
    return target["texture guidance"], target["style guidance"]


def _patch_guidance(
    vectors: np.ndarray, shape: Sequence[int], *, size: int, stride: int, circular: bool
) -> tf.Tensor:
    """Return the guidance vectors at the centres of the patches of a feature map, ``[patches, K]``."""
    resized = resize(vectors, (int(shape[0]), int(shape[1])), clip=False)
    rows, columns = (
        (patch_starts(side, size=size, stride=stride, circular=circular) + size // 2) % side
        for side in resized.shape[:2]
    )
    return tf.constant(resized[rows][:, columns].reshape(-1, vectors.shape[-1]), tf.float32)


def _usable_scales(shortest_side: int) -> list[float]:
    return [factor for factor in SCALES if factor == 1 or shortest_side * factor >= SMALLEST_SIDE]


def _scaled(shape: Sequence[int], factor: float, *, multiple: int = 1) -> tuple[int, int]:
    height, width = (max(1, round(side * factor / multiple)) * multiple for side in shape)
    return height, width


def read_map(image: Any) -> np.ndarray:
    """Return a guidance map, float32 ``[height, width]`` in 0..1: the luminance of an image on white."""
    return luminance(load(image).on_white())


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join maps along the channels, in the height and the width of the first one."""
    return np.concatenate([resize(part, parts[0].shape[:2], clip=False) for part in parts], -1)

"""Textures: images of any size, optionally seamless, that match Gram matrices of a style image."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.config import PADDING, POOLING, STYLE_LAYERS
from tfstyle.errors import ConfigError
from tfstyle.images import load
from tfstyle.layers import Layer
from tfstyle.network import Encoder, Weights, load_weights
from tfstyle.optim import lbfgs
from tfstyle.papers.descent import (
    CURVATURE_PAIRS,
    Descent,
    check_descent,
    descend,
    format_factor,
    white_noise,
)
from tfstyle.papers.image_grams import gram_matrices
from tfstyle.papers.study import Curves, Panel, Progress, Study, report_progress
from tfstyle.papers.vgg_encoders import available_layers, describe_network, layer_range, network_facts


def texture(
    style: Any,
    *,
    layers: tuple[str, ...] = STYLE_LAYERS,
    size: int = 192,
    width: int | None = None,
    height: int | None = None,
    seamless: bool = False,
    iterations: int = 400,
    noise: float = 0.05,
    seed: int = 0,
    pooling: str = POOLING,
    weights: str = "auto",
    progress: Progress | None = None,
) -> Study:
    """Synthesise textures of a style image from white noise by nested sets of layers.

    L-BFGS minimises ``(1/L) Σ_l |G_l - A_l|² / |A_l|²`` for pixels in 0..1: for the first layer, then for the
    first two layers, and so on. Each set has its own texture. Strong noise at the start leaves a checkerboard
    pattern, to which no layer responds. Deep layers need many iterations and large textures: the Gram matrix
    of conv5_1 alone has 131 328 different entries.

    Args:
        style: style image.
        layers: layers, separated by commas, from shallow to deep; each set has one layer more than the last.
        size: longest side in pixels to which the style image is reduced; a smaller image is not enlarged.
        width: width of the texture in pixels; by default that of the resized style image.
        height: height of the texture in pixels; by default that of the resized style image.
        seamless: make a texture that tiles without visible seams; height and width are rounded up to
            multiples of the deepest layer's stride.
        iterations: number of iterations for each set of layers.
        noise: standard deviation of the white noise of the start, for pixels in 0..1; from 0 to 10.
        seed: seed of the noise.
        pooling: pooling layers of the encoder: avg (average, as in the paper), max (maximum), rescaled
            (average, multiplied by 2).
        weights: VGG-19 weights: auto (imagenet if they can be downloaded, otherwise embedded), imagenet,
            embedded, random, or a weights file.
        progress: function that is called with one line of text when a texture is done.

    Returns:
        The style image and the textures with the reduction of their distances, a diagram of the losses, and a
        table with the `Seam` of every texture. If seamless, also the last texture, tiled 2 x 2.

    Raises:
        ConfigError: a layer does not exist, the weights reach none of the layers, the height or width is too
            small, or another option has an invalid value.
        ImageError, WeightsError: the image or the weights cannot be read.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 1, bottom; Gatys, Ecker, Bethge 2015, Texture Synthesis.
    Our reading: the standard deviation of the noise and the number of iterations.
    Differs from Gatys: the distances are relative, so that all layers have the same weight. The padding is
    the default's, or circular for a seamless texture. The style image always has the default's padding,
    because its opposite borders do not match.
    """
    check_descent(iterations, noise)
    vgg_weights = load_weights(weights)
    available, left_out = available_layers(vgg_weights, layers)
    source = load(style).fitted(size).on_white()
    shape = texture_shape(source.shape[:2], (height, width), layers=available, seamless=seamless)
    start = white_noise(*shape, seed=seed, deviation=noise)
    panels, curves, table = [Panel(source, "style image")], {}, []
    for count in range(1, len(available) + 1):
        descent = _synthesise(
            source,
            start,
            layers=available[:count],
            vgg_weights=vgg_weights,
            pooling=pooling,
            seamless=seamless,
            iterations=iterations,
        )
        name = layer_range(available[:count])
        panels.append(Panel(descent.image, name, _describe_descent(descent)))
        curves[name] = descent.relative_curve()
        table.append(_table_line(available[:count], descent))
        report_progress(progress, name, text=panels[-1].caption)
    if seamless:
        tiled = np.tile(panels[-1].image, (2, 2, 1))
        panels.append(Panel(tiled, "last texture, tiled", _describe_seam(descent.image)))
    diagram = Curves(
        curves, "style distance relative to the start", "iterations", "mean |G-A|²/|A|², relative"
    )
    seamless_note = " They are computed with circular padding, so that they tile." if seamless else ""
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 1 (bottom): starting from white noise, each texture minimises "
        f"the mean of |G-A|²/|A|² over a nested set of layers in {iterations} iterations. The structures "
        "that match the style image become larger with the depth of the layers. Our reading: the standard "
        f"deviation of the noise ({noise:g}), the number of iterations, and relative distances. "
        f"The textures have {shape[1]} x {shape[0]} pixels.{seamless_note} "
        f"{describe_network(vgg_weights.source, pooling)} {left_out}"
    )
    facts = network_facts(
        vgg_weights.source,
        pooling,
        seed=seed,
        noise=noise,
        seamless=seamless,
        iterations=iterations,
        height=shape[0],
        width=shape[1],
    )
    title = "Textures from white noise, by nested sets of layers"
    return Study(title, ((*panels, diagram),), caption=caption.strip(), table=tuple(table), facts=facts)


class Seam(NamedTuple):
    """The visibility of the seam of a tiled image: differences across its edges and between its lines.

    A line is a row or a column of pixels.

    Attributes:
        edge_difference: mean absolute difference between the first and the last line, averaged over both
            axes.
        inner_difference: mean absolute difference between neighbouring lines, averaged over both axes.
        standard_deviations: excess of the edge difference over the inner difference, divided by the standard
            deviation of the differences between neighbouring lines, for the axis where it is larger.
    """

    edge_difference: float
    inner_difference: float
    standard_deviations: float


def measure_seam(image: np.ndarray) -> Seam:
    """Return the seam of an image that is to be tiled.

    Args:
        image: float ``[height, width, 3]``, with height and width of at least 3.

    Example:
        >>> import numpy as np
        >>> from tfstyle.papers.textures import measure_seam
        >>> ramp = np.linspace(0, 1, 33)[:, None, None] * np.ones((33, 32, 3))
        >>> seam = measure_seam(ramp)  # the first row is black and the last row is white
        >>> bool(seam.edge_difference > 10 * seam.inner_difference)
        True
    """
    edge, inner, deviations = [], [], []
    for axis in (0, 1):
        lines = np.moveaxis(image.astype(np.float64), axis, 0)
        steps = np.abs(np.diff(lines, axis=0)).mean((1, 2))
        edge.append(np.abs(lines[0] - lines[-1]).mean())
        inner.append(steps.mean())
        deviations.append((edge[-1] - inner[-1]) / max(steps.std(), 1e-12))
    return Seam(float(np.mean(edge)), float(np.mean(inner)), float(max(deviations)))


def texture_shape(
    source_shape: tuple[int, int],
    requested: tuple[int | None, int | None],
    *,
    layers: Sequence[str],
    seamless: bool,
) -> tuple[int, int]:
    """Return the height and width of a texture.

    A pooling layer drops the last line of a side with an odd number of pixels. A texture therefore tiles only
    if its height and width are multiples of the deepest layer's stride.

    Args:
        source_shape: height and width of the style image in pixels.
        requested: height and width of the texture in pixels, or None for those of the style image.
        layers: the papers' names of the layers.
        seamless: whether to round up to multiples of the deepest layer's stride.

    Returns:
        The height and the width in pixels.

    Raises:
        ConfigError: the height or width is less than two strides of the deepest layer.

    Example:
        >>> from tfstyle.papers.textures import texture_shape
        >>> texture_shape((33, 50), (None, None), layers=["conv1_1", "conv3_1"], seamless=True)
        (36, 52)
    """
    deepest = max(layers)
    stride = Layer.parse(deepest).stride
    sides = []
    for name, source_side, requested_side in zip(("height", "width"), source_shape, requested, strict=True):
        side = source_side if requested_side is None else requested_side
        if side < 2 * stride:
            raise ConfigError(
                f"{name} is {side} pixels; it must be at least {2 * stride} for layer {deepest}"
            )
        sides.append(math.ceil(side / stride) * stride if seamless else side)
    return sides[0], sides[1]


def _synthesise(
    source: np.ndarray,
    start: np.ndarray,
    *,
    layers: Sequence[str],
    vgg_weights: Weights,
    pooling: str,
    seamless: bool,
    iterations: int,
) -> Descent:
    """Minimise the mean over the layers of the relative distance between Gram matrices."""
    make_encoder = functools.partial(
        Encoder, layers, vgg_weights, pooling=pooling, network=vgg_weights.network
    )
    source_encoder = make_encoder(padding=PADDING)
    texture_encoder = make_encoder(padding="circular" if seamless else PADDING)
    source_grams = gram_matrices(source_encoder, tf.constant(source[None]))

    def objective(image: tf.Tensor, targets: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        grams = gram_matrices(texture_encoder, image)
        distances = [_relative_distance(grams[layer], targets[layer]) for layer in layers]
        return {"total": tf.add_n(distances) / len(layers)}

    optimizer = lbfgs(CURVATURE_PAIRS)
    return descend(objective, start, iterations=iterations, targets=source_grams, optimizer=optimizer)


def _relative_distance(gram: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Return ``|G - A|² / |A|²``, or ``½ |G|²`` if A is zero."""
    energy = tf.nn.l2_loss(target)
    return tf.nn.l2_loss(gram - target) / tf.where(energy > 0, energy, 1.0)


def _table_line(layers: Sequence[str], descent: Descent) -> dict[str, Any]:
    seam = measure_seam(descent.image)
    return {
        "layers": " ".join(layers),
        "distance at the start": descent.losses[0],
        "lowest distance": descent.lowest_loss,
        "first distance / lowest distance": descent.reduction,
        "edge difference / inner difference": seam.edge_difference / max(seam.inner_difference, 1e-12),
        "excess of the edge in standard deviations": seam.standard_deviations,
    }


def _describe_descent(descent: Descent) -> str:
    return f"distance {descent.lowest_loss:.2g}\n{format_factor(descent.reduction)} smaller than at the start"


def _describe_seam(image: np.ndarray) -> str:
    seam = measure_seam(image)
    return (
        f"mean difference across the edge {seam.edge_difference:.3f}, between lines inside "
        f"{seam.inner_difference:.3f}"
    )

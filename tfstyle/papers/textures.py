"""Textures of a style from white noise by nested sets of layers, of any size, also seamless."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.config import STYLE_LAYERS
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
    pooling: str = "avg",
    weights: str = "auto",
    progress: Progress | None = None,
) -> Study:
    """A style drawn from white noise by nested sets of layers, of any size, and so that it tiles.

    ``(1/L) Σ_l |G_l - A_l|² / |A_l|²`` is minimised by L-BFGS within 0..1, first for the first layer, then
    for the first two, and so on. Of stronger noise at the start a checkerboard stays that no layer sees. Deep
    layers need evaluations, and pixels: conv5_1's matrix alone has 131 328 different entries.

    Args:
        style: whose texture is drawn.
        layers: bottom up, separated by commas; each set has one more.
        size: longest side in pixels that the style is shrunk to.
        width: of the texture in pixels; by default the style's.
        height: of the texture in pixels; by default the style's.
        seamless: the texture tiles; its sides are rounded up to multiples of the deepest layer's stride.
        iterations: evaluations of the loss for each set.
        noise: deviation of the white noise at the start, on 0..1.
        seed: of that noise.
        pooling: avg as in the paper, max or rescaled.
        weights: auto, imagenet, embedded, random or a file.
        progress: called with a line when a part is done.

    Returns:
        source and textures, with how far the distance of the Gram matrices fell; where seamless, the last one
        tiled; the losses on the way; and the `Seam` of each.

    Raises:
        ConfigError: no such layer, the weights reach none of them, a side too short, or no iteration.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 1, bottom; 2015, Texture Synthesis.
    Our reading of it: the noise's deviation and how long the descent takes. Differs from Gatys: relative
    distances, which weigh layers alike; borders mirrored, or, where the texture tiles, the opposite ones (of
    the texture alone: a style's opposite borders do not meet).
    """
    check_descent(iterations, noise)
    vgg_weights = load_weights(weights)
    available, left_out = available_layers(vgg_weights, layers)
    source = load(style).fitted(size).on_white()
    shape = texture_shape(source.shape[:2], (height, width), layers=available, seamless=seamless)
    start = white_noise(*shape, seed=seed, deviation=noise)
    panels, curves, table = [Panel(source, "source")], {}, []
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
        panels.append(Panel(tiled, "the last, tiled", _describe_seam(descent.image)))
    diagram = Curves(curves, "style distance, of that at the start", "evaluations", "mean |G-A|²/|A|²")
    sides = "multiples of the deepest layer's stride and computed as on a torus, so that they tile"
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 1 (bottom): each picture started as white noise and was drawn "
        "until the Gram matrices of nested sets of layers were those of the source; structures grow with the "
        f"sets. {iterations} evaluations of the mean of |G-A|²/|A|² over the layers. Our reading of: the "
        f"noise (deviation {noise:g}), the number of evaluations, distances relative to the source's. "
        f"Textures have {shape[1]} x {shape[0]} pixels{', ' + sides if seamless else ''}. "
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
    title = "A style from white noise, by nested sets of layers"
    return Study(title, ((*panels, diagram),), caption=caption.strip(), table=tuple(table), facts=facts)


class Seam(NamedTuple):
    """Differences across the edges of a tiled image, as against those inside it.

    Attributes:
        edge_difference: mean magnitude of the differences between opposite borders, over both axes.
        inner_difference: the same of neighbouring lines.
        standard_deviations: how many standard deviations of the neighbouring lines' means the edge lies above
            them, on the axis where that is more.
    """

    edge_difference: float
    inner_difference: float
    standard_deviations: float


def measure_seam(image: np.ndarray) -> Seam:
    """Measure the edges of an image that is tiled, float ``[height, width, 3]``, no side below three."""
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
    """Compute the height and width of a texture.

    A pool drops an odd last line: a texture tiles only if its sides are multiples of the deepest stride.

    Args:
        source_shape: height and width of the style.
        requested: height and width of the texture, or None for the source's.
        layers: the papers' names.
        seamless: round up to multiples of the deepest layer's stride.

    Raises:
        ConfigError: a side shorter than two positions of the deepest layer.
    """
    deepest = max(layers)
    stride = Layer.parse(deepest).stride
    sides = []
    for name, source_side, requested_side in zip(("height", "width"), source_shape, requested, strict=True):
        side = source_side if requested_side is None else requested_side
        if side < 2 * stride:
            raise ConfigError(f"{name} is {side}; {deepest} needs at least {2 * stride} pixels")
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
    """Minimise the mean relative distance of the layers' Gram matrices."""
    make_encoder = functools.partial(
        Encoder, layers, vgg_weights, pooling=pooling, network=vgg_weights.network
    )
    source_encoder = make_encoder(padding="reflect")
    texture_encoder = make_encoder(padding="circular" if seamless else "reflect")
    source_grams = gram_matrices(source_encoder, tf.constant(source[None]))

    def objective(image: tf.Tensor, targets: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        grams = gram_matrices(texture_encoder, image)
        distances = [_relative_distance(grams[layer], targets[layer]) for layer in layers]
        return {"total": tf.add_n(distances) / len(layers)}

    optimizer = lbfgs(CURVATURE_PAIRS)
    return descend(objective, start, iterations=iterations, targets=source_grams, optimizer=optimizer)


def _relative_distance(gram: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Compute ``|G - A|² / |A|²``, or where A is zero ``½ |G|²``."""
    energy = tf.nn.l2_loss(target)
    return tf.nn.l2_loss(gram - target) / tf.where(energy > 0, energy, 1.0)


def _table_line(layers: Sequence[str], descent: Descent) -> dict[str, Any]:
    seam = measure_seam(descent.image)
    return {
        "layers": " ".join(layers),
        "distance at the start": descent.losses[0],
        "lowest distance": descent.lowest_loss,
        "fell by": descent.reduction,
        "across the edge, of inside": seam.edge_difference / max(seam.inner_difference, 1e-12),
        "above inside, in deviations": seam.standard_deviations,
    }


def _describe_descent(descent: Descent) -> str:
    return f"distance {descent.lowest_loss:.2g}\ndown {format_factor(descent.reduction)}"


def _describe_seam(image: np.ndarray) -> str:
    seam = measure_seam(image)
    return f"mean step across the edge {seam.edge_difference:.3f}, inside {seam.inner_difference:.3f}"

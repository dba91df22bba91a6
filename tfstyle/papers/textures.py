"""A style drawn from white noise by nested sets of layers: textures of any size, also such that tile."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import tfstyle
from tfstyle.config import STYLE_LAYERS
from tfstyle.errors import ConfigError
from tfstyle.images import load
from tfstyle.layers import Layer
from tfstyle.losses import gram_matrix
from tfstyle.network import Encoder
from tfstyle.network import weights as sources
from tfstyle.papers.descent import Descent, descend, white_noise
from tfstyle.papers.judging import there
from tfstyle.papers.reconstruction import HISTORY, check_descent, course, fall, times
from tfstyle.papers.study import Curves, Panel, Progress, Study


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
        tiled; the losses on the way; and the `seam` of each.

    Raises:
        ConfigError: no such layer, the weights reach none of them, a side too short, or no iteration.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 1, bottom; 2015, Texture Synthesis.
    Our reading of it: the noise's deviation and how long the descent takes. Differs from Gatys: relative
    distances, which weigh layers alike; borders mirrored, or, where the texture tiles, the opposite ones (of
    the texture alone: a style's opposite borders do not meet).
    """
    check_descent(iterations, noise)
    loaded = sources.load_weights(weights)
    kept, missing = there(loaded, layers)
    source = load(style).fitted(size).on_white()
    shape = texture_shape(source.shape[:2], (height, width), kept, seamless)
    start = white_noise(*shape, seed, noise)
    panels, curves, table = [Panel(source, "source")], {}, []
    for count in range(1, len(kept) + 1):
        made = _drawn(source, start, kept[:count], loaded, pooling, seamless, iterations)
        name = kept[0] if count == 1 else f"{kept[0]} .. {kept[count - 1]}"
        panels.append(Panel(made.image, name, _numbers(made)))
        curves[name] = course(made.losses)
        table.append(_line(kept[:count], made))
        if progress is not None:
            progress(f"{name}: {panels[-1].caption}".replace("\n", ", "))
    if seamless:
        panels.append(Panel(np.tile(panels[-1].image, (2, 2, 1)), "the last, tiled", _of_edge(made.image)))
    diagram = Curves(curves, "style distance, of that at the start", "evaluations", "mean |G-A|²/|A|²")
    sides = "multiples of the deepest layer's stride and computed as on a torus, so that they tile"
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 1 (bottom): each picture started as white noise and was drawn "
        "until the Gram matrices of nested sets of layers were those of the source; structures grow with the "
        f"sets. {iterations} evaluations of the mean of |G-A|²/|A|² over the layers. Our reading of: the "
        f"noise (deviation {noise:g}), the number of evaluations, distances relative to the source's. "
        f"Textures have {shape[1]} x {shape[0]} pixels{', ' + sides if seamless else ''}. Weights: "
        f"{loaded.source}; pooling: {pooling}. {missing}"
    )
    facts = {"weights": loaded.source, "pooling": pooling, "seed": seed, "noise": noise, "seamless": seamless,
             "iterations": iterations, "height": shape[0], "width": shape[1]}  # fmt: skip
    title = "A style from white noise, by nested sets of layers"
    return Study(title, ((*panels, diagram),), caption.strip(), tuple(table), facts)


class Seam(NamedTuple):
    """How a tiled picture goes on across its edges, as against how it goes on inside.

    Attributes:
        across: mean magnitude of the differences between opposite borders, over both axes.
        inside: the same of neighbouring lines.
        deviations: how many standard deviations of the neighbouring lines' means the edge lies above them,
            on the axis where that is more.
    """

    across: float
    inside: float
    deviations: float


def seam(image: np.ndarray) -> Seam:
    """Measure the edges of a picture that is tiled, float ``[height, width, 3]``, no side below three."""
    across, inside, deviations = [], [], []
    for axis in (0, 1):
        lines = np.moveaxis(image.astype(np.float64), axis, 0)
        steps = np.abs(np.diff(lines, axis=0)).mean((1, 2))
        across.append(np.abs(lines[0] - lines[-1]).mean())
        inside.append(steps.mean())
        deviations.append((across[-1] - inside[-1]) / max(steps.std(), 1e-12))
    return Seam(float(np.mean(across)), float(np.mean(inside)), float(max(deviations)))


def texture_shape(
    source: tuple[int, int], wanted: tuple[int | None, int | None], layers: Sequence[str], seamless: bool
) -> tuple[int, int]:
    """Height and width of a texture.

    A pool drops an odd last line: a texture tiles only if its sides are multiples of the deepest stride.

    Args:
        source: height and width of the style.
        wanted: height and width asked for, or None for the source's.
        layers: the papers' names.
        seamless: round up to multiples of the deepest layer's stride.

    Raises:
        ConfigError: a side shorter than two positions of the deepest layer.
    """
    deepest = max(layers)
    stride = Layer.parse(deepest).stride
    sides = []
    for name, own, given in zip(("height", "width"), source, wanted, strict=True):
        side = own if given is None else given
        if side < 2 * stride:
            raise ConfigError(f"{name} is {side}; {deepest} needs at least {2 * stride} pixels")
        sides.append(math.ceil(side / stride) * stride if seamless else side)
    return sides[0], sides[1]


def _drawn(
    source: np.ndarray,
    start: np.ndarray,
    layers: Sequence[str],
    loaded: sources.Weights,
    pooling: str,
    seamless: bool,
    iterations: int,
) -> Descent:
    """Minimise the mean relative distance of the layers' Gram matrices."""
    encoder = functools.partial(Encoder, layers, loaded, pooling=pooling, network=loaded.network)
    outside, inside = encoder(padding="reflect"), encoder(padding="circular" if seamless else "reflect")
    targets = _grams(outside, tf.constant(source[None]))

    def objective(image: tf.Tensor, wanted: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        found = _grams(inside, image)
        return {"total": tf.add_n([_relative(found[x], wanted[x]) for x in layers]) / len(layers)}

    return descend(objective, start, iterations, targets, tfstyle.lbfgs(HISTORY))


def _grams(encoder: Callable[[tf.Tensor], Mapping[str, tf.Tensor]], image: tf.Tensor) -> dict[str, tf.Tensor]:
    return {layer: gram_matrix(features) for layer, features in encoder(image).items()}


def _relative(found: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """``|G - A|² / |A|²``, or where A is zero ``½ |G|²``."""
    energy = tf.nn.l2_loss(wanted)
    return tf.nn.l2_loss(found - wanted) / tf.where(energy > 0, energy, 1.0)


def _line(layers: Sequence[str], made: Descent) -> dict[str, Any]:
    """Of the table."""
    edge = seam(made.image)
    return {
        "layers": " ".join(layers),
        "distance at the start": made.losses[0],
        "lowest distance": float(np.nanmin(made.losses)),
        "fell by": fall(made.losses),
        "across the edge, of inside": edge.across / max(edge.inside, 1e-12),
        "above inside, in deviations": edge.deviations,
    }


def _numbers(made: Descent) -> str:
    return f"distance {np.nanmin(made.losses):.2g}\ndown {times(fall(made.losses))}"


def _of_edge(image: np.ndarray) -> str:
    edge = seam(image)
    return f"mean step across the edge {edge.across:.3f}, inside {edge.inside:.3f}"

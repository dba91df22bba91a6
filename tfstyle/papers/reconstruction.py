"""What layers keep of a content image: the image drawn again from white noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import tfstyle
from tfstyle.errors import ConfigError
from tfstyle.images import load
from tfstyle.losses import content_loss
from tfstyle.network import Encoder
from tfstyle.network import weights as sources
from tfstyle.papers.descent import Descent, descend, white_noise
from tfstyle.papers.judging import there
from tfstyle.papers.study import Curves, Panel, Progress, Study

#: More curvature pairs than `tfstyle.stylize` keeps: from noise the way is longer.
HISTORY = 30


def reconstruct(
    image: Any,
    *,
    layers: tuple[str, ...] = ("conv1_2", "conv2_2", "conv3_2", "conv4_2", "conv5_2"),
    size: int = 128,
    iterations: int = 150,
    noise: float = 0.15,
    seed: int = 0,
    pooling: str = "avg",
    padding: str = "zeros",
    weights: str = "auto",
    progress: Progress | None = None,
) -> Study:
    """What each layer keeps of a content image: drawn again from white noise by that layer alone.

    ``½ Σ (F - P)²`` is minimised for one layer after the other, by L-BFGS within 0..1. What a layer does not
    see of the noise stays in the picture: from a deviation of 0.25 conv1_2 came to 21 dB, from 0.1 to 27.

    Args:
        image: whose content is drawn again.
        layers: one picture for each, separated by commas.
        size: longest side in pixels; a smaller image is not enlarged.
        iterations: evaluations of the loss for each layer.
        noise: deviation of the white noise at the start, on 0..1.
        seed: of that noise.
        pooling: avg as in the paper, max or rescaled.
        padding: what the encoder sees beyond the border.
        weights: auto, imagenet, embedded, random or a file.
        progress: called with a line when a part is done.

    Returns:
        original and reconstructions, with their PSNR, ``10 log₁₀(1 / mean (x - p)²)`` in dB, and how far the
        loss fell; the losses on the way.

    Raises:
        ConfigError: no such layer, the weights reach none of them, or no iteration.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 1, top; the layers of its content reconstructions.
    Our reading of it: the noise's deviation and how long the descent takes.
    """
    check_descent(iterations, noise)
    loaded = sources.load_weights(weights)
    kept, missing = there(loaded, layers)
    picture = load(image).fitted(size).on_white()
    start = white_noise(picture.shape[0], picture.shape[1], seed, noise)
    row: list[Panel | Curves] = [Panel(picture, "original")]
    curves, table = {}, []
    for layer in kept:
        encoder = Encoder((layer,), loaded, pooling=pooling, padding=padding, network=loaded.network)
        made = _drawn(picture, start, encoder, iterations)
        quality, fell = psnr(made.image, picture), fall(made.losses)
        caption = f"PSNR {quality:.1f} dB\nloss down {times(fell)}"
        row.append(Panel(made.image, layer, caption))
        curves[layer] = course(made.losses)
        table.append(
            {
                "layer": layer,
                "PSNR in dB": quality,
                "loss at the start": made.losses[0],
                "lowest loss": float(np.nanmin(made.losses)),
                "fell by": fell,
            }
        )
        if progress is not None:
            progress(f"{layer}: {caption}".replace("\n", ", "))
    row.append(Curves(curves, "content loss, of that at the start", "evaluations", "½ Σ(F-P)²"))
    facts = {"weights": loaded.source, "pooling": pooling, "padding": padding, "seed": seed, "noise": noise,
             "iterations": iterations, "height": picture.shape[0], "width": picture.shape[1]}  # fmt: skip
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 1 (top): each picture started as white noise and was drawn "
        f"until one layer's features were those of the original, in {iterations} evaluations of ½ Σ(F-P)². "
        "Low layers reproduce pixels; high layers keep what is where and lose the rest. Our reading of: the "
        f"noise (deviation {noise:g}) and the number of evaluations. Weights: {loaded.source}; pooling: "
        f"{pooling}. {missing}"
    )
    title = "Content reconstructions from white noise"
    return Study(title, (tuple(row),), caption.strip(), tuple(table), facts)


def check_descent(iterations: int, noise: float) -> None:
    """Raise ConfigError where a descent from noise could not start."""
    if iterations < 1:
        raise ConfigError(f"iterations is {iterations}; it must be at least 1")
    if not 0 <= noise <= 10:
        raise ConfigError(f"noise is {noise:g}; it must be from 0 to 10")


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, ``10 log₁₀(1 / mean (x - p)²)``, of images in 0..1."""
    return float(-10 * np.log10(max(np.mean((image.astype(np.float64) - truth) ** 2), 1e-20)))


def fall(losses: Sequence[float]) -> float:
    """How many times smaller the lowest loss is than the first."""
    return float(losses[0] / max(np.nanmin(losses), 1e-30))


def times(factor: float) -> str:
    """A factor for a caption, in three digits."""
    return f"{float(f'{factor:.3g}'):,.0f} times" if factor >= 100 else f"{factor:.3g} times"


def course(losses: Sequence[float]) -> tuple[list[float], list[float]]:
    """Evaluations, and the lowest loss until then over the first: without what a line search tries."""
    lowest = np.fmin.accumulate(losses) / losses[0]
    return [float(i) for i in range(1, len(lowest) + 1)], lowest.tolist()


def _drawn(picture: np.ndarray, start: np.ndarray, encoder: Encoder, iterations: int) -> Descent:
    """Minimise the content loss of an encoder's one layer."""
    (layer,) = encoder.layers
    target = encoder(tf.constant(picture[None]))[layer]

    def objective(image: tf.Tensor, wanted: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"total": content_loss(encoder(image)[layer], wanted)}

    return descend(objective, start, iterations, target, tfstyle.lbfgs(HISTORY))

"""Content reconstructions: what each layer keeps of an image, from white noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.images import load
from tfstyle.losses import content_loss
from tfstyle.network import Encoder, load_weights
from tfstyle.optim import lbfgs
from tfstyle.papers.descent import (
    CURVATURE_PAIRS,
    Descent,
    check_descent,
    descend,
    format_factor,
    white_noise,
)
from tfstyle.papers.study import Curves, Panel, Progress, Study, report_progress
from tfstyle.papers.vgg_encoders import available_layers, describe_network, network_facts


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
    see of the noise stays in the image: from a deviation of 0.25 conv1_2 came to 21 dB, from 0.1 to 27.

    Args:
        image: whose content is drawn again.
        layers: one image for each, separated by commas.
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
    vgg_weights = load_weights(weights)
    available, left_out = available_layers(vgg_weights, layers)
    original = load(image).fitted(size).on_white()
    start = white_noise(original.shape[0], original.shape[1], seed=seed, deviation=noise)
    row: list[Panel | Curves] = [Panel(original, "original")]
    curves, table = {}, []
    for layer in available:
        encoder = Encoder(
            (layer,), vgg_weights, pooling=pooling, padding=padding, network=vgg_weights.network
        )
        descent = _reconstruct_layer(original, start, encoder=encoder, iterations=iterations)
        quality = psnr(descent.image, original)
        caption = f"PSNR {quality:.1f} dB\nloss down {format_factor(descent.reduction)}"
        row.append(Panel(descent.image, layer, caption))
        curves[layer] = descent.relative_curve()
        table.append(
            {
                "layer": layer,
                "PSNR in dB": quality,
                "loss at the start": descent.losses[0],
                "lowest loss": descent.lowest_loss,
                "fell by": descent.reduction,
            }
        )
        report_progress(progress, layer, text=caption)
    row.append(Curves(curves, "content loss, of that at the start", "evaluations", "½ Σ(F-P)²"))
    facts = network_facts(
        vgg_weights.source,
        pooling,
        padding=padding,
        seed=seed,
        noise=noise,
        iterations=iterations,
        height=original.shape[0],
        width=original.shape[1],
    )
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 1 (top): each picture started as white noise and was drawn "
        f"until one layer's features were those of the original, in {iterations} evaluations of ½ Σ(F-P)². "
        "Low layers reproduce pixels; high layers keep what is where and lose the rest. Our reading of: the "
        f"noise (deviation {noise:g}) and the number of evaluations. "
        f"{describe_network(vgg_weights.source, pooling)} {left_out}"
    )
    title = "Content reconstructions from white noise"
    return Study(title, (tuple(row),), caption=caption.strip(), table=tuple(table), facts=facts)


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Compute the peak signal-to-noise ratio in dB, ``10 log₁₀(1 / mean (x - p)²)``, of images in 0..1."""
    return float(-10 * np.log10(max(np.mean((image.astype(np.float64) - truth) ** 2), 1e-20)))


def _reconstruct_layer(
    original: np.ndarray, start: np.ndarray, *, encoder: Encoder, iterations: int
) -> Descent:
    """Minimise the content loss of the encoder's only layer."""
    (layer,) = encoder.layers
    features = encoder(tf.constant(original[None]))[layer]

    def objective(image: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"total": content_loss(encoder(image)[layer], target)}

    optimizer = lbfgs(CURVATURE_PAIRS)
    return descend(objective, start, iterations=iterations, targets=features, optimizer=optimizer)

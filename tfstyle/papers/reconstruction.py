"""Content reconstructions: images whose features in one layer match those of a content image."""

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
    """Reconstruct a content image from white noise by the features of one layer at a time.

    For each layer, L-BFGS minimises ``½ Σ (F - P)²`` for pixels in 0..1. Components of the noise that do not
    change the features of the layer remain in the image, so that the result depends on the noise: with a
    standard deviation of 0.25 the reconstruction from conv1_2 reached 21 dB, with 0.1 it reached 27 dB.

    Args:
        image: content image.
        layers: layers, separated by commas; one image is reconstructed from each.
        size: longest side of the image in pixels; a smaller image is not enlarged.
        iterations: number of iterations for each layer.
        noise: standard deviation of the white noise of the start, for pixels in 0..1; from 0 to 10.
        seed: seed of the noise.
        pooling: pooling layers of the encoder: avg (average, as in the paper), max (maximum), rescaled
            (average, multiplied by 2).
        padding: padding of the encoder's convolutions: zeros (as in the published network), reflect,
            replicate, replicate_first (replicate in the first convolution, zeros in the others), circular.
        weights: VGG-19 weights: auto (imagenet if they can be downloaded, otherwise embedded), imagenet,
            embedded, random, or a weights file.
        progress: function that is called with one line of text when a layer is done.

    Returns:
        The image and its reconstructions, with their PSNR ``10 log₁₀(1 / mean (x - p)²)`` in dB and the
        reduction of the loss, a diagram of the losses, and a table.

    Raises:
        ConfigError: a layer does not exist, the weights reach none of the layers, or another option has an
            invalid value.
        ImageError, WeightsError: the image or the weights cannot be read.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 1, top, whose layers are the default.
    Our reading: the standard deviation of the noise and the number of iterations.
    """
    check_descent(iterations, noise)
    vgg_weights = load_weights(weights)
    available, left_out = available_layers(vgg_weights, layers)
    original = load(image).fitted(size).on_white()
    start = white_noise(original.shape[0], original.shape[1], seed=seed, deviation=noise)
    row: list[Panel | Curves] = [Panel(original, "content image")]
    curves, table = {}, []
    for layer in available:
        encoder = Encoder(
            (layer,), vgg_weights, pooling=pooling, padding=padding, network=vgg_weights.network
        )
        descent = _reconstruct_layer(original, start, encoder=encoder, iterations=iterations)
        quality = psnr(descent.image, original)
        caption = f"PSNR {quality:.1f} dB\nloss {format_factor(descent.reduction)} smaller"
        row.append(Panel(descent.image, layer, caption))
        curves[layer] = descent.relative_curve()
        table.append(
            {
                "layer": layer,
                "PSNR in dB": quality,
                "loss at the start": descent.losses[0],
                "lowest loss": descent.lowest_loss,
                "first loss / lowest loss": descent.reduction,
            }
        )
        report_progress(progress, layer, text=caption)
    row.append(Curves(curves, "content loss relative to the start", "iterations", "½ Σ(F-P)², relative"))
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
        "After Gatys, Ecker, Bethge 2016, Fig. 1 (top): starting from white noise, each image minimises the "
        f"content loss ½ Σ(F-P)² of one layer in {iterations} iterations. Shallow layers reproduce the "
        "pixels; deep layers preserve the arrangement of the content but not the exact pixel values. Our "
        f"reading: the standard deviation of the noise ({noise:g}) and the number of iterations. "
        f"{describe_network(vgg_weights.source, pooling)} {left_out}"
    )
    title = "Content reconstructions from white noise"
    return Study(title, (tuple(row),), caption=caption.strip(), table=tuple(table), facts=facts)


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB, ``10 log₁₀(1 / mean (x - p)²)``, of images in 0..1.

    Equal images have 200 dB, because the mean squared error is limited to at least 1e-20.

    Example:
        >>> import numpy as np
        >>> from tfstyle.papers.reconstruction import psnr
        >>> round(psnr(np.full((32, 32, 3), 0.6), np.full((32, 32, 3), 0.5)), 6)
        20.0
    """
    return float(-10 * np.log10(max(np.mean((image.astype(np.float64) - truth) ** 2), 1e-20)))


def _reconstruct_layer(
    original: np.ndarray, start: np.ndarray, *, encoder: Encoder, iterations: int
) -> Descent:
    """Minimise the content loss of the encoder's layer, of which there must be exactly one."""
    (layer,) = encoder.layers
    features = encoder(tf.constant(original[None]))[layer]

    def objective(image: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"total": content_loss(encoder(image)[layer], target)}

    optimizer = lbfgs(CURVATURE_PAIRS)
    return descend(objective, start, iterations=iterations, targets=features, optimizer=optimizer)

"""Textures of any size, optionally seamless, by Gram matrices or by guided correspondence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.config import POOLING, STYLE_LAYERS
from tfstyle.errors import ConfigError, suggest
from tfstyle.images import load, resize
from tfstyle.layers import Layer
from tfstyle.network import Weights, load_weights
from tfstyle.optim import lbfgs
from tfstyle.papers.descent import (
    CURVATURE_PAIRS,
    Descent,
    check_descent,
    descend,
    format_factor,
    white_noise,
)
from tfstyle.papers.guided_textures import (
    AVOID_REPETITION,
    CORRESPONDENCE_LAYERS,
    GUIDANCE_WEIGHT,
    Guidance,
    read_guidance,
    read_map,
    synthesise_guided,
    texture_encoders,
)
from tfstyle.papers.image_grams import gram_matrices
from tfstyle.papers.study import Curves, Panel, Progress, Study, report_progress
from tfstyle.papers.vgg_encoders import available_layers, describe_network, layer_range, network_facts

#: Values of the argument ``loss`` of `texture`.
TEXTURE_LOSSES = ("auto", "gram", "correspondence")
#: Iterations of each set of layers (Gram matrices) and of each scale (guided correspondence).
GRAM_ITERATIONS, CORRESPONDENCE_ITERATIONS = 400, 200
#: Standard deviation of the white noise from which textures of Gram matrices start.
NOISE = 0.05


def texture(
    style: Any,
    *,
    loss: str = "auto",
    layers: tuple[str, ...] | None = None,
    size: int = 192,
    width: int | None = None,
    height: int | None = None,
    seamless: bool = False,
    orientation: str | None = None,
    style_orientation: str | None = None,
    progression: str | None = None,
    style_progression: str | None = None,
    guidance_weight: float | None = None,
    avoid_repetition: float | None = None,
    iterations: int | None = None,
    noise: float | None = None,
    seed: int = 0,
    pooling: str = POOLING,
    weights: str = "auto",
    progress: Progress | None = None,
) -> Study:
    """Synthesise textures of a style image by Gram matrices or by guided correspondence.

    With the loss ``gram``, L-BFGS minimises ``(1/L) Σ_l |G_l - A_l|² / |A_l|²`` for pixels in 0..1: for the
    first layer, then for the first two layers, and so on. Each set has its own texture. Strong noise at the
    start leaves a checkerboard pattern, to which no layer responds. Deep layers need many iterations and
    large textures: the Gram matrix of conv5_1 alone has 131 328 different entries.

    With the loss ``correspondence``, Adam minimises the mean over the layers of
    `tfstyle.losses.guided_correspondence_loss`, from coarse to fine. There is one texture. It repeats whole
    forms of the style image, and it can follow maps. For an orientation, its patches also come from copies of
    the style image that are rotated by multiples of 22.5 degrees.

    Args:
        style: style image.
        loss: auto (correspondence if a map, a guidance weight or avoid_repetition is given, otherwise gram),
            gram or correspondence.
        layers: layers, separated by commas, from shallow to deep; by default conv1_1 to conv5_1 for gram,
            where each set has one layer more than the set before, and conv2_1, conv3_1 and conv4_1 for
            correspondence, which uses all of them together.
        size: longest side in pixels to which the style image is reduced; a smaller image is not enlarged.
        width: width of the texture in pixels; by default that of the resized style image.
        height: height of the texture in pixels; by default that of the resized style image.
        seamless: make a texture that tiles without visible seams; height and width are rounded up to
            multiples of the deepest layer's stride.
        orientation: grey image with the orientation of the lines that the texture should have. Black to white
            stands for 0 to 180 degrees, counter-clockwise: black and white are horizontal lines, and the
            middle grey vertical lines. It is resized to the texture.
        style_orientation: grey image with the orientation of the lines of the style image; by default it is
            estimated.
        progression: grey image with the progression of each part of the texture. The part gets patches from
            parts of the style image that have similar values in style_progression.
        style_progression: grey image with the progression of each part of the style image.
        guidance_weight: weight of the maps for correspondence; by default 2.
        avoid_repetition: weight of the term of correspondence that avoids style patches that are used often;
            by default 0.05, as in the paper; 0 turns the term off.
        iterations: number of iterations for each set of layers (gram, by default 400) or for each scale
            (correspondence, by default 200).
        noise: standard deviation of the white noise of the start for gram, for pixels in 0..1; from 0 to 10,
            by default 0.05. Correspondence starts from random pixels of the style image.
        seed: seed of the start.
        pooling: pooling layers of the encoder: avg (average, as in the paper), max (maximum), rescaled
            (average, multiplied by 2).
        weights: VGG-19 weights: auto (imagenet if they can be downloaded, otherwise embedded), imagenet,
            embedded, random, or a weights file.
        progress: function that is called with one line of text when a texture or a scale is done.

    Returns:
        The style image and the textures with the reduction of their losses, a diagram of the losses, and a
        table with the `Seam` of every texture or scale. With maps also the maps that the texture follows. If
        seamless, also the last texture, tiled 2 x 2.

    Raises:
        ConfigError: a layer does not exist, the weights reach none of the layers, the height or width is too
            small, an option is for the other loss, only one of the two progression maps is given, or another
            option has an invalid value.
        ImageError, WeightsError: an image or the weights cannot be read.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 1, bottom; Gatys, Ecker, Bethge 2015, Texture Synthesis; Zhou
    et al. 2023, Neural Texture Synthesis with Guided Correspondence.
    Our reading: the standard deviation of the noise and the number of iterations.
    Differs from Gatys: the distances are relative, so that all layers have the same weight. The padding is
    the default's, or circular for a seamless texture. The style image always has the default's padding,
    because its opposite borders do not match.
    Differs from Zhou: maps are compared at the centres of the patches, the orientation of the style image is
    that of its structure tensor, and there are three scales instead of four.
    """
    guided = {
        "orientation": orientation,
        "style_orientation": style_orientation,
        "progression": progression,
        "style_progression": style_progression,
        "guidance_weight": guidance_weight,
        "avoid_repetition": avoid_repetition,
    }
    given = [name for name, value in guided.items() if value is not None]
    loss = _choose_loss(loss, given=given, noise=noise)
    by_gram = loss == "gram"
    if iterations is None:
        iterations = GRAM_ITERATIONS if by_gram else CORRESPONDENCE_ITERATIONS
    noise = NOISE if noise is None else noise
    check_descent(iterations, noise)
    vgg_weights = load_weights(weights)
    if layers is None:
        layers = STYLE_LAYERS if by_gram else CORRESPONDENCE_LAYERS
    available, left_out = available_layers(vgg_weights, layers)
    image = load(style)
    source = image.fitted(size).on_white()
    shape = texture_shape(source.shape[:2], (height, width), layers=available, seamless=seamless)
    settings: dict[str, Any] = {"vgg_weights": vgg_weights, "pooling": pooling, "seamless": seamless}
    facts: dict[str, Any] = {"loss": loss, "seed": seed, "seamless": seamless, "iterations": iterations}
    if by_gram:
        start = white_noise(*shape, seed=seed, deviation=noise)
        facts["noise"] = noise
        textures = _gram_textures(
            source, start, layers=available, iterations=iterations, noise=noise, progress=progress, **settings
        )
    else:
        guidance_weight = GUIDANCE_WEIGHT if guidance_weight is None else guidance_weight
        avoid_repetition = AVOID_REPETITION if avoid_repetition is None else avoid_repetition
        if not 0 <= avoid_repetition < math.inf:
            raise ConfigError(f"avoid_repetition is {avoid_repetition:g}; it must be at least 0")
        facts |= {"guidance_weight": guidance_weight, "avoid_repetition": avoid_repetition}
        facts["maps"] = [name for name in given if "progression" in name or "orientation" in name]
        guidance = read_guidance(
            source,
            orientation=orientation,
            style_orientation=style_orientation,
            progression=progression,
            style_progression=style_progression,
            weight=guidance_weight,
        )
        textures = _guided_texture(
            source, shape, layers=available, iterations=iterations, guidance=guidance, seed=seed,
            avoid_repetition=avoid_repetition, progress=progress, **settings,
        )  # fmt: skip
        maps = [
            Panel(_as_rgb(resize(read_map(value)[..., None], shape)), name)
            for name, value in (("orientation", orientation), ("progression", progression))
            if value is not None
        ]
        textures = textures._replace(panels=[*maps, *textures.panels])
    panels = [Panel(source, "style image"), *textures.panels]
    if seamless:
        last = panels[-1].image
        panels.append(Panel(np.tile(last, (2, 2, 1)), "last texture, tiled", _describe_seam(last)))
    seamless_note = " They are computed with circular padding, so that they tile." if seamless else ""
    caption = (
        f"{textures.caption} The textures have {shape[1]} x {shape[0]} pixels.{seamless_note} "
        f"{describe_network(vgg_weights.source, pooling)} {left_out}"
    )
    return Study(
        textures.title,
        ((*panels, textures.diagram),),
        caption=caption.strip(),
        table=tuple(textures.table),
        facts=network_facts(vgg_weights.source, pooling, **facts, height=shape[0], width=shape[1]),
    )


def _choose_loss(loss: str, *, given: Sequence[str], noise: float | None) -> str:
    """Return ``gram`` or ``correspondence``, and raise ConfigError if an option belongs to the other loss.

    Args:
        loss: the argument of `texture`.
        given: names of the given arguments that are for correspondence.
        noise: the argument of `texture`.
    """
    if loss not in TEXTURE_LOSSES:
        hint = suggest(loss, TEXTURE_LOSSES)
        raise ConfigError(f"loss is {loss!r}{hint}; it must be one of {', '.join(TEXTURE_LOSSES)}")
    if loss == "gram" and given:
        raise ConfigError(f'{given[0]} needs loss="correspondence"; with loss="gram" it has no effect')
    if loss == "auto":
        loss = "correspondence" if given else "gram"
    if loss == "correspondence" and noise is not None:
        raise ConfigError(
            'noise needs loss="gram"; loss="correspondence" starts from random pixels of the style image'
        )
    return loss


class _Textures(NamedTuple):
    """The textures of one loss, with the title, caption, diagram and table of their study."""

    title: str
    caption: str
    panels: list[Panel]
    diagram: Curves
    table: list[dict[str, Any]]


def _gram_textures(
    source: np.ndarray,
    start: np.ndarray,
    *,
    layers: Sequence[str],
    vgg_weights: Weights,
    pooling: str,
    seamless: bool,
    iterations: int,
    noise: float,
    progress: Progress | None,
) -> _Textures:
    """Return a texture for each nested set of layers."""
    panels, curves, table = [], {}, []
    for count in range(1, len(layers) + 1):
        descent = _synthesise(
            source,
            start,
            layers=layers[:count],
            vgg_weights=vgg_weights,
            pooling=pooling,
            seamless=seamless,
            iterations=iterations,
        )
        name = layer_range(layers[:count])
        panels.append(Panel(descent.image, name, _describe_descent(descent)))
        curves[name] = descent.relative_curve()
        table.append(_table_line(layers[:count], descent))
        report_progress(progress, name, text=panels[-1].caption)
    diagram = Curves(
        curves, "style distance relative to the start", "iterations", "mean |G-A|²/|A|², relative"
    )
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 1 (bottom): starting from white noise, each texture minimises "
        f"the mean of |G-A|²/|A|² over a nested set of layers in {iterations} iterations. The structures "
        "that match the style image become larger with the depth of the layers. Our reading: the standard "
        f"deviation of the noise ({noise:g}), the number of iterations, and relative distances."
    )
    return _Textures("Textures from white noise, by nested sets of layers", caption, panels, diagram, table)


def _guided_texture(
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
    progress: Progress | None,
) -> _Textures:
    """Return one texture, by guided correspondence."""
    curves, table = {}, []
    for scale in synthesise_guided(
        source, shape, layers=layers, vgg_weights=vgg_weights, pooling=pooling, seamless=seamless,
        iterations=iterations, guidance=guidance, avoid_repetition=avoid_repetition, seed=seed,
    ):  # fmt: skip
        descent = scale.descent
        height, width = descent.image.shape[:2]
        name = f"{width} x {height} pixels"
        curves[name] = descent.relative_curve()
        line = {"scale": name, **_table_line(layers, descent), "used style patches in %": 100 * scale.used}
        table.append(line)
        text = f"loss {descent.lowest_loss:.3g}\n{100 * scale.used:.0f} % of the style patches used"
        report_progress(progress, name, text=text)
    caption = (
        "After Zhou et al. 2023: starting from random pixels of the style image, the texture minimises the "
        f"guided correspondence loss of {', '.join(layers)} in {iterations} iterations for each scale. Every "
        "patch of the texture becomes similar to a patch of the style image."
    )
    if guidance is not None:
        caption += " The maps guide the choice of the patches."
    if avoid_repetition:
        caption += f" Style patches that are used often are avoided with the weight {avoid_repetition:g}."
    diagram = Curves(curves, "loss relative to the start of a scale", "iterations", "loss, relative")
    panels = [Panel(descent.image, "texture", text)]
    return _Textures("Texture by guided correspondence", caption, panels, diagram, table)


def _as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey, 3, -1)


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
    texture_encoder, source_encoder = texture_encoders(
        layers, vgg_weights=vgg_weights, pooling=pooling, seamless=seamless
    )
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

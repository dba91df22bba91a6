"""Textures from random Gram matrices with the values of a style image's Gram matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.images import load as load_image
from tfstyle.losses import Objective
from tfstyle.network import Encoder, default_layers, load_weights
from tfstyle.papers.descent import descend, white_noise
from tfstyle.papers.heat_maps import heat_map
from tfstyle.papers.image_grams import descending_eigenvalues, image_gram_matrices, spectra_diagram
from tfstyle.papers.random_grams import GramComparison, compare_grams, sample_gram, shuffle_entries
from tfstyle.papers.study import Curves, Panel, Progress, Study, report_progress
from tfstyle.papers.vgg_encoders import available_layers, describe_network, network_facts, vgg_encoder

#: Layer -> Gram matrix, ``[N, N]``.
Grams = dict[str, np.ndarray]
DECADES = 3.0  # range of the heat maps' logarithmic scale, in powers of ten
TV_WEIGHT = 0.1  # total variation removes pixel noise, which hardly changes a Gram matrix
#: Kind of the target Gram matrices -> its description in the figure.
SOURCES = {
    "style image": "matrices of the style image",
    "shuffled": "shuffled entries",
    "ordered": "entries ordered as in a random image",
}


class GramTexture(NamedTuple):
    """An image synthesised from target Gram matrices.

    Attributes:
        source: kind of the target Gram matrices, a key of `SOURCES`.
        seed: seed of the target Gram matrices.
        target_grams: layer -> target Gram matrix A, ``[N, N]``.
        image: float32 ``[size, size, 3]`` in 0..1.
        gram_errors: layer -> ``|G - A|² / |A|²`` of the image's Gram matrix G.
    """

    source: str
    seed: int
    target_grams: Grams
    image: np.ndarray
    gram_errors: Mapping[str, float]

    @property
    def name(self) -> str:
        """The kind of the Gram matrices and their seed, for titles."""
        return self.source if self.source == "style image" else f"{self.source}, seed {self.seed}"


def gram_mimic(
    style: Any,
    *,
    layers: tuple[str, ...] | None = None,
    size: int = 128,
    seeds: tuple[int, ...] = (0, 1),
    rounds: int = 60,
    iterations: int = 80,
    threshold: float = 0.1,
    weights: str = "auto",
    progress: Progress | None = None,
) -> Study:
    """Synthesise textures from random Gram matrices with the values of a style image's Gram matrices.

    A random Gram matrix D_l has the values of the style image's matrix A_l in another order, and is positive
    semi-definite (`tfstyle.papers.random_grams.sample_gram`). There are two kinds. ``shuffled`` matrices have
    the values in random order. No image matches such matrices closely, because they require channels to be
    active together that never are. ``ordered`` matrices have the values in the order of the entries of a
    random image's Gram matrices, so that the matrices of all layers are consistent with one image. For each
    set of matrices, L-BFGS solves ``min_x (1/L) Σ_l |G_l(x) - D_l|² / |D_l|² + 0.1 TV(x)`` from the same
    white noise.

    Args:
        style: style image.
        layers: layers of the Gram matrices, separated by commas; by default, those that
            tfstyle stylize uses with these weights.
        size: longest side of the style image, and height and width of the textures, in pixels.
        seeds: seeds of the random matrices, separated by commas; one texture of each kind is made for each.
        rounds: number of alternating projections for each matrix.
        iterations: number of iterations for each texture.
        threshold: fraction of the mean entry of a matrix; the sparsity is the share of the entries below it.
        weights: VGG-19 weights: auto (imagenet if they can be downloaded, otherwise embedded), imagenet,
            embedded, random, or a weights file.
        progress: function that is called with one line of text when a texture is done.

    Returns:
        The textures, heat maps of the Gram matrices, diagrams of their spectra, and a table.

    Raises:
        ConfigError: a layer does not exist, the weights reach none of the layers, or matplotlib is not
            installed.
        ImageError: the style image cannot be read.
        WeightsError: the weights cannot be read.

    Reference: Nikulin & Novak 2016, arXiv 1602.07188, whose abstract names the experiment. Our reading:
    the sampling of the matrices, the definition of the sparsity, and the ``ordered`` matrices.
    """
    vgg_weights = load_weights(weights)
    available, left_out = available_layers(vgg_weights, layers or default_layers(vgg_weights)[1])
    encoder = vgg_encoder(vgg_weights, available)
    style_image = load_image(style).fitted(size).on_white()
    style_grams = image_gram_matrices(encoder, style_image)
    synthesise = _make_synthesis(encoder, white_noise(size, size), iterations=iterations)
    textures = []
    for source, seed in [("style image", 0), *((s, seed) for s in ("shuffled", "ordered") for seed in seeds)]:
        if source == "style image":
            targets = style_grams
        else:
            ranking = _make_ranking(source, seed, style_grams=style_grams, encoder=encoder, size=size)
            targets = {
                layer: sample_gram(gram, ranking[layer], rounds=rounds) for layer, gram in style_grams.items()
            }
        image = synthesise(targets)
        errors = _gram_errors(image_gram_matrices(encoder, image), targets)
        textures.append(GramTexture(source, seed, targets, image, errors))
        report_progress(progress, textures[-1].name, text=_describe_errors(errors))
    facts = {
        "layers": list(available),
        "size": size,
        "seeds": list(seeds),
        "rounds": rounds,
        "iterations": iterations,
        "threshold": threshold,
        **network_facts(vgg_weights.source),
        "distance of two seeds": _seed_distances(textures, encoder),
    }
    return _make_study(style_image, style_grams, textures=textures, facts=facts, left_out=left_out)


def random_patches(size: int, seed: int) -> np.ndarray:
    """Return a random image of elongated patches of six colours, with grain.

    Each pixel has the colour of the largest of six random fields at its position. The amplitudes of these
    fields, and of the grain, fall as a power of the frequency. They fall more slowly in one direction, so
    that the patches are elongated, like brush strokes.

    Args:
        size: height and width in pixels.
        seed: seed of the fields, the direction and the colours.

    Returns:
        float32 ``[size, size, 3]`` in 0..1.
    """
    generator = np.random.default_rng(seed)
    y, x = np.fft.fftfreq(size, 1 / size)[:, None], np.fft.fftfreq(size, 1 / size)[None]
    angle, stretch = generator.uniform(0, np.pi), generator.uniform(1, 4)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    frequency = 1 + np.hypot(along, across / stretch)

    def fields(count: int, power: float) -> np.ndarray:
        spectra = np.fft.fft2(generator.normal(size=(count, size, size))) / frequency**power
        noise = np.fft.ifft2(spectra).real
        return np.asarray(noise / noise.std((1, 2), keepdims=True))

    patches = fields(6, generator.uniform(1.5, 2.5)).argmax(0)
    grain = np.moveaxis(fields(3, 1.2), 0, -1) * generator.uniform(0.02, 0.1)
    # Six colours with a common tint.
    colors = (generator.uniform(0, 1, 3) + generator.uniform(0, 1, (6, 3))) / 2
    return (colors[patches] + grain).clip(0, 1).astype(np.float32)


def _make_ranking(source: str, seed: int, *, style_grams: Grams, encoder: Encoder, size: int) -> Grams:
    """Return the matrices whose ranks give the order of the values, by layer."""
    if source == "shuffled":
        return {layer: shuffle_entries(gram, seed) for layer, gram in style_grams.items()}
    return image_gram_matrices(encoder, random_patches(size, seed))


def _make_synthesis(encoder: Encoder, start: np.ndarray, *, iterations: int) -> Callable[[Grams], np.ndarray]:
    """Return a function that synthesises an image from target Gram matrices."""
    objective = Objective(
        encoder.features,
        content_layers={},
        style_layers=dict.fromkeys(encoder.layers, 1 / len(encoder.layers)),
        content_weight=0.0,
        style_weight=1.0,
        tv_weight=TV_WEIGHT,
    )

    def synthesise(grams: Grams) -> np.ndarray:
        summary = {layer: (tf.constant(gram[np.newaxis], tf.float32),) for layer, gram in grams.items()}
        targets = objective.targets(tf.constant(start[np.newaxis]), [summary])
        return descend(objective, start, iterations=iterations, targets=targets).image

    return synthesise


def _gram_errors(grams: Grams, targets: Grams) -> dict[str, float]:
    return {
        layer: float(np.sum((grams[layer] - target) ** 2) / np.sum(target**2))
        for layer, target in targets.items()
    }


def _mean(errors: Mapping[str, float]) -> float:
    return float(np.mean(list(errors.values())))


def _describe_errors(errors: Mapping[str, float]) -> str:
    return f"relative error of the Gram matrices {_mean(errors):.2g}"


def _seed_distances(textures: Sequence[GramTexture], encoder: Encoder) -> dict[str, float]:
    """Return for each kind of matrices the relative distance between the textures of the first two seeds."""
    distances = {}
    for source in ("shuffled", "ordered"):
        images = [texture.image for texture in textures if texture.source == source][:2]
        if len(images) == 2:
            first, second = (image_gram_matrices(encoder, image) for image in images)
            distances[source] = _mean(_gram_errors(first, second))
    return distances


def _make_study(
    style_image: np.ndarray,
    style_grams: Grams,
    *,
    textures: Sequence[GramTexture],
    facts: dict[str, Any],
    left_out: str,
) -> Study:
    random_textures = textures[1:]
    threshold = facts["threshold"]
    comparisons = {
        (texture.name, layer): compare_grams(texture.target_grams[layer], gram, threshold=threshold)
        for texture in random_textures
        for layer, gram in style_grams.items()
    }
    rows: list[tuple[Panel | Curves | None, ...]] = [
        (Panel(style_image, "style image"), *(_texture_panel(texture) for texture in textures))
    ]
    for layer, gram in style_grams.items():
        matrices = [
            Panel(
                heat_map(texture.target_grams[layer], top=gram.max(), decades=DECADES),
                f"{layer}, {texture.name}",
                _describe_comparison(comparisons[texture.name, layer]),
            )
            for texture in random_textures
        ]
        style_matrix = Panel(
            heat_map(gram, decades=DECADES),
            f"{layer}, style image",
            _describe_style_gram(gram, threshold),
        )
        rows.append((style_matrix, _spectra_diagram(layer, textures), *matrices))
    table = [
        {
            "layer": layer,
            "matrix": texture.name,
            **_comparison_columns(comparisons[texture.name, layer]),
            "relative error of the texture": texture.gram_errors[layer],
        }
        for texture in random_textures
        for layer in style_grams
    ]
    caption = _caption(comparisons, textures, facts=facts, left_out=left_out)
    return Study(
        "Textures from random Gram matrices", tuple(rows), caption=caption, table=tuple(table), facts=facts
    )


def _texture_panel(texture: GramTexture) -> Panel:
    title = f"texture, {SOURCES[texture.source]}"
    if texture.source != "style image":
        title += f", seed {texture.seed}"
    return Panel(texture.image, title, _describe_errors(texture.gram_errors))


def _describe_style_gram(gram: np.ndarray, threshold: float) -> str:
    sparsity = compare_grams(gram, gram, threshold=threshold).sparsity
    return f"{len(gram)} channels; sparsity {100 * sparsity:.1f}%"


def _describe_comparison(comparison: GramComparison) -> str:
    return (
        f"sparsity {100 * comparison.sparsity:.1f}%; KS distance {comparison.ks_distance:.3f}\n"
        f"spectrum distance {comparison.spectrum_distance:.2f}, "
        f"sorted distance {comparison.sorted_distance:.2f}"
    )


def _comparison_columns(comparison: GramComparison) -> dict[str, float]:
    return {name.replace("_", " "): value for name, value in comparison._asdict().items()}


def _spectra_diagram(layer: str, textures: Sequence[GramTexture]) -> Curves:
    shares = {}
    for texture in textures:
        eigenvalues = descending_eigenvalues(texture.target_grams[layer])
        shares[texture.name] = eigenvalues / eigenvalues.sum()
    return spectra_diagram(shares, f"{layer}, spectra")


def _caption(
    comparisons: Mapping[tuple[str, str], GramComparison],
    textures: Sequence[GramTexture],
    *,
    facts: Mapping[str, Any],
    left_out: str,
) -> str:
    errors = {
        source: np.mean([_mean(texture.gram_errors) for texture in textures if texture.source == source])
        for source in SOURCES
    }
    seed_distances = facts["distance of two seeds"].items()
    distances = " and ".join(f"{value:.2g} ({kind})" for kind, value in seed_distances)
    values = comparisons.values()
    worst = {
        "sparsity": 100 * max(abs(c.sparsity - c.target_sparsity) for c in values),
        "distribution": max(c.ks_distance for c in values),
        "smallest": min(c.smallest_eigenvalue for c in values),
        "permutation": min(min(c.spectrum_distance, c.sorted_distance) for c in values),
    }
    return " ".join(
        [
            "Random positive semi-definite matrices with the values of the style image's Gram matrices in",
            "another order, and textures synthesised from them. Shuffled: the values are in random order.",
            "Ordered: the values are in the order of a random image's Gram matrices. The mean relative error",
            f"Σ(G-A)²/ΣA² of the textures' Gram matrices is {errors['shuffled']:.2g} for shuffled matrices,",
            f"{errors['ordered']:.2g} for ordered matrices and {errors['style image']:.2g} for the matrices",
            "of the style image. Comparison of the random matrices with those of the style image: the",
            f"sparsity (share of entries below {facts['threshold']:g} of the mean) differs by at most",
            f"{worst['sparsity']:.2g} percentage points; the Kolmogorov-Smirnov distance is at most",
            f"{worst['distribution']:.2g}; the smallest eigenvalue is {worst['smallest']:.0e} of the",
            "largest, which is 0 up to rounding; the relative distances of the spectra and of the matrices",
            "with sorted channels, which are 0 for a permutation of the channels, are at least",
            f"{worst['permutation']:.2g}.",
            *([f"The relative distance between textures of two seeds is {distances}."] if distances else []),
            f"{facts['rounds']} rounds, {facts['iterations']} iterations at {facts['size']} pixels.",
            describe_network(facts["weights"]),
            *([left_out] if left_out else []),
            "After Nikulin & Novak 2016. Our reading: the sampling of the matrices.",
        ]
    )

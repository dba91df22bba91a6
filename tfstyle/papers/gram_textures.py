"""Textures from random Gram matrices that have the values of a style image's."""

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
DECADES = 3.0  # powers of ten that the heat maps show
TV_WEIGHT = 0.1  # against noise between the pixels, which hardly changes a Gram matrix
#: What a texture is made from -> description of its matrices.
SOURCES = {"painting": "the painting's own", "shuffled": "shuffled", "ordered": "ordered by a picture"}


class GramTexture(NamedTuple):
    """An image made from Gram matrices.

    Attributes:
        source: of `SOURCES`.
        seed: of the matrices.
        target_grams: layer -> ``[N, N]``, A, which the image was to have.
        image: float32 ``[size, size, 3]`` in 0..1.
        gram_errors: layer -> ``|G - A|² / |A|²`` of the image's own matrices G.
    """

    source: str
    seed: int
    target_grams: Grams
    image: np.ndarray
    gram_errors: Mapping[str, float]

    @property
    def name(self) -> str:
        """Name of the texture in titles."""
        return self.source if self.source == "painting" else f"{self.source}, seed {self.seed}"


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
    """Textures from random Gram matrices with the sparsity and the values of a style image's.

    In each layer a matrix takes the values of the style image's in another order and the nearest positive
    semi-definite matrix's, alternately (`tfstyle.papers.random_grams.sample_gram`). The order is, in
    ``shuffled``, none: every value anywhere. Such matrices fit no image well, since channels that never fire
    together are told to. In ``ordered`` it is that of the matrices of a random image of patches, which one
    image has in all layers. Then ``min_x (1/L) Σ_l |G_l(x) - D_l|² / |D_l|² + 0.1 TV(x)`` by L-BFGS, all
    from the same white noise.

    Args:
        style: style image.
        layers: whose matrices are sampled; by default the papers' style layers that the weights reach.
        size: longest side of the style image, and both sides of the textures, in pixels.
        seeds: one of each kind of matrices is sampled from each.
        rounds: alternations of taking the values and projecting.
        iterations: evaluations of loss and gradient for each texture.
        threshold: part of a matrix' mean entry below which an entry counts as empty, for the sparsity.
        weights: imagenet, embedded, random, auto or a file.
        progress: called with a line for each texture.

    Raises:
        ConfigError: an unknown layer, or none that the weights reach.
        ImageError: the style image cannot be read.

    Reference: Nikulin & Novak 2016, arXiv 1602.07188, whose abstract names the experiment. Our reading of:
    how a matrix is sampled, what counts as empty, and the whole of ``ordered``.
    """
    vgg_weights = load_weights(weights)
    available, left_out = available_layers(vgg_weights, layers or default_layers(vgg_weights)[1])
    encoder = vgg_encoder(vgg_weights, available)
    style_image = load_image(style).fitted(size).on_white()
    style_grams = image_gram_matrices(encoder, style_image)
    synthesise = _make_synthesis(encoder, white_noise(size, size), iterations=iterations)
    textures = []
    for source, seed in [("painting", 0), *((s, seed) for s in ("shuffled", "ordered") for seed in seeds)]:
        if source == "painting":
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
        "apart": _seed_distances(textures, encoder),
    }
    return _make_study(style_image, style_grams, textures=textures, facts=facts, left_out=left_out)


def random_patches(size: int, seed: int) -> np.ndarray:
    """Make an image of patches of six colours with grain, float32 ``[size, size, 3]`` in 0..1.

    Each pixel has the colour of whichever of six random fields is the highest there. The fields, and the
    grain's, fall off as a power of the frequency, more slowly along one direction: strokes.
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
    colors = (generator.uniform(0, 1, 3) + generator.uniform(0, 1, (6, 3))) / 2  # of one tint
    return (colors[patches] + grain).clip(0, 1).astype(np.float32)


def _make_ranking(source: str, seed: int, *, style_grams: Grams, encoder: Encoder, size: int) -> Grams:
    """Make the matrices by whose ranks the values of the style image's are assigned."""
    if source == "shuffled":
        return {layer: shuffle_entries(gram, seed) for layer, gram in style_grams.items()}
    return image_gram_matrices(encoder, random_patches(size, seed))


def _make_synthesis(encoder: Encoder, start: np.ndarray, *, iterations: int) -> Callable[[Grams], np.ndarray]:
    """Make a function from Gram matrices to the image that has them nearly."""
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
    return f"matrices missed by {_mean(errors):.2g}"


def _seed_distances(textures: Sequence[GramTexture], encoder: Encoder) -> dict[str, float]:
    """Measure for each kind of matrices how far the textures of the first two seeds are apart."""
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
        (Panel(style_image, "painting"), *(_texture_panel(texture) for texture in textures))
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
            f"{layer}, painting",
            _describe_style_gram(gram, threshold),
        )
        rows.append((style_matrix, _spectra_diagram(layer, textures), *matrices))
    table = [
        {
            "layer": layer,
            "matrix": texture.name,
            **_comparison_columns(comparisons[texture.name, layer]),
            "missed": texture.gram_errors[layer],
        }
        for texture in random_textures
        for layer in style_grams
    ]
    caption = _caption(comparisons, textures, facts=facts, left_out=left_out)
    return Study(
        "Textures from drawn Gram matrices", tuple(rows), caption=caption, table=tuple(table), facts=facts
    )


def _texture_panel(texture: GramTexture) -> Panel:
    title = f"texture, {SOURCES[texture.source]}"
    if texture.source != "painting":
        title += f", seed {texture.seed}"
    return Panel(texture.image, title, _describe_errors(texture.gram_errors))


def _describe_style_gram(gram: np.ndarray, threshold: float) -> str:
    sparsity = compare_grams(gram, gram, threshold=threshold).sparsity
    return f"{len(gram)} channels; sparsity {100 * sparsity:.1f}%"


def _describe_comparison(comparison: GramComparison) -> str:
    return (
        f"sparsity {100 * comparison.sparsity:.1f}%; KS distance {comparison.ks_distance:.3f}\n"
        f"from a permutation: spectrum {comparison.spectrum_distance:.2f}, "
        f"entries {comparison.sorted_distance:.2f}"
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
    missed = {
        source: np.mean([_mean(texture.gram_errors) for texture in textures if texture.source == source])
        for source in SOURCES
    }
    apart = "; ".join(f"{kind}, {value:.2g}" for kind, value in facts["apart"].items())
    values = comparisons.values()
    worst = {
        "sparsity": 100 * max(abs(c.sparsity - c.target_sparsity) for c in values),
        "distribution": max(c.ks_distance for c in values),
        "smallest": min(c.smallest_eigenvalue for c in values),
        "permutation": min(min(c.spectrum_distance, c.sorted_distance) for c in values),
    }
    return " ".join(
        [
            "Matrices with the painting's values in another order, positive semi-definite, and textures made",
            "from them. Shuffled: every value anywhere; such matrices fit no picture, and the textures miss",
            f"theirs by {missed['shuffled']:.2g} of their squared norm. Ordered: in the order of a random",
            f"picture's matrices; missed by {missed['ordered']:.2g}, where the painting's own are by",
            f"{missed['painting']:.2g}. Drawn against the painting's: sparsity (entries below",
            f"{facts['threshold']:g} of the mean) off by at most {worst['sparsity']:.2g} points,",
            f"Kolmogorov-Smirnov distance at most {worst['distribution']:.2g}, smallest eigenvalue",
            f"{worst['smallest']:.0e} of the largest, which is 0 but for rounding; at least",
            f"{worst['permutation']:.2g} from what the painting's channels give in another order. Textures",
            f"of two seeds are apart, as matrices are missed, by: {apart or 'one seed only'}.",
            f"{facts['rounds']} rounds, {facts['iterations']} evaluations at {facts['size']} pixels.",
            describe_network(facts["weights"]),
            *([left_out] if left_out else []),
            "After Nikulin & Novak 2016; our reading of it: how the matrices are drawn.",
        ]
    )

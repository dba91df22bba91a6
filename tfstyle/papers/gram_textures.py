"""Textures from Gram matrices that no picture gave: drawn with the values of a painting's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.images import load as load_image
from tfstyle.losses import Objective, gram_matrix
from tfstyle.network import Encoder, default_layers, load_weights
from tfstyle.papers.descent import descend, white_noise
from tfstyle.papers.heat_maps import heat_map
from tfstyle.papers.judging import there
from tfstyle.papers.random_grams import Likeness, drawn, likeness, shuffled
from tfstyle.papers.study import Curves, Panel, Progress, Study

Grams = dict[str, np.ndarray]
DECADES = 3.0  # that the heat maps tell apart
TV_WEIGHT = 0.1  # against noise between the pixels, which a Gram matrix hardly sees
#: What a texture is made from -> what its matrices are.
SOURCES = {"painting": "the painting's own", "shuffled": "shuffled", "ordered": "ordered by a picture"}


class Texture(NamedTuple):
    """A picture made from matrices.

    Attributes:
        source: of `SOURCES`.
        seed: of the matrices.
        goal: layer -> ``[N, N]``, what was to be had.
        image: float32 ``[size, size, 3]`` in 0..1.
        missed: layer -> ``|G - goal|² / |goal|²`` of the image's own matrices G.
    """

    source: str
    seed: int
    goal: Grams
    image: np.ndarray
    missed: Mapping[str, float]

    @property
    def name(self) -> str:
        """What it is in titles."""
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
    """Textures from Gram matrices drawn with the sparsity and the values of a painting's.

    In each layer a matrix takes the values of the painting's in another order and the nearest positive
    semi-definite matrix's, turn about (`drawn_grams.drawn`). The order is, in ``shuffled``, none: every
    value anywhere. Such matrices fit no picture well, since channels that never fire together are told
    to. In ``ordered`` it is that of the matrices of a random picture of patches, which one picture has
    in all layers. Then ``min_x (1/L) Σ_l |G_l(x) - D_l|² / |D_l|² + 0.1 TV(x)`` by L-BFGS, all from the same
    white noise.

    Args:
        style: the painting.
        layers: whose matrices are drawn; by default the papers' style layers that the weights reach.
        size: of the painting's longest side, and of the textures' both sides, in pixels.
        seeds: one of each kind of matrices is drawn from each.
        rounds: of remapping and projection.
        iterations: evaluations of loss and gradient for each texture.
        threshold: part of a matrix' mean entry below which an entry counts as empty, for the sparsity.
        weights: imagenet, embedded, random, auto or a file.
        progress: called with a line for each texture.

    Raises:
        ConfigError: an unknown layer, or none that the weights reach.
        ImageError: the painting cannot be read.

    Reference: Nikulin & Novak 2016, arXiv 1602.07188, whose abstract names the experiment. Our reading of:
    how a matrix is drawn, what counts as empty, and the whole of ``ordered``.
    """
    loaded = load_weights(weights)
    kept, left_out = there(loaded, layers or default_layers(loaded)[1])
    encoder = Encoder(kept, loaded, padding="reflect")
    painting = load_image(style).fitted(size).on_white()
    own = _grams(encoder, painting)
    synthesise = _synthesis(encoder, white_noise(size, size), iterations)
    textures = []
    for source, seed in [("painting", 0), *((s, seed) for s in ("shuffled", "ordered") for seed in seeds)]:
        goal = own if source == "painting" else _drawn(source, seed, own, encoder, size, rounds)
        image = synthesise(goal)
        textures.append(Texture(source, seed, goal, image, _missed(_grams(encoder, image), goal)))
        if progress is not None:
            progress(f"{textures[-1].name}: matrices missed by {_mean(textures[-1].missed):.2g}")
    apart = _apart(textures, encoder)
    facts = {
        "layers": list(kept), "size": size, "seeds": list(seeds), "rounds": rounds, "iterations": iterations,
        "threshold": threshold, "weights": loaded.source, "apart": apart,
    }  # fmt: skip
    return _study(painting, own, textures, facts, left_out)


def random_picture(size: int, seed: int) -> np.ndarray:
    """Patches of six colours with grain, float32 ``[size, size, 3]`` in 0..1.

    Each pixel has the colour of whichever of six random fields is the highest there. The fields, and the
    grain's, fall off as a power of the frequency, more slowly along one direction: strokes.
    """
    generator = np.random.default_rng(seed)
    y, x = np.fft.fftfreq(size, 1 / size)[:, None], np.fft.fftfreq(size, 1 / size)[None]
    turn, stretch = generator.uniform(0, np.pi), generator.uniform(1, 4)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    frequency = 1 + np.hypot(along, across / stretch)

    def fields(count: int, power: float) -> np.ndarray:
        spectra = np.fft.fft2(generator.normal(size=(count, size, size))) / frequency**power
        made = np.fft.ifft2(spectra).real
        return np.asarray(made / made.std((1, 2), keepdims=True))

    patches = fields(6, generator.uniform(1.5, 2.5)).argmax(0)
    grain = np.moveaxis(fields(3, 1.2), 0, -1) * generator.uniform(0.02, 0.1)
    colours = (generator.uniform(0, 1, 3) + generator.uniform(0, 1, (6, 3))) / 2  # of one tint
    return (colours[patches] + grain).clip(0, 1).astype(np.float32)


def _grams(encoder: Encoder, image: np.ndarray) -> Grams:
    return {layer: gram_matrix(f)[0].numpy() for layer, f in encoder(image[np.newaxis]).items()}


def _drawn(source: str, seed: int, own: Grams, encoder: Encoder, size: int, rounds: int) -> Grams:
    if source == "shuffled":
        orders = {layer: shuffled(gram, seed) for layer, gram in own.items()}
    else:
        orders = _grams(encoder, random_picture(size, seed))
    return {layer: drawn(gram, orders[layer], rounds) for layer, gram in own.items()}


def _synthesis(encoder: Encoder, start: np.ndarray, iterations: int) -> Callable[[Grams], np.ndarray]:
    shares = dict.fromkeys(encoder.layers, 1 / len(encoder.layers))
    objective = Objective(encoder.features, {}, shares, 0.0, 1.0, TV_WEIGHT)

    def synthesise(goal: Grams) -> np.ndarray:
        summary = {layer: (tf.constant(gram[np.newaxis], tf.float32),) for layer, gram in goal.items()}
        targets = objective.targets(tf.constant(start[np.newaxis]), [summary])
        return descend(objective, start, iterations, targets).image

    return synthesise


def _missed(found: Grams, goal: Grams) -> dict[str, float]:
    return {
        layer: float(np.sum((found[layer] - gram) ** 2) / np.sum(gram**2)) for layer, gram in goal.items()
    }


def _mean(numbers: Mapping[str, float]) -> float:
    return float(np.mean(list(numbers.values())))


def _apart(textures: Sequence[Texture], encoder: Encoder) -> dict[str, float]:
    """For each kind of matrices how far the first two seeds' textures are apart, as `Texture.missed`."""
    found = {}
    for source in ("shuffled", "ordered"):
        grams = [_grams(encoder, t.image) for t in textures if t.source == source][:2]
        if len(grams) == 2:
            found[source] = _mean(_missed(*grams))
    return found


def _study(
    painting: np.ndarray, own: Grams, textures: Sequence[Texture], facts: dict[str, Any], left_out: str
) -> Study:
    threshold = facts["threshold"]
    found = {
        (t.name, layer): likeness(t.goal[layer], gram, threshold)
        for t in textures[1:] for layer, gram in own.items()
    }  # fmt: skip
    first = [Panel(painting, "painting"), *(_picture(t) for t in textures)]
    lines: list[list[Panel | Curves | None]] = [
        [
            Panel(
                heat_map(own[layer], decades=DECADES), f"{layer}, painting", _of_own(own[layer], threshold)
            ),
            _spectra(layer, own, textures),
            *(
                Panel(
                    heat_map(t.goal[layer], own[layer].max(), DECADES),
                    f"{layer}, {t.name}",
                    _of_drawn(found[t.name, layer]),
                )
                for t in textures[1:]
            ),
        ]
        for layer in own
    ]
    table = [
        {"layer": layer, "matrix": t.name, **found[t.name, layer]._asdict(), "missed": t.missed[layer]}
        for t in textures[1:] for layer in own
    ]  # fmt: skip
    caption = _caption(found, textures, facts, left_out)
    rows: list[list[Panel | Curves | None]] = [[*first], *lines]
    return Study("Textures from drawn Gram matrices", tuple(map(tuple, rows)), caption, tuple(table), facts)


def _picture(texture: Texture) -> Panel:
    title = f"texture, {SOURCES[texture.source]}"
    if texture.source != "painting":
        title += f", seed {texture.seed}"
    return Panel(texture.image, title, f"matrices missed by {_mean(texture.missed):.2g}")


def _of_own(gram: np.ndarray, threshold: float) -> str:
    return f"{len(gram)} channels; sparsity {100 * likeness(gram, gram, threshold).sparsity:.1f}%"


def _of_drawn(found: Likeness) -> str:
    return (
        f"sparsity {100 * found.sparsity:.1f}%; KS distance {found.distribution:.3f}\n"
        f"from a permutation: spectrum {found.spectrum:.2f}, entries {found.matched:.2f}"
    )


def _spectra(layer: str, own: Grams, textures: Sequence[Texture]) -> Curves:
    """Eigenvalues as shares of their sum, largest first."""
    series = {}
    for t in textures:
        values = np.linalg.eigvalsh(t.goal[layer].astype(np.float64))[::-1]
        shares = values / values.sum()
        shown = shares > 1e-6
        series[t.name] = (np.arange(1, len(shares) + 1)[shown].tolist(), shares[shown].tolist())
    return Curves(series, f"{layer}, spectra", "eigenvalue, largest first", "share of their sum")


def _caption(
    found: Mapping[tuple[str, str], Likeness],
    textures: Sequence[Texture],
    facts: Mapping[str, Any],
    left_out: str,
) -> str:
    missed = {s: np.mean([_mean(t.missed) for t in textures if t.source == s]) for s in SOURCES}
    apart = "; ".join(f"{kind}, {value:.2g}" for kind, value in facts["apart"].items())
    worst = {
        "sparsity": 100 * max(abs(f.sparsity - f.wanted) for f in found.values()),
        "distribution": max(f.distribution for f in found.values()),
        "smallest": min(f.smallest for f in found.values()),
        "permutation": min(min(f.spectrum, f.matched) for f in found.values()),
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
            f"{facts['rounds']} rounds, {facts['iterations']} evaluations at {facts['size']} pixels,",
            f"weights {facts['weights']}.",
            *([left_out] if left_out else []),
            "After Nikulin & Novak 2016; our reading of it: how the matrices are drawn.",
        ]
    )

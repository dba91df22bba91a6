"""The normalisations of the losses against slow NumPy definitions, and their laws."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tfstyle import Objective
from tfstyle.losses import (
    GRAM,
    MEAN_DEVIATION,
    balanced_normalization,
    channel_normalization,
    mean_normalization,
    paper_normalization,
    root_normalization,
    wasserstein,
)

NORMALIZATIONS = {
    "paper": paper_normalization,
    "mean": mean_normalization,
    "channels": channel_normalization,
    "root": root_normalization,
    "balanced": balanced_normalization,
}
SIZES = [(5, 4, 3), (2, 7, 6)]


@pytest.fixture(params=NORMALIZATIONS)
def name(request):
    return request.param


def make_features(seed, shape):
    return np.maximum(np.random.default_rng(seed).normal(0.3, 1, shape), 0).astype(np.float32)


def evaluate(name, image, content, style, *, stride=1, style_loss=GRAM, weights=(1.0, 1.0)):
    """Return content loss, style loss and the gradient of their sum for features ``[h, w, N]``.

    The encoder takes every ``stride``-th pixel in each direction, so that a position covers stride² pixels.
    """
    objective = Objective(
        lambda pixels: {"layer": pixels[:, ::stride, ::stride]},
        {"layer": 1.0},
        style_layers={"layer": 1.0},
        content_weight=weights[0],
        style_weight=weights[1],
        normalization=NORMALIZATIONS[name],
        style_losses=((style_loss, 1.0),),
    )
    image, content, style = (
        tf.constant(features.repeat(stride, 0).repeat(stride, 1)[None])
        for features in (image, content, style)
    )
    targets = objective.targets(content, [objective.style_summary(style)])
    with tf.GradientTape() as tape:
        tape.watch(image)
        terms = objective(image, targets)
    return float(terms["content"]), float(terms["style"]), tape.gradient(terms["total"], image).numpy()[0]


# The definitions, with F, P [h, w, N], sums G, A over M positions, and N channels


def slow_content(name, f, p):
    height, width, n = f.shape
    m = height * width
    squares = energy = 0.0
    for y in range(height):
        for x in range(width):
            for i in range(n):
                squares += (float(f[y, x, i]) - float(p[y, x, i])) ** 2
                energy += float(p[y, x, i]) ** 2
    return {
        "paper": squares / 2,  # Gatys, Ecker, Bethge 2016, eq. 1
        "mean": squares / (m * n),
        "channels": squares / (m * n),
        "root": squares / (2 * n**0.5 * m**0.5),  # cysmith/neural-style-tf
        "balanced": squares / energy,
    }[name]


def slow_style(name, f, s):
    n = f.shape[-1]
    m, m_style = f.shape[0] * f.shape[1], s.shape[0] * s.shape[1]
    loss = energy = 0.0
    for i in range(n):
        for j in range(n):
            g = (f[..., i].astype(np.float64) * f[..., j]).sum()
            a = (s[..., i].astype(np.float64) * s[..., j]).sum()
            if name == "channels":  # jcjohnson/neural-style divides by the number of channels too
                loss += (g / (n * m) - a / (n * m_style)) ** 2
            else:
                loss += (g / m - a / m_style) ** 2
            energy += (a / m_style) ** 2
    return {
        "paper": loss / (4 * n**2),  # Gatys, Ecker, Bethge 2016, eq. 4, for images of the same size
        "mean": loss / n**2,
        "channels": loss / n**2,
        "root": loss / (4 * n**2),
        "balanced": loss / energy,
    }[name]


def slow_mean_deviation(f, s):
    """Li et al. 2017, with the 1e-6 that the package adds to the variance."""
    total = 0.0
    for i in range(f.shape[-1]):
        x, y = f[..., i].astype(np.float64), s[..., i].astype(np.float64)
        total += (x.mean() - y.mean()) ** 2
        total += (np.sqrt(x.var() + 1e-6) - np.sqrt(y.var() + 1e-6)) ** 2
    return total / f.shape[-1]


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_content_loss_matches_its_definition(name, size, stride):
    f, p = make_features(1, size), make_features(2, size)
    content, _, _ = evaluate(name, f, p, p, stride=stride)
    assert content == pytest.approx(slow_content(name, f, p), rel=1e-5)
    assert evaluate(name, p, p, f, stride=stride)[0] == 0


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_style_loss_matches_its_definition(name, size):
    f, s = make_features(1, size), make_features(3, (4, 6, size[-1]))
    _, style, _ = evaluate(name, f, f, s)
    assert style == pytest.approx(slow_style(name, f, s), rel=1e-5)
    assert evaluate(name, s, s, s)[1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_only_the_balanced_normalization_changes_losses_that_are_means(name, size):
    f, s = make_features(1, size), make_features(3, (4, 6, size[-1]))
    expected = slow_mean_deviation(f, s)
    if name == "balanced":
        expected /= slow_mean_deviation(np.zeros_like(f), s)
    _, style, _ = evaluate(name, f, f, s, style_loss=MEAN_DEVIATION)
    assert style == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_gradient_is_that_of_the_definition(name, size):
    """The content loss is c Σ (F - P)² and c does not depend on F, so that the gradient is 2 c (F - P)."""
    f, p = make_features(1, size), make_features(2, size)
    c = slow_content(name, f, p) / ((f.astype(np.float64) - p) ** 2).sum()
    _, _, slopes = evaluate(name, f, p, p, weights=(1.0, 0.0))
    assert reference.relative_error(slopes, 2 * c * (f.astype(np.float64) - p)) < 1e-5


#: Factors by which the content loss and the Gram loss grow if every position or every channel is repeated.
#: Σ (F - P)² is doubled in both cases. Σ (G/M - A/M)² is quadrupled if the channels are repeated.
REPEATED_POSITIONS = {
    "paper": (2, 1), "mean": (1, 1), "channels": (1, 1), "root": (2**0.5, 1), "balanced": (1, 1),
}  # fmt: skip
REPEATED_CHANNELS = {
    "paper": (2, 1), "mean": (1, 1), "channels": (1, 1 / 4), "root": (2**0.5, 1), "balanced": (1, 1),
}  # fmt: skip


@pytest.mark.parametrize(("axis", "factors"), [(0, REPEATED_POSITIONS), (2, REPEATED_CHANNELS)])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_repeated_positions_and_channels(name, size, axis, factors):
    features = [make_features(seed, size) for seed in (1, 2, 3)]
    repeated = [x.repeat(2, axis) for x in features]
    single, double = evaluate(name, *features)[:2], evaluate(name, *repeated)[:2]
    assert double == pytest.approx([v * k for v, k in zip(single, factors[name], strict=True)], rel=1e-5)


STYLE_LOSSES = {"gram": GRAM, "mean_deviation": MEAN_DEVIATION, "wasserstein": wasserstein()}


@pytest.mark.parametrize("style_loss", STYLE_LOSSES)
@pytest.mark.parametrize(("size", "stride"), [(SIZES[0], 1), (SIZES[1], 8)], ids=str)
def test_balanced_losses_of_zero_features(size, stride, style_loss):
    """Both losses are 1, whatever the number of pixels that a position of the layer covers."""
    p, s = make_features(2, size), make_features(3, size)
    content, style, _ = evaluate(
        "balanced", np.zeros_like(p), p, s, stride=stride, style_loss=STYLE_LOSSES[style_loss]
    )
    assert content == pytest.approx(1, rel=1e-5)
    assert style == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("style_loss", STYLE_LOSSES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_balanced_losses_do_not_depend_on_the_scale_of_the_features(size, style_loss):
    # The constants that are added to variances are negligible for features of this size.
    features = [100 * make_features(seed, size) for seed in (1, 2, 3)]
    loss = STYLE_LOSSES[style_loss]
    single = evaluate("balanced", *features, style_loss=loss)[:2]
    scaled = evaluate("balanced", *(20 * x for x in features), style_loss=loss)[:2]
    assert scaled == pytest.approx(single, rel=1e-3)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_zero_target_does_not_divide_the_balanced_losses(size):
    f = make_features(1, size)
    content, style, slopes = evaluate("balanced", f, np.zeros_like(f), np.zeros_like(f), stride=8)
    assert content == pytest.approx(reference.content_loss(f, np.zeros_like(f)), rel=1e-5)  # 8² / 64 is 1
    gram = reference.gram(f)
    assert style == pytest.approx(reference.style_loss(gram, np.zeros_like(gram)), rel=1e-5)
    assert np.isfinite(slopes).all()

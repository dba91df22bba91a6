"""The formulas of the scores, against slow definitions and laws. They need no weights."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tests import reference
from tests.conftest import make_image
from tfstyle.images import load
from tfstyle.scoring import (
    Moments,
    directions,
    e_statistic,
    energy_distance,
    feature_moments,
    frame,
    gaussian_divergence,
    projected_moments,
    ripple,
    sample,
    self_similarity_distance,
)
from tfstyle.scoring.gaussians import LAYERS, reference_basis, shipped_basis


def positive_definite(seed, size=3):
    root = np.random.default_rng(seed).normal(size=(size, size))
    return root @ root.T + 0.5 * np.eye(size)


def test_moments_are_those_of_numpy():
    features = np.random.default_rng(0).random(
        (270, 260, 3), np.float32
    )  # more positions than are taken at once
    vectors = features.reshape(-1, 3).astype(np.float64)
    mean, covariance = feature_moments(features)
    np.testing.assert_allclose(mean, vectors.mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(vectors.T, bias=True), rtol=1e-9, atol=1e-15)


def test_projected_moments_are_the_moments_of_projected_features():
    features = np.random.default_rng(0).random((20, 30, 5))
    basis = {"conv1_1": np.linalg.qr(np.random.default_rng(1).normal(size=(5, 2)))[0]}
    projected = projected_moments({"conv1_1": features}, basis)["conv1_1"]
    direct = feature_moments(features @ basis["conv1_1"])
    np.testing.assert_allclose(projected.mean, direct.mean)
    np.testing.assert_allclose(projected.covariance, direct.covariance)


def test_the_divergence_is_the_expected_difference_of_log_densities():
    x = Moments(np.array([0.5, -0.2, 1.0]), positive_definite(1))
    s = Moments(np.array([0.0, 0.4, 0.3]), positive_definite(2))
    expected = reference.gaussian_divergence(*x, *s)
    assert gaussian_divergence(x, s) == pytest.approx(expected, rel=0.01)
    assert gaussian_divergence(s, x) == pytest.approx(reference.gaussian_divergence(*s, *x), rel=0.01)
    assert abs(gaussian_divergence(x, s) - gaussian_divergence(s, x)) > 0.1  # it is not symmetric


def test_the_divergence_depends_on_the_subspace_and_not_on_its_coordinates():
    x, s = (Moments(np.arange(3.0) * k, positive_definite(k)) for k in (1, 2))
    change = np.random.default_rng(3).normal(size=(3, 3))
    moved = [Moments(m.mean @ change, change.T @ m.covariance @ change) for m in (x, s)]
    assert gaussian_divergence(*moved) == pytest.approx(gaussian_divergence(x, s), rel=1e-9)


def test_the_divergence_of_equal_moments_is_zero_and_of_a_single_colour_infinite():
    s = Moments(np.arange(3.0), positive_definite(1))
    flat = Moments(np.arange(3.0), np.diag([1.0, 1.0, 0.0]))
    assert gaussian_divergence(s, s) < 1e-12
    assert gaussian_divergence(flat, s) == gaussian_divergence(s, flat) == np.inf


def test_e_is_the_weighted_sum_of_the_logarithms():
    """By the numbers of Yeh et al., with one dimension in place of 32, 48 and 128."""
    style = {layer: Moments(np.zeros(1), np.eye(1)) for layer in ("conv1_1", "conv2_1", "conv3_1")}
    shifts = {"conv1_1": 2.0, "conv2_1": 4.0, "conv3_1": 6.0}
    image = {layer: Moments(np.array([shift]), np.eye(1)) for layer, shift in shifts.items()}
    expected = -(0.7468 * np.log(2.0) + 0.2557 * np.log(8.0) + 2.3768 * np.log(18.0))  # KL = shift² / 2
    assert e_statistic(image, style) == pytest.approx(expected)
    assert e_statistic(style, style) == np.inf


def test_a_basis_is_the_leading_eigenvectors_of_the_mean_covariance():
    """The images vary along known axes, of which each image has one half."""
    channels = {"conv1_1": 64, "conv2_1": 128, "conv3_1": 256}
    generator = np.random.default_rng(0)
    axes = {layer: np.linalg.qr(generator.normal(size=(n, n)))[0] for layer, n in channels.items()}

    def encode(pixels):
        first = 0 if pixels[0, 0, 0] < 0.5 else 1
        features = {}
        for layer, (count, _) in LAYERS.items():
            strengths = np.full(channels[layer], 0.01)
            strengths[:count][first::2] = 1.0
            features[layer] = generator.normal(size=(2000, channels[layer])) * strengths @ axes[layer].T
        return features

    images = [load(np.full((48, 48, 3), value, np.float32)) for value in (0.2, 0.8)]
    for layer, vectors in reference_basis(images, encode).items():
        count, _ = LAYERS[layer]
        assert vectors.shape == (channels[layer], count)
        shared = np.linalg.svd(axes[layer][:, :count].T @ vectors, compute_uv=False)
        assert shared.min() > 0.99, layer  # the cosine of the largest angle between the two subspaces


def test_the_shipped_basis_is_orthonormal():
    for layer, vectors in shipped_basis().items():
        count, _ = LAYERS[layer]
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(count), atol=2e-3)  # it is stored as float16


def test_self_similarity_is_the_definition(monkeypatch):
    f, c = np.random.default_rng(0).random((2, 13, 18, 5)).astype(np.float32)
    expected = reference.self_similarity_distance(f, c)
    assert self_similarity_distance(directions(f), directions(c)) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr("tfstyle.scoring.distances.COLUMNS", 7)  # 20 positions: more than one block
    assert self_similarity_distance(directions(f), directions(c)) == pytest.approx(expected, rel=1e-9)
    assert self_similarity_distance(directions(c), directions(c)) == 0
    turned = directions(c @ np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0])
    assert self_similarity_distance(turned, directions(c)) < 1e-12  # only relations between positions count


def test_energy_distance_is_the_definition():
    generator = np.random.default_rng(0)
    x, y = generator.random((30, 4)), 2 * generator.random((40, 4)) ** 2
    assert energy_distance(x, y) == pytest.approx(reference.energy_distance(x, y), rel=1e-4)
    assert energy_distance(y, y) == pytest.approx(0, abs=1e-12)
    assert energy_distance(x * [1, 10, 100, 1000], y * [1, 10, 100, 1000]) == pytest.approx(
        energy_distance(x, y), rel=1e-4
    )


def test_a_sample_holds_whole_vectors_of_different_positions():
    features = np.arange(60 * 50 * 2, dtype=np.float32).reshape(60, 50, 2)
    drawn = sample(features)
    assert drawn.shape == (1500, 2)
    assert (drawn[:, 1] - drawn[:, 0] == 1).all()
    assert len(np.unique(drawn[:, 0])) == 1500
    assert sorted(sample(features[:5])[:, 0]) == features[:5, :, 0].ravel().tolist()


def test_ripple_is_the_definition():
    image = np.clip(make_image(70, 101) + np.random.default_rng(0).normal(0, 0.1, (70, 101, 3)), 0, 1)
    assert ripple(image) == pytest.approx(reference.ripple(image), abs=1e-4)


@pytest.mark.weights
def test_ripple_of_images_and_of_artefacts(data):
    """The published values: images 0.05 to 0.16, with a sine of 6 grey levels 0.30, with a blur 0.20."""
    plain, waves, blurred, noisy = [], [], [], []
    for path in sorted((data / "images").iterdir()):
        image = load(path).fitted(320).rgb
        sine = np.sin(2 * np.pi * np.arange(image.shape[1]) / 3)[:, None]
        noise = np.random.default_rng(0).normal(0, 0.05, image.shape)
        plain.append(ripple(image))
        waves.append(ripple(image + 6 / 255 * sine))
        blurred.append(ripple((gaussian_filter(image, (1, 1, 0)) * 255).round() / 255))
        noisy.append(ripple(image + noise))
    assert len(plain) == 8
    assert 0.045 < min(plain) <= max(plain) < 0.165
    assert np.median(waves) == pytest.approx(0.30, abs=0.04)
    assert np.median(blurred) == pytest.approx(0.20, abs=0.04)
    assert all(noise <= clean for noise, clean in zip(noisy, plain, strict=True))


def test_ripple_is_found_at_its_periods_only():
    noise = 0.5 + np.random.default_rng(0).normal(0, 0.1, (256, 256, 1)) * np.ones(3)
    columns = np.arange(256)[:, None]
    at = {
        period: ripple(noise + 0.1 * np.sin(2 * np.pi * columns / period)[..., None])
        for period in (2.5, 3, 5, 16)
    }
    assert min(at[2.5], at[3], at[5]) > 0.2 > at[16]
    assert ripple(noise) < 0.1
    assert ripple(np.full((64, 64, 3), 0.5)) == pytest.approx(0, abs=1e-9)


def test_a_frame_is_seen():
    image = np.random.default_rng(0).random((60, 80, 3))
    assert frame(image) == pytest.approx(1, abs=0.1)
    dark = image.copy()
    dark[:2] = dark[-2:] = 0
    dark[:, :2] = dark[:, -2:] = 0
    # E (U - V)² = 1/6 in the interior, and E U² = 1/3 at the border.
    assert frame(dark) == pytest.approx(np.sqrt(2), rel=0.05)
    flat = np.full((40, 40, 3), 0.5)
    assert frame(flat) == 1
    flat[:2] = 0
    assert frame(flat) == np.inf

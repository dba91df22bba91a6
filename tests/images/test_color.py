"""Colour matching against its moments and slow NumPy, the laws of each method, and grey images."""

import numpy as np
import pytest
import scipy.linalg
from PIL import Image

from tfstyle.errors import ConfigError
from tfstyle.images import COLOR_MATCHING, grey, luminance, match_colors, match_luminance, with_luminance

YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def make_colors(seed, shape=(16, 16), spread=0.12):
    """Return an image of correlated colours that are far enough from 0 and 1 not to be clipped."""
    generator = np.random.default_rng(seed)
    mixing = np.eye(3) + generator.uniform(-0.5, 0.5, (3, 3))
    mean = generator.uniform(0.45, 0.55, 3)
    return (mean + spread * generator.uniform(-1, 1, (*shape, 3)) @ mixing.T).astype(np.float32)


def moments(image):
    pixels = image.reshape(-1, 3).astype(np.float64)
    return pixels.mean(0), np.cov(pixels.T, bias=True)


def make_covariances(seed):
    """Return two random positive definite matrices with variances of about 1e-3 to 1."""
    mixings = np.random.default_rng(seed).normal(0, 0.3, (2, 3, 3))
    return [mixing @ mixing.T + 1e-3 * np.eye(3) for mixing in mixings]


def displacement(matrix, source):
    """Return the mean square of A x - x for x with mean zero and covariance ``source``."""
    change = matrix - np.eye(3)
    return np.trace(change @ source @ change.T)


@pytest.fixture
def image():
    return make_colors(0)


@pytest.fixture
def target():
    return make_colors(1, (12, 20))


@pytest.mark.parametrize("method", COLOR_MATCHING)
def test_matched_colours_have_the_targets_moments(image, target, method):
    matched = match_colors(image, target, method=method)
    assert matched.shape == image.shape
    assert matched.dtype == np.float32
    assert matched.min() > 0
    assert matched.max() < 1  # no pixel is clipped
    (mean, covariance), (target_mean, wanted) = moments(matched), moments(target)
    assert np.abs(moments(image)[0] - target_mean).max() > 0.01  # the moments differ before
    assert np.abs(moments(image)[1] - wanted).max() > 1e-3
    assert mean == pytest.approx(target_mean, abs=1e-6)
    assert covariance == pytest.approx(wanted, abs=5e-5)
    ridge = 1e-5 * np.eye(3)
    matrix = COLOR_MATCHING[method](moments(image)[1] + ridge, wanted + ridge)
    assert covariance == pytest.approx(wanted + 1e-5 * (np.eye(3) - matrix @ matrix.T), abs=1e-8)


@pytest.mark.parametrize("method", COLOR_MATCHING)
@pytest.mark.parametrize("seed", range(5))
def test_every_matrix_turns_one_covariance_into_the_other(method, seed):
    source, target = make_covariances(seed)
    matrix = COLOR_MATCHING[method](source, target)
    assert matrix @ source @ matrix.T == pytest.approx(target, abs=1e-12)


@pytest.mark.parametrize("method", COLOR_MATCHING)
def test_equal_images_stay_as_they_are(image, method):
    assert match_colors(image, image, method=method) == pytest.approx(image, abs=1e-6)
    shuffled = np.random.default_rng(5).permutation(image.reshape(-1, 3)).reshape(32, 8, 3)
    assert match_colors(image, shuffled, method=method) == pytest.approx(image, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_transport_is_symmetric_and_positive_definite(seed):
    matrix = COLOR_MATCHING["transport"](*make_covariances(seed))
    assert matrix == pytest.approx(matrix.T, abs=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > 0


@pytest.mark.parametrize("seed", range(5))
def test_transport_moves_colours_least(seed):
    """The change equals the Wasserstein distance of two normal distributions; other matrices change more."""
    source, target = make_covariances(seed)
    least = displacement(COLOR_MATCHING["transport"](source, target), source)
    shared = np.sqrt(np.linalg.eigvals(source @ target).real).sum()
    assert least == pytest.approx(np.trace(source) + np.trace(target) - 2 * shared, rel=1e-8)
    for other in ("cholesky", "root"):
        assert least < displacement(COLOR_MATCHING[other](source, target), source)
    root = COLOR_MATCHING["root"](source, target)
    inverse, half = np.linalg.inv(scipy.linalg.sqrtm(source)), scipy.linalg.sqrtm(source)
    for turn in np.random.default_rng(seed).normal(size=(20, 3, 3)):
        turned = root @ half @ np.linalg.qr(turn)[0] @ inverse
        assert turned @ source @ turned.T == pytest.approx(target, abs=1e-10)
        assert least < displacement(turned, source)


def test_transport_moves_an_images_colours_least(image, target):
    moved = {
        name: np.square(match_colors(image, target, method=name) - image).mean() for name in COLOR_MATCHING
    }
    assert min(moved, key=moved.__getitem__) == "transport"
    assert np.array_equal(match_colors(image, target), match_colors(image, target, method="transport"))


@pytest.mark.parametrize("seed", range(5))
def test_cholesky_is_lower_triangular(seed):
    matrix = COLOR_MATCHING["cholesky"](*make_covariances(seed))
    assert matrix == pytest.approx(np.tril(matrix), abs=1e-12)
    assert np.diag(matrix).min() > 0


def slow_moments(image):
    """Return the mean and the regularised covariance of the colours, from a loop over the pixels."""
    height, width, _ = image.shape
    mean, covariance = np.zeros(3), np.zeros((3, 3))
    for y in range(height):
        for x in range(width):
            mean += image[y, x].astype(np.float64) / (height * width)
    for y in range(height):
        for x in range(width):
            away = image[y, x].astype(np.float64) - mean
            covariance += np.outer(away, away) / (height * width)
    return mean, covariance + 1e-5 * np.eye(3)


@pytest.mark.parametrize("method", ["cholesky", "root", "transport"])
def test_matching_equals_a_loop_over_pixels(image, method):
    target = np.clip(make_colors(2, (9, 5), spread=0.6), 0, 1)  # wide enough for some pixels to be clipped
    (source_mean, source), (target_mean, wanted) = slow_moments(image), slow_moments(target)
    if method == "cholesky":
        factor = scipy.linalg.cholesky(source, lower=True)
        matrix = scipy.linalg.cholesky(wanted, lower=True) @ scipy.linalg.inv(factor)
    elif method == "root":
        matrix = scipy.linalg.sqrtm(wanted) @ scipy.linalg.inv(scipy.linalg.sqrtm(source))
    else:  # another form of the optimal transport: Σ_C (Σ_S Σ_C)^-½
        matrix = wanted @ scipy.linalg.inv(scipy.linalg.sqrtm(source @ wanted).real)
    offset = target_mean - matrix @ source_mean
    expected = np.empty((16, 16, 3))
    for y in range(16):
        for x in range(16):
            expected[y, x] = np.clip(matrix @ image[y, x].astype(np.float64) + offset, 0, 1)
    assert {0, 1} <= set(expected.ravel())
    assert match_colors(image, target, method=method) == pytest.approx(expected, abs=1e-6)


def singular(kind):
    """Return an image whose colours have a singular covariance."""
    if kind == "grey":
        return grey(luminance(make_colors(3)))
    if kind == "one pixel":
        return np.array([[[0.9, 0.3, 0.1]]], np.float32)
    if kind == "two pixels":
        return np.array([[[0.9, 0.3, 0.1], [0.2, 0.3, 0.4]]], np.float32)
    return np.full((16, 16, 3), {"black": 0, "white": 1, "colour": [0.1, 0.7, 0.3]}[kind], np.float32)


FLAT = ["black", "white", "colour", "one pixel"]


@pytest.mark.parametrize("method", COLOR_MATCHING)
@pytest.mark.parametrize("kind", [*FLAT, "grey", "two pixels"])
def test_singular_covariances_stay_finite(image, method, kind):
    singular_image = singular(kind)
    for first, second in ((image, singular_image), (singular_image, image), (singular_image, singular_image)):
        matched = match_colors(first, second, method=method)
        assert matched.shape == first.shape
        assert np.isfinite(matched).all()
        assert matched.min() >= 0
        assert matched.max() <= 1
    assert match_colors(singular_image, singular_image, method=method) == pytest.approx(
        singular_image, abs=1e-6
    )


@pytest.mark.parametrize("method", COLOR_MATCHING)
@pytest.mark.parametrize("kind", FLAT)
def test_a_target_of_one_colour_leaves_nearly_that_colour(image, method, kind):
    flat = singular(kind)
    matched = match_colors(image, flat, method=method)
    assert matched.std((0, 1)).max() < 1e-5**0.5 + 1e-6  # the root of ε, less than a step of 8 bits
    assert np.abs(matched - flat[0, 0]).max() < 0.015


@pytest.mark.parametrize("method", COLOR_MATCHING)
@pytest.mark.parametrize("kind", FLAT)
def test_an_image_of_one_colour_takes_the_targets_mean(target, method, kind):
    matched = match_colors(singular(kind), target, method=method)
    assert matched.reshape(-1, 3) - moments(target)[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("method", COLOR_MATCHING)
def test_a_grey_target_leaves_hardly_any_colour(image, method):
    grey_target = singular("grey")
    matched = match_colors(image, grey_target, method=method)
    assert (matched.max(-1) - matched.min(-1)).max() < 0.02
    assert luminance(matched).std() == pytest.approx(grey_target.std(), rel=0.01)


def test_unknown_methods_are_refused(image):
    with pytest.raises(ConfigError, match=r"'pca'.*transport, cholesky, root"):
        match_colors(image, image, method="pca")


@pytest.mark.parametrize(
    "function", [match_colors, lambda image, target: with_luminance(image, image[..., 0])]
)
def test_arguments_are_left_alone(image, target, function):
    before = image.copy(), target.copy()
    function(image, target)
    assert np.array_equal(image, before[0])
    assert np.array_equal(target, before[1])


def test_luminance_is_what_pillow_says():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    y = luminance(pixels / np.float32(255))
    assert y.shape == (16, 16)
    assert y.dtype == np.float32
    assert y * 255 == pytest.approx(np.asarray(Image.fromarray(pixels).convert("L")), abs=0.51)
    assert luminance(np.eye(3, dtype=np.float32)[None])[0] == pytest.approx([0.299, 0.587, 0.114])
    assert luminance(np.ones((2, 2, 3), np.float32)).tolist() == [[1, 1], [1, 1]]


def test_grey_has_the_luminance_it_is_made_of(image):
    y = image[..., 1]
    assert grey(y).shape == (16, 16, 3)
    assert grey(y).dtype == np.float32
    assert luminance(grey(y)) == pytest.approx(y, abs=1e-6)
    assert np.ptp(grey(y), axis=-1).max() == 0


def test_a_new_luminance_keeps_the_chroma(image):
    y = np.random.default_rng(3).uniform(0.45, 0.55, (16, 16)).astype(np.float32)
    changed = with_luminance(image, y)
    assert changed.dtype == np.float32
    assert changed.min() > 0
    assert changed.max() < 1  # no pixel is clipped
    assert luminance(changed) == pytest.approx(y, abs=1e-6)
    assert (changed @ YIQ.T)[..., 1:] == pytest.approx((image @ YIQ.T)[..., 1:], abs=1e-4)
    assert changed[..., 0] - changed[..., 2] == pytest.approx(image[..., 0] - image[..., 2], abs=1e-6)
    assert with_luminance(image, luminance(image)) == pytest.approx(image, abs=1e-6)
    assert with_luminance(grey(luminance(image)), y) == pytest.approx(grey(y), abs=1e-6)


def test_a_new_luminance_equals_the_way_through_yiq(image):
    y = np.random.default_rng(4).uniform(0, 1, (16, 16)).astype(np.float32)  # some pixels are clipped
    expected = np.empty((16, 16, 3))
    for row in range(16):
        for column in range(16):
            yiq = YIQ @ image[row, column]
            yiq[0] = y[row, column]
            expected[row, column] = np.clip(np.linalg.solve(YIQ, yiq), 0, 1)
    assert {0, 1} <= set(expected.ravel())
    assert with_luminance(image, y) == pytest.approx(expected, abs=1e-4)  # the YIQ matrix has four digits


def test_matched_luminance_has_the_contents_mean_and_deviation(image, target):
    style_y, content_y = luminance(image), luminance(target) * np.float32(0.8)
    matched = match_luminance(style_y, content_y)
    assert matched.shape == style_y.shape
    assert matched.dtype == np.float32
    assert matched.mean() == pytest.approx(content_y.mean(), abs=1e-6)
    assert matched.std() == pytest.approx(content_y.std(), abs=1e-6)
    assert np.array_equal(np.argsort(matched, None), np.argsort(style_y, None))
    assert match_luminance(style_y, style_y) == pytest.approx(style_y, abs=1e-6)


def test_matched_luminance_is_clipped():
    style_y = np.array([[0.0] * 9 + [1.0]], np.float32)
    content_y = np.array([[0.0, 1.0]], np.float32)
    assert match_luminance(style_y, content_y) == pytest.approx(np.array([[1 / 3] * 9 + [1]]), abs=1e-6)


@pytest.mark.parametrize("level", [0, 0.1, 0.7, 1])
@pytest.mark.parametrize("noise", [0, 1e-7])
def test_a_flat_luminance_is_not_blown_up(target, level, noise):
    """This also holds if the luminance varies by rounding only."""
    flat = np.full((16, 16), level, np.float32)
    flat += np.float32(noise) * (np.arange(16) % 2).astype(np.float32)
    content_y = luminance(target)
    assert match_luminance(flat, content_y) == pytest.approx(np.full((16, 16), content_y.mean()), abs=1e-3)
    assert match_luminance(content_y, flat) == pytest.approx(np.full((12, 20), level), abs=1e-6)

"""The losses and the objective against slow NumPy, the gradients of the paper and another framework."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.conftest import make_image
from tfstyle import Encoder, Objective, Weights, content_loss, gram_matrix, style_loss, total_variation
from tfstyle.errors import ConfigError
from tfstyle.losses import (
    GRAM,
    MEAN_DEVIATION,
    Region,
    balanced_normalization,
    cross_layer_gram,
    nine_point_variation,
    paper_normalization,
    shifted_gram,
    summed_squares,
    wasserstein,
    windowed_gram,
)
from tfstyle.optim import value_and_gradient

rng = np.random.default_rng(0)


def gradient(function, x):
    with tf.GradientTape() as tape:
        x = tf.constant(x)
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x).numpy()


@pytest.fixture(params=[(5, 4, 3), (2, 7, 6)], ids=str)
def pair(request):
    return (rng.normal(size=(1, *request.param)).astype("f4") for _ in range(2))


def test_content_loss_and_its_gradient(pair):
    f, p = pair
    assert float(content_loss(f, p)) == pytest.approx(reference.content_loss(f, p), rel=1e-5)
    assert float(content_loss(f, f)) == 0
    # Gatys et al. 2016, eq. 2: F - P where F > 0, and 0 elsewhere.
    slopes = gradient(lambda x: content_loss(tf.nn.relu(x), p), f)
    assert reference.relative_error(slopes, np.where(f > 0, np.maximum(f, 0) - p, 0)) < 1e-5


def test_style_loss_and_its_gradient(pair):
    f, s = pair
    g, a = gram_matrix(f)[0].numpy(), gram_matrix(s)[0].numpy()
    assert float(style_loss(g[None], a[None])) == pytest.approx(reference.style_loss(g, a), rel=1e-5)
    assert float(style_loss(g[None], g[None])) == 0
    # Gatys et al. 2016, eq. 6, with their unnormalised Gram matrices of images of the same size.
    positions, channels = f.shape[1] * f.shape[2], f.shape[3]
    flat = np.maximum(f, 0).reshape(-1, channels).T.astype(np.float64)
    target = s.reshape(-1, channels).T.astype(np.float64)
    difference = flat @ flat.T - target @ target.T
    expected = np.where(flat > 0, (flat.T @ difference).T / (channels**2 * positions**2), 0)
    slopes = gradient(lambda x: style_loss(gram_matrix(tf.nn.relu(x)), a[None]), f)
    assert reference.relative_error(slopes.reshape(-1, channels).T, expected) < 1e-5


@pytest.mark.parametrize("shape", [(5, 4), (3, 8)])
def test_total_variation(shape):
    image = make_image(*shape)
    assert float(total_variation(image[None])) == pytest.approx(reference.total_variation(image), rel=1e-5)
    assert float(total_variation(np.full((1, *shape, 3), 0.3, np.float32))) == 0


def test_total_variation_gradient():
    """Total variation is quadratic, so that central differences in float64 are exact."""
    image = make_image(4, 5)
    slopes = gradient(lambda x: total_variation(x), image[None])[0]
    for index in np.ndindex(4, 5, 3):
        ahead, behind = image.astype(np.float64), image.astype(np.float64)
        ahead[index] += 0.5
        behind[index] -= 0.5
        slope = reference.total_variation(ahead) - reference.total_variation(behind)
        assert slopes[index] == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_total_variation_of_a_single_pixel_is_zero():
    assert float(total_variation(np.ones((1, 1, 1, 3), np.float32))) == 0


def make_objective(encoder, normalization, **weights):
    numbers = {"content_weight": 2.0, "style_weight": 3.0, "tv_weight": 5.0} | weights
    layers = {"conv1_1": 0.25, "conv2_1": 0.75}
    return Objective(
        encoder.features, {"conv2_2": 1.0}, style_layers=layers, normalization=normalization, **numbers
    )


def test_the_objective_is_the_weighted_sum(small_encoder):
    image, content, style = (make_image(12, 16, s) for s in (1, 2, 3))
    style = style[:9]
    objective = make_objective(small_encoder, paper_normalization)
    terms = objective(
        tf.constant(image[None]), objective.targets(content[None], [objective.style_summary(style[None])])
    )

    f, p, s = (
        reference.features(x, small_encoder.weights.arrays, 4, "avg", "reflect")
        for x in (image, content, style)
    )
    grams = {i: (reference.gram(f[i]), reference.gram(s[i])) for i in (0, 2)}
    expected = {
        "content": 2 * reference.content_loss(f[3], p[3]),
        "style/conv1_1": 3 * 0.25 * reference.style_loss(*grams[0]),
        "style/conv2_1": 3 * 0.75 * reference.style_loss(*grams[2]),
        "tv": 5 * reference.total_variation(image),
    }
    expected["style"] = expected["style/conv1_1"] + expected["style/conv2_1"]
    expected["total"] = expected["content"] + expected["style"] + expected["tv"]
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-4), name


def test_balanced_normalization_is_relative(small_encoder):
    image, content, style = (make_image(12, 16, s) for s in (1, 2, 3))
    objective = make_objective(small_encoder, balanced_normalization)
    terms = objective(
        tf.constant(image[None]), objective.targets(content[None], [objective.style_summary(style[None])])
    )
    f, p, s = (
        reference.features(x, small_encoder.weights.arrays, 4, "avg", "reflect")
        for x in (image, content, style)
    )
    a, g = reference.gram(s[2]), reference.gram(f[2])
    assert float(terms["style/conv2_1"]) == pytest.approx(
        3 * 0.75 * ((g - a) ** 2).sum() / (a**2).sum(), rel=1e-4
    )
    assert float(terms["content"]) == pytest.approx(
        2 * ((f[3] - p[3]) ** 2).sum() / (p[3] ** 2).sum(), rel=1e-4
    )


def test_balanced_normalization_does_not_depend_on_the_scale_of_the_weights(small_weights):
    """Kernels and biases ten times as large make features ten times as large, but do not change the loss."""
    larger = dict(small_weights.arrays)
    for key in ("block2_conv1/kernel", "block2_conv1/bias"):
        larger[key] = larger[key] * 10
    image, content, style = (make_image(12, 16, s)[None] for s in (1, 2, 3))
    totals = []
    for arrays in (small_weights.arrays, larger):
        encoder = Encoder(("conv2_1",), Weights(arrays, "w"))
        objective = Objective(
            encoder.features,
            {"conv2_1": 1.0},
            style_layers={"conv2_1": 1.0},
            content_weight=0.5,
            style_weight=1.0,
        )
        targets = objective.targets(content, [objective.style_summary(style)])
        totals.append(float(objective(tf.constant(image), targets)["total"]))
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)
    assert totals[0] > 1e-3


def test_a_black_content_does_not_divide_by_zero():
    arrays = {"block1_conv1/kernel": np.ones((3, 3, 3, 64), "f4"), "block1_conv1/bias": np.zeros(64, "f4")}
    encoder = Encoder(("conv1_1",), Weights(arrays, "w"))  # all features of black are 0
    objective = Objective(
        encoder.features,
        {"conv1_1": 1.0},
        style_layers={"conv1_1": 1.0},
        content_weight=1.0,
        style_weight=1.0,
    )
    black = np.zeros((1, 4, 4, 3), np.float32)
    terms = objective(tf.ones_like(black), objective.targets(black, [objective.style_summary(black)]))
    assert np.isfinite(float(terms["total"]))
    assert float(terms["total"]) > 0


def test_several_styles_are_blended_on_their_gram_matrices(small_encoder):
    content, *styles = (make_image(8, 8, s)[None] for s in (1, 2, 3))
    objective = make_objective(small_encoder, paper_normalization)
    targets = objective.targets(
        content, [objective.style_summary(style) for style in styles], blend_weights=[1, 3]
    )
    (blended,) = targets.styles[0]["conv1_1"]
    arrays = small_encoder.weights.arrays
    grams = [reference.gram(reference.features(s[0], arrays, 1, padding="reflect")[0]) for s in styles]
    assert reference.relative_error(blended[0], 0.25 * grams[0] + 0.75 * grams[1]) < 1e-5


def test_the_objective_can_be_differentiated_twice():
    """The step's gradients give the finite differences; the exact form gives the Hessian's product."""
    smooth = [GRAM, shifted_gram(), MEAN_DEVIATION, wasserstein(), windowed_gram(2), cross_layer_gram()]
    objective = Objective(
        lambda image: {"conv1_1": image, "conv2_1": tf.nn.avg_pool2d(image, 2, 2, "VALID") ** 2},
        {"conv2_1": 1.0},
        style_layers={"conv1_1": 0.5, "conv2_1": 0.5},
        style_losses=[(loss, 1.0) for loss in [*smooth, cross_layer_gram(blurred=True)]],
        content_weight=1.0, style_weight=1.0, tv_weight=0.1,
        variation=lambda image: total_variation(image) + summed_squares(image) + nine_point_variation(image),
    )  # fmt: skip
    content, style, image = (tf.constant(make_image(8, 12, seed)[None]) for seed in (1, 2, 3))
    keep = tf.constant(make_image(8, 12, 4)[None, ..., :1])
    targets = objective.targets(content, [objective.style_summary(style)], keep=keep)
    direction = tf.constant(np.random.default_rng(5).normal(size=image.shape), tf.float32)
    _, ahead = value_and_gradient(objective, image + 3e-3 * direction, targets=targets)
    _, behind = value_and_gradient(objective, image - 3e-3 * direction, targets=targets)
    with tf.GradientTape() as outer:
        outer.watch(image)
        with tf.GradientTape() as tape:
            tape.watch(image)
            total = objective(image, targets)["total"]
        slope = tape.gradient(total, image)
    product = outer.gradient(slope, image, output_gradients=direction)
    assert reference.relative_error(product, (ahead - behind) / 6e-3) < 5e-3


def identity(image):
    """An encoder with one layer, whose features are the colours of the image."""
    return {"conv1_1": image}


@pytest.mark.parametrize("kind", ["content", "style"])
def test_the_absolute_values_of_unit_gradients_add_up_to_the_weight(kind):
    weights = {"content_weight": 3.0, "style_weight": 0.0}
    if kind == "style":
        weights = {"content_weight": 0.0, "style_weight": 3.0}
    content, style, image = (make_image(6, 7, s)[None] for s in (1, 2, 3))
    gradients = []
    for unit in (True, False):
        objective = Objective(
            identity,
            {"conv1_1": 1.0},
            style_layers={"conv1_1": 1.0},
            normalization=paper_normalization,
            unit_gradients=unit,
            **weights,
        )
        targets = objective.targets(content, [objective.style_summary(style)])
        gradients.append(gradient(lambda x: objective(x, targets)["total"], image))  # noqa: B023
    scaled, plain = gradients
    assert np.abs(scaled).sum() == pytest.approx(3, rel=1e-4)
    assert reference.relative_error(scaled * np.abs(plain).sum() / 3, plain) < 1e-4


def test_the_loss_of_a_region_is_the_loss_of_a_cropped_image():
    """The features depend on single pixels, so that a region can be cropped without changing its features."""
    content, style, other, image = (make_image(6, 8, s)[None] for s in (1, 2, 3, 4))
    objective = Objective(
        identity,
        {"conv1_1": 1.0},
        style_layers={"conv1_1": 1.0},
        content_weight=0.0,
        style_weight=1.0,
        normalization=paper_normalization,
    )
    left = np.zeros((1, 6, 8, 1), np.float32)
    left[:, :, :2] = 4  # a quarter of the image, of mean 1
    right = (4 - left) / 3
    regions = [Region(0.25, {"conv1_1": tf.constant(left)}), Region(0.75, {"conv1_1": tf.constant(right)})]
    summaries = [objective.style_summary(s) for s in (style, other)]
    terms = objective(tf.constant(image), objective.targets(content, summaries, regions=regions))
    expected = 0.0
    for share, part, target in ((0.25, image[:, :, :2], style), (0.75, image[:, :, 2:], other)):
        expected += share * reference.style_loss(reference.gram(part[0]), reference.gram(target[0]))
    assert float(terms["style"]) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ConfigError, match=r"2 regions for 3 styles.*one for each style"):
        objective.targets(content, [*summaries, summaries[0]], regions=regions)


def test_the_region_that_is_not_changed_has_no_gradient_and_counts_as_content():
    content, style, image = (make_image(6, 8, s)[None] for s in (1, 2, 3))
    objective = Objective(
        identity,
        {"conv1_1": 1.0},
        style_layers={"conv1_1": 1.0},
        content_weight=1.0,
        style_weight=1.0,
        tv_weight=1.0,
    )
    keep = np.zeros((1, 6, 8, 1), np.float32)
    keep[:, :3] = 1
    targets = objective.targets(content, [objective.style_summary(style)], keep=tf.constant(keep))
    slopes = gradient(lambda x: objective(x, targets)["total"], image)
    assert not slopes[0, :3].any()
    assert slopes[0, 3:].all()
    mixed = np.where(keep > 0, content, image)
    assert float(objective(tf.constant(image), targets)["total"]) == pytest.approx(
        float(objective(tf.constant(mixed), targets)["total"]), rel=1e-6
    )


def test_blend_weights_must_match_the_styles(small_encoder):
    objective, image = make_objective(small_encoder, paper_normalization), make_image(8, 8)[None]
    with pytest.raises(ConfigError, match=r"0 styles.*at least one style"):
        objective.targets(image, [])
    with pytest.raises(ConfigError, match=r"2 blend weights for 1 styles.*as many"):
        objective.targets(image, [objective.style_summary(image)], blend_weights=[1, 2])


@pytest.mark.weights
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_losses_and_gradients_agree_with_another_framework(data, pooling):
    expected_numbers = np.load(data / "reference" / "tubingen_starry_night.npz")
    style_layers, content_layer = ("conv1_1", "conv2_1", "conv3_1"), "conv3_3"
    weights = data / "weights" / "vgg19_imagenet_block1-3.npz"
    encoder = Encoder((*style_layers, content_layer), weights, pooling=pooling, padding="zeros")
    content, style, generated = (
        tf.constant(expected_numbers[name][None].astype(np.float32) / 255)
        for name in ("content", "style", "generated")
    )
    targets = encoder(style)
    for layer in style_layers:
        gram = gram_matrix(targets[layer])[0, :64, :64]
        expected_gram = expected_numbers[f"{pooling}/gram/{layer}"]  # of some layers the first 64 channels
        gram = gram if expected_gram.shape[0] == 64 else gram_matrix(targets[layer])[0]
        assert reference.relative_error(gram, expected_gram) < 1e-4
        loss = style_loss(gram_matrix(encoder(generated)[layer]), gram_matrix(targets[layer]))
        expected_loss = float(expected_numbers[f"{pooling}/style_loss/{layer}"])
        assert float(loss) == pytest.approx(expected_loss, rel=1e-4)

    for kind in ("content", "style"):
        shares = dict.fromkeys(style_layers, 1 / 3)
        objective = Objective(
            encoder.features, {content_layer: 1.0}, style_layers=shares,
            content_weight=float(kind == "content"), style_weight=float(kind == "style"),
            normalization=paper_normalization,
        )  # fmt: skip
        objective_targets = objective.targets(content, [objective.style_summary(style)])
        name = "content_loss/conv3_3" if kind == "content" else "style_loss"
        expected = float(expected_numbers[f"{pooling}/{name}"])
        assert float(objective(generated, objective_targets)["total"]) == pytest.approx(expected, rel=1e-4)
        slopes = gradient(lambda x: objective(x, objective_targets)["total"], generated)  # noqa: B023
        expected_slopes = expected_numbers[f"{pooling}/{kind}_gradient"]
        assert reference.relative_error(slopes[0, ::8, ::8], expected_slopes) < 1e-3


def test_border_weight_multiplies_the_content_loss_of_the_outermost_positions():
    generator = np.random.default_rng(0)
    content, image = generator.random((2, 1, 6, 5, 3)).astype(np.float32)
    objective = Objective(
        lambda image: {"conv1_1": image},
        {"conv1_1": 1.0},
        style_layers={},
        content_weight=1.0,
        style_weight=0.0,
        normalization=paper_normalization,
        border_weight=4.0,
    )
    weights = np.full((1, 6, 5, 1), 4.0)
    weights[:, 1:-1, 1:-1] = 1
    expected = 0.5 * np.sum(weights * (image.astype(np.float64) - content) ** 2)
    terms = objective(tf.constant(image), objective.targets(tf.constant(content), [{}]))
    assert float(terms["content"]) == pytest.approx(expected, rel=1e-5)

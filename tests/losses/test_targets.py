"""The targets of the objective and of the scales of a run, against slow NumPy features and Gram matrices."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests import reference
from tests.conftest import make_image
from tfstyle import Encoder, Masks, Objective, Style, StyleConfig
from tfstyle.errors import ConfigError, ImageError
from tfstyle.images import ImageArray
from tfstyle.layers import find_layer
from tfstyle.losses import (
    GRAM,
    MEAN_DEVIATION,
    Region,
    Targets,
    cross_layer_gram,
    restore_kept,
    shares,
    windowed_gram,
)
from tfstyle.network import network_input
from tfstyle.run import Layout, ScaleTargets, make_setup, plan_scales, read_inputs
from tfstyle.tiling import TiledObjective

CONTENT_LAYER, STYLE_LAYERS = "conv2_2", ("conv1_1", "conv2_1")
#: Layer -> its position in the list that `reference.features` returns.
INDEX = {"conv1_1": 0, "conv1_2": 1, "conv2_1": 2, "conv2_2": 3}
CONFIG = StyleConfig(
    size=16,
    min_scale=8,
    precision="float32",
    compile="eager",
    content_layers=(CONTENT_LAYER,),
    style_layers=STYLE_LAYERS,
    style_losses=("gram",),
)


@pytest.fixture
def slow_features(small_weights):
    """A function that computes layer -> features [h, w, N] of an image by slow loops."""

    def compute(image):
        features = reference.features(image, small_weights.arrays, 4, "avg", "reflect")
        return {layer: features[index] for layer, index in INDEX.items()}

    return compute


@pytest.fixture
def objective(small_encoder):
    return make_objective(small_encoder)


def make_objective(encoder, **options):
    settings = {
        "style_layers": {"conv1_1": 0.5, "conv2_1": 0.5},
        "content_weight": 1.0,
        "style_weight": 1.0,
        **options,
    }
    return Objective(encoder.features, {CONTENT_LAYER: 1.0}, **settings)


def guided_gram(features, mask):
    """Return the Gram matrix of features T ∘ F, summed over the positions and divided by Σ T²."""
    guided = features * mask[..., None].astype(np.float64)
    positions = mask.shape[0] * mask.shape[1]
    return reference.gram(guided) * positions / np.square(mask, dtype=np.float64).sum()


def halve(mask):
    """Return the means of 2 x 2 blocks of a mask with even sides."""
    height, width = mask.shape
    return mask.reshape(height // 2, 2, width // 2, 2).mean((1, 3))


def left_half(height, width):
    mask = np.zeros((height, width), np.float32)
    mask[:, : width // 2] = 1
    return mask


# The targets of an objective


@pytest.mark.parametrize("shape", [(8, 12), (10, 6)])
def test_targets_are_the_features_and_the_gram_matrices(objective, slow_features, shape):
    content, style = make_image(*shape, seed=1), make_image(6, 10, seed=2)
    targets = objective.targets(content[None], [objective.style_summary(style[None])])
    expected = slow_features(content)[CONTENT_LAYER]
    assert list(targets.content) == [CONTENT_LAYER]
    assert targets.content[CONTENT_LAYER].shape == (1, shape[0] // 2, shape[1] // 2, 128)
    assert reference.relative_error(targets.content[CONTENT_LAYER][0], expected) < 1e-5
    (whole_image,) = targets.styles
    assert list(whole_image) == list(STYLE_LAYERS)
    for layer, features in slow_features(style).items():
        if layer in STYLE_LAYERS:
            (gram,) = whole_image[layer]
            assert gram.shape == (1, features.shape[-1], features.shape[-1])
            assert reference.relative_error(gram[0], reference.gram(features)) < 1e-5
    assert targets.weights == ()
    assert targets.kept_region == ()


def test_each_style_loss_has_its_own_target(small_encoder, slow_features):
    objective = make_objective(small_encoder, style_losses=((GRAM, 1.0), (MEAN_DEVIATION, 2.0)))
    style = make_image(6, 10, seed=2)
    summaries = objective.style_summary(style[None])
    for layer in STYLE_LAYERS:
        features = slow_features(style)[layer]
        gram, (mean, mean_square) = summaries[layer]
        assert reference.relative_error(gram[0], reference.gram(features)) < 1e-5
        assert reference.relative_error(mean[0], features.mean((0, 1))) < 1e-5
        assert reference.relative_error(mean_square[0], (features**2).mean((0, 1))) < 1e-5


def test_position_weights_give_guided_gram_matrices(objective, slow_features):
    style = make_image(6, 10, seed=2)
    mask = np.random.default_rng(0).uniform(0, 1, (6, 10)).astype(np.float32)
    masks = {"conv1_1": mask, "conv2_1": halve(mask)}
    weights = {
        layer: tf.constant((m**2 / (m**2).mean())[None, :, :, None], tf.float32) for layer, m in masks.items()
    }
    summaries = objective.style_summary(style[None], weights)
    for layer, m in masks.items():
        expected = guided_gram(slow_features(style)[layer], m)
        assert reference.relative_error(summaries[layer][0][0], expected) < 1e-5


def test_scales_normalize_the_losses_of_each_region(objective, slow_features):
    """Balanced: the content loss is divided by ½ Σ P² and the style loss by 1/(4 N²) Σ A²."""
    content, *styles = (make_image(8, 12, seed=seed) for seed in (1, 2, 3))
    ones = {"conv1_1": tf.ones([1, 8, 12, 1]), "conv2_1": tf.ones([1, 4, 6, 1])}
    targets = objective.targets(
        content[None],
        [objective.style_summary(style[None]) for style in styles],
        regions=[Region(0.25, ones), Region(0.75, ones)],
    )
    energy = reference.content_loss(slow_features(content)[CONTENT_LAYER], np.zeros(()))
    assert float(targets.content_scale[CONTENT_LAYER]) == pytest.approx(1 / energy, rel=1e-4)
    for style, share, scales in zip(styles, (0.25, 0.75), targets.style_scales, strict=True):
        for layer in STYLE_LAYERS:
            gram = reference.gram(slow_features(style)[layer])
            expected = share / reference.style_loss(gram, np.zeros_like(gram))
            assert float(scales[layer][0]) == pytest.approx(expected, rel=1e-4)


def test_several_regions_have_separate_targets_and_one_region_has_the_blend(objective, slow_features):
    content, *styles = (make_image(6, 8, seed=seed) for seed in (1, 2, 3))
    summaries = [objective.style_summary(style[None]) for style in styles]
    grams = [reference.gram(slow_features(style)["conv1_1"]) for style in styles]
    ones = {"conv1_1": tf.ones([1, 6, 8, 1]), "conv2_1": tf.ones([1, 3, 4, 1])}
    blend = 0.25 * grams[0] + 0.75 * grams[1]
    for regions, expected in (([], [blend]), ([1.0], [blend]), ([0.5, 0.5], grams)):
        targets = objective.targets(
            content[None],
            summaries,
            blend_weights=[1, 3],
            regions=[Region(share, ones) for share in regions],
        )
        assert len(targets.weights) == len(regions)
        assert len(targets.styles) == len(targets.style_scales) == len(expected)
        for style, gram in zip(targets.styles, expected, strict=True):
            assert reference.relative_error(style["conv1_1"][0][0], gram) < 1e-5


def test_windows_by_content_get_the_targets_of_the_nearest_windows():
    """The style is the content image with its quarters exchanged, and every feature depends on one pixel."""
    content = make_image(8, 12, seed=1)
    (a, b), (c, d) = [np.split(row, 2, axis=1) for row in np.split(content, 2, axis=0)]
    style = np.block([[[d], [c]], [[a], [b]]])
    objective = Objective(
        lambda image: {"layer": image}, {}, style_layers={"layer": 1.0}, content_weight=0.0, style_weight=1.0,
        style_losses=((windowed_gram(2, by_content=True), 1.0),),
    )  # fmt: skip
    targets = objective.targets(
        tf.constant(content[None]), [objective.style_summary(tf.constant(style[None]))]
    )
    grams, means = targets.styles[0]["layer"][0]
    for gram, mean, window in zip(grams, means, (a, b, c, d), strict=True):
        assert reference.relative_error(gram, reference.gram(window)) < 1e-5
        assert reference.relative_error(mean, window.mean((0, 1))) < 1e-5


def test_layer_features_are_those_of_the_layer_and_of_deeper_ones(small_encoder):
    """The order of the style layers is that of their sizes, not that of the dict."""
    features = {layer: np.zeros((1, size, size, 2)) for layer, size in (("c", 2), ("a", 8), ("b", 4))}
    for deeper_layers, expected in ((0, "a"), (1, "ab"), (2, "abc"), (9, "abc")):
        objective = make_objective(
            small_encoder,
            style_layers=dict.fromkeys("cab", 1.0),
            style_losses=((cross_layer_gram(deeper_layers), 1.0),) if deeper_layers else ((GRAM, 1.0),),
        )
        chosen = objective.layer_features(features, "a")
        assert [x.shape for x in chosen] == [features[layer].shape for layer in expected]


@pytest.mark.parametrize("kind", ["whole", "tiled", "model"])
@pytest.mark.parametrize("order", [("conv1_1", "conv1_2"), ("conv1_2", "conv1_1")])
def test_of_two_layers_of_one_size_the_deeper_one_is_last(small_weights, slow_features, kind, order):
    """In whatever order they are listed, the chain pairs conv1_1 with conv1_2, and conv1_2 with itself."""
    encoder = Encoder((*order, CONTENT_LAYER), small_weights)
    if kind == "model":
        names = {name: encoder.model.get_layer(find_layer(name).keras_name).output for name in order}
        model = keras.Model(encoder.model.input, names)
        keras_names = [find_layer(name).keras_name for name in order]
        encoder = Encoder.from_model(model, network_input, layers=keras_names)
        assert encoder.layers == tuple(keras_names)
        order = keras_names
    objective = Objective(
        encoder.features, {}, style_layers=dict.fromkeys(order, 0.5), content_weight=1.0, style_weight=1.0,
        style_losses=[(cross_layer_gram(), 1.0)],
    )  # fmt: skip
    image = make_image(16, 24, 1)
    maker = TiledObjective(objective, encoder, side=8, compile="eager") if kind == "tiled" else objective
    summary = maker.style_summary(image[None])
    first, second = (
        slow_features(image)[x].reshape(-1, 64).astype(np.float64) for x in ("conv1_1", "conv1_2")
    )
    for layer, left in (("conv1_1", first), ("conv1_2", second)):
        (gram,) = summary[find_layer(layer).keras_name if kind == "model" else layer][0]
        assert reference.relative_error(gram, left.T @ second / len(left)) < 1e-5


def test_images_that_are_plainly_not_in_0_1_are_refused(small_encoder):
    objective = make_objective(small_encoder)
    tiled = TiledObjective(objective, small_encoder, side=8)
    image = make_image(16, 16, 1)[None] * 255
    style = [objective.style_summary(image / 255)]
    for evaluate in (
        objective.style_summary,
        tiled.style_summary,
        lambda content: objective.targets(content, style),
        lambda content: tiled.targets(content, style),
    ):
        with pytest.raises(ImageError, match=rf"up to {image.max():g}, outside 0\.\.1; divide them by 255"):
            evaluate(image)


@pytest.mark.parametrize("option", ["content_layers", "style_layers"])
def test_layers_without_weights_are_refused(small_encoder, option):
    layers = {"content_layers": {}, "style_layers": {}, option: ["conv1_1"]}
    with pytest.raises(ConfigError, match=rf"{option} is \['conv1_1'\]; give a mapping.*shares"):
        Objective(
            small_encoder.features, layers["content_layers"], style_layers=layers["style_layers"],
            content_weight=1.0, style_weight=1.0,
        )  # fmt: skip


def test_the_region_that_is_not_changed_gets_the_content_image():
    content, image = (make_image(4, 6, seed=seed)[None] for seed in (1, 2))
    mask = np.random.default_rng(0).uniform(0, 1, (1, 4, 6, 1)).astype(np.float32)
    targets = Targets({}, (), {}, (), kept_region=(tf.constant(mask), tf.constant(content)))
    np.testing.assert_allclose(restore_kept(image, targets), (1 - mask) * image + mask * content, atol=1e-6)
    assert restore_kept(image, Targets({}, (), {}, ())) is image


@pytest.mark.parametrize(("weights", "expected"), [(None, [1 / 3] * 3), ([1, 2, 5], [1 / 8, 1 / 4, 5 / 8])])
def test_shares_add_up_to_1(weights, expected):
    layers = shares(["conv1_1", "conv2_1", "conv3_1"], weights)
    assert list(layers) == ["conv1_1", "conv2_1", "conv3_1"]
    assert list(layers.values()) == pytest.approx(expected)
    assert sum(layers.values()) == pytest.approx(1)


# The targets of the scales of a run


@pytest.fixture
def compute(small_encoder):
    """A function that computes the targets of a run, as pairs of a scale and its targets."""

    def compute_targets(content, style, *, masks=None, **options):
        config = CONFIG.replace(options)
        inputs = read_inputs(content, style, config, masks=masks)
        setup = make_setup(config, "/CPU:0", encoder=small_encoder)
        scales = plan_scales(inputs.shape, config, minimum=4)
        targets = ScaleTargets(inputs, setup)
        return [(scale, targets.compute(scale, Layout())) for scale in scales]

    return compute_targets


def test_each_scale_has_the_targets_of_images_of_its_size(compute, slow_features):
    content, style = make_image(12, 16, seed=1), make_image(16, 14, seed=2)
    targets_of_scales = compute(content, style)
    assert [scale.shape for scale, _ in targets_of_scales] == [(6, 8), (12, 16)]
    for (scale, targets), style_shape in zip(targets_of_scales, ((8, 7), (16, 14)), strict=True):
        features = slow_features(ImageArray(content).resized(scale.shape).rgb)
        assert reference.relative_error(targets.content[CONTENT_LAYER][0], features[CONTENT_LAYER]) < 1e-5
        # The losses at the border have a greater weight.
        root = np.full((*features[CONTENT_LAYER].shape[:2], 1), CONFIG.border_weight**0.5)
        root[1:-1, 1:-1] = 1
        assert reference.relative_error(targets.content_weights[CONTENT_LAYER][0], root) < 1e-6
        style_features = slow_features(ImageArray(style).resized(style_shape).rgb)
        (whole_image,) = targets.styles
        for layer in STYLE_LAYERS:
            expected = reference.gram(style_features[layer])
            assert reference.relative_error(whole_image[layer][0][0], expected) < 1e-5
        assert targets.weights == ()
        assert targets.kept_region == ()


def test_several_styles_are_blended(compute, slow_features):
    content, *styles = (make_image(12, 16, seed=seed) for seed in (1, 2, 3))
    [(_, targets)] = compute(content, styles, style_blend=(1.0, 3.0), scales=1)
    for layer in STYLE_LAYERS:
        grams = [reference.gram(slow_features(style)[layer]) for style in styles]
        (blend,) = targets.styles[0][layer]
        assert reference.relative_error(blend[0], 0.25 * grams[0] + 0.75 * grams[1]) < 1e-5


def test_transparent_pixels_of_a_style_image_are_white(compute, slow_features):
    content, style = make_image(12, 16, seed=1), make_image(12, 16, seed=2)
    visible = left_half(12, 16)
    pixels = np.concatenate([style, visible[..., None]], -1)
    [(_, targets)] = compute(content, pixels, scales=1)
    features = slow_features(np.where(visible[..., None] > 0, style, 1))
    for layer in STYLE_LAYERS:
        expected = reference.gram(features[layer])
        assert reference.relative_error(targets.styles[0][layer][0][0], expected) < 1e-5


@pytest.mark.parametrize("blend", [None, (1.0, 2.0)])
def test_masks_of_the_content_image_become_regions(compute, slow_features, blend):
    """The masks cover 1/4 and 3/4 of the image, and a blend weight multiplies the area of its region."""
    content, *styles = (make_image(12, 16, seed=seed) for seed in (1, 2, 3))
    left = np.zeros((12, 16), np.float32)
    left[:, :4] = 1
    masks = [left, 1 - left]
    targets_of_scales = compute(content, styles, masks=masks, style_blend=blend)
    areas = np.array([0.25, 0.75]) * (blend or (1.0, 1.0))
    targets = targets_of_scales[-1][1]
    for index, (style, mask) in enumerate(zip(styles, masks, strict=True)):
        for layer, at_layer in (("conv1_1", mask), ("conv2_1", halve(mask))):
            weight = targets.weights[index][layer][0, ..., 0].numpy()
            np.testing.assert_allclose(weight, at_layer**2 / (at_layer**2).mean(), rtol=1e-5)
            gram = reference.gram(slow_features(style)[layer])
            assert reference.relative_error(targets.styles[index][layer][0][0], gram) < 1e-5
            scale = areas[index] / areas.sum() / reference.style_loss(gram, np.zeros_like(gram))
            assert float(targets.style_scales[index][layer][0]) == pytest.approx(scale, rel=1e-4)
    coarse, targets = targets_of_scales[0]
    assert coarse.shape == (6, 8)
    weight = targets.weights[0]["conv1_1"][0, ..., 0].numpy()
    # The region is a quarter of the image, so that weights of 4 have the mean 1.
    np.testing.assert_allclose(weight, 4 * halve(left), rtol=1e-5)


def test_masks_of_the_style_images_select_their_regions(compute, slow_features):
    content, style = make_image(12, 16, seed=1), make_image(12, 16, seed=2)
    mask = np.random.default_rng(0).uniform(0, 1, (12, 16)).astype(np.float32)
    [(_, targets)] = compute(content, style, masks=Masks(styles=[mask]), scales=1)
    features = slow_features(style)
    for layer, at_layer in (("conv1_1", mask), ("conv2_1", halve(mask))):
        expected = guided_gram(features[layer], at_layer)
        assert reference.relative_error(targets.styles[0][layer][0][0], expected) < 1e-5
    assert targets.weights == ()


def test_the_content_mask_is_excluded_from_the_regions(compute):
    """Without other masks, the region of the style is all that lies outside the content mask."""
    content, style = make_image(12, 16, seed=1), make_image(12, 16, seed=2)
    keep = left_half(12, 16)
    [(_, targets)] = compute(content, style, masks=Masks(keep=keep), scales=1)
    mask, image = targets.kept_region
    np.testing.assert_array_equal(mask[0, ..., 0], keep)
    np.testing.assert_allclose(image[0], content, atol=1e-6)
    (weights,) = targets.weights
    np.testing.assert_allclose(weights["conv1_1"][0, ..., 0], 2 * (1 - keep), rtol=1e-5)

    top = np.zeros((12, 16), np.float32)
    top[:6] = 1
    [(_, targets)] = compute(content, [style, style], masks=Masks([top, 1 - top], keep=keep), scales=1)
    upper_right = top * (1 - keep)  # a quarter of the image
    np.testing.assert_allclose(targets.weights[0]["conv1_1"][0, ..., 0], 4 * upper_right, rtol=1e-5)


def test_an_extracted_style_is_its_own_target(compute):
    """A run at half of the size uses the Gram matrices of the second level."""
    generator = np.random.default_rng(0)
    levels = [
        {"conv1_1": generator.normal(size=(64, 64)).astype("f4"),
         "conv2_1": generator.normal(size=(128, 128)).astype("f4")}
        for _ in range(2)
    ]  # fmt: skip
    style = Style(levels, {}, size=16, original_size=16)
    targets_of_scales = compute(make_image(12, 16, seed=1), style)
    for (_, targets), level in zip(targets_of_scales, reversed(levels), strict=True):
        for layer in STYLE_LAYERS:
            np.testing.assert_array_equal(targets.styles[0][layer][0][0], level[layer])


def test_files_and_arrays_give_the_same_targets(compute, tmp_path):
    content, style = ((make_image(12, 16, seed=seed) * 255).round().astype(np.uint8) for seed in (1, 2))
    for name, pixels in (("content", content), ("style", style)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    [(_, from_arrays)] = compute(content, style, scales=1)
    [(_, from_files)] = compute(tmp_path / "content.png", tmp_path / "style.png", scales=1)
    for expected, tensor in zip(tf.nest.flatten(from_arrays), tf.nest.flatten(from_files), strict=True):
        np.testing.assert_allclose(tensor, expected, rtol=1e-5, atol=1e-5)

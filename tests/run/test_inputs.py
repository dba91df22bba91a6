"""Tests of the inputs of a run: sizes, colours, masks, initial images, and the targets of each scale."""

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_image
from tfstyle import Encoder, Masks, StyleConfig
from tfstyle.errors import ConfigError, ImageError
from tfstyle.images import load, resize
from tfstyle.run import Layout, ScaleTargets, fit_to_size, make_setup, plan_scales, read_inputs
from tfstyle.run.setup import measured_side

LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}
CONFIG = StyleConfig(size=32, min_scale=16, precision="float32", compile="eager", **LAYERS)


@pytest.fixture
def setup(small_weights):
    encoder = Encoder(("conv1_1", "conv2_1"), small_weights)
    return make_setup(CONFIG, "/CPU:0", encoder=encoder)


@pytest.mark.parametrize(("size_of", "expected"), [("longest", 40.0), ("shortest", 10.0), ("area", 20.0)])
def test_size_of_selects_the_measured_side(size_of, expected):
    config = StyleConfig(size_of=size_of)
    assert measured_side((10, 40), config) == measured_side((40, 10, 3), config) == expected


def test_images_are_resized_to_the_size_of_the_run(content, style):
    inputs = read_inputs(content, style, CONFIG)
    assert inputs.shape == inputs.content.rgb.shape[:2] == (23, 32)  # 40 x 56 with 32 on its longest side
    assert inputs.original is inputs.content
    assert max(inputs.styles[0].rgb.shape) == 32
    assert np.array_equal(inputs.content_at(inputs.shape), inputs.content.rgb)
    assert np.array_equal(inputs.start_image((12, 16)), inputs.content_at((12, 16)))


def test_an_image_is_enlarged_only_with_enlarge(content):
    image = read_inputs(content, content, CONFIG).content
    assert fit_to_size(image, CONFIG.replace(size=64)) is image
    assert fit_to_size(image, CONFIG.replace(size=64, enlarge=True)).rgb.shape == (46, 64, 3)
    assert fit_to_size(image, CONFIG, size=16).rgb.shape[1] == 16


def test_color_luminance_compares_luminance_and_restores_the_original_colours(content, style):
    inputs = read_inputs(content, style, CONFIG.replace(color="luminance"))
    assert np.ptp(inputs.content.rgb, axis=-1).max() == 0
    assert np.ptp(inputs.original.rgb, axis=-1).max() > 0.1
    finished = inputs.finish(inputs.content.rgb)  # the content image's own luminance gives the content image
    np.testing.assert_allclose(finished, inputs.original.rgb, atol=1e-5)


def test_finish_restores_the_content_image_in_the_region_of_content_mask(content, style):
    keep = np.zeros(content.shape[:2], np.float32)
    keep[:, :20] = 1
    inputs = read_inputs(content, style, CONFIG, masks=Masks(keep=keep))
    finished = inputs.finish(np.full_like(inputs.content.rgb, 0.5))
    width = inputs.shape[1]
    quarter = slice(0, width // 4)
    np.testing.assert_allclose(finished[:, quarter], inputs.original.rgb[:, quarter], atol=1e-6)
    assert (finished[:, -width // 4 :] == 0.5).all()


# Initial images. The shape is large, so that the statistics of random pixels are close to those of their law.

SHAPE = (96, 128)
IMAGENET_RGB = np.array([123.68, 116.779, 103.939]) / 255


@pytest.fixture
def initial(content, style):
    """A function that returns the initial image of a run, made with other options."""

    def make_initial(**options):
        return read_inputs(content, style, CONFIG.replace(options)).start_image(SHAPE)

    return make_initial


def assert_statistics(image, mean, deviation):
    """Assert the mean and the standard deviation of each channel, to five standard errors."""
    assert image.shape == (*SHAPE, 3)
    assert image.dtype == np.float32
    image = image.astype(np.float64)  # for an exact sum
    error = 5 * np.broadcast_to(deviation, 3) / np.sqrt(SHAPE[0] * SHAPE[1])
    assert (np.abs(image.mean((0, 1)) - mean) <= error + 1e-6).all()
    assert (np.abs(image.std((0, 1)) - deviation) <= error + 1e-6).all()


@pytest.mark.parametrize(
    ("options", "mean", "deviation"),
    [
        ({"init": "noise", "init_noise": 0.1}, 0.5, 0.1),
        ({"init": "noise", "init_noise": 2.0, "clamp": False}, 0.5, 2.0),
        ({"init": "mean", "init_noise": 0.05}, IMAGENET_RGB, 0.05),
        ({"init": "mean", "init_noise": 0.0, "pixel_range": 256.0}, IMAGENET_RGB * 255 / 256, 0.0),
        ({"init": "uniform"}, 0.5, 12**-0.5),
        ({"init": "grey"}, 0.5, 0.0),
    ],
    ids=str,
)
def test_the_statistics_of_initial_images(initial, options, mean, deviation):
    assert_statistics(initial(**options), mean, deviation)


def test_the_init_style_stats_has_the_statistics_of_the_style_image(initial, style):
    resized = resize(style, (32, 29))  # 44 * 32 / 48 = 29.3
    image = initial(init="style_stats", clamp=False)
    assert_statistics(image, resized.mean((0, 1)), resized.std((0, 1)))


def test_the_statistics_of_a_large_style_image_are_exact(content):
    """Sums in float32 over its millions of pixels would be wrong in the second digit."""
    style = np.full((2000, 2000, 3), 0.4, np.float32)
    config = CONFIG.replace({"init": "style_stats", "style_size": (2000,)})
    image = read_inputs(content, style, config).start_image(SHAPE)
    assert np.abs(image - 0.4).max() < 1e-6


@pytest.mark.parametrize("init", ["noise", "mean", "uniform", "style_stats"])
def test_random_initial_images_depend_on_the_seed_and_not_on_neighbours(initial, init):
    image = initial(init=init, seed=1)
    assert np.array_equal(image, initial(init=init, seed=1))
    assert not np.array_equal(image, initial(init=init, seed=2))
    for a, b in ((image[1:], image[:-1]), (image[:, 1:], image[:, :-1]), (image[..., 0], image[..., 1])):
        correlation = np.corrcoef((a - a.mean((0, 1))).ravel(), (b - b.mean((0, 1))).ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(a.size)


def test_with_clamp_initial_images_are_in_the_range(initial):
    image, unclamped = (initial(init="noise", init_noise=1.0, clamp=clamp) for clamp in (True, False))
    assert (image.min(), image.max()) == (0, 1)
    assert unclamped.min() < -1
    assert unclamped.max() > 2
    assert np.array_equal(image, np.clip(unclamped, 0, 1))


def test_initial_images_from_images_are_resized(initial, content, style, files):
    transparent = np.concatenate([style, np.zeros_like(style[..., :1])], -1)
    small_content = resize(content, (23, 32))
    assert np.array_equal(initial(init="content"), resize(small_content, SHAPE))
    assert np.array_equal(initial(init="style"), resize(resize(style, (32, 29)), SHAPE))
    written = load(files / "style.png").rgb
    assert np.array_equal(initial(init=str(files / "style.png")), resize(written, SHAPE))
    on_white = read_inputs(content, transparent, CONFIG.replace(init="style")).start_image(SHAPE)
    assert (on_white == 1).all()


# Sizes of style images, masks and digests


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({}, [(32, 29), (16, 32)]),  # 44 * 32 / 48 = 29.3
        ({"style_scale": (0.5,)}, [(16, 15), (8, 16)]),
        ({"style_scale": (0.5, 0.75)}, [(16, 15), (12, 24)]),
        ({"style_size": (20, 30)}, [(20, 18), (15, 30)]),
        ({"style_size": (100,)}, [(48, 44), (30, 60)]),
        ({"style_size": (96,), "enlarge": True}, [(96, 88), (48, 96)]),
        # The content image has 14 x 20 pixels, and the shorter sides of the style images get 14.
        ({"size": 14, "size_of": "shortest"}, [(15, 14), (14, 28)]),
    ],
    ids=str,
)
def test_sizes_of_style_images(content, style, options, shapes):
    inputs = read_inputs(content, [style, make_image(30, 60)], CONFIG.replace(options))
    assert [image.rgb.shape[:2] for image in inputs.styles] == shapes


def test_masks_are_resized_to_their_images(content, style):
    left = np.zeros((10, 14), np.float32)
    left[:, :7] = 1
    masks = Masks(content=[left, 1 - left], styles=[left, np.ones((3, 3), np.float32)], keep=left)
    inputs = read_inputs(content, [style, style], CONFIG, masks=masks)
    assert [region.shape for region in (*inputs.regions, inputs.keep)] == [(23, 32)] * 3
    assert [region.shape for region in inputs.style_regions] == [(32, 29)] * 2
    np.testing.assert_allclose(sum(inputs.regions), 1, atol=1e-5)
    np.testing.assert_array_equal(inputs.keep, inputs.regions[0])
    np.testing.assert_allclose(inputs.keep.mean(), 0.5, atol=0.02)


def test_digests_are_those_of_the_values_before_resizing(content, style):
    def digests(content, style, **options):
        keep = np.eye(40, 56, dtype=np.float32)
        config = CONFIG.replace(options)
        return read_inputs(content, style, config, masks=Masks(keep=keep), digests=True).digests

    original = digests(content, style)
    assert set(original) == {"the content image", "style image 1", "content_mask"}
    assert digests(content, style, size=16, color="luminance") == original
    changed = style.copy()
    changed[0, 0, 0] += 1 / 255
    different = {name for name, value in digests(content, changed).items() if value != original[name]}
    assert different == {"style image 1"}
    assert not read_inputs(content, style, CONFIG).digests


def test_images_that_are_too_small_for_the_encoder_are_refused(content, style, setup):
    """The minimum of conv2_1 is 2 pixels, and with a reflected border 4."""
    read_inputs(content, style, CONFIG).check(setup)
    minimum = setup.encoder.minimum_size
    for images, name in (
        ((make_image(1, 32), style), "content"),
        ((content, make_image(32, 1)), "style"),
    ):
        with pytest.raises(ImageError, match=rf"{name} image.*\b1\b.*at least {minimum} pixels.*larger size"):
            read_inputs(*images, CONFIG).check(setup)


def test_an_init_that_is_neither_a_name_nor_a_file_is_refused(content, style):
    with pytest.raises(ConfigError, match=r"\binit\b.*'nois'.*content, noise.*file"):
        read_inputs(content, style, CONFIG.replace(init="nois"))


def test_numbers_of_options_must_match_the_number_of_styles(content, style):
    for option, values in (
        ("style_blend", (1.0,)),
        ("style_scale", (1.0, 1.0, 1.0)),
        ("style_size", (20,) * 3),
    ):
        with pytest.raises(ConfigError, match=rf"{option}\b.*\b{len(values)} numbers.*style images is 2; "):
            read_inputs(content, [style, style], CONFIG.replace({option: values}))
    with pytest.raises(ConfigError, match=r"no style image.*at least one"):
        read_inputs(content, [], CONFIG)


def test_targets_are_those_of_images_resized_to_the_scale(content, style, setup):
    """They are compared with the objective's targets for images that are resized here."""
    inputs = read_inputs(content, style, CONFIG)
    targets = ScaleTargets(inputs, setup)
    scales = plan_scales(inputs.shape, CONFIG, minimum=4)
    assert [scale.factor for scale in scales] == [0.5, 1.0]
    for scale in scales:
        computed = targets.compute(scale, Layout())
        image = tf.constant(inputs.content.resized(scale.shape).rgb[None])
        style_image = tf.constant(inputs.styles[0].shrunk(scale.factor).rgb[None])
        expected = setup.objective.targets(image, [setup.objective.style_summary(style_image)])
        for tensor, reference in zip(tf.nest.flatten(computed), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(tensor, reference, rtol=1e-4, atol=1e-4)
        assert targets.style_shapes(scale)[0] == style_image.shape[1:3]
    assert len(setup.style_summaries) == 2  # one for each scale


def test_style_summaries_are_cached_unless_they_depend_on_the_content_image(content, style, setup):
    for color, cached in (("style", 1), ("transport", 0)):
        fresh = setup.for_other_styles()
        config = CONFIG.replace(color=color, scales=1)
        inputs = read_inputs(content, make_image(40, 40, seed=5), config)
        (scale,) = plan_scales(inputs.shape, config, minimum=4)
        ScaleTargets(inputs, fresh).compute(scale, Layout())
        assert len(fresh.style_summaries) == cached

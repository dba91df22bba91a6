"""What a run reads, at the size of the run, and the targets that each scale gets from it."""

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_picture
from tfstyle import Encoder, Masks, StyleConfig
from tfstyle.errors import ConfigError
from tfstyle.run import Layout, ScaleTargets, fit_to_size, make_setup, plan_scales, read_inputs
from tfstyle.run.setup import measured_side

LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}
CONFIG = StyleConfig(size=32, min_scale=16, precision="float32", compile="eager", **LAYERS)


@pytest.fixture
def setup(small_weights):
    encoder = Encoder(("conv1_1", "conv2_1"), small_weights)
    return make_setup(CONFIG, "/CPU:0", encoder=encoder)


@pytest.mark.parametrize(("size_of", "expected"), [("longest", 40.0), ("shortest", 10.0), ("area", 20.0)])
def test_the_side_that_size_sets(size_of, expected):
    config = StyleConfig(size_of=size_of)
    assert measured_side((10, 40), config) == measured_side((40, 10, 3), config) == expected


def test_images_are_brought_to_the_size_of_the_run_once(content, style):
    inputs = read_inputs(content, style, CONFIG)
    assert inputs.shape == inputs.content.rgb.shape[:2] == (23, 32)  # 40 x 56 with 32 on its longest side
    assert inputs.original is inputs.content
    assert max(inputs.styles[0].rgb.shape) == 32
    assert np.array_equal(inputs.content_at(inputs.shape), inputs.content.rgb)
    assert np.array_equal(inputs.start_image((12, 16)), inputs.content_at((12, 16)))


def test_an_image_is_enlarged_only_if_asked_to(content):
    image = read_inputs(content, content, CONFIG).content
    assert fit_to_size(image, CONFIG.replace(size=64)) is image
    assert fit_to_size(image, CONFIG.replace(size=64, enlarge=True)).rgb.shape == (46, 64, 3)
    assert fit_to_size(image, CONFIG, size=16).rgb.shape[1] == 16


def test_only_the_luminance_is_seen_and_the_original_is_kept(content, style):
    inputs = read_inputs(content, style, CONFIG.replace(color="luminance"))
    assert np.ptp(inputs.content.rgb, axis=-1).max() == 0
    assert np.ptp(inputs.original.rgb, axis=-1).max() > 0.1
    finished = inputs.finish(inputs.content.rgb)  # its luminance with the original's colours: the original
    np.testing.assert_allclose(finished, inputs.original.rgb, atol=1e-5)


def test_what_is_kept_stays_as_it_was(content, style):
    keep = np.zeros(content.shape[:2], np.float32)
    keep[:, :20] = 1
    inputs = read_inputs(content, style, CONFIG, masks=Masks(keep=keep))
    finished = inputs.finish(np.full_like(inputs.content.rgb, 0.5))
    width = inputs.shape[1]
    quarter = slice(0, width // 4)
    np.testing.assert_allclose(finished[:, quarter], inputs.original.rgb[:, quarter], atol=1e-6)
    assert (finished[:, -width // 4 :] == 0.5).all()


def test_a_start_that_is_neither_a_name_nor_a_file_is_told_the_names(content, style):
    with pytest.raises(ConfigError, match=r"init is 'nois'; it can be content, noise, .*, or an image file"):
        read_inputs(content, style, CONFIG.replace(init="nois"))


def test_numbers_that_do_not_go_with_the_styles_are_refused(content, style):
    for changes in ({"style_blend": (1.0,)}, {"style_scale": (1.0, 1.0, 1.0)}, {"style_size": (20, 20, 20)}):
        with pytest.raises(ConfigError, match="numbers for 2 style images"):
            read_inputs(content, [style, style], CONFIG.replace(changes))
    with pytest.raises(ConfigError, match="no style image"):
        read_inputs(content, [], CONFIG)


def test_targets_are_those_of_images_of_the_scales_size(content, style, setup):
    """Against the objective asked directly, with the images shrunk by hand."""
    inputs = read_inputs(content, style, CONFIG)
    targets = ScaleTargets(inputs, setup)
    scales = plan_scales(inputs.shape, CONFIG, minimum=4)
    assert [scale.factor for scale in scales] == [0.5, 1.0]
    for scale in scales:
        computed = targets.compute(scale, Layout())
        image = tf.constant(inputs.content.resized(scale.shape).rgb[None])
        style_image = tf.constant(inputs.styles[0].shrunk(scale.factor).rgb[None])
        expected = setup.objective.targets(image, [setup.objective.style_summary(style_image)])
        for one, other in zip(tf.nest.flatten(computed), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        assert targets.style_shapes(scale)[0] == style_image.shape[1:3]
    assert len(setup.style_summaries) == 2  # one for each scale


def test_a_style_is_encoded_again_where_it_depends_on_the_content(content, style, setup):
    for color, cached in (("style", 1), ("transport", 0)):
        fresh = setup.for_other_styles()
        config = CONFIG.replace(color=color, scales=1)
        inputs = read_inputs(content, make_picture(40, 40, seed=5), config)
        (scale,) = plan_scales(inputs.shape, config, minimum=4)
        ScaleTargets(inputs, fresh).compute(scale, Layout())
        assert len(fresh.style_summaries) == cached

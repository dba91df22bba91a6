"""What the options of a run name: its scales, its layers, its optimiser and its steps."""

import pytest
import tensorflow as tf

from tfstyle import Encoder
from tfstyle.config import StyleConfig
from tfstyle.network import weights
from tfstyle.run import choose_layers, make_setup, plan_scales, scale_shapes


@pytest.mark.parametrize(
    ("full", "scales", "minimum", "expected"),
    [
        ((384, 512), None, 32, [(96, 128), (192, 256), (384, 512)]),
        ((384, 512), 1, 32, [(384, 512)]),
        ((384, 512), 2, 32, [(192, 256), (384, 512)]),
        ((60, 512), None, 16, [(30, 256), (60, 512)]),  # 15 pixels are too few
        ((100, 100), None, 16, [(100, 100)]),
        ((181, 181), None, 16, [(181, 181)]),
        ((182, 182), None, 16, [(91, 91), (182, 182)]),
        ((16, 16), 9, 16, [(16, 16)]),
    ],
)
def test_scales(full, scales, minimum, expected):
    assert scale_shapes(full, StyleConfig(scales=scales), minimum=minimum) == expected


def test_the_embedded_weights_have_layers_of_their_own(caplog):
    loaded = weights.load_weights("embedded")
    caplog.clear()
    content, style = choose_layers(StyleConfig(), loaded)
    assert content == ("conv3_3",)
    assert style == ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_4")
    assert not caplog.records  # their notice has been given
    chosen = choose_layers(StyleConfig(style_layers=("conv2_1",), content_layers=("conv3_1",)), loaded)
    assert chosen == (("conv3_1",), ("conv2_1",))


def test_a_scale_knows_its_size_its_factor_and_its_iterations():
    config = StyleConfig(scales=3, iterations=10, first_iterations=80, iteration_decay=4.0)
    scales = plan_scales((300, 400), config, minimum=16)
    assert [scale.number for scale in scales] == [1, 2, 3]
    assert [scale.shape for scale in scales] == [(75, 100), (150, 200), (300, 400)]
    assert [scale.factor for scale in scales] == [0.25, 0.5, 1.0]
    assert [scale.iterations for scale in scales] == [80, 20, 10]


@pytest.fixture
def setup(small_weights):
    encoder = Encoder(("conv1_1", "conv2_1"), small_weights)
    config = StyleConfig(content_layers=("conv2_1",), style_layers=("conv1_1",), lbfgs_history=7)
    return make_setup(config, "/CPU:0", encoder=encoder)


@pytest.mark.parametrize(
    ("iterations", "limit", "pause_every", "expected"),
    [([100], None, 0, 1), ([100, 40], 10, 0, 10), ([100, 36], 10, 0, 4), ([100], 10, 15, 5), ([7], 10, 0, 7)],
)
def test_the_iterations_of_a_call_divide_all_others(setup, iterations, limit, pause_every, expected):
    per_call, step = setup.step(iterations, limit, pause_every=pause_every)
    assert per_call == expected
    assert setup.step(iterations, limit, pause_every=pause_every)[1] is step  # compiled once


def test_l_bfgs_with_other_curvature_pairs(setup):
    state = setup.optimizer_with(3).init(tf.zeros([1, 4, 4, 3]))
    assert len(state.s) == len(state.y) == 3
    assert setup.optimizer_with(None) is setup.optimizer_with(7) is setup.optimizer
    assert setup.optimizer_with(3) is setup.optimizer_with(3)


def test_other_styles_share_the_steps_but_no_summaries(setup):
    setup.style_summaries["a style"] = {}
    _, step = setup.step([10], 1)
    other = setup.for_other_styles()
    assert not other.style_summaries
    assert other.step([10], 1)[1] is step
    assert other.encoder is setup.encoder

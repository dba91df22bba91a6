"""Tests of the scales of a run, their iterations, and their layouts: whole images or tiles."""

import itertools
import json
import re

import numpy as np
import pytest

from tests.conftest import make_image
from tfstyle import Encoder, StyleConfig
from tfstyle.errors import ConfigError
from tfstyle.run import (
    Layout,
    Scale,
    describe_layout,
    iterations_per_scale,
    make_setup,
    plan_layouts,
    plan_scales,
    read_inputs,
    scale_shapes,
)
from tfstyle.run.layout import estimated_bytes, restore_layouts, smaller_layout
from tfstyle.tiling import memory

LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}


# Scales


@pytest.mark.parametrize(
    ("full", "scales", "minimum", "expected"),
    [
        ((384, 512), None, 32, [(96, 128), (192, 256), (384, 512)]),
        ((384, 512), 1, 32, [(384, 512)]),
        ((384, 512), 2, 32, [(192, 256), (384, 512)]),
        ((60, 512), None, 16, [(30, 256), (60, 512)]),  # a scale of 15 pixels is too small
        ((100, 100), None, 16, [(100, 100)]),
        ((181, 181), None, 16, [(181, 181)]),
        ((182, 182), None, 16, [(91, 91), (182, 182)]),
        ((16, 16), 9, 16, [(16, 16)]),
    ],
)
def test_scales_of_factor_2(full, scales, minimum, expected):
    assert scale_shapes(full, StyleConfig(scales=scales), minimum=minimum) == expected


def test_scales_of_factor_1_5():
    """512 / 1.5^k = 512, 341.3, 227.6, 151.7, 101.1, 67.4, and the last is below the minimum of 91."""
    expected = [(76, 101), (114, 152), (171, 228), (256, 341), (384, 512)]
    assert scale_shapes((384, 512), StyleConfig(scale_factor=1.5), minimum=16) == expected


@pytest.mark.parametrize(
    ("size_of", "count"), [("longest", 4), ("area", 3), ("shortest", 2)]
)  # 1024, 512 and 256 pixels
def test_min_scale_is_measured_as_size_of_says(size_of, count):
    shapes = scale_shapes((256, 1024), StyleConfig(size_of=size_of), minimum=16)
    assert shapes == [(256 // 2**k, 1024 // 2**k) for k in reversed(range(count))]


@pytest.mark.parametrize("factor", [1.25, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("full", [(384, 512), (777, 333), (91, 91), (1000, 1000)])
def test_sizes_are_a_factor_apart_and_the_largest_is_the_size(full, factor):
    config = StyleConfig(scale_factor=factor, min_scale=91)
    scales = plan_scales(full, config, minimum=8)
    assert scales[-1].shape == full
    assert scales[-1].factor == 1.0
    assert [scale.number for scale in scales] == list(range(1, len(scales) + 1))
    for smaller, larger in itertools.pairwise(scales):
        for a, b in zip(smaller.shape, larger.shape):  # both sides are rounded to pixels
            assert abs(b - factor * a) <= 0.5 + 0.5 * factor
    for scale in scales:
        assert scale.factor == max(scale.shape) / max(full)
        assert scale.factor == pytest.approx(factor ** (scale.number - len(scales)), abs=0.501 / max(full))
    exact = max(full) / factor ** (len(scales) - 1)  # the longest side at the first scale, before rounding
    assert exact >= 91 - 1e-6
    assert exact / factor < 91


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"size": 32}, (23, 32)),  # 40 * 32 / 56 = 22.9
        ({"size": 20, "size_of": "shortest"}, (20, 28)),
        ({"size": 30, "size_of": "area"}, (25, 35)),  # 30 * 56 / sqrt(40 * 56) = 35.5, and 40 * 35 / 56 = 25
        ({"size": 64}, (40, 56)),
        ({"size": 112, "enlarge": True}, (80, 112)),
    ],
    ids=str,
)
def test_the_last_scale_has_the_size_of_the_options(options, shape):
    config = StyleConfig(**options)
    inputs = read_inputs(make_image(40, 56), make_image(30, 30), config)
    assert plan_scales(inputs.shape, config, minimum=4)[-1].shape == shape


# Iterations


@pytest.mark.parametrize(
    ("options", "scales", "expected"),
    [
        ({"iterations": 30}, 3, [30, 30, 30]),
        ({"iterations": 30, "first_iterations": 200}, 3, [200, 30, 30]),
        ({"iterations": 30, "first_iterations": 5}, 2, [5, 30]),
        # 200 / 3 = 66.7 and 200 / 9 = 22.2
        ({"iterations": 30, "first_iterations": 200, "iteration_decay": 3}, 3, [200, 66, 30]),
        ({"iterations": 10, "first_iterations": 80, "iteration_decay": 2}, 5, [80, 40, 20, 10, 10]),
        ({"iterations": 40, "iteration_decay": 2}, 3, [40, 40, 40]),
        ({"iterations": 40, "first_iterations": 90, "iteration_decay": 1.5}, 1, [90]),
        # 1000 / 1.1 = 909.1 and 1000 / 1.21 = 826.4
        ({"iterations": 1, "first_iterations": 1000, "iteration_decay": 1.1}, 3, [1000, 909, 826]),
    ],
    ids=str,
)
def test_iterations(options, scales, expected):
    assert iterations_per_scale(StyleConfig(**options), scales) == expected


def test_a_scale_has_its_size_its_factor_and_its_iterations():
    config = StyleConfig(scales=3, iterations=10, first_iterations=80, iteration_decay=4.0)
    assert plan_scales((300, 400), config, minimum=16) == [
        Scale(1, (75, 100), 0.25, 80),
        Scale(2, (150, 200), 0.5, 20),
        Scale(3, (300, 400), 1.0, 10),
    ]


def test_the_first_iterations_are_those_of_the_first_scale_that_is_large_enough():
    config = StyleConfig(iterations=3, first_iterations=7)
    scales = plan_scales((60, 512), config, minimum=16)
    assert [(scale.number, scale.shape, scale.iterations) for scale in scales] == [
        (1, (30, 256), 7),
        (2, (60, 512), 3),
    ]


# Layouts


def setup_with(small_weights, **options):
    config = StyleConfig(precision="float32", compile="eager", **LAYERS).replace(options)
    return config, make_setup(config, "/CPU:0", encoder=Encoder(("conv1_1", "conv2_1"), small_weights))


SCALES = [Scale(1, (10, 16), 0.5, 5), Scale(2, (20, 32), 1.0, 5)]


@pytest.mark.parametrize(
    ("tile", "style_shapes", "expected"),
    [
        ("off", [[(30, 30)], [(60, 60)]], [Layout(), Layout()]),
        (16, [[(16, 12)], [(32, 24)]], [Layout(), Layout((16, 16), (16, 16))]),
        (16, [[(17, 12)], [(16, 16)]], [Layout(None, (16, 16)), Layout((16, 16), None)]),
        (32, [[(16, 12)], [(32, 24)]], [Layout(), Layout()]),
    ],
)
def test_images_that_are_larger_than_a_tile_are_evaluated_in_tiles(
    small_weights, tile, style_shapes, expected
):
    config, setup = setup_with(small_weights, tile=tile)
    assert plan_layouts(config, setup, scales=SCALES, style_shapes=style_shapes) == expected


def test_options_that_need_the_whole_image_refuse_tiles(small_weights):
    config, setup = setup_with(small_weights, tile=16, normalize_gradients=True, optimizer="adam")
    with pytest.raises(ConfigError, match=r"normalize_gradients\b.*tile=.off"):
        plan_layouts(config, setup, scales=SCALES, style_shapes=[[], []])


@pytest.mark.parametrize("limit", [None, 1e12])
def test_with_enough_memory_or_an_unknown_one_images_are_evaluated_whole(small_weights, monkeypatch, limit):
    config, setup = setup_with(small_weights)
    monkeypatch.setattr(memory, "budget", lambda wanted, device: limit)
    assert plan_layouts(config, setup, scales=SCALES, style_shapes=[[], []]) == [Layout(), Layout()]


def test_with_little_memory_a_large_scale_is_evaluated_in_tiles_that_fit(small_weights, monkeypatch, caplog):
    """The small scale is evaluated whole. L-BFGS stores fewer curvature pairs to make room for the tiles."""
    config, setup = setup_with(small_weights)
    scales = [Scale(1, (256, 256), 0.125, 5), Scale(2, (2048, 2048), 1.0, 5)]
    whole = [estimated_bytes(setup, scale.shape, layout=Layout()) for scale in scales]
    limit = whole[1] / 3
    assert whole[0] < limit
    monkeypatch.setattr(memory, "budget", lambda wanted, device: limit)
    small, large = plan_layouts(config, setup, scales=scales, style_shapes=[[(200, 200)], [(1600, 1600)]])
    assert small == Layout()
    assert max(large.side) < 2048
    assert 1 <= large.lbfgs_pairs <= 10
    assert estimated_bytes(setup, (2048, 2048), layout=large) <= limit
    assert "2048 x 2048" in caplog.text
    assert f"{limit / 1e9:.1f} GB available" in caplog.text


def test_layouts_are_restored_from_json():
    layouts = [Layout(), Layout((16, 24)), Layout((16, 24), (32, 8), 3), Layout(None, (8, 8))]
    assert restore_layouts(json.loads(json.dumps(layouts))) == layouts


def test_after_running_out_of_memory_tiles_are_halved_down_to_the_minimum(small_weights):
    """640 pixels: 320, 160, and then 80, which is less than the minimum of 128."""
    _, setup = setup_with(small_weights)
    sides, layout = [], Layout(lbfgs_pairs=3)
    while layout := smaller_layout(setup, (640, 500), style_shapes=[(300, 200)], layout=layout):
        sides.append((layout.side, layout.style_side))
        assert layout.lbfgs_pairs == 3
    # 500 pixels give 2 tiles of 250 and 4 of 126. Sides are even, since conv2_1 has a stride of 2.
    assert sides == [((320, 250), (320, 250)), ((160, 126), (160, 126))]


def test_the_first_tiles_have_at_most_1024_pixels(small_weights):
    _, setup = setup_with(small_weights)
    layout = smaller_layout(setup, (6000, 3000), style_shapes=[], layout=Layout())
    assert layout.side == (1000, 1000)
    assert layout.style_side is None


@pytest.mark.parametrize("layout", [Layout(), Layout((128, 256))])
def test_the_description_of_a_layout_has_its_memory_and_its_tiles(small_weights, layout):
    _, setup = setup_with(small_weights)
    text = describe_layout(setup, (600, 800), layout=layout)
    gigabytes = estimated_bytes(setup, (600, 800), layout=layout) / 1e9
    assert re.search(rf"800 x 600 .*\b{gigabytes:.1f} GB", text)
    assert bool(re.search(r"256 x 128 .*\d+%", text)) == (layout.side is not None)


def test_the_estimate_counts_the_local_spectrum(small_weights):
    layers = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1",)}
    encoder = Encoder(("conv1_1", "conv2_1"), small_weights, dtype="bfloat16")

    def added(shape, layout=Layout(), **options):  # noqa: B008
        """Return the bytes that options add to the estimate."""
        plain = {"spectrum_weight": 0.0, "border_weight": 1.0, **layers}
        setups = [
            make_setup(StyleConfig(**config), "/CPU:0", encoder=encoder)
            for config in ({**plain, **options}, plain)
        ]
        return np.subtract(*(estimated_bytes(setup, shape, layout=layout) for setup in setups))

    # Each pixel is in 16 windows. There are at least the windows, and the 32 x 17 complex numbers of each.
    assert added((1000, 800), spectrum_weight=0.1) > 1000 * 800 * 16 * (4 + 8 * 17 / 32)
    tiled = [added(shape, Layout((256, 256)), spectrum_weight=0.1) for shape in ((1000, 800), (4000, 800))]
    assert tiled[0] == pytest.approx(tiled[1])  # bands of rows
    assert 0 < tiled[0] < added((1000, 800), spectrum_weight=0.1)

"""The positions of tiles, and the receptive fields of the network."""

import numpy as np
import pytest
import tensorflow as tf

from tfstyle import Encoder
from tfstyle.errors import ConfigError
from tfstyle.network import weights
from tfstyle.tiling import (
    ReceptiveField,
    even_tile_sides,
    margin_overhead,
    receptive_field,
    tiles,
)
from tfstyle.tiling.geometry import layer_positions

FIELD = ReceptiveField({"conv1_1": 1, "conv3_1": 4}, 24, False)


@pytest.fixture(scope="module")
def network():
    return weights.load_weights("random")


@pytest.mark.parametrize(
    ("shape", "side"), [((97, 130), 32), ((33, 65), 32), ((64, 64), 20), ((20, 500), 64)]
)
@pytest.mark.parametrize("circular", [False, True])
def test_insides_cover_the_image_once_and_crops_contain_the_margin(shape, side, circular):
    if circular:
        shape = tuple(4 * (length // 4) for length in shape)
    field = FIELD._replace(circular=circular)
    count = np.zeros(shape, int)
    for tile in tiles(shape, side, receptive_field=field):
        rows, columns = tile
        count[rows.begin : rows.end, columns.begin : columns.end] += 1
        for span, length in zip(tile, shape, strict=True):
            whole = (span.crop_begin, span.crop_end) == (0, length)
            assert span.crop_begin % field.alignment == 0
            if circular and not whole:
                assert span.crop_begin <= span.begin - field.margin
                assert span.crop_end >= span.end + field.margin
            else:
                assert span.crop_begin <= max(0, span.begin - field.margin)
                assert span.crop_end >= min(length, span.end + field.margin)
                assert span.crop_end == length or span.crop_end % field.alignment == 0
    assert (count == 1).all()


def test_crops_have_few_sizes():
    spans = [(t.rows.crop_end - t.rows.crop_begin) for t in tiles((1001, 90), 64, receptive_field=FIELD)]
    assert len(spans) > 30
    assert len(set(spans)) == 2


@pytest.mark.parametrize("circular", [False, True])
def test_adding_is_the_adjoint_of_cutting(circular):
    """``Σ cut(x) y = Σ x add(y)`` for every tile; the sum of the tiles' gradients relies on it."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1, 96, 60, 3))
    for tile in tiles((96, 60), 16, receptive_field=FIELD._replace(circular=circular, margin=8)):
        crop = tile.cut(x)
        y, total = generator.normal(size=crop.shape), np.zeros_like(x)
        tile.add(y, total)
        assert np.sum(crop * y) == pytest.approx(np.sum(x * total), rel=1e-12)


@pytest.mark.parametrize("layer", ["conv1_2", "conv2_2", "conv3_4", "conv4_1", "conv5_1"])
def test_the_margin_is_that_of_the_receptive_field(network, layer):
    """The receptive field of a position is where the gradient of its features is not zero."""
    encoder = Encoder([layer], network, padding="replicate")
    field = receptive_field(encoder)
    stride = field.alignment
    side = 2 * (field.margin + stride) + stride
    image = tf.fill([1, side, side, 3], 0.5) + tf.random.stateless_uniform([1, side, side, 3], [1, 2]) * 0.1
    at = (field.margin + stride) // stride
    with tf.GradientTape() as tape:
        tape.watch(image)
        value = tf.reduce_sum(encoder(image)[layer][:, at, at])
    reached = np.flatnonzero(np.abs(tape.gradient(value, image).numpy()).sum((0, 2, 3)))
    beyond = at * stride - reached.min(), reached.max() + 1 - (at + 1) * stride
    assert beyond[0] == beyond[1]
    assert field.margin - stride < beyond[0] <= field.margin


def test_a_layer_has_as_many_positions_in_all_tiles_as_in_the_image():
    for length in (129, 130, 131, 132, 133):
        spans = [tile.rows for tile in tiles((length, 8), 32, receptive_field=FIELD)]
        positions = [layer_positions(span, length, stride=4) for span in spans]
        assert sum(count for _, count, _ in positions) == length // 4
        assert {whole for *_, whole in positions} == {length // 4}


def test_circular_padding_needs_sides_that_are_multiples_of_the_stride():
    with pytest.raises(ConfigError, match=r"98 pixels.*circular.*multiple of 4\b.*size.*tile=.off"):
        tiles((96, 98), 16, receptive_field=FIELD._replace(circular=True, margin=8))


def test_the_margin_of_a_custom_model_is_not_known(whole_network):
    encoder = Encoder.from_model(whole_network, lambda x: x, layers=["block1_conv1"])
    with pytest.raises(ConfigError, match=rf"{whole_network.name}.*tile=.off.*vgg19.*vgg16"):
        receptive_field(encoder)


def test_even_sides_leave_no_small_last_tile():
    for length in (1000, 1025, 2050, 4096):
        down, across = even_tile_sides((length, 300), 512, receptive_field=FIELD)
        assert down <= 512
        assert down % 4 == 0
        cut = tiles((length, 300), (down, across), receptive_field=FIELD)
        assert len({tile.columns for tile in cut}) == 1
        heights = [tile.rows.end - tile.rows.begin for tile in cut]
        assert min(heights) > 0.8 * max(heights)
        assert len(heights) == -(-length // 512)


def test_the_overhead_is_the_area_of_the_crops_to_that_of_the_image():
    """Crops at the border are shifted inwards, so that all crops have the same size."""
    assert margin_overhead((64, 64), 64, receptive_field=FIELD) == 1
    assert margin_overhead((640, 640), 64, receptive_field=FIELD) == pytest.approx((64 + 2 * 24) ** 2 / 64**2)

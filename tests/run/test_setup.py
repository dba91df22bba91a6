"""What a run will do: its scales, and the layers that the weights allow."""

import pytest

from tfstyle.config import StyleConfig
from tfstyle.network import weights
from tfstyle.run import choose_layers, scale_shapes


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
    assert scale_shapes(full, minimum, StyleConfig(scales=scales)) == expected


def test_the_embedded_weights_have_layers_of_their_own(caplog):
    loaded = weights.load_weights("embedded")
    caplog.clear()
    content, style = choose_layers(StyleConfig(), loaded)
    assert content == ("conv3_3",)
    assert style == ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_4")
    assert not caplog.records  # their notice has been given
    chosen = choose_layers(StyleConfig(style_layers=("conv2_1",), content_layers=("conv3_1",)), loaded)
    assert chosen == (("conv3_1",), ("conv2_1",))

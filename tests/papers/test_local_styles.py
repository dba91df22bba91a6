"""Styles kept in their places and across layers, as an experiment."""

import itertools

import numpy as np
import pytest

from tests.conftest import make_picture
from tfstyle import papers
from tfstyle.papers.local_styles import REPRESENTATIONS


@pytest.mark.slow
def test_local_styles_are_nearer_by_place_and_the_global_one_as_a_whole(small_file):
    content, style = make_picture(40, 56, 2), make_picture(64, 64, 3) ** 2
    style[:32] *= np.float32([0.2, 0.5, 1.0])  # another colour above than below
    said = []
    study = papers.recipe("local")(
        content,
        style,
        weights=str(small_file),
        size=48,
        iterations=25,
        content_weight=0.0,
        progress=said.append,
    )
    lines = {line["style as"]: line for line in study.table}
    assert set(REPRESENTATIONS) <= set(lines)
    assert len(said) == len(REPRESENTATIONS)
    whole, by_place = lines["global Gram matrix"], lines["local, by place"]
    assert by_place["by place"] < 0.2 * whole["by place"]
    assert whole["global"] < 0.05 * lines["the content itself"]["global"]
    swapped = lines["the style, two quarters swapped"]
    assert swapped["by place"] > 5 * swapped["global"]
    assert "stops at conv2_2: conv3_1, conv4_1, conv5_1" in study.caption
    assert "Our reading" in study.caption
    assert study.facts["pooling"] == "avg"
    assert "average pooling" in study.caption
    images = [panel.image for panel in study.panels]
    assert len(images) == 3 + len(REPRESENTATIONS)
    assert all(np.abs(a - b).max() > 0.01 for a, b in itertools.pairwise(images[3:]))

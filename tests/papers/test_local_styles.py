"""Tests of the comparison of local and cross-layer style representations."""

import itertools

import numpy as np
import pytest

from tests.conftest import make_image
from tfstyle import papers
from tfstyle.papers.local_styles import REPRESENTATIONS


@pytest.mark.slow
def test_each_representation_has_the_smallest_distance_of_its_kind(small_file):
    content, style = make_image(40, 56, 2), make_image(64, 64, 3) ** 2
    style[:32] *= np.float32([0.2, 0.5, 1.0])  # the upper half has another colour than the lower half
    progress = []
    study = papers.recipe("local")(
        content,
        style,
        weights=str(small_file),
        size=48,
        iterations=25,
        content_weight=0.0,
        progress=progress.append,
    )
    lines = {line["representation"]: line for line in study.table}
    assert set(REPRESENTATIONS) <= set(lines)
    assert len(progress) == len(REPRESENTATIONS)
    global_style, local_style = lines["global Gram matrices"], lines["local, by position"]
    assert local_style["windowed style"] < 0.2 * global_style["windowed style"]
    assert global_style["global style"] < 0.05 * lines["content image"]["global style"]
    swapped = lines["style image, two quarters swapped"]
    assert swapped["windowed style"] > 5 * swapped["global style"]
    assert study.facts["pooling"] == "avg"
    for fragment in ("Our reading", "average pooling", "end at conv2_2: conv3_1, conv4_1, conv5_1"):
        assert fragment in study.caption
    images = [panel.image for panel in study.panels]
    assert len(images) == 3 + len(REPRESENTATIONS)
    assert all(np.abs(a - b).max() > 0.01 for a, b in itertools.pairwise(images[3:]))

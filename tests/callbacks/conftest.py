"""A fixture: a function that runs a style transfer of the small images with given callbacks."""

import pytest

from tfstyle import stylize

OPTIONS = {
    "content_layers": ("conv2_2",), "style_layers": ("conv1_1", "conv2_1"), "size": 56, "scales": 2,
    "iterations": 4, "compile": "eager",
}  # fmt: skip


@pytest.fixture
def paint(small_file, content, style):
    """A function that calls `stylize` with the small images and weights, at two scales of 4 iterations."""
    return lambda **options: stylize(content, style, weights=str(small_file), **{**OPTIONS, **options})

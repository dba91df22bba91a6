"""Results that tile: with circular padding the style image does not bring the edge between its borders."""

import numpy as np
import pytest

from tfstyle import StyleConfig, stylize
from tfstyle.config import PADDING
from tfstyle.images import resize, resize_circular
from tfstyle.papers.textures import measure_seam
from tfstyle.run import make_setup

OPTIONS = {
    "size": 96, "padding": "circular", "init": "noise", "content_weight": 0.0, "scales": 2, "min_scale": 48,
    "iterations": 60, "weights": "embedded",
}  # fmt: skip


@pytest.fixture(scope="module")
def style():
    """Stripes with a gradient from left to right, so that the opposite borders differ."""
    x, y = np.meshgrid(np.linspace(0, 1, 96), np.arange(96))
    stripes = 0.15 * np.sin(2 * np.pi * y / 12)
    return np.clip(np.stack([0.1 + 0.8 * x + stripes] * 3, -1), 0, 1).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"tile": "48"}, {"tv_weight": 0.0, "spectrum_weight": 0.0}], ids=str)
def test_a_texture_has_no_visible_seam(style, options):
    """Two lines across the edge differ about as little as neighbouring lines inside."""
    canvas = np.full((96, 96, 3), 0.5, np.float32)
    result = stylize(canvas, style, StyleConfig(**OPTIONS).replace(options))
    seam = measure_seam(result.image)
    assert seam.edge_difference < 1.3 * seam.inner_difference


@pytest.mark.parametrize("shape", [(32, 48), (40, 30), (17, 23)])
def test_resizing_a_tiled_image_is_tiling_a_resized_one(shape):
    """The middle of nine resized tiles is what each tile becomes."""
    image = np.random.default_rng(0).random((24, 36, 3), np.float32)
    tiled = resize(np.tile(image, (3, 3, 1)), (3 * shape[0], 3 * shape[1]))
    middle = tiled[shape[0] : 2 * shape[0], shape[1] : 2 * shape[1]]
    np.testing.assert_allclose(resize_circular(image, shape), middle, atol=1e-5)


def test_style_images_have_the_default_padding(small_encoder):
    setup = make_setup(StyleConfig(), "/CPU:0", encoder=small_encoder.with_padding("circular"))
    assert setup.encoder.padding == "circular"
    assert setup.style_encoder.padding == PADDING
    assert setup.style_objective.encoder == setup.style_encoder.features
    usual = make_setup(StyleConfig(), "/CPU:0", encoder=small_encoder)
    assert usual.style_encoder is usual.encoder
    assert usual.style_objective is usual.objective

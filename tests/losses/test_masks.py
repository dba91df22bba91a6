"""Masks, and the weights that they give to the positions of layers."""

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from tfstyle import Encoder, Masks, stylize
from tfstyle.errors import ConfigError, ImageError
from tfstyle.losses import blur_mask, load_mask, mask_coverage, position_weights, resize_mask
from tfstyle.run import layer_shapes

SHAPE = (37, 52)
LAYERS = ("conv1_1", "conv2_1", "conv2_2")


@pytest.fixture(scope="module")
def shapes(small_weights):
    return layer_shapes(Encoder(LAYERS, small_weights), SHAPE, layers=LAYERS)


@pytest.fixture
def mask():
    region = np.zeros(SHAPE, np.float32)
    region[10:24, 17:40] = 1
    return region


def test_layer_shapes_are_those_of_the_features(shapes):
    assert shapes == {"conv1_1": (37, 52), "conv2_1": (18, 26), "conv2_2": (18, 26)}


@pytest.mark.parametrize("guidance", ["average", "dilate", "erode"])
def test_weights_have_the_shape_of_the_layer_and_mean_1(mask, shapes, guidance):
    weights = position_weights(mask, shapes, guidance=guidance, name="mask 1")
    for layer, shape in shapes.items():
        assert weights[layer].shape == (1, *shape, 1)
        assert float(np.mean(weights[layer])) == pytest.approx(1, rel=1e-5)
        assert np.min(weights[layer]) >= 0


def test_a_mask_of_ones_gives_equal_weights(shapes):
    for guidance in ("average", "dilate", "erode"):
        ones = np.ones(SHAPE, np.float32)
        for weight in position_weights(ones, shapes, guidance=guidance, name="mask 1").values():
            assert np.array_equal(weight, np.ones_like(weight))


def positions_that_see(layer, small_weights, mask):
    """Return the positions of a layer that depend on pixels of a mask, and those that depend on no others."""
    generator = np.random.default_rng(0)
    image, other = generator.uniform(0.8, 1, (2, 1, *SHAPE, 3)).astype("f4")
    # With bright pixels and positive weights no ReLU hides a change.
    positive = {k: np.abs(v) for k, v in small_weights.arrays.items()}
    encoder = Encoder((layer,), type(small_weights)(positive, "positive"))

    def changed(pixels):
        mixed = np.where(pixels[None, ..., None] > 0, other, image)
        return (np.abs(encoder(mixed)[layer] - encoder(image)[layer]) > 0).any(-1)[0]

    return changed(mask), ~changed(1 - mask)


@pytest.mark.parametrize("layer", LAYERS)
def test_dilated_and_eroded_masks_follow_the_receptive_fields(layer, shapes, small_weights, mask):
    """The expected positions come from changing pixels and comparing features."""
    sees_some, sees_only = positions_that_see(layer, small_weights, mask)
    for guidance, expected in (("dilate", sees_some), ("erode", sees_only)):
        weights = position_weights(mask, {layer: shapes[layer]}, guidance=guidance, name="mask 1")
        assert np.array_equal(weights[layer][0, ..., 0].numpy() > 0, expected), guidance


def test_soft_edges_are_squared(shapes):
    soft = np.tile(np.linspace(0, 1, SHAPE[1], dtype=np.float32), (SHAPE[0], 1))
    weights = position_weights(soft, {"conv1_1": SHAPE}, guidance="average", name="mask 1")
    assert np.allclose(weights["conv1_1"][0, ..., 0], soft**2 / np.mean(soft**2), rtol=1e-4)


def test_a_region_without_positions_is_an_error(mask):
    thin = np.zeros(SHAPE, np.float32)
    thin[5, 5] = 1
    with pytest.raises(ConfigError, match=r"mask 2.*conv2_2 \(26 x 18\).*larger.*guidance=.average"):
        position_weights(thin, {"conv2_2": (18, 26)}, guidance="erode", name="mask 2")
    position_weights(thin, {"conv2_2": (18, 26)}, guidance="average", name="mask 2")


def test_reading(tmp_path):
    Image.new("L", (4, 3), 255).save(tmp_path / "white.png")
    Image.new("L", (4, 3), 0).save(tmp_path / "black.png")
    assert np.array_equal(load_mask(tmp_path / "white.png", "mask 1"), np.ones((3, 4)))
    with pytest.raises(ConfigError, match=r"mask 1 is empty.*black.*white"):
        load_mask(tmp_path / "black.png", "mask 1")
    with pytest.raises(ImageError, match=r"none\.png"):
        load_mask(tmp_path / "none.png", "mask 1")
    half = np.full((3, 4, 4), 255, np.uint8)
    half[:, 2:, 3] = 0
    assert np.array_equal(load_mask(half, "mask 1"), np.tile([1, 1, 0, 0], (3, 1)))
    half[..., 3] = 0
    with pytest.raises(ConfigError, match=r"mask 1 is empty.*transparent"):
        load_mask(half, "mask 1")


def test_the_value_of_a_mask_is_the_mean_of_the_channels():
    coloured = np.array([[[1.0, 0.5, 0.0], [0.25, 0.25, 0.25], [0.0, 0.0, 0.75]]], np.float32)
    np.testing.assert_allclose(load_mask(coloured, "mask 1"), [[0.5, 0.25, 0.25]], rtol=1e-6)


def test_resizing_preserves_the_mean_of_small_regions():
    dot = np.zeros((64, 64), np.float32)
    dot[7, 9] = 1
    small = resize_mask(dot, (8, 8))
    assert small.shape == (8, 8)
    assert small.mean() == pytest.approx(dot.mean(), rel=1e-3)
    assert resize_mask(dot, (64, 64)) is dot


def test_coverage():
    left, right = np.zeros((2, 4, 4))
    left[:, :2], right[:, 1:3] = 1, 1
    assert mask_coverage([left, right]) == 0.75


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (3, 60)])
def test_blurring_is_the_gaussian_filter_of_scipy(shape):
    """The standard deviation is 0.05 of the longer side, here 3 pixels, and the filter is cut off at 9."""
    mask = np.zeros(shape, np.float32)
    mask[: shape[0] // 2 + 1, : shape[1] // 3] = 1
    radii = tuple(min(9, side) for side in shape)
    expected = scipy.ndimage.gaussian_filter(mask.astype(float), 3.0, mode="reflect", radius=radii)
    blurred = blur_mask(mask, 0.05)
    assert blurred.dtype == np.float32
    assert np.abs(blurred - expected).max() < 1e-5
    assert blurred.mean() == pytest.approx(mask.mean(), rel=1e-4)


def test_a_large_blur_at_a_smaller_size_is_close_to_scipy():
    """The tolerance of 0.005 is a little more than one of 256 grey levels."""
    mask = np.zeros((300, 400), np.float32)
    mask[:130, 90:250] = 1
    expected = scipy.ndimage.gaussian_filter(mask.astype(float), 60.0, mode="reflect", truncate=3)
    blurred = blur_mask(mask, 0.15)
    assert blurred.shape == mask.shape
    assert np.abs(blurred - expected).max() < 5e-3


def test_without_blur_the_mask_itself_is_returned(mask):
    assert blur_mask(mask, 0.0) is mask


def test_a_blurred_content_mask_has_a_soft_edge(small_file, content, style):
    """After one iteration the image is the content image inside the mask, and still differs outside."""
    keep = np.zeros((40, 56), np.float32)
    keep[:, :28] = 1
    options = {"size": 56, "scales": 1, "iterations": 1, "weights": str(small_file), "compile": "eager"}
    options |= {
        "content_layers": ("conv2_1",),
        "style_layers": ("conv1_1",),
        "init": "grey",
        "init_noise": 0.0,
    }
    hard, soft = (
        np.abs(stylize(content, style, masks=Masks(keep=keep), mask_blur=blur, **options).image - content)
        for blur in (0.0, 0.05)
    )
    near_edge, far_inside = slice(22, 28), slice(0, 12)  # the standard deviation is 2.8 pixels
    assert hard[:, near_edge].max() < 1e-6
    assert soft[:, far_inside].max() < 1e-6
    assert soft[:, near_edge].mean() > 0.01

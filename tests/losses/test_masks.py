"""Masks at the sizes of layers."""

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
    found = np.zeros(SHAPE, np.float32)
    found[10:24, 17:40] = 1
    return found


def test_layer_shapes_are_those_of_the_features(shapes):
    assert shapes == {"conv1_1": (37, 52), "conv2_1": (18, 26), "conv2_2": (18, 26)}


@pytest.mark.parametrize("guidance", ["average", "dilate", "erode"])
def test_weights_have_the_layers_shape_and_mean_one(mask, shapes, guidance):
    weights = position_weights(mask, shapes, guidance=guidance, name="mask 1")
    for layer, shape in shapes.items():
        assert weights[layer].shape == (1, *shape, 1)
        assert float(np.mean(weights[layer])) == pytest.approx(1, rel=1e-5)
        assert np.min(weights[layer]) >= 0


def test_a_mask_of_ones_counts_all_alike(shapes):
    for guidance in ("average", "dilate", "erode"):
        for weight in position_weights(
            np.ones(SHAPE, np.float32), shapes, guidance=guidance, name="it"
        ).values():
            assert np.array_equal(weight, np.ones_like(weight))


def seen(layer, small_weights, mask):
    """Positions of a layer that any pixel of a mask changes, and those that none outside it does."""
    generator = np.random.default_rng(0)
    image, other = generator.uniform(0.8, 1, (2, 1, *SHAPE, 3)).astype("f4")
    # Bright pixels and weights above 0: no ReLU hides a change.
    positive = {k: np.abs(v) for k, v in small_weights.arrays.items()}
    encoder = Encoder((layer,), type(small_weights)(positive, "positive"))

    def changed(where):
        mixed = np.where(where[None, ..., None] > 0, other, image)
        return (np.abs(encoder(mixed)[layer] - encoder(image)[layer]) > 0).any(-1)[0]

    return changed(mask), ~changed(1 - mask)


@pytest.mark.parametrize("layer", LAYERS)
def test_all_and_inside_are_what_the_encoder_sees(layer, shapes, small_weights, mask):
    """Truth by changing pixels and looking which features change."""
    sees_some, sees_only = seen(layer, small_weights, mask)
    for guidance, truth in (("dilate", sees_some), ("erode", sees_only)):
        weight = position_weights(mask, {layer: shapes[layer]}, guidance=guidance, name="it")[layer][
            0, ..., 0
        ].numpy()
        assert np.array_equal(weight > 0, truth), guidance


def test_soft_edges_are_squared(shapes):
    soft = np.tile(np.linspace(0, 1, SHAPE[1], dtype=np.float32), (SHAPE[0], 1))
    weight = position_weights(soft, {"conv1_1": SHAPE}, guidance="average", name="it")["conv1_1"][
        0, ..., 0
    ].numpy()
    assert np.allclose(weight, soft**2 / np.mean(soft**2), rtol=1e-4)


def test_nothing_left_is_an_error(mask):
    thin = np.zeros(SHAPE, np.float32)
    thin[5, 5] = 1
    with pytest.raises(ConfigError, match="mask 2: nothing is left of it at conv2_2, 26 x 18"):
        position_weights(thin, {"conv2_2": (18, 26)}, guidance="erode", name="mask 2")
    position_weights(thin, {"conv2_2": (18, 26)}, guidance="average", name="mask 2")


def test_reading(tmp_path):
    Image.new("L", (4, 3), 255).save(tmp_path / "white.png")
    Image.new("L", (4, 3), 0).save(tmp_path / "black.png")
    assert np.array_equal(load_mask(tmp_path / "white.png", "it"), np.ones((3, 4)))
    with pytest.raises(ConfigError, match="mask 1 is empty"):
        load_mask(tmp_path / "black.png", "mask 1")
    with pytest.raises(ImageError, match="no such image"):
        load_mask(tmp_path / "none.png", "mask 1")
    half = np.full((3, 4, 4), 255, np.uint8)
    half[:, 2:, 3] = 0
    assert np.array_equal(load_mask(half, "it"), np.tile([1, 1, 0, 0], (3, 1)))


def test_resizing_keeps_the_mean_of_small_regions():
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
def test_softening_is_scipys_gaussian(shape):
    """Its deviation in parts of the longer side, cut off at three of them, the border mirrored."""
    mask = np.zeros(shape, np.float32)
    mask[: shape[0] // 2 + 1, : shape[1] // 3] = 1
    radii = tuple(min(9, side) for side in shape)
    expected = scipy.ndimage.gaussian_filter(mask.astype(float), 3.0, mode="reflect", radius=radii)
    found = blur_mask(mask, 0.05)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-5
    assert found.mean() == pytest.approx(mask.mean(), rel=1e-4)


def test_a_large_blur_goes_by_a_smaller_mask():
    """Within half of a hundredth, a grey level and a bit."""
    mask = np.zeros((300, 400), np.float32)
    mask[:130, 90:250] = 1
    expected = scipy.ndimage.gaussian_filter(mask.astype(float), 60.0, mode="reflect", truncate=3)
    found = blur_mask(mask, 0.15)
    assert found.shape == mask.shape
    assert np.abs(found - expected).max() < 5e-3


def test_no_blur_leaves_a_mask_alone(mask):
    assert blur_mask(mask, 0.0) is mask


def test_a_blurred_mask_of_what_stays_has_a_soft_edge(small_file, content, style):
    """With no style and no content to move it, the picture is the content where it stays, noise elsewhere."""
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
    near, deep = slice(22, 28), slice(0, 12)  # 2.8 pixels of deviation
    assert hard[:, near].max() < 1e-6
    assert soft[:, deep].max() < 1e-6
    assert soft[:, near].mean() > 0.01

"""The encoder against slow NumPy, against numbers from another framework, and against its laws."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.conftest import make_picture
from tfstyle import Encoder
from tfstyle.backend import check_backend
from tfstyle.encoder import LAYERS, _mirrored, keras_name
from tfstyle.errors import BackendError, ConfigError, ImageError, WeightsError


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("padding", ["zeros", "reflect", "replicate"])
@pytest.mark.parametrize("shape", [(8, 10), (9, 7)])
def test_features_match_numpy(small_weights, pooling, padding, shape):
    encoder = Encoder(LAYERS[:4], small_weights, pooling=pooling, padding=padding)
    images = np.stack([make_picture(*shape, seed=s) for s in (4, 5)])
    found = encoder(images)
    assert list(found) == list(LAYERS[:4])
    for b, image in enumerate(images):
        expected = reference.features(image, small_weights.arrays, 4, pooling, padding)
        for layer, truth in zip(found, expected, strict=True):
            assert found[layer].dtype == tf.float32
            assert reference.relative_error(found[layer][b], truth) < 1e-5


def test_input_is_not_clipped(small_encoder):
    image = make_picture(8, 8)
    assert not np.allclose(small_encoder((image * 3)[None])["conv1_1"], small_encoder(image[None])["conv1_1"])
    assert reference.relative_error(
        small_encoder((image * 3)[None])["conv1_1"][0],
        reference.features(image * 3, small_encoder.weights.arrays, 1)[0],
    ) < 1e-5  # fmt: skip


def test_layers_are_named_as_in_the_paper():
    assert keras_name("conv4_2") == "block4_conv2"
    whole = keras.applications.VGG19(include_top=False, weights=None)
    convolutions = [layer.name for layer in whole.layers if "conv" in layer.name]
    assert [keras_name(layer) for layer in LAYERS] == convolutions


@pytest.mark.parametrize(("pooling", "kind"), [("avg", "AveragePooling2D"), ("max", "MaxPooling2D")])
def test_pools_are_swapped_and_the_network_is_cut_and_frozen(pooling, kind):
    encoder = Encoder(("conv5_1",), "random", pooling=pooling)
    pools = [type(layer).__name__ for layer in encoder.model.layers if "pool" in layer.name]
    assert pools == [kind] * 4
    assert encoder.model.layers[-1].name == "block5_conv1"
    assert encoder.model.trainable_variables == []
    assert encoder(np.zeros((1, 16, 16, 3), np.float32))["conv5_1"].shape == (1, 1, 1, 512)


@pytest.mark.parametrize("mode", ["REFLECT", "SYMMETRIC"])
@pytest.mark.parametrize("shape", [(2, 2, 2, 3), (1, 5, 4, 2)])
def test_the_padding_and_its_gradient_are_adjoint(mode, shape):
    """Padding P is linear: <P x, u> = <x, Pᵀ u> for any x and u, and P x is NumPy's."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=shape).astype("f4")
    u = generator.normal(size=(shape[0], shape[1] + 2, shape[2] + 2, shape[3])).astype("f4")
    with tf.GradientTape() as tape:
        x = tf.constant(x)
        tape.watch(x)
        padded = _mirrored(x, mode)
    assert np.array_equal(padded, np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], mode.lower()))
    gradient = tape.gradient(padded, x, output_gradients=tf.constant(u))
    assert np.sum(padded.numpy() * u) == pytest.approx(np.sum(x.numpy() * gradient.numpy()), rel=1e-4)
    other = generator.normal(size=shape)
    again = np.pad(other, [(0, 0), (1, 1), (1, 1), (0, 0)], mode.lower())
    assert np.sum(again * u) == pytest.approx(np.sum(other * gradient.numpy()), rel=1e-4)


@pytest.mark.parametrize(
    ("layer", "padding", "minimum"),
    [
        ("conv1_2", "zeros", 1),
        ("conv5_4", "zeros", 16),
        ("conv3_1", "replicate", 4),
        ("conv3_1", "reflect", 8),
    ],
)
def test_smallest_image(layer, padding, minimum):
    encoder = Encoder((layer,), "random", padding=padding)
    assert encoder.minimum_size == minimum
    assert min(encoder(np.full((1, minimum, minimum, 3), 0.3, np.float32))[layer].shape) >= 1
    if minimum > 1:
        with pytest.raises(ImageError, match=f"width {minimum - 1} .* at least {minimum} pixels"):
            encoder(np.zeros((1, minimum, minimum - 1, 3), np.float32))


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 8, 8, 4), (1, 3, 8, 8)])
def test_wrong_shapes_are_refused(small_encoder, shape):
    with pytest.raises(ImageError, match="batch, height, width, 3"):
        small_encoder(np.zeros(shape, np.float32))


def test_channels_first_images_are_named(small_encoder):
    with pytest.raises(ImageError, match="channels come last"):
        small_encoder(np.zeros((1, 3, 8, 8), np.float32))


@pytest.mark.parametrize(
    "options",
    [{"layers": ("conv9_1",)}, {"layers": ()}, {"pooling": "min"}, {"padding": "same"}, {"dtype": "int8"}],
)
def test_unknown_options_are_refused(small_weights, options):
    with pytest.raises(ConfigError):
        Encoder(**{"layers": ("conv1_1",), "weights": small_weights, **options})


def test_a_layer_above_the_weights_is_refused_with_what_there_is(small_weights):
    with pytest.raises(
        WeightsError, match="no weights for conv3_1; it has conv1_1, conv1_2, conv2_1, conv2_2"
    ):
        Encoder(("conv1_1", "conv3_1"), small_weights)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_normalized_keeps_the_function_and_sets_the_means(small_weights, pooling):
    """Gatys et al. 2016, section 2: mean activation 1 over images and positions, function unchanged."""
    arrays = {key: array.copy() for key, array in small_weights.arrays.items()}
    arrays["block1_conv2/kernel"][..., 7] = 0
    arrays["block1_conv2/bias"][7] = -1  # a filter that never fires
    encoder = Encoder(LAYERS[:4], type(small_weights)(arrays, "small"), pooling=pooling)
    images = [make_picture(12, 16, 6)[None], np.stack([make_picture(8, 8, s) for s in (7, 8)])]
    normal = encoder.normalized(images)
    for layer in LAYERS[:4]:
        before = [encoder(batch)[layer].numpy() for batch in images]
        after = [normal(batch)[layer].numpy() for batch in images]
        flat = np.concatenate([f.reshape(-1, f.shape[-1]) for f in before]).mean(0)
        means = np.where(flat > 0, flat, 1)
        found = np.concatenate([f.reshape(-1, f.shape[-1]) for f in after]).mean(0)
        assert found[flat > 0] == pytest.approx(1, abs=1e-4)
        assert (found[flat == 0] == 0).all()
        for a, b in zip(after, before, strict=True):
            assert reference.relative_error(a * means, b) < 1e-5
    assert encoder(images[0])["conv1_2"][..., 7].numpy().max() == 0
    assert np.array_equal(normal.weights.arrays["block1_conv2/bias"][7], -1)


def test_half_precisions_are_close(small_weights):
    image = make_picture(16, 16)[None]
    exact = Encoder(("conv2_2",), small_weights)(image)["conv2_2"]
    # bfloat16 keeps 8 bits and float16 11: the errors of four layers stay near 2^-8 and 2^-11.
    for dtype, tolerance in (("bfloat16", 2**-6), ("float16", 2**-9)):
        found = Encoder(("conv2_2",), small_weights, dtype=dtype)(image)["conv2_2"]
        assert found.dtype == tf.float32
        assert reference.relative_error(found, exact) < tolerance


def test_the_global_dtype_policy_is_left_alone(small_weights):
    before = keras.mixed_precision.dtype_policy().name
    Encoder(("conv1_1",), small_weights, dtype="bfloat16")
    assert keras.mixed_precision.dtype_policy().name == before


def test_channels_first_keras_is_refused(small_weights):
    keras.backend.set_image_data_format("channels_first")
    try:
        with pytest.raises(BackendError, match="channels_last"):
            Encoder(("conv1_1",), small_weights)
    finally:
        keras.backend.set_image_data_format("channels_last")


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(BackendError, match="KERAS_BACKEND=tensorflow"):
        check_backend()


@pytest.mark.weights
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_real_weights_agree_with_another_framework(data, pooling):
    truth = np.load(data / "reference" / "tubingen_starry_night.npz")
    encoder = Encoder(LAYERS[:8], data / "weights" / "vgg19_imagenet_block1-3.npz", pooling=pooling)
    found = encoder(truth["content"][None].astype(np.float32) / 255)
    for layer in LAYERS[:8]:
        means = tf.reduce_mean(found[layer], axis=(0, 1, 2))
        assert reference.relative_error(means, truth[f"{pooling}/mean/{layer}"]) < 1e-4

"""The encoder against slow NumPy, against numbers from another framework, and against laws."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.conftest import make_image
from tfstyle import Encoder, StyleExtractor
from tfstyle.backend import KERAS_2, check_backend
from tfstyle.errors import BackendError, ConfigError, ImageError, WeightsError
from tfstyle.layers import NETWORKS, Layer, layer_names
from tfstyle.losses import shares
from tfstyle.network import CUSTOM_MODEL, Weights, random_weights
from tfstyle.network.vgg import _pad_border
from tfstyle.optim import only_first_derivatives
from tfstyle.papers.vgg_encoders import available_layers

LAYERS = layer_names()


def slow_features(image, arrays, names, pooling="avg", padding="reflect", white=255):
    """`reference.features` with the options that it lacks, for layers given by Keras' names."""
    current = image.astype(np.float64)[..., ::-1] * white - reference.MEAN_BGR
    out = []
    for i, name in enumerate(names):
        if i and name[5] != names[i - 1][5]:
            average = reference.pool(current, "max" if pooling == "max" else "avg")
            current = average * 2 if pooling == "rescaled" else average
        border = padding if padding != "replicate_first" else "zeros" if i else "replicate"
        current = reference.conv_relu(current, arrays[f"{name}/kernel"], arrays[f"{name}/bias"], border)
        out.append(current)
    return out


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("padding", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("shape", [(8, 10), (9, 7)])
def test_features_match_numpy(small_weights, pooling, padding, shape):
    encoder = Encoder(LAYERS[:4], small_weights, pooling=pooling, padding=padding)
    images = np.stack([make_image(*shape, seed=s) for s in (4, 5)])
    features = encoder(images)
    assert list(features) == list(LAYERS[:4])
    for b, image in enumerate(images):
        expected = reference.features(image, small_weights.arrays, 4, pooling, padding)
        for layer, truth in zip(features, expected, strict=True):
            assert features[layer].dtype == tf.float32
            assert reference.relative_error(features[layer][b], truth) < 1e-5


@pytest.mark.parametrize(
    ("pooling", "padding"),
    [("avg", "reflect"), ("max", "zeros"), ("rescaled", "replicate"), ("avg", "circular")],
)
def test_features_can_be_differentiated_twice(small_weights, pooling, padding):
    """Features F are piecewise linear in the image, so that <v, H v> = |J v|² for ½ Σ F²."""
    encoder = Encoder(("conv2_1",), small_weights, pooling=pooling, padding=padding)
    image = tf.constant(make_image(8, 12, 1)[None])
    direction = tf.constant(np.random.default_rng(2).normal(size=image.shape), tf.float32)
    with tf.GradientTape() as outer, tf.autodiff.ForwardAccumulator(image, direction) as forward:
        outer.watch(image)
        with tf.GradientTape() as tape:
            tape.watch(image)
            energy = tf.nn.l2_loss(encoder(image)["conv2_1"])
        slope = tape.gradient(energy, image)
    ahead, behind = (encoder(image + sign * 1e-4 * direction)["conv2_1"] for sign in (1, -1))
    expected = float(tf.reduce_sum(((ahead - behind) / 2e-4) ** 2))
    for product in outer.gradient(slope, image, output_gradients=direction), forward.jvp(slope):
        assert float(tf.reduce_sum(product * direction)) == pytest.approx(expected, rel=1e-2)


def test_input_is_not_clipped(small_encoder):
    image = make_image(8, 8) * 2 - 0.5
    clipped = small_encoder(image.clip(0, 1)[None])["conv1_1"]
    assert not np.allclose(small_encoder(image[None])["conv1_1"], clipped)
    assert reference.relative_error(
        small_encoder(image[None])["conv1_1"][0],
        reference.features(image, small_encoder.weights.arrays, 1, padding="reflect")[0],
    ) < 1e-5  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "rescaled"},
        {"padding": "replicate_first"},
        {"pooling": "rescaled", "padding": "replicate_first"},
    ],
)
@pytest.mark.parametrize("white", [255, 256, 1.5])
def test_the_options_of_other_programs_match_numpy(small_weights, options, white):
    encoder = Encoder(LAYERS[:4], small_weights, **options, pixel_range=white, feature_scale=0.125)
    image = make_image(9, 8, seed=4)
    expected = slow_features(
        image,
        small_weights.arrays,
        [layer.keras_name for layer in small_weights.layers],
        **options,
        white=white,
    )
    features = encoder(image[None])
    for layer, truth in zip(LAYERS[:4], expected, strict=True):
        assert features[layer].dtype == tf.float32
        assert reference.relative_error(features[layer][0], truth / 8) < 1e-5


def test_rescaled_pooling_doubles_the_features(small_weights):
    """ReLU is homogeneous: without biases, the features above one pooling layer are twice as large."""
    arrays = {k: a * ("kernel" in k) for k, a in small_weights.arrays.items()}
    image = make_image(8, 12)[None]
    plain, rescaled = (
        Encoder(LAYERS[:4], Weights(arrays, "w"), pooling=kind)(image) for kind in ("avg", "rescaled")
    )
    for layer, factor in zip(LAYERS[:4], (1, 1, 2, 2), strict=True):
        assert reference.relative_error(rescaled[layer], factor * plain[layer].numpy()) < 1e-6


def test_features_are_scaled_in_float32(small_weights):
    """Scaled and unscaled features differ by float32's rounding only, and do not overflow."""
    image = make_image(8, 8)[None]
    for dtype in ("bfloat16", "float16"):
        unscaled, scaled = (
            Encoder(("conv2_2",), small_weights, dtype=dtype, feature_scale=scale)(image)["conv2_2"]
            for scale in (1.0, 1e6 / 3)
        )
        assert scaled.dtype == tf.float32
        assert reference.relative_error(scaled, unscaled.numpy() * 1e6 / 3) < 1e-6


def test_layers_are_named_as_in_the_paper():
    assert Layer.parse("conv4_2").keras_name == "block4_conv2"
    applications = {"vgg19": keras.applications.VGG19, "vgg16": keras.applications.VGG16}
    for network, layers in {name: layer_names(name) for name in NETWORKS}.items():
        whole = applications[network](include_top=False, weights=None)
        convolutions = [layer.name for layer in whole.layers if "conv" in layer.name]
        assert [Layer.parse(layer).keras_name for layer in layers] == convolutions


@pytest.mark.parametrize(
    ("pooling", "kind"),
    [("avg", "AveragePooling2D"), ("max", "MaxPooling2D"), ("rescaled", "RescaledPooling2D")],
)
def test_pooling_is_replaced_and_the_network_is_cut_and_frozen(pooling, kind):
    encoder = Encoder(("conv5_1",), "random", pooling=pooling, padding="zeros")
    pools = [type(layer).__name__ for layer in encoder.model.layers if "pool" in layer.name]
    assert pools == [kind] * 4
    assert encoder.model.layers[-1].name == "block5_conv1"
    assert encoder.model.trainable_variables == []
    assert encoder(np.zeros((1, 16, 16, 3), np.float32))["conv5_1"].shape == (1, 1, 1, 512)


@pytest.mark.parametrize(
    ("mode", "shape"),
    [(mode, shape) for mode in ("REFLECT", "SYMMETRIC", "WRAP") for shape in ((2, 2, 2, 3), (1, 5, 4, 2))]
    + [("WRAP", (2, 1, 3, 2)), ("WRAP", (1, 1, 1, 1))],
)
def test_the_padding_and_its_gradient_are_adjoint(mode, shape):
    """Padding P is linear: <P x, u> = <x, Pᵀ u> for any x and u, and P x is NumPy's."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=shape).astype("f4")
    u = generator.normal(size=(shape[0], shape[1] + 2, shape[2] + 2, shape[3])).astype("f4")
    with tf.GradientTape() as tape:
        x = tf.constant(x)
        tape.watch(x)
        padded = _pad_border(x, mode)
    assert np.array_equal(padded, np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], mode.lower()))
    gradient = tape.gradient(padded, x, output_gradients=tf.constant(u))
    assert np.sum(padded.numpy() * u) == pytest.approx(np.sum(x.numpy() * gradient.numpy()), rel=1e-4)
    other = generator.normal(size=shape)
    padded_other = np.pad(other, [(0, 0), (1, 1), (1, 1), (0, 0)], mode.lower())
    assert np.sum(padded_other * u) == pytest.approx(np.sum(other * gradient.numpy()), rel=1e-4)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_with_circular_padding_a_rolled_image_has_rolled_features(small_weights, pooling):
    """The shifts are multiples of the stride of the pooling layer."""
    encoder = Encoder(LAYERS[:4], small_weights, pooling=pooling, padding="circular")
    image = make_image(12, 8, seed=6)
    features, rolled = (encoder(np.roll(image, shift, (0, 1))[None]) for shift in ((0, 0), (4, -2)))
    for layer in LAYERS[:4]:
        pools = Layer.parse(layer).block - 1
        expected = np.roll(features[layer], (4 >> pools, -2 >> pools), (1, 2))
        assert reference.relative_error(rolled[layer], expected) < 1e-5


@pytest.mark.parametrize(
    ("layer", "padding", "minimum"),
    [
        ("conv1_2", "zeros", 1),
        ("conv5_4", "zeros", 16),
        ("conv3_1", "replicate", 4),
        ("conv3_1", "reflect", 8),
        ("conv3_1", "replicate_first", 4),
        ("conv3_1", "circular", 4),
    ],
)
def test_smallest_image(layer, padding, minimum):
    encoder = Encoder((layer,), "random", padding=padding)
    assert encoder.minimum_size == minimum
    assert min(encoder(np.full((1, minimum, minimum, 3), 0.3, np.float32))[layer].shape) >= 1
    if minimum > 1:
        with pytest.raises(ImageError, match=f"width {minimum - 1} .*{layer}.* {minimum} pixels"):
            encoder(np.zeros((1, minimum, minimum - 1, 3), np.float32))


def test_images_of_eight_bits_and_of_other_number_types(small_encoder):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)
    pixels[0, 0, 0, 0] = 255
    floats = pixels / np.float32(255)
    expected = small_encoder(floats)["conv2_1"]
    for images in (pixels, tf.constant(pixels), floats.astype(np.float64), floats.tolist()):
        assert reference.relative_error(small_encoder(images)["conv2_1"], expected) < 1e-6
        assert reference.relative_error(small_encoder.features(images)["conv2_1"], expected) < 1e-6
    normalized = [small_encoder.normalized(images)(images)["conv2_1"] for images in (pixels, floats)]
    assert reference.relative_error(*normalized) < 1e-6
    for evaluate in (small_encoder, small_encoder.features, small_encoder.normalized):
        with pytest.raises(ImageError, match=r"images are int32; expected uint8, or floats in 0\.\.1"):
            evaluate(pixels.astype(np.int32))
        with pytest.raises(ImageError, match=r"images are bool; expected uint8"):
            evaluate(pixels > 9)
        with pytest.raises(ImageError, match=r"images are NoneType; expected.*uint8 or floats in 0\.\.1"):
            evaluate(None)
        with pytest.raises(ImageError, match=r"images are generator; expected.*array"):
            evaluate(image for image in floats)


def test_floats_that_are_plainly_not_in_0_1_are_refused_except_in_graphs_and_steps(small_encoder):
    image = make_image(8, 12)[None]
    for images in (image * 255, tf.constant(image * 255), image * 2.5, np.full_like(image, np.nan)):
        for evaluate in (small_encoder, small_encoder.features, small_encoder.normalized):
            with pytest.raises(ImageError, match=r"values up to .*outside 0\.\.1; divide.* 255.*uint8"):
                evaluate(images)
    large = tf.constant(image * 3)
    expected = reference.features(large[0].numpy(), small_encoder.weights.arrays, 1, padding="reflect")[0]
    traced = tf.function(small_encoder)(large)["conv1_1"][0]
    dataset = tf.data.Dataset.from_tensors(large).map(small_encoder)
    with only_first_derivatives():  # as in a step
        in_step = small_encoder(large)["conv1_1"][0]
    for features in (traced, next(iter(dataset))["conv1_1"][0], in_step):
        assert reference.relative_error(features, expected) < 1e-5


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 8, 8, 4), (1, 3, 8, 8)])
def test_wrong_shapes_are_refused(small_encoder, shape):
    with pytest.raises(ImageError, match=re.escape(str(shape)) + r".*\[batch, height, width, 3\]"):
        small_encoder(np.zeros(shape, np.float32))


def test_the_error_for_channels_first_images_says_so(small_encoder):
    with pytest.raises(ImageError, match=r"channels.* last"):
        small_encoder(np.zeros((1, 3, 8, 8), np.float32))


@pytest.mark.parametrize(
    "options",
    [
        {"layers": ("conv9_1",)}, {"layers": ()}, {"pooling": "min"}, {"padding": "same"},
        {"dtype": "int8"}, {"network": "vgg11"}, {"pixel_range": 0}, {"pixel_range": "256"},
        {"pixel_range": float("inf")}, {"feature_scale": -1.0}, {"feature_scale": float("nan")},
        {"feature_scale": True},
    ],
)  # fmt: skip
def test_unknown_options_are_refused(small_weights, options):
    with pytest.raises(ConfigError):
        Encoder(**{"layers": ("conv1_1",), "weights": small_weights, **options})


def test_a_layer_above_the_weights_is_refused_with_the_possible_layers(small_weights):
    with pytest.raises(WeightsError, match=r"small.*conv3_1.*conv1_1, conv1_2, conv2_1, conv2_2\b.*imagenet"):
        Encoder(("conv1_1", "conv3_1"), small_weights)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_normalized_keeps_the_function_and_sets_the_means(small_weights, pooling):
    """Gatys et al. 2016, section 2: mean activation 1 over images and positions, function unchanged."""
    arrays = {key: array.copy() for key, array in small_weights.arrays.items()}
    arrays["block1_conv2/kernel"][..., 7] = 0
    arrays["block1_conv2/bias"][7] = -1  # the filter's activation is always 0
    encoder = Encoder(LAYERS[:4], type(small_weights)(arrays, "small"), pooling=pooling)
    images = [make_image(12, 16, 6)[None], np.stack([make_image(8, 8, s) for s in (7, 8)])]
    normalized = encoder.normalized(images)
    for layer in LAYERS[:4]:
        before = [encoder(batch)[layer].numpy() for batch in images]
        after = [normalized(batch)[layer].numpy() for batch in images]
        flat = np.concatenate([f.reshape(-1, f.shape[-1]) for f in before]).mean(0)
        means = np.where(flat > 0, flat, 1)
        new_means = np.concatenate([f.reshape(-1, f.shape[-1]) for f in after]).mean(0)
        assert new_means[flat > 0] == pytest.approx(1, abs=1e-4)
        assert (new_means[flat == 0] == 0).all()
        for a, b in zip(after, before, strict=True):
            assert reference.relative_error(a * means, b) < 1e-5
    assert encoder(images[0])["conv1_2"][..., 7].numpy().max() == 0
    assert np.array_equal(normalized.weights.arrays["block1_conv2/bias"][7], -1)


def test_normalized_keeps_every_option(small_weights):
    """The same law with all options at once. The means are 1 before `feature_scale`."""
    options = {"pooling": "rescaled", "padding": "replicate_first", "pixel_range": 256, "feature_scale": 0.25}
    encoder = Encoder(LAYERS[:4], small_weights, **options)
    image = make_image(16, 12, 5)[None]
    normalized = encoder.normalized(image)
    assert {name: getattr(normalized, name) for name in options} == options
    before, after = encoder(image), normalized(image)
    for layer in LAYERS[:4]:
        flat = before[layer].numpy().mean((0, 1, 2), dtype=np.float64) / 0.25
        means = np.where(flat > 0, flat, 1)
        assert after[layer].numpy().mean((0, 1, 2))[flat > 0] == pytest.approx(0.25, rel=1e-4)
        assert reference.relative_error(after[layer] * means, before[layer]) < 1e-5


def test_half_precisions_are_close(small_weights):
    image = make_image(16, 16)[None]
    exact = Encoder(("conv2_2",), small_weights)(image)["conv2_2"]
    # bfloat16 has 8 significant bits and float16 has 11: the errors of four layers stay near 2^-8 and 2^-11.
    for dtype, tolerance in (("bfloat16", 2**-6), ("float16", 2**-9)):
        features = Encoder(("conv2_2",), small_weights, dtype=dtype)(image)["conv2_2"]
        assert features.dtype == tf.float32
        assert reference.relative_error(features, exact) < tolerance


def test_the_global_dtype_policy_is_left_alone(small_weights):
    before = keras.mixed_precision.global_policy().name
    Encoder(("conv1_1",), small_weights, dtype="bfloat16")
    assert keras.mixed_precision.global_policy().name == before


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
    encoder = Encoder(
        LAYERS[:8], data / "weights" / "vgg19_imagenet_block1-3.npz", pooling=pooling, padding="zeros"
    )
    features = encoder(truth["content"][None].astype(np.float32) / 255)
    for layer in LAYERS[:8]:
        means = tf.reduce_mean(features[layer], axis=(0, 1, 2))
        assert reference.relative_error(means, truth[f"{pooling}/mean/{layer}"]) < 1e-4


@pytest.fixture(scope="module")
def vgg16_weights():
    """Random weights with biases that are not zero."""
    generator = np.random.default_rng(2)
    random = random_weights(seed=2, network="vgg16")
    arrays = {
        k: generator.normal(0, 5, a.shape).astype("f4") if "bias" in k else a
        for k, a in random.arrays.items()
    }
    return Weights(arrays, "sixteen", network="vgg16")


def test_vgg16_matches_numpy(vgg16_weights):
    layers = layer_names("vgg16")
    encoder = Encoder(layers, vgg16_weights, pooling="rescaled", padding="replicate_first", network="vgg16")
    assert (encoder.network, encoder.minimum_size) == ("vgg16", 16)
    image = make_image(16, 16)
    features = encoder(image[None])
    assert tuple(features) == layers
    names = sorted({key.partition("/")[0] for key in vgg16_weights.arrays})
    expected = slow_features(image, vgg16_weights.arrays, names, "rescaled", "replicate_first")
    for layer, truth in zip(layers, expected, strict=True):
        assert reference.relative_error(features[layer][0], truth) < 1e-5


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_with_max_pooling_and_zero_padding_it_is_keras_network(network, tmp_path):
    """Weights from Keras' file, compared with Keras' model after Keras' preprocessing."""
    application = {"vgg16": keras.applications.vgg16, "vgg19": keras.applications.vgg19}[network]
    make = getattr(application, network.upper())
    whole = make(include_top=False, weights=None, input_shape=(None, None, 3))
    whole.save_weights(tmp_path / "w.weights.h5")
    layers = ("conv1_2", "conv3_3", "conv5_3")
    encoder = Encoder(layers, tmp_path / "w.weights.h5", pooling="max", padding="zeros", network=network)
    images = np.stack([make_image(32, 24, seed) for seed in (1, 2)])
    features = encoder(images)
    for layer in layers:
        part = keras.Model(whole.input, whole.get_layer(Layer.parse(layer).keras_name).output)
        truth = part(application.preprocess_input(images * 255.0))
        assert reference.relative_error(features[layer], truth) < 1e-5


@pytest.mark.parametrize("layer", ["conv3_4", "conv5_4"])
def test_vgg16_has_three_convolutions_in_a_block(vgg16_weights, layer):
    with pytest.raises(ConfigError, match=f"vgg16.*{layer}.* conv3_3, conv4_1, .* conv5_3$"):
        Encoder(("conv1_1", layer), vgg16_weights, network="vgg16")


def test_normalized_vgg16(vgg16_weights):
    """Blocks 3 to 5 have three convolutions. The means are 1, and the function is unchanged."""
    encoder = Encoder(("conv3_3", "conv4_1"), vgg16_weights, network="vgg16")
    image = make_image(32, 40)[None]
    normalized = encoder.normalized(image)
    assert (normalized.network, normalized.weights.network) == ("vgg16", "vgg16")
    before, after = encoder(image), normalized(image)
    for layer in encoder.layers:
        means = before[layer].numpy().mean((0, 1, 2), dtype=np.float64)
        means[means == 0] = 1
        assert reference.relative_error(after[layer] * means, before[layer]) < 1e-5
        new_means = after[layer].numpy().mean((0, 1, 2))
        assert np.median(new_means) == pytest.approx(1, abs=1e-5)


def test_weights_of_another_network_are_refused(small_weights, vgg16_weights):
    with pytest.raises(WeightsError, match=r"small.* VGG-19.* VGG-16; give"):
        Encoder(("conv1_1",), small_weights, network="vgg16")
    with pytest.raises(WeightsError, match=r"sixteen.* VGG-16.* VGG-19; give"):
        Encoder(("conv1_1",), vgg16_weights)
    with pytest.raises(WeightsError, match=r"embedded.* VGG-19.* VGG-16; give"):
        Encoder(("conv1_1",), "embedded", network="vgg16")


class Pair(keras.layers.Layer):
    def call(self, inputs):
        return [inputs, -inputs]


@pytest.fixture
def tiny_model():
    """Two convolutions with random batch normalisation and dropout between them, and a head."""
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="one")(images)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.5, seed=1, name="drop")(x)
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same", activation="relu", name="two")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(Pair(name="pair")(x)[0])
    model = keras.Model(images, keras.layers.Dense(2, name="head")(x), name="tiny")
    generator = np.random.default_rng(0)
    model.set_weights(
        [a if a.dtype.kind != "f" else generator.uniform(0.1, 1, a.shape) for a in model.get_weights()]
    )
    return model


def test_any_keras_model_is_an_encoder(tiny_model):
    """The features are compared with single Keras layers and with batch normalisation in NumPy."""
    encoder = Encoder.from_model(tiny_model, lambda images: images * 2 - 1, layers=["two", "norm"])
    images = np.stack([make_image(6, 8, seed) for seed in (1, 2)])
    features = encoder(images)
    assert list(features) == list(encoder.layers) == ["two", "norm"]
    first, norm, second = (tiny_model.get_layer(name) for name in ("one", "norm", "two"))
    gamma, beta, mean, variance = (a.astype(np.float64) for a in norm.get_weights())
    convolved = first(images * 2 - 1).numpy()
    truth = (convolved - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta
    assert reference.relative_error(features["norm"], truth) < 1e-5
    assert reference.relative_error(features["two"], second(truth.astype("f4"))) < 1e-5  # no dropout


def test_the_attributes_of_an_encoder_from_a_model(tiny_model):
    before = [layer.trainable for layer in tiny_model.layers], len(tiny_model.trainable_variables)
    encoder = Encoder.from_model(tiny_model, lambda images: images, layers=("one",), minimum_size=4)
    assert (encoder.network, encoder.pooling, encoder.padding) == (CUSTOM_MODEL, CUSTOM_MODEL, CUSTOM_MODEL)
    assert CUSTOM_MODEL == "model's own"
    assert (encoder.weights.source, encoder.dtype, encoder.minimum_size) == ("tiny", "float32", 4)
    assert (encoder.weights.digests, encoder.weights.layers) == ({}, ())
    state = [v.numpy() for v in tiny_model.variables]
    encoder(make_image(8, 8)[None])
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(state, tiny_model.variables, strict=True))
    assert before == ([layer.trainable for layer in tiny_model.layers], len(tiny_model.trainable_variables))
    with pytest.raises(ImageError, match=r"height 3 .*one.*at least 4"):
        encoder(np.zeros((1, 3, 4, 3), np.float32))
    with pytest.raises(ConfigError, match=r"tiny.*VGG-19"):
        encoder.normalized(make_image(8, 8)[None])


@pytest.mark.parametrize("part", ["one", "two"])
def test_values_can_replace_the_variables_of_a_model(tiny_model, part):
    """With the values of another model, as in an export, the features are those of the other model."""
    other = keras.models.clone_model(tiny_model)
    mine, theirs = (Encoder.from_model(m, lambda x: x, layers=(part,)) for m in (tiny_model, other))
    image = make_image(8, 8)[None]
    values = [tf.convert_to_tensor(v) for v in mine.model.variables]
    # Two convolutions, the four arrays of batch normalisation and, with Keras 3, dropout's seed.
    assert len(values) == {"one": 2, "two": 8 if KERAS_2 else 9}[part]
    assert reference.relative_error(theirs(image)[part], mine(image)[part]) > 0.1
    replaced = tf.function(theirs.features)(tf.constant(image), values)[part]
    assert reference.relative_error(replaced, mine(image)[part]) < 1e-6


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["one", "tow"], r"tiny.*'tow'.* 8 .*are two,"),
        (["mean"], r"'mean' of tiny.*\(None, 5\).*\[batch, height, width, channels\]"),
        (["two", "pair"], r"'pair' of tiny.*several outputs.*\[batch, height, width, channels\]"),
        ([], "layers is empty.* tiny"),
    ],
)
def test_layers_that_a_model_lacks_are_refused(tiny_model, layers, message):
    with pytest.raises(ConfigError, match=message):
        Encoder.from_model(tiny_model, lambda images: images, layers=layers)


@pytest.mark.parametrize(
    "make",
    [
        lambda value: Encoder(value, "random"),
        lambda value: StyleExtractor(value, random_weights()),
        lambda value: StyleExtractor(["conv1_1"], random_weights(), content_layers=value),
        lambda value: Encoder.from_model(None, None, layers=value),
        lambda value: shares(value, None),
        lambda value: available_layers(random_weights(), value),
    ],
)
def test_a_string_is_not_a_list_of_layers(make):
    with pytest.raises(ConfigError, match=r"layers is the string 'conv1_1'; give a list.*\['conv1_1'\]"):
        make("conv1_1")
    for value in (5, [1, 2]):
        with pytest.raises(ConfigError, match=rf"layers is {re.escape(str(value))}; give a list.*conv1_1"):
            make(value)


def test_unsuitable_models_are_refused(tiny_model):
    both = [keras.Input((8, 8, 3), name=name) for name in "ab"]
    added = keras.Model(both, keras.layers.Add(name="sum")(both))
    for model in (added, keras.Sequential([keras.layers.Conv2D(2, 3)]), "vgg16"):
        with pytest.raises(ConfigError, match=r"functional .*one input"):
            Encoder.from_model(model, lambda images: images, layers=("sum",))
    # A layer that was first used in another model has its first output there.
    images = keras.Input((None, None, 3))
    shared = keras.Model(images, tiny_model.get_layer("one")(images), name="shared")
    with pytest.raises(ConfigError, match=r" one .*input of shared"):
        Encoder.from_model(shared, lambda images: images, layers=("one",))


def test_the_result_of_preprocess_must_fit_the_model():
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Conv2D(2, 3, name="one")(images), name="fixed")
    encoder = Encoder.from_model(model, lambda x: tf.image.resize(x, (8, 8)), layers=("one",))
    assert encoder(make_image(12, 10)[None])["one"].shape == (1, 6, 6, 2)
    with pytest.raises(ImageError, match=r"preprocess.*\(1, 12, 10, 3\).*fixed.*\(None, 8, 8, 3\)"):
        Encoder.from_model(model, lambda x: x, layers=("one",))(make_image(12, 10)[None])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV3Small", "ResNet50"])
def test_networks_of_keras_can_be_encoders(name):
    """The features are those of Keras' model cut at the layer. The gradient is finite and not zero."""
    model = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(None, None, 3))
    names = [layer.name for layer in model.layers if len(layer.output.shape) == 4]
    chosen = [names[len(names) // 2], names[len(names) // 4]]
    # ResNet50 was trained on BGR minus the ImageNet means. MobileNetV3 takes 0..255 and scales it itself.
    prepare = {
        "ResNet50": lambda images: keras.applications.resnet50.preprocess_input(images * 255.0),
        "MobileNetV3Small": lambda images: images * 255.0,
    }[name]
    encoder = Encoder.from_model(model, prepare, layers=chosen, minimum_size=32)
    image = tf.Variable(make_image(64, 64)[None])
    with tf.GradientTape() as tape:
        features = tf.function(encoder.features)(image)
        loss = sum(tf.reduce_mean(tf.square(maps)) for maps in features.values())
    assert list(features) == chosen[::-1]  # from the first layer to the deepest
    for layer in chosen:
        truth = keras.Model(model.input, model.get_layer(layer).output)(
            prepare(image.value()), training=False
        )
        assert reference.relative_error(features[layer], truth) < 1e-5
    gradient = tape.gradient(loss, image).numpy()
    assert np.isfinite(gradient).all()
    assert np.linalg.norm(gradient) > 0
    replaced = encoder.features(image, [tf.convert_to_tensor(v) for v in encoder.model.variables])
    assert all(reference.relative_error(replaced[layer], features[layer]) < 1e-5 for layer in chosen)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_symbolic_images_give_symbolic_features(small_encoder, dtype):
    inputs = keras.Input((None, None, 3), dtype=dtype)
    model = keras.Model(inputs, small_encoder(inputs))
    images = (
        np.stack([make_image(12, 16, seed) for seed in (1, 2)]) * (255 if dtype == "uint8" else 1)
    ).astype(dtype)
    expected, features = small_encoder(images), model(images)
    assert list(expected) == ["conv1_1", "conv2_1", "conv2_2"]
    for layer, maps in expected.items():
        assert np.array_equal(features[layer], maps)


def test_an_empty_batch_is_refused(small_encoder):
    with pytest.raises(ImageError, match=r"\(0, 8, 8, 3\); give at least one image"):
        small_encoder(np.zeros((0, 8, 8, 3), np.float32))

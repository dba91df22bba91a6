"""The encoder as a Keras layer: in models, in files, under policies and strategies."""

import copy
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfstyle
from tests import reference
from tests.conftest import importable, make_image
from tfstyle import Encoder
from tfstyle.backend import KERAS_2
from tfstyle.errors import ConfigError, ImageError
from tfstyle.network import EncoderLayer
from tfstyle.network.vgg import PADDINGS, POOLINGS

LAYERS = ("conv1_1", "conv2_1", "conv2_2")
#: Kernels and biases of conv1_1, conv1_2, conv2_1 and conv2_2.
PARAMETERS = (27 + 1) * 64 + (9 * 64 + 1) * 64 + (9 * 64 + 1) * 128 + (9 * 128 + 1) * 128


@pytest.fixture
def images():
    return np.stack([make_image(16, 12, seed) for seed in (1, 2)])


def run_python(code, *arguments, folder):
    """Run Python code in a new process, in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tfstyle.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def errors(features, expected):
    """Return the largest relative error of features, layer by layer."""
    assert list(features) == list(expected)
    return max(
        reference.relative_error(np.asarray(features[layer], np.float64), np.asarray(expected[layer]))
        for layer in expected
    )


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("padding", PADDINGS)
def test_it_computes_what_the_encoder_computes(small_weights, images, pooling, padding):
    encoder = Encoder(
        LAYERS, small_weights, pooling=pooling, padding=padding, pixel_range=256, feature_scale=0.5
    )
    layer = encoder.as_layer()
    for batch in (images, (images * 255).round().astype(np.uint8)):
        assert errors(layer(batch), encoder(batch)) < 1e-6
    restored = EncoderLayer.from_config(layer.get_config())
    assert errors(restored(images), encoder(images)) > 1e-3  # a configuration has no weights
    restored.set_weights(layer.get_weights())
    assert errors(restored(images), encoder(images)) < 1e-6


def test_a_model_counts_its_weights_and_does_not_train_them(small_encoder, images):
    inputs = keras.Input((None, None, 3))
    maps = keras.layers.Conv2D(3, 1, name="head")(inputs)
    model = keras.Model(inputs, small_encoder.as_layer(name="vgg")(maps))
    assert model.count_params() == PARAMETERS + 3 * 3 + 3
    assert model.get_layer("vgg").count_params() == PARAMETERS
    assert len(model.trainable_weights) == 2
    assert len(model.non_trainable_weights) == 8
    with tf.GradientTape() as tape:
        energy = tf.nn.l2_loss(model(images)["conv2_1"])
    kernel, bias = tape.gradient(energy, model.trainable_variables)
    assert float(tf.norm(kernel)) > 0
    assert float(tf.norm(bias)) > 0


def test_a_layer_and_a_sequential_model_contain_it(small_encoder, images):
    class Brightness(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.encoder = small_encoder.as_layer()

        def call(self, x):
            return tf.reduce_mean(self.encoder(x)["conv1_1"], axis=(1, 2, 3))

    layer = Brightness()
    assert layer(images).shape == (2,)
    assert len(layer.weights) == 8
    assert layer.trainable_weights == []
    inputs = keras.Input((16, 12, 3))
    pair = [small_encoder.as_layer()(inputs) for _ in range(2)]
    assert len(keras.Model(inputs, pair).weights) == 16  # Keras gives the two layers different names
    if not KERAS_2:  # a sequential model of Keras 2 takes layers with one output only
        sequential = keras.Sequential([keras.Input((16, 12, 3)), small_encoder.as_layer()])
        assert errors(sequential(images), small_encoder(images)) < 1e-6


def test_a_symbolic_call_of_the_encoder_shares_its_weights(small_encoder):
    model = keras.Model(inputs := keras.Input((None, None, 3)), small_encoder(inputs))
    assert {id(v) for v in model.weights} == {id(v) for v in small_encoder.model.weights}
    other = small_encoder.as_layer()
    assert not {id(v) for v in other.weights} & {id(v) for v in small_encoder.model.weights}


def test_predict_and_datasets(small_encoder, images):
    model = keras.Model(inputs := keras.Input((None, None, 3)), small_encoder.as_layer()(inputs))
    expected = small_encoder(images)
    assert errors(model.predict(images, verbose=0), expected) < 1e-6
    for function in (small_encoder, small_encoder.as_layer(), model):
        dataset = tf.data.Dataset.from_tensor_slices(images).batch(2).map(function)
        assert errors(next(iter(dataset)), expected) < 1e-6


@pytest.mark.parametrize(
    ("dtype", "variables", "output", "tolerance"),
    [
        ("float32", "float32", "float32", 1e-6),
        ("bfloat16", "bfloat16", "bfloat16", 0.03),
        ("mixed_bfloat16", "float32", "bfloat16", 0.03),
        ("float16", "float16", "float32", 0.005),
        ("mixed_float16", "float32", "float32", 0.005),
    ],
)
def test_its_dtype_is_a_keras_policy(
    small_weights, small_encoder, images, dtype, variables, output, tolerance
):
    expected = small_encoder(images)
    given, inherited = small_encoder.as_layer(dtype=dtype), Encoder(LAYERS, small_weights, dtype=dtype)
    for layer in (given, inherited.as_layer()):
        assert layer.dtype_policy.name == dtype
        assert {tf.as_dtype(v.dtype).name for v in layer.variables} == {variables}
        features = layer(images)
        assert {tf.as_dtype(maps.dtype).name for maps in features.values()} == {output}
        assert errors({k: tf.cast(v, tf.float32) for k, v in features.items()}, expected) < tolerance
        if "float16" in dtype:  # the computation is not in float32
            assert errors({k: tf.cast(v, tf.float32) for k, v in features.items()}, expected) > 1e-5
    assert {maps.dtype.name for maps in inherited(images).values()} == {"float32"}
    policy = getattr(keras, "DTypePolicy", keras.mixed_precision.Policy)(dtype)
    assert small_encoder.as_layer(dtype=policy).dtype_policy.name == dtype
    with pytest.raises(ConfigError, match=r"dtype is 'int8'; it can be float32, .*mixed_bfloat16"):
        small_encoder.as_layer(dtype="int8")


def test_the_biases_of_float16_are_not_changed(small_weights):
    """A file of weights can be loaded under another policy."""
    layer = Encoder(LAYERS, small_weights).as_layer(dtype="mixed_float16")
    for name in ("block1_conv1", "block2_conv2"):
        assert np.array_equal(
            layer.model.get_layer(name).get_weights()[1], small_weights.arrays[f"{name}/bias"]
        )


def test_the_global_policy_is_that_of_a_float32_encoder(small_weights, small_encoder, images):
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        assert small_encoder.as_layer().dtype_policy.name == "mixed_bfloat16"
        assert small_encoder.as_layer(dtype="float32").dtype_policy.name == "float32"
        assert Encoder(LAYERS, small_weights, dtype="bfloat16").as_layer().dtype_policy.name == "bfloat16"
        encoder = Encoder(LAYERS, small_weights)  # its own dtype is given, or float32
        assert errors(encoder(images), small_encoder(images)) < 1e-6
        inputs = keras.Input((None, None, 3))
        outputs = keras.layers.Conv2D(2, 3)(small_encoder.as_layer()(inputs)["conv2_2"])
        model = keras.Model(inputs, outputs)
    finally:
        keras.mixed_precision.set_global_policy(before)
    assert tf.as_dtype(model(images).dtype).name == "bfloat16"
    assert {tf.as_dtype(v.dtype).name for v in model.variables} == {"float32"}


def test_copies_have_their_own_variables(small_weights, images):
    encoder = Encoder(LAYERS, small_weights, padding="circular", pooling="rescaled")
    expected = {layer: maps.numpy() for layer, maps in encoder(images).items()}
    layer = encoder.as_layer(dtype="mixed_bfloat16", name="vgg")
    copies = copy.deepcopy(encoder), copy.deepcopy(encoder.as_layer())
    assert copies[0].layers == encoder.layers
    assert copies[0].weights.source == "small"
    copied = copy.deepcopy(layer)
    assert (copied.name, copied.dtype_policy.name, copied.trainable_weights) == ("vgg", "mixed_bfloat16", [])
    for variable in (*encoder.model.variables, *layer.variables):
        variable.assign(tf.zeros_like(variable))
    for function in copies:
        assert errors(function(images), expected) < 1e-6
    assert errors({k: tf.cast(v, tf.float32) for k, v in copied(images).items()}, expected) < 0.03
    assert float(tf.reduce_max(encoder(images)["conv1_1"])) == 0


def test_a_model_with_it_can_be_deep_copied(small_encoder, images):
    model = keras.Model(inputs := keras.Input((None, None, 3)), small_encoder.as_layer()(inputs))
    assert errors(copy.deepcopy(model)(images), small_encoder(images)) < 1e-6


LOAD = """
import sys, keras, numpy as np, tensorflow as tf
import tfstyle.network
images = np.load("images.npy")
for name in sys.argv[1:]:
    model = keras.models.load_model(f"{name}.keras")
    assert model.get_layer("encoder").trainable_weights == [], name
    features = {layer: tf.cast(maps, tf.float32).numpy() for layer, maps in model(images).items()}
    np.savez(f"{name}.npz", **features, variable=np.array(str(model.variables[0].dtype)))
"""


def test_a_keras_file_is_loaded_in_a_new_process_without_custom_objects(small_weights, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    cases = {
        "plain": ({}, {}),
        "circular": ({"padding": "circular", "pooling": "rescaled", "pixel_range": 256.0}, {}),
        "zeros": ({"padding": "zeros", "pooling": "max", "feature_scale": 2.0}, {}),
        "mixed": ({"padding": "replicate_first"}, {"dtype": "mixed_bfloat16"}),
        "half": ({"padding": "zeros"}, {"dtype": "mixed_float16"}),
    }
    expected = {}
    for name, (options, layer_options) in cases.items():
        encoder = Encoder(LAYERS, small_weights, **options)
        model = keras.Model(
            inputs := keras.Input((None, None, 3)), encoder.as_layer(name="encoder", **layer_options)(inputs)
        )
        model.save(tmp_path / f"{name}.keras")
        expected[name] = {k: tf.cast(v, tf.float32).numpy() for k, v in model(images).items()}
        assert errors(expected[name], encoder(images)) < 0.03
    run_python(LOAD, *cases, folder=tmp_path)
    for name in cases:
        with np.load(tmp_path / f"{name}.npz") as loaded:
            assert errors({layer: loaded[layer] for layer in LAYERS}, expected[name]) < 1e-6, name
            assert "float32" in str(loaded["variable"])


@keras.saving.register_keras_serializable(package="tests")
def prepare(images):
    return 2 * images - 1


def test_a_users_model_is_a_layer_too(images, tmp_path):
    inputs = keras.Input((None, None, 3))
    first = keras.layers.Conv2D(4, 3, padding="same", name="later_in_the_alphabet")(inputs)
    second = keras.layers.Conv2D(5, 3, padding="same", name="deeper")(keras.layers.ReLU()(first))
    network = keras.Model(inputs, second, name="mine")
    names = ["later_in_the_alphabet", "deeper"]
    encoder = Encoder.from_model(network, prepare, layers=names)
    layer = encoder.as_layer()
    assert errors(layer(images), encoder(images)) < 1e-6
    assert list(layer.features(images)) == names
    model = keras.Model(inputs, layer(inputs))
    assert model.trainable_weights == []
    symbolic = keras.Model(inputs, encoder(inputs))
    assert errors(symbolic(images), encoder(images)) < 1e-6
    assert symbolic.trainable_weights == []
    assert len(network.trainable_weights) == 4  # the user's model is not frozen
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert errors(loaded(images), encoder(images)) < 1e-6
    assert encoder.as_layer(dtype="mixed_bfloat16")(images)["deeper"].dtype == tf.bfloat16
    scale = 2.0
    copied = copy.deepcopy(Encoder.from_model(network, lambda x: scale * x - 1, layers=names))
    assert errors(copied(images), encoder(images)) < 1e-6


def test_a_users_model_with_arithmetic_a_model_inside_and_statistics_is_copied(images):
    """Layers without a configuration of their own, nested models and normalisation keep their values."""
    inner_input = keras.Input((None, None, 3))
    inner = keras.Model(inner_input, keras.layers.Conv2D(3, 3, padding="same")(inner_input), name="inner")
    normalization = keras.layers.Normalization(name="statistics")
    normalization.adapt(images)
    inputs = keras.Input((None, None, 3))
    x = normalization(inner(inputs * 2.0 - 0.5))
    x = keras.layers.Lambda(lambda maps: 2 * maps, output_shape=(None, None, 3))(x)
    network = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="last")(x))
    encoder = Encoder.from_model(network, lambda x: x, layers=["last"])
    expected = encoder(images)
    assert errors(encoder.as_layer()(images), expected) < 1e-6
    assert errors(copy.deepcopy(encoder)(images), expected) < 1e-6
    symbolic = keras.Model(i := keras.Input((None, None, 3)), encoder(i))
    assert errors(symbolic(images), expected) < 1e-6
    half = encoder.as_layer(dtype="mixed_bfloat16")
    assert errors({k: tf.cast(v, tf.float32) for k, v in half(images).items()}, expected) < 0.05
    assert half.model.get_layer("inner").layers[-1].dtype_policy.name == "mixed_bfloat16"
    assert len(network.trainable_weights) == 4


def test_the_setter_of_trainable_does_not_unfreeze_it(small_weights, images):
    encoder = Encoder(LAYERS, small_weights)
    expected = {layer: maps.numpy() for layer, maps in encoder(images).items()}
    for call in (encoder, encoder.as_layer()):
        inputs = keras.Input((None, None, 3))
        pooled = keras.layers.GlobalAveragePooling2D()(call(inputs)["conv2_1"])
        model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
        model.trainable = False
        model.trainable = True
        assert len(model.trainable_weights) == 2
        model.compile("adam", "mse")
        model.fit(images, np.ones((2, 2)), epochs=2, verbose=0)
        assert errors(encoder(images), expected) == 0


def test_a_copied_encoder_is_one_object(small_encoder, images):
    copied = copy.deepcopy(small_encoder)
    copied.model.set_weights([np.zeros_like(w) for w in copied.model.get_weights()])
    assert float(tf.reduce_max(copied(images)["conv1_1"])) == 0
    pair = copy.deepcopy([small_encoder, small_encoder])
    assert pair[0] is pair[1]


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((1, 3, 12, 3)), np.full((1, 8, 8, 3), 3.0), np.zeros((1, 3, 8, 8))],
    ids=["small", "large", "axes"],
)
def test_wrong_images_are_refused(small_encoder, wrong):
    with pytest.raises(ImageError, match=r"too small|outside 0\.\.1|channels come last"):
        small_encoder.as_layer()(wrong)


DISTRIBUTE = """
import numpy as np, tensorflow as tf, keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tfstyle import Encoder
strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
assert strategy.num_replicas_in_sync == 2
images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
alone = Encoder(("conv1_1", "conv1_2"), "embedded")
with strategy.scope():
    inputs = keras.Input((8, 8, 3))
    head = keras.layers.Conv2D(3, 1, kernel_initializer=keras.initializers.Constant(0.3))
    maps = alone.as_layer(name="encoder")(head(inputs))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(maps["conv1_2"]))
    model.compile("sgd", "mse")
before = [w.copy() for w in model.get_layer("encoder").get_weights()]
kernel = head.get_weights()[0].copy()
history = model.fit(images, np.zeros((4, 64), np.float32), batch_size=4, epochs=2, verbose=0)
assert all(np.array_equal(a, b) for a, b in zip(before, model.get_layer("encoder").get_weights()))
assert not np.array_equal(kernel, head.get_weights()[0])
expected = alone(head(images))["conv1_2"].numpy().mean((1, 2))
np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-4)

@tf.function
def distributed(batch):
    return strategy.run(lambda x: alone(x)["conv1_1"], (batch,))
with strategy.scope():
    inside = Encoder(("conv1_1",), "embedded")
assert np.allclose(inside(images)["conv1_1"], alone(images)["conv1_1"])
assert len(strategy.experimental_local_results(distributed(tf.constant(images)))) == 2
print("done")
"""


def test_a_distribution_strategy_trains_a_model_with_it(tmp_path):
    assert run_python(DISTRIBUTE, folder=tmp_path).strip().endswith("done")


def test_every_keras_class_of_the_package_is_registered():
    """Keras can then load a file with any of them without `custom_objects`."""
    bases = (keras.layers.Layer, keras.losses.Loss)
    classes = set()
    for module in pkgutil.walk_packages(tfstyle.__path__, "tfstyle."):
        if not module.name.startswith(("tfstyle.data", "tfstyle.__main__")) and importable(module.name):
            members = vars(importlib.import_module(module.name)).values()
            classes |= {c for c in members if inspect.isclass(c) and issubclass(c, bases)}
    ours = {c for c in classes if c.__module__.startswith("tfstyle.")}
    assert {"EncoderLayer", "PaddedConv2D", "RescaledPooling2D"} <= {c.__name__ for c in ours}
    for kind in ours:
        assert keras.saving.get_registered_name(kind) == f"tfstyle>{kind.__name__}"

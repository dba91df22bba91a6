"""The Keras losses against slow NumPy, in `compile`, in a `train_step`, and in files."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.conftest import make_image
from tfstyle import ContentLoss, Encoder, GramStyleLoss, Objective
from tfstyle.errors import ConfigError, ImageError
from tfstyle.losses import paper_normalization

LAYERS = ("conv1_1", "conv2_1", "conv2_2")


@pytest.fixture
def images():
    """True images and outputs, both ``[2, 16, 20, 3]``."""
    return np.stack([make_image(16, 20, seed) for seed in (1, 2, 3, 4)]).reshape(2, 2, 16, 20, 3)


def numpy_features(image, weights):
    """Return layer -> features of an image, with loops in NumPy."""
    arrays = weights.arrays
    names = ("conv1_1", "conv1_2", "conv2_1", "conv2_2")
    return dict(zip(names, reference.features(image, arrays, 4, padding="reflect")))


def test_the_content_loss_is_that_of_the_definition(small_weights, small_encoder, images):
    true, outputs = images
    expected = []
    for p, f in zip(true, outputs):
        p, f = (numpy_features(image, small_weights) for image in (p, f))
        terms = [
            weight * ((f[layer] - p[layer]) ** 2).sum() / (p[layer] ** 2).sum()
            for layer, weight in (("conv2_1", 0.25), ("conv2_2", 0.75))
        ]
        expected.append(sum(terms))
    options = {"layers": ["conv2_1", "conv2_2"], "layer_weights": [1, 3]}
    losses = ContentLoss(small_encoder, **options, reduction="none")(true, outputs)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    mean = ContentLoss(small_encoder, **options)(true, outputs)
    np.testing.assert_allclose(mean, np.mean(expected), rtol=1e-5)
    weighted = ContentLoss(small_encoder, **options)(true, outputs, sample_weight=np.array([1.0, 0.0]))
    np.testing.assert_allclose(weighted, expected[0] / 2, rtol=1e-5)
    assert float(ContentLoss(small_encoder)(true, true)) == 0


def test_the_style_loss_is_that_of_the_definition(small_weights, small_encoder, images, style):
    true, outputs = images
    targets = {k: reference.gram(f) for k, f in numpy_features(style, small_weights).items()}
    expected, paper = [], []
    for image in outputs:
        grams = {k: reference.gram(f) for k, f in numpy_features(image, small_weights).items()}
        expected.append(
            sum(
                weight * ((grams[layer] - targets[layer]) ** 2).sum() / (targets[layer] ** 2).sum()
                for layer, weight in (("conv1_1", 0.4), ("conv2_2", 0.6))
            )
        )
        paper.append(reference.style_loss(grams["conv2_1"], targets["conv2_1"]))
    options = {"layers": ["conv1_1", "conv2_2"], "layer_weights": [2, 3], "reduction": "none"}
    np.testing.assert_allclose(
        GramStyleLoss(small_encoder, style, **options)(true, outputs), expected, rtol=1e-4
    )
    loss = GramStyleLoss(
        small_encoder, style, layers=["conv2_1"], normalization=paper_normalization, reduction="none"
    )
    np.testing.assert_allclose(loss(None, outputs), paper, rtol=1e-4)
    assert float(GramStyleLoss(small_encoder, style)(None, style[None])) < 1e-10


def test_they_are_the_terms_of_the_objective(small_encoder, images, style):
    """A network that is trained with them minimises what `stylize` minimises."""
    content, image = images[0][:1], images[1][:1]
    objective = Objective(
        small_encoder.features, {"conv2_2": 1.0}, style_layers={"conv1_1": 0.5, "conv2_1": 0.5},
        content_weight=1.0, style_weight=1.0,
    )  # fmt: skip
    targets = objective.targets(tf.constant(content), [objective.style_summary(tf.constant(style[None]))])
    terms = objective(tf.constant(image), targets)
    np.testing.assert_allclose(ContentLoss(small_encoder)(content, image), terms["content"], rtol=1e-5)
    np.testing.assert_allclose(GramStyleLoss(small_encoder, style)(content, image), terms["style"], rtol=1e-5)


def test_the_gradient_is_that_of_differences(small_encoder, images, style):
    true, outputs = images
    content, gram = ContentLoss(small_encoder), GramStyleLoss(small_encoder, style)
    for loss in (content, gram):
        with tf.GradientTape() as tape:
            x = tf.constant(outputs)
            tape.watch(x)
            value = loss(true, x)
        gradient = tape.gradient(value, x).numpy()
        norm = np.linalg.norm(gradient)
        step = 0.03 * gradient / norm  # small changes, because a ReLU has a kink
        ahead, behind = (float(loss(true, outputs + sign * step)) for sign in (1, -1))
        assert (ahead - behind) / 0.06 == pytest.approx(norm, rel=0.01)


def small_network():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(3, 3, padding="same", activation="sigmoid")(x))


def test_compile_takes_them_and_training_lowers_the_loss(small_encoder, images, style):
    keras.utils.set_random_seed(0)
    true = images[0]
    content, gram = ContentLoss(small_encoder), GramStyleLoss(small_encoder, style)
    both = [content, gram, lambda y, p: 0.1 * content(y, p) + gram(y, p)]
    for loss in both:
        network = small_network()
        network.compile(keras.optimizers.Adam(0.01), loss)
        history = network.fit(true, true, epochs=25, verbose=0).history["loss"]
        assert history[-1] < 0.7 * history[0]
    network.compile(keras.optimizers.Adam(0.01), gram, run_eagerly=True)
    assert np.isfinite(network.fit(true, true, verbose=0).history["loss"]).all()


def test_a_custom_train_step_takes_them(small_encoder, images, style):
    class Trainer(keras.Model):
        def __init__(self):
            super().__init__()
            self.network = small_network()
            self.content_loss = ContentLoss(small_encoder)
            self.style_loss = GramStyleLoss(small_encoder, style)

        def call(self, x):
            return self.network(x)

        def train_step(self, data):
            x = data[0] if isinstance(data, tuple) else data
            with tf.GradientTape() as tape:
                y = self(x, training=True)
                content, gram = self.content_loss(x, y), self.style_loss(None, y)
                loss = content + gram
            variables = self.network.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
            return {"loss": loss, "content": content, "style": gram}

    keras.utils.set_random_seed(0)
    trainer = Trainer()
    trainer.compile(optimizer=keras.optimizers.Adam(0.01))
    history = trainer.fit(images[0], epochs=25, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert set(history) == {"loss", "content", "style"}
    assert len(trainer.trainable_weights) == 4  # those of the network, none of the encoder


def test_outputs_outside_0_1_are_neither_clipped_nor_refused(small_encoder, images, style):
    true, outputs = images
    large = 3 * outputs - 1
    for loss in (ContentLoss(small_encoder), GramStyleLoss(small_encoder, style)):
        assert float(loss(true, large)) != float(loss(true, large.clip(0, 1)))
    with pytest.raises(ImageError, match=r"outside 0\.\.1"):
        ContentLoss(small_encoder)(255 * true, outputs)


def test_true_images_can_be_uint8(small_encoder, images):
    """Keras converts them to float32 without scaling."""
    true, outputs = images
    pixels = (true * 255).round().astype(np.uint8)
    expected = float(ContentLoss(small_encoder)(pixels / np.float32(255), outputs))
    assert float(ContentLoss(small_encoder)(pixels, outputs)) == pytest.approx(expected, rel=1e-5)
    model = keras.Sequential(
        [keras.Input((16, 20, 3)), keras.layers.Lambda(lambda x: x, output_shape=(16, 20, 3))]
    )
    model.compile("sgd", ContentLoss(small_encoder))
    assert model.evaluate(outputs, pixels, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_a_mixed_policy_and_a_bfloat16_encoder(small_weights, small_encoder, images, style):
    true, outputs = images
    half = Encoder(LAYERS, small_weights, dtype="bfloat16")
    for exact, rounded in (
        (ContentLoss(small_encoder), ContentLoss(half)),
        (GramStyleLoss(small_encoder, style), GramStyleLoss(half, style)),
    ):
        value = rounded(true, tf.cast(outputs, tf.bfloat16))
        assert value.dtype == tf.float32
        assert float(value) == pytest.approx(float(exact(true, outputs)), rel=0.05)


def test_a_style_image_is_reduced_to_a_size(small_encoder, tmp_path):
    from PIL import Image

    pixels = (make_image(64, 48, 5) * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "style.png")
    whole, reduced = (GramStyleLoss(small_encoder, tmp_path / "style.png", size=size) for size in (None, 32))
    image = pixels[None].astype(np.float32) / 255
    assert float(whole(None, image)) < 1e-8 < float(reduced(None, image))


def test_wrong_layers_are_refused(small_encoder, style):
    with pytest.raises(ConfigError, match=r"layers are conv1_1, conv2_1, conv2_2, and it has no conv4_2"):
        ContentLoss(small_encoder, layers=["conv4_2"])
    with pytest.raises(ConfigError, match=r"it has no conv9_9"):
        GramStyleLoss(small_encoder, style, layers=["conv9_9"])
    with pytest.raises(ConfigError, match=r"no default layer"):
        ContentLoss(Encoder(("conv1_1",), "random"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_weights": [1, 2]}, r"layer_weights is \[1, 2\]; give 1 non-negative numbers"),
        ({"layer_weights": [0]}, r"layer_weights is \[0\]; .*positive sum"),
        ({"layer_weights": [-1]}, r"layer_weights is \[-1\]"),
        ({"size": "a"}, r"size is 'a'; give a number of pixels"),
        ({"size": 0}, r"size is 0; give a number of pixels"),
    ],
)
def test_wrong_arguments_are_refused(small_encoder, style, options, message):
    with pytest.raises(ConfigError, match=message):
        GramStyleLoss(small_encoder, style, layers=["conv1_1"], **options)
    with pytest.raises(ConfigError, match=r"encoder is a Sequential; give a tfstyle\.Encoder or"):
        ContentLoss(keras.Sequential())


def test_the_encoder_can_be_a_layer_and_a_loss_can_be_copied(small_encoder, images, style):
    true, outputs = images
    layer = small_encoder.as_layer()
    for loss, other in (
        (ContentLoss(small_encoder), ContentLoss(layer)),
        (GramStyleLoss(small_encoder, style), GramStyleLoss(layer, style)),
    ):
        expected = float(loss(true, outputs))
        for same in (other, copy.deepcopy(other), copy.deepcopy(loss)):
            assert float(same(true, outputs)) == pytest.approx(expected, rel=1e-5)


def test_a_compiled_model_is_saved_and_loaded_without_the_loss(small_encoder, images, style, tmp_path):
    network = small_network()
    network.compile("adam", GramStyleLoss(small_encoder, style))
    network.fit(images[0], images[0], verbose=0)
    network.save(tmp_path / "network.keras")
    with pytest.raises(ConfigError, match=r"compile=False"):
        keras.models.load_model(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras", compile=False)
    np.testing.assert_allclose(loaded(images[0]), network(images[0]), atol=1e-6)

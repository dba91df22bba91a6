"""The style extractor: results compared with NumPy, and every accepted form of an image."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests import reference
from tests.conftest import make_image
from tfstyle import Encoder, StyleExtractor
from tfstyle.errors import ConfigError, ImageError, WeightsError


@pytest.fixture(scope="module")
def extractor(small_weights):
    return StyleExtractor(weights=small_weights, content_layers=("conv2_1",), embedding_size=64, size=40)


@pytest.fixture(scope="module")
def batch():
    return np.stack([make_image(20, 26, seed) for seed in range(8)])


def test_gram_matrices_are_those_of_the_papers_formula(extractor, small_weights, batch):
    numbers = extractor(batch[:2])
    assert list(numbers) == ["conv1_1", "conv2_1", "conv2_2", "embedding"]
    assert numbers["embedding"].shape == (2, 64)
    for i in range(2):
        layers = reference.features(batch[i], small_weights.arrays, 4, "avg", "reflect")
        for layer, index in (("conv1_1", 0), ("conv2_1", 2), ("conv2_2", 3)):
            assert reference.relative_error(numbers[layer][i], reference.gram(layers[index])) < 1e-5


@pytest.mark.weights
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_gram_matrices_agree_with_another_framework(data, pooling):
    """With VGG-19's real weights. The reference comes from another framework, which pads with zeros."""
    truth = np.load(data / "reference" / "tubingen_starry_night.npz")
    weights = data / "weights" / "vgg19_imagenet_block1-3.npz"
    extractor = StyleExtractor(("conv1_1", "conv2_1", "conv3_1"), weights, pooling=pooling, padding="zeros")
    numbers = extractor(truth["style"][None])
    for layer in extractor.layers:
        expected = truth[f"{pooling}/gram/{layer}"]
        channels = len(expected)  # the reference has only a corner of large matrices
        assert reference.relative_error(numbers[layer][0, :channels, :channels], expected) < 1e-4


def test_an_image_gives_the_same_numbers_alone_and_in_a_batch_of_eight(extractor, batch):
    together = extractor(batch)
    for i in (0, 7):
        alone = extractor(batch[i : i + 1])
        for name, value in alone.items():
            assert reference.relative_error(together[name][i], value[0]) < 1e-5


def test_images_in_every_form(extractor, batch, tmp_path):
    pixels = (batch[0] * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = extractor(pixels[None] / np.float32(255))
    for form in (
        pixels[None],
        tf.constant(pixels[None]),
        pixels,
        tmp_path / "a.png",
        Image.fromarray(pixels),
    ):
        numbers = extractor(form)
        for name in expected:
            assert reference.relative_error(numbers[name], expected[name]) < 1e-6
    several = extractor([pixels, make_image(40, 12)])  # of two sizes
    assert several["embedding"].shape == (2, 64)
    assert reference.relative_error(several["conv2_2"][:1], expected["conv2_2"]) < 1e-6


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_it_can_be_mapped_over_a_dataset(small_weights, batch, dtype):
    """A new extractor, whose functions are traced inside the dataset's graph and used outside afterwards."""
    extractor = StyleExtractor(weights=small_weights, content_layers=("conv2_1",), size=40)
    images = (batch[:4] * 255).round().astype(np.uint8)
    images = images if dtype is np.uint8 else images / np.float32(255)
    dataset = tf.data.Dataset.from_tensor_slices(images)
    batches = list(dataset.batch(2).map(extractor))
    single = list(dataset.map(extractor))
    features = list(dataset.batch(4).map(extractor.content))
    expected, content = extractor(images), extractor.content(images)
    for name, numbers in expected.items():
        for parts in (batches, single):
            joined = tf.concat([part[name] for part in parts], 0)
            assert reference.relative_error(joined, numbers) < 1e-5
    assert reference.relative_error(features[0]["conv2_1"], content["conv2_1"]) < 1e-5


def test_images_of_any_size_are_mapped(extractor):
    """As by a call, larger images are shrunk, smaller ones are not, and too small ones are refused."""
    images = [make_image(80, 60), make_image(40, 12), make_image(3, 9)]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(images), output_signature=tf.TensorSpec([None, None, None])
    )
    numbers = list(dataset.take(2).map(extractor))
    for result, image in zip(numbers, images[:2], strict=True):
        assert reference.relative_error(result["conv2_2"], extractor(image)["conv2_2"]) < 1e-3
    with pytest.raises(tf.errors.InvalidArgumentError, match="too small; the layers need at least 4 pixels"):
        list(dataset.skip(2).map(extractor))


def test_values_slightly_outside_0_1_pass(extractor, batch):
    stretched = batch[:2] * 1.5 - 0.25  # about -0.1 to 1.1
    assert reference.relative_error(extractor(stretched)["conv1_1"], extractor(batch[:2])["conv1_1"]) > 1e-3


def test_single_images_are_shrunk_and_batches_are_not(extractor):
    large = make_image(80, 60)
    assert extractor.content(large)["conv2_1"].shape == (1, 20, 15, 128)
    assert extractor.content(large[None])["conv2_1"].shape == (1, 40, 30, 128)


def test_content_features_are_those_of_the_encoder(extractor, small_weights, batch):
    features = extractor.content(batch)
    assert list(features) == ["conv2_1"]
    expected = Encoder(["conv2_1"], small_weights)(batch)["conv2_1"]
    assert reference.relative_error(features["conv2_1"], expected) < 1e-6
    with pytest.raises(ImageError, match=r"content.*same size"):
        extractor.content([batch[0], make_image(30, 30)])


def test_embeddings_of_similar_styles_are_close(data):
    """The embeddings of two halves of a painting are closer than those of different paintings."""
    extractor = StyleExtractor(weights="embedded", size=128)
    halves = []
    for name in ("starry_night_google", "the_scream", "woman-with-hat-matisse"):
        image = Image.open(data / "images" / f"{name}.jpg")
        width = image.width // 2
        halves += [image.crop((0, 0, width, image.height)), image.crop((width, 0, 2 * width, image.height))]
    vectors = extractor(halves)["embedding"].numpy()
    similarities = vectors @ vectors.T - 2 * np.eye(6)
    assert [int(row.argmax()) for row in similarities] == [1, 0, 3, 2, 5, 4]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": ()}, ConfigError, "layers is empty.*at least one"),
        ({"layers": "conv1_1"}, ConfigError, "layers.*'conv1_1'.*list"),
        ({"layers": ("conv9_9",)}, ConfigError, "conv9_9"),
        ({"layers": ("conv3_1",)}, WeightsError, "conv3_1"),
        ({"views": 5}, ConfigError, "views is 5.*1 or 10"),
        ({"embedding_size": 0}, ConfigError, "embedding_size is 0.*from 1"),
        ({"size": 0}, ConfigError, "size is 0.*from 1"),
        ({"pooling": "sum"}, ConfigError, "pooling is 'sum'"),
    ],
)
def test_wrong_options(small_weights, options, error, message):
    with pytest.raises(error, match=message):
        StyleExtractor(**{"weights": small_weights, **options})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), r"\(0, 8, 8, 3\).*\[batch, height, width, 3\].*from 1"),
        (np.zeros((1, 8, 8, 4), np.uint8), r"\(1, 8, 8, 4\).*\[batch, height, width, 3\]"),
        (np.zeros((1, 2, 8, 3), np.uint8), "8 x 2 pixels.*at least 4"),
        (np.full((1, 8, 8, 3), 200.0, np.float32), r"outside 0\.\.1"),
        (np.full((1, 8, 8, 3), np.nan), r"outside 0\.\.1"),
        (np.zeros((1, 8, 8, 3), int), r"int64.*uint8.*floats in 0\.\.1"),
        ([], "list.*empty"),
        ("gone.png", r"gone\.png"),
    ],
)
def test_wrong_images(extractor, images, message):
    with pytest.raises(ImageError, match=message):
        extractor(images)


def test_weights_without_the_default_content_layer_have_none(small_weights):
    extractor = StyleExtractor(weights=small_weights)
    assert extractor.content_layers == ()
    with pytest.raises(ConfigError, match=r"content_layers.*conv3_2.*small"):
        extractor.content(make_image(8, 8))

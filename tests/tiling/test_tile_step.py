"""One tile's terms, summaries and gradient against slow NumPy definitions and the untiled objective."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.conftest import make_image
from tfstyle import Objective
from tfstyle.losses import GRAM, MEAN_DEVIATION, cross_layer_gram, wasserstein
from tfstyle.tiling import ReceptiveField, tiles
from tfstyle.tiling.tile_step import LayerSize, LossDerivatives, TilePlace, TileStep

STRIDES = {"shallow": 1, "deep": 2}
#: The receptive field of `deep` extends by one position of `deep`, 2 pixels, and one of `shallow`, 1 pixel: 3
#: pixels, and 4 after alignment to the stride of 2.
FIELD = ReceptiveField(STRIDES, 4, False)
#: With tiles of 8 pixels, the last row and the last column of tiles are 1 pixel wide and have no position of
#: `deep`.
SHAPE, SIDE = (17, 25), 8
FACTOR = 2.0**7
LOSSES = {
    "gram": GRAM,
    "mean_deviation": MEAN_DEVIATION,
    "wasserstein": wasserstein(),
    "chain": cross_layer_gram(),
}


class TinyEncoder:
    """Two convolutions with 4 and 5 channels and average pooling between them, with zero padding."""

    def __init__(self):
        generator = np.random.default_rng(0)
        self.kernels = [generator.normal(0, 0.4, (3, 3, *shape)).astype("f4") for shape in ((3, 4), (4, 5))]
        self.biases = [generator.normal(0, 0.1, n).astype("f4") for n in (4, 5)]
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        (kernel, deep_kernel), (bias, deep_bias) = self.kernels, self.biases
        shallow = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME") + bias)
        pooled = tf.nn.avg_pool2d(shallow, 2, 2, "VALID")
        return {
            "shallow": shallow,
            "deep": tf.nn.relu(tf.nn.conv2d(pooled, deep_kernel, 1, "SAME") + deep_bias),
        }

    def slow(self, image):
        """The same features of ``[height, width, 3]`` in NumPy, float64."""
        shallow = reference.conv_relu(image, self.kernels[0], self.biases[0], "zeros")
        pooled = reference.pool(shallow, "avg")
        return {
            "shallow": shallow,
            "deep": reference.conv_relu(pooled, self.kernels[1], self.biases[1], "zeros"),
        }


def make_tile_step(loss=GRAM, compile="eager"):
    encoder = TinyEncoder()
    objective = Objective(
        encoder,
        {"deep": 1.0, "shallow": 1.0},
        style_layers={"deep": 1.0, "shallow": 1.0},
        content_weight=1.0,
        style_weight=1.0,
        style_losses=[(loss, 1.0)],
    )
    return encoder, objective, TileStep(objective, ["shallow", "deep"], compile=compile)


def positions(span, length, stride):
    """A layer's positions whose first pixel lies inside a tile, along one axis."""
    return [i for i in range(length // stride) if span.begin <= i * stride < span.end]


def place_of(tile, shape=SHAPE):
    sizes, begins, slices = [], {}, {}
    for layer, stride in STRIDES.items():
        rows, columns = (positions(span, length, stride) for span, length in zip(tile, shape, strict=True))
        whole = (shape[0] // stride) * (shape[1] // stride)
        sizes.append(LayerSize(layer, len(rows), len(columns), whole))
        begins[layer] = tf.constant([(span.begin - span.crop_begin) // stride for span in tile])
        slices[layer] = tuple(
            slice(span.begin // stride, span.begin // stride + len(indices))
            for span, indices in zip(tile, (rows, columns), strict=True)
        )
    return TilePlace(tuple(sizes), begins, slices)


def cut(maps, place):
    """The inside's part of each layer's map ``[1, rows, columns, n]``."""
    return {layer: array[(slice(None), *place.slices[layer])] for layer, array in maps.items()}


@pytest.fixture(scope="module")
def image():
    return make_image(*SHAPE, seed=1)


@pytest.fixture(scope="module")
def content_target():
    generator = np.random.default_rng(2)
    return {
        layer: generator.random((1, SHAPE[0] // stride, SHAPE[1] // stride, channels), np.float32)
        for (layer, stride), channels in zip(STRIDES.items(), (4, 5), strict=True)
    }


@pytest.fixture(scope="module")
def region():
    """Positive weights, and zeros in the left tiles, per layer; they are not normalised."""
    generator = np.random.default_rng(3)
    weights = {}
    for layer, stride in STRIDES.items():
        weights[layer] = generator.random((1, SHAPE[0] // stride, SHAPE[1] // stride, 1), np.float32) + 0.1
        weights[layer][:, :, : SIDE // stride] = 0
    return weights


@pytest.fixture(scope="module")
def all_tiles():
    return [(tile, place_of(tile)) for tile in tiles(SHAPE, SIDE, receptive_field=FIELD)]


def tile_weights(region, place):
    """The region's weights inside a tile with mean 1, and the tile's share of the region, per layer."""
    inside = cut(region, place)
    weights = {k: w / w.mean() if w.any() else w for k, w in inside.items()}
    return weights, {k: np.float32(w.sum() / region[k].sum()) for k, w in inside.items()}


def area_shares(place):
    return {s.layer: np.float32(s.rows * s.columns / s.image_positions) for s in place.sizes}


@pytest.mark.parametrize("weighted", [False, True], ids=["whole", "region"])
def test_the_terms_of_a_tile_are_those_of_its_inside(image, content_target, region, all_tiles, weighted):
    """The expected values come from the features of the whole image, so that the margin is tested too."""
    encoder, _, step = make_tile_step()
    features = {layer: values[None] for layer, values in encoder.slow(image).items()}
    for tile, place in all_tiles:
        weights = [tile_weights(region, place)[0]] if weighted else []
        inside, target = cut(features, place), cut(content_target, place)
        energies, (summaries,) = step.terms(
            place, tf.constant(tile.cut(image[None])), weights=weights, content=target, content_weights={}
        )
        content, squares = step.content(place, tf.constant(tile.cut(image[None])))
        for layer, values in inside.items():
            assert content[layer].shape == values.shape
            assert content[layer].numpy() == pytest.approx(values, abs=1e-5)
            assert float(squares[layer]) == pytest.approx(reference.content_loss(values, 0.0), rel=1e-5)
            truth = reference.content_loss(values, target[layer])
            assert float(energies[layer]) == pytest.approx(truth, rel=1e-5)
            gram = summaries[layer][0].numpy()[0]
            if values.size == 0:
                assert not gram.any()
            else:
                root = np.sqrt(weights[0][layer]) if weighted else 1.0
                assert gram == pytest.approx(reference.gram((root * values)[0]), abs=1e-5)
    assert any(size.rows * size.columns == 0 for _, place in all_tiles for size in place.sizes)


@pytest.mark.parametrize("name", ["gram", "mean_deviation", "chain"])
@pytest.mark.parametrize("weighted", [False, True], ids=["whole", "region"])
def test_the_weighted_mean_of_the_tiles_summaries_is_the_summary_of_the_image(
    image, content_target, region, all_tiles, name, weighted
):
    _, objective, step = make_tile_step(LOSSES[name])
    whole = objective.style_summary(image[None], normalised(region) if weighted else None)
    sums = tf.nest.map_structure(np.zeros_like, whole)
    energies = dict.fromkeys(STRIDES, 0.0)
    for tile, place in all_tiles:
        weights, shares = tile_weights(region, place) if weighted else (None, area_shares(place))
        terms, (summaries,) = step.terms(
            place,
            tf.constant(tile.cut(image[None])),
            weights=[weights] if weighted else [],
            content=cut(content_target, place),
            content_weights={},
        )
        for layer, share in shares.items():
            energies[layer] += float(terms[layer])
            sums[layer] = tf.nest.map_structure(
                lambda total, value, share=share: total + share * value.numpy(),
                sums[layer],
                summaries[layer],
            )
    for ours, truth in zip(tf.nest.flatten(sums), tf.nest.flatten(whole), strict=True):
        assert ours == pytest.approx(truth.numpy(), abs=1e-5)
    features = objective.encoder(image[None])
    for layer, target in content_target.items():
        truth = reference.content_loss(features[layer].numpy(), target)
        assert energies[layer] == pytest.approx(truth, rel=1e-5)


def normalised(region):
    return {layer: weights / weights.mean() for layer, weights in region.items()}


def random_derivatives(summaries):
    """Derivatives of a loss with respect to the summaries of one region."""
    generator = np.random.default_rng(4)
    return tf.nest.map_structure(lambda x: tf.constant(generator.normal(size=x.shape), x.dtype), summaries)


def tiled_gradient(step, image, derivatives, content_target, all_tiles, region=None):
    """The sum of the gradients of all tiles, in the image's size."""
    total = np.zeros((1, *SHAPE, 3), np.float32)
    for tile, place in all_tiles:
        weights, shares = (None, area_shares(place)) if region is None else tile_weights(region, place)
        gradient = step.gradient(
            place,
            tf.constant(tile.cut(image[None])),
            weights=[] if region is None else [weights],
            content=cut(content_target, place),
            content_weights={},
            shares=[{layer: tf.constant(share) for layer, share in shares.items()}],
            derivatives=derivatives,
        )
        tile.add(gradient.numpy(), total)
    return total


CONTENT_DERIVATIVES = {"deep": 0.3, "shallow": 0.02}


def make_derivatives(style, summaries, factor=FACTOR):
    return LossDerivatives(
        content={layer: tf.constant(factor * value) for layer, value in CONTENT_DERIVATIVES.items()},
        style=(tf.nest.map_structure(lambda x: factor * x, style),),
        summaries=(summaries,),
        factor=tf.constant(factor),
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True], ids=["whole", "region"])
def test_the_tiles_gradients_add_up_to_the_gradient_of_the_image(
    image, content_target, region, all_tiles, name, weighted
):
    """The loss is ``Σ_l c_l ½ Σ (F - P)² + Σ D · S`` with random D and the summaries S of the image."""
    encoder, objective, step = make_tile_step(LOSSES[name])
    weights = normalised(region) if weighted else None
    x = tf.constant(image[None])
    style = random_derivatives(objective.style_summary(x, weights))
    with tf.GradientTape() as tape:
        tape.watch(x)
        features, summaries = encoder(x), objective.style_summary(x, weights)
        total = tf.add_n(
            [tf.reduce_sum(d * s) for d, s in zip(*map(tf.nest.flatten, (style, summaries)), strict=True)]
        )
        for layer, derivative in CONTENT_DERIVATIVES.items():
            total += derivative * 0.5 * tf.reduce_sum((features[layer] - content_target[layer]) ** 2)
    truth = tape.gradient(total, x)
    for factor in (1.0, FACTOR):
        derivatives = make_derivatives(style, summaries, factor)
        ours = tiled_gradient(
            step, image, derivatives, content_target, all_tiles, region if weighted else None
        )
        assert reference.relative_error(ours, truth) < 1e-5


@pytest.mark.parametrize("compile", ["eager", "graph", pytest.param("xla", marks=pytest.mark.slow)])
def test_the_gradient_is_the_slope_of_the_slow_loss(image, content_target, all_tiles, compile):
    """The expected slopes are central differences of a float64 NumPy loss along three directions."""
    encoder, objective, step = make_tile_step(compile=compile)
    summaries = objective.style_summary(image[None])
    style = random_derivatives(summaries)
    ours = tiled_gradient(step, image, make_derivatives(style, summaries), content_target, all_tiles)

    def slow_loss(x):
        features = encoder.slow(x)
        return sum(
            np.sum(style[layer][0].numpy()[0] * reference.gram(features[layer]))
            + CONTENT_DERIVATIVES[layer] * reference.content_loss(features[layer], content_target[layer][0])
            for layer in STRIDES
        )

    generator = np.random.default_rng(5)
    for _ in range(3):
        direction = generator.normal(size=image.shape)
        ahead, behind = (slow_loss(image + sign * 1e-6 * direction) for sign in (1, -1))
        truth = (ahead - behind) / 2e-6
        assert np.sum(ours[0] * direction) == pytest.approx(truth, rel=1e-3)


def test_a_tile_at_its_content_target_outside_the_region_has_no_gradient(image, content_target, all_tiles):
    encoder, objective, step = make_tile_step()
    summaries = objective.style_summary(image[None])
    target = {layer: values.numpy() for layer, values in encoder(image[None]).items()}
    no_weights = {layer: np.zeros_like(values[..., :1]) for layer, values in content_target.items()}
    style = random_derivatives(summaries)
    for tile, place in all_tiles:
        gradient = step.gradient(
            place,
            tf.constant(tile.cut(image[None])),
            weights=[cut(no_weights, place)],
            content=cut(target, place),
            content_weights={},
            shares=[dict.fromkeys(STRIDES, tf.constant(0.0))],
            derivatives=make_derivatives(style, summaries),
        )
        assert gradient.shape == tile.cut(image[None]).shape
        assert np.abs(gradient).max() < 1e-5


def test_a_function_is_traced_once_per_size(image, content_target, all_tiles):
    encoder, _, step = make_tile_step(compile="graph")

    for tile, place in itertools.chain(all_tiles, all_tiles):
        content = cut(content_target, place)
        step.terms(place, tf.constant(tile.cut(image[None])), weights=[], content=content, content_weights={})
    sizes = {(tile.cut(image[None]).shape, place.sizes) for tile, place in all_tiles}
    assert 1 < len(sizes) < len(all_tiles)
    assert encoder.calls == len(sizes)

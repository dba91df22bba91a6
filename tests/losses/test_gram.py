"""Gram matrices against NumPy loops and the gradient of the paper, and their laws."""

import contextlib
import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tfstyle import Objective, adam, gram_matrix, make_step
from tfstyle.losses import GRAM, wasserstein
from tfstyle.optim import first_derivatives_suffice, only_first_derivatives, value_and_gradient


@pytest.fixture(params=[(1, 5, 7, 4), (3, 6, 2, 9)], ids=str)
def features(request):
    return np.random.default_rng(0).normal(0, 2, request.param).astype(np.float32)


def test_matches_numpy(features):
    grams = gram_matrix(features)
    assert grams.shape == (features.shape[0], features.shape[-1], features.shape[-1])
    for gram, image_features in zip(grams, features, strict=True):
        assert reference.relative_error(gram, reference.gram(image_features)) < 1e-6


def test_is_symmetric_and_positive_semidefinite(features):
    grams = gram_matrix(features).numpy()
    assert np.array_equal(grams, grams.swapaxes(1, 2))
    assert np.linalg.eigvalsh(grams).min() > -1e-5 * np.abs(grams).max()


def test_does_not_depend_on_the_order_of_positions(features):
    batch, height, width, channels = features.shape
    shuffled = features.reshape(batch, -1, channels)[:, np.random.default_rng(1).permutation(height * width)]
    assert (
        reference.relative_error(gram_matrix(shuffled.reshape(features.shape)), gram_matrix(features)) < 1e-6
    )


def test_does_not_depend_on_size(features):
    twice = np.concatenate([features, features], axis=1)
    assert reference.relative_error(gram_matrix(twice), gram_matrix(features)) < 1e-6


@pytest.mark.parametrize("context", [contextlib.nullcontext, only_first_derivatives])
def test_gradient_is_the_product_rule(features, context):
    """d<U, G>/dF = F (U + Uᵀ) / M, for a U that is not symmetric."""
    upstream = np.random.default_rng(2).normal(size=gram_matrix(features).shape).astype(np.float32)
    with tf.GradientTape() as tape, context():
        x = tf.constant(features)
        tape.watch(x)
        y = tf.reduce_sum(gram_matrix(x) * upstream)
    batch, height, width, channels = features.shape
    flat = features.reshape(batch, -1, channels).astype(np.float64)
    expected = flat @ (upstream + upstream.swapaxes(1, 2)) / (height * width)
    assert reference.relative_error(tape.gradient(y, x), expected.reshape(features.shape)) < 1e-6


@pytest.mark.parametrize("compiled", [False, True])
def test_second_derivative_is_that_of_a_product(features, compiled):
    """The second derivative of <U, G> in the directions D and E is <U + Uᵀ, Dᵀ E> / M."""
    generator = np.random.default_rng(2)
    upstream = generator.normal(size=gram_matrix(features).shape).astype(np.float32)
    direction = tf.constant(generator.normal(size=features.shape), tf.float32)

    def products(x):
        """Return the product of the Hessian with the direction, by reverse and by forward mode."""
        with tf.GradientTape() as outer, tf.autodiff.ForwardAccumulator(x, direction) as forward:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = tf.reduce_sum(gram_matrix(x) * upstream)
            slope = tape.gradient(y, x)
        return outer.gradient(slope, x, output_gradients=direction), forward.jvp(slope)

    batch, height, width, channels = features.shape
    flat = direction.numpy().reshape(batch, -1, channels).astype(np.float64)
    expected = flat @ (upstream + upstream.swapaxes(1, 2)) / (height * width)
    for product in (tf.function(products) if compiled else products)(tf.constant(features)):
        assert reference.relative_error(product, expected.reshape(features.shape)) < 1e-6


def float32_products(function):
    """Return the number of float32 matrix products in the graph of a function of an image."""
    graph = tf.function(function).get_concrete_function(tf.TensorSpec([1, 4, 4, 3])).graph
    products = [op for op in graph.get_operations() if op.type.startswith("BatchMatMul")]
    return sum(op.outputs[0].dtype == tf.float32 for op in products)


def test_only_the_step_uses_the_fast_form():
    """Automatic differentiation needs two float32 products besides that of the value, the fast form none."""

    def energy(image, targets=None):
        return {"total": tf.nn.l2_loss(gram_matrix(tf.cast(image, tf.bfloat16)))}

    def gradient(image):
        with tf.GradientTape() as tape:
            tape.watch(image)
            total = energy(image)["total"]
        return tape.gradient(total, image)

    def step_gradient(image):
        return value_and_gradient(energy, image, targets=None)[1]

    assert float32_products(gradient) == float32_products(step_gradient) == 3
    energy.first_derivatives_only = True
    assert float32_products(step_gradient) == 1
    assert Objective.first_derivatives_only


@pytest.mark.parametrize("loss", [GRAM, wasserstein()], ids=["gram", "wasserstein"])
def test_the_graph_of_a_step_is_freed(loss):
    """A graph that TensorFlow or a context variable holds would make the memory of many runs grow."""
    target = loss.summary(tf.ones([1, 4, 4, 3]), None)
    step = make_step(lambda x, t: {"total": loss.distance(loss.summary(x, None), t)}, adam(), compile="graph")
    image = tf.zeros([1, 8, 8, 3])
    graph = weakref.ref(step.get_concrete_function(image, adam().init(image), target).graph)
    assert graph() is not None
    del step
    gc.collect()
    assert graph() is None


def test_a_function_that_is_traced_in_a_step_can_be_differentiated_twice_outside(features):
    """The graph of a `tf.function` is traced once, and therefore must not take the fast form of a step."""
    square = tf.function(lambda x: tf.nn.l2_loss(gram_matrix(x)))
    with only_first_derivatives():
        square(features)
        assert first_derivatives_suffice()
        assert not tf.function(lambda: tf.constant(first_derivatives_suffice()))()
    assert not first_derivatives_suffice()
    x = tf.constant(features)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = square(x)
        slope = tape.gradient(y, x)
    # The gradient is homogeneous of degree 3 in F. By Euler's theorem, H F is three times the gradient.
    assert reference.relative_error(outer.gradient(slope, x, output_gradients=x), 3 * slope) < 1e-5


@pytest.mark.parametrize("context", [contextlib.nullcontext, only_first_derivatives])
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision_features_are_summed_in_float32(dtype, context):
    """Sums of a thousand squares of 300: float16 would overflow, and bfloat16 would lose the small terms."""
    features = tf.cast(tf.fill([1, 32, 32, 2], 300.0), dtype)
    with context():
        gram = gram_matrix(features)
    assert gram.dtype == tf.float32
    assert gram.numpy() == pytest.approx(300.0**2, rel=1e-6)

"""The compiled step: traced once per shape, equal in every compile mode, also for user-defined objectives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.conftest import make_image
from tfstyle import Encoder, Objective, adam, gram_matrix, lbfgs, make_step
from tfstyle.errors import ConfigError
from tfstyle.losses import balanced_normalization, paper_normalization
from tfstyle.optim import from_keras, lbfgs_fixed_step, value_and_gradient


@pytest.fixture(scope="module")
def objective(small_encoder):
    return Objective(
        small_encoder.features,
        {"conv2_2": 1.0},
        style_layers={"conv1_1": 0.5, "conv2_1": 0.5},
        content_weight=0.1,
        style_weight=1.0,
        tv_weight=0.1,
    )


@pytest.fixture(scope="module")
def start():
    return tf.constant(make_image(12, 16, 1)[None])


@pytest.fixture(scope="module")
def targets(objective, start):
    return objective.targets(
        make_image(12, 16, 2)[None], [objective.style_summary(make_image(9, 14, 3)[None])]
    )


def run(step, optimizer, image, targets, times=4):
    state, losses = optimizer.init(image), []
    for _ in range(times):
        image, state, terms = step(image, state, targets)
        losses.extend(np.atleast_1d(terms["total"]).tolist())
    return image.numpy(), losses


def test_it_is_traced_once_per_shape(objective, start, targets):
    traces = []

    def counted(image, targets):
        traces.append(image.shape)
        return objective(image, targets)

    optimizer = lbfgs(3)
    step = make_step(counted, optimizer, compile="graph")
    run(step, optimizer, start, targets, 6)
    assert traces == [start.shape]
    smaller = tf.constant(make_image(8, 8)[None])
    run(step, optimizer, smaller, objective.targets(smaller, [objective.style_summary(smaller)]), 3)
    run(step, optimizer, start, targets, 3)
    assert traces == [start.shape, smaller.shape]


@pytest.mark.parametrize("optimizer", [adam(), lbfgs(4)], ids=["adam", "lbfgs"])
def test_eager_graph_and_xla_agree(objective, start, targets, optimizer):
    results = {
        how: run(make_step(objective, optimizer, compile=how), optimizer, start, targets)
        for how in ("eager", "graph", "xla")
    }
    image, losses = results["eager"]
    assert losses[-1] < losses[0]
    for how in ("graph", "xla"):
        assert losses == pytest.approx(results[how][1], rel=1e-4)
        assert reference.relative_error(results[how][0], image) < 1e-3


def test_gradients_agree_however_compiled(objective, start, targets):
    def evaluate(image, targets):
        return value_and_gradient(objective, image, targets=targets)

    _, truth = evaluate(start, targets)
    for jit in (False, True):
        terms, gradient = tf.function(evaluate, jit_compile=jit)(start, targets)
        assert reference.relative_error(gradient, truth) < 1e-4
        assert float(terms["total"]) == pytest.approx(float(objective(start, targets)["total"]), rel=1e-5)


@pytest.mark.parametrize("optimizer", [adam(), lbfgs(4)], ids=["adam", "lbfgs"])
@pytest.mark.parametrize("how", ["graph", "xla"])
def test_several_steps_in_one_call_are_the_same_steps(objective, start, targets, optimizer, how):
    image, losses = run(make_step(objective, optimizer, compile=how), optimizer, start, targets, 6)
    step_of_three = make_step(objective, optimizer, compile=how, steps=3)
    same_image, same_losses = run(step_of_three, optimizer, start, targets, 2)
    assert same_losses == pytest.approx(losses, rel=1e-4)
    assert reference.relative_error(same_image, image) < 1e-3


def test_a_user_defined_objective():
    """The objective has no encoder, and its targets are an array."""
    optimizer = adam(0.05)
    step = make_step(lambda image, targets: {"total": tf.reduce_sum((image - targets) ** 2)}, optimizer)
    image, losses = run(step, optimizer, tf.zeros([1, 4, 4, 3]), tf.fill([1, 4, 4, 3], 0.25), 60)
    assert losses[-1] < 0.01 * losses[0]
    assert image == pytest.approx(0.25, abs=0.05)


def test_an_objective_that_ignores_the_image_is_refused():
    optimizer = adam()
    step = make_step(lambda image, targets: {"total": tf.constant(1.0)}, optimizer, compile="eager")
    with pytest.raises(ConfigError, match=r"total.* image"):
        step(tf.zeros([1, 2, 2, 3]), optimizer.init(tf.zeros([1, 2, 2, 3])), ())


def test_keras_optimizers_run_one_step_per_call_only(objective, start, targets):
    optimizer = from_keras(keras.optimizers.RMSprop(0.01))
    _, losses = run(make_step(objective, optimizer), optimizer, start, targets, 5)
    assert losses[-1] < losses[0]
    with pytest.raises(ConfigError, match=r"steps_per_call is 2.* 1 .*Keras"):
        make_step(objective, optimizer, steps=2)


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("units", [balanced_normalization, paper_normalization])
def test_half_precision_gradients_are_usable(data, dtype, units):
    """Without scaling, the features and, in the paper's units, the gradients would overflow in float16.

    The significands have 8 and 11 bits. A relative error of 0.1 corresponds to an angle of six degrees.
    """
    from tfstyle.images import load

    content, style = (
        tf.constant(load(data / "images" / name).fitted(64).rgb[None])
        for name in ("tubingen.jpg", "starry_night_google.jpg")
    )
    layers = ("conv1_1", "conv2_1", "conv3_1")
    gradients = []
    for kind in ("float32", dtype):
        encoder = Encoder((*layers, "conv3_3"), data / "weights" / "vgg19_imagenet_block1-3.npz", dtype=kind)
        shares = dict.fromkeys(layers, 1 / 3)
        objective = Objective(
            encoder.features,
            {"conv3_3": 1.0},
            style_layers=shares,
            content_weight=0.03,
            style_weight=1.0,
            normalization=units,
        )
        targets = objective.targets(content, [objective.style_summary(style)])
        terms, gradient = value_and_gradient(objective, content, targets=targets)
        assert np.isfinite(float(terms["total"]))
        gradients.append(gradient)
    assert reference.relative_error(*gradients[::-1]) < 0.1


def squares(image, target):
    return {"total": tf.reduce_sum((image - target) ** 2)}


@pytest.mark.parametrize("name", ["adam", "lbfgs", "lbfgs_fixed_step"])
def test_an_optimiser_may_be_a_name(start, name):
    optimizer = {"adam": adam, "lbfgs": lbfgs, "lbfgs_fixed_step": lbfgs_fixed_step}[name]()
    target = tf.constant(make_image(12, 16, 2)[None])
    for steps in (1, 3):
        named = make_step(squares, name, compile="eager", steps=steps)
        given = make_step(squares, optimizer, compile="eager", steps=steps)
        image, state, terms = named(start, None, target)
        expected, expected_state, expected_terms = given(start, optimizer.init(start), target)
        assert np.array_equal(image, expected)
        assert np.array_equal(terms["total"], expected_terms["total"])
        assert np.array_equal(named(image, state, target)[0], given(expected, expected_state, target)[0])


def test_an_optimiser_may_be_a_keras_optimiser(start):
    """SGD without momentum subtracts learning rate x gradient, which is 2 (x - target) for squares."""
    target = tf.constant(make_image(12, 16, 2)[None])
    step = make_step(squares, keras.optimizers.SGD(0.1), compile="graph")
    image, state, _ = step(start, None, target)
    image, state, terms = step(image, state, target)
    first = start - 0.1 * 2 * (start - target)
    assert np.allclose(image, first - 0.1 * 2 * (first - target), atol=1e-6)
    assert float(terms["total"]) == pytest.approx(float(tf.reduce_sum((first - target) ** 2)), rel=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ("lbgfs", r"'lbgfs' \(did you mean 'lbfgs'.*adam, lbfgs, lbfgs_fixed_step, an Optimizer or a Keras"),
        (None, "optimizer is None; it must be a tfstyle Optimizer or a keras"),
        (3, "optimizer is 3; it must be a tfstyle Optimizer or a keras"),
    ],
)
def test_other_optimisers_are_refused(optimizer, message):
    with pytest.raises(ConfigError, match=message):
        make_step(squares, optimizer)


@pytest.mark.parametrize("compile", ["eager", "graph"])
@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda image, _: tf.reduce_sum(image), r"returned a \w*Tensor; return a dict .*'total'"),
        (lambda image, _: None, "returned a NoneType; return a dict .*'total'"),
        (lambda image, _: {"loss": tf.reduce_sum(image)}, "a dict with loss; return a dict .*'total'"),
        (lambda image, _: {}, "a dict with no entry; return a dict .*'total'"),
        (lambda image, _: {"total": None}, "total is a NoneType; return a dict of scalars"),
        (lambda image, _: {"total": 1.0}, "total does not depend on the image"),
        (lambda image, _: {"total": image}, r"total has shape \(1, 12, 16, 3\); return a dict of scalars"),
        (lambda image, _: {"total": tf.constant(1.0)}, "total does not depend on the image"),
    ],
)
def test_objectives_that_return_something_else_are_told_what_is_expected(start, objective, message, compile):
    step = make_step(objective, "adam", compile=compile)
    with pytest.raises(ConfigError, match=message):
        step(start, None, ())


@pytest.mark.parametrize("dtype", [tf.float16, tf.float64])
def test_terms_of_other_types_become_float32(start, dtype):
    def objective(image, target):
        return {"total": tf.reduce_mean(tf.cast(image, dtype) ** 2), "number": 2, "half": 0.5}

    for compile, steps in (("eager", 1), ("graph", 3)):
        _, _, terms = make_step(objective, "adam", compile=compile, steps=steps)(start, None, ())
        assert {name: term.dtype for name, term in terms.items()} == dict.fromkeys(terms, tf.float32)
        assert np.all(terms["number"] == 2)


def test_an_objective_that_computes_gradients_itself_is_differentiated_rightly(start):
    """Half the squared norm of the gradient of a Gram energy, against differences of its values."""

    def penalty(image, _):
        with tf.GradientTape() as tape:
            tape.watch(image)
            energy = tf.nn.l2_loss(gram_matrix(image))
        return {"total": tf.nn.l2_loss(tape.gradient(energy, image))}

    _, gradient = value_and_gradient(penalty, start, targets=None)
    direction = tf.constant(np.random.default_rng(0).normal(size=start.shape).astype(np.float32))
    ahead, behind = (float(penalty(start + s * direction, None)["total"]) for s in (1e-2, -1e-2))
    slope = float(tf.reduce_sum(gradient * direction))
    assert slope == pytest.approx((ahead - behind) / 2e-2, rel=1e-3)


class Recorded(keras.optimizers.SGD):
    """An optimiser with attributes that are not in its configuration."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.factor = 1.0

    def apply_gradients(self, grads_and_vars, **options):
        return super().apply_gradients(
            [(self.factor * g + self.offset, v) for g, v in grads_and_vars], **options
        )


def test_a_keras_optimiser_is_copied_with_its_attributes(start):
    original = Recorded(0.1)
    original.factor, original.offset = 0.5, 0.01
    target = tf.constant(make_image(12, 16, 2)[None])
    step = make_step(squares, original, compile="eager")
    image, _, _ = step(start, None, target)
    assert np.allclose(image, start - 0.1 * (0.5 * 2 * (start - target) + 0.01), atol=1e-6)
    assert int(tf.convert_to_tensor(original.iterations)) == 0  # the user's optimiser made no step


class NotCopied(keras.optimizers.SGD):
    def __init__(self, needed, **options):
        super().__init__(0.1, **options)


def test_a_keras_optimiser_that_cannot_be_copied_is_refused():
    with pytest.raises(
        ConfigError, match=r"NotCopied cannot be copied .*needed.*; let its get_config return"
    ):
        make_step(squares, NotCopied(3))

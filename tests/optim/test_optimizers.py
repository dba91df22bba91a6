"""Adam against Keras and PyTorch, L-BFGS against SciPy and PyTorch, and the properties of all optimisers."""

import functools
import math
import re

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from tests import reference
from tests.conftest import make_image
from tfstyle import Encoder, Objective, adam, lbfgs, make_step
from tfstyle.backend import start_optimizer
from tfstyle.errors import ConfigError
from tfstyle.images import load
from tfstyle.optim import averaged, from_keras, lbfgs_fixed_step, value_and_gradient


def evaluation(function):
    """Return an evaluate function that gives (terms, gradient) of a function of a tensor."""

    def evaluate(x):
        return value_and_gradient(lambda x, _: {"total": function(x)}, x, targets=None)

    return evaluate


def rosenbrock(x):
    return tf.reduce_sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def quadratic(n):
    """Return a quadratic of condition number 10^4 with its minimum at 1, in TensorFlow and in NumPy."""
    scales = np.logspace(0, 4, n)
    return (
        lambda x: 0.5 * tf.reduce_sum(tf.constant(scales, tf.float32) * (x - 1) ** 2),
        lambda x: (0.5 * np.sum(scales * (x - 1) ** 2), scales * (x - 1)),
    )


def evaluations(optimizer, function, start, below, most):
    """Return the number of evaluations until the loss is below a bound."""
    x = tf.constant(start, tf.float32)
    state = optimizer.init(x)
    step = tf.function(lambda x, state: optimizer.step(evaluation(function), x, state))
    for count in range(1, most + 1):
        x, state, terms = step(x, state)
        if float(terms["total"]) < below:
            return count
    return math.inf


def scipy_evaluations(function, start, below, history):
    values = []

    def counted(x):
        value, gradient = function(x)
        values.append(value)
        return value, gradient

    scipy.optimize.minimize(
        counted, start, jac=True, method="L-BFGS-B", options={"ftol": 0, "gtol": 1e-12, "maxcor": history}
    )
    return next(i for i, value in enumerate(values, 1) if value < below)


DEFAULTS = {"learning_rate": 0.02, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-10}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta_2": 0.999, "epsilon": 1e-7},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3},
    ],
)
def test_adam_is_keras_adam(options):
    generator = np.random.default_rng(0)
    start, target = (generator.normal(size=(1, 4, 5, 3)).astype("f4") for _ in range(2))

    def loss(x):
        return tf.reduce_sum(tf.abs(x - target) ** 3)

    optimizer = adam(**options, low=-math.inf, high=math.inf)
    x = tf.constant(start)
    state = optimizer.init(x)
    config = keras.optimizers.Adam(**(DEFAULTS | options)).get_config()
    keras_adam, variable = start_optimizer(keras.optimizers.Adam.from_config(config), start)
    for _ in range(30):
        x, state, _ = optimizer.step(evaluation(loss), x, state)
        _, gradient = evaluation(loss)(tf.convert_to_tensor(variable))
        keras_adam.apply_gradients([(gradient, variable)])
        assert np.abs(x - variable.numpy()).max() < 1e-6


def test_corrected_adam_is_that_of_pytorch():
    """Computed with torch 2.13, float64: optim.Adam([x], lr=0.1, betas=(0.8, 0.99), eps=0.1)."""
    expected = {
        1: [0.427027, -0.217241, 0.776923],
        3: [0.308540, -0.073989, 0.743530],
        10: [0.144346, 0.154980, 0.700047],
    }
    optimizer = adam(0.1, beta_1=0.8, beta_2=0.99, epsilon=0.1, low=-1.0, high=1.0, corrected=True)
    x = tf.constant([0.5, -0.3, 0.8])
    state = optimizer.init(x)
    for count in range(1, 11):
        x, state, _ = optimizer.step(
            evaluation(lambda x: tf.reduce_sum(tf.abs(x - [0.2, 0.1, 0.7]) ** 3)), x, state
        )
        if count in expected:
            assert x.numpy() == pytest.approx(expected[count], abs=2e-6)


@pytest.mark.parametrize("n", [2, 10])
@pytest.mark.parametrize("history", [5, 10])
def test_lbfgs_solves_rosenbrock_like_scipy(n, history):
    start = np.tile([-1.2, 1.0], n // 2)

    def truth(x):
        return scipy.optimize.rosen(x), scipy.optimize.rosen_der(x)

    most = 1.5 * scipy_evaluations(truth, start, 1e-6, history)
    optimizer = lbfgs(history, low=-math.inf, high=math.inf)
    assert evaluations(optimizer, rosenbrock, start, 1e-6, 500) <= most


@pytest.mark.parametrize("n", [2, 10, 40])
def test_lbfgs_solves_an_ill_conditioned_quadratic_like_scipy(n):
    function, truth = quadratic(n)
    most = 1.5 * scipy_evaluations(truth, np.zeros(n), 1e-6, 10)
    assert evaluations(lbfgs(10, low=-math.inf, high=math.inf), function, np.zeros(n), 1e-6, 800) <= most


def test_lbfgs_finds_a_minimum_on_the_bounds():
    """Three of the four components of the unbounded minimum are outside 0..1."""
    centre = np.array([-1.0, 2.0, 0.3, 5.0])
    pull = np.array([[4.0, 1, 0, 0], [1, 3, 1, 0], [0, 1, 2, 0.5], [0, 0, 0.5, 1]])

    def loss(x):
        away = x - tf.constant(centre, tf.float32)
        return 0.5 * tf.tensordot(away, tf.linalg.matvec(tf.constant(pull, tf.float32), away), 1)

    x = tf.constant([0.5] * 4)
    optimizer = lbfgs()
    state = optimizer.init(x)
    for _ in range(60):
        assert (x.numpy() >= 0).all()
        assert (x.numpy() <= 1).all()
        x, state, _ = optimizer.step(evaluation(loss), x, state)
    truth = scipy.optimize.minimize(
        lambda x: (0.5 * (x - centre) @ pull @ (x - centre), pull @ (x - centre)),
        [0.5] * 4, jac=True, bounds=[(0, 1)] * 4,
    )  # fmt: skip
    assert float(state.loss) == pytest.approx(truth.fun, rel=1e-5)
    assert state.point.numpy() == pytest.approx(truth.x, abs=1e-3)


def test_lbfgs_starts_with_one_grey_level():
    x = tf.fill([1, 2, 2, 3], 0.5)
    optimizer = lbfgs()
    weights = tf.reshape(tf.range(12.0), x.shape)
    moved, _, _ = optimizer.step(evaluation(lambda x: 1e6 * tf.reduce_sum(weights * x)), x, optimizer.init(x))
    assert np.abs(moved - x).max() == pytest.approx(1 / 255, rel=1e-3)


def test_lbfgs_reaches_the_bound_without_positive_curvature():
    """A concave function gives no curvature pair; the steps grow until x is at the bound."""
    x = tf.fill([3], 0.4)
    optimizer = lbfgs()
    state = optimizer.init(x)
    for _ in range(12):
        x, state, _ = optimizer.step(evaluation(lambda x: -tf.reduce_sum(x**2)), x, state)
        assert (state.rho.numpy() == 0).all()
    assert x.numpy() == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_lbfgs_recovers_from_a_loss_that_is_not_finite(bad):
    """The loss is not finite if a component exceeds 0.6; the minimum is at 0.55."""

    def loss(x):
        return tf.where(tf.reduce_max(x) > 0.6, bad, tf.reduce_sum((x - 0.55) ** 2))

    x = tf.constant([0.1, 0.2, 0.3])
    optimizer = lbfgs()
    state = optimizer.init(x)
    for _ in range(40):
        x, state, _ = optimizer.step(evaluation(loss), x, state)
    assert float(state.loss) < 1e-6
    assert np.isfinite(state.point).all()


def test_lbfgs_rejects_worse_points_and_discards_the_pairs_at_the_third():
    calls = iter([1.0, 0.5, 9.0, 8.0, 7.0, 0.4])
    optimizer = lbfgs()
    x = tf.fill([4], 0.5)
    state = optimizer.init(x)
    trials = []
    for loss in calls:
        trials.append((x.numpy(), state))
        slope = tf.constant([0.1, -0.2, 0.3, 0.1]) * (1.0 if loss == 1.0 else 0.5)
        x, state, _ = optimizer.step(lambda x, f=loss, g=slope: ({"total": tf.constant(f)}, g), x, state)
    best = trials[2][1].point
    lengths = [np.linalg.norm(x - best) for x, _ in trials[2:5]]
    assert 0.05 <= lengths[1] / lengths[0] <= 0.51
    assert 0.05 <= lengths[2] / lengths[1] <= 0.51
    assert float(trials[2][1].rho[0]) > 0
    assert (trials[5][1].rho.numpy() == 0).all()
    assert np.array_equal(trials[5][1].point, best)
    assert float(state.loss) == pytest.approx(0.4)


def slow_fixed_steps(gradient_of, start, steps, history=100, learning_rate=1.0, unit=1.0):
    """Return the iterates of L-BFGS with fixed steps; the inverse Hessian is a dense matrix."""
    x, pairs, iterates = np.array(start, np.float64), [], []
    before = move = np.zeros_like(x)
    identity = np.eye(x.size)
    for count in range(steps):
        gradient = gradient_of(x)
        if count:
            change = gradient - before
            if change @ move > 1e-10:
                pairs = [*pairs, (move, change)][-history:]
        inverse = identity * unit**2
        if pairs:
            s, y = pairs[-1]
            inverse = identity * (y @ s) / (y @ y)
        for s, y in pairs:
            projection = identity - np.outer(y, s) / (y @ s)
            inverse = projection.T @ inverse @ projection + np.outer(s, s) / (y @ s)
        direction = -inverse @ gradient
        length = learning_rate * (1.0 if count else min(1.0, 1 / np.abs(unit * gradient).sum()))
        move = np.zeros_like(x) if gradient @ direction > -1e-9 else length * direction
        before = gradient
        x = x + move
        iterates.append(x)
    return np.array(iterates)


def bumps(x):
    """A function that is concave at the origin, so that the first pairs are not stored."""
    return tf.reduce_sum(tf.cos(3 * x) + 0.1 * x**2)


def bowl(x):
    return 0.5 * tf.reduce_sum(tf.constant(np.logspace(-1, 1, 8), tf.float32) * (x - 1) ** 2)


def trajectory(optimizer, function, start, steps, compile="graph"):
    x = tf.constant(start, tf.float32)
    state, iterates = optimizer.init(x), []
    step = make_step(lambda x, _: {"total": function(x)}, optimizer, compile=compile)
    for _ in range(steps):
        x, state, _ = step(x, state, 0)
        iterates.append(x.numpy())
    return np.array(iterates)


#: `lbfgs_fixed_step` without bounds and with a unit of 1, as in torch.
as_in_torch = functools.partial(lbfgs_fixed_step, low=-math.inf, high=math.inf, unit=1.0)


@pytest.mark.parametrize(
    ("function", "gradient", "start", "steps"),
    [
        (bowl, lambda x: np.logspace(-1, 1, 8) * (x - 1), np.linspace(-1, 2, 8), 20),
        (rosenbrock, scipy.optimize.rosen_der, [0.5, 0.8, 0.2, 0.6], 15),
        (rosenbrock, scipy.optimize.rosen_der, [-0.3, 0.2], 10),
        (bumps, lambda x: -3 * np.sin(3 * x) + 0.2 * x, [0.1, -0.2, 0.3], 4),
    ],
    ids=["bowl", "rosenbrock 4", "rosenbrock 2", "bumps"],
)
@pytest.mark.parametrize(
    "options",
    [{}, {"history": 3, "learning_rate": 0.5}, {"history": 1, "unit": 0.1}, {"history": 5, "unit": 3.0}],
    ids=str,
)
def test_fixed_steps_are_those_of_the_dense_formula(function, gradient, start, steps, options):
    # 20 pairs are as many as the steps use, and make a smaller graph than 100.
    ours = trajectory(as_in_torch(**({"history": 20} | options)), function, start, steps)
    truth = slow_fixed_steps(gradient, start, steps, **options)
    for i in range(steps):
        assert reference.relative_error(ours[i], truth[i]) < 2e-3, i


#: Computed with torch 2.13, float64: torch.optim.LBFGS([x], lr, max_iter=30, max_eval=300, tolerance_grad=-1,
#: history_size) on `rosenbrock` and `bumps`; number of moves -> x. Two calls with the default max_iter of 20
#: gave the same x after 20 and 40 moves.
TORCH = [
    (rosenbrock, [0.5, 0.8, 0.2, 0.6], 3, 0.5, {
        1: [0.591313, 0.594011, 0.310563, 0.507864],
        2: [0.639782, 0.554678, 0.359779, 0.437102],
        5: [0.756155, 0.588003, 0.421513, 0.227309],
        10: [0.804477, 0.648218, 0.418647, 0.171649],
        20: [0.942233, 0.886780, 0.778396, 0.593558],
    }),
    (rosenbrock, [0.5, 0.8, 0.2, 0.6], 100, 1.0, {
        1: [0.682626, 0.388022, 0.421125, 0.415729],
        2: [0.659237, 0.456095, 0.408093, 0.353512],
        5: [0.779475, 0.604135, 0.363513, 0.125465],
        10: [1.287093, 1.474674, 1.539700, 1.210199],
        20: [0.947581, 0.902045, 0.806965, 0.640580],
    }),
    (bumps, [0.1, -0.2, 0.3], 5, 1.0, {
        1: [0.280141, -0.543818, 0.776041],
        2: [2.458886, -3.429537, 2.800858],
        3: [4.691598, -3.456235, 4.865910],
    }),
]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "start", "history", "learning_rate", "expected"), TORCH, ids=["history 3", "100", "bumps"]
)
def test_fixed_steps_are_those_of_pytorch(function, start, history, learning_rate, expected):
    ours = trajectory(as_in_torch(history, learning_rate), function, start, max(expected))
    for count, x in expected.items():
        assert ours[count - 1] == pytest.approx(x, rel=5e-4), count


def test_fixed_steps_in_another_unit_are_those_of_the_rescaled_problem():
    """`bumps` is used because its first pairs are not stored, so that several steps depend on the unit."""
    start = np.array([0.1, -0.2, 0.3])
    scaled = trajectory(as_in_torch(5, unit=0.25), bumps, start, 4)
    rescaled = trajectory(as_in_torch(5), lambda z: bumps(0.25 * z), start / 0.25, 4)
    assert scaled == pytest.approx(0.25 * rescaled, rel=1e-4)


@pytest.mark.parametrize(("curvature", "stored"), [(5e-3, 0), (5e-2, 1)])
def test_fixed_steps_store_no_pair_with_small_curvature(curvature, stored):
    """The first move is minus the gradient of 1e-4, so that y·s is 1e-8 times the curvature."""
    x = tf.zeros([1])
    optimizer = as_in_torch(3)
    state = optimizer.init(x)
    for _ in range(2):
        before = x
        evaluate = evaluation(lambda x: tf.reduce_sum(1e-4 * x + 0.5 * curvature * x**2))
        x, state, _ = optimizer.step(evaluate, x, state)
    assert (state.rho.numpy() > 0).sum() == stored
    slope = 1e-4 * (1 - curvature)
    assert float(before[0] - x[0]) == pytest.approx(slope / curvature if stored else slope, rel=1e-3)


@pytest.mark.parametrize(("slope", "moves"), [(3.1e-5, False), (3.3e-5, True)])
def test_fixed_steps_move_from_a_slope_of_1e_9(slope, moves):
    x = tf.zeros([1])
    optimizer = as_in_torch(3)
    x, _, _ = optimizer.step(evaluation(lambda x: slope * tf.reduce_sum(x)), x, optimizer.init(x))
    assert (float(x[0]) != 0) is moves


def test_fixed_steps_stay_at_a_minimum():
    x = tf.constant([1.0, 1.0 + 1e-6])
    optimizer = as_in_torch(3)
    state = optimizer.init(x)
    for _ in range(3):
        moved, state, _ = optimizer.step(evaluation(lambda x: tf.reduce_sum((x - 1) ** 2)), x, state)
        assert np.array_equal(moved, x)
    assert not state.rho.numpy().any()


def test_fixed_steps_store_the_clipped_move():
    start = tf.constant([0.9, 0.5])
    optimizer = lbfgs_fixed_step(3, unit=1.0)
    x, state, _ = optimizer.step(
        evaluation(lambda x: tf.reduce_sum(x * [-1.0, 0.25])), start, optimizer.init(start)
    )
    assert x.numpy() == pytest.approx([1.0, 0.3])
    assert state.move.numpy() == pytest.approx([0.1, -0.2])


def test_only_lbfgs_with_a_line_search_recovers_from_a_loss_that_is_not_finite():
    assert not lbfgs_fixed_step().recovers
    assert lbfgs().recovers


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_average_is_the_sum_of_its_definition(decay):
    """The EMA is of the initial image and all iterates, with weights of the decay to the power of the age."""
    inner, outer = adam(0.1), averaged(adam(0.1), decay)
    evaluate = evaluation(lambda x: tf.reduce_sum((x - 0.3) ** 2))
    x = inner_x = tf.constant(make_image(4, 5)[None])
    state, inner_state = outer.init(x), inner.init(x)
    assert np.array_equal(outer.solution(x, state), x)
    iterates = [x.numpy().astype(np.float64)]
    for _ in range(12):
        x, state, terms = outer.step(evaluate, x, state)
        inner_x, inner_state, inner_terms = inner.step(evaluate, inner_x, inner_state)
        assert np.array_equal(x, inner_x)
        assert float(terms["total"]) == float(inner_terms["total"])
        iterates.append(x.numpy().astype(np.float64))
        total = sum((1 - decay) * decay**age * past for age, past in enumerate(reversed(iterates)))
        expected = total / (1 - decay ** len(iterates))
        assert outer.solution(x, state).numpy() == pytest.approx(expected, abs=1e-6)


def test_the_average_is_of_the_points_that_a_line_search_accepted():
    """Three of six trial points are rejected; the point before them counts once more for each of them."""
    losses = [1.0, 0.5, 9.0, 8.0, 7.0, 0.4]
    inner, outer = lbfgs(), averaged(lbfgs(), 0.8)
    x = tf.fill([4], 0.5)
    state, points = outer.init(x), [x.numpy()]
    for loss in losses:
        slope = tf.constant([0.1, -0.2, 0.3, 0.1]) * (1.0 if loss == 1.0 else 0.5)
        x, state, _ = outer.step(lambda x, f=loss, g=slope: ({"total": tf.constant(f)}, g), x, state)
        points.append(inner.solution(x, state.inner).numpy())
    assert np.array_equal(points[3], points[2])
    weights = 0.8 ** np.arange(len(points))[::-1]
    expected = np.average(points, axis=0, weights=weights)
    assert outer.solution(x, state).numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_average_stays_within_bounds(value, decay):
    optimizer = averaged(adam(), decay)
    x = tf.fill([3], value)
    state = optimizer.init(x)
    for _ in range(50):
        x, state, _ = optimizer.step(evaluation(lambda x: tf.reduce_sum((x - value) ** 2)), x, state)
        assert np.array_equal(optimizer.solution(x, state), x)


def test_an_averaged_optimizer_has_the_properties_of_the_wrapped_optimizer():
    keras_sgd = from_keras(keras.optimizers.SGD(0.1))
    for optimizer in (adam(), lbfgs(), lbfgs_fixed_step(), keras_sgd):
        outer = averaged(optimizer, 0.9)
        assert outer.recovers is optimizer.recovers
        assert outer.traceable is optimizer.traceable
        assert (outer.resize is None) is (optimizer.resize is None)
    x = tf.fill([2], 0.5)
    outer = averaged(keras_sgd, 0.5)
    x, state, _ = outer.step(evaluation(tf.reduce_sum), x, outer.init(x))
    assert outer.solution(x, state).numpy() == pytest.approx((0.5 * 0.5 + 0.4) / 1.5)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2, math.nan, math.inf])
def test_a_decay_is_from_0_to_below_1(decay):
    with pytest.raises(ConfigError, match=rf"decay is {re.escape(repr(decay))}.* 0 .* 1\b"):
        averaged(adam(), decay)


def slow_bilinear(image, shape):
    """Resize ``[height, width, channels]`` with pixel centres at half integers and edge values repeated."""
    out = np.zeros((*shape, image.shape[-1]))
    for row in range(shape[0]):
        for column in range(shape[1]):
            total = 0.0
            y = np.clip((row + 0.5) * image.shape[0] / shape[0] - 0.5, 0, image.shape[0] - 1)
            x = np.clip((column + 0.5) * image.shape[1] / shape[1] - 0.5, 0, image.shape[1] - 1)
            for i in range(image.shape[0]):
                for j in range(image.shape[1]):
                    total = total + max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j)) * image[i, j]
            out[row, column] = total
    return out


@pytest.mark.parametrize("shape", [(8, 10), (6, 7), (4, 5), (3, 4)])
def test_adams_moments_are_carried_over_to_another_size(shape):
    optimizer = adam(0.1)
    x = tf.constant(make_image(4, 5)[None])
    state = optimizer.init(x)
    weights = make_image(4, 5, 3)[None] - 0.5
    for _ in range(3):
        x, state, _ = optimizer.step(evaluation(lambda x: tf.reduce_sum(weights * x**2)), x, state)
    carried = optimizer.resize(state, shape)
    assert carried.first[0].numpy() == pytest.approx(slow_bilinear(state.first[0].numpy(), shape), abs=1e-6)
    assert carried.second[0].numpy() == pytest.approx(slow_bilinear(state.second[0].numpy(), shape), abs=1e-6)
    assert carried.second.numpy().min() >= 0
    assert float(carried.count) == 3

    larger = tf.constant(make_image(*shape)[None])
    moved, after, _ = optimizer.step(evaluation(lambda x: tf.reduce_sum(x**2)), larger, carried)
    assert moved.shape == larger.shape
    assert float(after.count) == 4


def test_an_average_restarts_at_another_size():
    optimizer = averaged(adam(0.1), 0.9)
    evaluate = evaluation(lambda x: tf.reduce_sum((x - 0.3) ** 2))
    x = tf.constant(make_image(4, 5)[None])
    state = optimizer.init(x)
    for _ in range(3):
        x, state, _ = optimizer.step(evaluate, x, state)
    carried = optimizer.resize(state, (8, 9))
    for array, expected in zip(carried.inner, adam(0.1).resize(state.inner, (8, 9)), strict=True):
        assert np.array_equal(array, expected)
    larger = tf.constant(make_image(8, 9)[None])
    assert np.array_equal(optimizer.solution(larger, carried), larger)
    moved, after, _ = optimizer.step(evaluate, larger, carried)
    expected = (0.9 * larger + moved) / 1.9
    assert optimizer.solution(moved, after).numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_curvature_is_not_carried_over_to_another_size():
    for optimizer in (
        lbfgs(),
        lbfgs_fixed_step(),
        averaged(lbfgs(), 0.9),
        from_keras(keras.optimizers.SGD(0.1)),
    ):
        assert optimizer.resize is None


@pytest.mark.parametrize(
    "make",
    [
        adam,
        lambda: lbfgs(3),
        lambda: as_in_torch(3, 0.5),
        lambda: averaged(adam(), 0.9),
        lambda: averaged(lbfgs(3), 0.9),
    ],
    ids=["adam", "lbfgs", "lbfgs_fixed_step", "averaged adam", "averaged lbfgs"],
)
def test_steps_are_the_same_however_compiled(make):
    start, target = make_image(5, 6, 1)[None], make_image(5, 6, 2)[None]
    results = []
    for compile, chunk in (("eager", 1), ("graph", 1), ("xla", 1), ("graph", 4)):
        optimizer = make()
        x = tf.constant(start)
        state = optimizer.init(x)
        step = make_step(
            lambda x, target: {"total": tf.reduce_sum((x - target) ** 4)},
            optimizer,
            compile=compile,
            steps=chunk,
        )
        for _ in range(8 // chunk):
            x, state, _ = step(x, state, tf.constant(target))
        results.append((x.numpy(), optimizer.solution(x, state).numpy()))
    for x, solution in results[1:]:
        assert reference.relative_error(x, results[0][0]) < 1e-5
        assert reference.relative_error(solution, results[0][1]) < 1e-5


PURE = {
    "adam": adam(),
    "lbfgs": lbfgs(),
    "lbfgs_fixed_step": lbfgs_fixed_step(5),
    "averaged": averaged(adam(), 0.9),
}


@pytest.mark.parametrize("optimizer", PURE.values(), ids=PURE)
def test_steps_are_pure(optimizer):
    """The same input gives the same output twice, and the input does not change."""
    x = tf.constant(make_image(4, 4)[None])
    state = optimizer.init(x)
    evaluate = evaluation(lambda x: tf.reduce_sum((x - 0.3) ** 2))
    for _ in range(3):
        before = [np.array(t) for t in tf.nest.flatten((x, state))]
        first, second = (optimizer.step(evaluate, x, state) for _ in range(2))
        for a, b in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True):
            assert np.array_equal(a, b)
        for a, b in zip(before, tf.nest.flatten((x, state)), strict=True):
            assert np.array_equal(a, b)
        x, state, _ = first


@pytest.mark.parametrize(
    "optimizer",
    [adam(0.1), lbfgs(), lbfgs_fixed_step(5, low=0.0, high=1.0), from_keras(keras.optimizers.SGD(0.4))],
)
def test_the_image_stays_within_bounds(optimizer):
    x = tf.constant(make_image(4, 4)[None])
    state = optimizer.init(x)
    for _ in range(20):
        x, state, _ = optimizer.step(evaluation(lambda x: tf.reduce_sum((x - 3.0) ** 2)), x, state)
        assert x.numpy().min() >= 0
        assert x.numpy().max() <= 1
    assert x.numpy() == pytest.approx(1.0, abs=1e-6)


def test_keras_optimizers_move_as_keras_does():
    start = make_image(3, 3)[None] * 0.5 + 0.2
    optimizer = from_keras(keras.optimizers.SGD(0.01, momentum=0.9))
    x = tf.constant(start)
    state = optimizer.init(x)
    velocity, expected = 0.0, start.astype(np.float64)
    for _ in range(5):
        velocity = 0.9 * velocity - 0.01 * 2 * (expected - 0.4)
        expected = expected + velocity
        x, state, _ = optimizer.step(evaluation(lambda x: tf.reduce_sum((x - 0.4) ** 2)), x, state)
    assert x.numpy() == pytest.approx(expected, abs=1e-6)


def test_keras_optimizers_restart_at_every_init():
    optimizer = from_keras(keras.optimizers.Adam(0.1))
    results = []
    for _ in range(2):
        x = tf.fill([2], 0.5)
        state = optimizer.init(x)
        for _ in range(3):
            x, state, _ = optimizer.step(evaluation(lambda x: tf.reduce_sum(x**2)), x, state)
        results.append(x.numpy())
    assert np.array_equal(*results)


@pytest.mark.parametrize("make", [lbfgs, lbfgs_fixed_step])
@pytest.mark.parametrize("history", [0, 101])
def test_lbfgs_keeps_one_to_a_hundred_pairs(history, make):
    with pytest.raises(ConfigError, match=rf"history is {history}\b.* 1 to 100\b"):
        make(history)


def test_something_else_is_no_optimizer():
    with pytest.raises(ConfigError, match=r"function.*tfstyle Optimizer.*keras\.optimizers\.Optimizer"):
        from_keras(lambda x: x)


@pytest.mark.weights
@pytest.mark.slow
def test_lbfgs_keeps_up_with_scipy_on_style_transfer(data):
    """After 50 and 100 evaluations from the content image, the loss is at most 5% above SciPy's L-BFGS-B."""
    images = [
        tf.constant(load(data / "images" / name).fitted(96).rgb[None])
        for name in ("tubingen.jpg", "starry_night_google.jpg")
    ]
    layers = ("conv1_1", "conv2_1", "conv3_1", "conv3_4")
    encoder = Encoder((*layers, "conv3_3"), data / "weights" / "vgg19_imagenet_block1-3.npz")
    objective = Objective(
        encoder.features,
        {"conv3_3": 1.0},
        style_layers=dict.fromkeys(layers, 0.25),
        content_weight=0.03,
        style_weight=1.0,
        tv_weight=0.1,
    )
    targets = objective.targets(images[0], [objective.style_summary(image) for image in images[1:]])
    evaluate = tf.function(lambda x: value_and_gradient(objective, x, targets=targets))

    optimizer = lbfgs(10)
    step = tf.function(lambda x, state: optimizer.step(evaluate, x, state))
    x, losses = images[0], []
    state = optimizer.init(x)
    for _ in range(100):
        x, state, _ = step(x, state)
        losses.append(float(state.loss))

    scipy_losses = []

    def function(flat):
        terms, gradient = evaluate(tf.constant(flat.reshape(images[0].shape), tf.float32))
        scipy_losses.append(min([float(terms["total"]), *scipy_losses[-1:]]))
        return float(terms["total"]), gradient.numpy().astype(np.float64).ravel()

    start = images[0].numpy().astype(np.float64).ravel()
    bounds = scipy.optimize.Bounds(np.zeros_like(start), np.ones_like(start))
    options = {"maxfun": 120, "maxiter": 120, "maxcor": 10, "ftol": 0, "gtol": 0}
    scipy.optimize.minimize(function, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    for count in (50, 100):
        assert losses[count - 1] <= 1.05 * scipy_losses[count - 1], count
    assert reference.relative_error(x, images[0]) > 0.01

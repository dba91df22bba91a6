"""`tfstyle.addons` against slow NumPy with Keras 2 and 3, and against tensorflow-addons with Keras 2."""

import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tfstyle import StyleConfig, addons, cli, config, stylize
from tfstyle.backend import KERAS_2
from tfstyle.errors import ConfigError
from tfstyle.optim import from_keras

AVAILABLE = addons.version() is not None
#: Optimisers that can be made: all with tensorflow-addons, otherwise those that Keras has too.
USABLE = sorted(addons.CLASSES) if AVAILABLE else ["adamw", "lamb", "lazyadam", "proximaladagrad", "sgdw"]
only_with_addons = pytest.mark.skipif(not AVAILABLE, reason="tensorflow-addons is not available")
FAST = {"size": 32, "scales": 1, "iterations": 12, "compile": "graph", "precision": "float32"}
LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}


@pytest.fixture
def without_addons(monkeypatch):
    """Hide tensorflow-addons, so that its replacements are tested."""
    monkeypatch.setattr(addons, "_load", lambda: (None, "it is hidden by a test"))


def images(height=9, width=12, channels=3, seed=0):
    return np.random.default_rng(seed).random((2, height, width, channels)).astype("f4")


# Availability


def test_it_is_available_with_keras_2_and_otherwise_the_reason_is_one_line():
    assert (addons.why_not() is None) == AVAILABLE == KERAS_2
    if AVAILABLE:
        assert addons.version() == "0.23.0"
    else:
        reason = addons.why_not()
        assert re.search(
            rf"Keras {re.escape(keras.__version__)}.* 3\.10 or 3\.11 .*tfstyle\[addons\]", reason
        )
        assert "\n" not in reason


def test_a_package_that_is_not_installed_is_a_reason_too(monkeypatch):
    monkeypatch.setattr(keras, "__version__", "2.15.0")
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)
    addons._load.cache_clear()
    try:
        assert re.search(r"Python 3\.\d+.*tensorflow_addons.*tfstyle\[addons\]", addons.why_not())
        assert addons.version() is None
    finally:
        addons._load.cache_clear()


def test_keras_is_not_changed():
    """The modules of Keras 2 that tensorflow-addons imports are not faked."""
    assert AVAILABLE or not any(name.startswith("keras.src.engine") for name in sys.modules)


def test_info_prints_the_version_or_the_reason(capsys):
    assert cli.main(["info"]) == 0
    (line,) = [text for text in capsys.readouterr().out.splitlines() if text.startswith("tensorflow-addons ")]
    assert line.split(maxsplit=1)[1] == ("0.23.0" if AVAILABLE else f"none: {addons.why_not()}")


def test_it_is_imported_only_when_it_is_used():
    code = "import sys, tfstyle; assert 'keras' not in sys.modules; tfstyle.addons.why_not()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_names_in_the_config_are_those_in_the_module():
    assert tuple(addons.CLASSES) == config.ADDONS


# Filters


def blurred(image, shape, sigma, mode, constant=0.0):
    """Return the weighted mean around each pixel, from the definition of the filter, in float64."""
    rows, columns = ((n - 1) // 2 for n in shape)
    pads = [(0, 0), (rows, shape[0] - 1 - rows), (columns, shape[1] - 1 - columns), (0, 0)]
    extra = {"constant_values": constant} if mode == "constant" else {}
    wide = np.pad(image.astype(np.float64), pads, mode, **extra)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    kernel = np.exp(-0.5 * (((y - rows) / sigma[0]) ** 2 + ((x - columns) / sigma[1]) ** 2))
    kernel /= kernel.sum()
    height, width = image.shape[1:3]
    parts = [
        kernel[i, j] * wide[:, i : i + height, j : j + width]
        for i in range(shape[0])
        for j in range(shape[1])
    ]
    return sum(parts)


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (1, 7), (4, 6)])
@pytest.mark.parametrize(
    ("padding", "mode"), [("REFLECT", "reflect"), ("SYMMETRIC", "symmetric"), ("CONSTANT", "constant")]
)
def test_gaussian_filter2d(shape, padding, mode):
    """The tolerance 1e-6 is that of float32 sums of this size."""
    result = addons.gaussian_filter2d(
        tf.constant(images()), shape, sigma=(1.3, 0.7), padding=padding, constant_values=0.25
    )
    expected = blurred(images(), shape, (1.3, 0.7), mode, 0.25)
    assert reference.relative_error(result, expected) < 1e-6


@only_with_addons
@pytest.mark.parametrize("padding", ["REFLECT", "SYMMETRIC", "CONSTANT"])
def test_gaussian_filter2d_and_its_replacement_equal_tensorflow_addons(padding, monkeypatch):
    """Both equal the two-dimensional filter of tensorflow-addons within 1e-6."""
    import tensorflow_addons as tfa

    expected = tfa.image.gaussian_filter2d(images(), (5, 3), (1.5, 0.8), padding, 0.5)
    for hidden in (False, True):
        if hidden:
            monkeypatch.setattr(addons, "_load", lambda: (None, "it is hidden by a test"))
        result = addons.gaussian_filter2d(
            tf.constant(images()), (5, 3), sigma=(1.5, 0.8), padding=padding, constant_values=0.5
        )
        assert reference.relative_error(result, expected) < 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_gaussian_filter2d_keeps_type_and_shape_in_a_graph(dtype):
    image = tf.cast(images(), dtype)
    function = tf.function(lambda x: addons.gaussian_filter2d(x, (3, 3), sigma=1.0), autograph=False)
    spec = tf.TensorSpec([None, None, 12, 3], dtype)
    assert function.get_concrete_function(spec).structured_outputs.shape.as_list() == [None, None, 12, 3]
    result = function(image)
    assert result.dtype == image.dtype
    expected = blurred(tf.cast(image, tf.float32).numpy(), (3, 3), (1.0, 1.0), "reflect")
    # The precision of bfloat16 is 2^-8.
    assert reference.relative_error(tf.cast(result, tf.float32), expected) < 8e-3


def test_gaussian_filter2d_has_its_adjoint_for_gradient():
    """With zeros beyond the border the blur B is symmetric, so the gradient of <u, B x> is B u."""
    u = tf.constant(images(seed=1))
    with tf.GradientTape() as tape:
        x = tf.constant(images())
        tape.watch(x)
        total = tf.reduce_sum(u * addons.gaussian_filter2d(x, (5, 5), sigma=1.2, padding="CONSTANT"))
    expected = blurred(u.numpy(), (5, 5), (1.2, 1.2), "constant")
    assert reference.relative_error(tape.gradient(total, x), expected) < 1e-6


@pytest.mark.parametrize(("shape", "sigma"), [((0, 3), 1.0), ((3, 3), 0.0), ((3, 3), (1.0, -1.0))])
def test_gaussian_filter2d_refuses(shape, sigma):
    with pytest.raises(ConfigError, match=rf"{re.escape(str(shape))}.*{re.escape(str(sigma))}.*above 0"):
        addons.gaussian_filter2d(tf.constant(images()), shape, sigma=sigma)


def warped(image, flow):
    """Interpolate bilinearly pixel by pixel, with the nearest pixel beyond the border."""
    batch, height, width, _ = image.shape
    out = np.zeros(image.shape)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                v = min(max(y - flow[b, y, x, 0], 0.0), height - 1.0)
                u = min(max(x - flow[b, y, x, 1], 0.0), width - 1.0)
                top, left = min(int(v), height - 2), min(int(u), width - 2)
                for i in (0, 1):
                    for j in (0, 1):
                        share = (1 - abs(v - top - i)) * (1 - abs(u - left - j))
                        out[b, y, x] += share * image[b, top + i, left + j]
    return out


@pytest.mark.parametrize("scale", [0.4, 6.0])  # inside the image, and far beyond its border
def test_dense_image_warp(scale):
    flow = np.random.default_rng(2).normal(0, scale, (2, 9, 12, 2)).astype("f4")
    result = addons.dense_image_warp(tf.constant(images()), tf.constant(flow))
    assert reference.relative_error(result, warped(images(), flow)) < 1e-5
    function = tf.function(addons.dense_image_warp, autograph=False)
    assert reference.relative_error(function(tf.constant(images()), tf.constant(flow)), result) < 1e-6


def test_dense_image_warp_by_whole_pixels_moves_the_image():
    """A flow of (2, -1) moves the image down by two pixels and to the left by one."""
    image = images()
    flow = np.broadcast_to(np.float32([2, -1]), (2, 9, 12, 2))
    moved = addons.dense_image_warp(tf.constant(image), tf.constant(flow)).numpy()
    assert np.allclose(moved[:, 2:, :-1], image[:, :-2, 1:], atol=1e-6)


def test_dense_image_warp_is_differentiable_in_both():
    """Central differences of slow NumPy, away from whole pixels, at which the interpolation has kinks."""
    image, generator = images(5, 6, 1)[:1].astype(np.float64), np.random.default_rng(3)
    flow = generator.integers(-1, 2, (1, 5, 6, 2)) + generator.uniform(0.2, 0.8, (1, 5, 6, 2))
    u, flow_direction = generator.normal(size=image.shape), generator.normal(size=(*flow.shape,))
    with tf.GradientTape() as tape:
        x, f = tf.constant(image, tf.float32), tf.constant(flow, tf.float32)
        tape.watch((x, f))
        total = tf.reduce_sum(addons.dense_image_warp(x, f) * tf.constant(u, tf.float32))
    image_gradient, flow_gradient = tape.gradient(total, (x, f))
    step = 1e-4
    ahead, behind = ((warped(image, flow + s * step * flow_direction) * u).sum() for s in (1, -1))
    assert float(tf.reduce_sum(flow_gradient * flow_direction)) == pytest.approx(
        (ahead - behind) / (2 * step), rel=1e-3
    )
    image_direction = generator.normal(size=image.shape)  # the result is linear in the image
    assert float(tf.reduce_sum(image_gradient * image_direction)) == pytest.approx(
        (warped(image_direction, flow) * u).sum(), rel=1e-4
    )


@pytest.mark.skipif(not KERAS_2, reason="dense_image_warp uses Keras 3")
def test_dense_image_warp_without_keras_3_and_addons_names_both(without_addons):
    with pytest.raises(ConfigError, match=r"dense_image_warp .*Keras 3 or tensorflow-addons; .*hidden"):
        addons.dense_image_warp(tf.constant(images()), tf.zeros((2, 9, 12, 2)))


def test_instance_normalization():
    x = images()
    layer = addons.instance_normalization(epsilon=1e-3)
    centred = x - x.mean((1, 2), keepdims=True)
    expected = centred / np.sqrt((centred.astype(np.float64) ** 2).mean((1, 2), keepdims=True) + 1e-3)
    assert reference.relative_error(layer(tf.constant(x)), expected) < 1e-5
    assert [tuple(w.shape) for w in layer.trainable_weights] == [(3,), (3,)]
    assert addons.instance_normalization(center=False, scale=False)(tf.constant(x)).shape == x.shape


@only_with_addons
def test_instance_normalization_equals_tensorflow_addons():
    import tensorflow_addons as tfa

    expected = tfa.layers.InstanceNormalization()(images())
    assert reference.relative_error(addons.instance_normalization()(tf.constant(images())), expected) < 1e-5


# Optimisers


def steps_of(optimizer, x, number=6):
    """Return x after some steps of a Keras optimiser with the loss Σ (x - 0.3)⁴."""
    adapted = from_keras(optimizer, low=-10.0, high=10.0)
    image, state = tf.constant(x), adapted.init(tf.constant(x))
    for _ in range(number):
        image, state, _ = adapted.step(
            lambda z: ({"total": tf.reduce_sum((z - 0.3) ** 4)}, 4 * (z - 0.3) ** 3), image, state
        )
    return adapted.solution(image, state).numpy()


def adam_moments(g, t, m, v, betas):
    """Return Adam's moments after step t, and the moments with bias correction."""
    m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
    return m, v, m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)


def reference_steps(name, x, rate, betas=(0.9, 0.999), number=6, decay=1e-4):
    """Return x after some steps of an optimiser, from the algorithm in its paper, in float64."""
    x = x.astype(np.float64)
    m, v, accumulated = np.zeros_like(x), np.zeros_like(x), np.full_like(x, 0.1)
    for t in range(1, number + 1):
        g = 4 * (x - 0.3) ** 3
        if name in ("adamw", "sgdw"):  # Loshchilov, Hutter 2019
            x = x - decay * x
        if name == "sgdw":
            x = x - rate * g
            continue
        if name == "proximaladagrad":  # Duchi et al. 2011, without the regularisation
            accumulated = accumulated + g * g
            x = x - rate * g / np.sqrt(accumulated)
            continue
        m, v, mean, square = adam_moments(g, t, m, v, betas)
        if name == "lamb":  # You et al. 2020, algorithm 2, without weight decay
            r = mean / (np.sqrt(square) + 1e-6)
            x = x - rate * np.linalg.norm(x) / np.linalg.norm(r) * r
        else:  # Kingma, Ba 2015, with ε as in the form at the end of section 2
            x = x - rate * np.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t) * m / (np.sqrt(v) + 1e-7)
    return x


@pytest.mark.parametrize("name", ["adamw", "lamb", "lazyadam", "proximaladagrad", "sgdw"])
@pytest.mark.parametrize("rate", [0.02, 0.5])
def test_optimizers_follow_their_papers(name, rate):
    """In float32 the relative error of 1 - 0.999 is 6e-5, and that of its root 3e-5: the tolerance."""
    x = images()[:1]
    result = steps_of(addons.optimizer(name, rate), x)
    expected = reference_steps(name, x, rate)
    assert reference.relative_error(expected, x) > 1e-5  # the steps change x
    assert reference.relative_error(result, expected) < 3e-5


@only_with_addons
@pytest.mark.parametrize("name", ["adamw", "lazyadam", "proximaladagrad", "sgdw"])
def test_optimizers_of_keras_equal_tensorflow_addons(name, without_addons):
    """Keras 2 has no Lamb; `test_optimizers_follow_their_papers` tests that of Keras 3."""
    import tensorflow_addons as tfa

    extra = {"weight_decay": addons.WEIGHT_DECAY} if name in ("adamw", "sgdw") else {}
    optimizer = getattr(tfa.optimizers, addons.CLASSES[name])(learning_rate=0.1, **extra)
    result = steps_of(addons.optimizer(name, 0.1), images()[:1])
    assert reference.relative_error(result, steps_of(optimizer, images()[:1])) < 1e-5


def test_lookahead_follows_its_paper():
    """Zhang et al. 2019: after six steps of Adam, x is halfway between its first and its last value."""
    if not AVAILABLE:
        with pytest.raises(ConfigError, match=r"addons:lookahead .*tensorflow-addons.*adam, lbfgs"):
            addons.optimizer("lookahead")
        return
    x = images()[:1]
    adam_steps = reference_steps("lazyadam", x, 0.1)
    result = steps_of(addons.optimizer("lookahead", 0.1, sync_period=6, slow_step_size=0.5), x)
    assert reference.relative_error(result, (x + adam_steps) / 2) < 1e-5


@pytest.mark.parametrize("name", sorted(addons.CLASSES))
def test_a_run_with_each_optimizer(name, small_weights, content, style, tmp_path):
    """An available optimiser lowers the loss. The error for another one is one line with an alternative."""
    path = tmp_path / "w.npz"
    np.savez(path, **small_weights.arrays)
    # The step of SGD is proportional to the gradient, and that of normalized_gram is too large for it.
    options = {"style_losses": ("gram",), "style_layer_decay": 1.0, "spectrum_weight": 0.0}
    options |= {**FAST, **LAYERS, "weights": str(path), "optimizer": f"addons:{name}", "init": "noise"}
    if name not in USABLE:
        with pytest.raises(ConfigError, match=rf"^addons:{name} .*tfstyle\[addons\].* or use ") as caught:
            stylize(content, style, **options)
        assert "\n" not in str(caught.value)
        return
    result = stylize(content, style, **options)
    assert result.history.total[-1] < 0.9 * result.history.total[0]
    assert np.isfinite(result.image).all()


@pytest.mark.parametrize("name", USABLE)
def test_a_state_can_be_flattened_and_restored(name):
    """Three steps, a flattened and restored state, and three more steps equal six steps bit for bit."""
    adapted = from_keras(addons.optimizer(name, 0.05), low=-10.0, high=10.0)

    def evaluate(z):
        return {"total": tf.reduce_sum((z - 0.3) ** 4)}, 4 * (z - 0.3) ** 3

    def take_steps(x, state, number):
        for _ in range(number):
            x, state, _ = adapted.step(evaluate, x, state)
        return x, state

    start = tf.constant(images()[:1])
    x, state = take_steps(start, adapted.init(start), 3)
    leaves = [np.array(leaf) for leaf in adapted.flatten(state)]
    resumed, resumed_state = take_steps(x, adapted.restore(adapted.init(x), leaves), 3)
    uninterrupted, last_state = take_steps(x, state, 3)
    assert np.array_equal(resumed, uninterrupted)
    assert np.array_equal(
        adapted.solution(resumed, resumed_state), adapted.solution(uninterrupted, last_state)
    )


@only_with_addons
def test_the_result_of_movingaverage_is_the_average():
    """The EMA with decay 0.5 starts at the first iterate."""
    x = images()[:1]
    iterates = [reference_steps("lazyadam", x, 0.1, number=n) for n in (1, 2, 3)]
    mean = iterates[0]
    for iterate in iterates[1:]:
        mean = 0.5 * mean + 0.5 * iterate
    numbers = {"average_decay": 0.5, "dynamic_decay": False}
    result = steps_of(addons.optimizer("movingaverage", 0.1, **numbers), x, 3)
    assert reference.relative_error(result, mean) < 1e-5


@only_with_addons
@pytest.mark.parametrize("name", ["movingaverage", "swa"])
def test_an_old_state_is_not_changed_by_later_steps(name):
    """The result before a gradient that is not finite is still available."""
    adapted = from_keras(addons.optimizer(name, 0.05), low=-10.0, high=10.0)
    x = tf.constant(images()[:1])
    x, state, _ = adapted.step(lambda z: ({"total": tf.reduce_sum(z)}, z), x, adapted.init(x))
    before = adapted.solution(x, state).numpy()
    adapted.step(lambda z: ({"total": tf.reduce_sum(z)}, z * np.nan), x, state)
    assert np.array_equal(adapted.solution(x, state), before)


@only_with_addons
def test_swa_returns_the_iterate_before_it_averages():
    x = images()[:1]
    result = steps_of(addons.optimizer("swa", 0.1, start_averaging=4), x, 3)
    assert reference.relative_error(result, reference_steps("lazyadam", x, 0.1, number=3)) < 1e-5


def test_a_weight_decay_that_keras_defines_differently_is_refused(without_addons):
    if hasattr(keras.optimizers, "Lamb"):
        with pytest.raises(ConfigError, match=r"addons:lamb .*weight_decay .*Lamb of Keras.*leave it out"):
            addons.optimizer("lamb", weight_decay=0.1)
    assert addons.optimizer("lazyadam", 1).get_config()["learning_rate"] == pytest.approx(1.0)


def test_per_pixel_multiplies_the_gradient_by_the_number_of_pixels():
    x = tf.constant(images()[:1])
    adapted = from_keras(keras.optimizers.SGD(0.001), low=-10.0, high=10.0, per_pixel=True)
    moved, _, _ = adapted.step(lambda z: ({"total": tf.reduce_sum(z)}, z), x, adapted.init(x))
    assert reference.relative_error(moved, x * (1 - 0.001 * 9 * 12)) < 1e-6


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match=r"addons:lam \(did you mean 'lamb'.* adabelief, .*, yogi"):
        addons.optimizer("lam")
    with pytest.raises(ConfigError, match=r"^optimizer .*'addons:lam' \(did you mean 'addons:lamb'.* adam, "):
        StyleConfig(optimizer="addons:lam")


def test_optimizers_on_the_command_line(files, small_file, capsys):
    out = files / "out.png"
    flags = ["--weights", str(small_file), "--size", "32", "--iterations", "4", "--scales", "1"]
    flags += ["--content-layers", "conv2_1", "--style-layers", "conv1_1,conv2_1"]
    paths = [str(files / "content.png"), str(files / "style.png"), "-o", str(out)]
    assert cli.main(["stylize", *paths, *flags, "--optimizer", "addons:lamb"]) == 0
    assert out.is_file()
    assert cli.main(["stylize", *paths, *flags, "--optimizer", "addons:swa", "--overwrite"]) == (
        0 if AVAILABLE else 2
    )
    if not AVAILABLE:
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.search(r"addons:swa .*tfstyle\[addons\].* --ema-decay$", line)

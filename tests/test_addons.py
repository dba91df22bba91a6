"""What is taken from tensorflow-addons or made up for: the same numbers on both stacks, from slow truths."""

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

HERE = addons.version() is not None
#: What can be made here: with tensorflow-addons all, with Keras 3 those that it has too.
USABLE = sorted(addons.CLASSES) if HERE else ["adamw", "lamb", "lazyadam", "proximaladagrad", "sgdw"]
only_with_addons = pytest.mark.skipif(not HERE, reason="tensorflow-addons is not there")
FAST = {"size": 32, "scales": 1, "iterations": 12, "compile": "graph", "precision": "float32"}
LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}


@pytest.fixture
def without_addons(monkeypatch):
    """As where tensorflow-addons does not import: the parts that stand in for it."""
    monkeypatch.setattr(addons, "_load", lambda: (None, "it is hidden"))


def images(height=9, width=12, channels=3, seed=0):
    return np.random.default_rng(seed).random((2, height, width, channels)).astype("f4")


# What is there, and what is said where it is not


def test_it_is_there_with_keras_2_and_else_the_reason_is_one_line():
    assert (addons.why_not() is None) == HERE == KERAS_2
    if HERE:
        assert addons.version() == "0.23.0"
    else:
        assert f"does not import beside Keras {keras.__version__}" in addons.why_not()
        assert "Python 3.10 or 3.11 with tfstyle[addons]" in addons.why_not()
        assert "\n" not in addons.why_not()


def test_a_package_that_is_not_installed_is_a_reason_too(monkeypatch):
    monkeypatch.setattr(keras, "__version__", "2.15.0")
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)
    addons._load.cache_clear()
    try:
        assert addons.why_not().startswith("tensorflow-addons cannot be imported on Python 3.")
        assert "tfstyle[addons]" in addons.why_not()
        assert addons.version() is None
    finally:
        addons._load.cache_clear()


def test_keras_is_left_as_it_is():
    """No module of Keras 2 is made up for tensorflow-addons to find."""
    assert HERE or not any(name.startswith("keras.src.engine") for name in sys.modules)


def test_info_says_so(capsys):
    assert cli.main(["info"]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("tensorflow-addons ")]
    assert line.split(maxsplit=1)[1] == ("0.23.0" if HERE else f"none: {addons.why_not()}")


def test_it_is_loaded_when_it_is_used():
    code = "import sys, tfstyle; assert 'keras' not in sys.modules; tfstyle.addons.why_not()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_options_names_are_the_modules():
    assert tuple(addons.CLASSES) == config.ADDONS


# Filters


def blurred(image, shape, sigma, mode, constant=0.0):
    """Each pixel's weighted mean, by its definition, in float64."""
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
    """Within 1e-6, the project's tolerance for float32 sums of this size."""
    found = addons.gaussian_filter2d(
        tf.constant(images()), shape, sigma=(1.3, 0.7), padding=padding, constant_values=0.25
    )
    truth = blurred(images(), shape, (1.3, 0.7), mode, 0.25)
    assert reference.relative_error(found, truth) < 1e-6


@only_with_addons
@pytest.mark.parametrize("padding", ["REFLECT", "SYMMETRIC", "CONSTANT"])
def test_gaussian_filter2d_is_theirs_and_so_is_what_stands_in(padding, monkeypatch):
    """Both within 1e-6 of tensorflow-addons' one filter in two dimensions."""
    import tensorflow_addons as tfa

    theirs = tfa.image.gaussian_filter2d(images(), (5, 3), (1.5, 0.8), padding, 0.5)
    for hidden in (False, True):
        if hidden:
            monkeypatch.setattr(addons, "_load", lambda: (None, "hidden"))
        found = addons.gaussian_filter2d(
            tf.constant(images()), (5, 3), sigma=(1.5, 0.8), padding=padding, constant_values=0.5
        )
        assert reference.relative_error(found, theirs) < 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_gaussian_filter2d_keeps_type_and_shape_in_a_graph(dtype):
    image = tf.cast(images(), dtype)
    function = tf.function(lambda x: addons.gaussian_filter2d(x, (3, 3), sigma=1.0), autograph=False)
    spec = tf.TensorSpec([None, None, 12, 3], dtype)
    assert function.get_concrete_function(spec).structured_outputs.shape.as_list() == [None, None, 12, 3]
    found = function(image)
    assert found.dtype == image.dtype
    truth = blurred(tf.cast(image, tf.float32).numpy(), (3, 3), (1.0, 1.0), "reflect")
    assert reference.relative_error(tf.cast(found, tf.float32), truth) < 8e-3  # bfloat16 has 8 bits


def test_gaussian_filter2d_has_its_adjoint_for_gradient():
    """Symmetric with zeros beyond the border: <u, B x> = <B u, x>, so the gradient of <u, B x> is B u."""
    u = tf.constant(images(seed=1))
    with tf.GradientTape() as tape:
        x = tf.constant(images())
        tape.watch(x)
        total = tf.reduce_sum(u * addons.gaussian_filter2d(x, (5, 5), sigma=1.2, padding="CONSTANT"))
    truth = blurred(u.numpy(), (5, 5), (1.2, 1.2), "constant")
    assert reference.relative_error(tape.gradient(total, x), truth) < 1e-6


@pytest.mark.parametrize(("shape", "sigma"), [((0, 3), 1.0), ((3, 3), 0.0), ((3, 3), (1.0, -1.0))])
def test_gaussian_filter2d_refuses(shape, sigma):
    with pytest.raises(ConfigError, match="all must be above 0"):
        addons.gaussian_filter2d(tf.constant(images()), shape, sigma=sigma)


def warped(image, flow):
    """Bilinear look-up pixel by pixel, the nearest pixel beyond the border."""
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


@pytest.mark.parametrize("scale", [0.4, 6.0])  # within the picture, and far beyond it
def test_dense_image_warp(scale):
    flow = np.random.default_rng(2).normal(0, scale, (2, 9, 12, 2)).astype("f4")
    found = addons.dense_image_warp(tf.constant(images()), tf.constant(flow))
    assert reference.relative_error(found, warped(images(), flow)) < 1e-5
    function = tf.function(addons.dense_image_warp, autograph=False)
    assert reference.relative_error(function(tf.constant(images()), tf.constant(flow)), found) < 1e-6


def test_dense_image_warp_by_whole_pixels_moves_the_picture():
    """A flow of (2, -1) says that everything came down by two and left by one."""
    image = images()
    flow = np.broadcast_to(np.float32([2, -1]), (2, 9, 12, 2))
    found = addons.dense_image_warp(tf.constant(image), tf.constant(flow)).numpy()
    assert np.allclose(found[:, 2:, :-1], image[:, :-2, 1:], atol=1e-6)


def test_dense_image_warp_is_differentiable_in_both():
    """Against central differences of the truth, away from whole pixels, where it has corners."""
    image, generator = images(5, 6, 1)[:1].astype(np.float64), np.random.default_rng(3)
    flow = generator.integers(-1, 2, (1, 5, 6, 2)) + generator.uniform(0.2, 0.8, (1, 5, 6, 2))
    u, move = generator.normal(size=image.shape), generator.normal(size=(*flow.shape,))
    with tf.GradientTape() as tape:
        x, f = tf.constant(image, tf.float32), tf.constant(flow, tf.float32)
        tape.watch((x, f))
        total = tf.reduce_sum(addons.dense_image_warp(x, f) * tf.constant(u, tf.float32))
    of_image, of_flow = tape.gradient(total, (x, f))
    step = 1e-4
    ahead, behind = ((warped(image, flow + s * step * move) * u).sum() for s in (1, -1))
    assert float(tf.reduce_sum(of_flow * move)) == pytest.approx((ahead - behind) / (2 * step), rel=1e-3)
    other = generator.normal(size=image.shape)  # linear in the image
    assert float(tf.reduce_sum(of_image * other)) == pytest.approx((warped(other, flow) * u).sum(), rel=1e-4)


@pytest.mark.skipif(not KERAS_2, reason="Keras 3 has what it takes")
def test_dense_image_warp_says_what_it_lacks(without_addons):
    with pytest.raises(ConfigError, match="needs Keras 3 or tensorflow-addons; it is hidden"):
        addons.dense_image_warp(tf.constant(images()), tf.zeros((2, 9, 12, 2)))


def test_instance_normalization():
    x = images()
    layer = addons.instance_normalization(epsilon=1e-3)
    centred = x - x.mean((1, 2), keepdims=True)
    truth = centred / np.sqrt((centred.astype(np.float64) ** 2).mean((1, 2), keepdims=True) + 1e-3)
    assert reference.relative_error(layer(tf.constant(x)), truth) < 1e-5
    assert [tuple(w.shape) for w in layer.trainable_weights] == [(3,), (3,)]
    assert addons.instance_normalization(center=False, scale=False)(tf.constant(x)).shape == x.shape


@only_with_addons
def test_instance_normalization_is_theirs():
    """Within 1e-5."""
    import tensorflow_addons as tfa

    theirs = tfa.layers.InstanceNormalization()(images())
    assert reference.relative_error(addons.instance_normalization()(tf.constant(images())), theirs) < 1e-5


# Optimisers


def steps_of(optimizer, x, number=6):
    """A Keras optimiser's way down Σ (x - 0.3)⁴, a loss that is no quadratic."""
    adapted = from_keras(optimizer, low=-10.0, high=10.0)
    image, state = tf.constant(x), adapted.init(tf.constant(x))
    for _ in range(number):
        image, state, _ = adapted.step(
            lambda z: ({"total": tf.reduce_sum((z - 0.3) ** 4)}, 4 * (z - 0.3) ** 3), image, state
        )
    return adapted.solution(image, state).numpy()


def adam_moments(x, g, t, m, v, betas):
    m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
    return m, v, m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)


def truth(name, x, rate, betas=(0.9, 0.999), number=6, decay=1e-4):
    """Their papers' algorithms in float64."""
    x = x.astype(np.float64)
    m, v, accumulated = np.zeros_like(x), np.zeros_like(x), np.full_like(x, 0.1)
    for t in range(1, number + 1):
        g = 4 * (x - 0.3) ** 3
        if name in ("adamw", "sgdw"):  # Loshchilov, Hutter 2019
            x = x - decay * x
        if name == "sgdw":
            x = x - rate * g
            continue
        if name == "proximaladagrad":  # Duchi et al. 2011, without regularisation
            accumulated = accumulated + g * g
            x = x - rate * g / np.sqrt(accumulated)
            continue
        m, v, mean, square = adam_moments(x, g, t, m, v, betas)
        if name == "lamb":  # You et al. 2020, algorithm 2, without decay
            r = mean / (np.sqrt(square) + 1e-6)
            x = x - rate * np.linalg.norm(x) / np.linalg.norm(r) * r
        else:  # Kingma, Ba 2015, the ε of the form before section 2.1
            x = x - rate * np.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t) * m / (np.sqrt(v) + 1e-7)
    return x


@pytest.mark.parametrize("name", ["adamw", "lamb", "lazyadam", "proximaladagrad", "sgdw"])
@pytest.mark.parametrize("rate", [0.02, 0.5])
def test_optimizers_are_the_papers_on_both_stacks(name, rate):
    """Within 3e-5 of the picture: in float32 1 - 0.999 is known to 6e-5, its root to 3e-5."""
    x = images()[:1]
    found = steps_of(addons.optimizer(name, rate), x)
    expected = truth(name, x, rate)
    assert reference.relative_error(expected, x) > 1e-5  # it moves
    assert reference.relative_error(found, expected) < 3e-5


@only_with_addons
@pytest.mark.parametrize("name", ["adamw", "lazyadam", "proximaladagrad", "sgdw"])
def test_what_stands_in_is_tensorflow_addons(name, without_addons):
    """Keras' own beside theirs, within 1e-5. (Keras 2 has no Lamb; the test above has it on Keras 3.)"""
    import tensorflow_addons as tfa

    extra = {"weight_decay": addons.WEIGHT_DECAY} if name in ("adamw", "sgdw") else {}
    theirs = getattr(tfa.optimizers, addons.CLASSES[name])(learning_rate=0.1, **extra)
    found = steps_of(addons.optimizer(name, 0.1), images()[:1])
    assert reference.relative_error(found, steps_of(theirs, images()[:1])) < 1e-5


def test_lookahead_is_the_papers_where_it_is():
    """Zhang et al. 2019: every six steps half-way back to where the last six began."""
    if not HERE:
        with pytest.raises(ConfigError, match="addons:lookahead is in tensorflow-addons alone"):
            addons.optimizer("lookahead")
        return
    x = images()[:1]
    fast = truth("lazyadam", x, 0.1)
    found = steps_of(addons.optimizer("lookahead", 0.1, sync_period=6, slow_step_size=0.5), x)
    assert reference.relative_error(found, (x + fast) / 2) < 1e-5


@pytest.mark.parametrize("name", sorted(addons.CLASSES))
def test_by_name_in_a_run(name, small_weights, content, style, tmp_path):
    """Where it is, it lowers the loss; where not, one line says so and what to use."""
    path = tmp_path / "w.npz"
    np.savez(path, **small_weights.arrays)
    options = {**FAST, **LAYERS, "weights": str(path), "optimizer": f"addons:{name}", "init": "noise"}
    if name not in USABLE:
        with pytest.raises(ConfigError, match=f"^addons:{name} is in tensorflow-addons alone: ") as caught:
            stylize(content, style, **options)
        assert "\n" not in str(caught.value)
        assert "or use " in str(caught.value)
        return
    found = stylize(content, style, **options)
    assert found.history.total[-1] < 0.9 * found.history.total[0]
    assert np.isfinite(found.image).all()


@pytest.mark.parametrize("name", USABLE)
def test_a_state_goes_through_its_leaves(name):
    """Three steps, their state into a fresh one, three more: as six, bit for bit."""
    adapted = from_keras(addons.optimizer(name, 0.05), low=-10.0, high=10.0)

    def evaluate(z):
        return {"total": tf.reduce_sum((z - 0.3) ** 4)}, 4 * (z - 0.3) ** 3

    def go_on(x, state, number):
        for _ in range(number):
            x, state, _ = adapted.step(evaluate, x, state)
        return x, state

    start = tf.constant(images()[:1])
    x, state = go_on(start, adapted.init(start), 3)
    kept = [np.array(leaf) for leaf in adapted.flatten(state)]
    again, end = go_on(x, adapted.restore(adapted.init(x), kept), 3)
    whole, expected = go_on(x, state, 3)
    assert np.array_equal(again, whole)
    assert np.array_equal(adapted.solution(again, end), adapted.solution(whole, expected))


@only_with_addons
def test_a_moving_averages_picture_is_the_average():
    """Of the iterates, by 0.5 here: theirs starts at the first."""
    x = images()[:1]
    fast = [truth("lazyadam", x, 0.1, number=n) for n in (1, 2, 3)]
    mean = fast[0]
    for iterate in fast[1:]:
        mean = 0.5 * mean + 0.5 * iterate
    numbers = {"average_decay": 0.5, "dynamic_decay": False}
    found = steps_of(addons.optimizer("movingaverage", 0.1, **numbers), x, 3)
    assert reference.relative_error(found, mean) < 1e-5


@only_with_addons
@pytest.mark.parametrize("name", ["movingaverage", "swa"])
def test_an_averages_old_state_is_not_spoilt_by_what_comes_after(name):
    """The picture before a loss that is not finite is still there."""
    adapted = from_keras(addons.optimizer(name, 0.05), low=-10.0, high=10.0)
    x = tf.constant(images()[:1])
    x, state, _ = adapted.step(lambda z: ({"total": tf.reduce_sum(z)}, z), x, adapted.init(x))
    before = adapted.solution(x, state).numpy()
    adapted.step(lambda z: ({"total": tf.reduce_sum(z)}, z * np.nan), x, state)
    assert np.array_equal(adapted.solution(x, state), before)


@only_with_addons
def test_swa_gives_the_iterate_until_it_begins():
    x = images()[:1]
    found = steps_of(addons.optimizer("swa", 0.1, start_averaging=4), x, 3)
    assert reference.relative_error(found, truth("lazyadam", x, 0.1, number=3)) < 1e-5


def test_numbers_that_keras_means_otherwise_are_refused(without_addons):
    if hasattr(keras.optimizers, "Lamb"):
        with pytest.raises(ConfigError, match="addons:lamb takes no weight_decay here"):
            addons.optimizer("lamb", weight_decay=0.1)
    assert addons.optimizer("lazyadam", 1).get_config()["learning_rate"] == pytest.approx(1.0)


def test_the_gradient_of_the_losss_pixels_is_handed_on():
    """Times height x width, so that ε and thresholds do not depend on the size."""
    x = tf.constant(images()[:1])
    adapted = from_keras(keras.optimizers.SGD(0.001), low=-10.0, high=10.0, per_pixel=True)
    moved, _, _ = adapted.step(lambda z: ({"total": tf.reduce_sum(z)}, z), x, adapted.init(x))
    assert reference.relative_error(moved, x * (1 - 0.001 * 9 * 12)) < 1e-6


def test_a_name_that_is_none():
    with pytest.raises(ConfigError, match=r"no optimizer addons:lam; there are adabelief, .*, yogi"):
        addons.optimizer("lam")
    with pytest.raises(ConfigError, match=r"optimizer is 'addons:lam'; it can be adam, .*addons:lamb"):
        StyleConfig(optimizer="addons:lam")


def test_on_the_command_line(files, small_file, capsys):
    out = files / "out.png"
    flags = ["--weights", str(small_file), "--size", "32", "--iterations", "4", "--scales", "1"]
    flags += ["--content-layers", "conv2_1", "--style-layers", "conv1_1,conv2_1"]
    pictures = [str(files / "content.png"), str(files / "style.png"), "-o", str(out)]
    assert cli.main(["stylize", *pictures, *flags, "--optimizer", "addons:lamb"]) == 0
    assert out.is_file()
    assert cli.main(["stylize", *pictures, *flags, "--optimizer", "addons:swa", "--overwrite"]) == (
        0 if HERE else 2
    )
    if not HERE:
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert "addons:swa is in tensorflow-addons alone" in line
        assert line.endswith("or use the option ema_decay")

"""Presets of other programs: their losses, in their units, against slow NumPy written from their sources."""

import numpy as np
import pytest
import tensorflow as tf

from tests import peers
from tests.conftest import make_picture
from tfstyle import preset
from tfstyle.errors import ConfigError
from tfstyle.images import ImageArray
from tfstyle.network import weights
from tfstyle.run import iterations_per_scale, make_setup, scale_shapes


@pytest.fixture(scope="module")
def full_depth():
    """Seeded weights of all layers, with features about as large as VGG's, and biases."""
    found = weights.random_weights(seed=3)
    generator = np.random.default_rng(3)
    arrays = {k: v if "kernel" in k else generator.normal(0, 3, v.shape) for k, v in found.arrays.items()}
    return weights.Weights({k: v.astype("f4") for k, v in arrays.items()}, "full")


@pytest.mark.parametrize("name", peers.PROGRAMS)
def test_the_loss_is_the_programs(name, full_depth, monkeypatch):
    monkeypatch.setattr("tfstyle.run.setup.load_weights", lambda *arguments, **options: full_depth)
    config = preset(name).replace({"precision": "float32", "compile": "eager", "normalize_weights": False})
    content, style, image = (make_picture(36, 44, seed) for seed in (1, 2, 3))
    image = np.clip(image + 0.1 * np.random.default_rng(0).normal(size=image.shape), 0, 1).astype("f4")
    made = make_setup(config, "/CPU:0", images=[ImageArray(content), ImageArray(style)])
    objective = made.objective
    targets = objective.targets(
        tf.constant(content[None]), [objective.style_summary(tf.constant(style[None]))]
    )
    found = {k: float(v) for k, v in objective(tf.constant(image[None]), targets).items()}

    def features(picture):
        return {k: v[0].numpy().astype(float) for k, v in made.encoder(tf.constant(picture[None])).items()}

    arguments = features(image), features(content), features(style), image.astype(float)
    if name == "crowsonkb":
        terms = peers.crowsonkb(*arguments, root=peers.exact_root)
        expected = dict(zip(("content", "style", "tv"), map(float, terms), strict=True))
        expected["total"] = sum(expected.values())
    else:
        expected = peers.objective(name, *arguments)
    for term, value in expected.items():
        assert found[term] == pytest.approx(value, rel=1e-3, abs=1e-12), term
    assert expected["content"] > 0 < expected["style"]


#: Optimiser, start, and whether pixels are kept within bounds, as the programs' sources have them.
MANNERS = {
    "neural-style": ("lbfgs_fixed_step", 100, "mean", False),
    "neural-style-pt": ("lbfgs_fixed_step", 100, "mean", False),
    "gatys-pytorch": ("lbfgs_fixed_step", 100, "content", False),
    "gatys-normalised": ("lbfgs_fixed_step", 100, "content", False),
    "crowsonkb": ("adam", (0.02, 0.9, 0.99, 1e-8), "content", True),
    "neural-style-tf": ("lbfgs", 10, "content", False),
    "anishathalye": ("adam", (10 / 255, 0.9, 0.999, 1e-8 * 255), "mean", False),
    "tensorflow-tutorial": ("adam", (0.02, 0.99, 0.999, 0.1), "content", True),
    "spst": ("lbfgs_fixed_step", 100, "content", False),
}


@pytest.mark.parametrize("name", MANNERS)
def test_start_and_optimiser(name):
    config, (optimizer, settings, init, clamp) = preset(name), MANNERS[name]
    assert (config.optimizer, config.init, config.clamp) == (optimizer, init, clamp)
    adams = (config.learning_rate, config.beta_1, config.beta_2, config.epsilon)
    assert (adams if optimizer == "adam" else config.lbfgs_history) == pytest.approx(settings)
    assert (config.padding, config.normalize_weights, config.ema_decay) == (
        "replicate_first" if name == "crowsonkb" else "zeros",
        name == "gatys-normalised",
        0.99 if name == "crowsonkb" else 0,
    )
    averages = name in ("gatys-normalised", "neural-style-tf")
    assert config.pooling == ("avg" if averages else "max")


def test_the_number_of_iterations_can_be_chosen():
    config = preset("crowsonkb").replace({"iterations": 100})
    assert iterations_per_scale(config, 3) == [1000, 100, 100]


def test_an_unknown_one():
    with pytest.raises(
        ConfigError, match="no preset 'gatys2015'; there are default, gatys2016, neural-style"
    ):
        preset("gatys2015")


@pytest.mark.parametrize(
    ("name", "full", "shapes", "iterations"),
    [
        ("neural-style", (384, 512), [(384, 512)], [1000]),
        ("gatys-pytorch", (800, 1067), [(512, 683), (800, 1067)], [500, 200]),
        ("gatys-normalised", (1024, 1024), [(512, 512), (1024, 1024)], [500, 200]),
        ("tensorflow-tutorial", (384, 512), [(384, 512)], [1000]),
        ("anishathalye", (900, 700), [(900, 700)], [1000]),
        (
            "crowsonkb",
            (512, 512),
            [(128, 128), (181, 181), (256, 256), (362, 362), (512, 512)],
            [1000, 500, 500, 500, 500],
        ),
        # Halved until the shorter side is at most 1023.
        ("spst", (4096, 5000), [(512, 625), (1024, 1250), (2048, 2500), (4096, 5000)], [600, 200, 66, 30]),
        ("spst", (1000, 1500), [(1000, 1500)], [600]),
        ("spst", (2000, 3000), [(1000, 1500), (2000, 3000)], [600, 200]),
    ],
)
def test_sizes_and_iterations(name, full, shapes, iterations):
    config = preset(name)
    assert scale_shapes(full, config, minimum=16) == shapes
    assert iterations_per_scale(config, len(shapes)) == iterations


@pytest.mark.parametrize(
    ("name", "centre", "spread"),
    [
        ("neural-style", np.array([123.68, 116.779, 103.939]) / 256, 1e-3 / 256),
        ("anishathalye", None, 0.256 / 255),
    ],
)
def test_noise_starts_lie_around_imagenets_mean(name, centre, spread):
    from tfstyle.run import read_inputs

    centre = np.array([123.68, 116.779, 103.939]) / 255 if centre is None else centre
    config = preset(name).replace({"size": 64})
    picture = make_picture(64, 64)
    start = read_inputs(picture, picture, config).start_image((64, 64))
    assert np.allclose(start.mean((0, 1)), centre, atol=1e-3)
    assert (start - centre).std() == pytest.approx(spread, rel=0.1)

"""Optimisers, compilers, precisions and presets on one pair, by one objective."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from tfstyle import StyleConfig, preset
from tfstyle.errors import ConfigError
from tfstyle.papers import timed_runs
from tfstyle.papers.comparison import compare
from tfstyle.papers.distances import DistanceMeasure
from tfstyle.papers.image_pairs import read_images
from tfstyle.papers.timed_runs import TimedRun, fit_preset, make_image_loss, run_optimizer, run_preset
from tfstyle.presets import PRESETS
from tfstyle.run import run as runs

LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_2")}
CONFIG = StyleConfig(size=40, precision="float32", compile="graph", **LAYERS)


@pytest.fixture
def images(content, style):
    return read_images(content, style, size=40)


@pytest.fixture
def image_loss(small_weights, images):
    return make_image_loss(CONFIG, small_weights, images=images)


@pytest.fixture
def compared(small_weights, images, image_loss):
    """What every run of a comparison is given: the weights, the images and the loss."""
    return {"vgg_weights": small_weights, "images": images, "image_loss": image_loss}


@pytest.fixture
def clock(monkeypatch):
    """Clocks that go on by a second whenever they are looked at: an evaluation takes one."""
    for module in (timed_runs, runs):
        clocks = {"perf_counter": itertools.count(0.0).__next__, "monotonic": lambda: 0.0}
        monkeypatch.setattr(module, "time", SimpleNamespace(**clocks))


def test_the_image_loss_adds_up_relative_distances(small_weights, images, image_loss):
    """The objective by its parts, which the other experiments' measure and NumPy give too."""
    image = np.random.default_rng(0).uniform(size=images[0].shape).astype(np.float32)
    terms = image_loss(image)
    distances = DistanceMeasure(*images, vgg_weights=small_weights, **LAYERS)(image)
    height, width = images[0].shape[:2]
    area = (height * width) / ((height // 2) * (width // 2))  # pixels of a position at conv2_1
    down, right = np.diff(image, axis=0), np.diff(image, axis=1)
    smooth = (down**2).mean() + (right**2).mean()
    assert terms["style"] == pytest.approx(distances.style, rel=1e-4)
    assert terms["content"] == pytest.approx(0.04 * area / 64 * distances.content, rel=1e-3)
    assert terms["tv"] == pytest.approx(0.3 * smooth, rel=1e-4)
    assert terms["total"] == pytest.approx(terms["style"] + terms["content"] + terms["tv"], rel=1e-5)


@pytest.mark.usefixtures("clock")
def test_a_run_counts_evaluations_and_seconds(compared):
    run = run_optimizer(CONFIG.replace({"optimizer": "adam"}), **compared, iterations=5, limit=None)
    assert run.seconds == [1, 2, 3, 4, 5]
    assert run.losses[-1] == run.terms["total"] == compared["image_loss"](run.image)["total"]
    assert run.losses == sorted(run.losses, reverse=True)
    assert [run.evaluations_within(limit) for limit in (0.5, 2.0, 3.5, 99.0)] == [0, 2, 3, 5]
    assert len(run_optimizer(CONFIG, **compared, iterations=2, limit=4.0).losses) == 4


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs", "lbfgs_fixed_step"])
def test_every_optimiser_gets_somewhere(optimizer, compared, images, image_loss):
    """Also that whose moves depend on the unit of the loss: with ours as it is, it stands still."""
    run = run_optimizer(CONFIG.replace({"optimizer": optimizer}), **compared, iterations=20, limit=None)
    assert run.losses[-1] < 0.3 * image_loss(images[0])["total"]


def test_compile_modes_agree(compared):
    configs = [CONFIG.replace({"compile": mode, "optimizer": "adam"}) for mode in ("graph", "xla", "eager")]
    first, *others = (run_optimizer(config, **compared, iterations=4, limit=None) for config in configs)
    for other in others:
        np.testing.assert_allclose(other.losses, first.losses, rtol=1e-3)


def test_presets_keep_to_layers_that_are_there(small_weights):
    for name in PRESETS:
        config = fit_preset(preset(name), small_weights, size=40)
        assert set(config.content_layers + config.style_layers) <= {
            "conv1_1",
            "conv1_2",
            "conv2_1",
            "conv2_2",
        }
        assert (config.size, config.size_of, config.enlarge) == (40, "longest", False)
        assert config.optimizer == preset(name).optimizer
    crowson = fit_preset(preset("crowsonkb"), small_weights, size=40)
    assert crowson.style_layers == ("conv1_1", "conv2_1")
    assert crowson.style_layer_weights == (256.0, 64.0)


@pytest.mark.usefixtures("clock")
def test_a_preset_ends_with_the_time(small_weights, compared, images, image_loss):
    """One size: when the clock says so. Several: its evaluations shared out, 500 and 200 of them to 14."""
    for name, count in (("tensorflow-tutorial", 6), ("gatys-pytorch", 14)):
        config = fit_preset(preset(name), small_weights, size=40)
        run = run_preset(config, **compared, limit=float(count))
        assert len(run.seconds) == count
        assert run.seconds[-1] == count
        assert run.image.shape == images[0].shape
        assert run.losses[-1] == run.terms["total"] == image_loss(run.image)["total"]
        assert np.isnan(run.losses[:-1]).all()


@pytest.mark.usefixtures("clock")
def test_a_preset_that_runs_away_has_its_last_finite_image(small_weights, compared, images):
    config = fit_preset(preset("tensorflow-tutorial"), small_weights, size=40)
    wild = config.replace({"learning_rate": 1e30, "clamp": False})
    run = run_preset(wild, **compared, limit=5.0)
    np.testing.assert_allclose(run.image, images[0], atol=1e-6)
    assert np.isfinite(run.losses[-1])


@pytest.mark.usefixtures("clock")
def test_compare_puts_all_into_one_table(small_file, content, style):
    said = []
    study = compare(
        content, style, weights=str(small_file), size=40, iterations=6, optimizers=("adam", "lbfgs"),
        compilers=("graph", "eager"), precisions=("float32",), presets=("default", "anishathalye"),
        progress=said.append,
    )  # fmt: skip
    ways = [f"{o} {c} float32" for o in ("adam", "lbfgs") for c in ("graph", "eager")]
    assert [line["way"] for line in study.table] == [*ways, "preset default", "preset anishathalye"]
    assert len(said) == 6
    assert said[0].startswith(f"{ways[0]}: loss ")
    assert "\n" not in "".join(said)
    assert study.facts["seconds"] == 6  # an evaluation takes one, whichever the way
    lines, start = {line["way"]: line for line in study.table}, study.facts["start"]["total"]
    for way in ways:
        assert lines[way]["loss after equal seconds"] == lines[way]["loss after equal evaluations"] < start
        assert lines[way]["evaluations by then"] == 6
    for first, second in (ways[:2], ways[2:]):
        one, other = (lines[way]["loss after equal evaluations"] for way in (first, second))
        assert one == pytest.approx(other, rel=1e-3)
    # What does not minimise the default objective does not get as low as what does.
    assert (
        lines["preset default"]["loss after equal seconds"]
        < lines["preset anishathalye"]["loss after equal seconds"]
    )
    counted, *timed = study.rows[0]
    assert list(counted.series) == ["adam graph float32", "lbfgs graph float32"]
    assert [curves.title for curves in timed] == ["adam", "lbfgs"]
    assert (
        timed[0].series["eager float32"][1][-1] == lines["adam eager float32"]["loss after equal evaluations"]
    )
    assert study.facts["pooling"] == "avg"
    assert "average pooling" in study.caption
    assert "over conv1_1, conv2_1, conv2_2;" in study.caption
    for words in ("Our reading", "Left out, as", "conv5_1, conv4_2", f"{start:.3g}"):
        assert words in study.caption
    lowest = min(ways, key=lambda way: lines[way]["loss after equal evaluations"])
    assert f"Lowest after equal evaluations: {lowest}." in study.caption
    # Pictures are the numbers'.
    best = next(panel for panel in study.panels if panel.title.startswith("lbfgs"))
    assert f"loss {lines[best.title]['loss after equal evaluations']:.3g} " in best.caption


@pytest.mark.usefixtures("clock")
def test_a_way_that_has_not_begun_by_then_has_the_starts_loss(small_file, content, style):
    study = compare(
        content, style, weights=str(small_file), size=40, iterations=2, seconds=0.5, optimizers=("adam",),
        compilers=("eager",), precisions=("float32",), presets=("default",),
    )  # fmt: skip
    line = study.table[0]
    assert line["evaluations by then"] == 0
    assert line["loss after equal seconds"] == study.facts["start"]["total"]
    assert line["loss after equal evaluations"] < study.facts["start"]["total"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"presets": ("mine",)}, "no preset 'mine'"),
        ({"optimizers": ("sgd",)}, "optimizer is 'sgd'"),
        ({"compilers": ("jax",)}, "compile is 'jax'"),
        ({"precisions": ("float8",)}, "precision is 'float8'"),
        ({"iterations": 0}, "iterations"),
        ({"optimizers": ()}, "at least one"),
    ],
)
def test_what_cannot_be_compared_is_refused(option, words, small_file, content, style):
    with pytest.raises(ConfigError, match=words):
        compare(content, style, weights=str(small_file), **option)


def test_a_run_tells_its_evaluations():
    run = TimedRun(np.zeros((1, 1, 3)), {}, [0.5, 1.0, 1.5], [3.0, 2.0, 1.0], 0.0)
    assert [run.evaluations_within(limit) for limit in (0.4, 0.5, 1.4, 2.0)] == [0, 1, 2, 3]

"""Tests of the comparison of optimisers, compile modes, precisions and presets."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from tfstyle import StyleConfig, preset
from tfstyle.errors import ConfigError
from tfstyle.network import load_weights
from tfstyle.papers import timed_runs
from tfstyle.papers.comparison import compare
from tfstyle.papers.distances import GRAM_LOSSES, DistanceMeasure
from tfstyle.papers.image_pairs import read_images
from tfstyle.papers.timed_runs import TimedRun, fit_preset, make_image_loss, run_optimizer, run_preset
from tfstyle.presets import PRESETS
from tfstyle.run import run as runs

LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_2")}
CONFIG = StyleConfig(size=40, precision="float32", compile="graph").replace({**GRAM_LOSSES, **LAYERS})


@pytest.fixture
def images(content, style):
    return read_images(content, style, size=40)


@pytest.fixture
def image_loss(small_weights, images):
    return make_image_loss(CONFIG, small_weights, images=images)


@pytest.fixture
def compared(small_weights, images, image_loss):
    """The arguments that all runs of a comparison share: the weights, the images and the loss."""
    return {"vgg_weights": small_weights, "images": images, "image_loss": image_loss}


@pytest.fixture
def clock(monkeypatch):
    """Clocks that advance by a second at every call, so that an iteration takes one second."""
    for module in (timed_runs, runs):
        clocks = {"perf_counter": itertools.count(0.0).__next__, "monotonic": lambda: 0.0}
        monkeypatch.setattr(module, "time", SimpleNamespace(**clocks))


def test_the_image_loss_adds_up_relative_distances(small_weights, images, image_loss):
    """The terms of the objective equal those of `DistanceMeasure` and of NumPy."""
    image = np.random.default_rng(0).uniform(size=images[0].shape).astype(np.float32)
    terms = image_loss(image)
    distances = DistanceMeasure(*images, vgg_weights=small_weights, **LAYERS)(image)
    down, right = np.diff(image, axis=0), np.diff(image, axis=1)
    variation = (down**2).mean() + (right**2).mean()
    assert terms["style"] == pytest.approx(distances.style, rel=1e-4)
    assert terms["content"] == pytest.approx(0.04 * distances.content, rel=1e-3)
    assert terms["tv"] == pytest.approx(0.3 * variation, rel=1e-4)
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
def test_every_optimiser_reduces_the_loss(optimizer, compared, images, image_loss):
    """``lbfgs_fixed_step`` also does, whose steps would be too small without its factor of the loss."""
    run = run_optimizer(CONFIG.replace({"optimizer": optimizer}), **compared, iterations=20, limit=None)
    assert run.losses[-1] < 0.3 * image_loss(images[0])["total"]


def test_compile_modes_agree(compared):
    configs = [CONFIG.replace({"compile": mode, "optimizer": "adam"}) for mode in ("graph", "xla", "eager")]
    first, *others = (run_optimizer(config, **compared, iterations=4, limit=None) for config in configs)
    for other in others:
        np.testing.assert_allclose(other.losses, first.losses, rtol=1e-3)


def test_presets_use_only_layers_that_the_weights_reach(small_weights):
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
    assert fit_preset(preset("default"), load_weights("embedded"), size=40).content_layers == ("conv2_2",)
    assert fit_preset(preset("gatys2016"), load_weights("embedded"), size=40).content_layers == ("conv3_3",)
    crowson = fit_preset(preset("crowsonkb"), small_weights, size=40)
    assert crowson.style_layers == ("conv1_1", "conv2_1")
    assert crowson.style_layer_weights == (256.0, 64.0)


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_a_preset_ends_at_the_time_limit(small_weights, compared, images, image_loss):
    """A preset with one scale ends at the limit. The 500 and 200 iterations of two scales become 14."""
    for name, count in (("tensorflow-tutorial", 6), ("gatys-pytorch", 14)):
        config = fit_preset(preset(name), small_weights, size=40)
        run = run_preset(config, **compared, limit=float(count))
        assert len(run.seconds) == count
        assert run.seconds[-1] == count
        assert run.image.shape == images[0].shape
        assert run.losses[-1] == run.terms["total"] == image_loss(run.image)["total"]
        assert np.isnan(run.losses[:-1]).all()


@pytest.mark.usefixtures("clock")
def test_a_preset_that_diverges_has_its_last_finite_image(small_weights, compared, images):
    config = fit_preset(preset("tensorflow-tutorial"), small_weights, size=40)
    diverging = config.replace({"learning_rate": 1e30, "clamp": False})
    run = run_preset(diverging, **compared, limit=5.0)
    np.testing.assert_allclose(run.image, images[0], atol=1e-6)
    assert np.isfinite(run.losses[-1])


@pytest.mark.usefixtures("clock")
def test_compare_has_all_runs_in_one_table(small_file, content, style):
    progress = []
    study = compare(
        content, style, weights=str(small_file), size=40, iterations=6, optimizers=("adam", "lbfgs"),
        compilers=("graph", "eager"), precisions=("float32",), presets=("default", "anishathalye"),
        progress=progress.append,
    )  # fmt: skip
    names = [f"{o} {c} float32" for o in ("adam", "lbfgs") for c in ("graph", "eager")]
    assert [line["run"] for line in study.table] == [*names, "preset default", "preset anishathalye"]
    assert len(progress) == 6
    assert progress[0].startswith(f"{names[0]}: loss ")
    assert "\n" not in "".join(progress)
    assert study.facts["seconds"] == 6  # an iteration takes one second in every run
    lines, start = {line["run"]: line for line in study.table}, study.facts["start"]["total"]
    for name in names:
        assert lines[name]["loss after equal time"] == lines[name]["loss after equal iterations"] < start
        assert lines[name]["iterations in that time"] == 6
    for pair in (names[:2], names[2:]):
        graph_loss, eager_loss = (lines[name]["loss after equal iterations"] for name in pair)
        assert graph_loss == pytest.approx(eager_loss, rel=1e-3)
    # A preset with another objective does not reach as low a value of the default objective.
    assert (
        lines["preset default"]["loss after equal time"]
        < lines["preset anishathalye"]["loss after equal time"]
    )
    by_iteration, *by_time = study.rows[0]
    assert list(by_iteration.series) == ["adam graph float32", "lbfgs graph float32"]
    assert [curves.title for curves in by_time] == ["adam", "lbfgs"]
    adam_losses = by_time[0].series["eager float32"][1]
    assert adam_losses[-1] == lines["adam eager float32"]["loss after equal iterations"]
    assert study.facts["pooling"] == "avg"
    lowest = min(names, key=lambda name: lines[name]["loss after equal iterations"])
    for fragment in (
        "Our reading",
        "average pooling",
        "over conv1_1, conv2_1, conv2_2,",
        "end at conv2_2: conv3_1, conv4_1, conv5_1, conv4_2",
        f"{start:.3g}",
        f"lowest loss after equal iterations is {lowest}.",
    ):
        assert fragment in study.caption
    # The captions of the images have the losses of the table.
    best = next(panel for panel in study.panels if panel.title.startswith("lbfgs"))
    assert f"loss {lines[best.title]['loss after equal iterations']:.3g} " in best.caption


@pytest.mark.usefixtures("clock")
def test_a_run_without_an_iteration_in_the_time_has_the_loss_of_the_start(small_file, content, style):
    study = compare(
        content, style, weights=str(small_file), size=40, iterations=2, seconds=0.5, optimizers=("adam",),
        compilers=("eager",), precisions=("float32",), presets=("default",),
    )  # fmt: skip
    line = study.table[0]
    assert line["iterations in that time"] == 0
    assert line["loss after equal time"] == study.facts["start"]["total"]
    assert line["loss after equal iterations"] < study.facts["start"]["total"]


@pytest.mark.parametrize(
    ("option", "pattern"),
    [
        ({"presets": ("mine",)}, "preset.*'mine'"),
        ({"optimizers": ("sgd",)}, "optimizer.*'sgd'.*lbfgs"),
        ({"compilers": ("jax",)}, "compile.*'jax'.*xla"),
        ({"precisions": ("float8",)}, "precision.*'float8'.*bfloat16"),
        ({"iterations": 0}, "iterations.*0.*1"),
        ({"optimizers": ()}, r"optimizers is empty.*at least one"),
    ],
)
def test_invalid_options_are_rejected(option, pattern, small_file, content, style):
    with pytest.raises(ConfigError, match=pattern):
        compare(content, style, weights=str(small_file), **option)


def test_a_run_counts_the_iterations_within_a_time():
    run = TimedRun(np.zeros((1, 1, 3)), {}, [0.5, 1.0, 1.5], [3.0, 2.0, 1.0], 0.0)
    assert [run.evaluations_within(limit) for limit in (0.4, 0.5, 1.4, 2.0)] == [0, 1, 2, 3]

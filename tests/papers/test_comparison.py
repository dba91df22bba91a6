"""Optimisers, compilers, precisions and presets on one pair, by one objective."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from tfstyle import StyleConfig, preset
from tfstyle.errors import ConfigError
from tfstyle.papers import courses
from tfstyle.papers.comparison import compare
from tfstyle.papers.courses import Course, course, judged, of_preset, preset_for
from tfstyle.papers.judging import Judge, read_pair
from tfstyle.presets import PRESETS
from tfstyle.run import run as runs

LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_2")}
CONFIG = StyleConfig(size=40, precision="float32", compile="graph", **LAYERS)


@pytest.fixture
def images(content, style):
    return read_pair(content, style, 40)


@pytest.fixture
def judge(small_weights, images):
    return judged(CONFIG, small_weights, images)


@pytest.fixture
def clock(monkeypatch):
    """Clocks that go on by a second whenever they are looked at: an evaluation takes one."""
    for module in (courses, runs):
        clocks = {"perf_counter": itertools.count(0.0).__next__, "monotonic": lambda: 0.0}
        monkeypatch.setattr(module, "time", SimpleNamespace(**clocks))


def test_the_judge_adds_up_relative_distances(small_weights, images, judge):
    """The objective by its parts, which the other experiments' judge and NumPy measure."""
    picture = np.random.default_rng(0).uniform(size=images[0].shape).astype(np.float32)
    found, apart = judge(picture), Judge(*images, small_weights, *LAYERS.values())(picture)
    height, width = images[0].shape[:2]
    area = (height * width) / ((height // 2) * (width // 2))  # pixels of a position at conv2_1
    down, right = np.diff(picture, axis=0), np.diff(picture, axis=1)
    smooth = (down**2).mean() + (right**2).mean()
    assert found["style"] == pytest.approx(apart.style, rel=1e-4)
    assert found["content"] == pytest.approx(0.04 * area / 64 * apart.content, rel=1e-3)
    assert found["tv"] == pytest.approx(0.3 * smooth, rel=1e-4)
    assert found["total"] == pytest.approx(found["style"] + found["content"] + found["tv"], rel=1e-5)


@pytest.mark.usefixtures("clock")
def test_a_course_counts_evaluations_and_seconds(small_weights, images, judge):
    done = course(CONFIG.replace({"optimizer": "adam"}), small_weights, images, judge, 5, None)
    assert done.seconds == [1, 2, 3, 4, 5]
    assert done.losses[-1] == done.terms["total"] == judge(done.image)["total"]
    assert done.losses == sorted(done.losses, reverse=True)
    assert [done.evaluations(limit) for limit in (0.5, 2.0, 3.5, 99.0)] == [0, 2, 3, 5]
    assert len(course(CONFIG, small_weights, images, judge, 2, 4.0).losses) == 4


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs", "lbfgs_fixed_step"])
def test_every_optimiser_gets_somewhere(optimizer, small_weights, images, judge):
    """Also that whose moves depend on the unit of the loss: with ours as it is, it stands still."""
    done = course(CONFIG.replace({"optimizer": optimizer}), small_weights, images, judge, 20, None)
    assert done.losses[-1] < 0.3 * judge(images[0])["total"]


def test_compile_modes_agree(small_weights, images, judge):
    found = [
        course(CONFIG.replace({"compile": how, "optimizer": "adam"}), small_weights, images, judge, 4, None)
        for how in ("graph", "xla", "eager")
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other.losses, found[0].losses, rtol=1e-3)


def test_presets_keep_to_layers_that_are_there(small_weights):
    for name in PRESETS:
        config = preset_for(preset(name), small_weights, 40)
        assert set(config.content_layers + config.style_layers) <= {
            "conv1_1",
            "conv1_2",
            "conv2_1",
            "conv2_2",
        }
        assert (config.size, config.size_of, config.enlarge) == (40, "longest", False)
        assert config.optimizer == preset(name).optimizer
    crowson = preset_for(preset("crowsonkb"), small_weights, 40)
    assert crowson.style_layers == ("conv1_1", "conv2_1")
    assert crowson.style_layer_weights == (256.0, 64.0)


@pytest.mark.usefixtures("clock")
def test_a_preset_ends_with_the_time(small_weights, images, judge):
    """One size: when the clock says so. Several: its evaluations shared out, 500 and 200 of them to 14."""
    for name, count in (("tensorflow-tutorial", 6), ("gatys-pytorch", 14)):
        config = preset_for(preset(name), small_weights, 40)
        done = of_preset(config, small_weights, images, judge, float(count))
        assert len(done.seconds) == count
        assert done.seconds[-1] == count
        assert done.image.shape == images[0].shape
        assert done.losses[-1] == done.terms["total"] == judge(done.image)["total"]
        assert np.isnan(done.losses[:-1]).all()


@pytest.mark.usefixtures("clock")
def test_a_preset_that_runs_away_has_its_last_good_picture(small_weights, images, judge):
    config = preset_for(preset("tensorflow-tutorial"), small_weights, 40)
    wild = config.replace({"learning_rate": 1e30, "clamp": False})
    done = of_preset(wild, small_weights, images, judge, 5.0)
    np.testing.assert_allclose(done.image, images[0], atol=1e-6)
    assert np.isfinite(done.losses[-1])


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
    assert study.facts["seconds"] == 6  # an evaluation takes one, whichever the way
    lines, start = {line["way"]: line for line in study.table}, study.facts["start"]["total"]
    for way in ways:
        assert lines[way]["loss after equal seconds"] == lines[way]["loss after equal evaluations"] < start
        assert lines[way]["evaluations by then"] == 6
    for first, second in (ways[:2], ways[2:]):
        one, other = (lines[way]["loss after equal evaluations"] for way in (first, second))
        assert one == pytest.approx(other, rel=1e-3)
    # What does not minimise the judge's objective does not get as low as what does.
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


def test_a_course_tells_its_evaluations():
    done = Course(np.zeros((1, 1, 3)), {}, [0.5, 1.0, 1.5], [3.0, 2.0, 1.0], 0.0)
    assert [done.evaluations(limit) for limit in (0.4, 0.5, 1.4, 2.0)] == [0, 1, 2, 3]

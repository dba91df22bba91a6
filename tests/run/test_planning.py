"""Runs with a given time: the plan as a function of measured times, and runs on clocks that tests move."""

import math
import re
import runpy
import time

import numpy as np
import pytest

import tfstyle
from tests.conftest import make_image
from tfstyle import StyleConfig, cli
from tfstyle.config import CONTENT_WEIGHT, SHALLOW_HIGH_CONTENT_WEIGHT
from tfstyle.errors import ConfigError
from tfstyle.images import read_settings
from tfstyle.run import Scale, planning
from tfstyle.run.planning import (
    FIRST_CALL_STEPS,
    MINIMUM_ITERATIONS,
    PLANNED_FRACTION,
    Timetable,
    choose_quality,
    plan_iterations,
    predict_seconds,
)
from tfstyle.run.timed import make_timed_run

LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv1_2")}


def scales_of(*iterations, side=10):
    """Scales with sides of 10, 20, 40, ... pixels: each step takes four times as long as the one before."""
    count = len(iterations)
    return [Scale(k + 1, (side << k, side << k), 0.5 ** (count - 1 - k), n) for k, n in enumerate(iterations)]


def plan(scales, seconds, **options):
    """The planned iterations if a step of the first scale takes 1 s and tracing takes 2 s."""
    planned = plan_iterations(scales, seconds=seconds, seconds_per_pixel=0.01, preparation=2.0, **options)
    assert [scale._replace(iterations=0) for scale in planned] == [s._replace(iterations=0) for s in scales]
    return [scale.iterations for scale in planned]


#: Time before the last of two scales: tracing, and two steps of 4 s.
BETWEEN = 2 + FIRST_CALL_STEPS * 4


def test_the_time_is_the_sum_over_steps_and_scales():
    """30 steps of 1 s, of which 5 are done, 20 of 4 s and 10 of 16 s; twice tracing and two steps."""
    seconds = predict_seconds(scales_of(30, 20, 10), seconds_per_pixel=0.01, preparation=2.0, done=5)
    assert seconds == pytest.approx(25 + 20 * 4 + 10 * 16 + 2 * 2 + 2 * (4 + 16))


@pytest.mark.parametrize(
    ("own", "seconds", "options", "expected"),
    [
        ((100, 100), 500, {}, [100, 100]),
        ((100, 100), 250, {}, [50, 50]),
        ((200, 50), 1200, {}, [600, 150]),  # the proportions are kept: 600 x 1 s + 150 x 4 s
        ((100, 100), 252.4, {}, [50, 50]),  # rounded down
        ((100, 15), 60, {}, [20, MINIMUM_ITERATIONS]),  # 40 s at the last scale, and the rest at the first
        ((100, 100), 1, {}, [MINIMUM_ITERATIONS, MINIMUM_ITERATIONS]),  # too short
        ((100, 6), 1, {}, [MINIMUM_ITERATIONS, 6]),  # no more than the quality has
        ((100, 100), 250 - 20, {"done": 20}, [50, 50]),  # what is done counts
        ((100, 100), 210, {"done": 90}, [90, 52]),  # but cannot be undone
        ((100, 100), 275, {"multiple": 10}, [50, 50]),
        ((5, 5), 1, {"multiple": 10}, [10, 10]),
    ],
)
def test_the_iterations_fill_the_time(own, seconds, options, expected):
    assert plan(scales_of(*own), seconds + BETWEEN, **options) == expected


def test_one_scale_gets_all_of_the_time():
    assert plan(scales_of(7), 300) == [300]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1, "draft"), (49, "draft"), (51, "standard"), (390, "standard"), (410, "high"),
                              (1e6, "high"), (-3, "draft")]
)  # fmt: skip
def test_the_quality_has_the_nearest_time_as_a_ratio(seconds, expected):
    """The times are 25, 100 and 1600 s, whose geometric means are 50 and 400 s."""
    plans = {"draft": scales_of(25), "standard": scales_of(100), "high": scales_of(1600)}
    chosen = choose_quality(plans, seconds=seconds, seconds_per_pixel=0.01, preparation=50.0)
    assert chosen == expected


def test_a_quality_that_fits_is_preferred():
    """With 9 s the nearest is standard with 10 s, but it has at least 10 iterations, and draft has 6."""
    plans = {"draft": scales_of(6), "standard": scales_of(10)}
    for seconds, expected in ((9, "draft"), (10, "standard"), (1, "draft")):
        chosen = choose_quality(plans, seconds=seconds, seconds_per_pixel=0.01, preparation=0.0)
        assert chosen == expected


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def simulate(seconds, own, step_seconds, *, preparation, multiple=1, before=0.0):
    """Run a timetable on a simulated machine. Return the whole time and the iterations at each scale."""
    clock = Clock()
    timetable = Timetable(seconds, started=clock.now, clock=clock)
    clock.now += before
    for stop_when_measured in (True, False):  # the probe, and the run
        scales, counts = timetable.begin(own, multiple=multiple), []
        for number, own_scale in enumerate(own, 1):
            clock.now += preparation if stop_when_measured or number > 1 else 0
            done = 0
            while done < scales[number - 1].iterations:
                clock.now += step_seconds(own_scale) * multiple
                done += multiple
                scales[number - 1 :] = timetable.after_call(number, done) or scales[number - 1 :]
                if stop_when_measured and timetable.seconds_per_pixel:
                    break
            counts.append(done)
            if stop_when_measured:
                break
    return clock.now - 1000.0, counts


def pixels(scale):
    return math.prod(scale.shape)


@pytest.mark.parametrize("seconds", [30, 100, 1000])
@pytest.mark.parametrize("multiple", [1, 5])
@pytest.mark.parametrize(
    "step_seconds",
    [
        lambda scale: 1e-6 * pixels(scale),
        lambda scale: 0.01 + 1e-6 * pixels(scale),  # small images are slow
        lambda scale: 1e-6 * pixels(scale) * (2 if scale.number == 3 else 1),  # the last scale is slow
        lambda scale: 1e-6 * pixels(scale) * (0.5 if scale.number == 3 else 1),
    ],
)
def test_a_run_ends_shortly_before_its_time(step_seconds, multiple, seconds):
    own = scales_of(100, 100, 50, side=100)
    whole, counts = simulate(seconds, own, step_seconds, preparation=1.5, multiple=multiple, before=5.0)
    last = step_seconds(own[-1]) * multiple
    assert PLANNED_FRACTION * seconds - 2 * last < whole <= seconds
    assert counts[-1] >= MINIMUM_ITERATIONS
    assert all(count % multiple == 0 for count in counts)


def test_a_run_that_is_too_short_has_the_fewest_iterations():
    _, counts = simulate(1, scales_of(100, 100, 100), lambda scale: 0.01 * pixels(scale), preparation=1.0)
    assert counts == [MINIMUM_ITERATIONS] * 3


def test_steps_are_measured_if_they_are_shorter_than_a_tick_of_monotonic(monkeypatch):
    """On Windows it has a resolution of 16 ms before Python 3.13."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    timetable = runpy.run_path(planning.__file__)["Timetable"](5, started=time.perf_counter())
    timetable.begin([Scale(1, (32, 32), 1.0, 100)], multiple=1)
    for done in range(1, planning.MEASURED_CALLS + 2):
        timetable.after_call(1, done)
    assert timetable.seconds_per_pixel > 0


def test_what_the_caller_does_between_two_steps_is_part_of_a_step():
    """A step takes 1 s, and the caller takes 3 s after each."""
    _, counts = simulate(100 / PLANNED_FRACTION, scales_of(100), lambda scale: 1 + 3, preparation=0.0)
    assert counts == [(100 - 4 * 4) // 4]  # the probe performs four steps


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, "9", True])
def test_seconds_is_a_positive_number(seconds):
    with pytest.raises(ConfigError, match=rf"^seconds is {seconds!r};.* above 0"):
        tfstyle.stylize("content.png", "style.png", seconds=seconds)


@pytest.mark.parametrize(
    "options",
    [{"checkpoint": "checkpoints"}, {"fine_style": "fine.png"}, {"resume": True}],
    ids=lambda options: next(iter(options)),
)
def test_what_cannot_be_combined_with_seconds(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (tfstyle.stylize, tfstyle.iterate):
        with pytest.raises(ConfigError, match=rf"^seconds=5 .*{next(iter(options))}=.*; leave one"):
            call("content.png", "style.png", seconds=5, **options)
    assert list(tmp_path.iterdir()) == []


class CountingClock:
    """A clock that advances by one second whenever it is read, which is at least once for each iteration."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1
        return self.now


@pytest.fixture
def make_run(small_file):
    """Return a function that makes a run on a clock. Its two scales have nearly the same size."""
    config = StyleConfig(
        weights=str(small_file), compile="eager", precision="float32", scales=2, scale_factor=1.05, **LAYERS
    )

    def make(seconds, *, clock=None, keep_quality=False, **options):
        timetable = Timetable(seconds, started=0.0, clock=clock or CountingClock())
        images, changed = (make_image(24, 32, 1), make_image(24, 32, 2)), config.replace(options)
        return make_timed_run(*images, changed, timetable=timetable, keep_quality=keep_quality)

    return make


def counts_of(run):
    """Run to the end. Return the number of iterations at each scale."""
    *_, last = run
    assert last.iteration == last.iterations
    counts = np.bincount(run.history.scale)[1:].tolist()
    assert run.result().facts["plan"]["iterations"] == counts
    return counts


@pytest.fixture
def qualities(monkeypatch):
    made_up = {"draft": {"iterations": 5}, "standard": {"iterations": 10}, "high": {"iterations": 20}}
    monkeypatch.setattr("tfstyle.config.QUALITIES", made_up)


@pytest.mark.usefixtures("qualities")
@pytest.mark.parametrize(
    ("seconds", "quality", "weight"),
    [(28, "draft", CONTENT_WEIGHT), (55, "high", SHALLOW_HIGH_CONTENT_WEIGHT)],
)
def test_the_run_has_the_quality_and_the_iterations_that_fit(make_run, seconds, quality, weight):
    clock = CountingClock()
    run = make_run(seconds, clock=clock)
    assert run.config.quality == quality
    assert run.setup.objective.content_weight == weight  # that of the quality, not that of the probe
    counts = counts_of(run)
    assert 0.8 * seconds < clock.now <= seconds
    assert min(counts) >= 5
    assert run.facts["plan"]["seconds"] == seconds
    assert 0.8 * seconds < run.facts["plan"]["expected"] <= seconds


@pytest.mark.parametrize(("compile", "preparation"), [("graph", 0.0), ("eager", 7.0)])
def test_the_first_plan_leaves_out_tracing_that_the_probe_has_done(
    make_run, monkeypatch, compile, preparation
):
    """One graph serves all scales. An eager run stands for XLA, which compiles at every scale."""
    seen = []
    begin, after_call = Timetable.begin, Timetable.after_call

    def recorded_begin(self, scales, **options):
        seen.append(self.preparation)
        return begin(self, scales, **options)

    def slow_after_call(self, number, done):
        planned = after_call(self, number, done)
        self.preparation = 7.0
        return planned

    monkeypatch.setattr(Timetable, "begin", recorded_begin)
    monkeypatch.setattr(Timetable, "after_call", slow_after_call)
    make_run(200, iterations=20, compile=compile)
    assert seen == [0.0, preparation]  # of the probe and of the run


@pytest.mark.usefixtures("qualities")
def test_a_quality_or_iterations_that_are_given_are_kept(make_run):
    assert make_run(25, keep_quality=True).config.quality == "standard"
    assert make_run(55, quality="draft").config.quality == "draft"
    assert make_run(55, iterations=10).config.quality == "standard"  # the number of standard, but given
    run = make_run(200, iterations=20, first_iterations=40)
    assert run.config.quality == "standard"
    first, last = (scale.iterations for scale in run.scales)
    assert 30 < last < 60
    assert first in (2 * last, 2 * last + 1)


def test_a_time_that_is_too_short_is_reported_and_still_gives_an_image(make_run, caplog):
    run = make_run(3, iterations=30)
    (record,) = (r for r in caplog.records if r.name == "tfstyle.run.timed")
    assert re.search(r"^seconds is 3,.* 32 x 24 pixels.* 10 at the last scale", record.getMessage())
    assert counts_of(run) == [10, 10]
    assert np.isfinite(run.result().image).all()


def test_seconds_on_the_command_line(files, small_file, capsys):
    images = [str(files / name) for name in ("content.png", "style.png")]
    command = ["stylize", *images, "-o", str(files / "out.png"), "--weights", str(small_file)]
    command += ["--size", "32", "--compile", "eager", "--seconds"]
    assert cli.main([*command, "0.3", "--quality", "high"]) == 0
    facts = read_settings(files / "out.png")
    assert facts["facts"]["plan"]["seconds"] == 0.3
    assert sum(facts["facts"]["plan"]["iterations"]) == facts["iterations"]
    said = capsys.readouterr().err
    assert re.search(r"^tfstyle: planned for 0\.3 s: quality high, iterations per scale: \d+$", said, re.M)
    last = facts["facts"]["plan"]["iterations"][-1]
    assert f"iteration {last}/{last} " in said
    for wrong, pattern in (
        (["0"], r"--seconds is 0\b.* above 0"),
        (["5", "--preset", "spst"], "--seconds .*--preset spst.*leave one"),
        (["5", "--checkpoint", str(files / "c")], "--seconds 5 .*--checkpoint .*; leave one"),
        (["5", "--interpolate", "3"], "--seconds .*--interpolate"),
    ):
        assert cli.main([*command, *wrong, "--overwrite"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(pattern, line), line

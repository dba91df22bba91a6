"""The benchmarks at tiny sizes: they measure what they state. No test depends on a duration."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.benchmarks import __main__ as overview
from tests.benchmarks import machine, results, time_to_loss, xla
from tests.conftest import make_image
from tfstyle import Encoder, Objective
from tfstyle.backend import KERAS_2
from tfstyle.run import Run

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

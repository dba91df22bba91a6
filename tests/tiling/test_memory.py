"""Estimates of a step's memory against measurements and laws, and the use of the estimates."""

import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfstyle import Encoder, StyleConfig, adam, cli, lbfgs, stylize
from tfstyle.images import read_settings
from tfstyle.optim import averaged, from_keras
from tfstyle.run import Scale, layout, make_setup
from tfstyle.tiling import ReceptiveField, memory

FIELD = ReceptiveField({"conv1_1": 1, "conv3_1": 4}, 24, False)

MEASURE = """
import json, sys
import numpy as np
from tfstyle import StyleConfig
from tfstyle.run import Run
from tfstyle.run.layout import estimated_bytes

def process_memory(field):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if field in line)

options = json.loads(sys.argv[1])
pixels = np.random.default_rng(0).integers(0, 256, (options["size"], options["size"], 3), np.uint8)
run = Run(pixels, pixels[:256, :256], StyleConfig(weights="random", scales=1, **options))
before = process_memory("VmRSS")
estimate = estimated_bytes(run.setup, run.scales[-1].shape, layout=run.layouts[-1])
for _ in run:
    pass
print(json.dumps([estimate, process_memory("VmHWM") - before]))
"""
LOW = {"style_layers": ["conv1_1", "conv2_1", "conv3_1"], "content_layers": ["conv3_1"]}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "options",
    [
        {"size": 512, "optimizer": "adam", "iterations": 2, "tile": "off", **LOW},
        # 14 iterations fill all curvature pairs.
        {"size": 384, "optimizer": "lbfgs", "iterations": 14, "tile": "off", **LOW},
        {"size": 448, "optimizer": "adam", "iterations": 2, "tile": "off"},
        {"size": 768, "optimizer": "adam", "iterations": 2, "tile": 384, **LOW},
    ],
    ids=["adam", "lbfgs", "whole depth", "tiles"],
)
def test_the_estimate_is_within_a_fifth_of_the_measured_peak(options):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps({**options, "precision": "float32"})],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    estimate, measured = json.loads(done.stdout.splitlines()[-1])
    assert estimate == pytest.approx(measured, rel=0.2)


def test_the_state_of_an_optimiser_in_images():
    assert memory.state_images(adam()) == 2
    assert memory.state_images(averaged(adam(), 0.9)) == 3
    assert memory.state_images(lbfgs(5)) == 3 + 2 * 5  # point, gradient, direction and pairs
    assert memory.state_images(from_keras(tf.keras.optimizers.Adam())) == 3  # with the variable
    assert memory.state_images(from_keras(tf.keras.optimizers.Adagrad())) == 2


def estimate(shape, optimizer=None, encoder=1000.0, content=32.0, **tiling):
    features = memory.FeatureBytes(encoder, content)
    return memory.step_bytes(shape, optimizer or adam(), features=features, **tiling)


def test_the_estimate_is_linear_in_the_pixels():
    first, second, third = (estimate((100 * n, 70)) for n in (1, 2, 3))
    assert third - second == pytest.approx(second - first)
    assert second > first
    assert estimate((140, 100)) == estimate((100, 140)) == second


def test_the_memory_of_features_in_tiles_does_not_depend_on_the_image():
    tiling = {"side": 256, "receptive_field": FIELD}
    for encoder in (500.0, 2000.0):
        by_features = [
            estimate(shape, encoder=encoder, **tiling) - estimate(shape, encoder=0.0, **tiling)
            for shape in ((1000, 1000), (4000, 8000))
        ]
        assert by_features[0] == pytest.approx(by_features[1])
        assert by_features[0] > encoder * 256**2  # at least the inside of a tile


def test_half_precision_takes_between_half_and_all_of_the_memory():
    maps = [(64, 1), (64, 1), (128, 2), (128, 2)]
    single, half = (memory.working_bytes(maps, itemsize) for itemsize in (4, 2))
    assert 0.5 * single < half < single
    assert single > 4 * (64 + 128 / 4)  # more than two of the four feature maps


def test_smaller_tiles_take_less_and_the_largest_that_fits_is_chosen():
    shape, features = (3000, 2000), memory.FeatureBytes(1000.0, 32.0)

    def largest(limit):
        return memory.largest_tile_side(shape, adam(), limit=limit, features=features, receptive_field=FIELD)

    sizes = [
        memory.step_bytes(shape, adam(), features=features, side=side, receptive_field=FIELD)
        for side in (128, 512, 1024, 2048)
    ]
    assert sizes == sorted(sizes)
    assert sizes[-1] < 1.5 * memory.step_bytes(shape, adam(), features=features)
    assert largest(sizes[1]) == 512
    assert largest(1e12) == memory.MAX_TILE_SIDE
    assert largest(1.0) == memory.MIN_TILE_SIDE


@pytest.mark.parametrize("shape", [(100, 100), (70, 130)])
def test_as_many_pairs_are_chosen_as_fit(shape):
    """The memory of pairs is that of the arrays in the states of optimisers with more and fewer pairs."""
    image = tf.zeros([1, *shape, 3])

    def state_bytes(pairs):
        arrays = lbfgs(pairs).flatten(lbfgs(pairs).init(image))
        return sum(np.asarray(array).nbytes for array in arrays if np.ndim(array) == 4)

    more = [state_bytes(pairs) - state_bytes(1) for pairs in range(1, 6)]
    for pairs, needed in enumerate(more, 1):
        assert memory.affordable_pairs(shape, needed, wanted=5) == pairs
        assert memory.affordable_pairs(shape, needed - 1, wanted=5) == max(pairs - 1, 1)
    assert memory.affordable_pairs(shape, 100 * more[-1], wanted=5) == 5
    assert memory.affordable_pairs(shape, -1e9, wanted=5) == 1


@pytest.fixture
def machine(monkeypatch):
    """A function that sets the free memory and the memory of the process in bytes."""

    def set_memory(free, process):
        monkeypatch.setattr(memory, "free_bytes", lambda: free)
        monkeypatch.setattr(memory, "process_bytes", lambda: process)

    memory._initial_bytes.cache_clear()
    yield set_memory
    memory._initial_bytes.cache_clear()


def test_the_budget_of_a_cpu(machine):
    """A limit is for the whole process. Memory that a run has allocated is available to the next run."""
    machine(free=10e9, process=1e9)
    limited, free = memory.budget(4.0, "/CPU:0"), memory.budget(None, "/CPU:0")
    assert limited + 1e9 == 4e9
    assert 8e9 < free < 10e9
    machine(free=8e9, process=3e9)
    assert memory.budget(4.0, "/CPU:0") == limited
    assert memory.budget(None, "/CPU:0") == pytest.approx(free)
    machine(free=None, process=3e9)
    assert memory.budget(None, "/CPU:0") is None


def test_the_budget_of_a_gpu(machine):
    """A limit in GB is for the GPU, whatever the process holds in host memory."""
    machine(free=10e9, process=1e9)
    assert memory.budget(4.0, "/GPU:0") == 4e9
    assert memory.budget(None, "/GPU:0") is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_the_process_and_of_the_system():
    before = memory.process_bytes()
    array = np.ones(25_000_000)
    assert memory.process_bytes() - before == pytest.approx(array.nbytes, rel=0.1)
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory.free_bytes() < physical


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_without_proc(monkeypatch):
    """As on macOS, where the whole memory counts as free, and on Windows, where it is unknown."""
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    physical = 1024 * int(total.split()[1])
    monkeypatch.setattr(memory, "Path", lambda path: Path("/nonexistent", path[1:]))
    assert memory.free_bytes() == pytest.approx(physical, rel=0.01)
    assert memory.process_bytes() == 1e9
    assert 0 < memory.budget(None, "/CPU:0") < physical
    monkeypatch.delattr(os, "sysconf")
    assert memory.free_bytes() is None
    assert memory.process_bytes() == 1e9
    assert memory.budget(None, "/CPU:0") is None


# On the command line


@pytest.fixture
def stylize_files(files, small_file, capsys):
    """A function that runs ``tfstyle stylize`` and returns its exit code and its output."""

    def run(*options):
        images = [str(files / f"{name}.png") for name in ("content", "style")]
        small = ["--size", "48", "--iterations", "2", "--weights", str(small_file), "--precision", "float32"]
        code = cli.main(["stylize", *images, "-o", str(files / "out.png"), "--overwrite", *small, *options])
        return code, capsys.readouterr()

    return run


def test_the_estimate_is_printed(stylize_files):
    code, output = stylize_files()
    assert code == 0
    assert re.search(r"48 x 34 pixels.* 0\.1 GB$", output.err, re.MULTILINE)


def test_too_little_memory_is_reported_with_the_tiles(stylize_files):
    code, output = stylize_files("--memory", "0.05")  # less than the process holds
    assert code == 0
    assert re.search(r"48 x 34 pixels.* [\d.]+ GB in tiles of \d+ x \d+\b.*\d+%", output.err)
    assert "smaller size" in output.err


def test_tiles_are_stored_in_the_image(stylize_files, files):
    assert stylize_files("--tile", "16", "--optimizer", "adam")[0] == 0
    assert read_settings(files / "out.png")["facts"]["tiles"] == [16, 16]
    assert read_settings(files / "out.png")["options"]["tile"] == "16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tile", "none"], r"tile.*'none'.*auto.*off"),
        (
            ["--tile", "16", "--style-losses", "gram,histogram"],
            r"--style-losses.*histogram.*--tile off.*gram",
        ),
        (
            ["--tile", "16", "--normalize-gradients", "--optimizer", "adam"],
            r"--normalize-gradients.*--tile off",
        ),
        (
            ["--tile", "7", "--padding", "circular", "--size", "41"],
            r"\b29 pixels.*circular.*of 2\b.*--tile off",
        ),
    ],
)
def test_what_cannot_be_tiled_is_refused_in_one_line(stylize_files, options, message):
    code, output = stylize_files(*options)
    assert code == 2
    assert re.search(message, output.err.splitlines()[-1])


def test_the_time_of_xlas_first_calls_is_printed(stylize_files):
    code, output = stylize_files("--compile", "xla", "--scales", "1")
    assert code == 0
    assert re.search(r"2 iterations in [\d.]+ s.* [\d.]+ s .*XLA", output.out)
    code, output = stylize_files()
    assert "XLA" not in output.out


def test_info_prints_the_folder_of_xlas_cache(capsys, monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/somewhere")
    assert cli.main(["info"]) == 0
    assert re.search(r"(?i)xla.* /somewhere\b", capsys.readouterr().out)


RUNS_OUT = """
import logging
import numpy as np
import tensorflow as tf
from tfstyle import StyleConfig
from tfstyle.run import Run

logging.basicConfig()
tf.config.threading.set_inter_op_parallelism_threads(1)  # the same operation runs out of memory each time
pixels = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
config = StyleConfig(
    size=640, scales=1, iterations=2, optimizer="adam", weights="random", precision="float32",
    style_layers=("conv1_1", "conv2_1"), content_layers=("conv2_1",), memory=1000,
)
run = Run(pixels, pixels[:64, :64], config)
for step in run:
    pass
print(run.layouts[0].side, step.losses["total"])
"""


@pytest.mark.slow
def test_a_process_that_runs_out_of_memory_continues_in_tiles():
    """TensorFlow's allocator gets less memory than the whole image needs, but enough for tiles.

    With 330 MB, the operation that runs out is the padding of conv1_2 (with 280 to 360 MB as well). It must
    not be a convolution: oneDNN's convolution of TensorFlow 2.21 (`MklConvOp::Compute`) does not check
    whether its output was allocated, and ends the process.
    """
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", "TF_MKL_ALLOC_MAX_BYTES": "330000000"}
    done = subprocess.run([sys.executable, "-c", RUNS_OUT], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"out of memory.*640 x 640.*tiles", done.stderr)
    tiled = done.stdout.split()[-1]
    whole = subprocess.run(
        [sys.executable, "-c", RUNS_OUT], capture_output=True, text=True, check=True
    ).stdout
    assert whole.startswith("None")
    assert float(tiled) == pytest.approx(float(whole.split()[-1]), rel=1e-3)


@pytest.mark.parametrize(("optimizer", "limit"), [("adam", 6e9), ("lbfgs", 16e9), ("lbfgs_fixed_step", 16e9)])
def test_64_megapixels_are_planned_within_the_limit(small_weights, optimizer, limit):
    # The content target takes 2 bytes for each of 128 channels at a quarter of the pixels.
    limit += 64 * 8192**2
    gigabytes = (limit - memory.budget(0.0, "/CPU:0")) / 1e9  # a limit includes what the process holds
    config = StyleConfig(optimizer=optimizer, precision="bfloat16", tile="auto", memory=gigabytes)
    encoder = Encoder(("conv1_1", "conv2_1", "conv2_2"), small_weights, dtype="bfloat16")
    chosen = config.replace({"style_layers": ("conv1_1", "conv2_1"), "content_layers": ("conv2_2",)})
    prepared = make_setup(chosen, "/CPU:0", encoder=encoder)
    scales = [Scale(1, (8192, 8192), 1.0, 1)]
    (plan,) = layout.plan_layouts(config, prepared, scales=scales, style_shapes=[[(900, 600)]])
    assert max(plan.side) <= memory.MAX_TILE_SIDE
    assert plan.style_side is None
    assert layout.estimated_bytes(prepared, (8192, 8192), layout=plan) <= limit
    if optimizer != "adam":
        assert 1 <= plan.lbfgs_pairs < 10
        images = memory.state_images(prepared.optimizer_with(plan.lbfgs_pairs)) * 12 * 8192**2
        free = limit - 64 * 8192**2 - images
        assert 0 < free < 8 * 12 * 8192**2  # less than the two images of another pair and the six of a step


@pytest.mark.slow
@pytest.mark.parametrize("compile", ["eager", "graph"])
def test_no_graph_outlives_its_run(small_weights, content, style, compile):
    """TensorFlow keeps the graph of everything that it registers globally, such as custom gradients."""
    layers = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1", "conv2_2")}
    options = {"size": 24, "scales": 1, "iterations": 2, "precision": "float32", "compile": compile, **layers}
    losses = ("gram", "mean_deviation", "wasserstein", "blurred")
    cases = [("zeros", "mean_squared"), ("reflect", "sum_absolute"), ("circular", "nine_point")]
    encoders = [Encoder(layers["style_layers"], small_weights, padding=padding) for padding, _ in cases]

    def graphs_after_runs():
        for encoder, (padding, variation) in zip(encoders, cases, strict=True):
            extra = {"tv_form": variation, "optimizer": "adam", "normalize_gradients": padding == "zeros"}
            stylize(content, style, encoder=encoder, style_losses=losses, **options, **extra)
        gc.collect()
        return sum(type(thing).__name__ == "FuncGraph" for thing in gc.get_objects())

    graphs_after_runs()  # Keras and TensorFlow keep a few graphs of the first run
    assert graphs_after_runs() == graphs_after_runs()

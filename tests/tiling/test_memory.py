"""What a step is thought to take, against what a process takes; what is made of it; what is left."""

import gc
import json
import os
import re
import subprocess
import sys

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

def held(what):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if what in line)

options = json.loads(sys.argv[1])
pixels = np.random.default_rng(0).integers(0, 256, (options["size"], options["size"], 3), np.uint8)
run = Run(pixels, pixels[:256, :256], StyleConfig(weights="random", scales=1, **options))
before, estimate = held("VmRSS"), estimated_bytes(run.setup, run.scales[-1].shape, layout=run.layouts[-1])
for _ in run:
    pass
print(json.dumps([estimate, held("VmHWM") - before]))
"""
LOW = {"style_layers": ["conv1_1", "conv2_1", "conv3_1"], "content_layers": ["conv3_1"]}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "options",
    [
        {"size": 512, "optimizer": "adam", "iterations": 2, "tile": "off", **LOW},
        {
            "size": 384,
            "optimizer": "lbfgs",
            "iterations": 14,
            "tile": "off",
            **LOW,
        },  # till all pairs are there
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


def test_what_an_optimiser_keeps_for_each_number():
    assert memory.state_images(adam()) == 2
    assert memory.state_images(averaged(adam(), 0.9)) == 3
    assert memory.state_images(lbfgs(5)) == 3 + 2 * 5  # point, gradient, direction, and the pairs
    assert memory.state_images(from_keras(tf.keras.optimizers.Adam())) == 3  # the variable among them
    assert memory.state_images(from_keras(tf.keras.optimizers.Adagrad())) == 2


def test_smaller_tiles_take_less_and_the_largest_that_fits_is_found():
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


def test_pairs_that_fit():
    each = 2 * 12 * 100 * 100
    assert memory.affordable_pairs((100, 100), 3.5 * each, wanted=10) == 4  # and the first
    assert memory.affordable_pairs((100, 100), -1e9, wanted=10) == 1
    assert memory.affordable_pairs((100, 100), 1e12, wanted=10) == 10


def test_the_budget(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 10e9)
    monkeypatch.setattr(memory, "process_bytes", lambda: 1e9)
    memory._initial_bytes.cache_clear()
    assert memory.budget(None, "/CPU:0") == 9e9
    assert memory.budget(4.0, "/CPU:0") == 3e9
    assert memory.budget(4.0, "/GPU:0") == 4e9
    monkeypatch.setattr(memory, "process_bytes", lambda: 3e9)  # an earlier run's, which serves the next
    assert memory.budget(4.0, "/CPU:0") == 3e9
    assert memory.budget(None, "/CPU:0") == pytest.approx(0.9 * 12e9)
    assert memory.budget(None, "/GPU:0") is None
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    assert memory.budget(None, "/CPU:0") is None
    memory._initial_bytes.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_the_system_says():
    assert 1e8 < memory.process_bytes() < 1e12
    assert 1e7 < memory.free_bytes() < 1e14


# On the command line


@pytest.fixture
def painted(files, small_file, capsys):
    def go(*options):
        pictures = [str(files / f"{name}.png") for name in ("content", "style")]
        few = ["--size", "48", "--iterations", "2", "--weights", str(small_file), "--precision", "float32"]
        code = cli.main(["stylize", *pictures, "-o", str(files / "out.png"), "--overwrite", *few, *options])
        return code, capsys.readouterr()

    return go


def test_the_estimate_is_said(painted):
    code, said = painted()
    assert code == 0
    assert "tfstyle: a step at 48 x 34 pixels takes about 0.1 GB" in said.err


def test_too_little_memory_is_said_with_the_tiles(painted):
    code, said = painted("--memory", "0.05")  # less than the process holds
    assert code == 0
    assert "GB at 48 x 34 pixels, and" in said.err
    assert "in tiles too it takes more than there is: a smaller size may be needed" in said.err
    assert re.search(
        r"a step at 48 x 34 pixels takes about [\d.]+ GB in tiles of \d+ x \d+; their margins", said.err
    )


def test_tiles_are_kept_in_the_picture(painted, files):
    assert painted("--tile", "16", "--optimizer", "adam")[0] == 0
    assert read_settings(files / "out.png")["facts"]["tiles"] == [16, 16]
    assert read_settings(files / "out.png")["options"]["tile"] == "16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tile", "none"], "tile is 'none'; it can be auto, off, or a number of pixels from 1"),
        (
            ["--tile", "16", "--style-losses", "gram,histogram"],
            "style_losses that sort, blur or look at places",
        ),
        (["--tile", "16", "--normalize-gradients", "--optimizer", "adam"], "normalize_gradients needs all"),
        (
            ["--tile", "7", "--padding", "circular", "--size", "41"],
            "sides that are multiples of 2 pixels, not",
        ),
    ],
)
def test_what_cannot_be_tiled_is_refused_in_one_line(painted, options, message):
    code, said = painted(*options)
    assert code == 2
    assert message in said.err.splitlines()[-1]
    assert "tile=off" in said.err or "tile is" in said.err


def test_xlas_first_calls_are_said(painted):
    code, said = painted("--compile", "xla", "--scales", "1")
    assert code == 0
    assert re.search(
        r"2 iterations in [\d.]+ s, of them [\d.]+ s in first calls, which XLA compiles for", said.out
    )
    code, said = painted()
    assert "XLA" not in said.out


def test_info_says_where_xla_keeps_programs(capsys, monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/somewhere")
    assert cli.main(["info"]) == 0
    assert re.search(r"xla cache +/somewhere", capsys.readouterr().out)


RUNS_OUT = """
import logging
import numpy as np
from tfstyle import StyleConfig
from tfstyle.run import Run

logging.basicConfig()
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
def test_a_process_that_runs_out_of_memory_goes_on_in_tiles():
    """Truly: TensorFlow's allocator is given less than the whole picture takes, and tiles fit."""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", "TF_MKL_ALLOC_MAX_BYTES": "400000000"}
    done = subprocess.run([sys.executable, "-c", RUNS_OUT], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "out of memory at 640 x 640 pixels: tiles of" in done.stderr
    tiled = done.stdout.split()[-1]
    whole = subprocess.run(
        [sys.executable, "-c", RUNS_OUT], capture_output=True, text=True, check=True
    ).stdout
    assert whole.startswith("None")
    assert float(tiled) == pytest.approx(float(whole.split()[-1]), rel=1e-3)


@pytest.mark.parametrize(("optimizer", "limit"), [("adam", 6e9), ("lbfgs", 16e9), ("lbfgs_fixed_step", 16e9)])
def test_64_megapixels_are_planned_within_what_there_is(small_weights, monkeypatch, optimizer, limit):
    config = StyleConfig(optimizer=optimizer, precision="bfloat16", tile="auto")
    encoder = Encoder(("conv1_1", "conv2_1", "conv2_2"), small_weights, dtype="bfloat16")
    chosen = config.replace({"style_layers": ("conv1_1", "conv2_1"), "content_layers": ("conv2_2",)})
    prepared = make_setup(chosen, "/CPU:0", encoder=encoder)
    # Of the content's features, 2 bytes for 128 channels at a quarter of the positions.
    monkeypatch.setattr(memory, "budget", lambda gigabytes, device: limit + 64 * 8192**2)
    scales = [Scale(1, (8192, 8192), 1.0, 1)]
    (plan,) = layout.plan_layouts(config, prepared, scales=scales, style_shapes=[[(900, 600)]])
    assert max(plan.side) <= memory.MAX_TILE_SIDE
    assert plan.style_side is None
    assert layout.estimated_bytes(prepared, (8192, 8192), layout=plan) <= limit + 64 * 8192**2
    if optimizer != "adam":
        assert 1 <= plan.lbfgs_pairs < 10
        images = memory.state_images(prepared.optimizer_with(plan.lbfgs_pairs)) * 12 * 8192**2
        assert images < limit < images + 8 * 12 * 8192**2  # one pair more would not fit


@pytest.mark.parametrize("compile", ["eager", "graph"])
def test_no_graph_outlives_its_run(small_weights, content, style, compile):
    """What TensorFlow registers for good, as it does each gradient of `tf.custom_gradient`, keeps them."""
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

    graphs_after_runs()  # a few are made once and stay, Keras' and TensorFlow's own
    assert graphs_after_runs() == graphs_after_runs()

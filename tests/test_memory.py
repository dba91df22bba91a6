"""What a step is thought to take, against what a process takes; and what is made of it."""

import json
import subprocess
import sys

import pytest
import tensorflow as tf

from tfstyle import adam, lbfgs, memory, optimizers
from tfstyle.tiles import Reach

VIEW = Reach({"conv1_1": 1, "conv3_1": 4}, 24, False)

MEASURE = """
import json, sys
import numpy as np
from tfstyle import StyleConfig
from tfstyle.runs import Run

def held(what):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if what in line)

options = json.loads(sys.argv[1])
pixels = np.random.default_rng(0).integers(0, 256, (options["size"], options["size"], 3), np.uint8)
run = Run(pixels, pixels[:256, :256], StyleConfig(weights="random", scales=1, **options))
before, estimate = held("VmRSS"), run.estimated_bytes()
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
    assert memory.vectors(adam()) == 2
    assert memory.vectors(optimizers.averaged(adam(), 0.9)) == 3
    assert memory.vectors(lbfgs(5)) == 3 + 2 * 5  # point, gradient, direction, and the pairs
    assert memory.vectors(optimizers.from_keras(tf.keras.optimizers.Adam())) == 3


def test_smaller_tiles_take_less_and_the_largest_that_fits_is_found():
    shape, features = (3000, 2000), (2, 32.0)
    sizes = [memory.step_bytes(shape, *features, adam(), side, VIEW) for side in (128, 512, 1024, 2048)]
    assert sizes == sorted(sizes)
    assert sizes[-1] < 1.3 * memory.step_bytes(shape, *features, adam())
    side = memory.fitting_side(shape, sizes[1], *features, adam(), VIEW)
    assert side == 512
    assert memory.fitting_side(shape, 1e12, *features, adam(), VIEW) == memory.LARGEST
    assert memory.fitting_side(shape, 1.0, *features, adam(), VIEW) == memory.SMALLEST


def test_pairs_that_fit():
    each = 2 * 12 * 100 * 100
    assert memory.affordable_pairs((100, 100), 3.5 * each, 10) == 4  # and the first
    assert memory.affordable_pairs((100, 100), -1e9, 10) == 1
    assert memory.affordable_pairs((100, 100), 1e12, 10) == 10


def test_the_budget(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 10e9)
    monkeypatch.setattr(memory, "held_bytes", lambda: 1e9)
    assert memory.budget(None, "/CPU:0") == 9e9
    assert memory.budget(4.0, "/CPU:0") == 3e9
    assert memory.budget(4.0, "/GPU:0") == 4e9
    assert memory.budget(None, "/GPU:0") is None
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    assert memory.budget(None, "/CPU:0") is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_the_system_says():
    assert 1e8 < memory.held_bytes() < 1e12
    assert 1e7 < memory.free_bytes() < 1e14

"""Runs whose processes are killed, starved of disk or watched: what is left of them, and what they become."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.conftest import make_picture
from tests.run.killing import INSTANTS, Server
from tfstyle.images import ImageArray, load, save

KILLS = 20


@pytest.fixture(scope="module")
def server():
    with Server() as running:  # which has answered when all is imported
        yield running


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, small_file):
    """A folder -> the arguments of a run in it, of two scales, with a checkpoint after every iteration."""
    inputs = tmp_path_factory.mktemp("inputs")
    pictures = {"content.png": make_picture(40, 56, seed=2), "style.png": make_picture(48, 44, seed=3)}
    for name, picture in pictures.items():
        save(inputs / name, ImageArray(picture))

    def of(folder):
        return [
            "stylize", *(inputs / name for name in pictures), "-o", folder / "out.png",
            "--history", folder / "history.json", "--weights", small_file, "--size", "48",
            "--min-scale", "24", "--iterations", "40", "--checkpoint", folder / "checkpoints",
            "--checkpoint-every", "0", "--resume",
        ]  # fmt: skip

    return of


@pytest.fixture(scope="module")
def whole(arguments, server, tmp_path_factory):
    """The folder of a run without a break, and the seconds it took."""
    folder = tmp_path_factory.mktemp("whole")
    began = time.monotonic()
    server.start(arguments(folder), folder / "said")
    assert server.end() == 0, (folder / "said").read_text()
    return folder, time.monotonic() - began


def assert_same(folder, whole):
    """Two pictures have the same pixels, two histories the same numbers but for the seconds."""
    assert np.array_equal(load(folder / "out.png").rgb, load(whole / "out.png").rgb)
    here, there = (json.loads((f / "history.json").read_text()) for f in (folder, whole))
    assert len(here.pop("seconds")) == len(there.pop("seconds")) == 80
    assert here == there


def numbers(folder):
    return sorted(path.name for path in folder.glob("checkpoint-*.npz"))


def last_life(server, arguments, folder, whole):
    """Let a run come to its end, and compare."""
    server.start(arguments, folder / "said")
    assert server.end() == 0, (folder / "said").read_text()
    assert_same(folder, whole)
    assert len(numbers(folder / "checkpoints")) == 2
    assert not list(folder.rglob(".tfstyle-*"))


@pytest.mark.slow
def test_runs_killed_at_random_instants_give_the_same_picture(server, arguments, tmp_path, whole):
    instants = random.Random(0)
    reference, seconds = whole
    kills, folders, within = 0, 0, 0
    while kills < KILLS:
        folders += 1
        folder = tmp_path / str(folders)
        folder.mkdir()
        command = arguments(folder)
        while kills < KILLS:
            began = numbers(folder / "checkpoints") if (folder / "checkpoints").exists() else []
            child = server.start(command, folder / "said")
            if kills % 2:  # not while it is still being prepared: there the others mostly hit
                deadline = time.monotonic() + 60
                while numbers(folder / "checkpoints") == began and os.path.exists(f"/proc/{child}"):
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
            time.sleep(instants.uniform(0, seconds / (6 if kills % 2 else 1.3)))
            with contextlib.suppress(ProcessLookupError):  # done before it was hit
                os.kill(child, signal.SIGKILL)
            code = server.end()
            assert code in (0, -signal.SIGKILL), (folder / "said").read_text()
            if code == 0:
                break
            kills += 1
            within += bool(list((folder / "checkpoints").glob(".tfstyle-*")))
        last_life(server, command, folder, reference)
    print(f"{kills} kills, {folders} runs, {within} within the writing of a checkpoint")


@pytest.mark.slow
def test_a_run_killed_at_every_stage_of_writing_a_checkpoint_gives_the_same_picture(
    server, arguments, tmp_path, whole
):
    command, folder = arguments(tmp_path), tmp_path / "checkpoints"
    for instant in INSTANTS:
        server.start(command, tmp_path / "said", die=instant)
        assert server.end() == -signal.SIGKILL
        early = instant in INSTANTS[:3]
        assert len(list(folder.glob(".tfstyle-*"))) == early  # that of the life before has been removed
        assert len(numbers(folder)) == (2 if early else 3)
    last_life(server, command, tmp_path, whole[0])


WATCHED = """
import json, os, sys
from tests.conftest import make_picture
from tfstyle import StyleConfig
from tfstyle.run import CheckpointFolder, Run

folder, weights, optimizer, leaked = sys.argv[1:]
options = {"weights": weights, "size": 32, "scales": 1, "iterations": 2500, "optimizer": optimizer}
config = StyleConfig().replace(options)
page, resident, kept = os.sysconf("SC_PAGE_SIZE"), [], []
checkpoints = CheckpointFolder(folder, every=0.2)
run = Run(make_picture(40, 56, 2), make_picture(48, 44, 3), config, checkpoints=checkpoints)
for step in run:
    if step.iteration % 10 == 0:
        with open("/proc/self/statm") as file:
            resident.append(int(file.read().split()[1]) * page)
    if leaked == "leaked":
        kept.append(step.image.copy())
series = [*[v for v in vars(run.history).values() if isinstance(v, list)], *run.history.style_layers.values()]
numbers = sum(sys.getsizeof(item) for s in series for item in s) + sum(map(sys.getsizeof, series))
print(json.dumps({"resident": resident, "history": numbers / 2500}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "leaked"), [("lbfgs", ""), ("adam", ""), ("adam", "leaked")])
def test_memory_does_not_grow_but_by_the_historys_numbers(optimizer, leaked, small_file, tmp_path):
    """Over 1,000 iterations, in blocks of 50: the median growth, within its own noise.

    Before them come 1,500: for so long Python's and TensorFlow's own memory takes to settle, half a kilobyte
    an iteration.
    """
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, tmp_path, small_file, optimizer, leaked],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    resident = np.array(found["resident"])[149::5]  # at iterations 1500, 1550, ..., 2500
    growths = np.diff(resident) - 50 * found["history"]
    middle = np.median(growths)
    noise = 1.4826 * np.median(np.abs(growths - middle)) / np.sqrt(len(growths))
    words = f"beside the history's {found['history']:.0f}; noise {noise / 50:.0f}"
    print(f"{optimizer}: {middle / 50:.0f} bytes an iteration {words}")
    assert len(growths) == 20
    page = os.sysconf("SC_PAGE_SIZE")  # memory is counted in these
    assert (middle <= 3 * noise + page) == (leaked == "")

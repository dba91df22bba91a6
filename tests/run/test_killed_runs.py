"""Tests of runs whose processes are killed and resumed, and of the memory of long runs."""

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

from tests.conftest import make_image
from tests.run.killing import INSTANTS, Server
from tfstyle.images import ImageArray, load, save

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")

KILLS = 20


@pytest.fixture(scope="module")
def server():
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, small_file):
    """A function of a folder that returns the arguments of a run with checkpoints and results in the folder.

    The run has two scales and writes a checkpoint after every iteration.
    """
    inputs = tmp_path_factory.mktemp("inputs")
    images = {"content.png": make_image(40, 56, seed=2), "style.png": make_image(48, 44, seed=3)}
    for name, image in images.items():
        save(inputs / name, ImageArray(image))

    def arguments_for(folder):
        return [
            "stylize", *(inputs / name for name in images), "-o", folder / "out.png",
            "--history", folder / "history.json", "--weights", small_file, "--size", "48",
            "--min-scale", "24", "--iterations", "40", "--checkpoint", folder / "checkpoints",
            "--checkpoint-every", "0", "--resume",
        ]  # fmt: skip

    return arguments_for


@pytest.fixture(scope="module")
def whole(arguments, server, tmp_path_factory):
    """The folder of a run without interruption, and the time that it took in seconds."""
    folder = tmp_path_factory.mktemp("whole")
    began = time.monotonic()
    server.start(arguments(folder), folder / "log.txt")
    assert server.end() == 0, (folder / "log.txt").read_text()
    return folder, time.monotonic() - began


def assert_same(folder, whole):
    """Assert that two results have the same pixels and the same history, except its seconds."""
    assert np.array_equal(load(folder / "out.png").rgb, load(whole / "out.png").rgb)
    history, expected = (json.loads((f / "history.json").read_text()) for f in (folder, whole))
    assert len(history.pop("seconds")) == len(expected.pop("seconds")) == 80
    assert history == expected


def checkpoint_names(folder):
    return sorted(path.name for path in folder.glob("checkpoint-*.npz"))


def finish_and_compare(server, arguments, folder, whole):
    """Resume a run, let it end, and compare its result with that of a run without interruption."""
    server.start(arguments, folder / "log.txt")
    assert server.end() == 0, (folder / "log.txt").read_text()
    assert_same(folder, whole)
    assert len(checkpoint_names(folder / "checkpoints")) == 2
    assert not list(folder.rglob(".tfstyle-*"))


@pytest.mark.slow
def test_runs_killed_at_random_instants_give_the_same_result(server, arguments, tmp_path, whole):
    instants = random.Random(0)
    reference, seconds = whole
    kills, folders, during_writing = 0, 0, 0
    while kills < KILLS:
        folders += 1
        folder = tmp_path / str(folders)
        folder.mkdir()
        command = arguments(folder)
        while kills < KILLS:
            before = checkpoint_names(folder / "checkpoints") if (folder / "checkpoints").exists() else []
            child = server.start(command, folder / "log.txt")
            if kills % 2:  # after the first checkpoint; the other kills mostly come before it
                deadline = time.monotonic() + 60
                while checkpoint_names(folder / "checkpoints") == before and os.path.exists(f"/proc/{child}"):
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
            time.sleep(instants.uniform(0, seconds / (6 if kills % 2 else 1.3)))
            with contextlib.suppress(ProcessLookupError):  # the run has ended
                os.kill(child, signal.SIGKILL)
            code = server.end()
            assert code in (0, -signal.SIGKILL), (folder / "log.txt").read_text()
            if code == 0:
                break
            kills += 1
            during_writing += bool(list((folder / "checkpoints").glob(".tfstyle-*")))
        finish_and_compare(server, command, folder, reference)
    print(f"{kills} kills, {folders} runs, {during_writing} kills while a checkpoint was written")


@pytest.mark.slow
def test_a_run_killed_at_every_stage_of_writing_a_checkpoint_gives_the_same_result(
    server, arguments, tmp_path, whole
):
    command, folder = arguments(tmp_path), tmp_path / "checkpoints"
    for instant in INSTANTS:
        server.start(command, tmp_path / "log.txt", die=instant)
        assert server.end() == -signal.SIGKILL
        unfinished = instant in INSTANTS[:3]
        # Each run removes the temporary file of the run before.
        assert len(list(folder.glob(".tfstyle-*"))) == unfinished
        assert len(checkpoint_names(folder)) == (2 if unfinished else 3)
    finish_and_compare(server, command, tmp_path, whole[0])


WATCHED = """
import json, os, sys
from tests.conftest import make_image
from tfstyle import StyleConfig
from tfstyle.run import CheckpointFolder, Run

folder, weights, optimizer, leaked = sys.argv[1:]
options = {"weights": weights, "size": 32, "scales": 1, "iterations": 2500, "optimizer": optimizer}
config = StyleConfig().replace(options)
page, resident, images = os.sysconf("SC_PAGE_SIZE"), [], []
checkpoints = CheckpointFolder(folder, every=0.2)
run = Run(make_image(40, 56, 2), make_image(48, 44, 3), config, checkpoints=checkpoints)
for step in run:
    if step.iteration % 10 == 0:
        with open("/proc/self/statm") as file:
            resident.append(int(file.read().split()[1]) * page)
    if leaked == "leaked":
        images.append(step.image.copy())
series = [*[v for v in vars(run.history).values() if isinstance(v, list)], *run.history.style_layers.values()]
numbers = sum(sys.getsizeof(item) for s in series for item in s) + sum(map(sys.getsizeof, series))
print(json.dumps({"resident": resident, "history": numbers / 2500}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "leaked"), [("lbfgs", ""), ("adam", ""), ("adam", "leaked")])
def test_memory_grows_only_by_the_numbers_of_the_history(optimizer, leaked, small_file, tmp_path):
    """The median growth in blocks of 50 iterations is zero within its noise, over 1,000 iterations.

    During 1,500 iterations before, the memory of Python and TensorFlow still grows by half a kilobyte each.
    """
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, tmp_path, small_file, optimizer, leaked],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    resident = np.array(measured["resident"])[149::5]  # at iterations 1500, 1550, ..., 2500
    growths = np.diff(resident) - 50 * measured["history"]
    median = np.median(growths)
    noise = 1.4826 * np.median(np.abs(growths - median)) / np.sqrt(len(growths))
    rest = f"besides {measured['history']:.0f} of the history; noise {noise / 50:.0f}"
    print(f"{optimizer}: {median / 50:.0f} bytes per iteration {rest}")
    assert len(growths) == 20
    page = os.sysconf("SC_PAGE_SIZE")  # the unit in which memory is counted
    assert (median <= 3 * noise + page) == (leaked == "")

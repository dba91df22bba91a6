"""A test of a batch on Ray whose processes are killed. It is in its own file to run beside the others."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray.data", reason="needs tfstyle[cluster]")


def test_processes_that_are_killed_lose_nothing():
    """A worker, a node and the command are killed at random instants; see tests/benchmarks/kills.py."""
    script = [sys.executable, "-m", "tests.benchmarks.kills", "--images", "10", "--size", "64"]
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [*script, "--iterations", "20", "--pause", "3", "--kinds", "worker", "node", "command"],
        cwd=root, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "all results are there and equal" in run.stdout
    assert "kills: {'command': 1, 'node': 1, 'worker': 1}" in run.stdout

"""Every example runs and does what its docstring states."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfstyle.network import weights

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments, cwd):
    """Run an example in its own process and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_has_a_test():
    tested = Path(__file__).read_text()
    for script in EXAMPLES.glob("*.py"):
        assert f'run("{script.name}"' in tested


def test_the_gallery_shows_every_experiment_with_a_command_that_is_one():
    from tfstyle import papers
    from tfstyle.cli import explore

    page = (EXAMPLES / "gallery" / "README.md").read_text()
    commands = re.findall(r"^tfstyle explore (.*)$", page, re.MULTILINE)
    shown = [shlex.split(command) for command in commands]
    assert [name for name, *_ in shown] == sorted(papers.RECIPES, key=[n for n, *_ in shown].index)
    for name, *rest in shown:
        explore._parser(name, papers.recipe(name)).parse_args(rest)
        for argument in rest:
            assert "/" not in argument or (EXAMPLES.parent / argument).is_file(), argument
    figures = re.findall(r"^!\[.+\]\((.+)\)$", page, re.MULTILINE)
    assert [Path(figure).stem for figure in figures] == [name for name, *_ in shown]
    files = [EXAMPLES / "gallery" / figure for figure in figures]
    assert sum(file.stat().st_size for file in files) < 3e6
    for file in files:
        Image.open(file).verify()


def test_stylize(tmp_path, small_file):
    printed = run("stylize.py", str(small_file), "96", cwd=tmp_path)
    assert re.search(r"^96 x 72: loss \d", printed, re.MULTILINE)
    assert re.search(r"^village_at_evening\.png .*small\.npz", printed, re.MULTILINE)
    assert Image.open(tmp_path / "village_at_evening.png").size == (96, 72)


@pytest.mark.slow
def test_custom_objective(tmp_path, small_file):
    def activations(steps):
        printed = run("custom_objective.py", str(small_file), "24", steps, cwd=tmp_path)
        return [float(line.split()[-1]) for line in printed.splitlines()]

    few, many = activations("1"), activations("30")
    assert len(few) == 4
    assert all(
        b > a for a, b in zip(few, many, strict=True)
    )  # more steps raise the activation of each channel
    assert Image.open(tmp_path / "what_filters_like.png").size == (96, 24)


def test_the_package_has_the_same_evening():
    """A wheel has no examples, so the package has a copy of evening.jpg for `tfstyle demo`."""
    assert weights.EMBEDDED.with_name("evening.jpg").read_bytes() == (EXAMPLES / "evening.jpg").read_bytes()


@pytest.mark.slow
def test_the_images_are_those_that_the_script_draws(tmp_path):
    run("draw.py", str(tmp_path), cwd=tmp_path)
    for name in ("village.jpg", "evening.jpg"):
        drawn, stored = (np.asarray(Image.open(folder / name), float) for folder in (tmp_path, EXAMPLES))
        assert np.abs(drawn - stored).mean() < 4  # other versions of Pillow may round lines differently

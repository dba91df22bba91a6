"""Every example is run, and does what it says."""

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

    words = (EXAMPLES / "gallery" / "README.md").read_text()
    commands = re.findall(r"^tfstyle explore (.*)$", words, re.MULTILINE)
    shown = [shlex.split(command) for command in commands]
    assert [name for name, *_ in shown] == sorted(papers.RECIPES, key=[n for n, *_ in shown].index)
    for name, *rest in shown:
        explore._parser(name, papers.recipe(name)).parse_args(rest)
        for word in rest:
            assert "/" not in word or (EXAMPLES.parent / word).is_file(), word
    pictures = re.findall(r"^!\[.+\]\((.+)\)$", words, re.MULTILINE)
    assert [Path(picture).stem for picture in pictures] == [name for name, *_ in shown]
    files = [EXAMPLES / "gallery" / picture for picture in pictures]
    assert sum(file.stat().st_size for file in files) < 3e6
    for file in files:
        Image.open(file).verify()


def test_stylize(tmp_path, small_file):
    words = run("stylize.py", str(small_file), "96", cwd=tmp_path)
    assert "96 x 72: loss" in words
    assert "with small.npz weights" in words
    assert Image.open(tmp_path / "village_at_evening.png").size == (96, 72)


def test_custom_objective(tmp_path, small_file):
    def activations(steps):
        words = run("custom_objective.py", str(small_file), "24", steps, cwd=tmp_path)
        return [float(line.split()[-1]) for line in words.splitlines()]

    few, many = activations("1"), activations("30")
    assert len(few) == 4
    assert all(b > a for a, b in zip(few, many, strict=True))  # the channel fires more
    assert Image.open(tmp_path / "what_filters_like.png").size == (96, 24)


def test_the_package_has_the_same_evening():
    """A wheel has no examples, so that `tfstyle demo` brings a copy."""
    assert weights.EMBEDDED.with_name("evening.jpg").read_bytes() == (EXAMPLES / "evening.jpg").read_bytes()


@pytest.mark.slow
def test_the_pictures_are_those_that_the_script_draws(tmp_path):
    run("draw.py", str(tmp_path), cwd=tmp_path)
    for name in ("village.jpg", "evening.jpg"):
        drawn, kept = (np.asarray(Image.open(folder / name), float) for folder in (tmp_path, EXAMPLES))
        assert np.abs(drawn - kept).mean() < 4  # another Pillow may round lines differently

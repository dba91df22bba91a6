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


def start(name, *arguments, cwd):
    """Run an example in its own process."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def run(name, *arguments, cwd):
    """Run an example in its own process and return what it prints."""
    done = start(name, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_has_a_test():
    tested = Path(__file__).read_text(encoding="utf-8")
    for script in EXAMPLES.glob("*.py"):
        assert f'run("{script.name}"' in tested


def test_the_gallery_shows_every_experiment_with_a_command_that_is_one():
    from tfstyle import papers
    from tfstyle.cli import explore

    page = (EXAMPLES / "gallery" / "README.md").read_text(encoding="utf-8")
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


def test_perceptual_loss(tmp_path):
    printed = run("perceptual_loss.py", str(EXAMPLES / "evening.jpg"), "embedded", "60", "32", cwd=tmp_path)
    losses = [float(loss) for loss in re.findall(r"loss: ([\d.]+)", printed)]
    assert len(losses) == 3
    assert losses[2] < losses[1] < losses[0]
    painted = np.asarray(Image.open(tmp_path / "perceptual_loss.png").convert("RGB"), float)
    assert painted.shape == (72, 192, 3)
    assert np.abs(painted[:, :96] - painted[:, 96:]).mean() > 5  # the output is not the input


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


@pytest.fixture
def two_styles(tmp_path):
    """A temporary folder ``images`` with red stripes and blue blobs, three different images of each."""
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(3):
        stripes = np.sin(np.arange(64)[:, None] * generator.uniform(0.9, 1.1) + np.zeros(48)) > 0
        blobs = Image.fromarray(generator.integers(0, 256, (8, 6), dtype=np.uint8)).resize((48, 64))
        for name, shape, colour in (("red", 255 * stripes, 0), ("blue", np.asarray(blobs), 2)):
            pixels = np.zeros((64, 48, 3), np.uint8)
            pixels[..., colour] = 120 + shape // 2
            Image.fromarray(pixels).save(folder / f"{name}{number}.png")
    return folder


def read_neighbours(printed):
    """Return query image -> inner products and names of its neighbours, in the order printed."""
    blocks = re.findall(r"^(\S+)\n((?:  .+\n)+)", printed, re.MULTILINE)
    rows = {Path(query).stem: map(str.split, block.splitlines()) for query, block in blocks}
    return {query: [(float(number), Path(path).stem) for number, path in row] for query, row in rows.items()}


def test_style_search(tmp_path, two_styles):
    printed = run("style_search.py", "images", "all", "embedded", cwd=tmp_path)
    neighbours = read_neighbours(printed)
    assert set(neighbours) == {f"{name}{number}" for name in ("red", "blue") for number in range(3)}
    for query, found in neighbours.items():
        assert {name for _, name in found} == set(neighbours) - {query}
        assert [name[:-1] for _, name in found[:2]] == [query[:-1]] * 2  # those of its own style come first
        similarities = [similarity for similarity, _ in found]
        assert similarities == sorted(similarities, reverse=True)
        for similarity, name in found:  # the inner product is symmetric
            assert (similarity, query) in neighbours[name]

    drawn = np.asarray(Image.open(tmp_path / "style_map.png").convert("RGB"), int)
    assert max(drawn.shape) == 1024
    red, _, blue = np.moveaxis(drawn, -1, 0)
    columns = [np.flatnonzero((difference > 60).any(0)) for difference in (red - blue, blue - red)]
    left, right = sorted(columns, key=np.min)
    assert left.max() < right.min()  # the first component separates the two styles
    shares = [int(share) for share in re.findall(r"(\d+)%", printed.splitlines()[-1])]
    assert shares[0] > 50
    assert shares[0] > shares[1]
    assert sum(shares) <= 101  # each is rounded


def test_style_search_for_one_image(tmp_path, two_styles):
    outside = tmp_path / "query.png"
    (two_styles / "red0.png").rename(outside)
    printed = run("style_search.py", "images", "query.png", "embedded", "images/map.png", cwd=tmp_path)
    ((query, found),) = read_neighbours(printed).items()
    assert query == "query"
    assert len(found) == 5
    assert {name for _, name in found[:2]} == {"red1", "red2"}
    # The map is now an image of the folder. It is not searched, and neither is an image that is damaged.
    (two_styles / "red1.png").write_bytes(b"damaged")
    printed = run("style_search.py", "images", "images/red2.png", "embedded", "images/map.png", cwd=tmp_path)
    assert {name for _, name in read_neighbours(printed)["red2"]} == {"blue0", "blue1", "blue2"}


def test_style_search_needs_three_images(tmp_path, two_styles):
    for path in two_styles.glob("red*"):
        path.unlink()
    (two_styles / "blue0.png").unlink()
    done = start("style_search.py", "images", "all", "embedded", cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(r"^images .*\b2\b.* at least 3$", done.stderr, re.MULTILINE)
    (tmp_path / "empty").mkdir()
    done = start("style_search.py", "empty", cwd=tmp_path)
    assert done.returncode == 1
    assert "the folder empty contains no image" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "style_map.png").exists()


def test_the_package_has_the_same_evening():
    """A wheel has no examples, so the package has a copy of evening.jpg for `tfstyle demo`."""
    assert weights.EMBEDDED.with_name("evening.jpg").read_bytes() == (EXAMPLES / "evening.jpg").read_bytes()


@pytest.mark.slow
def test_the_images_are_those_that_the_script_draws(tmp_path):
    run("draw.py", str(tmp_path), cwd=tmp_path)
    for name in ("village.jpg", "evening.jpg"):
        drawn, stored = (np.asarray(Image.open(folder / name), float) for folder in (tmp_path, EXAMPLES))
        assert np.abs(drawn - stored).mean() < 4  # other versions of Pillow may round lines differently

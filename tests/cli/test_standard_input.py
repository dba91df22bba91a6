"""Standard input in place of an image, and images from named pipes."""

import io
import os
import re
import sys
import threading

import numpy as np
import pytest

from tfstyle import cli, papers
from tfstyle.cli import explore
from tfstyle.images import load, read_settings
from tfstyle.papers.study import Panel, Study


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.fixture
def pipe(monkeypatch):
    """Let standard input have some content."""

    def give(content, stream=io.TextIOWrapper):
        monkeypatch.setattr(sys, "stdin", None if content is None else stream(io.BytesIO(content)))

    return give


@pytest.fixture
def here(files, monkeypatch):
    monkeypatch.chdir(files)
    return files


@pytest.fixture
def flags(small_file):
    return ["--weights", str(small_file), "--size", "32", "--iterations", "1", "--compile", "eager"]


@pytest.mark.parametrize(
    ("arguments", "piped", "name"),
    [
        (["-", "style.png"], "content.png", "stdin_style.png"),
        (["content.png", "-"], "style.png", "content_stdin.png"),
        (["content.png", "style.png", "-"], "content.png", "content_style_stdin.png"),
    ],
)
def test_an_image_from_standard_input_gives_the_result_of_the_file(here, pipe, flags, arguments, piped, name):
    paths = [piped if argument == "-" else argument for argument in arguments]
    assert cli.main(["stylize", *paths, "-o", "expected.png", *flags]) == 0
    pipe((here / piped).read_bytes())
    assert cli.main(["stylize", *arguments, *flags]) == 0
    assert np.array_equal(load(here / name).rgb, load(here / "expected.png").rgb)
    assert read_settings(here / name)["options"] == read_settings(here / "expected.png")["options"]


def test_standard_input_is_read_once_even_if_the_image_is_used_twice(here, pipe, flags):
    """With a fine style the style image is used by two runs; with --interpolate the content image by all."""
    pipe((here / "style.png").read_bytes())
    fine = ["--fine-style", "content.png"]
    assert cli.main(["stylize", "content.png", "-", "-o", "fine.png", *fine, *flags]) == 0
    pipe((here / "content.png").read_bytes())
    strip = ["--interpolate", "2"]
    assert cli.main(["stylize", "-", "style.png", "content.png", *strip, *flags]) == 0
    assert (here / "stdin_style_content.png").is_file()


def test_a_named_pipe_is_an_image(here, flags):
    os.mkfifo(here / "pipe")
    writer = threading.Thread(target=lambda: (here / "pipe").write_bytes((here / "content.png").read_bytes()))
    writer.start()
    assert cli.main(["stylize", "pipe", "style.png", "-o", "out.png", *flags]) == 0
    writer.join()
    assert cli.main(["stylize", "content.png", "style.png", "-o", "expected.png", *flags]) == 0
    assert np.array_equal(load(here / "out.png").rgb, load(here / "expected.png").rgb)


@pytest.mark.parametrize(
    ("piped", "stream", "arguments", "message"),
    [
        (
            b"",
            io.TextIOWrapper,
            ["stylize", "-", "style.png"],
            r"standard input \(-\) is empty; pipe an image",
        ),
        (
            None,
            io.TextIOWrapper,
            ["stylize", "-", "style.png"],
            r"standard input \(-\) is empty; pipe an image",
        ),
        (b"", Terminal, ["stylize", "-", "style.png"], r"standard input \(-\) is a terminal; pipe an image"),
        (b"", Terminal, ["explore", "tradeoff", "-", "style.png"], "is a terminal; pipe an image"),
        (b"GIF", io.TextIOWrapper, ["stylize", "-", "style.png"], "standard input: not an image"),
        (b"GIF", io.TextIOWrapper, ["stylize", "-", "-"], "holds one image only; give a file"),
        (b"GIF", io.TextIOWrapper, ["batch", "-", "style.png", "-o", "out"], "does not read standard input"),
        (b"GIF", io.TextIOWrapper, ["extract", "-", "-o", "out.npz"], "does not read standard input"),
        (b"GIF", io.TextIOWrapper, ["pretrain", "-", "-o", "out.npz"], "does not read standard input"),
    ],
)
def test_what_is_wrong_with_standard_input_is_one_line(here, pipe, capsys, piped, stream, arguments, message):
    before = set(here.iterdir())
    pipe(piped, stream)
    flags = ["--weights", "random"] if arguments[0] == "stylize" else []
    assert cli.main([*arguments, *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert set(here.iterdir()) == before


def test_an_experiment_reads_standard_input(here, pipe, monkeypatch):
    def recipe(content, style, *, progress=None):
        """Do nothing."""
        images.extend([load(content), load(style), load(content)])
        return Study("Nothing", ((Panel(np.zeros((4, 4, 3), np.float32), "black"),),), caption="Black.")

    images = []
    monkeypatch.setattr(papers, "recipe", lambda name: recipe)
    monkeypatch.setattr(explore, "recipe_declaration", lambda name: recipe)
    pipe((here / "content.png").read_bytes())
    assert cli.main(["explore", "starts", "-", "style.png"]) == 0
    for image, name in zip(images, ("content.png", "style.png", "content.png"), strict=True):
        assert np.array_equal(image.rgb, load(name).rgb)

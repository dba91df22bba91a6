"""``tfstyle explore``: a function's arguments as a command's options."""

import inspect
import io
import json
import re
import sys
import time
import typing
from pathlib import Path

import numpy as np
import pytest

from tfstyle import papers
from tfstyle.cli import explore, progress
from tfstyle.cli.parser import main
from tfstyle.errors import ConfigError
from tfstyle.papers import RECIPES, recipe
from tfstyle.papers.study import Panel, Progress, Study

CALLS = []
recipe_declaration = explore.recipe_declaration  # the fixture below puts another in its place


def cheap(
    content,
    style,
    *,
    size: int = 64,
    ratio: float = 0.5,
    weights: str = "auto",
    pooling: str = "avg",
    mirrored: bool = False,
    wrapped: bool = True,
    layers: tuple[str, ...] = ("conv1_1", "conv2_1"),
    seeds: tuple[int, ...] = (0, 1),
    ratios: tuple[float, ...] | None = None,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> Study:
    """Do next to nothing.

    A second paragraph, of details.

    Args:
        content: the first image,
            on two lines.
        style: the second.
        size: longest side in pixels; 100% of it.
        ratio, weights: two at once.
        pooling: text.
        mirrored: seamless.
        wrapped: as it says.
        layers: names.
        seeds: numbers.
        ratios: more numbers.
        seconds: of time.
        progress: called.

    Returns:
        nothing: to speak of.
    """
    given = {name: value for name, value in locals().items() if name != "progress"}
    CALLS.append(given)
    if size == 13:
        raise ConfigError("size is 13; it must be lucky")
    if progress is not None:
        progress("half done")
    return Study(
        "Next to nothing", ((Panel(np.zeros((4, 4, 3), np.float32), "black"),),), caption="All is black."
    )


@pytest.fixture(autouse=True)
def only_cheap(monkeypatch, tmp_path):
    CALLS.clear()
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.jpg"):  # never read
        Path(name).touch()
    monkeypatch.setattr(papers, "recipe", lambda name: cheap)
    monkeypatch.setattr(explore, "recipe_declaration", lambda name: cheap)


def stopped(*arguments):
    """The exit code of a command line that the parser refuses or answers."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def given(tmp_path, *options):
    assert main(["explore", "starts", "a.jpg", "b.jpg", "-o", str(tmp_path / "out"), *options]) == 0
    return CALLS[-1]


def test_every_experiment_is_listed_with_what_it_shows(capsys):
    assert stopped("explore", "--help") == 0
    words = capsys.readouterr().out
    for name, entry in RECIPES.items():
        assert any(line.split(maxsplit=1) == [name, entry.summary] for line in words.splitlines()), name


def test_help_is_the_docstrings(capsys):
    assert stopped("explore", "starts", "--help") == 0
    words = " ".join(capsys.readouterr().out.split())
    for part in (
        "tfstyle explore starts", "CONTENT STYLE", "Do next to nothing.",
        "CONTENT the first image, on two lines",
        "--size N longest side in pixels; 100% of it [64]", "--ratio X two at once [0.5]",
        "--weights NAME two at once [auto]", "--layers A,B,.. names [conv1_1,conv2_1]",
        "--seeds A,B,.. numbers [0,1]",
        "--mirrored, --no-mirrored seamless", "--seconds X of time -o", "[tfstyle-starts]",
    ):  # fmt: skip
        assert part in words, part
    assert "progress" not in words
    assert "to speak of" not in words


def test_without_options_the_defaults_hold(tmp_path):
    assert given(tmp_path) == {
        "content": "a.jpg", "style": "b.jpg", "size": 64, "ratio": 0.5, "weights": "auto", "pooling": "avg",
        "mirrored": False, "wrapped": True, "layers": ("conv1_1", "conv2_1"), "seeds": (0, 1), "ratios": None,
        "seconds": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--size", "32"], "size", 32),
        (["--ratio", "1e-3"], "ratio", 1e-3),
        (["--weights", "random"], "weights", "random"),
        (["--pooling", "max"], "pooling", "max"),
        (["--mirrored"], "mirrored", True),
        (["--no-wrapped"], "wrapped", False),
        (["--layers", "conv1_2"], "layers", ("conv1_2",)),
        (["--layers", "conv1_2, conv3_1"], "layers", ("conv1_2", "conv3_1")),
        (["--seeds", "3,4,5"], "seeds", (3, 4, 5)),
        (["--ratios", "1,0.5"], "ratios", (1.0, 0.5)),
        (["--seconds", "2"], "seconds", 2.0),
    ],
)
def test_flags_are_read_as_their_types(tmp_path, flags, name, value):
    given_value = given(tmp_path, *flags)[name]
    assert given_value == value
    assert type(given_value) is type(value)
    if isinstance(value, tuple):
        assert [type(item) for item in given_value] == [type(item) for item in value]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explore", "nothing"], "'nothing'.*texture"),
        (["explore", "starts", "a.jpg"], "STYLE"),
        (
            ["explore", "starts", "a.jpg", "b.jpg", "--colour", "red"],
            "--colour.*tfstyle explore starts --help",
        ),
        (["explore", "starts", "a.jpg", "b.jpg", "--size", "large"], "--size.*'large'.*integer"),
        (["explore", "starts", "a.jpg", "b.jpg", "--seeds", "1,two"], "--seeds.*'two'.*integer"),
        (["explore", "starts", "a.jpg", "b.jpg", "--ratios", "1,,2"], "--ratios.*''.*number"),
        (["texture", "a.jpg", "b.jpg", "--size", "large"], "--size.*'large'.*integer"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(capsys, arguments, words):
    assert stopped(*arguments) == 2
    error = capsys.readouterr().err
    assert re.search(words, error)
    assert error.count("\n") == 1
    assert not CALLS


def test_an_experiments_own_complaint_is_one_line_too(tmp_path, capsys):
    assert main(["explore", "starts", "a.jpg", "b.jpg", "--size", "13", "-o", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "tfstyle: error: --size is 13; it must be lucky\n"


def test_it_says_what_it_does_and_what_it_has_written(tmp_path, capsys):
    given(tmp_path)
    said = capsys.readouterr()
    assert said.err == "half done\n"
    names = ("figure.png", "01_black.png", "captions.md", "numbers.json")
    assert said.out.splitlines() == ["All is black.", *(str(tmp_path / "out" / name) for name in names)]
    assert json.loads((tmp_path / "out" / "numbers.json").read_text())["title"] == "Next to nothing"


def test_a_figure_that_is_there_is_refused_before_any_work(tmp_path, capsys):
    given(tmp_path)
    figure = tmp_path / "out" / "figure.png"
    figure.write_bytes(b"mine")
    CALLS.clear()
    assert main(["explore", "starts", "a.jpg", "b.jpg", "-o", str(figure.parent)]) == 2
    error = capsys.readouterr().err
    assert f"{figure} exists" in error
    assert "--overwrite" in error
    assert not CALLS
    assert figure.read_bytes() == b"mine"
    given(tmp_path, "--overwrite")
    assert figure.read_bytes() != b"mine"


def test_without_matplotlib_nothing_is_begun(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["explore", "starts", "a.jpg", "b.jpg", "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"tfstyle: error: .*matplotlib.*pip install 'tfstyle\[papers\]'\n", error)
    assert not CALLS
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["reconstruct", "texture"])
def test_two_experiments_are_commands_of_their_own(name, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(papers, "recipe", lambda name: asked.append(name) or cheap)
    monkeypatch.chdir(tmp_path)
    assert main([name, "--size", "32", "a.jpg", "b.jpg", "--mirrored"]) == 0  # options may come first
    assert asked == [name]
    assert (CALLS[-1]["size"], CALLS[-1]["content"], CALLS[-1]["mirrored"]) == (32, "a.jpg", True)
    assert (tmp_path / f"tfstyle-{name}" / "figure.png").is_file()
    capsys.readouterr()
    assert stopped(name, "--help") == 0
    assert "Do next to nothing." in capsys.readouterr().out
    assert stopped("--help") == 0
    assert name in capsys.readouterr().out


def test_an_experiment_that_there_is_not():
    with pytest.raises(ConfigError, match=r"'nothing'.*reconstruct, texture"):
        recipe("nothing")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--layers", "conv1_1,conv9_9"], "'conv9_9'.*conv5_4"),
        (["--weights", "gone.npz"], "gone.npz"),
    ],
)
def test_layers_and_weights_that_do_not_exist_are_one_line(capsys, flags, message):
    assert main(["explore", "starts", "a.jpg", "b.jpg", *flags]) == 2
    assert re.fullmatch(f"tfstyle: error: .*{message}.*\n", capsys.readouterr().err)
    assert not CALLS


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_declaration_is_that_of_the_function(name):
    """It is read from the source; its arguments, their types and defaults, and its words are the same."""
    declaration, function = recipe_declaration(name), recipe(name)
    assert inspect.getdoc(declaration) == inspect.getdoc(function)
    ours, theirs = (explore._parameters(f) for f in (declaration, function))
    assert list(ours) == list(theirs)
    types, expected = (typing.get_type_hints(f) for f in (declaration, function))
    for argument, parameter in theirs.items():
        assert (ours[argument].kind, ours[argument].default) == (parameter.kind, parameter.default)
        assert types.get(argument) == expected.get(argument)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_option_of_an_experiment_is_described(name, monkeypatch, capsys):
    monkeypatch.setattr(explore, "recipe_declaration", recipe_declaration)
    assert stopped("explore", name, "--help") == 0
    words = capsys.readouterr().out
    options = re.split("positional arguments:|options:", words, maxsplit=1)[1].splitlines()
    starts = [i for i, line in enumerate(options) if line.startswith(("  -", "  C", "  S"))]
    assert len(starts) > 4
    for i in starts:
        text = " ".join(options[i : i + 2]).split()
        assert len(text) > 2, options[i]


def test_an_experiment_has_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        with progress.experiment_display(stream) as (report, show):
            for done in (1, 2, 3):
                show(done, 4)
                time.sleep(0.15)  # the display is drawn ten times a second
            report("conv1_1: [done]")
        text = stream.getvalue()
        assert "conv1_1: [done]" in text
        if stream.isatty():
            assert "━" in text
            assert "3/4 iterations" in text
        else:
            assert text.splitlines() == [*(f"iteration {k}/4" for k in (1, 2, 3)), "conv1_1: [done]"]

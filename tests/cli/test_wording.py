"""Messages speak of options on the command line and of arguments in Python."""

import ast
import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest

import tfstyle
from tfstyle import cli
from tfstyle.cli.parser import make_parser
from tfstyle.cli.wording import in_options, quoted
from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError

STYLIZE = ["stylize", "content.png", "style.png", "-o", "out.png"]


@pytest.fixture
def stylize():
    make_parser().parse_args(STYLIZE)


@pytest.mark.parametrize("field", dataclasses.fields(StyleConfig), ids=lambda field: field.name)
def test_every_field_is_an_option_on_the_command_line(stylize, field):
    with pytest.raises(ConfigError) as caught:
        StyleConfig().replace({field.name: object()})
    message, flag = str(caught.value), f"--{field.name.replace('_', '-')}"
    assert message.startswith(f"{field.name} is ")
    assert in_options(message) == message.replace(field.name, flag, 1)
    assert in_options(f'give {field.name}="a" or {field.name}=True.') == f"give {flag} a or {flag}."


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("style_scale and style_size both set", "--style-scale and --style-size both set"),
        ("tile=off, or size=2.5.", "--tile off, or --size 2.5."),
        ("give weights='x'", "give weights='x'"),
        ('give weights="my file.npz"', "give --weights 'my file.npz'"),
        ("replace it with overwrite=True or", "replace it with --overwrite or"),
        ("leave out clamp=False", "leave out --no-clamp"),
        ("a.json: size is 0; iterations is 1", "a.json: --size is 0; --iterations is 1"),
        ("choose a larger size, or other weights", "choose a larger size, or other weights"),
        ("no option 'tv_weights'; there are 'tv_weight'", "no option 'tv_weights'; there are 'tv_weight'"),
        # Paths are not changed.
        ("a/size=3/tv_weight exists", "a/size=3/tv_weight exists"),
        ("tv_weight=2.png and tv_weight.png", "tv_weight=2.png and tv_weight.png"),
        ("style_weight=2/out.png exists", "style_weight=2/out.png exists"),
    ],
)
def test_names_become_options_and_other_words_stay(stylize, message, expected):
    assert in_options(message) == expected


def test_a_message_names_the_options_of_its_own_command():
    make_parser().parse_args(["extract", "images", "-o", "a.npz"])
    message = "layers is empty; choose style_layers or content_layers"
    assert in_options(message) == "--style-layers is empty; choose --style-layers or content_layers"


def test_errors_and_warnings_of_a_command_name_options(files, small_file, capsys, monkeypatch):
    monkeypatch.chdir(files)
    Path("options.json").write_text(json.dumps({"warm_start": True}))
    assert cli.main([*STYLIZE, "--config", "options.json"]) == 2
    assert "--warm-start needs --optimizer adam; --optimizer is 'lbfgs'" in capsys.readouterr().err
    Path("options.json").write_text(json.dumps({"stile_weight": 1}))
    assert cli.main([*STYLIZE, "--config", "options.json"]) == 2
    said = capsys.readouterr().err
    assert "no option 'stile_weight' (did you mean 'style_weight'" in said
    assert "--" not in said
    Path("out.png").touch()
    assert cli.main(STYLIZE) == 2
    assert "out.png exists; replace it with --overwrite or choose" in capsys.readouterr().err


def test_python_errors_name_no_options():
    """In the library, an option may only be named with its command: ``tfstyle extract --grams``."""
    package = Path(tfstyle.__file__).parent
    paths = [path for path in package.rglob("*.py") if "cli" not in path.relative_to(package).parts]
    assert len(paths) > 50
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise):
                texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                for text in texts:
                    named = re.search(r"(?<!tfstyle extract )--[a-z]", str(text))
                    assert not named, f"{path.name}:{node.lineno}: {text}"


def test_words_of_commands_are_quoted_for_the_shell_of_the_system(stylize, monkeypatch):
    words = ["content.png", r"a folder\my cat.png", r"C:\cat.png"]
    assert [quoted(word) for word in words] == ["content.png", r"'a folder\my cat.png'", r"'C:\cat.png'"]
    monkeypatch.setattr(sys, "platform", "win32")
    assert [quoted(word) for word in words] == ["content.png", r'"a folder\my cat.png"', r"C:\cat.png"]
    assert in_options('give weights="my file.npz"') == 'give --weights "my file.npz"'

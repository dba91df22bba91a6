"""The help of the command line, and the completion scripts for shells."""

import argparse
import dataclasses
import re
import shutil
import subprocess
import sys

import pytest

from tfstyle import cli
from tfstyle.cli.explore import SHORTCUTS
from tfstyle.cli.parser import SHELLS, make_parser
from tfstyle.config import OPTION_GROUPS, StyleConfig

PICTURE = re.compile(r"\bpictures?\b|\bpaint(s|ed|ing|ings)?\b", re.IGNORECASE)


def help_of(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 0
    return capsys.readouterr().out


def listed_options(text):
    """The long name of every option that a help text describes -> its description, on one line."""
    entries = re.split(r"\n(?=  -)", text)[1:]
    texts = {re.search(r"--[\w-]+", entry)[0]: " ".join(entry.split("\n\n")[0].split()) for entry in entries}
    assert len(texts) == len(entries)
    return texts


def test_tfstyle_alone_prints_the_help(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert text == help_of(capsys, "--help")
    for command in ("stylize", "batch", "demo", "texture", "extract", "export", "info"):
        assert re.search(rf"^    {command} ", text, re.MULTILINE)


@pytest.mark.parametrize("command", ["stylize", "batch"])
def test_help_lists_the_usual_options_and_help_all_every_one(capsys, command):
    usual = set(listed_options(help_of(capsys, command, "--help")))
    every = set(listed_options(help_of(capsys, command, "--help-all")))
    assert len(usual) <= 24
    assert (
        {"--help", "--help-all", "--output", "--size", "--style-weight", "--weights"}
        <= set(usual)
        < set(every)
    )
    hidden = {"masks", "style_masks", "content_mask"} if command == "batch" else set()
    fields = {field.name for field in dataclasses.fields(StyleConfig)} - hidden
    assert {f"--{name.replace('_', '-')}" for name in fields} <= every


@pytest.mark.parametrize("name", SHORTCUTS)
def test_the_shortcuts_of_experiments_are_commands_of_their_own(capsys, name):
    assert help_of(capsys, name, "--help").startswith(f"usage: tfstyle {name} [-h]")
    for wrong in ([], ["content.png", "--bla"]):
        with pytest.raises(SystemExit):
            cli.main([name, *wrong])
        said = capsys.readouterr().err
        assert said.startswith(f"tfstyle {name}: error: ")
        assert said.endswith(f"; see tfstyle {name} --help\n")


def test_help_all_has_a_group_for_every_option(capsys):
    text = help_of(capsys, "stylize", "--help-all")
    for title in (*OPTION_GROUPS.values(), "long runs"):
        assert f"\n{title}:\n" in text
    assert {field.metadata["group"] for field in dataclasses.fields(StyleConfig)} == set(OPTION_GROUPS)


def test_help_lists_choices_and_defaults(capsys):
    texts = listed_options(help_of(capsys, "stylize", "--help-all"))
    for field in dataclasses.fields(StyleConfig):
        text = texts[f"--{field.name.replace('_', '-')}"]
        for choice in field.metadata["choices"]:
            name = re.escape(choice.removeprefix("addons:"))
            assert re.search(rf"(: |, |of ){name}( \(|, |\)| \[)", text), (field.name, choice)
        shown = re.search(r"\[([^];]*)(; [^]]*)?\]$", text)
        default = getattr(StyleConfig(weights="auto"), field.name)  # only the weights differ from Python's
        if default is None:
            assert (shown and shown[1]) == field.metadata["shown"]
        elif isinstance(default, bool):
            assert shown[1] == ("on" if default else "off")
        elif isinstance(default, (int, float)):
            assert float(shown[1]) == default
        else:
            assert shown[1] == (",".join(default) if isinstance(default, tuple) else default)


def test_help_describes_the_options_of_the_losses(capsys):
    texts = listed_options(help_of(capsys, "stylize", "--help-all"))
    for option, words in {
        "--spectrum-weight": r"local spectrum.*ripple.*style image",
        "--content-loss": r"features of the content layers.*keeps the layout.*textures change.*\[features\]",
        "--self-similarity-weight": r"--content-loss",
        "--border-weight": r"outermost positions.*frame",
        "--style-losses": r"\bnormalized_gram \(Gram matrices of channels.*\broot mean square\b",
    }.items():
        assert re.search(words, texts[option]), option


def every_parser(parser, name="tfstyle"):
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, command in action.choices.items():
                yield from every_parser(command, f"{name} {word}")


def test_the_help_of_every_command_is_plain():
    """Every argument is described, and an image is called an image."""
    for name, parser in every_parser(make_parser(show_all=True)):
        for action in parser._actions:
            if action.metavar != "COMMAND" and name.split()[-1] not in ("texture", "reconstruct"):
                assert action.help, (name, action.option_strings)
        assert not PICTURE.search(parser.format_help()), name


def test_the_limits_of_export_are_the_defaults(capsys):
    from tfstyle.serving.signatures import Limits

    text = " ".join(help_of(capsys, "export", "--help").split())
    for field in dataclasses.fields(Limits):
        assert re.search(rf"--{field.name.replace('_', '-')} N [^\[]*\[{field.default}\]", text), field.name


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_scripts(capsys, shell, tmp_path):
    script = tmp_path / "script"
    script.write_text(help_of(capsys, "--print-completion", shell))
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    if shell == "zsh":  # its completion needs a terminal, so only the syntax is checked
        assert subprocess.run(["zsh", "-n", script], check=False).returncode == 0
        return
    (tmp_path / "content.png").touch()
    questions = {
        ("sty",): ["stylize"],
        ("stylize", "--style-w"): ["--style-weight"],
        ("stylize", "--optimizer", "lb"): ["lbfgs", "lbfgs_fixed_step"],
        ("stylize", "cont"): ["content.png"],
    }
    for words, expected in questions.items():
        if shell == "bash":
            code = (
                f"source ./script; COMP_WORDS=(tfstyle {' '.join(words)}); COMP_CWORD={len(words)}; "
                "_shtab_tfstyle; printf '%s\\n' \"${COMPREPLY[@]}\""
            )
        else:
            code = f"source ./script; complete -C 'tfstyle {' '.join(words)}'"
        done = subprocess.run([shell, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == expected, (words, done)


def test_help_and_completion_do_not_load_tensorflow():
    for arguments in (
        [],
        ["--help"],
        ["stylize", "--help-all"],
        ["explore", "--help"],
        ["--print-completion", "bash"],
    ):
        code = (
            f"import sys; from tfstyle.cli import main\ntry: main({arguments})\nexcept SystemExit: pass\n"
            "assert not {'tensorflow', 'numpy', 'keras'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)

"""The argument parser of the command line: one-line errors with suggestions, and readers of values."""

from __future__ import annotations

import argparse
import math
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from tfstyle.cli.common import WRONG_INPUT
from tfstyle.cli.wording import name_options
from tfstyle.errors import suggest


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line that names the closest valid words and the command's own help.

    Options cannot be abbreviated: a wrong option is answered with similar ones.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(*args, **options)

    def error(self, message: str) -> NoReturn:
        """Print the message on stderr, without the usage that argparse would print, and exit with code 2."""
        self.exit(WRONG_INPUT, f"{self.prog}: error: {message}; see {self.prog} --help\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Reject unknown arguments here. argparse leaves those of a command to the main parser."""
        words = sys.argv[1:] if args is None else list(args)
        name_options(self)  # the parser of the command is called last
        self._check_options(words)
        parsed, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.error(f"unexpected argument {unknown[0]!r}")
        return parsed, []

    def _check_options(self, words: Sequence[str]) -> None:
        """Reject unknown options before argparse complains about missing arguments."""
        has_commands = any(action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in self._actions)
        for argument in words:
            if argument == "--" or (has_commands and not argument.startswith("-")):
                return
            option = argument.partition("=")[0]
            if option.startswith("--") and option not in self._option_string_actions:
                self.error(f"unknown option {option}{suggest(option, self._option_string_actions)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raise argparse's error for a value that is not among an argument's choices."""
        if action.choices is None or value in action.choices:
            return
        if isinstance(action, argparse._SubParsersAction):
            if os.path.exists(value):
                raise argparse.ArgumentError(
                    None,
                    f"{value!r} is a file and not a command; did you mean '{self.prog} stylize {value} ...'?",
                )
            raise argparse.ArgumentError(None, f"unknown command {_suggest_from(action.choices, value)}")
        raise argparse.ArgumentError(action, f"invalid value {_suggest_from(action.choices, value)}")


class HelpFormatter(argparse.HelpFormatter):
    """A formatter that breaks lines at spaces only, so that names with hyphens stay whole."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)


def _suggest_from(choices: Iterable[Any], value: object) -> str:
    """Return a wrong value with the choices that resemble it and all choices, for an error message."""
    names = [str(choice) for choice in choices]
    return f"{value!r}{suggest(value, names)}; choose from {', '.join(names)}"


def integer(low: float = -math.inf, high: float = math.inf) -> Callable[[str], int]:
    """Return a function that reads an integer from ``low`` to ``high`` from an argument's text."""
    if math.isinf(low):
        wanted = "an integer"
    else:
        wanted = f"an integer of at least {low}" if math.isinf(high) else f"an integer from {low} to {high}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"invalid value {text!r}; give {wanted}")
        return value

    return read


def number(low: float = -math.inf) -> Callable[[str], float]:
    """Return a function that reads a finite number of at least ``low`` from an argument's text."""
    wanted = "a number" if math.isinf(low) else f"a number of at least {low:g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= low):
            raise argparse.ArgumentTypeError(f"invalid value {text!r}; give {wanted}")
        return value

    return read


def word(choices: Sequence[str] = ()) -> Callable[[str], str]:
    """Return a function that takes an argument's text, which must be one of the choices if there are any."""

    def read(text: str) -> str:
        if choices and text not in choices:
            raise argparse.ArgumentTypeError(f"invalid value {_suggest_from(choices, text)}")
        return text

    return read


def comma_separated(read_item: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Return a function that reads a comma-separated list from an argument's text."""

    def read(text: str) -> tuple[Any, ...]:
        return tuple(read_item(item.strip()) for item in text.split(","))

    return read


def value_settings(kind: str, choices: Sequence[str] = ()) -> dict[str, Any]:
    """Return argparse's ``type`` and ``metavar`` for an option with a value.

    Args:
        kind: the annotation of the value, such as ``int`` or ``tuple[float, ...] | None``. In ``int | str``,
            the word counts.
        choices: the allowed words, or the allowed items of a comma-separated list; empty for any.
    """
    read: Callable[[str], Any]
    if "str" in kind:
        read, metavar = word(choices), "NAME"
    elif "float" in kind:
        read, metavar = number(), "X"
    else:
        read, metavar = integer(), "N"
    if "tuple" in kind:
        return {"type": comma_separated(read), "metavar": "A,B,.."}
    return {"type": read, "metavar": metavar}


def embedding_size(text: str) -> int | None:
    """Read the value of ``--embedding-size``: the word ``all`` as None, or a number of at least 1."""
    if text == "all":
        return None
    try:
        return integer(1)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or all") from None

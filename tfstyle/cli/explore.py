"""``tfstyle explore``: the papers' experiments. Their functions' arguments are the command's options."""

from __future__ import annotations

import argparse
import functools
import inspect
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfstyle import papers
from tfstyle.cli.common import DONE, Parser

#: Experiments that are commands of their own.
SHORTCUTS = ("reconstruct", "texture")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The experiment's name; the rest is the experiment's own."""
    command.set_defaults(command=explore)
    names = "\n".join(f"  {name:14}{found.words}" for name, found in papers.RECIPES.items())
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = f"experiments:\n{names}\n\ntfstyle explore NAME --help lists the options of one."
    command.add_argument("name", metavar="NAME", choices=tuple(papers.RECIPES), help="which experiment")
    command.add_argument("rest", metavar="...", nargs=argparse.REMAINDER, help="its images and options")


def with_name(arguments: Sequence[str]) -> list[str]:
    """``texture ...`` as ``explore texture ...``: an experiment that is a command of its own."""
    return ["explore", *arguments] if arguments and arguments[0] in SHORTCUTS else list(arguments)


def explore(options: argparse.Namespace) -> int:
    """``tfstyle explore NAME``."""
    from tfstyle.papers.study import check_folder

    made = papers.recipe(options.name)
    given = vars(_parser(options.name, made).parse_args(options.rest))
    folder, overwrite = Path(given.pop("output")), given.pop("overwrite")
    images = [given.pop(name) for name, p in _parameters(made).items() if p.kind != p.KEYWORD_ONLY]
    check_folder(folder, overwrite)
    study = made(*images, **given, progress=functools.partial(print, file=sys.stderr, flush=True))
    written = study.save(folder, overwrite)
    print(study.caption)
    print("\n".join(map(str, written)))
    return DONE


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {n: p for n, p in inspect.signature(function).parameters.items() if n != "progress"}


def _parser(name: str, function: Callable[..., Any]) -> argparse.ArgumentParser:
    """A parser of the function's arguments: images by place, what has a default by name."""
    words = inspect.getdoc(function) or ""
    parser = Parser(f"tfstyle explore {name}", description=words.splitlines()[0])
    described, types = _described(words), typing.get_type_hints(function)
    for argument, parameter in _parameters(function).items():
        text = described.get(argument, "").replace("%", "%%")
        if parameter.kind != parameter.KEYWORD_ONLY:
            parser.add_argument(argument, metavar=argument.upper(), help=text)
            continue
        flag, default = f"--{argument.replace('_', '-')}", parameter.default
        if types[argument] is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=text)
            continue
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        parser.add_argument(
            flag, default=default, type=_reader(types[argument]), metavar="X",
            help=text if default is None else f"{text} [{shown}]",
        )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="DIR", default=f"tfstyle-{name}", help=f"[tfstyle-{name}]")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def _described(words: str) -> dict[str, str]:
    """Argument -> what a docstring's Args section says of it."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n|\n)*)", f"{words}\n", re.MULTILINE)
    items = re.findall(
        r"^    (\w[\w, ]*): ((?:.|\n(?!    \w))*)", section[1] if section else "", re.MULTILINE
    )
    return {
        name: " ".join(text.split()).removesuffix(".") for names, text in items for name in names.split(", ")
    }


def _reader(kind: Any) -> Callable[[str], Any]:
    """A function that reads a flag's text as a type: a number, text, or several, separated by commas."""
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    if typing.get_origin(kind) is tuple:
        return functools.partial(_several, parts[0])
    if parts:  # a type or None
        return _reader(parts[0])
    reader: Callable[[str], Any] = kind
    return reader


def _several(kind: Callable[[str], Any], text: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(item.strip()) for item in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error

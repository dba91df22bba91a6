"""``tfstyle explore``: the papers' experiments. The options come from the arguments of their functions."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfstyle import papers
from tfstyle.cli.arguments import HelpFormatter, Parser, value_settings
from tfstyle.cli.common import DONE, check_images, check_weights, load_tensorflow
from tfstyle.cli.standard_input import load_standard_input, read_standard_input
from tfstyle.cli.terminal import report
from tfstyle.config import StyleConfig
from tfstyle.layers import find_layer
from tfstyle.presets import preset

#: Experiments that are also commands: ``tfstyle texture`` is ``tfstyle explore texture``.
SHORTCUTS = ("reconstruct", "texture")
OPTION_NAMES = {field.name for field in dataclasses.fields(StyleConfig)}
#: Options of experiments that take several values -> the field of `StyleConfig` that takes one of them.
OPTION_OF = {"optimizers": "optimizer", "compilers": "compile", "precisions": "precision", "seeds": "seed"}


def expand_shortcut(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with ``texture ...`` replaced by ``explore texture ...``, for all `SHORTCUTS`."""
    return ["explore", *arguments] if arguments and arguments[0] in SHORTCUTS else list(arguments)


def run_explore(options: argparse.Namespace) -> int:
    """Run ``tfstyle explore NAME`` and return its exit code."""
    declaration = recipe_declaration(options.name)
    given = vars(_parser(options.name, declaration).parse_args(options.recipe_arguments))
    folder, overwrite = Path(given.pop("output")), given.pop("overwrite")
    images = [given.pop(name) for name, p in _parameters(declaration).items() if p.kind != p.KEYWORD_ONLY]
    images = read_standard_input(images)
    check_images(images)
    _check_options(given)

    load_tensorflow()
    from tfstyle.cli.progress import experiment_display
    from tfstyle.papers.study import check_folder, iterations_shown

    recipe = papers.recipe(options.name)
    check_folder(folder, overwrite=overwrite)
    with experiment_display(sys.stderr) as (progress, show), iterations_shown(show):
        study = recipe(*load_standard_input(images), **given, progress=progress)
    written = study.save(folder, overwrite=overwrite)
    print(study.caption)
    report("\n".join(map(str, written)), saved=folder)
    return DONE


def recipe_declaration(name: str) -> Callable[..., Any]:
    """Return the function of an experiment with its arguments and docstring, but without its body.

    The function is compiled from the source code, because importing its module would load TensorFlow. Imports
    and assignments of the module are executed if the function's declaration uses the names they define.
    """
    path = Path(papers.__file__).with_name(f"{papers.RECIPES[name].module}.py")
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    function_name = name.replace("-", "_")
    (function,) = (s for s in statements if isinstance(s, ast.FunctionDef) and s.name == function_name)
    function.body = function.body[:1]  # the docstring
    function.returns = None
    for argument in function.args.kwonlyargs:
        if argument.arg == "progress":  # not an option, and its type needs TensorFlow
            argument.annotation = None
    used = {node.id for node in ast.walk(function.args) if isinstance(node, ast.Name)}
    needed = [statement for statement in statements if used & _names_given(statement)]
    module = ast.Module([*needed, function], type_ignores=[])
    namespace: dict[str, Any] = {}
    exec(compile(module, str(path), "exec"), namespace)
    declaration: Callable[..., Any] = namespace[function_name]
    return declaration


def _names_given(statement: ast.stmt) -> set[str]:
    """Return the names that an import or an assignment defines."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name for alias in statement.names}
    if isinstance(statement, ast.Assign):
        return {target.id for target in statement.targets if isinstance(target, ast.Name)}
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return {statement.target.id}
    return set()


def _check_options(given: dict[str, Any]) -> None:
    """Raise an InputError if an option has an invalid value, or if a file that it names does not exist."""
    values = [(name, value) for name, value in given.items() if name in OPTION_NAMES and value is not None]
    values += [(OPTION_OF[name], item) for name in OPTION_OF for item in given.get(name) or ()]
    for name, value in values:
        StyleConfig().replace({name: value})
    for name in ("layers", "content_layers", "style_layers"):
        for layer in given.get(name) or ():
            find_layer(layer)
    if given.get("layer") is not None:
        find_layer(given["layer"])
    for name in given.get("presets") or ():
        preset(name)
    check_images(given.get("photographs", ()))
    check_weights(given.get("weights", "auto"))


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {n: p for n, p in inspect.signature(function).parameters.items() if n != "progress"}


def _parser(name: str, function: Callable[..., Any]) -> argparse.ArgumentParser:
    """Return a parser of a function's arguments. Arguments with a default become options."""
    docstring = inspect.getdoc(function) or ""
    prog = f"tfstyle {name}" if name in SHORTCUTS else f"tfstyle explore {name}"
    parser = Parser(prog, description=docstring.splitlines()[0], formatter_class=HelpFormatter)
    descriptions, types = _argument_descriptions(docstring), typing.get_type_hints(function)
    for argument, parameter in _parameters(function).items():
        text = descriptions.get(argument, "").replace("%", "%%")
        if parameter.kind != parameter.KEYWORD_ONLY:
            parser.add_argument(argument, metavar=argument.upper(), help=text)
            continue
        flag, default = f"--{argument.replace('_', '-')}", parameter.default
        if types[argument] is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=text)
            continue
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        parser.add_argument(
            flag, default=default, help=text if default in (None, ()) else f"{text} [{shown}]",
            **value_settings(str(types[argument])),
        )  # fmt: skip
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        default=f"tfstyle-{name}",
        help=f"folder of the results [tfstyle-{name}]",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser


def _argument_descriptions(docstring: str) -> dict[str, str]:
    """Return the description of each argument from the Args section of a docstring."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n|\n)*)", f"{docstring}\n", re.MULTILINE)
    items = re.findall(
        r"^    (\w[\w, ]*): ((?:.|\n(?!    \w))*)", section[1] if section else "", re.MULTILINE
    )
    return {
        name: " ".join(text.split()).removesuffix(".") for names, text in items for name in names.split(", ")
    }

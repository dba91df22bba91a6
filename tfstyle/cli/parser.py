"""The arguments of every command, and `main`, which runs one and turns its errors into an exit code.

TensorFlow is imported by the commands, not by the parser, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tfstyle import __version__
from tfstyle.cli.batch import run_batch
from tfstyle.cli.common import FAILED, INTERRUPTED, WRONG_INPUT, Parser, complain
from tfstyle.cli.explore import SHORTCUTS, expand_shortcut, run_explore
from tfstyle.cli.export import run_export
from tfstyle.cli.extract import run_extract
from tfstyle.cli.info import run_info, run_presets
from tfstyle.cli.pretrain import run_pretrain
from tfstyle.cli.transfer import run_demo, run_stylize
from tfstyle.config import CHECKPOINT_SECONDS, StyleConfig
from tfstyle.errors import InputError, RunError
from tfstyle.papers import RECIPES
from tfstyle.presets import PRESETS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(expand_shortcut(arguments))
    _log_to_stderr()
    try:
        return options.command(options)
    except InputError as error:
        return complain(error, WRONG_INPUT)
    except RunError as error:
        return complain(error, FAILED)
    except KeyboardInterrupt:
        return complain("interrupted before anything was written", INTERRUPTED)
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED
    except OSError as error:
        return complain(f"{error.filename or 'a file'}: {error.strerror or error}", WRONG_INPUT)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="tfstyle", description="Neural style transfer after Gatys, Ecker and Bethge.")
    parser.add_argument("--version", action="version", version=f"tfstyle {__version__}")
    add = parser.add_subparsers(required=True, metavar="COMMAND", title="commands").add_parser
    _add_demo(add("demo", help="a first picture, of the pictures in the package"))
    _add_stylize(add("stylize", help="paint a picture in the style of another"))
    _add_batch(add("batch", help="paint many pictures, each in one or several styles"))
    _add_pretrain(add("pretrain", help="learn an encoder's filters from pictures without labels"))
    _add_extract(add("extract", help="the styles of pictures as numbers, to compare, or to be used again"))
    _add_export(add("export", help="write a SavedModel for TensorFlow Serving"))
    _add_explore(add("explore", help="rebuild the papers' experiments, and vary them"))
    for name in SHORTCUTS:
        add(name, help=RECIPES[name].summary)
    add("presets", help="the named sets of options").set_defaults(command=run_presets)
    info = add("info", help="versions, device, and what auto would choose")
    info.set_defaults(command=run_info)
    return parser


def _add_demo(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=run_demo)
    command.add_argument(
        "-o", "--output", metavar="DIR", default="tfstyle-demo", help="where the pictures go [tfstyle-demo]"
    )
    command.add_argument("--overwrite", action="store_true", help="replace files that exist")
    weights = next(field for field in dataclasses.fields(StyleConfig) if field.name == "weights")
    _add_option(command, weights)


def _add_pretrain(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=run_pretrain)
    command.add_argument(
        "images", metavar="IMAGES_OR_FOLDER", nargs="+", help="at least four photographs, or folders of such"
    )
    command.add_argument(
        "-o", "--output", metavar="FILE.npz", required=True, help="the weights, for --weights"
    )
    command.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    command.add_argument(
        "--blocks", metavar="N", type=_whole_number(1, 5), default=3, help="depth, 1 to 5 [3]"
    )
    command.add_argument(
        "--base", metavar="FILE", help="keep the layers of these weights and learn those above"
    )
    command.add_argument(
        "--seed", metavar="N", type=_whole_number(0), default=0, help="of every random choice [0]"
    )
    command.add_argument(
        "--patches", metavar="N", type=_whole_number(1), default=30_000, help="patches for each layer [30000]"
    )
    command.add_argument("--half", action="store_true", help="write float16, half the size")


def _add_extract(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=run_extract)
    command.add_argument(
        "images",
        metavar="IMAGES_OR_FOLDER",
        nargs="+",
        help="pictures, or folders that are searched for them",
    )
    command.add_argument("-o", "--output", metavar="FILE", required=True, help=".npz or .parquet")
    command.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    command.add_argument(
        "--grams", action="store_true",
        help="Gram matrices too: of one picture, the file then stands for a style image in stylize; "
        "of many, the default layers take some 40 MB of memory for each until it is written",
    )  # fmt: skip
    command.add_argument("--model", metavar="DIR", help="compute through a model of tfstyle export")
    _add_extractor_options(command)


def _add_export(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=run_export)
    command.add_argument("folder", metavar="DIR", help="of models: it gets DIR/NAME/VERSION/")
    command.add_argument("--name", default="tfstyle", help="of the model [tfstyle]")
    command.add_argument(
        "--version",
        metavar="N",
        type=_whole_number(1),
        dest="model_version",
        help="[one more than the highest]",
    )
    command.add_argument("--overwrite", action="store_true", help="replace a version that exists")
    command.add_argument(
        "--precision", choices=("float32", "float16", "bfloat16"), default="float32",
        help="of the stored weights; bfloat16 also computes so, fast where the processor has it [float32]",
    )  # fmt: skip
    _add_extractor_options(command)
    command.add_argument(
        "--content-layers", metavar="A,B,..", type=_comma_separated(str), default=argparse.SUPPRESS,
        help="layers that keep the content [conv4_2 where the weights have it]",
    )  # fmt: skip
    for name, text in (
        ("max-pixels", "largest image in a request"),
        ("max-batch", "most images in a request"),
        ("stylize-max-pixels", "largest image in a request to stylize"),
        ("stylize-max-steps", "most iterations per scale in a request to stylize"),
        ("stylize-max-batch", "most images in a request to stylize"),
        ("max-file-bytes", "largest file in a request to encoded"),
    ):
        command.add_argument(
            f"--{name}", metavar="N", type=_whole_number(1), default=argparse.SUPPRESS, help=text
        )


def _add_extractor_options(command: argparse.ArgumentParser) -> None:
    for field in dataclasses.fields(StyleConfig):
        if field.name in ("weights", "pooling", "padding", "size"):
            _add_option(command, field)
    add = functools.partial(command.add_argument, default=argparse.SUPPRESS)
    add(
        "--style-layers", metavar="A,B,..", type=_comma_separated(str), dest="layers",
        help="layers whose Gram matrices are taken [those of stylize]",
    )  # fmt: skip
    add("--views", choices=(1, 10), type=int, help="10: the mean over corners, centre and mirror images [1]")
    add("--embedding-size", metavar="N|all", type=_embedding_size, help="numbers per picture [1024]")


def _add_stylize(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=run_stylize)
    command.add_argument("content", metavar="CONTENT", help="the picture to paint")
    command.add_argument(
        "styles",
        metavar="STYLE",
        nargs="+",
        help="the painting, or several to blend; or an .npz of tfstyle extract --grams, FILE.npz#NAME",
    )
    command.add_argument("-o", "--output", metavar="FILE", required=True, help=".png, .jpg, .webp or .tif")
    command.add_argument("--overwrite", action="store_true", help="replace files that exist")
    command.add_argument(
        "--save-every", metavar="N", type=_whole_number(1), help="write a preview every N iterations"
    )
    command.add_argument("--history", metavar="FILE.json", help="write the loss of every iteration as JSON")
    command.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="keep the run's last two checkpoints there, to go on with --resume",
    )
    command.add_argument(
        "--checkpoint-every", metavar="SECONDS", type=_seconds,
        help="seconds between two; one more at the end of a scale and upon Ctrl-C "
        f"[{CHECKPOINT_SECONDS:.0f}]",
    )  # fmt: skip
    command.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint; where there is none, begin"
    )
    command.add_argument(
        "--interpolate", metavar="N", type=_whole_number(2), help="a strip of N pictures between two styles"
    )
    _add_run_options(command)


def _add_batch(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=run_batch)
    command.add_argument(
        "contents", metavar="CONTENTS", help="a picture, or a folder that is searched for them"
    )
    command.add_argument(
        "styles", metavar="STYLE", nargs="+", help="paintings: each on its own, or blended with --style-blend"
    )
    command.add_argument("-o", "--output", metavar="DIR", required=True, help="where the pictures go")
    command.add_argument("--overwrite", action="store_true", help="paint again what is there already")
    command.add_argument("--format", choices=("png", "jpg", "webp", "tif"), default="png", help="[png]")
    _add_run_options(command)


def _add_explore(command: argparse.ArgumentParser) -> None:
    """The experiment's name; the rest is the experiment's own."""
    command.set_defaults(command=run_explore)
    names = "\n".join(f"  {name:14}{recipe.summary}" for name, recipe in RECIPES.items())
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = f"experiments:\n{names}\n\ntfstyle explore NAME --help lists the options of one."
    command.add_argument("name", metavar="NAME", choices=tuple(RECIPES), help="which experiment")
    command.add_argument(
        "recipe_arguments", metavar="...", nargs=argparse.REMAINDER, help="its images and options"
    )


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", metavar="FILE", help="options from a JSON file or a tfstyle picture")
    command.add_argument(
        "--preset", choices=list(PRESETS), default="default", help="a named set of options (tfstyle presets)"
    )
    group = command.add_argument_group("options of the run, [default]; an option given wins over --config")
    for field in dataclasses.fields(StyleConfig):
        _add_option(group, field)


def _add_option(group: Any, field: dataclasses.Field[Any]) -> None:
    """A flag for a field of StyleConfig. It has no default, so that one can tell whether it was given."""
    kind = str(field.type)
    text = field.metadata["help"]
    settings: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
    if kind == "bool":
        settings["action"] = argparse.BooleanOptionalAction
    elif kind.startswith("tuple"):
        item = float if "float" in kind else int if "int" in kind else str
        settings |= {"type": _comma_separated(item), "metavar": "A,B,.."}
    else:
        settings["type"] = str if "str" in kind else float if "float" in kind else int
        settings["metavar"] = (
            "auto|off|N"
            if field.name == "tile"
            else "|".join(c for c in field.metadata["choices"] if ":" not in c)
            or {float: "X", int: "N", str: "NAME"}[settings["type"]]
        )
    default = {"weights": "auto"}.get(field.name, field.default)
    if default is not None and kind != "bool":
        text += f" [{','.join(default) if isinstance(default, tuple) else default}]"
    group.add_argument(f"--{field.name.replace('_', '-')}", help=text.replace("%", "%%"), **settings)


def _comma_separated(item: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        return tuple(item(part.strip()) for part in text.split(","))

    parse.__name__ = f"comma-separated {item.__name__}"  # argparse says it in its error
    return parse


def _whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < low or (high is not None and number > high):
            raise ValueError
        return number

    # argparse says it in its error
    parse.__name__ = f"whole number from {low}" if high is None else f"whole number from {low} to {high}"
    return parse


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise ValueError
    return seconds


_seconds.__name__ = "number of seconds, at least 0,"  # argparse says it in its error


def _embedding_size(text: str) -> int | None:
    return None if text == "all" else _whole_number(1)(text)


_embedding_size.__name__ = "'all' or whole number from 1"


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("tfstyle: %(message)s"))
    logger = logging.getLogger("tfstyle")
    logger.handlers = [handler]
    logger.propagate = False

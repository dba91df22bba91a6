"""The command line: a thin shell around `tfstyle.runs.Run`.

TensorFlow is imported by the commands, not by the parser, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tfstyle import __version__
from tfstyle.config import PRESETS, StyleConfig
from tfstyle.errors import ConfigError, InputError, RunError

if TYPE_CHECKING:
    from tfstyle.runs import Run

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    _log_to_stderr()
    try:
        with _quiet_import():
            for name in ("tfstyle.backend", "tensorflow"):  # the first one's error is the clearer
                import_module(name)
        return options.command(options)
    except InputError as error:
        return _complain(error, WRONG_INPUT)
    except RunError as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted before there was a picture", INTERRUPTED)
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED
    except OSError as error:
        return _complain(f"{error.filename or 'a file'}: {error.strerror or error}", WRONG_INPUT)


def stylize(options: argparse.Namespace) -> int:
    """``tfstyle stylize``."""
    from tfstyle.progress import progress_display
    from tfstyle.runs import Run
    from tfstyle.saving import check_output, check_writable

    output = Path(options.output)
    check_output(output, options.overwrite)
    config = _config(options)
    if options.history is not None:
        if Path(options.history).resolve() == output.resolve():
            raise ConfigError(f"--history and --output are both {output}")
        check_writable(Path(options.history), options.overwrite)
    every = options.save_every or 0
    run = Run(options.content, options.styles, config, pause_every=every)
    check_output(output, options.overwrite, run.shapes[-1])
    total = len(run.shapes) * config.iterations
    for n in range(every, total, every) if every else ():
        check_writable(_preview(output, n), options.overwrite)
    error: Exception | None = None
    with _interruptible() as interrupted:
        try:
            with progress_display(run.shapes, config.iterations, sys.stderr) as show:
                for iteration in run:
                    show(iteration)
                    done = len(run.history.iteration)
                    if every and done % every == 0 and done < total:
                        run.result().save(_preview(output, done), options.overwrite)
                    if interrupted():
                        break
        except RunError as caught:
            error = caught
        if run.history.iteration:
            _save(run, options)
    if error is not None:
        return _complain(error, FAILED)
    return _complain("interrupted", INTERRUPTED) if interrupted() else DONE


def info(options: argparse.Namespace) -> int:
    """``tfstyle info``: what is installed and what ``auto`` would choose."""
    import tensorflow as tf

    from tfstyle.backend import check_backend
    from tfstyle.device import choose_compile, choose_device, choose_precision
    from tfstyle.weights import imagenet_cache

    check_backend()
    device = choose_device()
    names = ("tensorflow", "keras", "numpy", "pillow")
    lines = {"tfstyle": __version__, "python": platform.python_version()}
    lines |= {name: version(name) if name != "tensorflow" else tf.__version__ for name in names}
    lines["processors"] = f"{os.cpu_count()}"
    gpus = [tf.config.experimental.get_device_details(g) for g in tf.config.list_physical_devices("GPU")]
    lines["gpus"] = ", ".join(details.get("device_name", "unnamed") for details in gpus) or "none"
    chosen = {
        "device": device,
        "compile": choose_compile("auto", device.value),
        "precision": choose_precision("auto", device.value),
    }
    lines |= {f"{key} auto": f"{choice.value} ({choice.why})" for key, choice in chosen.items()}
    cached = "cached at" if imagenet_cache().is_file() else "not cached; would be kept at"
    lines["imagenet weights"] = f"{cached} {imagenet_cache()}"
    width = max(map(len, lines))
    print("\n".join(f"{key:{width}}  {value}" for key, value in lines.items()))
    return DONE


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, where argparse prints its usage first."""
        self.exit(WRONG_INPUT, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tfstyle", description="Neural style transfer after Gatys, Ecker and Bethge.")
    parser.add_argument("--version", action="version", version=f"tfstyle {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    command = commands.add_parser("stylize", help="paint a picture in the style of another")
    command.set_defaults(command=stylize)
    command.add_argument("content", metavar="CONTENT", help="the picture to paint")
    command.add_argument("styles", metavar="STYLE", nargs="+", help="the painting, or several to blend")
    command.add_argument("-o", "--output", metavar="FILE", required=True, help=".png, .jpg, .webp or .tif")
    command.add_argument("--overwrite", action="store_true", help="replace files that exist")
    command.add_argument(
        "--save-every", metavar="N", type=_positive, help="write a preview every N iterations"
    )
    command.add_argument("--history", metavar="FILE.json", help="write the loss of every iteration as JSON")
    command.add_argument("--config", metavar="FILE", help="options from a JSON file or a tfstyle picture")
    command.add_argument("--preset", choices=list(PRESETS), default="default", help="a named set of options")
    group = command.add_argument_group("options of the run, [default]; an option given wins over --config")
    for field in dataclasses.fields(StyleConfig):
        _add_option(group, field)

    command = commands.add_parser("info", help="versions, device, and what auto would choose")
    command.set_defaults(command=info)
    return parser


def _add_option(group: Any, field: dataclasses.Field[Any]) -> None:
    """A flag for a field of StyleConfig. It has no default, so that one can tell whether it was given."""
    kind = str(field.type)
    words = field.metadata["help"]
    settings: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
    if kind == "bool":
        settings["action"] = argparse.BooleanOptionalAction
    elif kind.startswith("tuple"):
        item = float if "float" in kind else str
        settings |= {"type": _comma_separated(item), "metavar": "A,B,.."}
    else:
        settings["type"] = float if "float" in kind else int if "int" in kind else str
        settings["metavar"] = (
            "|".join(field.metadata["choices"]) or {float: "X", int: "N", str: "NAME"}[settings["type"]]
        )
    default = {"weights": "auto"}.get(field.name, field.default)
    if default is not None and kind != "bool":
        words += f" [{default}]"
    group.add_argument(f"--{field.name.replace('_', '-')}", help=words.replace("%", "%%"), **settings)


def _comma_separated(item: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        return tuple(item(part.strip()) for part in text.split(","))

    parse.__name__ = f"comma-separated {item.__name__}"  # argparse says it in its error
    return parse


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "positive whole number"


def _config(options: argparse.Namespace) -> StyleConfig:
    """Preset, then --config, then the flags, each over the one before."""
    names = {field.name for field in dataclasses.fields(StyleConfig)}
    stored = _stored_options(Path(options.config)) if options.config is not None else {}
    given = {name: value for name, value in vars(options).items() if name in names}
    return StyleConfig().replace({"weights": "auto", **PRESETS[options.preset], **stored, **given})


def _stored_options(path: Path) -> dict[str, Any]:
    """The options in a picture's metadata, or in a JSON file by themselves or under ``options``."""
    from tfstyle.saving import FORMATS, read_settings

    if not path.is_file():
        raise ConfigError(f"no such file: {path}")
    if path.suffix.lower() in FORMATS:
        return read_settings(path)["options"]
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found.get("options", found))
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: not a JSON object of options ({error})") from error


def _preview(output: Path, iteration: int) -> Path:
    """Where the picture of an iteration, counted over all scales, goes: out-0050.png beside out.png."""
    return output.with_stem(f"{output.stem}-{iteration:04d}")


def _save(run: Run, options: argparse.Namespace) -> None:
    """Write the picture so far, and the history; say what was written."""
    result, output = run.result(), Path(options.output)
    if output.exists() and not options.overwrite:  # it was not there when the run began
        output = output.with_stem(f"{output.stem}-{os.getpid()}")
    result.save(output, options.overwrite)
    height, width = result.image.shape[:2]
    done, seconds = len(result.history.iteration), result.history.seconds[-1]
    print(f"{output}: {width} x {height} pixels, {done} iterations in {seconds:.1f} s", flush=True)
    if options.history is not None:
        result.history.save(options.history, options.overwrite)


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C wait for the end of an iteration, where there is a picture to save.

    Inside TensorFlow's own code an exception can come out as another one. A second Ctrl-C ends at once.

    Yields:
        A function that tells whether there was one.
    """
    seen: list[int] = []

    def handle(number: int, frame: object) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)


def _complain(what: object, code: int) -> int:
    print(f"tfstyle: {'error: ' if code != INTERRUPTED else ''}{what}", file=sys.stderr, flush=True)
    return code


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("tfstyle: %(message)s"))
    logger = logging.getLogger("tfstyle")
    logger.handlers = [handler]
    logger.propagate = False


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    """Keep TensorFlow's start-up messages, some of which no setting silences, off the terminal."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as sink:
        stderr = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        except ImportError:
            sink.seek(0)
            os.write(stderr, sink.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)

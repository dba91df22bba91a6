"""Functions that several commands use: exit codes, checks of the inputs, the options of a run.

A command checks as much as possible before it calls `load_tensorflow`, which takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from tfstyle.cli.standard_input import STANDARD_INPUT
from tfstyle.cli.wording import in_options
from tfstyle.config import (
    ADDED_OPTIONS,
    PAPER,
    StyleConfig,
    check_init,
    check_option_names,
    upgraded_options,
    without_quality_options,
)
from tfstyle.errors import ConfigError, ImageError, InputError
from tfstyle.layers import find_layer
from tfstyle.presets import PRESETS

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
#: Signals that interrupt a command: Ctrl-C, SIGTERM, and SIGHUP, which Windows lacks.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
#: Error numbers of the operating system that the user cannot avoid with another input: a full disk, a failed
#: device, a file system that became read-only, too many open files.
MACHINE_ERRORS = [
    getattr(errno, name)
    for name in (
        "ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "ENXIO", "ENODEV", "ESTALE", "EMFILE", "ENFILE", "ENOMEM"
    )
    if hasattr(errno, name)
]  # fmt: skip


def load_tensorflow() -> None:
    """Import TensorFlow and hide its start-up messages, some of which no setting turns off.

    Raises:
        BackendError: Keras is configured for another backend.
        ConfigError: no folder for temporary files is writable.
    """
    from tfstyle.files import hidden_stderr

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with hidden_stderr() as stderr, _loading_display(stderr):
        for name in ("tfstyle.backend", "tensorflow"):  # the first has the clearer error message
            import_module(name)


@contextlib.contextmanager
def _loading_display(descriptor: int) -> Iterator[None]:
    """Display that TensorFlow is loading, if stderr is a terminal.

    Args:
        descriptor: file descriptor of stderr.
    """
    if "tensorflow" in sys.modules or not os.isatty(descriptor):
        yield
        return
    from tfstyle.cli.progress import waiting_display

    with open(descriptor, "w", closefd=False) as stream, waiting_display("loading TensorFlow", stream):
        yield


def run_config(options: argparse.Namespace) -> StyleConfig:
    """Return the options of a run. Flags take precedence over --config, and --config over --preset.

    Raises:
        InputError: an option has an invalid value, the network has no such layer, or a file does not exist.
    """
    names = {field.name for field in dataclasses.fields(StyleConfig)}
    stored = {} if options.config is None else _stored_options(options.config)
    try:
        check_option_names(stored)
    except ConfigError as error:
        raise ConfigError(f"{options.config}: {error}") from None
    given = {name: value for name, value in vars(options).items() if name in names}
    preset = PRESETS[options.preset].options
    quality = given.get("quality")
    if names - {"quality", *ADDED_OPTIONS} <= set(stored):  # the options of an image, maybe an older one
        stored = upgraded_options(stored)
        if not preset:  # the image's iterations take precedence over those of a preset
            stored = without_quality_options(stored, replaced=quality is not None)
    else:
        quality = quality or stored.get("quality")
    if preset and quality is not None:
        raise ConfigError(
            f"--quality {quality} cannot be combined with --preset {options.preset}, which sets the same "
            "options; leave one of them out"
        )
    config = StyleConfig().replace({"weights": "auto", **preset, **stored, **given})
    content_layers = () if config.content_layers == PAPER else config.content_layers or ()
    for layer in (*content_layers, *(config.style_layers or ())):
        find_layer(layer, config.network)
    check_weights(config.weights)
    check_init(config)
    if config.fine_style is not None:
        check_images([config.fine_style])
    return config


def _stored_options(source: str) -> dict[str, Any]:
    """Return the options from an image's metadata, or from a JSON object or its key ``options``."""
    from tfstyle.files import IMAGE_FORMATS, refuse_url

    refuse_url(source, ConfigError)
    path = Path(source)
    if not path.is_file():
        raise ConfigError(f"no such file: {path}")
    if path.suffix.lower() in IMAGE_FORMATS:
        load_tensorflow()
        from tfstyle.images.saving import read_settings

        return read_settings(path)["options"]
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors on Windows write the mark
        return dict(content.get("options", content))
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: expected a JSON object with options ({error})") from None


def check_weights(source: str) -> None:
    """Raise WeightsError if --weights is neither a known name nor an existing weights file."""
    from tfstyle.files import NAMED_WEIGHTS, check_weights_file

    if source not in NAMED_WEIGHTS:
        check_weights_file(source)


def check_images(sources: Iterable[str | BinaryIO]) -> None:
    """Raise ImageError if an image file, or the file of an extracted style, does not exist."""
    from tfstyle.files import check_image_file, split_style_source

    for source in sources:
        if not isinstance(source, str):  # standard input
            continue
        style = split_style_source(source)
        check_image_file(source if style is None else style[0])


def check_images_or_folders(sources: Iterable[str]) -> None:
    """Raise ImageError if a path is neither an existing file nor an existing folder."""
    from tfstyle.files import check_image_or_folder

    sources = list(sources)
    refuse_standard_input(sources)
    for source in sources:
        check_image_or_folder(source)


def refuse_standard_input(sources: Iterable[str]) -> None:
    """Raise ImageError if a source is ``-``, in a command that reads files only."""
    if STANDARD_INPUT in sources:
        raise ImageError("this command does not read standard input (-); give image files or folders")


class Interrupted(KeyboardInterrupt):
    """The process received a signal that ends it.

    Attributes:
        code: the exit code, which is 128 plus the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.code = 128 + number


class Interruption:
    """Function without arguments that returns whether a command was interrupted.

    Attributes:
        code: the exit code, which is 128 plus the number of the signal, or 0 if there was no signal.
    """

    code = 0

    def __call__(self) -> bool:
        """Return whether a signal was received."""
        return self.code != 0


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise `Interrupted` when one of `SIGNALS` is received, as a context manager."""

    def handle(number: int, frame: object) -> None:
        raise Interrupted(number)

    with _signals_handled(handle):
        yield


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Let a command handle the first of `SIGNALS` after the iteration, so that it can save the current image.

    An exception is not raised for the first signal, because TensorFlow can turn a KeyboardInterrupt that is
    raised inside it into another error. The second signal ends the command immediately.

    Yields:
        An `Interruption`, which the command calls after each iteration.
    """
    interruption = Interruption()

    def handle(number: int, frame: object) -> None:
        if interruption():
            raise Interrupted(number)
        interruption.code = 128 + number

    with _signals_handled(handle):
        yield interruption


@contextlib.contextmanager
def _signals_handled(handle: Callable[[int, object], None]) -> Iterator[None]:
    """Call a function when one of `SIGNALS` is received. Ignored signals stay ignored, as under ``nohup``.

    SIGINT is handled even if it is ignored, because shells without job control ignore it for commands in the
    background, and ``kill -INT`` must interrupt those too.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        yield
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    replaced = {
        number: handler
        for number, handler in previous.items()
        if handler is not None and (number == signal.SIGINT or handler != signal.SIG_IGN)
    }
    for number in replaced:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def exit_code(error: Exception) -> int:
    """Return the exit code for an error: 2 if the user can correct an input, otherwise 1.

    The exit code is also 1 if the cause of the error is one of `MACHINE_ERRORS`, such as a full disk.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in MACHINE_ERRORS:
            return FAILED
        cause = cause.__cause__ or cause.__context__
    return WRONG_INPUT if isinstance(error, (InputError, OSError, UnicodeEncodeError)) else FAILED


def describe(error: Exception) -> str:
    """Return the message of an error. For an OSError, it begins with the name of the file."""
    if isinstance(error, OSError):
        message = error.strerror or str(error)
        return f"{error.filename}: {message}" if error.filename else message
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object}: the name of the file or folder is not valid UTF-8; rename it"
    return str(error)


def complain(message: object, code: int) -> int:
    """Print an error message on stderr and return the exit code."""
    prefix = "error: " if code < 128 else ""
    print(f"tfstyle: {prefix}{in_options(message)}", file=sys.stderr, flush=True)
    return code

"""Functions that several commands use: exit codes, checks of the inputs, the options of a run.

A command checks as much as possible before it calls `load_tensorflow`, which takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from tfstyle.cli.wording import in_options
from tfstyle.config import StyleConfig, check_init, check_option_names
from tfstyle.errors import ConfigError
from tfstyle.layers import find_layer
from tfstyle.presets import PRESETS

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def load_tensorflow() -> None:
    """Import TensorFlow and hide its start-up messages, some of which no setting turns off.

    Raises:
        BackendError: Keras is configured for another backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as sink:
        stderr = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            with _loading_display(stderr):
                for name in ("tfstyle.backend", "tensorflow"):  # the first has the clearer error message
                    import_module(name)
        except ImportError:
            sink.seek(0)
            os.write(stderr, sink.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def _loading_display(descriptor: int) -> Iterator[None]:
    """Display on a terminal that TensorFlow is loading."""
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
    stored = {} if options.config is None else _stored_options(Path(options.config))
    try:
        check_option_names(stored)
    except ConfigError as error:
        raise ConfigError(f"{options.config}: {error}") from None
    given = {name: value for name, value in vars(options).items() if name in names}
    preset = PRESETS[options.preset].options
    config = StyleConfig().replace({"weights": "auto", **preset, **stored, **given})
    for layer in (*(config.content_layers or ()), *(config.style_layers or ())):
        find_layer(layer, config.network)
    check_weights(config.weights)
    check_init(config)
    if config.fine_style is not None:
        check_images([config.fine_style])
    return config


def _stored_options(path: Path) -> dict[str, Any]:
    """Return the options from an image's metadata, or from a JSON object or its key ``options``."""
    from tfstyle.files import IMAGE_FORMATS

    if not path.is_file():
        raise ConfigError(f"no such file: {path}")
    if path.suffix.lower() in IMAGE_FORMATS:
        load_tensorflow()
        from tfstyle.images.saving import read_settings

        return read_settings(path)["options"]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content.get("options", content))
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: expected a JSON object with options ({error})") from None


def check_weights(source: str) -> None:
    """Raise WeightsError if --weights is neither a known name nor an existing weights file."""
    from tfstyle.files import NAMED_WEIGHTS, check_weights_file

    if source not in NAMED_WEIGHTS:
        check_weights_file(Path(source))


def check_images(sources: Iterable[str]) -> None:
    """Raise ImageError if an image file, or the file of an extracted style, does not exist."""
    from tfstyle.files import check_image_file, split_style_source

    for source in sources:
        style = split_style_source(source)
        check_image_file(Path(source) if style is None else style[0])


def check_images_or_folders(sources: Iterable[str]) -> None:
    """Raise ImageError if a path is neither an existing file nor an existing folder."""
    from tfstyle.files import check_image_or_folder

    for source in sources:
        check_image_or_folder(Path(source))


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Postpone the first Ctrl-C to the end of the iteration, so that the current image can be saved.

    TensorFlow can turn a KeyboardInterrupt that is raised inside it into another error. The second Ctrl-C
    ends the process immediately.

    Yields:
        A function that returns whether Ctrl-C was pressed.
    """
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous_handler = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGINT, previous_handler)


def complain(message: object, code: int) -> int:
    """Print an error message on stderr and return the exit code."""
    print(
        f"tfstyle: {'error: ' if code != INTERRUPTED else ''}{in_options(message)}",
        file=sys.stderr,
        flush=True,
    )
    return code

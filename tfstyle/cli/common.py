"""What the commands share: exit codes, the parser with one-line errors, the options of a run.

A command checks what it can before `load_tensorflow`, which takes seconds, and does the rest behind it.
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
from typing import Any, NoReturn

from tfstyle.config import StyleConfig, check_init
from tfstyle.errors import ConfigError
from tfstyle.layers import find_layer
from tfstyle.presets import PRESETS

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """One line, where argparse prints its usage first."""
        self.exit(WRONG_INPUT, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def load_tensorflow() -> None:
    """Import TensorFlow; its start-up messages, some of which no setting silences, stay off the terminal.

    Raises:
        BackendError: Keras is set up for another backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as sink:
        stderr = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            for name in ("tfstyle.backend", "tensorflow"):  # the first one's error is the clearer
                import_module(name)
        except ImportError:
            sink.seek(0)
            os.write(stderr, sink.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def run_config(options: argparse.Namespace) -> StyleConfig:
    """Preset, then --config, then the flags, each over the one before.

    Raises:
        InputError: an option cannot have its value; the network has no such layer; no such file.
    """
    names = {field.name for field in dataclasses.fields(StyleConfig)}
    stored = _stored_options(Path(options.config)) if options.config is not None else {}
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
    """The options in an image's metadata, or in a JSON file by themselves or under ``options``."""
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
        raise ConfigError(f"{path}: not a JSON object of options ({error})") from error


def check_weights(source: str) -> None:
    """Raise WeightsError where --weights is neither a name nor a file that weights can be read from."""
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
    """Raise ImageError where neither a file nor a folder exists."""
    from tfstyle.files import check_image_or_folder

    for source in sources:
        check_image_or_folder(Path(source))


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C wait for the end of an iteration, where there is an image to save.

    Inside TensorFlow's own code an exception can come out as another one. A second Ctrl-C ends at once.

    Yields:
        A function that tells whether there was one.
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
    """Say on stderr what went wrong, and return the code."""
    print(f"tfstyle: {'error: ' if code != INTERRUPTED else ''}{message}", file=sys.stderr, flush=True)
    return code

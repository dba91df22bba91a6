"""What the commands share: exit codes, the parser with one-line errors, the options of a run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError
from tfstyle.presets import PRESETS

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """One line, where argparse prints its usage first."""
        self.exit(WRONG_INPUT, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def run_config(options: argparse.Namespace) -> StyleConfig:
    """Preset, then --config, then the flags, each over the one before."""
    names = {field.name for field in dataclasses.fields(StyleConfig)}
    stored = _stored_options(Path(options.config)) if options.config is not None else {}
    given = {name: value for name, value in vars(options).items() if name in names}
    return StyleConfig().replace({"weights": "auto", **PRESETS[options.preset].options, **stored, **given})


def _stored_options(path: Path) -> dict[str, Any]:
    """The options in a picture's metadata, or in a JSON file by themselves or under ``options``."""
    from tfstyle.images.saving import FORMATS, read_settings

    if not path.is_file():
        raise ConfigError(f"no such file: {path}")
    if path.suffix.lower() in FORMATS:
        return read_settings(path)["options"]
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found.get("options", found))
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: not a JSON object of options ({error})") from error


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
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


def complain(what: object, code: int) -> int:
    """Say on stderr what went wrong, and return the code."""
    print(f"tfstyle: {'error: ' if code != INTERRUPTED else ''}{what}", file=sys.stderr, flush=True)
    return code

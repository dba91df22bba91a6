"""The imports of PyAV and OpenCV, which the extra ``video`` installs, and errors of PyAV in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from tfstyle.errors import ConfigError, ImageError

INSTALL = "install it with pip install 'tfstyle[video]'"


def load_av() -> Any:
    """Return the module of PyAV.

    Raises:
        ConfigError: it cannot be imported.
    """
    return _load("av", "videos need PyAV")


def load_cv2() -> Any:
    """Return the module of OpenCV.

    Raises:
        ConfigError: it cannot be imported.
    """
    return _load("cv2", "optical flow needs OpenCV")


def _load(name: str, need: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"{need} ({error}); {INSTALL}") from None


@contextlib.contextmanager
def one_line_av_errors(path: Path) -> Iterator[None]:
    """Return a context that turns an error of FFmpeg, while a file is read, into an ImageError of one line.

    Args:
        path: path of the file.
    """
    av = load_av()
    try:
        yield
    except av.FFmpegError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise ImageError(f"{path} is not a video that FFmpeg can read: {reason}") from None

"""Files: paths are checked before work is spent on them, and files are written whole or not at all.

No TensorFlow here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfstyle.errors import ConfigError, ImageError, OutputError, RunError, WeightsError

#: How the names of files begin that are not whole yet.
PARTIAL = ".tfstyle-"
#: What an image can be written as -> (Pillow's name, the longest side it can hold, has alpha).
IMAGE_FORMATS = {
    ".png": ("PNG", 2**31 - 1, True),
    ".jpg": ("JPEG", 65500, False),
    ".jpeg": ("JPEG", 65500, False),
    ".webp": ("WEBP", 16383, True),
    ".tif": ("TIFF", 2**31 - 1, True),
    ".tiff": ("TIFF", 2**31 - 1, True),
}
#: Names of weights that are no files.
NAMED_WEIGHTS = ("imagenet", "embedded", "random", "auto")
WEIGHTS_SUFFIXES = (".h5", ".npz", ".safetensors")


def check_writable(path: Path, overwrite: bool = False) -> None:
    """Raise OutputError unless a file can be made, or with `overwrite` replaced, at the path."""
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: no permission to write in {path.parent}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; replace it with overwrite (--overwrite) or choose another name")


def check_output(path: Path, *, overwrite: bool = False, shape: tuple[int, int] | None = None) -> None:
    """Raise an InputError unless an image can be written there, before hours are spent on it.

    Args:
        path: of the image; its suffix chooses the format.
        overwrite: whether a file already there may be replaced.
        shape: ``(height, width)`` where known.
    """
    if path.suffix.lower() not in IMAGE_FORMATS:
        raise ImageError(f"cannot write {path}: the suffix must be one of {', '.join(IMAGE_FORMATS)}")
    _, longest, _ = IMAGE_FORMATS[path.suffix.lower()]
    if shape is not None and max(shape) > longest:
        raise ImageError(f"cannot write {path}: {path.suffix} holds at most {longest} pixels a side")
    check_writable(path, overwrite)


def check_weights_output(path: Path, overwrite: bool = False) -> None:
    """Raise an InputError unless `tfstyle.Weights.save` can write there."""
    if path.suffix != ".npz":
        raise WeightsError(f"cannot write {path}: learned weights are written as .npz")
    check_writable(path, overwrite)


def check_image_file(path: Path) -> None:
    """Raise ImageError unless there is a file at the path."""
    if not path.exists():
        raise ImageError(f"no such image: {path}")
    if path.is_dir():
        raise ImageError(f"{path} is a folder, not an image")


def split_style_source(source: str) -> tuple[Path, str | None] | None:
    """Split ``FILE.npz#NAME`` into the file and the name of the style in it.

    Returns:
        the file and the name, which is None for ``FILE.npz``; None if the source is not an ``.npz`` file.
    """
    file, _, name = source.rpartition("#")
    if Path(file).suffix.lower() == ".npz":
        return Path(file), name
    return (Path(source), None) if Path(source).suffix.lower() == ".npz" else None


def check_image_or_folder(path: Path) -> None:
    """Raise ImageError unless there is a file or a folder at the path."""
    if not path.exists():
        raise ImageError(f"no such image or folder: {path}")


def check_weights_file(path: Path) -> None:
    """Raise WeightsError unless there is a file at the path, of a format that weights can be read from."""
    suffixes = ", ".join(WEIGHTS_SUFFIXES)
    if not path.is_file():
        raise WeightsError(
            f"no weights file {path}; give imagenet, embedded, random, auto or a {suffixes} file"
        )
    if path.suffix not in WEIGHTS_SUFFIXES:
        raise WeightsError(f"{path}: weights files end in {suffixes}")


def check_model_name(name: str) -> None:
    """Raise ConfigError unless a folder of that name can hold a model for TensorFlow Serving."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name.startswith("."):
        raise ConfigError(f"name is {name!r}; a model's name has letters, digits, '_', '-' and '.'")


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, unless it is there; raise OutputError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror or error}") from error
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that takes the path when the block has ended well: it is whole or not there.

    Raises:
        RunError: the disk is full or failed; the temporary file is removed.
    """
    temporary = path.with_name(f"{PARTIAL}{_host()}-{os.getpid()}-{threading.get_ident()}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise RunError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # what went wrong first is what counts
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either whole or not there, by renaming a temporary one.

    Raises:
        RunError: as `replacing`.
    """
    with replacing(path) as file:
        file.write(data)


def remove_left(folder: Path) -> None:
    """Remove the temporary files of `replacing` that killed processes of this machine left in a folder."""
    for path in folder.glob(f"{PARTIAL}{_host()}-*"):
        number = path.name.split("-")[-2]
        if number.isdecimal() and not _runs(int(number)):
            with contextlib.suppress(OSError):
                path.unlink()


def _host() -> str:
    return re.sub(r"[^\w.]", "_", socket.gethostname())


def _runs(process: int) -> bool:
    """Whether there is such a process; where the system is not known to tell, yes."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Let a new name in a folder outlive a power cut, where the system has means to."""
    with contextlib.suppress(OSError):  # Windows opens no folder, and some network disks sync none
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def digest(value: Any) -> str:
    """SHA-256 of arrays and plain values, nested in any way."""
    running = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, np.ndarray):
            running.update(f"array {item.dtype} {item.shape};".encode())
            running.update(np.ascontiguousarray(item).reshape(-1).view(np.uint8).data)
        elif isinstance(item, Mapping):
            add([[key, item[key]] for key in sorted(item)])
        elif isinstance(item, (list, tuple)):
            running.update(f"list {len(item)};".encode())
            for part in item:
                add(part)
        else:
            running.update(f"{item!r};".encode())

    add(value)
    return running.hexdigest()

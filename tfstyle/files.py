"""Writing files: asked for permission first, and whole or not at all."""

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

from tfstyle.errors import OutputError, RunError

#: How the names of files begin that are not whole yet.
PARTIAL = ".tfstyle-"


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

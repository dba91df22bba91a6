"""The storage of a batch: reading and atomic writing of files by their paths."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, Protocol

from tfstyle.errors import ImageError, RunError
from tfstyle.files import check_image_file, is_address, write_atomically


def base_name(path: str) -> str:
    """Return the last part of a path or an address.

    Args:
        path: path of a file on this machine, or an address.
    """
    return path.rpartition("/")[2] if is_address(path) else Path(path).name


def join(folder: str, name: str) -> str:
    """Return the path of a file in a folder.

    Args:
        folder: path or address of the folder.
        name: name of the file.
    """
    return f"{folder.rstrip('/')}/{name}" if is_address(folder) else str(Path(folder) / name)


class Storage(Protocol):
    """The file operations that a batch needs. `LocalStorage` implements them for local files."""

    def open(self, path: str) -> BinaryIO:
        """Return a file, open in binary mode, whose ``name`` is its path.

        Raises:
            ImageError: there is no such file, or no permission to read it.
            RunError: the disk or the network failed.
        """

    def write(self, path: str, data: bytes) -> None:
        """Write a file so that no reader ever finds a part of it. An existing file is replaced.

        Raises:
            RunError: the file cannot be written, for instance because the disk is full.
        """

    def modified(self, path: str) -> float | None:
        """Return the time of the last change of a file in seconds since 1970, or None without a file."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder; none if there is no such folder."""


class LocalStorage:
    """The files of this machine."""

    def open(self, path: str) -> BinaryIO:
        """Return an open file as `Storage.open` describes it."""
        check_image_file(path)
        try:
            return Path(path).open("rb")
        except PermissionError:
            raise ImageError(f"{path}: no permission to read this file") from None
        except OSError as error:
            raise RunError(f"{path} could not be read: {error.strerror or error}") from error

    def write(self, path: str, data: bytes) -> None:
        """Write a file as `Storage.write` describes it."""
        write_atomically(Path(path), data)

    def modified(self, path: str) -> float | None:
        """Return the time of the last change as `Storage.modified` describes it."""
        try:
            return Path(path).stat().st_mtime
        except OSError:
            return None

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder as `Storage.names` describes it."""
        try:
            return sorted(path.name for path in Path(folder).iterdir() if path.is_file())
        except OSError:
            return []


def read_all(storage: Storage, path: str) -> BinaryIO:
    """Return the whole content of a file in memory, as a file whose ``name`` is its path.

    Args:
        storage: the storage.
        path: path of the file.

    Raises:
        ImageError, RunError: as for `Storage.open`.
    """
    with storage.open(path) as file:
        try:
            return named(file.read(), path)
        except OSError as error:
            raise RunError(f"{path} could not be read: {error.strerror or error}") from error


def named(content: bytes, name: str) -> BinaryIO:
    """Return a file in memory with a name, which error messages contain.

    Args:
        content: content of the file.
        name: its ``name``.
    """
    file = io.BytesIO(content)
    file.name = name
    return file

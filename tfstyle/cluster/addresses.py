"""Files at addresses such as ``s3://bucket/photos``, by means of fsspec, and files of this machine."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

import fsspec

from tfstyle.errors import ConfigError, ImageError, RunError, TfstyleError
from tfstyle.files import PARTIAL, is_address, is_pattern, write_atomically
from tfstyle.images import is_image_name
from tfstyle.run import (
    LIST_SUFFIXES,
    Content,
    LocalStorage,
    find_contents,
    named,
    pattern_root,
    read_all,
    read_list,
)

#: Protocols of object stores. They have no renaming, but an object is visible only when it is complete.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"})
READING_THREADS = 32
#: Bytes of an image file that contain its size, also after a thumbnail.
HEAD_BYTES = 256 * 1024

Item = TypeVar("Item")
Value = TypeVar("Value")


class AddressStorage:
    """Files at addresses; a path without a protocol is a file of the machine.

    `list_folder` remembers the files of a folder, so that `modified` needs no request for each of them.
    """

    def __init__(self) -> None:
        self._local = LocalStorage()
        self._listed: dict[str, dict[str, float]] = {}

    def open(self, path: str) -> BinaryIO:
        """Return an open file as `tfstyle.run.Storage.open` describes it."""
        if not is_address(path):
            return self._local.open(path)
        return self.head(path, None)

    def head(self, path: str, size: int | None = HEAD_BYTES) -> BinaryIO:
        """Return the beginning of a file, which is not read further from an address.

        Args:
            path: path or address.
            size: number of bytes that are read from an address; None for all. Other files are opened.
        """
        if not is_address(path):
            return self._local.open(path)
        with one_line(path):
            system, inside = fsspec.core.url_to_fs(path)
            return named(system.cat_file(inside, end=size), path)

    def write(self, path: str, data: bytes) -> None:
        """Write a file as `tfstyle.run.Storage.write` describes it."""
        if not is_address(path):
            write_atomically(Path(path), data)
            return
        with one_line(path):
            system, inside = fsspec.core.url_to_fs(path)
            if path.partition("://")[0] in OBJECT_STORES:
                system.pipe_file(inside, data)
                return
            folder, _, name = inside.rpartition("/")
            system.makedirs(folder, exist_ok=True)
            temporary = f"{folder}/{PARTIAL}{os.getpid()}-{name}"
            try:
                system.pipe_file(temporary, data)
                system.mv(temporary, inside)
            except BaseException:
                with contextlib.suppress(Exception):  # the first error is the one to report
                    system.rm_file(temporary)
                raise

    def modified(self, path: str) -> float | None:
        """Return the time of the last change as `tfstyle.run.Storage.modified` describes it."""
        if not is_address(path):
            return self._local.modified(path)
        folder, _, name = path.rpartition("/")
        if folder in self._listed:
            return self._listed[folder].get(name)
        with one_line(path):
            system, inside = fsspec.core.url_to_fs(path)
            try:
                return _time(system.modified(inside))
            except FileNotFoundError:
                return None
            except NotImplementedError:
                return float("inf") if system.exists(inside) else None

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder as `tfstyle.run.Storage.names` describes it."""
        return sorted(self._files(folder)) if is_address(folder) else self._local.names(folder)

    def remove(self, path: str) -> None:
        """Remove a file if it exists.

        Args:
            path: path or address.

        Raises:
            RunError: it cannot be removed.
        """
        with one_line(path), contextlib.suppress(FileNotFoundError):
            system, inside = fsspec.core.url_to_fs(path)
            system.rm_file(inside)

    def list_folder(self, folder: str) -> None:
        """Remember the files of a folder and the times of their last changes.

        Args:
            folder: path or address of the folder.
        """
        if is_address(folder):
            self._listed[folder.rstrip("/")] = self._files(folder)

    def _files(self, folder: str) -> dict[str, float]:
        with one_line(folder):
            system, inside = fsspec.core.url_to_fs(folder)
            try:
                entries = system.ls(inside, detail=True, refresh=True)
            except FileNotFoundError:
                return {}
            except TypeError:  # the file system has no option refresh
                entries = system.ls(inside, detail=True)
        return {
            PurePosixPath(entry["name"]).name: _time_of(entry) for entry in entries if entry["type"] == "file"
        }


def find_contents_at(source: str) -> list[Content]:
    """Return the content images that a path or an address describes.

    Args:
        source: as for `tfstyle.run.find_contents`. Everything can be at an address, and the entries of a list
            can be addresses.

    Returns:
        The content images with absolute paths. Images at an address have the same keys as those in a folder.

    Raises:
        ImageError: there is no image.
        ConfigError: fsspec does not know the protocol, or needs another package for it.
        RunError: the address cannot be read, for example because access is denied.
    """
    if PurePosixPath(source).suffix.lower() in LIST_SUFFIXES and not is_pattern(source):
        entries = read_list(source, read_all(AddressStorage(), source).read())
        folder = source.rpartition("/")[0] if is_address(source) else str(Path(source).parent)
        inside = posixpath.join if is_address(folder) else os.path.join
        keys = list(dict.fromkeys(x if is_address(x) else posixpath.normpath(x) for x in entries))
        return [Content(absolute(key if is_address(key) else inside(folder, key)), key) for key in keys]
    if not is_address(source):
        return [Content(absolute(path), key) for path, key in find_contents(source)]
    pattern = is_pattern(source)
    root = pattern_root(source) if pattern else source.rstrip("/")
    with one_line(source):
        system, inside = fsspec.core.url_to_fs(source)
        if pattern:
            found = system.glob(inside, detail=True)
            folders = [path for path, entry in found.items() if entry["type"] == "directory"]
            files = {path for path, entry in found.items() if entry["type"] == "file"}
            files.update(path for folder in folders for path in system.find(folder))
        elif system.isfile(inside):
            return [Content(absolute(source), PurePosixPath(source).name)]
        else:
            files = set(system.find(inside))
        _, root_inside = fsspec.core.url_to_fs(root)
    below = [PurePosixPath(path).relative_to(root_inside) for path in files]
    root = absolute(root)
    keys = sorted(str(path) for path in below if is_image_name(path))
    if not keys:
        raise ImageError(f"no images at {source}")
    return [Content(f"{root}/{key}", key) for key in keys]


def absolute(path: str) -> str:
    """Return the absolute path of a file, because workers have another current folder.

    Args:
        path: path or address. ``file://`` is left out.
    """
    if path.startswith("file://"):
        path = fsspec.core.strip_protocol(path)  # on Windows also the slash before the drive
    return path if is_address(path) else str(Path(path).absolute())


def in_threads(function: Callable[[Item], Value], items: Iterable[Item]) -> list[Value]:
    """Return the results of a function for many items, computed in `READING_THREADS` threads.

    Args:
        function: function of an item that mostly waits for a disk or a network.
        items: the items.
    """
    with ThreadPoolExecutor(READING_THREADS) as executor:
        return list(executor.map(function, items))


@contextlib.contextmanager
def one_line(path: str) -> Iterator[None]:
    """Turn the errors of fsspec and its file systems into errors of one line, as a context manager.

    Args:
        path: the address that is used.

    Yields:
        None.

    Raises:
        ImageError: there is no such file.
        ConfigError: fsspec does not know the protocol, or needs another package for it.
        RunError: any other error.
    """
    try:
        yield
    except TfstyleError:
        raise
    except FileNotFoundError:
        raise ImageError(f"no such file: {path}") from None
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{path} cannot be used: {_first_line(error)}") from None
    except Exception as error:  # each file system has exceptions of its own
        raise RunError(f"{path}: {type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _time_of(entry: dict[str, Any]) -> float:
    """Return the time of the last change in a listing of fsspec; infinity, the future, if it has none."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        if entry.get(key) is not None:
            return _time(entry[key])
    return float("inf")


def _time(value: Any) -> float:
    if isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    return float(value.timestamp() if hasattr(value, "timestamp") else value)

"""The visits of a page: their jobs and their files, which are deleted when the visit ends."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

#: Seconds after which a visit without activity ends. The page tells when a tab is closed, but programs that
#: call the endpoint do not.
IDLE_SECONDS = 3600.0
#: Seconds after which an upload is deleted when its visit has ended. Gradio stores equal files once, and
#: another user may have uploaded the file without a sign of it yet.
UPLOAD_SECONDS = 60.0


class Visit:
    """One open tab: the signal that stops its job, and its files.

    Args:
        folder: folder of the files that the server writes for this visit; it is created.
        number: number of the visit.

    Attributes:
        number: as given. Log messages name it; the name of the folder is a secret.
        stopped: whether the running or waiting job should end.
        ended: whether the visit has ended, so that no file is written any more.
        waiting: whether a job of the visit waits in the queue.
        running: whether a job of the visit runs.
        uploads: files that the user uploaded.
        active: time of the last activity, as `time.monotonic` gives it.
    """

    def __init__(self, folder: Path, number: int) -> None:
        folder.mkdir(parents=True)
        self.number = number
        self._folder, self._count, self._prefix = folder, 0, f"tfstyle-{folder.name}-"
        self.stopped, self.uploads, self.active = threading.Event(), set[Path](), time.monotonic()
        self.ended = self.waiting = self.running = False

    def should_stop(self) -> bool:
        """Return whether the job should end. A running job keeps the visit active."""
        self.active = time.monotonic()
        return self.stopped.is_set()

    def new_file(self, suffix: str) -> Path:
        """Return the path of a new file, whose name contains a secret token of the visit."""
        self._count += 1
        return self._folder / f"{self._prefix}{self._count}{suffix}"

    def made(self, path: Path) -> bool:
        """Return whether the server wrote a file for this visit, or copied it from such a file."""
        return path.name.startswith(self._prefix)

    def add_uploads(self, *paths: object) -> None:
        """Note files that the user uploaded, so that they are deleted when the visit ends."""
        self.uploads |= {Path(str(path)).resolve() for path in paths if path}

    def end(self, cache: Path) -> None:
        """Stop the job of the visit, and delete the files that the server wrote for it.

        Args:
            cache: folder in which Gradio keeps uploads and copies of the files that it sends.
        """
        self.ended = True
        self.stopped.set()
        shutil.rmtree(self._folder, ignore_errors=True)
        for path, _ in _files(cache):
            if self.made(path):
                _delete(path)


class Visits:
    """The visits of a server by the session that Gradio gives each tab.

    Args:
        folder: folder for the files of all visits, inside of which each visit has its own.
        cache: folder of Gradio's files.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self._folder, self._cache = folder, cache
        self._lock, self._visits = threading.Lock(), dict[str, Visit]()
        self._numbers = itertools.count(1)
        self._left = dict[Path, float]()  # uploads of visits that have ended -> times of their ends

    def of(self, session: str | None) -> Visit:
        """Return the visit of a session, and create it if the session is new."""
        with self._lock:
            if str(session) not in self._visits:
                folder = self._folder / secrets.token_hex(16)
                self._visits[str(session)] = Visit(folder, next(self._numbers))
            visit = self._visits[str(session)]
            visit.active = time.monotonic()
            return visit

    def end(self, session: str | None) -> None:
        """End the visit of a session, if there is one."""
        with self._lock:
            self._end(str(session))

    def busy(self) -> bool:
        """Return whether a job is running."""
        with self._lock:
            return any(visit.running for visit in self._visits.values())

    def sweep(self) -> None:
        """End inactive visits, and delete files that belong to no visit.

        Such files are the uploads of visits that have ended, and old uploads that no job has used.
        """
        with self._lock:
            now = time.monotonic()
            for key, visit in list(self._visits.items()):
                if now - visit.active > IDLE_SECONDS and not visit.waiting:
                    self._end(key)
            visits = self._visits.values()
            kept = {path for visit in visits for path in visit.uploads}
            for path, since in list(self._left.items()):
                if path in kept or (now - since >= UPLOAD_SECONDS and _delete(path)):
                    del self._left[path]
            for path, information in _files(self._cache):
                old = time.time() - information.st_mtime > IDLE_SECONDS
                if old and path.resolve() not in kept and not any(visit.made(path) for visit in visits):
                    _delete(path)

    def stored_bytes(self) -> int:
        """Return the number of bytes of all files that the server stores, each counted as 64 KB at least."""
        folders = (self._folder, self._cache)
        return sum(max(info.st_size, 65_536) for folder in folders for _, info in _files(folder))

    def _end(self, key: str) -> None:
        visit = self._visits.pop(key, None)
        if visit is not None:
            visit.end(self._cache)
            for path in visit.uploads:
                if self._cache.resolve() in path.parents:
                    self._left[path] = time.monotonic()


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files below a folder, while others may be deleting them."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                path = Path(parent, name)
                yield path, path.stat()


def _delete(path: Path) -> bool:
    """Delete a file if it exists. Return False if Windows refuses because the file is open."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        return False
    return True

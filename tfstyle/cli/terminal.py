"""Standard output and standard error of the command line: streams that never stop a command.

A stream may be closed, a pipe whose reader has ended, a file on a full disk, or not encoded as UTF-8. The
commands print and log as usual. They announce saved files with `report`, so that `main` can name those files
on stderr if standard output fails.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast

#: Number of Windows' error for text that is written to a console whose descriptor is redirected to a file.
INVALID_HANDLE = 6


class SafeStream:
    """A text stream whose ``write`` and ``flush`` do not raise errors.

    Characters that the stream cannot encode are written as escapes. Nothing is written after a failure, with
    one exception: Windows refuses text for a console while its descriptor is redirected, as by
    `tfstyle.files.hidden_stderr`. The text then stays in the buffer until the descriptor is restored.

    Args:
        stream: the stream to write to, or None if its file descriptor was closed when the process started.

    Attributes:
        failure: the error that stopped the output, or None.
        unreported: paths of the saved files whose report could not be written.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.failure: Exception | None = OSError("the stream is closed") if stream is None else None
        self.unreported: list[Path] = []
        self._stream = io.StringIO() if stream is None else stream

    def write(self, text: str) -> int:
        """Write a string and return its length."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        encodable = text.encode(encoding, "backslashreplace").decode(encoding)
        self._try(lambda: self._stream.write(encodable))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        if self.failure is not None:
            return
        try:
            action()
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            if getattr(error, "winerror", None) == INVALID_HANDLE:
                return
            self.failure = error
            _discard(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _discard(stream: TextIO) -> None:
    """Redirect a standard stream to the null device, so that flushing its buffer at exit raises no error."""
    with contextlib.suppress(OSError, ValueError):  # the stream has no descriptor, or is closed
        if stream.fileno() in (1, 2):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


@contextlib.contextmanager
def safe_streams() -> Iterator[SafeStream]:
    """Replace ``sys.stdout`` and ``sys.stderr`` by safe streams, as a context manager.

    Closed file descriptors of standard streams are connected to the null device first. Otherwise the next
    opened file would get such a descriptor, and libraries would write their messages into that file.

    Yields:
        The stream that replaces ``sys.stdout``.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed; open() uses the lowest free number, which is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    stdout, stderr = SafeStream(sys.stdout), SafeStream(sys.stderr)
    with contextlib.redirect_stdout(cast(TextIO, stdout)), contextlib.redirect_stderr(cast(TextIO, stderr)):
        try:
            yield stdout
        finally:
            stderr.flush()


def report(text: str, *, saved: Path) -> None:
    """Print a line about a file or folder that a command has saved."""
    print(text, flush=True)
    if isinstance(sys.stdout, SafeStream) and sys.stdout.failure is not None:
        sys.stdout.unreported.append(saved)


def check_reports(stdout: SafeStream, code: int) -> int:
    """Print an error if standard output could not be written to, and name the saved files not reported there.

    Args:
        stdout: the stream of the command.
        code: the exit code of the command.

    Returns:
        The exit code: 1 in place of 0 if the output is incomplete.
    """
    stdout.flush()
    if stdout.failure is None:
        return code
    saved = ", ".join(map(str, dict.fromkeys(stdout.unreported)))
    if saved or not isinstance(stdout.failure, BrokenPipeError):  # `tfstyle presets | head` is not an error
        reason = getattr(stdout.failure, "strerror", None) or stdout.failure
        print(
            f"tfstyle: error: standard output could not be written: {reason}"
            + (f"; saved: {saved}" if saved else ""),
            file=sys.stderr,
            flush=True,
        )
    return code or 1

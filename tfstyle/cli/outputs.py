"""The files of ``tfstyle stylize``: permission for them is asked for first; none is lost for want of room."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tfstyle.errors import ConfigError, ImageError, RunError, TfstyleError

if TYPE_CHECKING:
    from tfstyle.run.results import Result
    from tfstyle.run.run import Run


class Outputs:
    """Where the picture, its previews and its history go.

    Args:
        options: of the command line.

    Raises:
        InputError: one of them cannot be written, or is there already.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        from tfstyle.files import check_writable, remove_left
        from tfstyle.images.saving import check_output

        self.path, self.every = Path(options.output), options.save_every or 0
        self.history = None if options.history is None else Path(options.history)
        self._overwrite, self._resume = options.overwrite, options.resume
        check_output(self.path, self._overwrite or self._resume)
        if self.history is not None:
            if self.history.resolve() == self.path.resolve():
                raise ConfigError(f"--history and --output are both {self.path}")
            check_writable(self.history, self._overwrite or self._resume)
        remove_left(self.path.parent)

    def check(self, run: Run) -> None:
        """The same once the run is known: what it wrote itself before it was interrupted it may replace."""
        from tfstyle.files import check_writable
        from tfstyle.images.saving import check_output

        ours = self._may_replace(self.path, run.result)
        check_output(self.path, ours, run.shapes[-1])
        if self.history is not None:
            check_writable(self.history, ours)
        total = sum(run.iterations)
        for n in range(self.every, total, self.every) if self.every else ():
            check_writable(self._preview(n), self._may_replace(self._preview(n), run.result))

    def after(self, run: Run) -> None:
        """Write a preview where it is time for one; where that fails, warn and go on."""
        done = len(run.history.iteration)
        if self.every and done % self.every == 0 and done < sum(run.iterations):
            path = self._preview(done)
            _or_warn(lambda: run.result().save(path, self._may_replace(path, run.result)))

    def save(self, run: Run) -> str:
        """Write the picture so far, and the history; say what was written.

        Returns:
            What kept the picture from the place that was asked for, or nothing.

        Raises:
            RunError: it could be written nowhere.
        """
        result, output = run.result(), self.path
        replace = self._may_replace(output, lambda: result)
        if output.exists() and not replace:  # it was not there when the run began
            output = _beside(output)
        path, trouble = _saved_somewhere(result, output, replace)
        height, width = result.image.shape[:2]
        done, seconds = len(result.history.iteration), result.history.seconds[-1]
        compiling = ""
        if run.facts["compile"] == "xla" and run.first_calls:
            compiling = (
                f", of them {sum(run.first_calls.values()):.1f} s in first calls, which XLA compiles for"
            )
        print(
            f"{path}: {width} x {height} pixels, {done} iterations in {seconds:.1f} s{compiling}", flush=True
        )
        if self.history is not None:
            history = self.history
            _or_warn(lambda: result.history.save(history, replace))
        return trouble

    def _preview(self, iteration: int) -> Path:
        """Where an iteration's picture goes, counted over all scales: out-0050.png beside out.png."""
        return self.path.with_stem(f"{self.path.stem}-{iteration:04d}")

    def _may_replace(self, path: Path, result: Callable[[], Result]) -> bool:
        """Whether it was said so, or a run that goes on wrote the file itself."""
        from tfstyle.images.saving import read_settings

        if self._overwrite or not self._resume or not path.is_file():
            return self._overwrite
        try:
            settings = read_settings(path)
        except ImageError:
            return False
        return settings.get("facts", {}).get("run", "") == result().facts["run"]


def _saved_somewhere(result: Result, output: Path, replace: bool) -> tuple[Path, str]:
    """The path of the picture, and why it is not the one asked for.

    It is tried there, then in the current folder, then in the system's for temporary files.
    """
    troubles: list[str] = []
    places: list[Callable[[], Path]] = [lambda: output.parent, Path.cwd, lambda: Path(tempfile.gettempdir())]
    for place in places:
        try:
            path = place() / output.name
            if troubles and path.exists():
                path = _beside(path)
            result.save(path, replace and not troubles)
        except (TfstyleError, OSError) as error:
            troubles.append(str(error))
        else:
            return path, f"{troubles[0]}; the picture is {path}" if troubles else ""
    raise RunError(f"{troubles[0]}; nor could it be saved in the current folder or that for temporary files")


def _beside(path: Path) -> Path:
    return path.with_stem(f"{path.stem}-{os.getpid()}")


def _or_warn(write: Callable[[], None]) -> None:
    try:
        write()
    except (TfstyleError, OSError) as error:
        with contextlib.suppress(OSError):
            print(f"tfstyle: {error}; the run goes on", file=sys.stderr, flush=True)

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
    """Where the image, its previews and its history go.

    Args:
        options: of the command line.

    Attributes:
        preview_every: iterations from one preview to the next; 0: there are none.

    Raises:
        InputError: one of them cannot be written, or is there already.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        from tfstyle.files import check_output, check_writable, remove_left

        self._image_path, self.preview_every = Path(options.output), options.save_every or 0
        self._history_path = None if options.history is None else Path(options.history)
        self._overwrite, self._resume = options.overwrite, options.resume
        replace = self._overwrite or self._resume
        check_output(self._image_path, overwrite=replace)
        if self._history_path is not None:
            if self._history_path.resolve() == self._image_path.resolve():
                raise ConfigError(f"--history and --output are both {self._image_path}")
            check_writable(self._history_path, overwrite=replace)
        remove_left(self._image_path.parent)

    def check(self, run: Run) -> None:
        """The same once the run is known: what it wrote itself before it was interrupted it may replace."""
        from tfstyle.files import check_output, check_writable

        replace = self._may_replace(self._image_path, run.result)
        check_output(self._image_path, overwrite=replace, shape=run.scales[-1].shape)
        if self._history_path is not None:
            check_writable(self._history_path, overwrite=replace)
        for iteration in (
            range(self.preview_every, run.total_iterations, self.preview_every) if self.preview_every else ()
        ):
            preview_path = self._preview_path(iteration)
            check_writable(preview_path, overwrite=self._may_replace(preview_path, run.result))

    def write_preview(self, run: Run) -> None:
        """Write a preview where it is time for one; where that fails, warn and go on."""
        done = len(run.history.iteration)
        if self.preview_every and done % self.preview_every == 0 and done < run.total_iterations:
            path = self._preview_path(done)
            _warn_on_failure(lambda: run.result().save(path, overwrite=self._may_replace(path, run.result)))

    def save(self, run: Run) -> str:
        """Write the image so far, and the history; say what was written.

        Returns:
            What kept the image from the place that was asked for, or nothing.

        Raises:
            RunError: it could be written nowhere.
        """
        result, output = run.result(), self._image_path
        replace = self._may_replace(output, lambda: result)
        if output.exists() and not replace:  # it was not there when the run began
            output = _with_process_id(output)
        path, failure = _save_where_possible(result, output, replace)
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
        if self._history_path is not None:
            history_path = self._history_path
            _warn_on_failure(lambda: result.history.save(history_path, overwrite=replace))
        return failure

    def _preview_path(self, iteration: int) -> Path:
        """Where an iteration's image goes, counted over all scales: out-0050.png beside out.png."""
        return self._image_path.with_stem(f"{self._image_path.stem}-{iteration:04d}")

    def _may_replace(self, path: Path, result: Callable[[], Result]) -> bool:
        """Whether --overwrite says so, or a run that goes on wrote the file itself."""
        from tfstyle.images.saving import read_settings

        if self._overwrite or not self._resume or not path.is_file():
            return self._overwrite
        try:
            settings = read_settings(path)
        except ImageError:
            return False
        return settings.get("facts", {}).get("run", "") == result().facts["run"]


def _save_where_possible(result: Result, output: Path, replace: bool) -> tuple[Path, str]:
    """The path of the image, and why it is not the one asked for.

    It is tried there, then in the current folder, then in the system's for temporary files.
    """
    failures: list[str] = []
    folders: list[Callable[[], Path]] = [lambda: output.parent, Path.cwd, lambda: Path(tempfile.gettempdir())]
    for folder in folders:
        try:
            path = folder() / output.name
            if failures and path.exists():
                path = _with_process_id(path)
            result.save(path, overwrite=replace and not failures)
        except (TfstyleError, OSError) as error:
            failures.append(str(error))
        else:
            return path, f"{failures[0]}; the picture is {path}" if failures else ""
    raise RunError(f"{failures[0]}; nor could it be saved in the current folder or that for temporary files")


def _with_process_id(path: Path) -> Path:
    return path.with_stem(f"{path.stem}-{os.getpid()}")


def _warn_on_failure(write: Callable[[], None]) -> None:
    try:
        write()
    except (TfstyleError, OSError) as error:
        with contextlib.suppress(OSError):
            print(f"tfstyle: {error}; the run goes on", file=sys.stderr, flush=True)

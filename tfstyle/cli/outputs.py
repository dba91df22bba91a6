"""The output files of ``tfstyle stylize``: the image, its previews and the history of the losses."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfstyle.cli.standard_input import STANDARD_INPUT
from tfstyle.cli.terminal import report
from tfstyle.cli.wording import in_options
from tfstyle.errors import ConfigError, ImageError, RunError, TfstyleError

if TYPE_CHECKING:
    from tfstyle.callbacks import Film
    from tfstyle.run.callbacks import Callback
    from tfstyle.run.results import Result
    from tfstyle.run.run import Run

#: Largest number of characters of a default file name, without its suffix. File systems allow 255 bytes, and
#: a character has up to 4.
LONGEST_NAME = 60


class Outputs:
    """The output files of a run. They are checked before the run starts.

    Args:
        options: the parsed command line.

    Attributes:
        preview_every: number of iterations between two previews, or 0 for no previews.
        pause_every: largest number of iterations in one call of the step, or 0 for no limit.

    Raises:
        InputError: a file cannot be written, or it exists and may not be replaced.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        from tfstyle.files import (
            check_film,
            check_logdir,
            check_output,
            check_writable,
            free_path,
            remove_left,
        )

        self._given_path = None if options.output is None else Path(options.output)
        self._image_path = self._given_path or default_output(options.content, options.styles)
        self.preview_every = options.save_every or 0
        self._history_path = None if options.history is None else Path(options.history)
        self._overwrite, self._resume = options.overwrite, options.resume
        replace = self._overwrite or self._resume
        # A default name is numbered in `check`, when it is known which files may be replaced.
        check_output(self._image_path, overwrite=replace or self._given_path is None)
        for source in (options.content, *options.styles):
            if self._given_path is not None and self._given_path.resolve() == Path(source).resolve():
                raise ConfigError(f"--output is the input image {source}; choose another file")
        if self._history_path is not None:
            check_writable(self._history_path, overwrite=replace)
        self._film_path = None if options.film is None else Path(options.film)
        if self._film_path is not None and self._resume and not self._overwrite:
            self._film_path = free_path(self._film_path)  # keeps the film of the run before
        if self._film_path is not None:
            check_film(self._film_path, overwrite=self._overwrite)
        self._check_names()
        self._film: Film | None = None
        self._logdir = None if options.logdir is None else Path(options.logdir)
        if self._logdir is not None:
            check_logdir(self._logdir)
        # With a film, a call of the step performs one iteration, so that frames have equal intervals. A
        # resumed run keeps the number of iterations in a call.
        self.pause_every = self.preview_every or int(self._film_path is not None and not self._resume)
        remove_left(self._image_path.parent)

    def _check_names(self) -> None:
        """Raise ConfigError if two of the files have the same path."""
        paths = {"--output": self._image_path, "--history": self._history_path, "--film": self._film_path}
        options: dict[Path, str] = {}
        for option, path in paths.items():
            if path is not None and (other := options.setdefault(path.resolve(), option)) != option:
                raise ConfigError(f"{option} and {other} are both {path}; choose two names")

    def check(self, run: Run) -> None:
        """Check the files again once the run is known. A resumed run may replace the files that it wrote.

        Raises:
            OutputError: a file exists and may not be replaced, or the image is too large for its format.
        """
        from tfstyle.files import check_output, check_writable, free_path

        if self._given_path is None:
            self._image_path = free_path(
                self._image_path, may_replace=lambda path: self._may_replace(path, run.result)
            )
        replace = self._may_replace(self._image_path, run.result)
        check_output(self._image_path, overwrite=replace, shape=run.scales[-1].shape)
        if self._history_path is not None:
            check_writable(self._history_path, overwrite=replace)
        if self.preview_every:
            for number in range(1, self._preview_count(run) + 1):
                preview_path = self._preview_path(number, run)
                check_writable(preview_path, overwrite=self._may_replace(preview_path, run.result))
                if self._film_path is not None and preview_path.resolve() == self._film_path.resolve():
                    raise ConfigError(f"--film is {self._film_path}, the name of a preview; choose another")

    def callbacks(self) -> list[Callback]:
        """Return the callbacks that write the film and the logs."""
        from tfstyle.callbacks import Film, TensorBoard

        callbacks: list[Callback] = []
        if self._film_path is not None:
            self._film = Film(self._film_path, overwrite=True)  # `__init__` has checked the path
            callbacks.append(self._film)
        if self._logdir is not None:
            callbacks.append(TensorBoard(self._logdir))
        return callbacks

    def write_preview(self, run: Run) -> None:
        """Write a preview if one is due. If that fails, print a warning and continue.

        The previews of all scales have the size of the final image, so that they can be joined into a video.
        """
        done = len(run.history.iteration)
        if self.preview_every and done % self.preview_every == 0 and done < run.total_iterations:
            path = self._preview_path(done // self.preview_every, run)
            replace, shape = self._may_replace(path, run.result), run.scales[-1].shape
            _warn_on_failure(lambda: run.result(shape=shape).save(path, overwrite=replace))

    def save(self, run: Run) -> str:
        """Write the current image and the history, and print what was written.

        Returns:
            The reason why the image could not be written to the given path, or an empty string.

        Raises:
            RunError: the image could not be written anywhere.
        """
        result, output = run.result(), self._image_path
        replace = self._may_replace(output, lambda: result)
        if output.exists() and not replace:  # another process wrote it during the run
            output = _with_process_id(output)
        path, failure = _save_where_possible(result, output, replace)
        height, width = result.image.shape[:2]
        done, seconds = len(result.history.iteration), result.history.seconds[-1]
        compiling = ""
        if run.facts["compile"] == "xla" and run.first_calls:
            compiling = (
                f", including {sum(run.first_calls.values()):.1f} s for the first calls, which XLA compiles"
            )
        count = f"{done} iteration" if done == 1 else f"{done} iterations"
        report(f"{path}: {width} x {height} pixels, {count} in {seconds:.1f} s{compiling}", saved=path)
        if self._history_path is not None:
            history_path = self._history_path
            _warn_on_failure(lambda: result.history.save(history_path, overwrite=replace))
        if self._film is not None and self._film.written:
            frames = "1 frame" if self._film.frames == 1 else f"{self._film.frames} frames"
            report(f"{self._film.path}: film of {frames}", saved=self._film.path)
        return failure

    def _preview_count(self, run: Run) -> int:
        return (run.total_iterations - 1) // self.preview_every

    def _preview_path(self, number: int, run: Run) -> Path:
        """Return the path of a preview, such as out-0001.png. Sorted by name, previews are in order."""
        digits = max(4, len(str(self._preview_count(run))))
        return self._image_path.with_stem(f"{self._image_path.stem}-{number:0{digits}}")

    def _may_replace(self, path: Path, result: Callable[[], Result]) -> bool:
        """Return whether a file may be replaced: with --overwrite, or if the resumed run wrote it."""
        from tfstyle.images.saving import read_settings

        if self._overwrite or not self._resume or not path.is_file():
            return self._overwrite
        try:
            settings = read_settings(path)
        except ImageError:
            return False
        return settings.get("facts", {}).get("run", "") == result().facts["run"]


def default_output(content: str, styles: Sequence[str]) -> Path:
    """Return the path of an output image without ``--output``: ``CONTENT_STYLE.png`` in the current folder.

    Args:
        content, styles: the arguments for the images. ``-`` (standard input) becomes ``stdin``.
    """
    from tfstyle.files import allowed_name

    names = [_short_name(source) for source in (content, *styles)]
    longest = max(LONGEST_NAME // len(names), 4)
    return Path(allowed_name("_".join(name[:longest] for name in names) + ".png"))


def _short_name(source: str) -> str:
    """Return the name of an image file without its suffix, or the name of a style in an ``.npz`` file."""
    from tfstyle.files import split_style_source

    if source == STANDARD_INPUT:
        return "stdin"
    file, name = split_style_source(source) or (Path(source), None)
    return Path(name or file).stem


def _save_where_possible(result: Result, output: Path, replace: bool) -> tuple[Path, str]:
    """Save the image to the given path, else in the current folder, else in the folder for temporary files.

    Returns:
        The path of the saved image, and the reason if it is not the given path.

    Raises:
        RunError: the image could not be saved in any of the three places.
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
            return path, f"{failures[0]}; the image was saved as {path}" if failures else ""
    raise RunError(
        f"{failures[0]}; saving it in the current folder and in the folder for temporary files failed too"
    )


def _with_process_id(path: Path) -> Path:
    return path.with_stem(f"{path.stem}-{os.getpid()}")


def _warn_on_failure(write: Callable[[], None]) -> None:
    try:
        write()
    except (TfstyleError, OSError) as error:
        print(f"tfstyle: {in_options(error)}; the run continues", file=sys.stderr, flush=True)

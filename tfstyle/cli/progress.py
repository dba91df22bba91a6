"""Progress displays: a bar on a terminal, and otherwise a line from time to time."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:  # this module imports TensorFlow
    from tfstyle.run.results import Iteration
    from tfstyle.video.steps import VideoStep

LINE_INTERVAL = 10.0  # seconds between two lines if the stream is not a terminal
Show = Callable[["Iteration"], None]


def _terminal_bar(stream: TextIO, *columns: ProgressColumn) -> Progress:
    """Return a display with a spinner, the elapsed time and a bar, which moves while the total is unknown."""
    redirect = stream is sys.stderr  # so that other output appears above the display
    text = TextColumn("{task.description}")
    return Progress(
        SpinnerColumn(), text, TimeElapsedColumn(), BarColumn(), *columns,
        console=Console(file=stream), transient=True, redirect_stdout=redirect, redirect_stderr=redirect,
    )  # fmt: skip


@contextlib.contextmanager
def waiting_display(doing: str, stream: TextIO) -> Iterator[None]:
    """Display a moving bar and the elapsed time on a terminal, during work whose duration is unknown.

    Args:
        doing: description of the work.
        stream: the stream that the display is written to.
    """
    if not stream.isatty():
        yield
        return
    with _terminal_bar(stream) as bar:
        bar.add_task(doing, total=None)
        yield


@contextlib.contextmanager
def progress_display(stream: TextIO) -> Iterator[Show]:
    """Display the progress of a run.

    Args:
        stream: the stream that the progress is written to.

    Yields:
        A function to call with each `Iteration`.
    """
    if not stream.isatty():
        yield _line_display(stream)
        return
    with _terminal_bar(stream, TextColumn("{task.fields[status]}"), TimeRemainingColumn()) as bar:
        task = bar.add_task("preparing the first iteration", total=None, status="")
        meter = _SpeedMeter()

        def show(step: Iteration) -> None:
            height, width = step.shape
            bar.update(
                task,
                total=1.0,
                completed=step.progress,
                description=f"{width} x {height} ({step.scale}/{step.scales})",
                status=f"loss {step.losses['total']:.4g}  {meter.update(step):.1f} it/s",
            )

        yield show


@contextlib.contextmanager
def frame_display(stream: TextIO) -> Iterator[Callable[[VideoStep], None]]:
    """Display the progress of a video: frames, time left and warping error.

    Args:
        stream: the stream that the progress is written to.

    Yields:
        A function to call with each `VideoStep`.
    """
    if not stream.isatty():
        last_line = -LINE_INTERVAL

        def show_line(step: VideoStep) -> None:
            nonlocal last_line
            if time.monotonic() - last_line >= LINE_INTERVAL or (step.frame_done and step.progress >= 1):
                last_line = time.monotonic()
                print(step.text, file=stream, flush=True)

        yield show_line
        return
    with _terminal_bar(stream) as bar:
        task = bar.add_task("preparing the first frame", total=None)
        yield lambda step: bar.update(task, total=1.0, completed=step.progress, description=step.text)


@contextlib.contextmanager
def count_display(stream: TextIO) -> Iterator[Callable[[str, int, int], None]]:
    """Display how many images are done: a bar on a terminal, otherwise a line after the last image.

    Yields:
        A function to call with a description of the work, the number of images done, and their total.
    """
    if not stream.isatty():

        def print_when_done(doing: str, done: int, total: int) -> None:
            if done == total:
                print(f"{doing}: {total} images", file=stream, flush=True)

        yield print_when_done
        return
    with _terminal_bar(stream, TextColumn("{task.fields[status]}")) as bar:
        task = bar.add_task("starting", total=None, status="")
        yield lambda doing, done, total: bar.update(
            task, description=doing, completed=done, total=total, status=f"{done}/{total} images"
        )


@contextlib.contextmanager
def experiment_display(stream: TextIO) -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """Display the progress of an experiment.

    A line is printed for each finished part. The iterations of a part are shown as a bar on a terminal, and
    otherwise as a line every `LINE_INTERVAL` seconds.

    Yields:
        A function to call with a line of text when a part is done, and a function to call with the number of
        iterations done and their total.
    """
    if not stream.isatty():
        last_line = time.monotonic()

        def show_line(done: int, total: int) -> None:
            nonlocal last_line
            if time.monotonic() - last_line >= LINE_INTERVAL:
                last_line = time.monotonic()
                print(f"iteration {done}/{total}", file=stream, flush=True)

        yield lambda line: print(line, file=stream, flush=True), show_line
        return
    with _terminal_bar(stream, TextColumn("{task.fields[status]}")) as bar:
        task = bar.add_task("preparing", total=None, status="")

        def show(done: int, total: int) -> None:
            ended = done >= total
            bar.update(
                task,
                description="measuring" if ended else "optimising",
                completed=done,
                total=None if ended else total,
                status="" if ended else f"{done}/{total} iterations",
            )

        yield lambda line: bar.console.print(line, markup=False, highlight=False), show


def _line_display(stream: TextIO) -> Show:
    meter, last_line = _SpeedMeter(), time.monotonic()

    def show(step: Iteration) -> None:
        nonlocal last_line
        height, width = step.shape
        speed = meter.update(step)
        if time.monotonic() - last_line < LINE_INTERVAL and step.iteration < step.iterations:
            return
        last_line = time.monotonic()
        print(
            f"scale {step.scale}/{step.scales} ({width} x {height})  iteration {step.iteration}/"
            f"{step.iterations}  loss {step.losses['total']:.4g}  {speed:.1f} it/s  "
            f"{step.time_left}",
            file=stream,
            flush=True,
        )

    return show


class _SpeedMeter:
    """The number of iterations per second, averaged over the current scale."""

    def __init__(self) -> None:
        self._scale, self._first_iteration, self._start = 0, 0, 0.0

    def update(self, step: Iteration) -> float:
        if step.scale != self._scale:
            self._scale, self._start, self._first_iteration = step.scale, step.seconds, step.iteration
            return 0.0
        elapsed = step.seconds - self._start
        return (step.iteration - self._first_iteration) / elapsed if elapsed > 0 else 0.0

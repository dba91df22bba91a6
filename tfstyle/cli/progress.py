"""Progress displays: a bar on a terminal, and otherwise a line from time to time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tfstyle.run.results import Iteration
from tfstyle.run.setup import Scale

LINE_INTERVAL = 10.0  # seconds between two lines if the stream is not a terminal
Show = Callable[[Iteration], None]


@contextlib.contextmanager
def progress_display(scales: Sequence[Scale], stream: TextIO) -> Iterator[Show]:
    """Display the progress of a run.

    Args:
        scales: the scales of the run. The amount of work is counted in pixels times iterations.
        stream: the stream that the progress is written to.

    Yields:
        A function to call with each `Iteration`.
    """
    scale_work = [scale.iterations * scale.shape[0] * scale.shape[1] for scale in scales]
    total_work = sum(scale_work)

    def work_done(step: Iteration) -> float:  # a resumed run starts in the middle
        current = scale_work[step.scale - 1] * step.iteration / step.iterations
        return sum(scale_work[: step.scale - 1]) + current

    if not stream.isatty():
        yield _line_display(total_work, work_done, stream)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.4g}  {task.fields[speed]:.1f} it/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("starting", total=total_work, loss=float("nan"), speed=0.0)
        meter = _SpeedMeter()

        def show(step: Iteration) -> None:
            height, width = step.shape
            bar.update(
                task,
                completed=work_done(step),
                description=f"{width} x {height} ({step.scale}/{step.scales})",
                loss=step.losses["total"],
                speed=meter.update(step),
            )

        yield show


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
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} images"),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda doing, done, total: bar.update(task, description=doing, completed=done, total=total)


def _line_display(total_work: int, work_done: Callable[[Iteration], float], stream: TextIO) -> Show:
    meter, last_line = _SpeedMeter(), time.monotonic()

    def show(step: Iteration) -> None:
        nonlocal last_line
        height, width = step.shape
        speed = meter.update(step)
        if time.monotonic() - last_line < LINE_INTERVAL and step.iteration < step.iterations:
            return
        last_line = time.monotonic()
        remaining = step.seconds * (total_work / work_done(step) - 1)
        print(
            f"scale {step.scale}/{step.scales} ({width} x {height})  iteration {step.iteration}/"
            f"{step.iterations}  loss {step.losses['total']:.4g}  {speed:.1f} it/s  {remaining:.0f} s left",
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

"""A thread that watches a run: progress, images that take too long, and the connection to Ray."""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from tfstyle.cluster.coordinator import Attempt, Progress, Worker
from tfstyle.cluster.session import reaches

log = logging.getLogger(__name__)

WATCH_SECONDS = 2.0
#: Without a limit from the user, an image may take this many times the median of those that are finished,
#: and at least `LEAST_LIMIT` seconds. Before the first one is finished, it may take `FIRST_LIMIT` seconds,
#: because XLA compiles for minutes.
MEDIANS, LEAST_LIMIT, FIRST_LIMIT = 20, 600.0, 3600.0
#: Time in seconds without a connection to the head node after which the run ends.
LOST_SECONDS = 20.0


class Watcher:
    """Watches a run in a thread, as a context manager.

    Args:
        coordinator: handle of the `tfstyle.cluster.coordinator.Coordinator`.
        time_limit: time limit of an image in seconds; None for one that depends on the finished images.
        show: called with the progress every `WATCH_SECONDS`.

    Attributes:
        lost: whether the head node could not be reached for `LOST_SECONDS`. The main thread is then
            interrupted.
    """

    def __init__(
        self, coordinator: Any, *, time_limit: float | None, show: Callable[[Progress], None]
    ) -> None:
        self.lost = False
        self._coordinator, self._time_limit, self._show = coordinator, time_limit, show
        self._ended = threading.Event()
        self._ended_attempts: set[Attempt] = set()
        self._thread = threading.Thread(target=self._watch, name="tfstyle-watcher", daemon=True)
        self._head = ray.get_runtime_context().gcs_address

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join(timeout=2 * WATCH_SECONDS)
        if error[0] is None:  # for the last line
            with contextlib.suppress(ray.exceptions.RayError):
                self._show(ray.get(self._coordinator.progress.remote(), timeout=WATCH_SECONDS))

    def _watch(self) -> None:
        reached = time.monotonic()
        while not self._ended.wait(WATCH_SECONDS):
            if reaches(self._head):
                reached = time.monotonic()
            elif time.monotonic() - reached > LOST_SECONDS:
                self.lost = True
                interrupt_main_thread()  # which waits for a result
                return
            with contextlib.suppress(ray.exceptions.RayError):
                progress = ray.get(self._coordinator.progress.remote(), timeout=WATCH_SECONDS)
                self._show(progress)
                self._end_overdue(progress)

    def _end_overdue(self, progress: Progress) -> None:
        """End the processes that have worked on an image for too long, so that another one makes it."""
        limit = self._time_limit
        if limit is None:
            limit = FIRST_LIMIT
            if progress.durations:
                limit = max(LEAST_LIMIT, MEDIANS * statistics.median(progress.durations))
        for name, attempt in progress.current.items():
            if time.time() - attempt.started > limit and attempt not in self._ended_attempts:
                self._ended_attempts.add(attempt)
                log.warning(
                    "%s has taken more than %.0f s (attempt %d); its process is ended and another one tries",
                    name, limit, attempt.number,
                )  # fmt: skip
                end_process(attempt.worker)


def interrupt_main_thread() -> None:
    """Interrupt the main thread, as Ctrl-C does."""
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGINT)
    else:  # on Windows `os.kill` would end the process, and no handler would run
        _thread.interrupt_main()


def end_process(worker: Worker) -> None:
    """Kill the process of a worker. Ray starts a new one and repeats what it did.

    Args:
        worker: the process.
    """
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(worker.node, soft=False)
    kill = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(_kill)
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(kill.remote(worker.process), timeout=60)


def _kill(process: int) -> None:
    with contextlib.suppress(OSError):  # it has ended
        if is_worker(process):
            os.kill(process, getattr(signal, "SIGKILL", signal.SIGTERM))


def is_worker(process: int) -> bool:
    """Return whether a process is an actor of Ray; True on systems without ``/proc``.

    Args:
        process: identifier of the process, which may have been given to another program.

    Raises:
        OSError: there is no such process.
    """
    proc = Path("/proc")
    return not proc.is_dir() or (proc / str(process) / "cmdline").read_bytes().startswith(b"ray::")

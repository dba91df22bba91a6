"""The actor that knows what the workers of a run do: attempts, progress, and summaries of shared styles."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any, NamedTuple

import ray

#: Time in seconds after which another worker may compute a value that was promised by one that may have died.
PROMISE_SECONDS = 60.0


class Worker(NamedTuple):
    """A process that makes images.

    Attributes:
        node: Ray's identifier of the node.
        process: identifier of the process on that node.
    """

    node: str
    process: int


class Attempt(NamedTuple):
    """An image that is being made.

    Attributes:
        worker: the process that makes it.
        number: 1 for the first attempt. Another one follows only if the process of an attempt ended.
        started: time at which the attempt began, in seconds since 1970.
    """

    worker: Worker
    number: int
    started: float


class Progress(NamedTuple):
    """The state of a run.

    Attributes:
        done: number of results, with those that an earlier attempt had written.
        errors: number of images without a result.
        durations: durations of the attempts that ended, in seconds.
        current: name of a result -> the attempt to make it.
    """

    done: int
    errors: int
    durations: list[float]
    current: dict[str, Attempt]


class Coordinator:
    """Counts the attempts and results of a run, and shares values between its workers.

    It runs as an actor of Ray, see `start_coordinator`. If its node is lost, it starts again and counts from
    zero: results are recognised by their files, so that none is made twice.
    """

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}
        self._current: dict[str, Attempt] = {}
        self._ended: dict[str, bool] = {}
        self._durations: list[float] = []
        self._values: dict[Hashable, Any] = {}
        self._promises: dict[Hashable, float] = {}

    def begin(self, name: str, worker: Worker) -> tuple[int, bool]:
        """Record the beginning of an attempt.

        Args:
            name: name of the result.
            worker: the process.

        Returns:
            The number of the attempt, from 1, and whether this run has made the result before.
        """
        self._attempts[name] = self._attempts.get(name, 0) + 1
        for other, attempt in list(self._current.items()):
            if attempt.worker == worker:  # it makes one image at a time
                del self._current[other]
        self._current[name] = Attempt(worker, self._attempts[name], time.time())
        return self._attempts[name], self._ended.get(name, False)

    def end(self, name: str, *, made: bool) -> None:
        """Record the end of an attempt.

        Args:
            name: name of the result.
            made: whether there is a result; otherwise an error.
        """
        attempt = self._current.pop(name, None)
        if attempt is not None and name not in self._ended:
            self._durations.append(time.time() - attempt.started)
        self._ended[name] = made
        self._attempts[name] = 0

    def progress(self) -> Progress:
        """Return the state of the run."""
        done = sum(self._ended.values())
        return Progress(done, len(self._ended) - done, self._durations[-1000:], dict(self._current))

    def claim(self, key: Hashable) -> tuple[str, list[Any]]:
        """Ask for a shared value.

        Args:
            key: key of the value.

        Returns:
            ``ready`` and the reference to the value in a list; ``compute`` if the caller must compute the
            value and `share` it; or ``wait`` if another worker computes it.
        """
        if key in self._values:
            return "ready", [self._values[key]]
        if time.time() - self._promises.get(key, 0.0) < PROMISE_SECONDS:
            return "wait", []
        self._promises[key] = time.time()
        return "compute", []

    def share(self, key: Hashable, value: Any) -> None:
        """Store a value, of which each node then gets one copy.

        Args:
            key: key of the value.
            value: the value.
        """
        if key not in self._values:
            self._values[key] = ray.put(value)


def start_coordinator() -> Any:
    """Return the handle of a new coordinator on the node of the caller. It ends with the caller."""
    here = ray.get_runtime_context().get_node_id()
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=strategy)
    return actor(Coordinator).remote()

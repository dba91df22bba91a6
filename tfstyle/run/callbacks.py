"""The protocol of callbacks: functions that a run calls after each iteration."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from tfstyle.errors import ConfigError
from tfstyle.run.results import Iteration

log = logging.getLogger(__name__)

#: A function that is called after each iteration. If it returns True, the run ends.
Callback = Callable[[Iteration], "bool | None"]
Step = TypeVar("Step")


@contextlib.contextmanager
def calling(
    callbacks: Callable[[Step], bool | None] | Sequence[Callable[[Step], bool | None]] | None,
) -> Iterator[Callable[[Step], bool]]:
    """Call callbacks during a run, and close them when the run ends, even after an error.

    At the end of the block, the method ``close`` of each callback that has one is called. If it fails, for
    example because the disk is full, a warning is logged, so that the result of the run is not lost.

    Args:
        callbacks: a callback, a sequence of callbacks, or None.

    Yields:
        A function that calls all callbacks with an iteration, or with a step of a video, and returns whether
        one of them returned True.

    Raises:
        ConfigError: one of them cannot be called.
    """
    if callbacks is None:
        callbacks = ()
    functions = tuple(callbacks) if isinstance(callbacks, (list, tuple)) else (callbacks,)
    for function in functions:
        if not callable(function):
            raise ConfigError(
                f"callback is a {type(function).__name__}; give a function that takes an Iteration, or a "
                "list of such functions"
            )

    def call(step: Step) -> bool:
        answers = [function(step) for function in functions]
        return any(isinstance(answer, (bool, np.bool_)) and bool(answer) for answer in answers)

    try:
        yield call
    finally:
        for function in functions:
            close = getattr(function, "close", None)
            if callable(close):
                try:
                    close()
                except Exception as error:  # whatever it is, the result of the run must not be lost
                    log.warning("%s could not be closed: %s", type(function).__name__, error)

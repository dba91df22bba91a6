"""The estimate of the time that a run still takes."""

from __future__ import annotations

import math


class Pace:
    """The speed of a run, from the calls of its step so far.

    The work of an iteration is counted as its pixels. The first call of a scale also includes the encoding of
    the images and, if necessary, the compilation of the step. The additional time that the latest first call
    took is expected once more for each later scale.
    """

    def __init__(self) -> None:
        self._seconds = self._work = 0.0  # of all calls but the first ones
        self._first = (0.0, 0.0)  # seconds and work of the first call of the latest scale

    def record(self, seconds: float, *, work: float, first: bool) -> None:
        """Record a call of the step.

        Args:
            seconds: duration of the call in seconds. For the first call of a scale, it is the time since the
                scale began.
            work: its work.
            first: whether it is the first call of a scale.
        """
        if first:
            self._first = seconds, work
        else:
            self._seconds, self._work = self._seconds + seconds, self._work + work

    def seconds_left(self, *, work: float, scales: int) -> float:
        """Return the expected remaining time in seconds; infinite until one scale has had a second call.

        Args:
            work: work that is left.
            scales: number of later scales.
        """
        if work == 0:
            return 0.0
        if self._work == 0:  # compilation and speed cannot be told apart
            return math.inf
        speed = self._seconds / self._work
        seconds, work_of_first = self._first
        return speed * work + scales * max(seconds - speed * work_of_first, 0.0)

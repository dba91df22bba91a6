"""Plan the quality and the numbers of iterations of a run that should take a given time."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Callable, Mapping, Sequence

from tfstyle.errors import ConfigError
from tfstyle.run.setup import Scale

#: Minimum number of iterations at each scale, unless the quality has fewer.
MINIMUM_ITERATIONS = 10
#: Number of calls of the step, after the first one, that are measured before a scale is planned.
MEASURED_CALLS = 3
#: Fraction of the time that is planned. The rest is left for finishing and writing the image.
PLANNED_FRACTION = 0.97
#: Additional time of the targets and the first call of the step at a scale, without tracing, in iterations of
#: that scale.
FIRST_CALL_STEPS = 2


def predict_seconds(
    scales: Sequence[Scale], *, seconds_per_pixel: float, preparation: float, done: int = 0
) -> float:
    """Return the predicted time of the rest of a run in seconds.

    The time of an iteration is proportional to the number of pixels. Each scale after the current one takes
    the time of its iterations, of `FIRST_CALL_STEPS` more iterations, and of the preparation.

    Args:
        scales: the current scale and those after it.
        seconds_per_pixel: time of an iteration divided by the number of pixels.
        preparation: time in seconds for tracing the step of a scale.
        done: number of iterations that are done at the current scale.
    """
    costs = [seconds_per_pixel * math.prod(scale.shape) for scale in scales]
    iterations = sum(cost * scale.iterations for cost, scale in zip(costs, scales, strict=True))
    later = sum(preparation + FIRST_CALL_STEPS * cost for cost in costs[1:])
    return iterations - done * costs[0] + later


def fewest_iterations(iterations: int, multiple: int = 1) -> int:
    """Return the minimum number of iterations at one scale of a planned run.

    Args:
        iterations: the number of iterations of the scale before planning.
        multiple: number of iterations in a call of the step. The minimum is a multiple of it.

    Example:
        >>> from tfstyle.run.planning import fewest_iterations
        >>> fewest_iterations(24), fewest_iterations(7), fewest_iterations(24, 8)
        (10, 7, 16)
    """
    return math.ceil(min(MINIMUM_ITERATIONS, iterations) / multiple) * multiple


def plan_iterations(
    scales: Sequence[Scale],
    *,
    seconds: float,
    seconds_per_pixel: float,
    preparation: float,
    done: int = 0,
    multiple: int = 1,
) -> list[Scale]:
    """Return the scales with as many iterations as fit into a given time.

    All numbers of iterations are multiplied by the same factor, but none is reduced below
    `MINIMUM_ITERATIONS`. A number that is already smaller is not reduced. If the time is too short even for
    these minimum numbers, they are returned.

    Args:
        scales: the current scale and those after it, with the iterations whose proportions are kept.
        seconds: the time that is left.
        seconds_per_pixel, preparation, done: as for `predict_seconds`.
        multiple: the numbers of iterations are rounded down to multiples of it.

    Example:
        >>> from tfstyle.run import Scale
        >>> from tfstyle.run.planning import plan_iterations
        >>> scales = [Scale(1, (10, 10), 0.5, 100), Scale(2, (20, 20), 1.0, 100)]
        >>> planned = plan_iterations(scales, seconds=83, seconds_per_pixel=0.001, preparation=2.2)
        >>> [scale.iterations for scale in planned]  # 160 x 0.1 s + 160 x 0.4 s + 2.2 s + 2 x 0.4 s = 83 s
        [160, 160]
    """
    lowest = [fewest_iterations(scale.iterations, multiple) for scale in scales]
    lowest[0] = max(lowest[0], math.ceil(done / multiple) * multiple)

    def planned(factor: float) -> list[Scale]:
        counts = [
            max(low, math.floor(factor * scale.iterations / multiple + 1e-9) * multiple)
            for low, scale in zip(lowest, scales, strict=True)
        ]
        return [scale._replace(iterations=count) for scale, count in zip(scales, counts, strict=True)]

    def fits(factor: float) -> bool:
        predicted = predict_seconds(
            planned(factor), seconds_per_pixel=seconds_per_pixel, preparation=preparation, done=done
        )
        return predicted <= seconds + 1e-9

    low, high = 0.0, 1.0
    while fits(high) and high < 1e6:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return planned(low)


def choose_quality(
    plans: Mapping[str, Sequence[Scale]],
    *,
    seconds: float,
    seconds_per_pixel: float,
    preparation: float,
    multiple: int = 1,
) -> str:
    """Return the quality whose predicted time is closest to a given time.

    Times are compared by their ratio, and each quality has its own numbers of iterations. A quality that does
    not fit into the time even with its minimum numbers of iterations is chosen only if no quality fits.

    Args:
        plans: quality -> its scales with its iterations.
        seconds, seconds_per_pixel, preparation, multiple: as for `plan_iterations`.
    """

    def predicted(scales: Sequence[Scale]) -> float:
        return predict_seconds(scales, seconds_per_pixel=seconds_per_pixel, preparation=preparation)

    def rank(quality: str) -> tuple[bool, float]:
        fewest = plan_iterations(
            plans[quality], seconds=0, seconds_per_pixel=seconds_per_pixel, preparation=preparation,
            multiple=multiple,
        )  # fmt: skip
        distance = abs(math.log(predicted(plans[quality]) / max(seconds, 1e-3)))
        return predicted(fewest) > seconds, distance

    return min(plans, key=rank)


class Timetable:
    """The plan of a run that should end at a given time, computed from the measured durations of its steps.

    At each scale the plan is made after the first call of the step and `MEASURED_CALLS` further ones, and
    again whenever the number of measured calls has doubled. If an earlier run was measured with the same
    timetable, `begin` also makes a plan.

    Args:
        seconds: the time that the whole run may take, including its preparation.
        started: the time on the clock at which the run began.
        clock: function that returns the time in seconds.

    Attributes:
        seconds: the time that the whole run may take.
        seconds_per_pixel: time of an iteration divided by the number of pixels, at the last measured scale; 0
            before the first measurement.
        preparation: seconds that tracing the step takes at a scale: the time from the start of the scale to
            the end of the first call, less the time of the iterations of this call and of `FIRST_CALL_STEPS`
            more.

    Raises:
        ConfigError: `seconds` is not a positive number.
    """

    def __init__(
        self, seconds: float, *, started: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        is_number = isinstance(seconds, numbers.Real) and not isinstance(seconds, bool)
        if not is_number or not 0 < seconds < math.inf:
            raise ConfigError(f"seconds is {seconds!r}; it must be a finite number above 0")
        self.seconds = float(seconds)
        self.seconds_per_pixel, self.preparation = 0.0, 0.0
        self._started, self._clock = started, clock
        self._own: list[Scale] = []
        self._multiple = 1
        self._number = 0

    def seconds_left(self) -> float:
        """Return the time in seconds that is left for iterations."""
        return self._started + PLANNED_FRACTION * self.seconds - self._clock()

    def begin(self, scales: Sequence[Scale], *, multiple: int) -> list[Scale]:
        """Return the first plan of a run; before the first measurement, these are the given scales.

        Args:
            scales: all scales, with the numbers of iterations whose proportions are kept.
            multiple: number of iterations in a call of the step.
        """
        self._own, self._multiple = list(scales), multiple
        self._number, self._last = 0, self._clock()
        return self._plan(1, 0) if self.seconds_per_pixel else list(scales)

    def after_call(self, number: int, done: int) -> list[Scale] | None:
        """Record a call of the step, and return a new plan if one is made.

        Args:
            number: number of the current scale, from 1.
            done: number of iterations that were done at this scale.

        Returns:
            The current scale and those after it, or None if the plan does not change.
        """
        now = self._clock()
        elapsed, self._last = now - self._last, now
        if number != self._number:
            self._number, self._next_plan = number, MEASURED_CALLS
            self._first_call, self._first_done = elapsed, done
            self._calls, self._elapsed = 0, 0.0
            return None
        self._calls, self._elapsed = self._calls + 1, self._elapsed + elapsed
        if self._calls < self._next_plan:
            return None
        self._next_plan = 2 * self._calls
        step = self._elapsed / (done - self._first_done)
        if number > 1 or self.seconds_per_pixel == 0:  # the probe has traced the first scale
            self.preparation = max(self._first_call - (self._first_done + FIRST_CALL_STEPS) * step, 0.0)
        self.seconds_per_pixel = step / math.prod(self._own[number - 1].shape)
        return self._plan(number, done)

    def expected_seconds(self, scales: Sequence[Scale], *, done: int) -> float:
        """Return the expected time of the whole run in seconds.

        Args:
            scales: the current scale and those after it, as they are planned.
            done: number of iterations that were done at the current scale.
        """
        rest = predict_seconds(
            scales, seconds_per_pixel=self.seconds_per_pixel, preparation=self.preparation, done=done
        )
        return self._clock() - self._started + rest

    def _plan(self, number: int, done: int) -> list[Scale]:
        return plan_iterations(
            self._own[number - 1 :],
            seconds=self.seconds_left(),
            seconds_per_pixel=self.seconds_per_pixel,
            preparation=self.preparation,
            done=done,
            multiple=self._multiple,
        )

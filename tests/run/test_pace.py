"""The estimate of the remaining time, for runs with a constant speed."""

import math

import pytest

from tfstyle.run.pace import Pace

SECONDS_PER_PIXEL, SECONDS_OF_COMPILATION = 0.001, 7.0
#: Pixels and iterations of the scales.
SCALES = [(100, 5), (400, 3), (900, 4)]


@pytest.mark.parametrize("compilation", [0.0, SECONDS_OF_COMPILATION])
def test_the_estimate_is_exact_from_the_second_call_on(compilation):
    durations = [
        (pixels, SECONDS_PER_PIXEL * pixels + (compilation if number == 0 else 0), scale, number == 0)
        for scale, (pixels, iterations) in enumerate(SCALES)
        for number in range(iterations)
    ]
    pace = Pace()
    for done, (pixels, seconds, scale, first) in enumerate(durations):
        pace.record(seconds, work=pixels, first=first)
        later = durations[done + 1 :]
        expected = sum(seconds for _, seconds, _, _ in later)
        estimate = pace.seconds_left(work=sum(pixels for pixels, *_ in later), scales=len(SCALES) - 1 - scale)
        if done == 0:
            assert estimate == math.inf  # compilation and speed cannot be told apart yet
        else:
            assert estimate == pytest.approx(expected)
    assert estimate == 0


def test_a_run_with_a_single_iteration_has_nothing_left():
    pace = Pace()
    pace.record(SECONDS_OF_COMPILATION, work=100, first=True)
    assert pace.seconds_left(work=0, scales=0) == 0

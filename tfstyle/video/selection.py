"""The frames of a clip, and the selection of those that are used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from tfstyle.errors import ConfigError
from tfstyle.video.options import is_number, is_whole


class Frame(NamedTuple):
    """A frame of a clip.

    Attributes:
        image: float32 ``[height, width, 3]``, sRGB in 0..1, upright, with square pixels.
        time: time at which it is shown, in seconds from the beginning of the clip's own clock.
        number: number of the frame among those that are used, from 1.
    """

    image: np.ndarray
    time: Fraction
    number: int


def exact(value: float) -> Fraction:
    """Return a number of seconds or frames per second as a fraction, such as 30000/1001 for 29.97003."""
    return Fraction(value).limit_denominator(10_000)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which frames of a clip are used.

    Args:
        start: time of the first frame in seconds from the beginning of the clip, or None for the beginning.
        end: time in seconds before which the last frame begins, or None for the end.
        every: number N, at least 1; the first of every N successive frames is used.
        fps: largest number of frames per second, or None for all frames. For a series of images it is the
            number of images per second.

    Raises:
        ConfigError: a value is out of its range.
    """

    start: float | None = None
    end: float | None = None
    every: int = 1
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.start is not None and not (is_number(self.start) and 0 <= self.start < math.inf):
            raise ConfigError(f"start is {self.start!r}; give a time in seconds, at least 0")
        after = self.start or 0.0
        if self.end is not None and not (is_number(self.end) and after < self.end < math.inf):
            raise ConfigError(f"end is {self.end!r}; give a time in seconds after the start, {after:g}")
        if not is_whole(self.every) or self.every < 1:
            raise ConfigError(f"every is {self.every!r}; give a whole number of at least 1")
        if self.fps is not None and not (is_number(self.fps) and 0.01 <= self.fps <= 1000):
            raise ConfigError(f"fps is {self.fps!r}; give a number of frames per second from 0.01 to 1000")

    def choose(self, times: Iterable[Fraction]) -> Iterator[bool | None]:
        """Yield for each frame whether it is used, and None for the first frame at or after the end.

        Args:
            times: the times of the frames in seconds from the beginning of the clip, in order.
        """
        start, end = exact(self.start or 0), None if self.end is None else exact(self.end)
        count, next_tick = 0, start
        for time in times:
            if end is not None and time >= end:
                yield None
                return
            if time < start:
                yield False
                continue
            is_due = count % self.every == 0
            count += 1
            if is_due and self.fps is not None:
                rate = exact(self.fps)
                # Many files round their times, WebM to milliseconds. A frame may be early by a tenth of the
                # interval, so that a clip of 30 frames per second keeps all of them with fps=30.
                early = 1 / (10 * rate)
                is_due = time + early >= next_tick
                if is_due:
                    next_tick = start + ((time + early - start) * rate // 1 + 1) / rate
            yield is_due

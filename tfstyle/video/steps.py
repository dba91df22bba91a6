"""What a video run reports: each iteration while it runs, and a record of each frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from tfstyle.run import Iteration

ESTIMATING = "estimating the time left"


@dataclass(frozen=True, kw_only=True)
class FrameRecord:
    """What is known about a finished frame.

    Attributes:
        frame: number of the frame, from 1.
        pass_number: number of the pass, from 1.
        begins_shot: whether the frame is the first one of a shot.
        iterations: number of iterations.
        loss: the total loss at the last iteration.
        warping_error: mean absolute difference from the warped result of the frame before, in levels of 255,
            where the clip shows the same points; None for the first frame of a shot and without flow.
        seconds: wall time.
    """

    frame: int
    pass_number: int
    begins_shot: bool
    iterations: int
    loss: float
    warping_error: float | None
    seconds: float


@dataclass(frozen=True, eq=False)
class VideoStep:
    """One iteration of a frame of a video.

    Attributes:
        frame: number of the current frame, from 1.
        frames: number of frames; a damaged clip may have fewer.
        pass_number: number of the pass, from 1.
        passes: number of passes.
        iteration: the iteration of the frame.
        frame_done: whether the frame is finished. The last iteration of a frame is reported twice, the second
            time with True.
        progress: part of the frames of all passes that is done, in 0..1.
        seconds: wall time since the video began in seconds.
        seconds_left: expected remaining time in seconds. It is infinite until a frame after the first one of
            a shot is done.
        warping_error: mean warping error of the frames so far, in levels of 255; None if it is not known.
    """

    frame: int
    frames: int
    _: KW_ONLY
    pass_number: int
    passes: int
    iteration: Iteration
    frame_done: bool
    progress: float
    seconds: float
    seconds_left: float
    warping_error: float | None
    _stop: Callable[[], None] = field(repr=False)

    @property
    def image(self) -> np.ndarray:
        """The image of the frame after this iteration, float32 ``[height, width, 3]`` in 0..1."""
        return self.iteration.image

    @property
    def text(self) -> str:
        """One line with the frame, the time left and the warping error."""
        parts = [] if self.passes == 1 else [f"pass {self.pass_number} of {self.passes}"]
        parts.append(f"frame {self.frame} of {self.frames}")
        if self.frame_done:
            parts[-1] += " done"
        else:
            parts.append(f"iteration {self.iteration.global_iteration} of {self.iteration.total_iterations}")
        known = not math.isinf(self.seconds_left)
        parts.append(f"{_duration(self.seconds_left)} left" if known else ESTIMATING)
        if self.warping_error is not None:
            parts.append(f"warping error {self.warping_error:.1f}")
        return ", ".join(parts)

    @property
    def summary(self) -> str:
        """One line with the number of the last frame, the time so far and the warping error."""
        error = "" if self.warping_error is None else f", warping error {self.warping_error:.1f}"
        return f"frame {self.frame} of {self.frames} in {_duration(self.seconds)}{error}"

    def stop(self) -> None:
        """End the video after this iteration. The frame is left out unless it is done."""
        self._stop()


def _duration(seconds: float) -> str:
    """Return a time as text, such as ``45 s``, ``12 min`` or ``3 h 5 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"

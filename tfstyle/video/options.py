"""The options of a video in addition to those of an image."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

from tfstyle.errors import ConfigError

#: Weight of the temporal loss, and for each quality the iterations of the frames after the first one of a
#: shot. docs/video.md has the measurements.
TEMPORAL_WEIGHT = 20.0
FRAME_ITERATIONS = {"draft": 7, "standard": 16, "high": 40}
FAST_ITERATIONS = {"draft": 4, "standard": 10, "high": 20}
#: With `VideoOptions.fast`, the iterations of a frame end when its loss has fallen by less than this part
#: within this number of iterations.
FAST_TOLERANCE, FAST_WINDOW = 0.02, 3
FLOWS = ("dis", "off")


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """How the frames of a video depend on each other.

    Args:
        temporal_weight: weight of the temporal loss, at least 0. The unit is the style loss of an image
            without any features, so that the weight has the same meaning with every preset.
        frame_iterations: largest number of iterations of a frame that is not the first one of its shot; by
            default 16, or 7 with quality ``draft`` and 40 with ``high``, and about half of it with `fast`.
        memory_frames: how many frames back the frames lie with whose warped results a frame is compared, in
            ascending order, beginning with 1.
        passes: number of times that all frames are stylised, alternately forwards and backwards. From the
            second pass on, a frame starts from its own result of the pass before, mixed with the warped
            result of its neighbour.
        fast: whether to save time: each frame after the first one of a shot has fewer iterations, which end
            as soon as its loss hardly falls.
        flow: ``dis``, the optical flow by OpenCV, or ``off``: each frame is then compared with the result of
            the frame before plus the difference between the two frames of the clip. This saves the time of
            the flow, but the strokes do not move with what they show.

    Raises:
        ConfigError: a value is out of its range.
    """

    temporal_weight: float = TEMPORAL_WEIGHT
    frame_iterations: int | None = None
    memory_frames: tuple[int, ...] = (1, 10)
    passes: int = 1
    fast: bool = False
    flow: str = "dis"

    def __post_init__(self) -> None:
        weight = self.temporal_weight
        if not is_number(weight) or not 0 <= weight < math.inf:
            raise ConfigError(f"temporal_weight is {weight!r}; give a number of at least 0")
        for name, least in (("frame_iterations", 1), ("passes", 1)):
            value = getattr(self, name)
            if value is not None and (not is_whole(value) or value < least):
                raise ConfigError(f"{name} is {value!r}; give a whole number of at least {least}")
        frames = self.memory_frames
        usable = isinstance(frames, (tuple, list)) and len(frames) > 0 and all(map(is_whole, frames))
        if not usable or list(frames) != sorted(set(frames)) or frames[0] != 1 or frames[-1] > 100:
            raise ConfigError(
                f"memory_frames is {frames!r}; give whole numbers in ascending order that begin with 1 and "
                "are at most 100, such as (1, 10)"
            )
        object.__setattr__(self, "memory_frames", tuple(frames))
        if self.flow not in FLOWS:
            raise ConfigError(f"flow is {self.flow!r}; it can be {' or '.join(FLOWS)}")

    @property
    def uses_flow(self) -> bool:
        """Whether the optical flow is computed."""
        return self.flow == "dis"

    @property
    def memory(self) -> tuple[int, ...]:
        """How many frames back the frames lie with whose results a frame is compared; (1,) without flow."""
        return self.memory_frames if self.uses_flow else (1,)

    def iterations(self, quality: str) -> int:
        """Return the largest number of iterations of a frame that is not the first one of its shot.

        Args:
            quality: a value of `tfstyle.StyleConfig.quality`.
        """
        return self.frame_iterations or (FAST_ITERATIONS if self.fast else FRAME_ITERATIONS)[quality]


def is_number(value: object) -> bool:
    """Return whether a value is a real number and not a truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Return whether a value is a whole number and not a truth value."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)

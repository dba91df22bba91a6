"""The motion between the frames of a clip: flows to earlier frames, their weights, and where shots begin."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from tfstyle.images import resize
from tfstyle.video.flow import consistency_weights, estimate_flow, grey_frame
from tfstyle.video.selection import Frame

Item = TypeVar("Item")

#: A frame begins a new shot if less than this part of its pixels can be found in the frame before.
#: In measurements the part was at most 0.1 at cuts between eight photographs and paintings, at least 0.3 with
#: Gaussian noise of 16 levels, and at least 0.6 with zooms by 1.2 and pans by 20 pixels per frame; see
#: docs/video.md.
CONSISTENT_PART = 0.15
#: Longest side in pixels to which frames are reduced to find shots if no other flow is computed.
SMALL_SIDE = 160
#: Number of frames whose flow is computed ahead.
AHEAD = 2


class Motion(NamedTuple):
    """The motion from a frame to the frames that were stylised before it.

    Attributes:
        begins_shot: whether the frame is the first one of a shot.
        flows: number of frames back -> flow from this frame to that one, float32 ``[height, width, 2]``.
        consistency: number of frames back -> weights of the pixels, float32 ``[height, width]`` in 0..1. The
            weights of a farther frame are reduced by those of the nearer ones, so that their sum is at most
            1.
    """

    begins_shot: bool
    flows: Mapping[int, np.ndarray]
    consistency: Mapping[int, np.ndarray]


def motions(
    frames: Iterable[Frame],
    *,
    memory: Sequence[int],
    use_flow: bool,
    begins_shot: Callable[[int], bool | None] = lambda number: None,
    skip: int = 0,
) -> Iterator[tuple[Frame, Motion]]:
    """Yield each frame with its motion.

    Args:
        frames: the frames in the order in which they are stylised.
        memory: how many frames back the frames lie to which flows are computed, in ascending order.
        use_flow: whether to compute flows. Otherwise shots are found in frames of reduced size.
        begins_shot: number of a frame -> whether it is the first one of a shot in this order, or None if this
            is not known.
        skip: number of frames at the beginning for which no flow is computed, because they are stylised
            already.

    Reference: Ruder, Dosovitskiy, Brox 2016, Artistic Style Transfer for Videos, sections 4.2 and 4.3.
    """
    recent: deque[np.ndarray] = deque(maxlen=max(memory))  # grey frames, the most recent one first
    in_shot = 0  # number of earlier frames of the same shot
    for index, frame in enumerate(frames):
        grey = grey_frame(frame.image)
        known = True if index == 0 else begins_shot(frame.number)
        begins = known is True
        flows: dict[int, np.ndarray] = {}
        consistency: dict[int, np.ndarray] = {}
        if not begins and index >= skip:
            if use_flow:
                back = [j for j in memory if j <= in_shot]
                for j in back:
                    flows[j], weights = _flow_back(grey, recent[j - 1])
                    if j == back[0] and known is None and weights.mean() < CONSISTENT_PART:
                        begins, flows, consistency = True, {}, {}
                        break
                    nearer = sum(consistency.values(), np.zeros_like(weights))
                    consistency[j] = np.maximum(0.0, weights - nearer)
            elif known is None:
                begins = _is_cut(recent[0], grey)
        in_shot = 1 if begins else in_shot + 1
        recent.appendleft(grey)
        yield frame, Motion(begins, flows, consistency)


def _flow_back(frame: np.ndarray, earlier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the flow from a grey frame to an earlier one, and the weights of its pixels."""
    backward = estimate_flow(frame, earlier)
    return backward, consistency_weights(backward, estimate_flow(earlier, frame))


def _is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Return whether the flow between two frames fails, measured in frames of reduced size."""
    height, width = after.shape
    factor = min(1.0, SMALL_SIDE / max(height, width))
    shape = max(1, round(height * factor)), max(1, round(width * factor))
    small = [
        np.round(resize(grey[..., None].astype(np.float32) / 255, shape)[..., 0] * 255).astype(np.uint8)
        for grey in (before, after)
    ]
    _, weights = _flow_back(small[1], small[0])
    return bool(weights.mean() < CONSISTENT_PART)


class Ahead(Iterator[Item], Generic[Item]):
    """An iterator that computes its next items in another thread.

    NumPy and OpenCV release Python's global interpreter lock, so that the flow of the next frames is computed
    while TensorFlow optimises the current one.

    Args:
        items: an iterator, which is used in the other thread only.
        count: number of items that are computed ahead.
    """

    _END = object()

    def __init__(self, items: Iterator[Item], *, count: int = AHEAD) -> None:
        self._items, self._queue = items, queue.Queue[Any](maxsize=count)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tfstyle-flow", daemon=True)
        self._thread.start()

    def __next__(self) -> Item:
        kind, value = self._queue.get()
        if kind is self._END:
            self._queue.put((kind, value))  # for a further call
            if value is not None:
                raise value
            raise StopIteration
        item: Item = value
        return item

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        while self._thread.is_alive():
            try:  # makes room in the queue if the thread waits for it
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                self._queue.put((None, item))
                if self._closed.is_set():
                    break
        except BaseException as raised:  # it is raised again in the thread that reads the items
            error = raised
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
        self._queue.put((self._END, error))

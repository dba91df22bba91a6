"""The run of a video: each frame is a style transfer that starts from the results before it."""

from __future__ import annotations

import bisect
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfstyle.config import StyleConfig
from tfstyle.images import ImageArray
from tfstyle.losses import ExtraLoss, Masks
from tfstyle.network import Encoder
from tfstyle.optim import Optimizer
from tfstyle.run import (
    Iteration,
    Run,
    TemporalReference,
    TransferInputs,
    TransferSetup,
    fitted_shape,
    measured_side,
    read_inputs,
)
from tfstyle.video.checkpoints import VideoCheckpoints, check_same_video, describe_video
from tfstyle.video.flow import leads_inside
from tfstyle.video.measures import warping_error
from tfstyle.video.motion import Ahead, Motion, motions
from tfstyle.video.options import FAST_TOLERANCE, FAST_WINDOW, VideoOptions
from tfstyle.video.reading import Clip
from tfstyle.video.selection import Frame
from tfstyle.video.steps import FrameRecord, VideoStep
from tfstyle.video.store import FrameStore, temporary_folder
from tfstyle.video.warping import warp

#: From the second pass on, the share of the neighbour's warped result in the image from which a frame starts.
NEIGHBOUR_PART = 0.5
#: Number of most recent frames from whose times the remaining time is estimated.
TIMED_FRAMES = 10
#: Pixels that come into view start from a place that is farther inside by up to this number of pixels, which
#: changes by a step from frame to frame.
INSETS, INSET_STEP = 17, 7
#: Number of iterations at the full size after which a pixel that has come into view has the full temporal
#: weight.
MATURE_ITERATIONS = 48
#: Number of a pass under which the frames of the clip are stored.
SOURCE = 0

_warp = tf.function(warp, autograph=False, reduce_retracing=True)


class VideoRun:
    """The style transfer of a clip, as an iterable of the iterations of its frames.

    It can be iterated over once.

    Args:
        clip: the clip.
        style, config, encoder, optimizer, masks, extra_losses: as for `tfstyle.stylize`. The masks are the
            same for all frames.
        options: how the frames depend on each other.
        on_frame: function that is called with each finished frame in the order of the clip: its result,
            float32 ``[height, width, 3]``, and the frame of the clip. With several passes it is called for
            all frames at the end.
        checkpoints: the folder from which the video can be resumed, or None.

    Attributes:
        clip, options: as given.
        config: the options, with the size of the frames.
        shape: height and width of the frames in pixels, both even.
        records: one record for each finished frame and pass.
        facts: the values that were chosen for ``auto``, as in `tfstyle.Result.facts`.

    Raises:
        InputError, RunError: as for `tfstyle.stylize`. While iterating, also if the checkpoints are those of
            another video.

    Reference: Ruder, Dosovitskiy, Brox 2016, Artistic Style Transfer for Videos, section 4.
    Differs from Ruder et al.: L-BFGS starts anew in each frame, which has a fixed number of iterations. The
    first frame of a shot goes from coarse to fine scales. Cuts are found where the flow fails.
    """

    def __init__(
        self,
        clip: Clip,
        style: Any,
        config: StyleConfig,
        *,
        options: VideoOptions,
        encoder: Encoder | None = None,
        optimizer: Optimizer | keras.optimizers.Optimizer | None = None,
        masks: Masks | Sequence[Any] | None = None,
        extra_losses: Mapping[str, ExtraLoss] | None = None,
        on_frame: Callable[[np.ndarray, Frame], None] = lambda image, frame: None,
        checkpoints: VideoCheckpoints | None = None,
    ) -> None:
        self.clip, self.options = clip, options
        self.shape = _even(fitted_shape(clip.shape, config))
        # The config gets the size that the frames already have, so that a run does not resize them.
        self.config = config.replace({"size": round(measured_side(self.shape, config))})
        # The values that the resumed video had chosen for ``auto``.
        self._pinned = self.config if checkpoints is None else checkpoints.pinned(self.config)
        self._style, self._masks = style, masks
        self._arguments: dict[str, Any] = {
            "encoder": encoder, "optimizer": optimizer, "extra_losses": extra_losses,
        }  # fmt: skip
        self._on_frame, self._checkpoints = on_frame, checkpoints
        self.facts: dict[str, Any] = {}
        state: Mapping[str, Any] = {} if checkpoints is None else checkpoints.state
        self.records = [] if checkpoints is None else list(checkpoints.records)
        self._errors = _Mean(
            record.warping_error for record in self.records if record.pass_number == state["pass"]
        )
        self._seconds = deque((r.seconds for r in self.records if not r.begins_shot), maxlen=TIMED_FRAMES)
        self._shots: list[int] = list(state.get("shots", ()))  # numbers of their first frames
        self._first_pass, self._stored = state.get("pass", 1), state.get("done", 0)
        self._pass = 1
        self._times: list[Fraction] = []  # of the frames, in seconds
        self._about: Mapping[str, Any] = {}
        self._setup: TransferSetup | None = None
        self._shot: tuple[int, TransferInputs] | None = None  # the last shot
        self._weight = 0.0
        self._before: tuple[Frame, np.ndarray] | None = None  # the last frame and its result
        self._done = 0
        self._stopped = False
        self._began = time.perf_counter()
        self._temporary = temporary_folder() if options.passes > 1 else None
        sources = None if self._temporary is None else Path(self._temporary.name)
        results = sources if checkpoints is None else checkpoints.folder
        self._sources = FrameStore(keep=1, folder=sources)
        self._results = FrameStore(keep=max(options.memory) + 1, folder=results)

    def __iter__(self) -> Generator[VideoStep, None, None]:
        try:
            for number in range(1, self.options.passes + 1):
                self._pass = number
                if self._pass == 1 or self._pass >= self._first_pass:
                    yield from self._run_pass()
                if self._stopped:
                    break
        finally:
            if self.options.passes > 1:
                self._deliver_all()
            self.close()

    def stop(self) -> None:
        """End the video after the current iteration. Its frame is left out unless it is finished."""
        self._stopped = True

    @property
    def frames(self) -> int:
        """The number of frames; until the clip has been read, the expected number."""
        return self.clip.count if self._pass == 1 else len(self._times)

    @property
    def warping_error(self) -> float | None:
        """The mean warping error of the current pass in levels of 255, or None if it is not known."""
        return self._errors.value

    def _run_pass(self) -> Iterator[VideoStep]:
        """Stylise the frames of a pass, except those that are done already if the video is resumed."""
        skip = self._stored if self._pass == self._first_pass else 0
        frames: Iterable[Frame]
        if self._pass == 1:
            frames = self.clip.frames(self.shape)
            skip = skip if self._first_pass == 1 else self.clip.count
            known = [number for number in self._shots if number <= skip]
            self._shots = known.copy()

            def begins_shot(number: int) -> bool | None:
                return number in known if number <= skip else None
        else:
            count, forwards = len(self._times), self._pass % 2 == 1
            numbers = range(1, count + 1) if forwards else range(count, 0, -1)
            frames = (Frame(self._sources.read((SOURCE, n)), self._times[n - 1], n) for n in numbers)

            def begins_shot(number: int) -> bool | None:
                return (number if forwards else number + 1) in self._shots

        self._done, self._before = 0, None
        if self._pass != self._first_pass:
            self._errors = _Mean()
        moving = motions(
            frames,
            memory=self.options.memory,
            use_flow=self.options.uses_flow,
            begins_shot=begins_shot,
            skip=skip,
        )
        ahead = Ahead(moving)
        try:
            for frame, motion in ahead:
                if self._pass == 1:
                    self._register(frame, motion)
                if self._pass < self._first_pass:
                    continue
                if self._done < skip:
                    self._conclude(frame, self._results.read((self._pass, frame.number)))
                else:
                    yield from self._run_frame(frame, motion)
                if self._stopped:
                    return
        finally:
            ahead.close()

    def _register(self, frame: Frame, motion: Motion) -> None:
        """Store what later passes need to know about a frame of the clip."""
        self._times.append(frame.time)
        if motion.begins_shot and frame.number not in self._shots:
            self._shots.append(frame.number)
        if self.options.passes > 1:
            self._sources.write((SOURCE, frame.number), frame.image)
        if self._setup is None:
            self._make_setup(frame)

    def _make_setup(self, frame: Frame) -> None:
        """Load the weights, and make the setup that all runs share, with the first frame of the clip."""
        inputs = self._shot_inputs(frame)
        run = Run(None, None, self._pinned, inputs=inputs, **self._arguments)
        self._setup, self.facts = run.setup, run.facts
        self._weight = self.options.temporal_weight * run.blank_style_loss()
        if self._checkpoints is not None:
            custom = self._arguments["encoder"] is not None
            self._about = describe_video(self.clip, self.options, run=run, custom_encoder=custom)
            check_same_video(self._checkpoints, self._about)
            self._checkpoints.begin()

    def _shot_inputs(self, frame: Frame) -> TransferInputs:
        """Return the inputs of the first frame of a frame's shot, to whose colours the styles are matched."""
        first = self._shots[bisect.bisect_right(self._shots, frame.number) - 1]
        if self._shot is None or self._shot[0] != first:
            is_first = frame.number == first
            image = ImageArray(frame.image if is_first else self._sources.read((SOURCE, first)))
            digests = self._setup is None and self._checkpoints is not None
            inputs = read_inputs(image, self._style, self.config, masks=self._masks, digests=digests)
            self._shot = first, inputs
        return self._shot[1]

    def _run_frame(self, frame: Frame, motion: Motion) -> Iterator[VideoStep]:
        """Stylise a frame and store its result."""
        started = time.perf_counter()
        run, maturity = self._make_run(frame, motion)
        last: Iteration | None = None
        for last in run:
            yield self._step(frame, last)
            if self._stopped:
                return
        assert last is not None
        maturity = np.minimum(1.0, maturity + len(run.history.total) / MATURE_ITERATIONS)
        stored = np.concatenate([run.iterate(), maturity[..., None]], axis=-1)
        stored = self._results.write((self._pass, frame.number), stored)
        before, image = self._before, self._conclude(frame, stored)
        error = None
        if before is not None and 1 in motion.flows:
            warped = self._warped(before[1], motion.flows[1])
            error = warping_error(image, warped, consistency=motion.consistency[1])
        record = FrameRecord(
            frame=frame.number,
            pass_number=self._pass,
            begins_shot=motion.begins_shot,
            iterations=len(run.history.total),
            loss=run.history.total[-1],
            warping_error=error,
            seconds=round(time.perf_counter() - started, 3),
        )
        self.records.append(record)
        self._errors.add(error)
        if not motion.begins_shot:
            self._seconds.append(record.seconds)
        self._store(record)
        if self._pass > 1:
            self._results.forget((self._pass - 1, frame.number))
        yield self._step(frame, last, frame_done=True)

    def _make_run(self, frame: Frame, motion: Motion) -> tuple[Run, np.ndarray]:
        """Return the run of a frame, with its start and its temporal loss, and the maturity of its pixels."""
        shot, image = self._shot_inputs(frame), ImageArray(frame.image)
        if motion.begins_shot and self._pass == 1:
            # A target of weight 0, so that the step is traced once for all frames.
            unused = TemporalReference(frame.image, np.zeros(self.shape, np.float32), weight=0.0)
            inputs = shot.for_frame(image, temporal=unused)
            run = Run(None, None, self._pinned, inputs=inputs, setup=self._setup, **self._arguments)
            return run, np.ones(self.shape, np.float32)
        start, temporal, maturity = self._reference(frame, motion)
        if self._pass > 1:
            own = self._results.read((self._pass - 1, frame.number))[..., :3]
            start = own + NEIGHBOUR_PART * temporal.consistency[..., None] * (start - own)
        inputs = shot.for_frame(image, start=start, temporal=temporal)
        changes: dict[str, Any] = {
            "scales": 1,
            "iterations": self.options.iterations(self.config.quality),
            "first_iterations": None,
            "iteration_decay": None,
        }
        window: dict[str, Any] = {}
        if self.options.fast:
            changes["tolerance"] = max(self.config.tolerance, FAST_TOLERANCE)
            window["window"] = FAST_WINDOW
        config = self._pinned.replace(changes)
        run = Run(None, None, config, inputs=inputs, setup=self._setup, **self._arguments, **window)
        return run, maturity

    def _reference(self, frame: Frame, motion: Motion) -> tuple[np.ndarray, TemporalReference, np.ndarray]:
        """Return the start of a frame, the target of its temporal loss, and the maturity of its pixels.

        The maturity is 1 for pixels that have had `MATURE_ITERATIONS` since they came into view. Until then
        the temporal loss has a lower weight, because it would otherwise hold them as they began.
        """
        everywhere = np.ones(self.shape, np.float32)
        if motion.begins_shot:
            nothing = np.zeros(self.shape, np.float32)
            return frame.image, TemporalReference(frame.image, nothing, weight=self._weight), everywhere
        if not motion.flows:  # without flow: the result before, changed as the clip changed
            assert self._before is not None
            before = self._before[0]
            result = self._results.read((self._pass, before.number))[..., :3]
            moved = np.clip(result + frame.image - before.image, 0, 1)
            return moved, TemporalReference(moved, everywhere, weight=self._weight), everywhere
        direction = 1 if self._pass % 2 == 1 else -1
        start, weights, maturity = frame.image, np.zeros(self.shape, np.float32), everywhere
        weighted = np.zeros_like(frame.image)
        for back, flow in motion.flows.items():
            stored = self._results.read((self._pass, frame.number - direction * back))
            stored = self._warped(stored, flow, INSET_STEP * frame.number % INSETS)
            warped, same = stored[..., :3], self._same_region(flow)
            mature = same * leads_inside(flow) * stored[..., 3]
            if back == 1:  # pixels that come from the region of another style start from the clip
                start = same[..., None] * warped + (1.0 - same[..., None]) * frame.image
                maturity = mature
            consistency = (motion.consistency[back] * mature**2)[..., None]
            weighted += consistency * warped
            weights += consistency[..., 0]
        # The sum of the weighted squared differences from several images equals the weighted squared
        # difference from their weighted mean, up to a constant.
        mean = weighted / np.maximum(weights, 1e-6)[..., None]
        reference = np.where(weights[..., None] > 0, mean, start)
        return start, TemporalReference(reference, weights, weight=self._weight), maturity

    def _warped(self, image: np.ndarray, flow: np.ndarray, inset: int = 0) -> np.ndarray:
        """Return an image, warped along a flow on the device of the run."""
        with tf.device(self.facts["device"]):
            warped: np.ndarray = _warp(
                tf.constant(image[None]), tf.constant(flow[None]), inset=tf.constant(float(inset))
            )[0].numpy()
        return warped

    def _same_region(self, flow: np.ndarray) -> np.ndarray:
        """Return weights ``[height, width]``, which are 0 where a flow leads into another region."""
        assert self._shot is not None
        inputs = self._shot[1]
        masks = [*inputs.regions, *([] if inputs.keep is None else [inputs.keep])]
        if not masks:
            return np.ones(self.shape, np.float32)
        regions = np.stack(masks, axis=-1).astype(np.float32)
        return 1.0 - np.abs(regions - self._warped(regions, flow)).max(-1)

    def close(self) -> None:
        """Delete the temporary files of a run with several passes. No call is needed after the last step."""
        if self._temporary is not None:
            self._temporary.cleanup()

    def _conclude(self, frame: Frame, stored: np.ndarray) -> np.ndarray:
        """Return the result of a frame that is stored, and deliver it if there is only one pass."""
        image = self._shot_inputs(frame).for_frame(ImageArray(frame.image)).finish(stored[..., :3])
        self._before = frame, image
        self._done += 1
        if self.options.passes == 1:
            self._on_frame(image, frame)
        return image

    def _deliver_all(self) -> None:
        """Call `on_frame` with the newest result of each frame."""
        for number, frame_time in enumerate(self._times, 1):
            # Without checkpoints, the frames of the clip lie in the same folder, as those of pass 0.
            passes = range(self._pass, max(self._pass - 2, SOURCE), -1)
            places = [(p, number) for p in passes if (p, number) in self._results]
            if not places:
                return
            frame = Frame(self._sources.read((SOURCE, number)), frame_time, number)
            self._on_frame(self._conclude(frame, self._results.read(places[0])), frame)

    def _step(self, frame: Frame, iteration: Iteration, *, frame_done: bool = False) -> VideoStep:
        finished = self._done - frame_done
        part = 1.0 if frame_done else iteration.progress
        total = self.frames * self.options.passes
        progress = min(1.0, ((self._pass - 1) * self.frames + finished + part) / total)
        left = math.inf
        if self._seconds:
            left = float(np.mean(self._seconds)) * total * (1 - progress)
        return VideoStep(
            frame.number,
            self.frames,
            pass_number=self._pass,
            passes=self.options.passes,
            iteration=iteration,
            frame_done=frame_done,
            progress=progress,
            seconds=time.perf_counter() - self._began,
            seconds_left=left,
            warping_error=self.warping_error,
            _stop=self.stop,
        )

    def _store(self, record: FrameRecord) -> None:
        """Write the state from which the video can be resumed after a frame."""
        if self._checkpoints is not None:
            position = {"pass": self._pass, "done": self._done, "shots": self._shots}
            self._checkpoints.write({**self._about, **position}, record)


class _Mean:
    """The mean of numbers that are added one by one; None is left out."""

    def __init__(self, values: Iterable[float | None] = ()) -> None:
        self._total, self._count = 0.0, 0
        for value in values:
            self.add(value)

    def add(self, value: float | None) -> None:
        """Add a number, unless it is None."""
        if value is not None:
            self._total, self._count = self._total + value, self._count + 1

    @property
    def value(self) -> float | None:
        """The mean, or None without numbers."""
        return self._total / self._count if self._count else None


def _even(shape: tuple[int, int]) -> tuple[int, int]:
    """Return a shape with even sides, which codecs need that store colours at half the resolution."""
    height, width = (max(2, round(side / 2) * 2) for side in shape)
    return height, width

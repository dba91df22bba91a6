"""One style transfer as it goes on: scale after scale, the step repeated until its iterations are done."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import keras
import numpy as np
import tensorflow as tf

from tfstyle.config import StyleConfig
from tfstyle.device import choose_device, is_out_of_memory, one_line_errors
from tfstyle.errors import ConfigError, NotFiniteError
from tfstyle.files import digest
from tfstyle.images import resize
from tfstyle.losses import Masks
from tfstyle.network import Encoder
from tfstyle.optim import Optimizer
from tfstyle.run.checkpoints import (
    CheckpointFolder,
    CheckpointWriter,
    RunPosition,
    check_same_run,
    chosen_options,
    describe_run,
    restore_run,
)
from tfstyle.run.inputs import ScaleTargets, read_inputs
from tfstyle.run.layout import Layout, plan_layouts, restore_layouts, smaller_layout
from tfstyle.run.results import History, Iteration, Result
from tfstyle.run.setup import Scale, Shape, TransferSetup, make_setup, plan_scales
from tfstyle.tiling import first_host_state, in_host_memory

log = logging.getLogger(__name__)

TOLERANCE_WINDOW = 10  # iterations over which `StyleConfig.tolerance` compares the loss
#: How many losses in a row may be infinite or NaN before an optimiser that recovers is given up.
PATIENCE = 20


class _Progress(NamedTuple):
    """How far the resumed run was: scale, iterations of it that were done, whether it had ended."""

    scale: int = 0
    done: int = 0
    ended: bool = False


class Run:
    """One style transfer. Iterate over it once; `result` can be called at any time.

    Args:
        content, style, config, encoder, optimizer, masks: as `tfstyle.stylize`.
        pause_every: a call of the step never runs past a multiple of this number of iterations, so that a
            preview can be taken at each multiple; 0 for no such limit.
        setup: of an earlier run with the same options and style images, to be used again.
        checkpoints: where the run stores how far it is, or from where it goes on.

    Attributes:
        config: the options as they were given.
        inputs: the images and masks, at the size of the last scale.
        setup: for further runs.
        scales: the sizes that the run goes through, coarse to fine.
        layouts: how each scale is evaluated, whole or in tiles.
        steps_per_call: iterations in one call of the step.
        history: the losses so far.
        facts: what ``auto`` and the defaults became, for the result.
        first_calls: scale -> seconds that its first call of the step took, with XLA mostly for compiling.

    Raises:
        As `tfstyle.stylize`.
    """

    def __init__(
        self,
        content: Any,
        style: Any,
        config: StyleConfig,
        *,
        encoder: Encoder | None = None,
        optimizer: Optimizer | keras.optimizers.Optimizer | None = None,
        masks: Masks | Sequence[Any] | None = None,
        pause_every: int = 0,
        setup: TransferSetup | None = None,
        checkpoints: CheckpointFolder | None = None,
    ) -> None:
        self.config, self.history = config, History()
        self.inputs = read_inputs(content, style, config, masks=masks, digests=checkpoints is not None)
        pinned = config if checkpoints is None else checkpoints.pinned(config)
        self._device = choose_device(pinned.device).value
        self.setup = setup or self._make_setup(pinned, encoder, optimizer)
        self.inputs.check(self.setup)
        self.scales = plan_scales(self.inputs.shape, config, minimum=self.setup.encoder.minimum_size)
        self._targets = ScaleTargets(self.inputs, self.setup)
        self.layouts = self._plan_layouts(checkpoints)
        self.steps_per_call, self._step = self.setup.step(
            [scale.iterations for scale in self.scales], pinned.steps_per_call, pause_every=pause_every
        )
        self.facts = self._describe()
        self.first_calls: dict[int, float] = {}
        self._optimizer = self.setup.optimizer
        self._image: Any = self.inputs.start_image(self.scales[0].shape)[None]
        self._state: Any = None
        self._last_good = self._image, self._state
        self._resumed = _Progress()
        self._checkpoints = self._open_checkpoints(checkpoints, custom_encoder=encoder is not None)

    @property
    def total_iterations(self) -> int:
        """The iterations of all scales."""
        return sum(scale.iterations for scale in self.scales)

    def __iter__(self) -> Generator[Iteration, None, None]:
        began = time.perf_counter() - (self.history.seconds or [0.0])[-1]
        for scale in self.scales:
            if scale.number < self._resumed.scale + self._resumed.ended:
                continue
            with one_line_errors(scale.shape), self._checkpoints.write_if_interrupted():
                yield from self._run_scale(scale, began)

    def result(self) -> Result:
        """The image so far, or, once the iteration has ended, the finished one."""
        image = self.inputs.finish(self._current_image())
        alpha = self.inputs.alpha_at((image.shape[0], image.shape[1]))
        return Result(
            image, self.history, self.config, facts=self.facts, alpha=alpha, bits=self.inputs.original.bits
        )

    def _make_setup(
        self,
        config: StyleConfig,
        encoder: Encoder | None,
        optimizer: Optimizer | keras.optimizers.Optimizer | None,
    ) -> TransferSetup:
        images = [self.inputs.content, *self.inputs.styles]
        with tf.device(self._device), one_line_errors(self.inputs.shape):
            return make_setup(config, self._device, images=images, encoder=encoder, optimizer=optimizer)

    def _plan_layouts(self, checkpoints: CheckpointFolder | None) -> list[Layout]:
        """The layout of every scale: those of the stored run, or new ones."""
        if checkpoints is not None and checkpoints.latest is not None:
            return restore_layouts(checkpoints.latest.about["layouts"])
        shapes = [self._targets.style_shapes(scale) for scale in self.scales]
        return plan_layouts(self.config, self.setup, scales=self.scales, style_shapes=shapes)

    def _describe(self) -> dict[str, Any]:
        encoder = self.setup.encoder
        return {
            "weights": encoder.weights.source,
            "weights_note": encoder.weights.note,
            "weights_sha256": encoder.weights.sha256,
            "network": encoder.network,
            "pooling": encoder.pooling,
            "padding": encoder.padding,
            "content_layers": self.setup.content_layers,
            "style_layers": self.setup.style_layers,
            "device": self._device,
            "compile": self.setup.compiler,
            "precision": encoder.dtype,
            "tiles": self.layouts[-1].side,
        }

    def _open_checkpoints(
        self, checkpoints: CheckpointFolder | None, custom_encoder: bool
    ) -> CheckpointWriter:
        """The writer of this run's checkpoints; where the folder has one, the run is put where it was."""
        about: dict[str, Any] = {}
        if checkpoints is not None:
            chosen = chosen_options(
                self.config, self.facts, steps_per_call=self.steps_per_call, custom_encoder=custom_encoder
            )
            about = describe_run(self.inputs, self.setup, chosen=chosen)
            about["layouts"] = self.layouts  # the list itself, which may change while the run goes on
            self.facts["run"] = digest(about["depends"])[:16]
        if checkpoints is not None and checkpoints.latest is not None:
            check_same_run(checkpoints, about)
            layout = self.layouts[checkpoints.latest.about["scale"] - 1]
            self._optimizer = self.setup.optimizer_with(layout.lbfgs_pairs)
            with tf.device(self._device):
                position = restore_run(
                    checkpoints.latest,
                    self._optimizer,
                    history=self.history,
                    in_place=self._moves_in_place(layout),
                )
            self._image, self._state, self._last_good = position.image, position.state, position.last_good
            self._resumed = _Progress(position.scale, position.done, position.ended)
            checkpoints.latest = None  # as large as the state, and no longer needed
        return CheckpointWriter(checkpoints, about, optimizer=self._optimizer, history=self.history)

    def _moves_in_place(self, layout: Layout) -> bool:
        """Whether image and state are arrays in host memory that the step changes in place."""
        return layout.side is not None and self._optimizer.elementwise

    def _run_scale(self, scale: Scale, began: float) -> Iterator[Iteration]:
        resumed, losses = self._resumed_losses(scale)
        advance: Callable[[Any, Any], Any] | None = self._begin_scale(scale, fresh=not resumed)
        not_finite = _last_not_finite(losses)
        done = resumed
        while done < scale.iterations and not _settled(losses, self.config.tolerance):
            if advance is None:
                advance = self._begin_scale(scale, fresh=False)
            before, called = (self._image, self._state), time.monotonic()
            try:
                with tf.device(self._device):
                    image, state, terms = advance(*before)
                columns = {name: np.atleast_1d(term.numpy()) for name, term in terms.items()}
            except (MemoryError, tf.errors.OpError) as error:  # a GPU's may come with the first number read
                self._take_smaller_tiles(scale, error)
                advance = None  # and with it the targets, before there are others
                continue
            self._image, self._state = image, state
            self.first_calls.setdefault(scale.number, time.monotonic() - called)
            seconds = time.perf_counter() - began
            count = len(columns["total"])
            for i in range(count):
                values = {name: float(column[i]) for name, column in columns.items()}
                number, total = done + i + 1, values["total"]
                self.history.record(scale.number, values, seconds=seconds)
                losses.append(total)
                not_finite = 0 if math.isfinite(total) else not_finite + 1
                if not_finite > (PATIENCE if self._optimizer.recovers else 0):
                    self._fail(f"the loss is {total} at iteration {number} of scale {scale.number}")
                if i == count - 1:
                    self._last_good = before
                    self._record_position(scale, number)
                yield Iteration(
                    number,
                    scale.iterations,
                    scale=scale.number,
                    scales=len(self.scales),
                    shape=scale.shape,
                    losses=values,
                    seconds=seconds,
                    _solution=self._solution(),
                    _finish=self._finish,
                )
            done += count
        if not any(map(math.isfinite, losses)):
            self._fail(f"no loss was finite in the {len(losses)} iterations of scale {scale.number}")
        if not np.isfinite(self._current_image()).all():  # the last move, whose loss nobody looks at
            self._fail(f"the last iteration of scale {scale.number} left an image that is not finite")
        self._record_position(scale, len(losses), ended=True)

    def _resumed_losses(self, scale: Scale) -> tuple[int, list[float]]:
        """The iterations of a scale that were done when the checkpoint was written, and their losses."""
        if scale.number != self._resumed.scale:
            return 0, []
        history = zip(self.history.total, self.history.scale, strict=True)
        return self._resumed.done, [loss for loss, number in history if number == scale.number]

    def _begin_scale(self, scale: Scale, fresh: bool) -> Callable[[Any, Any], Any]:
        """Begin a scale, in smaller tiles where memory runs out; return the step of image and state."""
        while True:
            try:
                with tf.device(self._device):
                    return self._prepare_scale(scale, fresh)
            except (MemoryError, tf.errors.OpError) as error:
                self._take_smaller_tiles(scale, error)

    def _prepare_scale(self, scale: Scale, fresh: bool) -> Callable[[Any, Any], Any]:
        """Compute the targets and, if fresh, the first image and state of a scale."""
        layout = self.layouts[scale.number - 1]
        self._optimizer = self.setup.optimizer_with(layout.lbfgs_pairs)
        targets = self._targets.compute(scale, layout)
        in_place = self._moves_in_place(layout)
        if fresh:
            image = resize(self._current_image(), scale.shape, clip=self.config.clamp)[None]
            with tf.device("/CPU:0" if layout.side is not None else self._device):
                self._image = np.array(image) if in_place else tf.constant(image)
                self._state = self._first_state(scale.shape, in_place)
        if in_place:
            if not fresh or self.config.warm_start:
                self._image, self._state = in_host_memory((self._image, self._state))
            self._last_good = self._image, self._state  # no copies: they are large
        if layout.side is not None:
            tiled_step = self.setup.tiled_step(layout.side, layout.lbfgs_pairs)
            forget = self._checkpoints.forget
            return lambda image, state: tiled_step(image, state, targets, forget)
        step = self._step
        if hasattr(step, "get_concrete_function"):
            # Each run has a step of its own to trace, of which TensorFlow warns from the fifth on.
            step = step.get_concrete_function(self._image, self._state, targets)
        return lambda image, state: step(image, state, targets)

    def _first_state(self, shape: Shape, in_place: bool) -> Any:
        """The optimiser's state at the beginning of a scale.

        A new one by default: moments and curvature pairs carried over, resized, left L-BFGS's loss within
        1% after 60 iterations and made Adam's up to a tenth larger.
        """
        if self.config.warm_start and self._state is not None and self._optimizer.resize is not None:
            return self._optimizer.resize(self._state, shape)
        if in_place:
            return first_host_state(self._optimizer, self._image)
        return self._optimizer.init(self._image)

    def _take_smaller_tiles(self, scale: Scale, error: Exception) -> None:
        """Change the scale's layout after it ran out of memory, or raise the error again."""
        smaller = None
        if self.config.tile == "auto" and is_out_of_memory(error):
            with contextlib.suppress(ConfigError):
                smaller = smaller_layout(
                    self.setup,
                    scale.shape,
                    style_shapes=self._targets.style_shapes(scale),
                    layout=self.layouts[scale.number - 1],
                )
        if smaller is None or smaller.side is None:
            raise error
        (rows, columns), (height, width) = smaller.side, scale.shape
        log.warning("out of memory at %d x %d pixels: tiles of %d x %d", width, height, columns, rows)
        self.layouts[scale.number - 1] = smaller
        self.facts["tiles"] = self.layouts[-1].side

    def _record_position(self, scale: Scale, done: int, ended: bool = False) -> None:
        position = RunPosition(scale.number, done, ended, self._image, self._state, self._last_good)
        self._checkpoints.reached(position)

    def _fail(self, what: str) -> NoReturn:
        """Go back to the last good image and raise."""
        self._image, self._state = self._last_good
        advice = "lower the weights or the learning rate, or use precision=float32"
        raise NotFiniteError(f"{what}; {advice}", self.result())

    def _solution(self) -> tf.Tensor:
        return self._image if self._state is None else self._optimizer.solution(self._image, self._state)

    def _current_image(self) -> np.ndarray:
        return np.asarray(self._solution()[0])

    def _finish(self, image: tf.Tensor) -> np.ndarray:
        return self.inputs.finish(np.asarray(image[0]))


def _last_not_finite(losses: Sequence[float]) -> int:
    """How many of the last losses, one after another, are not finite."""
    return next((i for i, loss in enumerate(reversed(losses)) if math.isfinite(loss)), len(losses))


def _settled(losses: Sequence[float], tolerance: float) -> bool:
    """Whether the loss fell by less than a tolerance, relatively, over the last `TOLERANCE_WINDOW` losses."""
    if tolerance == 0 or len(losses) <= TOLERANCE_WINDOW:
        return False
    before = losses[-1 - TOLERANCE_WINDOW]
    return before - min(losses[-TOLERANCE_WINDOW:]) < tolerance * abs(before)

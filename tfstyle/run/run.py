"""One style transfer as it goes on: the step repeated, coarse to fine, with what it needs prepared."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NoReturn

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
from tfstyle.run.setup import TransferSetup, iterations_per_scale, make_setup, scale_shapes
from tfstyle.tiling import first_host_state, in_host_memory

log = logging.getLogger(__name__)

TOLERANCE_WINDOW = 10  # iterations over which `StyleConfig.tolerance` looks at the loss
#: How many losses in a row may be infinite or NaN before a method that recovers is given up.
PATIENCE = 20


class Run:
    """One style transfer: iterate over it once, and take `result` whenever you like.

    Args, Raises: as `tfstyle.stylize`. Where the device does several iterations in one call, calls end
    at every multiple of ``pause_every`` iterations, so that a preview taken there is of that one. A
    ``preparation`` of an earlier run with the same options and style images saves making another.
    With ``checkpoints`` it stores how far it is, or goes on from there.

    Attributes:
        shapes: ``(height, width)`` of each scale.
        iterations: of each scale.
        history: so far.
        preparation: for further runs.
        layouts: how each scale is evaluated, whole or in tiles.
        first_calls: scale -> seconds that its first call of the step took, with XLA mostly for compiling.
    """

    def __init__(
        self,
        content: Any,
        style: Any,
        config: StyleConfig,
        encoder: Encoder | None = None,
        optimizer: Optimizer | keras.optimizers.Optimizer | None = None,
        pause_every: int = 0,
        masks: Masks | None = None,
        preparation: TransferSetup | None = None,
        checkpoints: CheckpointFolder | None = None,
    ) -> None:
        self.config = config
        self.history = History()
        self._inputs = read_inputs(content, style, config, masks, digests=checkpoints is not None)
        pinned = config if checkpoints is None else checkpoints.pinned(config)
        self._device = choose_device(pinned.device).value
        with tf.device(self._device), one_line_errors(self._inputs.content.rgb.shape):
            self.preparation = preparation or make_setup(
                pinned, self._device, [self._inputs.content, *self._inputs.styles], encoder, optimizer
            )
        self._encoder, self._optimizer = self.preparation.encoder, self.preparation.optimizer
        self._inputs.check(self._encoder, self.preparation.style_layers)
        full = self._inputs.content.rgb.shape[:2]
        self.shapes = scale_shapes(full, self._encoder.minimum_size, config)
        self.iterations = iterations_per_scale(config, len(self.shapes))
        self._steps_per_call, self._pause_every = pinned.steps_per_call, pause_every
        self._chunk, _ = self.preparation.step(self.iterations, pinned.steps_per_call, pause_every)
        self._goals = ScaleTargets(config, self._inputs, self.preparation, self.shapes[-1])
        styles = [self._goals.style_shapes(shape) for shape in self.shapes]
        stored = None if checkpoints is None or checkpoints.latest is None else checkpoints.latest.about
        self.layouts = (
            plan_layouts(config, self.preparation, self.shapes, styles)
            if stored is None
            else restore_layouts(stored["layouts"])
        )
        self._image: Any = self._inputs.start(config, self.shapes[0])[None]
        self._state: Any = None
        self._last_good = self._image, self._state
        self.facts = {
            "weights": self._encoder.weights.source,
            "weights_note": self._encoder.weights.note,
            "weights_sha256": self._encoder.weights.sha256,
            "network": self._encoder.network,
            "pooling": self._encoder.pooling,
            "padding": self._encoder.padding,
            "content_layers": self.preparation.content_layers,
            "style_layers": self.preparation.style_layers,
            "device": self._device,
            "compile": self.preparation.compiler,
            "precision": self._encoder.dtype,
            "tiles": self.layouts[-1].side,
        }
        self.first_calls: dict[int, float] = {}
        self._resumed = 0, 0, False  # the scale, the iterations of it, and whether those were all
        self._keeper = self._keep(checkpoints, own_encoder=encoder is not None)

    def __iter__(self) -> Generator[Iteration, None, None]:
        began = time.perf_counter() - (self.history.seconds or [0.0])[-1]
        for scale, shape in enumerate(self.shapes, 1):
            if scale < self._resumed[0] + self._resumed[2]:
                continue
            with one_line_errors(shape), self._keeper.storing_when_interrupted():
                yield from self._run_scale(scale, shape, began)

    def result(self) -> Result:
        """The picture so far, or, once the iteration has ended, the finished one."""
        image = self._inputs.finished(self.config, self._picture())
        content = self._inputs.original
        alpha = content.alpha
        if alpha is not None:
            alpha = resize(alpha[..., None], image.shape[:2])[..., 0]
        return Result(image, self.history, self.config, self.facts, alpha, content.bits)

    def _run_scale(self, scale: int, shape: tuple[int, int], began: float) -> Iterator[Iteration]:
        begun, losses = self._done_before(scale)
        advance: Callable[[Any, Any], Any] | None = self._enter(scale, shape, fresh=not begun)
        iterations, bad = self.iterations[scale - 1], _not_finite_lately(losses)
        done = begun
        while done < iterations and not _settled(losses, self.config.tolerance):
            if advance is None:
                advance = self._enter(scale, shape, fresh=False)
            before, called = (self._image, self._state), time.monotonic()
            try:
                with tf.device(self._device):
                    image, state, terms = advance(*before)
                columns = {name: np.atleast_1d(term.numpy()) for name, term in terms.items()}
            except (MemoryError, tf.errors.OpError) as error:  # a GPU's may come with the first number read
                self._take_smaller_tiles(scale, shape, error)
                advance = None  # and with it the targets, before there are others
                continue
            self._image, self._state = image, state
            self.first_calls.setdefault(scale, time.monotonic() - called)
            seconds = time.perf_counter() - began
            count = len(columns["total"])
            for i in range(count):
                values = {name: float(column[i]) for name, column in columns.items()}
                self.history.record(scale, values, seconds)
                losses.append(values["total"])
                bad = 0 if math.isfinite(values["total"]) else bad + 1
                if bad > (PATIENCE if self._optimizer.recovers else 0):
                    self._fail(f"the loss is {values['total']} at iteration {done + i + 1} of scale {scale}")
                if i == count - 1:
                    self._last_good = before
                    self._reached(scale, done + count)
                yield Iteration(
                    done + i + 1,
                    iterations,
                    scale,
                    len(self.shapes),
                    shape,
                    values,
                    seconds,
                    self._solution(),
                    self._finished,
                )
            done += count
        if not any(map(math.isfinite, losses)):
            self._fail(f"no loss was finite in the {len(losses)} iterations of scale {scale}")
        if not np.isfinite(self._picture()).all():  # the last move, whose loss nobody looks at
            self._fail(f"the last iteration of scale {scale} left a picture that is not finite")
        self._reached(scale, len(losses), ended=True)

    def _enter(self, scale: int, shape: tuple[int, int], fresh: bool) -> Callable[[Any, Any], Any]:
        """Make ready for a scale: its first image and state if fresh, and the step as a function of these."""
        while True:
            try:
                with tf.device(self._device):
                    return self._entered(scale, shape, fresh)
            except (MemoryError, tf.errors.OpError) as error:
                self._take_smaller_tiles(scale, shape, error)

    def _entered(self, scale: int, shape: tuple[int, int], fresh: bool) -> Callable[[Any, Any], Any]:
        layout = self.layouts[scale - 1]
        self._optimizer = self.preparation.optimizer_keeping(layout.history)
        targets = self._goals.targets(shape, layout)
        in_place = layout.side is not None and self._optimizer.elementwise
        if fresh:
            image = resize(self._picture(), shape, self.config.clamp)[None]
            with tf.device("/CPU:0" if layout.side is not None else self._device):
                self._image = np.array(image) if in_place else tf.constant(image)
                self._state = self._first_state(shape, in_place)
        if in_place:
            if not fresh or self.config.warm_start:
                self._image, self._state = in_host_memory((self._image, self._state))
            self._last_good = self._image, self._state  # no copies: they are large
        if layout.side is not None:
            in_tiles = self.preparation.tiled_step(layout.side, layout.history)
            about_to_move = self._keeper.moves_in_place
            return lambda image, state: in_tiles(image, state, targets, about_to_move)
        _, step = self.preparation.step(self.iterations, self._steps_per_call, self._pause_every)
        if hasattr(step, "get_concrete_function"):
            # Each run has a step of its own to trace, of which TensorFlow warns from the fifth on.
            step = step.get_concrete_function(self._image, self._state, targets)
        return lambda image, state: step(image, state, targets)

    def _take_smaller_tiles(self, scale: int, shape: tuple[int, int], error: Exception) -> None:
        """Change the scale's layout, or raise the error again where it is the user's."""
        found = None
        if self.config.tile == "auto" and is_out_of_memory(error):
            with contextlib.suppress(ConfigError):
                styles = self._goals.style_shapes(shape)
                found = smaller_layout(self.preparation, shape, styles, self.layouts[scale - 1])
        if found is None or found.side is None:
            raise error
        down, across = found.side
        log.warning("out of memory at %d x %d pixels: tiles of %d x %d", shape[1], shape[0], across, down)
        self.layouts[scale - 1] = found
        self.facts["tiles"] = self.layouts[-1].side

    def _keep(self, checkpoints: CheckpointFolder | None, own_encoder: bool) -> CheckpointWriter:
        """What stores this run; where there is a checkpoint the run is put where it was."""
        about: dict[str, Any] = {}
        if checkpoints is not None:
            chosen = chosen_options(self.config, self.facts, self._chunk, own_encoder)
            about = describe_run(self.config, self._inputs, self._encoder, self._optimizer, chosen)
            about["layouts"] = self.layouts  # the list itself, which may change on the way
            self.facts["run"] = digest(about["depends"])[:16]
        if checkpoints is not None and checkpoints.latest is not None:
            check_same_run(checkpoints, about)
            reached = self.layouts[checkpoints.latest.about["scale"] - 1]
            self._optimizer = self.preparation.optimizer_keeping(reached.history)
            in_place = reached.side is not None and self._optimizer.elementwise
            with tf.device(self._device):
                position = restore_run(checkpoints.latest, self._optimizer, self.history, in_place)
            self._image, self._state, self._last_good = position.image, position.state, position.last_good
            self._resumed = position.scale, position.done, position.ended
            checkpoints.latest = None  # as large as the state, and no longer needed
        return CheckpointWriter(checkpoints, about, self._optimizer, self.history)

    def _done_before(self, scale: int) -> tuple[int, list[float]]:
        """The iterations of a scale that a checkpoint has put behind this run, and their losses."""
        if scale != self._resumed[0]:
            return 0, []
        of_scale = zip(self.history.total, self.history.scale, strict=True)
        return self._resumed[1], [loss for loss, of in of_scale if of == scale]

    def _reached(self, scale: int, done: int, ended: bool = False) -> None:
        self._keeper.reached(RunPosition(scale, done, ended, self._image, self._state, self._last_good))

    def _fail(self, what: str) -> NoReturn:
        """Go back to the last good picture and raise."""
        self._image, self._state = self._last_good
        advice = "lower the weights or the learning rate, or use precision=float32"
        raise NotFiniteError(f"{what}; {advice}", self.result())

    def _solution(self) -> tf.Tensor:
        return self._image if self._state is None else self._optimizer.solution(self._image, self._state)

    def _picture(self) -> np.ndarray:
        return np.asarray(self._solution()[0])

    def _finished(self, image: tf.Tensor) -> np.ndarray:
        return self._inputs.finished(self.config, np.asarray(image[0]))

    def _first_state(self, shape: tuple[int, int], in_place: bool) -> Any:
        """Of the optimiser at a scale.

        Afresh unless asked otherwise: moments and pairs carried over, resized, left L-BFGS's loss within
        1% after 60 iterations and made Adam's up to a tenth larger.
        """
        if self.config.warm_start and self._state is not None and self._optimizer.resize is not None:
            return self._optimizer.resize(self._state, shape)
        return (
            first_host_state(self._optimizer, self._image) if in_place else self._optimizer.init(self._image)
        )

    def _scale_targets(self, shape: tuple[int, int]) -> Any:
        """Of a picture taken whole."""
        return self._goals.targets(shape, Layout())


def _not_finite_lately(losses: Sequence[float]) -> int:
    """How many of the last losses, one after another, were not finite."""
    return next((i for i, loss in enumerate(reversed(losses)) if math.isfinite(loss)), len(losses))


def _settled(losses: Sequence[float], tolerance: float) -> bool:
    if tolerance == 0 or len(losses) <= TOLERANCE_WINDOW:
        return False
    before = losses[-1 - TOLERANCE_WINDOW]
    return before - min(losses[-TOLERANCE_WINDOW:]) < tolerance * abs(before)

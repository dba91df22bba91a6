"""The run of one style transfer: for each scale, the step is repeated until its iterations are done."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import keras
import numpy as np
import tensorflow as tf

from tfstyle.config import StyleConfig
from tfstyle.device import choose_device, is_out_of_memory, one_line_errors
from tfstyle.errors import ConfigError, NotFiniteError, RunError
from tfstyle.files import digest
from tfstyle.images import ImageArray, resize, resize_circular
from tfstyle.losses import ExtraLoss, Masks
from tfstyle.network import Encoder, Weights
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
from tfstyle.run.inputs import ScaleTargets, TransferInputs, read_inputs
from tfstyle.run.layout import Layout, plan_layouts, restore_layouts, smaller_layout
from tfstyle.run.pace import Pace
from tfstyle.run.planning import Timetable
from tfstyle.run.results import History, Iteration, Result
from tfstyle.run.setup import Scale, Shape, TransferSetup, make_setup, plan_scales
from tfstyle.tiling import first_host_state, in_host_memory

log = logging.getLogger(__name__)

#: Default number of iterations within which the loss must fall by `StyleConfig.tolerance` for a scale to
#: continue.
TOLERANCE_WINDOW = 10
#: Maximum number of consecutive losses that are not finite, if the optimiser recovers from them. One more
#: ends the run.
PATIENCE = 20


class _Progress(NamedTuple):
    """The position at which a run is resumed; the default is the beginning of a new run.

    Attributes:
        scale: number of the scale, from 1; 0 for a new run.
        done: number of its iterations that were done.
        ended: whether the scale had ended.
    """

    scale: int = 0
    done: int = 0
    ended: bool = False


class Run:
    """A style transfer, as an iterable of its iterations.

    Iterate over it once. `result` can be called at any time. If a call of the step performs several
    iterations, only the last of them is yielded, so that image, history and number of iterations agree.

    Args:
        content, style, config, encoder, optimizer, masks, extra_losses: as for `tfstyle.stylize`.
        pause_every: interval of previews in iterations. No call of the step continues past a multiple of it,
            so that the image at each multiple is available; 0 sets no such limit.
        setup: the setup of an earlier run with the same options and style images; by default a new one.
        weights: the weights that the config names, if they were loaded before.
        checkpoints: the folder in which the run stores its checkpoints, and from which it is resumed; None if
            it stores none.
        timetable: plan of a run with a given time, which changes the iterations of `scales`.
        inputs: the inputs, if they were read before; `content`, `style` and `masks` are then not used.
        window: number of iterations within which the loss must fall by `StyleConfig.tolerance` for a scale to
            continue.

    Attributes:
        config: the options as they were given.
        inputs: the images and masks at the size of the last scale.
        setup: the setup, which further runs can reuse.
        scales: the scales, coarse to fine.
        layouts: the layout of each scale: whole images or tiles.
        steps_per_call: number of iterations in one call of the step.
        history: the losses of the iterations that were done.
        facts: the values that were chosen for ``auto`` and for defaults, for `tfstyle.Result.facts`.
        first_calls: number of a scale -> wall time of the first call of its step in seconds. With XLA most of
            it is compilation.

    Raises:
        InputError, NotFiniteError, RunError: as for `tfstyle.stylize`.

    Example:
        >>> import numpy as np
        >>> from tfstyle import StyleConfig
        >>> from tfstyle.run import Run
        >>> content, style = np.random.default_rng(0).uniform(size=(2, 32, 48, 3))
        >>> config = StyleConfig(weights="embedded", min_scale=24, iterations=1, compile="eager")
        >>> run = Run(content, style, config)
        >>> [scale.shape for scale in run.scales]
        [(16, 24), (32, 48)]
        >>> [(step.scale, step.iteration) for step in run]
        [(1, 1), (2, 1)]
        >>> run.result().image.shape
        (32, 48, 3)
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
        extra_losses: Mapping[str, ExtraLoss] | None = None,
        pause_every: int = 0,
        setup: TransferSetup | None = None,
        weights: Weights | None = None,
        checkpoints: CheckpointFolder | None = None,
        timetable: Timetable | None = None,
        inputs: TransferInputs | None = None,
        window: int = TOLERANCE_WINDOW,
    ) -> None:
        self.config, self.history = config, History()
        self.inputs = inputs or read_inputs(
            content, style, config, masks=masks, digests=checkpoints is not None
        )
        self._window = window
        pinned = config if checkpoints is None else checkpoints.pinned(config)
        self._device = choose_device(pinned.device).value
        self.setup = setup or self._make_setup(pinned, encoder, optimizer, extra_losses, weights)
        self.inputs.check(self.setup)
        self.scales = plan_scales(self.inputs.shape, config, minimum=self.setup.encoder.minimum_size)
        self._targets = ScaleTargets(self.inputs, self.setup)
        self.layouts = self._plan_layouts(checkpoints)
        self.steps_per_call, self._step = self.setup.step(
            [scale.iterations for scale in self.scales], pinned.steps_per_call, pause_every=pause_every
        )
        self.facts = self._describe()
        self.first_calls: dict[int, float] = {}
        self._pace = Pace()
        self._optimizer = self.setup.optimizer
        self._image: Any = self.inputs.start_image(self.scales[0].shape)[None]
        self._state: Any = None
        self._last_good = self._image, self._state
        self._start: np.ndarray | None = None
        self._resumed = _Progress()
        self._stopped = False
        self._checkpoints = self._open_checkpoints(checkpoints, custom_encoder=encoder is not None)
        self._timetable = timetable
        if timetable is not None:
            self._set_plan(timetable.begin(self.scales, multiple=self.steps_per_call), done=0)

    @property
    def total_iterations(self) -> int:
        """The sum of the iterations of all scales."""
        return sum(scale.iterations for scale in self.scales)

    def __iter__(self) -> Generator[Iteration, None, None]:
        began = time.perf_counter() - (self.history.seconds or [0.0])[-1]
        for scale in self.scales:
            if self._stopped or scale.number < self._resumed.scale + self._resumed.ended:
                continue
            with one_line_errors(scale.shape), self._checkpoints.write_if_interrupted():
                yield from self._run_scale(scale, began)
            if self._stopped:
                self._checkpoints.write()
                break

    def stop(self) -> None:
        """End the run after the current call of the step.

        If the run has a folder for checkpoints, one is written, so that the run can be resumed.
        """
        self._stopped = True

    def result(self, *, shape: Shape | None = None) -> Result:
        """Return the result so far. Later iterations do not change it.

        Args:
            shape: height and width to which the image is resized before it is recoloured and masked; by
                default those of the current scale.
        """
        iterate = self._current_image()
        image = self.inputs.finish(iterate if shape is None else resize(iterate, shape))
        alpha = self.inputs.alpha_at((image.shape[0], image.shape[1]))
        return Result(
            image,
            copy.deepcopy(self.history),
            self.config,
            facts=dict(self.facts),
            alpha=alpha,
            bits=self.inputs.original.bits,
            content=_read_only(self.inputs.original.on_white()),
            styles=[
                _read_only(style.on_white()) for style in self.inputs.styles if isinstance(style, ImageArray)
            ],
        )

    def iterate(self) -> np.ndarray:
        """Return the current image before it is recoloured and masked, float32 ``[height, width, 3]``."""
        return self._current_image()

    def blank_style_loss(self) -> float:
        """Return the weighted style loss of an image without any features at the last scale.

        It is the unit of the temporal weight of videos.
        """
        scale, layout = self.scales[-1], self.layouts[-1]
        with tf.device(self._device), one_line_errors(scale.shape):
            targets = self._targets.compute(scale, layout)
            return float(self.setup.objective.blank_style_loss(targets))

    def _make_setup(
        self,
        config: StyleConfig,
        encoder: Encoder | None,
        optimizer: Optimizer | keras.optimizers.Optimizer | None,
        extra_losses: Mapping[str, ExtraLoss] | None,
        weights: Weights | None,
    ) -> TransferSetup:
        images = [self.inputs.content, *self.inputs.styles]
        with tf.device(self._device), one_line_errors(self.inputs.shape):
            return make_setup(
                config,
                self._device,
                images=images,
                encoder=encoder,
                optimizer=optimizer,
                extra_losses=extra_losses,
                weights=weights,
            )

    def _plan_layouts(self, checkpoints: CheckpointFolder | None) -> list[Layout]:
        """Return the layout of every scale, from the checkpoint if the run is resumed."""
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
            "content_weight": self.setup.objective.content_weight,
            "device": self._device,
            "compile": self.setup.compiler,
            "precision": encoder.dtype,
            "tiles": self.layouts[-1].side,
        }

    def _open_checkpoints(
        self, checkpoints: CheckpointFolder | None, custom_encoder: bool
    ) -> CheckpointWriter:
        """Return the writer of this run's checkpoints, after restoring the run if it is resumed."""
        about: dict[str, Any] = {}
        if checkpoints is not None:
            chosen = chosen_options(
                self.config, self.facts, steps_per_call=self.steps_per_call, custom_encoder=custom_encoder
            )
            about = describe_run(self.inputs, self.setup, chosen=chosen)
            about["layouts"] = self.layouts  # the list itself, since layouts may change during the run
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
            self._start = position.start
            self._resumed = _Progress(position.scale, position.done, position.ended)
            checkpoints.latest = None  # frees its memory, as much as that of the state
        return CheckpointWriter(checkpoints, about, optimizer=self._optimizer, history=self.history)

    def _moves_in_place(self, layout: Layout) -> bool:
        """Return whether image and state are arrays in host memory that the step changes in place."""
        return layout.side is not None and self._optimizer.elementwise

    def _run_scale(self, scale: Scale, began: float) -> Iterator[Iteration]:
        since = time.monotonic()  # for the pace: the first call of a scale includes its preparation
        resumed, losses = self._resumed_losses(scale)
        advance: Callable[[Any, Any], Any] | None = self._begin_scale(scale, fresh=not resumed)
        not_finite = _last_not_finite(losses)
        done = resumed
        while done < scale.iterations and not _settled(losses, self.config.tolerance, self._window):
            if advance is None:
                advance = self._begin_scale(scale, fresh=False)
            before, called = (self._image, self._state), time.monotonic()
            try:
                with tf.device(self._device):
                    image, state, terms = advance(*before)
                columns = {name: np.atleast_1d(term.numpy()) for name, term in terms.items()}
            except (MemoryError, tf.errors.OpError) as error:  # a GPU may report it when a number is read
                self._take_smaller_tiles(scale, error)
                advance = None  # frees the targets before new ones are computed
                continue
            self._image, self._state = image, state
            self.first_calls.setdefault(scale.number, time.monotonic() - called)
            seconds = time.perf_counter() - began
            count = len(columns["total"])
            work = math.prod(scale.shape) * count
            self._pace.record(time.monotonic() - since, work=work, first=done == resumed)
            for i in range(count):
                values = {name: float(column[i]) for name, column in columns.items()}
                done, total = done + 1, values["total"]
                self.history.record(scale.number, values, seconds=seconds)
                losses.append(total)
                not_finite = 0 if math.isfinite(total) else not_finite + 1
                if not_finite > (PATIENCE if self._optimizer.recovers else 0):
                    wrong = [name for name, value in values.items() if not math.isfinite(value)]
                    where = f"iteration {done} of scale {scale.number}"
                    self._fail(f"the loss is {total} at {where} ({', '.join(wrong)})")
            self._last_good = before
            if self._timetable is not None:
                scale = self._planned_again(scale, done)
            self._record_position(scale, done)
            work, whole_work = self._work(scale, done)
            yield Iteration(
                done,
                scale.iterations,
                scale=scale.number,
                scales=len(self.scales),
                shape=scale.shape,
                final_shape=self.scales[-1].shape,
                global_iteration=len(self.history.iteration),
                total_iterations=self.total_iterations,
                progress=work / whole_work,
                losses=values,
                seconds=seconds,
                seconds_left=self._pace.seconds_left(
                    work=whole_work - work, scales=len(self.scales) - scale.number
                ),
                config=self.config,
                facts=dict(self.facts),
                _read_image=self._image_reader(),
                _stop=self.stop,
            )
            if self._stopped:
                break
            since = time.monotonic()
        if not any(map(math.isfinite, losses)):
            self._fail(f"no loss was finite in the {len(losses)} iterations of scale {scale.number}")
        if not np.isfinite(self._current_image()).all():  # the loss after the last update is not evaluated
            self._fail(f"the image is not finite after the last iteration of scale {scale.number}")
        if not self._stopped or done == scale.iterations:
            self._record_position(scale, len(losses), ended=True)

    def _work(self, scale: Scale, done: int) -> tuple[int, int]:
        """Return the work that is done and that of the whole run, where an iteration counts as its pixels."""
        work = [math.prod(each.shape) * each.iterations for each in self.scales]
        return sum(work[: scale.number - 1]) + math.prod(scale.shape) * done, sum(work)

    def _planned_again(self, scale: Scale, done: int) -> Scale:
        """Return the current scale after a call of its step, as the timetable plans it now."""
        assert self._timetable is not None
        if (planned := self._timetable.after_call(scale.number, done)) is not None:
            self._set_plan(planned, done=done)
        return self.scales[scale.number - 1]

    def _set_plan(self, planned: Sequence[Scale], *, done: int) -> None:
        """Replace the current scale and those after it, in the list that `__iter__` goes through."""
        assert self._timetable is not None
        self.scales[planned[0].number - 1 :] = planned
        self.facts["plan"] = {
            "seconds": self._timetable.seconds,
            "expected": round(self._timetable.expected_seconds(planned, done=done), 1),
            "iterations": [scale.iterations for scale in self.scales],
        }

    def _resumed_losses(self, scale: Scale) -> tuple[int, list[float]]:
        """Return how many iterations of a scale were done before the run was resumed, and their losses."""
        if scale.number != self._resumed.scale:
            return 0, []
        history = zip(self.history.total, self.history.scale, strict=True)
        return self._resumed.done, [loss for loss, number in history if number == scale.number]

    def _begin_scale(self, scale: Scale, fresh: bool) -> Callable[[Any, Any], Any]:
        """Return the step of a scale, (image, state) -> (image, state, terms).

        If memory runs out, the layout changes to smaller tiles. If `fresh`, the image and the state are first
        set to those at the beginning of the scale.
        """
        while True:
            try:
                with tf.device(self._device):
                    return self._prepare_scale(scale, fresh)
            except (MemoryError, tf.errors.OpError) as error:
                self._take_smaller_tiles(scale, error)

    def _prepare_scale(self, scale: Scale, fresh: bool) -> Callable[[Any, Any], Any]:
        """Return the step of a scale in its current layout, as `_begin_scale` describes it."""
        layout = self.layouts[scale.number - 1]
        self._optimizer = self.setup.optimizer_with(layout.lbfgs_pairs)
        in_place = self._moves_in_place(layout)
        if fresh:
            enlarge = resize_circular if self.setup.encoder.padding == "circular" else resize
            image = enlarge(self._current_image(), scale.shape, clip=self.config.clamp)[None]
            self._start = image[0] if scale.hypercolumns else None
        targets = self._targets.compute(scale, layout, start=self._start)
        if fresh:
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
        step: Callable[..., Any] = self._step
        if hasattr(step, "get_concrete_function"):
            # Calls of a new tf.function in each run would make TensorFlow warn of repeated tracing.
            step = self.setup.trace(step, self._image, self._state, targets)
        return lambda image, state: step(image, state, targets)

    def _first_state(self, shape: Shape, in_place: bool) -> Any:
        """Return the optimiser's state at the beginning of a scale.

        It is a new state, or with ``warm_start`` the last state, resized. A new state is the default, because
        in measurements a resized state changed the loss of L-BFGS by less than 1% after 60 iterations and
        made that of Adam up to 10% larger.
        """
        if self.config.warm_start and self._state is not None and self._optimizer.resize is not None:
            return self._optimizer.resize(self._state, shape)
        if in_place:
            return first_host_state(self._optimizer, self._image)
        return self._optimizer.init(self._image)

    def _take_smaller_tiles(self, scale: Scale, error: Exception) -> None:
        """Change the scale's layout to smaller tiles after an error, or raise the error if it cannot help."""
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
        log.warning(
            "out of memory at %d x %d pixels; continuing with tiles of %d x %d pixels",
            width, height, columns, rows,
        )  # fmt: skip
        self.layouts[scale.number - 1] = smaller
        self.facts["tiles"] = self.layouts[-1].side

    def _record_position(self, scale: Scale, done: int, ended: bool = False) -> None:
        position = RunPosition(
            scale.number, done, ended, self._image, self._state, self._last_good, start=self._start
        )
        self._checkpoints.reached(position)

    def _fail(self, what: str) -> NoReturn:
        """Restore the last good image, and raise NotFiniteError."""
        self._image, self._state = self._last_good
        advice = 'lower the weights or the learning rate, or use precision="float32"'
        raise NotFiniteError(f"{what}; {advice}", self.result())

    def _solution(self) -> tf.Tensor:
        return self._image if self._state is None else self._optimizer.solution(self._image, self._state)

    def _current_image(self) -> np.ndarray:
        return np.asarray(self._solution()[0])

    def _image_reader(self) -> Callable[[], np.ndarray]:
        """Return a function that returns the result image of the current iteration, even if called later."""
        solution, number = self._solution(), len(self.history.iteration)

        def read() -> np.ndarray:
            overwritten = solution is self._image and number != len(self.history.iteration)
            if overwritten and isinstance(solution, np.ndarray):
                raise RunError(
                    f"the image of iteration {number} was updated in place, because Adam runs in tiles; "
                    "read it before the next iteration"
                )
            return self.inputs.finish(np.asarray(solution[0]))

        return read


def _read_only(array: np.ndarray) -> np.ndarray:
    """Return a view of an array that cannot be written to, because the run computes with the array."""
    view = array.view()
    view.flags.writeable = False
    return view


def _last_not_finite(losses: Sequence[float]) -> int:
    """Return the number of losses at the end of the sequence that are not finite."""
    return next((i for i, loss in enumerate(reversed(losses)) if math.isfinite(loss)), len(losses))


def _settled(losses: Sequence[float], tolerance: float, window: int) -> bool:
    """Return whether the loss fell by less than a relative tolerance within a number of iterations."""
    if tolerance == 0 or len(losses) <= window:
        return False
    before = losses[-1 - window]
    return before - min(losses[-window:]) < tolerance * abs(before)

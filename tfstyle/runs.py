"""One style transfer as it goes on: the step repeated, coarse to fine, with what it needs prepared."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from tfstyle.checkpoint import Checkpoints, digest
from tfstyle.config import StyleConfig
from tfstyle.device import choose_device
from tfstyle.encoder import LAYERS_OF, Encoder
from tfstyle.errors import NotFiniteError, RunError
from tfstyle.guidance import Masks, layer_weights, resize_mask
from tfstyle.images import Picture, resize
from tfstyle.inputs import read_inputs, style_side
from tfstyle.optimizers import Optimizer
from tfstyle.plan import iterations_per_scale, scale_shapes
from tfstyle.preparation import Preparation, as_graph, layer_shapes, prepare
from tfstyle.results import History, Iteration, Result
from tfstyle.resuming import Keeper, Position, check_same, chosen_options, describe, put_back
from tfstyle.styles import Style
from tfstyle.targets import Summaries

TOLERANCE_WINDOW = 10  # iterations over which `StyleConfig.tolerance` looks at the loss
#: How many losses in a row may be infinite or NaN before a method that recovers is given up.
PATIENCE = 20
#: `StyleConfig.color` in which the styles stay as they are.
OWN_COLORS = ("style", "after", "original")


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
        preparation: Preparation | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.config = config
        self.history = History()
        self._inputs = read_inputs(content, style, config, masks, digests=checkpoints is not None)
        pinned = config if checkpoints is None else checkpoints.pinned(config)
        self._device = choose_device(pinned.device).value
        with tf.device(self._device), _one_line_errors(self._inputs.content.rgb.shape):
            self.preparation = preparation or prepare(
                pinned, self._device, [self._inputs.content, *self._inputs.styles], encoder, optimizer
            )
        self._encoder, self._optimizer = self.preparation.encoder, self.preparation.optimizer
        self._inputs.check(self._encoder, self.preparation.style_layers)
        full = self._inputs.content.rgb.shape[:2]
        self.shapes = scale_shapes(full, self._encoder.minimum_size, config)
        self.iterations = iterations_per_scale(config, len(self.shapes))
        self._chunk, self._step = self.preparation.step(self.iterations, pinned.steps_per_call, pause_every)
        self._image = tf.constant(self._inputs.start(config, self.shapes[0])[None])
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
        }
        self._resumed = 0, 0, False  # the scale, the iterations of it, and whether those were all
        self._keeper = self._keep(checkpoints, own_encoder=encoder is not None)

    def __iter__(self) -> Generator[Iteration, None, None]:
        began = time.perf_counter() - (self.history.seconds or [0.0])[-1]
        for scale, shape in enumerate(self.shapes, 1):
            if scale < self._resumed[0] + self._resumed[2]:
                continue
            with _one_line_errors(shape), self._keeper.storing_when_interrupted():
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
        with tf.device(self._device):
            targets = self._scale_targets(shape)
            begun, losses = self._done_before(scale)
            if not begun:
                self._image = tf.constant(resize(self._picture(), shape, self.config.clamp)[None])
                self._state = self._first_state(shape)
            step = self._step
            if isinstance(step, tf.types.experimental.PolymorphicFunction):
                # Each run has a step of its own to trace, of which TensorFlow warns from the fifth on.
                step = step.get_concrete_function(self._image, self._state, targets)
        iterations, bad = self.iterations[scale - 1], _not_finite_lately(losses)
        for done in range(begun, iterations, self._chunk):
            if _settled(losses, self.config.tolerance):
                break
            before = self._image, self._state
            with tf.device(self._device):
                self._image, self._state, terms = step(*before, targets)
            columns = {name: np.atleast_1d(term.numpy()) for name, term in terms.items()}
            seconds = time.perf_counter() - began
            for i in range(self._chunk):
                values = {name: float(column[i]) for name, column in columns.items()}
                self.history.record(scale, values, seconds)
                losses.append(values["total"])
                bad = 0 if math.isfinite(values["total"]) else bad + 1
                if bad > (PATIENCE if self._optimizer.recovers else 0):
                    self._fail(f"the loss is {values['total']} at iteration {done + i + 1} of scale {scale}")
                if i == self._chunk - 1:
                    self._last_good = before
                    self._reached(scale, done + self._chunk)
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
        if not any(map(math.isfinite, losses)):
            self._fail(f"no loss was finite in the {len(losses)} iterations of scale {scale}")
        if not np.isfinite(self._picture()).all():  # the last move, whose loss nobody looks at
            self._fail(f"the last iteration of scale {scale} left a picture that is not finite")
        self._reached(scale, len(losses), ended=True)

    def _keep(self, checkpoints: Checkpoints | None, own_encoder: bool) -> Keeper:
        """What stores this run; where there is a checkpoint the run is put where it was."""
        about: dict[str, Any] = {}
        if checkpoints is not None:
            chosen = chosen_options(self.config, self.facts, self._chunk, own_encoder)
            about = describe(self.config, self._inputs, self._encoder, self._optimizer, chosen)
            self.facts["run"] = digest(about["depends"])[:16]
        if checkpoints is not None and checkpoints.latest is not None:
            check_same(checkpoints, about)
            with tf.device(self._device):
                position = put_back(checkpoints.latest, self._optimizer, self.history)
            self._image, self._state, self._last_good = position.image, position.state, position.last_good
            self._resumed = position.scale, position.done, position.ended
            checkpoints.latest = None  # as large as the state, and no longer needed
        return Keeper(checkpoints, about, self._optimizer, self.history)

    def _done_before(self, scale: int) -> tuple[int, list[float]]:
        """The iterations of a scale that a checkpoint has put behind this run, and their losses."""
        if scale != self._resumed[0]:
            return 0, []
        of_scale = zip(self.history.total, self.history.scale, strict=True)
        return self._resumed[1], [loss for loss, of in of_scale if of == scale]

    def _reached(self, scale: int, done: int, ended: bool = False) -> None:
        self._keeper.reached(Position(scale, done, ended, self._image, self._state, self._last_good))

    def _fail(self, what: str) -> NoReturn:
        """Go back to the last good picture and raise."""
        self._image, self._state = self._last_good
        advice = "lower the weights or the learning rate, or use precision=float32"
        raise NotFiniteError(f"{what}; {advice}", self.result())

    def _solution(self) -> tf.Tensor:
        return self._image if self._state is None else self._optimizer.solution(self._image, self._state)

    def _picture(self) -> np.ndarray:
        return self._solution()[0].numpy()

    def _finished(self, image: tf.Tensor) -> np.ndarray:
        return self._inputs.finished(self.config, image[0].numpy())

    def _first_state(self, shape: tuple[int, int]) -> Any:
        """Of the optimiser at a scale.

        Afresh unless asked otherwise: moments and pairs carried over, resized, left L-BFGS's loss within
        1% after 60 iterations and made Adam's up to a tenth larger.
        """
        if self.config.keep_state and self._state is not None and self._optimizer.resize is not None:
            return self._optimizer.resize(self._state, shape)
        return self._optimizer.init(self._image)

    def _scale_targets(self, shape: tuple[int, int]) -> Any:
        """Of the content at this scale, and of the styles shrunk by the same factor."""
        factor = max(shape) / max(self.shapes[-1])
        styles = [self._style_summary(i, factor) for i in range(len(self._inputs.styles))]
        regions, keep = self._inputs.guided(self.config, shape, self._layer_weights)
        content = tf.constant(self._inputs.content.resized(shape).rgb[None])
        objective, blend = self.preparation.objective, self.config.style_blend
        return as_graph(lambda: objective.targets(content, styles, blend, regions, keep))

    def _style_summary(self, index: int, factor: float) -> Summaries:
        style, region = self._inputs.styles[index], self._inputs.style_regions[index]
        if isinstance(style, Style):
            size, _ = style_side(self._inputs.content, index, self.config)
            longest = size if self.config.enlarge or not style.original else min(size, style.original)
            return {layer: (tf.constant(gram[None]),) for layer, gram in style.at(factor * longest).items()}
        small = style.shrunk(factor, self._encoder.minimum_size)
        if region is not None:
            mask, name = resize_mask(region, small.rgb.shape[:2]), f"style mask {index + 1}"
            return self._encoded(small, self._layer_weights(mask, name))
        if self.config.color not in OWN_COLORS:  # in the content's: another for each content
            return self._encoded(small, {})
        known, key = self.preparation.summaries, (index, small.rgb.shape)
        if key not in known:
            known[key] = self._encoded(small, {})
        return known[key]

    def _encoded(self, style: Picture, weights: dict[str, tf.Tensor]) -> Summaries:
        image = tf.constant(style.on_white()[None])
        return as_graph(lambda: self.preparation.objective.style_summary(image, weights))

    def _layer_weights(self, mask: np.ndarray, name: str) -> dict[str, tf.Tensor]:
        shapes = layer_shapes(self._encoder, mask.shape[:2], self.preparation.style_layers)
        network = LAYERS_OF.get(self._encoder.network, ())
        return layer_weights(mask, shapes, self.config.guidance, name, network)


@contextlib.contextmanager
def _one_line_errors(shape: tuple[int, ...]) -> Iterator[None]:
    """Turn what goes wrong on the device into RunErrors."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise RunError(f"out of memory at {shape[1]} x {shape[0]} pixels; use a smaller size") from error
    except tf.errors.OpError as error:
        raise RunError(f"TensorFlow failed: {str(error).splitlines()[0][:200]}") from error


def _not_finite_lately(losses: Sequence[float]) -> int:
    """How many of the last losses, one after another, were not finite."""
    return next((i for i, loss in enumerate(reversed(losses)) if math.isfinite(loss)), len(losses))


def _settled(losses: Sequence[float], tolerance: float) -> bool:
    if tolerance == 0 or len(losses) <= TOLERANCE_WINDOW:
        return False
    before = losses[-1 - TOLERANCE_WINDOW]
    return before - min(losses[-TOLERANCE_WINDOW:]) < tolerance * abs(before)

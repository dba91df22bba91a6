"""One style transfer as it goes on: the step repeated, coarse to fine, with what it needs prepared."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from tfstyle import optimizers, weights
from tfstyle.config import CONTENT_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.device import choose_compile, choose_device, choose_precision
from tfstyle.encoder import Encoder
from tfstyle.errors import ConfigError, ImageError, NotFiniteError, RunError
from tfstyle.images import Picture, load, resize
from tfstyle.losses import Objective, balanced_units, paper_units
from tfstyle.optimizers import Optimizer
from tfstyle.plan import available_layers, scale_shapes, shares
from tfstyle.results import History, Result
from tfstyle.step import make_step

UNITS = {"balanced": balanced_units, "paper": paper_units}
TOLERANCE_WINDOW = 10  # iterations over which `StyleConfig.tolerance` looks at the loss
#: How many losses in a row may be infinite or NaN before a method that recovers is given up.
PATIENCE = 20


@dataclass(frozen=True, eq=False)
class Iteration:
    """One evaluation of the loss, as a run goes on.

    Attributes:
        iteration, iterations: the number of this one, from 1, and how many the scale will have.
        scale, scales: the same for the scale.
        shape: height and width of the picture at this scale.
        losses: ``total``, ``content``, ``style``, ``tv`` and ``style/<layer>``, weighted.
        seconds: since the optimisation began.
    """

    iteration: int
    iterations: int
    scale: int
    scales: int
    shape: tuple[int, int]
    losses: dict[str, float]
    seconds: float
    _solution: tf.Tensor

    @property
    def image(self) -> np.ndarray:
        """The picture so far, float32 ``[height, width, 3]``; fetched from the device when asked for."""
        return self._solution[0].numpy()


class Run:
    """One style transfer: iterate over it once, and take `result` whenever you like.

    Args, Raises: as `tfstyle.stylize`. Where the device does several iterations in one call, calls end
    at every multiple of ``pause_every`` iterations, so that a preview taken there is of that one.

    Attributes:
        shapes: ``(height, width)`` of each scale.
        history: so far.
    """

    def __init__(
        self,
        content: Any,
        style: Any,
        config: StyleConfig,
        encoder: Encoder | None = None,
        optimizer: Optimizer | keras.optimizers.Optimizer | None = None,
        pause_every: int = 0,
    ) -> None:
        self.config = config
        self.history = History()
        self._content, *self._styles = _load(content, style, config)
        self._device = choose_device(config.device).value
        compiler = choose_compile(config.compile, self._device).value
        precision = choose_precision(config.precision, self._device).value
        with tf.device(self._device), _one_line_errors(self._content.rgb.shape):
            self._encoder, content_layers, style_layers = self._make_encoder(encoder, precision)
        self._check_sizes()
        self.shapes = scale_shapes(self._content.rgb.shape[:2], config.scales, self._encoder.minimum_size)
        self._objective = Objective(
            self._encoder.features,
            shares(content_layers, config.content_layer_weights),
            shares(style_layers, config.style_layer_weights),
            config.content_weight,
            config.style_weight,
            config.tv_weight,
            UNITS[config.units],
        )
        self._optimizer = _optimizer(config, optimizer)
        limit = config.steps_per_call or (10 if "GPU" in self._device and self._optimizer.compiled else 1)
        # Chunks of one length, so that the step is compiled once.
        common = math.gcd(config.iterations, pause_every)
        self._chunk = max(d for d in range(1, min(limit, common) + 1) if common % d == 0)
        self._step = make_step(self._objective, self._optimizer, compiler, self._chunk)
        self._image = tf.constant(self._start()[None])
        self._state: Any = None
        self._last_good = self._image, self._state
        self.facts = {
            "weights": self._encoder.weights.source,
            "weights_note": self._encoder.weights.note,
            "weights_sha256": self._encoder.weights.sha256,
            "pooling": self._encoder.pooling,
            "padding": self._encoder.padding,
            "content_layers": content_layers,
            "style_layers": style_layers,
            "device": self._device,
            "compile": compiler,
            "precision": self._encoder.dtype,
        }

    def __iter__(self) -> Iterator[Iteration]:
        began = time.perf_counter()
        for scale, shape in enumerate(self.shapes, 1):
            with _one_line_errors(shape):
                yield from self._run_scale(scale, shape, began)

    def result(self) -> Result:
        """The picture so far, or, once the iteration has ended, the finished one."""
        image = self._picture()
        alpha = self._content.alpha
        if alpha is not None:
            alpha = resize(alpha[..., None], image.shape[:2])[..., 0]
        return Result(image, self.history, self.config, self.facts, alpha, self._content.bits)

    def _run_scale(self, scale: int, shape: tuple[int, int], began: float) -> Iterator[Iteration]:
        with tf.device(self._device):
            targets = self._scale_targets(shape)
            self._image = tf.constant(resize(self._picture(), shape)[None])
            # Afresh at every scale: moments and pairs carried over, resized, left L-BFGS's loss within 1%
            # after 60 iterations and made Adam's up to a tenth larger.
            self._state = self._optimizer.init(self._image)
        iterations, bad = self.config.iterations, 0
        losses: list[float] = []
        for done in range(0, iterations, self._chunk):
            before = self._image, self._state
            with tf.device(self._device):
                self._image, self._state, terms = self._step(*before, targets)
            columns = {name: np.atleast_1d(term.numpy()) for name, term in terms.items()}
            seconds = time.perf_counter() - began
            for i in range(self._chunk):
                values = {name: float(column[i]) for name, column in columns.items()}
                self.history.record(scale, values, seconds)
                losses.append(values["total"])
                bad = 0 if math.isfinite(values["total"]) else bad + 1
                if bad > (PATIENCE if self._optimizer.recovers else 0):
                    self._fail(f"the loss is {values['total']} at iteration {done + i + 1} of scale {scale}")
                yield Iteration(
                    done + i + 1,
                    iterations,
                    scale,
                    len(self.shapes),
                    shape,
                    values,
                    seconds,
                    self._solution(),
                )
            self._last_good = before
            if _settled(losses, self.config.tolerance):
                break
        if not any(map(math.isfinite, losses)):
            self._fail(f"no loss was finite in the {len(losses)} iterations of scale {scale}")
        if not np.isfinite(self._picture()).all():  # the last move, whose loss nobody looks at
            self._fail(f"the last iteration of scale {scale} left a picture that is not finite")

    def _fail(self, what: str) -> NoReturn:
        """Go back to the last good picture and raise."""
        self._image, self._state = self._last_good
        advice = "lower the weights or the learning rate, or use precision=float32"
        raise NotFiniteError(f"{what}; {advice}", self.result())

    def _solution(self) -> tf.Tensor:
        return self._image if self._state is None else self._optimizer.solution(self._image, self._state)

    def _picture(self) -> np.ndarray:
        return self._solution()[0].numpy()

    def _check_sizes(self) -> None:
        minimum = self._encoder.minimum_size
        styles = {f"style image {i}": style for i, style in enumerate(self._styles, 1)}
        for name, picture in {"the content image": self._content, **styles}.items():
            height, width = picture.rgb.shape[:2]
            if min(height, width) < minimum:
                raise ImageError(
                    f"{name} is {width} x {height} pixels at this size; at least {minimum} a side are needed"
                )

    def _scale_targets(self, shape: tuple[int, int]) -> Any:
        """Content at this scale, and styles shrunk by the same factor, but never below what fits."""
        factor = max(shape) / max(self.shapes[-1])
        minimum = self._encoder.minimum_size
        styles = []
        for picture in self._styles:
            height, width = picture.rgb.shape[:2]
            least = min(1.0, minimum / min(height, width))
            at = max(factor, least)
            small = picture.resized((max(1, round(height * at)), max(1, round(width * at))))
            styles.append(tf.constant(small.on_white()[None]))
        content = tf.constant(self._content.resized(shape).rgb[None])
        blend = self.config.style_blend
        # As a graph, which frees features as it goes; made by hand, as each size is traced just once
        # and a tf.function called like that warns of it.
        graph = tf.function(lambda: self._objective.targets(content, styles, blend), autograph=False)
        return graph.get_concrete_function()()

    def _make_encoder(
        self, given: Encoder | None, precision: str
    ) -> tuple[Encoder, tuple[str, ...], tuple[str, ...]]:
        """The encoder, with the content and style layers that are to be read from it."""
        config = self.config
        if given is not None:
            content = config.content_layers or tuple(x for x in CONTENT_LAYERS if x in given.layers)
            style = config.style_layers or tuple(x for x in STYLE_LAYERS if x in given.layers)
            missing = [layer for layer in (*content, *style) if layer not in given.layers]
            if missing or not content or not style:
                raise ConfigError(f"the encoder gives {', '.join(given.layers)}; choose the layers there")
            return self._normalized(given), content, style
        loaded = weights.load(config.weights, config.seed)
        content, style = available_layers(config, loaded)
        encoder = Encoder((*content, *style), loaded, config.pooling, config.padding, precision)
        return self._normalized(encoder), content, style

    def _normalized(self, encoder: Encoder) -> Encoder:
        if not self.config.normalize_weights:
            return encoder
        return encoder.normalized([tf.constant(p.on_white()[None]) for p in (self._content, *self._styles)])

    def _start(self) -> np.ndarray:
        """What the first scale starts from, float32 ``[height, width, 3]``, at its size."""
        config, shape = self.config, self.shapes[0]
        if config.init == "content":
            return self._content.resized(shape).rgb
        if config.init == "noise":
            noise = np.random.default_rng(config.seed).normal(0.5, 0.25, (*shape, 3))
            return np.clip(noise, 0, 1).astype(np.float32)
        source = self._styles[0] if config.init == "style" else load(config.init, config.max_pixels)
        return resize(source.on_white(), shape)


@contextlib.contextmanager
def _one_line_errors(shape: tuple[int, ...]) -> Iterator[None]:
    """Turn what goes wrong on the device into RunErrors."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise RunError(f"out of memory at {shape[1]} x {shape[0]} pixels; use a smaller size") from error
    except tf.errors.OpError as error:
        raise RunError(f"TensorFlow failed: {str(error).splitlines()[0][:200]}") from error


def _load(content: Any, style: Any, config: StyleConfig) -> list[Picture]:
    """The content and the styles, at the size of the last scale."""
    styles = style if isinstance(style, (list, tuple)) else [style]
    if not styles:
        raise ConfigError("no style image")
    if config.style_blend is not None and len(config.style_blend) != len(styles):
        raise ConfigError(f"style_blend has {len(config.style_blend)} numbers for {len(styles)} style images")
    return [load(s, config.max_pixels).fitted(config.size, config.enlarge) for s in (content, *styles)]


def _optimizer(config: StyleConfig, given: Optimizer | keras.optimizers.Optimizer | None) -> Optimizer:
    if given is not None:
        return given if isinstance(given, Optimizer) else optimizers.from_keras(given)
    made = {
        # beta_2 0.99 as in crowsonkb's program; after 100 iterations at each of two sizes the loss was 1.4%
        # below that with 0.999.
        "adam": lambda: optimizers.adam(config.learning_rate, beta_2=0.99),
        "lbfgs": lambda: optimizers.lbfgs(config.lbfgs_history),
    }
    return made[config.optimizer]()


def _settled(losses: Sequence[float], tolerance: float) -> bool:
    if tolerance == 0 or len(losses) <= TOLERANCE_WINDOW:
        return False
    before = losses[-1 - TOLERANCE_WINDOW]
    return before - min(losses[-TOLERANCE_WINDOW:]) < tolerance * abs(before)

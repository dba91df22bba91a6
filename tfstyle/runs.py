"""One style transfer as it goes on: the step repeated, coarse to fine, with what it needs prepared."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
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
from tfstyle.results import History, Iteration, Result
from tfstyle.step import make_step
from tfstyle.styles import Style

UNITS = {"balanced": balanced_units, "paper": paper_units}
TOLERANCE_WINDOW = 10  # iterations over which `StyleConfig.tolerance` looks at the loss
#: How many losses in a row may be infinite or NaN before a method that recovers is given up.
PATIENCE = 20


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
        self._content, self._styles = _load(content, style, config)
        self._device = choose_device(config.device).value
        compiler = choose_compile(config.compile, self._device).value
        precision = choose_precision(config.precision, self._device).value
        with tf.device(self._device), _one_line_errors(self._content.rgb.shape):
            self._encoder, content_layers, style_layers = self._make_encoder(encoder, precision)
        self._check_inputs(style_layers)
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
            step = self._step
            if isinstance(step, tf.types.experimental.PolymorphicFunction):
                # Each run has a step of its own to trace, of which TensorFlow warns from the fifth on.
                step = step.get_concrete_function(self._image, self._state, targets)
        iterations, bad = self.config.iterations, 0
        losses: list[float] = []
        for done in range(0, iterations, self._chunk):
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

    def _check_inputs(self, layers: Sequence[str]) -> None:
        """Raise an InputError where an image is too small, or a kept style of another encoder's."""
        minimum = self._encoder.minimum_size
        pictures: dict[str, Any] = {"the content image": self._content}
        for i, style in enumerate(self._styles, 1):
            if isinstance(style, Style):
                style.check(self._encoder, layers)
            else:
                pictures[f"style image {i}"] = style
        for name, picture in pictures.items():
            height, width = picture.rgb.shape[:2]
            if min(height, width) < minimum:
                raise ImageError(
                    f"{name} is {width} x {height} pixels at this size; at least {minimum} a side are needed"
                )

    def _scale_targets(self, shape: tuple[int, int]) -> Any:
        """Of the content at this scale, and of the styles shrunk by the same factor."""
        factor = max(shape) / max(self.shapes[-1])
        styles = [self._style_summary(style, factor) for style in self._styles]
        content = tf.constant(self._content.resized(shape).rgb[None])
        return _as_graph(lambda: self._objective.targets(content, styles, self.config.style_blend))

    def _style_summary(self, style: Picture | Style, factor: float) -> dict[str, tf.Tensor]:
        if isinstance(style, Style):
            longest = self.config.size if self.config.enlarge else min(self.config.size, style.original)
            return {layer: tf.constant(gram[None]) for layer, gram in style.at(factor * longest).items()}
        image = tf.constant(style.shrunk(factor, self._encoder.minimum_size).on_white()[None])
        return _as_graph(lambda: self._objective.style_summary(image))

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
        pictures = [p for p in (self._content, *self._styles) if isinstance(p, Picture)]
        if len(pictures) <= len(self._styles):
            raise ConfigError(
                "normalize_weights (also in preset gatys2016) needs the style's image, not its Gram matrices"
            )
        return encoder.normalized([tf.constant(p.on_white()[None]) for p in pictures])

    def _start(self) -> np.ndarray:
        """What the first scale starts from, float32 ``[height, width, 3]``, at its size."""
        config, shape = self.config, self.shapes[0]
        if config.init == "content":
            return self._content.resized(shape).rgb
        if config.init == "noise":
            noise = np.random.default_rng(config.seed).normal(0.5, 0.25, (*shape, 3))
            return np.clip(noise, 0, 1).astype(np.float32)
        source = self._styles[0] if config.init == "style" else load(config.init, config.max_pixels)
        if isinstance(source, Style):
            raise ConfigError("init is 'style', which needs the style's image, not its Gram matrices")
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


def _as_graph(function: Callable[[], Any]) -> Any:
    """Call a function once as a graph, which frees features as it goes.

    Made by hand, as each size is traced just once, and a tf.function called like that warns of it.
    """
    return tf.function(function, autograph=False).get_concrete_function()()


def _load(content: Any, style: Any, config: StyleConfig) -> tuple[Picture, list[Picture | Style]]:
    """The content and the styles, at the size of the last scale."""
    styles = style if isinstance(style, (list, tuple)) else [style]
    if not styles:
        raise ConfigError("no style image")
    if config.style_blend is not None and len(config.style_blend) != len(styles):
        raise ConfigError(f"style_blend has {len(config.style_blend)} numbers for {len(styles)} style images")

    def picture(source: Any) -> Picture:
        return load(source, config.max_pixels).fitted(config.size, config.enlarge)

    return picture(content), [Style.of(source) or picture(source) for source in styles]


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

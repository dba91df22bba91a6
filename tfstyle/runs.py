"""One style transfer as it goes on: the step repeated, coarse to fine, with what it needs prepared."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfstyle import optimizers, weights
from tfstyle.config import CONTENT_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.device import choose_compile, choose_device, choose_precision
from tfstyle.encoder import LAYERS, Encoder
from tfstyle.errors import ConfigError, ImageError, NotFiniteError, RunError
from tfstyle.images import load, resize
from tfstyle.losses import Objective, balanced_units, paper_units
from tfstyle.optimizers import Optimizer
from tfstyle.results import History, Result
from tfstyle.step import make_step

log = logging.getLogger(__name__)

UNITS = {"balanced": balanced_units, "paper": paper_units}
COARSEST = 128  # pixels, about the longest side of the first scale
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
    _picture: Callable[[], np.ndarray]

    @property
    def image(self) -> np.ndarray:
        """The picture so far, float32 ``[height, width, 3]``; fetched from the device when asked for."""
        return self._picture()


class Run:
    """One style transfer: iterate over it once, and take `result` whenever you like.

    Args, Raises: as `tfstyle.stylize`.

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
    ) -> None:
        self.config = config
        self.history = History()
        self._content = load(content, config.max_pixels).fitted(config.size, config.enlarge)
        self._styles = [
            load(s, config.max_pixels) for s in (style if isinstance(style, (list, tuple)) else [style])
        ]
        if not self._styles:
            raise ConfigError("no style image")
        if config.style_blend is not None and len(config.style_blend) != len(self._styles):
            raise ConfigError(
                f"style_blend has {len(config.style_blend)} numbers for {len(self._styles)} style images"
            )
        self._device = choose_device(config.device).value
        compiler = choose_compile(config.compile, self._device).value
        precision = choose_precision(config.precision, self._device).value
        with tf.device(self._device):
            self._encoder, content_layers, style_layers = self._make_encoder(encoder, precision)
        self.shapes = scale_shapes(self._content.rgb.shape[:2], config.scales, self._encoder.minimum_size)
        self._objective = Objective(
            self._encoder.features,
            _shares(content_layers, config.content_layer_weights),
            _shares(style_layers, config.style_layer_weights),
            config.content_weight,
            config.style_weight,
            config.tv_weight,
            UNITS[config.units],
        )
        self._optimizer = _optimizer(config, optimizer)
        limit = config.steps_per_call or (10 if "GPU" in self._device and self._optimizer.compiled else 1)
        # Chunks of one length, so that the step is compiled once.
        self._chunk = max(d for d in range(1, limit + 1) if config.iterations % d == 0)
        self._step = make_step(self._objective, self._optimizer, compiler, self._chunk)
        self._image = tf.constant(self._start()[None])
        self._state: Any = None
        self._last_good = self._image, self._state
        self.facts = {
            "weights": self._encoder.weights.source,
            "weights_note": self._encoder.weights.note,
            "weights_sha256": self._encoder.weights.sha256,
            "content_layers": content_layers,
            "style_layers": style_layers,
            "device": self._device,
            "compile": compiler,
            "precision": self._encoder.dtype,
        }

    def __iter__(self) -> Iterator[Iteration]:
        began = time.perf_counter()
        try:
            for scale, shape in enumerate(self.shapes, 1):
                yield from self._run_scale(scale, shape, began)
        except tf.errors.ResourceExhaustedError as error:
            raise RunError(
                f"out of memory at {shape[1]} x {shape[0]} pixels; use a smaller size "
                f"({str(error).splitlines()[0][:100]})"
            ) from error

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
                    self._image, self._state = self._last_good
                    raise NotFiniteError(
                        f"the loss is {values['total']} at iteration {done + i + 1} of scale {scale}; "
                        "lower the weights or the learning rate, or use precision=float32",
                        self.result(),
                    )
                yield Iteration(
                    done + i + 1, iterations, scale, len(self.shapes), shape, values, seconds, self._picture
                )
            self._last_good = before
            if _settled(losses, self.config.tolerance):
                return

    def _picture(self) -> np.ndarray:
        image = self._image if self._state is None else self._optimizer.solution(self._image, self._state)
        return image[0].numpy()

    def _scale_targets(self, shape: tuple[int, int]) -> Any:
        """Content at this scale, and styles shrunk by the same factor, but never below what fits."""
        factor = max(shape) / max(self.shapes[-1])
        minimum = self._encoder.minimum_size
        styles = []
        for picture in self._styles:
            full = picture.fitted(self.config.size, self.config.enlarge)
            height, width = full.rgb.shape[:2]
            least = min(1.0, minimum / min(height, width))
            at = max(factor, least)
            small = full.resized((max(1, round(height * at)), max(1, round(width * at))))
            styles.append(tf.constant(small.on_white()[None]))
        content = tf.constant(self._content.resized(shape).rgb[None])
        blend = self.config.style_blend
        # As a graph, which frees features as it goes; made by hand, as each size is traced just once
        # and a tf.function called like that warns of it.
        graph = tf.function(lambda: self._objective.targets(content, styles, blend))
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
            return given, content, style
        loaded = weights.load(config.weights, config.seed)
        if loaded.note:
            log.warning("%s", loaded.note)
        content, style = _available_layers(config, loaded)
        encoder = Encoder((*content, *style), loaded, config.pooling, config.padding, precision)
        if config.normalize_weights:
            images = [self._content, *(s.fitted(config.size, config.enlarge) for s in self._styles)]
            encoder = encoder.normalized([tf.constant(image.on_white()[None]) for image in images])
        return encoder, content, style

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


def scale_shapes(full: tuple[int, int], scales: int | None, minimum: int) -> list[tuple[int, int]]:
    """Height and width of every scale, coarse to fine, each twice the one before.

    Args:
        full: height and width of the last.
        scales: how many; by default as many as take the longest side down to about 128.
        minimum: scales whose shorter side is below this are left out.

    Raises:
        ImageError: not even the last one is large enough.
    """
    if min(full) < minimum:
        raise ImageError(
            f"the content image is {full[1]} x {full[0]} pixels at this size; "
            f"at least {minimum} a side are needed"
        )
    count = scales or max(1, round(math.log2(max(full) / COARSEST)) + 1)
    shapes = [(round(full[0] / 2**k), round(full[1] / 2**k)) for k in reversed(range(count))]
    return [shape for shape in shapes if min(shape) >= minimum]


def _available_layers(
    config: StyleConfig, loaded: weights.Weights
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Content and style layers, where the weights stop below a default one replaced and said so."""
    there = LAYERS[: len(loaded.convolutions)]
    content, style = config.content_layers, config.style_layers
    if content is None:
        content = CONTENT_LAYERS if set(CONTENT_LAYERS) <= set(there) else (there[-2:][0],)
    if style is None:
        kept = [layer for layer in STYLE_LAYERS if layer in there]
        style = STYLE_LAYERS if len(kept) == len(STYLE_LAYERS) else tuple(dict.fromkeys([*kept, there[-1]]))
    if (config.content_layers is None and content != CONTENT_LAYERS) or (
        config.style_layers is None and style != STYLE_LAYERS
    ):
        log.warning(
            "%s stops at %s: style layers %s; content layer %s",
            loaded.source, there[-1], ",".join(style), ",".join(content),
        )  # fmt: skip
    return content, style


def _optimizer(config: StyleConfig, given: Optimizer | keras.optimizers.Optimizer | None) -> Optimizer:
    if given is not None:
        return given if isinstance(given, Optimizer) else optimizers.from_keras(given)
    made = {
        # beta_2 0.99 as in crowsonkb's program: after 100 iterations at each of three sizes the loss was
        # some tenth lower than with 0.999.
        "adam": lambda: optimizers.adam(config.learning_rate, beta_2=0.99),
        "lbfgs": lambda: optimizers.lbfgs(config.lbfgs_history),
    }
    return made[config.optimizer]()


def _shares(layers: Sequence[str], given: Sequence[float] | None) -> dict[str, float]:
    """Layer -> its share; the shares add up to 1, as Gatys et al. have them."""
    numbers = given or [1.0] * len(layers)
    return {layer: n / sum(numbers) for layer, n in zip(layers, numbers, strict=True)}


def _settled(losses: Sequence[float], tolerance: float) -> bool:
    if tolerance == 0 or len(losses) <= TOLERANCE_WINDOW:
        return False
    before = losses[-1 - TOLERANCE_WINDOW]
    return before - min(losses[-TOLERANCE_WINDOW:]) < tolerance * abs(before)

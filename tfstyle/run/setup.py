"""The parts of a run that its options select: scales, layers, encoder, objective, optimiser and step."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfstyle import addons
from tfstyle.config import CONTENT_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.device import choose_compile, choose_precision
from tfstyle.errors import ConfigError
from tfstyle.images import ImageArray
from tfstyle.losses import (
    GRAM,
    HISTOGRAM,
    MEAN_DEVIATION,
    LossNormalization,
    Objective,
    Style,
    StyleLoss,
    Summaries,
    Variation,
    balanced_normalization,
    channel_normalization,
    cross_layer_gram,
    mean_normalization,
    nine_point_variation,
    paper_normalization,
    require_images,
    root_normalization,
    shares,
    shifted_gram,
    sliced_wasserstein,
    summed_differences,
    summed_squares,
    total_variation,
    wasserstein,
    windowed_gram,
)
from tfstyle.network import Encoder, Weights, default_layers, load_weights
from tfstyle.optim import (
    HIGH,
    LOW,
    Optimizer,
    Step,
    adam,
    averaged,
    from_keras,
    lbfgs,
    lbfgs_fixed_step,
    make_step,
)
from tfstyle.tiling import TiledObjective, make_host_step

log = logging.getLogger(__name__)

Shape = tuple[int, int]

LOSS_NORMALIZATIONS: Mapping[str, LossNormalization] = {
    "balanced": balanced_normalization,
    "paper": paper_normalization,
    "mean": mean_normalization,
    "channels": channel_normalization,
    "root": root_normalization,
}
VARIATIONS: Mapping[str, Variation] = {
    "mean_squared": total_variation,
    "sum_squared": summed_squares,
    "sum_absolute": summed_differences,
    "nine_point": nine_point_variation,
}
STYLE_LOSSES: Mapping[str, StyleLoss] = {
    "gram": GRAM,
    "mean_deviation": MEAN_DEVIATION,
    "wasserstein": wasserstein(),
    "histogram": HISTOGRAM,
    "sliced": sliced_wasserstein(),
    "shift": shifted_gram(),
    "local": windowed_gram(),
    "local_by_content": windowed_gram(by_content=True),
    "chain": cross_layer_gram(),
    "blurred": cross_layer_gram(blurred=True),
    "across": cross_layer_gram(15),
}


class Scale(NamedTuple):
    """One of the sizes that a run goes through, coarse to fine.

    Attributes:
        number: 1 for the coarsest.
        shape: height and width of the image in pixels.
        factor: size of the image over that at the last scale, up to 1.
        iterations: evaluations of the loss.
    """

    number: int
    shape: Shape
    factor: float
    iterations: int


def plan_scales(full: Shape, config: StyleConfig, *, minimum: int) -> list[Scale]:
    """Plan the scales of a run, coarse to fine.

    Args:
        full: height and width of the last scale.
        config: its ``scales``, ``scale_factor``, ``min_scale``, ``iterations`` and the like.
        minimum: scales whose shorter side is below this are left out.
    """
    shapes = scale_shapes(full, config, minimum=minimum)
    counts = iterations_per_scale(config, len(shapes))
    return [
        Scale(number, shape, max(shape) / max(full), count)
        for number, (shape, count) in enumerate(zip(shapes, counts, strict=True), 1)
    ]


def scale_shapes(full: Shape, config: StyleConfig, *, minimum: int) -> list[Shape]:
    """Height and width of every scale, each `StyleConfig.scale_factor` times as large as the one before.

    Args:
        full, config, minimum: as `plan_scales`; by default there are as many scales as keep to ``min_scale``.
    """
    ratio = max(measured_side(full, config) / config.min_scale, 1.0)
    fitting = math.log(ratio) / math.log(config.scale_factor)
    count = config.scales or math.floor(fitting + 1e-9) + 1
    factors = [config.scale_factor**k for k in reversed(range(count))]
    shapes = [(round(full[0] / f), round(full[1] / f)) for f in factors]
    return [shape for shape in shapes if min(shape) >= minimum]


def iterations_per_scale(config: StyleConfig, scales: int) -> list[int]:
    """Evaluations of the loss at each of so many scales, coarse to fine."""
    first = config.first_iterations or config.iterations
    later = [
        0 if config.iteration_decay is None else int(first / config.iteration_decay**k + 1e-9)
        for k in range(1, scales)
    ]
    return [first, *(max(count, config.iterations) for count in later)]


def measured_side(shape: Sequence[int], config: StyleConfig) -> float:
    """The side of an image, in pixels, that `StyleConfig.size` sets: ``size_of`` says which."""
    height, width = shape[:2]
    sides = {"longest": max(height, width), "shortest": min(height, width), "area": math.sqrt(height * width)}
    return sides[config.size_of]


@dataclass(eq=False)
class TransferSetup:
    """All parts of a run that do not depend on the content image; `make_setup` builds it.

    Reuse it for runs with the same options and style images: where the shapes are the same too, nothing is
    compiled or encoded again.

    Attributes:
        encoder: with the content and the style layers.
        content_layers, style_layers: the names of these layers.
        objective: of the options.
        optimizer: of the options, or the caller's.
        device: ``/CPU:0`` or the like, where the tensors live.
        compiler: ``xla``, ``graph`` or ``eager``.
        lbfgs_pairs: curvature pairs that the L-BFGS of the options keeps; None with another optimiser.
        make_lbfgs: number of curvature pairs -> L-BFGS with that number; None with another optimiser.
        style_summaries: a cache of style images' summaries, filled by `tfstyle.run.inputs.ScaleTargets`.
        steps: a cache of the compiled steps.
    """

    encoder: Encoder
    content_layers: tuple[str, ...]
    _: KW_ONLY
    style_layers: tuple[str, ...]
    objective: Objective
    optimizer: Optimizer
    device: str
    compiler: str
    lbfgs_pairs: int | None = None
    make_lbfgs: Callable[[int], Optimizer] | None = None
    style_summaries: dict[Hashable, Summaries] = field(default_factory=dict)
    steps: dict[Hashable, Callable[..., Any]] = field(default_factory=dict)
    _tiled_objectives: dict[Shape, TiledObjective] = field(default_factory=dict)
    _optimizers: dict[int, Optimizer] = field(default_factory=dict)

    def for_other_styles(self) -> TransferSetup:
        """The same setup, compiled steps included, for runs with other style images."""
        return dataclasses.replace(self, style_summaries={})

    def step(self, iterations: Sequence[int], limit: int | None, *, pause_every: int = 0) -> tuple[int, Step]:
        """The compiled step, and how many iterations one call of it does.

        Args:
            iterations: of each scale; the iterations of a call divide each of them, so that the step is
                compiled once.
            limit: the most iterations in a call, by default 10 on a GPU and 1 elsewhere.
            pause_every: a call never runs past a multiple of this number of iterations; 0 for no such limit.
        """
        limit = limit or (10 if "GPU" in self.device and self.optimizer.traceable else 1)
        common = math.gcd(*iterations, pause_every)
        per_call = max(d for d in range(1, min(limit, common) + 1) if common % d == 0)
        if per_call not in self.steps:
            self.steps[per_call] = make_step(
                self.objective, self.optimizer, compile=self.compiler, steps=per_call
            )
        return per_call, self.steps[per_call]

    def evaluate(self, function: Callable[[], Any]) -> Any:
        """Call a function once and return its result: as a graph, or eagerly with ``compile="eager"``."""
        return function() if self.compiler == "eager" else call_as_graph(function)

    def tiled_objective(self, side: Shape) -> TiledObjective:
        """The objective, evaluated in tiles of a height and width in pixels.

        Raises:
            ConfigError: the objective needs the whole image at once.
        """
        if side not in self._tiled_objectives:
            self._tiled_objectives[side] = TiledObjective(
                self.objective, self.encoder, side=side, compile=self.compiler
            )
        return self._tiled_objectives[side]

    def tiled_step(self, side: Shape, lbfgs_pairs: int | None) -> Callable[..., Any]:
        """One iteration in tiles of an image in host memory.

        Args:
            side: height and width of the tiles in pixels.
            lbfgs_pairs: as `optimizer_with`.
        """
        key = side, lbfgs_pairs
        if key not in self.steps:
            evaluate = self.tiled_objective(side).value_and_gradient
            self.steps[key] = make_host_step(evaluate, self.optimizer_with(lbfgs_pairs))
        return self.steps[key]

    def optimizer_with(self, lbfgs_pairs: int | None) -> Optimizer:
        """The optimiser; if it is L-BFGS, with that number of curvature pairs (None: that of the options)."""
        if lbfgs_pairs is None or lbfgs_pairs == self.lbfgs_pairs or self.make_lbfgs is None:
            return self.optimizer
        if lbfgs_pairs not in self._optimizers:
            self._optimizers[lbfgs_pairs] = self.make_lbfgs(lbfgs_pairs)
        return self._optimizers[lbfgs_pairs]


def make_setup(
    config: StyleConfig,
    device: str,
    *,
    images: Sequence[ImageArray | Style] = (),
    encoder: Encoder | None = None,
    optimizer: Optimizer | keras.optimizers.Optimizer | None = None,
) -> TransferSetup:
    """Turn the names in a config into an encoder, an objective and an optimiser.

    Args:
        config: the options.
        device: as `tfstyle.device.choose_device` gives it; call this function within `tf.device` of it.
        images: the content image and the styles, over which weights are normalised.
        encoder, optimizer: the caller's, in place of those that the config names.

    Raises:
        ConfigError, WeightsError: as `tfstyle.stylize`.
    """
    compiler = choose_compile(config.compile, device).value
    precision = choose_precision(config.precision, device).value
    if encoder is None:
        encoder, content_layers, style_layers = _make_encoder(config, precision)
    else:
        content_layers, style_layers = _layers_of(encoder, config)
    if config.normalize_weights:
        pixels = require_images(images, "normalize_weights (also in preset gatys2016)")
        encoder = encoder.normalized([tf.constant(image.on_white()[None]) for image in pixels])
    has_lbfgs = optimizer is None and config.optimizer.startswith("lbfgs")
    return TransferSetup(
        encoder,
        content_layers,
        style_layers=style_layers,
        objective=_make_objective(config, encoder, content_layers, style_layers),
        optimizer=_make_optimizer(config, optimizer),
        device=device,
        compiler=compiler,
        lbfgs_pairs=config.lbfgs_history if has_lbfgs else None,
        make_lbfgs=lambda pairs: _make_optimizer(config.replace({"lbfgs_history": pairs}), None),
    )


def _make_encoder(config: StyleConfig, precision: str) -> tuple[Encoder, tuple[str, ...], tuple[str, ...]]:
    """The encoder that a config names, with the content and style layers that are read from it."""
    weights = load_weights(config.weights, seed=config.seed, network=config.network)
    content_layers, style_layers = choose_layers(config, weights)
    encoder = Encoder(
        (*content_layers, *style_layers),
        weights,
        pooling=config.pooling,
        padding=config.padding,
        dtype=precision,
        network=config.network,
        pixel_range=config.pixel_range,
        feature_scale=config.feature_scale,
    )
    return encoder, content_layers, style_layers


def _layers_of(encoder: Encoder, config: StyleConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Content and style layers of an encoder that the caller made."""
    content = config.content_layers or tuple(x for x in CONTENT_LAYERS if x in encoder.layers)
    style = config.style_layers or tuple(x for x in STYLE_LAYERS if x in encoder.layers)
    missing = [layer for layer in (*content, *style) if layer not in encoder.layers]
    if missing or not content or not style:
        raise ConfigError(f"the encoder gives {', '.join(encoder.layers)}; choose the layers there")
    return content, style


def choose_layers(config: StyleConfig, weights: Weights) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Content and style layers of a run; where the weights stop below a default one, log what replaces it."""
    content, style = default_layers(weights)
    replaced = (config.content_layers is None and content != CONTENT_LAYERS) or (
        config.style_layers is None and style != STYLE_LAYERS
    )
    content, style = config.content_layers or content, config.style_layers or style
    if replaced:
        # Whoever chose a file should know; the embedded weights have said already what they are.
        log.log(
            logging.INFO if weights.source == "embedded" else logging.WARNING,
            "%s stops at %s: style layers %s; content layer %s",
            weights.source, weights.layer_names[-1], ",".join(style), ",".join(content),
        )  # fmt: skip
    return content, style


def _make_objective(
    config: StyleConfig, encoder: Encoder, content_layers: Sequence[str], style_layers: Sequence[str]
) -> Objective:
    loss_weights = config.style_loss_weights or [1.0] * len(config.style_losses)
    return Objective(
        encoder.features,
        shares(content_layers, config.content_layer_weights),
        style_layers=shares(style_layers, config.style_layer_weights),
        content_weight=config.content_weight,
        style_weight=config.style_weight,
        tv_weight=config.tv_weight,
        normalization=LOSS_NORMALIZATIONS[config.loss_normalization],
        style_losses=[
            (STYLE_LOSSES[name], weight)
            for name, weight in zip(config.style_losses, loss_weights, strict=True)
        ],
        variation=VARIATIONS[config.tv_form],
        unit_gradients=config.normalize_gradients,
    )


def _make_optimizer(config: StyleConfig, given: Optimizer | keras.optimizers.Optimizer | None) -> Optimizer:
    """The optimiser that a config names, or the caller's, with the EMA of the config around it."""
    low, high = (LOW, HIGH) if config.clamp else (-math.inf, math.inf)
    if isinstance(given, Optimizer):
        optimizer = given
    elif given is not None:
        optimizer = from_keras(given, low=low, high=high)
    else:
        optimizer = _named_optimizer(config, low, high)
    return averaged(optimizer, config.ema_decay) if config.ema_decay > 0 else optimizer


def _named_optimizer(config: StyleConfig, low: float, high: float) -> Optimizer:
    if config.optimizer == "adam":
        return adam(
            config.learning_rate,
            beta_1=config.beta_1,
            beta_2=config.beta_2,
            epsilon=config.epsilon,
            low=low,
            high=high,
            corrected=config.epsilon_corrected,
        )
    if config.optimizer == "lbfgs":
        return lbfgs(config.lbfgs_history, low=low, high=high)
    if config.optimizer == "lbfgs_fixed_step":
        # Its first move depends on what a step of 1 is: a grey level, as other programs count.
        return lbfgs_fixed_step(config.lbfgs_history, low=low, high=high, unit=1.0 / config.pixel_range)
    name = config.optimizer.removeprefix("addons:")
    keras_optimizer = addons.optimizer(name, config.learning_rate, beta_1=config.beta_1, beta_2=config.beta_2)
    return from_keras(keras_optimizer, low=low, high=high, per_pixel=True)


def call_as_graph(function: Callable[[], Any]) -> Any:
    """Call a function once as a graph, which frees features as it goes.

    Made by hand, as each size is traced just once, and a tf.function called like that warns of it.
    """
    return tf.function(function, autograph=False).get_concrete_function()()


def layer_shapes(encoder: Encoder, shape: Shape, *, layers: Sequence[str]) -> dict[str, Shape]:
    """Layer -> height and width of its features, for an image of a height and width in pixels."""
    traced = tf.function(encoder.features, autograph=False).get_concrete_function(
        tf.TensorSpec([1, *shape, 3], tf.float32)
    )
    return {layer: tuple(traced.structured_outputs[layer].shape[1:3]) for layer in layers}

"""What runs with the same options and styles share: the encoder, the objective, the compiled step."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    "across": cross_layer_gram(deeper=15),
}


@dataclass(frozen=True, eq=False)
class TransferSetup:
    """Made by `prepare`; with the same one a further run of equal shapes compiles and encodes nothing again.

    Attributes:
        encoder: with all layers that are asked for.
        content_layers, style_layers: which those are.
        objective: of the config.
        optimizer: of the config, or given.
        device: ``/CPU:0`` or the like, where all of it lives.
        compiler: ``xla``, ``graph`` or ``eager``.
        summaries: of styles, by what they are of.
        steps: iterations in one call -> the compiled step.
        history: pairs that the config's L-BFGS keeps; None: another optimiser.
        shortened: (pairs) -> that optimiser with so many.
    """

    encoder: Encoder
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    objective: Objective
    optimizer: Optimizer
    device: str
    compiler: str
    summaries: dict[Hashable, Summaries] = field(default_factory=dict)
    steps: dict[Hashable, Callable[..., Any]] = field(default_factory=dict)
    history: int | None = None
    shortened: Callable[[int], Optimizer] | None = None
    _tiled: dict[Hashable, TiledObjective] = field(default_factory=dict)
    _kept: dict[int, Optimizer] = field(default_factory=dict)

    def step(self, iterations: Sequence[int], limit: int | None, pause_every: int) -> tuple[int, Step]:
        """How many iterations one call does, and the step that does them.

        Args:
            iterations: of each scale; calls divide each of them, so that the step is compiled once.
            limit: the most, by default 10 on a GPU and 1 elsewhere.
            pause_every: calls end at every multiple of it; 0: nowhere in particular.
        """
        limit = limit or (10 if "GPU" in self.device and self.optimizer.traceable else 1)
        common = math.gcd(*iterations, pause_every)
        chunk = max(d for d in range(1, min(limit, common) + 1) if common % d == 0)
        if chunk not in self.steps:
            self.steps[chunk] = make_step(self.objective, self.optimizer, self.compiler, chunk)
        return chunk, self.steps[chunk]

    def tiled(self, side: tuple[int, int]) -> TiledObjective:
        """The objective in tiles of a height and width in pixels.

        Raises:
            ConfigError: it has something that needs the whole picture.
        """
        if side not in self._tiled:
            self._tiled[side] = TiledObjective(self.objective, self.encoder, side, self.compiler)
        return self._tiled[side]

    def tiled_step(self, side: tuple[int, int], history: int | None) -> Callable[..., Any]:
        """One iteration in such tiles, of an image in host memory."""
        key = side, history
        if key not in self.steps:
            evaluate = self.tiled(side).value_and_gradient
            self.steps[key] = make_host_step(evaluate, self.optimizer_keeping(history))
        return self.steps[key]

    def optimizer_keeping(self, history: int | None) -> Optimizer:
        """The optimiser, with fewer pairs where it is L-BFGS."""
        if history is None or history == self.history or self.shortened is None:
            return self.optimizer
        if history not in self._kept:
            self._kept[history] = self.shortened(history)
        return self._kept[history]


def make_setup(
    config: StyleConfig,
    device: str,
    pictures: Sequence[ImageArray | Style],
    encoder: Encoder | None = None,
    optimizer: Optimizer | keras.optimizers.Optimizer | None = None,
) -> TransferSetup:
    """Make what a config names.

    Args:
        config: the options.
        device: of `tfstyle.device.choose_device`; call this under it.
        pictures: the content and the styles, over which weights are normalised.
        encoder, optimizer: the user's own, or None.

    Raises:
        ConfigError, WeightsError: as `tfstyle.stylize`.
    """
    compiler = choose_compile(config.compile, device).value
    precision = choose_precision(config.precision, device).value
    encoder, content_layers, style_layers = _encoder(config, precision, encoder)
    if config.normalize_weights:
        images = require_images(pictures, "normalize_weights (also in preset gatys2016)")
        encoder = encoder.normalized([tf.constant(p.on_white()[None]) for p in images])
    objective = Objective(
        encoder.features,
        shares(content_layers, config.content_layer_weights),
        shares(style_layers, config.style_layer_weights),
        config.content_weight,
        config.style_weight,
        config.tv_weight,
        LOSS_NORMALIZATIONS[config.loss_normalization],
        [
            (STYLE_LOSSES[name], weight)
            for name, weight in zip(
                config.style_losses,
                config.style_loss_weights or [1.0] * len(config.style_losses),
                strict=True,
            )
        ],
        VARIATIONS[config.tv_form],
        config.normalize_gradients,
    )
    chosen = _optimizer(config, optimizer)
    pairs = config.lbfgs_history if optimizer is None and config.optimizer.startswith("lbfgs") else None
    return TransferSetup(
        encoder, content_layers, style_layers, objective, chosen, device, compiler, history=pairs,
        shortened=lambda history: _optimizer(config.replace({"lbfgs_history": history}), None),
    )  # fmt: skip


def _encoder(
    config: StyleConfig, precision: str, given: Encoder | None
) -> tuple[Encoder, tuple[str, ...], tuple[str, ...]]:
    """The encoder, with the content and style layers that are to be read from it."""
    if given is not None:
        content = config.content_layers or tuple(x for x in CONTENT_LAYERS if x in given.layers)
        style = config.style_layers or tuple(x for x in STYLE_LAYERS if x in given.layers)
        missing = [layer for layer in (*content, *style) if layer not in given.layers]
        if missing or not content or not style:
            raise ConfigError(f"the encoder gives {', '.join(given.layers)}; choose the layers there")
        return given, content, style
    loaded = load_weights(config.weights, config.seed, config.network)
    content, style = choose_layers(config, loaded)
    encoder = Encoder(
        (*content, *style), loaded, pooling=config.pooling, padding=config.padding, dtype=precision,
        network=config.network, pixel_range=config.pixel_range, feature_scale=config.feature_scale,
    )  # fmt: skip
    return encoder, content, style


def _optimizer(config: StyleConfig, given: Optimizer | keras.optimizers.Optimizer | None) -> Optimizer:
    low, high = (LOW, HIGH) if config.clamp else (-math.inf, math.inf)
    if isinstance(given, Optimizer):
        made = given
    elif given is not None:
        made = from_keras(given, low, high)
    else:
        makers: Mapping[str, Callable[[], Optimizer]] = {
            "adam": lambda: adam(
                config.learning_rate,
                beta_1=config.beta_1,
                beta_2=config.beta_2,
                epsilon=config.epsilon,
                low=low,
                high=high,
                corrected=config.epsilon_corrected,
            ),
            "lbfgs": lambda: lbfgs(config.lbfgs_history, low, high),
            # Its first move depends on what a step of 1 is: a grey level, as the peers count.
            "lbfgs_fixed_step": lambda: lbfgs_fixed_step(
                config.lbfgs_history, 1.0, low, high, 1.0 / config.pixel_range
            ),
        }
        if config.optimizer in makers:
            made = makers[config.optimizer]()
        else:
            name = config.optimizer.removeprefix("addons:")
            found = addons.optimizer(name, config.learning_rate, config.beta_1, config.beta_2)
            made = from_keras(found, low, high, per_pixel=True)
    return averaged(made, config.ema_decay) if config.ema_decay > 0 else made


def call_as_graph(function: Callable[[], Any]) -> Any:
    """Call a function once as a graph, which frees features as it goes.

    Made by hand, as each size is traced just once, and a tf.function called like that warns of it.
    """
    return tf.function(function, autograph=False).get_concrete_function()()


def layer_shapes(
    encoder: Encoder, shape: tuple[int, int], layers: Sequence[str]
) -> dict[str, tuple[int, int]]:
    """Layer -> height and width of its features of a picture of that height and width."""
    traced = tf.function(encoder.features, autograph=False).get_concrete_function(
        tf.TensorSpec([1, *shape, 3], tf.float32)
    )
    return {layer: tuple(traced.structured_outputs[layer].shape[1:3]) for layer in layers}


def scale_shapes(full: tuple[int, int], minimum: int, config: StyleConfig) -> list[tuple[int, int]]:
    """Height and width of every scale, coarse to fine, each `StyleConfig.scale_factor` times the one before.

    Args:
        full: height and width of the last.
        minimum: scales whose shorter side is below this are left out.
        config: its ``scales``, or by default as many as keep to ``min_scale``.
    """
    side = {"longest": max(full), "shortest": min(full), "area": math.sqrt(full[0] * full[1])}[config.size_of]
    fitting = math.log(max(side / config.min_scale, 1.0)) / math.log(config.scale_factor)
    count = config.scales or math.floor(fitting + 1e-9) + 1
    factors = [config.scale_factor**k for k in reversed(range(count))]
    shapes = [(round(full[0] / f), round(full[1] / f)) for f in factors]
    return [shape for shape in shapes if min(shape) >= minimum]


def iterations_per_scale(config: StyleConfig, scales: int) -> list[int]:
    """Evaluations of the loss at each scale, coarse to fine."""
    first = config.first_iterations or config.iterations
    later = [
        0 if config.iteration_decay is None else int(first / config.iteration_decay**k + 1e-9)
        for k in range(1, scales)
    ]
    return [first, *(max(count, config.iterations) for count in later)]


def choose_layers(config: StyleConfig, loaded: Weights) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Content and style layers, where the weights stop below a default one replaced and said so."""
    content, style = default_layers(loaded)
    replaced = (config.content_layers is None and content != CONTENT_LAYERS) or (
        config.style_layers is None and style != STYLE_LAYERS
    )
    content, style = config.content_layers or content, config.style_layers or style
    if replaced:
        # Whoever chose a file should know; the embedded weights have said already what they are.
        log.log(
            logging.INFO if loaded.source == "embedded" else logging.WARNING,
            "%s stops at %s: style layers %s; content layer %s",
            loaded.source, loaded.layer_names[-1],
            ",".join(style), ",".join(content),
        )  # fmt: skip
    return content, style

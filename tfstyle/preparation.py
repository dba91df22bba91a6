"""What runs with the same options and styles share: the encoder, the objective, the compiled step."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from tfstyle import (
    addons,
    layer_pairs,
    local_losses,
    optimizers,
    quantile_losses,
    style_losses,
    units,
    variation,
    weights,
)
from tfstyle.config import CONTENT_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.device import choose_compile, choose_precision
from tfstyle.encoder import Encoder
from tfstyle.errors import ConfigError
from tfstyle.images import Picture
from tfstyle.keras_optimizers import from_keras
from tfstyle.losses import Objective
from tfstyle.optimizers import HIGH, LOW, Optimizer
from tfstyle.plan import available_layers, shares
from tfstyle.step import Step, make_host_step, make_step
from tfstyle.style_losses import StyleLoss
from tfstyle.styles import Style, images_of
from tfstyle.targets import Summaries
from tfstyle.tiling import TiledObjective
from tfstyle.units import Units
from tfstyle.variation import Variation

UNITS: Mapping[str, Units] = {
    "balanced": units.balanced_units,
    "paper": units.paper_units,
    "mean": units.mean_units,
    "channels": units.channel_units,
    "root": units.root_units,
}
VARIATIONS: Mapping[str, Variation] = {
    "squares": variation.total_variation,
    "sum_squares": variation.summed_squares,
    "magnitudes": variation.summed_differences,
    "nine_point": variation.nine_point_variation,
}
STYLE_LOSSES: Mapping[str, StyleLoss] = {
    "gram": style_losses.GRAM,
    "mean_deviation": style_losses.MEAN_DEVIATION,
    "wasserstein": style_losses.wasserstein(),
    "histogram": quantile_losses.HISTOGRAM,
    "sliced": quantile_losses.sliced(),
    "shift": style_losses.shifted(),
    "local": local_losses.windowed(),
    "local_by_content": local_losses.windowed(by_content=True),
    "chain": layer_pairs.paired(),
    "blurred": layer_pairs.paired(blurred=True),
    "across": layer_pairs.paired(deeper=15),
}


@dataclass(frozen=True, eq=False)
class Preparation:
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
        limit = limit or (10 if "GPU" in self.device and self.optimizer.compiled else 1)
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


def prepare(
    config: StyleConfig,
    device: str,
    pictures: Sequence[Picture | Style],
    encoder: Encoder | None = None,
    optimizer: Optimizer | keras.optimizers.Optimizer | None = None,
) -> Preparation:
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
        images = images_of(pictures, "normalize_weights (also in preset gatys2016)")
        encoder = encoder.normalized([tf.constant(p.on_white()[None]) for p in images])
    objective = Objective(
        encoder.features,
        shares(content_layers, config.content_layer_weights),
        shares(style_layers, config.style_layer_weights),
        config.content_weight,
        config.style_weight,
        config.tv_weight,
        UNITS[config.units],
        [
            (STYLE_LOSSES[name], weight)
            for name, weight in zip(
                config.style_losses,
                config.style_loss_weights or [1.0] * len(config.style_losses),
                strict=True,
            )
        ],
        VARIATIONS[config.tv],
        config.normalize_gradients,
    )
    chosen = _optimizer(config, optimizer)
    pairs = config.lbfgs_history if optimizer is None and config.optimizer.startswith("lbfgs") else None
    return Preparation(
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
    loaded = weights.load(config.weights, config.seed, config.network)
    content, style = available_layers(config, loaded)
    encoder = Encoder(
        (*content, *style), loaded, config.pooling or loaded.pooling, config.padding, precision,
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
            "adam": lambda: optimizers.adam(
                config.learning_rate,
                config.beta_1,
                config.beta_2,
                config.epsilon,
                low,
                high,
                config.epsilon_corrected,
            ),
            "lbfgs": lambda: optimizers.lbfgs(config.lbfgs_history, low, high),
            # Its first move depends on what a step of 1 is: a grey level, as the peers count.
            "lbfgs_fixed": lambda: optimizers.lbfgs_fixed(
                config.lbfgs_history, 1.0, low, high, 1.0 / config.pixel_range
            ),
        }
        if config.optimizer in makers:
            made = makers[config.optimizer]()
        else:
            name = config.optimizer.removeprefix("addons:")
            found = addons.optimizer(name, config.learning_rate, config.beta_1, config.beta_2)
            made = from_keras(found, low, high, per_pixel=True)
    return optimizers.averaged(made, config.average) if config.average > 0 else made


def as_graph(function: Callable[[], Any]) -> Any:
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

"""The parts of a run that depend on its options: scales, layers, encoder, objective, optimiser and step."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfstyle import addons
from tfstyle.config import (
    CONTENT_LAYERS,
    CONTENT_WEIGHT,
    NEIGHBOUR_LAYERS,
    PADDING,
    PAPER,
    PAPER_CONTENT_LAYERS,
    SHALLOW_HIGH_CONTENT_WEIGHT,
    STYLE_LAYERS,
    StyleConfig,
)
from tfstyle.device import choose_compile, choose_precision
from tfstyle.errors import ConfigError
from tfstyle.images import ImageArray
from tfstyle.layers import Layer
from tfstyle.losses import (
    GRAM,
    HISTOGRAM,
    MEAN_DEVIATION,
    NEIGHBOURS,
    NORMALIZED_GRAM,
    ExtraLoss,
    LossNormalization,
    Objective,
    SelfSimilarityTarget,
    Style,
    StyleLoss,
    Summaries,
    Targets,
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
from tfstyle.network import Encoder, Weights, default_layers, defaults_among, load_weights, paper_layers
from tfstyle.optim import (
    HIGH,
    LOW,
    Optimizer,
    Step,
    adam,
    averaged,
    from_keras,
    in_pyramid,
    lbfgs,
    lbfgs_fixed_step,
    make_step,
)
from tfstyle.tiling import TiledObjective, make_host_step

log = logging.getLogger(__name__)

#: Height and width in pixels, or in positions of a feature map.
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
    "normalized_gram": NORMALIZED_GRAM,
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
    "neighbours": NEIGHBOURS,
}


class Scale(NamedTuple):
    """One of the image sizes of a run, which goes from coarse to fine.

    Attributes:
        number: 1 for the coarsest scale.
        shape: height and width of the image in pixels.
        factor: ratio of the longest side at this scale to the longest side at the last scale, at most 1.
        iterations: number of iterations; each evaluates the loss once.
        hypercolumns: whether the style loss is `tfstyle.losses.hypercolumn_loss`. With
            ``method="neighbours"`` this is so at all scales but the last. The last one has the size of the
            scale before, and its style loss is `tfstyle.losses.NEIGHBOURS`.
    """

    number: int
    shape: Shape
    factor: float
    iterations: int
    hypercolumns: bool = False


def plan_scales(full: Shape, config: StyleConfig, *, minimum: int) -> list[Scale]:
    """Return the scales of a run, coarse to fine.

    Args:
        full: height and width of the last scale in pixels.
        config: the options ``method``, ``scales``, ``scale_factor``, ``min_scale``, ``size_of``,
            ``iterations``, ``first_iterations`` and ``iteration_decay``.
        minimum: minimum of the shorter side in pixels. Scales with a smaller side are left out.

    Example:
        >>> from tfstyle import StyleConfig
        >>> from tfstyle.run import plan_scales
        >>> config = StyleConfig(min_scale=128, iterations=100)
        >>> [(scale.shape, scale.iterations) for scale in plan_scales((384, 512), config, minimum=32)]
        [((96, 128), 100), ((192, 256), 100), ((384, 512), 100)]
    """
    shapes = scale_shapes(full, config, minimum=minimum)
    counts = iterations_per_scale(config, len(shapes))
    matched = config.method == "neighbours"
    scales = [
        Scale(number, shape, max(shape) / max(full), count, hypercolumns=matched)
        for number, (shape, count) in enumerate(zip(shapes, counts, strict=True), 1)
    ]
    if matched and scales:
        scales.append(scales[-1]._replace(number=len(scales) + 1, hypercolumns=False))
    return scales


def scale_shapes(full: Shape, config: StyleConfig, *, minimum: int) -> list[Shape]:
    """Return height and width of every scale, coarse to fine.

    Each scale is `StyleConfig.scale_factor` times as large as the scale before, up to rounding. If
    `StyleConfig.scales` is None, the number of scales is the largest one with which the first scale has at
    least `StyleConfig.min_scale` pixels, measured as `StyleConfig.size_of` says, and it is at least 1.

    Args:
        full, config, minimum: as for `plan_scales`.
    """
    ratio = max(measured_side(full, config) / config.min_scale, 1.0)
    fitting = math.log(ratio) / math.log(config.scale_factor)
    count = config.scales or math.floor(fitting + 1e-9) + 1
    factors = [config.scale_factor**k for k in reversed(range(count))]
    shapes = [(round(full[0] / f), round(full[1] / f)) for f in factors]
    return [shape for shape in shapes if min(shape) >= minimum]


def iterations_per_scale(config: StyleConfig, scales: int) -> list[int]:
    """Return the number of iterations at each scale, coarse to fine.

    Scale k, counted from 0, has ``max(iterations, floor(first_iterations / iteration_decay^k))`` iterations,
    where ``first_iterations`` is by default ``iterations``. The first scale has ``first_iterations`` in any
    case. Without ``iteration_decay`` every later scale has ``iterations``.

    Args:
        config: the options ``iterations``, ``first_iterations`` and ``iteration_decay``.
        scales: number of scales, at least 1.

    Example:
        >>> from tfstyle import StyleConfig
        >>> from tfstyle.run import iterations_per_scale
        >>> config = StyleConfig(iterations=30, first_iterations=200, iteration_decay=2)
        >>> iterations_per_scale(config, 5)
        [200, 100, 50, 30, 30]
    """
    first = config.first_iterations or config.iterations
    later = [
        0 if config.iteration_decay is None else int(first / config.iteration_decay**k + 1e-9)
        for k in range(1, scales)
    ]
    return [first, *(max(count, config.iterations) for count in later)]


def measured_side(shape: Sequence[int], config: StyleConfig) -> float:
    """Return the length in pixels that `StyleConfig.size_of` selects and `StyleConfig.size` sets.

    Args:
        shape: height and width in pixels, possibly followed by the number of channels.
        config: the options.
    """
    height, width = shape[:2]
    sides = {"longest": max(height, width), "shortest": min(height, width), "area": math.sqrt(height * width)}
    return sides[config.size_of]


@dataclass(eq=False)
class TransferSetup:
    """The parts of a run that do not depend on the content image; `make_setup` makes them.

    Reuse it for runs with the same options and style images. If the shapes are the same too, the step is not
    compiled again and the style images are not encoded again. With ``normalize_weights`` the encoder depends
    on the content image, and the setup cannot be reused for another one.

    Attributes:
        encoder: encoder with the content layers and the style layers.
        content_layers, style_layers: names of these layers.
        objective: the objective that the options describe.
        optimizer: the optimiser that the options name, or the caller's.
        device: TensorFlow's name for the device, such as ``/CPU:0``.
        compiler: ``xla``, ``graph`` or ``eager``.
        lbfgs_pairs: number of curvature pairs that L-BFGS stores; None with another optimiser.
        make_lbfgs: number of curvature pairs -> the L-BFGS that the options describe, with that many pairs.
            It is used only if `lbfgs_pairs` is not None.
        any_size: whether one graph of the step, and one of the targets, serves all sizes of images. Otherwise
            they are traced for each size.
        style_encoder: encoder of the style images. With circular padding, which is for results that tile, it
            has the default padding: the opposite borders of a style image do not match, and the Gram matrices
            would contain this edge, which the result would then reproduce at its seam.
        style_summaries: cache of the style images' summaries, which `tfstyle.run.ScaleTargets` fills.
        steps: cache of the compiled steps.
    """

    encoder: Encoder
    content_layers: tuple[str, ...]
    _: KW_ONLY
    style_layers: tuple[str, ...]
    objective: Objective
    optimizer: Optimizer
    device: str
    compiler: str
    style_encoder: Encoder
    lbfgs_pairs: int | None = None
    make_lbfgs: Callable[[int], Optimizer] | None = None
    any_size: bool = False
    style_summaries: MutableMapping[Hashable, Summaries] = field(default_factory=dict)
    steps: dict[Hashable, Callable[..., Any]] = field(default_factory=dict)
    _graphs: dict[Hashable, Callable[..., Any]] = field(default_factory=dict)
    _tiled_objectives: dict[tuple[str, Shape], TiledObjective] = field(default_factory=dict)
    _optimizers: dict[int, Optimizer] = field(default_factory=dict)

    @property
    def style_objective(self) -> Objective:
        """The objective whose `Objective.style_summary` summarises the style images."""
        if self.style_encoder is self.encoder:
            return self.objective
        return dataclasses.replace(self.objective, encoder=self.style_encoder.features)

    def for_other_styles(self, summaries: MutableMapping[Hashable, Summaries] | None = None) -> TransferSetup:
        """Return a setup for runs with other style images, with the same parts and compiled steps.

        Args:
            summaries: cache of the summaries of these style images; by default an empty one.
        """
        return dataclasses.replace(self, style_summaries={} if summaries is None else summaries)

    def with_content_weight(self, weight: float) -> TransferSetup:
        """Return a copy with another content weight. It shares the encoder and the style summaries."""
        objective = dataclasses.replace(self.objective, content_weight=weight)
        return dataclasses.replace(self, objective=objective, steps={}, _graphs={}, _tiled_objectives={})

    def step(self, iterations: Sequence[int], limit: int | None, *, pause_every: int = 0) -> tuple[int, Step]:
        """Return the number of iterations in a call of the step, and the compiled step.

        The number is the largest one within `limit` that divides the iterations of every scale and
        `pause_every`, so that one compiled step serves all scales.

        Args:
            iterations: number of iterations of each scale.
            limit: maximum number of iterations in a call; None for 10 on a GPU if the optimiser is traceable,
                otherwise 1.
            pause_every: interval of previews in iterations. No call continues past a multiple of it; 0 sets
                no such limit.

        Returns:
            The number of iterations in a call, and the step that `tfstyle.make_step` returns.
        """
        limit = limit or (10 if "GPU" in self.device and self.optimizer.traceable else 1)
        common = math.gcd(*iterations, pause_every)
        per_call = max(d for d in range(1, min(limit, common) + 1) if common % d == 0)
        if per_call not in self.steps:
            self.steps[per_call] = make_step(
                self.objective, self.optimizer, compile=self.compiler, steps=per_call
            )
        return per_call, self.steps[per_call]

    def trace(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Trace a `tf.function` for arguments, with `any_size` for all sizes of images.

        Args:
            function: the compiled step or another `tf.function`.
            arguments, options: arguments of its calls.

        Returns:
            The concrete function.
        """
        if self.any_size:
            arguments, options = of_any_size(arguments), of_any_size(options)
        return function.get_concrete_function(*arguments, **options)  # type: ignore[attr-defined]

    def evaluate(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return the result of a function as a graph, which frees features after their last use.

        With ``compile="eager"`` the function is called eagerly.

        Args:
            function: a method of `objective` or of `style_objective`.
            arguments, options: its arguments, structures of tensors and Python values. The graph is traced
                for each Python value.
        """
        if self.compiler == "eager":
            return function(*arguments, **options)
        # The style images may have another encoder.
        key = function.__name__, function.__self__.encoder  # type: ignore[attr-defined]
        graph = self._graphs.setdefault(key, tf.function(function, autograph=False))
        self.trace(graph, *arguments, **options)  # a call that traces would make TensorFlow warn
        return graph(*arguments, **options)

    def tiled_objective(self, side: Shape, *, for_styles: bool = False) -> TiledObjective:
        """Return the objective for evaluation in tiles, from a cache after the first call.

        Args:
            side: height and width of the tiles in pixels.
            for_styles: whether to return it for the style images, with `style_encoder`.

        Raises:
            ConfigError: the objective needs the whole image at once.
        """
        objective, encoder = self.objective, self.encoder
        if for_styles:
            objective, encoder = self.style_objective, self.style_encoder
        key = encoder.padding, side
        if key not in self._tiled_objectives:
            self._tiled_objectives[key] = TiledObjective(objective, encoder, side=side, compile=self.compiler)
        return self._tiled_objectives[key]

    def tiled_step(self, side: Shape, lbfgs_pairs: int | None) -> Callable[..., Any]:
        """Return the step that evaluates an image in host memory in tiles, one iteration per call.

        Args:
            side: height and width of the tiles in pixels.
            lbfgs_pairs: as for `optimizer_with`.

        Returns:
            The step that `tfstyle.tiling.make_host_step` returns.

        Raises:
            ConfigError: the objective needs the whole image at once.
        """
        key = side, lbfgs_pairs
        if key not in self.steps:
            evaluate = self.tiled_objective(side).value_and_gradient
            self.steps[key] = make_host_step(evaluate, self.optimizer_with(lbfgs_pairs))
        return self.steps[key]

    def optimizer_with(self, lbfgs_pairs: int | None) -> Optimizer:
        """Return the optimiser with a number of curvature pairs.

        Args:
            lbfgs_pairs: number of curvature pairs that L-BFGS stores; None for the number in the options, and
                for other optimisers.
        """
        if lbfgs_pairs is None or self.lbfgs_pairs in (None, lbfgs_pairs) or self.make_lbfgs is None:
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
    extra_losses: Mapping[str, ExtraLoss] | None = None,
    weights: Weights | None = None,
) -> TransferSetup:
    """Return the encoder, objective, optimiser and compiler that the options of a run describe.

    Args:
        config: the options.
        device: TensorFlow's name for the device, as `tfstyle.device.choose_device` returns it. Call this
            function within ``tf.device(device)``.
        images: the content image and the styles, over which ``normalize_weights`` normalises the encoder.
            They are used for nothing else.
        encoder: an encoder to use in place of the encoder that the config describes.
        optimizer: an optimiser to use in place of the optimiser that the config names.
        extra_losses: additional losses of the objective, as for `tfstyle.Objective`.
        weights: the weights that the config names, if they were loaded before.

    Returns:
        The setup of the run.

    Raises:
        ConfigError: a layer is unknown, the caller's encoder lacks a layer, the optimiser is not available
            with the installed libraries, or ``normalize_weights`` is set and a style has no image.
        WeightsError: the weights cannot be read or downloaded, or lack a layer.

    Example:
        >>> from tfstyle import StyleConfig
        >>> from tfstyle.run import make_setup
        >>> config = StyleConfig(weights="random", content_layers=("conv2_2",), style_layers=("conv1_1",))
        >>> setup = make_setup(config, "/CPU:0")
        >>> setup.encoder.layers, setup.compiler, setup.lbfgs_pairs
        (('conv1_1', 'conv2_2'), 'graph', 10)
    """
    compiler = choose_compile(config.compile, device).value
    # XLA compiles for each size in any case. Cross-layer losses compute with sizes in Python, and the
    # functions of the caller may do so too.
    any_size = compiler == "graph" and encoder is None and optimizer is None and not extra_losses
    any_size &= not any(STYLE_LOSSES[name].deeper_layers for name in config.chosen_style_losses)
    precision = choose_precision(config.precision, device).value
    if encoder is None:
        encoder, content_layers, style_layers = _make_encoder(config, precision, weights)
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
        objective=make_objective(
            config,
            encoder.features,
            content_layers=content_layers,
            style_layers=style_layers,
            extra_losses=extra_losses,
        ),
        optimizer=_make_optimizer(config, optimizer),
        device=device,
        compiler=compiler,
        style_encoder=encoder.with_padding(PADDING) if encoder.padding == "circular" else encoder,
        lbfgs_pairs=config.lbfgs_history if has_lbfgs else None,
        make_lbfgs=lambda pairs: _make_optimizer(config.replace({"lbfgs_history": pairs}), None),
        any_size=any_size,
    )


def _make_encoder(
    config: StyleConfig, precision: str, weights: Weights | None
) -> tuple[Encoder, tuple[str, ...], tuple[str, ...]]:
    """Return the encoder that a config describes, its content layers and its style layers."""
    weights = weights or load_weights(config.weights, seed=config.seed, network=config.network)
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
    """Return the content and style layers for an encoder that the caller made."""
    content, style = defaults_among(encoder.layers)
    if config.content_layers == PAPER:
        content = PAPER_CONTENT_LAYERS
    elif config.content_layers is not None:
        content = config.content_layers
    if config.method == "neighbours":
        style = _neighbour_layers(encoder.layers)
    style = config.style_layers or style
    missing = [layer for layer in (*content, *style) if layer not in encoder.layers]
    if missing or not content or not style:
        wrong = f"it has no {', '.join(missing)}" if missing else "it has no default content or style layer"
        raise ConfigError(
            f"the encoder's layers are {', '.join(encoder.layers)}, and {wrong}; choose content_layers and "
            "style_layers from them"
        )
    return content, style


def _neighbour_layers(available: Iterable[str]) -> tuple[str, ...]:
    """Return the default style layers of the method neighbours among the available layers."""
    names = set(available)
    return tuple(layer for layer in NEIGHBOUR_LAYERS if layer in names)


def choose_layers(config: StyleConfig, weights: Weights) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the content layers and of the style layers of a run.

    Layers that the config does not name are the defaults of the weights. If the weights end below a default
    layer of `StyleConfig`, the layers that replace it are logged.

    Args:
        config: the options ``content_layers`` and ``style_layers``.
        weights: the weights of the encoder.
    """
    content, style = default_layers(weights)
    wanted: tuple[str, ...] = CONTENT_LAYERS
    wanted_style: tuple[str, ...] = STYLE_LAYERS
    if config.method == "neighbours":
        wanted_style = NEIGHBOUR_LAYERS
        style = _neighbour_layers(weights.layer_names)
    if config.content_layers == PAPER:
        content, wanted = paper_layers(weights)[0], PAPER_CONTENT_LAYERS
    elif config.content_layers is not None:
        content = wanted = config.content_layers
    replaced = content != wanted or (config.style_layers is None and style != wanted_style)
    style = config.style_layers or style
    if replaced:
        # Loading the embedded weights has already logged a notice. A file of weights needs a warning.
        log.log(
            logging.INFO if weights.source == "embedded" else logging.WARNING,
            "the weights from %s end at %s; the style layers are %s, and the content layers are %s",
            weights.source, weights.layer_names[-1], ",".join(style), ",".join(content),
        )  # fmt: skip
    return content, style


def make_objective(
    config: StyleConfig,
    features: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
    *,
    content_layers: Sequence[str],
    style_layers: Sequence[str],
    extra_losses: Mapping[str, ExtraLoss] | None = None,
) -> Objective:
    """Return the objective that the options of a run describe.

    Args:
        config: the options.
        features: function of images that returns layer -> features, such as `Encoder.features`.
        content_layers, style_layers: names of the layers.
        extra_losses: additional losses, as for `tfstyle.Objective`.
    """
    losses = config.chosen_style_losses
    loss_weights = config.style_loss_weights or [1.0] * len(losses)
    decay = 1.0 if config.method == "neighbours" else config.style_layer_decay
    layer_weights = config.style_layer_weights or style_layer_weights(style_layers, decay)
    return Objective(
        features,
        shares(content_layers, config.content_layer_weights),
        style_layers=shares(style_layers, layer_weights),
        content_weight=content_weight(config, (*content_layers, *style_layers)),
        style_weight=config.style_weight,
        tv_weight=config.tv_weight,
        spectrum_weight=config.spectrum_weight,
        self_similarity_weight=(
            config.self_similarity_weight if "self_similarity" in config.content_loss else 0.0
        ),
        self_similarity_seed=config.seed,
        border_weight=config.border_weight,
        normalization=LOSS_NORMALIZATIONS[config.loss_normalization],
        style_losses=[
            (STYLE_LOSSES[name], weight) for name, weight in zip(losses, loss_weights, strict=True)
        ],
        variation=VARIATIONS[config.tv_form],
        unit_gradients=config.normalize_gradients,
        extra_losses={} if extra_losses is None else extra_losses,
    )


def content_weight(config: StyleConfig, layers: Iterable[str]) -> float:
    """Return the weight of the content loss ``features`` for a config.

    If the config does not set it, this is the default of its quality and method. It is 0 if ``content_loss``
    does not contain ``features``.

    Args:
        config: the options ``content_loss``, ``content_weight``, ``method`` and ``quality``.
        layers: the content layers and style layers of the run.

    Example:
        >>> from tfstyle import StyleConfig
        >>> from tfstyle.run import content_weight
        >>> content_weight(StyleConfig(quality="high"), ["conv1_1", "conv4_1"])
        0.012
        >>> content_weight(StyleConfig(quality="high"), ["conv1_1", "conv3_4"])
        0.003
    """
    if "features" not in config.content_loss:
        return 0.0
    if config.content_weight is not None:
        return config.content_weight
    if config.method == "neighbours":
        return 0.0
    try:
        deepest = max(Layer.parse(layer).block for layer in layers)
    except ValueError:  # layers of the caller's own network
        return CONTENT_WEIGHT
    return SHALLOW_HIGH_CONTENT_WEIGHT if deepest <= 3 and config.quality == "high" else CONTENT_WEIGHT


def style_layer_weights(layers: Sequence[str], decay: float) -> list[float]:
    """Return the weight ``decay^k`` of each style layer in the k-th block of the network, counted from 0.

    Args:
        layers: names of the style layers. If one is not a layer of VGG, each layer counts as a block.
        decay: ratio of the weights of two successive blocks.

    Reference: Novak, Nikulin 2016, arXiv 1605.04603, "geometric weights", with a ratio of 1/2 for each layer.

    Example:
        >>> from tfstyle.run.setup import style_layer_weights
        >>> style_layer_weights(["conv1_1", "conv1_2", "conv3_1"], 0.5)
        [1.0, 1.0, 0.25]
    """
    try:
        return [decay ** (Layer.parse(layer).block - 1) for layer in layers]
    except ValueError:
        return [decay**k for k in range(len(layers))]


def _make_optimizer(config: StyleConfig, given: Optimizer | keras.optimizers.Optimizer | None) -> Optimizer:
    """Return the optimiser that a config names, or the caller's, with the EMA of the config."""
    levels = config.chosen_pyramid_levels
    low, high = (LOW, HIGH) if config.clamp and not levels else (-math.inf, math.inf)
    if isinstance(given, Optimizer):
        if config.pyramid_levels:
            raise ConfigError(
                f"pyramid_levels is {config.pyramid_levels}, and the given optimizer has bounds of pixels; "
                "leave pyramid_levels out, and give tfstyle.optim.in_pyramid(optimizer, levels) with an "
                "optimizer without bounds"
            )
        optimizer, levels = given, 0
    elif given is not None:
        optimizer = from_keras(given, low=low, high=high)
    else:
        optimizer = _named_optimizer(config, low, high)
    if levels:
        equalized = given is None and config.optimizer.startswith("lbfgs")
        optimizer = in_pyramid(optimizer, levels, equalized=equalized)
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
        # Its first move depends on the unit of pixels. Other programs use one grey level.
        return lbfgs_fixed_step(config.lbfgs_history, low=low, high=high, unit=1.0 / config.pixel_range)
    name = config.optimizer.removeprefix("addons:")
    keras_optimizer = addons.optimizer(name, config.learning_rate, beta_1=config.beta_1, beta_2=config.beta_2)
    return from_keras(keras_optimizer, low=low, high=high, per_pixel=True)


def of_any_size(structure: Any) -> Any:
    """Return a structure with a `tf.TensorSpec` of unknown height and width for each image and feature map.

    Args:
        structure: a structure of tensors and Python values. Tensors of at least four axes count as images or
            feature maps, ``[..., height, width, channels]``. The number of positions of each
            `SelfSimilarityTarget` is unknown, because small feature maps have few positions. Other tensors
            get a `tf.TensorSpec` of their shape, and Python values are returned as they are.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.run.setup import of_any_size
        >>> [spec.shape.as_list() for spec in of_any_size([tf.zeros([1, 32, 48, 3]), tf.zeros([1, 64, 64])])]
        [[1, None, None, 3], [1, 64, 64]]
    """

    def spec(value: Any) -> Any:
        if not tf.is_tensor(value):
            return value
        shape = value.shape.as_list()
        if len(shape) >= 4:
            shape[-3:-1] = None, None
        return tf.TensorSpec(shape, value.dtype)

    if isinstance(structure, SelfSimilarityTarget):
        any_length = (tf.TensorSpec([None] * part.shape.rank, part.dtype) for part in structure)
        return SelfSimilarityTarget(*any_length)
    if isinstance(structure, Targets):
        return Targets(*map(of_any_size, structure))
    if type(structure) in (list, tuple):
        return type(structure)(map(of_any_size, structure))
    if type(structure) is dict:
        return {key: of_any_size(value) for key, value in structure.items()}
    return tf.nest.map_structure(spec, structure)


def call_as_graph(function: Callable[[], Any]) -> Any:
    """Return the result of a function, called once as a graph, which frees features after their last use.

    Args:
        function: a function without arguments that returns a structure of tensors.
    """
    # Calling a new tf.function each time would make TensorFlow warn about repeated tracing.
    return tf.function(function, autograph=False).get_concrete_function()()


def layer_shapes(encoder: Encoder, shape: Shape, *, layers: Sequence[str]) -> dict[str, Shape]:
    """Return the height and width of each layer's feature map for an image of a given size.

    Args:
        encoder: the encoder.
        shape: height and width of the image in pixels.
        layers: names of layers of the encoder.

    Returns:
        layer -> height and width of its features.
    """
    traced = tf.function(encoder.features, autograph=False).get_concrete_function(
        tf.TensorSpec([1, *shape, 3], tf.float32)
    )
    return {layer: tuple(traced.structured_outputs[layer].shape[1:3]) for layer in layers}

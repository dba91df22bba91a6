"""Runs of one objective by several optimisers: its loss in float32 and the seconds at every evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.config import StyleConfig
from tfstyle.device import choose_device, choose_precision
from tfstyle.errors import NotFiniteError
from tfstyle.network import Encoder, Weights, default_layers
from tfstyle.run import Run, TransferSetup, call_as_graph, iterations_per_scale, make_setup

#: Optimiser -> factor of the objective that it minimises. The first move and the end of
#: `tfstyle.optim.lbfgs_fixed_step` depend on the unit of the loss, and the programs that it is from have
#: losses a million times ours.
LOSS_FACTORS: Mapping[str, float] = {"lbfgs_fixed_step": 1e6}
#: Iterations of a run that the clock ends.
UNLIMITED_ITERATIONS = 1_000_000
#: Content and style image, float32 ``[height, width, 3]`` in 0..1, at the size of the run.
Images = tuple[np.ndarray, np.ndarray]
#: A function from an image, float32 ``[height, width, 3]`` in 0..1, to the terms of its loss.
ImageLoss = Callable[[np.ndarray], Mapping[str, float]]


class TimedRun(NamedTuple):
    """The outcome of a run of an optimiser, and the loss and seconds on its way.

    Attributes:
        image: the last image, float32 ``[height, width, 3]`` in 0..1.
        terms: the terms of that image's loss.
        seconds: at the end of every evaluation; tracing, compiling and measuring the loss are not counted.
        losses: loss of the image after every evaluation; of a preset only the last is known, the others are
            NaN.
        first_evaluation: seconds of a first evaluation, tracing and compiling included.
    """

    image: np.ndarray
    terms: Mapping[str, float]
    seconds: list[float]
    losses: list[float]
    first_evaluation: float

    def evaluations_within(self, limit: float) -> int:
        """Count the evaluations that ended within so many seconds."""
        return int(sum(second <= limit for second in self.seconds))


def config_encoder(config: StyleConfig, vgg_weights: Weights) -> Encoder:
    """Make the encoder that a config describes, with weights that are loaded already."""
    return Encoder(
        (*(config.content_layers or ()), *(config.style_layers or ())),
        vgg_weights,
        pooling=config.pooling,
        padding=config.padding,
        dtype=choose_precision(config.precision, choose_device().value).value,
        network=vgg_weights.network,
        pixel_range=config.pixel_range,
        feature_scale=config.feature_scale,
    )


def make_image_loss(config: StyleConfig, vgg_weights: Weights, *, images: Images) -> ImageLoss:
    """Make a function that evaluates the objective of a config at finished images."""
    setup = _make_setup(config, vgg_weights)
    targets = _make_targets(setup, images)
    evaluate = tf.function(setup.objective, autograph=False)
    return lambda image: {
        name: float(term) for name, term in evaluate(tf.constant(image[None]), targets).items()
    }


def run_optimizer(
    config: StyleConfig,
    vgg_weights: Weights,
    *,
    images: Images,
    image_loss: ImageLoss,
    iterations: int,
    limit: float | None,
) -> TimedRun:
    """Minimise the objective of a config from the content image, at one scale.

    Args:
        config: with its layers.
        vgg_weights: weights of the encoder.
        images: content and style image.
        image_loss: loss by which every image is measured, of `make_image_loss`.
        iterations: at least so many evaluations.
        limit: at least so many seconds.
    """
    loss_weights = ("content_weight", "style_weight", "tv_weight")
    factor = LOSS_FACTORS.get(config.optimizer, 1.0)
    setup = _make_setup(
        config.replace({name: factor * getattr(config, name) for name in loss_weights}), vgg_weights
    )
    targets, optimizer = _make_targets(setup, images), setup.optimizer
    _, step = setup.step([1], 1)
    image = tf.constant(images[0][None])
    state = optimizer.init(image)
    began = time.perf_counter()
    float(step(image, state, targets)[2]["total"])
    first_evaluation = time.perf_counter() - began
    clock = 0.0
    seconds: list[float] = []
    losses: list[float] = []
    while len(losses) < iterations or (limit is not None and clock < limit):
        began = time.perf_counter()
        image, state, step_terms = step(image, state, targets)
        float(step_terms["total"])  # waits for the device
        clock += time.perf_counter() - began
        output_image = np.clip(optimizer.solution(image, state)[0].numpy(), 0, 1)
        terms = image_loss(output_image)
        seconds.append(clock)
        losses.append(terms["total"])
    return TimedRun(output_image, terms, seconds, losses, first_evaluation)


def _make_setup(config: StyleConfig, vgg_weights: Weights) -> TransferSetup:
    return make_setup(config, choose_device().value, encoder=config_encoder(config, vgg_weights))


def _make_targets(setup: TransferSetup, images: Images) -> object:
    content, style = (tf.constant(image[None]) for image in images)
    objective = setup.objective
    return call_as_graph(lambda: objective.targets(content, [objective.style_summary(style)]))


def fit_preset(options: StyleConfig, vgg_weights: Weights, *, size: int) -> StyleConfig:
    """Give the options of a preset at a size, without the layers that the weights do not reach.

    Where none is left of the content layers, the default ones of such weights are taken.
    """
    available = vgg_weights.layer_names
    default_content, default_style = default_layers(vgg_weights)
    preset_layers = options.style_layers or default_style
    preset_weights = options.style_layer_weights or [1.0] * len(preset_layers)
    layer_weights = {
        layer: weight
        for layer, weight in zip(preset_layers, preset_weights, strict=True)
        if layer in available
    }
    content_layers = tuple(layer for layer in options.content_layers or () if layer in available)
    return options.replace(
        {
            "size": size,
            "size_of": "longest",
            "enlarge": False,
            "steps_per_call": 1,
            "content_layers": content_layers or default_content,
            "style_layers": tuple(layer_weights),
            "style_layer_weights": tuple(layer_weights.values()),
        }
    )


def run_preset(
    config: StyleConfig, vgg_weights: Weights, *, images: Images, image_loss: ImageLoss, limit: float
) -> TimedRun:
    """Run a preset for so many seconds: one scale until they are over, several with iterations that fit.

    A preset whose loss becomes infinite has the last finite image.
    """
    two_iterations = {"iterations": 2, "first_iterations": None, "iteration_decay": None}
    pilot = Run(*images, config.replace(two_iterations), encoder=config_encoder(config, vgg_weights))
    seconds: list[float] = []
    try:
        for _ in pilot:
            pass
        image = _run_until(pilot, config, images=images, limit=limit, seconds=seconds)
    except NotFiniteError as error:
        image = error.result.image
    terms, first_evaluation = image_loss(image), pilot.history.seconds[0]
    seconds = seconds or [first_evaluation]
    losses = [np.nan] * (len(seconds) - 1) + [terms["total"]]
    return TimedRun(image, terms, seconds, losses, first_evaluation)


def _run_until(
    pilot: Run, config: StyleConfig, *, images: Images, limit: float, seconds: list[float]
) -> np.ndarray:
    """Give the image at the limit; the end of every evaluation is added to the seconds."""
    pilot_seconds = pilot.history.seconds
    costs = [pilot_seconds[2 * k + 1] - pilot_seconds[2 * k] for k in range(len(pilot.scales))]
    run = Run(*images, _share_iterations(config, costs, limit=limit), setup=pilot.setup)
    clock, last = 0.0, time.perf_counter()
    for step in run:
        # The first of each scale is traced.
        clock += costs[step.scale - 1] if step.iteration == 1 else time.perf_counter() - last
        seconds.append(clock)
        if len(costs) == 1 and clock >= limit:
            break
        last = time.perf_counter()
    return run.result().image


def _share_iterations(config: StyleConfig, costs: list[float], *, limit: float) -> StyleConfig:
    """Give the config as many iterations as take so long, in the proportions that it has."""
    if len(costs) == 1:
        return config.replace(
            {"iterations": UNLIMITED_ITERATIONS, "first_iterations": None, "iteration_decay": None}
        )
    planned = iterations_per_scale(config, len(costs))
    share = limit / sum(cost * count for cost, count in zip(costs, planned, strict=True))
    first, later = (max(1, round(share * count)) for count in (planned[0], planned[-1]))
    return config.replace({"first_iterations": first, "iterations": later, "iteration_decay": None})

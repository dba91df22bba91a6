"""Timed runs of several optimisers and presets, with a common measure of the loss in float32."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.config import StyleConfig
from tfstyle.device import choose_device, choose_precision
from tfstyle.errors import NotFiniteError
from tfstyle.network import Encoder, Weights, default_layers, paper_layers
from tfstyle.papers.study import report_iteration
from tfstyle.run import (
    Run,
    TransferSetup,
    call_as_graph,
    content_weight,
    iterations_per_scale,
    make_setup,
)

#: Optimiser -> factor by which its objective is multiplied. The first step and the stopping rule of
#: `tfstyle.optim.lbfgs_fixed_step` depend on the unit of the loss. The programs that use this optimiser have
#: losses that are about a million times larger.
LOSS_FACTORS: Mapping[str, float] = {"lbfgs_fixed_step": 1e6}
#: Iterations of a run that ends after a given time.
UNLIMITED_ITERATIONS = 1_000_000
#: Content image and style image, each float32 ``[height, width, 3]`` in 0..1, at the size of the run.
Images = tuple[np.ndarray, np.ndarray]
#: Function from an image, float32 ``[height, width, 3]`` in 0..1, to the terms of its loss by name.
ImageLoss = Callable[[np.ndarray], Mapping[str, float]]


class TimedRun(NamedTuple):
    """The result of a timed run, with the losses and times of its iterations.

    Attributes:
        image: the last image, float32 ``[height, width, 3]`` in 0..1.
        terms: terms of that image's loss, by name.
        seconds: time at the end of every iteration, without tracing, compiling and measuring the loss.
        losses: loss of the image after every iteration. For a preset, all but the last are NaN, because they
            are not measured.
        first_evaluation: duration of a first iteration in seconds, including tracing and compiling.
    """

    image: np.ndarray
    terms: Mapping[str, float]
    seconds: list[float]
    losses: list[float]
    first_evaluation: float

    def evaluations_within(self, limit: float) -> int:
        """Return the number of iterations that ended within ``limit`` seconds."""
        return int(sum(second <= limit for second in self.seconds))


def config_encoder(config: StyleConfig, vgg_weights: Weights) -> Encoder:
    """Return the encoder that a config describes, with weights that are already loaded."""
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
    """Return a function that evaluates the objective of a config for an image.

    Args:
        config: options of the objective, with its layers.
        vgg_weights: weights of the encoder.
        images: content image and style image.

    Returns:
        Function from an image, float32 ``[height, width, 3]`` in 0..1, to the terms of its loss by name.
    """
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

    The run ends when both the number of iterations and the time limit are reached.

    Args:
        config: options of the run, with its layers.
        vgg_weights: weights of the encoder.
        images: content image and style image.
        image_loss: function of `make_image_loss` that measures the image after every iteration.
        iterations: smallest number of iterations.
        limit: smallest duration in seconds, or None.

    Returns:
        The last image, its loss, and the losses and times of all iterations.
    """
    loss_weights = ("content_weight", "style_weight", "tv_weight", "spectrum_weight")
    factor = LOSS_FACTORS.get(config.optimizer, 1.0)
    layers = (*(config.content_layers or ()), *(config.style_layers or ()))
    config = config.replace(content_weight=content_weight(config, layers))
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
        float(step_terms["total"])  # waits until the device has finished the iteration
        clock += time.perf_counter() - began
        output_image = np.clip(optimizer.solution(image, state)[0].numpy(), 0, 1)
        terms = image_loss(output_image)
        seconds.append(clock)
        losses.append(terms["total"])
        report_iteration(len(losses), max(iterations, len(losses)))
    return TimedRun(output_image, terms, seconds, losses, first_evaluation)


def _make_setup(config: StyleConfig, vgg_weights: Weights) -> TransferSetup:
    return make_setup(config, choose_device().value, encoder=config_encoder(config, vgg_weights))


def _make_targets(setup: TransferSetup, images: Images) -> object:
    content, style = (tf.constant(image[None]) for image in images)
    objective = setup.objective
    return call_as_graph(lambda: objective.targets(content, [objective.style_summary(style)]))


def fit_preset(options: StyleConfig, vgg_weights: Weights, *, size: int) -> StyleConfig:
    """Return the options of a preset for a size, without the layers that the weights do not reach.

    If the weights reach none of the preset's content layers, those of `paper_layers` are used. The preset
    ``default`` has the default content layers of the weights.

    Args:
        options: options of the preset.
        vgg_weights: weights of the encoder.
        size: longest side of the images in pixels.
    """
    available = vgg_weights.layer_names
    replacements = default_layers if options.content_layers is None else paper_layers
    default_content, default_style = replacements(vgg_weights)
    preset_layers = options.style_layers or default_style
    kept = [k for k, layer in enumerate(preset_layers) if layer in available]
    layer_weights = options.style_layer_weights
    content_layers = tuple(layer for layer in options.content_layers or () if layer in available)
    return options.replace(
        {
            "size": size,
            "size_of": "longest",
            "enlarge": False,
            "steps_per_call": 1,
            "content_layers": content_layers or default_content,
            "style_layers": tuple(preset_layers[k] for k in kept),
            "style_layer_weights": layer_weights and tuple(layer_weights[k] for k in kept),
        }
    )


def run_preset(
    config: StyleConfig, vgg_weights: Weights, *, images: Images, image_loss: ImageLoss, limit: float
) -> TimedRun:
    """Run a preset for a given time.

    A preset with one scale runs until the time is over. A preset with several scales gets numbers of
    iterations that take about this time. The durations of its iterations are first measured in a short run.
    If the loss becomes infinite or NaN, the result has the last finite image.

    Args:
        config: options of the preset, as `fit_preset` returns them.
        vgg_weights: weights of the encoder.
        images: content image and style image.
        image_loss: function of `make_image_loss` that measures the last image.
        limit: duration in seconds.

    Returns:
        The last image, its loss, and the times of all iterations.
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
    """Return the image at the time limit, and append the end time of every iteration to ``seconds``."""
    pilot_seconds = pilot.history.seconds
    costs = [pilot_seconds[2 * k + 1] - pilot_seconds[2 * k] for k in range(len(pilot.scales))]
    run = Run(*images, _share_iterations(config, costs, limit=limit), setup=pilot.setup)
    clock, began = 0.0, time.perf_counter()
    for step in run:
        # The first iteration of each scale includes tracing, so that its measured cost is used instead.
        clock += costs[step.scale - 1] if step.iteration == 1 else time.perf_counter() - began
        seconds.append(clock)
        if len(costs) == 1 and clock >= limit:
            break
        began = time.perf_counter()
    return run.result().image


def _share_iterations(config: StyleConfig, costs: list[float], *, limit: float) -> StyleConfig:
    """Return the config with its numbers of iterations scaled, so that they take about ``limit`` seconds."""
    if len(costs) == 1:
        return config.replace(
            {"iterations": UNLIMITED_ITERATIONS, "first_iterations": None, "iteration_decay": None}
        )
    planned = iterations_per_scale(config, len(costs))
    share = limit / sum(cost * count for cost, count in zip(costs, planned, strict=True))
    first, later = (max(1, round(share * count)) for count in (planned[0], planned[-1]))
    return config.replace({"first_iterations": first, "iterations": later, "iteration_decay": None})

"""Ways to minimise, watched: the loss by one judge after every evaluation, and the seconds it took."""

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

#: What an optimiser minimises the objective times. The first move and the end of `tfstyle.lbfgs_fixed` depend
#: on the loss's unit, and the programs that it is from have losses a million times ours.
UNITS: Mapping[str, float] = {"lbfgs_fixed_step": 1e6}
#: For a run that the clock ends.
MANY = 1_000_000
Pair = tuple[np.ndarray, np.ndarray]
#: A picture, float32 ``[height, width, 3]`` in 0..1 -> the terms of its loss.
Judge = Callable[[np.ndarray], Mapping[str, float]]


class Course(NamedTuple):
    """How a way of minimising went.

    Attributes:
        image: the last picture, float32 ``[height, width, 3]`` in 0..1.
        terms: the judge's, of that picture.
        seconds: at the end of every evaluation; tracing, compiling and judging are not counted.
        losses: the judge's total of the picture after it; of a preset only the last is known, others are NaN.
        ready: seconds of a first evaluation, tracing and compiling included.
    """

    image: np.ndarray
    terms: Mapping[str, float]
    seconds: list[float]
    losses: list[float]
    ready: float

    def evaluations(self, limit: float) -> int:
        """How many were done within so many seconds."""
        return int(sum(second <= limit for second in self.seconds))


def encoder_for(config: StyleConfig, loaded: Weights) -> Encoder:
    """The encoder that a config names, of weights that are there already."""
    return Encoder(
        (*(config.content_layers or ()), *(config.style_layers or ())),
        loaded,
        pooling=config.pooling,
        padding=config.padding,
        dtype=choose_precision(config.precision, choose_device().value).value,
        network=loaded.network,
        pixel_range=config.pixel_range,
        feature_scale=config.feature_scale,
    )


def judged(config: StyleConfig, loaded: Weights, images: Pair) -> Judge:
    """A config's objective as a function of finished pictures."""
    prepared = _prepared(config, loaded)
    targets = _targets(prepared, images)
    evaluate = tf.function(prepared.objective, autograph=False)
    return lambda image: {
        name: float(term) for name, term in evaluate(tf.constant(image[None]), targets).items()
    }


def course(
    config: StyleConfig, loaded: Weights, images: Pair, judge: Judge, iterations: int, limit: float | None
) -> Course:
    """Minimise a config's objective from the content, at one size.

    Args:
        config: with its layers.
        loaded: the encoder's weights.
        images: content and style, float32 ``[height, width, 3]`` in 0..1, as large as they are to be.
        judge: of `judged`.
        iterations: at least so many evaluations.
        limit: at least so many seconds.
    """
    weights = ("content_weight", "style_weight", "tv_weight")
    unit = UNITS.get(config.optimizer, 1.0)
    prepared = _prepared(config.replace({name: unit * getattr(config, name) for name in weights}), loaded)
    targets, optimizer = _targets(prepared, images), prepared.optimizer
    _, step = prepared.step([1], 1, 0)
    image = tf.constant(images[0][None])
    state = optimizer.init(image)
    began = time.perf_counter()
    float(step(image, state, targets)[2]["total"])
    ready = time.perf_counter() - began
    clock = 0.0
    seconds: list[float] = []
    losses: list[float] = []
    while len(losses) < iterations or (limit is not None and clock < limit):
        began = time.perf_counter()
        image, state, terms = step(image, state, targets)
        float(terms["total"])  # waits for the device
        clock += time.perf_counter() - began
        picture = np.clip(optimizer.solution(image, state)[0].numpy(), 0, 1)
        found = judge(picture)
        seconds.append(clock)
        losses.append(found["total"])
    return Course(picture, found, seconds, losses, ready)


def _prepared(config: StyleConfig, loaded: Weights) -> TransferSetup:
    return make_setup(config, choose_device().value, [], encoder_for(config, loaded))


def _targets(prepared: TransferSetup, images: Pair) -> object:
    content, style = (tf.constant(image[None]) for image in images)
    objective = prepared.objective
    return call_as_graph(lambda: objective.targets(content, [objective.style_summary(style)]))


def preset_for(options: StyleConfig, loaded: Weights, size: int) -> StyleConfig:
    """A preset's options at a size, without the layers that the weights do not reach.

    Where none is left of the content layers, those that `tfstyle.stylize` takes.
    """
    reached = loaded.layer_names
    contents, styles = default_layers(loaded)
    wanted = options.style_layers or styles
    shares = options.style_layer_weights or [1.0] * len(wanted)
    kept = {layer: share for layer, share in zip(wanted, shares, strict=True) if layer in reached}
    return options.replace(
        {
            "size": size,
            "size_of": "longest",
            "enlarge": False,
            "steps_per_call": 1,
            "content_layers": tuple(x for x in options.content_layers or () if x in reached) or contents,
            "style_layers": tuple(kept),
            "style_layer_weights": tuple(kept.values()),
        }
    )


def of_preset(config: StyleConfig, loaded: Weights, images: Pair, judge: Judge, limit: float) -> Course:
    """Run a preset for so many seconds: one size until they are over, several with iterations that fit.

    A preset whose loss becomes infinite has the last good picture.
    """
    two = {"iterations": 2, "first_iterations": None, "iteration_decay": None}
    pilot = Run(*images, config.replace(two), encoder_for(config, loaded))
    seconds: list[float] = []
    try:
        for _ in pilot:
            pass
        image = _until(pilot, config, images, limit, seconds)
    except NotFiniteError as error:
        image = error.result.image
    terms, ready = judge(image), pilot.history.seconds[0]
    seconds = seconds or [ready]
    return Course(image, terms, seconds, [np.nan] * (len(seconds) - 1) + [terms["total"]], ready)


def _until(pilot: Run, config: StyleConfig, images: Pair, limit: float, seconds: list[float]) -> np.ndarray:
    """The picture at the limit; every evaluation's end is added to the seconds."""
    passed = pilot.history.seconds
    costs = [passed[2 * k + 1] - passed[2 * k] for k in range(len(pilot.shapes))]
    run = Run(*images, _shared_out(config, costs, limit), preparation=pilot.preparation)
    clock, last = 0.0, time.perf_counter()
    for step in run:
        # The first of each size is traced.
        clock += costs[step.scale - 1] if step.iteration == 1 else time.perf_counter() - last
        seconds.append(clock)
        if len(costs) == 1 and clock >= limit:
            break
        last = time.perf_counter()
    return run.result().image


def _shared_out(config: StyleConfig, costs: list[float], limit: float) -> StyleConfig:
    """The config with as many iterations as take so long, in the proportions that it has."""
    if len(costs) == 1:
        return config.replace({"iterations": MANY, "first_iterations": None, "iteration_decay": None})
    planned = iterations_per_scale(config, len(costs))
    share = limit / sum(cost * count for cost, count in zip(costs, planned, strict=True))
    first, later = (max(1, round(share * count)) for count in (planned[0], planned[-1]))
    return config.replace({"first_iterations": first, "iterations": later, "iteration_decay": None})

"""A comparison of optimisers, compile modes, precisions and presets by one objective."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import tensorflow as tf

from tfstyle.config import PAPER_CONTENT_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.device import choose_device
from tfstyle.errors import ConfigError
from tfstyle.network import load_weights, paper_layers
from tfstyle.papers.distances import GRAM_LOSSES
from tfstyle.papers.image_pairs import read_images
from tfstyle.papers.study import Curves, Panel, Progress, Study, panel_rows, report_progress
from tfstyle.papers.timed_runs import TimedRun, fit_preset, make_image_loss, run_optimizer, run_preset
from tfstyle.papers.vgg_encoders import available_layers, describe_network, network_facts
from tfstyle.presets import PRESETS, preset


class NamedRun(NamedTuple):
    """One run of the comparison.

    Attributes:
        name: name of the run in the table and in the figure.
        config: options of the run.
        run: the image, losses and times of the run.
    """

    name: str
    config: StyleConfig
    run: TimedRun


def compare(
    content: Any,
    style: Any,
    *,
    weights: str = "auto",
    size: int = 128,
    iterations: int = 30,
    seconds: float | None = None,
    optimizers: tuple[str, ...] = ("adam", "lbfgs", "lbfgs_fixed_step"),
    compilers: tuple[str, ...] = ("graph", "xla", "eager"),
    precisions: tuple[str, ...] = ("float32", "bfloat16"),
    presets: tuple[str, ...] | None = None,
    content_weight: float = 0.04,
    progress: Progress | None = None,
) -> Study:
    """Compare optimisers, compile modes, precisions and presets on one content and style image.

    Every combination of an optimiser, a compile mode and a precision minimises the objective of Gram matrices
    with equal layer weights at one scale, starting from the content image. A preset minimises the objective
    of the program that it imitates. It keeps the number of scales of that program, and its numbers of
    iterations are changed so that it ends after ``seconds``. All images are compared by the objective of Gram
    matrices in float32.

    The times are those of the iterations. They do not include encoding the targets, tracing and compiling;
    the table has the time of a first iteration with tracing and compiling in a column of its own.
    `tfstyle.optim.lbfgs_fixed_step` minimises the objective multiplied by a million, because its first step
    and its stopping rule depend on the unit of the loss.

    Args:
        content: content image.
        style: style image.
        weights: VGG-19 weights: auto (imagenet if they can be downloaded, otherwise embedded), imagenet,
            embedded, random, or a weights file.
        size: longest side of the images in pixels; smaller images are not enlarged.
        iterations: number of iterations after which the runs are compared.
        seconds: time in seconds after which the runs and the presets are compared; by default the time that
            the fastest run takes for its iterations.
        optimizers: optimisers, separated by commas: adam, lbfgs, lbfgs_fixed_step.
        compilers: compile modes, separated by commas: graph, xla, eager; compiling with xla is slow on a CPU.
        precisions: precisions of the features, separated by commas: float32, bfloat16, float16.
        presets: presets, separated by commas, as listed by tfstyle presets; by default all.
        content_weight: weight of the content loss relative to the style loss, in the runs and in the
            objective by which all images are compared.
        progress: function that is called with one line of text when a run is done.

    Returns:
        The diagrams of the loss against iterations and against time, the images of the fastest run of each
        optimiser and of each preset, and a table of all runs.

    Raises:
        ConfigError: an option has an invalid value, or a preset does not exist.

    Reference: Nikulin, Novak 2016, arXiv 1602.07188, who compare implementations and frameworks. Our reading:
    the choice of the runs and the measure by which they are compared.
    """
    preset_options = {name: preset(name) for name in (PRESETS if presets is None else presets)}
    vgg_weights, images = load_weights(weights), read_images(content, style, size=size)
    layers = dict(zip(("content_layers", "style_layers"), paper_layers(vgg_weights), strict=True))
    base = StyleConfig(size=size, iterations=iterations, precision="float32").replace(
        {**GRAM_LOSSES, **layers, "content_weight": content_weight}
    )
    configs = [
        base.replace({"optimizer": optimizer, "compile": compiler, "precision": precision})
        for optimizer, compiler, precision in product(optimizers, compilers, precisions)
    ]
    values = {"optimizers": optimizers, "compilers": compilers, "precisions": precisions}
    if empty := [name for name, given in values.items() if not given]:
        raise ConfigError(f"{empty[0]} is empty; give at least one value")
    with tf.device(choose_device().value):
        image_loss = make_image_loss(base, vgg_weights, images=images)
        start = image_loss(images[0])
        runs: list[NamedRun] = []
        for config in configs:
            run = run_optimizer(
                config,
                vgg_weights,
                images=images,
                image_loss=image_loss,
                iterations=iterations,
                limit=seconds,
            )
            runs.append(NamedRun(_config_name(config), config, run))
            report_progress(progress, runs[-1].name, text=_describe_run(run))
        fastest = min(named.run.seconds[iterations - 1] for named in runs)
        limit = fastest if seconds is None else seconds
        preset_runs: list[NamedRun] = []
        for name, options in preset_options.items():
            config = fit_preset(options, vgg_weights, size=size)
            run = run_preset(config, vgg_weights, images=images, image_loss=image_loss, limit=limit)
            preset_runs.append(NamedRun(f"preset {name}", config, run))
            report_progress(progress, preset_runs[-1].name, text=_describe_run(run))
    fastest_runs = [
        min(
            (named for named in runs if named.config.optimizer == name),
            key=lambda named: named.run.seconds[iterations - 1],
        )
        for name in optimizers
    ]
    panels = [Panel(images[0], "content", f"loss {start['total']:.3g}"), Panel(images[1], "style")]
    panels += [Panel(run.image, name, _describe_run(run)) for name, _, run in (*fastest_runs, *preset_runs)]
    caption = [
        _caption(base, vgg_weights.source, start=start["total"], runs=runs, limit=limit),
        available_layers(vgg_weights, (*STYLE_LAYERS, *PAPER_CONTENT_LAYERS))[1],
    ]
    return Study(
        f"Optimisers, compile modes, precisions and presets at {size} px, after {iterations} iterations and "
        f"after {limit:.2g} s",
        (_loss_diagrams(runs, optimizers), *panel_rows(panels, 4)),
        caption=" ".join(filter(None, caption)),
        table=(
            *(_table_line(named, start["total"], limit=limit, iterations=iterations) for named in runs),
            *(_table_line(named, start["total"], limit=limit, iterations=None) for named in preset_runs),
        ),
        facts=network_facts(
            vgg_weights.source,
            base.pooling,
            size=size,
            iterations=iterations,
            seconds=limit,
            content_weight=content_weight,
            start=start,
        ),
    )


def _config_name(config: StyleConfig) -> str:
    return f"{config.optimizer} {config.compile} {config.precision}"


def _describe_run(run: TimedRun) -> str:
    terms = ", ".join(f"{name} {run.terms[name]:.2g}" for name in ("style", "content"))
    effort = f"after {len(run.losses)} iterations, {run.seconds[-1]:.2g} s"
    return f"loss {run.losses[-1]:.3g} ({terms})\n{effort}"


def _table_line(named: NamedRun, start: float, *, limit: float, iterations: int | None) -> dict[str, Any]:
    """Return a line of the table. For a preset, ``iterations`` is None and only its last loss is known."""
    name, config, run = named
    evaluations = run.evaluations_within(limit)
    if iterations is None:
        timed_loss = run.losses[-1]
    else:
        timed_loss = run.losses[evaluations - 1] if evaluations else start
    return {
        "run": name,
        "optimiser": config.optimizer,
        "precision": config.precision,
        "first iteration with compiling, s": run.first_evaluation,
        "mean time of an iteration, s": run.seconds[-1] / len(run.seconds),
        "loss after equal iterations": "" if iterations is None else run.losses[iterations - 1],
        "loss after equal time": timed_loss,
        "iterations in that time": len(run.losses) if iterations is None else evaluations,
    }


def _loss_diagrams(runs: Sequence[NamedRun], optimizers: Sequence[str]) -> tuple[Curves, ...]:
    """Return a diagram of the losses by iteration, and for each optimiser a diagram of the losses by time.

    The first diagram has only the first run of each optimiser.
    """
    first_runs = [next(named for named in runs if named.config.optimizer == name) for name in optimizers]
    by_evaluations = {name: (range(1, len(run.losses) + 1), run.losses) for name, _, run in first_runs}
    by_seconds: dict[str, dict[str, tuple[list[float], list[float]]]] = {name: {} for name in optimizers}
    for _, config, run in runs:
        by_seconds[config.optimizer][f"{config.compile} {config.precision}"] = run.seconds, run.losses
    y = "loss in float32"
    return (
        Curves(by_evaluations, "loss by iteration", "iterations", y),
        *(Curves(series, name, "time in seconds", y) for name, series in by_seconds.items()),
    )


def _caption(base: StyleConfig, source: str, *, start: float, runs: Sequence[NamedRun], limit: float) -> str:
    """Describe the objective and the starts, and name the run with the lowest loss."""
    lowest = min(runs, key=lambda named: named.run.losses[base.iterations - 1])
    return (
        "Our reading of Nikulin & Novak (2016). All images are compared by one objective in float32 "
        f"with VGG-19: the style loss, which is the mean of Σ(G-A)²/ΣA² over "
        f"{', '.join(base.style_layers or ())}, plus {base.content_weight:g} times the content loss at "
        f"{', '.join(base.content_layers or ())}, plus {base.tv_weight:g} times the total variation. All "
        f"runs but those of presets start from the content image, whose loss is {start:.3g}. The times are "
        "those of the iterations on this machine. lbfgs_fixed_step minimises the objective multiplied by a "
        "million. The presets minimise their own objectives from their own starts and end after "
        f"{limit:.2g} s. The run with the lowest loss after equal iterations is {lowest.name}. "
        f"{describe_network(source, base.pooling)}"
    )

"""Optimisers, compilers, precisions and presets on one pair, by one objective."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import tensorflow as tf

from tfstyle.config import CONTENT_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.device import choose_device
from tfstyle.errors import ConfigError
from tfstyle.network import default_layers, load_weights
from tfstyle.papers.image_pairs import read_images
from tfstyle.papers.study import Curves, Panel, Progress, Study, panel_rows, report_progress
from tfstyle.papers.timed_runs import TimedRun, fit_preset, make_image_loss, run_optimizer, run_preset
from tfstyle.papers.vgg_encoders import available_layers, describe_network, network_facts
from tfstyle.presets import PRESETS, preset


class NamedRun(NamedTuple):
    """One run of the comparison.

    Attributes:
        name: of the run in the table and in the figure.
        config: whose objective was minimised.
        run: its outcome.
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
    """Optimisers, compile modes and precisions on one pair at one size, and other programs' presets.

    All runs minimise the default objective of `tfstyle.stylize` from the content image, and every image is
    judged by it in float32, also those of the presets, which minimise others. A preset keeps its own scales,
    its iterations shared out so that they end with the time. Seconds are those of iterations: encoding the
    targets, tracing and compiling come before, and the table has the last two with a first evaluation.
    `tfstyle.optim.lbfgs_fixed_step`, whose moves depend on the unit of the loss, minimises a million times
    the objective.

    Args:
        content: image whose forms are kept.
        style: image whose look is taken.
        weights: of VGG-19: auto, imagenet, embedded, random or a file.
        size: longest side in pixels.
        iterations: evaluations of the loss.
        seconds: after which all are compared; by default what the fastest took for its evaluations.
        optimizers: of adam, lbfgs and lbfgs_fixed_step.
        compilers: of graph, xla and eager; xla takes its time to compile on a processor.
        precisions: of float32, bfloat16 and float16.
        presets: sets of options, as tfstyle presets lists them; by default all.
        content_weight: of the content against the style, in what is minimised and judged.
        progress: called with a line when a part is done.

    Returns:
        loss against evaluations and seconds, the images, and the table.

    Raises:
        ConfigError: an option has a value it cannot have; no such preset.

    Reference: Nikulin, Novak 2016, arXiv 1602.07188, who compare implementations and frameworks. Our reading
    of it: which, and by what measure.
    """
    preset_options = {name: preset(name) for name in (PRESETS if presets is None else presets)}
    vgg_weights, images = load_weights(weights), read_images(content, style, size=size)
    layers = dict(zip(("content_layers", "style_layers"), default_layers(vgg_weights), strict=True))
    base = StyleConfig(
        size=size, iterations=iterations, content_weight=content_weight, precision="float32"
    ).replace(layers)
    configs = [
        base.replace({"optimizer": optimizer, "compile": compiler, "precision": precision})
        for optimizer, compiler, precision in product(optimizers, compilers, precisions)
    ]
    if not configs:
        raise ConfigError("compare needs at least one optimizer, compiler and precision")
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
        available_layers(vgg_weights, (*STYLE_LAYERS, *CONTENT_LAYERS))[1],
    ]
    return Study(
        f"Ways to minimise, {size} px: {iterations} evaluations, {limit:.2g} seconds",
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
    effort = f"after {len(run.losses)} evaluations, {run.seconds[-1]:.2g} s"
    return f"loss {run.losses[-1]:.3g} ({terms})\n{effort}"


def _table_line(named: NamedRun, start: float, *, limit: float, iterations: int | None) -> dict[str, Any]:
    """Write a line of the table; a preset, without iterations, has a loss at the end of its time alone."""
    name, config, run = named
    evaluations = run.evaluations_within(limit)
    if iterations is None:
        timed_loss = run.losses[-1]
    else:
        timed_loss = run.losses[evaluations - 1] if evaluations else start
    return {
        "way": name,
        "optimiser": config.optimizer,
        "precision": config.precision,
        "first evaluation with compiling, s": run.first_evaluation,
        "an evaluation, s": run.seconds[-1] / len(run.seconds),
        "loss after equal evaluations": "" if iterations is None else run.losses[iterations - 1],
        "loss after equal seconds": timed_loss,
        "evaluations by then": len(run.losses) if iterations is None else evaluations,
    }


def _loss_diagrams(runs: Sequence[NamedRun], optimizers: Sequence[str]) -> tuple[Curves, ...]:
    """Draw loss against evaluations, of each optimiser's first run, and against seconds, of all runs."""
    first_runs = [next(named for named in runs if named.config.optimizer == name) for name in optimizers]
    by_evaluations = {name: (range(1, len(run.losses) + 1), run.losses) for name, _, run in first_runs}
    by_seconds: dict[str, dict[str, tuple[list[float], list[float]]]] = {name: {} for name in optimizers}
    for _, config, run in runs:
        by_seconds[config.optimizer][f"{config.compile} {config.precision}"] = run.seconds, run.losses
    y = "loss, float32"
    return (
        Curves(by_evaluations, "by evaluations", "evaluations", y),
        *(Curves(series, name, "seconds", y) for name, series in by_seconds.items()),
    )


def _caption(base: StyleConfig, source: str, *, start: float, runs: Sequence[NamedRun], limit: float) -> str:
    """Say what is judged, and which run came lowest."""
    lowest = min(runs, key=lambda named: named.run.losses[base.iterations - 1])
    return (
        "Our reading of Nikulin & Novak (2016). Judged by the default objective in float32, in "
        f"VGG-19: style, the mean of Σ(G-A)²/ΣA² over {', '.join(base.style_layers or ())}; "
        f"{base.content_weight:g} content, at {', '.join(base.content_layers or ())}; {base.tv_weight:g} "
        f"total variation. The content image, from which all ways start, has {start:.3g}. Seconds are those "
        "of evaluations, on this machine. lbfgs_fixed_step minimises a million times the objective. Presets, "
        f"ended after {limit:.2g} s, minimise objectives of their own and start where they do. Lowest after "
        f"equal evaluations: {lowest.name}. {describe_network(source, base.pooling)}"
    )

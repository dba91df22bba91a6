"""Optimisers, compilers, precisions and presets on one pair, by one objective."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import tensorflow as tf

from tfstyle.config import CONTENT_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.device import choose_device
from tfstyle.errors import ConfigError
from tfstyle.network import default_layers
from tfstyle.network import weights as sources
from tfstyle.papers.courses import Course, course, judged, of_preset, preset_for
from tfstyle.papers.judging import in_rows, read_pair, there
from tfstyle.papers.study import Curves, Panel, Progress, Study
from tfstyle.presets import PRESETS, preset

Way = tuple[str, StyleConfig, Course]


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

    All ways minimise the default objective of `tfstyle.stylize` from the content image, and every picture is
    judged by it in float32, also those of the presets, which minimise others. A preset keeps its own scales,
    its iterations shared out so that they end with the time. Seconds are those of iterations: encoding the
    targets, tracing and compiling come before, and the table has the last two with a first evaluation.
    `tfstyle.lbfgs_fixed`, whose moves depend on the loss's unit, minimises a million times the objective.

    Args:
        content: image whose forms are kept.
        style: image whose look is taken.
        weights: of VGG-19: auto, imagenet, embedded, random or a file.
        size: longest side in pixels.
        iterations: evaluations of the loss.
        seconds: after which all are compared; by default what the fastest took for its evaluations.
        optimizers: of adam, lbfgs and lbfgs_fixed.
        compilers: of graph, xla and eager; xla takes its time to compile on a processor.
        precisions: of float32, bfloat16 and float16.
        presets: sets of options, as tfstyle presets lists them; by default all.
        content_weight: of the content against the style, in what is minimised and judged.
        progress: called with a line when a part is done.

    Returns:
        loss against evaluations and seconds, the pictures, and the table.

    Raises:
        ConfigError: an option has a value it cannot have; no such preset.

    Reference: Nikulin, Novak 2016, arXiv 1602.07188, who compare implementations and frameworks. Our reading
    of it: which, and by what measure.
    """
    sets = {name: preset(name) for name in (PRESETS if presets is None else presets)}
    loaded, images = sources.load_weights(weights), read_pair(content, style, size)
    layers = dict(zip(("content_layers", "style_layers"), default_layers(loaded), strict=True))
    base = StyleConfig(
        size=size, iterations=iterations, content_weight=content_weight, precision="float32"
    ).replace(layers)
    configs = [
        base.replace({"optimizer": o, "compile": c, "precision": p})
        for o, c, p in product(optimizers, compilers, precisions)
    ]
    if not configs:
        raise ConfigError("compare needs at least one optimizer, compiler and precision")
    with tf.device(choose_device().value):
        judge = judged(base, loaded, images)
        start = judge(images[0])

        def say(way: Way) -> Way:
            if progress is not None:
                progress(f"{way[0]}: {_words(way[2])}".replace("\n", " "))
            return way

        ways = [say((_name(x), x, course(x, loaded, images, judge, iterations, seconds))) for x in configs]
        fastest = min(done.seconds[iterations - 1] for _, _, done in ways)
        limit = fastest if seconds is None else seconds
        others = [
            say((f"preset {name}", x, of_preset(x, loaded, images, judge, limit)))
            for name, x in ((name, preset_for(options, loaded, size)) for name, options in sets.items())
        ]
    best = [
        min((way for way in ways if way[1].optimizer == name), key=lambda way: way[2].seconds[iterations - 1])
        for name in optimizers
    ]
    panels = [Panel(images[0], "content", f"loss {start['total']:.3g}"), Panel(images[1], "style")]
    panels += [Panel(done.image, name, _words(done)) for name, _, done in (*best, *others)]
    caption = _caption(base, loaded.source, start["total"], ways, limit)
    return Study(
        f"Ways to minimise, {size} px: {iterations} evaluations, {limit:.2g} seconds",
        (_curves(ways, optimizers), *in_rows(panels, 4)),
        " ".join(filter(None, (caption, there(loaded, (*STYLE_LAYERS, *CONTENT_LAYERS))[1]))),
        (
            *(_row(way, start["total"], limit, iterations) for way in ways),
            *(_row(way, start["total"], limit, None) for way in others),
        ),
        {"weights": loaded.source, "size": size, "iterations": iterations, "seconds": limit}
        | {"content_weight": content_weight, "start": start},
    )


def _name(config: StyleConfig) -> str:
    return f"{config.optimizer} {config.compile} {config.precision}"


def _words(done: Course) -> str:
    terms = ", ".join(f"{name} {done.terms[name]:.2g}" for name in ("style", "content"))
    spent = f"after {len(done.losses)} evaluations, {done.seconds[-1]:.2g} s"
    return f"loss {done.losses[-1]:.3g} ({terms})\n{spent}"


def _row(way: Way, start: float, limit: float, iterations: int | None) -> dict[str, Any]:
    """A line of the table; a preset has a loss at the end of its time alone."""
    name, config, done = way
    within = done.evaluations(limit)
    timed = done.losses[-1] if iterations is None else done.losses[within - 1] if within else start
    return {
        "way": name,
        "optimiser": config.optimizer,
        "precision": config.precision,
        "first evaluation with compiling, s": done.ready,
        "an evaluation, s": done.seconds[-1] / len(done.seconds),
        "loss after equal evaluations": "" if iterations is None else done.losses[iterations - 1],
        "loss after equal seconds": timed,
        "evaluations by then": len(done.losses) if iterations is None else within,
    }


def _curves(ways: Sequence[Way], optimizers: Sequence[str]) -> tuple[Curves, ...]:
    """Loss against evaluations, of each optimiser's first way, and against seconds, a diagram for each."""
    first = [next(way for way in ways if way[1].optimizer == name) for name in optimizers]
    counted = {name: (range(1, len(done.losses) + 1), done.losses) for name, _, done in first}
    timed: dict[str, dict[str, tuple[list[float], list[float]]]] = {name: {} for name in optimizers}
    for _, config, done in ways:
        timed[config.optimizer][f"{config.compile} {config.precision}"] = done.seconds, done.losses
    y = "loss, float32"
    return (
        Curves(counted, "by evaluations", "evaluations", y),
        *(Curves(series, name, "seconds", y) for name, series in timed.items()),
    )


def _caption(base: StyleConfig, source: str, start: float, ways: Sequence[Way], limit: float) -> str:
    """What is judged, and which way came lowest."""
    lowest = min(ways, key=lambda way: way[2].losses[base.iterations - 1])
    return (
        "Our reading of Nikulin & Novak (2016). Judged by the default objective in float32, in VGG-19 "
        f"({source}): style, the mean of Σ(G-A)²/ΣA² over {', '.join(base.style_layers or ())}; "
        f"{base.content_weight:g} content, at {', '.join(base.content_layers or ())}; {base.tv_weight:g} "
        f"total variation. The content image, from which all ways start, has {start:.3g}. Seconds are those "
        "of evaluations, on this machine. lbfgs_fixed minimises a million times the objective. Presets, "
        f"ended after {limit:.2g} s, minimise objectives of their own and start where they do. Lowest after "
        f"equal evaluations: {lowest[0]}."
    )

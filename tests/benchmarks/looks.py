"""A contact sheet for judging by eye: ``python -m tests.benchmarks.looks --weights FILE -o sheet.png``.

Each row shows a content image, a style image, and the results of tfstyle's default options and of the presets
of three other programs. The presets run without compilation in float32, as the original programs do, for as
many seconds as the default run took. crowsonkb's program goes through five scales, so its number of
iterations per scale is chosen such that the run ends in time.

The table compares losses by the formula of the PyTorch notebook of Gatys et al., which the default does not
minimise: the loss of the default's result, and the loss of the result of the preset ``gatys-pytorch`` (run in
float32, at one scale, without compilation) after the same time.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tests.benchmarks import machine

PAIRS = (
    ("tubingen.jpg", "starry_night_google.jpg"),
    ("golden_gate.jpg", "the_scream.jpg"),
    ("hoovertowernight.jpg", "starry_night_google.jpg"),
    ("tubingen.jpg", "shipwreck.jpg"),
    ("golden_gate.jpg", "woman-with-hat-matisse.jpg"),
)
AS_ORIGINAL = {"precision": "float32", "compile": "eager"}


def main() -> None:
    from tfstyle.config import StyleConfig
    from tfstyle.images import ImageArray, contact_sheet, save

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("looks.png"), help="the contact sheet [%(default)s]"
    )
    parser.add_argument(
        "--images",
        type=Path,
        default=Path(__file__).parents[3] / "shared" / "images",
        metavar="FOLDER",
        help="the folder with the content and style images [../shared/images]",
    )
    parser.add_argument("--weights", default="imagenet", help="as for tfstyle stylize [%(default)s]")
    parser.add_argument("--size", type=int, default=384, help="longest side in pixels [%(default)s]")
    parser.add_argument(
        "--pairs", type=int, default=len(PAIRS), metavar="N", help="use the first N pairs [all]"
    )
    parser.add_argument(
        "--pooling", default=StyleConfig().pooling, help="pooling of the default run [%(default)s]"
    )
    parser.add_argument(
        "--cell", type=int, default=384, help="side of a cell of the contact sheet in pixels [%(default)s]"
    )
    options = parser.parse_args()
    print(machine.line(), flush=True)
    rows = []
    print(f"{options.size} pixels, weights {options.weights}")
    print("seconds: default/neural-style-pt/crowsonkb/gatys-pytorch; losses: by the formula of gatys-pytorch")
    print(f"{'content':24}{'style':26}{'seconds':>14}{'default':>12}{'gatys':>12}{'ratio':>7}")
    for content, style in PAIRS[: options.pairs]:
        paths = options.images / content, options.images / style
        images, seconds, losses = compare(*paths, options.weights, options.size, options.pooling)
        rows.append(images)
        ratio = losses[0] / losses[1]
        shown = "/".join(f"{s:.0f}" for s in seconds)
        print(f"{content:24}{style:26}{shown:>14}{losses[0]:12.4g}{losses[1]:12.4g}{ratio:7.2f}", flush=True)
        save(options.output, ImageArray(contact_sheet(rows, side=options.cell)), overwrite=True)
    print(f"{options.output}: content, style, default, neural-style-pt, crowsonkb, gatys-pytorch")


def compare(
    content: Path, style: Path, weights: str, size: int, pooling: str
) -> tuple[list[np.ndarray], list[float], list[float]]:
    """Return the images of one row, the seconds of each run, and two losses by the notebook's formula.

    The losses are those of the default run and of the preset ``gatys-pytorch``.
    """
    from tfstyle import StyleConfig, preset
    from tfstyle.images import load

    ours = StyleConfig().replace({"weights": weights, "size": size, "pooling": pooling})
    began = time.perf_counter()
    run = for_seconds(content, style, ours, 1e9)
    seconds = [time.perf_counter() - began]
    layers = {key: run.facts[key] for key in ("content_layers", "style_layers")}
    common = {"weights": weights, "size": size, "size_of": "longest", **layers, **AS_ORIGINAL}
    shares = [4.0**-k for k in range(len(layers["style_layers"]))]
    notebook = preset("gatys-pytorch").replace(
        {**common, "scales": 1, "first_iterations": None, "iterations": 500}
    )
    ladder = preset("crowsonkb").replace({**common, "style_layer_weights": shares})
    runs = [run]
    torch, crowson = preset("neural-style-pt").replace(common), fitting(content, style, ladder, seconds[0])
    # crowsonkb's run ends by its number of iterations. The larger limit avoids stopping it in its last scale.
    for config, limit in ((torch, 1.0), (crowson, 1.2), (notebook, 1.0)):
        began = time.perf_counter()
        runs.append(for_seconds(content, style, config, limit * seconds[0]))
        seconds.append(time.perf_counter() - began)
    # The preset minimises over images that may leave 0..1, so its loss is that of the image before clipping.
    judged = (
        notebook_loss(run.result().image, content, style, notebook),
        notebook_loss(runs[3]._current_image(), content, style, notebook),
    )
    shown = [load(path).fitted(size).rgb for path in (content, style)]
    return [*shown, *(run.result().image for run in runs)], seconds, list(judged)


def for_seconds(content: Path, style: Path, config, seconds: float):
    """Return a run that was stopped after so many seconds, preparation included, or that ended earlier."""
    from tfstyle.run import Run

    began = time.perf_counter()
    run = Run(content, style, config)
    for _ in run:
        if time.perf_counter() - began > seconds:
            break
    return run


def fitting(content: Path, style: Path, config, seconds: float):
    """Return the config with as many iterations as fit into so many seconds.

    The first scale gets twice as many iterations as each later one. The time of an iteration is measured in a
    short run with two iterations per scale.
    """
    from tfstyle.run import Run

    began = time.perf_counter()
    run = Run(content, style, config.replace({"iterations": 2, "first_iterations": 2}))
    for _ in run:
        pass
    each = run.history.seconds
    preparing = time.perf_counter() - began - each[-1]
    costs = [each[2 * k + 1] - each[2 * k] for k in range(len(run.scales))]
    count = max(1, round((seconds - preparing) / (2 * costs[0] + sum(costs[1:]))))
    return config.replace({"iterations": count, "first_iterations": 2 * count})


def notebook_loss(image: np.ndarray, content: Path, style: Path, config) -> float:
    """Return the loss of an image ``[height, width, 3]`` by a config's objective at its last scale."""
    import tensorflow as tf

    from tfstyle.run import Layout, Run, ScaleTargets

    run = Run(content, style, config)
    targets = ScaleTargets(run.inputs, run.setup).compute(run.scales[-1], Layout())
    return float(run.setup.objective(tf.constant(image[None]), targets)["total"])


if __name__ == "__main__":
    main()

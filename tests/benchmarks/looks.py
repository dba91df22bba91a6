"""Pictures to be judged: ``python -m tests.benchmarks.looks --weights FILE -o sheet.png``.

For each pair of a photograph and a painting, side by side: the two, tfstyle's default, and what the presets
of two other programs, run as those run, have made after the same number of seconds. crowsonkb's program,
which goes through five sizes, gets as many iterations at each as let it end in time. Then, by the formula of
the authors' own PyTorch notebook, which the default does not minimise: the loss of the default's picture,
and of that preset's own, run as the original runs (float32, one scale, no compilation) for as long.
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
    parser.add_argument("-o", "--output", type=Path, default=Path("looks.png"))
    parser.add_argument("--images", type=Path, default=Path(__file__).parents[3] / "shared" / "images")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--pairs", type=int, default=len(PAIRS), metavar="N", help="the first N [all]")
    parser.add_argument("--pooling", default=StyleConfig().pooling, help="of tfstyle's picture [%(default)s]")
    parser.add_argument("--cell", type=int, default=384, help="pixels of a picture on the sheet")
    options = parser.parse_args()
    print(machine.line(), flush=True)
    rows = []
    print(f"{options.size} pixels, weights {options.weights}; * by the formula of the authors' notebook")
    print(f"{'content':24}{'style':26}{'seconds':>14}{'default *':>12}{'preset *':>12}{'ratio':>7}")
    for content, style in PAIRS[: options.pairs]:
        paths = options.images / content, options.images / style
        pictures, seconds, losses = compare(*paths, options.weights, options.size, options.pooling)
        rows.append(pictures)
        ratio = losses[0] / losses[1]
        shown = "/".join(f"{s:.0f}" for s in seconds)
        print(f"{content:24}{style:26}{shown:>14}{losses[0]:12.4g}{losses[1]:12.4g}{ratio:7.2f}", flush=True)
        save(options.output, ImageArray(contact_sheet(rows, side=options.cell)), overwrite=True)
    print(f"{options.output}: content, style, default, neural-style-pt, crowsonkb, gatys-pytorch")


def compare(
    content: Path, style: Path, weights: str, size: int, pooling: str
) -> tuple[list[np.ndarray], list[float], list[float]]:
    """The pictures of one row, the seconds that each took, and the notebook's loss of two of them."""
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
    for config, limit in ((torch, 1.0), (crowson, 1.2), (notebook, 1.0)):  # the last size is not cut short
        began = time.perf_counter()
        runs.append(for_seconds(content, style, config, limit * seconds[0]))
        seconds.append(time.perf_counter() - began)
    # The preset's is taken before its picture is brought within 0..1, which it does not minimise over.
    judged = (
        notebook_loss(run.result().image, content, style, notebook),
        notebook_loss(runs[3]._current_image(), content, style, notebook),
    )
    shown = [load(path).fitted(size).rgb for path in (content, style)]
    return [*shown, *(one.result().image for one in runs)], seconds, list(judged)


def for_seconds(content: Path, style: Path, config, seconds: float):
    """A run that has gone on for so long, its preparation included."""
    from tfstyle.run import Run

    began = time.perf_counter()
    run = Run(content, style, config)
    for _ in run:
        if time.perf_counter() - began > seconds:
            break
    return run


def fitting(content: Path, style: Path, config, seconds: float):
    """The config with as many iterations as take so long, twice as many at the first size as later."""
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
    """The loss of a finished picture in float32 by a config's own objective."""
    import tensorflow as tf

    from tfstyle.run import Layout, Run, ScaleTargets

    run = Run(content, style, config)
    targets = ScaleTargets(run.inputs, run.setup).compute(run.scales[-1], Layout())
    return float(run.setup.objective(tf.constant(image[None]), targets)["total"])


if __name__ == "__main__":
    main()

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

PAIRS = (
    ("tubingen.jpg", "starry_night_google.jpg"),
    ("golden_gate.jpg", "the_scream.jpg"),
    ("hoovertowernight.jpg", "starry_night_google.jpg"),
    ("tubingen.jpg", "shipwreck.jpg"),
    ("golden_gate.jpg", "woman-with-hat-matisse.jpg"),
)
AS_ORIGINAL = {"precision": "float32", "compile": "eager"}


def main() -> None:
    from tfstyle.images import Picture
    from tfstyle.saving import save
    from tfstyle.sheets import contact_sheet

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("looks.png"))
    parser.add_argument("--images", type=Path, default=Path(__file__).parents[3] / "shared" / "images")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--cell", type=int, default=384, help="pixels of a picture on the sheet")
    options = parser.parse_args()
    rows = []
    print(f"{options.size} pixels, weights {options.weights}; * by the formula of the authors' notebook")
    print(f"{'content':24}{'style':26}{'seconds':>8}{'default *':>12}{'preset *':>12}{'ratio':>7}")
    for content, style in PAIRS:
        paths = options.images / content, options.images / style
        pictures, seconds, losses = compare(*paths, options.weights, options.size)
        rows.append(pictures)
        ratio = losses[0] / losses[1]
        print(
            f"{content:24}{style:26}{seconds:8.0f}{losses[0]:12.4g}{losses[1]:12.4g}{ratio:7.2f}", flush=True
        )
        save(options.output, Picture(contact_sheet(rows, options.cell)), overwrite=True)
    print(f"{options.output}: content, style, default, neural-style-pt, crowsonkb, gatys-pytorch")


def compare(
    content: Path, style: Path, weights: str, size: int
) -> tuple[list[np.ndarray], float, list[float]]:
    """The pictures of one row, the seconds that each took, and the notebook's loss of two of them."""
    from tfstyle import StyleConfig, preset, stylize
    from tfstyle.images import load

    began = time.perf_counter()
    ours = stylize(content, style, weights=weights, size=size)
    seconds = time.perf_counter() - began
    layers = {key: ours.facts[key] for key in ("content_layers", "style_layers")}
    common = {"weights": weights, "size": size, "size_of": "longest", **layers}
    torch = for_seconds(content, style, preset("neural-style-pt").replace({**common, **AS_ORIGINAL}), seconds)
    ladder = preset("crowsonkb").replace(
        {**common, **AS_ORIGINAL, "style_layer_weights": 4.0 ** -np.arange(len(layers["style_layers"]))}
    )
    crowson = for_seconds(content, style, fitting(content, style, ladder, seconds), 1e9)
    one_scale = {"scales": 1, "first_iterations": None, "iterations": 500}
    notebook = preset("gatys-pytorch").replace({**common, **AS_ORIGINAL, **one_scale})
    gatys = for_seconds(content, style, notebook, seconds)
    losses = [notebook_loss(image, content, style, notebook) for image in (ours.image, gatys)]
    shown = [load(path).fitted(StyleConfig().size).rgb for path in (content, style)]
    return [*shown, ours.image, torch, crowson, gatys], seconds, losses


def for_seconds(content: Path, style: Path, config, seconds: float) -> np.ndarray:
    """The picture that a run has made by then, its preparation included."""
    from tfstyle.runs import Run

    began = time.perf_counter()
    run = Run(content, style, config)
    for _ in run:
        if time.perf_counter() - began > seconds:
            break
    return run.result().image


def fitting(content: Path, style: Path, config, seconds: float):
    """The config with as many iterations as take so long, twice as many at the first size as later."""
    from tfstyle.runs import Run

    began = time.perf_counter()
    run = Run(content, style, config.replace({"iterations": 2, "first_iterations": 2}))
    for _ in run:
        pass
    each = run.history.seconds
    preparing = time.perf_counter() - began - each[-1]
    costs = [each[2 * k + 1] - each[2 * k] for k in range(len(run.shapes))]
    count = max(1, round((seconds - preparing) / (2 * costs[0] + sum(costs[1:]))))
    return config.replace({"iterations": count, "first_iterations": 2 * count})


def notebook_loss(image: np.ndarray, content: Path, style: Path, config) -> float:
    """The loss of a finished picture in float32 by a config's own objective."""
    import tensorflow as tf

    from tfstyle.runs import Run

    run = Run(content, style, config)
    targets = run._scale_targets(run.shapes[-1])
    return float(run.preparation.objective(tf.constant(image[None]), targets)["total"])


if __name__ == "__main__":
    main()

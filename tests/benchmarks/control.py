"""What options do to a picture, in numbers and pictures.

``python -m tests.benchmarks.control --weights FILE -o sheet.png``. Each row is the default with some options
changed. ``--only equal`` runs every style loss with several content weights and interpolates what its style
is where the content is as far away as with the default. The columns:

style    energy distance of the picture's features from the style's, over that of the content's: samples of
         whole feature vectors at three layers and either pooling, which no style loss here minimises; lower
         is nearer
content  |F - P|² / |P|² at the content layer, of the finished picture
frame    how the outermost pixels differ from those six further in, over the same inside; 1: no frame
checker  energy at the finest diagonal pattern over that of single steps; the content's own is below it
seconds  of the run, on this machine; read ratios
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tests.benchmarks import machine

LOSSES = {
    "gram (default)": {},
    "mean_deviation": {"style_losses": ("mean_deviation",)},
    "wasserstein": {"style_losses": ("wasserstein",)},
    "histogram": {"style_losses": ("histogram",)},
    "sliced": {"style_losses": ("sliced",)},
    "shift": {"style_losses": ("shift",)},
    "gram + mean_deviation": {"style_losses": ("gram", "mean_deviation")},
}
SMOOTHNESS = {
    "default": {},
    "padding zeros": {"padding": "zeros"},
    "padding replicate": {"padding": "replicate"},
    "padding first": {"padding": "replicate_first"},
    "pooling avg": {"pooling": "avg"},
    "pooling rescaled": {"pooling": "rescaled"},
    "tv 0": {"tv_weight": 0.0},
    "tv nine_point": {"tv_form": "nine_point"},
    "tv magnitudes": {"tv_form": "sum_absolute", "tv_weight": 2e-7},
    "adam": {"optimizer": "adam"},
    "adam, average 0.95": {"optimizer": "adam", "ema_decay": 0.95},
    "normalize_gradients": {"normalize_gradients": True, "optimizer": "adam"},
}
CONTENT_WEIGHTS = (0.02, 0.04, 0.08)
SAMPLES = 1500  # positions of each layer in the energy distance


def main() -> None:
    from tfstyle.images import ImageArray, contact_sheet, save

    images = Path(__file__).parents[3] / "shared" / "images"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("control.png"))
    parser.add_argument("--content", type=Path, default=images / "tubingen.jpg")
    parser.add_argument("--styles", type=Path, nargs="+", default=[images / "starry_night_google.jpg"])
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--only", choices=("losses", "smoothness", "equal"), help="[the first two]")
    options = parser.parse_args()
    print(machine.line(), flush=True)
    if options.only == "equal":
        for style in options.styles:
            at_equal_content(options.content, style, options.weights, options.size)
        return
    chosen = {"losses": LOSSES, "smoothness": SMOOTHNESS}
    pictures = []
    for table in [options.only] if options.only else chosen:
        for style in options.styles:
            print(f"{options.content.name} in the style of {style.name}, {options.size} pixels")
            print(f"{'':24}{'style':>8}{'content':>9}{'frame':>8}{'checker':>9}{'seconds':>9}")
            row = []
            for name, changes in chosen[table].items():
                image, numbers = measured(options.content, style, options.weights, options.size, changes)
                row.append(image)
                print(
                    f"{name:24}{numbers[0]:8.3f}{numbers[1]:9.3f}{numbers[2]:8.2f}{numbers[3]:9.3f}"
                    f"{numbers[4]:9.0f}",
                    flush=True,
                )
            pictures.append(row)
    width = max(map(len, pictures))
    rows = [[*row, *[None] * (width - len(row))] for row in pictures]
    save(options.output, ImageArray(contact_sheet(rows, options.size)), overwrite=True)
    print(options.output)


def at_equal_content(content: Path, style: Path, weights: str, size: int) -> None:
    """Prints each loss's style and seconds where its content is the default's."""
    print(f"{content.name} in the style of {style.name}, {size} pixels, content as with the default")
    print(f"{'':24}{'style':>8}   {'seconds':>8}  content at {CONTENT_WEIGHTS}")
    goal = None
    for name, changes in LOSSES.items():
        rows = []
        for weight in CONTENT_WEIGHTS:
            options = {**changes, "content_weight": weight}
            rows.append(measured(content, style, weights, size, options)[1])
        near, kept, *_, seconds = np.transpose(rows)
        if goal is None:
            goal = kept[1]
        inside = kept.min() <= goal <= kept.max()
        found = np.exp(np.interp(-np.log(goal), -np.log(kept), np.log(near)))
        found = f"{found:8.4f}{' ' if inside else '*'}"  # *: beyond the weights tried
        print(f"{name:24}{found}  {np.median(seconds):8.0f}  {np.round(kept, 3)}", flush=True)


def measured(content: Path, style: Path, weights: str, size: int, changes) -> tuple[np.ndarray, list[float]]:
    """A picture, and its numbers in the columns' order."""
    from tfstyle import Encoder, stylize
    from tfstyle.images import load

    began = time.perf_counter()
    result = stylize(content, style, weights=weights, size=size, **changes)
    seconds = time.perf_counter() - began
    judged = ("conv1_2", "conv2_2", "conv3_2")  # none is a style layer by default
    (layer,) = result.facts["content_layers"]
    before, painting = (load(path).fitted(size).rgb for path in (content, style))
    near, kept = [], []
    for pooling in ("avg", "max"):
        encoder = Encoder((*judged, layer), weights, pooling=pooling, padding="reflect")
        image, photograph, goal = (encoder(x[None]) for x in (result.image, before, painting))
        near += [energy(image[k], goal[k]) / energy(photograph[k], goal[k]) for k in judged]
        kept.append(np.sum((image[layer] - photograph[layer]) ** 2) / np.sum(photograph[layer] ** 2))
    return result.image, [
        float(np.mean(near)),
        float(np.mean(kept)),
        frame(result.image),
        checker(result.image),
        seconds,
    ]


def energy(some, others) -> float:
    """``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` of feature vectors at random positions.

    Reference: Székely & Rizzo 2013, Energy statistics.
    """
    generator = np.random.default_rng(0)
    x, y = (np.reshape(f, (-1, f.shape[-1])).astype(np.float64) for f in (some, others))
    x, y = (v[generator.choice(len(v), min(SAMPLES, len(v)), replace=False)] for v in (x, y))
    scale = np.sqrt(np.mean(y**2, 0)) + 1e-6  # so that no channel drowns the others
    x, y = x / scale, y / scale
    return 2 * distances(x, y) - distances(x, x) - distances(y, y)


def distances(x: np.ndarray, y: np.ndarray) -> float:
    """The mean distance of rows of one from rows of the other."""
    squares = np.sum(x**2, 1)[:, None] + np.sum(y**2, 1) - 2 * x @ y.T
    return float(np.mean(np.sqrt(np.maximum(squares, 0))))


def frame(image: np.ndarray, depth: int = 6) -> float:
    """RMS difference of the two outermost lines from those further in, over that of such lines inside."""

    def step(lines: np.ndarray, at: int) -> float:
        return float(np.mean((lines[at : at + 2] - lines[at + depth : at + depth + 2]) ** 2))

    outer, inner = [], []
    for lines in (image, image[::-1], image.swapaxes(0, 1), image.swapaxes(0, 1)[::-1]):
        outer.append(step(lines, 0))
        inner += [step(lines, at) for at in range(12, len(lines) // 2, 7)]
    return float(np.sqrt(np.mean(outer) / np.mean(inner)))


def checker(image: np.ndarray) -> float:
    """Energy of ``[[1, -1], [-1, 1]]`` over that of ``[1, -1]`` along both axes."""
    down, right = np.diff(image, axis=0), np.diff(image, axis=1)
    return float(np.mean(np.diff(down, axis=1) ** 2) / (np.mean(down**2) + np.mean(right**2)))


if __name__ == "__main__":
    main()

"""Effect of options on the result, as numbers and as a contact sheet.

``python -m tests.benchmarks.control --weights FILE -o sheet.png``. Each row is a run with the default
options, some of them changed. ``--only equal`` runs every style loss with several content weights and
interpolates its style distance at the content distance of the default run. The columns:

style    Energy distance of `tfstyle.scoring` between the features of the result and of the style image,
         divided by that between the features of the content image and of the style image. It is the mean
         over three layers and both poolings. No style loss here minimises it. A lower value is nearer to the
         style.
content  |F - P|² / |P|² at the content layer, with the features F of the result and P of the content image.
         It is the mean of both poolings.
frame    `tfstyle.scoring.frame`. The value 1 means that no frame is visible.
checker  Energy of the finest checkerboard pattern divided by the energy of differences between neighbours.
         The content image's own value is lower.
seconds  Duration of the run on this machine. Only ratios are meaningful.
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
    "default": {},
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
#: Factors of the default content weight.
CONTENT_FACTORS = (0.5, 1.0, 2.0)


def main() -> None:
    from tfstyle.images import ImageArray, contact_sheet, save

    images = Path(__file__).parents[3] / "shared" / "images"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("control.png"), help="the contact sheet [%(default)s]"
    )
    parser.add_argument(
        "--content", type=Path, default=images / "tubingen.jpg", help="content image [tubingen.jpg]"
    )
    parser.add_argument(
        "--styles",
        type=Path,
        nargs="+",
        default=[images / "starry_night_google.jpg"],
        help="style images, each with its own table [starry_night_google.jpg]",
    )
    parser.add_argument("--weights", default="imagenet", help="as for tfstyle stylize [%(default)s]")
    parser.add_argument("--size", type=int, default=256, help="longest side in pixels [%(default)s]")
    parser.add_argument(
        "--only",
        choices=("losses", "smoothness", "equal"),
        help="run one group: the style losses, the options that affect smoothness, or the style losses "
        "at equal content distance [losses and smoothness]",
    )
    options = parser.parse_args()
    print(machine.line(), flush=True)
    if options.only == "equal":
        for style in options.styles:
            at_equal_content(options.content, style, options.weights, options.size)
        return
    chosen = {"losses": LOSSES, "smoothness": SMOOTHNESS}
    image_rows = []
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
            image_rows.append(row)
    width = max(map(len, image_rows))
    rows = [[*row, *[None] * (width - len(row))] for row in image_rows]
    save(options.output, ImageArray(contact_sheet(rows, options.size)), overwrite=True)
    print(options.output)


def at_equal_content(content: Path, style: Path, weights: str, size: int) -> None:
    """Print each style loss's style distance, interpolated at the default's content distance, and time."""
    from tfstyle import StyleConfig
    from tfstyle.run import make_setup

    print(f"{content.name} in the style of {style.name}, {size} pixels, at the default's content distance")
    print("A * marks a style distance whose content distance lies outside the content weights tried.")
    default = make_setup(StyleConfig(weights=weights), "/CPU:0").objective.content_weight
    content_weights = [factor * default for factor in CONTENT_FACTORS]
    print(f"{'':24}{'style':>8}   {'seconds':>8}  content distances at content weights {content_weights}")
    goal = None
    for name, changes in LOSSES.items():
        rows = []
        for weight in content_weights:
            options = {**changes, "content_weight": weight}
            rows.append(measured(content, style, weights, size, options)[1])
        style_distances, content_distances, *_, seconds = np.transpose(rows)
        if goal is None:
            goal = content_distances[1]
        inside = content_distances.min() <= goal <= content_distances.max()
        interpolated = np.exp(np.interp(-np.log(goal), -np.log(content_distances), np.log(style_distances)))
        print(
            f"{name:24}{interpolated:8.4f}{' ' if inside else '*'}  {np.median(seconds):8.0f}"
            f"  {np.round(content_distances, 3)}",
            flush=True,
        )


def measured(content: Path, style: Path, weights: str, size: int, changes) -> tuple[np.ndarray, list[float]]:
    """Run the default options with some changed; return the image and its numbers in the columns' order."""
    from tfstyle import Encoder, stylize
    from tfstyle.images import load
    from tfstyle.scoring import energy_distance, frame, sample

    began = time.perf_counter()
    result = stylize(content, style, weights=weights, size=size, **changes)
    seconds = time.perf_counter() - began
    judged = ("conv1_2", "conv2_2", "conv3_2")  # none of these is a style layer by default
    (layer,) = result.facts["content_layers"]
    content_image, style_image = (load(path).fitted(size).rgb for path in (content, style))
    style_distances, content_distances = [], []
    for pooling in ("avg", "max"):
        encoder = Encoder((*judged, layer), weights, pooling=pooling, padding="reflect")
        f, p, s = (encoder(image[None]) for image in (result.image, content_image, style_image))
        for k in judged:
            result_sample, content_sample, style_sample = (sample(x[k].numpy()) for x in (f, p, s))
            style_distances.append(
                energy_distance(result_sample, style_sample) / energy_distance(content_sample, style_sample)
            )
        content_distances.append(np.sum((f[layer] - p[layer]) ** 2) / np.sum(p[layer] ** 2))
    return result.image, [
        float(np.mean(style_distances)),
        float(np.mean(content_distances)),
        frame(result.image),
        checker(result.image),
        seconds,
    ]


def checker(image: np.ndarray) -> float:
    """Return the energy of the filter ``[[1, -1], [-1, 1]]`` over that of ``[1, -1]`` along both axes."""
    down, right = np.diff(image, axis=0), np.diff(image, axis=1)
    return float(np.mean(np.diff(down, axis=1) ** 2) / (np.mean(down**2) + np.mean(right**2)))


if __name__ == "__main__":
    main()

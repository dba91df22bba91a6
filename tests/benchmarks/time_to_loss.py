"""How soon a plain implementation's loss is reached: ``python -m tests.benchmarks.time_to_loss``.

One objective for all, that of the preset neural-style-pt on the layers that VGG-19's real lower blocks have.
Plain is what a plain implementation does: that preset as it is (one size, its L-BFGS with fixed steps) in
float32 without compilation, for 200 evaluations, from the preset's start, which is nearly grey; and, with
``--from-content``, once more from the content, where ours start. Ours have the default's optimiser, start,
compilation, precision and scales, or one scale.

A judge takes pictures along each run, brought to the last size, and gives their loss in float32; the clock
stands still meanwhile. It runs from before the pictures are read: targets and tracing count, importing
TensorFlow does not. Each table says when a runner reached the loss that a plain one ended with, and how many
times as fast that was. ``--from-content``, ``--pairs 5`` and ``--size 512`` take longer than five minutes.
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
from tests.benchmarks.looks import AS_ORIGINAL, PAIRS
from tests.conftest import DATA

# What of a preset is its objective; the rest is how it is minimised.
OBJECTIVE = (
    "padding", "pooling", "pixel_range", "loss_normalization", "content_weight", "style_weight", "tv_form",
    "tv_weight", "enlarge",
)  # fmt: skip
LAYERS = {
    "style_layers": ("conv1_1", "conv2_1", "conv3_1", "conv3_4"),
    "content_layers": ("conv3_3",),
}
PLAIN = ("plain", "plain, from the content")
# Evaluations at one judged picture over those at the one before; a plain curve matters at its end.
SPACING, PLAIN_SPACING = 1.03, 1.15


class Curve(NamedTuple):
    """Of the judged pictures: seconds since the start, evaluations so far, loss."""

    seconds: list[float]
    evaluations: list[int]
    losses: list[float]

    def reached(self, loss: float) -> float | None:
        """Seconds to the first judged picture whose loss is no larger."""
        return next((s for s, found in zip(self.seconds, self.losses) if found <= loss), None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("time_to_loss.png"), help="the curves")
    parser.add_argument("--weights", default=str(DATA / "weights" / "vgg19_imagenet_block1-3.npz"))
    parser.add_argument("--images", type=Path, default=DATA / "images")
    parser.add_argument("--pairs", type=int, default=1, metavar="N", help=f"1 to {len(PAIRS)} [1]")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--evaluations", type=int, default=200, help="of the plain ones [200]")
    parser.add_argument("--from-content", action="store_true", help="also plain from where ours start")
    parser.add_argument("--results", action="store_true", help="put tables and curves into RESULTS.md")
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
        curves = all_curves[title] = compare([options.images / one for one in pair], chosen)
        parts.append(f"{title}:\n\n{table(curves)}")
        print(f"\n{parts[-1]}", flush=True)
    draw(output, all_curves)
    print(f"\n{output}")
    if options.results:
        command = " ".join(["python -m tests.benchmarks.time_to_loss", *sys.argv[1:]])
        picture = f"![Loss against seconds]({output.name})"
        results.put(name, "\n\n".join([f"`{command}`", *parts, picture]))


def configs(weights, size: int, evaluations: int, layers: Mapping[str, Sequence[str]] = LAYERS) -> dict:
    """Name -> options of each runner, the plain ones first."""
    from tfstyle import StyleConfig, preset

    given = preset("neural-style-pt")
    common = {"weights": weights, "size": size, **layers}
    plain = given.replace({**common, **AS_ORIGINAL, "iterations": evaluations})
    ours = StyleConfig().replace({**common, **{key: getattr(given, key) for key in OBJECTIVE}})
    single = ours.replace({"scales": 1, "iterations": evaluations + evaluations // 4})
    return {
        PLAIN[0]: plain,
        PLAIN[1]: plain.replace({"init": "content"}),
        "default, coarse to fine": ours,
        "one scale, L-BFGS": single,
        "one scale, Adam": single.replace({"optimizer": "adam"}),
    }


def compare(pair: Sequence, chosen: Mapping) -> dict[str, Curve]:
    """Every runner's curve for a content and a style."""
    judge = Judge(pair, chosen[PLAIN[0]])
    return {
        name: curve(pair, config, judge, PLAIN_SPACING if name in PLAIN else SPACING)
        for name, config in chosen.items()
    }


class Judge:
    """The loss of a picture in float32 at the last size, by the objective of a config.

    Args:
        pair: content and style.
        config: of one scale.
    """

    def __init__(self, pair: Sequence, config) -> None:
        import tensorflow as tf

        from tfstyle.run import Layout, Run, ScaleTargets

        run = Run(*pair, config)
        self.shape = run.scales[-1].shape
        targets = ScaleTargets(run.inputs, run.setup).compute(run.scales[-1], Layout())
        self._loss = tf.function(lambda image: run.setup.objective(image, targets)["total"])
        self(np.zeros((*self.shape, 3), np.float32))  # so that no runner waits for the tracing

    def __call__(self, picture: np.ndarray) -> float:
        from tfstyle.images import resize

        return float(self._loss(resize(picture, self.shape, clip=False)[None]))


def curve(pair: Sequence, config, judge: Judge, spacing: float = SPACING) -> Curve:
    """Run to the end, with the judge called now and then while the clock stands still."""
    from tfstyle.run import Run

    found = Curve([], [], [])
    due, judging = 1, 0.0
    began = time.perf_counter()
    run = Run(*pair, config)
    last = run.total_iterations
    for count, step in enumerate(run, 1):
        if count < due and count < last:
            continue
        stopped = time.perf_counter()
        found.seconds.append(stopped - began - judging)
        found.evaluations.append(count)
        found.losses.append(judge(step.image))
        due = max(count + 1, round(spacing * count))
        judging += time.perf_counter() - stopped
    return found


def table(curves: Mapping[str, Curve]) -> str:
    """A Markdown table: when each runner reached each plain one's last loss."""
    plains = [name for name in PLAIN if name in curves]
    heads = "".join(f" s to {name}'s | times as fast |" for name in plains)
    rows = [f"| | evaluations | s | last loss |{heads}", "|---|" + "---|" * (3 + 2 * len(plains))]
    for name, found in curves.items():
        cells = [name, str(found.evaluations[-1]), f"{found.seconds[-1]:.1f}", f"{found.losses[-1]:.4g}"]
        for plain in plains:
            goal = curves[plain]
            seconds = found.reached(goal.losses[-1])
            if seconds is None:
                cells += ["not reached", ""]
            else:
                cells += [f"{seconds:.1f}", f"{goal.seconds[-1] / seconds:.1f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def draw(output: Path, all_curves: Mapping[str, Mapping[str, Curve]]) -> None:
    """The curves on logarithmic axes, a panel for each pair."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = len(all_curves)
    figure, axes = pyplot.subplots(1, count, figsize=(7 * count, 4.5), squeeze=False, layout="constrained")
    for ax, (title, curves) in zip(axes[0], all_curves.items(), strict=True):
        for name, found in curves.items():
            (drawn,) = ax.loglog(found.seconds, found.losses, label=name)
            if name in PLAIN:
                ax.axhline(found.losses[-1], color=drawn.get_color(), linewidth=0.7, linestyle=":")
        # A fixed step without a search may overshoot by many powers of ten.
        ax.set_ylim(top=3 * max(found.losses[0] for found in curves.values()))
        ax.set(xlabel="seconds", ylabel="loss, float32", title=title)
        ax.legend(fontsize="small")
    figure.savefig(output, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    main()

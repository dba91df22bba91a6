"""Scores and a contact sheet of every quality: ``python -m tests.benchmarks.looks --weights FILE``.

Each pair of a content image and a style image is stylised with every ``--quality`` and with the options
``before``: the defaults before ``--quality`` was introduced. The table gives the scores of each result as
`tfstyle.scoring` defines them, and the seconds of the whole call of `stylize`. Higher values of E and lower
values of S, ripple and energy are better, and a frame near 1 is not visible. The medians over the pairs are
compared with goals.

The table is Markdown. ``--weights`` can be given several times; the tables are then printed for each. A row
of the contact sheet shows the content image, the style image, the result of the former defaults, and the
results of the qualities in order.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tests.benchmarks import machine
from tests.conftest import DATA
from tfstyle.presets import FORMER_DEFAULTS

PAIRS = (
    ("tubingen.jpg", "starry_night_google.jpg"),
    ("golden_gate.jpg", "the_scream.jpg"),
    ("hoovertowernight.jpg", "starry_night_google.jpg"),
    ("tubingen.jpg", "shipwreck.jpg"),
    ("golden_gate.jpg", "woman-with-hat-matisse.jpg"),
)
#: Weights of full depth with the genuine lower blocks of VGG-19, for the scores.
JUDGE = str(DATA / "weights" / "vgg19_standin.npz")
#: The defaults of tfstyle before ``--quality`` was introduced. The size is an argument of this benchmark.
BEFORE = {name: value for name, value in FORMER_DEFAULTS.items() if name != "size"}
NAMES = ("before", "draft", "standard", "high")


class Row(NamedTuple):
    """The scores of a result, as in `tfstyle.scoring.Score`, and the seconds of its run."""

    E: float
    S: float
    ripple: float
    frame: float
    energy: float
    seconds: float


class Goal(NamedTuple):
    """A goal for the median over the pairs.

    Attributes:
        name: the quality.
        column: an attribute of `Row`.
        wanted: the limit.
        value: the median.
    """

    name: str
    column: str
    wanted: float
    value: float

    @property
    def met(self) -> bool:
        """Whether the median is at least the limit for E, and at most the limit for the other columns."""
        return self.value >= self.wanted if self.column == "E" else self.value <= self.wanted


def main() -> None:
    from tfstyle.images import ImageArray, contact_sheet, load, save
    from tfstyle.scoring import Judge

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("looks.png"), help="the contact sheet [%(default)s]"
    )
    parser.add_argument(
        "--images",
        type=Path,
        default=DATA / "images",
        metavar="FOLDER",
        help="the folder with the content and style images [../shared/images]",
    )
    parser.add_argument(
        "--weights",
        action="append",
        help="as for tfstyle stylize; give it again for further tables with other weights [imagenet]",
    )
    parser.add_argument("--judge", default=JUDGE, metavar="FILE", help="weights of the scores [%(default)s]")
    parser.add_argument("--size", type=int, default=384, help="longest side in pixels [%(default)s]")
    parser.add_argument(
        "--pairs", type=int, default=len(PAIRS), metavar="N", help="use the first N pairs [all]"
    )
    parser.add_argument(
        "--pair",
        nargs=2,
        type=Path,
        action="append",
        metavar=("CONTENT", "STYLE"),
        help="use these images instead; give it again for further pairs",
    )
    parser.add_argument(
        "--cell", type=int, default=384, help="side of a cell of the contact sheet in pixels [%(default)s]"
    )
    options = parser.parse_args()
    print(machine.line(), flush=True)
    pairs = options.pair or [[options.images / file for file in pair] for pair in PAIRS[: options.pairs]]
    sheet = []
    for weights in options.weights or ["imagenet"]:
        print(f"\nWeights {Path(weights).name}, {options.size} pixels:\n")
        print(heading("pair", "options"), flush=True)
        rows: dict[str, list[Row]] = {name: [] for name in NAMES}
        for paths in pairs:
            judge = Judge(*paths, weights=options.judge).judge
            images = [load(path).fitted(options.size).rgb for path in paths]
            for name, config in configs(weights, options.size).items():
                image, row = judged(paths, config, judge)
                images.append(image)
                rows[name].append(row)
                print(line(" as ".join(path.stem for path in paths), name, row), flush=True)
            sheet.append(images)
            save(options.output, ImageArray(contact_sheet(sheet, side=options.cell)), overwrite=True)
        medians = {name: Row(*np.median(values, axis=0)) for name, values in rows.items()}
        for name, row in medians.items():
            print(line("median", name, row))
        print(f"\n{goal_table(goals(medians))}", flush=True)
    print(f"\n{options.output}: content, style, {', '.join(NAMES)}")


def configs(weights: str, size: int) -> dict[str, Any]:
    """Return the config of each run by its name, in the order of `NAMES`."""
    from tfstyle import StyleConfig
    from tfstyle.layers import find_layer
    from tfstyle.network import load_weights, paper_layers

    common = {"weights": weights, "size": size}
    before = StyleConfig().replace({**common, **BEFORE})
    # See `FORMER_DEFAULTS`: a position of the layer with stride s stands for s² pixels.
    (content_layer,) = paper_layers(load_weights(weights))[0]
    factor = find_layer(content_layer).stride ** 2 / 64
    before = before.replace({"content_weight": factor * before.content_weight})
    return {"before": before} | {name: StyleConfig(quality=name, **common) for name in NAMES[1:]}


def judged(pair: Sequence, config: Any, judge: Any) -> tuple[np.ndarray, Row]:
    """Make a run, and return its image with the scores and the seconds."""
    from tfstyle import stylize

    began = time.perf_counter()
    image = stylize(*pair, config).image
    seconds = time.perf_counter() - began
    score = judge(image)
    return image, Row(score.E, score.S, score.ripple, score.frame, score.energy, seconds)


def goals(medians: Mapping[str, Row]) -> list[Goal]:
    """Return the goals for the medians of the runs in `NAMES`."""
    before = medians["before"]
    wanted = [
        ("standard", "E", before.E + 0.5),
        ("standard", "seconds", before.seconds / 3),
        ("high", "E", before.E + 1.5),
        ("high", "seconds", before.seconds),
        ("draft", "seconds", before.seconds / 6),
    ]
    for name in ("standard", "high"):
        limits = {"ripple": 0.2, "S": before.S, "energy": before.energy, "frame": 1.1}
        wanted += [(name, column, limit) for column, limit in limits.items()]
    return [Goal(name, column, limit, getattr(medians[name], column)) for name, column, limit in wanted]


def heading(*first: str) -> str:
    cells = [*first, *Row._fields]
    return f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}"


def line(pair: str, name: str, row: Row) -> str:
    """Return a row of the table in Markdown."""
    numbers = (
        f"{row.E:.2f}", f"{row.S:.3f}", f"{row.ripple:.2f}", f"{row.frame:.2f}", f"{row.energy:.4f}",
        f"{row.seconds:.1f}",
    )  # fmt: skip
    return f"| {pair} | {name} | {' | '.join(numbers)} |"


def goal_table(goals: Sequence[Goal]) -> str:
    """Return a table of the goals in Markdown."""
    rows = ["| quality | median of | goal | value | result |", "|---|---|---|---|---|"]
    for goal in goals:
        sign, met = "at least" if goal.column == "E" else "at most", "met" if goal.met else "missed"
        limit, value = (f"{number:.4g}" for number in (goal.wanted, goal.value))
        rows.append(f"| {goal.name} | {goal.column} | {sign} {limit} | {value} | {met} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()

"""Seconds and memory of the method neighbours: ``python -m tests.benchmarks.neighbours --weights FILE``.

The first table compares whole runs at ``--size``, each in its own process, from the call of
`tfstyle.stylize` to its end. The second one gives the peak resident memory at ``--large``. Memory does not
depend on the number of iterations, so these runs make one iteration at each scale. With the method
neighbours, nearly all their time is that of the search.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import machine
from tests.benchmarks.looks import PAIRS
from tests.benchmarks.processes import in_a_process, peak_memory
from tests.conftest import DATA

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RUNS: dict[str, dict[str, Any]] = {
    "the default": {},
    "--quality high": {"quality": "high"},
    "--method neighbours": {"method": "neighbours"},
    "--method neighbours --quality high": {"method": "neighbours", "quality": "high"},
    "--preset nnst": {"preset": "nnst"},
}
#: The runs of the second table.
LARGE = ("the default", "--method neighbours")
GOAL = 8  # times the seconds of --quality high


def one_run(content: str, style: str, preset: str | None, options: dict[str, Any]) -> list[float]:
    """Return the seconds of a run and the peak resident memory of the process in GB."""
    import tfstyle

    config = tfstyle.StyleConfig() if preset is None else tfstyle.preset(preset)
    began = time.perf_counter()
    tfstyle.stylize(content, style, config.replace(options))
    return [time.perf_counter() - began, peak_memory()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="imagenet", help="as for tfstyle stylize [%(default)s]")
    parser.add_argument("--size", type=int, default=512, help="longest side in pixels [%(default)s]")
    parser.add_argument(
        "--large", type=int, default=1024, help="longest side in the second table [%(default)s]"
    )
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS), metavar="RUN")
    parser.add_argument(
        "--images", type=Path, default=DATA / "images", metavar="FOLDER", help="the folder with the images"
    )
    options = parser.parse_args()
    print(machine.line(), flush=True)
    paths = [str(options.images / file) for file in PAIRS[0]]

    def measured(name: str, **changes: int) -> list[float]:
        chosen = {"weights": options.weights, "size": options.size, **RUNS[name], **changes}
        preset = chosen.pop("preset", None)
        return in_a_process("tests.benchmarks.neighbours:one_run", *paths, preset, chosen)

    seconds: dict[str, float] = {}
    print(f"\n{options.size} pixels:\n\n| run | time / default | time / high | peak GB |\n|---|---|---|---|")
    for name in options.only:
        seconds[name], peak = measured(name)
        ratios = [
            f"{seconds[name] / seconds[other]:.1f}" if other in seconds else ""
            for other in ("the default", "--quality high")
        ]
        print(f"| `{name}` | {' | '.join(ratios)} | {peak:.2f} |", flush=True)
    print(f"\nGoal: at most {GOAL} times the seconds of --quality high.")
    print(f"\n{options.large} pixels, one iteration at each scale:\n")
    print("| run | seconds | peak GB |\n|---|---|---|")
    for name in (name for name in LARGE if name in options.only):
        elapsed, peak = measured(name, size=options.large, iterations=1)
        print(f"| `{name}` | {elapsed:.0f} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()

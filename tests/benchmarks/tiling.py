"""Time and memory of a tiled step: ``python -m tests.benchmarks.tiling [--large 4096] [--memory 4]``.

The objective's deepest layer is conv3_4 or conv5_1. Each run has its own process and starts as a user would
start it. A tiled step evaluates the network in two passes, which cost 1.5 times the time of an untiled step
even without margins. Columns of the table:

tiles            side of a tile in pixels, without its margins
margins          pixels evaluated with margins, divided by the pixels of the image
time per pixel   seconds per pixel of an Adam step at the large size in tiles, divided by the seconds per
                 pixel of an untiled step at 1024 x 1024 pixels, which is timed before and after
without margins  the same ratio divided by the value in the column margins
peak             peak resident memory of the tiled run, which ``--memory`` limits
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time

from tests.benchmarks import machine
from tests.benchmarks.processes import in_a_process, peak_memory

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

DEPTHS = {
    "conv3_4": (("conv1_1", "conv2_1", "conv3_1", "conv3_4"), ("conv3_3",), 1.9),
    "conv5_1": (("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"), ("conv4_2",), 2.6),
}
SMALL = 1024
RUN = "tests.benchmarks.tiling:one_run"


def one_run(size: int, depth: str, memory: float | None, iterations: int) -> dict[str, float]:
    """Run one image and return its measurements.

    Returns:
        ``seconds`` of a step (the median, without the first step), ``overhead`` of the margins, ``side`` of a
        tile in pixels (0 if untiled), and ``peak`` resident memory in GB.
    """
    import numpy as np

    from tfstyle import StyleConfig
    from tfstyle.run import Run
    from tfstyle.tiling import margin_overhead

    style_layers, content_layers, _ = DEPTHS[depth]
    config = StyleConfig(
        size=size, scales=1, iterations=iterations, optimizer="adam", weights="random", memory=memory,
        tile="off" if memory is None else "auto", style_layers=style_layers, content_layers=content_layers,
    )  # fmt: skip
    generator = np.random.default_rng(0)
    content = generator.integers(0, 256, (size, size, 3), np.uint8)
    run = Run(content, generator.integers(0, 256, (512, 512, 3), np.uint8), config)
    ends = []
    for _ in run:
        ends.append(time.perf_counter())
    side = run.layouts[-1].side
    view = None if side is None else run.setup.tiled_objective(side).receptive_field
    return {
        "seconds": statistics.median(b - a for a, b in itertools.pairwise(ends)),
        "overhead": 1.0 if view is None else margin_overhead((size, size), side, receptive_field=view),
        "side": 0 if side is None else side[0],
        "peak": peak_memory(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--large", type=int, default=4096, help="side of the tiled image in pixels [%(default)s]"
    )
    parser.add_argument("--memory", type=float, default=4.0, help="GB that the tiled run may use [4]")
    parser.add_argument("--iterations", type=int, default=3, help="iterations of the tiled run [%(default)s]")
    parser.add_argument(
        "--depths", nargs="+", choices=list(DEPTHS), default=list(DEPTHS), help="deepest layers [both]"
    )
    options = parser.parse_args()
    print(machine.line())
    print(
        f"| deepest layer | tiles | margins | time per pixel, tiled {options.large} / whole {SMALL} ",
        end="",
    )
    print("| goal | without margins | peak |\n|---|---|---|---|---|---|---|")
    for depth in options.depths:
        before = in_a_process(RUN, SMALL, depth, None, 9)
        large = in_a_process(RUN, options.large, depth, options.memory, options.iterations)
        after = in_a_process(RUN, SMALL, depth, None, 9)
        small = (before["seconds"] + after["seconds"]) / 2
        ratio = large["seconds"] / small / (options.large / SMALL) ** 2
        print(
            f"| {depth} | {large['side']:.0f} px | {large['overhead']:.2f} | {ratio:.2f} "
            f"| {DEPTHS[depth][2]} | {ratio / large['overhead']:.2f} | {large['peak']:.2f} GB |",
            flush=True,
        )


if __name__ == "__main__":
    main()

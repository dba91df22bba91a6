"""Run every benchmark in turn, each in its own process: ``python -m tests.benchmarks``.

The arguments set here keep each benchmark below about five minutes on two cores. Each module has further
options, which its ``--help`` lists. Benchmarks that need VGG-19's real lower weights read them from the
folder ``$TFSTYLE_TEST_DATA``, by default ../shared.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from typing import NamedTuple

from tests.benchmarks import machine, pareto
from tests.conftest import DATA

GENUINE = str(DATA / "weights" / "vgg19_imagenet_block1-3.npz")
JUDGED = ("--weights", GENUINE, "--judge", GENUINE)
IMAGES = DATA / "images"


class Benchmark(NamedTuple):
    """A benchmark as this script runs it.

    Attributes:
        purpose: what the benchmark measures.
        arguments: the command-line arguments of its module. They keep it below about five minutes;
            ``{folder}`` stands for the value of ``--output``.
    """

    purpose: str
    arguments: tuple[str, ...] = ()


BENCHMARKS = {
    "step": Benchmark(
        "rate of the compiled step relative to a matrix product, float32 and XLA; memory; start-up time"
    ),
    "startup": Benchmark("seconds before the first iteration, of each scale, and before the first preview"),
    "xla": Benchmark("time of the step as a StableHLO program on a GPU, through TensorFlow or JAX"),
    "page": Benchmark("start of the page, memory over 50 jobs, wrong requests; needs Gradio"),
    "cluster": Benchmark(
        "images per minute of batches with Ray; needs tfstyle[cluster]",
        ("--sizes", "128", "--iterations", "50", "--images", "6", "--repeats", "1"),
    ),
    "kills": Benchmark(
        "results of a batch with Ray whose processes are killed; needs tfstyle[cluster]",
        ("--kills", "3", "--images", "8"),
    ),
    "video": Benchmark(
        "flicker, style and seconds per frame of videos; needs tfstyle[video]",
        (
            "--weights",
            GENUINE,
            "--score-weights",
            GENUINE,
            "--frames",
            "5",
            "--singles",
            "2",
            "--shape",
            "96",
            "128",
        ),
    ),
    "tiling": Benchmark("time and peak memory of a step that is evaluated in tiles", ("--large", "2048")),
    "time_to_loss": Benchmark(
        "time until the final loss of a plain implementation is reached", ("-o", "{folder}/time_to_loss.png")
    ),
    "precision": Benchmark(
        "loss after a run in bfloat16, relative to a run in float32",
        ("--size", "256", *(str(IMAGES / f"{name}.jpg") for name in ("tubingen", "starry_night_google"))),
    ),
    "pareto": Benchmark(
        "scores against seconds, beside other programs",
        (
            *(*JUDGED, "--size", "192", "--pairs", "1", "--limit", "30", "-o", "{folder}/pareto.png"),
            *("--only", "draft", "standard", "high", *pareto.RIVALS),
        ),
    ),
    "looks": Benchmark(
        "scores and images of every quality, beside those of the former defaults",
        (*JUDGED, "--size", "256", "--pairs", "1", "-o", "{folder}/looks.png"),
    ),
    "control": Benchmark(
        "effect of options on the image, as numbers and as a contact sheet",
        ("--weights", GENUINE, "--size", "160", "--only", "losses", "-o", "{folder}/control.png"),
    ),
    "embedded": Benchmark(
        "style and content distances with the embedded weights, judged by VGG-19",
        ("--size", "192", *(str(IMAGES / f"{name}.jpg") for name in ("tubingen", "starry_night_google"))),
    ),
    "neighbours": Benchmark(
        "seconds and peak memory of the method neighbours, relative to the default method",
        ("--weights", GENUINE, "--size", "192", "--large", "384"),
    ),
    "extractor": Benchmark("rate of style extraction: in the process, as a SavedModel, through a server"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="print each benchmark's purpose and command")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=BENCHMARKS,
        metavar="NAME",
        default=list(BENCHMARKS),
        help=f"run these benchmarks only: {', '.join(BENCHMARKS)} [all]",
    )
    parser.add_argument(
        "-o",
        "--output",
        default="tfstyle-benchmarks",
        metavar="FOLDER",
        help="folder for the contact sheets and figures [%(default)s]",
    )
    options = parser.parse_args()
    if options.list:
        for name in options.only:
            print(f"{name:14}{BENCHMARKS[name].purpose}\n{'':14}{' '.join(command(name, options.output))}")
        return
    print(machine.line(), flush=True)
    os.makedirs(options.output, exist_ok=True)
    failed = [name for name in options.only if not passes(name, options.output)]
    if failed:
        sys.exit(f"these benchmarks failed: {', '.join(failed)}; their messages stand above")


def command(name: str, folder: str) -> list[str]:
    """Return the command line of a benchmark, with ``python`` in place of the interpreter's path."""
    arguments = [argument.replace("{folder}", folder) for argument in BENCHMARKS[name].arguments]
    return ["python", "-m", f"tests.benchmarks.{name}", *arguments]


def passes(name: str, folder: str) -> bool:
    """Run a benchmark, print its duration and exit code, and return whether the exit code is 0."""
    print(f"\n== {' '.join(command(name, folder))}", flush=True)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *command(name, folder)[1:]], check=False)
    print(f"== {name}: {time.perf_counter() - began:.0f} s, exit code {done.returncode}", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    main()

"""Every benchmark in turn, each in a process of its own: ``python -m tests.benchmarks``.

The arguments here keep each under some five minutes on two cores; each module takes more, see its ``--help``.
Those that need VGG-19's real lower weights look for them in ``$TFSTYLE_TEST_DATA``, by default ../shared.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from typing import NamedTuple

from tests.benchmarks import machine
from tests.conftest import DATA

GENUINE = str(DATA / "weights" / "vgg19_imagenet_block1-3.npz")
IMAGES = DATA / "images"


class Benchmark(NamedTuple):
    """What it is for, and the arguments with which it ends in time; ``{folder}`` is ``--output``."""

    purpose: str
    arguments: tuple[str, ...] = ()


BENCHMARKS = {
    "step": Benchmark(
        "how fast the compiled step is beside a matrix product, float32 and XLA; memory; start"
    ),
    "xla": Benchmark("the step as a StableHLO program, timed on a GPU through TensorFlow or JAX"),
    "tiling": Benchmark("what tiles cost, and whether they keep to the memory", ("--large", "2048")),
    "time_to_loss": Benchmark(
        "how soon a plain implementation's loss is reached", ("-o", "{folder}/time_to_loss.png")
    ),
    "precision": Benchmark(
        "what bfloat16 costs in quality",
        ("--size", "256", *(str(IMAGES / f"{name}.jpg") for name in ("tubingen", "starry_night_google"))),
    ),
    "looks": Benchmark(
        "pictures beside those of other programs in the same time",
        ("--weights", GENUINE, "--size", "256", "--pairs", "1", "-o", "{folder}/looks.png"),
    ),
    "control": Benchmark(
        "what options do to a picture, in numbers and pictures",
        ("--weights", GENUINE, "--size", "160", "--only", "losses", "-o", "{folder}/control.png"),
    ),
    "embedded": Benchmark(
        "how near embedded weights come to VGG-19's style",
        ("--size", "192", *(str(IMAGES / f"{name}.jpg") for name in ("tubingen", "starry_night_google"))),
    ),
    "extractor": Benchmark("how fast styles are extracted: directly, as a SavedModel, through a server"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="what each is for, and its arguments here")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", default=list(BENCHMARKS))
    parser.add_argument(
        "-o", "--output", default="tfstyle-benchmarks", metavar="FOLDER", help="for pictures [%(default)s]"
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
        sys.exit(f"failed: {', '.join(failed)}")


def command(name: str, folder: str) -> list[str]:
    """Of one benchmark, without the interpreter's path."""
    arguments = [argument.replace("{folder}", folder) for argument in BENCHMARKS[name].arguments]
    return ["python", "-m", f"tests.benchmarks.{name}", *arguments]


def passes(name: str, folder: str) -> bool:
    """Run one, say how long it took, and whether it ended well."""
    print(f"\n== {' '.join(command(name, folder))}", flush=True)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *command(name, folder)[1:]], check=False)
    print(f"== {name}: {time.perf_counter() - began:.0f} s, exit code {done.returncode}", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    main()

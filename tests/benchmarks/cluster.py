"""Images per minute of a batch with Ray: ``python -m tests.benchmarks.cluster``.

It compares `tfstyle batch` in one process with `tfstyle batch --ray` with one worker on all cores and with
one worker per core. The rates are those after the start: from the first result to the last. What an image
takes besides its optimisation (reading, writing, and waiting for the next image) is computed from the
manifests; the difference between one process and Ray with as many threads is the overhead of Ray. It needs
``tfstyle[cluster]``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from tests.benchmarks import machine
from tests.conftest import DATA
from tfstyle.run import ManifestRow

IMAGES = DATA / "images"


class Rate(NamedTuple):
    """The speed of a batch.

    Attributes:
        per_minute: images per minute from the first result to the last.
        other: seconds per image of a worker besides the optimisation; the column "other s/image".
        start: seconds from the start of the command to the first result, less those of its optimisation.
    """

    per_minute: float
    other: float
    start: float


def write_contents(folder: Path, count: int) -> None:
    """Write different sections of the test images, so that each image has the same size."""
    sources = sorted(IMAGES.glob("*.jpg"))
    for index in range(count):
        with Image.open(sources[index % len(sources)]) as image:
            side = min(image.size)
            left, top = (length - side for length in image.size)
            box = (left, top, left + side, top + side) if index // len(sources) % 2 else (0, 0, side, side)
            image.convert("RGB").crop(box).resize((512, 512)).save(folder / f"{index:03}.png")


def measure(contents: Path, *, size: int, iterations: int, workers: int, ray: tuple[str, ...] = ()) -> Rate:
    """Run a batch and return its speed.

    Args:
        contents: folder of the content images.
        size, iterations: options of the batch.
        workers: number of workers that work at the same time.
        ray: the options for Ray; none for one process.
    """
    with tempfile.TemporaryDirectory() as name:
        command = [
            sys.executable, "-m", "tfstyle", "batch", str(contents), str(IMAGES / "starry_night_google.jpg"),
            "-o", name, "--size", str(size), "--iterations", str(iterations), "--weights", "embedded", *ray,
        ]  # fmt: skip
        began = datetime.now().astimezone()
        subprocess.run(command, check=True, capture_output=True)
        rows = read_manifest(Path(name))
    rows.sort(key=lambda row: row.finished)
    finished = [datetime.fromisoformat(row.finished) for row in rows]
    wall = (finished[-1] - finished[workers - 1]).total_seconds()
    count = len(rows) - workers  # those that ended after each worker had ended its first one
    optimising = statistics.mean(row.seconds or 0 for row in rows[workers:])  # the first ones also trace
    start = (finished[0] - began).total_seconds() - (rows[0].seconds or 0)
    return Rate(60 * count / wall, workers * wall / count - optimising, start)


def read_manifest(folder: Path) -> list[ManifestRow]:
    """Return the rows of a batch."""
    from tfstyle.run import LocalStorage, read_rows

    return list(read_rows(str(folder), LocalStorage()).values())


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--images", type=int, default=12, help="a multiple of the number of cores [12]")
    parser.add_argument("--repeats", type=int, default=2, help="number of runs, whose median is printed")
    arguments = parser.parse_args()
    cores = os.cpu_count() or 1
    print(machine.line())
    whole = ("--ray", "--ray-workers", "1", "--ray-cores", str(cores))
    kinds: dict[str, tuple[int, tuple[str, ...]]] = {
        f"one process, {cores} threads": (1, ()),
        f"--ray, 1 worker with {cores} cores": (1, whole),
        f"--ray, {cores} workers with 1 core": (cores, ("--ray", "--ray-cores", "1")),
    }
    print("\n| size | batch | images/min | ratio | other s/image | overhead of Ray | start s |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        write_contents(Path(name), arguments.images)
        for size in arguments.sizes:
            rates: dict[str, list[Rate]] = {kind: [] for kind in kinds}
            for _ in range(arguments.repeats):
                for kind, (workers, ray) in kinds.items():
                    rates[kind].append(
                        measure(
                            Path(name), size=size, iterations=arguments.iterations, workers=workers, ray=ray
                        )
                    )
            medians = {
                kind: Rate(*map(statistics.median, zip(*runs, strict=True))) for kind, runs in rates.items()
            }
            alone, *_ = medians.values()
            for number, (kind, rate) in enumerate(medians.items()):
                seconds = 60 / alone.per_minute
                overhead = f"{100 * (rate.other - alone.other) / seconds:.1f}%" if number == 1 else ""
                print(
                    f"| {size} | {kind} | {rate.per_minute:.2f} | {rate.per_minute / alone.per_minute:.2f} "
                    f"| {rate.other:.2f} | {overhead} | {rate.start:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

"""Kill processes of a batch on a cluster at random instants, and compare the results with one process.

    python -m tests.benchmarks.kills [--kills 20] [--images 24] [--kinds worker node command head]

Four kinds of processes are killed with SIGKILL: a worker, a node with its worker, the head node, and the
command itself, which is then started again. Every result must be there in the end and equal, pixel by pixel,
the result of `tfstyle batch` in one process with as many threads, and no result may have been written twice.
It needs ``tfstyle[cluster]``.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.benchmarks import machine
from tests.conftest import make_image
from tfstyle.run import LocalStorage, read_rows

#: Kind of process -> its share of the kills.
KINDS = {"worker": 6, "node": 2, "command": 3, "head": 1}
OPTIONS = ("--weights", "embedded", "--precision", "float32")


def write_images(folder: Path, count: int, *, size: int) -> None:
    """Write content images of two shapes to ``contents``, and ``style.png``."""
    (folder / "contents").mkdir()
    for index in range(count):
        shape = (size, size * 3 // 4) if index % 2 else (size * 3 // 4, size)
        pixels = (make_image(*shape, seed=index) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "contents" / f"{index:03}.png")
    Image.fromarray((make_image(size, size, seed=count) * 255).astype(np.uint8)).save(folder / "style.png")


def command(folder: Path, output: str, *options: str) -> list[str]:
    """Return the command of a batch."""
    arguments = ["batch", str(folder / "contents"), str(folder / "style.png"), "-o", str(folder / output)]
    return [sys.executable, "-m", "tfstyle", *arguments, *OPTIONS, *options]


def start_alone(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start the batch in one process with one thread, for comparison."""
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1"}
    with (folder / "alone.txt").open("wb") as log:
        return subprocess.Popen(command(folder, "alone", *options), env=environment, stdout=log, stderr=log)


def children(parent: int, title: str) -> list[int]:
    """Return the identifiers of a process's children whose command lines begin with a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_child = f"\nPPid:\t{parent}\n" in (path / "status").read_text()
            if is_child and (path / "cmdline").read_bytes().startswith(title.encode()):
                found.append(int(path.name))
    return found


class Nodes:
    """A cluster of processes on this machine: a head node without workers, and nodes with one core each."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.start()

    def start(self) -> None:
        """Start the head node and the other nodes."""
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self._workers = [self.cluster.add_node(num_cpus=1) for _ in range(self._count)]

    @property
    def address(self) -> str:
        """Address of the head node."""
        return str(self.cluster.address)

    def kill_worker(self, generator: random.Random) -> bool:
        """Kill a process that makes images; it may be starting. Return whether there was one."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in self._workers]
        if found := [process for raylet in raylets for process in children(raylet, "ray::MapWorker")]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(generator.choice(found), signal.SIGKILL)
            return True
        return False

    def kill_node(self, generator: random.Random) -> None:
        """Kill a node with its worker, and add another one."""
        node = generator.choice(self._workers)
        self._workers.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)
        self._workers.append(self.cluster.add_node(num_cpus=1))

    def kill_all(self) -> None:
        """Kill the head node and all others."""
        for node in [*self._workers, self.cluster.head_node]:
            node.kill_all_processes(check_alive=False, allow_graceful=False)
        self.stop()

    def stop(self) -> None:
        """End the cluster."""
        with contextlib.suppress(Exception):  # some of its processes have ended
            self.cluster.shutdown()


class Watch:
    """Records when each result is written, to find results that are written twice, and the kills."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first: dict[str, tuple[int, int]] = {}
        self.rewritten: set[str] = set()
        self.kills: Counter[str] = Counter()

    def look(self) -> int:
        """Compare the results with those seen before, and return their number."""
        for path in self._folder.glob("*.png"):
            with contextlib.suppress(OSError):
                status = path.stat()
                version = (status.st_ino, status.st_mtime_ns)
                if self._first.setdefault(path.name, version) != version:
                    self.rewritten.add(path.name)
        return len(self._first)


def run_with_kills(
    folder: Path, *, kills: list[str], images: int, options: tuple[str, ...], pause: float,
    generator: random.Random, say: Callable[[str], None],
) -> Watch:  # fmt: skip
    """Run the batch on a cluster, and kill processes of the given kinds at random instants.

    Returns:
        The record of the results.
    """
    nodes, watch, log = Nodes(2), Watch(folder / "cluster"), (folder / "log.txt").open("wb")

    def start() -> subprocess.Popen[bytes]:
        ray_options = ("--ray", "--ray-address", nodes.address, "--ray-cores", "1")
        return subprocess.Popen(command(folder, "cluster", *options, *ray_options), stdout=log, stderr=log)

    def wait(seconds: float, *, for_result: bool = False) -> bool:
        """Wait, and return whether the command runs."""
        end, before = time.monotonic() + seconds, watch.look()
        while (
            time.monotonic() < end and process.poll() is None and (watch.look() == before or not for_result)
        ):
            time.sleep(0.1)
        return process.poll() is None

    process, remaining, expected = start(), list(reversed(kills)), 0
    try:
        while True:
            if remaining and generator.random() < 0.7:  # the other kills hit processes that start
                wait(300, for_result=True)
            if wait(generator.uniform(0, pause) if remaining else 1200) and remaining:
                kind = remaining.pop()
                say(f"{watch.look()} of {images} results; killing: {kind}")
                expected = {"command": -signal.SIGKILL, "head": 1}.get(kind, 0)
                if kind == "command":
                    process.kill()
                    process.wait()
                elif kind == "head":
                    nodes.kill_all()
                    nodes.start()
                    wait(120)  # the command notices it and ends
                elif kind == "node":
                    nodes.kill_node(generator)
                elif not nodes.kill_worker(generator):
                    remaining.append(kind)  # no worker has started yet
                    continue
                watch.kills[kind] += 1
            if process.poll() is not None:
                say(f"{watch.look()} of {images} results; the command ended with {process.returncode}")
                if process.returncode != expected:
                    raise RuntimeError(f"the exit code should be {expected}: see {folder / 'log.txt'}")
                expected = 0
                if process.returncode == 0 and not remaining:
                    return watch
                if process.returncode == 0:  # nothing is left for the other kills: repeat some images
                    for path in generator.sample(sorted((folder / "cluster").glob("*.png")), images // 2):
                        path.unlink()
                        watch._first.pop(path.name, None)
                process = start()
    finally:
        process.kill()
        nodes.stop()
        log.close()


def compare(folder: Path) -> list[str]:
    """Return what differs between the batch on the cluster and that in one process."""
    expected, given = (
        {path.name: np.asarray(Image.open(path)) for path in (folder / name).glob("*.png")}
        for name in ("alone", "cluster")
    )
    wrong = [f"{name} is missing" for name in expected.keys() - given.keys()]
    rows = read_rows(str(folder / "cluster"), LocalStorage())
    wrong += [f"{name} has no row" for name in given.keys() - rows.keys()]
    wrong += [f"{name} has the error {row.error}" for name, row in rows.items() if row.error is not None]
    return wrong + [f"{n} differs" for n in expected.keys() & given.keys() if (expected[n] != given[n]).any()]


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="the kinds in their order [random]")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--pause", type=float, default=15, help="longest pause before a kill in seconds [15]")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(machine.line(), flush=True)
    generator = random.Random(arguments.seed)
    kills = arguments.kinds or generator.choices(list(KINDS), list(KINDS.values()), k=arguments.kills)
    options = ("--size", str(arguments.size), "--iterations", str(arguments.iterations))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, arguments.images, size=160)
        alone = start_alone(folder, *options)
        watch = run_with_kills(
            folder, kills=kills, images=arguments.images, options=options, pause=arguments.pause,
            generator=generator, say=functools.partial(print, flush=True),
        )  # fmt: skip
        if alone.wait() != 0:
            raise RuntimeError(f"the batch in one process failed: {(folder / 'alone.txt').read_text()}")
        wrong = compare(folder) + [f"{name} was written twice" for name in sorted(watch.rewritten)]
        print("\n".join(wrong) or "all results are there and equal")
        print("kills:", dict(sorted(watch.kills.items())))
        if wrong:
            print((folder / "log.txt").read_text()[-5000:])
            sys.exit(1)


if __name__ == "__main__":
    main()

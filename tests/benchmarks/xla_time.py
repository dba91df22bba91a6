"""Times the step's program through JAX's XLA client: ``python tests/benchmarks/xla_time.py FOLDER``.

FOLDER is what ``python -m tests.benchmarks.xla`` wrote, perhaps on another machine. This file needs numpy
and jax, nothing else of this project, and so can be carried to a machine with a GPU together with FOLDER.
For each size it compiles the StableHLO, runs it with the inputs in the order of the entry signature, feeds
image and optimiser state back, checks the losses against those that the writing machine's processor had
(the first to 0.5%, later ones, after moves by bfloat16 gradients, to 10%), and measures bfloat16 matrix
products in turn with the step. Columns of the table:

ms       of a step, median
TFLOP/s  of the convolutions and their input gradients; whatever else the step does counts as nothing
share    of the faster of the two matrix products' rates
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.backend import get_compile_options

# The features have 8 bits of mantissa: two compilers' sums over many of them agree to some 1e-3, and the
# moves that their gradients make drift apart.
FIRST_TOLERANCE, LATER_TOLERANCE = 5e-3, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", help="[all on a GPU, the smallest on a processor]")
    parser.add_argument("--repeats", type=int, help="[50 on a GPU, 3 on a processor]")
    parser.add_argument("--trace", type=Path, help="a folder for a profile of some steps, for xprof")
    options = parser.parse_args()
    device = jax.devices()[0]
    accelerated = device.platform != "cpu"
    found = sorted(int(path.stem.partition("_")[2]) for path in options.folder.glob("step_*.json"))
    if not found:
        parser.error(f"{options.folder} has no step_SIZE.json; write it with python -m tests.benchmarks.xla")
    sizes = options.sizes or (found if accelerated else found[:1])
    repeats = options.repeats or (50 if accelerated else 3)
    print(f"JAX {jax.__version__} on {device.device_kind} ({device.platform}), {len(jax.devices())} of them")
    print("| size | compile s | ms | TFLOP/s | matmul | larger matmul | share | first loss off by | later |")
    print("|---|---|---|---|---|---|---|---|---|")
    failed = False
    for size in sizes:
        row, (first, *later) = measured(options.folder, size, repeats, accelerated, options.trace)
        print(row, flush=True)
        failed |= not (first <= FIRST_TOLERANCE and max(later) <= LATER_TOLERANCE)
    if failed:
        sys.exit(f"a loss is not the processor's within {FIRST_TOLERANCE} at first, {LATER_TOLERANCE} later")


def measured(folder: Path, size: int, repeats: int, accelerated: bool, trace: Path | None):
    """The table's row, and the relative errors of the losses."""
    began = time.perf_counter()
    step = Step(folder, size)
    compiling = time.perf_counter() - began
    expected = step.facts["losses"]
    losses = [step() for _ in expected]
    errors = [abs(a - b) / abs(b) for a, b in zip(losses, expected, strict=True)]
    sides = (4096, 8192) if accelerated else (2048, 4096)
    seconds, *products = medians([step, *map(make_matmul, sides)], repeats)
    if trace is not None:
        with jax.profiler.trace(str(trace)):
            for _ in range(5):
                step()
    rate = step.facts["operations"] / seconds
    rates = [2 * side**3 / s for side, s in zip(sides, products, strict=True)]
    named = [f"{r / 1e12:.3g} ({side})" for side, r in zip(sides, rates, strict=True)]
    cells = [
        str(size), f"{compiling:.1f}", f"{1e3 * seconds:.2f}", f"{rate / 1e12:.3g}", *named,
        f"{rate / max(rates):.2f}", f"{errors[0]:.1e}",
        f"{max(errors[1:]):.1e}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |", errors


class Step:
    """The compiled program with its inputs on the device; each call moves the image once.

    Args:
        folder: as `tests.benchmarks.xla` wrote it.
        size: one of those in it.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.facts = json.loads((folder / f"step_{size}.json").read_text())
        device = jax.devices()[0]
        self._arguments = [jax.device_put(array, device) for array in inputs(folder, self.facts)]
        self._program = compiled((folder / f"step_{size}.mlir").read_text(), device)

    def __call__(self) -> float:
        """Returns the loss before the move, once all of the step is done."""
        results = self._program.execute_sharded(self._arguments).disassemble_into_single_device_arrays()
        flat = [arrays[0] for arrays in results]
        kept = self.facts["fed_back"]
        self._arguments[:kept] = flat[:kept]
        jax.block_until_ready(flat)
        return float(flat[self.facts["total"]])


def inputs(folder: Path, facts: dict) -> list[np.ndarray]:
    """The program's arguments in the order of its entry signature."""
    made = []
    with np.load(folder / facts["arrays"]) as arrays:
        for parameter in facts["parameters"]:
            dtype = jnp.dtype(parameter["dtype"])
            if "fill" in parameter:
                made.append(np.full(parameter["shape"], parameter["fill"], dtype))
            else:
                made.append(arrays[parameter["key"]].view(dtype).reshape(parameter["shape"]))
    return made


def compiled(program: str, device: jax.Device):
    """An executable of StableHLO's text, by the client that `jax.jit` uses and with its options."""
    options = get_compile_options(num_replicas=1, num_partitions=1)
    client = device.client
    compile_ = getattr(client, "compile_and_load", None)  # its name since JAX 0.6
    return client.compile(program, options) if compile_ is None else compile_(program, [device], options)


def make_matmul(side: int):
    """A function that multiplies two bfloat16 matrices and waits for the product."""
    a, b = (jax.random.normal(jax.random.key(i), (side, side), jnp.bfloat16) for i in range(2))
    multiply = jax.jit(jnp.matmul)
    return lambda: multiply(a, b).block_until_ready()


def medians(calls, repeats: int) -> list[float]:
    """Median seconds of each call, taken in turn so that all see the same neighbours."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, series in zip(calls, times, strict=True):
            began = time.perf_counter()
            call()
            series.append(time.perf_counter() - began)
    return [statistics.median(series) for series in times]


if __name__ == "__main__":
    main()

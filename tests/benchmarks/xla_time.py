"""Time the step's program through JAX's XLA client: ``python tests/benchmarks/xla_time.py FOLDER``.

FOLDER is written by ``python -m tests.benchmarks.xla -o FOLDER``, possibly on another machine. This file
needs NumPy and JAX and no other file of this project, so it can be copied with FOLDER to a machine with a
GPU. For each size the script compiles the StableHLO and runs it with the stored inputs. The image and the
optimiser state that a call returns are inputs of the next call. The losses are compared with those stored in
FOLDER, which a processor computed: the first loss must agree to 0.5%, and the later ones, which depend on
bfloat16 gradients, to 10%. Calls of the step are timed in turn with bfloat16 matrix products. Columns of the
table:

compile s            seconds of reading and compiling the program
ms                   median milliseconds of a step
TFLOP/s              of the convolutions and their input gradients; other operations are not counted
matmul, larger       TFLOP/s of the matrix products, with the side of the matrices
share                the step's TFLOP/s divided by those of the faster matrix product
first loss off by    relative error of the first loss
later                largest relative error of the later losses
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

# bfloat16 features have a mantissa of 8 bits. Sums over many of them agree to about 1e-3 between two
# compilers. In later steps the images drift apart, because the gradients differ.
FIRST_TOLERANCE, LATER_TOLERANCE = 5e-3, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder that python -m tests.benchmarks.xla -o wrote")
    parser.add_argument(
        "--sizes", type=int, nargs="+", help="sides in pixels [all on a GPU, the smallest on a processor]"
    )
    parser.add_argument("--repeats", type=int, help="calls for each median [50 on a GPU, 3 on a processor]")
    parser.add_argument(
        "--trace", type=Path, metavar="FOLDER", help="write a profile of five steps here, for xprof"
    )
    options = parser.parse_args()
    device = jax.devices()[0]
    accelerated = device.platform != "cpu"
    stored_sizes = sorted(int(path.stem.partition("_")[2]) for path in options.folder.glob("step_*.json"))
    if not stored_sizes:
        parser.error(
            f"{options.folder} has no step_SIZE.json; write it with "
            f"python -m tests.benchmarks.xla -o {options.folder}"
        )
    sizes = options.sizes or (stored_sizes if accelerated else stored_sizes[:1])
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
        sys.exit(
            f"a loss differs from the stored one by more than {FIRST_TOLERANCE:.1%} (first) or "
            f"{LATER_TOLERANCE:.0%} (later); the columns 'first loss off by' and 'later' show which"
        )


def measured(folder: Path, size: int, repeats: int, accelerated: bool, trace: Path | None):
    """Time the step at one size and return a row of the table and the relative errors of the losses."""
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
    """The compiled program with its inputs on the device. Each call makes one optimisation step.

    Args:
        folder: the folder that `tests.benchmarks.xla` wrote.
        size: one of the sizes in the folder.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.facts = json.loads((folder / f"step_{size}.json").read_text())
        device = jax.devices()[0]
        self._arguments = [jax.device_put(array, device) for array in inputs(folder, self.facts)]
        self._program = compiled((folder / f"step_{size}.mlir").read_text(), device)

    def __call__(self) -> float:
        """Run one step to its end and return the loss of the image before it."""
        results = self._program.execute_sharded(self._arguments).disassemble_into_single_device_arrays()
        flat = [arrays[0] for arrays in results]
        fed_back = self.facts["fed_back"]
        self._arguments[:fed_back] = flat[:fed_back]
        jax.block_until_ready(flat)
        return float(flat[self.facts["total"]])


def inputs(folder: Path, facts: dict) -> list[np.ndarray]:
    """Return the program's arguments in the order of its entry signature."""
    arguments = []
    with np.load(folder / facts["arrays"]) as arrays:
        for parameter in facts["parameters"]:
            dtype = jnp.dtype(parameter["dtype"])
            if "fill" in parameter:
                arguments.append(np.full(parameter["shape"], parameter["fill"], dtype))
            else:
                arguments.append(arrays[parameter["key"]].view(dtype).reshape(parameter["shape"]))
    return arguments


def compiled(program: str, device: jax.Device):
    """Compile StableHLO text with the client that `jax.jit` uses and with the options that it uses."""
    options = get_compile_options(num_replicas=1, num_partitions=1)
    client = device.client
    compile_ = getattr(client, "compile_and_load", None)  # its name since JAX 0.6
    return client.compile(program, options) if compile_ is None else compile_(program, [device], options)


def make_matmul(side: int):
    """Return a function that multiplies two bfloat16 matrices and waits for the product."""
    a, b = (jax.random.normal(jax.random.key(i), (side, side), jnp.bfloat16) for i in range(2))
    multiply = jax.jit(jnp.matmul)
    return lambda: multiply(a, b).block_until_ready()


def medians(calls, repeats: int) -> list[float]:
    """Return the median seconds of each call, made in turn so that other programs affect all calls alike."""
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

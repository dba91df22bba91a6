"""Rate of the compiled step, as ratios: ``python -m tests.benchmarks.step [--size 512]``.

Every ratio compares two calls that are made in turn in one process, by the medians of their times. Peak
memory and start-up time are measured in separate processes. The goals are not tests: absolute times mean
nothing on a machine that other programs share.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.benchmarks import machine
from tests.benchmarks.processes import in_a_process, peak_memory

STYLE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
CONTENT = ("conv4_2",)


def convolution_operations(size: int) -> float:
    """Return the floating-point operations of all convolutions up to conv5_1 and of their input gradients."""
    from tfstyle.layers import NETWORKS, Layer

    total = 0.0
    for layer in NETWORKS["vgg19"]:
        side = size // layer.stride
        if layer <= Layer(5, 1):
            total += 2 * 9 * layer.kernel_shape[2] * layer.filters * side * side
    return 2 * total


def make_problem(size, dtype="bfloat16", padding="reflect"):
    """Return the objective of Gatys et al. over random weights, a random content image, and the targets."""
    import numpy as np
    import tensorflow as tf

    from tfstyle import Encoder, Objective

    encoder = Encoder((*STYLE, *CONTENT), "random", dtype=dtype, padding=padding)
    objective = Objective(
        encoder.features,
        {CONTENT[0]: 1.0},
        style_layers=dict.fromkeys(STYLE, 0.2),
        content_weight=0.04,
        style_weight=1.0,
        tv_weight=0.1,
    )
    generator = np.random.default_rng(0)
    content, style = (tf.constant(generator.random((1, size, size, 3)), tf.float32) for _ in range(2))
    targets = tf.function(lambda: objective.targets(content, [objective.style_summary(style)]))()
    return objective, content, targets


def make_call(size, dtype="bfloat16", compile="graph", padding="reflect", optimizer=None):
    """Return a function without arguments that runs one step and waits for its result."""
    from tfstyle import lbfgs, make_step

    objective, content, targets = make_problem(size, dtype, padding)
    optimizer = optimizer or lbfgs()
    step = make_step(objective, optimizer, compile=compile)
    state = [content, optimizer.init(content)]

    def call():
        state[0], state[1], terms = step(*state, targets)
        return float(terms["total"])

    return call


def make_matmul(side=4096):
    """Return a function without arguments that squares a bfloat16 matrix and waits for the product."""
    import tensorflow as tf

    a = tf.cast(tf.random.normal((side, side)), tf.bfloat16)
    multiply = tf.function(lambda a: tf.matmul(a, a))

    def call():
        return float(multiply(a)[0, 0])

    return call


def medians(calls, repeats):
    """Return the median seconds of each call, made in turn so that other programs affect all calls alike."""
    for call in calls:
        for _ in range(3):  # tracing, and the first curvature pairs of L-BFGS
            call()
    times = [[] for _ in calls]
    for _ in range(repeats):
        for call, series in zip(calls, times, strict=True):
            began = time.perf_counter()
            call()
            series.append(time.perf_counter() - began)
    return [statistics.median(series) for series in times]


def loop_overhead(size, iterations=20):
    """Return the seconds of an iteration of `Run` over the seconds of the step alone."""
    import numpy as np

    from tfstyle.config import StyleConfig
    from tfstyle.run import Run

    generator = np.random.default_rng(0)
    content, style = (generator.random((size, size, 3)).astype(np.float32) for _ in range(2))
    config = StyleConfig(size=size, weights="random", scales=1, iterations=iterations, precision="bfloat16")
    run = iter(Run(content, style, config))
    run_seconds, step_seconds = medians([lambda: next(run), make_call(size)], iterations - 3)
    return run_seconds / step_seconds


def memory_of_run(size):
    """Return the peak resident memory in GB of this process after 14 iterations at one scale."""
    import numpy as np

    import tfstyle

    content, style = np.random.default_rng(0).random((2, size, size, 3)).astype(np.float32)
    tfstyle.stylize(content, style, size=size, weights="random", scales=1, iterations=14)
    return peak_memory()


def start_up(*arguments, repeats=7):
    """Return the median seconds of a Python process with these arguments and of one that does nothing."""

    def seconds(*command):
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            _python(*command)
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    return seconds(*arguments), seconds("-c", "pass")


def _python(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="side of the image in pixels [%(default)s]")
    parser.add_argument(
        "--repeats", type=int, default=9, help="calls for the medians of the first rows [%(default)s]"
    )
    options = parser.parse_args()
    print(machine.line(), flush=True)
    size, repeats = options.size, options.repeats
    print(f"{'quantity':74} {'value':>7}  {'goal':>7}")

    def row(quantity, value, goal):
        print(f"{quantity:74} {value:7.2f}  {goal:>7}", flush=True)

    operations = convolution_operations(size)
    for padding in ("reflect", "zeros"):
        step, matmul = medians([make_call(size, padding=padding), make_matmul()], repeats)
        rate = operations / step / (2 * 4096**3 / matmul)
        row(f"FLOP/s of the bfloat16 step, padding {padding}, over a 4096 x 4096 matmul's", rate, ">= 0.8")
    few = max(3, repeats // 3)
    for padding in ("reflect", "zeros"):
        calls = [make_call(size, dtype, padding=padding) for dtype in ("bfloat16", "float32")]
        half, single = medians(calls, few)
        row(f"float32 graph, padding {padding}, seconds over the bfloat16 graph's", single / half, ">= 4")
    graph, xla = medians([make_call(size), make_call(size, compile="xla")], few)
    row("bfloat16 with XLA, padding reflect, seconds over the bfloat16 graph's", xla / graph, "")
    row("iteration of a run, seconds over the seconds of the step alone", loop_overhead(size), "<= 1.05")
    for side, goal in ((size, "<= 1.5"), (2 * size, "<= 3.2")):
        peak = in_a_process("tests.benchmarks.step:memory_of_run", side)
        row(f"peak resident memory at {side} x {side}, GB", peak, goal)
    whole, empty = start_up("-c", "import tfstyle")
    row("import tfstyle, seconds without Python's start", whole - empty, "< 0.15")
    whole, empty = start_up("-m", "tfstyle", "--help")
    row("tfstyle --help, seconds with Python's start", whole, "< 0.5")


if __name__ == "__main__":
    main()

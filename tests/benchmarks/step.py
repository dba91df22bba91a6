"""How fast the step is, in ratios: ``python -m tests.benchmarks.step [--size 512]``.

Every row compares two things measured in turn in one process, by the median of several; memory and
start-up are measured in processes of their own. Nothing here is a test: absolute times mean nothing
on a shared machine.
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

STYLE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
CONTENT = ("conv4_2",)


def convolution_operations(size: int) -> float:
    """Floating-point operations of all convolutions up to conv5_1 and of their input gradients."""
    from tfstyle.layers import NETWORKS, Layer

    total = 0.0
    for layer in NETWORKS["vgg19"]:
        side = size // layer.stride
        if layer <= Layer(5, 1):
            total += 2 * 9 * layer.kernel_shape[2] * layer.filters * side * side
    return 2 * total


def make_problem(size, dtype="bfloat16", padding="reflect"):
    """The default objective over random weights, a content image and the targets of it and a style."""
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
    """A function without arguments that runs one step and waits for it."""
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
    import tensorflow as tf

    a = tf.cast(tf.random.normal((side, side)), tf.bfloat16)
    multiply = tf.function(lambda a: tf.matmul(a, a))

    def call():
        return float(multiply(a)[0, 0])

    return call


def medians(calls, repeats):
    """Median seconds of each call, taken in turn so that all see the same neighbours."""
    for call in calls:
        for _ in range(3):  # tracing, and the first pairs of L-BFGS
            call()
    times = [[] for _ in calls]
    for _ in range(repeats):
        for call, series in zip(calls, times, strict=True):
            began = time.perf_counter()
            call()
            series.append(time.perf_counter() - began)
    return [statistics.median(series) for series in times]


def loop_overhead(size, iterations=20):
    """Seconds per iteration of the whole run over those of the bare step, in turn."""
    import numpy as np

    from tfstyle.config import StyleConfig
    from tfstyle.run import Run

    generator = np.random.default_rng(0)
    content, style = (generator.random((size, size, 3)).astype(np.float32) for _ in range(2))
    config = StyleConfig(size=size, weights="random", scales=1, iterations=iterations, precision="bfloat16")
    run = iter(Run(content, style, config))
    whole, bare = medians([lambda: next(run), make_call(size)], iterations - 3)
    return whole / bare


def peak_memory(size):
    """Peak resident memory in GB of a process that makes a few iterations of the default step."""
    code = (
        "import numpy as np, tfstyle; "
        f"r = np.random.default_rng(0); c, s = r.random((2, {size}, {size}, 3)).astype('f4'); "
        f"tfstyle.stylize(c, s, size={size}, weights='random', scales=1, iterations=14); "
        # Not ru_maxrss, which a child inherits from a larger parent.
        "print([int(l.split()[1]) / 1e6 for l in open('/proc/self/status') if l.startswith('VmHWM')][0])"
    )
    return float(_python("-c", code).split()[-1])


def start_up(*arguments, repeats=7):
    """Median seconds of a Python process with these arguments, less that of an empty one."""

    def seconds(*what):
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            _python(*what)
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    return seconds(*arguments), seconds("-c", "pass")


def _python(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    print(machine.line(), flush=True)
    size, repeats = options.size, options.repeats
    print(f"{'what':66} {'ratio':>7}  {'goal':>7}")

    def row(what, value, goal):
        print(f"{what:66} {value:7.2f}  {goal:>7}", flush=True)

    operations = convolution_operations(size)
    for padding in ("reflect", "zeros"):
        step, matmul = medians([make_call(size, padding=padding), make_matmul()], repeats)
        rate = operations / step / (2 * 4096**3 / matmul)
        row(f"rate of the bfloat16 step, {padding}, over a 4096 bfloat16 matmul's", rate, ">= 0.8")
    few = max(3, repeats // 3)
    for padding in ("reflect", "zeros"):
        calls = [make_call(size, dtype, padding=padding) for dtype in ("bfloat16", "float32")]
        half, single = medians(calls, few)
        row(f"bfloat16 graph, {padding}, times faster than the float32 graph", single / half, ">= 4")
    graph, xla = medians([make_call(size), make_call(size, compile="xla")], few)
    row("bfloat16 graph, reflect, times faster than bfloat16 XLA", xla / graph, "")
    row("seconds of an iteration of the run over the bare step's", loop_overhead(size), "<= 1.05")
    row(f"peak resident memory at {size} x {size}, GB", peak_memory(size), "<= 1.5")
    row(f"peak resident memory at {2 * size} x {2 * size}, GB", peak_memory(2 * size), "<= 3.2")
    whole, empty = start_up("-c", "import tfstyle")
    row("import tfstyle, seconds more than an empty Python", whole - empty, "< 0.15")
    whole, empty = start_up("-m", "tfstyle", "--help")
    row("tfstyle --help, seconds with Python's own start", whole, "< 0.5")


if __name__ == "__main__":
    main()

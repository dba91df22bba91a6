"""The seconds before the first iteration of each scale: ``python -m tests.benchmarks.startup``.

It measures each part of a run with the default options once: imports, images, weights and encoder, then for
each scale the targets, the trace of the step and its first call, beside the median of the later calls. The
last rows measure the command ``tfstyle stylize`` from its start until each preview is written.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.benchmarks import machine
from tests.conftest import DATA

IMAGES = [str(DATA / "images" / f"{name}.jpg") for name in ("tubingen", "starry_night_google")]
LATER_CALLS = 5


def row(name: str, seconds: float) -> None:
    print(f"{name:56}{seconds:8.2f}", flush=True)


def timed(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Print the seconds of a call, and return its result."""
    began = time.perf_counter()
    result = function(*arguments)
    row(name, time.perf_counter() - began)
    return result


def import_packages() -> None:
    import numpy  # noqa: F401
    import tensorflow  # noqa: F401


def import_tfstyle() -> None:
    import tfstyle.run.run  # noqa: F401


def measure_parts(weights: str, size: int) -> None:
    """Print the seconds of the parts of a run, each done once and in the order of a run."""
    began = time.perf_counter()
    timed("import of TensorFlow and Keras", import_packages)
    timed("import of tfstyle.run", import_tfstyle)
    import tensorflow as tf

    from tfstyle.config import StyleConfig
    from tfstyle.run import ScaleTargets, make_setup, plan_scales, read_inputs
    from tfstyle.run.layout import Layout

    config = StyleConfig(weights=weights, size=size)
    inputs = timed("reading the images", lambda: read_inputs(*IMAGES, config))
    setup = timed("weights, encoder and objective", lambda: make_setup(config, "/CPU:0"))
    scales = plan_scales(inputs.shape, config, minimum=setup.encoder.minimum_size)
    _, step = setup.step([scale.iterations for scale in scales], config.steps_per_call)
    for scale in scales:
        place = f"scale {scale.number}, {scale.shape[1]} x {scale.shape[0]}: "
        targets = timed(f"{place}targets", ScaleTargets(inputs, setup).compute, scale, Layout())
        image = tf.constant(inputs.start_image(scale.shape)[None])
        state = setup.optimizer.init(image)
        traced = timed(f"{place}trace of the step", setup.trace, step, image, state, targets)
        calls = []
        for _ in range(1 + LATER_CALLS):
            called = time.perf_counter()
            image, state, terms = traced(image, state, targets)
            float(terms["total"])
            calls.append(time.perf_counter() - called)
        row(f"{place}first call of the step", calls[0])
        row(f"{place}later calls, median", statistics.median(calls[1:]))
        if scale.number == 1:
            row("all until the end of the first iteration", time.perf_counter() - began - sum(calls[1:]))


def measure_command(weights: str, size: int) -> None:
    """Print the seconds of the command until its first preview, and after that until the second."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "tfstyle", "stylize", *IMAGES, "-o", f"{folder}/out.png", "--size", str(size)]
        command += ["--weights", weights, "--scales", "1", "--iterations", "3", "--save-every", "1"]
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        previews = 0
        while process.poll() is None:
            if len([path for path in Path(folder).glob("*.png") if not path.name.startswith(".")]) > previews:
                previews += 1
                row(f"tfstyle stylize at one scale: preview {previews}", time.perf_counter() - began)
            time.sleep(0.01)
        if process.returncode:
            sys.exit(process.stderr.read().decode() if process.stderr else "the command failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=384, help="longest side in pixels [%(default)s]")
    parser.add_argument(
        "--weights",
        default=str(DATA / "weights" / "vgg19_standin.npz"),
        help="as for tfstyle stylize [the stand-in weights of the test data]",
    )
    options = parser.parse_args()
    print(machine.line(), flush=True)
    print(f"{'part':56}{'seconds':>8}")
    measure_parts(options.weights, options.size)
    measure_command(options.weights, options.size)


if __name__ == "__main__":
    main()

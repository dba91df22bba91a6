"""Loss after a run in bfloat16 relative to float32: ``python -m tests.benchmarks.precision [CONTENT STYLE]``.

For each pair of a content image and a style image, the script makes one run with bfloat16 features and one
with float32 features, with the same number of iterations. It then evaluates the loss of both results in
float32. The goal is a difference of at most 3%.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.benchmarks import machine


def main() -> None:
    import tensorflow as tf

    from tests.conftest import DATA
    from tfstyle.config import StyleConfig
    from tfstyle.run import Layout, Run, ScaleTargets

    parser = argparse.ArgumentParser(description=__doc__)
    images = DATA / "images"
    pairs = ("tubingen", "starry_night_google", "golden_gate", "the_scream", "hoovertowernight", "shipwreck")
    parser.add_argument(
        "--weights",
        default=str(DATA / "weights" / "vgg19_standin.npz"),
        help="as for tfstyle stylize [the test data's vgg19_standin.npz]",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="CONTENT STYLE",
        default=[str(images / f"{name}.jpg") for name in pairs],
        help="pairs of image files [three pairs of the test data]",
    )
    parser.add_argument("--size", type=int, default=512, help="longest side in pixels [%(default)s]")
    parser.add_argument(
        "--iterations", type=int, default=StyleConfig().iterations, help="per scale [%(default)s]"
    )
    parser.add_argument(
        "--optimizer", default=StyleConfig().optimizer, help="as for tfstyle stylize [%(default)s]"
    )
    options = parser.parse_args()
    if len(options.paths) % 2:
        parser.error(f"got {len(options.paths)} images; give pairs of a content image and a style image")
    print(machine.line(), flush=True)

    print(f"{'content':24} {'style':28} {'loss bf16 / float32':>20} {'seconds float32 / bf16':>24}")
    for content, style in zip(options.paths[::2], options.paths[1::2], strict=True):
        losses, seconds = {}, {}
        for precision in ("bfloat16", "float32"):
            config = StyleConfig(
                size=options.size, weights=options.weights, iterations=options.iterations,
                optimizer=options.optimizer, precision=precision,
            )  # fmt: skip
            run = Run(content, style, config)
            began = time.perf_counter()
            for _ in run:
                pass
            seconds[precision] = time.perf_counter() - began
            judge = Run(content, style, config.replace({"precision": "float32"}))
            targets = ScaleTargets(judge.inputs, judge.setup).compute(judge.scales[-1], Layout())
            image = tf.constant(run.result().image[None])
            losses[precision] = float(judge.setup.objective(image, targets)["total"])
        ratio, speed = (losses["bfloat16"] / losses["float32"], seconds["float32"] / seconds["bfloat16"])
        print(
            f"{os.path.basename(content):24} {os.path.basename(style):28} {ratio:20.4f} {speed:24.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

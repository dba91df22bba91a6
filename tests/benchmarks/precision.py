"""What bfloat16 costs in quality: ``python -m tests.benchmarks.precision [CONTENT STYLE ...]``.

For each pair of pictures a bfloat16 and a float32 run of equal iterations; both finished pictures are
then measured by the float32 loss. The goal is within 3%.
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
    parser.add_argument("--weights", default=str(DATA / "weights" / "vgg19_standin.npz"))
    parser.add_argument(
        "pictures",
        nargs="*",
        metavar="CONTENT STYLE",
        default=[str(images / f"{name}.jpg") for name in pairs],
    )
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--iterations", type=int, default=StyleConfig().iterations)
    parser.add_argument("--optimizer", default=StyleConfig().optimizer)
    options = parser.parse_args()
    if len(options.pictures) % 2:
        parser.error("pictures come in pairs")
    print(machine.line(), flush=True)

    print(f"{'content':24} {'style':28} {'loss bf16 / float32':>20} {'seconds float32 / bf16':>24}")
    for content, style in zip(options.pictures[::2], options.pictures[1::2], strict=True):
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

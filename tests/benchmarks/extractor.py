"""Rate of style extraction: ``python -m tests.benchmarks.extractor [--size 256]``.

The same images go through the extractor in this process, through its SavedModel loaded in Python, and through
a gRPC server on the loopback interface. The server is the test double, which serves the same graph. With
``--grpc HOST:PORT`` it is a real server, which must serve the model that this script writes to ``--models``.
Every time is the median of calls made in turn. Only ratios are meaningful.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tests.benchmarks import machine
from tests.benchmarks.step import medians


def main() -> None:
    import tensorflow as tf

    from tfstyle import StyleExtractor

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels [%(default)s]")
    parser.add_argument("--weights", default="random", help="as for tfstyle extract [%(default)s]")
    parser.add_argument("--repeats", type=int, default=9, help="calls for each median [%(default)s]")
    parser.add_argument(
        "--models", type=Path, metavar="FOLDER", help="write the SavedModel here [a temporary folder]"
    )
    parser.add_argument("--grpc", metavar="HOST:PORT", help="use this server in place of the test double")
    options = parser.parse_args()
    print(machine.line(), flush=True)
    extractor = StyleExtractor(weights=options.weights)
    with tempfile.TemporaryDirectory() as folder:
        models = options.models or Path(folder)
        path = extractor.export(models)
        began = time.perf_counter()
        model = tf.saved_model.load(str(path))
        loading = time.perf_counter() - began
        signature = model.signatures["serving_default"]
        pixels = np.random.default_rng(0).integers(0, 256, (8, options.size, options.size, 3), np.uint8)
        with server(options.grpc, models) as predict:
            calls, names = [], []
            for batch in (1, 8):
                images = pixels[:batch]
                tensor = tf.constant(images)
                calls += [
                    lambda x=images: extractor(x)["embedding"].numpy(),
                    lambda x=tensor: signature(images=x)["embedding"].numpy(),
                    lambda x=images: predict(x),
                ]
                names += [(batch, kind) for kind in ("direct call", "SavedModel", "server")]
            seconds = dict(zip(names, medians(calls, options.repeats), strict=True))
    print(f"{options.size} x {options.size}, layers {', '.join(extractor.layers)}")
    print("images/s with batches of 1 and 8; the same relative to the direct call; rate of 8 over rate of 1")
    heads = ("images/s, 1", "images/s, 8", "relative, 1", "relative, 8", "8 over 1")
    print(" " * 14 + "".join(f"{head:>14}" for head in heads))
    for kind in ("direct call", "SavedModel", "server"):
        rates = {batch: batch / seconds[batch, kind] for batch in (1, 8)}
        shares = {batch: seconds[batch, "direct call"] / seconds[batch, kind] for batch in (1, 8)}
        print(
            f"{kind:14}{rates[1]:14.1f}{rates[8]:14.1f}{shares[1]:14.2f}{shares[8]:14.2f}"
            f"{rates[8] / rates[1]:14.2f}"
        )
    print(f"loading the SavedModel in Python took {loading:.1f} s")
    print(
        f"convolutions of blocks 1 to 4 alone: {convolutions(options.size):.2f} times as fast per image in a "
        "batch of 8 as in a batch of 1"
    )
    ten_contents(options.weights)


def convolutions(size: int) -> float:
    """Return the rate per image of convolutions in a batch of 8 over that in a batch of 1.

    The work is one 3 x 3 convolution of each of the blocks 1 to 4, at the size of its block.
    """
    import tensorflow as tf

    generator = np.random.default_rng(0)
    layers = [(64, 64, size), (128, 128, size // 2), (256, 256, size // 4), (512, 512, size // 8)]
    kernels = [tf.constant(generator.normal(size=(3, 3, i, o)), tf.float32) for i, o, _ in layers]
    work = tf.function(lambda xs: [tf.nn.conv2d(x, k, 1, "SAME") for x, k in zip(xs, kernels)])
    calls = []
    for batch in (1, 8):
        xs = [tf.constant(generator.random((batch, side, side, i)), tf.float32) for i, _, side in layers]
        calls.append(lambda xs=xs: work(xs)[-1].numpy())
    seconds_1, seconds_8 = medians(calls, 9)
    return 8 * seconds_1 / seconds_8


def ten_contents(weights: str) -> None:
    """Print how often ten runs encode the style, given as an image and as a `tfstyle.Style`."""
    from tfstyle import Objective, StyleExtractor, stylize

    generator = np.random.default_rng(1)
    style, *contents = (generator.random((64, 64, 3), np.float32) for _ in range(11))
    counts = []
    original = Objective.style_summary
    for given in (style, StyleExtractor(weights=weights).style(style)):
        calls = []

        def count_calls(self, image, *weights, calls=calls):
            calls.append(1)
            return original(self, image, *weights)

        Objective.style_summary = count_calls
        for content in contents:
            stylize(content, given, weights=weights, iterations=1, precision="float32")
        counts.append(len(calls))
    Objective.style_summary = original
    print(
        f"ten content images: the style is encoded {counts[0]} times when given as an image, "
        f"{counts[1]} times when given as a tfstyle.Style"
    )


class server:
    """A context that gives a function from uint8 images to embeddings, computed by a gRPC server.

    Args:
        target: host and port of the server, or None to start the test double for the context's duration.
        models: the folder of the SavedModel that the test double serves.
    """

    def __init__(self, target: str | None, models: Path) -> None:
        self._target, self._models = target, models

    def __enter__(self):
        import grpc

        from tests.contract.double import running
        from tests.contract.messages import PredictRequest, PredictResponse

        self._double = None
        if self._target is None:
            self._double = running(self._models, "tfstyle")
            self._target = self._double.__enter__().grpc_target
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(self._target, unlimited)
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

        def predict(pixels: np.ndarray) -> np.ndarray:
            request = PredictRequest("tfstyle", {"images": pixels}, outputs=("embedding",))
            return PredictResponse.decode(call(request.encode())).outputs["embedding"]

        return predict

    def __exit__(self, *arguments) -> None:
        if self._double is not None:
            self._double.__exit__(*arguments)


if __name__ == "__main__":
    main()

"""How fast styles are extracted: ``python -m tests.benchmarks.extractor [--size 256]``.

The same images go through the extractor in this process, through its SavedModel loaded in Python, and
through a server on loopback: a double over the same graph, or a real one with ``--grpc HOST:PORT``, which
must serve the model that this script writes to ``--models``. Medians of calls taken in turn; read the
ratios.
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
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--weights", default="random")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--models", type=Path, help="where the SavedModel is written, by default thrown away")
    parser.add_argument("--grpc", help="a server's host and port, in place of the double")
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
                some = pixels[:batch]
                whole = tf.constant(some)
                calls += [
                    lambda x=some: extractor(x)["embedding"].numpy(),
                    lambda x=whole: signature(images=x)["embedding"].numpy(),
                    lambda x=some: predict(x),
                ]
                names += [(batch, kind) for kind in ("direct call", "SavedModel", "server")]
            seconds = dict(zip(names, medians(calls, options.repeats), strict=True))
    print(f"{options.size} x {options.size}, layers {', '.join(extractor.layers)}")
    heads = ("images/s, 1", "images/s, 8", "of direct, 1", "of direct, 8", "8 over 1")
    print(" " * 14 + "".join(f"{head:>14}" for head in heads))
    for kind in ("direct call", "SavedModel", "server"):
        rates = {batch: batch / seconds[batch, kind] for batch in (1, 8)}
        shares = {batch: seconds[batch, "direct call"] / seconds[batch, kind] for batch in (1, 8)}
        print(
            f"{kind:14}{rates[1]:14.1f}{rates[8]:14.1f}{shares[1]:14.2f}{shares[8]:14.2f}"
            f"{rates[8] / rates[1]:14.2f}"
        )
    print(f"loading the SavedModel in Python took {loading:.1f} s")
    print(f"its convolutions alone: {convolutions(options.size):.2f} times as fast per image in a batch of 8")
    ten_contents(options.weights)


def convolutions(size: int) -> float:
    """How much faster per image a batch of 8 is, of the convolutions of blocks 1 to 4 by themselves."""
    import tensorflow as tf

    generator = np.random.default_rng(0)
    layers = [(64, 64, size), (128, 128, size // 2), (256, 256, size // 4), (512, 512, size // 8)]
    kernels = [tf.constant(generator.normal(size=(3, 3, i, o)), tf.float32) for i, o, _ in layers]
    work = tf.function(lambda xs: [tf.nn.conv2d(x, k, 1, "SAME") for x, k in zip(xs, kernels)])
    calls = []
    for batch in (1, 8):
        xs = [tf.constant(generator.random((batch, side, side, i)), tf.float32) for i, _, side in layers]
        calls.append(lambda xs=xs: work(xs)[-1].numpy())
    one, eight = medians(calls, 9)
    return 8 * one / eight


def ten_contents(weights: str) -> None:
    """Encodings of the style in ten runs, with its image and with the kept style."""
    from tfstyle import Objective, StyleExtractor, stylize

    generator = np.random.default_rng(1)
    style, *contents = (generator.random((64, 64, 3), np.float32) for _ in range(11))
    counts = []
    original = Objective.style_summary
    for given in (style, StyleExtractor(weights=weights).style(style)):
        calls = []
        Objective.style_summary = lambda self, image, calls=calls: calls.append(1) or original(self, image)
        for content in contents:
            stylize(content, given, weights=weights, iterations=1, precision="float32")
        counts.append(len(calls))
    Objective.style_summary = original
    print(f"ten contents: {counts[0]} encodings of a style image, {counts[1]} of a kept style")


class server:
    """Context: a function from uint8 images to embeddings through gRPC."""

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

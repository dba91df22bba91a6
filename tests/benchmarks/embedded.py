"""Quality of the embedded weights, judged by VGG-19: ``python -m tests.benchmarks.embedded``.

Each pair of a content image and a style image is stylised with the embedded weights, with two kinds of
random weights (the package's own, and plain He initialisation, whose filters do not sum to zero) and with
VGG-19's real lower blocks, called ``genuine``. The genuine network then judges every result. Its style ratio
at a layer is ‖G - A‖² between the Gram matrices of the result and of the style image, divided by the same
distance between the content image and the style image. Its content ratio is ‖F - P‖² / ‖P‖² at conv3_3. The
goals for the medians with the embedded weights are at most 0.08 at conv3_1, at most 0.12 at conv3_4, and at
most half of the medians with He initialisation. The runs have the default options.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.benchmarks import machine

JUDGED = ("conv2_1", "conv3_1", "conv3_4")
CONTENT = "conv3_3"
PAIRS = (
    "tubingen", "starry_night_google", "golden_gate", "the_scream", "hoovertowernight",
    "woman-with-hat-matisse", "seated-nude", "shipwreck", "tubingen", "woman-with-hat-matisse",
    "golden_gate", "starry_night_google",
)  # fmt: skip


def main() -> None:
    from tests.conftest import DATA
    from tfstyle import Encoder, stylize
    from tfstyle.images import load

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "paths", nargs="*", metavar="CONTENT STYLE",
        default=[str(DATA / "images" / f"{name}.jpg") for name in PAIRS],
        help="pairs of image files [six pairs of the test data]",
    )  # fmt: skip
    parser.add_argument("--size", type=int, default=384, help="longest side in pixels [%(default)s]")
    parser.add_argument(
        "--embedded", default="embedded", metavar="FILE", help="use this weights file for the rows embedded"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=["embedded", "random", "he", "genuine"],
        help="run these weights only: embedded, random, he, genuine [all]",
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="save the results here [not saved]")
    options = parser.parse_args()
    if len(options.paths) % 2:
        parser.error(f"got {len(options.paths)} images; give pairs of a content image and a style image")
    print(machine.line(), flush=True)

    genuine = str(DATA / "weights" / "vgg19_imagenet_block1-3.npz")
    judge = Judge(Encoder((*JUDGED, CONTENT), genuine))
    lower = {"style_layers": ("conv1_1", "conv2_1", "conv3_1", "conv3_4")}
    with tempfile.TemporaryDirectory() as folder:
        he = Path(folder) / "he.npz"
        np.savez(he, **plain_he())
        sources = {
            "embedded": {"weights": options.embedded},
            "random": {"weights": "random", **lower},
            "he": {"weights": str(he), **lower},
            "genuine": {"weights": genuine, **lower},
        }
        rows: dict[str, list[list[float]]] = {name: [] for name in options.only}
        print(f"{'content':18} {'style':24} {'weights':10} {'   '.join(JUDGED)}   content", flush=True)
        for content, style in zip(options.paths[::2], options.paths[1::2], strict=True):
            images = [load(path).fitted(options.size).on_white() for path in (content, style)]
            for name in options.only:
                result = stylize(content, style, size=options.size, **sources[name])
                if options.output is not None:
                    options.output.mkdir(parents=True, exist_ok=True)
                    stem = f"{Path(content).stem}_{Path(style).stem}_{name}.png"
                    result.save(options.output / stem, overwrite=True)
                rows[name].append(judge(result.image, *images))
                print(line(Path(content).stem, Path(style).stem, name, rows[name][-1]), flush=True)
    for name, numbers in rows.items():
        print(line("median", "", name, np.median(numbers, axis=0)))


def line(content, style, name, numbers) -> str:
    return f"{content[:18]:18} {style[:24]:24} {name:10} " + "   ".join(f"{n:7.3f}" for n in numbers)


class Judge:
    """Distances of a result from its content image and its style image, measured with one encoder."""

    def __init__(self, encoder) -> None:
        self._encoder = encoder

    def __call__(self, result, content, style) -> list[float]:
        """Return the style ratios at the layers ``JUDGED`` and then the content ratio at ``CONTENT``."""
        made, before, wanted = (self._features(image) for image in (result, content, style))
        ratios = [square(made[x][1] - wanted[x][1]) / square(before[x][1] - wanted[x][1]) for x in JUDGED]
        return [
            *ratios,
            square(made[CONTENT][0] - before[CONTENT][0]) / square(before[CONTENT][0]),
        ]

    def _features(self, image):
        from tfstyle import gram_matrix

        return {name: (f.numpy(), gram_matrix(f).numpy()) for name, f in self._encoder(image[None]).items()}


def square(array) -> float:
    return float(np.sum(np.square(array, dtype=np.float64)))


def plain_he() -> dict[str, np.ndarray]:
    """Return random weights of blocks 1 to 3, with the initialisation of He et al. 2015, section 2.2."""
    from tfstyle.layers import NETWORKS

    generator = np.random.default_rng(0)
    arrays = {}
    for layer in NETWORKS["vgg19"][:8]:
        kernel = generator.normal(0, np.sqrt(2 / (9 * layer.kernel_shape[2])), layer.kernel_shape)
        arrays[f"{layer.keras_name}/kernel"] = kernel.astype(np.float32)
        arrays[f"{layer.keras_name}/bias"] = np.zeros(layer.filters, np.float32)
    return arrays


if __name__ == "__main__":
    main()

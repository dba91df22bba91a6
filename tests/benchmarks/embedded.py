"""How near embedded weights come to VGG-19's style: ``python -m tests.benchmarks.embedded``.

Each pair is stylised with the embedded weights, with random ones (the package's, and plain He ones, whose
filters do not sum to zero) and with the genuine lower blocks. The genuine network then judges every
picture: ‖G - A‖² between its Gram matrices and the style's over the same of the untouched content image,
and, for the content, ‖F - P‖² over ‖P‖² at conv3_3. Goals in the median: embedded at most 0.08 at conv3_1
and 0.12 at conv3_4, and at most half of He's.
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
        "pictures", nargs="*", metavar="CONTENT STYLE",
        default=[str(DATA / "images" / f"{name}.jpg") for name in PAIRS],
    )  # fmt: skip
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--embedded", default="embedded", help="another file to try in its place")
    parser.add_argument("--only", nargs="+", default=["embedded", "random", "he", "genuine"])
    parser.add_argument("--output", type=Path, help="a folder for the pictures")
    options = parser.parse_args()
    if len(options.pictures) % 2:
        parser.error("pictures come in pairs")
    print(machine.line(), flush=True)

    genuine = str(DATA / "weights" / "vgg19_imagenet_block1-3.npz")
    judge = Judge(Encoder((*JUDGED, CONTENT), genuine))
    lower = {"style_layers": ("conv1_1", "conv2_1", "conv3_1", "conv3_4"), "content_layers": (CONTENT,)}
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
        for content, style in zip(options.pictures[::2], options.pictures[1::2], strict=True):
            pictures = [load(path).fitted(options.size).on_white() for path in (content, style)]
            for name in options.only:
                result = stylize(content, style, size=options.size, **sources[name])
                if options.output is not None:
                    options.output.mkdir(parents=True, exist_ok=True)
                    stem = f"{Path(content).stem}_{Path(style).stem}_{name}.png"
                    result.save(options.output / stem, overwrite=True)
                rows[name].append(judge(result.image, *pictures))
                print(line(Path(content).stem, Path(style).stem, name, rows[name][-1]), flush=True)
    for name, numbers in rows.items():
        print(line("median", "", name, np.median(numbers, axis=0)))


def line(content, style, name, numbers) -> str:
    return f"{content[:18]:18} {style[:24]:24} {name:10} " + "   ".join(f"{n:7.3f}" for n in numbers)


class Judge:
    """Distances under the genuine network."""

    def __init__(self, encoder) -> None:
        self._encoder = encoder

    def __call__(self, result, content, style) -> list[float]:
        """The three ratios of style and the one of content."""
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
    """He et al. 2015 as printed, blocks 1 to 3."""
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

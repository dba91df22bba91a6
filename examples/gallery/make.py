"""Make the images of the gallery again: ``python examples/gallery/make.py [NAME ...]``.

The script runs the commands of the README.md in its folder and stores each figure there as a small JPEG. A
figure takes about a minute on two cores.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
WIDTH, QUALITY = 1000, 82


def commands() -> dict[str, list[str]]:
    """Return the arguments after ``tfstyle`` for each experiment, from the commands of the gallery's page."""
    lines = re.findall(r"^tfstyle (explore .*)$", (HERE / "README.md").read_text(), re.MULTILINE)
    return {arguments[1]: arguments for arguments in map(shlex.split, lines)}


def main(names: list[str]) -> None:
    """Run the experiments with the given names, or all of them, and store their figures."""
    for name, arguments in commands().items():
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tfstyle", *arguments, "-o", f"{folder}/made"]
            subprocess.run(command, check=True, cwd=HERE.parents[1])
            figure = Image.open(f"{folder}/made/figure.png").convert("RGB")
            figure.thumbnail((WIDTH, 4 * WIDTH), Image.Resampling.LANCZOS)
            figure.save(HERE / f"{name}.jpg", quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])

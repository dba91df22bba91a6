"""Make the gallery's pictures again: ``python examples/gallery/make.py [NAME ...]``.

Runs the commands of README.md beside this script, in the checkout's root, and keeps each figure as a small
JPEG here. About a minute for each on two cores.
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
    """Experiment -> the arguments after ``tfstyle``, as the gallery's page shows them."""
    lines = re.findall(r"^tfstyle (explore .*)$", (HERE / "README.md").read_text(), re.MULTILINE)
    return {arguments[1]: arguments for arguments in map(shlex.split, lines)}


def main(names: list[str]) -> None:
    """Run each and keep its figure."""
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

"""Make the sheet of guided textures again: ``python examples/gallery/guided.py [WEIGHTS]``.

The script draws an orientation map and progression maps, runs ``tfstyle texture`` with them on
``examples/evening.jpg`` and stores the sheet as ``docs/textures.jpg``. It takes about ten minutes on two
cores.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

ROOT = Path(__file__).parents[2]
STYLE = ROOT / "examples" / "evening.jpg"
WIDTH, HEIGHT, GAP = 208, 144, 6


def grey(values: np.ndarray) -> Image.Image:
    """Return values ``[height, width]`` in 0..1 as a grey image."""
    return Image.fromarray(np.round(255 * values).astype(np.uint8))


def rings() -> Image.Image:
    """Return an orientation map of rings around the centre."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    radial = np.arctan2((HEIGHT - 1) / 2 - y, x - (WIDTH - 1) / 2)
    return grey((radial / np.pi + 0.5) % 1)


def ranks(style: Image.Image) -> Image.Image:
    """Return a progression map of an image: the rank of the brightness around each pixel."""
    blurred = np.asarray(style.convert("L").filter(ImageFilter.GaussianBlur(style.width / 25)))
    order = blurred.ravel().argsort(kind="stable").argsort()
    return grey((order / order.max()).reshape(blurred.shape))


def make(folder: Path, name: str, *options: str) -> Image.Image:
    """Run ``tfstyle texture`` and return the last image that it makes."""
    size = ["--size", str(HEIGHT), "--width", str(WIDTH), "--height", str(HEIGHT)]
    command = [sys.executable, "-m", "tfstyle", "texture", str(STYLE), *size, "-o", str(folder / name)]
    subprocess.run([*command, "--loss", "correspondence", *options], check=True, cwd=ROOT)
    return Image.open(sorted((folder / name).glob("[0-9][0-9]_*.png"))[-1]).convert("RGB")


def main(weights: str = "auto") -> None:
    """Make the textures and their sheet."""
    style = Image.open(STYLE).convert("RGB")
    maps = {"orientation": rings(), "progression": grey(np.tile(np.linspace(0, 1, WIDTH), (HEIGHT, 1)))}
    common = ["--weights", weights, "--iterations", "120"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maps["style"] = ranks(style)
        for key, image in maps.items():
            image.save(folder / f"{key}.png")
        plain = make(folder, "plain", *common)
        turned = make(folder, "turned", *common, "--orientation", str(folder / "orientation.png"))
        options = ["--progression", str(folder / "progression.png")]
        options += ["--style-progression", str(folder / "style.png")]
        guided = make(folder, "guided", *common, *options)
        tiled = make(folder, "tiled", *common, "--seamless").crop((0, 0, 2 * WIDTH, HEIGHT))
    style.thumbnail((HEIGHT, HEIGHT), Image.Resampling.LANCZOS)
    rows = [[style, plain, maps["orientation"], turned], [maps["progression"], guided, tiled]]
    sheet = Image.new("RGB", (4 * WIDTH + 3 * GAP, 2 * HEIGHT + GAP), "white")
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            place = (column * (WIDTH + GAP), row * (HEIGHT + GAP))
            sheet.paste(image.convert("RGB"), place)
    sheet.save(ROOT / "docs" / "textures.jpg", quality=88, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

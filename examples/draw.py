"""Draw the content image and the style image of the examples: ``python examples/draw.py [FOLDER]``.

The content image shows a village by a lake. The style image shows an evening sky in curved brush strokes.
This script draws both from a seed and needs no other image. Both are in the public domain.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT, FINER = 640, 480, 2  # drawn at twice the size and reduced, for smooth edges


def village(seed: int = 4) -> Image.Image:
    """Draw the content image: sky, hills, houses with windows, and their reflection in the water."""
    generator = np.random.default_rng(seed)
    width, height = WIDTH * FINER, HEIGHT * FINER
    shore = int(height * 0.68)
    y = np.linspace(0, 1, shore)[:, None, None]
    sky = (1 - y) * np.array([96, 148, 206]) + y * np.array([244, 222, 190])
    top = Image.fromarray(np.broadcast_to(sky, (shore, width, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(top)
    for _ in range(26):  # clouds: rows of soft discs
        x, cloud_y, size = (
            generator.uniform(0, width),
            generator.uniform(0.05, 0.35) * height,
            generator.uniform(20, 60),
        )
        for k in range(6):
            r = size * generator.uniform(0.4, 1)
            at = x + k * size * 0.9, cloud_y + generator.uniform(-0.2, 0.2) * size
            draw.ellipse([at[0] - r, at[1] - r * 0.45, at[0] + r, at[1] + r * 0.45], fill=(252, 248, 240))
    top = top.filter(ImageFilter.GaussianBlur(7 * FINER))
    draw = ImageDraw.Draw(top)
    for depth, colour in enumerate([(122, 140, 168), (96, 122, 118), (74, 104, 70)]):
        phases = generator.uniform(0, 6, 3)
        line = [
            (x, shore * (0.52 + 0.13 * depth) - 40 * FINER * sum(
                math.sin(x / width * f + p) / f for f, p in zip((3.0, 7.0, 17.0), phases, strict=True)))
            for x in range(0, width + 1, 4)
        ]  # fmt: skip
        draw.polygon([(0, shore), *line, (width, shore)], fill=colour)
    x = 30 * FINER
    while x < width - 60 * FINER:
        x += _house(draw, generator, x, shore) + int(generator.uniform(-4, 26)) * FINER
    _church(draw, int(width * 0.43), shore)
    for _ in range(26):
        _tree(draw, generator, generator.uniform(0, width), shore)

    whole = Image.new("RGB", (width, height))
    whole.paste(top, (0, 0))
    mirrored = np.asarray(top.transpose(Image.Transpose.FLIP_TOP_BOTTOM))[: height - shore].astype(float)
    rows = np.arange(height - shore)
    shift = (4 * FINER * np.sin(rows / (2.2 * FINER)) * (0.3 + rows / len(rows))).astype(int)
    rippled = np.stack([np.roll(row, s, axis=0) for row, s in zip(mirrored, shift, strict=True)])
    water = 0.72 * rippled + 0.28 * np.array([40, 84, 110])
    whole.paste(Image.fromarray(water.clip(0, 255).astype(np.uint8)), (0, shore))
    return whole.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _house(draw: ImageDraw.ImageDraw, generator: np.random.Generator, x: int, shore: int) -> int:
    """Draw a house with a gable on the shore and return its width in pixels."""
    walls = [
        (236, 214, 170),
        (222, 160, 110),
        (240, 236, 224),
        (198, 110, 84),
        (170, 190, 196),
        (232, 190, 90),
    ]
    roofs = [(140, 60, 44), (104, 52, 48), (84, 72, 76)]
    wide, tall = (int(generator.uniform(*span)) * FINER for span in ((40, 66), (52, 96)))
    wall = walls[generator.integers(len(walls))]
    draw.rectangle([x, shore - tall, x + wide, shore], fill=wall)
    shade = tuple(int(c * 0.8) for c in wall)
    draw.rectangle([x + wide * 0.82, shore - tall, x + wide, shore], fill=shade)
    peak = (x + wide / 2, shore - tall - wide * generator.uniform(0.5, 0.8))
    eaves = 5 * FINER
    draw.polygon(
        [(x - eaves, shore - tall), peak, (x + wide + eaves, shore - tall)], fill=roofs[generator.integers(3)]
    )
    columns, rows = max(2, wide // (17 * FINER)), max(2, tall // (24 * FINER))
    for i in range(columns):
        for j in range(rows):
            left, top = x + wide * (i + 0.28) / columns, shore - tall + tall * (j + 0.25) / rows
            pane = (250, 214, 110) if generator.random() < 0.25 else (58, 66, 84)
            draw.rectangle(
                [left, top, left + wide * 0.44 / columns, top + tall * 0.45 / rows],
                fill=pane,
                outline=(248, 244, 236),
                width=FINER,
            )
    return wide


def _church(draw: ImageDraw.ImageDraw, x: int, shore: int) -> None:
    wide, tall = 34 * FINER, 150 * FINER
    draw.rectangle([x, shore - tall, x + wide, shore], fill=(206, 196, 176))
    draw.rectangle([x + wide * 0.7, shore - tall, x + wide, shore], fill=(170, 160, 142))
    draw.polygon(
        [(x - 4, shore - tall), (x + wide / 2, shore - tall - 92 * FINER), (x + wide + 4, shore - tall)],
        fill=(70, 84, 92),
    )
    draw.ellipse(
        [x + wide * 0.25, shore - tall * 0.9, x + wide * 0.75, shore - tall * 0.9 + wide * 0.5],
        fill=(246, 240, 214),
        outline=(60, 60, 60),
        width=FINER,
    )
    for j in range(3):
        top = shore - tall * (0.66 - 0.2 * j)
        draw.rectangle([x + wide * 0.36, top, x + wide * 0.6, top + 16 * FINER], fill=(60, 62, 74))


def _tree(draw: ImageDraw.ImageDraw, generator: np.random.Generator, x: float, shore: int) -> None:
    tall = generator.uniform(14, 44) * FINER
    draw.line([(x, shore), (x, shore - tall)], fill=(70, 50, 38), width=3 * FINER)
    for _ in range(16):
        r = tall * generator.uniform(0.12, 0.28)
        at = x + generator.normal(0, tall * 0.22), shore - tall + generator.normal(0, tall * 0.24)
        green = generator.integers(50, 110)
        draw.ellipse([at[0] - r, at[1] - r, at[0] + r, at[1] + r], fill=(int(green * 0.6), int(green), 44))


def evening(seed: int = 9) -> Image.Image:
    """Draw the style image: 14500 curved strokes of thick paint around bright centres."""
    generator = np.random.default_rng(seed)
    width, height = WIDTH * FINER, HEIGHT * FINER
    centres = generator.uniform([0.05, 0.05], [0.95, 0.7], (9, 2)) * [width, height]
    spins = generator.choice([-1, 1], 9)
    reach = generator.uniform(50, 120, 9) * FINER
    image = Image.new("RGB", (width, height), (24, 36, 84))
    draw = ImageDraw.Draw(image)
    palette = np.array(
        [
            (18, 28, 78),
            (30, 62, 130),
            (58, 110, 176),
            (118, 164, 196),
            (214, 204, 140),
            (246, 202, 62),
            (226, 138, 40),
        ]
    )

    def flow(x: float, y: float) -> float:
        """Return the direction of the strokes in radians: a slow wave that turns around the centres."""
        vx, vy = 1.0, 0.35 * math.sin(x / width * 7) + 0.2
        for (cx, cy), spin, r in zip(centres, spins, reach, strict=True):
            dx, dy = x - cx, y - cy
            pull = 3.2 * math.exp(-(dx * dx + dy * dy) / (1.6 * r) ** 2)
            distance = math.hypot(dx, dy) + 1
            vx, vy = vx - spin * pull * dy / distance, vy + spin * pull * dx / distance
        return math.atan2(vy, vx)

    for layer, count in enumerate((2500, 5000, 7000)):
        long, thick = ((70, 11), (46, 7), (28, 4))[layer]
        for x, y in generator.uniform(0, [width, height], (count, 2)):
            near = max(
                math.exp(-(((x - cx) ** 2 + (y - cy) ** 2) / r**2))
                for (cx, cy), r in zip(centres, reach, strict=True)
            )
            below = max(0.0, y / height - 0.72) * 2.2
            tone = np.clip(
                1.2 + 4.6 * near - 1.4 * below + generator.normal(0, 0.55), 0, len(palette) - 1.001
            )
            low = palette[int(tone)] + (tone % 1) * (palette[int(tone) + 1] - palette[int(tone)])
            colour = np.clip(low * generator.normal(1, 0.10) + generator.normal(0, 7, 3), 0, 255).astype(int)
            points, px, py = [(x, y)], x, y
            for _ in range(5):
                angle = flow(px, py)
                px, py = px + math.cos(angle) * long * FINER / 10, py + math.sin(angle) * long * FINER / 10
                points.append((px, py))
            broad = max(2, int(thick * FINER / 2 * generator.uniform(0.6, 1.2)))
            dark, light = (tuple((colour * f).clip(0, 255).astype(int)) for f in (0.62, 1.18))
            draw.line(
                [(a + broad / 3, b + broad / 3) for a, b in points], fill=dark, width=broad, joint="curve"
            )
            draw.line(points, fill=tuple(colour), width=broad, joint="curve")
            draw.line(
                [(a - broad / 4, b - broad / 4) for a, b in points[:4]],
                fill=light,
                width=max(1, broad // 4),
                joint="curve",
            )
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def main(folder: str = str(Path(__file__).parent)) -> None:
    """Save village.jpg and evening.jpg in a folder, by default the folder of this script."""
    for name, image in (("village", village()), ("evening", evening())):
        image.save(Path(folder) / f"{name}.jpg", quality=92)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Synthetic clips with known optical flow: a pan, a zoom, a moving object, a noisy pan, and a still clip."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates


class Clip(NamedTuple):
    """A clip with known motion.

    ``frames`` has shape ``[count, height, width, 3]`` with values in 0..1. ``flows[t]`` is the true flow
    from frame t to frame t - 1, ``[height, width, 2]`` in pixels, and ``visible[t]`` the pixels of frame t
    that frame t - 1 shows, bool ``[height, width]``. Both are None for t = 0.
    """

    frames: np.ndarray
    flows: list
    visible: list


def scene(height, width, seed=0):
    """Return an image with structure at all scales, float32 ``[height, width, 3]`` in 0..1."""
    generator = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for deviation, strength in ((1.5, 0.25), (4.0, 0.5), (12.0, 1.0), (30.0, 1.0)):
        noise = gaussian_filter(generator.normal(size=(height, width, 3)), (deviation, deviation, 0))
        image += strength * noise / noise.std()
    image = 0.5 + 0.22 * image
    for _ in range(12):  # shapes with sharp outlines
        y, x, radius = generator.uniform((0, 0, 0.04 * height), (height, width, 0.14 * height))
        rows, columns = np.ogrid[:height, :width]
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        image[inside] = 0.6 * generator.uniform(size=3) + 0.4 * image[inside]
    return np.clip(image, 0, 1).astype(np.float32)


def sample(image, x, y):
    """Return the values of an image at the points (x, y), by cubic interpolation."""
    channels = [map_coordinates(image[..., i], [y, x], order=3, mode="nearest") for i in range(3)]
    return np.clip(np.stack(channels, -1), 0, 1).astype(np.float32)


def _camera(image, count, shape, points, inverse):
    """Return the clip of a camera that shows the scene at ``points(t, x, y)`` in frame t.

    ``inverse(t, u, v)`` gives the pixel of frame t that shows the point (u, v) of the scene.
    """
    height, width = shape
    x, y = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    frames, flows, visible = [], [None], [None]
    for t in range(count):
        u, v = points(t, x, y)
        frames.append(sample(image, u, v))
        if t:
            before_x, before_y = inverse(t - 1, u, v)
            flows.append(np.stack([before_x - x, before_y - y], -1).astype(np.float32))
            visible.append(
                (before_x >= 0) & (before_x <= width - 1) & (before_y >= 0) & (before_y <= height - 1)
            )
    return Clip(np.array(frames), flows, visible)


def pan(count, shape=(72, 96), step=(2.3, 0.7), image=None):
    """Return a clip of a camera that moves by ``step`` pixels (right, down) per frame."""
    height, width = shape
    room = [int(abs(s) * count) + 8 for s in step]
    image = scene(height + room[1], width + room[0]) if image is None else image
    return _camera(
        image, count, shape,
        lambda t, x, y: (x + 4 + step[0] * t, y + 4 + step[1] * t),
        lambda t, u, v: (u - 4 - step[0] * t, v - 4 - step[1] * t),
    )  # fmt: skip


def zoom(count, shape=(72, 96), rate=1.02, image=None):
    """Return a clip of a camera that zooms in by a factor of ``rate`` per frame."""
    height, width = shape
    image = scene(height, width, 1) if image is None else image
    middle = (width - 1) / 2, (height - 1) / 2

    def points(t, x, y):
        return middle[0] + (x - middle[0]) / rate**t, middle[1] + (y - middle[1]) / rate**t

    def inverse(t, u, v):
        return middle[0] + (u - middle[0]) * rate**t, middle[1] + (v - middle[1]) * rate**t

    return _camera(image, count, shape, points, inverse)


def moving_object(count, shape=(72, 96), step=(2.0, 0.5), image=None):
    """Return a clip of a textured disc that moves by ``step`` pixels per frame before a still ground."""
    height, width = shape
    ground = scene(height, width, 2) if image is None else image
    texture = scene(height, width, 3)[..., ::-1]
    radius = 0.22 * height
    x, y = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    first = 0.3 * width, 0.4 * height

    def disc(t):
        return (x - first[0] - step[0] * t) ** 2 + (y - first[1] - step[1] * t) ** 2 < radius**2

    frames, flows, visible = [], [None], [None]
    for t in range(count):
        inside = disc(t)
        moved = sample(texture, x - step[0] * t, y - step[1] * t)
        frames.append(np.where(inside[..., None], moved, ground))
        if t:
            flows.append(np.where(inside[..., None], np.float32([-step[0], -step[1]]), np.float32([0, 0])))
            visible.append(inside | ~disc(t - 1))
    return Clip(np.array(frames, np.float32), flows, visible)


def noisy(clip, deviation=4 / 255, seed=0):
    """Return a clip with Gaussian noise, independent in each frame."""
    noise = np.random.default_rng(seed).normal(size=clip.frames.shape) * deviation
    return clip._replace(frames=np.clip(clip.frames + noise, 0, 1).astype(np.float32))


def still(count, shape=(72, 96), image=None):
    """Return a clip whose frames are equal."""
    image = scene(*shape, 4) if image is None else image
    flow = np.zeros((*image.shape[:2], 2), np.float32)
    seen = np.ones(image.shape[:2], bool)
    return Clip(np.array([image] * count), [None] + [flow] * (count - 1), [None] + [seen] * (count - 1))

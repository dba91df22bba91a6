"""Conversion from embedded ICC colour profiles to sRGB, by littleCMS through Pillow."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

log = logging.getLogger(__name__)

#: Colour space of a profile -> mode of the images that it converts.
PROFILE_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
MODES = tuple(PROFILE_MODES.values())
GREY_MODES = ("1", "L", "LA", "La")


def to_srgb(image: Image.Image, profile: bytes | None, *, name: str) -> Image.Image:
    """Return an image in mode RGB, converted to sRGB if it has a valid ICC profile for its mode.

    Args:
        image: the image, with 8 bits per channel. Its alpha channel is ignored.
        profile: the embedded profile, or None if the image has none and its colours are sRGB.
        name: name of the image for the warning about an invalid profile.
    """
    base = image if image.mode in ("L", "CMYK") else image.convert("L" if image.mode in GREY_MODES else "RGB")
    convert = _conversion(base.mode, profile, name) if profile else None
    return base.convert("RGB") if convert is None else convert(base)


def _conversion(mode: str, profile: bytes, name: str) -> Callable[[Image.Image], Image.Image] | None:
    """Return a function that converts images of a mode to sRGB, or None if the profile is invalid."""
    try:
        embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = embedded.profile.xcolor_space.strip()
        profile_mode = PROFILE_MODES.get(space)
        if profile_mode is None or (mode, profile_mode) not in (*zip(MODES, MODES), ("L", "RGB")):
            raise ValueError(f"it is for {space} colours, and the image has mode {mode}")
        transform = ImageCms.buildTransform(embedded, ImageCms.createProfile("sRGB"), profile_mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        problem = str(error).split("\n")[0]
        log.warning("%s: the colour profile is invalid and ignored (%s)", name, problem)
        return None

    def convert(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image.convert(profile_mode), transform)
        assert converted is not None  # it is None only for a conversion in place
        return converted

    return convert


def values_to_srgb(values: np.ndarray, profile: bytes | None, *, name: str) -> np.ndarray:
    """Return floating-point colours converted from an ICC profile to sRGB.

    Pillow converts 8-bit colours only. Its conversion f is therefore interpolated linearly between
    neighbouring 8-bit colours: f(b) + Σ_c t_c (f(b + e_c) - f(b)), where b is the colour rounded down to 8
    bits, t_c in 0..1 is the remainder of channel c, and e_c is one 8-bit step of this channel.

    Args:
        values: float32 ``[height, width, channels]`` in 0..1 with 1 (grey) or 3 (RGB) channels.
        profile: the embedded profile, or None.
        name: name of the image for the warning about an invalid profile.

    Returns:
        float32 ``[height, width, 3]`` in 0..1.
    """
    grey = values.shape[-1] == 1
    convert = (
        _conversion("L" if grey else "RGB", profile, name) if profile and not _is_srgb(profile) else None
    )
    if convert is None:
        return np.repeat(values, 3, -1) if grey else values
    scaled = values * 255
    base = np.minimum(np.floor(scaled), 254).astype(np.uint8)

    def converted(colours: np.ndarray) -> np.ndarray:
        image = Image.fromarray(colours[..., 0] if grey else colours)
        return np.asarray(convert(image), np.float32) / 255

    at_base = converted(base)
    result = at_base.copy()
    for channel in range(values.shape[-1]):
        step = np.zeros(values.shape[-1], np.uint8)
        step[channel] = 1
        rest = (scaled - base)[..., channel, None]
        result += rest * (converted(base + step) - at_base)
    return np.clip(result, 0, 1)


def _is_srgb(profile: bytes) -> bool:
    try:
        description = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        return description.startswith("sRGB")
    except (ImageCms.PyCMSError, OSError):
        return False

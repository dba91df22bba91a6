"""Measures of artefacts that are computed from the pixels of an image: ripple and frame."""

from __future__ import annotations

import numpy as np

from tfstyle.images import luminance

#: Side in pixels of the windows of `ripple`, and therefore the smallest side of an image that it accepts.
WINDOW = 32
#: Radii of the frequencies in cycles per window; the slice of them that is fitted, and the slice in which
#: ripple is measured.
RADII, FITTED, RIPPLES = np.arange(1, 16), slice(2, 15), slice(5, 14)


def ripple(image: np.ndarray) -> float:
    """Return the narrow excess of the logarithm of an image's power at periods of 2.3 to 5.3 pixels.

    The luminance is cut into windows of 32 x 32 pixels that overlap by half. The mean of each window is
    subtracted, and the window is multiplied by a Hann window. The logarithm of its power is averaged over all
    windows, and over the frequencies whose distance from zero rounds to the same k = 1 .. 15 cycles per
    window. A quadratic polynomial in log k is fitted over k = 3 .. 15. The result is the largest residual at
    k = 6 .. 14.

    Photographs and scanned paintings have 0.05 to 0.16. The value is increased by a grid, by a checkerboard
    pattern, and by the ripple that remains in images with a low style loss. White noise does not increase it,
    and a blur increases it little: a blur of one pixel gives 0.20.

    Args:
        image: ``[height, width, 3]`` in 0..1, at least 32 pixels a side.

    Example:
        >>> import numpy as np
        >>> from tfstyle.scoring import ripple
        >>> noise = np.random.default_rng(0).random((96, 96, 3))
        >>> stripes = 0.2 * np.sin(2 * np.pi / 3 * np.arange(96))[:, None]
        >>> ripple(noise) < 0.2 < ripple(0.8 * noise + 0.1 + stripes[..., None])
        True
    """
    hann = np.hanning(WINDOW + 1)[:-1]
    pixels = luminance(image).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (WINDOW, WINDOW))
    windows = windows[:: WINDOW // 2, :: WINDOW // 2]
    windows = (windows - windows.mean((2, 3), keepdims=True)) * hann[:, None] * hann
    power = np.abs(np.fft.fft2(windows)) ** 2
    log_power = np.log(power + 1e-12).mean((0, 1))  # 8-bit rounding alone has a power above 1e-4
    cycles = np.fft.fftfreq(WINDOW, 1 / WINDOW)
    radius = np.rint(np.hypot(cycles[:, None], cycles))
    spectrum = np.array([log_power[radius == k].mean() for k in RADII])
    fit = np.polyfit(np.log(RADII[FITTED]), spectrum[FITTED], 2)
    return float((spectrum - np.polyval(fit, np.log(RADII)))[RIPPLES].max())


def frame(image: np.ndarray, *, depth: int = 6) -> float:
    """Return how much an image changes towards its borders, relative to its interior.

    It is the RMS difference between the two outermost rows or columns at each border and those ``depth``
    pixels further in, divided by the RMS of the same difference in the interior. The value is about 1 if no
    frame is visible. A value far above 1 means that a border differs from the rest of the image, for example
    because it is darker or duller.

    Args:
        image: ``[height, width, 3]`` in 0..1, at least 32 pixels a side.
        depth: distance in pixels between the rows or columns that are compared.

    Example:
        >>> import numpy as np
        >>> from tfstyle.scoring import frame
        >>> image = np.random.default_rng(0).random((64, 64, 3))
        >>> framed = np.pad(image[2:-2, 2:-2], [(2, 2), (2, 2), (0, 0)], constant_values=3.0)
        >>> frame(image) < 1.1 < 2 < frame(framed)
        True
    """

    def step(lines: np.ndarray, at: int) -> float:
        return float(np.mean((lines[at : at + 2] - lines[at + depth : at + depth + 2]) ** 2))

    outer, inner = [], []
    for lines in (image, image[::-1], image.swapaxes(0, 1), image.swapaxes(0, 1)[::-1]):
        outer.append(step(lines, 0))
        inner += [step(lines, at) for at in range(12, len(lines) // 2, 7)]
    if not np.any(inner):  # the interior has one colour
        return float("inf") if np.any(outer) else 1.0
    return float(np.sqrt(np.mean(outer) / np.mean(inner)))

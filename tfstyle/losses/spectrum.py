"""The local power spectrum of an image, by wavelength, and its distance from that of a style image.

Images with a low style loss have a ripple with a period of about three pixels, to which 3 x 3 filters respond
most. The ripple is weak and present in every part of the image, while the fine detail of paintings and
photographs is strong in some parts and absent in others. The mean power of both can be the same, so that
neither Gram matrices nor a spectrum of the whole image distinguish them. The mean *logarithm* of the power of
small windows does, because windows with little detail count as much as others.
"""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

#: Side in pixels of the windows.
WINDOW = 32
#: Distance in pixels between neighbouring windows. At a distance of half a window, a ripple would remain
#: where the Hann windows are small.
STRIDE = 8
#: Wave numbers of a spectrum, in cycles per window. They correspond to wavelengths from 10.7 to 2.1 pixels.
WAVE_NUMBERS = range(3, WINDOW // 2)
# This is added to the power of a window, because the power of a window of a uniform colour is 0, which has no
# logarithm. It is the power of white noise with a standard deviation of 0.2 grey levels.
FLOOR = 1e-4
LUMA = (0.299, 0.587, 0.114)


def may_have_spectrum(image: tf.Tensor | np.ndarray) -> bool:
    """Return whether each side of an image has at least 32 pixels or is of unknown length.

    The image is ``[batch, height, width, 3]``.
    """
    return all(length is None or length >= WINDOW for length in image.shape[1:3])


def is_large_enough(image: tf.Tensor | np.ndarray) -> bool | tf.Tensor:
    """Return whether both sides of an image ``[batch, height, width, 3]`` have at least 32 pixels."""
    if None in tuple(image.shape[1:3]):
        return tf.reduce_min(tf.shape(image)[1:3]) >= WINDOW
    return may_have_spectrum(image)


def local_spectrum(image: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """Return the mean logarithm of the power of small windows, for each wave number.

    ``L_k = mean_w mean_{|f| = k} log(|DFT(h (y_w - mean y_w))(f)|² + ε)``, where y_w is the luminance of the
    32 x 32 pixels of window w, h is the two-dimensional Hann window, |f| is rounded to whole cycles per
    window, and ε is `FLOOR`. A window begins at every eighth row and column, as long as it lies inside the
    image. (With windows that extend into a reflection of the image, the border became visible as a frame.)

    Args:
        image: float32 ``[1, height, width, 3]`` in 0..1. If a side has less than 32 pixels, the result is 0.
        mask: float32 ``[1, height, width, 1]`` in 0..1, or None. The mean over windows is weighted by the
            mean of the mask in each window.

    Returns:
        float32 ``[13]``, for the wave numbers 3 to 15.

    Reference: our own, after the spectrum constraint of Liu, Gousseau, Xia 2016, "Texture synthesis through
    convolutional neural networks and spectrum constraints", who match the power spectrum of the whole image.

    Example:
        >>> import numpy as np
        >>> import tensorflow as tf
        >>> from tfstyle.losses import local_spectrum
        >>> wave = 0.5 + 0.1 * np.sin(2 * np.pi * np.arange(64) / 4)  # 8 cycles per window
        >>> image = np.broadcast_to(wave[None, :, None, None], (1, 64, 64, 3)).astype(np.float32)
        >>> local_spectrum(tf.constant(image)).shape
        TensorShape([13])
    """

    def spectrum() -> tf.Tensor:
        total, weight = window_sums(image, mask)
        return tf.math.divide_no_nan(total, weight)

    if not may_have_spectrum(image):
        return tf.zeros([len(WAVE_NUMBERS)])
    if image.shape[1:3].is_fully_defined():
        return spectrum()
    return tf.cond(is_large_enough(image), spectrum, lambda: tf.zeros([len(WAVE_NUMBERS)]))


def window_sums(rows: tf.Tensor, mask: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the weighted sum over windows of the terms of `local_spectrum`, and the sum of the weights.

    Both are sums over windows, so the sums of bands of rows can be added up.

    Args:
        rows: rows of an image, float32 ``[1, rows, width, 3]``, at least 32 rows. The first row is the
            first row of a window.
        mask: the same rows of the mask, float32 ``[1, rows, width, 1]``, or None for weights of 1.

    Returns:
        float32 ``[13]``, and a float32 scalar.
    """
    windows = _windows(tf.tensordot(rows[0], tf.constant(LUMA), 1))
    windows -= tf.reduce_mean(windows, [2, 3], keepdims=True)
    transform = tf.signal.rfft2d(windows * _hann())
    power = tf.square(tf.math.real(transform)) + tf.square(tf.math.imag(transform))
    logarithm = tf.math.log(power + FLOOR)
    weights = tf.ones(tf.shape(windows)[:2])
    if mask is not None:
        weights = tf.reduce_mean(_windows(mask[0, :, :, 0]), [2, 3])
    total, weight = tf.tensordot(weights, logarithm, 2), tf.reduce_sum(weights)
    return tf.linalg.matvec(_radial_means(), tf.reshape(total, [-1])), weight


def _windows(plane: tf.Tensor) -> tf.Tensor:
    """Return the windows ``[rows of windows, columns of windows, 32, 32]`` of a plane ``[rows, width]``."""
    rows, columns = tf.unstack(tf.shape(plane) // STRIDE)
    blocks = tf.reshape(plane[: rows * STRIDE, : columns * STRIDE], [rows, STRIDE, columns, STRIDE])
    count = WINDOW // STRIDE  # blocks along a side of a window
    tall = tf.concat([blocks[k : rows - count + 1 + k] for k in range(count)], 1)
    windows = tf.concat([tall[:, :, k : columns - count + 1 + k] for k in range(count)], 3)
    return tf.transpose(windows, [0, 2, 1, 3])


def spectrum_distance(spectrum: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Return the mean squared difference of two local spectra, a float32 scalar."""
    return tf.reduce_mean(tf.square(spectrum - target))


@functools.cache
def _hann() -> np.ndarray:
    window = np.hanning(WINDOW + 1)[:-1]  # the periodic form
    return np.outer(window, window).astype(np.float32)


@functools.cache
def _radial_means() -> np.ndarray:
    """Return the matrix that averages over the frequencies of each wave number in the output of `rfft2d`.

    Returns:
        float32 ``[13, 32 * 17]``.
    """
    rows, columns = np.fft.fftfreq(WINDOW, 1 / WINDOW), np.arange(WINDOW // 2 + 1)
    radius = np.rint(np.hypot(rows[:, None], columns))
    # A real transform leaves out the frequencies that are conjugates of others.
    multiplicity = np.where((columns == 0) | (columns == WINDOW // 2), 1.0, 2.0)
    means = [(radius == k) * multiplicity for k in WAVE_NUMBERS]
    return np.stack([mean.ravel() / mean.sum() for mean in means]).astype(np.float32)

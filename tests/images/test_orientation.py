"""Tests of the orientation estimated from the structure tensor."""

import math

import numpy as np
import pytest

from tfstyle.images import estimate_orientation, orientation_vectors


def grating(degrees, shape=(40, 56), period=7.0):
    """Return lines at an angle counter-clockwise from the horizontal, as seen with y upwards."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    angle = math.radians(degrees)
    across = -x * math.sin(angle) + (-y) * math.cos(angle)
    values = 0.5 + 0.4 * np.sin(2 * np.pi * across / period)
    return np.repeat(values[..., None], 3, -1).astype(np.float32)


def difference(first, second):
    """Return the angle between two orientations in degrees."""
    apart = abs(first - second) % 180
    return np.minimum(apart, 180 - apart)


@pytest.mark.parametrize("degrees", [0, 20, 45, 77, 90, 120, 135, 170])
def test_the_orientation_of_gratings(degrees):
    estimate = 180 * estimate_orientation(grating(degrees))
    assert estimate.shape == (40, 56)
    inner = estimate[8:-8, 8:-8]
    assert difference(inner, degrees).max() < 3


def test_two_halves_have_their_own_orientations():
    image = np.concatenate([grating(30), grating(120)], 1)
    estimate = 180 * estimate_orientation(image)
    assert difference(estimate[8:-8, 8:44], 30).max() < 3
    assert difference(estimate[8:-8, 68:-8], 120).max() < 3


def test_black_and_white_are_the_same_orientation():
    vectors = orientation_vectors(np.array([[0.0, 1.0, 0.5]]))
    np.testing.assert_allclose(vectors[0, 0], vectors[0, 1], atol=1e-6)
    np.testing.assert_allclose(vectors[0, 0], -vectors[0, 2], atol=1e-6)

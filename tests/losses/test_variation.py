"""Each form of total variation against loops over pixels, and their laws."""

import numpy as np
import pytest
import tensorflow as tf

from tests import peers
from tfstyle.losses import nine_point_variation, summed_differences, summed_squares, total_variation

FORMS = {
    "mean_squared": total_variation,
    "sum_squared": summed_squares,
    "sum_absolute": summed_differences,
    "nine_point": nine_point_variation,
}


def slow_variation(form, image):
    height, width, _ = image.shape
    down = [[image[y + 1, x] - image[y, x] for x in range(width)] for y in range(height - 1)]
    right = [[image[y, x + 1] - image[y, x] for x in range(width - 1)] for y in range(height)]
    if form == "sum_absolute":
        return sum(np.abs(row).sum() for row in (*down, *right))
    if form == "mean_squared":
        return np.mean(np.square(down)) + np.mean(np.square(right))
    if form == "nine_point":
        return peers.nine_point_variation(image)
    pixels = [(y, x) for y in range(height - 1) for x in range(width - 1)]
    return 0.5 * sum((down[y][x] ** 2 + right[y][x] ** 2).sum() for y, x in pixels)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(5, 7), (8, 3)])
def test_matches_loops(form, shape):
    image = np.random.default_rng(1).random((*shape, 3))
    value = FORMS[form](tf.constant(image[None], tf.float32))
    assert float(value) == pytest.approx(slow_variation(form, image), rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_constant_image_has_no_variation_and_no_gradient(form):
    image = tf.fill([1, 6, 5, 3], 0.3)
    with tf.GradientTape() as tape:
        tape.watch(image)
        value = FORMS[form](image)
    assert float(value) == 0
    assert not tape.gradient(value, image).numpy().any()


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_slopes(form):
    generator = np.random.default_rng(2)
    image, direction = generator.random((2, 1, 6, 7, 3))
    ahead, behind = (slow_variation(form, (image + t * direction)[0]) for t in (1e-6, -1e-6))
    x = tf.constant(image, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = FORMS[form](x)
    slope = float(tf.reduce_sum(tape.gradient(value, x) * direction.astype(np.float32)))
    assert slope == pytest.approx((ahead - behind) / 2e-6, rel=1e-3)


def test_only_the_nine_point_form_is_nearly_isotropic():
    """Stripes turned by 45 degrees have the same nine-point variation, but more absolute differences."""
    y, x = np.mgrid[:32, :32]
    straight = np.repeat(np.sin(0.6 * x)[..., None], 3, -1)
    slanted = np.repeat(np.sin(0.6 * (x + y) / np.sqrt(2))[..., None], 3, -1)
    for form, tolerance in (("nine_point", 0.04), ("sum_absolute", None)):
        values = [
            float(FORMS[form](tf.constant(stripes[None], tf.float32))) for stripes in (straight, slanted)
        ]
        if tolerance is None:
            assert values[1] > 1.2 * values[0]
        else:
            assert values[1] == pytest.approx(values[0], rel=tolerance)

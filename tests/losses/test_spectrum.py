"""The local spectrum against a slow definition, and its laws."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tfstyle.losses import NORMALIZED_GRAM, SPECTRUM, Objective, Region, local_spectrum


def noise(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)


def spectrum(image, mask=None):
    weights = None if mask is None else tf.constant(mask[None, :, :, None], tf.float32)
    return local_spectrum(tf.constant(image[None], tf.float32), weights).numpy()


def ripple(size, cycles, amplitude):
    """Return a grey image with waves in all directions, all of so many cycles in 32 pixels."""
    k = np.fft.fftfreq(size, 1 / 32)
    ring = np.abs(np.hypot(k[:, None], k) - cycles) < 0.25
    waves = np.fft.ifft2(np.fft.fft2(np.random.default_rng(cycles).normal(size=(size, size))) * ring).real
    return np.repeat(0.5 + amplitude * (waves / waves.std())[..., None], 3, -1)


@pytest.mark.parametrize("cycles", [4, 8, 13])
def test_a_ripple_is_seen_at_its_wave_number(cycles):
    assert 3 + np.argmax(spectrum(ripple(64, cycles, 0.05))) == cycles


def test_contrast_adds_twice_its_logarithm():
    image = noise(64, 48)
    low = 0.5 + 0.25 * (image - 0.5)
    np.testing.assert_allclose(spectrum(image) - spectrum(low), 2 * np.log(4), rtol=1e-2)


def test_a_weak_ripple_everywhere_counts_more_than_strong_detail_in_one_place():
    """Both images have the same mean power, so that the mean power cannot tell them apart."""
    everywhere = ripple(128, 10, 0.02)
    detail = np.full_like(everywhere, 0.5)
    detail[:, :32] = 0.5 + 2 * (everywhere[:, :32] - 0.5)  # 1/4 of the image with 4 times the power
    k = 10 - 3  # the wave number 10
    assert spectrum(everywhere)[k] > spectrum(detail)[k] + 2


def test_a_mask_of_ones_changes_nothing_and_a_mask_selects_its_windows():
    left, right = noise(96, 96), ripple(96, 6, 0.1)
    image = np.concatenate([left, right], 1)
    np.testing.assert_allclose(spectrum(image, np.ones((96, 192))), spectrum(image), rtol=1e-5)
    mask = np.zeros((96, 192), np.float32)
    mask[:, 144:] = 1  # far from the noise
    assert 3 + np.argmax(spectrum(image, mask)) == 6
    np.testing.assert_allclose(
        spectrum(image, 1 - mask) * 0.75 + spectrum(image, mask) * 0.25, spectrum(image), atol=0.3
    )


@pytest.mark.parametrize("shape", [(31, 64), (64, 20)])
def test_small_images_have_none(shape):
    assert not spectrum(noise(*shape)).any()


def test_a_graph_of_any_size_gives_the_same_and_0_for_small_images():
    graph = tf.function(local_spectrum, input_signature=[tf.TensorSpec([1, None, None, 3])], autograph=False)
    image = noise(45, 70)
    np.testing.assert_allclose(graph(image[None]).numpy(), spectrum(image), rtol=1e-5)
    assert not graph(noise(31, 70)[None]).numpy().any()


def test_the_gradient_is_that_of_finite_differences():
    image, direction = noise(40, 48).astype(np.float64), np.random.default_rng(1).normal(size=(40, 48, 3))
    weights = np.random.default_rng(2).normal(size=13)
    with tf.GradientTape() as tape:
        x = tf.constant(image[None], tf.float32)
        tape.watch(x)
        y = tf.reduce_sum(local_spectrum(x) * tf.constant(weights, tf.float32))
    slope = float(np.sum(tape.gradient(y, x).numpy()[0] * direction))
    step = 1e-6
    ahead, behind = (reference.local_spectrum(image + sign * step * direction) @ weights for sign in (1, -1))
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-2)


def objective(**options):
    """Return an objective whose only features are the image itself."""
    return Objective(
        lambda image: {"conv1_1": image},
        {},
        style_layers={"conv1_1": 1.0},
        content_weight=0.0,
        style_weight=0.0,
        style_losses=((NORMALIZED_GRAM, 1.0),),
        **{"spectrum_weight": 0.5, **options},
    )


def test_the_term_is_the_weighted_mean_squared_difference():
    o, content, style, image = (
        objective(),
        *(tf.constant(noise(48, 64, k)[None] * (k + 1) / 3) for k in range(3)),
    )
    targets = o.targets(content, [o.style_summary(style)])
    difference = reference.local_spectrum(image[0].numpy()) - reference.local_spectrum(style[0].numpy())
    terms = o(image, targets)
    assert float(terms["spectrum"]) == pytest.approx(0.5 * np.mean(difference**2), rel=1e-3)
    assert float(terms["total"]) == pytest.approx(float(terms["spectrum"]), rel=1e-6)
    assert float(o(style[:, :48, :64], targets)["spectrum"]) == pytest.approx(0, abs=1e-6)


def test_styles_are_blended_and_styles_without_a_spectrum_are_left_out():
    o = objective()
    content, first, second = (tf.constant(noise(48, 64, k)[None] * (k + 1) / 3) for k in range(3))
    summaries = [o.style_summary(first), o.style_summary(second)]
    target = o.targets(content, summaries, blend_weights=[1.0, 3.0]).spectra[0].spectrum
    expected = 0.25 * summaries[0][SPECTRUM][0] + 0.75 * summaries[1][SPECTRUM][0]
    np.testing.assert_allclose(target, expected, rtol=1e-5)
    del summaries[1][SPECTRUM]
    alone = o.targets(content, summaries, blend_weights=[1.0, 3.0]).spectra[0].spectrum
    np.testing.assert_allclose(alone, summaries[0][SPECTRUM][0], rtol=1e-6)
    del summaries[0][SPECTRUM]
    assert "spectrum" not in o(content, o.targets(content, summaries))


def test_small_styles_are_left_out_of_a_blend_in_a_graph_of_any_size():
    """Such a graph is traced before the sizes are known."""
    o = objective()
    content, large, small = (tf.constant(noise(*shape)[None]) for shape in ((48, 64), (40, 50), (24, 50)))
    any_size = [tf.TensorSpec([1, None, None, 3])] * 3

    @tf.function(input_signature=any_size, autograph=False)
    def target(content, large, small):
        summaries = [o.style_summary(large), o.style_summary(small)]
        return o.targets(content, summaries, blend_weights=[1.0, 3.0]).spectra[0]

    share, values, _ = target(content, large, small)
    np.testing.assert_allclose(values, reference.local_spectrum(large[0].numpy()), atol=1e-3)
    assert float(share) == 1
    assert float(target(content, small, small).share) == 0


def test_each_region_has_the_target_of_its_style():
    o = objective()
    content, first, second = (tf.constant(noise(64, 96, k)[None] * (k + 1) / 3) for k in range(3))
    masks = np.zeros((2, 1, 64, 96, 1), np.float32)
    masks[0, :, :, :48], masks[1, :, :, 48:] = 1, 1
    regions = [
        Region(share, {"conv1_1": tf.constant(mask / mask.mean())}, tf.constant(mask))
        for share, mask in zip((0.25, 0.75), masks, strict=True)
    ]
    targets = o.targets(content, [o.style_summary(first), o.style_summary(second)], regions=regions)
    image = noise(64, 96, 5)
    expected = 0.0
    for share, mask, style in zip((0.25, 0.75), masks, (first, second), strict=True):
        difference = reference.local_spectrum(image, mask[0, :, :, 0]) - reference.local_spectrum(
            style[0].numpy()
        )
        expected += 0.5 * share * np.mean(difference**2)
    assert float(o(tf.constant(image[None]), targets)["spectrum"]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("small", ["content", "style"])
def test_there_is_no_term_for_small_images(small):
    o = objective()
    content = tf.constant(noise(24 if small == "content" else 48, 64)[None])
    style = tf.constant(noise(24 if small == "style" else 48, 64, 1)[None])
    assert "spectrum" not in o(content, o.targets(content, [o.style_summary(style)]))

"""Optical flow and warping against clips of known motion, and the weights against slow loops."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import map_coordinates

from tests.video.clips import moving_object, noisy, pan, scene, still, zoom

pytest.importorskip("cv2")

from tfstyle.losses import temporal_loss
from tfstyle.video import (
    consistency_weights,
    estimate_flow,
    grey_frame,
    warp,
    warping_error,
)
from tfstyle.video.flow import SOFTENING


def flows(clip, t=1):
    now, before = grey_frame(clip.frames[t]), grey_frame(clip.frames[t - 1])
    return estimate_flow(now, before), estimate_flow(before, now)


class TestFlow:
    @pytest.mark.parametrize(
        ("clip", "limit"),
        [
            (pan(3, (144, 192)), 0.15),
            (zoom(3, (144, 192)), 0.15),
            (moving_object(3, (144, 192)), 0.15),
            (noisy(pan(3, (144, 192)), 2 / 255), 0.3),
        ],
    )
    def test_it_is_the_motion_of_the_clip(self, clip, limit):
        backward, _ = flows(clip, 2)
        error = np.linalg.norm(backward - clip.flows[2], axis=-1)[clip.visible[2]]
        assert np.median(error) < limit

    def test_equal_frames_have_no_flow(self):
        backward, forward = flows(still(2))
        assert not backward.any()
        assert not forward.any()

    def test_frames_that_are_too_small_have_no_flow(self):
        assert not estimate_flow(np.zeros((8, 12), np.uint8), np.ones((8, 12), np.uint8)).any()


def slow_weights(backward, forward):
    """Return the weights before they are softened, pixel by pixel as Ruder et al. define them."""
    height, width = backward.shape[:2]
    weights = np.ones((height, width))
    for row in range(height):
        for column in range(width):
            b = backward[row, column].astype(float)
            x, y = column + b[0], row + b[1]
            if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                weights[row, column] = 0
                continue
            f = np.array([map_coordinates(forward[..., i], [[y], [x]], order=1)[0] for i in range(2)])
            if ((b + f) ** 2).sum() >= 0.01 * ((b**2).sum() + (f**2).sum()) + 0.5:
                weights[row, column] = 0
            gradient = 0.0
            for i in range(2):
                for axis in range(2):
                    line = backward[row, :, i] if axis else backward[:, column, i]
                    at = column if axis else row
                    low, high = max(at - 1, 0), min(at + 1, len(line) - 1)
                    gradient += ((line[high] - line[low]) / (high - low)) ** 2
            if gradient > 0.01 * (b**2).sum() + 0.002:
                weights[row, column] = 0
    return weights


class TestConsistency:
    @pytest.fixture(scope="class")
    def motion(self):
        generator = np.random.default_rng(5)
        backward = np.repeat(np.repeat(generator.normal(size=(6, 8, 2)), 4, 0), 4, 1).astype(np.float32)
        return backward, -backward + 0.4 * generator.normal(size=backward.shape).astype(np.float32)

    def test_the_weights_are_those_of_the_paper(self, motion):
        slow = slow_weights(*motion)
        fast = consistency_weights(*motion)
        assert 0.05 < slow.mean() < 0.95
        assert not fast[slow == 0].any(), "softening makes the areas of weight 0 larger"
        # Where the surroundings have weight 1, softening changes nothing.
        inner = np.ones_like(slow, bool)
        for dy in range(-4, 5):
            for dx in range(-4, 5):
                inner &= np.roll(slow, (dy, dx), (0, 1)) == 1
        inner[:4] = inner[-4:] = inner[:, :4] = inner[:, -4:] = False
        assert SOFTENING == 0.8
        assert np.allclose(fast[inner], 1)

    def test_disoccluded_pixels_have_no_weight(self):
        clip = moving_object(3, (144, 192), step=(4.0, 0.0))
        weights = consistency_weights(*flows(clip, 2))
        hidden = ~clip.visible[2]
        assert hidden.sum() > 50
        assert weights[hidden].mean() < 0.25
        assert weights[clip.visible[2]].mean() > 0.8

    def test_pixels_that_enter_the_frame_have_no_weight(self):
        clip = pan(2, (144, 192), step=(6.0, 0.0))
        weights = consistency_weights(*flows(clip))
        assert weights[:, -5:].mean() < 0.1
        assert weights[:, :-12].mean() > 0.8

    def test_a_still_clip_has_weight_one_everywhere(self):
        assert consistency_weights(*flows(still(2))).min() == 1

    def test_another_scene_has_little_weight(self):
        now, before = (grey_frame(scene(144, 192, seed)) for seed in (1, 2))
        weights = consistency_weights(estimate_flow(now, before), estimate_flow(before, now))
        assert weights.mean() < 0.2


class TestWarp:
    def test_a_whole_number_of_pixels_moves_the_image(self):
        image = np.random.default_rng(0).random((1, 12, 15, 3), np.float32)
        flow = np.broadcast_to(np.float32([2, -3]), (1, 12, 15, 2))
        warped = warp(tf.constant(image), tf.constant(flow)).numpy()
        assert np.allclose(warped[:, 3:, :-2], image[:, :-3, 2:], atol=1e-6)
        # Outside of the image, its pixels are mirrored at the border.
        assert np.allclose(warped[:, 3:, -2:], image[:, :-3, -2:-4:-1], atol=1e-6)
        assert np.allclose(warped[:, :3, :-2], image[:, 3:0:-1, 2:], atol=1e-6)

    def test_no_motion_changes_nothing(self):
        image = np.random.default_rng(0).random((1, 9, 11, 3), np.float32)
        assert np.allclose(warp(tf.constant(image), tf.zeros([1, 9, 11, 2])), image, atol=1e-6)

    def test_smooth_images_are_interpolated_better_than_bilinearly(self):
        y, x = np.mgrid[:40, :50].astype(np.float32)
        shown = (0.5 + 0.4 * np.sin(x / 1.7 + y / 2.3))[None, :, :, None]
        flow = np.broadcast_to(np.float32([0.5, 0.5]), (1, 40, 50, 2))
        true = 0.5 + 0.4 * np.sin((x + 0.5) / 1.7 + (y + 0.5) / 2.3)
        inner = slice(4, -4), slice(4, -4)
        error = np.abs(warp(tf.constant(shown), tf.constant(flow)).numpy()[0, ..., 0] - true)[inner]
        bilinear = map_coordinates(shown[0, ..., 0], [y + 0.5, x + 0.5], order=1, mode="nearest")
        assert error.mean() < 0.5 * np.abs(bilinear - true)[inner].mean()

    def test_edges_do_not_overshoot(self):
        image = np.zeros((1, 8, 16, 1), np.float32)
        image[:, :, 8:] = 1
        flow = np.broadcast_to(np.float32([0.3, 0.2]), (1, 8, 16, 2))
        warped = warp(tf.constant(image), tf.constant(flow)).numpy()
        assert warped.min() >= 0
        assert warped.max() <= 1

    @pytest.mark.parametrize("clip", [pan(2), zoom(2)])
    def test_it_undoes_the_motion_of_a_clip(self, clip):
        warped = warp(tf.constant(clip.frames[:1]), tf.constant(clip.flows[1][None])).numpy()[0]
        inner = clip.visible[1].copy()
        inner[:3] = inner[-3:] = inner[:, :3] = inner[:, -3:] = False
        still_error = np.abs(clip.frames[0] - clip.frames[1])[inner].mean()
        assert np.abs(warped - clip.frames[1])[inner].mean() < 0.1 * still_error

    def test_graph_and_xla_give_the_same(self):
        image = tf.constant(np.random.default_rng(0).random((1, 20, 24, 3), np.float32))
        flow = tf.constant(np.random.default_rng(1).normal(size=(1, 20, 24, 2)).astype(np.float32) * 3)
        eager = warp(image, flow).numpy()
        for jit in (False, True):
            assert np.allclose(tf.function(warp, jit_compile=jit)(image, flow), eager, atol=1e-6)


def test_the_warping_error_is_a_weighted_mean_in_levels():
    image, warped = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    warped[0, 0] = 10 / 255
    warped[1, 1] = 1.0
    weights = np.array([[1.0, 0.5], [0.5, 0.0]])
    assert warping_error(image, warped, consistency=weights) == pytest.approx(10 / 2)
    assert warping_error(image, warped, consistency=np.zeros((2, 2))) is None


def test_the_temporal_loss_is_a_weighted_mean_square():
    generator = np.random.default_rng(0)
    image, reference = generator.random((2, 1, 5, 7, 3), np.float32)
    consistency = generator.random((1, 5, 7, 1), np.float32)
    slow = sum(
        float(consistency[0, y, x, 0]) * float(image[0, y, x, c] - reference[0, y, x, c]) ** 2
        for y in range(5)
        for x in range(7)
        for c in range(3)
    ) / (5 * 7 * 3)
    loss = temporal_loss(tf.constant(image), tf.constant(reference), consistency=tf.constant(consistency))
    assert float(loss) == pytest.approx(slow, rel=1e-5)

"""How much videos flicker, whether they keep their style, and whether they drift, with real weights.

`tests.benchmarks.video` measures the same at larger sizes.
"""

import numpy as np
import pytest

from tests.benchmarks.video import painted_singly, painted_video, scenes, true_warping_errors
from tests.video import clips
from tfstyle.images import load
from tfstyle.scoring import score

pytestmark = [pytest.mark.slow, pytest.mark.weights]
SHAPE = (72, 96)


@pytest.fixture(scope="module")
def settings(data):
    return {"weights": str(data / "weights" / "vgg19_imagenet_block1-3.npz"), "size": 96}


@pytest.fixture(scope="module")
def pair(data):
    """A photograph and a style image."""
    return load(data / "images" / "tubingen.jpg"), load(data / "images" / "starry_night_google.jpg")


@pytest.fixture(scope="module")
def all_scenes(pair):
    return scenes(pair[0], SHAPE, 8)


@pytest.mark.parametrize("name", ["pan", "zoom", "moving object", "noisy pan"])
def test_a_video_flickers_at_most_a_third_as_much_as_single_images(settings, pair, all_scenes, name):
    clip, style = all_scenes[name], pair[1]
    frames, result = painted_video(clip, style, settings)
    singles, _ = painted_singly(clip.frames[5:], style, settings)
    video_error = np.mean(true_warping_errors(frames, clip))
    single_error = np.mean(true_warping_errors(singles, clip, 5))
    assert video_error < single_error / 3
    # The run reports the error along the estimated flow, without the outlines of moving objects.
    assert 0 < result.warping_error < 1.2 * video_error
    weights = settings["weights"]
    video_score, single_score = score(clip.frames[-1], style, frames[-1], singles[-1], weights=weights)
    assert video_score.E > single_score.E - 0.3


def test_a_still_clip_gives_a_still_result(settings, pair, all_scenes):
    frames, _ = painted_video(all_scenes["still"], pair[1], settings)
    differences = 255 * np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    assert (differences[1:] < 1).all()


def test_a_long_pan_does_not_drift(settings, pair):
    photo, style = pair
    large = photo.resized((SHAPE[0] + 40, SHAPE[1] + 90)).rgb
    clip = clips.pan(60, SHAPE, (1.2, 0.4), image=large)
    frames, result = painted_video(clip, style, settings)
    weights = settings["weights"]
    early, late = (score(clip.frames[i], style, frames[i], weights=weights)[0].E for i in (4, 59))
    assert abs(late - early) <= 0.05 * abs(early)
    errors = [record.warping_error for record in result.records[1:]]
    assert np.mean(errors[-10:]) < 1.5 * np.mean(errors[:10])

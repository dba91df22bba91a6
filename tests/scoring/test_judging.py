"""The judge and `tfstyle.score`: the published scores, comparisons of images, sizes, and what is refused."""

import hashlib
import logging
import runpy
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import tfstyle
from tests.conftest import make_image, write_noise_wheels
from tfstyle.errors import ConfigError, ImageError, WeightsError
from tfstyle.images import load
from tfstyle.network import Encoder, load_weights, random_weights
from tfstyle.scoring import Judge, Score, energy_distance, gaussians, judging, sample
from tfstyle.scoring.judging import genuine_digest, genuine_weights


@pytest.fixture(scope="module")
def lower_blocks(data):
    return load_weights(data / "weights" / "vgg19_imagenet_block1-3.npz")


@pytest.fixture
def any_weights(monkeypatch):
    """Take random weights for genuine ones, for tests of what does not depend on the weights."""
    chosen = random_weights(seed=0)
    arrays = {key: array for key, array in chosen.arrays.items() if key[5] in "123"}
    chosen = tfstyle.Weights(arrays, source="random.npz")
    monkeypatch.setattr(judging, "GENUINE", genuine_digest(chosen))
    return chosen


@pytest.fixture(scope="module")
def images(data):
    content, style = (load(data / "images" / f"{n}.jpg") for n in ("tubingen", "starry_night_google"))
    return content.fitted(192), style.fitted(192)


@pytest.fixture(scope="module")
def judge(images, lower_blocks):
    return Judge(*images, weights=lower_blocks)


@pytest.mark.weights
@pytest.mark.slow
def test_the_published_scores_of_a_content_image(data, lower_blocks):
    """E -13.1, S 0 and ripple 0.12 for Tübingen against Starry Night at 384 px, by eight images' basis."""
    content, style = (data / "images" / f"{n}.jpg" for n in ("tubingen", "starry_night_google"))
    image = load(content).fitted(384)
    judge = Judge(content, style, weights=lower_blocks, reference=data / "images")
    e, s, ripple, _, energy = judge.judge(image)
    assert e == pytest.approx(-13.1, abs=0.05)
    assert s == pytest.approx(0, abs=1e-4)
    assert ripple == pytest.approx(0.12, abs=0.005)
    assert energy == pytest.approx(1, abs=1e-4)
    with_shipped_basis = Judge(content, style, weights=lower_blocks).judge(image)
    assert with_shipped_basis[0] == pytest.approx(-13.1, abs=0.3)


@pytest.mark.weights
def test_the_content_and_the_style_are_the_ends_of_the_scores(images, judge):
    content, style = images
    own, same = judge.judge(content), judge.judge(style)
    assert own.S < 1e-6
    assert own.energy == pytest.approx(1, abs=1e-6)
    assert same.E > 50  # or infinite
    assert same.energy == pytest.approx(0, abs=1e-6)
    assert same.S > 0.1


@pytest.mark.weights
def test_a_patchwork_of_the_style_is_closer_to_it_than_the_content(images, judge):
    """The quarters of the style image in another order: its statistics, without any content."""
    content, style = images
    height, width = (n // 2 for n in style.rgb.shape[:2])
    pieces = style.rgb[: 2 * height, : 2 * width]
    shuffled = np.roll(pieces, (height, width), (0, 1))
    own, patchwork = judge.judge(content), judge.judge(shuffled)
    assert patchwork.E > own.E + 5
    assert patchwork.energy < 0.2 * own.energy
    assert patchwork.S > own.S + 0.1


@pytest.mark.weights
def test_a_flat_image_has_the_lowest_e(judge):
    assert judge.judge(np.full((96, 96, 3), 0.5, np.float32)).E < -20


@pytest.mark.slow
def test_the_energy_is_the_mean_over_layers_and_poolings_and_deep_layers_count(monkeypatch):
    weights = random_weights(seed=0)
    monkeypatch.setattr(judging, "GENUINE", genuine_digest(weights))
    image, content, style = (make_image(52, 60, seed) for seed in (1, 2, 3))
    expected = []
    for pooling in ("avg", "max"):
        layers = ("conv1_2", "conv2_2", "conv3_2", "conv4_3", "conv5_2")
        encoder = Encoder(layers, weights, pooling=pooling, padding="reflect")
        features = [encoder(pixels[None]) for pixels in (image, content, style)]
        for layer in layers:
            x, p, s = (sample(maps[layer].numpy()) for maps in features)
            expected.append(energy_distance(x, s) / energy_distance(p, s))
    (score,) = tfstyle.score(content, style, image, weights=weights)
    assert score.energy == pytest.approx(np.mean(expected), rel=1e-4)
    arrays = {key: array for key, array in weights.arrays.items() if key[5] in "123"}
    (lower,) = tfstyle.score(content, style, image, weights=tfstyle.Weights(arrays, source="lower"))
    assert lower.energy == pytest.approx(np.mean([*expected[:3], *expected[5:8]]), rel=1e-4)
    assert lower[:4] == pytest.approx(score[:4], rel=1e-6)


def test_content_and_style_are_brought_to_the_size_of_the_image(any_weights):
    content, style = load(make_image(104, 120, 2)), load(make_image(160, 120, 3))
    image = make_image(52, 60, 1)
    small = Judge(content.resized((52, 60)), style.fitted(60), weights=any_weights)
    judge = Judge(content, style, weights=any_weights)
    assert judge.judge(image) == small.judge(image)
    judge.judge(make_image(60, 69, 1))  # another size in between
    assert judge.judge(image) == small.judge(image)


def test_files_are_read_as_everywhere_and_shown_on_white(any_weights, tmp_path):
    generator = np.random.default_rng(0)
    colour = generator.integers(0, 65536, (52, 60, 3), dtype=np.uint16)
    grey, alpha = generator.integers(0, 256, (2, 52, 60), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([grey, grey, grey, alpha])).save(tmp_path / "alpha.png")
    judge = Judge(make_image(52, 60, 2), make_image(52, 60, 3), weights=any_weights)
    share = alpha[..., None] / np.float32(255)
    on_white = grey[..., None] / np.float32(255) * share + (1 - share)
    pairs = [
        (tmp_path / "grey.png", np.repeat(grey[..., None], 3, -1)),
        (str(tmp_path / "alpha.png"), np.repeat(on_white, 3, -1).astype(np.float32)),
        (colour, (colour / 65535).astype(np.float32)),
    ]
    for source, array in pairs:
        assert judge.judge(source) == pytest.approx(judge.judge(array), rel=1e-4)


def test_equal_content_and_style_leave_no_energy_ratio(any_weights):
    image = make_image(52, 60, 2)
    (score,) = tfstyle.score(image, image, image, weights=any_weights)
    assert np.isnan(score.energy)
    assert score.S == 0


def test_an_image_of_other_proportions_is_told(any_weights, caplog):
    judge = Judge(make_image(52, 60, 2), make_image(60, 60, 3), weights=any_weights)
    with caplog.at_level(logging.WARNING):
        judge.judge(make_image(53, 60))
        assert not caplog.messages
        judge.judge(make_image(60, 52))
    assert caplog.messages == [
        "the image has 60 x 52 pixels and the content image 52 x 60: the content image is stretched"
    ]


def test_images_that_are_too_small_are_refused(any_weights, tmp_path):
    judge = Judge(make_image(60, 60), make_image(60, 60), weights=any_weights)
    path = tmp_path / "tiny.png"
    Image.new("RGB", (90, 31)).save(path)
    wanted = (
        r"tiny.png has 31 x 90 pixels; .* at least 32 pixels a side and at least 129 blocks of 4 x 4 pixels"
    )
    with pytest.raises(ImageError, match=wanted):
        judge.judge(path)
    with pytest.raises(ImageError, match="the image has 40 x 48 pixels"):
        judge.judge(make_image(40, 48))  # 10 x 12 positions at conv3_1, fewer than the 129 that are needed
    assert isinstance(judge.judge(make_image(44, 48)), Score)  # 11 x 12
    wide = Judge(make_image(60, 60), make_image(30, 300), weights=any_weights)
    with pytest.raises(ImageError, match="the style image, reduced to 60 pixels, has 6 x 60 pixels"):
        wide.judge(make_image(60, 60))


@pytest.mark.slow
def test_a_reference_is_a_folder_or_images(any_weights, tmp_path):
    pair = make_image(60, 60, 2), make_image(60, 60, 3)
    arrays = [make_image(48, 60, seed) for seed in (4, 5)]
    for name, array in zip("ab", arrays, strict=True):
        Image.fromarray((array * 255).round().astype(np.uint8)).save(tmp_path / f"{name}.png")
    image = make_image(60, 60)
    (from_folder,) = tfstyle.score(*pair, image, weights=any_weights, reference=tmp_path)
    judge = Judge(*pair, weights=any_weights, reference=[tmp_path / "a.png", tmp_path / "b.png"])
    assert judge.judge(image) == from_folder
    (shipped,) = tfstyle.score(*pair, image, weights=any_weights)
    assert shipped.E != from_folder.E
    assert shipped[1:] == from_folder[1:]
    with pytest.raises(ConfigError, match="reference is empty; give a folder"):
        Judge(*pair, weights=any_weights, reference=[])


def test_the_origin_of_the_basis_is_written_beside_it():
    folder = gaussians.BASIS.parent
    text = (folder / "PROVENANCE.md").read_text(encoding="utf-8")
    assert hashlib.sha256(gaussians.BASIS.read_bytes()).hexdigest() in text
    assert gaussians.BASIS.stat().st_size < 100_000
    with np.load(gaussians.BASIS) as file:
        assert {name: (file[name].shape, file[name].dtype) for name in file.files} == {
            "conv1_1": ((64, 32), np.float16),
            "conv2_1": ((128, 48), np.float16),
            "conv3_1": ((256, 128), np.float16),
        }


@pytest.mark.weights
@pytest.mark.slow
def test_the_basis_can_be_made_again(data, tmp_path):
    """With the script, from two wheels that contain noise images with the names of the photographs."""
    folder = gaussians.BASIS.parent
    write_noise_wheels(tmp_path, runpy.run_path(str(folder / "make_embedded.py"))["SOURCES"], side=64)
    out = tmp_path / "basis.npz"
    flags = ["-o", out, "--wheels", tmp_path, "--weights", data / "weights" / "vgg19_imagenet_block1-3.npz"]
    script = folder / "make_score_basis.py"
    done = subprocess.run([sys.executable, script, *flags], check=True, capture_output=True, text=True)
    assert f"{out}: 16 images" in done.stdout
    with np.load(out) as made, np.load(gaussians.BASIS) as shipped:
        for layer in shipped.files:
            assert made[layer].shape == shipped[layer].shape
            vectors = made[layer].astype(float)
            np.testing.assert_allclose(vectors.T @ vectors, np.eye(vectors.shape[1]), atol=2e-3)


# Which weights are genuine


@pytest.mark.weights
def test_genuine_weights_are_recognised_in_half_precision_too(lower_blocks, data, tmp_path):
    lower_blocks.save(tmp_path / "half.npz", half=True)
    for source in (lower_blocks, tmp_path / "half.npz", data / "weights" / "vgg19_standin.npz"):
        assert genuine_weights(source).layer_names[:8][-1] == "conv3_4"
    arrays = dict(lower_blocks.arrays)
    arrays["block3_conv4/bias"] = arrays["block3_conv4/bias"] + 0.01
    with pytest.raises(WeightsError, match="mine has other ones"):
        genuine_weights(tfstyle.Weights(arrays, source="mine"))
    upto_block_2 = {key: array for key, array in lower_blocks.arrays.items() if key[5] in "12"}
    with pytest.raises(WeightsError, match="short has other ones"):
        genuine_weights(tfstyle.Weights(upto_block_2, source="short"))


@pytest.mark.parametrize("source", ["embedded", "random"])
def test_other_weights_are_refused(source, content, style, caplog):
    for weights in (source, load_weights(source)):
        with pytest.raises(
            WeightsError, match=f'ImageNet weights, and {source} has other ones; give weights="imagenet"'
        ):
            Judge(content, style, weights=weights)


def test_auto_never_takes_the_embedded_weights(monkeypatch, content, style, tmp_path):
    def no_network(url, timeout):
        raise TimeoutError("no answer")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("tfstyle.network.download._expect_answer", no_network)
    with pytest.raises(WeightsError) as caught:
        Judge(content, style)
    message = str(caught.value)
    assert "could not be downloaded (no answer); give weights=FILE" in message
    assert f"store Keras' file as {tmp_path}" in message
    assert "\n" not in message
    assert "embedded" not in message


def test_auto_takes_the_imagenet_weights(monkeypatch, any_weights):
    asked = []

    def imagenet_weights(network, **_):
        asked.append(network)
        return any_weights

    monkeypatch.setattr("tfstyle.network.weights.imagenet_weights", imagenet_weights)
    assert Judge(make_image(60, 60), make_image(60, 60)).weights is any_weights
    assert asked == ["vgg19"]

"""Filters learned without labels: the parts against slow truths, the whole against what it promises."""

import numpy as np
import pytest
from PIL import Image

import tfstyle
from tests.conftest import make_picture
from tfstyle.errors import ConfigError, ImageError, WeightsError
from tfstyle.layers import NETWORKS
from tfstyle.network import pretraining, weights


@pytest.fixture(scope="module")
def pictures():
    """Six with edges, waves and noise."""
    generator = np.random.default_rng(0)
    return [
        np.clip(make_picture(60, 70 + i, seed=i) + generator.normal(0, 0.05, (60, 70 + i, 3)), 0, 1)
        for i in range(6)
    ]


@pytest.fixture(scope="module")
def learned(pictures):
    return tfstyle.pretrain(pictures, blocks=2, patches=6000)


@pytest.fixture
def folder(pictures, tmp_path):
    """The same as files, two levels deep, beside a text file, which is no picture."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for i, picture in enumerate(pictures):
        place = tmp_path / "photos" / ("more" if i % 2 else ".") / f"{i}.png"
        Image.fromarray((picture * 255).astype(np.uint8)).save(place)
    (tmp_path / "photos" / "notes.txt").write_text("not a picture")
    return tmp_path / "photos"


def test_patches_are_the_pixels_around_a_place():
    features = np.arange(4 * 5 * 2, dtype=np.float32).reshape(4, 5, 2)
    found = pretraining._sample_patches(features, 20, np.random.default_rng(0))
    mirrored = {-1: 1, 4: 2, 5: 3}
    expected = set()
    for y in range(4):
        for x in range(5):
            rows = [yy if 0 <= yy < 4 else mirrored[yy] for yy in (y - 1, y, y + 1)]
            columns = [xx if 0 <= xx < 5 else mirrored[xx] for xx in (x - 1, x, x + 1)]
            expected.add(tuple(features[yy, xx, c] for yy in rows for xx in columns for c in (0, 1)))
    assert set(map(tuple, found)) == expected  # each of the twenty places once


def test_whitened_patches_are_uncorrelated():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(5000, 12)) @ generator.normal(size=(12, 12))
    x -= x.mean(axis=0)
    white = x @ pretraining._whitening(x, 12)
    covariance = np.cov(white.T, bias=True)
    variances = np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1][: white.shape[1]]
    ridge = pretraining.RIDGE * variances.mean()
    assert np.allclose(covariance, np.diag(variances / (variances + ridge)), atol=1e-6)
    assert white.shape[1] <= 12
    assert pretraining._whitening(x, 3).shape == (12, 3)


def test_clusters_of_directions_are_found():
    generator = np.random.default_rng(2)
    true = generator.normal(size=(8, 20))
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    lengths = generator.uniform(0.1, 10, (4000, 1))  # the length says nothing
    points = (true[generator.integers(8, size=4000)] + generator.normal(0, 0.05, (4000, 20))) * lengths
    found = pretraining._spherical_kmeans(points, 8, seed=0)
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert (found @ true.T).max(axis=0).min() > 0.99  # each of the true ones has its centroid


def test_every_filter_fires_as_much_as_promised(learned, pictures):
    layers = ("conv1_1", "conv1_2", "conv2_1", "conv2_2")
    encoder = tfstyle.Encoder(layers, learned, padding="reflect")
    features = [encoder(picture[None].astype(np.float32)) for picture in pictures]
    for layer in layers:
        flat = np.concatenate([f[layer].numpy().reshape(-1, f[layer].shape[-1]) for f in features])
        assert np.allclose(flat.mean(axis=0), 1, atol=0.1), layer  # over all places; patches are a sample
        assert np.allclose((flat > 0).mean(axis=0), 1 - pretraining.SILENT_SHARE, atol=0.06), layer


def test_the_seed_makes_the_filters(learned, pictures):
    again = tfstyle.pretrain(pictures, blocks=1, patches=6000)
    other = tfstyle.pretrain(pictures, blocks=1, patches=6000, seed=1)
    for key in again.arrays:
        assert np.array_equal(again.arrays[key], learned.arrays[key])
        assert not np.array_equal(again.arrays[key], other.arrays[key])


def test_a_folder_is_searched_and_what_cannot_be_used_is_counted(folder, caplog):
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:300])
    Image.new("RGB", (50, 1)).save(folder / "tiny.png")
    seen = []
    found = tfstyle.pretrain(folder, blocks=1, patches=3000, progress=lambda *step: seen.append(step))
    assert found.note == "learned from 6 pictures, 2 left out"
    assert "cut.png: damaged or cut off" in caplog.text
    assert "tiny.png: smaller than 2 pixels" in caplog.text
    assert caplog.text.count("left out") == 2  # each is said once, and not tried again for the next layer
    assert seen[-1] == ("conv1_2", 6, 6)
    assert ("conv1_1", 6, 6) in seen


def test_too_few_pictures_are_an_error(folder, pictures):
    for name in ("0.png", "2.png", "more/1.png"):
        (folder / name).write_bytes(b"nothing")
    with pytest.raises(ImageError, match="3 of 6 pictures can be used; at least 4 are needed"):
        tfstyle.pretrain(folder)
    with pytest.raises(ImageError, match="no such image or folder"):
        tfstyle.pretrain(folder / "gone")
    (folder / "empty").mkdir()
    with pytest.raises(ImageError, match="has no picture in it"):
        tfstyle.pretrain(folder / "empty")
    with pytest.raises(ImageError, match=r"patches are too few for the 128 filters of conv2_1"):
        tfstyle.pretrain([picture[:12, :12] for picture in pictures], blocks=2)


def test_pictures_of_one_colour_teach_nothing():
    with pytest.raises(ImageError, match="all of one colour"):
        tfstyle.pretrain([np.full((40, 40, 3), 0.5)] * 5)


def test_of_many_pictures_a_layer_reads_some(pictures, monkeypatch):
    """What is held at once is the patches, whose number does not grow."""
    read, sizes = [], []
    load, learn = pretraining.load, pretraining._learn_filters
    monkeypatch.setattr(pretraining, "load", lambda source: read.append(1) or load(source))
    monkeypatch.setattr(
        pretraining, "_learn_filters", lambda x, *a, **k: sizes.append(len(x)) or learn(x, *a, **k)
    )
    monkeypatch.setattr(pretraining, "IMAGES_PER_LAYER", 5)
    tfstyle.pretrain(pictures * 4, blocks=1, patches=2000)
    assert len(read) == 2 * 5
    assert sizes == [2000, 2000]


def test_a_base_is_kept_and_built_upon(pictures, small_weights):
    found = tfstyle.pretrain(pictures, blocks=3, base=small_weights, patches=4000)
    assert found.layers == NETWORKS["vgg19"][:8]
    for key, array in small_weights.arrays.items():
        assert np.array_equal(found.arrays[key], array)
    encoder = tfstyle.Encoder(("conv2_2", "conv3_1", "conv3_4"), found, padding="reflect")
    below, first, last = (
        np.mean([encoder(picture[None].astype(np.float32))[layer].numpy().mean() for picture in pictures])
        for layer in encoder.layers
    )
    assert first == pytest.approx(below, rel=0.1)  # as loud as what it stands on
    assert last == pytest.approx(below, rel=0.1)
    with pytest.raises(ConfigError, match="has all layers of 2 blocks"):
        tfstyle.pretrain(pictures, blocks=2, base=small_weights)


def test_bad_options(pictures, tmp_path):
    for blocks in (0, 6, "3"):
        with pytest.raises(ConfigError, match="VGG-19 has 1 to 5"):
            tfstyle.pretrain(pictures, blocks=blocks)
    for wrong in ({"seed": -1}, {"patches": 0}):
        with pytest.raises(ConfigError, match="they start from 0 and from 1"):
            tfstyle.pretrain(pictures, **wrong)
    with pytest.raises(WeightsError, match="no weights file"):
        tfstyle.pretrain(pictures, base=tmp_path / "gone.npz")


def test_without_scikit_learn_one_line_says_what_to_install(pictures, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    with pytest.raises(ConfigError, match=r"scikit-learn; pip install 'tfstyle\[pretrain\]'$"):
        tfstyle.pretrain(pictures)


def test_saved_filters_are_loaded_again(learned, tmp_path):
    learned.save(tmp_path / "whole.npz")
    learned.save(tmp_path / "half.npz", half=True)
    whole, half = weights.load_weights(tmp_path / "whole.npz"), weights.load_weights(tmp_path / "half.npz")
    for key, array in learned.arrays.items():
        assert np.array_equal(whole.arrays[key], array)
        assert np.allclose(half.arrays[key], array, rtol=1e-3, atol=1e-6)
    with pytest.raises(tfstyle.TfstyleError, match="exists; replace it"):
        learned.save(tmp_path / "whole.npz")
    with pytest.raises(WeightsError, match=r"written as \.npz"):
        learned.save(tmp_path / "whole.h5")

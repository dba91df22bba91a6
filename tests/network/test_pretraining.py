"""Filters learned without labels: the steps against slow definitions, the result against its description."""

import re
import sys

import numpy as np
import pytest
from PIL import Image

import tfstyle
from tests.conftest import make_image
from tfstyle.errors import ConfigError, ImageError, WeightsError
from tfstyle.layers import NETWORKS
from tfstyle.network import pretraining, weights


@pytest.fixture(scope="module")
def images():
    """Six images with edges, waves and noise."""
    generator = np.random.default_rng(0)
    return [
        np.clip(make_image(60, 70 + i, seed=i) + generator.normal(0, 0.05, (60, 70 + i, 3)), 0, 1)
        for i in range(6)
    ]


@pytest.fixture(scope="module")
def learned(images):
    return tfstyle.pretrain(images, blocks=2, patches=6000)


@pytest.fixture
def folder(images, tmp_path):
    """A folder with the images, half of them in a subfolder, and with a text file."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for i, image in enumerate(images):
        path = tmp_path / "photos" / ("more" if i % 2 else ".") / f"{i}.png"
        Image.fromarray((image * 255).astype(np.uint8)).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    return tmp_path / "photos"


def test_patches_are_the_values_around_a_position():
    features = np.arange(4 * 5 * 2, dtype=np.float32).reshape(4, 5, 2)
    patches = pretraining._sample_patches(features, 20, np.random.default_rng(0))
    mirrored = {-1: 1, 4: 2, 5: 3}
    expected = set()
    for y in range(4):
        for x in range(5):
            rows = [yy if 0 <= yy < 4 else mirrored[yy] for yy in (y - 1, y, y + 1)]
            columns = [xx if 0 <= xx < 5 else mirrored[xx] for xx in (x - 1, x, x + 1)]
            expected.add(tuple(features[yy, xx, c] for yy in rows for xx in columns for c in (0, 1)))
    assert set(map(tuple, patches)) == expected  # each of the twenty positions once


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
    directions = generator.normal(size=(8, 20))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = generator.uniform(0.1, 10, (4000, 1))  # which do not matter
    points = (directions[generator.integers(8, size=4000)] + generator.normal(0, 0.05, (4000, 20))) * lengths
    centroids = pretraining._spherical_kmeans(points, 8, seed=0)
    assert np.allclose(np.linalg.norm(centroids, axis=1), 1)
    assert (centroids @ directions.T).max(axis=0).min() > 0.99  # each direction has its centroid


def test_every_filter_has_the_documented_mean_and_share_of_zeros(learned, images):
    layers = ("conv1_1", "conv1_2", "conv2_1", "conv2_2")
    encoder = tfstyle.Encoder(layers, learned, padding="reflect")
    features = [encoder(image[None].astype(np.float32)) for image in images]
    for layer in layers:
        flat = np.concatenate([f[layer].numpy().reshape(-1, f[layer].shape[-1]) for f in features])
        assert np.allclose(flat.mean(axis=0), 1, atol=0.1), (
            layer
        )  # over all positions; the patches are a sample
        assert np.allclose((flat > 0).mean(axis=0), 1 - pretraining.SILENT_SHARE, atol=0.06), layer


def test_the_seed_determines_the_filters(learned, images):
    again = tfstyle.pretrain(images, blocks=1, patches=6000)
    other = tfstyle.pretrain(images, blocks=1, patches=6000, seed=1)
    for key in again.arrays:
        assert np.array_equal(again.arrays[key], learned.arrays[key])
        assert not np.array_equal(again.arrays[key], other.arrays[key])


def test_a_folder_is_searched_and_unusable_images_are_counted(folder, caplog):
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:300])
    Image.new("RGB", (50, 1)).save(folder / "tiny.png")
    steps = []
    filters = tfstyle.pretrain(folder, blocks=1, patches=3000, progress=lambda *step: steps.append(step))
    assert re.search(r"6 images.* 2 ", filters.note)
    # One message for each of the two, which are not tried again for the next layer.
    cut, tiny = sorted((record.getMessage() for record in caplog.records), key=lambda text: "tiny" in text)
    assert str(folder / "cut.png") in cut
    assert re.search(rf"{re.escape(str(folder / 'tiny.png'))}.* 1 .*at least 2", tiny)
    assert steps[-1] == ("conv1_2", 6, 6)
    assert ("conv1_1", 6, 6) in steps


def test_too_few_images_are_refused(folder, images):
    for name in ("0.png", "2.png", "more/1.png"):
        (folder / name).write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"3 of 6 .*at least 4"):
        tfstyle.pretrain(folder)
    with pytest.raises(ImageError, match=re.escape(str(folder / "gone"))):
        tfstyle.pretrain(folder / "gone")
    (folder / "empty").mkdir()
    with pytest.raises(ImageError, match=re.escape(str(folder / "empty"))):
        tfstyle.pretrain(folder / "empty")
    with pytest.raises(ImageError, match=r"216 patches .*conv2_1.* 512.*larger images"):
        tfstyle.pretrain([image[:12, :12] for image in images], blocks=2)


def test_images_of_one_colour_are_refused():
    with pytest.raises(ImageError, match=r"same colour.*texture"):
        tfstyle.pretrain([np.full((40, 40, 3), 0.5)] * 5)


def test_a_layer_reads_a_limited_number_of_images(images, monkeypatch):
    """Memory is for the patches, whose number does not grow with that of the images."""
    reads, sizes = [], []
    load, learn = pretraining.load, pretraining._learn_filters
    monkeypatch.setattr(pretraining, "load", lambda source: reads.append(1) or load(source))
    monkeypatch.setattr(
        pretraining, "_learn_filters", lambda x, *a, **k: sizes.append(len(x)) or learn(x, *a, **k)
    )
    monkeypatch.setattr(pretraining, "IMAGES_PER_LAYER", 5)
    tfstyle.pretrain(images * 4, blocks=1, patches=2000)
    assert len(reads) == 2 * 5
    assert sizes == [2000, 2000]


@pytest.mark.slow
def test_a_base_is_kept_and_extended(images, small_weights):
    extended = tfstyle.pretrain(images, blocks=3, base=small_weights, patches=4000)
    assert extended.layers == NETWORKS["vgg19"][:8]
    for key, array in small_weights.arrays.items():
        assert np.array_equal(extended.arrays[key], array)
    encoder = tfstyle.Encoder(("conv2_2", "conv3_1", "conv3_4"), extended, padding="reflect")
    below, first, last = (
        np.mean([encoder(image[None].astype(np.float32))[layer].numpy().mean() for image in images])
        for layer in encoder.layers
    )
    assert first == pytest.approx(below, rel=0.1)  # as in the base
    assert last == pytest.approx(below, rel=0.1)
    with pytest.raises(ConfigError, match=r"small.* 2 blocks; give more"):
        tfstyle.pretrain(images, blocks=2, base=small_weights)


def test_wrong_options_are_refused(images, tmp_path):
    for blocks in (0, 6, "3"):
        with pytest.raises(ConfigError, match=f"blocks is {blocks!r}.* 1 to 5"):
            tfstyle.pretrain(images, blocks=blocks)
    with pytest.raises(ConfigError, match=r"seed is -1 .*seed must be at least 0"):
        tfstyle.pretrain(images, seed=-1)
    with pytest.raises(ConfigError, match=r"patches is 0;.*patches at least 1"):
        tfstyle.pretrain(images, patches=0)
    with pytest.raises(WeightsError, match=r"gone\.npz"):
        tfstyle.pretrain(images, base=tmp_path / "gone.npz")


def test_without_scikit_learn_the_error_names_the_package(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ConfigError, match=r"scikit-learn; pip install 'tfstyle\[pretrain\]'$"):
        tfstyle.pretrain(images)


def test_saved_filters_are_loaded_again(learned, tmp_path):
    learned.save(tmp_path / "whole.npz")
    learned.save(tmp_path / "half.npz", half=True)
    whole, half = weights.load_weights(tmp_path / "whole.npz"), weights.load_weights(tmp_path / "half.npz")
    for key, array in learned.arrays.items():
        assert np.array_equal(whole.arrays[key], array)
        assert np.allclose(half.arrays[key], array, rtol=1e-3, atol=1e-6)
    with pytest.raises(tfstyle.TfstyleError, match=r"whole\.npz.*overwrite"):
        learned.save(tmp_path / "whole.npz")
    with pytest.raises(WeightsError, match=r"whole\.h5.*\.npz"):
        learned.save(tmp_path / "whole.h5")

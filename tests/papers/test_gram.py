"""Tests of the experiments on Gram matrices: gram-entry, gram-mimic and show."""

import itertools

import numpy as np
import pytest
from scipy import stats

from tests import reference
from tfstyle import Encoder, gram_matrix
from tfstyle.errors import ConfigError, WeightsError
from tfstyle.images import load
from tfstyle.papers.descent import white_noise
from tfstyle.papers.gram_entries import gram_entry
from tfstyle.papers.gram_maps import show
from tfstyle.papers.gram_textures import gram_mimic, random_patches
from tfstyle.papers.heat_maps import heat_map
from tfstyle.papers.random_grams import (
    compare_grams,
    ks_distance,
    match_values,
    nearest_semidefinite,
    sample_gram,
    shuffle_entries,
)
from tfstyle.papers.study import Curves


def make_gram(channels=48, seed=0):
    """Return a Gram matrix of rectified features with a few strong channels, as in a network."""
    generator = np.random.default_rng(seed)
    features = generator.normal(-0.3, 1, (200, 12)) @ generator.normal(0, 1, (12, channels))
    features = np.maximum(features, 0) * generator.lognormal(0, 1, channels)
    return features.T @ features / 200


def permute_channels(matrix, seed=1):
    order = np.random.default_rng(seed).permutation(len(matrix))
    return matrix[np.ix_(order, order)]


def gram_matrix_entry(image, pair, encoder):
    """Return an entry of the Gram matrix of the encoder's features by the reference."""
    (features,) = encoder(image[None]).values()
    return reference.gram(features[0].numpy()[..., list(pair)])[0, 1]


# Sampled matrices


@pytest.mark.parametrize("kind", ["shuffled", "ordered"])
def test_a_sampled_matrix_has_the_values_and_is_no_permutation(kind):
    """The criteria are computed by NumPy and SciPy."""
    target = make_gram()
    ranking = shuffle_entries(target, 3) if kind == "shuffled" else make_gram(seed=5)
    sample = sample_gram(target, ranking, rounds=100)
    np.testing.assert_allclose(sample, sample.T, atol=1e-9 * abs(sample).max())
    eigenvalues = np.linalg.eigvalsh(sample)
    assert eigenvalues[0] > -1e-9 * eigenvalues[-1]
    assert stats.ks_2samp(sample.ravel(), target.ravel(), method="asymp").statistic < 0.05
    limit = 0.1 * target.mean()
    assert 0.05 < (target < limit).mean() < 0.95
    assert abs((sample < limit).mean() - (target < limit).mean()) < 0.02
    spectrum = np.linalg.eigvalsh(target)
    assert np.linalg.norm(eigenvalues - spectrum) > 0.02 * np.linalg.norm(spectrum)
    by_diagonal = [m[np.ix_(*[np.argsort(np.diag(m))] * 2)] for m in (sample, target)]
    assert reference.relative_error(*by_diagonal) > 0.1


def test_more_rounds_bring_the_values_closer():
    target = make_gram(96)
    after_one, after_sixty = (
        ks_distance(sample_gram(target, shuffle_entries(target, 0), rounds=rounds), target)
        for rounds in (1, 60)
    )
    assert after_sixty < 0.05 < after_one


def test_each_seed_gives_another_matrix():
    target = make_gram()
    first, second = (sample_gram(target, shuffle_entries(target, seed), rounds=30) for seed in (0, 1))
    assert compare_grams(first, second, threshold=0.1).sorted_distance > 0.1
    np.testing.assert_array_equal(first, sample_gram(target, shuffle_entries(target, 0), rounds=30))


def test_shuffling_and_matching_preserve_the_values_and_matching_the_order():
    target, ranking = make_gram(), make_gram(seed=8)
    upper = np.triu_indices(len(target), 1)
    matched = match_values(ranking, target)
    for matrix in (shuffle_entries(target, 0), matched):
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_array_equal(np.sort(np.diag(matrix)), np.sort(np.diag(target)))
        np.testing.assert_array_equal(np.sort(matrix[upper]), np.sort(target[upper]))
    assert stats.spearmanr(matched[upper], ranking[upper]).statistic == pytest.approx(1)
    assert stats.spearmanr(np.diag(matched), np.diag(ranking)).statistic == pytest.approx(1)
    assert reference.relative_error(shuffle_entries(target, 0), target) > 0.3


def test_the_projection_is_the_nearest():
    """The matrix M has eigenvalues of both signs, so that its projection P differs from it."""
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(12, 12))
    matrix += matrix.T
    projection = nearest_semidefinite(matrix)
    assert np.linalg.eigvalsh(projection)[0] > -1e-12
    # P is the projection onto the convex cone if <M - P, P> = 0 and <M - P, Q> <= 0 for every Q of the cone.
    assert np.sum((matrix - projection) * projection) == pytest.approx(0, abs=1e-9)
    for _ in range(20):
        factor = generator.normal(size=(12, 12))
        assert np.sum((matrix - projection) * (factor @ factor.T)) < 1e-9
    np.testing.assert_allclose(nearest_semidefinite(projection), projection, atol=1e-12)


def test_distances_are_zero_for_permuted_channels():
    target = make_gram()
    permuted = compare_grams(permute_channels(target), target, threshold=0.1)
    assert permuted.spectrum_distance < 1e-9
    assert permuted.sorted_distance < 1e-9
    assert permuted.ks_distance == 0
    assert permuted.sparsity == permuted.target_sparsity == (target < 0.1 * target.mean()).mean()
    # A rotation preserves the spectrum, but not the entries.
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=target.shape))[0]
    rotated = compare_grams(rotation @ target @ rotation.T, target, threshold=0.1)
    assert rotated.spectrum_distance < 1e-9
    assert rotated.sorted_distance > 0.1


@pytest.mark.parametrize("sizes", [(30, 30), (17, 40)])
def test_ks_distance_is_scipys(sizes):
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=sizes[0]), np.round(generator.normal(0.5, 1, sizes[1]), 1)
    expected = stats.ks_2samp(first, second).statistic
    assert ks_distance(first, second) == pytest.approx(expected, abs=1e-12)


# gram-entry


def test_maximised_entries_exceed_ten_times_those_of_noise(small_weights):
    study = gram_entry(count=2, size=32, iterations=40, tv_weight=3.0, weights=small_weights, seed=1)
    assert study.facts["layer"] == "conv2_2"  # the deepest layer, because the weights end below conv3_1
    encoder = Encoder(("conv2_2",), small_weights, padding="reflect")
    noise = white_noise(32, 32, seed=1)
    pairs = [tuple(map(int, row["entry"][2:-1].split(","))) for row in study.table]
    assert [i == j for i, j in pairs] == [True, True, False, False]
    assert len({i for pair in pairs for i in pair}) == 6
    for pair, panel, row in zip(pairs, study.panels, study.table, strict=True):
        before, after = (gram_matrix_entry(image, pair, encoder) for image in (noise, panel.image))
        assert after > 10 * before > 0
        assert (row["noise"], row["image"]) == pytest.approx((before, after), rel=1e-4)
        assert row["ratio"] == pytest.approx(after / before, rel=1e-3)
        assert panel.image.min() >= 0
        assert panel.image.max() <= 1


def test_total_variation_smooths_and_given_entries_are_used(small_weights, content):
    options = {"entries": "3,3; 5,17", "size": 32, "iterations": 30, "weights": small_weights}
    rough, smooth = (gram_entry(tv_weight=x, photographs=(content,), **options) for x in (0.0, 100.0))
    assert [row["entry"] for row in rough.table] == ["G[3,3]", "G[5,17]"]
    for rough_panel, smooth_panel in zip(rough.panels, smooth.panels, strict=True):
        limit = 0.2 * reference.total_variation(rough_panel.image)
        assert reference.total_variation(smooth_panel.image) < limit
    encoder = Encoder(("conv2_2",), small_weights, padding="reflect")
    photograph = load(content)
    entries = [gram_matrix_entry(photograph.fitted(size).rgb, (5, 17), encoder) for size in (32, 512)]
    assert rough.table[1]["largest in a photograph"] == pytest.approx(max(entries), rel=1e-4)


@pytest.mark.parametrize(
    ("entries", "pattern"),
    [
        ("3;4", "entries.*'3'.*pairs of channels"),
        ("1,2,3", "entries.*'1,2,3'.*pairs of channels"),
        ("0,128", "entries.*'0,128'.*conv2_2.*0 to 127"),
        ("", "entries.*''.*pairs of channels"),
    ],
)
def test_invalid_entries_are_rejected(small_weights, entries, pattern):
    with pytest.raises(ConfigError, match=pattern):
        gram_entry(entries=entries, size=16, weights=small_weights)


def test_an_inactive_entry_and_a_layer_below_the_weights_are_rejected(small_weights):
    arrays = {k: a.copy() for k, a in small_weights.arrays.items()}
    arrays["block2_conv2/kernel"][..., 7] = 0
    arrays["block2_conv2/bias"][7] = -1
    inactive = type(small_weights)(arrays, "inactive")
    with pytest.raises(ConfigError, match=r"G\[7,7\] of conv2_2 is 0.*another pair.*seed"):
        gram_entry(entries="7,7", size=16, weights=inactive)
    with pytest.raises(WeightsError, match="conv3_1"):
        gram_entry(layer="conv3_1", size=16, weights=small_weights)


# gram-mimic


@pytest.mark.slow
def test_textures_of_two_seeds_differ_and_their_matrices_have_the_values(small_weights, style):
    layers = ("conv1_1", "conv2_1")
    study = gram_mimic(
        style, layers=(*layers, "conv3_1"), size=32, rounds=60, iterations=15, weights=small_weights
    )
    assert "end at conv2_2: conv3_1" in study.caption
    assert [row["layer"] for row in study.table] == [*layers] * 4
    for row in study.table:
        assert abs(row["sparsity"] - row["target sparsity"]) < 0.02
        assert row["ks distance"] < 0.05
        assert row["smallest eigenvalue"] > -1e-9
        assert min(row["spectrum distance"], row["sorted distance"]) > 0.02
    # The first texture is that of the style image's matrices, followed by two seeds of each kind.
    images = [panel.image for panel in study.panels[1:6]]
    encoder = Encoder(layers, small_weights, padding="reflect")
    grams = [{k: reference.gram(f[0].numpy()) for k, f in encoder(i[None]).items()} for i in images]
    for kind, i, j in (("shuffled", 1, 2), ("ordered", 3, 4)):
        distance = np.mean([reference.relative_error(grams[i][k], grams[j][k]) ** 2 for k in layers])
        assert distance > 0.02
        reverse = np.mean([reference.relative_error(grams[j][k], grams[i][k]) ** 2 for k in layers])
        assert study.facts["distance of two seeds"][kind] in (
            pytest.approx(distance, rel=1e-2),
            pytest.approx(reverse, rel=1e-2),
        )


def test_a_texture_of_the_style_images_matrices_is_nearer_to_them_than_noise(small_weights, style):
    study = gram_mimic(style, layers=("conv1_1",), size=32, seeds=(4,), iterations=80, weights=small_weights)
    encoder = Encoder(("conv1_1",), small_weights, padding="reflect")
    style_image, texture = study.panels[:2]
    grams = [
        reference.gram(encoder(i[None])["conv1_1"][0].numpy())
        for i in (style_image.image, texture.image, white_noise(32, 32))
    ]
    assert reference.relative_error(grams[1], grams[0]) < 0.1 * reference.relative_error(grams[2], grams[0])
    assert study.facts["distance of two seeds"] == {}
    assert "two seeds" not in study.caption
    assert len(study.rows) == 2


def test_random_images_have_patches_and_differ():
    images = [random_patches(48, seed) for seed in range(6)]
    for first, second in itertools.pairwise(images):
        assert first.shape == (48, 48, 3)
        assert first.dtype == np.float32
        assert abs(first - second).mean() > 0.05

    def roughness(image):
        """Return the difference of neighbouring pixels over that of distant pixels: 1 for white noise."""
        return abs(image[:, 1:] - image[:, :-1]).mean() / abs(image[:, 24:] - image[:, :24]).mean()

    assert roughness(white_noise(48, 48)) == pytest.approx(1, abs=0.05)
    values = [roughness(image) for image in images]
    assert max(values) < 0.8
    assert np.mean(values) < 0.6


# show


def test_show_has_the_matrices_their_spectra_and_the_strongest_channels(small_weights, content):
    progress = []
    study = show(
        content, layers=("conv1_1", "conv2_2", "conv4_1"), channels=2, size=40, weights=small_weights,
        progress=progress.append,
    )  # fmt: skip
    assert "end at conv2_2: conv4_1" in study.caption
    assert [line.partition(":")[0] for line in progress] == ["conv1_1", "conv2_2"]
    image = load(content).fitted(40).rgb
    maps = dict(
        zip(
            ("conv1_1", "conv2_2"), reference.features(image, small_weights.arrays, 4, padding="reflect")[::3]
        )
    )
    (curves,) = [p for row in study.rows for p in row if isinstance(p, Curves)]
    panels = {panel.title: panel for panel in study.panels}
    for layer, features in maps.items():
        gram = reference.gram(features)
        shares = np.linalg.eigvalsh(gram)[::-1] / np.trace(gram)
        ranks, shown = curves.series[layer]
        np.testing.assert_allclose(shown, shares[np.array(ranks) - 1], atol=1e-6)
        row = next(row for row in study.table if row["layer"] == layer)
        assert row["effective rank"] == pytest.approx(1 / (shares**2).sum(), rel=1e-3)
        assert row["inactive channels"] == (np.diag(gram) == 0).sum()
        strongest = int(np.diag(gram).argmax())
        panel = panels[f"{layer}, channel {strongest}"]
        # The heat map is brightest at the position of the channel's largest feature.
        assert panel.image.shape[:2] == features.shape[:2]
        brightness = panel.image.sum(-1)
        position = np.unravel_index(features[..., strongest].argmax(), brightness.shape)
        assert brightness[position] == brightness.max()
        matrix = panels[f"{layer}, Gram matrix"].image
        assert matrix.shape[:2] == gram.shape
        np.testing.assert_array_equal(matrix, matrix.transpose(1, 0, 2))


def test_heat_maps_are_brighter_for_larger_values():
    values = np.array([[0.0, 1e-3, 1e-2], [0.1, 0.5, 1.0]])
    for decades in (None, 3.0):
        brightness = heat_map(values, decades=decades).sum(-1).ravel()
        assert (np.diff(brightness) >= 0).all()
        assert brightness[-1] - brightness[0] > 1
    logarithmic = heat_map(values, decades=3.0).sum(-1)
    assert logarithmic[0, 2] > heat_map(values).sum(-1)[0, 2] + 0.3
    assert logarithmic[0, 0] == logarithmic[0, 1]  # both at or below the end of the scale, 1e-3
    np.testing.assert_array_equal(heat_map(np.zeros((2, 2))), heat_map(np.zeros((2, 2)), top=5.0))
    assert heat_map(values, top=10.0).sum(-1).max() < heat_map(values).sum(-1).max()


def test_a_study_of_each_is_saved(small_weights, content, tmp_path):
    for name, study in {
        "entry": gram_entry(count=1, size=16, iterations=3, weights=small_weights),
        "mimic": gram_mimic(
            content, layers=("conv1_1",), size=16, rounds=3, iterations=3, weights=small_weights
        ),
        "show": show(content, layers=("conv1_1",), weights=small_weights),
    }.items():
        assert study.facts["pooling"] == "avg"
        assert "average pooling" in study.caption
        written = study.save(tmp_path / name)
        assert len(written) == 3 + len(study.panels)
        assert all(path.stat().st_size > 0 for path in written)


# With VGG-19's real weights and photographs


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("layer", ["conv2_1", "conv3_1"])
def test_maximised_entries_exceed_those_of_all_photographs(data, layer):
    file = data / "weights" / "vgg19_imagenet_block1-3.npz"
    study = gram_entry(layer=layer, count=2, size=64, iterations=40, weights=file)
    encoder = Encoder((layer,), file, padding="reflect")
    paths = sorted((data / "images").glob("*.jpg"))
    assert len(paths) == 8
    photographs = [load(path).fitted(size).rgb for path in paths for size in (64, 512)]
    grams = [gram_matrix(encoder(p[None])[layer])[0].numpy() for p in photographs]
    for row in study.table:
        pair = tuple(map(int, row["entry"][2:-1].split(",")))
        assert row["image"] > 10 * row["noise"]
        assert row["image"] > max(gram[pair] for gram in grams)


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("kind", ["shuffled", "ordered"])
def test_matrices_sampled_for_a_real_painting(data, kind):
    layers = ("conv1_1", "conv2_1")
    encoder = Encoder(layers, data / "weights" / "vgg19_imagenet_block1-3.npz", padding="reflect")
    painting = load(data / "images" / "starry_night_google.jpg").fitted(128).rgb
    random_features = encoder(random_patches(128, 0)[None])
    for layer, features in encoder(painting[None]).items():
        target = gram_matrix(features)[0].numpy()
        if kind == "shuffled":
            ranking = shuffle_entries(target, 0)
        else:
            ranking = gram_matrix(random_features[layer])[0].numpy()
        comparison = compare_grams(sample_gram(target, ranking, rounds=60), target, threshold=0.1)
        assert abs(comparison.sparsity - comparison.target_sparsity) < 0.02
        assert comparison.ks_distance < 0.05
        assert comparison.smallest_eigenvalue > -1e-9
        assert min(comparison.spectrum_distance, comparison.sorted_distance) > 0.02

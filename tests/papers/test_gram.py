"""Experiments on Gram matrices: gram-entry, gram-mimic and show."""

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


def a_gram(channels=48, seed=0):
    """A Gram matrix of rectified features of which few are strong, as a network's are."""
    generator = np.random.default_rng(seed)
    features = generator.normal(-0.3, 1, (200, 12)) @ generator.normal(0, 1, (12, channels))
    features = np.maximum(features, 0) * generator.lognormal(0, 1, channels)
    return features.T @ features / 200


def permuted(matrix, seed=1):
    order = np.random.default_rng(seed).permutation(len(matrix))
    return matrix[np.ix_(order, order)]


def entry(image, pair, encoder):
    """An entry of the reference's slow Gram matrix, of the encoder's features."""
    (features,) = encoder(image[None]).values()
    return reference.gram(features[0].numpy()[..., list(pair)])[0, 1]


# Drawing matrices


@pytest.mark.parametrize("kind", ["shuffled", "ordered"])
def test_a_drawn_matrix_has_the_values_and_is_no_permutation(kind):
    target = a_gram()
    ranking = shuffle_entries(target, 3) if kind == "shuffled" else a_gram(seed=5)
    found = sample_gram(target, ranking, rounds=100)
    # The numbers, by NumPy and SciPy alone.
    np.testing.assert_allclose(found, found.T, atol=1e-9 * abs(found).max())
    eigenvalues = np.linalg.eigvalsh(found)
    assert eigenvalues[0] > -1e-9 * eigenvalues[-1]
    assert stats.ks_2samp(found.ravel(), target.ravel(), method="asymp").statistic < 0.05
    empty = 0.1 * target.mean()
    assert 0.05 < (target < empty).mean() < 0.95
    assert abs((found < empty).mean() - (target < empty).mean()) < 0.02
    spectrum = np.linalg.eigvalsh(target)
    assert np.linalg.norm(eigenvalues - spectrum) > 0.02 * np.linalg.norm(spectrum)
    by_diagonal = [m[np.ix_(*[np.argsort(np.diag(m))] * 2)] for m in (found, target)]
    assert reference.relative_error(*by_diagonal) > 0.1


def test_one_projection_is_not_enough_and_rounds_help():
    target = a_gram(96)
    once, often = (
        ks_distance(sample_gram(target, shuffle_entries(target, 0), rounds=rounds), target)
        for rounds in (1, 60)
    )
    assert often < 0.05 < once


def test_another_seed_draws_another_matrix():
    target = a_gram()
    first, second = (sample_gram(target, shuffle_entries(target, seed), rounds=30) for seed in (0, 1))
    assert compare_grams(first, second, threshold=0.1).sorted_distance > 0.1
    np.testing.assert_array_equal(first, sample_gram(target, shuffle_entries(target, 0), rounds=30))


def test_shuffling_and_remapping_keep_every_value_and_the_order():
    target, ranking = a_gram(), a_gram(seed=8)
    upper = np.triu_indices(len(target), 1)
    for found in (shuffle_entries(target, 0), match_values(ranking, target)):
        np.testing.assert_array_equal(found, found.T)
        np.testing.assert_array_equal(np.sort(np.diag(found)), np.sort(np.diag(target)))
        np.testing.assert_array_equal(np.sort(found[upper]), np.sort(target[upper]))
    found = match_values(ranking, target)
    assert stats.spearmanr(found[upper], ranking[upper]).statistic == pytest.approx(1)
    assert stats.spearmanr(np.diag(found), np.diag(ranking)).statistic == pytest.approx(1)
    assert reference.relative_error(shuffle_entries(target, 0), target) > 0.3


def test_the_projection_is_the_nearest():
    """Of a symmetric matrix with eigenvalues of both signs: the difference is the negative part alone."""
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(12, 12))
    matrix += matrix.T
    found = nearest_semidefinite(matrix)
    assert np.linalg.eigvalsh(found)[0] > -1e-12
    # The obtuse angle that marks a projection onto a convex cone: <M - P, P> = 0, <M - P, Q> <= 0.
    assert np.sum((matrix - found) * found) == pytest.approx(0, abs=1e-9)
    for _ in range(20):
        other = generator.normal(size=(12, 12))
        assert np.sum((matrix - found) * (other @ other.T)) < 1e-9
    np.testing.assert_allclose(nearest_semidefinite(found), found, atol=1e-12)


def test_a_comparison_sees_through_a_permutation():
    target = a_gram()
    same = compare_grams(permuted(target), target, threshold=0.1)
    assert same.spectrum_distance < 1e-9
    assert same.sorted_distance < 1e-9
    assert same.ks_distance == 0
    assert same.sparsity == same.target_sparsity == (target < 0.1 * target.mean()).mean()
    # The spectrum alone does not tell all: a rotation has it too.
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=target.shape))[0]
    turned = compare_grams(rotation @ target @ rotation.T, target, threshold=0.1)
    assert turned.spectrum_distance < 1e-9
    assert turned.sorted_distance > 0.1


@pytest.mark.parametrize("sizes", [(30, 30), (17, 40)])
def test_ks_distance_is_scipys(sizes):
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=sizes[0]), np.round(generator.normal(0.5, 1, sizes[1]), 1)
    expected = stats.ks_2samp(one, other).statistic
    assert ks_distance(one, other) == pytest.approx(expected, abs=1e-12)


# gram-entry


def test_entries_become_ten_times_the_noises(small_weights):
    study = gram_entry(count=2, size=32, iterations=40, tv_weight=3.0, weights=small_weights, seed=1)
    assert study.facts["layer"] == "conv2_2"  # the deepest: the weights stop below conv3_1
    encoder = Encoder(("conv2_2",), small_weights, padding="reflect")
    noise = white_noise(32, 32, seed=1)
    pairs = [tuple(map(int, row["entry"][2:-1].split(","))) for row in study.table]
    assert [i == j for i, j in pairs] == [True, True, False, False]
    assert len({i for pair in pairs for i in pair}) == 6
    for pair, panel, row in zip(pairs, study.panels, study.table, strict=True):
        begun, reached = entry(noise, pair, encoder), entry(panel.image, pair, encoder)
        assert reached > 10 * begun > 0
        assert (row["noise"], row["picture"]) == pytest.approx((begun, reached), rel=1e-4)
        assert row["ratio"] == pytest.approx(reached / begun, rel=1e-3)
        assert panel.image.min() >= 0
        assert panel.image.max() <= 1


def test_total_variation_calms_and_named_entries_are_taken(small_weights, content):
    options = {"entries": "3,3; 5,17", "size": 32, "iterations": 30, "weights": small_weights}
    loud, calm = (gram_entry(tv_weight=x, photographs=(content,), **options) for x in (0.0, 100.0))
    assert [row["entry"] for row in loud.table] == ["G[3,3]", "G[5,17]"]
    for one, other in zip(loud.panels, calm.panels, strict=True):
        assert reference.total_variation(other.image) < 0.2 * reference.total_variation(one.image)
    encoder = Encoder(("conv2_2",), small_weights, padding="reflect")
    own = [entry(load(content).fitted(s).rgb, (5, 17), encoder) for s in (32, 512)]
    assert loud.table[1]["most in a photograph"] == pytest.approx(max(own), rel=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("3;4", "pairs of channels"), ("1,2,3", "pairs of channels"), ("0,128", "0 to 127"), ("", "pairs")],
)
def test_wrong_entries_are_named(small_weights, wrong, message):
    with pytest.raises(ConfigError, match=message):
        gram_entry(entries=wrong, size=16, weights=small_weights)


def test_a_silent_entry_and_a_layer_that_is_not_there_are_named(small_weights):
    arrays = {k: a.copy() for k, a in small_weights.arrays.items()}
    arrays["block2_conv2/kernel"][..., 7] = 0
    arrays["block2_conv2/bias"][7] = -1
    silent = type(small_weights)(arrays, "silent")
    with pytest.raises(ConfigError, match="nothing moves it"):
        gram_entry(entries="7,7", size=16, weights=silent)
    with pytest.raises(WeightsError, match="conv3_1"):
        gram_entry(layer="conv3_1", size=16, weights=small_weights)


# gram-mimic


def test_mimicked_textures(small_weights, style):
    layers = ("conv1_1", "conv2_1")
    study = gram_mimic(
        style, layers=(*layers, "conv3_1"), size=32, rounds=60, iterations=15, weights=small_weights
    )
    assert "stops at conv2_2: conv3_1" in study.caption
    assert [row["layer"] for row in study.table] == [*layers] * 4
    for row in study.table:
        assert abs(row["sparsity"] - row["target sparsity"]) < 0.02
        assert row["ks distance"] < 0.05
        assert row["smallest eigenvalue"] > -1e-9
        assert min(row["spectrum distance"], row["sorted distance"]) > 0.02
    # Textures: the painting's, then two seeds of each kind, and no two alike in their Gram matrices.
    images = [panel.image for panel in study.panels[1:6]]
    encoder = Encoder(layers, small_weights, padding="reflect")
    grams = [{k: reference.gram(f[0].numpy()) for k, f in encoder(i[None]).items()} for i in images]
    for one, other in ((1, 2), (3, 4)):
        apart = np.mean([reference.relative_error(grams[one][k], grams[other][k]) ** 2 for k in layers])
        assert apart > 0.02
        kind = "shuffled" if one == 1 else "ordered"
        reverse = np.mean([reference.relative_error(grams[other][k], grams[one][k]) ** 2 for k in layers])
        assert study.facts["apart"][kind] in (
            pytest.approx(apart, rel=1e-2),
            pytest.approx(reverse, rel=1e-2),
        )


def test_the_textures_own_matrices_are_nearer_than_the_noises(small_weights, style):
    study = gram_mimic(style, layers=("conv1_1",), size=32, seeds=(4,), iterations=80, weights=small_weights)
    encoder = Encoder(("conv1_1",), small_weights, padding="reflect")
    painting, own = study.panels[:2]
    grams = [
        reference.gram(encoder(i[None])["conv1_1"][0].numpy())
        for i in (painting.image, own.image, white_noise(32, 32))
    ]
    assert reference.relative_error(grams[1], grams[0]) < 0.1 * reference.relative_error(grams[2], grams[0])
    assert study.facts["apart"] == {}
    assert len(study.rows) == 2


def test_random_images_are_patches_and_differ():
    pictures = [random_patches(48, seed) for seed in range(6)]
    for one, other in itertools.pairwise(pictures):
        assert one.shape == (48, 48, 3)
        assert one.dtype == np.float32
        assert abs(one - other).mean() > 0.05

    def roughness(image):
        """How neighbours differ, as part of how pixels far apart do: 1 for white noise."""
        return abs(image[:, 1:] - image[:, :-1]).mean() / abs(image[:, 24:] - image[:, :24]).mean()

    assert roughness(white_noise(48, 48)) == pytest.approx(1, abs=0.05)
    found = [roughness(picture) for picture in pictures]
    assert max(found) < 0.8
    assert np.mean(found) < 0.6


# show


def test_show_has_the_matrices_their_spectra_and_the_strongest_channels(small_weights, content):
    said = []
    study = show(
        content, layers=("conv1_1", "conv2_2", "conv4_1"), channels=2, size=40, weights=small_weights,
        progress=said.append,
    )  # fmt: skip
    assert "stops at conv2_2: conv4_1" in study.caption
    assert [line.partition(":")[0] for line in said] == ["conv1_1", "conv2_2"]
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
        assert row["silent"] == (np.diag(gram) == 0).sum()
        strongest = int(np.diag(gram).argmax())
        panel = panels[f"{layer}, channel {strongest}"]
        # The map's brightest place is where the channel answers most.
        assert panel.image.shape[:2] == features.shape[:2]
        bright = panel.image.sum(-1)
        assert bright[np.unravel_index(features[..., strongest].argmax(), bright.shape)] == bright.max()
        matrix = panels[f"{layer}, Gram matrix"].image
        assert matrix.shape[:2] == gram.shape
        np.testing.assert_array_equal(matrix, matrix.transpose(1, 0, 2))


def test_heat_is_brighter_for_more():
    values = np.array([[0.0, 1e-3, 1e-2], [0.1, 0.5, 1.0]])
    for decades in (None, 3.0):
        light = heat_map(values, decades=decades).sum(-1).ravel()
        assert (np.diff(light) >= 0).all()
        assert light[-1] - light[0] > 1
    logarithmic = heat_map(values, decades=3.0).sum(-1)
    assert logarithmic[0, 2] > heat_map(values).sum(-1)[0, 2] + 0.3
    assert logarithmic[0, 0] == logarithmic[0, 1]  # both at the bottom of three decades
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


# With VGG-19's real weights, on real pictures


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("layer", ["conv2_1", "conv3_1"])
def test_entries_exceed_those_of_all_photographs(data, layer):
    file = data / "weights" / "vgg19_imagenet_block1-3.npz"
    study = gram_entry(layer=layer, count=2, size=64, iterations=40, weights=file)
    encoder = Encoder((layer,), file, padding="reflect")
    pictures = sorted((data / "images").glob("*.jpg"))
    assert len(pictures) == 8
    photographs = [load(path).fitted(size).rgb for path in pictures for size in (64, 512)]
    grams = [gram_matrix(encoder(p[None])[layer])[0].numpy() for p in photographs]
    for row in study.table:
        pair = tuple(map(int, row["entry"][2:-1].split(",")))
        assert row["picture"] > 10 * row["noise"]
        assert row["picture"] > max(gram[pair] for gram in grams)


@pytest.mark.weights
@pytest.mark.parametrize("kind", ["shuffled", "ordered"])
def test_matrices_drawn_like_a_real_paintings(data, kind):
    layers = ("conv1_1", "conv2_1")
    encoder = Encoder(layers, data / "weights" / "vgg19_imagenet_block1-3.npz", padding="reflect")
    painting = load(data / "images" / "starry_night_google.jpg").fitted(128).rgb
    orders = encoder(random_patches(128, 0)[None])
    for layer, features in encoder(painting[None]).items():
        target = gram_matrix(features)[0].numpy()
        ranking = shuffle_entries(target, 0) if kind == "shuffled" else gram_matrix(orders[layer])[0].numpy()
        found = compare_grams(sample_gram(target, ranking, rounds=60), target, threshold=0.1)
        assert abs(found.sparsity - found.target_sparsity) < 0.02
        assert found.ks_distance < 0.05
        assert found.smallest_eigenvalue > -1e-9
        assert min(found.spectrum_distance, found.sorted_distance) > 0.02

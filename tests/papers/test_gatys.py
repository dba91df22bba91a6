"""Tests of the experiments of Gatys, Ecker, Bethge, with a small encoder and with VGG-19."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from tests import reference
from tests.conftest import make_image
from tfstyle.cli.parser import main
from tfstyle.errors import ConfigError
from tfstyle.papers import recipe
from tfstyle.papers.descent import lowest_so_far, white_noise
from tfstyle.papers.distances import DistanceMeasure
from tfstyle.papers.gatys import layers, photo, starts, tradeoff
from tfstyle.papers.image_pairs import read_image_pair
from tfstyle.papers.reconstruction import reconstruct
from tfstyle.papers.study import Panel
from tfstyle.papers.textures import measure_seam, texture, texture_shape

NAMES = ("conv1_1", "conv1_2", "conv2_1", "conv2_2")


@pytest.fixture(scope="module")
def style_image():
    """An image with edges in several directions."""
    y, x = np.mgrid[0:32, 0:40] / 40
    image = make_image(32, 40, seed=5)
    stripes = (5 * x + 3 * y + np.sin(6 * y) / 2) % 1 < 0.4
    return np.where(stripes[..., None], 1 - image, 0.6 * image).astype(np.float32)


@pytest.mark.parametrize("name", ["reconstruct", "texture", "tradeoff", "layers", "starts", "photo"])
def test_recipe_returns_the_function_of_that_name(name):
    assert recipe(name).__name__ == name


def test_the_lowest_loss_so_far_ignores_nan():
    assert lowest_so_far([3.0, 4.0, float("nan"), 1.0, 2.0]) == [3.0, 3.0, 3.0, 1.0, 1.0]


# Reconstructions


def test_shallow_layers_reproduce_the_pixels(small_weights, content):
    progress = []
    study = reconstruct(
        content,
        layers=("conv1_1", "conv2_2", "conv3_1"),
        size=32,
        weights=small_weights,
        progress=progress.append,
    )
    original, *reconstructions = study.panels
    assert [panel.title for panel in reconstructions] == ["conv1_1", "conv2_2"]
    assert "end at conv2_2: conv3_1" in study.caption
    assert "our reading" in study.caption.lower()
    assert len(progress) == 2
    assert max(original.image.shape) == 32
    start = white_noise(*original.image.shape[:2], seed=0, deviation=0.15)
    features = [reference.features(image, small_weights.arrays, 4) for image in (original.image, start)]
    for panel, row, index in zip(reconstructions, study.table, (0, 3), strict=True):
        after = reference.features(panel.image, small_weights.arrays, 4)[index]
        first, last = (reference.content_loss(f, features[0][index]) for f in (features[1][index], after))
        assert row["loss at the start"] == pytest.approx(first, rel=1e-3)
        assert row["lowest loss"] == pytest.approx(last, rel=0.02, abs=1e-9 * first)  # float32's rounding
        assert first / last > 1000
        error = np.mean((panel.image.astype(np.float64) - original.image) ** 2)
        assert row["PSNR in dB"] == pytest.approx(10 * np.log10(1 / error), abs=1e-6)
    start_psnr = 10 * np.log10(1 / np.mean((start - original.image) ** 2))
    assert study.table[0]["PSNR in dB"] > study.table[1]["PSNR in dB"] > start_psnr


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"layers": ("conv3_1", "conv4_2")}, r"conv2_2, below conv3_1, conv4_2.*up to conv2_2"),
        ({"layers": ("conv9_1",)}, r"'conv9_1'.*conv1_1, .*conv5_4"),
        ({"iterations": 0}, r"iterations is 0.*at least 1"),
        ({"noise": float("nan")}, r"noise is nan.*0 to 10"),
    ],
)
@pytest.mark.parametrize("experiment", [reconstruct, texture])
def test_invalid_options_are_rejected(small_weights, content, experiment, options, pattern):
    with pytest.raises(ConfigError, match=pattern):
        experiment(content, weights=small_weights, **options)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.weights
def test_reconstructions_by_vgg19(data):
    """At 128 pixels and with 150 iterations, the loss falls by at least these factors."""
    study = reconstruct(
        data / "images" / "tubingen.jpg",
        layers=("conv1_2", "conv2_2", "conv3_2", "conv4_2"),
        weights=data / "weights" / "vgg19_imagenet_block1-3.npz",
    )
    assert [row["layer"] for row in study.table] == ["conv1_2", "conv2_2", "conv3_2"]
    assert all(a["PSNR in dB"] > b["PSNR in dB"] for a, b in itertools.pairwise(study.table))
    for row, factor in zip(study.table, (1000, 1000, 50), strict=True):
        assert row["first loss / lowest loss"] > factor, row["layer"]


# Textures


def mean_distance(texture, source, weights, layer_indices, padding):
    """Return the mean relative distance of Gram matrices by the reference. The source has reflect padding."""
    features = reference.features(texture, weights.arrays, 4, "avg", padding)
    source_features = reference.features(source, weights.arrays, 4, "avg", "reflect")
    pairs = [(reference.gram(features[i]), reference.gram(source_features[i])) for i in layer_indices]
    return np.mean([((g - a) ** 2).sum() / (a**2).sum() for g, a in pairs])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seamless", "layer_indices", "requested", "shape"),
    [(False, (0, 1), (41, 50), (41, 50, 3)), (True, (0, 2), (27, 37), (28, 38, 3))],
)
def test_textures_of_any_size_have_the_sources_gram_matrices(
    small_weights, style_image, seamless, layer_indices, requested, shape
):
    """The first texture matches closely, because it has more pixel values than its matrices have entries."""
    study = texture(
        style_image, layers=[NAMES[i] for i in layer_indices], height=requested[0], width=requested[1],
        seamless=seamless, iterations=60 if seamless else 250, weights=small_weights,
    )  # fmt: skip
    source, *textures = study.panels
    assert [panel.image.shape for panel in textures[:2]] == [shape] * 2
    start, padding = white_noise(*shape[:2], seed=0, deviation=0.05), "circular" if seamless else "reflect"
    for panel, row, count in zip(textures[:2], study.table, (1, 2), strict=True):
        before, after = (
            mean_distance(image, source.image, small_weights, layer_indices[:count], padding)
            for image in (start, panel.image)
        )
        assert row["distance at the start"] == pytest.approx(before, rel=1e-3)
        assert row["lowest distance"] == pytest.approx(after, rel=0.05)
        assert before / after > (30 if seamless else 1000)
    assert [panel.title for panel in textures[:2]] == ["conv1_1", f"conv1_1 .. {NAMES[layer_indices[1]]}"]
    if seamless:
        tiled = textures[2].image
        assert tiled.shape == (56, 76, 3)
        assert np.array_equal(tiled[10:38, 13:51], np.roll(textures[1].image, (-10, -13), (0, 1)))


def test_a_seamless_texture_has_no_visible_seam(style_image):
    """The differences across its edges are like those inside. Without the option they are larger."""
    edges = {}
    for flag in (True, False):
        options = {"layers": ("conv2_1",), "iterations": 60, "seamless": flag, "weights": "embedded"}
        edges[flag] = [
            measure_seam(texture(style_image, seed=seed, **options).panels[1].image) for seed in (0, 1)
        ]
    for edge in edges[True]:
        assert 0.75 < edge.edge_difference / edge.inner_difference < 1.25
        assert abs(edge.standard_deviations) < 3
    for edge in edges[False]:
        assert edge.edge_difference / edge.inner_difference > 1.25
        assert edge.standard_deviations > 3


def test_the_seam_of_known_images():
    phase = 2 * np.pi * np.arange(24) / 24
    periodic = 0.5 + 0.2 * (np.sin(3 * phase)[:, None, None] + np.cos(2 * phase)[None, :, None]) * np.ones(3)
    closed = np.concatenate([periodic, periodic[:1]])  # includes the difference across the edge
    truth = np.mean(
        [np.abs(np.diff(np.concatenate([periodic, periodic[:, :1]], 1), axis=1)).mean(),
         np.abs(np.diff(closed, axis=0)).mean()]
    )  # fmt: skip
    periodic_seam = measure_seam(periodic)
    assert periodic_seam.inner_difference == pytest.approx(truth, rel=0.03)
    assert periodic_seam.edge_difference == pytest.approx(truth, rel=0.4)
    assert abs(periodic_seam.standard_deviations) < 2
    ramp = np.linspace(0, 1, 11)[:, None, None] * np.ones((11, 8, 3))
    ramp_seam = measure_seam(ramp + 0.001 * np.random.default_rng(0).normal(size=ramp.shape))
    assert ramp_seam.edge_difference == pytest.approx(0.5, abs=0.01)  # 1 by rows, 0 by columns
    assert ramp_seam.inner_difference == pytest.approx(0.05, abs=0.01)
    assert ramp_seam.standard_deviations > 100


@pytest.mark.parametrize(
    ("requested", "layer", "seamless", "shape"),
    [
        ((None, None), "conv1_1", True, (33, 50)),
        ((None, None), "conv3_4", True, (36, 52)),
        ((None, None), "conv3_4", False, (33, 50)),
        ((40, None), "conv4_1", True, (40, 56)),
        ((None, 16), "conv4_1", True, (40, 16)),
        ((None, 16), "conv4_1", False, (33, 16)),
    ],
)
def test_height_and_width_of_textures(requested, layer, seamless, shape):
    assert texture_shape((33, 50), requested, layers=("conv1_1", layer), seamless=seamless) == shape


@pytest.mark.parametrize(
    ("requested", "pattern"),
    [((15, None), "height is 15 .*16.*conv4_1"), ((None, 0), "width is 0 .*16.*conv4_1")],
)
def test_a_height_or_width_that_is_too_small_is_rejected(requested, pattern):
    with pytest.raises(ConfigError, match=pattern):
        texture_shape((33, 50), requested, layers=("conv4_1", "conv1_1"), seamless=True)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.weights
def test_a_seamless_texture_by_vgg19(data):
    study = texture(
        data / "images" / "starry_night_google.jpg",
        layers=("conv1_1", "conv2_1", "conv3_1"),
        size=128,
        seamless=True,
        iterations=250,
        weights=data / "weights" / "vgg19_imagenet_block1-3.npz",
    )
    assert min(row["first distance / lowest distance"] for row in study.table) > 1000
    assert max(row["excess of the edge in standard deviations"] for row in study.table) < 3


def test_a_seamless_texture_on_the_command_line(tmp_path, style_image, small_file):
    Image.fromarray((style_image * 255).astype(np.uint8)).save(tmp_path / "style.png")
    options = ["--seamless", "--layers", "conv1_1,conv2_1", "--width", "21", "--iterations", "3"]
    folder = tmp_path / "out"
    style_path = str(tmp_path / "style.png")
    assert main(["texture", style_path, "--weights", str(small_file), "-o", str(folder), *options]) == 0
    (path,) = folder.glob("03_conv1_1*conv2_1.png")
    with Image.open(path) as image:
        assert image.size == (22, 32)
    assert (folder / "figure.png").is_file()
    numbers = json.loads((folder / "numbers.json").read_text())
    assert numbers["facts"]["seamless"] is True
    assert [row["layers"] for row in numbers["table"]] == ["conv1_1", "conv1_1 conv2_1"]


# Transfers


def column(study, name):
    return [row[name] for row in study.table]


def increasing(values):
    return all(a < b for a, b in itertools.pairwise(values))


def test_a_larger_ratio_reduces_the_content_distance_and_increases_the_style_distance(
    small_weights, content, style
):
    ratios = (0.01, 0.1, 1.0, 10.0)
    study = tradeoff(content, style, ratios=ratios, size=40, iterations=40, weights=small_weights)
    assert column(study, "α/β") == list(ratios)
    assert increasing(column(study, "style distance"))
    assert increasing(column(study, "content distance")[::-1])
    pair = read_image_pair(content, style, size=40, weights=small_weights)
    measure = DistanceMeasure(
        pair.content,
        pair.style,
        vgg_weights=small_weights,
        content_layers=pair.content_layers,
        style_layers=pair.style_layers,
    )
    for panel, row in zip(study.panels[2:], study.table, strict=True):
        assert measure(panel.image).style == pytest.approx(row["style distance"], rel=1e-5)
        assert measure(panel.image).content == pytest.approx(row["content distance"], rel=1e-5)
    assert "conv4_2" in study.caption
    assert "our reading" in study.caption.lower()


def test_layers_that_the_weights_do_not_reach_are_named_and_replaced(small_weights, content, style):
    pair = read_image_pair(content, style, size=40, weights=small_weights)
    assert pair.content_layers == ("conv2_1",)
    assert pair.style_layers == ("conv1_1", "conv2_1", "conv2_2")
    assert "(small) end at conv2_2: conv4_2, conv3_1, conv4_1, conv5_1." in pair.network_note
    assert pair.network_note.endswith(": conv2_1 for the content, conv2_2 for the style.")
    complete = read_image_pair(
        content,
        style,
        size=40,
        weights=small_weights,
        content_layers=("conv2_2", "conv1_2"),
        style_layers=("conv2_1", "conv1_1"),
    )
    assert complete.content_layers == ("conv2_2", "conv1_2")
    assert complete.style_layers == ("conv2_1", "conv1_1")
    assert "left out" not in complete.network_note
    assert "left out" in pair.network_note


@pytest.mark.slow
def test_layers_by_ratio(small_weights, content, style):
    """100 iterations make the distances differ by more than rounding; 25 would not."""
    study = layers(
        content, style, content_layers=("conv1_2", "conv2_2"), style_layers=("conv1_1", "conv2_1"),
        ratios=(0.01, 1.0), size=40, iterations=100, weights=small_weights,
    )  # fmt: skip
    assert [len(row) for row in study.rows] == [4, 2, 2]
    shallow, deep, *grid = study.table
    for line, other_line, layer in ((shallow, deep, "conv1_2"), (deep, shallow, "conv2_2")):
        assert line["image"] == f"content from {layer}"
        assert line[f"content {layer}"] < other_line[f"content {layer}"]
    for small_ratio, large_ratio in (grid[:2], grid[2:]):
        assert small_ratio["content conv2_2"] > large_ratio["content conv2_2"]
    assert grid[2]["style distance"] < min(grid[0]["style distance"], grid[3]["style distance"])
    assert grid[3]["image"] == "conv1_1 .. conv2_1, α/β = 1"


@pytest.mark.slow
def test_only_noise_gives_different_results(small_weights, content, style):
    options = {"size": 40, "iterations": 15, "weights": small_weights}
    study, second_study = (starts(content, style, seeds=seeds, **options) for seeds in ((0, 1), (1,)))
    assert [len(row) for row in study.rows] == [5, 3]
    assert len(study.table) == 4
    images, second_images = ({p.title: p.image for p in s.panels} for s in (study, second_study))
    for name in ("from the content", "from the style", "from noise, seed 1"):
        assert np.array_equal(images[name], second_images[name])
    names = [f"from noise, seed {seed}" for seed in range(2)]
    assert min(np.abs(images[a] - images[b]).mean() for a, b in itertools.combinations(names, 2)) > 0.01
    assert min(column(study, "content distance")) == study.table[0]["content distance"]
    assert min(column(study, "seconds")) > 0
    curves = study.rows[0][-1].series
    assert all(y == sorted(y, reverse=True) and len(x) == 15 for x, y in curves.values())
    assert {name: y[-1] for name, (_, y) in curves.items()} == dict(
        zip(column(study, "start"), column(study, "loss"), strict=True)
    )


def test_total_variation_reduces_noise_and_content_weight_the_content_distance(small_weights, content, style):
    study = photo(content, style, tv_weights=(0.0, 3.0), size=40, iterations=25, weights=small_weights)
    assert increasing(column(study, "total variation")[::-1])
    for panel, row in zip(study.panels[2:], study.table, strict=True):
        assert isinstance(panel, Panel)
        assert row["total variation"] == pytest.approx(reference.total_variation(panel.image), rel=1e-4)
    pair = read_image_pair(content, style, size=40, weights=small_weights)
    assert study.table[0]["style distance"] < pair.measure(pair.content).style / 2
    small_ratio = photo(
        content, style, content_weight=0.004, tv_weights=(0.0,), size=40, iterations=25, weights=small_weights
    )
    assert small_ratio.table[0]["content distance"] > study.table[0]["content distance"]

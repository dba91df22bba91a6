"""The experiments of Gatys, Ecker, Bethge: what their figures show, with a tiny encoder and the real one."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from tests import reference
from tests.conftest import make_picture
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
    """An image with edges at all angles."""
    y, x = np.mgrid[0:32, 0:40] / 40
    image = make_picture(32, 40, seed=5)
    stripes = (5 * x + 3 * y + np.sin(6 * y) / 2) % 1 < 0.4
    return np.where(stripes[..., None], 1 - image, 0.6 * image).astype(np.float32)


@pytest.mark.parametrize("name", ["reconstruct", "texture", "tradeoff", "layers", "starts", "photo"])
def test_each_is_found_by_its_name(name):
    assert recipe(name).__name__ == name


def test_the_lowest_loss_so_far_skips_what_is_not_a_number():
    assert lowest_so_far([3.0, 4.0, float("nan"), 1.0, 2.0]) == [3.0, 3.0, 3.0, 1.0, 1.0]


# Reconstructions


def test_low_layers_give_the_pixels_back(small_weights, content):
    said = []
    study = reconstruct(
        content,
        layers=("conv1_1", "conv2_2", "conv3_1"),
        size=32,
        weights=small_weights,
        progress=said.append,
    )
    original, *made = study.panels
    assert [panel.title for panel in made] == ["conv1_1", "conv2_2"]
    assert "stops at conv2_2: conv3_1" in study.caption
    assert "our reading" in study.caption.lower()
    assert len(said) == 2
    assert max(original.image.shape) == 32
    start = white_noise(*original.image.shape[:2], seed=0, deviation=0.15)
    features = [reference.features(image, small_weights.arrays, 4) for image in (original.image, start)]
    for panel, row, at in zip(made, study.table, (0, 3), strict=True):
        after = reference.features(panel.image, small_weights.arrays, 4)[at]
        first, last = (reference.content_loss(f, features[0][at]) for f in (features[1][at], after))
        assert row["loss at the start"] == pytest.approx(first, rel=1e-3)
        assert row["lowest loss"] == pytest.approx(last, rel=0.02, abs=1e-9 * first)  # float32's rounding
        assert first / last > 1000
        error = np.mean((panel.image.astype(np.float64) - original.image) ** 2)
        assert row["PSNR in dB"] == pytest.approx(10 * np.log10(1 / error), abs=1e-6)
    noisy = 10 * np.log10(1 / np.mean((start - original.image) ** 2))
    assert study.table[0]["PSNR in dB"] > study.table[1]["PSNR in dB"] > noisy


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": ("conv3_1", "conv4_2")}, "stops at conv2_2"),
        ({"layers": ("conv9_1",)}, "no layer 'conv9_1'"),
        ({"iterations": 0}, "iterations is 0; it must be at least 1"),
        ({"noise": float("nan")}, "noise is nan"),
    ],
)
@pytest.mark.parametrize("made_by", [reconstruct, texture])
def test_what_cannot_be_drawn_is_refused(small_weights, content, made_by, options, words):
    with pytest.raises(ConfigError, match=words):
        made_by(content, weights=small_weights, **options)


@pytest.mark.slow
@pytest.mark.weights
def test_reconstructions_by_the_real_network(data):
    """The issue's numbers, at 128 pixels in 150 evaluations."""
    study = reconstruct(
        data / "images" / "tubingen.jpg",
        layers=("conv1_2", "conv2_2", "conv3_2", "conv4_2"),
        weights=data / "weights" / "vgg19_imagenet_block1-3.npz",
    )
    assert [row["layer"] for row in study.table] == ["conv1_2", "conv2_2", "conv3_2"]
    assert all(a["PSNR in dB"] > b["PSNR in dB"] for a, b in itertools.pairwise(study.table))
    assert [row["fell by"] > bar for row, bar in zip(study.table, (1000, 1000, 50), strict=True)] == [
        True
    ] * 3


# Textures


def distance(texture, source, weights, at, padding):
    """Mean relative distance of Gram matrices in some layers, slowly; the source's borders are mirrored."""
    found = reference.features(texture, weights.arrays, 4, "avg", padding)
    wanted = reference.features(source, weights.arrays, 4, "avg", "reflect")
    pairs = [(reference.gram(found[i]), reference.gram(wanted[i])) for i in at]
    return np.mean([((g - a) ** 2).sum() / (a**2).sum() for g, a in pairs])


@pytest.mark.parametrize(
    ("seamless", "at", "wanted", "shape"),
    [(False, (0, 1), (41, 50), (41, 50, 3)), (True, (0, 2), (27, 37), (28, 38, 3))],
)
def test_textures_of_any_size_have_the_sources_gram_matrices(
    small_weights, style_image, seamless, at, wanted, shape
):
    """Nearly, where a picture has more numbers than they do, as the first has and the second has not."""
    study = texture(
        style_image, layers=[NAMES[i] for i in at], height=wanted[0], width=wanted[1], seamless=seamless,
        iterations=60 if seamless else 250, weights=small_weights,
    )  # fmt: skip
    source, *made = study.panels
    assert [panel.image.shape for panel in made[:2]] == [shape] * 2
    start, padding = white_noise(*shape[:2], seed=0, deviation=0.05), "circular" if seamless else "reflect"
    for panel, row, count in zip(made[:2], study.table, (1, 2), strict=True):
        before, after = (
            distance(image, source.image, small_weights, at[:count], padding)
            for image in (start, panel.image)
        )
        assert row["distance at the start"] == pytest.approx(before, rel=1e-3)
        assert row["lowest distance"] == pytest.approx(after, rel=0.05)
        assert before / after > (30 if seamless else 1000)
    assert [panel.title for panel in made[:2]] == ["conv1_1", f"conv1_1 .. {NAMES[at[1]]}"]
    if seamless:
        assert made[2].image.shape == (56, 76, 3)
        assert np.array_equal(made[2].image[10:38, 13:51], np.roll(made[1].image, (-10, -13), (0, 1)))


def test_the_seam_of_a_tiled_texture_is_not_seen(style_image):
    """Steps across the edge are like those inside, and without the option they are not."""
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


def test_the_seam_of_known_pictures():
    turn = 2 * np.pi * np.arange(24) / 24
    periodic = 0.5 + 0.2 * (np.sin(3 * turn)[:, None, None] + np.cos(2 * turn)[None, :, None]) * np.ones(3)
    whole = np.concatenate([periodic, periodic[:1]])  # then both axes' steps are those of all neighbours
    truth = np.mean(
        [np.abs(np.diff(np.concatenate([periodic, periodic[:, :1]], 1), axis=1)).mean(),
         np.abs(np.diff(whole, axis=0)).mean()]
    )  # fmt: skip
    even = measure_seam(periodic)
    assert even.inner_difference == pytest.approx(truth, rel=0.03)
    assert even.edge_difference == pytest.approx(truth, rel=0.4)
    assert abs(even.standard_deviations) < 2
    ramp = np.linspace(0, 1, 11)[:, None, None] * np.ones((11, 8, 3))
    edge = measure_seam(ramp + 0.001 * np.random.default_rng(0).normal(size=ramp.shape))
    assert edge.edge_difference == pytest.approx(0.5, abs=0.01)  # 1 from top to bottom, 0 from side to side
    assert edge.inner_difference == pytest.approx(0.05, abs=0.01)
    assert edge.standard_deviations > 100


@pytest.mark.parametrize(
    ("wanted", "layer", "seamless", "shape"),
    [
        ((None, None), "conv1_1", True, (33, 50)),
        ((None, None), "conv3_4", True, (36, 52)),
        ((None, None), "conv3_4", False, (33, 50)),
        ((40, None), "conv4_1", True, (40, 56)),
        ((None, 16), "conv4_1", True, (40, 16)),
        ((None, 16), "conv4_1", False, (33, 16)),
    ],
)
def test_sides_of_textures(wanted, layer, seamless, shape):
    assert texture_shape((33, 50), wanted, layers=("conv1_1", layer), seamless=seamless) == shape


@pytest.mark.parametrize(("wanted", "words"), [((15, None), "height is 15"), ((None, 0), "width is 0")])
def test_sides_too_short_are_refused(wanted, words):
    with pytest.raises(ConfigError, match=f"{words}; conv4_1 needs at least 16 pixels"):
        texture_shape((33, 50), wanted, layers=("conv4_1", "conv1_1"), seamless=True)


@pytest.mark.slow
@pytest.mark.weights
def test_a_tile_by_the_real_network(data):
    study = texture(
        data / "images" / "starry_night_google.jpg",
        layers=("conv1_1", "conv2_1", "conv3_1"),
        size=128,
        seamless=True,
        iterations=250,
        weights=data / "weights" / "vgg19_imagenet_block1-3.npz",
    )
    assert min(row["fell by"] for row in study.table) > 1000
    assert max(row["above inside, in deviations"] for row in study.table) < 3


def test_a_tile_on_the_command_line(tmp_path, style_image, small_file):
    Image.fromarray((style_image * 255).astype(np.uint8)).save(tmp_path / "style.png")
    flags = ["--seamless", "--layers", "conv1_1,conv2_1", "--width", "21", "--iterations", "3"]
    folder = tmp_path / "out"
    given = ["texture", str(tmp_path / "style.png"), "--weights", str(small_file), "-o", str(folder), *flags]
    assert main(given) == 0
    (path,) = folder.glob("03_conv1_1*conv2_1.png")
    with Image.open(path) as made:
        assert made.size == (22, 32)
    assert (folder / "figure.png").is_file()
    numbers = json.loads((folder / "numbers.json").read_text())
    assert numbers["facts"]["seamless"] is True
    assert [row["layers"] for row in numbers["table"]] == ["conv1_1", "conv1_1 conv2_1"]


# Transfers


def column(study, name):
    return [row[name] for row in study.table]


def rising(values):
    return all(a < b for a, b in itertools.pairwise(values))


def test_along_the_trade_off_content_falls_and_style_rises(small_weights, content, style):
    ratios = (0.04, 0.4, 4.0, 40.0)  # conv2_1 stands in for conv4_2: a position is 4 pixels, not 64
    study = tradeoff(content, style, ratios=ratios, size=40, iterations=40, weights=small_weights)
    assert column(study, "α/β") == list(ratios)
    assert rising(column(study, "style distance"))
    assert rising(column(study, "content distance")[::-1])
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


def test_layers_that_the_weights_lack_are_named_and_replaced(small_weights, content, style):
    pair = read_image_pair(content, style, size=40, weights=small_weights)
    assert pair.content_layers == ("conv2_1",)
    assert pair.style_layers == ("conv1_1", "conv2_1", "conv2_2")
    assert "Left out, as small stops at conv2_2: conv4_2, conv3_1, conv4_1, conv5_1." in pair.network_note
    assert pair.network_note.endswith("Instead: conv2_1 for the content, conv2_2 for the style.")
    whole = read_image_pair(
        content,
        style,
        size=40,
        weights=small_weights,
        content_layers=("conv2_2", "conv1_2"),
        style_layers=("conv2_1", "conv1_1"),
    )
    assert whole.content_layers == ("conv2_2", "conv1_2")
    assert whole.style_layers == ("conv2_1", "conv1_1")
    assert "Left out" not in whole.network_note


def test_layers_by_ratio(small_weights, content, style):
    """In 100 iterations: in 25 the style had hardly begun, and rounding decided which was nearer."""
    study = layers(
        content, style, content_layers=("conv1_2", "conv2_2"), style_layers=("conv1_1", "conv2_1"),
        ratios=(0.01, 1.0), size=40, iterations=100, weights=small_weights,
    )  # fmt: skip
    assert [len(row) for row in study.rows] == [4, 2, 2]
    low, deep, *grid = study.table
    for one, other, layer in ((low, deep, "conv1_2"), (deep, low, "conv2_2")):
        assert one["picture"] == f"content from {layer}"
        assert one[f"content {layer}"] < other[f"content {layer}"]
    for loose, tight in (grid[:2], grid[2:]):
        assert loose["content conv2_2"] > tight["content conv2_2"]
    assert grid[2]["style distance"] < min(grid[0]["style distance"], grid[3]["style distance"])
    assert grid[3]["picture"] == "conv1_1 .. conv2_1, α/β = 1"


def test_only_noise_gives_more_than_one_picture(small_weights, content, style):
    options = {"size": 40, "iterations": 15, "weights": small_weights}
    study, again = (starts(content, style, seeds=seeds, **options) for seeds in ((0, 1), (1,)))
    assert [len(row) for row in study.rows] == [5, 3]
    assert len(study.table) == 4
    images, others = ({p.title: p.image for p in s.panels} for s in (study, again))
    for name in ("from the content", "from the style", "from noise, seed 1"):
        assert np.array_equal(images[name], others[name])
    names = [f"from noise, seed {seed}" for seed in range(2)]
    assert min(np.abs(images[a] - images[b]).mean() for a, b in itertools.combinations(names, 2)) > 0.01
    assert min(column(study, "content distance")) == study.table[0]["content distance"]
    assert min(column(study, "seconds")) > 0
    curves = study.rows[0][-1].series
    assert all(y == sorted(y, reverse=True) and len(x) == 15 for x, y in curves.values())
    assert {name: y[-1] for name, (_, y) in curves.items()} == dict(
        zip(column(study, "start"), column(study, "loss"), strict=True)
    )


def test_photographs_with_less_noise(small_weights, content, style):
    study = photo(content, style, tv_weights=(0.0, 3.0), size=40, iterations=25, weights=small_weights)
    assert rising(column(study, "mean squared step")[::-1])
    for panel, row in zip(study.panels[2:], study.table, strict=True):
        assert isinstance(panel, Panel)
        assert row["mean squared step"] == pytest.approx(reference.total_variation(panel.image), rel=1e-4)
    pair = read_image_pair(content, style, size=40, weights=small_weights)
    assert study.table[0]["style distance"] < pair.measure(pair.content).style / 2
    loose = photo(
        content, style, content_weight=0.004, tv_weights=(0.0,), size=40, iterations=25, weights=small_weights
    )
    assert loose.table[0]["content distance"] > study.table[0]["content distance"]

"""One pair through several networks, and through several partitions into content and style layers."""

import dataclasses

import keras
import numpy as np
import pytest

from tfstyle import Encoder
from tfstyle.errors import ConfigError, WeightsError
from tfstyle.network import weights
from tfstyle.papers.applications import APPLICATIONS, network
from tfstyle.papers.judging import Judge, in_rows, read_pair, there
from tfstyle.papers.network_comparison import networks, partition
from tfstyle.papers.study import Panel

SMALL = {"size": 48, "iterations": 12}


@pytest.fixture
def offline(monkeypatch):
    """Keras has no weights to give, and no network is asked."""

    def refuse(*_, **__):
        raise OSError("no network here")

    monkeypatch.setattr(keras.utils, "get_file", refuse)
    for name, one in APPLICATIONS.items():
        make = one.make

        def without(*, weights, make=make, **options):
            return refuse() if weights == "imagenet" else make(weights=weights, **options)

        monkeypatch.setitem(APPLICATIONS, name, one._replace(make=without))


def relative(found, target):
    """``Σ (found - target)² / Σ target²`` in float64."""
    found, target = (np.asarray(x, np.float64) for x in (found, target))
    return ((found - target) ** 2).sum() / (target**2).sum()


def test_the_judge_measures_relative_gram_and_feature_distances(small_weights, content, style):
    judge = Judge(content, style, small_weights, ("conv1_2", "conv2_2"), ("conv1_1", "conv2_1"))
    picture = np.random.default_rng(0).uniform(size=content.shape).astype(np.float32)
    found = judge(picture)
    encoder = Encoder(
        ("conv1_1", "conv1_2", "conv2_1", "conv2_2"), small_weights, pooling="max", padding="reflect"
    )
    seen = {name: encoder(image[None]) for name, image in zip("pcs", (picture, content, style), strict=True)}
    for layer, value in found.styles.items():
        grams = []
        for name in "ps":
            rows = seen[name][layer].numpy().astype(np.float64).reshape(-1, seen[name][layer].shape[-1])
            grams.append(rows.T @ rows / len(rows))
        assert value == pytest.approx(relative(*grams), rel=1e-4)
    for layer, value in found.contents.items():
        assert value == pytest.approx(relative(seen["p"][layer], seen["c"][layer]), rel=1e-4)
    assert found.style == pytest.approx(np.mean(list(found.styles.values())))
    assert judge(content).content == 0
    assert Judge(style, style, small_weights, ("conv1_1",), ("conv1_1",))(style).style == 0


def test_layers_that_the_weights_do_not_reach_are_named(small_weights):
    assert there(small_weights, ("conv1_1", "conv2_2")) == (("conv1_1", "conv2_2"), "")
    kept, words = there(small_weights, ("conv1_1", "conv4_2", "conv5_1"))
    assert kept == ("conv1_1",)
    assert words == "Left out, as small stops at conv2_2: conv4_2, conv5_1."
    with pytest.raises(ConfigError, match="stops at conv2_2"):
        there(small_weights, ("conv4_2",))
    with pytest.raises(ConfigError, match="no layer 'conv9_1'"):
        there(small_weights, ("conv9_1",))


def test_both_images_come_at_the_size(content, style):
    one, other = read_pair(content, style, 28)
    assert one.shape == (20, 28, 3)
    assert max(other.shape) == 28


def test_rows_are_filled_with_blanks():
    panel = Panel(np.zeros((1, 1, 3)), "a")
    assert in_rows([panel] * 5, 3) == ((panel, panel, panel), (panel, panel, None))


@pytest.mark.parametrize("name", APPLICATIONS)
def test_layers_of_other_networks_have_the_strides_of_vggs_blocks(name):
    found = network(name, "random", 5)
    features = found.encoder(np.zeros((1, 64, 96, 3), np.float32))
    assert [tuple(f.shape[1:3]) for f in features.values()] == [(64 // s, 96 // s) for s in (2, 4, 8, 16)]
    assert found.content_layers == (found.style_layers[2],)  # stride 8, as conv4_2
    assert network(name, "random", 3).style_layers == found.style_layers[:2]
    assert network(name, "random", 3).content_layers == found.style_layers[1:2]


def test_random_weights_are_the_same_every_time():
    image = np.random.default_rng(0).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    one, other = (network("mobilenet_v3_small", "random", 3).encoder(image) for _ in range(2))
    for layer, features in one.items():
        np.testing.assert_array_equal(features, other[layer])
        assert features.numpy().std() > 0


def test_vgg16_looks_no_deeper_than_vgg19s_weights():
    found = network("vgg16", "random", 2)
    assert found.encoder.layers == ("conv1_1", "conv2_1", "conv2_2")
    assert found.encoder.network == "vgg16"
    assert found.style_layers == ("conv1_1", "conv2_1", "conv2_2")


@pytest.mark.usefixtures("offline")
def test_only_auto_falls_back_on_random_weights(small_weights):
    assert network("mobilenet_v3_small", "auto", 3).weights == "random"
    with pytest.raises(WeightsError, match="no network here"):
        network("mobilenet_v3_small", "imagenet", 3)
    with pytest.raises(ConfigError, match="keras_weights is 'mine'"):
        network("mobilenet_v3_small", "mine", 3)
    with pytest.raises(ConfigError, match="no network 'alexnet'"):
        network("alexnet", "auto", 3)
    assert network("vgg19", small_weights, 2).weights == "small"


@pytest.mark.usefixtures("offline")
def test_networks_beside_each_other(small_file, content, style):
    said = []
    names = ("vgg19", "vgg16", "mobilenet_v3_small")
    study = networks(
        content, style, weights=str(small_file), vgg16_weights="random", names=names,
        progress=said.append, **SMALL,
    )  # fmt: skip
    assert [panel.title for panel in study.panels] == ["content", "style", *names]
    assert [line.split(":")[0] for line in said] == list(names)
    lines = {line["network"]: line for line in study.table}
    untouched = lines["the content itself"]
    # What VGG-19 minimises is what is judged: it gets nearest, and nearer than the content by far.
    nearest = min(lines.values(), key=lambda line: line["style distance"])
    assert nearest["network"] == "vgg19"
    assert nearest["style distance"] < 0.3 * untouched["style distance"]
    assert untouched["content distance"] == 0
    for name in names:
        assert lines[name]["own loss, lowest"] < 0.5 * lines[name]["own loss, first"]
        assert lines[name]["seconds"] > 0
    # The table says of the pictures what the judge does.
    loaded = weights.load_weights(small_file)
    images = read_pair(content, style, SMALL["size"])
    judge = Judge(*images, loaded, ("conv2_1",), ("conv1_1", "conv2_1", "conv2_2"))
    found = judge({panel.title: panel.image for panel in study.panels}["vgg16"])
    assert found.style == pytest.approx(lines["vgg16"]["style distance"], rel=1e-4)
    assert found.content == pytest.approx(lines["vgg16"]["content distance"], rel=1e-4)
    for words in (
        "Our reading",
        "Left out",
        "conv5_1",
        "Weights are random in vgg16, mobilenet_v3_small, as no",
    ):
        assert words in study.caption


def test_an_unknown_network_is_refused_before_anything_is_read(small_file):
    with pytest.raises(ConfigError, match="no network 'vgg11'"):
        networks("no such file", "nor this", weights=str(small_file), names=("vgg11",))


def test_a_partition_is_a_grid_of_content_and_style_layers(small_file, content, style):
    study = partition(
        content, style, weights=str(small_file), content_layers=("conv1_2", "conv2_2", "conv4_2"),
        precision="float32", **SMALL,
    )  # fmt: skip
    titles = [[panel.title for panel in row] for row in study.rows[:-1]]
    sets = ("conv1_1", "conv2_1", "conv1_1 .. conv2_1")
    assert titles == [[f"{row} | {columns}" for columns in sets] for row in ("conv1_2", "conv2_2")]
    lines = {(line["content layer"], line["style layers"]): line for line in study.table}
    untouched = lines["the content itself", ""]
    for row in ("conv1_2", "conv2_2"):
        low, high, both = (lines[row, chosen] for chosen in ("conv1_1", "conv2_1", "conv1_1 conv2_1"))
        # A layer that is fitted comes nearer than it does when another one is.
        assert low["style at conv1_1"] < high["style at conv1_1"]
        assert high["style at conv2_1"] < low["style at conv2_1"]
        assert both["style distance"] < 0.3 * untouched["style distance"]
        for line in (low, high, both):
            mean = np.mean([line["style at conv1_1"], line["style at conv2_1"]])
            assert line["style distance"] == pytest.approx(mean)
            assert line["content distance"] > 0
            assert line["seconds"] > 0
    for words in ("Our reading", "Left out, as", "conv3_1, conv4_1, conv5_1, conv4_2"):
        assert words in study.caption
    # The curves are the table's numbers.
    fitted, paid = study.rows[-1][2:]
    assert fitted.series["conv1_1"][1] == [lines["conv2_2", "conv1_1"][f"style at conv{i}_1"] for i in (1, 2)]
    assert paid.series["conv1_2"][0][-1] == lines["conv1_2", "conv1_1 conv2_1"]["content distance"]


def test_a_partition_needs_layers_that_are_there(small_file, content, style):
    with pytest.raises(ConfigError, match="stops at conv2_2, below conv4_2"):
        partition(content, style, weights=str(small_file), content_layers=("conv4_2",))


@pytest.mark.weights
@pytest.mark.slow
def test_deep_style_layers_carry_more_of_a_paintings_style(data):
    """With VGG-19's own weights: nested sets come nearer and nearer, and leave less of the content."""
    images = [data / "images" / name for name in ("tubingen.jpg", "starry_night_google.jpg")]
    study = partition(
        *images, weights=str(data / "weights" / "vgg19_imagenet_block1-3.npz"), content_layers=("conv3_2",),
        size=96, iterations=25, precision="float32",
    )  # fmt: skip
    lines = {line["style layers"]: line for line in study.table}
    nested = [lines[x] for x in ("conv1_1", "conv1_1 conv2_1", "conv1_1 conv2_1 conv3_1")]
    styles, contents = ([line[key] for line in nested] for key in ("style distance", "content distance"))
    assert styles == sorted(styles, reverse=True)
    assert contents == sorted(contents)
    assert styles[-1] < 0.1 * lines[""]["style distance"]


def test_weights_of_one_block_have_no_stride_of_another_networks(small_weights):
    first = {k: a for k, a in small_weights.arrays.items() if k.startswith("block1")}
    loaded = dataclasses.replace(small_weights, arrays=first)
    assert loaded.layers[-1].block == 1
    with pytest.raises(ConfigError, match="block 1"):
        network("resnet50", "random", 1)

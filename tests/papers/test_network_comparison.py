"""One pair through several networks, and through several partitions into content and style layers."""

import dataclasses

import keras
import numpy as np
import pytest

from tfstyle import Encoder
from tfstyle.errors import ConfigError, WeightsError
from tfstyle.layers import NETWORKS
from tfstyle.network import load_weights
from tfstyle.papers import COMPARED_NETWORKS
from tfstyle.papers.applications import APPLICATIONS, load_network
from tfstyle.papers.distances import DistanceMeasure
from tfstyle.papers.image_pairs import read_images
from tfstyle.papers.network_comparison import networks, partition
from tfstyle.papers.study import Panel, panel_rows
from tfstyle.papers.vgg_encoders import available_layers

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


def test_the_measure_has_relative_gram_and_feature_distances(small_weights, content, style):
    measure = DistanceMeasure(
        content,
        style,
        vgg_weights=small_weights,
        content_layers=("conv1_2", "conv2_2"),
        style_layers=("conv1_1", "conv2_1"),
    )
    image = np.random.default_rng(0).uniform(size=content.shape).astype(np.float32)
    found = measure(image)
    encoder = Encoder(
        ("conv1_1", "conv1_2", "conv2_1", "conv2_2"), small_weights, pooling="avg", padding="reflect"
    )
    seen = {name: encoder(array[None]) for name, array in zip("pcs", (image, content, style), strict=True)}
    for layer, value in found.style_by_layer.items():
        grams = []
        for name in "ps":
            rows = seen[name][layer].numpy().astype(np.float64).reshape(-1, seen[name][layer].shape[-1])
            grams.append(rows.T @ rows / len(rows))
        assert value == pytest.approx(relative(*grams), rel=1e-4)
    for layer, value in found.content_by_layer.items():
        assert value == pytest.approx(relative(seen["p"][layer], seen["c"][layer]), rel=1e-4)
    assert found.style == pytest.approx(np.mean(list(found.style_by_layer.values())))
    assert measure(content).content == 0
    layers = {"content_layers": ("conv1_1",), "style_layers": ("conv1_1",)}
    assert DistanceMeasure(style, style, vgg_weights=small_weights, **layers)(style).style == 0


def test_layers_that_the_weights_do_not_reach_are_named(small_weights):
    assert available_layers(small_weights, ("conv1_1", "conv2_2")) == (("conv1_1", "conv2_2"), "")
    available, words = available_layers(small_weights, ("conv1_1", "conv4_2", "conv5_1"))
    assert available == ("conv1_1",)
    assert words == "Left out, as small stops at conv2_2: conv4_2, conv5_1."
    with pytest.raises(ConfigError, match="stops at conv2_2"):
        available_layers(small_weights, ("conv4_2",))
    with pytest.raises(ConfigError, match="no layer 'conv9_1'"):
        available_layers(small_weights, ("conv9_1",))


def test_both_images_come_at_the_size(content, style):
    one, other = read_images(content, style, size=28)
    assert one.shape == (20, 28, 3)
    assert max(other.shape) == 28


def test_rows_are_filled_with_blanks():
    panel = Panel(np.zeros((1, 1, 3)), "a")
    assert panel_rows([panel] * 5, 3) == ((panel, panel, panel), (panel, panel, None))


def test_the_names_of_all_networks_are_known_without_them():
    assert (*NETWORKS, *APPLICATIONS) == COMPARED_NETWORKS


@pytest.mark.parametrize("name", APPLICATIONS)
def test_layers_of_other_networks_have_the_strides_of_vggs_blocks(name):
    found = load_network(name, "random", blocks=5)
    features = found.encoder(np.zeros((1, 64, 96, 3), np.float32))
    assert [tuple(f.shape[1:3]) for f in features.values()] == [(64 // s, 96 // s) for s in (2, 4, 8, 16)]
    assert found.content_layers == (found.style_layers[2],)  # stride 8, as conv4_2
    assert load_network(name, "random", blocks=3).style_layers == found.style_layers[:2]
    assert load_network(name, "random", blocks=3).content_layers == found.style_layers[1:2]


def test_random_weights_are_the_same_every_time():
    image = np.random.default_rng(0).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    one, other = (load_network("mobilenet_v3_small", "random", blocks=3).encoder(image) for _ in range(2))
    for layer, features in one.items():
        np.testing.assert_array_equal(features, other[layer])
        assert features.numpy().std() > 0


def test_vgg16_looks_no_deeper_than_vgg19s_weights():
    found = load_network("vgg16", "random", blocks=2)
    assert found.encoder.layers == ("conv1_1", "conv2_1", "conv2_2")
    assert found.encoder.network == "vgg16"
    assert found.style_layers == ("conv1_1", "conv2_1", "conv2_2")


@pytest.mark.usefixtures("offline")
def test_only_auto_falls_back_on_random_weights(small_weights):
    assert load_network("mobilenet_v3_small", "auto", blocks=3).weights_source == "random"
    with pytest.raises(WeightsError, match="no network here"):
        load_network("mobilenet_v3_small", "imagenet", blocks=3)
    with pytest.raises(ConfigError, match="keras_weights is 'mine'"):
        load_network("mobilenet_v3_small", "mine", blocks=3)
    with pytest.raises(ConfigError, match="no network 'alexnet'"):
        load_network("alexnet", "auto", blocks=3)
    assert load_network("vgg19", small_weights, blocks=2).weights_source == "small"


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
    # The table says of the images what the measure does.
    loaded = load_weights(small_file)
    images = read_images(content, style, size=SMALL["size"])
    measure = DistanceMeasure(
        *images,
        vgg_weights=loaded,
        content_layers=("conv2_1",),
        style_layers=("conv1_1", "conv2_1", "conv2_2"),
    )
    found = measure({panel.title: panel.image for panel in study.panels}["vgg16"])
    assert found.style == pytest.approx(lines["vgg16"]["style distance"], rel=1e-4)
    assert found.content == pytest.approx(lines["vgg16"]["content distance"], rel=1e-4)
    for words in (
        "Our reading",
        "Left out",
        "average pooling",
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
    for words in ("Our reading", "average pooling", "Left out, as", "conv3_1, conv4_1, conv5_1, conv4_2"):
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
        load_network("resnet50", "random", blocks=1)

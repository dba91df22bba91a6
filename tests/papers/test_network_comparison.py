"""Tests of the comparisons of networks and of partitions into content layers and style layers."""

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
    """Every download of Keras' weights fails, without a connection."""

    def fail(*_, **__):
        raise OSError("no connection")

    monkeypatch.setattr(keras.utils, "get_file", fail)
    for name, application in APPLICATIONS.items():
        make = application.make

        def make_offline(*, weights, make=make, **options):
            return fail() if weights == "imagenet" else make(weights=weights, **options)

        monkeypatch.setitem(APPLICATIONS, name, application._replace(make=make_offline))


def relative_distance(values, target):
    """Return ``Σ (values - target)² / Σ target²`` in float64."""
    values, target = (np.asarray(x, np.float64) for x in (values, target))
    return ((values - target) ** 2).sum() / (target**2).sum()


def test_the_measure_has_relative_gram_and_feature_distances(small_weights, content, style):
    measure = DistanceMeasure(
        content,
        style,
        vgg_weights=small_weights,
        content_layers=("conv1_2", "conv2_2"),
        style_layers=("conv1_1", "conv2_1"),
    )
    image = np.random.default_rng(0).uniform(size=content.shape).astype(np.float32)
    distances = measure(image)
    encoder = Encoder(
        ("conv1_1", "conv1_2", "conv2_1", "conv2_2"), small_weights, pooling="avg", padding="reflect"
    )
    image_features, content_features, style_features = (encoder(x[None]) for x in (image, content, style))
    for layer, value in distances.style_by_layer.items():
        grams = []
        for features in (image_features[layer], style_features[layer]):
            rows = features.numpy().astype(np.float64).reshape(-1, features.shape[-1])
            grams.append(rows.T @ rows / len(rows))
        assert value == pytest.approx(relative_distance(*grams), rel=1e-4)
    for layer, value in distances.content_by_layer.items():
        expected = relative_distance(image_features[layer], content_features[layer])
        assert value == pytest.approx(expected, rel=1e-4)
    assert distances.style == pytest.approx(np.mean(list(distances.style_by_layer.values())))
    assert measure(content).content == 0
    layers = {"content_layers": ("conv1_1",), "style_layers": ("conv1_1",)}
    assert DistanceMeasure(style, style, vgg_weights=small_weights, **layers)(style).style == 0


def test_layers_that_the_weights_do_not_reach_are_named(small_weights):
    assert available_layers(small_weights, ("conv1_1", "conv2_2")) == (("conv1_1", "conv2_2"), "")
    available, sentence = available_layers(small_weights, ("conv1_1", "conv4_2", "conv5_1"))
    assert available == ("conv1_1",)
    assert "(small) end at conv2_2: conv4_2, conv5_1." in sentence
    with pytest.raises(ConfigError, match=r"small.*conv2_2.*conv4_2.*up to conv2_2"):
        available_layers(small_weights, ("conv4_2",))
    with pytest.raises(ConfigError, match=r"vgg19.*'conv9_1'.*conv1_1, .*conv5_4"):
        available_layers(small_weights, ("conv9_1",))


def test_both_images_are_resized(content, style):
    content_image, style_image = read_images(content, style, size=28)
    assert content_image.shape == (20, 28, 3)
    assert max(style_image.shape) == 28


def test_rows_are_filled_with_none():
    panel = Panel(np.zeros((1, 1, 3)), "a")
    assert panel_rows([panel] * 5, 3) == ((panel, panel, panel), (panel, panel, None))


def test_compared_networks_names_all_networks():
    assert (*NETWORKS, *APPLICATIONS) == COMPARED_NETWORKS


@pytest.mark.parametrize("name", APPLICATIONS)
def test_layers_of_other_networks_have_the_strides_of_vggs_blocks(name):
    network = load_network(name, "random", blocks=5)
    features = network.encoder(np.zeros((1, 64, 96, 3), np.float32))
    assert [tuple(f.shape[1:3]) for f in features.values()] == [(64 // s, 96 // s) for s in (2, 4, 8, 16)]
    assert network.content_layers == (network.style_layers[2],)  # stride 8, the stride of conv4_2
    assert load_network(name, "random", blocks=3).style_layers == network.style_layers[:2]
    assert load_network(name, "random", blocks=3).content_layers == network.style_layers[1:2]


def test_random_weights_are_the_same_every_time():
    image = np.random.default_rng(0).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    first, second = (load_network("mobilenet_v3_small", "random", blocks=3).encoder(image) for _ in range(2))
    for layer, features in first.items():
        np.testing.assert_array_equal(features, second[layer])
        assert features.numpy().std() > 0


def test_vgg16_uses_no_deeper_block_than_vgg19():
    network = load_network("vgg16", "random", blocks=2)
    assert network.encoder.layers == ("conv1_1", "conv2_1", "conv2_2")
    assert network.encoder.network == "vgg16"
    assert network.style_layers == ("conv1_1", "conv2_1", "conv2_2")


@pytest.mark.usefixtures("offline")
def test_only_auto_falls_back_on_random_weights(small_weights):
    assert load_network("mobilenet_v3_small", "auto", blocks=3).weights_source == "random"
    with pytest.raises(WeightsError, match=r"no connection.*keras_weights.*random"):
        load_network("mobilenet_v3_small", "imagenet", blocks=3)
    with pytest.raises(ConfigError, match=r"keras_weights.*'mine'.*auto, imagenet, random"):
        load_network("mobilenet_v3_small", "mine", blocks=3)
    with pytest.raises(ConfigError, match=r"'alexnet'.*vgg19, vgg16"):
        load_network("alexnet", "auto", blocks=3)
    assert load_network("vgg19", small_weights, blocks=2).weights_source == "small"


@pytest.mark.usefixtures("offline")
def test_networks_are_compared_by_one_measure(small_file, content, style):
    progress = []
    names = ("vgg19", "vgg16", "mobilenet_v3_small")
    study = networks(
        content, style, weights=str(small_file), vgg16_weights="random", names=names,
        progress=progress.append, **SMALL,
    )  # fmt: skip
    assert [panel.title for panel in study.panels] == ["content", "style", *names]
    sources = ("small.npz", "random", "random")
    named = [f"{name} with {source} weights" for name, source in zip(names, sources, strict=True)]
    assert [line.split(":")[0] for line in progress] == named
    assert study.facts["network_weights"] == dict(zip(names, sources, strict=True))
    reason = ", because its ImageNet weights were not available"
    assert (
        "vgg19 has small.npz weights; vgg16 has random weights; mobilenet_v3_small has random weights"
        f"{reason}." in study.caption
    )
    assert [line["weights"] for line in study.table[:-1]] == list(sources)
    assert [panel.caption.splitlines()[-1] for panel in study.panels[2:]] == [f"{s} weights" for s in sources]
    lines = {line["network"]: line for line in study.table}
    content_line = lines["content image"]
    # VGG-19 minimises the losses of the measure, so that its image has the smallest distance.
    nearest = min(lines.values(), key=lambda line: line["style distance"])
    assert nearest["network"] == "vgg19"
    assert nearest["style distance"] < 0.3 * content_line["style distance"]
    assert content_line["content distance"] == 0
    for name in names:
        assert lines[name]["lowest loss"] < 0.5 * lines[name]["first loss"]
        assert lines[name]["seconds"] > 0
    # The table has the distances of the images.
    loaded = load_weights(small_file)
    images = read_images(content, style, size=SMALL["size"])
    measure = DistanceMeasure(
        *images,
        vgg_weights=loaded,
        content_layers=("conv2_1",),
        style_layers=("conv1_1", "conv2_1", "conv2_2"),
    )
    distances = measure({panel.title: panel.image for panel in study.panels}["vgg16"])
    assert distances.style == pytest.approx(lines["vgg16"]["style distance"], rel=1e-4)
    assert distances.content == pytest.approx(lines["vgg16"]["content distance"], rel=1e-4)
    for fragment in (
        "Our reading",
        "average pooling",
        "end at conv2_2: conv3_1, conv4_1, conv5_1, conv4_2",
    ):
        assert fragment in study.caption


def test_an_unknown_network_is_rejected_before_an_image_is_read(small_file):
    with pytest.raises(ConfigError, match=r"'vgg11'.*vgg19, vgg16"):
        networks("missing.png", "missing.png", weights=str(small_file), names=("vgg11",))


def test_a_partition_is_a_grid_of_content_and_style_layers(small_file, content, style):
    study = partition(
        content, style, weights=str(small_file), content_layers=("conv1_2", "conv2_2", "conv4_2"),
        precision="float32", **SMALL,
    )  # fmt: skip
    titles = [[panel.title for panel in row] for row in study.rows[:-1]]
    sets = ("conv1_1", "conv2_1", "conv1_1 .. conv2_1")
    assert titles == [[f"{row} | {columns}" for columns in sets] for row in ("conv1_2", "conv2_2")]
    lines = {(line["content layer"], line["style layers"]): line for line in study.table}
    content_line = lines["content image", ""]
    for row in ("conv1_2", "conv2_2"):
        first, second, both = (lines[row, fitted] for fitted in ("conv1_1", "conv2_1", "conv1_1 conv2_1"))
        # The distance at a layer is smaller if this layer is fitted than if another layer is fitted.
        assert first["style at conv1_1"] < second["style at conv1_1"]
        assert second["style at conv2_1"] < first["style at conv2_1"]
        assert both["style distance"] < 0.3 * content_line["style distance"]
        for line in (first, second, both):
            mean = np.mean([line["style at conv1_1"], line["style at conv2_1"]])
            assert line["style distance"] == pytest.approx(mean)
            assert line["content distance"] > 0
            assert line["seconds"] > 0
    left_out = "end at conv2_2: conv3_1, conv4_1, conv5_1, conv4_2"
    for fragment in ("Our reading", "average pooling", left_out):
        assert fragment in study.caption
    # The diagrams plot the numbers of the table.
    by_style_layer, by_content_layer = study.rows[-1][2:]
    expected = [lines["conv2_2", "conv1_1"][f"style at conv{i}_1"] for i in (1, 2)]
    assert by_style_layer.series["conv1_1"][1] == expected
    nested_line = lines["conv1_2", "conv1_1 conv2_1"]
    assert by_content_layer.series["conv1_2"][0][-1] == nested_line["content distance"]


def test_a_partition_needs_layers_that_the_weights_reach(small_file, content, style):
    with pytest.raises(ConfigError, match=r"end at conv2_2, below conv4_2.*up to conv2_2"):
        partition(content, style, weights=str(small_file), content_layers=("conv4_2",))


@pytest.mark.weights
@pytest.mark.slow
def test_deep_style_layers_carry_more_of_a_paintings_style(data):
    """With VGG-19's real weights, larger nested sets have smaller style and larger content distances."""
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


def test_keras_networks_have_no_layer_for_weights_of_one_block(small_weights):
    first_block = {k: a for k, a in small_weights.arrays.items() if k.startswith("block1")}
    loaded = dataclasses.replace(small_weights, arrays=first_block)
    assert loaded.layers[-1].block == 1
    with pytest.raises(ConfigError, match=r"block 1.*block 2.*vgg19 and vgg16"):
        load_network("resnet50", "random", blocks=1)

"""Names, order and sizes of VGG's layers, against the networks in `keras.applications`."""

import re

import keras
import pytest

from tfstyle.errors import ConfigError
from tfstyle.layers import NETWORKS, Layer, find_layer, layer_names

APPLICATIONS = {"vgg19": keras.applications.VGG19, "vgg16": keras.applications.VGG16}


@pytest.fixture(scope="module", params=APPLICATIONS)
def network(request):
    """The name of a network, and the layers of its Keras model without top."""
    model = APPLICATIONS[request.param](include_top=False, weights=None, input_shape=(64, 64, 3))
    return request.param, model.layers


def convolutions(layers):
    return [layer for layer in layers if isinstance(layer, keras.layers.Conv2D)]


def test_every_network_is_in_keras_applications():
    assert set(NETWORKS) == set(APPLICATIONS)


def test_names_and_order_are_those_of_keras(network):
    name, layers = network
    assert [layer.keras_name for layer in NETWORKS[name]] == [layer.name for layer in convolutions(layers)]


def test_kernels_have_the_shapes_of_keras(network):
    name, layers = network
    for layer, convolution in zip(NETWORKS[name], convolutions(layers), strict=True):
        kernel, bias = convolution.get_weights()
        assert layer.kernel_shape == kernel.shape
        assert (layer.filters,) == bias.shape


def test_strides_are_the_products_of_the_poolings_before(network):
    name, layers = network
    stride, strides = 1, {}
    for layer in layers:
        if isinstance(layer, keras.layers.MaxPooling2D):
            stride *= layer.strides[0]
        strides[layer.name] = stride
    for layer in NETWORKS[name]:
        assert layer.stride == strides[layer.keras_name]


@pytest.mark.parametrize("network_name", NETWORKS)
def test_layers_compare_by_depth(network_name):
    layers = NETWORKS[network_name]
    assert sorted(layers, reverse=True) == list(reversed(layers))
    assert Layer(3, 4) < Layer(4, 1)


@pytest.mark.parametrize("network_name", NETWORKS)
def test_a_layer_is_found_by_either_name(network_name):
    for layer in NETWORKS[network_name]:
        assert Layer.parse(layer.name) == Layer.parse(layer.keras_name) == layer
        assert find_layer(layer.name, network_name) == layer
    assert layer_names(network_name)[0] == "conv1_1"


@pytest.mark.parametrize(
    "name", ["conv0_1", "conv6_1", "conv1_0", "conv1_5", "block1_pool", "conv1_1 ", "Conv1_1", ""]
)
def test_other_names_are_no_layers(name):
    with pytest.raises(ValueError, match=rf"^{re.escape(repr(name))}.*conv4_2"):
        Layer.parse(name)


def test_a_layer_of_another_network_is_refused():
    with pytest.raises(ConfigError, match=r"vgg16.*'conv3_4' \(did you mean.* conv1_1, .*conv3_3, conv4_1"):
        find_layer("conv3_4", "vgg16")


def test_names_of_an_unknown_network_are_empty():
    assert layer_names("resnet50") == ()

"""Encoders that use VGG or another network of `keras.applications`, with layers of the same strides."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfstyle.backend import application_layers
from tfstyle.errors import ConfigError, WeightsError
from tfstyle.layers import Layer
from tfstyle.network import (
    ANSWER_TIMEOUT,
    Encoder,
    Weights,
    load_weights,
    one_line,
    paper_layers,
    random_weights,
)
from tfstyle.papers import COMPARED_NETWORKS
from tfstyle.papers.vgg_encoders import vgg_encoder

SEED = 0  # seed of random weights


class Application(NamedTuple):
    """A network of `keras.applications`.

    Attributes:
        make: constructor of the Keras model.
        preprocess: Keras' preprocessing function, which takes images in 0..255.
        layers: the last layer of each of the strides 2, 4, 8 and 16, the strides of VGG-19's blocks 2 to 5.
    """

    make: Callable[..., keras.Model]
    preprocess: Callable[[tf.Tensor], tf.Tensor]
    layers: tuple[str, ...]


#: Name -> network. None of these networks has a layer of stride 1, the stride of VGG's block 1.
APPLICATIONS: Mapping[str, Application] = {
    "resnet50": Application(
        keras.applications.ResNet50,
        keras.applications.resnet.preprocess_input,
        ("conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out"),
    ),
    "densenet121": Application(
        keras.applications.DenseNet121,
        keras.applications.densenet.preprocess_input,
        application_layers("densenet121", ("conv1_relu", "pool2_relu", "pool3_relu", "pool4_relu")),
    ),
    "mobilenet_v3_small": Application(
        keras.applications.MobileNetV3Small,
        keras.applications.mobilenet_v3.preprocess_input,
        application_layers(
            "mobilenet_v3_small",
            (
                "conv_bn",
                "expanded_conv_1_expand_bn",
                "expanded_conv_3_expand_bn",
                "expanded_conv_8_expand_bn",
            ),
        ),
    ),
}


class ComparedNetwork(NamedTuple):
    """A network of the comparison.

    Attributes:
        encoder: the network as an encoder.
        content_layers: layers of the content loss.
        style_layers: layers of the style loss.
        weights_source: ``imagenet``, ``embedded``, ``random`` or the name of a weights file.
    """

    encoder: Encoder
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    weights_source: str


def load_network(name: str, source: str | Weights, *, blocks: int) -> ComparedNetwork:
    """Load a network by name, up to the stride of one of VGG's blocks.

    Args:
        name: one of `tfstyle.papers.COMPARED_NETWORKS`.
        source: the weights. For VGG, a value that `tfstyle.network.load_weights` takes; for the other
            networks ``auto``, ``imagenet`` or ``random``. For every network but VGG-19, ``auto`` gives random
            weights if the ImageNet weights cannot be downloaded.
        blocks: number of VGG's blocks whose strides are used, 1 to 5 (1 for VGG only). The strides of the
            blocks are 1, 2, 4, 8 and 16. In the networks of `keras.applications`, the content layer has
            stride 8, or the largest stride below it.

    Returns:
        The network with its layers and the source of its weights.

    Raises:
        ConfigError: the name or the source is unknown, or a network of `keras.applications` is asked for with
            one block.
        WeightsError: the weights cannot be loaded or downloaded, and the source is not ``auto``.
    """
    if name not in COMPARED_NETWORKS:
        raise ConfigError(f"unknown network {name!r}; choose from {', '.join(COMPARED_NETWORKS)}")
    if name in APPLICATIONS:
        return _load_application(APPLICATIONS[name], str(source), blocks=blocks)
    try:
        vgg_weights = load_weights(source, network=name)
    except WeightsError:
        if source != "auto":
            raise
        vgg_weights = random_weights(SEED, name)
    # Both networks use the same number of blocks, so that their deepest layers have the same stride.
    arrays = {
        key: array
        for key, array in vgg_weights.arrays.items()
        if Layer.parse(key.partition("/")[0]).block <= blocks
    }
    vgg_weights = replace(vgg_weights, arrays=arrays)
    content, style = paper_layers(vgg_weights)
    encoder = vgg_encoder(vgg_weights, (*content, *style))
    return ComparedNetwork(encoder, content, style, vgg_weights.source)


def _load_application(application: Application, source: str, *, blocks: int) -> ComparedNetwork:
    if blocks < 2:
        raise ConfigError(
            "the VGG-19 weights end in block 1 (stride 1), and the networks of keras.applications have no "
            "layer of that stride; give weights that reach block 2, or compare vgg19 and vgg16 only"
        )
    if source not in ("auto", "imagenet", "random"):
        raise ConfigError(f"keras_weights is {source!r}; choose from auto, imagenet, random")
    weights_source, model = source, None
    if source != "random":
        try:
            model, weights_source = _pretrained_model(application), "imagenet"
        except WeightsError:
            if source != "auto":
                raise
    if model is None:
        model, weights_source = _random_model(application), "random"
    style = application.layers[: blocks - 1]
    encoder = Encoder.from_model(
        model, lambda images: application.preprocess(255.0 * images), layers=style, minimum_size=32
    )
    return ComparedNetwork(encoder, style[:3][-1:], style, weights_source)


def _pretrained_model(application: Application) -> keras.Model:
    default_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_TIMEOUT)  # Keras sets no timeout, so a stalled download would never end
    try:
        return application.make(include_top=False, weights="imagenet", input_shape=(None, None, 3))
    except Exception as error:  # a failed download raises errors of urllib, ssl, socket, or a bare Exception
        raise WeightsError(
            f"Keras' ImageNet weights could not be downloaded ({one_line(error)}); give "
            'keras_weights="random"'
        ) from None
    finally:
        socket.setdefaulttimeout(default_timeout)


def _random_model(application: Application) -> keras.Model:
    """Return a model whose convolution kernels are initialised as by `tfstyle.network.random_weights`.

    All other variables have Keras' initial values.
    """
    model = application.make(include_top=False, weights=None, input_shape=(None, None, 3))
    generator = np.random.default_rng(SEED)
    for layer in model.layers:
        for variable in layer.weights:
            if len(variable.shape) == 4:
                inputs = np.prod(
                    variable.shape[: 2 if isinstance(layer, keras.layers.DepthwiseConv2D) else 3]
                )
                kernel = generator.normal(0, np.sqrt(2 / inputs), variable.shape)
                variable.assign((kernel - kernel.mean((0, 1, 2))).astype(np.float32))
    return model

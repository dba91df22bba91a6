"""Keras' own networks as encoders, with layers that stand for VGG's: those of the same strides."""

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
from tfstyle.network import ANSWER_TIMEOUT, Encoder, Weights, default_layers, one_line
from tfstyle.network import weights as sources
from tfstyle.papers.judging import vgg

VGG = ("vgg19", "vgg16")
SEED = 0  # of random weights


class Application(NamedTuple):
    """A network of `keras.applications`.

    Attributes:
        make: as Keras has it.
        preprocess: what Keras gives with it, from 0..255.
        layers: the last of strides 2, 4, 8 and 16, as VGG-19's conv2, conv3, conv4 and conv5 have them.
    """

    make: Callable[..., keras.Model]
    preprocess: Callable[[tf.Tensor], tf.Tensor]
    layers: tuple[str, ...]


#: Name -> network. None of them sees with stride 1, as conv1_1 does.
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


class Network(NamedTuple):
    """An encoder, the layers to be read, and whose weights it has: imagenet, random or a file's."""

    encoder: Encoder
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    weights: str


def network(name: str, source: str | Weights, blocks: int) -> Network:
    """A network by name, down to the stride of one of VGG's blocks.

    Args:
        name: of `VGG` or `APPLICATIONS`.
        source: for VGG as `tfstyle.weights.load` takes it, else auto, imagenet or random. Where auto has no
            ImageNet weights to give to another network than VGG-19, it gives random ones.
        blocks: 2 to 5, of stride 1, 2, 4, 8, 16; what lies above is not looked at. The content is compared at
            stride 8, or the widest below it.

    Raises:
        ConfigError: no such network, or fewer blocks.
        WeightsError: weights asked for by name cannot be had.
    """
    if name not in (*VGG, *APPLICATIONS):
        raise ConfigError(f"no network {name!r}; there are {', '.join((*VGG, *APPLICATIONS))}")
    if name in APPLICATIONS:
        return _application(APPLICATIONS[name], str(source), blocks)
    try:
        loaded = sources.load_weights(source, network=name)
    except WeightsError:
        if source != "auto":
            raise
        loaded = sources.random_weights(SEED, name)
    # Below VGG-19's last layer, so that both see as much.
    arrays = {k: a for k, a in loaded.arrays.items() if Layer.parse(k.partition("/")[0]).block <= blocks}
    loaded = replace(loaded, arrays=arrays)
    content, style = default_layers(loaded)
    return Network(vgg(loaded, (*content, *style)), content, style, loaded.source)


def _application(application: Application, source: str, blocks: int) -> Network:
    if blocks < 2:
        raise ConfigError("VGG-19's weights stop in block 1, of whose stride other networks have no layer")
    if source not in ("auto", "imagenet", "random"):
        raise ConfigError(f"keras_weights is {source!r}; it can be auto, imagenet, random")
    whose, model = source, None
    if source != "random":
        try:
            model, whose = _trained(application), "imagenet"
        except WeightsError:
            if source != "auto":
                raise
    if model is None:
        model, whose = _random(application), "random"
    style = application.layers[: blocks - 1]
    encoder = Encoder.from_model(
        model, lambda images: application.preprocess(255.0 * images), layers=style, minimum_size=32
    )
    return Network(encoder, style[:3][-1:], style, whose)


def _trained(application: Application) -> keras.Model:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_TIMEOUT)  # Keras sets none, and a stalled download never ends
    try:
        return application.make(include_top=False, weights="imagenet", input_shape=(None, None, 3))
    except Exception as error:  # urllib, ssl, socket, Keras' own bare Exception: all mean the same
        raise WeightsError(
            f"Keras' ImageNet weights could not be downloaded ({one_line(error)}); give random"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _random(application: Application) -> keras.Model:
    """Seeded kernels as `tfstyle.weights.random` has them; batch normalisation as Keras starts it."""
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

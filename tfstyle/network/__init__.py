"""The encoder, a convolutional network from images to feature maps at chosen layers, and its weights."""

from tfstyle.network.download import ANSWER_TIMEOUT, imagenet_cache, one_line
from tfstyle.network.encoder import CUSTOM_MODEL, Encoder, defaults_among
from tfstyle.network.encoder_layer import EncoderLayer
from tfstyle.network.preprocessing import IMAGENET_MEAN, check_range, float_images, network_input
from tfstyle.network.pretraining import pretrain
from tfstyle.network.weights import (
    EMBEDDED,
    Weights,
    default_layers,
    load_weights,
    paper_layers,
    random_weights,
)

__all__ = [
    "ANSWER_TIMEOUT",
    "CUSTOM_MODEL",
    "EMBEDDED",
    "IMAGENET_MEAN",
    "Encoder",
    "EncoderLayer",
    "Weights",
    "check_range",
    "default_layers",
    "defaults_among",
    "float_images",
    "imagenet_cache",
    "load_weights",
    "network_input",
    "one_line",
    "paper_layers",
    "pretrain",
    "random_weights",
]

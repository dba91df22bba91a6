"""The layers of VGG-19 and VGG-16: their names, their order and their sizes. No TensorFlow here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tfstyle.errors import ConfigError

#: Filters of every convolution of a block, from block 1 to block 5.
BLOCK_FILTERS = (64, 128, 256, 512, 512)


@dataclass(frozen=True, order=True)
class Layer:
    """One convolution of VGG. Its features are taken after the ReLU.

    Layers of one network compare by depth: ``Layer(3, 4) < Layer(4, 1)``.

    Attributes:
        block: 1 to 5; between two blocks there is a pooling layer.
        convolution: its number within the block, from 1.
    """

    block: int
    convolution: int

    @classmethod
    def parse(cls, name: str) -> Layer:
        """Read the papers' name, ``conv4_2``, or Keras' name, ``block4_conv2``.

        Raises:
            ValueError: it is neither.
        """
        match = re.fullmatch(r"conv([1-5])_([1-4])|block([1-5])_conv([1-4])", name)
        if match is None:
            raise ValueError(f"{name!r} is not the name of a VGG layer")
        block, convolution = (int(number) for number in match.groups() if number is not None)
        return cls(block, convolution)

    @property
    def name(self) -> str:
        """The papers' name, such as ``conv4_2``."""
        return f"conv{self.block}_{self.convolution}"

    @property
    def keras_name(self) -> str:
        """Keras' name, such as ``block4_conv2``."""
        return f"block{self.block}_conv{self.convolution}"

    @property
    def stride(self) -> int:
        """Pixels of the image from one position of the layer's features to the next."""
        return 2 ** (self.block - 1)

    @property
    def filters(self) -> int:
        """Number of filters, and so of the features' channels."""
        return BLOCK_FILTERS[self.block - 1]

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """``(3, 3, input channels, filters)``."""
        if self.convolution > 1:
            inputs = self.filters
        else:
            inputs = 3 if self.block == 1 else BLOCK_FILTERS[self.block - 2]
        return 3, 3, inputs, self.filters


def _network(convolutions_per_block: tuple[int, ...]) -> tuple[Layer, ...]:
    return tuple(
        Layer(block, convolution)
        for block, count in enumerate(convolutions_per_block, 1)
        for convolution in range(1, count + 1)
    )


#: Network -> its convolutions, from the first to the deepest.
NETWORKS: Mapping[str, tuple[Layer, ...]] = {
    "vgg19": _network((2, 2, 4, 4, 4)),
    "vgg16": _network((2, 2, 3, 3, 3)),
}


def layer_names(network: str = "vgg19") -> tuple[str, ...]:
    """Return the papers' names of a network's layers, ``conv1_1`` .. ``conv5_4`` or ``conv5_3``.

    Args:
        network: a key of `NETWORKS`; any other network has no layers that are known here.
    """
    return tuple(layer.name for layer in NETWORKS.get(network, ()))


def find_layer(name: str, network: str = "vgg19") -> Layer:
    """Find a layer by its name.

    Args:
        name: such as ``conv4_2``.
        network: a key of `NETWORKS`.

    Raises:
        ConfigError: the network has no such layer.
    """
    names = layer_names(network)
    if name not in names:
        raise ConfigError(f"{network} has no layer {name!r}; it has {', '.join(names)}")
    return NETWORKS[network][names.index(name)]

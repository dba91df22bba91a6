"""The convolutions of VGG-19 and VGG-16: names, order and sizes. TensorFlow is not imported here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tfstyle.errors import ConfigError, suggest

#: Number of filters of each convolution in blocks 1 to 5.
BLOCK_FILTERS = (64, 128, 256, 512, 512)


@dataclass(frozen=True, order=True)
class Layer:
    """A convolution of VGG with the ReLU after it, whose output are the features of the layer.

    Layers are ordered by depth: ``Layer(3, 4) < Layer(4, 1)``.

    Attributes:
        block: number of the block, 1 to 5. A pooling layer follows each block.
        convolution: number of the convolution within the block, from 1.

    Example:
        >>> layer = Layer.parse("conv4_2")
        >>> layer.keras_name, layer.filters, layer.stride
        ('block4_conv2', 512, 8)
    """

    block: int
    convolution: int

    @classmethod
    def parse(cls, name: str) -> Layer:
        """Return the layer with a name.

        Args:
            name: as in the papers, ``conv4_2``, or as in Keras, ``block4_conv2``.

        Raises:
            ValueError: the name has neither form.
        """
        match = re.fullmatch(r"conv([1-5])_([1-4])|block([1-5])_conv([1-4])", name)
        if match is None:
            raise ValueError(
                f"{name!r} is not the name of a VGG layer; give a name such as conv4_2 or block4_conv2"
            )
        block, convolution = (int(number) for number in match.groups() if number is not None)
        return cls(block, convolution)

    @property
    def name(self) -> str:
        """The name in the papers, such as ``conv4_2``."""
        return f"conv{self.block}_{self.convolution}"

    @property
    def keras_name(self) -> str:
        """The name in Keras, such as ``block4_conv2``."""
        return f"block{self.block}_conv{self.convolution}"

    @property
    def stride(self) -> int:
        """Distance in pixels of the image between two neighbouring positions of the features."""
        return 2 ** (self.block - 1)

    @property
    def filters(self) -> int:
        """Number of filters, which is the number of channels of the features."""
        return BLOCK_FILTERS[self.block - 1]

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Shape of the kernel, ``(3, 3, input channels, filters)``."""
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


#: Name of a network -> its convolutions, from the first to the deepest.
NETWORKS: Mapping[str, tuple[Layer, ...]] = {
    "vgg19": _network((2, 2, 4, 4, 4)),
    "vgg16": _network((2, 2, 3, 3, 3)),
}


def layer_names(network: str = "vgg19") -> tuple[str, ...]:
    """Return the names of a network's layers, as in the papers, from the first to the deepest.

    Args:
        network: a key of `NETWORKS`. The result is empty for any other network.

    Example:
        >>> len(layer_names()), layer_names("vgg16")[-1]
        (16, 'conv5_3')
    """
    return tuple(layer.name for layer in NETWORKS.get(network, ()))


def check_network(network: str) -> None:
    """Raise ConfigError unless a network is a key of `NETWORKS`."""
    if network not in NETWORKS:
        raise ConfigError(
            f"network is {network!r}{suggest(network, NETWORKS)}; it can be {', '.join(NETWORKS)}"
        )


def as_names(names: Iterable[str], option: str = "layers") -> tuple[str, ...]:
    """Return the names of layers as a tuple.

    Args:
        names: the names. A single string is refused, because iterating over it would give letters.
        option: name of the argument for the error message.

    Raises:
        ConfigError: the value is a string, or not an iterable of strings.

    Example:
        >>> as_names(["conv1_1", "conv2_1"])
        ('conv1_1', 'conv2_1')
    """
    if isinstance(names, str):
        raise ConfigError(f"{option} is the string {names!r}; give a list of layer names: [{names!r}]")
    if isinstance(names, Iterable):
        chosen = tuple(names)
        if all(isinstance(name, str) for name in chosen):
            return chosen
    raise ConfigError(f"{option} is {names!r}; give a list of layer names, such as ['conv1_1', 'conv4_2']")


def find_layer(name: str, network: str = "vgg19") -> Layer:
    """Return the layer of a network with a name.

    Args:
        name: of the layer, as in the papers, such as ``conv4_2``.
        network: a key of `NETWORKS`.

    Raises:
        ConfigError: the network has no such layer.

    Example:
        >>> find_layer("conv4_2").stride
        8
    """
    names = layer_names(network)
    if name not in names:
        raise ConfigError(f"{network} has no layer {name!r}{suggest(name, names)}; it has {', '.join(names)}")
    return NETWORKS[network][names.index(name)]

"""The encoder's weights: trained on ImageNet, embedded in the package, read from a file, or random.

Weights are a dict of float32 arrays with the keys ``block1_conv1/kernel`` (shape ``[3, 3, in, out]``),
``block1_conv1/bias`` (shape ``[out]``) and so on. They are checked when they are read, so that an encoder
never has an incomplete network. A file may end at any convolution, and the layers above that are then not
available.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import os
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfstyle.config import (
    CONTENT_LAYERS,
    EMBEDDED_STYLE_LAYERS,
    PAPER_CONTENT_LAYERS,
    SHALLOW_CONTENT_LAYERS,
    STYLE_LAYERS,
)
from tfstyle.errors import WeightsError
from tfstyle.files import check_weights_file, check_weights_output, write_atomically
from tfstyle.layers import NETWORKS, Layer, check_network
from tfstyle.network.download import imagenet_file, one_line, read_h5

log = logging.getLogger(__name__)

#: The embedded weights, made by data/make_embedded.py from the photographs that data/PROVENANCE.md lists.
EMBEDDED = Path(__file__).parents[1] / "data" / "embedded.npz"
EMBEDDED_IMAGE_COUNT = 14


@dataclass(frozen=True)
class Weights:
    """The weights of a network's convolutions, from the first convolution up to any other.

    Attributes:
        arrays: float32 arrays by name: ``block1_conv1/kernel`` ``[3, 3, in, out]``, ``block1_conv1/bias``
            ``[out]`` and so on.
        source: name of the weights in an image's metadata: ``imagenet``, ``embedded``, ``random``, or the
            name of the file.
        note: one line for the user on how the weights were chosen or learned, or an empty string.
        sha256: SHA-256 of the file that the weights were read from, or an empty string.
        network: the network that the weights are for, a key of `tfstyle.layers.NETWORKS`. For
            `Encoder.from_model` it is `CUSTOM_MODEL`.
    """

    arrays: Mapping[str, np.ndarray] = field(repr=False)
    source: str
    _: KW_ONLY
    note: str = ""
    sha256: str = ""
    network: str = "vgg19"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that have weights, from the first to the deepest."""
        layers = NETWORKS.get(self.network, ())
        return tuple(layer for layer in layers if f"{layer.keras_name}/kernel" in self.arrays)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The papers' names of `layers`, such as ``conv1_1``."""
        return tuple(layer.name for layer in self.layers)

    @functools.cached_property
    def digests(self) -> Mapping[str, str]:
        """For each layer's name, 16 digits of the SHA-256 of the arrays from the first layer up to it."""
        running, digests = hashlib.sha256(), {}
        for layer in self.layers:
            for kind in ("kernel", "bias"):
                running.update(self.arrays[f"{layer.keras_name}/{kind}"].astype(np.float32).tobytes())
            digests[layer.name] = running.hexdigest()[:16]
        return digests

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False, half: bool = False) -> None:
        """Write the weights to an ``.npz`` file, which `load_weights` reads.

        Args:
            path: path of the file. It must end in ``.npz``.
            overwrite: whether an existing file is replaced.
            half: whether the arrays are stored as float16, which takes half the space. The difference from
                float32 is not visible in images.

        Raises:
            WeightsError: the path does not end in ``.npz``.
            OutputError: the file exists and `overwrite` is False, or the path cannot be written to.
            RunError: writing failed. No incomplete file is left behind.

        Example:
            >>> from tfstyle.network import load_weights
            >>> weights = load_weights("embedded")
            >>> weights.save("filters.npz", half=True)
            >>> saved = load_weights("filters.npz")
            >>> saved.source, saved.layer_names[-1]
            ('filters.npz', 'conv3_4')
            >>> saved.arrays["block1_conv1/kernel"].dtype
            dtype('float32')
        """
        path = Path(path)
        check_weights_output(path, overwrite)
        dtype = np.float16 if half else np.float32
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {key: array.astype(dtype) for key, array in self.arrays.items()}
        np.savez_compressed(buffer, **arrays)
        write_atomically(path, buffer.getvalue())


def load_weights(
    source: str | os.PathLike[str] | Weights = "imagenet", *, seed: int = 0, network: str = "vgg19"
) -> Weights:
    """Load weights by name or from a file.

    Args:
        source: a name, or the path of a ``.h5``, ``.weights.h5``, ``.npz`` or ``.safetensors`` file.
            `Weights` are returned unchanged. The names are:

            - ``imagenet``: weights trained on ImageNet, which Keras downloads, verifies and caches;
            - ``embedded``: weights that are part of the package and were learned without labels;
            - ``random``: random weights with He initialisation;
            - ``auto``: ``imagenet``, or ``embedded`` if the ImageNet weights are not cached and cannot be
              downloaded. `Weights.note` names the weights and the reason, and it is logged.
        seed: seed of the random weights.
        network: network that the weights are for, ``vgg19`` or ``vgg16``. There are no embedded weights for
            ``vgg16``.

    Returns:
        The weights, from the first convolution up to the last one that the source has.

    Raises:
        ConfigError: the network is unknown.
        WeightsError: the source is neither a name nor a file of weights, the download failed, or the weights
            are for another network.

    Example:
        >>> from tfstyle.network import load_weights
        >>> weights = load_weights("random", seed=1)
        >>> weights.layer_names[-1], weights.arrays["block1_conv1/kernel"].shape
        ('conv5_4', (3, 3, 3, 64))
    """
    check_network(network)
    if isinstance(source, Weights):
        name, source_network = source.source, source.network
    else:
        name, source_network = str(source), "vgg19" if str(source) == "embedded" else network
    if source_network != network:
        title = _network_title(network)
        raise WeightsError(
            f"the weights {name} are for {_network_title(source_network)}, not for {title}; give imagenet, "
            f"random or a file with the weights of {title}"
        )
    if isinstance(source, Weights):
        return source
    by_name: dict[str, Callable[[], Weights]] = {
        "imagenet": lambda: imagenet_weights(network),
        "embedded": embedded_weights,
        "random": lambda: random_weights(seed, network),
        "auto": lambda: auto_weights(network),
    }
    return by_name[name]() if name in by_name else read_weights(name, network)


def _network_title(network: str) -> str:
    return f"VGG-{network[3:]}" if network in NETWORKS else "another model"


def random_weights(seed: int = 0, network: str = "vgg19") -> Weights:
    """Return random weights for all convolutions: kernels with He initialisation, and biases of zero.

    The kernels are normally distributed with standard deviation ``sqrt(2 / (9 * input channels))``. The mean
    of each filter is then subtracted, because a filter that sums to zero responds to texture and not to
    brightness.

    Args:
        seed: seed of the random generator.
        network: ``vgg19`` or ``vgg16``.

    Raises:
        ConfigError: the network is unknown.

    Reference: He et al. 2015, arXiv 1502.01852, section 2.2, for the standard deviation. Differs from He et
    al.: the filters sum to zero.
    """
    check_network(network)
    generator = np.random.default_rng(seed)
    arrays = {}
    for layer in NETWORKS[network]:
        deviation = np.sqrt(2 / (9 * layer.kernel_shape[2]))
        kernel = generator.normal(0, deviation, layer.kernel_shape)
        kernel -= kernel.mean(axis=(0, 1, 2), keepdims=True)
        arrays[f"{layer.keras_name}/kernel"] = kernel.astype(np.float32)
        arrays[f"{layer.keras_name}/bias"] = np.zeros(layer.filters, np.float32)
    return Weights(arrays, source="random", network=network)


def imagenet_weights(network: str = "vgg19", *, retry: bool = True) -> Weights:
    """Return the weights trained on ImageNet, which Keras downloads, verifies and caches.

    Args:
        network: ``vgg19`` or ``vgg16``.
        retry: whether to try again if a download failed in the last six hours.

    Raises:
        ConfigError: the network is unknown.
        WeightsError: as for `imagenet_file`.
    """
    return replace(read_weights(imagenet_file(network, retry=retry), network), source="imagenet")


def embedded_weights() -> Weights:
    """Return the weights of blocks 1 to 3 in the package, which `tfstyle.pretrain` learned without labels."""
    _warn_once(
        f"using the embedded weights, learned from {EMBEDDED_IMAGE_COUNT} photographs; the ImageNet weights "
        "give better results"
    )
    return _read_embedded("")


def auto_weights(network: str = "vgg19") -> Weights:
    """Return the ImageNet weights or, if they are not available, the embedded weights.

    If a download failed in the last six hours, it is not tried again. `Weights.note`, which is also logged,
    names the weights and the reason.

    Raises:
        ConfigError: the network is unknown.
        WeightsError: the ImageNet weights are not available, and the network is not VGG-19, for which the
            embedded weights are.
    """
    try:
        chosen = replace(imagenet_weights(network, retry=False), note="using the ImageNet weights")
    except WeightsError as error:
        if network != "vgg19":
            raise
        reason = textwrap.shorten(one_line(error.__context__ or error), 60, placeholder="...")
        chosen = _read_embedded(
            f"using the embedded weights: the ImageNet weights could not be downloaded ({reason}); "
            "choose imagenet to try again"
        )
    log.warning("%s", chosen.note)
    return chosen


def _read_embedded(note: str) -> Weights:
    return replace(read_weights(EMBEDDED), source="embedded", note=note)


@functools.cache
def _warn_once(line: str) -> None:
    log.warning("%s", line)


def read_weights(path: str | os.PathLike[str], network: str = "vgg19") -> Weights:
    """Return the weights in a file, after checking them.

    Args:
        path: path of a ``.h5`` file (of a model without top), or of a ``.weights.h5``, ``.npz`` or
            ``.safetensors`` file.
        network: network that the weights must be for.

    Raises:
        ConfigError: the network is unknown.
        WeightsError: the file does not exist, is damaged or truncated, or does not hold the weights of the
            network's convolutions.
    """
    check_network(network)
    readers: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
        ".h5": lambda file: read_h5(file, [layer.keras_name for layer in NETWORKS[network]]),
        ".npz": _read_npz,
        ".safetensors": _read_safetensors,
    }
    check_weights_file(path)
    path = Path(path)
    try:
        raw = readers[path.suffix.lower()](path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except WeightsError:
        raise
    except Exception as error:  # zlib, h5py, NumPy and safetensors raise many classes for damaged files
        raise WeightsError(
            f"{path}: not a readable {path.suffix} file ({one_line(error)}); save or download it again"
        ) from None
    return Weights(_check_arrays(raw, path, network), path.name, note="", sha256=digest, network=network)


def _check_arrays(raw: Mapping[str, np.ndarray], path: Path, network: str) -> dict[str, np.ndarray]:
    """Check the arrays of a file, and return those of the network's convolutions as float32.

    Convolutions may be missing at the end only.
    """
    title = _network_title(network)
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in NETWORKS[network]:
        name = layer.keras_name
        shapes |= {f"{name}/kernel": layer.kernel_shape, f"{name}/bias": (layer.filters,)}
    keys = [key for key in shapes if key in raw]
    if not keys:
        contents = ", ".join(sorted(raw)[:3]) or "no array"
        raise WeightsError(
            f"{path}: the file holds {contents}, but no weights of {title}; give a file that holds "
            "block1_conv1/kernel, block1_conv1/bias and so on"
        )
    for layer in set(NETWORKS["vgg19"]) - set(NETWORKS[network]):
        if (key := f"{layer.keras_name}/kernel") in raw:
            raise WeightsError(
                f"{path}: the file holds {key}, so its weights are for VGG-19 and not for {title}; give the "
                f"network vgg19 or a file with the weights of {title}"
            )
    if keys != list(shapes)[: len(keys)] or len(keys) % 2:
        missing = next(key for key in shapes if key not in raw)
        raise WeightsError(
            f"{path}: {missing} is missing; the file must hold the kernel and the bias of each {title} "
            "convolution, from block1_conv1 to its last"
        )
    for key in keys:
        if raw[key].shape != shapes[key]:
            raise WeightsError(f"{path}: {key} has shape {raw[key].shape}; {title} needs {shapes[key]}")
        if raw[key].dtype.kind != "f" or not np.isfinite(raw[key]).all():
            raise WeightsError(
                f"{path}: {key}, of type {raw[key].dtype}, must hold finite floating-point numbers only"
            )
    return {key: np.asarray(raw[key], np.float32) for key in keys}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors.numpy import load_file
    except ImportError:
        raise WeightsError(f"{path}: this format needs safetensors; pip install safetensors") from None
    return load_file(path)


def default_layers(weights: Weights) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the default content layers and style layers of a run for some weights.

    The content layer is conv3_2 if the weights reach conv4_1. Otherwise it is conv2_2 if the weights have a
    deeper layer, and that of `paper_layers` if they do not. The style layers are those of `paper_layers`.
    conv3_2 and conv2_2 were chosen by measurement, with weights of all five blocks and of three blocks.

    Args:
        weights: weights of VGG-19 or VGG-16.

    Returns:
        A pair of the names of the content layers and the names of the style layers.

    Example:
        >>> from tfstyle.network import default_layers, load_weights
        >>> content_layers, style_layers = default_layers(load_weights("embedded"))
        >>> content_layers
        ('conv2_2',)
        >>> style_layers
        ('conv1_1', 'conv1_2', 'conv2_1', 'conv2_2', 'conv3_1', 'conv3_4')
    """
    content, style = paper_layers(weights)
    if "conv4_1" in weights.layer_names:
        return CONTENT_LAYERS, style
    if set(SHALLOW_CONTENT_LAYERS) <= set(weights.layer_names[:-1]):
        return SHALLOW_CONTENT_LAYERS, style
    return content, style


def paper_layers(weights: Weights) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the content and style layers of Gatys et al. 2016, or replacements for those without weights.

    If the weights do not reach conv4_2, the content layer is the second deepest layer that has weights (or
    the only one). If they do not reach conv5_1, the style layers are the paper's layers that have weights and
    the deepest layer that has weights. With the embedded weights, the style layers are
    `EMBEDDED_STYLE_LAYERS`.

    Args:
        weights: weights of VGG-19 or VGG-16.

    Returns:
        A pair of the names of the content layers and the names of the style layers.

    Example:
        >>> from tfstyle.network import load_weights, paper_layers
        >>> paper_layers(load_weights("embedded"))[0]
        ('conv3_3',)
    """
    available = weights.layer_names
    reached = set(PAPER_CONTENT_LAYERS) <= set(available)
    content = PAPER_CONTENT_LAYERS if reached else (available[-2:][0],)
    if weights.source == "embedded":
        return content, EMBEDDED_STYLE_LAYERS
    if set(STYLE_LAYERS) <= set(available):
        return content, STYLE_LAYERS
    reachable = [layer for layer in STYLE_LAYERS if layer in available]
    return content, tuple(dict.fromkeys([*reachable, available[-1]]))

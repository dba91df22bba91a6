"""Where the encoder's weights come from: ImageNet, the package, a file, or a random generator.

Weights are a plain dict of float32 arrays keyed ``block1_conv1/kernel`` ``[3, 3, in, out]`` and
``block1_conv1/bias`` ``[out]``. They are checked here, once, so that an encoder never holds a half
loaded network. A file may stop at any convolution: the layers above are then not available.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfstyle.config import CONTENT_LAYERS, EMBEDDED_STYLE_LAYERS, STYLE_LAYERS
from tfstyle.errors import ConfigError, WeightsError
from tfstyle.files import check_weights_file, check_weights_output, write_atomically
from tfstyle.layers import NETWORKS, Layer
from tfstyle.network.download import IMAGENET_URL, imagenet_cache, imagenet_file, one_line, read_h5

log = logging.getLogger(__name__)

#: Made by data/make_embedded.py from the photographs listed in data/PROVENANCE.md.
EMBEDDED = Path(__file__).parents[1] / "data" / "embedded.npz"
EMBEDDED_IMAGE_COUNT = 14


@dataclass(frozen=True)
class Weights:
    """Checked weights of a network's convolutions, from the first up to some depth.

    Attributes:
        arrays: ``block1_conv1/kernel`` and the like -> float32 array.
        source: their name in the metadata of images: ``imagenet``, ``embedded``, ``random``, or the name of
            a file.
        note: one line for the user where the weights were chosen for them, else empty.
        sha256: of the file they were read from, else empty.
        network: that they belong to, one of `tfstyle.layers.NETWORKS`.
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
        """Layer's name -> SHA-256 of the float32 arrays from the first layer up to it, 16 digits."""
        running, digests = hashlib.sha256(), {}
        for layer in self.layers:
            for kind in ("kernel", "bias"):
                running.update(self.arrays[f"{layer.keras_name}/{kind}"].astype(np.float32).tobytes())
            digests[layer.name] = running.hexdigest()[:16]
        return digests

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False, half: bool = False) -> None:
        """Write them to an ``.npz`` file that `load_weights` reads.

        Args:
            path: must end in ``.npz``.
            overwrite: replace an existing file.
            half: store float16, in half the space; the difference to float32 is not visible.

        Raises:
            WeightsError: another ending.
            OutputError: nothing can be written there, or a file is there.
            RunError: writing failed half way; nothing is left behind.
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
    """Get weights by name or from a file.

    Args:
        source: ``imagenet`` (Keras' download, hash check and cache), ``embedded`` (in the package,
            learned without labels), ``random`` (He initialisation), ``auto`` (imagenet if it can be
            had within ten seconds, else embedded, and `Weights.note` says which and why), or the path
            of a ``.h5``, ``.weights.h5``, ``.npz`` or ``.safetensors`` file. `Weights` are returned
            as they are.
        seed: of the random generator, for ``random``.
        network: that the weights are for: ``vgg19`` or ``vgg16``, which has no embedded ones.

    Raises:
        ConfigError: no such network.
        WeightsError: the source is unknown, cannot be had, or is not that network's weights.
    """
    if network not in NETWORKS:
        raise ConfigError(f"network is {network!r}; it can be {', '.join(NETWORKS)}")
    if isinstance(source, Weights):
        name, source_network = source.source, source.network
    else:
        name, source_network = str(source), "vgg19" if str(source) == "embedded" else network
    if source_network != network:
        raise WeightsError(
            f"the weights {name} are {_network_title(source_network)}'s, not {_network_title(network)}'s; "
            "give imagenet, random or a file of its own"
        )
    if isinstance(source, Weights):
        return source
    by_name: dict[str, Callable[[], Weights]] = {
        "imagenet": lambda: imagenet_weights(network),
        "embedded": embedded_weights,
        "random": lambda: random_weights(seed, network),
        "auto": lambda: auto_weights(network),
    }
    return by_name[name]() if name in by_name else read_weights(Path(name), network)


def _network_title(network: str) -> str:
    return f"VGG-{network[3:]}" if network in NETWORKS else network


def random_weights(seed: int = 0, network: str = "vgg19") -> Weights:
    """He-initialised kernels and zero biases for all convolutions.

    Each filter's mean over its support is removed: filters that sum to zero respond to texture and
    not to brightness.

    Reference: He et al. 2015, arXiv 1502.01852, section 2.2, for the standard deviation.
    """
    generator = np.random.default_rng(seed)
    arrays = {}
    for layer in NETWORKS[network]:
        deviation = np.sqrt(2 / (9 * layer.kernel_shape[2]))
        kernel = generator.normal(0, deviation, layer.kernel_shape)
        kernel -= kernel.mean(axis=(0, 1, 2), keepdims=True)
        arrays[f"{layer.keras_name}/kernel"] = kernel.astype(np.float32)
        arrays[f"{layer.keras_name}/bias"] = np.zeros(layer.filters, np.float32)
    return Weights(arrays, source="random", network=network)


def imagenet_weights(network: str = "vgg19") -> Weights:
    """The weights trained on ImageNet, from Keras' cache or by its download with hash check.

    Raises:
        WeightsError: not cached, and the download failed or gave no answer within ten seconds.
    """
    return replace(read_weights(imagenet_file(network), network), source="imagenet")


def embedded_weights() -> Weights:
    """The filters inside the package, learned by `tfstyle.pretrain` without labels; blocks 1 to 3."""
    _warn_once(
        f"using the embedded weights, learned from {EMBEDDED_IMAGE_COUNT} photographs without labels; the "
        f"ImageNet weights paint better: --weights imagenet downloads them, or fetch {IMAGENET_URL} "
        f"elsewhere and put it at {imagenet_cache()}"
    )
    return _read_embedded("")


def auto_weights(network: str = "vgg19") -> Weights:
    """ImageNet weights if they can be had, else embedded ones; `Weights.note` says which and why.

    Raises:
        WeightsError: they cannot be had, and the network is not that of the embedded ones.
    """
    try:
        chosen = replace(imagenet_weights(network), note="using the ImageNet weights")
    except WeightsError as error:
        if network != "vgg19":
            raise
        chosen = _read_embedded(f"using the embedded weights, learned from photographs: {error}")
    log.warning("%s", chosen.note)
    return chosen


def _read_embedded(note: str) -> Weights:
    return replace(read_weights(EMBEDDED), source="embedded", note=note)


@functools.cache
def _warn_once(line: str) -> None:
    log.warning("%s", line)


def read_weights(path: Path, network: str = "vgg19") -> Weights:
    """Read and check a weights file.

    Args:
        path: ``.h5`` (Keras' no-top file), ``.weights.h5``, ``.npz`` or ``.safetensors``.
        network: that the weights must belong to.

    Raises:
        WeightsError: no such file, unreadable, cut off, or not the network's convolutions.
    """
    readers: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
        ".h5": lambda file: read_h5(file, [layer.keras_name for layer in NETWORKS[network]]),
        ".npz": _read_npz,
        ".safetensors": _read_safetensors,
    }
    check_weights_file(path)
    try:
        raw = readers[path.suffix](path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except WeightsError:
        raise
    except Exception as error:  # damaged files fail in every way that zlib, h5py and NumPy know
        raise WeightsError(f"{path}: not a readable {path.suffix} file ({one_line(error)})") from error
    return Weights(_check_arrays(raw, path, network), path.name, note="", sha256=digest, network=network)


def _check_arrays(raw: Mapping[str, np.ndarray], path: Path, network: str) -> dict[str, np.ndarray]:
    """The convolutions up to the first that is missing, as float32; their shapes and values are checked."""
    title = _network_title(network)
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in NETWORKS[network]:
        name = layer.keras_name
        shapes |= {f"{name}/kernel": layer.kernel_shape, f"{name}/bias": (layer.filters,)}
    keys = [key for key in shapes if key in raw]
    if not keys:
        contents = ", ".join(sorted(raw)[:3]) or "nothing"
        raise WeightsError(f"{path}: no {title} weights (block1_conv1/kernel); it holds {contents}")
    for layer in set(NETWORKS["vgg19"]) - set(NETWORKS[network]):
        if (key := f"{layer.keras_name}/kernel") in raw:
            raise WeightsError(f"{path}: it holds {key}; these are VGG-19's weights, not {title}'s")
    if keys != list(shapes)[: len(keys)] or len(keys) % 2:
        missing = next(key for key in shapes if key not in raw)
        raise WeightsError(f"{path}: {missing} is missing; these are not {title}'s weights")
    for key in keys:
        if raw[key].shape != shapes[key]:
            raise WeightsError(f"{path}: {key} has shape {raw[key].shape}, {title}'s is {shapes[key]}")
        if raw[key].dtype.kind != "f" or not np.isfinite(raw[key]).all():
            raise WeightsError(f"{path}: {key} does not hold finite floating-point numbers")
    return {key: np.asarray(raw[key], np.float32) for key in keys}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors.numpy import load_file
    except ImportError as error:
        raise WeightsError(f"{path}: reading it needs `pip install safetensors`") from error
    return load_file(path)


def default_layers(weights: Weights) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Content and style layers where none are chosen: the paper's, as far as the weights have them."""
    available = weights.layer_names
    content = CONTENT_LAYERS if set(CONTENT_LAYERS) <= set(available) else (available[-2:][0],)
    if weights.source == "embedded":
        return content, EMBEDDED_STYLE_LAYERS
    if set(STYLE_LAYERS) <= set(available):
        return content, STYLE_LAYERS
    reachable = [layer for layer in STYLE_LAYERS if layer in available]
    return content, tuple(dict.fromkeys([*reachable, available[-1]]))

"""Where the encoder's weights come from: ImageNet, a file, or a random generator.

Weights are a plain dict of float32 arrays keyed ``block1_conv1/kernel`` ``[3, 3, in, out]`` and
``block1_conv1/bias`` ``[out]``. They are checked here, once, so that an encoder never holds a half
loaded network. A file may stop at any convolution: what lies above is then not available.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfstyle.errors import WeightsError

log = logging.getLogger(__name__)

#: VGG-19's sixteen convolutions in order: Keras' name -> (input channels, filters).
CONVOLUTIONS: dict[str, tuple[int, int]] = {
    "block1_conv1": (3, 64),
    "block1_conv2": (64, 64),
    "block2_conv1": (64, 128),
    "block2_conv2": (128, 128),
    "block3_conv1": (128, 256),
    "block3_conv2": (256, 256),
    "block3_conv3": (256, 256),
    "block3_conv4": (256, 256),
    "block4_conv1": (256, 512),
    **{f"block4_conv{i}": (512, 512) for i in (2, 3, 4)},
    **{f"block5_conv{i}": (512, 512) for i in (1, 2, 3, 4)},
}

# The file that keras.applications.VGG19(weights="imagenet", include_top=False) fetches, and its
# MD5; asked for by hand because Keras' own call has no time limit.
IMAGENET_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
IMAGENET_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{IMAGENET_FILE}"
IMAGENET_MD5 = "253f8cb515780f3b799900260a226db6"
ANSWER_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True)
class Weights:
    """Checked weights of VGG-19's convolutions, from the first up to some depth.

    Attributes:
        arrays: ``block1_conv1/kernel`` and the like -> float32 array.
        source: what they are, for the picture's metadata: ``imagenet``, ``random``, a file's name.
        note: one line for the user where a choice was made for them, else empty.
        sha256: of the file they were read from, else empty.
    """

    arrays: Mapping[str, np.ndarray] = field(repr=False)
    source: str
    note: str = ""
    sha256: str = ""

    @property
    def convolutions(self) -> tuple[str, ...]:
        """Keras' names of the convolutions that are there, bottom up."""
        return tuple(name for name in CONVOLUTIONS if f"{name}/kernel" in self.arrays)


def load(source: str | os.PathLike[str] | Weights = "imagenet", seed: int = 0) -> Weights:
    """Get weights by name or from a file.

    Args:
        source: ``imagenet`` (Keras' download, hash check and cache), ``random`` (He initialisation),
            ``auto`` (imagenet if it can be had within ten seconds, else random, and `Weights.note`
            says which and why), or the path of a ``.h5``, ``.weights.h5``, ``.npz`` or
            ``.safetensors`` file. `Weights` are returned as they are.
        seed: of the random generator; used where the weights come out random.

    Raises:
        WeightsError: the source is unknown, cannot be had, or is not VGG-19's weights.
    """
    if isinstance(source, Weights):
        return source
    named: dict[str, Callable[[], Weights]] = {
        "imagenet": imagenet,
        "random": lambda: random(seed),
        "auto": lambda: auto(seed),
    }
    if str(source) in named:
        return named[str(source)]()
    return from_file(Path(source))


def random(seed: int = 0) -> Weights:
    """He-initialised kernels and zero biases for all sixteen convolutions.

    Each filter's mean over its support is removed: filters that sum to zero answer to texture and
    not to brightness.

    Reference: He et al. 2015, arXiv 1502.01852, section 2.2, for the standard deviation.
    """
    generator = np.random.default_rng(seed)
    arrays = {}
    for name, (channels, filters) in CONVOLUTIONS.items():
        deviation = np.sqrt(2 / (9 * channels))
        kernel = generator.normal(0, deviation, (3, 3, channels, filters))
        kernel -= kernel.mean(axis=(0, 1, 2), keepdims=True)
        arrays[f"{name}/kernel"] = kernel.astype(np.float32)
        arrays[f"{name}/bias"] = np.zeros(filters, np.float32)
    return Weights(arrays, source="random")


def imagenet_cache() -> Path:
    """Where Keras keeps the ImageNet weights; the file need not be there."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models" / IMAGENET_FILE


def imagenet() -> Weights:
    """The weights trained on ImageNet, from Keras' cache or by its download with hash check.

    Raises:
        WeightsError: not cached, and the download failed or gave no answer within ten seconds.
    """
    import keras

    try:
        if not imagenet_cache().is_file():
            _expect_answer(IMAGENET_URL, ANSWER_TIMEOUT)
            # Keras keeps the file in /tmp where this folder does not exist.
            imagenet_cache().parent.mkdir(parents=True, exist_ok=True)
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(ANSWER_TIMEOUT)  # Keras sets none, and a stalled download never ends
        try:
            path = keras.utils.get_file(
                IMAGENET_FILE, origin=IMAGENET_URL, file_hash=IMAGENET_MD5,
                cache_dir=imagenet_cache().parents[1], cache_subdir="models",
            )  # fmt: skip
        finally:
            socket.setdefaulttimeout(before)
    except Exception as error:  # urllib, ssl, socket, Keras' own bare Exception: all mean the same
        raise WeightsError(
            f"the ImageNet weights could not be downloaded ({_reason(error)}); fetch {IMAGENET_URL} "
            f"elsewhere and put it at {imagenet_cache()}, or name a file with weights=FILE"
        ) from error
    loaded = from_file(Path(path))
    return Weights(loaded.arrays, source="imagenet", sha256=loaded.sha256)


def auto(seed: int = 0) -> Weights:
    """ImageNet weights if they can be had, else random ones; `Weights.note` says which and why."""
    try:
        found = imagenet()
        chosen = Weights(found.arrays, found.source, "using the ImageNet weights", found.sha256)
    except WeightsError as error:
        note = f"using random weights, pictures will be poorer: {error}"
        chosen = Weights(random(seed).arrays, source="random", note=note)
    log.warning("%s", chosen.note)
    return chosen


def from_file(path: Path) -> Weights:
    """Read and check a weights file.

    Args:
        path: ``.h5`` (Keras' no-top file), ``.weights.h5``, ``.npz`` or ``.safetensors``.

    Raises:
        WeightsError: no such file, unreadable, cut off, or not VGG-19's convolutions.
    """
    readers = {".h5": _read_h5, ".npz": _read_npz, ".safetensors": _read_safetensors}
    if not path.is_file():
        raise WeightsError(
            f"no weights file {path}; give imagenet, random, auto or a {', '.join(readers)} file"
        )
    if path.suffix not in readers:
        raise WeightsError(f"{path}: weights files end in {', '.join(readers)}")
    try:
        raw = readers[path.suffix](path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except WeightsError:
        raise
    except Exception as error:  # damaged files fail in every way that zlib, h5py and NumPy know
        raise WeightsError(f"{path}: not a readable {path.suffix} file ({_reason(error)})") from error
    return Weights(_checked(raw, path), source=path.name, sha256=digest)


def _checked(raw: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """The convolutions from the first up to the first that is missing, as float32, all verified."""
    arrays: dict[str, np.ndarray] = {}
    for name, (channels, filters) in CONVOLUTIONS.items():
        shapes = {f"{name}/kernel": (3, 3, channels, filters), f"{name}/bias": (filters,)}
        missing = [key for key in shapes if key not in raw]
        if missing and len(missing) == len(shapes) and not any(key in raw for key in _keys_above(name)):
            break
        if missing:
            raise WeightsError(f"{path}: {missing[0]} is missing; these are not VGG-19's weights")
        for key, shape in shapes.items():
            if raw[key].shape != shape:
                raise WeightsError(f"{path}: {key} has shape {raw[key].shape}, VGG-19's is {shape}")
            if raw[key].dtype.kind != "f" or not np.isfinite(raw[key]).all():
                raise WeightsError(f"{path}: {key} does not hold finite floating-point numbers")
            arrays[key] = np.asarray(raw[key], np.float32)
    if not arrays:
        found = ", ".join(sorted(raw)[:3]) or "nothing"
        raise WeightsError(f"{path}: no VGG-19 weights (block1_conv1/kernel); it holds {found}")
    return arrays


def _keys_above(name: str) -> list[str]:
    names = list(CONVOLUTIONS)
    return [f"{above}/kernel" for above in names[names.index(name) + 1 :]]


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors.numpy import load_file
    except ImportError as error:
        raise WeightsError(f"{path}: reading it needs `pip install safetensors`") from error
    return load_file(path)


def _read_h5(path: Path) -> dict[str, np.ndarray]:
    """Any of Keras' HDF5 layouts: a convolution is a group with one 4-D and one 1-D dataset below."""
    import h5py

    groups: dict[str, list[np.ndarray]] = {}

    def visit(name: str, node: object) -> None:
        match = re.search(r"block\d_conv\d|layers/conv2d(_\d+)?(?=/)", name)
        if match is None or name.startswith("optimizer") or not isinstance(node, h5py.Dataset):
            return
        if node.ndim in (1, 4):
            groups.setdefault(match.group(), []).append(node[()])

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    arrays: dict[str, np.ndarray] = {}
    for name, datasets in groups.items():
        for array in datasets:
            key = f"{_convolution_name(name)}/{'kernel' if array.ndim == 4 else 'bias'}"
            if key in arrays:
                raise ValueError(f"it holds {key} twice")
            arrays[key] = array
    return arrays


def _convolution_name(group: str) -> str:
    """``.weights.h5`` counts layers by class: conv2d, conv2d_1, ... are VGG-19's in order."""
    if not group.startswith("layers/"):
        return group
    index = int(group.partition("conv2d_")[2] or 0)
    names = list(CONVOLUTIONS)
    return names[index] if index < len(names) else group


def _expect_answer(url: str, timeout: float) -> None:
    """Raise unless the server starts to answer in time; covers name resolution, which has no limit."""
    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=timeout).close()
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        raise TimeoutError(f"no answer within {timeout:.0f} seconds")
    if outcome[0] is not None:
        raise outcome[0]


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words, on one line."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, (TimeoutError, socket.timeout)) and not str(cause):
        return "timed out"
    return " ".join(str(cause).split())[:200] or type(error).__name__

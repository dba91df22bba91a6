"""Where the encoder's weights come from: ImageNet, the package, a file, or a random generator.

Weights are a plain dict of float32 arrays keyed ``block1_conv1/kernel`` ``[3, 3, in, out]`` and
``block1_conv1/bias`` ``[out]``. They are checked here, once, so that an encoder never holds a half
loaded network. A file may stop at any convolution: what lies above is then not available.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfstyle.download import IMAGENET_URL, imagenet_cache, imagenet_file, one_line
from tfstyle.errors import WeightsError
from tfstyle.files import check_writable, write_atomically

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

#: Made by data/make_embedded.py; data/PROVENANCE.md says from what.
EMBEDDED = Path(__file__).parent / "data" / "embedded.npz"
EMBEDDED_PICTURES = 14


@dataclass(frozen=True)
class Weights:
    """Checked weights of VGG-19's convolutions, from the first up to some depth.

    Attributes:
        arrays: ``block1_conv1/kernel`` and the like -> float32 array.
        source: what they are, for the picture's metadata: ``imagenet``, ``embedded``, ``random``, a
            file's name.
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

    @functools.cached_property
    def digests(self) -> Mapping[str, str]:
        """Convolution -> SHA-256 of the float32 arrays from the first up to and with it, 16 digits."""
        running, found = hashlib.sha256(), {}
        for name in self.convolutions:
            for kind in ("kernel", "bias"):
                running.update(self.arrays[f"{name}/{kind}"].astype(np.float32).tobytes())
            found[name] = running.hexdigest()[:16]
        return found

    def save(self, path: str | os.PathLike[str], overwrite: bool = False, half: bool = False) -> None:
        """Write them to an ``.npz`` file that `load` reads.

        Args:
            path: must end in ``.npz``.
            overwrite: replace a file that is there.
            half: as float16, in half the space. Learned filters lose nothing that can be seen.

        Raises:
            WeightsError: another ending.
            OutputError: nothing can be written there, or a file is there.
            RunError: writing failed half way; nothing is left behind.
        """
        path = Path(path)
        check_weights_output(path, overwrite)
        kind = np.float16 if half else np.float32
        buffer = io.BytesIO()
        stored: dict[str, Any] = {key: array.astype(kind) for key, array in self.arrays.items()}
        np.savez_compressed(buffer, **stored)
        write_atomically(path, buffer.getvalue())


def check_weights_output(path: Path, overwrite: bool = False) -> None:
    """Raise an InputError unless `Weights.save` can write there."""
    if path.suffix != ".npz":
        raise WeightsError(f"cannot write {path}: learned weights are written as .npz")
    check_writable(path, overwrite)


def load(source: str | os.PathLike[str] | Weights = "imagenet", seed: int = 0) -> Weights:
    """Get weights by name or from a file.

    Args:
        source: ``imagenet`` (Keras' download, hash check and cache), ``embedded`` (in the package,
            learned without labels), ``random`` (He initialisation), ``auto`` (imagenet if it can be
            had within ten seconds, else embedded, and `Weights.note` says which and why), or the path
            of a ``.h5``, ``.weights.h5``, ``.npz`` or ``.safetensors`` file. `Weights` are returned
            as they are.
        seed: of the random generator, for ``random``.

    Raises:
        WeightsError: the source is unknown, cannot be had, or is not VGG-19's weights.
    """
    if isinstance(source, Weights):
        return source
    named: dict[str, Callable[[], Weights]] = {
        "imagenet": imagenet,
        "embedded": embedded,
        "random": lambda: random(seed),
        "auto": auto,
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


def imagenet() -> Weights:
    """The weights trained on ImageNet, from Keras' cache or by its download with hash check.

    Raises:
        WeightsError: not cached, and the download failed or gave no answer within ten seconds.
    """
    loaded = from_file(imagenet_file())
    return Weights(loaded.arrays, source="imagenet", sha256=loaded.sha256)


def embedded() -> Weights:
    """The filters inside the package, learned by `tfstyle.pretrain` without labels; blocks 1 to 3."""
    _say_once(
        f"using the embedded weights, learned from {EMBEDDED_PICTURES} photographs without labels; the "
        f"ImageNet weights paint better: --weights imagenet downloads them, or fetch {IMAGENET_URL} "
        f"elsewhere and put it at {imagenet_cache()}"
    )
    return _read_embedded("")


def auto() -> Weights:
    """ImageNet weights if they can be had, else embedded ones; `Weights.note` says which and why."""
    try:
        found = imagenet()
        chosen = Weights(found.arrays, found.source, "using the ImageNet weights", found.sha256)
    except WeightsError as error:
        chosen = _read_embedded(f"using the embedded weights, learned from photographs: {error}")
    log.warning("%s", chosen.note)
    return chosen


def _read_embedded(note: str) -> Weights:
    found = from_file(EMBEDDED)
    return Weights(found.arrays, "embedded", note, found.sha256)


@functools.cache
def _say_once(line: str) -> None:
    log.warning("%s", line)


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
            f"no weights file {path}; give imagenet, embedded, random, auto or a {', '.join(readers)} file"
        )
    if path.suffix not in readers:
        raise WeightsError(f"{path}: weights files end in {', '.join(readers)}")
    try:
        raw = readers[path.suffix](path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except WeightsError:
        raise
    except Exception as error:  # damaged files fail in every way that zlib, h5py and NumPy know
        raise WeightsError(f"{path}: not a readable {path.suffix} file ({one_line(error)})") from error
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

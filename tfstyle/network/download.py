"""Keras' weights files: downloading the ImageNet ones with a time limit, and reading any of them."""

from __future__ import annotations

import os
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfstyle.errors import WeightsError

# The file that keras.applications.VGG19(weights="imagenet", include_top=False) fetches, and its
# MD5; asked for by hand because Keras' own call has no time limit.
IMAGENET_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
IMAGENET_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{IMAGENET_FILE}"
IMAGENET_MD5 = "253f8cb515780f3b799900260a226db6"
# The same of keras.applications.VGG16.
VGG16_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
VGG16_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg16/{VGG16_FILE}"
VGG16_MD5 = "6d6bbae143d832006294945121d1f1fc"
ANSWER_TIMEOUT = 10.0  # seconds


def imagenet_source(network: str = "vgg19") -> tuple[str, str, str]:
    """The name, address and MD5 of the file with a network's ImageNet weights."""
    return {
        "vgg19": (IMAGENET_FILE, IMAGENET_URL, IMAGENET_MD5),
        "vgg16": (VGG16_FILE, VGG16_URL, VGG16_MD5),
    }[network]


def imagenet_cache(network: str = "vgg19") -> Path:
    """Where Keras keeps the ImageNet weights; the file need not be there."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models" / imagenet_source(network)[0]


def imagenet_file(network: str = "vgg19") -> Path:
    """The path of the ImageNet weights on this machine; they are downloaded and checked if need be.

    Args:
        network: ``vgg19`` or ``vgg16``.

    Raises:
        WeightsError: not cached, and the download failed or gave no answer within ten seconds.
    """
    import keras

    name, url, md5 = imagenet_source(network)
    cache = imagenet_cache(network)
    try:
        if not cache.is_file():
            _expect_answer(url, ANSWER_TIMEOUT)
            # Keras keeps the file in /tmp where this folder does not exist.
            cache.parent.mkdir(parents=True, exist_ok=True)
        previous_timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(ANSWER_TIMEOUT)  # Keras sets none, and a stalled download never ends
        try:
            path = keras.utils.get_file(
                name, origin=url, file_hash=md5, cache_dir=cache.parents[1], cache_subdir="models"
            )
        finally:
            socket.setdefaulttimeout(previous_timeout)
    except Exception as error:  # urllib, ssl, socket, Keras' own bare Exception: all mean the same
        raise WeightsError(
            f"the ImageNet weights could not be downloaded ({one_line(error)}); fetch {url} "
            f"elsewhere and put it at {cache}, or name a file with weights=FILE"
        ) from error
    return Path(path)


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


def one_line(error: BaseException) -> str:
    """The innermost cause in a few words, on one line."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, (TimeoutError, socket.timeout)) and not str(cause):
        return "timed out"
    return " ".join(str(cause).split())[:200] or type(error).__name__


def read_h5(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of convolutions in any of Keras' HDF5 layouts, keyed ``block1_conv1/kernel`` and the like.

    A convolution is a group with one 4-D and one 1-D dataset below.

    Args:
        names: of a network's convolutions, bottom up, for the layout that only counts them.

    Raises:
        OSError: not an HDF5 file, or a damaged one.
        ValueError: a convolution occurs twice.
    """
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
            key = f"{_convolution_name(name, names)}/{'kernel' if array.ndim == 4 else 'bias'}"
            if key in arrays:
                raise ValueError(f"it holds {key} twice")
            arrays[key] = array
    return arrays


def _convolution_name(group: str, names: Sequence[str]) -> str:
    """``.weights.h5`` counts layers by class: conv2d, conv2d_1, ... are the network's in order."""
    if not group.startswith("layers/"):
        return group
    index = int(group.partition("conv2d_")[2] or 0)
    return names[index] if index < len(names) else group

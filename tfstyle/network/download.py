"""Keras' weights files: the download of the ImageNet weights with a time limit, and reading HDF5 files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfstyle.errors import WeightsError
from tfstyle.files import keras_home
from tfstyle.layers import check_network

# The file that keras.applications.VGG19(weights="imagenet", include_top=False) downloads, and its MD5.
# It is requested here because Keras' call has no time limit.
IMAGENET_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
IMAGENET_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{IMAGENET_FILE}"
IMAGENET_MD5 = "253f8cb515780f3b799900260a226db6"
# The file of keras.applications.VGG16.
VGG16_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
VGG16_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg16/{VGG16_FILE}"
VGG16_MD5 = "6d6bbae143d832006294945121d1f1fc"
#: Seconds to wait for the server of the weights.
ANSWER_TIMEOUT = 10.0
RETRY_HOURS = 6  # time after a failed download during which `auto` does not try again


def imagenet_source(network: str = "vgg19") -> tuple[str, str, str]:
    """Return the name, URL and MD5 of the file with the ImageNet weights of ``vgg19`` or ``vgg16``.

    Raises:
        ConfigError: the network is unknown.
    """
    check_network(network)
    return {
        "vgg19": (IMAGENET_FILE, IMAGENET_URL, IMAGENET_MD5),
        "vgg16": (VGG16_FILE, VGG16_URL, VGG16_MD5),
    }[network]


def imagenet_cache(network: str = "vgg19") -> Path:
    """Return the path at which Keras caches the ImageNet weights, whether or not the file exists.

    The folder is ``models`` in `tfstyle.files.keras_home`, by default ``~/.keras/models``.

    Args:
        network: ``vgg19`` or ``vgg16``.
    """
    return keras_home() / "models" / imagenet_source(network)[0]


class _RecentFailure(Exception):
    """A download failed less than `RETRY_HOURS` hours ago. The message is that of the failure."""


def imagenet_file(network: str = "vgg19", *, retry: bool = True) -> Path:
    """Return the path of the ImageNet weights file, which is downloaded first if it is not cached.

    The file is checked against its MD5.

    Args:
        network: ``vgg19`` or ``vgg16``.
        retry: whether to try again if a download failed less than `RETRY_HOURS` hours ago. The message of a
            failure is stored beside the cached file, if the folder can be written to.

    Raises:
        WeightsError: the file is not cached, and the download failed, the server did not answer within ten
            seconds, or an earlier download failed and `retry` is False.
    """
    import keras

    name, url, md5 = imagenet_source(network)
    cache = imagenet_cache(network)
    failure = cache.with_name(f"{name}.failed")
    try:
        # Keras does not look into a folder that cannot be written to, such as one mounted into a container.
        if cache.is_file() and hashlib.md5(cache.read_bytes(), usedforsecurity=False).hexdigest() == md5:
            with contextlib.suppress(OSError):
                failure.unlink(missing_ok=True)
            return cache
        if not cache.is_file():
            # If the folder does not exist, Keras stores the file in /tmp instead.
            cache.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(cache.parent, os.W_OK):  # do not wait for the network in vain
                raise PermissionError(errno.EACCES, "no permission to write", str(cache.parent))
            if not retry:
                _raise_recent(failure)
            _expect_answer(url, ANSWER_TIMEOUT)
        previous_timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(ANSWER_TIMEOUT)  # Keras sets no timeout: a stalled download would never end
        try:
            path = keras.utils.get_file(
                name, origin=url, file_hash=md5, cache_dir=cache.parents[1], cache_subdir="models"
            )
        finally:
            socket.setdefaulttimeout(previous_timeout)
    except Exception as error:  # of urllib, ssl or socket, or Keras' bare Exception: the download failed
        if not isinstance(error, _RecentFailure):
            with contextlib.suppress(OSError):
                failure.write_text(one_line(error), encoding="utf-8")
        choices = 'weights="embedded" or weights="auto"' if network == "vgg19" else 'weights="random"'
        raise WeightsError(
            f"the ImageNet weights could not be downloaded ({one_line(error)}); give {choices}, or download "
            f"{url} on another machine and store it as {cache}"
        ) from None
    with contextlib.suppress(OSError):
        failure.unlink()
    return Path(path)


def _raise_recent(failure: Path) -> None:
    """Raise `_RecentFailure` with the message in a file, if the file exists and is recent."""
    with contextlib.suppress(OSError, UnicodeError):  # there is no such file, or it cannot be read
        age = time.time() - failure.stat().st_mtime
        if 0 <= age < RETRY_HOURS * 3600:
            raise _RecentFailure(failure.read_text(encoding="utf-8"))


def _expect_answer(url: str, timeout: float) -> None:
    """Raise the error of a HEAD request, or TimeoutError if it takes longer than the timeout in seconds.

    The request runs in a thread because name resolution has no timeout.
    """
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
    """Return an error's message as one line of at most 200 characters.

    The message of a `urllib.error.URLError` is that of its reason, and the message of the operating system is
    returned without its number. For an error without a message, the name of its class is returned, or
    "timed out" for a timeout.

    Args:
        error: the error to describe.
    """
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, (TimeoutError, socket.timeout)) and not str(cause):
        return "timed out"
    message: object = cause
    if isinstance(cause, OSError) and cause.strerror:
        message = f"{cause.filename}: {cause.strerror}" if cause.filename else cause.strerror
    return " ".join(str(message).split())[:200] or type(error).__name__


def read_h5(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the arrays of the convolutions from an HDF5 file of Keras, in any of its layouts.

    A convolution is a group that contains a 4-D dataset, its kernel, and a 1-D dataset, its bias.

    Args:
        path: path of the file.
        names: Keras' names of the network's convolutions, from the first to the deepest. They are needed
            for ``.weights.h5`` files, which number the convolutions.

    Returns:
        A dict from ``block1_conv1/kernel``, ``block1_conv1/bias`` and so on to the arrays.

    Raises:
        OSError: the file is not an HDF5 file, or it is damaged.
        ValueError: the kernel or the bias of a convolution occurs twice.
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
                raise ValueError(f"{key} occurs twice")
            arrays[key] = array
    return arrays


def _convolution_name(group: str, names: Sequence[str]) -> str:
    """Return Keras' name of the convolution in a group of the file.

    A ``.weights.h5`` file numbers the layers of each class: ``conv2d``, ``conv2d_1``, ... are the network's
    convolutions in order.
    """
    if not group.startswith("layers/"):
        return group
    index = int(group.partition("conv2d_")[2] or 0)
    return names[index] if index < len(names) else group

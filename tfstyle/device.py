"""The device, the compiler and the precision that ``auto`` chooses on this machine, and errors of devices."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from tfstyle.errors import ConfigError, RunError

#: Flag in the environment variable TF_XLA_FLAGS that names the folder in which XLA stores compiled programs.
XLA_CACHE = "--tf_xla_persistent_cache_directory="


class Choice(NamedTuple):
    """The value of an option that may be ``auto``, and the reason for it.

    Attributes:
        value: the value that is used.
        why: the reason, as ``tfstyle info`` prints it.
    """

    value: str
    why: str


def choose_device(wanted: str = "auto") -> Choice:
    """Return the name of a device for `tf.device`: ``/CPU:0`` or ``/GPU:n``.

    Args:
        wanted: ``cpu``, ``gpu:n``, or ``auto``: the first GPU that TensorFlow sees, otherwise the CPU.

    Raises:
        ConfigError: TensorFlow does not see this GPU.

    Example:
        >>> choose_device("cpu").value
        '/CPU:0'
    """
    count = len(tf.config.list_physical_devices("GPU"))
    if wanted == "auto":
        reason = "TensorFlow sees a GPU" if count else "TensorFlow sees no GPU"
        return Choice("/GPU:0" if count else "/CPU:0", reason)
    if wanted == "cpu":
        return Choice("/CPU:0", "it was requested")
    if int(wanted.partition(":")[2]) >= count:
        raise ConfigError(f"device is {wanted!r}; TensorFlow sees {count} GPUs; use cpu or auto")
    return Choice(f"/{wanted.upper()}", "it was requested")


def choose_compile(wanted: str, device: str) -> Choice:
    """Return how the step is compiled: ``xla``, ``graph`` or ``eager``.

    Args:
        wanted: one of these, or ``auto``: ``xla`` on a GPU; ``graph`` on a CPU, where the convolutions of
            oneDNN are several times faster than those of XLA, and on the GPU of a Mac, for which TensorFlow
            has no XLA.
        device: the name of a device, as `choose_device` returns it.

    Raises:
        ConfigError: ``wanted`` has another value.

    Example:
        >>> choose_compile("auto", "/CPU:0").value
        'graph'
    """
    if wanted not in ("auto", "xla", "graph", "eager"):
        raise ConfigError(f"compile is {wanted!r}; it can be auto, xla, graph, eager")
    if wanted != "auto":
        return Choice(wanted, "it was requested")
    if "GPU" in device and sys.platform == "darwin":
        return Choice("graph", "the device is the GPU of a Mac, for which TensorFlow has no XLA")
    if "GPU" in device:
        return Choice("xla", "the device is a GPU")
    return Choice("graph", "the device is a CPU, where oneDNN is faster than XLA")


def choose_precision(wanted: str, device: str) -> Choice:
    """Return the data type of the encoder's features: ``float32``, ``bfloat16`` or ``float16``.

    Args:
        wanted: one of these, or ``auto``. On a CPU, ``auto`` is bfloat16 if the processor has instructions
            for it. On a GPU, it is the 16-bit type of the tensor cores: bfloat16 from compute capability
            8.0, float16 from 7.0. Otherwise it is float32.
        device: the name of a device, as `choose_device` returns it.
    """
    if wanted != "auto":
        return Choice(wanted, "it was requested")
    if "GPU" in device:
        gpu = tf.config.list_physical_devices("GPU")[int(device.rpartition(":")[2])]
        capability = tf.config.experimental.get_device_details(gpu).get("compute_capability")
        if capability is None:
            return Choice("float32", "TensorFlow states no compute capability of the GPU")
        reason = f"the GPU has compute capability {capability[0]}.{capability[1]}"
        dtype = "bfloat16" if capability >= (8, 0) else "float16" if capability >= (7, 0) else "float32"
        return Choice(dtype, reason)
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return Choice("float32", "TF_ENABLE_ONEDNN_OPTS=0 switches oneDNN off")
    instructions = sorted({"amx_bf16", "avx512_bf16"} & _processor_flags())
    if instructions:
        return Choice("bfloat16", f"the processor has {' and '.join(instructions)}")
    return Choice("float32", "the processor is not known to have bfloat16 instructions")


def _processor_flags() -> set[str]:
    """Return the flags of the processor on Linux, and an empty set on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


@contextlib.contextmanager
def one_line_errors(shape: tuple[int, ...]) -> Iterator[None]:
    """Turn TensorFlow errors and memory errors into a one-line RunError, as a context manager.

    Args:
        shape: ``(height, width)`` of the image in pixels, for the message.

    Yields:
        None.

    Raises:
        RunError: the block ran out of memory, or TensorFlow raised an error in it.
    """
    try:
        yield
    except (MemoryError, tf.errors.OpError) as error:
        if is_out_of_memory(error):
            size = f"{shape[1]} x {shape[0]} pixels"
            raise RunError(f"out of memory at {size}; use a smaller size or smaller tiles") from error
        raise RunError(f"TensorFlow failed: {str(error).splitlines()[0][:200]}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out.

    Compiled programs raise other errors than ResourceExhaustedError, so that their messages are checked.
    """
    return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)) or (
        isinstance(error, tf.errors.OpError) and "out of memory" in str(error).lower().replace("_", " ")
    )


def xla_cache() -> str | None:
    """Return the folder in which XLA stores compiled programs for later processes, or None."""
    flags = os.environ.get("TF_XLA_FLAGS", "").split()
    return next((flag.removeprefix(XLA_CACHE) for flag in flags if flag.startswith(XLA_CACHE)), None)

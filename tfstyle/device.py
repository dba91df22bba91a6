"""What the machine can do: the device, the compiler and the precision that ``auto`` stands for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from tfstyle.errors import ConfigError, RunError

XLA_CACHE = "--tf_xla_persistent_cache_directory="


class Choice(NamedTuple):
    """The value chosen for an ``auto`` option, and the reason in words for the user."""

    value: str
    why: str


def choose_device(wanted: str = "auto") -> Choice:
    """A device name for `tf.device`, ``/CPU:0`` or ``/GPU:n``.

    Args:
        wanted: ``auto`` (the first GPU that TensorFlow sees, else the CPU), ``cpu``, ``gpu:n``.

    Raises:
        ConfigError: TensorFlow sees no such GPU.
    """
    count = len(tf.config.list_physical_devices("GPU"))
    if wanted == "auto":
        reason = "TensorFlow sees a GPU" if count else "TensorFlow sees no GPU"
        return Choice("/GPU:0" if count else "/CPU:0", reason)
    if wanted == "cpu":
        return Choice("/CPU:0", "asked for")
    if int(wanted.partition(":")[2]) >= count:
        raise ConfigError(f"device is {wanted!r}; TensorFlow sees {count} GPUs here, use cpu or auto")
    return Choice(f"/{wanted.upper()}", "asked for")


def choose_compile(wanted: str, device: str) -> Choice:
    """``xla``, ``graph`` or ``eager``.

    Args:
        wanted: one of them, or ``auto``: XLA on a GPU; on a CPU the graph, because there oneDNN's
            convolutions are several times faster than XLA's.
        device: as `choose_device` gives it.

    Raises:
        ConfigError: something else is wanted.
    """
    if wanted not in ("auto", "xla", "graph", "eager"):
        raise ConfigError(f"compile is {wanted!r}; it can be auto, xla, graph, eager")
    if wanted != "auto":
        return Choice(wanted, "asked for")
    if "GPU" in device:
        return Choice("xla", "the device is a GPU")
    return Choice("graph", "the device is a CPU, where oneDNN beats XLA")


def choose_precision(wanted: str, device: str) -> Choice:
    """The type that the encoder computes in: ``float32``, ``bfloat16`` or ``float16``.

    Args:
        wanted: one of them, or ``auto``: bfloat16 where the processor has instructions for it; on a GPU
            what its tensor cores have, bfloat16 or float16.
        device: as `choose_device` gives it.
    """
    if wanted != "auto":
        return Choice(wanted, "asked for")
    if "GPU" in device:
        gpu = tf.config.list_physical_devices("GPU")[int(device.rpartition(":")[2])]
        capability = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        reason = f"the GPU has compute capability {capability[0]}.{capability[1]}"
        # Tensor cores have float16 from 7.0 and bfloat16 from 8.0.
        dtype = "bfloat16" if capability >= (8, 0) else "float16" if capability >= (7, 0) else "float32"
        return Choice(dtype, reason)
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return Choice("float32", "oneDNN is switched off by TF_ENABLE_ONEDNN_OPTS=0")
    instructions = sorted({"amx_bf16", "avx512_bf16"} & _processor_flags())
    if instructions:
        return Choice("bfloat16", f"the processor has {' and '.join(instructions)}")
    return Choice("float32", "the processor is not known to have bfloat16 instructions")


def _processor_flags() -> set[str]:
    """The processor's flags on Linux; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


@contextlib.contextmanager
def one_line_errors(shape: tuple[int, ...]) -> Iterator[None]:
    """Turn errors of the device into RunErrors of one line."""
    try:
        yield
    except (MemoryError, tf.errors.OpError) as error:
        if is_out_of_memory(error):
            size = f"{shape[1]} x {shape[0]} pixels"
            raise RunError(f"out of memory at {size}; use a smaller size or smaller tiles") from error
        raise RunError(f"TensorFlow failed: {str(error).splitlines()[0][:200]}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out; compiled programs raise it as other classes."""
    return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)) or (
        isinstance(error, tf.errors.OpError) and "out of memory" in str(error).lower().replace("_", " ")
    )


def xla_cache() -> str | None:
    """The folder in which XLA keeps compiled programs from one process to the next, None for nowhere."""
    flags = os.environ.get("TF_XLA_FLAGS", "").split()
    return next((flag.removeprefix(XLA_CACHE) for flag in flags if flag.startswith(XLA_CACHE)), None)

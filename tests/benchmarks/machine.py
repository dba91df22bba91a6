"""What a benchmark ran on, in one line: the first that each prints."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

# What decides the rate of a convolution on a processor.
FLAGS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
PACKAGES = {"TensorFlow": ("tensorflow", "tensorflow-cpu"), "Keras": ("keras",)}


def line() -> str:
    """Processor, cores, instructions, memory, versions, GPU and date. TensorFlow is not imported for it."""
    name, flags = processor()
    has = " ".join(flag for flag in FLAGS if flag in flags) or "no vector flags known"
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{shown} {version(names)}" for shown, names in PACKAGES.items()]
    return (
        f"machine: {name}, {cores()} cores ({has}), {memory()}; {', '.join(versions)}; GPU: {gpus()}; "
        f"{datetime.date.today()}"
    )


def processor() -> tuple[str, set[str]]:
    """Its name and what it can do; the latter is empty where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields = {
        key.strip(): value.strip() for key, _, value in (row.partition(":") for row in text.split("\n"))
    }
    return fields.get("model name", platform.machine()), set(fields.get("flags", "").split())


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError, AttributeError):
        return "memory unknown"


def version(names: tuple[str, ...]) -> str:
    """Of the first package of these that is installed."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "absent"


def gpus() -> str:
    """Names that the driver gives, or ``none``."""
    if shutil.which("nvidia-smi") is None:
        return "none"
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False)
    return ", ".join(found.stdout.split("\n")).strip(", ") if found.returncode == 0 else "none"

"""A description of the machine in one line, which every benchmark prints first."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

# Processor flags of the instructions that determine the rate of a convolution.
FLAGS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
PACKAGES = {"TensorFlow": ("tensorflow", "tensorflow-cpu"), "Keras": ("keras",)}


def line() -> str:
    """Return processor, cores, vector instructions, memory, versions, GPUs and date.

    The versions come from the packages' metadata, so TensorFlow is not imported.
    """
    name, flags = processor()
    has = " ".join(flag for flag in FLAGS if flag in flags) or "no vector flags known"
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{shown} {version(names)}" for shown, names in PACKAGES.items()]
    return (
        f"machine: {name}, {cores()} cores ({has}), {memory()}; {', '.join(versions)}; GPU: {gpus()}; "
        f"{datetime.date.today()}"
    )


def processor() -> tuple[str, set[str]]:
    """Return the processor's name and its flags. The flags are empty if the system has no /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields = {
        key.strip(): value.strip() for key, _, value in (row.partition(":") for row in text.split("\n"))
    }
    return fields.get("model name", platform.machine()), set(fields.get("flags", "").split())


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError, AttributeError):
        return "memory unknown"


def version(names: tuple[str, ...]) -> str:
    """Return the version of the first of these packages that is installed, or ``absent``."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "absent"


def gpus() -> str:
    """Return the names of the GPUs as nvidia-smi prints them, or ``none``."""
    if shutil.which("nvidia-smi") is None:
        return "none"
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return ", ".join(answer.stdout.split("\n")).strip(", ") if answer.returncode == 0 else "none"

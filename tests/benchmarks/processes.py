"""Measurements in a process of their own, which starts as a user's process would start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def in_a_process(name: str, *arguments: object) -> Any:
    """Call a function in a new process, and return its result.

    Args:
        name: the module and the function, as ``"tests.benchmarks.tiling:one_run"``.
        arguments: values that can be written as JSON, as the result can.

    Raises:
        SystemExit: the process failed; the text is the last line that it wrote to stderr.
    """
    code = (
        "import json, pkgutil, sys; name, arguments = json.loads(sys.argv[1]); "
        "print(json.dumps(pkgutil.resolve_name(name)(*arguments)))"
    )
    command = [sys.executable, "-c", code, json.dumps([name, arguments])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> float:
    """Return the peak resident memory of this process in GB; Linux only."""
    # A process starts with the ru_maxrss of its parent, so the peak is read from VmHWM.
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e9

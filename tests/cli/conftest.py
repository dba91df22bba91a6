"""A short run of ``tfstyle stylize``."""

import pytest


@pytest.fixture
def short_command(files, small_file):
    """Return a function: number of iterations -> arguments of a run in the folder `files`."""
    return lambda iterations: [
        "stylize", str(files / "content.png"), str(files / "style.png"), "-o", str(files / "out.png"),
        "--weights", str(small_file), "--size", "32", "--compile", "eager", "--iterations", str(iterations),
    ]  # fmt: skip

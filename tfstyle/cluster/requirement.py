"""Importing Ray with the settings that it reads when it is imported."""

from __future__ import annotations

import os

from tfstyle.errors import ConfigError


def load_ray(*, on_this_machine: bool = False) -> None:
    """Import Ray without its usage statistics.

    Args:
        on_this_machine: whether a Ray that is started in this process listens on the loopback address only.
            Ray has this setting for Windows and macOS, but it works everywhere. It has no effect if Ray was
            imported before.

    Raises:
        ConfigError: Ray Data cannot be imported.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if on_this_machine:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"batches on a cluster need Ray ({error}); install it with pip install 'tfstyle[cluster]'"
        ) from None

"""The check that Ray is installed."""

from __future__ import annotations

from tfstyle.errors import ConfigError


def require_ray() -> None:
    """Raise ConfigError unless Ray Data can be imported."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"many machines need Ray ({error}); install it with pip install 'tfstyle[cluster]'"
        ) from None

"""The check of the numbers that callbacks take."""

from __future__ import annotations

import math
import numbers

from tfstyle.errors import ConfigError


def check_number(
    name: str, value: object, *, low: float, high: float = math.inf, whole: bool = False
) -> None:
    """Raise ConfigError unless a value is a number within limits.

    Args:
        name: name of the argument, for the message.
        value: the value.
        low, high: the limits, which are allowed.
        whole: whether the number must be an integer.
    """
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, kind) and not isinstance(value, bool) and low <= float(value) <= high:
        return
    expected = "an integer" if whole else "a number"
    limits = f"between {low:g} and {high:g}" if high < math.inf else f"of at least {low:g}"
    raise ConfigError(f"{name} is {value!r}; it must be {expected} {limits}")

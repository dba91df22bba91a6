"""The exceptions of tfstyle.

::

    TfstyleError
    ├── InputError (ValueError)      an input is wrong, and the caller can correct it; exit code 2
    │   ├── ConfigError              an option has an invalid value, or two options conflict
    │   ├── ImageError               an image cannot be read, used or written
    │   ├── OutputError              a file or folder cannot be created, or it already exists
    │   ├── WeightsError             the encoder's weights cannot be found or loaded
    │   └── BackendError             Keras is not configured for TensorFlow and channels-last images
    └── RunError (RuntimeError)      the run itself failed; exit code 1
        └── NotFiniteError           a loss became infinite or NaN; it carries the last finite result

The exit codes are those of the command line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class TfstyleError(Exception):
    """The base class of all exceptions that tfstyle raises. The message is one line for the user.

    Example:
        >>> import tfstyle
        >>> try:
        ...     tfstyle.preset("gatys2015")
        ... except tfstyle.TfstyleError as error:
        ...     print(type(error).__name__, isinstance(error, ValueError))
        ConfigError True
    """


class InputError(TfstyleError, ValueError):
    """An argument, an option or an input file is wrong. The message names it and says what would be right."""


class ConfigError(InputError):
    """An option has an invalid value, or conflicts with another option."""


class ImageError(InputError):
    """An image cannot be read, used or written."""


class OutputError(InputError):
    """A file or folder cannot be created at the given path, or an existing file must not be replaced."""


class WeightsError(InputError):
    """The encoder's weights cannot be found, downloaded or read, or do not fit the network."""


class BackendError(InputError):
    """Keras does not use TensorFlow as its backend, or is set to channels-first images."""


class RunError(TfstyleError, RuntimeError):
    """The run failed for a reason other than its input: memory, disk space or numerics."""


class NotFiniteError(RunError):
    """A loss became infinite or NaN.

    Attributes:
        result: the `tfstyle.Result` at the last iteration whose loss was finite.
    """

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


def suggest(value: object, choices: Iterable[str]) -> str:
    """Return `` (did you mean 'NAME'?)`` with the choices similar to a wrong value, for an error message.

    The text is empty if no choice is similar.

    Args:
        value: the wrong value.
        choices: the valid values.

    Example:
        >>> suggest("lbgfs", ["adam", "lbfgs"])
        " (did you mean 'lbfgs'?)"
    """
    names = difflib.get_close_matches(str(value), list(choices), n=2)
    return f" (did you mean {' or '.join(map(repr, names))}?)" if names else ""

"""Every error that tfstyle raises on purpose.

::

    TfstyleError
    ├── InputError (ValueError)      the caller can put it right; the command line exits with 2
    │   ├── ConfigError              an option's value, or options that do not go together
    │   ├── ImageError               a picture that cannot be read, used or written
    │   ├── OutputError              a place where nothing can be written, or something is already
    │   ├── WeightsError             encoder weights that cannot be had
    │   └── BackendError             Keras is set up for something else than TensorFlow
    └── RunError (RuntimeError)      the run itself failed; the command line exits with 1
        └── NotFiniteError           a loss became infinite or NaN; carries the last good result
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class TfstyleError(Exception):
    """Base of all errors raised by tfstyle. The message is one line, ready to be shown to a user."""


class InputError(TfstyleError, ValueError):
    """Something given by the caller is wrong; the message says what, where, and what would be right."""


class ConfigError(InputError):
    """An option has a value it cannot have, or does not go with another option."""


class ImageError(InputError):
    """A picture cannot be read, used or written."""


class OutputError(InputError):
    """A file cannot be made, or may not be replaced, where it was asked for."""


class WeightsError(InputError):
    """The encoder's weights cannot be found, downloaded, read, or do not fit."""


class BackendError(InputError):
    """Keras does not run on TensorFlow here, or stores images channels first."""


class RunError(TfstyleError, RuntimeError):
    """The run failed for a reason that is not the input's: memory, disk, numerics."""


class NotFiniteError(RunError):
    """A loss was not finite.

    Attributes:
        result: the `tfstyle.Result` up to the last good iteration.
    """

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


def suggest(value: object, choices: Iterable[str]) -> str:
    """Return `` (did you mean 'NAME'?)`` with the choices that resemble a value, or an empty string if none does.

    Error messages put it behind the wrong value.

    Example:
        >>> suggest("lbgfs", ["adam", "lbfgs"])
        " (did you mean 'lbfgs'?)"
    """
    names = difflib.get_close_matches(str(value), list(choices), n=2)
    return f" (did you mean {' or '.join(map(repr, names))}?)" if names else ""

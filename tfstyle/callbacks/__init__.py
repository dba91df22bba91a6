"""Callbacks of a run: a display in notebooks, a film of the evolution, and logs for TensorBoard.

A callback is a function that `tfstyle.stylize` calls with an `Iteration` after each iteration, or after each
call of the step if `StyleConfig.steps_per_call` is more than 1. If it returns True, the run ends with the
result so far. If it has a method ``close``, that method is called when the run ends, even after an error. A
callback can also be called in a loop over `tfstyle.iterate`: close it after the loop, or use it as a context
manager.

There is no callback for checkpoints: the arguments ``checkpoint`` and ``resume`` of `tfstyle.stylize` store
and continue a run. The option ``--save-every`` of the command line writes preview images.

Example:
    >>> import numpy as np
    >>> import tfstyle
    >>> content, style = np.random.default_rng(0).uniform(size=(2, 32, 48, 3))
    >>> film = tfstyle.callbacks.Film("evolution.gif")
    >>> result = tfstyle.stylize(
    ...     content, style, weights="embedded", iterations=4,
    ...     callback=[film, lambda step: step.losses["total"] < 1e-9],
    ... )
    >>> film.frames
    4
"""

from tfstyle.callbacks.encoding import add_video_stream, video_frame
from tfstyle.callbacks.films import Film
from tfstyle.callbacks.logs import TensorBoard
from tfstyle.callbacks.notebook import NotebookProgress

__all__ = ["Film", "NotebookProgress", "TensorBoard", "add_video_stream", "video_frame"]

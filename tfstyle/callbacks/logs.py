"""The callback that writes the logs of a run for TensorBoard."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.callbacks.arguments import check_number
from tfstyle.errors import RunError
from tfstyle.files import check_logdir
from tfstyle.images import ImageArray
from tfstyle.run import Iteration

log = logging.getLogger(__name__)

#: Longest side in pixels of a logged image.
LOGGED_SIDE = 1024


class TensorBoard:
    """A callback that writes the losses, images and options of a run for TensorBoard.

    The step in TensorBoard is the number of the iteration over all scales. If a call of the compiled step
    performs several iterations, as on a GPU by default, only the last of them is logged; ``steps_per_call=1``
    logs every iteration. Scalars are ``loss/total``, ``loss/content``, ``loss/style``, ``loss/tv``,
    ``loss/spectrum``, ``loss/self_similarity``, ``style/<layer>`` and ``extra/<name>``. The image is logged
    at the end of each scale and every few iterations, the options and what was chosen for ``auto`` as text at
    the beginning.
    ``tensorboard --logdir DIR`` shows them.

    Args:
        logdir: folder of the logs, created if it is missing. A resumed run can use the folder of the run that
            it continues. Give every other run its own subfolder of a common folder, such as ``logs/first``
            and ``logs/second``; ``tensorboard --logdir logs`` then compares the runs.
        every: number of iterations between two images.

    Raises:
        ConfigError: the package tensorboard is not installed, or `every` is not an integer of at least 1.
        OutputError: the folder cannot be created.

    Example:
        >>> import numpy as np
        >>> import tfstyle
        >>> content, style = np.random.default_rng(0).uniform(size=(2, 32, 48, 3))
        >>> result = tfstyle.stylize(
        ...     content, style, weights="embedded", iterations=2,
        ...     callback=tfstyle.callbacks.TensorBoard("logs/waves"),
        ... )
    """

    def __init__(self, logdir: str | os.PathLike[str], *, every: int = 20) -> None:
        check_logdir(Path(logdir))
        check_number("every", every, low=1, whole=True)
        self._folder, self._every = Path(logdir), every
        self._writer: Any = None
        self._last: Iteration | None = None
        self._image_logged = 0  # the number of the iteration
        self._failed = False

    def __call__(self, step: Iteration) -> None:
        """Write the losses of an iteration, and its image if one is due.

        If the files cannot be written, for example because the disk is full, log a warning, and write no
        more.

        Args:
            step: the iteration.
        """
        if not self._failed:
            with self._warning_on_failure():
                self._write(step)

    def _write(self, step: Iteration) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._folder))
            self._write_options(step)
        previous, self._last = self._last, step
        if previous is not None and previous.scale != step.scale:  # it ended before its last iteration
            self._write_image(previous)
        with self._writer.as_default(step.global_iteration):
            for name, value in step.losses.items():
                tf.summary.scalar(name if "/" in name else f"loss/{name}", value)
        due = step.global_iteration // self._every > self._image_logged // self._every
        if due or step.iteration == step.iterations:
            self._write_image(step)

    def close(self) -> None:
        """Write the last image, and close the files. The object can be used for another run afterwards."""
        if not self._failed:
            with self._warning_on_failure():
                if self._last is not None:
                    self._write_image(self._last)
                if self._writer is not None:
                    self._writer.close()
        self._writer = self._last = None
        self._image_logged, self._failed = 0, False

    @contextlib.contextmanager
    def _warning_on_failure(self) -> Iterator[None]:
        """Log a warning if the block fails, and write no more logs."""
        try:
            yield
        except (tf.errors.OpError, OSError) as error:
            reason = str(error).splitlines()[0]
            log.warning("the logs in %s cannot be written (%s); the run continues", self._folder, reason)
            self._failed = True

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_image(self, step: Iteration) -> None:
        if step.global_iteration == self._image_logged:
            return
        with contextlib.suppress(RunError):  # a later iteration has updated the image in place
            image = ImageArray(step.image).fitted(LOGGED_SIDE).quantized()
            self._image_logged = step.global_iteration
            with self._writer.as_default(step.global_iteration):
                tf.summary.image("image", image[np.newaxis])
            self._writer.flush()

    def _write_options(self, step: Iteration) -> None:
        """Write the options and the facts of the run as JSON in Markdown."""
        with self._writer.as_default(step.global_iteration):
            for name, values in (("options", step.config.as_dict()), ("facts", step.facts)):
                tf.summary.text(name, f"```json\n{json.dumps(values, indent=2)}\n```")

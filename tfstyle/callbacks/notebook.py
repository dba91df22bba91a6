"""A display of a run in notebooks: a bar with numbers, and a preview of the image."""

from __future__ import annotations

import contextlib
import html
import io
import time
from typing import Any, Protocol

import numpy as np

from tfstyle.callbacks.arguments import check_number
from tfstyle.errors import ConfigError, RunError
from tfstyle.images import ImageArray

JPEG_QUALITY = 90


class _Step(Protocol):
    """What the display shows: an iteration of a run, or a step of a video."""

    @property
    def progress(self) -> float: ...
    @property
    def text(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def image(self) -> np.ndarray: ...


class NotebookProgress:
    """A callback that shows a progress bar and a live preview in Colab, Jupyter and VS Code.

    It can also be called with the steps of a video.

    The display appears below the cell at once, and is updated in place.

    Args:
        interval: minimum time between two updates in seconds.
        size: longest side of the preview in pixels. Previews are JPEG files, because Jupyter drops messages
            of more than about one megabyte per second.

    Raises:
        ConfigError: IPython is not installed, `interval` is negative, or `size` is not a positive integer.

    Example:
        >>> import numpy as np
        >>> import tfstyle
        >>> content, style = np.random.default_rng(0).uniform(size=(2, 32, 48, 3))
        >>> progress = tfstyle.callbacks.NotebookProgress()  # doctest: +SKIP
        >>> result = tfstyle.stylize(content, style, size=32, callback=progress)  # doctest: +SKIP
    """

    def __init__(self, *, interval: float = 0.5, size: int = 512) -> None:
        try:
            import IPython  # noqa: F401
        except ImportError:
            raise ConfigError(
                "NotebookProgress needs IPython; use it in a notebook, or install it with pip install ipython"
            ) from None
        check_number("interval", interval, low=0)
        check_number("size", size, low=1, whole=True)
        self._interval, self._size = interval, size
        self._bar: Any = None
        self._preview: Any = None
        self._update_bar(0.0, "preparing the first iteration")
        self._last: _Step | None = None
        self._shown_at = -float("inf")

    def __call__(self, step: _Step) -> None:
        """Update the display if the last update is long enough ago.

        Args:
            step: an `Iteration`, or a `tfstyle.video.VideoStep`.
        """
        self._last = step
        if time.monotonic() - self._shown_at >= self._interval:
            self._show(step, step.text)

    def close(self) -> None:
        """Show the last iteration. The object can be used for another run afterwards."""
        if self._last is not None:
            step, self._last = self._last, None
            self._show(step, step.summary)
        elif self._bar is not None:
            self._update_bar(0.0, "the run ended before the first iteration")
        self._bar = self._preview = None
        self._shown_at = -float("inf")

    def __enter__(self) -> NotebookProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _update_bar(self, progress: float, text: str) -> None:
        from IPython.display import HTML

        bar = f"<progress value='{progress:.4f}' max='1' style='width: 20em'></progress> {progress:.0%}"
        self._bar = _displayed(HTML(f"{bar}<br>{html.escape(text)}"), self._bar)

    def _show(self, step: _Step, text: str) -> None:
        from IPython.display import Image

        self._update_bar(step.progress, text)
        with contextlib.suppress(RunError):  # a later iteration has updated the image in place
            image = ImageArray(step.image).fitted(self._size)
            buffer = io.BytesIO()
            image.as_pil().save(buffer, "JPEG", quality=JPEG_QUALITY)
            self._preview = _displayed(Image(data=buffer.getvalue(), format="jpeg"), self._preview)
        self._shown_at = time.monotonic()


def _displayed(content: Any, handle: Any) -> Any:
    """Display content below the cell, or in place of an earlier display, and return its handle.

    Outside of a notebook and of IPython, nothing is displayed.
    """
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        return None
    if handle is None:
        return display(content, display_id=True)
    handle.update(content)
    return handle

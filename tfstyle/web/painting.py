"""The jobs of a page: a style transfer as a series of previews and a result."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError

if TYPE_CHECKING:  # these modules import TensorFlow
    import numpy as np

    from tfstyle.losses import Masks
    from tfstyle.run import Result

PREVIEW_INTERVAL = 0.5  # seconds between two previews
PREVIEW_SIDE = 640  # longest side of a preview in pixels
JPEG_QUALITY = 85


@dataclass(frozen=True)
class Preview:
    """The state of a running job.

    Attributes:
        progress: part of the work that is done, in 0..1.
        text: one line with the scale, the iteration, the loss and the seconds left.
        image: a JPEG file as a data URI; empty before the first iteration.
    """

    progress: float
    text: str
    _: KW_ONLY
    image: str = ""


def transfer(
    content: Any,
    styles: Sequence[Any],
    config: StyleConfig,
    *,
    masks: Masks | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Preview | Result]:
    """Yield previews of a style transfer, at most two a second after the first, and then its result.

    Args:
        content, styles, config, masks: as for `tfstyle.iterate`.
        stop: called at the begin and after each iteration. If it returns True, the result so far is yielded.

    Raises:
        TfstyleError: as for `tfstyle.stylize`.
        ConfigError: `stop` returned True before the first iteration.
    """
    from tfstyle.run import iterate

    if stop():
        raise ConfigError("stopped before the first iteration")
    run = iterate(content, list(styles), config, masks=masks)
    shown = -float("inf")
    try:
        for step in run:
            if stop():
                step.stop()
            elif time.monotonic() - shown >= PREVIEW_INTERVAL:
                height, width = step.shape
                text = (
                    f"scale {step.scale} of {step.scales} ({width} x {height}), iteration {step.iteration} "
                    f"of {step.iterations}, loss {step.losses['total']:.4g}, {step.time_left}"
                )
                yield Preview(step.progress, text, image=data_uri(step.image))
                shown = time.monotonic()
        yield run.result()
    finally:  # also if the tab is closed
        run.close()


def data_uri(image: np.ndarray) -> str:
    """Return an image ``[height, width, 3]`` in 0..1 as a small JPEG file in a data URI."""
    from tfstyle.images import ImageArray

    buffer = io.BytesIO()
    ImageArray(image).fitted(PREVIEW_SIDE).as_pil().save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

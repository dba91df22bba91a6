"""A style transfer as a series of previews and a result, and the setup that the next job reuses."""

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
    from tfstyle.run import Result, TransferSetup

PREVIEW_INTERVAL = 0.5  # seconds between two previews
PREVIEW_SIDE = 640  # longest side of a preview in pixels
JPEG_QUALITY = 85
#: Maximum number of jobs that reuse one setup. With XLA the step is compiled for each image size, and the
#: compiled steps stay in memory.
MOST_USES = 20


@dataclass(frozen=True)
class Preview:
    """The state of a running job.

    Attributes:
        progress: part of the work that is done, in 0..1.
        text: one line with the scale, the iteration, the loss and the seconds left.
        image: a JPEG file as a data URI.
    """

    progress: float
    text: str
    _: KW_ONLY
    image: str = ""


class Stopped(ConfigError):
    """The user stopped a job before it had a result."""


class SetupCache:
    """A cache of the setup of the last job.

    A job with the same options reuses it, and shows its first preview sooner. The images and the size may
    differ.
    """

    def __init__(self) -> None:
        self._options: StyleConfig | None = None
        self._setup: TransferSetup | None = None
        self._uses = 0

    def find(self, config: StyleConfig) -> TransferSetup | None:
        """Return a setup for the options of a job, if the last job had the same ones.

        Args:
            config: the options.
        """
        if self._setup is None or self._uses == MOST_USES or self._options != _without_size(config):
            self._setup, self._uses = None, 0
            return None
        self._uses += 1
        return self._setup.for_other_styles()

    def store(self, config: StyleConfig, setup: TransferSetup) -> None:
        """Store the setup of a job instead of the stored one.

        Args:
            config: the options of the job.
            setup: its setup.
        """
        self._options = _without_size(config)
        self._setup = None if config.normalize_weights else setup  # it would depend on the content image


def _without_size(config: StyleConfig) -> StyleConfig:
    return config.replace({"size": StyleConfig().size})


def transfer(
    content: Any,
    styles: Sequence[Any],
    config: StyleConfig,
    *,
    masks: Masks | None = None,
    stop: Callable[[], bool] = lambda: False,
    setups: SetupCache | None = None,
) -> Iterator[Preview | Result]:
    """Yield previews of a style transfer, at most two a second after the first, and then its result.

    Args:
        content, styles, config, masks: as for `tfstyle.iterate`.
        stop: called at the start and after each iteration. If it returns True after an iteration, the run
            ends and the result so far is yielded.
        setups: the setup of the last job, which is used if the options are the same. The setup of this job
            replaces it.

    Raises:
        TfstyleError: as for `tfstyle.stylize`.
        Stopped: `stop` returned True before the first iteration.
    """
    from tfstyle.run import iterate

    if stop():
        raise Stopped("stopped before the first iteration")
    setups = setups or SetupCache()
    run = iterate(content, list(styles), config, masks=masks, setup=setups.find(config))
    setups.store(config, run.setup)
    shown = -float("inf")
    try:
        for step in run:
            if stop():
                step.stop()
            elif time.monotonic() - shown >= PREVIEW_INTERVAL:
                yield Preview(step.progress, step.text, image=data_uri(step.image))
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

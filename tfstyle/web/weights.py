"""The weights of a server. Whoever starts it chooses them; no job of a user downloads any."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from tfstyle.config import StyleConfig
from tfstyle.errors import TfstyleError, WeightsError
from tfstyle.files import NAMED_WEIGHTS, check_weights_file
from tfstyle.web.painting import Stopped

log = logging.getLogger(__name__)


class ServerWeights:
    """The weights for jobs that ask for ``auto``.

    Args:
        source: as for `StyleConfig.weights`.
        load: function that imports TensorFlow, for example while it hides the start-up messages.

    Attributes:
        source: as given.

    Raises:
        WeightsError: the source is neither a name nor a file of weights.
    """

    def __init__(
        self, source: str | os.PathLike[str] = "auto", *, load: Callable[[], None] | None = None
    ) -> None:
        if source not in NAMED_WEIGHTS:
            check_weights_file(source)
        self.source, self._load = source, load or (lambda: None)
        self._imported, self._ready = threading.Event(), threading.Event()

    def prepare(self) -> None:
        """Import TensorFlow and load the weights, so that no job waits for it. The first time downloads them.

        If the weights cannot be loaded, a warning is logged.
        """
        try:
            self._load()
            import_module("tfstyle.run")
            self._imported.set()
            from tfstyle.network import load_weights

            load_weights(self.source)
        except TfstyleError as error:
            log.warning("%s", error)
        finally:
            self._imported.set()
            self._ready.set()

    def wait_for_import(self) -> None:
        """Wait until `prepare` has imported TensorFlow. Two threads that import it can block each other."""
        self._imported.wait()

    @property
    def waiting_for(self) -> str:
        """The text that says what a job waits for when it starts."""
        loading = "preparing: the server is loading TensorFlow and the weights"
        return "preparing" if self._ready.is_set() else loading

    def chosen(self, config: StyleConfig, *, stop: Callable[[], bool]) -> str:
        """Return the source of the weights for a job, after `prepare` has ended.

        Args:
            config: the options of the job.
            stop: called while the job waits. If it returns True, the waiting ends.

        Raises:
            Stopped: `stop` returned True before `prepare` had ended.
            WeightsError: the server lacks the ImageNet weights that the job asks for.
        """
        while not self._ready.wait(0.1):
            if stop():
                raise Stopped("stopped before the job began")
        source = str(self.source if config.weights == "auto" else config.weights)
        if source not in ("auto", "imagenet"):
            return source
        from tfstyle.network import imagenet_cache

        if imagenet_cache(config.network).is_file():
            return "imagenet"
        if source == "imagenet" or config.network != "vgg19":
            raise WeightsError(
                f"the server has no ImageNet weights of {config.network}; choose other weights"
            )
        return "embedded"

    def public_name(self, source: str) -> str:
        """Return a name of the weights that tells users nothing about the folders of the server."""
        return source if source in NAMED_WEIGHTS else Path(source).name

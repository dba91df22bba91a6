"""The results of the frames of a video: the last ones in memory, and all of them in a folder, if given."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

from tfstyle.errors import RunError
from tfstyle.files import replacing


class FrameStore:
    """Stores images by pass and frame number, as 16-bit integers.

    Args:
        keep: number of images that are kept in memory.
        folder: folder for all images, or None.
    """

    def __init__(self, *, keep: int, folder: Path | None) -> None:
        self._keep, self._folder = keep, folder
        self._memory: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def write(self, place: tuple[int, int], image: np.ndarray) -> np.ndarray:
        """Store an image.

        Args:
            place: the pass and the number of the frame.
            image: float32 ``[height, width, C]``; it is clipped to 0..1 and rounded to 16 bits.

        Returns:
            The image as `read` will return it.

        Raises:
            RunError: the file cannot be written.
        """
        values = np.round(np.clip(image, 0, 1) * 65535).astype(np.uint16)
        self._remember(place, values)
        if self._folder is not None:
            with replacing(self._path(place)) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
        return _as_image(values)

    def read(self, place: tuple[int, int]) -> np.ndarray:
        """Return a stored image, float32 ``[height, width, C]`` in 0..1.

        Raises:
            KeyError: it is not in memory, and there is no folder.
            RunError: its file is damaged or missing.
        """
        if place in self._memory:
            return _as_image(self._memory[place])
        if self._folder is None:
            raise KeyError(place)
        try:
            values = np.load(self._path(place), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RunError(
                f"{self._path(place)} is missing or damaged; to begin a new video, leave out resume=True and "
                "choose another folder"
            ) from error
        self._remember(place, values)
        return _as_image(values)

    def __contains__(self, place: object) -> bool:
        return place in self._memory or (self._folder is not None and self._path(place).is_file())  # type: ignore[arg-type]

    def forget(self, place: tuple[int, int]) -> None:
        """Delete an image."""
        self._memory.pop(place, None)
        if self._folder is not None:
            self._path(place).unlink(missing_ok=True)

    def _remember(self, place: tuple[int, int], values: np.ndarray) -> None:
        self._memory.pop(place, None)
        self._memory[place] = values
        while len(self._memory) > self._keep:
            self._memory.popitem(last=False)

    def _path(self, place: tuple[int, int]) -> Path:
        assert self._folder is not None
        return self._folder / f"pass-{place[0]}-frame-{place[1]:06d}.npy"


def _as_image(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) / np.float32(65535)


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder for the frames of a video with several passes."""
    return tempfile.TemporaryDirectory(prefix="tfstyle-video-", ignore_cleanup_errors=True)

"""Opening clips: a video file, or a series of images."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfstyle.errors import ConfigError, ImageError
from tfstyle.files import check_clip
from tfstyle.images import ImageArray, find_images, load, resize
from tfstyle.video.selection import Frame, Selection, exact
from tfstyle.video.video_file import VideoFile, alpha_note

#: Frames per second of a series of images, unless another rate is given.
IMAGES_FPS = 25.0


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip that was opened, and can be read more than once.

    Attributes:
        name: its name in messages.
        shape: height and width of the frames in pixels, upright and with square pixels.
        source: the video file, or the series of images.
        selection: which frames are used.
        time_base: unit of the times of its frames in seconds.
        count: expected number of frames that are used; a damaged file may have fewer.
        origin: time of the first frame on the clip's own clock, in seconds.
        begin: time on that clock that becomes 0 in a copy of the clip: that of the first frame that is used,
            if `selection.start` was given, or the beginning of the file, if it is far from 0.
        end: time on that clock at which the last frame ends.
        rate: approximate number of frames per second.
        notes: what a user should know about the clip, one line each. Reading adds to them.
    """

    name: str
    shape: tuple[int, int]
    _: KW_ONLY
    source: VideoFile | Sequence[Any]
    selection: Selection
    time_base: Fraction
    count: int
    origin: Fraction
    begin: Fraction
    end: Fraction
    rate: Fraction
    notes: list[str]
    _read: Callable[[tuple[int, int]], Iterator[Frame]] = field(repr=False)

    @property
    def sound(self) -> VideoFile | None:
        """The file whose sound can be copied, or None."""
        file = self.source
        return file if isinstance(file, VideoFile) and file.has_sound else None

    def frames(self, shape: tuple[int, int] | None = None) -> Iterator[Frame]:
        """Yield the frames that are used.

        If the file ends early or is damaged, the frames that can be read are yielded, and a note is added.

        Args:
            shape: height and width to which the frames are resized; by default those of the clip.

        Raises:
            ImageError: no frame can be read.
        """
        frames = self._read(shape or self.shape)
        count = 0
        with contextlib.closing(frames):  # type: ignore[type-var]
            for frame in frames:
                count += 1
                yield frame
        if count == 0:
            raise ImageError(f"{self.name}: no frame can be read")


def open_clip(
    source: Any,
    selection: Selection | None = None,
    *,
    max_pixels: int | None = None,
    trusted: bool = True,
    check: Callable[[], None] = lambda: None,
) -> Clip:
    """Open a clip.

    Args:
        source: path of a video file or of a folder of images, which are sorted by the numbers in their names,
            or a sequence of images as `tfstyle.images.load` takes them.
        selection: which frames are used; by default all.
        max_pixels: largest number of pixels of a frame; None for no limit.
        trusted: whether formats are read that refer to other files, such as playlists.
        check: called for each frame that is decoded. It raises an error to end the reading.

    Returns:
        The clip.

    Raises:
        ImageError: the file does not exist, is not a video, has no video stream or no frame, is too large, or
            its codec cannot be decoded.
        ConfigError: PyAV is not installed, no frame is selected, or `selection` is not a `Selection`.
    """
    selection = Selection() if selection is None else selection
    if not isinstance(selection, Selection):
        raise ConfigError(
            f"selection is a {type(selection).__name__}; give tfstyle.video.Selection(start=1, end=2)"
        )
    if isinstance(source, (str, os.PathLike)):
        check_clip(source)
        path = Path(source)
        if not path.is_dir():
            file = VideoFile(path, trusted=trusted, max_pixels=max_pixels, check=check)
            return _clip_of_file(file, selection)
        images = sorted(find_images([path]), key=_number_order)
        return _clip_of_images(images, selection, max_pixels, name=str(path))
    if isinstance(source, np.ndarray) and source.ndim != 4:
        raise ImageError(
            f"the clip is an array of shape {source.shape}; give an array [frames, height, width, 3]"
        )
    if not isinstance(source, (Sequence, np.ndarray)) or isinstance(source, (bytes, bytearray)):
        raise ImageError(f"the clip is a {type(source).__name__}; give a path or a list of images")
    return _clip_of_images(source, selection, max_pixels, name="the clip")


def _number_order(path: Path) -> list[Any]:
    """Return a key that sorts names by the numbers in them, so that 10 follows 9."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _clip_of_file(file: VideoFile, selection: Selection) -> Clip:
    """Return the clip of a video file."""
    origin, end = file.times[0], file.end
    choices = selection.choose(time - origin for time in file.times)
    used = [time for time, use in zip(file.times, choices, strict=False) if use is True]
    _require_frames(len(used), str(file.path), end - origin)
    if selection.end is not None:
        end = min(end, origin + exact(selection.end))
    return Clip(
        str(file.path),
        file.shape,
        source=file,
        selection=selection,
        time_base=file.time_base,
        count=len(used),
        origin=origin,
        begin=used[0] if selection.start else file.begin,
        end=end,
        rate=file.rate,
        notes=file.notes,
        _read=lambda shape: file.frames(selection, shape),
    )


def _clip_of_images(images: Any, selection: Selection, max_pixels: int | None, *, name: str) -> Clip:
    """Return the clip of a series of images."""
    if len(images) == 0:
        raise ImageError(f"{name} has no images")
    rate = exact(selection.fps or IMAGES_FPS)
    chosen = Selection(start=selection.start, end=selection.end, every=selection.every)
    times = [i / rate for i in range(len(images))]
    first = load(images[0], max_pixels=max_pixels)
    shape = first.rgb.shape[0], first.rgb.shape[1]

    def read(wanted: tuple[int, int]) -> Iterator[Frame]:
        number = 0
        for image, time, use in zip(images, times, chosen.choose(times), strict=False):
            if use is None:
                return
            if not use:
                continue
            number += 1
            loaded = load(image, max_pixels=max_pixels)
            if loaded.rgb.shape[:2] != shape:
                raise _wrong_size(image, number, loaded.rgb.shape, first=shape)
            yield Frame(resize(loaded.on_white(), wanted), time, number)

    used = [time for time, use in zip(times, chosen.choose(times), strict=False) if use is True]
    end = len(images) / rate
    _require_frames(len(used), name, end)
    _check_sizes(images, first)
    return Clip(
        name,
        shape,
        source=images,
        selection=selection,
        time_base=1 / rate,
        count=len(used),
        origin=Fraction(0),
        begin=used[0] if selection.start else Fraction(0),
        end=end if selection.end is None else min(end, exact(selection.end)),
        rate=rate,
        notes=[] if first.alpha is None else [alpha_note(name)],
        _read=read,
    )


def _check_sizes(images: Sequence[Any], first: ImageArray) -> None:
    """Raise ImageError if a file or an array does not have the size of the first image. No pixel is read."""
    wanted = sorted(first.rgb.shape[:2])
    for number, image in enumerate(images, 1):
        shape = np.shape(image)[:2] if isinstance(image, np.ndarray) else None
        if isinstance(image, (str, os.PathLike)):
            with (
                contextlib.suppress(OSError, ValueError, Image.DecompressionBombError),
                Image.open(image) as file,
            ):
                shape = file.size[::-1]
        if shape is not None and sorted(shape) != wanted:  # an orientation in the file may exchange the sides
            raise _wrong_size(image, number, shape, first=first.rgb.shape)


def _wrong_size(image: Any, number: int, shape: Sequence[int], *, first: Sequence[int]) -> ImageError:
    """Return the error for an image of a series that has another size than the first one."""
    place = image if isinstance(image, (str, os.PathLike)) else f"image {number}"
    return ImageError(
        f"{place} has {_size(shape)} pixels, and the first image has {_size(first)}; all frames of a clip "
        "must have the same size"
    )


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"


def _require_frames(count: int, name: str, seconds: Fraction) -> None:
    if count == 0:
        raise ConfigError(f"no frame of {name} is selected; it lasts {float(seconds):.2f} s")

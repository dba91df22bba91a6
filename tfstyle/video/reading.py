"""Reading the frames of a clip: a video file by PyAV, or a series of images."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfstyle.errors import ConfigError, ImageError
from tfstyle.files import check_image_or_folder, refuse_url
from tfstyle.images import ImageArray, find_images, load, resize
from tfstyle.video.decoding import HDR_TRANSFERS, display_matrix, frame_pixels, upright
from tfstyle.video.requirement import load_av, one_line_av_errors

log = logging.getLogger(__name__)

#: Frames per second of a series of images, unless another rate is given.
IMAGES_FPS = 25.0
#: Formats that consist of one file and refer to no other files, in the order of FFmpeg's names.
SELF_CONTAINED = (
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "gif", "mpegts", "mpeg",
    "mpegvideo", "flv", "asf", "ogg", "h264", "hevc", "ivf", "mxf", "apng", "nut",
)  # fmt: skip
#: Part of a clip's duration that may be missing before it counts as cut off.
MISSING_PART = Fraction(1, 20)


class Frame(NamedTuple):
    """A frame of a clip.

    Attributes:
        image: float32 ``[height, width, 3]``, sRGB in 0..1, upright, with square pixels.
        time: time at which it is shown, in seconds from the beginning of the clip's own clock.
        number: number of the frame among those that are used, from 1.
    """

    image: np.ndarray
    time: Fraction
    number: int


def exact(value: float) -> Fraction:
    """Return a number of seconds or frames per second as a fraction, such as 30000/1001 for 29.97003."""
    return Fraction(value).limit_denominator(10_000)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which frames of a clip are used.

    Args:
        start: time of the first frame in seconds from the beginning of the clip, or None for the beginning.
        end: time in seconds before which the last frame is shown, or None for the end.
        every: of this many successive frames the first is used, at least 1.
        fps: largest number of frames per second, or None for all frames. For a series of images it is the
            number of images per second.

    Raises:
        ConfigError: a value is out of its range.
    """

    start: float | None = None
    end: float | None = None
    every: int = 1
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.start is not None and not 0 <= self.start < float("inf"):
            raise ConfigError(f"start is {self.start!r}; give a time in seconds, at least 0")
        if self.end is not None and not (self.start or 0.0) < self.end < float("inf"):
            raise ConfigError(f"end is {self.end!r}; give a time in seconds after start")
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ConfigError(f"every is {self.every!r}; give a whole number of at least 1")
        if self.fps is not None and not 0.01 <= self.fps <= 1000:
            raise ConfigError(f"fps is {self.fps!r}; give a number of frames per second from 0.01 to 1000")

    def choose(self, times: Iterable[Fraction]) -> Iterator[bool | None]:
        """Yield for each frame whether it is used, and None for the first frame after the end.

        Args:
            times: the times of the frames in seconds from the beginning of the clip, in order.
        """
        start, end = exact(self.start or 0), None if self.end is None else exact(self.end)
        count, next_tick = 0, start
        for time in times:
            if end is not None and time >= end:
                yield None
                return
            if time < start:
                yield False
                continue
            is_due = count % self.every == 0
            count += 1
            if is_due and self.fps is not None:
                rate = exact(self.fps)
                # Many files round their times, WebM to milliseconds. A frame may be early by a tenth of the
                # interval, so that a clip of 30 frames per second keeps all of them with fps=30.
                early = 1 / (10 * rate)
                is_due = time + early >= next_tick
                if is_due:
                    next_tick = start + ((time + early - start) * rate // 1 + 1) / rate
            yield is_due


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip that was opened, and can be read more than once.

    Attributes:
        name: what messages call it.
        shape: height and width of the frames in pixels, upright and with square pixels.
        time_base: unit of the times of its frames in seconds.
        count: expected number of frames that are used; a damaged file may have fewer.
        path: path of the video file, or None for a series of images.
        has_sound: whether the file has sound.
        origin: time of the first frame on the clip's own clock, in seconds.
        rate: approximate number of frames per second.
        notes: what a user should know about the clip, one line each. Reading adds to them.
    """

    name: str
    shape: tuple[int, int]
    _: KW_ONLY
    time_base: Fraction
    count: int
    path: Path | None
    has_sound: bool
    origin: Fraction
    rate: Fraction
    selection: Selection
    notes: list[str] = field(default_factory=list)
    _read: Callable[[Clip, tuple[int, int]], Iterator[Frame]] = field(repr=False)

    def frames(self, shape: tuple[int, int] | None = None) -> Iterator[Frame]:
        """Yield the frames that are used.

        If the file ends early or is damaged, the frames that can be read are yielded, and a note is added.

        Args:
            shape: height and width to which the frames are resized; by default those of the clip.

        Raises:
            ImageError: no frame can be read.
        """
        frames = self._read(self, shape or self.shape)
        count = 0
        with contextlib.closing(frames):  # type: ignore[type-var]
            for frame in frames:
                count += 1
                yield frame
        if count == 0:
            raise ImageError(f"{self.name}: no frame can be read")


def open_clip(
    source: Any, selection: Selection = Selection(), *, max_pixels: int | None = None, trusted: bool = True
) -> Clip:
    """Open a clip without decoding it.

    Args:
        source: path of a video file or of a folder of images, which are sorted by the numbers in their names,
            or a sequence of images as `tfstyle.images.load` takes them.
        selection: which frames are used.
        max_pixels: largest number of pixels of a frame; None for no limit.
        trusted: whether formats are read that refer to other files, such as playlists.

    Returns:
        The clip.

    Raises:
        ImageError: the file does not exist, is not a video, has no video stream or no frame, is too large, or
            its codec cannot be decoded.
        ConfigError: PyAV is not installed, or no frame is selected.
    """
    if isinstance(source, (str, os.PathLike)):
        refuse_url(source)
        check_image_or_folder(source)
        path = Path(source)
        if not path.is_dir():
            return _open_file(path, selection, max_pixels, trusted)
        images = sorted(find_images([path]), key=_number_order)
        return _open_images(images, selection, max_pixels, name=str(path))
    if isinstance(source, np.ndarray) and source.ndim != 4:
        raise ImageError(
            f"the clip is an array of shape {source.shape}; give an array [frames, height, width, 3]"
        )
    if not isinstance(source, (Sequence, np.ndarray)) or isinstance(source, (bytes, bytearray)):
        raise ImageError(f"the clip is a {type(source).__name__}; give a path or a list of images")
    return _open_images(source, selection, max_pixels, name="the clip")


def _number_order(path: Path) -> list[Any]:
    """Return a key that sorts names by the numbers in them, so that 10 follows 9."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _open_images(images: Any, selection: Selection, max_pixels: int | None, *, name: str) -> Clip:
    """Return the clip of a series of images."""
    if len(images) == 0:
        raise ImageError(f"{name} has no images")
    rate = exact(selection.fps or IMAGES_FPS)
    choosing = Selection(start=selection.start, end=selection.end, every=selection.every)
    first = load(images[0], max_pixels=max_pixels)
    shape = first.rgb.shape[0], first.rgb.shape[1]
    notes = [_alpha_note(name)] if first.alpha is not None else []

    def read(clip: Clip, wanted: tuple[int, int]) -> Iterator[Frame]:
        times = [i / rate for i in range(len(images))]
        number = 0
        for image, time, use in zip(images, times, choosing.choose(times), strict=False):
            if use is None:
                return
            if not use:
                continue
            loaded = load(image, max_pixels=max_pixels)
            if loaded.rgb.shape[:2] != shape:
                raise ImageError(
                    f"{image if isinstance(image, Path) else f'image {number + 1}'} has "
                    f"{_size(loaded.rgb.shape)} pixels, and the first image has {_size(shape)}; the frames "
                    "of a clip have the same size"
                )
            number += 1
            yield Frame(resize(loaded.on_white(), wanted), time, number)

    count = sum(use is True for use in choosing.choose(i / rate for i in range(len(images))))
    _require_frames(count, name, Fraction(len(images)) / rate)
    return Clip(
        name, shape,
        time_base=1 / rate, count=count, path=None, has_sound=False, origin=Fraction(0), rate=rate,
        selection=selection, notes=notes, _read=read,
    )  # fmt: skip


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"


def _alpha_note(name: str) -> str:
    return f"{name} has an alpha channel, which is dropped: transparent parts are white"


def _require_frames(count: int, name: str, seconds: Fraction) -> None:
    if count == 0:
        raise ConfigError(f"{name} has no frame between start and end; it lasts {float(seconds):.2f} s")


def _open_file(path: Path, selection: Selection, max_pixels: int | None, trusted: bool) -> Clip:
    """Return the clip of a video file, after reading its packets without decoding them."""
    with one_line_av_errors(path), _opened(path, trusted) as container:
        stream = _video_stream(container, path)
        context = stream.codec_context
        if context is None:
            raise ImageError(f"{path}: this PyAV cannot decode the codec of its video stream")
        if max_pixels is not None and context.width * context.height > max_pixels:
            raise ImageError(
                f"{path} has frames of {context.width} x {context.height} pixels; at most {max_pixels} "
                "pixels are read (max_pixels)"
            )
        has_sound = any(s.type == "audio" for s in container.streams)
        notes: list[str] = []
        times, whole = _packet_times(container, stream)
        announced = stream.frames
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        duration = _duration(container, stream, has_sound)
    if not times:
        raise ImageError(f"{path}: the video stream has no frames")
    origin = times[0]
    last = times[-1] - origin
    missing = Fraction(0) if announced else duration - last - 1 / rate
    if not whole or announced > len(times) or missing > max(2 / rate, MISSING_PART * duration):
        expected = f" of {announced}" if announced > len(times) else ""
        notes.append(f"{path} is cut off or damaged: only {len(times)}{expected} frames can be read")
    choices = list(selection.choose(time - origin for time in times))
    count = sum(choice is True for choice in choices)
    _require_frames(count, str(path), last + 1 / rate)
    clip = Clip(
        str(path), (0, 0),
        time_base=Fraction(stream.time_base), count=count, path=path, has_sound=has_sound, origin=origin,
        rate=rate, selection=selection, notes=notes,
        _read=lambda clip, shape: _read_file(path, clip, shape, trusted),
    )  # fmt: skip
    shape = _first_shape(path, clip, trusted)
    return Clip(**{**vars(clip), "shape": shape})


@contextlib.contextmanager
def _opened(path: Path, trusted: bool) -> Iterator[Any]:
    """Open a video file, which may not refer to the network, nor to other files unless it is trusted."""
    av = load_av()
    options = {"protocol_whitelist": "file"}
    if not trusted:
        options["format_whitelist"] = ",".join(SELF_CONTAINED)
    with av.open(str(path), options=options) as container:
        yield container


def _video_stream(container: Any, path: Path) -> Any:
    """Return the video stream of a file that is not its cover picture."""
    cover = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC
    streams = [s for s in container.streams.video if not int(s.disposition) & cover]
    if not streams:
        others = sorted({stream.type for stream in container.streams})
        raise ImageError(f"{path} has no video stream; it has {', '.join(others) or 'no streams'}")
    stream = streams[0]
    if stream.codec_context is not None:
        stream.thread_type = "AUTO"
    return stream


def _duration(container: Any, stream: Any, has_sound: bool) -> Fraction:
    """Return the duration in seconds that a file states for its video stream, or 0."""
    if stream.duration is not None:
        return Fraction(stream.duration * stream.time_base)
    if container.duration is None or has_sound:  # that of the sound may be longer
        return Fraction(0)
    return Fraction(container.duration, load_av().time_base)


def _packet_times(container: Any, stream: Any) -> tuple[list[Fraction], bool]:
    """Return the times of the frames of a stream in order, and whether all packets could be read."""
    av = load_av()
    times, whole = [], True
    try:
        for packet in container.demux(stream):
            stamp = packet.dts if packet.pts is None else packet.pts
            if packet.size and not packet.is_discard and stamp is not None:
                times.append(stamp * Fraction(packet.time_base))
            whole &= not packet.is_corrupt
    except av.FFmpegError:
        whole = False
    return sorted(times), whole


def _first_shape(path: Path, clip: Clip, trusted: bool) -> tuple[int, int]:
    """Return the height and width of the first frame, upright and with square pixels."""
    with one_line_av_errors(path), _opened(path, trusted) as container:
        stream = _video_stream(container, path)
        frame = next(_decoded(container, stream, clip), None)
        if frame is None:
            raise ImageError(f"{path}: no frame can be read")
        return _upright_shape(frame, stream)


def _upright_shape(frame: Any, stream: Any) -> tuple[int, int]:
    ratio = stream.sample_aspect_ratio or Fraction(1)
    height, width = frame.height, max(1, round(frame.width * ratio))
    matrix = display_matrix(frame, stream.codec_context.name)
    return (width, height) if matrix[0] == 0 else (height, width)


def _read_file(path: Path, clip: Clip, shape: tuple[int, int], trusted: bool) -> Iterator[Frame]:
    """Yield the selected frames of a video file."""
    number = decoded = corrupt = 0
    with one_line_av_errors(path), _opened(path, trusted) as container:
        stream = _video_stream(container, path)
        start = clip.selection.start
        if start:  # to the key frame before it
            with contextlib.suppress(load_av().FFmpegError):
                container.seek(int((clip.origin + exact(start)) / stream.time_base), stream=stream)
        last_time: Fraction | None = None
        kept: list[Any] = [None]

        def times() -> Iterator[Fraction]:
            nonlocal last_time, decoded, corrupt
            for frame in _decoded(container, stream, clip):
                decoded += 1
                corrupt += bool(frame.is_corrupt)
                stamp = frame.dts if frame.pts is None else frame.pts
                if stamp is None:
                    time = (last_time or clip.origin) + (1 / clip.rate if last_time is not None else 0)
                else:
                    time = stamp * Fraction(frame.time_base)
                if last_time is not None and time <= last_time:
                    continue  # a frame that is repeated or out of order
                last_time, kept[0] = time, frame
                yield time - clip.origin

        for use in clip.selection.choose(times()):
            if use is None:
                break
            if not use:
                continue
            frame = kept[0]
            _note_colours(clip, frame)
            assert last_time is not None
            number += 1
            yield Frame(_image(frame, shape, clip, stream.codec_context.name), last_time, number)
    if corrupt:
        _add_note(clip, f"{path}: {corrupt} of {decoded} frames are damaged")


def _decoded(container: Any, stream: Any, clip: Clip) -> Iterator[Any]:
    """Yield the decoded frames of a stream. Packets that cannot be decoded are left out and noted."""
    av = load_av()
    packets = iter(container.demux(stream))
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            _add_note(clip, f"{clip.name} is cut off or damaged ({error.strerror})")
            packet = None
        try:
            yield from stream.decode(packet)
        except av.EOFError:
            return
        except av.FFmpegError as error:
            _add_note(clip, f"{clip.name} has parts that cannot be decoded ({error.strerror})")
        if packet is None:
            return


def _image(frame: Any, shape: tuple[int, int], clip: Clip, codec: str) -> np.ndarray:
    """Return the image of a decoded frame, upright, on white, and resized."""
    rgb, alpha = frame_pixels(frame)
    if alpha is not None and alpha.min() < 1:
        _add_note(clip, _alpha_note(clip.name))
    matrix = display_matrix(frame, codec)
    rgb = upright(rgb, matrix)
    image = ImageArray(rgb, None if alpha is None else upright(alpha, matrix))
    return resize(np.ascontiguousarray(image.on_white(), np.float32), shape)


def _note_colours(clip: Clip, frame: Any) -> None:
    transfer = HDR_TRANSFERS.get(int(frame.color_trc))
    if transfer is not None:
        _add_note(
            clip, f"{clip.name} is an HDR clip ({transfer}); its brightness is used without tone mapping"
        )


def _add_note(clip: Clip, note: str) -> None:
    if note not in clip.notes:
        clip.notes.append(note)

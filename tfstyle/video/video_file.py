"""A video file, read by PyAV: the times of its packets, and its frames as images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tfstyle.errors import ImageError
from tfstyle.images import ImageArray, resize
from tfstyle.video.decoding import HDR_TRANSFERS, display_matrix, frame_pixels, upright
from tfstyle.video.requirement import load_av, one_line_av_errors
from tfstyle.video.selection import Frame, Selection, exact

#: Formats that consist of one file and refer to no other files, by FFmpeg's names.
SELF_CONTAINED = (
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "gif", "mpegts", "mpeg",
    "mpegvideo", "flv", "asf", "ogg", "h264", "hevc", "ivf", "mxf", "apng", "nut",
)  # fmt: skip
#: Formats of FFmpeg that show files of any kind as a video.
NO_VIDEOS = ("tty", "bin", "xbin", "adf", "idf")
#: Formats whose index leads to the last key frame before a time. In others, such as MPEG-TS, FFmpeg can
#: seek to a later frame.
INDEXED = ("mov", "matroska")
#: Largest part of the duration that may be missing from a clip that does not count as cut off.
MISSING_PART = Fraction(1, 20)
#: A clip whose clock begins at this time in seconds or later, such as a recording of a broadcast, is moved
#: to 0.
LATE_BEGIN = 1
#: FFmpeg's AV_DISPOSITION_ATTACHED_PIC, the cover image of a file.
COVER = 0x400


class VideoFile:
    """A video file.

    Args:
        path: path of the file.
        trusted: whether formats are read that refer to other files, such as playlists.
        max_pixels: largest number of pixels of a frame; None for no limit.
        check: called for each decoded frame. It raises an error to end the reading.

    Attributes:
        path: as given.
        notes: what a user should know about the file, one line each. Reading adds to them.
        times: the times of the frames in seconds on the file's own clock, in order.
        begin: the time on that clock at which the first stream begins, if it is far from 0; otherwise 0.
        end: the time on that clock at which the last frame ends.
        rate: approximate number of frames per second.
        time_base: unit of the times in seconds.
        has_sound: whether the file has sound.
        shape: height and width of the frames in pixels, upright and with square pixels.

    Raises:
        ImageError: the file is not a video, has no video stream or no frame, is too large, or its codec
            cannot be decoded.
    """

    def __init__(
        self, path: Path, *, trusted: bool, max_pixels: int | None, check: Callable[[], None]
    ) -> None:
        self.path, self.notes = path, list[str]()
        self._trusted, self._max_pixels, self._check = trusted, max_pixels, check
        with self.opened() as container:
            if container.format.name in NO_VIDEOS:
                raise ImageError(f"{path} is not a video; it was read as {container.format.long_name}")
            stream = self._video_stream(container)
            if stream.codec_context is None:
                raise ImageError(f"{path}: this PyAV cannot decode the codec of its video stream")
            self._check_size(stream.codec_context.width, stream.codec_context.height)
            self.has_sound = any(s.type == "audio" for s in container.streams)
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            self.time_base = Fraction(stream.time_base)
            self._uses_dts = container.format.name == "avi"  # its packets have no times of display
            self._can_seek = any(name in container.format.name.split(",") for name in INDEXED)
            self._scan(container, stream)
        self.shape = self._first_shape()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """Open the file. It may not refer to the network, nor to other files unless it is trusted.

        Yields:
            The `av.container.InputContainer`.

        Raises:
            ImageError: FFmpeg cannot read it.
        """
        options = {"protocol_whitelist": "file"}
        if not self._trusted:
            options["format_whitelist"] = ",".join(SELF_CONTAINED)
        with one_line_av_errors(self.path), load_av().open(str(self.path), options=options) as container:
            yield container

    def seek(self, container: Any, time: Fraction) -> None:
        """Move to the last key frame before a time on the file's clock, if its format has an index."""
        if self._can_seek:
            with contextlib.suppress(load_av().FFmpegError):
                container.seek(int(time * load_av().time_base))

    def frames(self, selection: Selection, shape: tuple[int, int]) -> Iterator[Frame]:
        """Yield the selected frames, resized to a shape.

        Args:
            selection: which frames are used.
            shape: height and width in pixels.

        Raises:
            ImageError: a frame has too many pixels.
        """
        number = decoded = corrupt = dropped = 0
        origin = self.times[0]
        last_time: Fraction | None = None
        current: Any = None

        def times(container: Any, stream: Any) -> Iterator[Fraction]:
            nonlocal last_time, current, decoded, corrupt, dropped
            for frame in self._decoded(container, stream):
                self._check()
                decoded += 1
                corrupt += bool(frame.is_corrupt)
                time = self._time(frame)
                if time is None:
                    time = origin if last_time is None else last_time + 1 / self.rate
                if last_time is not None and time <= last_time:
                    dropped += 1
                    continue
                last_time, current = time, frame
                yield time - origin

        with self.opened() as container:
            stream = self._video_stream(container)
            if selection.start:
                self.seek(container, origin + exact(selection.start))
            for use in selection.choose(times(container, stream)):
                if use is None:
                    break
                if use:
                    assert last_time is not None
                    number += 1
                    yield Frame(self._image(current, shape, stream.codec_context.name), last_time, number)
        if corrupt:
            self.note(f"{self.path}: {corrupt} of {decoded} frames are damaged")
        if dropped:
            self.note(
                f"{self.path}: {dropped} of {decoded} frames are left out because their times do not increase"
            )

    def note(self, text: str) -> None:
        """Add a note, unless there is the same note already."""
        if text not in self.notes:
            self.notes.append(text)

    def _video_stream(self, container: Any) -> Any:
        """Return the first video stream that is not the cover image of the file."""
        streams = [stream for stream in container.streams.video if not int(stream.disposition) & COVER]
        if not streams:
            others = sorted({stream.type for stream in container.streams})
            found = ", ".join(others) or "no streams"
            raise ImageError(f"{self.path} has no video stream; it has {found}")
        stream = streams[0]
        if stream.codec_context is not None:
            stream.thread_type = "AUTO"
        return stream

    def _scan(self, container: Any, stream: Any) -> None:
        """Read all packets without decoding them, for the times of the frames and to see what is missing."""
        whole, packets = True, 0
        times, durations = [], {}
        end_of_all = Fraction(0)
        try:
            for packet in container.demux():
                time, duration = self._time(packet), (packet.duration or 0) * Fraction(packet.time_base)
                if time is not None:
                    end_of_all = max(end_of_all, time + duration)
                if packet.stream.index != stream.index or (packet.size == 0 and time is None):
                    continue
                packets += 1
                whole &= not packet.is_corrupt
                if packet.size and not packet.is_discard:
                    times.append(packets / self.rate if time is None else time)
                    durations[times[-1]] = duration
        except load_av().FFmpegError:
            whole = False
        if not times:
            raise ImageError(f"{self.path}: the video stream has no frames")
        self.times = sorted(times)
        last = self.times[-1]
        self.end = last + (durations[last] or 1 / self.rate)
        start = container.start_time
        begin = Fraction(0) if start is None else Fraction(start, load_av().time_base)
        self.begin = begin if begin >= LATE_BEGIN else Fraction(0)
        cut = stream.frames > packets
        if not stream.frames and container.duration is not None:
            announced = Fraction(container.duration, load_av().time_base)
            cut = announced - (end_of_all - begin) > max(3 / self.rate, MISSING_PART * announced)
        if cut or not whole:
            expected = f" of {stream.frames}" if stream.frames > packets else ""
            self.note(f"{self.path} is cut off or damaged: only {len(times)}{expected} frames can be read")

    def _first_shape(self) -> tuple[int, int]:
        with self.opened() as container:
            stream = self._video_stream(container)
            frame = next(self._decoded(container, stream), None)
            if frame is None:
                raise ImageError(f"{self.path}: no frame can be read")
            ratio = stream.sample_aspect_ratio or Fraction(1)
            height, width = frame.height, max(1, round(frame.width * ratio))
            matrix = display_matrix(frame, stream.codec_context.name)
            return (width, height) if matrix[0] == 0 else (height, width)

    def _time(self, item: Any) -> Fraction | None:
        """Return the time of a packet or a frame on the file's clock in seconds, or None if it has none."""
        stamp = item.dts if item.pts is None or self._uses_dts else item.pts
        return None if stamp is None else stamp * Fraction(item.time_base)

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """Yield the decoded frames of a stream. Packets that cannot be decoded are left out and noted."""
        av = load_av()
        packets = iter(container.demux(stream))
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self.note(f"{self.path} is cut off or damaged ({error.strerror})")
                packet = None
            try:
                yield from stream.decode(packet)
            except av.EOFError:
                return
            except av.FFmpegError as error:
                self.note(f"{self.path} has parts that cannot be decoded ({error.strerror})")
            if packet is None:
                return

    def _image(self, frame: Any, shape: tuple[int, int], codec: str) -> np.ndarray:
        """Return the image of a decoded frame, upright, on white, and resized."""
        self._check_size(frame.width, frame.height)
        transfer = HDR_TRANSFERS.get(int(frame.color_trc))
        if transfer is not None:
            self.note(f"{self.path} is an HDR clip ({transfer}); its brightness is used without tone mapping")
        if frame.interlaced_frame:
            self.note(f"{self.path} is interlaced; its fields are not separated")
        rgb, alpha = frame_pixels(frame)
        if alpha is not None and alpha.min() < 1:
            self.note(alpha_note(str(self.path)))
        matrix = display_matrix(frame, codec)
        rgb = upright(rgb, matrix)
        image = ImageArray(rgb, None if alpha is None else upright(alpha, matrix))
        return resize(np.ascontiguousarray(image.on_white(), np.float32), shape)

    def _check_size(self, width: int, height: int) -> None:
        if self._max_pixels is not None and width * height > self._max_pixels:
            raise ImageError(
                f"{self.path} has frames of {width} x {height} pixels; at most {self._max_pixels} pixels are "
                "read (max_pixels)"
            )


def alpha_note(name: str) -> str:
    """Return the note about a clip with an alpha channel."""
    return f"{name} has an alpha channel, which is dropped: transparent parts are white"

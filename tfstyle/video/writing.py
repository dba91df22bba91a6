"""Writing a video: H.264 or VP9 with the timestamps and the sound of the clip."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tfstyle.callbacks import add_video_stream, video_frame
from tfstyle.errors import ImageError, RunError
from tfstyle.files import PARTIAL, VIDEO_ENCODERS, check_video, rename
from tfstyle.images import ImageArray
from tfstyle.video.reading import Clip
from tfstyle.video.requirement import load_av
from tfstyle.video.selection import Frame, Selection
from tfstyle.video.video_file import VideoFile

log = logging.getLogger(__name__)

#: Suffix of the video -> the encoder of its sound if its container cannot hold the codec of the clip's sound.
SOUND_ENCODERS = {".mp4": "aac", ".mov": "aac", ".mkv": "aac", ".webm": "libopus"}
#: Until it is complete, an MP4 file consists of fragments, each of which can be played by itself. A fragment
#: begins with a key frame, and there is a key frame after at most this number of frames.
FRAGMENTS = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "flush_packets": "1"}
KEY_FRAMES = 25
#: Frames are stored in the order in which they are shown, and at most ten are held back by the encoder.
H264_OPTIONS = {"bf": "0", "g": str(KEY_FRAMES), "rc-lookahead": "10", "x264-params": "sync-lookahead=0"}
#: Moves the index to the beginning, so that a browser plays the file while it is loading.
COMPLETE = {"movflags": "faststart"}


class VideoWriter:
    """Writes the frames of a video and the sound of its clip.

    Until `close` the file has the name of `partial_path`, and it can be played up to the frames written so
    far.

    Args:
        path: path of the video.
        shape: height and width of the frames in pixels, both even.
        clip: the clip, whose timestamps and sound are used.
        sound: whether to copy the sound.
        overwrite: whether an existing file may be replaced.

    Attributes:
        path: the path of the video.
        frames: number of frames so far.

    Raises:
        OutputError, ConfigError: as for `tfstyle.files.check_video`.
    """

    def __init__(
        self, path: Path, *, shape: tuple[int, int], clip: Clip, sound: bool = True, overwrite: bool = False
    ) -> None:
        check_video(path, overwrite=overwrite)
        self.path, self.frames = path, 0
        encoder = VIDEO_ENCODERS[path.suffix.lower()]
        sound_encoder = SOUND_ENCODERS[path.suffix.lower()]
        self._clip, self._time_base = clip, clip.time_base
        self._last_time = clip.begin
        av = load_av()
        self._is_mp4 = path.suffix.lower() in (".mp4", ".mov")
        with self._one_line_errors():
            self._container = av.open(
                str(partial_path(path)), "w", options=FRAGMENTS if self._is_mp4 else {"flush_packets": "1"}
            )
            self._stream = add_video_stream(self._container, encoder, shape=shape, rate=clip.rate)
            if encoder == "libx264":
                self._stream.options = {**self._stream.options, **H264_OPTIONS}
                self._stream.codec_context.thread_type = "SLICE"
            self._stream.codec_context.time_base = self._time_base
            self._sound = None
            if sound and clip.sound is not None:
                self._sound = _Sound(clip, clip.sound, self._container, sound_encoder)
            self._container.start_encoding()

    def write(self, image: np.ndarray, frame: Frame) -> None:
        """Add a frame.

        Args:
            image: float32 ``[height, width, 3]`` in 0..1, in the shape of the video.
            frame: the frame of the clip, at whose time the image is shown.

        Raises:
            RunError: the file cannot be written, for instance because the disk is full.
        """
        time = frame.time - self._clip.begin
        encoded = video_frame(ImageArray(image).quantized())
        encoded.pts, encoded.time_base = round(time / self._time_base), self._time_base
        with self._one_line_errors():
            for packet in self._stream.encode(encoded):
                self._container.mux(packet)
            if self._sound is not None:
                self._sound.copy(until=frame.time)
        self._last_time = frame.time
        self.frames += 1

    def close(self, *, complete: bool = True) -> None:
        """Finish the file and give it its name.

        Args:
            complete: whether all frames were written. Otherwise the sound ends with the last frame.

        Raises:
            RunError: the file cannot be written. The frames so far are then in the file, or if it could not
                be renamed, in the one with the partial name.
        """
        partial = partial_path(self.path)
        try:
            with self._one_line_errors():
                try:
                    for packet in self._stream.encode(None) if self.frames else ():
                        self._set_last_duration(packet, complete)
                        self._container.mux(packet)
                    if self._sound is not None:
                        self._sound.finish(until=None if complete else self._last_time + 1 / self._clip.rate)
                finally:
                    self._container.close()
        except RunError:
            self._publish(partial)
            self.frames = _count_frames(self.path)
            raise
        if self.frames == 0:
            partial.unlink(missing_ok=True)
            return
        finished = partial
        if self._is_mp4:
            finished = self.path.with_name(f"{PARTIAL}{os.getpid()}-{self.path.name}")
            try:
                _copy_streams(partial, finished)
            except (load_av().FFmpegError, OSError) as error:  # the fragments can be played too
                log.info("%s consists of fragments (%s)", self.path, error)
                finished.unlink(missing_ok=True)
                finished = partial
        self._publish(finished)
        partial.unlink(missing_ok=True)

    def _set_last_duration(self, packet: Any, complete: bool) -> None:
        """Let the last frame be shown until the end of the clip. The others end when the next one begins."""
        last = round((self._last_time - self._clip.begin) / self._time_base)
        if packet.pts == last and packet.time_base is not None:
            duration = self._clip.end - self._last_time if complete else 1 / self._clip.rate
            packet.duration = max(1, round(duration / packet.time_base))

    def _publish(self, file: Path) -> None:
        try:
            rename(file, self.path)
        except OSError as error:
            raise RunError(
                f"{self.path} could not be written: {error.strerror or error}; the video is in {file}"
            ) from error

    @contextlib.contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Turn an error of FFmpeg into a RunError of one line."""
        try:
            yield
        except (load_av().FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise RunError(
                f"{self.path} could not be written: {reason}; check the free space and permissions"
            ) from error


def partial_path(path: Path) -> Path:
    """Return the path that a video has until it is complete, such as ``out.part.mp4``."""
    return path.with_name(f"{path.stem}.part{path.suffix}")


def _count_frames(path: Path) -> int:
    """Return the number of frames in a video that could not be completed."""
    try:
        file = VideoFile(path, trusted=True, max_pixels=None, check=lambda: None)
        return sum(1 for _ in file.frames(Selection(), (2, 2)))
    except ImageError:
        return 0


def _copy_streams(source: Path, target: Path) -> None:
    """Copy the streams of a fragmented MP4 file to a file with an index."""
    av = load_av()
    with av.open(str(source)) as fragments, av.open(str(target), "w", options=COMPLETE) as complete:
        streams = {s.index: complete.add_stream_from_template(s) for s in fragments.streams}
        for packet in fragments.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                complete.mux(packet)


class _Sound:
    """Copies the sound of a clip to a container, or encodes it if the container cannot hold its codec."""

    def __init__(self, clip: Clip, file: VideoFile, container: Any, encoder: str) -> None:
        self._av = load_av()
        self._container, self._clip, self._file = container, clip, file
        self._open = contextlib.ExitStack()
        self._source = self._open.enter_context(file.opened())
        self._outputs: dict[int, Any] = {}
        self._resamplers: dict[int, Any] = {}
        for stream in self._source.streams.audio:
            context = stream.codec_context
            if context is not None and self._can_copy(context):
                self._outputs[stream.index] = container.add_stream_from_template(stream)
            elif context is not None and encoder in self._av.codecs_available:
                rate = 48_000 if encoder == "libopus" else context.sample_rate
                output = container.add_stream(encoder, rate=rate)
                output.layout = context.layout
                self._outputs[stream.index] = output
                self._resamplers[stream.index] = None
                file.note(
                    f"the sound of {clip.name} is encoded again ({encoder}), because the output cannot hold "
                    f"{context.name} as it is"
                )
            else:
                file.note(f"the sound of {clip.name} cannot be copied and is left out")
        self._end = None if clip.selection.end is None else clip.end
        if clip.selection.start:
            file.seek(self._source, clip.begin)
        streams = [self._source.streams[index] for index in self._outputs]
        self._packets: Iterator[Any] = iter(self._source.demux(streams)) if streams else iter(())
        self._next: Any = self._following()

    def _can_copy(self, context: Any) -> bool:
        """Return whether the container can hold a codec. AAC of MPEG-TS lacks the header that MP4 needs."""
        has_header = context.name != "aac" or bool(context.extradata)
        return context.name in self._container.supported_codecs and has_header

    def copy(self, *, until: Fraction) -> None:
        """Write the packets that begin up to a time on the clip's own clock, in seconds."""
        while self._next is not None and self._time(self._next) <= until:
            self._write(self._next)
            self._next = self._following()

    def finish(self, *, until: Fraction | None) -> None:
        """Write the packets up to a time, or all of them up to the end of the selection."""
        end = self._end if until is None else until
        while self._next is not None and (end is None or self._time(self._next) < end):
            self._write(self._next)
            self._next = self._following()
        for index in self._resamplers:
            self._encode(index, None)
            self._container.mux(self._outputs[index].encode(None))
        self._open.close()

    def _time(self, packet: Any) -> Fraction:
        stamp = packet.pts if packet.dts is None else packet.dts
        return Fraction(stamp * packet.time_base)

    def _following(self) -> Any:
        """Return the next packet within the selection, or None."""
        try:
            for packet in self._packets:
                has_time = packet.pts is not None or packet.dts is not None
                if packet.size and has_time and self._is_selected(packet):
                    return packet
        except self._av.FFmpegError as error:
            self._file.note(f"the sound of {self._clip.name} ends early ({error.strerror})")
        return None

    def _is_selected(self, packet: Any) -> bool:
        return not self._clip.selection.start or self._time(packet) >= self._clip.begin

    def _write(self, packet: Any) -> None:
        index = packet.stream.index
        shift = round(self._clip.begin / packet.time_base)
        if index in self._resamplers:
            try:
                frames = packet.decode()
            except self._av.FFmpegError as error:
                self._file.note(f"the sound of {self._clip.name} has damaged parts ({error.strerror})")
                return
            for frame in frames:
                frame.pts = None if frame.pts is None else frame.pts - shift
                self._encode(index, frame)
            return
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = self._outputs[index]
        self._container.mux(packet)

    def _encode(self, index: int, frame: Any) -> None:
        """Encode a frame of sound, or, for None, the samples that the resampler holds back."""
        context = self._outputs[index].codec_context
        if self._resamplers[index] is None:
            if frame is None:
                return
            context.open(strict=False)
            self._resamplers[index] = self._av.AudioResampler(
                format=context.format, layout=context.layout, rate=context.sample_rate,
                frame_size=context.frame_size,
            )  # fmt: skip
        for resampled in self._resamplers[index].resample(frame):
            self._container.mux(self._outputs[index].encode(resampled))

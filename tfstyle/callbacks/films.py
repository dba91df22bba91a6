"""The evolution of an image as a film: GIF and WebP by Pillow, MP4 by PyAV."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from tfstyle.callbacks.arguments import check_number
from tfstyle.callbacks.encoding import add_video_stream, video_frame
from tfstyle.files import check_film, free_path, write_atomically
from tfstyle.images import ImageArray
from tfstyle.run import Iteration

log = logging.getLogger(__name__)

#: Suffix of a film -> longest side of its frames in pixels, unless another size is given. The frames of GIF
#: and WebP films stay in memory until the end.
LONGEST_SIDES = {".mp4": 1280, ".gif": 480, ".webp": 640}
#: Maximum number of intervals between frames, unless `every` is given.
MOST_FRAMES = 240
WEBP_QUALITY = 85


class Film:
    """A callback that writes the evolution of the image as a film, in which all scales have the same size.

    The file is written when the run ends. If the run is interrupted, the film contains the frames up to that
    point. GIF and WebP films repeat endlessly, and their frames stay in memory until `close`.

    Args:
        path: path of the film. The suffix selects the format: ``.mp4`` (H.264, needs PyAV), ``.gif`` or
            ``.webp``.
        fps: frames per second, from 0.1 to 120, or to 50 for GIF.
        every: number of iterations between two frames; by default the smallest number that divides the run
            into at most 240 intervals. The first and the last iteration are always included. If a call of the
            step performs several iterations, as on a GPU by default, a frame is taken after a call at the
            earliest; ``steps_per_call=1`` gives every iteration.
        size: longest side of the frames in pixels, at least 16; by default that of the final image, but at
            most 1280 for MP4, 640 for WebP and 480 for GIF. MP4 films have even numbers of pixels.
        hold: time in seconds for which the last frame is shown, from 0 to 600.
        overwrite: whether an existing file may be replaced.

    Attributes:
        path: path of the film.
        frames: number of frames so far.
        written: whether the film has been written.

    Raises:
        ConfigError: the film is an MP4 file and PyAV is not installed, or `fps`, `every`, `size` or `hold` is
            out of its range.
        OutputError: the suffix is unknown, the file cannot be written, or it exists and `overwrite` is not
            set.

    Example:
        >>> import numpy as np
        >>> import tfstyle
        >>> content, style = np.random.default_rng(0).uniform(size=(2, 32, 48, 3))
        >>> with tfstyle.callbacks.Film("evolution.webp", every=2) as film:
        ...     for step in tfstyle.iterate(content, style, weights="embedded", iterations=6):
        ...         film(step)
        >>> film.frames  # after the iterations 1, 2, 4 and 6
        4
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float = 12.0,
        every: int | None = None,
        size: int | None = None,
        hold: float = 2.0,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        check_film(self.path, overwrite=overwrite)
        suffix = self.path.suffix.lower()
        fastest = 50.0 if suffix == ".gif" else 120.0  # browsers slow down faster GIF films
        check_number("fps", fps, low=0.1, high=fastest)
        check_number("hold", hold, low=0, high=600)
        if every is not None:
            check_number("every", every, low=1, whole=True)
        if size is not None:
            check_number("size", size, low=16, high=8192, whole=True)
        self._fps, self._hold, self._every, self._size = fps, hold, every, size
        self._overwrite, self._failed = overwrite, False
        self._longest = LONGEST_SIDES[suffix]
        encoders: dict[str, type[_Encoder]] = {".mp4": _H264, ".gif": _Gif, ".webp": _WebP}
        self._make_encoder = encoders[suffix]
        self._encoder: _Encoder | None = None
        self._last_taken = 0
        self._last: Iteration | None = None
        self.frames, self.written = 0, False

    def __call__(self, step: Iteration) -> None:
        """Add a frame if one is due. If that fails, log a warning, and write no film.

        Args:
            step: the iteration.
        """
        every = self._every or math.ceil(step.total_iterations / MOST_FRAMES)
        self._last = step
        if self._failed:
            return
        if step.global_iteration // every > self._last_taken // every or self._last_taken == 0:
            with self._warning_on_failure():
                self._take(step)

    def close(self) -> None:
        """Write the film, unless there is no frame. The last iteration is its last frame.

        If the file cannot be written, for example because the disk is full, a warning is logged. If another
        program has written a file with this name during the run, a number is added to the name. The object
        can be used for another run afterwards.
        """
        last = None if self._failed else self._last
        with self._warning_on_failure():
            if last is not None and last.global_iteration != self._last_taken:
                self._take(last)
            if self._encoder is not None:
                film = self._encoder.finish(self._hold)
                self.path = self.path if self._overwrite else free_path(self.path)
                write_atomically(self.path, film)
                self.written = True
        self._last, self._encoder, self._last_taken, self._failed = None, None, 0, False

    @contextlib.contextmanager
    def _warning_on_failure(self) -> Iterator[None]:
        """Log a warning if the block fails, and drop the film."""
        try:
            yield
        except Exception as error:  # of Pillow, PyAV or the file system: the run must not be lost
            log.warning("the film %s cannot be written (%s); the run continues", self.path, error)
            self._failed, self._encoder = True, None

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, step: Iteration) -> None:
        """Add a frame with the image of an iteration."""
        height, width = step.final_shape
        longest = min(max(height, width), self._size or self._longest)
        factor = longest / max(height, width)
        shape = max(2, round(height * factor)), max(2, round(width * factor))
        if self._make_encoder is _H264:  # whose colours have half the resolution
            shape = shape[0] // 2 * 2, shape[1] // 2 * 2
        frame = ImageArray(step.image).resized(shape).quantized()
        if self._encoder is None:
            self._encoder, self.frames = self._make_encoder(shape, self._fps), 0
        self._encoder.add(frame)
        self._last_taken = step.global_iteration
        self.frames += 1


class _Encoder(Protocol):
    """An encoder of films. It is made with the shape of the frames and the number of frames per second."""

    def __init__(self, shape: tuple[int, int], fps: float) -> None: ...

    def add(self, frame: np.ndarray) -> None:
        """Add a frame, uint8 ``[height, width, 3]``."""

    def finish(self, hold: float) -> bytes:
        """Return the film, whose last frame is shown for ``hold`` seconds."""


class _Gif:
    """Encodes a GIF file, with up to 256 colours for each frame."""

    def __init__(self, shape: tuple[int, int], fps: float) -> None:
        self._frames: list[Image.Image] = []
        self._milliseconds = 10 * max(2, round(100 / fps))  # GIF counts hundredths of a second

    def add(self, frame: np.ndarray) -> None:
        self._frames.append(self._prepared(Image.fromarray(frame)))

    def finish(self, hold: float) -> bytes:
        buffer = io.BytesIO()
        durations = [self._milliseconds] * len(self._frames)
        durations[-1] = max(durations[-1], round(1000 * hold))
        first, *others = self._frames
        first.save(buffer, save_all=True, append_images=others, duration=durations, loop=0, **self._options())
        return buffer.getvalue()

    def _prepared(self, frame: Image.Image) -> Image.Image:
        return frame.quantize(256)

    def _options(self) -> dict[str, Any]:
        return {"format": "GIF"}


class _WebP(_Gif):
    """Encodes a WebP file."""

    def __init__(self, shape: tuple[int, int], fps: float) -> None:
        super().__init__(shape, fps)
        self._milliseconds = round(1000 / fps)

    def _prepared(self, frame: Image.Image) -> Image.Image:
        return frame

    def _options(self) -> dict[str, Any]:
        return {"format": "WEBP", "quality": WEBP_QUALITY}


class _H264:
    """Encodes an MP4 file with H.264 in the colours of BT.709, as browsers and phones play it."""

    def __init__(self, shape: tuple[int, int], fps: float) -> None:
        import av

        # On Windows the file cannot be deleted while another program, such as a virus scanner, has it open.
        self._folder = tempfile.TemporaryDirectory(prefix="tfstyle-film-", ignore_cleanup_errors=True)
        self._file = Path(self._folder.name) / "film.mp4"
        # The index is moved to the beginning, so that a browser plays the film while it is loading.
        self._container = av.open(str(self._file), "w", options={"movflags": "faststart"})
        rate = Fraction(fps).limit_denominator(1000)
        self._stream = add_video_stream(self._container, "libx264", shape=shape, rate=rate)
        self._fps, self._last = fps, np.empty(0)

    def add(self, frame: np.ndarray) -> None:
        self._last = frame
        self._container.mux(self._stream.encode(video_frame(frame)))

    def finish(self, hold: float) -> bytes:
        for _ in range(round(hold * self._fps)):
            self.add(self._last)
        self._container.mux(self._stream.encode(None))
        self._container.close()
        with self._folder:
            return self._file.read_bytes()

"""The public functions: `stylize` writes a video of a clip in a style, and `iterate` does so step by step."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import keras
import numpy as np
from typing_extensions import Unpack

from tfstyle import __version__
from tfstyle.config import StyleConfig, TransferOptions
from tfstyle.errors import ConfigError, OutputError
from tfstyle.files import check_video, check_writable, make_folder, write_atomically
from tfstyle.images import ImageArray, save
from tfstyle.losses import ExtraLoss, Masks
from tfstyle.network import Encoder
from tfstyle.optim import Optimizer
from tfstyle.run import apply_fine_style, calling, combined_options
from tfstyle.video.checkpoints import VideoCheckpoints
from tfstyle.video.options import VideoOptions
from tfstyle.video.reading import Clip, open_clip
from tfstyle.video.requirement import load_av, load_cv2
from tfstyle.video.run import VideoRun
from tfstyle.video.selection import Frame, Selection
from tfstyle.video.steps import FrameRecord, VideoStep
from tfstyle.video.writing import VideoWriter, partial_path

#: A function that is called with each step. If it returns True, the video ends.
VideoCallback = Callable[[VideoStep], "bool | None"]


@dataclass(frozen=True, eq=False)
class VideoResult:
    """What `stylize` returns.

    Attributes:
        path: path of the video, or None if no frame was finished or no output was given.
        frames: number of finished frames in the video.
        expected: number of frames that the video would have if nothing ended it early.
        seconds: wall time in seconds.
        warping_error: mean absolute difference of the results from the warped results of the frames before
            them, in levels of 255, where the clip shows the same points; None without flow. Lower means less
            flicker.
        records: one record for each finished frame and pass.
        notes: what a user should know about the clip, one line each.
        config: the options, with the size of the frames.
        video: the options of the video.
        facts: the values that were chosen for ``auto``, as in `tfstyle.Result.facts`.
    """

    path: Path | None
    frames: int
    _: KW_ONLY
    expected: int
    seconds: float
    warping_error: float | None
    records: Sequence[FrameRecord]
    notes: Sequence[str]
    config: StyleConfig
    video: VideoOptions
    facts: Mapping[str, Any]

    def __repr__(self) -> str:
        error = "" if self.warping_error is None else f", warping error {self.warping_error:.1f}"
        return f"VideoResult({self.path}, {self.frames} frames in {self.seconds:.1f} s{error})"

    def save_history(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the records of the frames to a JSON file.

        Args:
            path: path of the file.
            overwrite: whether to replace an existing file.

        Raises:
            OutputError: the file cannot be written, or it exists and `overwrite` is not set.
            RunError: writing failed, for example because the disk is full.
        """
        check_writable(Path(path), overwrite=overwrite)
        history = {
            "frames": [vars(record) for record in self.records],
            "warping_error": self.warping_error,
            "seconds": self.seconds,
        }
        write_atomically(Path(path), (json.dumps(history) + "\n").encode())


class VideoIterations(Iterator[VideoStep]):
    """The steps of a video, as `iterate` returns them.

    Use it as a context manager, or call `close`, so that the file is finished if the loop ends early.

    Args:
        clip, style, config, and the others: as for `iterate`.
    """

    def __init__(
        self,
        clip: Clip,
        style: Any,
        config: StyleConfig,
        *,
        output: Path | None,
        video: VideoOptions,
        sound: bool,
        save_frames: Path | None,
        checkpoints: VideoCheckpoints | None,
        overwrite: bool,
        **arguments: Any,
    ) -> None:
        self._outputs = _Outputs(
            clip, output=output, sound=sound, save_frames=save_frames, overwrite=overwrite
        )  # fmt: skip
        self.run = VideoRun(
            clip, style, config,
            options=video, on_frame=self._outputs.write, checkpoints=checkpoints, **arguments,
        )  # fmt: skip
        self._outputs.settings = {"tfstyle": __version__, "options": self.run.config.as_dict()}
        self._started = time.perf_counter()
        self._steps = iter(self.run)
        self._closed = False

    def __next__(self) -> VideoStep:
        try:
            return next(self._steps)
        except BaseException:  # the end of the clip, an error, or Ctrl-C
            self.close()
            raise

    def __enter__(self) -> VideoIterations:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stop(self) -> None:
        """End the video after the current iteration, with the frames that are finished."""
        self.run.stop()

    def close(self) -> None:
        """Finish the file with the frames so far.

        Raises:
            RunError: the file cannot be written.
        """
        if not self._closed:
            self._closed = True
            try:
                self._steps.close()
            finally:
                self.run.close()
                self._outputs.close()

    def result(self) -> VideoResult:
        """Return what is known about the video so far."""
        return VideoResult(
            self._outputs.path,
            self._outputs.frames,
            expected=self.run.frames,
            seconds=time.perf_counter() - self._started,
            warping_error=self.run.warping_error,
            records=tuple(self.run.records),
            notes=tuple(self.run.clip.notes),
            config=self.run.config,
            video=self.run.options,
            facts=dict(self.run.facts),
        )


def stylize(
    clip: Any,
    style: Any,
    config: StyleConfig | None = None,
    *,
    output: str | os.PathLike[str],
    video: VideoOptions | None = None,
    selection: Selection | None = None,
    sound: bool = True,
    save_frames: str | os.PathLike[str] | None = None,
    callback: VideoCallback | Sequence[VideoCallback] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    encoder: Encoder | None = None,
    optimizer: str | Optimizer | keras.optimizers.Optimizer | None = None,
    masks: Masks | Sequence[Any] | None = None,
    extra_losses: Mapping[str, ExtraLoss] | None = None,
    **options: Unpack[TransferOptions],
) -> VideoResult:
    """Transfer the style of one or more images to a clip, and write it as a video that does not flicker.

    Args:
        clip: path of a video file, or of a folder of images in the order of the numbers in their names, or a
            sequence of images or an array ``[frames, height, width, 3]``.
        style: as for `tfstyle.stylize`.
        config: the options; by default `StyleConfig()`. The sides of the frames are rounded to even numbers.
        output: path of the video: ``.mp4``, ``.mov`` or ``.mkv`` (H.264), or ``.webm`` (VP9).
        video: how the frames depend on each other; by default `VideoOptions()`.
        selection: which frames are used; by default all.
        sound: whether to copy the sound of the clip.
        save_frames: folder to which the frames are also written as PNG files.
        callback: a function that is called with each `VideoStep`, or a list of such functions. If one of them
            returns True, the video ends with the frames that are finished. Their method ``close``, if they
            have one, is called at the end.
        checkpoint: folder for the finished frames, from which the video can be resumed.
        resume: whether to continue the video in that folder. Its frames are the same as those of a video
            without interruption.
        overwrite: whether existing files may be replaced.
        encoder, optimizer, masks, extra_losses: as for `tfstyle.stylize`. The masks are the same for all
            frames.
        **options: changes to the config, by the names of the fields of `StyleConfig`.

    Returns:
        The path of the video, and what is known about its frames.

    Raises:
        InputError: an option, the clip, a style or the weights cannot be used, or differ from those of the
            video that is to be resumed.
        NotFiniteError: the loss became infinite or NaN. The frames so far are in the video.
        RunError: the device ran out of memory, the disk is full, or TensorFlow failed. The frames so far are
            in the video.

    Reference: Ruder, Dosovitskiy, Brox 2016, Artistic Style Transfer for Videos, arXiv 1604.08610.

    Example:
        >>> import numpy as np
        >>> import tfstyle
        >>> clip, style = np.random.default_rng(0).random((3, 32, 48, 3)), np.ones((32, 48, 3))
        >>> result = tfstyle.video.stylize(
        ...     clip, style, output="out.mp4", weights="embedded", iterations=2,
        ...     video=tfstyle.video.VideoOptions(frame_iterations=2),
        ... )
        >>> result.frames, len(result.records)
        (3, 3)
    """
    with calling(callback) as call:
        steps = iterate(
            clip, style, config,
            output=output, video=video, selection=selection, sound=sound, save_frames=save_frames,
            checkpoint=checkpoint, resume=resume, overwrite=overwrite,
            encoder=encoder, optimizer=optimizer, masks=masks, extra_losses=extra_losses, **options,
        )  # fmt: skip
        with steps:
            for step in steps:
                if call(step):
                    step.stop()
    return steps.result()


def iterate(
    clip: Any,
    style: Any,
    config: StyleConfig | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    video: VideoOptions | None = None,
    selection: Selection | None = None,
    sound: bool = True,
    save_frames: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    encoder: Encoder | None = None,
    optimizer: str | Optimizer | keras.optimizers.Optimizer | None = None,
    masks: Masks | Sequence[Any] | None = None,
    extra_losses: Mapping[str, ExtraLoss] | None = None,
    **options: Unpack[TransferOptions],
) -> VideoIterations:
    """Return an iterator over the steps of a video, for progress, previews and early stopping.

    Args:
        clip: as for `stylize`, or a `Clip` that `open_clip` returned.
        style, config, video, selection, sound, save_frames, checkpoint, resume, overwrite, encoder,
            optimizer, masks, extra_losses, **options: as for `stylize`.
        output: as for `stylize`, or None to write no video.

    Returns:
        The steps: one for each iteration of a frame, and one with `VideoStep.frame_done` for each finished
        frame. Use it as a context manager.

    Raises:
        InputError, NotFiniteError, RunError: as for `stylize`.

    Example:
        >>> import numpy as np
        >>> import tfstyle
        >>> clip, style = np.random.default_rng(0).random((2, 32, 48, 3)), np.ones((32, 48, 3))
        >>> config = tfstyle.StyleConfig(weights="embedded", iterations=1)
        >>> video = tfstyle.video.VideoOptions(frame_iterations=1)
        >>> with tfstyle.video.iterate(clip, style, config, video=video) as steps:
        ...     [(step.frame, step.frame_done) for step in steps]
        [(1, False), (1, True), (2, False), (2, True)]
    """
    for kind, argument in ((VideoOptions, "video"), (Selection, "selection")):
        for field in dataclasses.fields(kind):
            if field.name in options:
                raise ConfigError(
                    f"{field.name} is an option of videos; give "
                    f"{argument}=tfstyle.video.{kind.__name__}({field.name}=...)"
                )
    config, optimizer = combined_options(config, options, optimizer=optimizer)
    load_av()
    load_cv2()
    if resume and checkpoint is None:
        raise ConfigError('resume needs the folder of a video; give checkpoint="DIR"')
    if video is not None and not isinstance(video, VideoOptions):
        raise ConfigError(
            f"video is a {type(video).__name__}; give tfstyle.video.VideoOptions(passes=2), for example"
        )
    paths = {"output": output, "checkpoint": checkpoint, "save_frames": save_frames}
    for name, value in paths.items():
        if value is not None and not isinstance(value, (str, os.PathLike)):
            raise ConfigError(f"{name} is a {type(value).__name__}; give a path")
    path, folder = (None if place is None else Path(place) for place in (output, save_frames))
    if path is not None:
        check_video(path, overwrite=overwrite or resume)
    _check_no_input(path, folder, [clip, *(style if isinstance(style, (list, tuple)) else [style])])
    opened = clip
    if not isinstance(clip, Clip):
        opened = open_clip(clip, selection, max_pixels=config.max_pixels)
    elif selection is not None:
        raise ConfigError("the clip is already open; give the selection to open_clip")
    checkpoints = None
    if checkpoint is not None:
        checkpoints = VideoCheckpoints(Path(checkpoint), resume=resume, overwrite=overwrite)
    replace = overwrite or (checkpoints is not None and bool(checkpoints.state))
    if path is not None:  # `resume` alone does not allow a new video to replace a file
        check_video(path, overwrite=replace)
    return VideoIterations(
        opened,
        apply_fine_style(style, config, encoder=encoder),
        config,
        output=path,
        video=video or VideoOptions(),
        sound=sound,
        save_frames=folder,
        checkpoints=checkpoints,
        overwrite=replace,
        encoder=encoder,
        optimizer=optimizer,
        masks=masks,
        extra_losses=extra_losses,
    )


def _check_no_input(output: Path | None, folder: Path | None, inputs: Sequence[Any]) -> None:
    """Raise ConfigError if a video, its partial file or its frames would replace an input.

    Args:
        output: path of the video, or None.
        folder: folder of the frames, or None.
        inputs: the clip and the styles; those that are not paths are ignored.
    """
    written = [] if output is None else [output, partial_path(output)]
    for source in inputs:
        if not isinstance(source, (str, os.PathLike)):
            continue
        for path in written:
            if path.resolve() == Path(source).resolve():
                raise ConfigError(f"the output would replace the input {source}; choose another file")
        if folder is not None and folder.resolve() in (Path(source).resolve(), Path(source).resolve().parent):
            raise ConfigError(f"save_frames is the folder of the input {source}; choose another folder")


class _Outputs:
    """The files to which the frames of a video are written: the video, and images in a folder."""

    def __init__(
        self, clip: Clip, *, output: Path | None, sound: bool, save_frames: Path | None, overwrite: bool
    ) -> None:
        self._clip, self._output, self._sound, self._overwrite = clip, output, sound, overwrite
        self._folder = None if save_frames is None else make_folder(save_frames)
        if self._folder is not None and not overwrite and any(self._folder.glob("frame-*.png")):
            raise OutputError(f"{self._folder} already has frames; replace them with overwrite=True")
        self._writer: VideoWriter | None = None
        self.frames = 0
        self.path: Path | None = None
        self.settings: dict[str, Any] = {}

    def write(self, image: np.ndarray, frame: Frame) -> None:
        """Write a frame, and begin the video with the first one."""
        if self._folder is not None:
            path = self._folder / f"frame-{frame.number:06d}.png"
            save(path, ImageArray(image), settings=self.settings, overwrite=self._overwrite)
        if self._output is not None:
            if self._writer is None:
                height, width = image.shape[:2]
                self._writer = VideoWriter(
                    self._output, shape=(height, width), clip=self._clip, sound=self._sound,
                    overwrite=self._overwrite,
                )  # fmt: skip
            self._writer.write(image, frame)
        self.frames += 1

    def close(self) -> None:
        """Finish the video with the frames so far."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            try:
                writer.close(complete=self.frames >= self._clip.count)
            finally:
                self.frames = writer.frames
                self.path = writer.path if writer.path.exists() else None

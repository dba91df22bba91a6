"""The folder from which a video is resumed: its state, which is stored beside the results of its frames."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError, OutputError, RunError
from tfstyle.files import digest, make_folder, remove_left, write_atomically
from tfstyle.run import Run, chosen_options, dependencies, differences
from tfstyle.video.options import VideoOptions
from tfstyle.video.reading import Clip
from tfstyle.video.steps import FrameRecord
from tfstyle.video.video_file import VideoFile

log = logging.getLogger(__name__)

STATE = "state.json"
RECORDS = "records.jsonl"
FORMAT = 2
#: Entries of the state and their types.
KINDS: Mapping[str, type] = {
    "pass": int, "done": int, "records": int, "shots": list, "video": dict, "depends": dict, "chosen": dict,
}  # fmt: skip
HINT = "to begin a new video, leave out resume=True and choose another folder"


class VideoCheckpoints:
    """A folder with the results of the frames of a video and its state.

    Args:
        folder: path of the folder, which is made if it does not exist.
        resume: whether to continue the video in the folder. If the folder has none, a new video begins.
        overwrite: whether the video in the folder may be replaced if `resume` is not set.

    Attributes:
        folder: path of the folder.
        state: the stored state; empty for a new video.
        records: the records of the finished frames.

    Raises:
        OutputError: the folder cannot be made, or has a video although neither `resume` nor `overwrite` is
            set.
        ConfigError: the state cannot be read.
    """

    def __init__(self, folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        self.folder = make_folder(folder)
        self.state: Mapping[str, Any] = {}
        self.records: list[FrameRecord] = []
        path = self.folder / STATE
        if path.exists() and not resume and not overwrite:
            raise OutputError(
                f"{self.folder} holds the frames of a video; resume it with resume=True, replace it with "
                "overwrite=True, or choose another folder"
            )
        if resume and path.exists():
            self.state = _read_state(path)
            self.records = _read_records(self.folder / RECORDS, self.state["records"])
            log.warning(
                "resuming from %s: %d frames of pass %d were done",
                self.folder, self.state["done"], self.state["pass"],
            )  # fmt: skip
        elif resume:
            log.warning("%s: there is no video yet, so a new one starts", self.folder)
        remove_left(self.folder)

    def pinned(self, config: StyleConfig) -> StyleConfig:
        """Return the config with the values that the stored video had chosen for ``auto`` and None.

        Args:
            config: the options as they were given.
        """
        chosen = self.state.get("chosen", {})
        return config.replace({k: v for k, v in chosen.items() if getattr(config, k) in ("auto", None)})

    def begin(self) -> None:
        """Delete the files of another video, unless the video is resumed."""
        if not self.state:
            for path in [self.folder / STATE, self.folder / RECORDS, *self.folder.glob("pass-*-frame-*.npy")]:
                path.unlink(missing_ok=True)

    def write(self, state: Mapping[str, Any], record: FrameRecord) -> None:
        """Write the state of the video after a frame.

        Args:
            state: plain values: how far the video is, and what its result depends on.
            record: the record of the frame.

        Raises:
            RunError: a file cannot be written.
        """
        self.records.append(record)
        path = self.folder / RECORDS
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(record)) + "\n")
        except OSError as error:
            raise RunError(f"{path} could not be written: {error.strerror or error}") from error
        state = {"format": FORMAT, "records": len(self.records), **state}
        write_atomically(self.folder / STATE, json.dumps(state).encode())


def _read_state(path: Path) -> Mapping[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        written_as = state["format"]
        for name, kind in KINDS.items():
            if written_as == FORMAT and not isinstance(state[name], kind):
                raise ValueError(f"{name} is not of type {kind.__name__}")
    except (OSError, ValueError, TypeError, KeyError) as error:
        words = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"{path} cannot be read ({words}); {HINT}") from None
    if written_as != FORMAT:
        raise ConfigError(
            f"{path} has format {written_as}, and this version of tfstyle reads format {FORMAT}; {HINT}"
        )
    return dict(state)


def _read_records(path: Path, count: int) -> list[FrameRecord]:
    """Return the first records of a file, and delete further ones, whose frames are stylised again."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[:count]
        records = [FrameRecord(**json.loads(line)) for line in lines]
        write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); {HINT}") from None
    if len(records) < count:
        raise ConfigError(f"{path} has {len(records)} of {count} lines; {HINT}")
    return records


def describe_video(clip: Clip, options: VideoOptions, *, run: Run, custom_encoder: bool) -> dict[str, Any]:
    """Return what the result of a video depends on, and what was chosen for ``auto``, as plain values.

    Args:
        clip: the clip.
        options: the options of the video.
        run: the run of its first frame, whose inputs have digests.
        custom_encoder: whether the caller made the encoder.
    """
    selection = dataclasses.asdict(clip.selection)
    if options.passes == 1:  # the frames do not depend on those after them
        del selection["end"]
    video = {**dataclasses.asdict(options), **selection, "clip": _digest(clip)}
    return {
        "video": json.loads(json.dumps(video)),  # lists in place of tuples, as when it is read
        "depends": json.loads(json.dumps(dependencies(run.inputs, run.setup))),
        "chosen": chosen_options(
            run.config, run.facts, steps_per_call=run.steps_per_call, custom_encoder=custom_encoder
        ),
    }


def check_same_video(checkpoints: VideoCheckpoints, about: Mapping[str, Any]) -> None:
    """Check that the stored state, if there is one, belongs to the current video.

    Args:
        checkpoints: the folder.
        about: the result of `describe_video` for the current video.

    Raises:
        ConfigError: the stored video depends on other options, inputs or weights.
    """
    state = checkpoints.state
    if not state:
        return
    different = differences(state["depends"], about["depends"])
    was, now = state["video"], about["video"]
    for name, value in now.items():
        if was.get(name) != value:
            values = "" if name == "clip" else f" was {was.get(name)!r}, is {value!r}"
            different.append(f"{name}{values or ' is another one'}")
    if different:
        raise ConfigError(f"{checkpoints.folder} holds another video: {'; '.join(different)}; {HINT}")


def _digest(clip: Clip) -> str:
    """Return the SHA-256 digest of a video file, or of all images of a series."""
    if isinstance(clip.source, VideoFile):
        return _file_digest(clip.source.path)
    images = [_file_digest(image) if isinstance(image, Path) else digest(image) for image in clip.source]
    return digest(images)


def _file_digest(path: Path) -> str:
    computed = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                computed.update(block)
    except OSError as error:
        raise RunError(f"{path} could not be read: {error.strerror or error}") from error
    return computed.hexdigest()

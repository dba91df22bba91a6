"""The checkpoints of a run in a folder: written whole or not at all, the last two kept, checked when read.

A checkpoint is an uncompressed ``.npz`` of plain arrays, and ``about``, what there is to say of them, as
JSON. Nothing in it belongs to a version of TensorFlow. What a run puts in is `tfstyle.resuming`'s affair.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError, OutputError, RunError
from tfstyle.files import make_folder, remove_left, replacing

log = logging.getLogger(__name__)

FORMAT = 1
KEPT = 2
#: Options that change nothing, or name files: what is in those is compared instead.
NOT_COMPARED = ("weights", "max_pixels", "memory", "fine_style", "masks", "style_masks", "content_mask")
HINT = "leave out --resume (resume=True) and choose another folder to begin a new run"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What was stored of a run at one instant.

    Attributes:
        about: plain values: how far it was, what it depends on, what ``auto`` had become.
        arrays: image, state of the optimiser, history.
    """

    about: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


class Checkpoints:
    """A folder for the checkpoints of one run.

    Args:
        folder: made if it is not there.
        every: seconds between two checkpoints; 0: after every call of the step.
        resume: go on from the newest one that can be read; where there is none, from the beginning.
        overwrite: without `resume`, replace checkpoints that are there.

    Attributes:
        folder: as given.
        latest: the checkpoint to go on from, or None.

    Raises:
        ConfigError: seconds below 0; a checkpoint of another version's format.
        OutputError: the folder cannot be made or written in, or has a run's checkpoints and neither
            `resume` nor `overwrite` is set.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every: float = 300.0,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        if not 0 <= every < math.inf:
            raise ConfigError(f"checkpoint_every is {every!r}; it must be a number of seconds, at least 0")
        self.folder = make_folder(Path(folder))
        self._every, self._written = every, time.monotonic()
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write checkpoints: no permission to write in {self.folder}")
        there = self._there()
        self._number = max(there, default=0)
        self._good: list[Path] = []
        self._trouble = ""
        self.latest: Checkpoint | None = None
        if there and not resume and not overwrite:
            raise OutputError(
                f"{self.folder} holds the checkpoints of a run: go on with it by --resume (resume=True), "
                "replace it by --overwrite, or choose another folder"
            )
        remove_left(self.folder)
        if resume:
            self.latest = self._newest(there)

    def pinned(self, config: StyleConfig) -> StyleConfig:
        """The config with what ``auto`` had become when the run began."""
        return config if self.latest is None else config.replace(self.latest.about["chosen"])

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() - self._written >= self._every

    def write(self, checkpoint: Checkpoint) -> None:
        """Store one more, and only then drop all but the last two; where that fails, warn and go on."""
        self._number += 1
        path = self.folder / f"checkpoint-{self._number:06d}.npz"
        about = {"format": FORMAT, "arrays": sorted(checkpoint.arrays), **checkpoint.about}
        arrays: dict[str, Any] = {"about": np.array(json.dumps(about)), **checkpoint.arrays}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                _write(file, arrays)
        except (RunError, OSError, MemoryError) as error:
            if str(error.__cause__ or error) != self._trouble:
                log.warning("no checkpoint: %s; the run goes on", error)
            self._trouble = str(error.__cause__ or error)
        else:
            if self._trouble:
                log.warning("checkpoints are written again in %s", self.folder)
            self._trouble = ""
            self._good = [*self._good, path][-KEPT:]
            self._drop_others()
        self._written = time.monotonic()

    def _drop_others(self) -> None:
        for path in set(self._there().values()) - set(self._good):
            with contextlib.suppress(OSError):
                path.unlink()

    def _there(self) -> dict[int, Path]:
        """Number -> checkpoint, whole or not."""
        names = {path: re.fullmatch(r"checkpoint-(\d+)\.npz", path.name) for path in self.folder.iterdir()}
        return {int(match[1]): path for path, match in names.items() if match}

    def _newest(self, there: Mapping[int, Path]) -> Checkpoint | None:
        for number in sorted(there, reverse=True):
            try:
                found = read(there[number])
            except ValueError as error:
                if isinstance(error, ConfigError):
                    raise
                log.warning("%s is damaged (%s): falling back to the one before", there[number], error)
                continue
            self._good = [path for n, path in sorted(there.items()) if n <= number][-KEPT:]
            done = f"scale {found.about['scale']}, {found.about['done']} iterations of it done"
            log.warning("going on from %s: %s", there[number], done)
            return found
        log.warning("no checkpoint that could be read in %s: starting from the beginning", self.folder)
        return None


def open_checkpoints(
    folder: str | os.PathLike[str] | None, every: float, resume: bool, overwrite: bool = False
) -> Checkpoints | None:
    """The checkpoints in a folder, or None where none are wanted.

    Args, Raises: as `Checkpoints`; `resume` without a folder is a ConfigError.
    """
    if folder is None:
        if resume:
            raise ConfigError("resume needs checkpoint, the folder to go on from: --checkpoint DIR")
        return None
    return Checkpoints(folder, every, resume, overwrite)


def read(path: Path) -> Checkpoint:
    """Read and check a checkpoint.

    Raises:
        ValueError: it is damaged.
        ConfigError: another version of tfstyle wrote it, in a format not known here.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # first of all, as a damaged header may ask for any size
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"wrong checksum of {damaged}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop("about")))
        if about.pop("arrays") != sorted(arrays):  # a damaged directory may hide some
            raise ValueError("arrays are missing")
        written_as = about.pop("format")
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes can be anything to the readers of zip, npy and JSON
        words = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(words) from error
    if written_as != FORMAT:
        raise ConfigError(f"{path} has format {written_as}, and this tfstyle reads {FORMAT}; {HINT}")
    return Checkpoint(about, arrays)


def digest(value: Any) -> str:
    """SHA-256 of arrays and plain values, nested in any way."""
    running = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, np.ndarray):
            running.update(f"array {item.dtype} {item.shape};".encode())
            running.update(np.ascontiguousarray(item).reshape(-1).view(np.uint8).data)
        elif isinstance(item, Mapping):
            add([[key, item[key]] for key in sorted(item)])
        elif isinstance(item, (list, tuple)):
            running.update(f"list {len(item)};".encode())
            for part in item:
                add(part)
        else:
            running.update(f"{item!r};".encode())

    add(value)
    return running.hexdigest()


def differences(stored: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs between two of what `tfstyle.resuming.dependencies` gives, in words."""
    defaults = StyleConfig().as_dict()
    options = {
        name: (stored["options"].get(name, defaults[name]), now) for name, now in here["options"].items()
    }
    found = [f"{name} was {was!r}, is {now!r}" for name, (was, now) in options.items() if was != now]
    was, now = stored["inputs"], here["inputs"]
    for name in sorted({*was, *now}):
        if name not in now:
            found.append(f"{name} is missing")
        elif name not in was:
            found.append(f"{name} is new")
        elif was[name] != now[name]:
            found.append(f"{name} is another picture")
    if not found:  # else they may follow from an option
        sides = ({**side["encoder"], "optimizer": side["optimizer"]} for side in (stored, here))
        was, now = ({k: v for k, v in side.items() if k not in ("weights", "arrays")} for side in sides)
        found = [f"{name} was {was.get(name)}, is {now[name]}" for name in now if was.get(name) != now[name]]
    old, new = stored["encoder"], here["encoder"]
    # Weights that are rounded, or normalised over other pictures, are others for that reason alone.
    alike = old["dtype"] == new["dtype"] and not (found and here["normalised"])
    if alike and old["arrays"] != new["arrays"]:
        names = f": {old['weights']} became {new['weights']}" if old["weights"] != new["weights"] else ""
        found.append(f"the encoder has other weights{names}")
    return found


def _write(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    # np.savez of NumPy 1 leaves its archive open where the disk is full, and Python then says so at its end.
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)

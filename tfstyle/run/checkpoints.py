"""Checkpoints: a run stored in a folder as it goes on, and restored from there.

A checkpoint is an uncompressed ``.npz`` file of plain arrays and of ``about``, a JSON object that describes
them. Nothing in it depends on a version of TensorFlow. A file is written whole or not at all, the last two
are kept, and each is checked when it is read.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfstyle import __version__
from tfstyle.config import CHECKPOINT_SECONDS, INIT_NAMES, StyleConfig
from tfstyle.errors import ConfigError, OutputError, RunError
from tfstyle.files import digest, make_folder, remove_left, replacing
from tfstyle.optim import Optimizer
from tfstyle.run.inputs import TransferInputs
from tfstyle.run.results import History
from tfstyle.run.setup import TransferSetup

log = logging.getLogger(__name__)

FORMAT = 2
CHECKPOINTS_KEPT = 2
#: Options that change no result, or that name files, whose contents are compared instead.
NOT_COMPARED = ("weights", "max_pixels", "memory", "fine_style", "masks", "style_masks", "content_mask")
ENCODER_ATTRIBUTES = ("network", "pooling", "padding", "pixel_range", "feature_scale", "dtype", "layers")
HINT = "leave out --resume (resume=True) and choose another folder to begin a new run"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run as it was stored between two calls of its step.

    Attributes:
        about: plain values: how far the run was, what it depends on, what ``auto`` had become.
        arrays: the image, the state of the optimiser, the history.
    """

    about: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


class CheckpointFolder:
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
        *,
        every: float = CHECKPOINT_SECONDS,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        if not 0 <= every < math.inf:
            raise ConfigError(f"checkpoint_every is {every!r}; it must be a number of seconds, at least 0")
        self.folder = make_folder(Path(folder))
        self._every, self._written = every, time.monotonic()
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write checkpoints: no permission to write in {self.folder}")
        paths = self._paths()
        self._number = max(paths, default=0)
        self._readable: list[Path] = []
        self._last_failure = ""
        self.latest: Checkpoint | None = None
        if paths and not resume and not overwrite:
            raise OutputError(
                f"{self.folder} holds the checkpoints of a run: go on with it by --resume (resume=True), "
                "replace it by --overwrite, or choose another folder"
            )
        remove_left(self.folder)
        if resume:
            self.latest = self._read_newest(paths)

    def pinned(self, config: StyleConfig) -> StyleConfig:
        """The config, with what ``auto`` had become in the run that is resumed.

        An option that is given now is left as it is, so that the comparison of the runs sees it.
        """
        if self.latest is None:
            return config
        chosen = self.latest.about["chosen"]
        return config.replace({k: v for k, v in chosen.items() if getattr(config, k) in ("auto", None)})

    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return time.monotonic() - self._written >= self._every

    def write(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint, then delete all but the last two; where it cannot be stored, warn."""
        self._number += 1
        path = self.folder / f"checkpoint-{self._number:06d}.npz"
        about = {"format": FORMAT, "arrays": sorted(checkpoint.arrays), **checkpoint.about}
        arrays: dict[str, Any] = {"about": np.array(json.dumps(about)), **checkpoint.arrays}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                _write(file, arrays)
        except (RunError, OSError, MemoryError) as error:
            failure = str(error.__cause__ or error)
            if failure != self._last_failure:
                log.warning("no checkpoint: %s; the run goes on", error)
            self._last_failure = failure
        else:
            if self._last_failure:
                log.warning("checkpoints are written again in %s", self.folder)
            self._last_failure = ""
            self._readable = [*self._readable, path][-CHECKPOINTS_KEPT:]
            self._delete_others()
        self._written = time.monotonic()

    def _delete_others(self) -> None:
        for path in set(self._paths().values()) - set(self._readable):
            with contextlib.suppress(OSError):
                path.unlink()

    def _paths(self) -> dict[int, Path]:
        """Number -> path of every checkpoint file, damaged ones too."""
        names = {path: re.fullmatch(r"checkpoint-(\d+)\.npz", path.name) for path in self.folder.iterdir()}
        return {int(match[1]): path for path, match in names.items() if match}

    def _read_newest(self, paths: Mapping[int, Path]) -> Checkpoint | None:
        for number in sorted(paths, reverse=True):
            try:
                checkpoint = read_checkpoint(paths[number])
            except ValueError as error:
                if isinstance(error, ConfigError):
                    raise
                log.warning("%s is damaged (%s): falling back to the one before", paths[number], error)
                continue
            older = [path for n, path in sorted(paths.items()) if n <= number]
            self._readable = older[-CHECKPOINTS_KEPT:]
            done = f"scale {checkpoint.about['scale']}, {checkpoint.about['done']} iterations of it done"
            log.warning("going on from %s: %s", paths[number], done)
            return checkpoint
        log.warning("no checkpoint that could be read in %s: starting from the beginning", self.folder)
        return None


def open_checkpoints(
    folder: str | os.PathLike[str] | None, *, every: float, resume: bool, overwrite: bool = False
) -> CheckpointFolder | None:
    """Open the folder of a run's checkpoints; None where no checkpoints are wanted.

    Args, Raises: as `CheckpointFolder`; `resume` without a folder is a ConfigError.
    """
    if folder is None:
        if resume:
            raise ConfigError("resume needs checkpoint, the folder to go on from: --checkpoint DIR")
        return None
    return CheckpointFolder(folder, every=every, resume=resume, overwrite=overwrite)


def read_checkpoint(path: Path) -> Checkpoint:
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


def differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Say what differs between the `dependencies` of two runs, one phrase for each difference."""
    defaults = StyleConfig().as_dict()
    options = {
        name: (stored["options"].get(name, defaults[name]), now) for name, now in current["options"].items()
    }
    different = [f"{name} was {was!r}, is {now!r}" for name, (was, now) in options.items() if was != now]
    was, now = stored["inputs"], current["inputs"]
    for name in sorted({*was, *now}):
        if name not in now:
            different.append(f"{name} is missing")
        elif name not in was:
            different.append(f"{name} is new")
        elif was[name] != now[name]:
            different.append(f"{name} is another image")
    if not different:  # else these may follow from an option
        sides = ({**side["encoder"], "optimizer": side["optimizer"]} for side in (stored, current))
        was, now = ({k: v for k, v in side.items() if k not in ("weights", "arrays")} for side in sides)
        different = [
            f"{name} was {was.get(name)}, is {now[name]}" for name in now if was.get(name) != now[name]
        ]
    old, new = stored["encoder"], current["encoder"]
    # Weights that are rounded, or normalised over other images, differ for that reason alone.
    comparable = old["dtype"] == new["dtype"] and not (different and current["normalised"])
    if comparable and old["arrays"] != new["arrays"]:
        names = f": {old['weights']} became {new['weights']}" if old["weights"] != new["weights"] else ""
        different.append(f"the encoder has other weights{names}")
    return different


def _write(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    # np.savez of NumPy 1 leaves its archive open where the disk is full, and Python then says so at its end.
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


class RunPosition(NamedTuple):
    """How far a run is, between two calls of its step.

    Attributes:
        scale: from 1.
        done: iterations of it.
        ended: whether nothing is left to be done at it.
        image: at this scale, ``[1, height, width, 3]``.
        state: of the optimiser, None if it has none yet.
        last_good: image and state to go back to where a loss is not finite.
    """

    scale: int
    done: int
    ended: bool
    image: Any
    state: Any
    last_good: tuple[Any, Any]


class CheckpointWriter:
    """Writes the checkpoints of a run as it goes on.

    Args:
        checkpoints: the folder; None: nothing is written.
        about: of `describe_run`.
        optimizer: of the run.
        history: of the run, as it grows.
    """

    def __init__(
        self,
        checkpoints: CheckpointFolder | None,
        about: Mapping[str, Any],
        *,
        optimizer: Optimizer,
        history: History,
    ) -> None:
        self._checkpoints, self._about = checkpoints, about
        self._optimizer, self._history = optimizer, history
        self._newest: tuple[RunPosition, int] | None = None

    def reached(self, position: RunPosition) -> None:
        """Remember a position, and write it at the end of a scale or when a checkpoint is due."""
        if self._checkpoints is None:
            return
        state = self._optimizer.flatten(position.state)  # by value: an adapted optimiser changes its own
        self._newest = position._replace(state=state), len(self._history.iteration)
        if position.ended or self._checkpoints.due():
            self._write()

    def forget(self) -> None:
        """Forget the last position, because the arrays in it are about to change in place."""
        self._newest = None

    @contextlib.contextmanager
    def write_if_interrupted(self) -> Iterator[None]:
        """Write the last position where the block ends by Ctrl-C or because its iterator is closed."""
        try:
            yield
        except (GeneratorExit, KeyboardInterrupt):
            self._write()
            raise

    def _write(self) -> None:
        if self._checkpoints is None or self._newest is None:
            return
        position, count = self._newest
        last_good, state = position.last_good
        if state is not None:  # only its image is ever needed
            last_good = self._optimizer.solution(last_good, state)
        arrays = {"image": np.asarray(position.image)}
        if last_good is not position.image:  # it is where an image is updated in place
            arrays["last_good"] = np.asarray(last_good)
        arrays |= {f"state/{i}": np.asarray(leaf) for i, leaf in enumerate(position.state)}
        arrays |= _history_arrays(self._history, count)
        progress = {"scale": position.scale, "done": position.done, "ended": position.ended}
        self._checkpoints.write(Checkpoint({**self._about, **progress}, arrays))
        self._newest = None


def describe_run(
    inputs: TransferInputs, setup: TransferSetup, *, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe a run for its checkpoints, as plain values: all but how far it is.

    Args:
        inputs: of the run, with their digests.
        setup: of the run.
        chosen: of `chosen_options`.
    """
    return {
        "versions": {
            "tfstyle": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "config": inputs.config.as_dict(),
        "depends": dependencies(inputs, setup),
        "chosen": dict(chosen),
    }


def dependencies(inputs: TransferInputs, setup: TransferSetup) -> dict[str, Any]:
    """All that the result depends on: options by their values, images and weights by their digests."""
    config, encoder = inputs.config, setup.encoder
    options = {name: value for name, value in config.as_dict().items() if name not in NOT_COMPARED}
    if config.init not in INIT_NAMES:
        options["init"] = "a file"
    attributes = {name: getattr(encoder, name) for name in ENCODER_ATTRIBUTES}
    arrays = [np.asarray(tf.cast(tf.convert_to_tensor(v), tf.float32)) for v in encoder.model.weights]
    return {
        "options": options,
        "inputs": dict(inputs.digests),
        "encoder": {
            **attributes,
            "layers": list(encoder.layers),
            "weights": encoder.weights.source,
            "arrays": digest(arrays),
        },
        "normalised": config.normalize_weights,
        "optimizer": setup.optimizer.description,
    }


def chosen_options(
    config: StyleConfig, facts: Mapping[str, Any], *, steps_per_call: int, custom_encoder: bool
) -> dict[str, Any]:
    """The options that ``auto`` left to the machine or to the weights that were available.

    Args:
        config: as given.
        facts: of the run.
        steps_per_call: iterations in one call of the step.
        custom_encoder: whether the caller made the encoder; the options of encoders then do not apply.
    """
    kind, _, number = facts["device"].strip("/").lower().partition(":")
    chosen = {
        "device": f"gpu:{number}" if kind == "gpu" else "cpu",
        "compile": facts["compile"],
        "steps_per_call": steps_per_call,
    }
    if not custom_encoder:
        chosen["precision"] = facts["precision"]
        if config.weights == "auto":
            chosen["weights"] = facts["weights"].removesuffix(", normalized")
    return chosen


def check_same_run(checkpoints: CheckpointFolder, about: Mapping[str, Any]) -> None:
    """Raise ConfigError where the stored run is another one; warn where its libraries had other versions.

    Args:
        checkpoints: with a `latest` checkpoint.
        about: of `describe_run`, of the current run.
    """
    assert checkpoints.latest is not None
    stored = checkpoints.latest.about
    different = differences(stored["depends"], about["depends"])
    if not different and stored["chosen"]["steps_per_call"] != about["chosen"]["steps_per_call"]:
        steps = stored["chosen"]["steps_per_call"]
        different = [f"a call has {steps} iterations, and --save-every is no multiple of that"]
    if different:
        raise ConfigError(f"{checkpoints.folder} holds another run: {'; '.join(different)}; {HINT}")
    versions = [
        f"{name} {version}, now {about['versions'][name]}"
        for name, version in stored["versions"].items()
        if version != about["versions"][name]
    ]
    if versions:
        log.warning(
            "the run began with %s: it goes on, if not bit for bit as it would have", "; ".join(versions)
        )


def restore_run(
    checkpoint: Checkpoint, optimizer: Optimizer, *, history: History, in_place: bool
) -> RunPosition:
    """Restore the history of a run, and return its position.

    Args:
        checkpoint: to go on from.
        optimizer: of its scale.
        history: is filled.
        in_place: leave image and state as arrays, for `tfstyle.tiling.make_host_step`; else tensors.

    Raises:
        ConfigError: the optimiser keeps another state than that which was stored.
    """
    arrays, about = checkpoint.arrays, checkpoint.about
    _restore_history(history, arrays)
    image = arrays["image"] if in_place else tf.constant(arrays["image"])
    # Of large images not even the zeros of a first state: TensorFlow would keep that memory.
    state = optimizer.init(tf.zeros([1, 1, 1, image.shape[-1]]) if in_place else image)
    leaves = optimizer.flatten(state)
    shapes = [image.shape if in_place and np.ndim(leaf) == 4 else np.shape(leaf) for leaf in leaves]
    stored = [arrays[f"state/{i}"] for i in range(sum(name.startswith("state/") for name in arrays))]
    if shapes != [array.shape for array in stored]:
        raise ConfigError(f"the optimizer keeps another state than that of the checkpoint; {HINT}")
    stored = [_typed(array, leaf) for array, leaf in zip(stored, leaves, strict=True)]
    state = tf.nest.pack_sequence_as(state, stored) if in_place else optimizer.restore(state, stored)
    last_good = tf.constant(arrays["last_good"]) if "last_good" in arrays else image, None
    return RunPosition(about["scale"], about["done"], about["ended"], image, state, last_good)


def _typed(array: np.ndarray, leaf: Any) -> np.ndarray:
    """NumPy's files do not know bfloat16 and its kin by name: they come back as plain bytes."""
    return array.view(tf.as_dtype(leaf.dtype).as_numpy_dtype) if array.dtype.kind == "V" else array


def _history_arrays(history: History, count: int) -> dict[str, np.ndarray]:
    """The first entries, name -> float64 or int64 array."""
    layers = {f"style_layers/{layer}": series for layer, series in history.style_layers.items()}
    plain = {name: series for name, series in vars(history).items() if name != "style_layers"}
    return {f"history/{name}": np.array(series[:count]) for name, series in {**plain, **layers}.items()}


def _restore_history(history: History, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        kind, _, name = name.partition("/")
        if kind == "history":
            name, _, layer = name.partition("/")
            if layer:
                history.style_layers[layer] = array.tolist()
            else:
                setattr(history, name, array.tolist())

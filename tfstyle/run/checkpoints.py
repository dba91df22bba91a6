"""The checkpoints of a run in a folder: written whole or not at all, the last two kept, checked when read.

A checkpoint is an uncompressed ``.npz`` of plain arrays, and ``about``, what there is to say of them, as
JSON. Nothing in it belongs to a version of TensorFlow. What a run puts in is `tfstyle.resuming`'s affair.
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
from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError, OutputError, RunError
from tfstyle.files import digest, make_folder, remove_left, replacing
from tfstyle.network import Encoder
from tfstyle.optim import Optimizer
from tfstyle.run.inputs import TransferInputs, names_file
from tfstyle.run.results import History

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
                found = read_checkpoint(there[number])
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
) -> CheckpointFolder | None:
    """The checkpoints in a folder, or None where none are wanted.

    Args, Raises: as `Checkpoints`; `resume` without a folder is a ConfigError.
    """
    if folder is None:
        if resume:
            raise ConfigError("resume needs checkpoint, the folder to go on from: --checkpoint DIR")
        return None
    return CheckpointFolder(folder, every, resume, overwrite)


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


ENCODER_ATTRIBUTES = ("network", "pooling", "padding", "pixel_range", "feature_scale", "dtype", "layers")


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
    """Stores a run's positions as it goes on.

    Args:
        checkpoints: where; None: nowhere, and nothing is done.
        about: what `tfstyle.resuming.describe` says of the run.
        optimizer: of the run.
        history: of the run, as it grows.
    """

    def __init__(
        self,
        checkpoints: CheckpointFolder | None,
        about: Mapping[str, Any],
        optimizer: Optimizer,
        history: History,
    ) -> None:
        self._checkpoints, self._about = checkpoints, about
        self._optimizer, self._history = optimizer, history
        self._newest: tuple[RunPosition, int] | None = None

    def reached(self, position: RunPosition) -> None:
        """Remember a position, and store it at the end of a scale or when it is time."""
        if self._checkpoints is None:
            return
        state = self._optimizer.flatten(position.state)  # by value: an adapted optimiser changes its own
        self._newest = position._replace(state=state), len(self._history.iteration)
        if position.ended or self._checkpoints.due():
            self._store()

    def moves_in_place(self) -> None:
        """Forget the last position: the arrays that it is made of are about to change."""
        self._newest = None

    @contextlib.contextmanager
    def storing_when_interrupted(self) -> Iterator[None]:
        """Store the last position where the block is left by Ctrl-C, or by whoever iterates over the run."""
        try:
            yield
        except (GeneratorExit, KeyboardInterrupt):
            self._store()
            raise

    def _store(self) -> None:
        if self._checkpoints is None or self._newest is None:
            return
        position, count = self._newest
        good, state = position.last_good
        if state is not None:  # of which only the picture is ever needed
            good = self._optimizer.solution(good, state)
        arrays = {"image": np.asarray(position.image)}
        if good is not position.image:  # it is, where an image moves in place
            arrays["last_good"] = np.asarray(good)
        arrays |= {f"state/{i}": np.asarray(leaf) for i, leaf in enumerate(position.state)}
        arrays |= _history_arrays(self._history, count)
        progress = {"scale": position.scale, "done": position.done, "ended": position.ended}
        self._checkpoints.write(Checkpoint({**self._about, **progress}, arrays))
        self._newest = None


def describe_run(
    config: StyleConfig,
    inputs: TransferInputs,
    encoder: Encoder,
    optimizer: Optimizer,
    chosen: Mapping[str, Any],
) -> dict[str, Any]:
    """What a checkpoint says of a run but for how far it is, as plain values.

    Args:
        config: as given.
        inputs: with their digests.
        encoder, optimizer: as used.
        chosen: what options that are ``auto`` have become.
    """
    return {
        "versions": {
            "tfstyle": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "config": config.as_dict(),
        "depends": dependencies(config, inputs, encoder, optimizer),
        "chosen": dict(chosen),
    }


def dependencies(
    config: StyleConfig, inputs: TransferInputs, encoder: Encoder, optimizer: Optimizer
) -> dict[str, Any]:
    """All that the picture depends on: what was given by value, pictures and weights by their digests."""
    options = {name: value for name, value in config.as_dict().items() if name not in NOT_COMPARED}
    if names_file(config.init):
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
        "optimizer": optimizer.description,
    }


def chosen_options(config: StyleConfig, facts: Mapping[str, Any], chunk: int, own: bool) -> dict[str, Any]:
    """The options that a machine or a source of weights chooses, as they were.

    Args:
        config: as given.
        facts: of the run.
        chunk: iterations in one call of the step.
        own: whether the encoder is the caller's, to which those of encoders say nothing.
    """
    kind, _, number = facts["device"].strip("/").lower().partition(":")
    found = {
        "device": f"gpu:{number}" if kind == "gpu" else "cpu",
        "compile": facts["compile"],
        "steps_per_call": chunk,
    }
    if not own:
        found |= {"precision": facts["precision"], "pooling": facts["pooling"]}
        if config.weights == "auto":
            found["weights"] = facts["weights"].removesuffix(", normalized")
    return found


def check_same_run(checkpoints: CheckpointFolder, about: Mapping[str, Any]) -> None:
    """Raise ConfigError where the stored run is another one; warn where its libraries are.

    Args:
        checkpoints: with a `latest` one.
        about: of `describe`, of the run here.
    """
    assert checkpoints.latest is not None
    stored = checkpoints.latest.about
    found = differences(stored["depends"], about["depends"])
    if not found and stored["chosen"]["steps_per_call"] != about["chosen"]["steps_per_call"]:
        steps = stored["chosen"]["steps_per_call"]
        found = [f"a call has {steps} iterations, and --save-every is no multiple of that"]
    if found:
        raise ConfigError(f"{checkpoints.folder} holds another run: {'; '.join(found)}; {HINT}")
    old = [
        f"{k} {v}, now {about['versions'][k]}"
        for k, v in stored["versions"].items()
        if v != about["versions"][k]
    ]
    if old:
        log.warning("the run began with %s: it goes on, if not bit for bit as it would have", "; ".join(old))


def restore_run(
    checkpoint: Checkpoint, optimizer: Optimizer, history: History, in_place: bool
) -> RunPosition:
    """Fill the history as it was, and return the position.

    Args:
        checkpoint: to go on from.
        optimizer: of its scale.
        history: to be filled.
        in_place: leave image and state as arrays, for `tfstyle.step.make_host_step`; else tensors.

    Raises:
        ConfigError: the optimiser keeps another state than that which was stored.
    """
    arrays, about = checkpoint.arrays, checkpoint.about
    _put_history_back(history, arrays)
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


def _put_history_back(history: History, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        kind, _, name = name.partition("/")
        if kind == "history":
            name, _, layer = name.partition("/")
            if layer:
                history.style_layers[layer] = array.tolist()
            else:
                setattr(history, name, array.tolist())

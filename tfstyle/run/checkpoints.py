"""Checkpoints: the state of a run, stored in files from which the run can be resumed.

A checkpoint is an uncompressed ``.npz`` file of plain arrays. Its entry ``about`` is a JSON object that
describes them. The format does not depend on a version of TensorFlow. A file is written whole or not at all,
the last two files are kept, and each file is checked when it is read.
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

FORMAT = 3
CHECKPOINTS_KEPT = 2
#: Options that do not change the result; the quality, since the options that it sets are compared; and
#: options that name files, whose contents are compared.
NOT_COMPARED = (
    "quality", "weights", "max_pixels", "memory", "fine_style", "masks", "style_masks", "content_mask",
)  # fmt: skip
ENCODER_ATTRIBUTES = ("network", "pooling", "padding", "pixel_range", "feature_scale", "dtype", "layers")
HINT = "to begin a new run, leave out resume=True and choose another folder"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run as stored in a checkpoint, between two calls of its step.

    Attributes:
        about: plain values: the position of the run, everything that its result depends on, the versions of
            the libraries, and the values that were chosen for ``auto``.
        arrays: name -> array: the image, the state of the optimiser and the history.
    """

    about: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


class CheckpointFolder:
    """A folder with the checkpoints of one run.

    Args:
        folder: path of the folder, which is made if it does not exist.
        every: time between two checkpoints in seconds, at least 0. With 0 a checkpoint is written after every
            call of the step.
        resume: whether to resume the run from the newest checkpoint that can be read. Without such a
            checkpoint the run starts from the beginning.
        overwrite: whether to replace the checkpoints of another run, without `resume`.

    Attributes:
        folder: path of the folder.
        latest: the checkpoint from which the run is resumed, or None.

    Raises:
        ConfigError: `every` is negative or not finite, or the newest checkpoint has another format.
        OutputError: the folder cannot be made, cannot be written in, or has checkpoints although neither
            `resume` nor `overwrite` is set.

    Example:
        >>> import numpy as np
        >>> from tfstyle.run import Checkpoint, CheckpointFolder
        >>> folder = CheckpointFolder("checkpoints")
        >>> folder.write(Checkpoint({"scale": 1, "done": 50}, {"image": np.zeros((1, 32, 48, 3))}))
        >>> CheckpointFolder("checkpoints", resume=True).latest.about
        {'scale': 1, 'done': 50}
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
            raise ConfigError(
                f"checkpoint_every is {every!r}; it must be a finite number of seconds, at least 0"
            )
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
                f"{self.folder} holds the checkpoints of a run; resume it with resume=True, "
                "replace it with overwrite=True, or choose another folder"
            )
        remove_left(self.folder)
        if resume:
            self.latest = self._read_newest(paths)

    def pinned(self, config: StyleConfig) -> StyleConfig:
        """Return the config with the values that the resumed run had chosen for ``auto`` and None.

        Options with other values are left unchanged, so that `check_same_run` compares them.

        Args:
            config: the options as they were given.
        """
        if self.latest is None:
            return config
        chosen = self.latest.about["chosen"]
        return config.replace({k: v for k, v in chosen.items() if getattr(config, k) in ("auto", None)})

    def due(self) -> bool:
        """Return whether the time since the last checkpoint has reached `every`."""
        return time.monotonic() - self._written >= self._every

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then delete all but the last two.

        If it cannot be written, a warning is logged.

        Args:
            checkpoint: the state of the run.
        """
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
                log.warning("no checkpoint was written: %s; the run goes on", error)
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
        """Return number -> path of every checkpoint file, including damaged ones."""
        names = {path: re.fullmatch(r"checkpoint-(\d+)\.npz", path.name) for path in self.folder.iterdir()}
        return {int(match[1]): path for path, match in names.items() if match}

    def _read_newest(self, paths: Mapping[int, Path]) -> Checkpoint | None:
        """Return the newest checkpoint that can be read, or None."""
        for number in sorted(paths, reverse=True):
            try:
                checkpoint = read_checkpoint(paths[number])
            except ValueError as error:
                if isinstance(error, ConfigError):
                    raise
                log.warning("%s is damaged (%s); trying the checkpoint before it", paths[number], error)
                continue
            older = [path for n, path in sorted(paths.items()) if n <= number]
            self._readable = older[-CHECKPOINTS_KEPT:]
            log.warning(
                "resuming from %s: %d iterations of scale %d were done",
                paths[number], checkpoint.about["done"], checkpoint.about["scale"],
            )  # fmt: skip
            return checkpoint
        reason = "no checkpoint can be read" if paths else "there is no checkpoint yet"
        log.warning("%s: %s, so a new run starts", self.folder, reason)
        return None


def open_checkpoints(
    folder: str | os.PathLike[str] | None, *, every: float, resume: bool, overwrite: bool = False
) -> CheckpointFolder | None:
    """Return the folder of a run's checkpoints, or None if the run writes no checkpoints.

    Args:
        folder: path of the folder, or None.
        every, resume, overwrite: as for `CheckpointFolder`.

    Raises:
        ConfigError: `resume` is set without a folder, or as for `CheckpointFolder`.
        OutputError: as for `CheckpointFolder`.
    """
    if folder is None:
        if resume:
            raise ConfigError('resume needs a folder of checkpoints; give checkpoint="DIR"')
        return None
    return CheckpointFolder(folder, every=every, resume=resume, overwrite=overwrite)


def read_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint from a file, after checking that the file is not damaged.

    Args:
        path: path of the file.

    Raises:
        ValueError: the file is damaged or not a checkpoint.
        ConfigError: the file has the format of another version of tfstyle.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # checked first, since a damaged header may state any size
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"wrong checksum of {damaged}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop("about")))
        if about.pop("arrays") != sorted(arrays):  # a damaged directory of the archive may leave out entries
            raise ValueError("arrays are missing")
        written_as = about.pop("format")
    except MemoryError:
        raise
    except Exception as error:  # readers of zip, npy and JSON raise many classes for damaged bytes
        words = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(words) from error
    if written_as != FORMAT:
        raise ConfigError(
            f"{path} has format {written_as}, and this version of tfstyle reads format {FORMAT}; {HINT}"
        )
    return Checkpoint(about, arrays)


def differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return a phrase for each difference between the `dependencies` of two runs."""
    defaults = StyleConfig().as_dict()
    options = {
        name: (stored["options"].get(name, defaults[name]), now) for name, now in current["options"].items()
    }
    different = [f"{name} was {was!r}, is {now!r}" for name, (was, now) in options.items() if was != now]
    was, now = stored["inputs"], current["inputs"]
    for name in sorted({*was, *now}):
        label = name.replace("the start", "the init image")  # the name in the files
        if name not in now:
            different.append(f"{label} was given before and is missing now")
        elif name not in was:
            different.append(f"{label} is given now and was not before")
        elif was[name] != now[name]:
            different.append(f"{label} is another image")
    was, now = (side.get("extra_losses", {}) for side in (stored, current))
    if was != now:
        different.append(f"the weights of extra_losses were {was} and are now {now}")
    if not different:  # differences of the encoder and the optimiser may follow from an option
        sides = ({**side["encoder"], "optimizer": side["optimizer"]} for side in (stored, current))
        was, now = ({k: v for k, v in side.items() if k not in ("weights", "arrays")} for side in sides)
        different = [
            f"{name} was {was.get(name)}, is {now[name]}" for name in now if was.get(name) != now[name]
        ]
    old, new = stored["encoder"], current["encoder"]
    # Weights of another data type, or normalised over other images, differ for that reason alone.
    comparable = old["dtype"] == new["dtype"] and not (different and current["normalised"])
    if comparable and old["arrays"] != new["arrays"]:
        sources = f", was {old['weights']}, is {new['weights']}" if old["weights"] != new["weights"] else ""
        different.append(f"the encoder has other weights{sources}")
    return different


def _write(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as an ``.npz`` file."""
    # On a full disk np.savez of NumPy 1 leaves its archive open, and Python reports an error when it exits.
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


class RunPosition(NamedTuple):
    """The position of a run between two calls of its step, with its image and state.

    Attributes:
        scale: number of the scale, from 1.
        done: number of iterations of this scale that were done.
        ended: whether the scale has ended.
        image: the iterate at this scale, ``[1, height, width, 3]``.
        state: the state of the optimiser; None if it has none yet.
        last_good: image and state before the last call of the step. If a loss is not finite, they are the
            result.
        start: the image at the beginning of the scale, if the targets of the scale depend on it, float32
            ``[height, width, 3]``.
    """

    scale: int
    done: int
    ended: bool
    image: Any
    state: Any
    last_good: tuple[Any, Any]
    start: np.ndarray | None = None


class CheckpointWriter:
    """Writes the checkpoints of a run when they are due.

    Args:
        checkpoints: the folder; None if no checkpoints are written.
        about: the description of the run, as `describe_run` returns it.
        optimizer: the optimiser of the run.
        history: the history of the run, which the run extends.
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
        """Store a position in memory, and write it at the end of a scale or when a checkpoint is due.

        Args:
            position: the current position of the run.
        """
        if self._checkpoints is None:
            return
        state = self._optimizer.flatten(position.state)  # copies: a Keras optimiser changes its variables
        self._newest = position._replace(state=state), len(self._history.iteration)
        if position.ended or self._checkpoints.due():
            self.write()

    def forget(self) -> None:
        """Drop the position in memory, because its arrays are about to change in place."""
        self._newest = None

    @contextlib.contextmanager
    def write_if_interrupted(self) -> Iterator[None]:
        """Return a context that writes the last position if its block ends by Ctrl-C or a closed iterator."""
        try:
            yield
        except (GeneratorExit, KeyboardInterrupt):
            self.write()
            raise

    def write(self) -> None:
        """Write a checkpoint of the last position, unless it is written already or there is no folder."""
        if self._checkpoints is None or self._newest is None:
            return
        position, count = self._newest
        last_good, state = position.last_good
        if state is not None:  # a restored run needs the image alone
            last_good = self._optimizer.solution(last_good, state)
        arrays = {"image": np.asarray(position.image)}
        if last_good is not position.image:  # they are the same if the image is updated in place
            arrays["last_good"] = np.asarray(last_good)
        if position.start is not None:
            arrays["start"] = position.start
        arrays |= {f"state/{i}": np.asarray(leaf) for i, leaf in enumerate(position.state)}
        arrays |= _history_arrays(self._history, count)
        progress = {"scale": position.scale, "done": position.done, "ended": position.ended}
        self._checkpoints.write(Checkpoint({**self._about, **progress}, arrays))
        self._newest = None


def describe_run(
    inputs: TransferInputs, setup: TransferSetup, *, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the description of a run for its checkpoints as plain values, without its position.

    Args:
        inputs: the inputs of the run, with their digests.
        setup: the setup of the run.
        chosen: the values chosen for ``auto``, as `chosen_options` returns them.
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
    """Return what the result of a run depends on: options as values, images and weights as digests."""
    config, encoder = inputs.config, setup.encoder
    options = {name: value for name, value in config.as_dict().items() if name not in NOT_COMPARED}
    if config.init not in INIT_NAMES:
        options["init"] = "a file"
    attributes = {name: getattr(encoder, name) for name in ENCODER_ATTRIBUTES}
    arrays = [np.asarray(tf.cast(tf.convert_to_tensor(v), tf.float32)) for v in encoder.model.weights]
    extra_losses = {name: float(weight) for name, (_, weight) in setup.objective.extra_losses.items()}
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
        **({"extra_losses": extra_losses} if extra_losses else {}),  # not in checkpoints without any
    }


def chosen_options(
    config: StyleConfig, facts: Mapping[str, Any], *, steps_per_call: int, custom_encoder: bool
) -> dict[str, Any]:
    """Return the values that were chosen for ``auto`` options, which depend on the machine and the weights.

    Args:
        config: the options as they were given.
        facts: the facts of the run.
        steps_per_call: number of iterations in one call of the step.
        custom_encoder: whether the caller made the encoder, to which the options of encoders do not apply.
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
    """Check that the latest checkpoint belongs to the current run.

    If the checkpoint was written with other versions of the libraries, a warning is logged.

    Args:
        checkpoints: the folder, with a `latest` checkpoint.
        about: the description of the current run, as `describe_run` returns it.

    Raises:
        ConfigError: the result of the stored run depends on other options, inputs or weights.
    """
    assert checkpoints.latest is not None
    stored = checkpoints.latest.about
    different = differences(stored["depends"], about["depends"])
    if not different and stored["chosen"]["steps_per_call"] != about["chosen"]["steps_per_call"]:
        steps = stored["chosen"]["steps_per_call"]
        different = [
            f"a call of its step performs {steps} iterations, and save_every is not a multiple of {steps}"
        ]
    if different:
        raise ConfigError(f"{checkpoints.folder} holds another run: {'; '.join(different)}; {HINT}")
    versions = [
        f"{name} {version}, now {about['versions'][name]}"
        for name, version in stored["versions"].items()
        if version != about["versions"][name]
    ]
    if versions:
        log.warning(
            "the run began with %s; its result may differ slightly from that of a run without interruption",
            "; ".join(versions),
        )


def restore_run(
    checkpoint: Checkpoint, optimizer: Optimizer, *, history: History, in_place: bool
) -> RunPosition:
    """Return the position of a stored run, and restore its history.

    Args:
        checkpoint: the stored run.
        optimizer: the optimiser of the scale at which the run was stored.
        history: an empty history, which is filled with that of the stored run.
        in_place: whether image and state are arrays for `tfstyle.tiling.make_host_step`; otherwise they are
            tensors.

    Raises:
        ConfigError: the state of the optimiser has another structure than the stored state.
    """
    arrays, about = checkpoint.arrays, checkpoint.about
    _restore_history(history, arrays)
    image = arrays["image"] if in_place else tf.constant(arrays["image"])
    # In place, the state is not made at the image's size, because TensorFlow would not free that memory.
    state = optimizer.init(tf.zeros([1, 1, 1, image.shape[-1]]) if in_place else image)
    leaves = optimizer.flatten(state)
    shapes = [image.shape if in_place and np.ndim(leaf) == 4 else np.shape(leaf) for leaf in leaves]
    stored = [arrays[f"state/{i}"] for i in range(sum(name.startswith("state/") for name in arrays))]
    if shapes != [array.shape for array in stored]:
        raise ConfigError(
            f"the checkpoint has another optimizer's state; give the stored run's optimizer; {HINT}"
        )
    stored = [_typed(array, leaf) for array, leaf in zip(stored, leaves, strict=True)]
    state = tf.nest.pack_sequence_as(state, stored) if in_place else optimizer.restore(state, stored)
    last_good = tf.constant(arrays["last_good"]) if "last_good" in arrays else image, None
    start = arrays.get("start")
    return RunPosition(about["scale"], about["done"], about["ended"], image, state, last_good, start=start)


def _typed(array: np.ndarray, leaf: Any) -> np.ndarray:
    """Return an array in the data type of a leaf, since NumPy reads bfloat16 and similar types as bytes."""
    return array.view(tf.as_dtype(leaf.dtype).as_numpy_dtype) if array.dtype.kind == "V" else array


def _history_arrays(history: History, count: int) -> dict[str, np.ndarray]:
    """Return the first entries of a history, name -> float64 or int64 array."""
    series: dict[str, list[Any]] = {}
    for name, value in vars(history).items():
        series |= (
            {f"{name}/{part}": values for part, values in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    return {f"history/{name}": np.array(values[:count]) for name, values in series.items()}


def _restore_history(history: History, arrays: Mapping[str, np.ndarray]) -> None:
    """Fill a history with the arrays that `_history_arrays` returned."""
    for name, array in arrays.items():
        kind, _, name = name.partition("/")
        if kind == "history":
            name, _, part = name.partition("/")
            if part:
                getattr(history, name)[part] = array.tolist()
            else:
                setattr(history, name, array.tolist())
    for values in (history.temporal, history.self_similarity):  # missing in checkpoints of earlier versions
        values += [0.0] * (len(history.total) - len(values))

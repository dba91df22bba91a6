"""What a checkpoint holds of a run, and the run put back from it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfstyle import __version__
from tfstyle.checkpoint import HINT, NOT_COMPARED, Checkpoint, Checkpoints, differences, digest
from tfstyle.config import StyleConfig
from tfstyle.encoder import Encoder
from tfstyle.errors import ConfigError
from tfstyle.inputs import Inputs, names_file
from tfstyle.optimizers import Optimizer
from tfstyle.results import History

log = logging.getLogger(__name__)

ENCODER_ATTRIBUTES = ("network", "pooling", "padding", "pixel_range", "feature_scale", "dtype", "layers")


class Position(NamedTuple):
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


class Keeper:
    """Stores a run's positions as it goes on.

    Args:
        checkpoints: where; None: nowhere, and nothing is done.
        about: what `tfstyle.resuming.describe` says of the run.
        optimizer: of the run.
        history: of the run, as it grows.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        about: Mapping[str, Any],
        optimizer: Optimizer,
        history: History,
    ) -> None:
        self._checkpoints, self._about = checkpoints, about
        self._optimizer, self._history = optimizer, history
        self._newest: tuple[Position, int] | None = None

    def reached(self, position: Position) -> None:
        """Remember a position, and store it at the end of a scale or when it is time."""
        if self._checkpoints is None:
            return
        state = self._optimizer.leaves(position.state)  # by value: an adapted optimiser changes its own
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


def describe(
    config: StyleConfig,
    inputs: Inputs,
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
    config: StyleConfig, inputs: Inputs, encoder: Encoder, optimizer: Optimizer
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
        "optimizer": optimizer.described,
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


def check_same(checkpoints: Checkpoints, about: Mapping[str, Any]) -> None:
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


def put_back(checkpoint: Checkpoint, optimizer: Optimizer, history: History, in_place: bool) -> Position:
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
    leaves = optimizer.leaves(state)
    shapes = [image.shape if in_place and np.ndim(leaf) == 4 else np.shape(leaf) for leaf in leaves]
    stored = [arrays[f"state/{i}"] for i in range(sum(name.startswith("state/") for name in arrays))]
    if shapes != [array.shape for array in stored]:
        raise ConfigError(f"the optimizer keeps another state than that of the checkpoint; {HINT}")
    stored = [_typed(array, leaf) for array, leaf in zip(stored, leaves, strict=True)]
    state = tf.nest.pack_sequence_as(state, stored) if in_place else optimizer.put_back(state, stored)
    last_good = tf.constant(arrays["last_good"]) if "last_good" in arrays else image, None
    return Position(about["scale"], about["done"], about["ended"], image, state, last_good)


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

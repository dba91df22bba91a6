"""Functions that write a SavedModel with warm-up requests, a contract and the licence of the weights."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle import __version__
from tfstyle.errors import ConfigError, OutputError, RunError
from tfstyle.files import check_model_name, make_folder, rename
from tfstyle.network import EMBEDDED
from tfstyle.serving.signatures import Signatures

#: Folder and names of the files beside the graph. TensorFlow Serving reads only the warm-up requests.
EXTRA = "assets.extra"
WARMUP = "tf_serving_warmup_requests"
CONTRACT = "tfstyle.json"
LICENCE = "WEIGHTS.md"
WARMUP_SIDE = 64  # height and width of the image in the warm-up requests, in pixels
IMAGENET_LICENCE = """\
The weights are VGG-19's, by Karen Simonyan and Andrew Zisserman, Visual Geometry Group, University of Oxford
(https://www.robots.ox.ac.uk/~vgg/research/very_deep/), as converted for Keras, under the Creative Commons
Attribution 4.0 licence (https://creativecommons.org/licenses/by/4.0/).
"""
#: `Weights.digests` of conv1_1 of VGG-19's ImageNet weights, as float32 and as float16 of `Weights.save`. A
#: file that has only some of their lower layers, or other layers above these, falls under their licence too.
GENUINE = ("c68eefa00d6af917", "cca05196902f5a58")


def write_saved_model(
    path: Path,
    signatures: Signatures,
    *,
    name: str,
    version: int | None,
    made_with: Mapping[str, Any],
    overwrite: bool,
) -> Path:
    """Write the folder ``path/name/version/``, completely or not at all.

    Args:
        path, name, version, overwrite: as in `tfstyle.StyleExtractor.export`.
        signatures: the functions of the model.
        made_with: description of the encoder for the model's contract, as `tfstyle.StyleExtractor.describe`
            returns it.

    Returns:
        The folder of the version.

    Raises:
        ConfigError: the name or the version has a wrong value.
        OutputError: the folder cannot be written, or the version exists and ``overwrite`` is False.
        RunError: writing failed. No part of the version is left, and an existing version is unchanged.
    """
    check_model_name(name)
    if version is not None and (not isinstance(version, int) or version < 1):
        raise ConfigError(f"version is {version!r}; it must be a whole number from 1")
    folder = make_folder(path / name)
    if version is None:
        version = max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0) + 1
    target = folder / str(version)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; replace it with overwrite=True or choose another version")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {target}: no permission to write in {folder}")
    # TensorFlow Serving reads only folders whose name is a number, and so never an incomplete model.
    temporary, replaced = (folder / f".{doing}-{version}-{os.getpid()}" for doing in ("writing", "replaced"))
    try:
        functions = signatures.functions()
        with _without_notes(tf.get_logger()):  # TensorFlow's notes name the temporary folder
            tf.saved_model.save(signatures, str(temporary), functions)
        _write_extra(temporary / EXTRA, name, functions, signatures, made_with)
        if target.exists():
            rename(target, replaced)
        rename(temporary, target)
    except (OSError, tf.errors.OpError) as error:
        raise RunError(f"{target} could not be written: {str(error).splitlines()[0][:200]}") from error
    finally:
        if replaced.exists() and not target.exists():
            rename(replaced, target)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return target


@contextlib.contextmanager
def _without_notes(logger: logging.Logger) -> Iterator[None]:
    """Suppress the messages of a logger below the level of warnings."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def contract(name: str, functions: Mapping[str, Any], *, signatures: Signatures) -> dict[str, Any]:
    """Return what a client must know about a model, as values that JSON can store.

    Args:
        name: name of the model.
        functions: name of a signature -> concrete function, as `Signatures.functions` returns it.
        signatures: the module that the functions belong to.

    Returns:
        The name and the settings of the model, the limits of a request, and for each signature the data type,
        the shape and the meaning of each input and output. An unknown length of a shape is -1.
    """
    described: dict[str, Any] = {}
    for key, function in functions.items():
        inputs, outputs = input_specs(function), function.structured_outputs
        described[key] = {
            "inputs": {
                k: {**_tensor(spec), "holds": _holds(key, k, signatures)} for k, spec in inputs.items()
            },
            "outputs": {
                k: {**_tensor(spec), "holds": _holds(key, k, signatures)} for k, spec in outputs.items()
            },
        }
    return {"name": name, **signatures.settings(), "signatures": described}


def input_specs(function: Any) -> dict[str, tf.TensorSpec]:
    """Return name -> data type and shape of a concrete function's inputs."""
    return {spec.name: spec for spec in tf.nest.flatten(function.structured_input_signature)}


def _tensor(spec: tf.TensorSpec) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": [-1 if n is None else n for n in spec.shape]}


def _holds(signature: str, name: str, signatures: Signatures) -> str:
    """Return what a tensor means and in which range its values lie."""
    limits, minimum = signatures.limits, signatures.minimum_size
    max_stylized = min(limits.max_batch, limits.stylize_max_batch)
    pixels = f"sRGB, 0..255, at least {minimum} pixels a side, at most {{}} in all"
    if (signature, name) == ("encoded", "images"):
        return (
            "the bytes of JPEG, PNG, BMP (24 or 32 bits per pixel) or GIF files (the first frame, which must "
            "fill the screen), or of still WebP files if the server's TensorFlow reads them; each of at most "
            f"{limits.max_file_bytes} bytes and {limits.max_pixels} pixels; resized to {signatures.size} "
            f"pixels on the longest side; at least {minimum} pixels a side before and after resizing; EXIF "
            "orientation, colour profile and transparency are ignored"
        )
    words = {
        "images": pixels.format(limits.max_pixels)
        + (" images of a request" if signature == "content" else ""),
        "content": f"content images, at most {max_stylized}; {pixels.format(limits.stylize_max_pixels)}",
        "style": f"a style image for each content image; {pixels.format(limits.stylize_max_pixels)}",
        "steps": f"number of iterations per scale for each content image, 1..{limits.stylize_max_steps}",
        "image": "sRGB, 0..255, the content image in the style of the style image",
        "loss": "total loss of the last iteration, as in tfstyle.stylize",
        "embedding": "a vector of unit length; the inner product of two embeddings compares two styles",
    }
    return words.get(name) or (
        "features after the ReLU, at least 0"
        if signature == "content"
        else "Gram matrix, FᵀF / number of positions"
    )


def _write_extra(
    folder: Path,
    name: str,
    functions: Mapping[str, Any],
    signatures: Signatures,
    made_with: Mapping[str, Any],
) -> None:
    """Write the contract, the licence and the warm-up requests into a new folder."""
    folder.mkdir()
    described = {
        **contract(name, functions, signatures=signatures),
        "tfstyle": __version__,
        "made_with": dict(made_with),
    }
    (folder / CONTRACT).write_text(
        json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (folder / LICENCE).write_text(_licence(signatures), encoding="utf-8")
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as writer:
        for signature, inputs in warmup_inputs(functions, signatures):
            writer.write(prediction_log(name, signature, inputs=inputs))


def _licence(signatures: Signatures) -> str:
    """Return the text about the licence of the model's weights."""
    weights = signatures.weights
    if weights.source == "imagenet":
        return IMAGENET_LICENCE
    if weights.source == "embedded":
        return EMBEDDED.with_name("PROVENANCE.md").read_text(encoding="utf-8")
    if weights.source == "random":
        return "The weights are random numbers from a seeded generator and need no licence.\n"
    file = f"{weights.source}, SHA-256 {weights.sha256 or 'not known'}"
    if weights.digests.get("conv1_1") in GENUINE:
        return (
            f"{IMAGENET_LICENCE}\nThey were read from {file}. Layers of this file that are not VGG-19's have "
            "the licence of their authors.\n"
        )
    note = weights.note or "they have the licence of their authors"
    return f"The weights are those of {file}: {note}.\n"


def warmup_inputs(
    functions: Mapping[str, Any], signatures: Signatures
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield the name of each signature and the inputs of a small request to it, within the limits."""
    limits = signatures.limits
    allowed = math.isqrt(min(limits.max_pixels, limits.stylize_max_pixels))
    side = max(min(WARMUP_SIDE, allowed), signatures.minimum_size)
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), -1)
    file = tf.io.encode_png(pixels).numpy()
    for name, function in functions.items():
        values = {"images": pixels[None], "content": pixels[None], "style": pixels[None]}
        values["steps"] = np.ones(1, np.int32)
        if name == "encoded":
            values["images"] = np.array([file], object)
        yield name, {key: values[key] for key in input_specs(function)}


def prediction_log(model: str, signature: str, *, inputs: Mapping[str, np.ndarray]) -> bytes:
    """Return a serialised ``tensorflow.serving.PredictionLog`` with one request.

    The fields are written one by one because the package with the generated class, tensorflow-serving-api,
    requires one particular version of TensorFlow. The numbers in the code are field numbers.

    Args:
        model: name of the model.
        signature: name of the signature.
        inputs: name -> array, or array of bytes objects.

    Reference: prediction_log.proto, predict.proto and model.proto of TensorFlow Serving.
    """
    spec = _field(1, model.encode()) + _field(3, signature.encode())  # ModelSpec: name, signature_name
    request = _field(1, spec)  # PredictRequest: model_spec, inputs
    for name, value in inputs.items():
        entry = _field(1, name.encode()) + _field(2, tf.make_tensor_proto(value).SerializeToString())
        request += _field(2, entry)
    return _field(6, _field(1, request))  # PredictionLog: predict_log; PredictLog: request


def _field(number: int, payload: bytes) -> bytes:
    """Return a length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(number: int) -> bytes:
    """Return a non-negative number as a protocol buffer's varint: seven bits per byte, the lowest first."""
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])

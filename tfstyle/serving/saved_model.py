"""Writing a SavedModel as TensorFlow Serving wants it: versions, warm-up requests, the weights' licence."""

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
from tfstyle.files import check_model_name, make_folder
from tfstyle.network import EMBEDDED
from tfstyle.serving.signatures import Signatures

#: Files beside the graph, which TensorFlow Serving does not read, but for the warm-up requests.
EXTRA = "assets.extra"
WARMUP = "tf_serving_warmup_requests"
CONTRACT = "tfstyle.json"
LICENCE = "WEIGHTS.md"
WARMUP_SIDE = 64  # pixels
IMAGENET_LICENCE = """\
The weights are VGG-19's, by Karen Simonyan and Andrew Zisserman, Visual Geometry Group, University of Oxford
(https://www.robots.ox.ac.uk/~vgg/research/very_deep/), as converted for Keras, under the Creative Commons
Attribution 4.0 licence (https://creativecommons.org/licenses/by/4.0/).
"""
#: `Weights.digests` of VGG-19's own conv1_1, in float32 and as `Weights.save` halves it. A file of the
#: lower layers only, or with other layers above them, is under their licence too.
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
    """Write ``path/name/version/``, whole or not at all.

    Args:
        path, name, version, overwrite: as `tfstyle.StyleExtractor.export`.
        signatures: the functions of the model.
        made_with: what describes the encoder, for the model's contract.

    Returns, Raises: as `tfstyle.StyleExtractor.export`.
    """
    check_model_name(name)
    if version is not None and (not isinstance(version, int) or version < 1):
        raise ConfigError(f"version is {version!r}; it must be a whole number from 1")
    folder = make_folder(path / name)
    if version is None:
        version = max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0) + 1
    target = folder / str(version)
    if target.exists() and not overwrite:
        raise OutputError(
            f"{target} exists; replace it with overwrite (--overwrite) or choose another version"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {target}: no permission to write in {folder}")
    # TensorFlow Serving looks at folders whose name is a number, and so never at half a model.
    temporary, replaced = (folder / f".{doing}-{version}-{os.getpid()}" for doing in ("writing", "replaced"))
    try:
        functions = signatures.functions()
        with _without_notes(tf.get_logger()):  # they name the temporary folder
            tf.saved_model.save(signatures, str(temporary), functions)
        _write_extra(temporary / EXTRA, name, functions, signatures, made_with)
        if target.exists():
            target.rename(replaced)
        temporary.rename(target)
    except (OSError, tf.errors.OpError) as error:
        raise RunError(f"{target} could not be written: {str(error).splitlines()[0][:200]}") from error
    finally:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return target


@contextlib.contextmanager
def _without_notes(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def contract(name: str, functions: Mapping[str, Any], *, signatures: Signatures) -> dict[str, Any]:
    """What a client must know, as plain values: signatures with types, shapes and ranges, and the limits."""
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
    """Name -> type and shape of a concrete function's inputs."""
    return {spec.name: spec for spec in tf.nest.flatten(function.structured_input_signature)}


def _tensor(spec: tf.TensorSpec) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": [-1 if n is None else n for n in spec.shape]}


def _holds(signature: str, name: str, signatures: Signatures) -> str:
    """What a tensor means, and within which range it lies."""
    limits, minimum = signatures.limits, signatures.minimum_size
    max_stylized = min(limits.max_batch, limits.stylize_max_batch)
    pixels = f"sRGB, 0..255, at least {minimum} pixels a side, at most {{}} in all"
    if (signature, name) == ("encoded", "images"):
        return (
            "the bytes of JPEG, PNG, BMP (24 or 32 bits per pixel), GIF (its first frame, which must fill "
            "its screen) or, where the server's TensorFlow reads it, still WebP files, each of at most "
            f"{limits.max_file_bytes} bytes and {limits.max_pixels} pixels, and resized to {signatures.size} "
            f"on its longest side; at least {minimum} pixels a side before and after; EXIF orientation, "
            "colour profile and transparency are not read"
        )
    words = {
        "images": pixels.format(limits.max_pixels) + (" of the batch" if signature == "content" else ""),
        "content": f"at most {max_stylized} images; {pixels.format(limits.stylize_max_pixels)}",
        "style": f"as content, and as many images; {pixels.format(limits.stylize_max_pixels)}",
        "steps": f"iterations per scale for each image of content, 1..{limits.stylize_max_steps}",
        "image": "sRGB, 0..255, the content painted in the style",
        "loss": "total, as tfstyle.stylize has it at the last iteration",
        "embedding": "unit length; inner products compare styles",
    }
    return words.get(name) or (
        "features after the ReLU, 0 and above" if signature == "content" else "Gram matrix, FᵀF / positions"
    )


def _write_extra(
    folder: Path,
    name: str,
    functions: Mapping[str, Any],
    signatures: Signatures,
    made_with: Mapping[str, Any],
) -> None:
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
    weights = signatures.weights
    if weights.source == "imagenet":
        return IMAGENET_LICENCE
    if weights.source == "embedded":
        return EMBEDDED.with_name("PROVENANCE.md").read_text(encoding="utf-8")
    if weights.source == "random":
        return "The weights are seeded random numbers, which need no licence.\n"
    file = f"{weights.source}, SHA-256 {weights.sha256 or 'not known'}"
    if weights.digests.get("conv1_1") in GENUINE:
        return (
            f"{IMAGENET_LICENCE}\nThey were read from {file}. Layers of it that are not VGG-19's have the "
            "licence of whoever made them.\n"
        )
    note = weights.note or "their licence is that of whoever made them"
    return f"The weights are those of {file}: {note}.\n"


def warmup_inputs(
    functions: Mapping[str, Any], signatures: Signatures
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """One small request for each signature."""
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
    """A serialised ``tensorflow.serving.PredictionLog`` of one request.

    Written field by field, because the package that has its class, tensorflow-serving-api, is tied to one
    version of TensorFlow each. Numbers are those of the fields.

    Reference: prediction_log.proto, predict.proto and model.proto of TensorFlow Serving.
    """
    spec = _field(1, model.encode()) + _field(3, signature.encode())  # ModelSpec: name, signature_name
    request = _field(1, spec)  # PredictRequest: model_spec, inputs
    for name, value in inputs.items():
        entry = _field(1, name.encode()) + _field(2, tf.make_tensor_proto(value).SerializeToString())
        request += _field(2, entry)
    return _field(6, _field(1, request))  # PredictionLog: predict_log; PredictLog: request


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])

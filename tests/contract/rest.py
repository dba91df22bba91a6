"""Conversion of TensorFlow Serving's JSON: requests to arrays, arrays to replies, signatures to metadata.

The error messages follow those of TensorFlow Serving.

Reference: TensorFlow Serving's "RESTful API", https://www.tensorflow.org/tfx/serving/api_rest.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.contract.messages import NAMES, TYPES, Signature, TensorInfo
from tests.contract.session import INVALID_ARGUMENT, RequestError

ROWS, COLUMNS = "instances", "inputs"


def read_body(body: bytes) -> dict[str, Any]:
    """Parse a request, a JSON object with either "instances" or "inputs".

    Raises:
        RequestError: the body is not such an object.
    """
    try:
        document = json.loads(body)
    except ValueError as error:
        raise _refusal(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise _refusal("JSON Value: Is not object")
    if not isinstance(document.get("signature_name", ""), str):
        raise _refusal("'signature_name' key must be a string value.")
    formats = [key for key in (ROWS, COLUMNS) if key in document]
    if len(formats) != 1:
        raise _refusal(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
            if formats
            else "Missing 'inputs' or 'instances' key"
        )
    return document


def arrays(document: Mapping[str, Any], signature: Signature) -> dict[str, np.ndarray]:
    """Return the inputs of a request in either format.

    Raises:
        RequestError: a list is not rectangular, a value has the wrong type, or an input is missing.
    """
    if ROWS in document:
        columns = _columns(document[ROWS], signature)
    else:
        columns = document[COLUMNS]
        if not _is_object(columns):
            columns = {_only_name(signature, COLUMNS): columns}
        if missing := set(signature.inputs) - set(columns):
            raise _refusal(f"Missing named input: {min(missing)} in 'inputs' object.")
    return {name: _array(columns[name], info) for name, info in signature.inputs.items()}


def reply(document: Mapping[str, Any], outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the outputs in the format of the request; a single output has no name.

    Raises:
        RequestError: the request has "instances", and the outputs differ in the length of their first axis.
    """
    values = {name: _plain(name, array) for name, array in outputs.items()}
    if COLUMNS in document:
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    counts = {len(value) if isinstance(value, list) else -1 for value in values.values()}
    if len(counts) > 1 or -1 in counts:
        raise _refusal(f"Tensors have inconsistent batch sizes: {sorted(counts)}")
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return {"predictions": rows if len(values) > 1 else next(iter(values.values()))}


def metadata(model: str, version: int, signatures: Mapping[str, Signature]) -> dict[str, Any]:
    """Return the reply to ``/v1/models/NAME/metadata``."""
    described = {
        name: {
            "inputs": {k: _info(v) for k, v in signature.inputs.items()},
            "outputs": {k: _info(v) for k, v in signature.outputs.items()},
            "method_name": signature.method,
        }
        for name, signature in signatures.items()
    }
    spec = {"name": model, "signature_name": "", "version": str(version)}
    return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": described}}}


def status(version: int) -> dict[str, Any]:
    """Return the reply to ``/v1/models/NAME``."""
    good = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": str(version), "state": "AVAILABLE", "status": good}]}


def _columns(rows: Any, signature: Signature) -> dict[str, list]:
    if not isinstance(rows, list) or not rows:
        raise _refusal("Expecting 'instances' to be a list/array with a value")
    if not _is_object(rows[0]):
        return {_only_name(signature, ROWS): rows}
    names = set(signature.inputs)
    for index, row in enumerate(rows):
        if not _is_object(row) or set(row) != names:
            raise _refusal(
                f"Failed to process element: {index} of 'instances' list. "
                f"keys must be equal to: {','.join(sorted(names))}"
            )
    return {name: [row[name] for row in rows] for name in names}


def _only_name(signature: Signature, key: str) -> str:
    if len(signature.inputs) != 1:
        raise _refusal(f"{key} is a plain list, but several inputs are needed, by name")
    return next(iter(signature.inputs))


def _array(value: Any, info: TensorInfo) -> np.ndarray:
    shape, leaf = [], value
    while isinstance(leaf, list):
        shape.append(len(leaf))
        leaf = leaf[0] if leaf else None
    leaves: list = []
    _gather(value, shape, 0, leaves)
    kind = TYPES[info.dtype]
    if kind.kind == "O":
        array = np.empty(len(leaves), object)
        array[:] = [_text(leaf) for leaf in leaves]
        return array.reshape(shape)
    fits = {"b": bool, "f": (int, float)}.get(kind.kind, int)
    for leaf in leaves:
        if not isinstance(leaf, fits) or (kind.kind != "b" and isinstance(leaf, bool)):
            raise _refusal(f"JSON Value: {str(leaf)[:50]} is not of expected type: {kind.name}")
    try:
        # Like the server, read an int32 and keep the lowest bits for a smaller type.
        parsed_type = np.int32 if kind.kind in "iu" and kind.itemsize <= 2 else kind
        return np.array(leaves, parsed_type).astype(kind).reshape(shape)
    except OverflowError as error:
        raise _refusal(f"JSON Value: {error}: is not of expected type: {kind.name}") from error


def _gather(value: Any, shape: list[int], level: int, leaves: list) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise _refusal(f"JSON Value found at incorrect level: {level + 1}, expected at {len(shape)}")
        leaves.append(value)
        return
    if level >= len(shape):
        raise _refusal(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise _refusal(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for item in value:
        _gather(item, shape, level + 1, leaves)


def _text(leaf: Any) -> bytes:
    if isinstance(leaf, str):
        return leaf.encode()
    if not _is_base64(leaf):
        raise _refusal(f"JSON Value: {str(leaf)[:50]} not formatted correctly for base64 data")
    try:
        return base64.b64decode(leaf["b64"], validate=True)
    except ValueError as error:
        raise _refusal("Unable to base64 decode") from error


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _plain(name: str, array: np.ndarray) -> Any:
    if array.dtype.kind != "O":
        return array.tolist()
    as_base64 = name.endswith("_bytes")
    encoded = [
        {"b64": base64.b64encode(leaf).decode()} if as_base64 else leaf.decode(errors="replace")
        for leaf in array.ravel().tolist()
    ]
    values = np.empty(len(encoded), object)
    values[:] = encoded
    return values.reshape(array.shape).tolist()


def _info(info: TensorInfo) -> dict[str, Any]:
    shape = {
        "dim": [{"size": str(n), "name": ""} for n in info.shape or ()],
        "unknown_rank": info.shape is None,
    }
    return {"dtype": NAMES.get(info.dtype, "DT_INVALID"), "tensor_shape": shape, "name": info.name}


def _refusal(message: str) -> RequestError:
    return RequestError(INVALID_ARGUMENT, message)

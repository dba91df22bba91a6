"""Encoding and decoding of the messages of TensorFlow and TensorFlow Serving that a request needs.

The code does not use the generated classes, so that the package's messages are read by independent code. The
field numbers are those of tensor.proto, predict.proto, model.proto, meta_graph.proto and saved_model.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.contract.wire import (
    Fields,
    decode_map,
    encode,
    encode_map,
    fields,
    last,
    pack,
    records,
    signed,
    text,
    unpack,
    varint,
)

STRING = 7
#: Number of the DataType -> NumPy's type. Strings are arrays of bytes objects.
TYPES = {
    1: np.dtype("float32"), 2: np.dtype("float64"), 3: np.dtype("int32"), 4: np.dtype("uint8"),
    5: np.dtype("int16"), 6: np.dtype("int8"), STRING: np.dtype(object), 9: np.dtype("int64"),
    10: np.dtype("bool"), 17: np.dtype("uint16"), 19: np.dtype("float16"), 22: np.dtype("uint32"),
    23: np.dtype("uint64"),
}  # fmt: skip
NUMBERS = {kind: number for number, kind in TYPES.items()}
#: Number of the DataType -> the field of TensorProto that holds the values one by one.
VALUES = {1: 5, 2: 6, 3: 7, 4: 7, 5: 7, 6: 7, STRING: 8, 9: 10, 10: 11, 17: 7, 19: 13, 22: 16, 23: 17}
NAMES = {number: f"DT_{'HALF' if kind == 'f2' else kind.name.upper()}" for number, kind in TYPES.items()}
NAMES |= {1: "DT_FLOAT", 2: "DT_DOUBLE", STRING: "DT_STRING"}


def tensor_from_proto(message: bytes) -> np.ndarray:
    """Decode a TensorProto to an array; strings become an array of bytes objects.

    If the values are given one by one and are fewer than the shape needs, the last value is repeated.

    Raises:
        ValueError: the type is not supported, or the values do not match the shape.
    """
    parts = fields(message)
    number = last(parts, 1, 0)
    if number not in TYPES:
        raise ValueError(f"a tensor has DataType {number}, which is not supported here")
    kind, shape = TYPES[number], shape_from_proto(last(parts, 2, b""))
    if shape is None or any(n < 0 for n in shape):
        raise ValueError(f"a tensor has shape {shape}, which is not fully known")
    size = int(np.prod(shape, dtype=np.int64))
    if content := last(parts, 4, b""):
        if number == STRING or len(content) != size * kind.itemsize:
            raise ValueError(f"tensor_content of {len(content)} bytes does not fill {shape} of {kind}")
        return np.frombuffer(content, kind).reshape(shape).copy()
    return _filled(_values(parts.get(VALUES[number], []), number), size, kind).reshape(shape)


def tensor_to_proto(array: np.ndarray, one_by_one: bool = False) -> bytes:
    """Encode an array as a TensorProto.

    Args:
        array: numbers, or bytes objects.
        one_by_one: store each value in the field of its type, as TensorFlow Serving does in its replies,
            instead of all values in tensor_content. Strings are always stored one by one.
    """
    array = np.asarray(array)
    if array.dtype.kind in "SU":
        array = array.astype(object)
    number = NUMBERS[array.dtype]
    head = encode(1, number) + encode(2, b"".join(encode(2, encode(1, n)) for n in array.shape))
    if number == STRING:
        return head + b"".join(encode(8, value) for value in array.ravel().tolist())
    if not one_by_one:
        return head + encode(4, array.tobytes())
    if not array.size:
        return head
    if number in (1, 2):
        return head + encode(VALUES[number], array.tobytes())
    integers = array.view(np.uint16) if number == 19 else array
    return head + encode(VALUES[number], pack(integers))


def shape_from_proto(message: bytes) -> tuple[int, ...] | None:
    """Decode a TensorShapeProto; an unknown length is -1, and a shape of unknown rank is None."""
    parts = fields(message)
    if last(parts, 3, 0):
        return None
    return tuple(signed(last(fields(dim), 1, 0)) for dim in parts.get(2, []))


@dataclass
class PredictRequest:
    """A tensorflow.serving.PredictRequest."""

    model: str
    inputs: dict[str, np.ndarray]
    signature: str = ""
    version: int | None = None
    outputs: tuple[str, ...] = ()

    def encode(self) -> bytes:
        inputs = {name: tensor_to_proto(value) for name, value in self.inputs.items()}
        spec = encode(1, _spec(self.model, self.signature, self.version))
        return spec + encode_map(2, inputs) + b"".join(encode(3, name) for name in self.outputs)

    @classmethod
    def decode(cls, message: bytes) -> PredictRequest:
        parts = fields(message)
        model, signature, version = read_spec(last(parts, 1, b""))
        inputs = {k: tensor_from_proto(v) for k, v in decode_map(parts.get(2, [])).items()}
        return cls(model, inputs, signature, version, tuple(name.decode() for name in parts.get(3, [])))


@dataclass
class PredictResponse:
    """A tensorflow.serving.PredictResponse."""

    outputs: dict[str, np.ndarray]
    model: str = ""
    signature: str = ""
    version: int | None = None

    def encode(self) -> bytes:
        outputs = {name: tensor_to_proto(value, one_by_one=True) for name, value in self.outputs.items()}
        return encode_map(1, outputs) + encode(2, _spec(self.model, self.signature, self.version))

    @classmethod
    def decode(cls, message: bytes) -> PredictResponse:
        parts = fields(message)
        outputs = {k: tensor_from_proto(v) for k, v in decode_map(parts.get(1, [])).items()}
        return cls(outputs, *read_spec(last(parts, 2, b"")))


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a signature: its name in the graph, the number of its DataType, and its shape."""

    name: str
    dtype: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Signature:
    """A signature of a SavedModel."""

    inputs: dict[str, TensorInfo] = field(default_factory=dict)
    outputs: dict[str, TensorInfo] = field(default_factory=dict)
    method: str = ""


def meta_graph(saved_model: bytes) -> bytes:
    """Return the only MetaGraphDef of a SavedModel."""
    (graph,) = fields(saved_model)[2]
    return graph


def signatures(graph: bytes) -> dict[str, Signature]:
    """Return name -> signature of a MetaGraphDef."""
    by_name = {}
    for name, message in decode_map(fields(graph).get(5, [])).items():
        parts = fields(message)
        inputs, outputs = (
            {k: _tensor_info(v) for k, v in decode_map(parts.get(n, [])).items()} for n in (1, 2)
        )
        by_name[name] = Signature(inputs, outputs, text(parts, 3))
    return by_name


def nodes(graph: bytes) -> Iterator[tuple[str, dict[str, Fields]]]:
    """Yield the op and the attributes, as name -> fields of the AttrValue, of each node in a MetaGraphDef.

    This includes the nodes of its functions. The attributes of a function are yielded with the op "function".
    """
    definition = fields(last(fields(graph), 2, b""))
    bodies = list(definition.get(1, []))
    for function in fields(last(definition, 2, b"")).get(1, []):
        parts = fields(function)
        bodies += parts.get(3, [])
        yield "function", {k: fields(v) for k, v in decode_map(parts.get(5, [])).items()}
    for node in bodies:
        parts = fields(node)
        yield text(parts, 2), {k: fields(v) for k, v in decode_map(parts.get(5, [])).items()}


def functions(graph: bytes) -> set[str]:
    """Return the names of a MetaGraphDef's functions."""
    library = fields(last(fields(last(fields(graph), 2, b"")), 2, b""))
    return {text(fields(last(fields(function), 1, b"")), 1) for function in library.get(1, [])}


def warmup_requests(path: Path) -> list[PredictRequest]:
    """Return the requests in a file of PredictionLogs."""
    logs = (fields(record) for record in records(path))
    return [PredictRequest.decode(last(fields(last(log, 6, b"")), 1, b"")) for log in logs]


def read_spec(message: bytes) -> tuple[str, str, int | None]:
    """Decode a ModelSpec to model, signature and version."""
    parts = fields(message)
    version = last(fields(parts[2][-1]), 1, 0) if 2 in parts else None
    return text(parts, 1), text(parts, 3), version


def _spec(model: str, signature: str, version: int | None) -> bytes:
    number = b"" if version is None else encode(2, encode(1, version))
    return encode(1, model) + number + encode(3, signature)


def _tensor_info(message: bytes) -> TensorInfo:
    parts = fields(message)
    return TensorInfo(text(parts, 1), last(parts, 2, 0), shape_from_proto(last(parts, 3, b"")))


def _values(parts: list, number: int) -> np.ndarray:
    """Return the values of a repeated field of a TensorProto, packed or not."""
    kind = TYPES[number]
    if number == STRING:
        return _objects(parts)
    if number in (1, 2):
        return np.frombuffer(b"".join(parts), kind)
    packed = b"".join(varint(part) if isinstance(part, int) else part for part in parts)
    integers = unpack(packed)
    return integers.astype(np.uint16).view(kind) if number == 19 else integers.astype(kind)


def _filled(values: np.ndarray, size: int, kind: np.dtype) -> np.ndarray:
    """Return the values, extended to the size with copies of the last value."""
    if len(values) > size:
        raise ValueError(f"{len(values)} values for a tensor of {size}")
    if len(values) == size:
        return values
    fill_value = values[-1] if len(values) else (b"" if kind.kind == "O" else 0)
    filler = np.empty(size - len(values), kind)
    filler.fill(fill_value)
    return np.concatenate([values.astype(kind), filler])


def _objects(parts: list) -> np.ndarray:
    array = np.empty(len(parts), object)
    array[:] = parts
    return array

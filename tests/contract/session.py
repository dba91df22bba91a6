"""A SavedModel in a graph session, as TensorFlow Serving loads and runs it, through TensorFlow's C API.

The libraries are those of the installed TensorFlow. Its Python package is never imported, so that a model
that needs this package or Keras fails.

Reference: c_api.h, tf_tensor.h and tf_tstring.h of TensorFlow.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.contract.messages import NAMES, NUMBERS, STRING, TYPES, Signature, TensorInfo, signatures
from tests.contract.wire import fields, text

INVALID_ARGUMENT, FAILED_PRECONDITION = 3, 9
TSTRING = 24  # bytes of a TF_TString


class RequestError(Exception):
    """An error of TensorFlow for a request that it cannot serve.

    Attributes:
        code: number of the status code, which is the same as in gRPC.
        message: TensorFlow's message.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} (code {code})")
        self.code, self.message = code, message


class GraphSession:
    """A graph session with the SavedModel in a folder, loaded with the tag "serve".

    Args:
        path: the folder of one version.

    Attributes:
        signatures: name -> `tests.contract.messages.Signature`.
        meta_graph: the loaded MetaGraphDef.

    Raises:
        RequestError: the model cannot be loaded.
    """

    def __init__(self, path: Path | str) -> None:
        assert "tensorflow" not in sys.modules, "the C API's libraries and the Python package do not mix"
        api = self._api = library()
        self._graph = api.TF_NewGraph()
        options, tags, loaded = api.TF_NewSessionOptions(), (c_char_p * 1)(b"serve"), api.TF_NewBuffer()
        try:
            with _Status(api) as status:
                self._session = api.TF_LoadSessionFromSavedModel(
                    options, None, str(path).encode(), tags, 1, self._graph, loaded, status
                )
            self.meta_graph = _bytes(loaded)
        finally:
            api.TF_DeleteSessionOptions(options)
            api.TF_DeleteBuffer(loaded)
        self.signatures = signatures(self.meta_graph)

    def run(
        self, signature: str, inputs: Mapping[str, Any], outputs: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Compute the outputs of a signature. Several threads may call this at the same time.

        Args:
            signature: name of the signature, or "" for serving_default.
            inputs: name -> array, or list of bytes objects.
            outputs: names of the requested outputs; by default all.

        Raises:
            RequestError: the signature does not exist, the inputs do not match it, or the graph fails.
        """
        chosen = self._signature(signature)
        arrays = {name: _array(value) for name, value in inputs.items()}
        check_inputs(chosen, arrays)
        if unknown := [name for name in outputs if name not in chosen.outputs]:
            raise RequestError(INVALID_ARGUMENT, f"output tensor alias not found in signature: {unknown[0]}")
        output_names = list(outputs or chosen.outputs)
        results = self._run(
            [self._graph_output(chosen.inputs[name]) for name in arrays],
            list(arrays.values()),
            [self._graph_output(chosen.outputs[name]) for name in output_names],
        )
        return dict(zip(output_names, results, strict=True))

    def _signature(self, name: str) -> Signature:
        name = name or "serving_default"
        if name not in self.signatures:
            raise RequestError(FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def _graph_output(self, info: TensorInfo) -> _Output:
        """Return the C API's reference to a tensor in the graph."""
        name, _, index = info.name.partition(":")
        operation = self._api.TF_GraphOperationByName(self._graph, name.encode())
        assert operation, f"the graph has no {name}"
        return _Output(operation, int(index or 0))

    def _run(
        self, feeds: list[_Output], arrays: list[np.ndarray], fetches: list[_Output]
    ) -> list[np.ndarray]:
        api = self._api
        inputs = (c_void_p * len(arrays))(*(_tensor(api, array) for array in arrays))
        results = (c_void_p * len(fetches))()
        try:
            with _Status(api) as status:
                api.TF_SessionRun(
                    self._session, None,
                    (_Output * len(feeds))(*feeds), inputs, len(arrays),
                    (_Output * len(fetches))(*fetches), results, len(fetches),
                    None, 0, None, status,
                )  # fmt: skip
            return [_numpy(api, tensor) for tensor in results]
        finally:
            for tensor, array in zip(inputs, arrays, strict=True):
                if array.dtype.kind == "O":
                    _free_strings(api, tensor, array.size)
                api.TF_DeleteTensor(tensor)
            for tensor in filter(None, results):
                api.TF_DeleteTensor(tensor)  # TensorFlow frees the strings of its own tensors


def check_inputs(signature: Signature, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise RequestError, with TensorFlow Serving's message, unless the inputs match the signature."""
    given, wanted = set(arrays), set(signature.inputs)
    if given != wanted:
        extra, missing = (",".join(sorted(names)) for names in (given - wanted, wanted - given))
        raise RequestError(
            INVALID_ARGUMENT,
            f"input size does not match signature: {len(given)}!={len(wanted)}. "
            f"Sent extra: {{{extra}}}. Missing but required: {{{missing}}}.",
        )
    for name, array in arrays.items():
        number, expected = NUMBERS.get(array.dtype), signature.inputs[name].dtype
        if number != expected:
            raise RequestError(
                INVALID_ARGUMENT,
                f"input {name} is of type {NAMES.get(number, array.dtype)}, "
                f"expected {NAMES.get(expected, expected)}",
            )


def core_ops() -> set[str]:
    """Return the names of all operations in TensorFlow's library."""
    api = library()
    buffer = api.TF_GetAllOpList()
    try:
        return {text(fields(op), 1) for op in fields(_bytes(buffer))[1]}
    finally:
        api.TF_DeleteBuffer(buffer)


@cache
def library() -> ctypes.CDLL:
    """Return TensorFlow's C API.

    Raises:
        FileNotFoundError: TensorFlow or its library is not installed.
    """
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("TensorFlow is not installed")
    loaded = None
    for name in ("framework", "cc"):
        files = [*Path(spec.origin).parent.glob(f"libtensorflow_{name}.*2*")]
        if not files:
            raise FileNotFoundError(f"{Path(spec.origin).parent} has no libtensorflow_{name}")
        loaded = ctypes.CDLL(str(files[0]))  # the second library needs the first
    for name, (result, *arguments) in _PROTOTYPES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


class _Buffer(Structure):
    _fields_ = (("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p))


class _Output(Structure):
    _fields_ = (("operation", c_void_p), ("index", c_int))


class _Status:
    """A TF_Status for one call. Leaving the context raises the error of the call."""

    def __init__(self, api: ctypes.CDLL) -> None:
        self._api = api

    def __enter__(self) -> c_void_p:
        self._status = self._api.TF_NewStatus()
        return self._status

    def __exit__(self, kind, *_) -> None:
        code, message = self._api.TF_GetCode(self._status), self._api.TF_Message(self._status)
        self._api.TF_DeleteStatus(self._status)
        if kind is None and code:
            raise RequestError(code, message.decode(errors="replace"))


def _bytes(buffer) -> bytes:
    return ctypes.string_at(buffer.contents.data, buffer.contents.length)


def _array(value: Any) -> np.ndarray:
    """Return an array for the C API; bytes become an array of objects."""
    array = np.asarray(value)
    if array.dtype.kind == "S":  # NumPy's type for bytes drops zeros at the end
        strings = np.empty(len(value), object)
        strings[:] = list(value)
        return strings
    return array if array.dtype.kind == "O" else np.array(array, order="C")


def _tensor(api: ctypes.CDLL, array: np.ndarray) -> int:
    """Return a new TF_Tensor with a copy of an array."""
    has_strings = array.dtype.kind == "O"
    size = array.size * TSTRING if has_strings else array.nbytes
    shape = (c_int64 * array.ndim)(*array.shape)
    tensor = api.TF_AllocateTensor(NUMBERS[array.dtype], shape, array.ndim, size)
    start = api.TF_TensorData(tensor)
    if not has_strings:
        ctypes.memmove(start, array.ctypes.data, size)
        return tensor
    for index, value in enumerate(array.ravel().tolist()):
        api.TF_StringInit(start + index * TSTRING)
        api.TF_StringCopy(start + index * TSTRING, value, len(value))
    return tensor


def _numpy(api: ctypes.CDLL, tensor: int) -> np.ndarray:
    """Return a copy of a TF_Tensor as an array."""
    number, start = api.TF_TensorType(tensor), api.TF_TensorData(tensor)
    shape = tuple(api.TF_Dim(tensor, axis) for axis in range(api.TF_NumDims(tensor)))
    array = np.empty(shape, TYPES[number])
    if number != STRING:
        ctypes.memmove(array.ctypes.data, start, array.nbytes)
        return array
    for index in range(array.size):
        string = start + index * TSTRING
        data, length = api.TF_StringGetDataPointer(string), api.TF_StringGetSize(string)
        array.flat[index] = ctypes.string_at(data, length)
    return array


def _free_strings(api: ctypes.CDLL, tensor: int, count: int) -> None:
    start = api.TF_TensorData(tensor)
    for index in range(count):
        api.TF_StringDealloc(start + index * TSTRING)


_PROTOTYPES: dict[str, tuple] = {
    "TF_NewStatus": (c_void_p,),
    "TF_DeleteStatus": (None, c_void_p),
    "TF_GetCode": (c_int, c_void_p),
    "TF_Message": (c_char_p, c_void_p),
    "TF_NewBuffer": (POINTER(_Buffer),),
    "TF_DeleteBuffer": (None, POINTER(_Buffer)),
    "TF_GetAllOpList": (POINTER(_Buffer),),
    "TF_NewGraph": (c_void_p,),
    "TF_GraphOperationByName": (c_void_p, c_void_p, c_char_p),
    "TF_NewSessionOptions": (c_void_p,),
    "TF_DeleteSessionOptions": (None, c_void_p),
    "TF_LoadSessionFromSavedModel": (
        c_void_p, c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, POINTER(_Buffer),
        c_void_p,
    ),
    "TF_SessionRun": (
        None, c_void_p, c_void_p, POINTER(_Output), POINTER(c_void_p), c_int, POINTER(_Output),
        POINTER(c_void_p), c_int, c_void_p, c_int, c_void_p, c_void_p,
    ),
    "TF_AllocateTensor": (c_void_p, c_int, POINTER(c_int64), c_int, c_size_t),
    "TF_DeleteTensor": (None, c_void_p),
    "TF_TensorData": (c_void_p, c_void_p),
    "TF_TensorType": (c_int, c_void_p),
    "TF_NumDims": (c_int, c_void_p),
    "TF_Dim": (c_int64, c_void_p, c_int),
    "TF_StringInit": (None, c_void_p),
    "TF_StringCopy": (None, c_void_p, c_char_p, c_size_t),
    "TF_StringDealloc": (None, c_void_p),
    "TF_StringGetDataPointer": (c_void_p, c_void_p),
    "TF_StringGetSize": (c_size_t, c_void_p),
}  # fmt: skip

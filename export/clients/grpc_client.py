"""A client of a tfstyle model in TensorFlow Serving, over gRPC, with the same commands as rest.py.

::

    python grpc_client.py embed one.jpg two.jpg three.jpg
    python grpc_client.py stylize content.jpg style.jpg -o out.png --steps 50
    python grpc_client.py status

The file rest.py, which has the command line, must be in the same folder. The client needs grpcio,
tensorflow-serving-api, NumPy and Pillow. Pixels are sent as bytes, which take about a quarter of the space of
JSON, and a reply contains only the requested outputs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rest import FAILED, WRONG_INPUT, ClientError, run

try:
    import grpc
    import numpy as np
    from PIL import Image

    # The generated messages import TensorFlow, which would write its notices to stderr.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tensorflow_serving.apis import (
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )
except ImportError as missing:
    print(
        f"grpc_client.py: {missing.name} is missing: pip install grpcio tensorflow-serving-api numpy pillow",
        file=sys.stderr,
    )
    sys.exit(WRONG_INPUT)

UINT8, INT32, STRING = 4, 3, 7  # numbers of TensorFlow's DataType
NUMBERS = {np.dtype("uint8"): UINT8, np.dtype("int32"): INT32}
#: Number of the DataType -> NumPy's type, and the field of a TensorProto that holds the values one by one. A
#: server may use that field instead of tensor_content.
KINDS = {1: ("float32", "float_val"), UINT8: ("uint8", "int_val"), INT32: ("int32", "int_val")}
#: Status codes of a request that the server does not accept. It reports a model without the signature, and
#: with batching images that differ in size, as a failed precondition.
REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.FAILED_PRECONDITION,
}  # fmt: skip
#: By default a gRPC client refuses replies of more than 4 MB. The server has no such limit.
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Grpc:
    """Requests to PredictionService and ModelService.

    Args:
        target: address of the server, such as ``127.0.0.1:8500``.
        model: name of the model on the server.
        timeout: seconds to wait for each reply. The server stops waiting at the same time.

    Raises:
        ClientError: in every method, the server cannot be reached, has failed, or refuses the request.
    """

    def __init__(self, target: str, model: str, timeout: float) -> None:
        self._channel = grpc.insecure_channel(target, options=OPTIONS)
        self._target, self._model, self._timeout = target, model, timeout

    def status(self) -> list[tuple[int, str]]:
        """Return the number and the state of each version that the server has."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._model
        service = model_service_pb2_grpc.ModelServiceStub(self._channel)
        reply = self._call(service.GetModelStatus, request)
        states = get_model_status_pb2.ModelVersionStatus.State
        return [(entry.version, states.Name(entry.state)) for entry in reply.model_version_status]

    def embedding(self, file: bytes) -> Sequence[float]:
        """Return the embedding of an image file from the signature encoded, without the Gram matrices."""
        return self._predict("encoded", {"images": [file]}, ["embedding"])["embedding"][0].tolist()

    def stylize(self, content: Any, style: Any, steps: int) -> tuple[Any, float]:
        """Return the image and the loss from the signature stylize."""
        pixels = {"content": np.asarray(content)[None], "style": np.asarray(style)[None]}
        inputs = {**pixels, "steps": np.array([steps], np.int32)}
        outputs = self._predict("stylize", inputs, ["image", "loss"])
        return Image.fromarray(outputs["image"][0]), float(outputs["loss"][0])

    def _predict(
        self, signature: str, inputs: Mapping[str, Any], wanted: Sequence[str]
    ) -> dict[str, np.ndarray]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self._model, signature
        for name, value in inputs.items():
            _fill(request.inputs[name], value)
        request.output_filter.extend(wanted)
        service = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        reply = self._call(service.Predict, request)
        return {name: _array(tensor) for name, tensor in reply.outputs.items()}

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                raise ClientError(f"no reply from {self._target}: {error.details()}", FAILED) from error
            code = WRONG_INPUT if error.code() in REFUSED else FAILED
            raise ClientError(f"the server answered {error.code().name}: {error.details()}", code) from error


def _fill(tensor: Any, value: np.ndarray | list[bytes]) -> None:
    """Write an array or a list of bytes objects into a TensorProto."""
    if isinstance(value, list):
        tensor.dtype = STRING
        tensor.string_val.extend(value)
        tensor.tensor_shape.dim.add(size=len(value))
        return
    tensor.dtype, tensor.tensor_content = NUMBERS[value.dtype], value.tobytes()
    for length in value.shape:
        tensor.tensor_shape.dim.add(size=length)


def _array(tensor: Any) -> np.ndarray:
    """Return the array in a TensorProto of numbers."""
    kind, field = KINDS[tensor.dtype]
    content = tensor.tensor_content
    values = np.frombuffer(content, kind) if content else np.array(getattr(tensor, field), kind)
    return values.reshape([dim.size for dim in tensor.tensor_shape.dim])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    return run("grpc_client.py", ("--target", "127.0.0.1:8500"), Grpc, arguments)


if __name__ == "__main__":
    sys.exit(main())

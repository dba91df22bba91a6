"""A test double of TensorFlow Serving, for tests on a machine without the real server.

It listens on the loopback interface and answers requests to TensorFlow Serving's PredictionService, over gRPC
and REST, with a graph session of the same TensorFlow runtime. It is not TensorFlow Serving: it serves one
version of one model, has no batching, and implements only the methods below.

    python -m tests.contract.double MODELS_DIR NAME

prints one line of JSON with its ports, ``{"rest": 1234, "grpc": 5678}``, after the model is loaded and its
warm-up requests are answered.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import grpc

from tests.contract import rest
from tests.contract.messages import PredictRequest, PredictResponse, read_spec, warmup_requests
from tests.contract.session import INVALID_ARGUMENT, GraphSession, RequestError
from tests.contract.wire import encode, encode_map, fields, last

ROOT = Path(__file__).parents[2]
WARMUP = Path("assets.extra", "tf_serving_warmup_requests")
NOT_FOUND = 5
MESSAGE_LIMIT = 1024  # characters to which TensorFlow Serving shortens an error message
HTTP = {3: 400, 5: 404, 8: 503, 9: 400, 11: 400, 12: 501, 14: 503}
GRPC = {code.value[0]: code for code in grpc.StatusCode}
SERVICE = "tensorflow.serving.PredictionService"
ROUTE = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(:predict|/metadata)?")


class Service:
    """The highest version of a model, loaded and warmed up.

    Raises:
        FileNotFoundError: the folder has no version.
        RequestError: the model cannot be loaded, or a warm-up request fails.
    """

    def __init__(self, models: Path, name: str) -> None:
        versions = [int(p.name) for p in (models / name).iterdir() if p.name.isdigit()]
        if not versions:
            raise FileNotFoundError(f"{models / name} has no version")
        self.name, self.version = name, max(versions)
        folder = models / name / str(self.version)
        self.session = GraphSession(folder)
        if (folder / WARMUP).is_file():
            for request in warmup_requests(folder / WARMUP):
                self.predict(request)

    def check(self, name: str, version: int | None) -> None:
        """Raise RequestError if a request names another model or version."""
        if name != self.name or version not in (None, self.version):
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise RequestError(NOT_FOUND, f"Servable not found for request: {wanted}")

    def predict(self, request: PredictRequest) -> PredictResponse:
        self.check(request.model, request.version)
        outputs = self.session.run(request.signature, request.inputs, request.outputs)
        return PredictResponse(outputs, self.name, request.signature or "serving_default", self.version)

    def predict_json(self, name: str, version: int | None, body: bytes) -> dict:
        self.check(name, version)
        document = rest.read_body(body)
        signature = document.get("signature_name", "") or "serving_default"
        if signature not in self.session.signatures:
            message = f'Serving signature name: "{signature}" not found in signature def'
            raise RequestError(INVALID_ARGUMENT, message)
        inputs = rest.arrays(document, self.session.signatures[signature])
        return rest.reply(document, self.session.run(signature, inputs))

    def metadata(self, message: bytes) -> bytes:
        """Return the reply to GetModelMetadata: the signatures as a SignatureDefMap in an Any."""
        name, _, version = read_spec(last(fields(message), 1, b""))
        self.check(name, version)
        entries = fields(self.session.meta_graph)[5]
        packed = encode(1, "type.googleapis.com/tensorflow.serving.SignatureDefMap") + encode(
            2, b"".join(encode(1, entry) for entry in entries)
        )
        spec = encode(1, name) + encode(2, encode(1, self.version))
        return encode(1, spec) + encode_map(2, {"signature_def": packed})


def serve_grpc(service: Service) -> tuple[grpc.Server, int]:
    """Start the gRPC server and return it with its port."""

    def handler(answer):
        def handle(message: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                return answer(message)
            except RequestError as error:
                context.abort(GRPC[error.code], error.message[:MESSAGE_LIMIT])
            except ValueError as error:  # the bytes are not a message, or a tensor is invalid
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:MESSAGE_LIMIT])

        return grpc.unary_unary_rpc_method_handler(handle)  # no serialisers: bytes in, bytes out

    methods = {
        "Predict": handler(lambda message: service.predict(PredictRequest.decode(message)).encode()),
        "GetModelMetadata": handler(service.metadata),
    }
    unlimited = [(f"grpc.max_{way}_message_length", -1) for way in ("receive", "send")]
    server = grpc.server(ThreadPoolExecutor(8), options=[*unlimited, ("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def serve_rest(service: Service) -> ThreadingHTTPServer:
    """Start the REST server and return it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _answer(self, body: bytes) -> None:
            try:
                code, reply = 200, self._route(body)
            except RequestError as error:
                code, reply = HTTP.get(error.code, 500), {"error": error.message[:MESSAGE_LIMIT]}
            payload = json.dumps(reply).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def _route(self, body: bytes) -> dict:
            match = ROUTE.fullmatch(self.path)
            posted = self.command == "POST"
            if match is None or posted != (match[3] == ":predict"):
                raise RequestError(INVALID_ARGUMENT, f"Malformed request: {self.command} {self.path}")
            name, version = match[1], int(match[2]) if match[2] else None
            if posted:
                return service.predict_json(name, version, body)
            service.check(name, version)
            if match[3]:
                return rest.metadata(name, service.version, service.session.signatures)
            return rest.status(service.version)

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    return server


@dataclass(frozen=True)
class Running:
    """The addresses of a running test double."""

    rest_url: str
    grpc_target: str


@contextmanager
def running(models_dir: Path | str, name: str) -> Iterator[Running]:
    """Run a test double in a separate process during the context.

    Raises:
        RuntimeError: the double did not start; the message contains its output.
    """
    command = [sys.executable, "-m", "tests.contract.double", str(Path(models_dir).resolve()), name]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            line = process.stdout.readline()
            if not line:
                process.wait()
                log.seek(0)
                raise RuntimeError(f"the test double did not start:\n{log.read()[-2000:]}")
            ports = json.loads(line)
            yield Running(f"http://127.0.0.1:{ports['rest']}", f"127.0.0.1:{ports['grpc']}")
        finally:
            process.terminate()


def main(models: str, name: str) -> None:
    """Serve a model until the process is terminated."""
    service = Service(Path(models), name)
    grpc_server, port = serve_grpc(service)
    rest_server = serve_rest(service)
    assert "tensorflow" not in sys.modules
    print(json.dumps({"rest": rest_server.server_address[1], "grpc": port}), flush=True)
    grpc_server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])

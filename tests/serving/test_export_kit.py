"""The folder export/: its contract, its configuration, and its clients with a server.

The server is that at `TFSTYLE_SERVING_URL` (REST) and `TFSTYLE_SERVING_GRPC`, which serves the folder
`TFSTYLE_SERVING_MODELS`. Without these variables the tests start `tensorflow_model_server` if it is on the
path, and otherwise the test double of `tests.contract`, which runs the same graph.
"""

import ast
import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from tests.conftest import make_image
from tests.contract import double

pytestmark = pytest.mark.serving

ROOT = Path(__file__).parents[2]
KIT = ROOT / "export"
CLIENTS, SERVING = KIT / "clients", KIT / "serving"
CONTRACT = json.loads((KIT / "signature.json").read_text(encoding="utf-8"))
UNUSED_ADDRESS = "127.0.0.1:1"  # no server listens there


def require(package, module):
    """Skip the test if a package is not installed. In CI the test fails instead."""
    if importlib.util.find_spec(module) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{package} is not installed")


def export(*arguments):
    command = [sys.executable, "-m", "tfstyle", "export", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def read_contract(folder):
    return json.loads((folder / "assets.extra" / "tfstyle.json").read_text(encoding="utf-8"))


# The contract


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The default export, with full-depth weights."""
    models = tmp_path_factory.mktemp("full")
    process = export(models, "--weights", "random")
    assert process.returncode == 0, process.stderr
    folder = models / "tfstyle" / "1"
    assert re.fullmatch(
        rf"{re.escape(str(folder))}: serving_default, encoded, content, stylize; \d+\.\d MB\n",
        process.stdout,
    )
    return folder


def test_signature_json_is_the_contract_of_the_default_export(full):
    contract = {k: v for k, v in read_contract(full).items() if k not in ("tfstyle", "made_with")}
    text = json.dumps(contract, indent=2, ensure_ascii=False) + "\n"
    assert text == (KIT / "signature.json").read_text(encoding="utf-8")


def test_signature_json_agrees_with_the_graph(full):
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((full / "saved_model.pb").read_bytes())
    definitions = saved.meta_graphs[0].signature_def

    def plain(tensors):
        shapes = {name: [dim.size for dim in info.tensor_shape.dim] for name, info in tensors.items()}
        return {n: {"dtype": tf.as_dtype(tensors[n].dtype).name, "shape": s} for n, s in shapes.items()}

    in_graph = {
        name: {"inputs": plain(definition.inputs), "outputs": plain(definition.outputs)}
        for name, definition in definitions.items()
        if name != "__saved_model_init_op"
    }
    in_contract = {
        name: {
            side: {key: {k: v for k, v in spec.items() if k != "holds"} for key, spec in tensors.items()}
            for side, tensors in signature.items()
        }
        for name, signature in CONTRACT["signatures"].items()
    }
    assert in_graph == in_contract


def test_the_readme_has_the_signatures_and_limits():
    readme = (KIT / "README.md").read_text(encoding="utf-8")
    for name, signature in CONTRACT["signatures"].items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}`"))
        for spec in signature["inputs"]:
            assert f"`{spec}`" in row
    for name, value in CONTRACT["limits"].items():
        assert re.search(rf"^\| `--{name.replace('_', '-')}` \| {value} \|", readme, re.M), name
    for link in re.findall(r"\]\(([^)#]+)\)", readme):
        assert link.startswith("https://") or (KIT / link).exists(), link


# The configuration


def message(name, **kinds):
    """Return an empty message with fields name -> (number, type); a type is a message or a plain type."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

    field = descriptor_pb2.FieldDescriptorProto
    plain = {"bool": field.TYPE_BOOL, "string": field.TYPE_STRING, "int64": field.TYPE_INT64}
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="kit", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message_type = file.message_type.add(name=name)
    for key, (number, kind) in kinds.items():
        added = message_type.field.add(name=key, number=number, label=field.LABEL_OPTIONAL)
        if kind in plain:
            added.type = plain[kind]
        else:
            added.type, added.type_name = field.TYPE_MESSAGE, kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"kit.{name}"))()


def parse(path, into):
    """Parse a file in protocol buffer text format into a message."""
    from google.protobuf import text_format

    return text_format.Parse(path.read_text(encoding="utf-8"), into)


def test_batching_config():
    """It is a BatchingParameters message, for which tensorflow-serving-api has no class."""
    integer = ".google.protobuf.Int64Value"
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    empty = message(
        "BatchingParameters",
        **{name: (number, integer) for number, name in enumerate(names, 1)},
        thread_pool_name=(5, ".google.protobuf.StringValue"),
        pad_variable_length_inputs=(7, "bool"),
    )
    batching = parse(SERVING / "batching.config", empty)
    assert all(getattr(batching, name).value >= 1 for name in names)
    assert batching.max_batch_size.value <= CONTRACT["limits"]["max_batch"]
    assert not batching.pad_variable_length_inputs


def test_monitoring_config():
    """It has a PrometheusConfig message, for which tensorflow-serving-api has no class."""
    outer = (SERVING / "monitoring.config").read_text(encoding="utf-8")
    inner = re.fullmatch(r"(?:#.*\n)*prometheus_config \{\n((?:.*\n)*)\}\n", outer)[1]
    from google.protobuf import text_format

    config = text_format.Parse(inner, message("PrometheusConfig", enable=(1, "bool"), path=(2, "string")))
    assert config.enable
    assert config.path in (KIT / "README.md").read_text(encoding="utf-8")


def test_models_config():
    require("tensorflow-serving-api", "tensorflow_serving")
    from tensorflow_serving.config import model_server_config_pb2

    config = parse(SERVING / "models.config", model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == (CONTRACT["name"], f"/models/{CONTRACT['name']}")
    assert model.model_version_policy.latest.num_versions == 2
    assert not model.version_labels


def test_compose_names_files_that_exist_and_images_that_are_pinned():
    compose = (SERVING / "compose.yaml").read_text(encoding="utf-8")
    assert {*re.findall(r"=/serving/([a-z.]+)", compose)} == {path.name for path in SERVING.glob("*.config")}
    images = re.findall(r"^ +image: (.*)$", compose, re.M)
    assert [re.sub(r"\d+\.\d+\.\d+", "N", image) for image in images] == [
        "tensorflow/serving:N", "tensorflow/serving:N-gpu",
    ]  # fmt: skip
    assert len({re.search(r"[\d.]+", image)[0] for image in images}) == 1
    assert f"/v1/models/{CONTRACT['name']} " in compose


def test_compose_and_the_workflow_are_yaml():
    require("pyyaml", "yaml")
    import yaml

    services = yaml.safe_load((SERVING / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for profile, service in services.items():
        assert service["profiles"] == [profile]
        assert {port.rpartition(":")[2] for port in service["ports"]} == {"8500", "8501"}
        assert all(volume.endswith(":ro") for volume in service["volumes"])
        flags = service["command"]
        # Without --enable_batching the server does not start with a file of batching parameters.
        assert re.search(r"\$\{TFSTYLE_BATCHING:\+--enable_batching --batching_parameters_file=\S+\}", flags)
    assert set(services) == {"cpu", "gpu"}
    workflow = yaml.safe_load((ROOT / ".github/workflows/serving.yml").read_text(encoding="utf-8"))
    steps = "\n".join(step.get("run", "") for step in workflow["jobs"]["serving"]["steps"])
    assert "export/serving/compose.yaml" in steps
    assert "pytest -m serving" in steps
    assert "tfstyle export models" in steps
    assert "tfstyle export models" in (KIT / "README.md").read_text(encoding="utf-8")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def test_clients_import_neither_tensorflow_nor_tfstyle():
    # rest.py imports PIL only in the functions that read and write images.
    assert {*imports(CLIENTS / "rest.py")} - sys.stdlib_module_names == {"PIL"}
    packages = {*imports(CLIENTS / "grpc_client.py")} - sys.stdlib_module_names
    assert packages == {"PIL", "grpc", "numpy", "rest", "tensorflow_serving"}


# The clients, against a server


@dataclass(frozen=True)
class Served:
    """A server's addresses, the name of its model, and the folder of the version, or None if unknown."""

    url: str
    target: str | None
    name: str
    folder: Path | None


@pytest.fixture(scope="module")
def models(small_file, tmp_path_factory):
    """A folder with a small model, and the arguments of the command that exported it."""
    models = tmp_path_factory.mktemp("models")
    command = [
        models, "--weights", small_file, "--content-layers", "conv2_2", "--precision", "float16",
        "--size", 96, "--name", "small", "--version", 7, "--max-pixels", 2**15, "--max-batch", 3,
        "--stylize-max-pixels", 2**14, "--stylize-max-steps", 600, "--stylize-max-batch", 2,
    ]  # fmt: skip
    process = export(*command)
    assert process.returncode == 0, process.stderr
    return models, command


@pytest.mark.slow
def test_the_options_of_an_export(models):
    folder, command = models
    contract = read_contract(folder / "small" / "7")
    assert contract["name"] == "small"
    assert (contract["size"], contract["precision"]) == (96, "float16")
    assert contract["limits"] == {
        "max_pixels": 2**15, "max_batch": 3, "stylize_max_pixels": 2**14, "stylize_max_steps": 600,
        "stylize_max_batch": 2, "max_file_bytes": 2**24,
    }  # fmt: skip
    assert [*contract["signatures"]["content"]["outputs"]] == ["conv2_2"]
    second = export(*command)
    assert second.returncode == 2
    assert re.match(r"tfstyle: error: .*small.7 .*--overwrite", second.stderr.splitlines()[-1])
    assert "Traceback" not in second.stderr


@pytest.fixture(scope="module")
def served(models):
    if url := os.environ.get("TFSTYLE_SERVING_URL"):
        name = CONTRACT["name"]
        versions = [*Path(os.environ.get("TFSTYLE_SERVING_MODELS", os.devnull), name).glob("[0-9]*")]
        newest = max(versions, key=lambda path: int(path.name), default=None)
        yield Served(url, os.environ.get("TFSTYLE_SERVING_GRPC"), name, newest)
        return
    folder = models[0]
    start = real_server if shutil.which("tensorflow_model_server") else double.running
    with start(folder, "small") as server:
        yield Served(server.rest_url, server.grpc_target, "small", folder / "small" / "7")


@contextlib.contextmanager
def real_server(folder, name):
    """Run `tensorflow_model_server` on free ports during the context."""
    with socket.socket() as rest_socket, socket.socket() as grpc_socket:
        rest_socket.bind(("127.0.0.1", 0))
        grpc_socket.bind(("127.0.0.1", 0))
        ports = rest_socket.getsockname()[1], grpc_socket.getsockname()[1]
    command = [
        "tensorflow_model_server", f"--rest_api_port={ports[0]}", f"--port={ports[1]}",
        f"--model_name={name}", f"--model_base_path={folder / name}",
    ]  # fmt: skip
    server = double.Running(f"http://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}")
    status = [sys.executable, CLIENTS / "rest.py", "status", "--url", server.rest_url, "--model", name]
    with subprocess.Popen(command) as process:
        try:
            for _ in range(120):
                if subprocess.run(status, capture_output=True).returncode == 0:
                    break
                time.sleep(1)
            yield server
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def clients():
    """The modules of the clients. The gRPC client is None if its packages are not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CLIENTS)
        has_stub = importlib.util.find_spec("tensorflow_serving") is not None
        yield {
            "rest": importlib.import_module("rest"),
            "grpc": importlib.import_module("grpc_client") if has_stub else None,
        }


@pytest.fixture(params=["rest", "grpc"])
def call(request, clients, served, capsys):
    """A function that runs a client's command and returns its exit code, stdout and the line on stderr."""
    if request.param == "grpc":
        require("tensorflow-serving-api", "tensorflow_serving")
        if served.target is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("TFSTYLE_SERVING_GRPC is not set")
    flag, address = {"rest": ("--url", served.url), "grpc": ("--target", served.target)}[request.param]

    def run(*arguments, address=address, model=served.name):
        try:
            code = clients[request.param].main([*map(str, arguments), flag, address, "--model", model])
        except SystemExit as stopped:
            code = stopped.code
        output = capsys.readouterr()
        lines = output.err.splitlines()
        assert len(lines) == (code != 0), output.err
        return code, output.out, "".join(lines)

    run.kind = request.param
    return run


@pytest.fixture(scope="module")
def local(served):
    """A function that computes a signature of the served model in this process."""
    if served.folder is None:
        pytest.skip("TFSTYLE_SERVING_MODELS is not set to the folder of the served model")
    import tensorflow as tf

    model = tf.saved_model.load(str(served.folder))

    def run(name, **inputs):
        outputs = model.signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        return {key: value.numpy() for key, value in outputs.items()}

    return run


@pytest.fixture
def images(tmp_path, content, style):
    """Three files: a content image, a style image, and a text file with the suffix of an image."""
    paths = [tmp_path / "content.png", tmp_path / "style.png"]
    for path, pixels in zip(paths, (content, style)):
        Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(path)
    (tmp_path / "text.png").write_text("not an image")
    return [*paths, tmp_path / "text.png"]


def test_embed_prints_similarities_and_writes_embeddings(call, images, tmp_path):
    content, style, _ = images
    copy = shutil.copy(content, tmp_path / "copy.png")
    code, output, _ = call("embed", content, style, copy, "-o", tmp_path / "out.json")
    assert code == 0
    embeddings = json.loads((tmp_path / "out.json").read_text())
    vectors = np.array([embeddings[str(path)] for path in (content, style, copy)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-4)
    lines = [line.split("  ") for line in output.splitlines() if "  " in line]
    assert [line[1:] for line in lines] == [
        [str(a), str(b)] for a, b in [(content, style), (content, copy), (style, copy)]
    ]
    products = vectors @ vectors.T
    np.testing.assert_allclose([float(line[0]) for line in lines], products[np.triu_indices(3, 1)], atol=1e-4)
    assert float(lines[1][0]) == 1.0
    assert float(lines[0][0]) < 0.9999


def test_embed_gives_the_embedding_of_the_model(call, local, images, tmp_path):
    call("embed", images[0], "-o", tmp_path / "out.json")
    (embedding,) = json.loads((tmp_path / "out.json").read_text()).values()
    expected = local("encoded", images=[images[0].read_bytes()])["embedding"][0]
    np.testing.assert_allclose(embedding, expected, rtol=1e-3, atol=1e-5)


def test_stylize_writes_the_image_of_the_model(call, local, images, tmp_path):
    code, output, _ = call("stylize", *images[:2], "-o", tmp_path / "out.png", "--steps", 3)
    assert code == 0
    assert re.fullmatch(r".*out\.png: 56 x 40, loss \d+\.\d{4}\n", output)
    content, style = (np.asarray(Image.open(path))[None] for path in images[:2])
    expected = local("stylize", content=content, style=style, steps=np.array([3], np.int32))
    assert float(output.split()[-1]) == pytest.approx(expected["loss"][0], rel=0.01)
    stylized = np.asarray(Image.open(tmp_path / "out.png"), int)
    # Rounding differs between servers, and three iterations amplify the differences.
    assert np.abs(stylized - expected["image"][0]).mean() < 2
    assert np.abs(stylized - content[0]).mean() > 0.5


def test_stylize_shrinks_and_rotates_images_and_removes_transparency(call, tmp_path):
    pixels = np.round(make_image(60, 80) * 255).astype(np.uint8)
    pixels = np.concatenate([pixels, np.full((60, 80, 1), 128, np.uint8)], -1)
    exif = Image.Exif()
    exif[274] = 6  # orientation: rotated by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "rotated.png", exif=exif)
    code, output, _ = call(
        "stylize", tmp_path / "rotated.png", tmp_path / "rotated.png", "-o", tmp_path / "out.png",
        "--size", 64, "--steps", 1,
    )  # fmt: skip
    assert code == 0
    assert "48 x 64" in output
    assert Image.open(tmp_path / "out.png").mode == "RGB"
    assert np.asarray(Image.open(tmp_path / "out.png")).mean() > 160  # the image is blended with white


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["embed", "nowhere.png"], "nowhere.png: No such file"),
        (["embed", "{text}"], "text.png: .*JPEG, PNG, BMP, GIF or WebP"),
        (["stylize", "{content}", "{text}", "-o", "{out}"], "cannot read .*text.png"),
        (["stylize", "{content}", "{style}", "-o", "{out}", "--steps", "0"], "steps.* from 1 to"),
        (["stylize", "{content}", "{style}", "-o", "{out}", "--size", "2"], "content: .*at least .* pixels"),
        (["stylize", "{content}", "{style}", "-o", "{out}.no", "--steps", "1"], "cannot write .*out.png.no"),
        *(
            (
                ["stylize", "{content}", "{style}", "-o", "{out}", *option.split()],
                f"{option.split()[0]}: '{option.split()[1]}' .*{allowed}",
            )
            for option, allowed in (
                ("--size 0", "whole number from 1"),
                ("--size -3", "whole number from 1"),
                ("--size x", "whole number from 1"),
                ("--steps 2147483648", "to 2147483647"),
                ("--steps -2147483649", "from -2147483648"),
                ("--timeout 0", "above 0 and at most 1000000"),
                ("--timeout -1", "above 0 and at most 1000000"),
                ("--timeout nan", "above 0 and at most 1000000"),
                ("--timeout inf", "above 0 and at most 1000000"),
            )
        ),
        (["embed", "{content}", "--timeout", "0"], "--timeout: '0'"),
        (["status", "--timeout", "0"], "--timeout: '0'"),
        (["paint"], "invalid choice: 'paint'"),
    ],
)
def test_wrong_arguments_give_an_error_of_one_line(call, images, tmp_path, arguments, pattern):
    paths = {path.stem: path for path in images} | {"out": tmp_path / "out.png"}
    code, _, error = call(*(argument.format(**paths) for argument in arguments))
    assert code == 2
    assert re.search(pattern, error)
    assert not (tmp_path / "out.png").exists()


def test_an_unknown_model_and_an_unused_address(call, images):
    code, _, error = call("embed", images[0], model="unknown")
    assert code == 2
    assert re.search("server.*unknown", error)
    address = UNUSED_ADDRESS if call.kind == "grpc" else f"http://{UNUSED_ADDRESS}"
    code, _, error = call("embed", images[0], address=address)
    assert code == 1
    assert UNUSED_ADDRESS in error


@pytest.fixture(scope="module")
def server_without_stylize(small_file, tmp_path_factory):
    """A server whose model has no signatures content and stylize."""
    if os.environ.get("TFSTYLE_SERVING_URL"):
        pytest.skip("the server at TFSTYLE_SERVING_URL has another model")
    folder = tmp_path_factory.mktemp("without_stylize")
    process = export(folder, "--weights", small_file, "--name", "plain", "--size", 64)
    assert process.returncode == 0, process.stderr
    assert set(read_contract(folder / "plain" / "1")["signatures"]) == {"serving_default", "encoded"}
    start = real_server if shutil.which("tensorflow_model_server") else double.running
    with start(folder, "plain") as server:
        yield server


def test_a_model_without_stylize(call, server_without_stylize, images, tmp_path):
    server = server_without_stylize
    address = server.grpc_target if call.kind == "grpc" else server.rest_url
    code, _, error = call(
        "stylize", *images[:2], "-o", tmp_path / "out.png", address=address, model="plain"
    )  # fmt: skip
    assert code == 2
    assert '"stylize" not found' in error
    assert not (tmp_path / "out.png").exists()


def test_concurrent_requests_get_the_right_replies(served, clients, local, images):
    client = clients["rest"].Rest(served.url, served.name, 120)
    files = [path.read_bytes() for path in images[:2]] * 3
    with ThreadPoolExecutor(6) as pool:
        embeddings = [*pool.map(client.embedding, files)]
    expected = [local("encoded", images=[file])["embedding"][0] for file in files[:2]] * 3
    np.testing.assert_allclose(embeddings, expected, rtol=1e-3, atol=1e-5)


def test_status_over_rest(served, clients, capsys):
    assert clients["rest"].main(["status", "--url", served.url, "--model", served.name]) == 0
    assert re.fullmatch(rf"({served.name} version \d+: AVAILABLE\n)+", capsys.readouterr().out)
    assert clients["rest"].main(["status", "--url", "127.0.0.1:8501"]) == 2
    assert re.search(r"--url.*'127\.0\.0\.1:8501'.*http://", capsys.readouterr().err)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>"])
def test_a_server_that_is_not_tensorflow_serving(clients, capsys, body):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.handle_request).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert clients["rest"].main(["status", "--url", url]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not TensorFlow Serving" in line


def test_status_over_grpc(clients, capsys):
    """The test starts a small server, because the test double has no ModelService."""
    require("tensorflow-serving-api", "tensorflow_serving")
    import grpc
    from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

    class Service(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request, context):
            reply = get_model_status_pb2.GetModelStatusResponse()
            reply.model_version_status.add(version=2, state="LOADING")
            if request.model_spec.name == "good":
                reply.model_version_status.add(version=1, state="AVAILABLE")
            return reply

    server = grpc.server(ThreadPoolExecutor(1))
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Service(), server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        assert clients["grpc"].main(["status", "--target", target, "--model", "good"]) == 0
        assert capsys.readouterr().out == "good version 2: LOADING\ngood version 1: AVAILABLE\n"
        assert clients["grpc"].main(["status", "--target", target, "--model", "new"]) == 1
        assert "no version of new is available" in capsys.readouterr().err
    finally:
        server.stop(None)


def test_rest_runs_without_any_package(served, images, tmp_path):
    """With -I and -S Python can import only the standard library."""

    def run(*arguments):
        command = [sys.executable, "-I", "-S", CLIENTS / "rest.py", *map(str, arguments), "--url", served.url]
        return subprocess.run([*command, "--model", served.name], capture_output=True, text=True)

    process = run("embed", *images[:2])
    assert process.returncode == 0, process.stderr
    assert len(process.stdout.splitlines()) == 3
    process = run("stylize", *images[:2], "-o", tmp_path / "out.png")
    assert process.returncode == 2
    (error,) = process.stderr.splitlines()
    assert "pip install pillow" in error


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_shell_client(served, images):
    def run(*arguments):
        command = ["bash", CLIENTS / "client.sh", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    process = run(images[0], served.url, served.name)
    assert process.returncode == 0, process.stderr
    assert np.linalg.norm(json.loads(process.stdout)["outputs"]["embedding"]) == pytest.approx(1, rel=1e-4)
    refused = run(images[2], served.url, served.name)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "JPEG, PNG, BMP, GIF or WebP" in refused.stderr
    assert run(images[0], f"http://{UNUSED_ADDRESS}").returncode == 1
    assert run("nowhere.png").returncode == 2

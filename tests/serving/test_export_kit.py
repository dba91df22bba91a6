"""The serving kit: its contract, its configuration, and its clients against a server on a socket.

The server is the one at `TFSTYLE_SERVING_URL` (REST) and `TFSTYLE_SERVING_GRPC`, which serves the folder
`TFSTYLE_SERVING_MODELS`; else a `tensorflow_model_server` on the path; else the double of
`tests.contract`, which is not TensorFlow Serving but has the same graph behind it.
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

from tests.conftest import make_picture
from tests.contract import double

pytestmark = pytest.mark.serving

ROOT = Path(__file__).parents[2]
KIT = ROOT / "export"
CLIENTS, SERVING = KIT / "clients", KIT / "serving"
CONTRACT = json.loads((KIT / "signature.json").read_text(encoding="utf-8"))
NOBODY = "127.0.0.1:1"  # where no server listens


def needed(package, module):
    """Skip where a package is absent; CI must have it."""
    if importlib.util.find_spec(module) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{package} is not installed")


def export(*arguments):
    command = [sys.executable, "-m", "tfstyle", "export", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def described(folder):
    return json.loads((folder / "assets.extra" / "tfstyle.json").read_text(encoding="utf-8"))


# The contract


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The default export, with full-depth weights."""
    models = tmp_path_factory.mktemp("full")
    done = export(models, "--weights", "random")
    assert done.returncode == 0, done.stderr
    folder = models / "tfstyle" / "1"
    assert re.fullmatch(
        rf"{re.escape(str(folder))}: serving_default, encoded, content, stylize; \d+\.\d MB\n", done.stdout
    )
    return folder


def test_signature_json_is_the_contract_of_the_default_export(full):
    contract = {k: v for k, v in described(full).items() if k not in ("tfstyle", "made_with")}
    text = json.dumps(contract, indent=2, ensure_ascii=False) + "\n"
    assert text == (KIT / "signature.json").read_text(encoding="utf-8")


def test_signature_json_is_what_the_graph_has(full):
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((full / "saved_model.pb").read_bytes())
    definitions = saved.meta_graphs[0].signature_def

    def plain(tensors):
        shapes = {name: [dim.size for dim in info.tensor_shape.dim] for name, info in tensors.items()}
        return {n: {"dtype": tf.as_dtype(tensors[n].dtype).name, "shape": s} for n, s in shapes.items()}

    found = {
        name: {"inputs": plain(one.inputs), "outputs": plain(one.outputs)}
        for name, one in definitions.items()
        if name != "__saved_model_init_op"
    }
    wanted = {
        name: {
            side: {key: {k: v for k, v in spec.items() if k != "holds"} for key, spec in one[side].items()}
            for side in ("inputs", "outputs")
        }
        for name, one in CONTRACT["signatures"].items()
    }
    assert found == wanted


def test_the_readme_has_the_signatures_and_limits():
    words = (KIT / "README.md").read_text(encoding="utf-8")
    for name, signature in CONTRACT["signatures"].items():
        row = next(line for line in words.splitlines() if line.startswith(f"| `{name}`"))
        for spec in signature["inputs"]:
            assert f"`{spec}`" in row
    for name, value in CONTRACT["limits"].items():
        assert re.search(rf"^\| `--{name.replace('_', '-')}` \| {value} \|", words, re.M), name
    for link in re.findall(r"\]\(([^)#]+)\)", words):
        assert link.startswith("https://") or (KIT / link).exists(), link


# The configuration


def message(name, **kinds):
    """An empty message of fields name -> (number, kind); kinds are wrappers, or types of plain fields."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

    field = descriptor_pb2.FieldDescriptorProto
    plain = {"bool": field.TYPE_BOOL, "string": field.TYPE_STRING, "int64": field.TYPE_INT64}
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="kit", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    made = file.message_type.add(name=name)
    for key, (number, kind) in kinds.items():
        one = made.field.add(name=key, number=number, label=field.LABEL_OPTIONAL)
        if kind in plain:
            one.type = plain[kind]
        else:
            one.type, one.type_name = field.TYPE_MESSAGE, kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"kit.{name}"))()


def parsed(path, into):
    from google.protobuf import text_format

    return text_format.Parse(path.read_text(encoding="utf-8"), into)


def test_batching_config():
    """As session_bundle_config.proto has BatchingParameters, whose class tensorflow-serving-api lacks."""
    whole = ".google.protobuf.Int64Value"
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    empty = message(
        "BatchingParameters",
        **{name: (number, whole) for number, name in enumerate(names, 1)},
        thread_pool_name=(5, ".google.protobuf.StringValue"),
        pad_variable_length_inputs=(7, "bool"),
    )
    batching = parsed(SERVING / "batching.config", empty)
    assert all(getattr(batching, name).value >= 1 for name in names)
    assert batching.max_batch_size.value <= CONTRACT["limits"]["max_batch"]
    assert not batching.pad_variable_length_inputs


def test_monitoring_config():
    """As monitoring_config.proto has PrometheusConfig, likewise."""
    outer = (SERVING / "monitoring.config").read_text(encoding="utf-8")
    inner = re.fullmatch(r"(?:#.*\n)*prometheus_config \{\n((?:.*\n)*)\}\n", outer)[1]
    from google.protobuf import text_format

    found = text_format.Parse(inner, message("PrometheusConfig", enable=(1, "bool"), path=(2, "string")))
    assert found.enable
    assert found.path in (KIT / "README.md").read_text(encoding="utf-8")


def test_models_config():
    needed("tensorflow-serving-api", "tensorflow_serving")
    from tensorflow_serving.config import model_server_config_pb2

    found = parsed(SERVING / "models.config", model_server_config_pb2.ModelServerConfig())
    (model,) = found.model_config_list.config
    assert (model.name, model.base_path) == (CONTRACT["name"], f"/models/{CONTRACT['name']}")
    assert model.model_version_policy.latest.num_versions == 2
    assert not model.version_labels


def test_compose_names_files_that_exist_and_images_that_are_pinned():
    words = (SERVING / "compose.yaml").read_text(encoding="utf-8")
    assert {*re.findall(r"=/serving/([a-z.]+)", words)} == {path.name for path in SERVING.glob("*.config")}
    images = re.findall(r"^ +image: (.*)$", words, re.M)
    assert [re.sub(r"\d+\.\d+\.\d+", "N", image) for image in images] == [
        "tensorflow/serving:N", "tensorflow/serving:N-gpu",
    ]  # fmt: skip
    assert len({re.search(r"[\d.]+", image)[0] for image in images}) == 1
    assert f"/v1/models/{CONTRACT['name']} " in words


def test_compose_and_the_workflow_are_yaml():
    needed("pyyaml", "yaml")
    import yaml

    services = yaml.safe_load((SERVING / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for profile, service in services.items():
        assert service["profiles"] == [profile]
        assert {port.rpartition(":")[2] for port in service["ports"]} == {"8500", "8501"}
        assert all(volume.endswith(":ro") for volume in service["volumes"])
        flags = service["command"]
        # The server does not start with a file of parameters where batching is off.
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
    # PIL only within the functions of rest.py that read and write pictures.
    assert {*imports(CLIENTS / "rest.py")} - sys.stdlib_module_names == {"PIL"}
    others = {*imports(CLIENTS / "grpc_client.py")} - sys.stdlib_module_names
    assert others == {"PIL", "grpc", "numpy", "rest", "tensorflow_serving"}


# The clients, against a server


@dataclass(frozen=True)
class Served:
    """Where a server is, what its model is called, and the folder of the version if it is here."""

    url: str
    target: str | None
    name: str
    folder: Path | None


@pytest.fixture(scope="module")
def models(small_file, tmp_path_factory):
    """A folder with a small model, and the command that made it."""
    models = tmp_path_factory.mktemp("models")
    command = [
        models, "--weights", small_file, "--content-layers", "conv2_2", "--precision", "float16",
        "--size", 96, "--name", "small", "--version", 7, "--max-pixels", 2**15, "--max-batch", 3,
        "--stylize-max-pixels", 2**14, "--stylize-max-steps", 600, "--stylize-max-batch", 2,
    ]  # fmt: skip
    done = export(*command)
    assert done.returncode == 0, done.stderr
    return models, command


def test_export_takes_a_deployments_options(models):
    folder, command = models
    contract = described(folder / "small" / "7")
    assert contract["name"] == "small"
    assert (contract["size"], contract["precision"]) == (96, "float16")
    assert contract["limits"] == {
        "max_pixels": 2**15, "max_batch": 3, "stylize_max_pixels": 2**14, "stylize_max_steps": 600,
        "stylize_max_batch": 2, "max_file_bytes": 2**24,
    }  # fmt: skip
    assert [*contract["signatures"]["content"]["outputs"]] == ["conv2_2"]
    again = export(*command)
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith("tfstyle: error: ")
    assert "--overwrite" in again.stderr.splitlines()[-1]
    assert "Traceback" not in again.stderr


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
    """`tensorflow_model_server` on free ports."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]
    command = [
        "tensorflow_model_server", f"--rest_api_port={ports[0]}", f"--port={ports[1]}",
        f"--model_name={name}", f"--model_base_path={folder / name}",
    ]  # fmt: skip
    server = double.Running(f"http://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}")
    ask = [sys.executable, CLIENTS / "rest.py", "status", "--url", server.rest_url, "--model", name]
    with subprocess.Popen(command) as process:
        try:
            for _ in range(120):
                if subprocess.run(ask, capture_output=True).returncode == 0:
                    break
                time.sleep(1)
            yield server
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def clients():
    """The modules of the clients; the one for gRPC is None where its packages are absent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CLIENTS)
        has_stub = importlib.util.find_spec("tensorflow_serving") is not None
        yield {
            "rest": importlib.import_module("rest"),
            "grpc": importlib.import_module("grpc_client") if has_stub else None,
        }


@pytest.fixture(params=["rest", "grpc"])
def call(request, clients, served, capsys):
    """Run a client's command: exit code, what it printed, and its last line of errors."""
    if request.param == "grpc":
        needed("tensorflow-serving-api", "tensorflow_serving")
        if served.target is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("TFSTYLE_SERVING_GRPC is not set")
    flag, place = {"rest": ("--url", served.url), "grpc": ("--target", served.target)}[request.param]

    def run(*arguments, place=place, model=served.name):
        try:
            code = clients[request.param].main([*map(str, arguments), flag, place, "--model", model])
        except SystemExit as left:
            code = left.code
        said = capsys.readouterr()
        lines = said.err.splitlines()
        assert len(lines) == (code != 0), said.err
        return code, said.out, "".join(lines)

    run.kind = request.param
    return run


@pytest.fixture(scope="module")
def local(served):
    """The served model's signatures, run here."""
    if served.folder is None:
        pytest.skip("TFSTYLE_SERVING_MODELS does not say which model is served")
    import tensorflow as tf

    model = tf.saved_model.load(str(served.folder))

    def run(name, **inputs):
        outputs = model.signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        return {key: value.numpy() for key, value in outputs.items()}

    return run


@pytest.fixture
def pictures(tmp_path, content, style):
    """Two files, and one beside them that is no picture."""
    paths = [tmp_path / "content.png", tmp_path / "style.png"]
    for path, pixels in zip(paths, (content, style)):
        Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(path)
    (tmp_path / "words.png").write_text("no picture")
    return [*paths, tmp_path / "words.png"]


def test_embed_prints_similarities_and_writes_embeddings(call, pictures, tmp_path):
    one, other, _ = pictures
    same = shutil.copy(one, tmp_path / "same.png")
    code, said, _ = call("embed", one, other, same, "-o", tmp_path / "out.json")
    assert code == 0
    found = json.loads((tmp_path / "out.json").read_text())
    vectors = np.array([found[str(path)] for path in (one, other, same)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-4)
    lines = [line.split("  ") for line in said.splitlines() if "  " in line]
    assert [line[1:] for line in lines] == [
        [str(a), str(b)] for a, b in [(one, other), (one, same), (other, same)]
    ]
    products = vectors @ vectors.T
    np.testing.assert_allclose([float(line[0]) for line in lines], products[np.triu_indices(3, 1)], atol=1e-4)
    assert float(lines[1][0]) == 1.0
    assert float(lines[0][0]) < 0.9999


def test_embed_gives_the_models_own_numbers(call, local, pictures, tmp_path):
    call("embed", pictures[0], "-o", tmp_path / "out.json")
    (found,) = json.loads((tmp_path / "out.json").read_text()).values()
    wanted = local("encoded", images=[pictures[0].read_bytes()])["embedding"][0]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_stylize_writes_the_models_picture(call, local, pictures, tmp_path):
    code, said, _ = call("stylize", *pictures[:2], "-o", tmp_path / "out.png", "--steps", 3)
    assert code == 0
    assert re.fullmatch(r".*out\.png: 56 x 40, loss \d+\.\d{4}\n", said)
    content, style = (np.asarray(Image.open(path))[None] for path in pictures[:2])
    wanted = local("stylize", content=content, style=style, steps=np.array([3], np.int32))
    assert float(said.split()[-1]) == pytest.approx(wanted["loss"][0], rel=0.01)
    painted = np.asarray(Image.open(tmp_path / "out.png"), int)
    # Rounding differs from server to server, and three steps carry it on.
    assert np.abs(painted - wanted["image"][0]).mean() < 2
    assert np.abs(painted - content[0]).mean() > 0.5


def test_stylize_shrinks_turns_and_flattens(call, tmp_path):
    pixels = np.round(make_picture(60, 80) * 255).astype(np.uint8)
    pixels = np.concatenate([pixels, np.full((60, 80, 1), 128, np.uint8)], -1)
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    code, said, _ = call(
        "stylize", tmp_path / "turned.png", tmp_path / "turned.png", "-o", tmp_path / "out.png", "--size", 64,
        "--steps", 1,
    )  # fmt: skip
    assert code == 0
    assert "48 x 64" in said
    assert Image.open(tmp_path / "out.png").mode == "RGB"
    assert np.asarray(Image.open(tmp_path / "out.png")).mean() > 160  # half of it is white


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["embed", "nowhere.png"], "cannot read nowhere.png: No such file"),
        (["embed", "{words}"], "words.png: the server says .*not a JPEG, PNG, BMP, GIF or WebP file"),
        (["stylize", "{content}", "{words}", "-o", "{out}"], "cannot read .*words.png as a picture"),
        (
            ["stylize", "{content}", "{style}", "-o", "{out}", "--steps", "0"],
            "says .*steps must be from 1 to",
        ),
        (["stylize", "{content}", "{style}", "-o", "{out}", "--size", "2"], "says .*an image has at least"),
        (["stylize", "{content}", "{style}", "-o", "{out}.no", "--steps", "1"], "cannot write .*out.png.no"),
        *(
            (
                ["stylize", "{content}", "{style}", "-o", "{out}", *option.split()],
                f"argument {option.split()[0]}: {words}",
            )
            for option, words in (
                ("--size 0", "invalid whole number from 1 value: '0'"),
                ("--size -3", "invalid whole number from 1 value: '-3'"),
                ("--size x", "invalid whole number from 1 value: 'x'"),
                ("--steps 2147483648", "invalid whole number of 32 bits value"),
                ("--steps -2147483649", "invalid whole number of 32 bits value"),
                ("--timeout 0", "invalid number above 0, at most 1000000, value: '0'"),
                ("--timeout -1", "invalid number above 0, at most 1000000, value: '-1'"),
                ("--timeout nan", "invalid number above 0, at most 1000000, value: 'nan'"),
                ("--timeout inf", "invalid number above 0, at most 1000000, value: 'inf'"),
            )
        ),
        (["embed", "{content}", "--timeout", "0"], "argument --timeout"),
        (["status", "--timeout", "0"], "argument --timeout"),
        (["paint"], "invalid choice: 'paint'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(call, pictures, tmp_path, arguments, words):
    places = {path.stem: path for path in pictures} | {"out": tmp_path / "out.png"}
    code, _, error = call(*(argument.format(**places) for argument in arguments))
    assert code == 2
    assert re.search(words, error)
    assert not (tmp_path / "out.png").exists()


def test_another_model_and_another_place(call, pictures):
    code, _, error = call("embed", pictures[0], model="nobody")
    assert code == 2
    assert re.search("the server says .*nobody", error)
    place = NOBODY if call.kind == "grpc" else f"http://{NOBODY}"
    code, _, error = call("embed", pictures[0], place=place)
    assert code == 1
    assert NOBODY in error


@pytest.fixture(scope="module")
def unpainting(small_file, tmp_path_factory):
    """A server whose model lacks the signatures content and stylize."""
    if os.environ.get("TFSTYLE_SERVING_URL"):
        pytest.skip("the server at TFSTYLE_SERVING_URL has another model")
    folder = tmp_path_factory.mktemp("unpainting")
    done = export(folder, "--weights", small_file, "--name", "plain", "--size", 64)
    assert done.returncode == 0, done.stderr
    assert set(described(folder / "plain" / "1")["signatures"]) == {"serving_default", "encoded"}
    start = real_server if shutil.which("tensorflow_model_server") else double.running
    with start(folder, "plain") as server:
        yield server


def test_a_model_without_stylize(call, unpainting, pictures, tmp_path):
    place = unpainting.grpc_target if call.kind == "grpc" else unpainting.rest_url
    code, _, error = call(
        "stylize", *pictures[:2], "-o", tmp_path / "out.png", place=place, model="plain"
    )  # fmt: skip
    assert code == 2
    assert re.search('the server says .*"stylize" not found', error)
    assert not (tmp_path / "out.png").exists()


def test_clients_at_once_get_their_own_answers(served, clients, local, pictures):
    client = clients["rest"].Rest(served.url, served.name, 120)
    files = [path.read_bytes() for path in pictures[:2]] * 3
    with ThreadPoolExecutor(6) as pool:
        found = [*pool.map(client.embedding, files)]
    wanted = [local("encoded", images=[file])["embedding"][0] for file in files[:2]] * 3
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_status_over_rest(served, clients, capsys):
    assert clients["rest"].main(["status", "--url", served.url, "--model", served.name]) == 0
    assert re.fullmatch(rf"({served.name} version \d+: AVAILABLE\n)+", capsys.readouterr().out)
    assert clients["rest"].main(["status", "--url", "127.0.0.1:8501"]) == 2
    assert "must start with http" in capsys.readouterr().err


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>"])
def test_a_server_of_another_kind(clients, capsys, body):
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
    """A service of two methods, as the double has no ModelService."""
    needed("tensorflow-serving-api", "tensorflow_serving")
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


def test_rest_runs_without_any_package(served, pictures, tmp_path):
    """-I and -S leave nothing but the standard library to import from."""

    def run(*arguments):
        command = [sys.executable, "-I", "-S", CLIENTS / "rest.py", *map(str, arguments), "--url", served.url]
        return subprocess.run([*command, "--model", served.name], capture_output=True, text=True)

    done = run("embed", *pictures[:2])
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    done = run("stylize", *pictures[:2], "-o", tmp_path / "out.png")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "rest.py: stylize reads and writes pictures with Pillow: pip install pillow"
    ]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_shell_client(served, pictures):
    def run(*arguments):
        command = ["bash", CLIENTS / "client.sh", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    done = run(pictures[0], served.url, served.name)
    assert done.returncode == 0, done.stderr
    assert np.linalg.norm(json.loads(done.stdout)["outputs"]["embedding"]) == pytest.approx(1, rel=1e-4)
    refused = run(pictures[2], served.url, served.name)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "not a JPEG" in refused.stderr
    assert run(pictures[0], f"http://{NOBODY}").returncode == 1
    assert run("nowhere.png").returncode == 2

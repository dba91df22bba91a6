"""What the exported model computes in a graph session, in a process without TensorFlow's Python package."""

import base64
import io
import json
import re
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zlib

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tfstyle
from tests import reference
from tests.conftest import make_image, webp
from tests.contract import double, messages, wire
from tfstyle.serving import Limits, Signatures, signatures

pytestmark = pytest.mark.serving

STYLE, CONTENT = ("conv1_1", "conv2_1"), ("conv2_2",)
SIZE, EMBEDDING, MINIMUM = 48, 16, 4  # reflect padding below conv2_2 needs four pixels a side
LIMITS = Limits(
    max_pixels=2**15, max_batch=16, stylize_max_pixels=2**16, stylize_max_steps=20, stylize_max_batch=3,
    max_file_bytes=2**16,
)  # fmt: skip
PIXELS_AT_ONCE = 8192  # a smaller number than in the package, so that small batches are encoded in parts
TOLERANCE = 1e-5  # relative L2 norm; float32 sums are in another order


def pixels(height, width, seed=0):
    return np.round(make_image(height, width, seed) * 255).astype(np.uint8)


def encoded(image, kind="png", **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def batch(*items):
    """Return an array of bytes objects."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def steps(*counts):
    return np.array(counts, np.int32)


def assert_close(outputs, expected, tolerance=TOLERANCE):
    assert outputs.keys() == expected.keys()
    for name, value in outputs.items():
        assert value.shape == expected[name].shape, name
        assert reference.relative_error(value, expected[name]) < tolerance, name


@pytest.fixture(scope="module")
def extractor(small_weights):
    return tfstyle.StyleExtractor(
        STYLE, small_weights, content_layers=CONTENT, embedding_size=EMBEDDING, size=SIZE
    )


@pytest.fixture(scope="module")
def models(extractor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signatures, "PIXELS_AT_ONCE", PIXELS_AT_ONCE)
        extractor.export(folder, name="small", limits=LIMITS)
    return folder


@pytest.fixture(scope="module")
def model(models):
    return models / "small" / "1"


@pytest.fixture(scope="module")
def graph(model):
    return messages.meta_graph((model / "saved_model.pb").read_bytes())


@pytest.fixture(scope="module")
def server(models):
    with double.running(models, "small") as running:
        yield running


@pytest.fixture(scope="module")
def ask(server):
    """A function (signature, inputs) -> outputs that sends a request over gRPC."""
    unlimited = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.grpc_target, unlimited) as channel:
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

        def ask(signature="", outputs=(), version=None, **inputs):
            request = messages.PredictRequest("small", inputs, signature, version, outputs)
            return messages.PredictResponse.decode(predict(request.encode(), timeout=120)).outputs

        yield ask


@pytest.fixture
def post(server):
    """A function (path, JSON) -> (HTTP status, JSON) that sends a request over REST."""

    def post(path, document=None):
        data = None if document is None else json.dumps(document).encode()
        try:
            with urllib.request.urlopen(f"{server.rest_url}{path}", data, timeout=120) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return post


@pytest.mark.parametrize("shape", [(1, 10, 13, 3), (3, 33, 24, 3)])
def test_gram_matrices_and_embedding_are_those_of_the_extractor(ask, extractor, shape):
    images = np.stack([pixels(*shape[1:3], seed) for seed in range(shape[0])])
    outputs = ask(images=images)
    assert_close(outputs, {k: v.numpy() for k, v in extractor(images).items()})
    np.testing.assert_allclose(np.linalg.norm(outputs["embedding"], axis=1), 1, rtol=1e-5)


def test_gram_matrices_and_features_are_those_of_the_reference(ask, small_weights):
    image = pixels(9, 8)
    truth = reference.features(image / 255.0, small_weights.arrays, 4, "avg", "reflect")
    outputs = ask(images=image[None])
    assert reference.relative_error(outputs["conv1_1"][0], reference.gram(truth[0])) < TOLERANCE
    assert reference.relative_error(outputs["conv2_1"][0], reference.gram(truth[2])) < TOLERANCE
    features = ask("content", images=image[None])["conv2_2"][0]
    assert reference.relative_error(features, truth[3]) < TOLERANCE


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "jpeg", webp("webp")])
def test_a_file_gives_the_same_outputs_as_its_pixels(ask, kind):
    file = encoded(pixels(SIZE, 36), kind, **({"lossless": True} if kind == "webp" else {}))
    decoded = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    outputs = ask("encoded", images=batch(file))
    assert_close(outputs, ask(images=decoded[None]))


def test_files_of_different_sizes_in_a_batch_are_resized_as_by_the_extractor(ask, extractor, tmp_path):
    shapes = [(96, 72), (61, 90), (SIZE, SIZE)]
    files = []
    for number, (height, width) in enumerate(shapes):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(encoded(pixels(height, width, number)))
    expected = {k: v.numpy() for k, v in extractor([str(file) for file in files]).items()}
    # Pillow's Lanczos filter and TensorFlow's differ in the last bits of their weights.
    assert_close(ask("encoded", images=batch(*(file.read_bytes() for file in files))), expected, 1e-3)


def test_the_most_elongated_file_that_is_accepted(ask, extractor, tmp_path):
    """Its shorter side has the smallest allowed number of pixels after resizing."""
    shape = (SIZE * 8, MINIMUM * 8)
    (tmp_path / "thin.png").write_bytes(encoded(pixels(*shape)))
    expected = {k: v.numpy() for k, v in extractor([str(tmp_path / "thin.png")]).items()}
    assert_close(ask("encoded", images=batch((tmp_path / "thin.png").read_bytes())), expected, 1e-3)


def test_content_features_are_those_of_the_extractor(ask, extractor):
    images = np.stack([pixels(21, 30, seed) for seed in (1, 2)])
    assert_close(ask("content", images=images), {k: v.numpy() for k, v in extractor.content(images).items()})


# After four iterations at two scales a few pixels differ by ten levels even between the library's compiled
# and eager steps, because their sums are in another order.
@pytest.mark.parametrize(
    ("content", "style", "count", "scales", "share"),
    [
        ((40, 56), (48, 44), 4, 1, 1.0),
        ((232, 176), (150, 200), 2, 2, 1.0),
        ((40, 56), (90, 74), 2, 1, 1.0),
        ((232, 176), (150, 200), 4, 2, 0.99),
    ],
)
def test_stylize_gives_the_image_of_the_library(ask, extractor, content, style, count, scales, share):
    content, style = pixels(*content, 2), pixels(*style, 3)
    result = tfstyle.stylize(
        content, style, encoder=extractor.encoder, content_layers=CONTENT, style_layers=STYLE,
        iterations=count, precision="float32", compile="graph",
    )  # fmt: skip
    assert len(result.history.total) == count * scales
    outputs = ask("stylize", content=content[None], style=style[None], steps=steps(count))
    image = outputs["image"][0].astype(float)
    assert np.mean(np.abs(image - result.image * 255) <= 1) >= share
    if count == 4:
        assert np.abs(image - content).mean() > 3  # the image has changed
    np.testing.assert_allclose(outputs["loss"], result.history.total[-1], rtol=1e-3)


def test_an_image_gives_the_same_outputs_alone_and_in_a_batch_of_eight(ask):
    images = np.stack([pixels(28, 24, seed) for seed in range(8)])
    files = batch(*(encoded(image) for image in images))
    for signature, inputs in (("", images), ("content", images), ("encoded", files)):
        together = ask(signature, images=inputs)
        for index in (0, 5):
            alone = ask(signature, images=inputs[index : index + 1])
            assert_close({k: v[index : index + 1] for k, v in together.items()}, alone)


def huge_png():
    """Return a small file whose header declares 30000 x 30000 pixels."""
    file = bytearray(encoded(pixels(8, 8)))
    file[16:24] = struct.pack(">II", 30000, 30000)
    file[29:33] = struct.pack(">I", zlib.crc32(file[12:29]))
    return bytes(file)


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ((12, 30, 32), [8, 4]), ((8, 32, 32), [8]), ((9, 32, 32), [8, 1]), ((3, 64, 128), [1, 1, 1]),
        ((2, 100, 150), [1, 1]), ((1, 8, 8), [1]),
    ],
    ids=str,
)  # fmt: skip
def test_a_large_batch_is_encoded_in_parts(extractor, monkeypatch, shape, parts):
    monkeypatch.setattr(signatures, "PIXELS_AT_ONCE", PIXELS_AT_ONCE)
    module = Signatures(
        extractor.encoder,
        style_layers=STYLE,
        content_layers=CONTENT,
        embedding_size=None,
        views=1,
        size=SIZE,
        precision="float32",
        limits=LIMITS,
    )

    def counted(images, values):
        count = tf.shape(images)[0]
        return {layer: tf.fill([count, 1, 1, 1], tf.cast(count, tf.float32)) for layer in (*STYLE, *CONTENT)}

    module._features = counted
    functions, images = module.functions(), tf.zeros([*shape, 3], tf.uint8)
    expected = np.repeat(parts, parts)
    np.testing.assert_array_equal(np.ravel(functions["content"](images=images)["conv2_2"]), expected)
    # The Gram matrix of a single feature is its square.
    np.testing.assert_allclose(np.ravel(functions["serving_default"](images=images)["conv1_1"]), expected**2)


def test_a_batch_in_parts_gives_the_same_outputs_as_a_small_batch(ask):
    images = np.stack([pixels(30, 32, seed) for seed in range(12)])
    assert images[..., 0].size > PIXELS_AT_ONCE > images[:4, ..., 0].size
    for signature in ("", "content"):
        large, small = ask(signature, images=images), ask(signature, images=images[4:8])
        assert_close({name: value[4:8] for name, value in large.items()}, small)


def gif_with_a_frame_above_its_header():
    """Return a GIF whose header declares 16 x 16 pixels and whose frame has 300 x 300."""
    file = bytearray(encoded(black(1, 300, 300)[0], "gif"))
    file[6:10] = struct.pack("<HH", 16, 16)
    return bytes(file)


def with_a_palette():
    file = io.BytesIO()
    Image.fromarray(pixels(20, 20)).quantize(8).save(file, "bmp")
    return file.getvalue()


def black(count, height, width, channels=3):
    return np.zeros((count, height, width, channels), np.uint8)


def gif_smaller_than_its_screen():
    file = bytearray(encoded(black(1, 30, 30)[0], "gif"))
    file[6:10] = struct.pack("<HH", 40, 30)
    return bytes(file)


NO_IMAGE = "JPEG, PNG, BMP, GIF or WebP"
SMALL = rf"at least {MINIMUM} pixels a side"
LARGE = r"at most 32768 in all"
THIN = rf"resized to {SIZE} pixels.* at least {MINIMUM} pixels on its shorter side\] \[400\] \[29\]"
#: Case -> signature, inputs, regular expression that the error must match.
BAD = {
    "not an image": ("encoded", {"images": batch(b"good day")}, NO_IMAGE),
    "no bytes": ("encoded", {"images": batch(b"")}, NO_IMAGE),
    "half a file": ("encoded", {"images": batch(encoded(pixels(40, 40))[:60])}, "Invalid PNG"),
    "one bad file of two": ("encoded", {"images": batch(encoded(pixels(9, 9)), b"x")}, NO_IMAGE),
    "huge header": ("encoded", {"images": batch(huge_png())}, LARGE),
    "a file of many bytes": (
        "encoded",
        {"images": batch(encoded(black(1, 9, 9)[0]) + bytes(2**16))},
        "at most 65536 bytes",
    ),
    "a palette": ("encoded", {"images": batch(with_a_palette())}, "24 or 32 bits per pixel"),
    "a frame above its header": ("encoded", {"images": batch(gif_with_a_frame_above_its_header())}, LARGE),
    "a frame below its screen": (
        "encoded",
        {"images": batch(gif_smaller_than_its_screen())},
        "GIF.*must fill its screen",
    ),
    "an elongated file": ("encoded", {"images": batch(encoded(black(1, 400, 29)[0]))}, THIN),
    "an elongated JPEG": ("encoded", {"images": batch(encoded(black(1, 400, 29)[0], "jpeg"))}, THIN),
    "file too large": ("encoded", {"images": batch(encoded(black(1, 200, 200)[0]))}, LARGE),
    "file of one pixel": ("encoded", {"images": batch(encoded(black(1, 1, 1)[0]))}, SMALL),
    "no file": ("encoded", {"images": batch()}, "images: .*from 1 to 16 images"),
    "zero size": ("", {"images": black(1, 0, 0)}, SMALL),
    "one pixel": ("", {"images": black(1, 1, 1)}, SMALL),
    "a line": ("content", {"images": black(1, 3, 50)}, SMALL),
    "too large": ("", {"images": black(1, 129, 256)}, LARGE),
    "no image": ("", {"images": black(0, 16, 16)}, "images: .*from 1 to 16 images"),
    "content too large in all": (
        "content",
        {"images": black(2, 128, 129)},
        "content.*at most 32768 pixels in all",
    ),
    "too many": ("content", {"images": black(17, 8, 8)}, "images: .*from 1 to 16 images"),
    "no batch axis": ("", {"images": black(1, 16, 16)[0]}, rf"{SMALL} and {LARGE}\] \[16\] \[3\]"),
    "four channels": ("", {"images": black(1, 16, 16, 4)}, r"shapes: \[1,16,16,4\] vs\. \[3\]"),
    "floats": ("", {"images": black(1, 16, 16).astype("f4")}, "DT_UINT8"),
    "no style": ("stylize", {"content": black(1, 16, 16), "steps": steps(1)}, r"required: \{style\}"),
    "steps 0": ("stylize", {"steps": steps(0)}, "steps.*from 1 to 20"),
    "steps -1": ("stylize", {"steps": steps(-1)}, "steps.*from 1 to 20"),
    "too many steps": ("stylize", {"steps": steps(21)}, "steps.*from 1 to 20"),
    "two steps": ("stylize", {"steps": steps(1, 1)}, "content, style and steps.*same batch size"),
    "no steps": ("stylize", {"steps": steps()}, "content, style and steps.*same batch size"),
    "style too small": ("stylize", {"style": black(1, 2, 40)}, rf"style: .*{SMALL}"),
    "content too large": ("stylize", {"content": black(1, 257, 256)}, "content: .*at most 65536 in all"),
    "no content image": ("stylize", {"content": black(0, 8, 8)}, "content: .*from 1 to 16 images"),
    "too many content images": (
        "stylize",
        {"content": black(4, 8, 8), "style": black(4, 8, 8), "steps": steps(1, 1, 1, 1)},
        "content: .*at most 3 images",
    ),
    "unknown signature": ("paint", {"images": black(1, 16, 16)}, '"paint" not found'),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_refused_with_its_limit_and_the_next_request_succeeds(ask, case):
    signature, inputs, pattern = BAD[case]
    if signature == "stylize" and case != "no style":
        good = {"content": black(1, 16, 16), "style": black(1, 16, 16), "steps": steps(1)}
        inputs = good | inputs
    with pytest.raises(grpc.RpcError) as caught:
        ask(signature, **inputs)
    refused = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
    assert caught.value.code() in refused, caught.value
    assert re.search(pattern, caught.value.details())
    white = np.full((1, 8, 8, 3), 255, np.uint8)
    assert ask(images=white)["conv1_1"].shape == (1, 64, 64)


def test_concurrent_stylize_requests_give_the_same_outputs_as_single_ones(ask):
    requests = [
        {"content": pixels(40, 56, 2)[None], "style": pixels(48, 44, 3)[None], "steps": steps(5)},
        {"content": pixels(50, 42, 4)[None], "style": pixels(30, 61, 5)[None], "steps": steps(7)},
    ]
    alone = [ask("stylize", **request) for request in requests]
    together = [None, None]

    def run(index):
        together[index] = ask("stylize", **requests[index])

    threads = [threading.Thread(target=run, args=[index]) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for expected, outputs in zip(alone, together, strict=True):
        np.testing.assert_allclose(outputs["loss"], expected["loss"], rtol=1e-4)
        assert np.abs(outputs["image"].astype(int) - expected["image"]).max() <= 1


def test_both_json_formats_give_the_same_outputs(ask, post):
    images = np.stack([pixels(12, 10, seed) for seed in (1, 2)])
    expected = ask(images=images)
    for document in ({"inputs": images.tolist()}, {"inputs": {"images": images.tolist()}}):
        code, reply = post("/v1/models/small:predict", document)
        assert code == 200
        assert_close({k: np.array(v) for k, v in reply["outputs"].items()}, expected)
    for rows in (images.tolist(), [{"images": image} for image in images.tolist()]):
        code, reply = post("/v1/models/small/versions/1:predict", {"instances": rows})
        assert code == 200
        stacked = {k: np.array([row[k] for row in reply["predictions"]]) for k in expected}
        assert_close(stacked, expected)


def test_json_has_files_in_base64_and_a_single_output_without_a_name(ask, post):
    file = encoded(pixels(SIZE, 40))
    in_json = {"b64": base64.b64encode(file).decode()}
    document = {"signature_name": "encoded", "instances": [in_json, {"b64": in_json["b64"]}]}
    code, reply = post("/v1/models/small:predict", document)
    expected = ask("encoded", images=batch(file, file))
    assert code == 200
    assert_close({k: np.array([row[k] for row in reply["predictions"]]) for k in expected}, expected)
    image = pixels(8, 12)[None]
    document = {"signature_name": "content", "inputs": image.tolist()}
    code, reply = post("/v1/models/small:predict", document)
    assert reference.relative_error(reply["outputs"], ask("content", images=image)["conv2_2"]) < TOLERANCE


def test_errors_over_rest(post):
    predict = "/v1/models/small:predict"
    code, reply = post(predict, {"inputs": black(1, 1, 1).tolist()})
    assert code == 400
    assert SMALL in reply["error"]
    for document in (
        {},
        [],
        {"inputs": 1, "instances": [1]},
        {"instances": [[[1], [1, 2]]]},
        {"inputs": ["a"]},
    ):
        assert post(predict, document)[0] == 400
    assert post(predict, {"signature_name": "encoded", "inputs": [{"b64": "%"}]})[0] == 400
    assert post(predict, {"signature_name": "stylize", "inputs": [1]})[0] == 400
    code, reply = post("/v1/models/other:predict", {"inputs": [1]})
    assert code == 404
    assert "other" in reply["error"]
    assert post("/v1/models/small/versions/9")[0] == 404
    assert post("/v1/models/small")[1]["model_version_status"][0]["state"] == "AVAILABLE"


def test_the_metadata_of_the_server_agrees_with_the_contract_of_the_model(model, post):
    contract = json.loads((model / "assets.extra" / "tfstyle.json").read_text("utf-8"))
    served = post("/v1/models/small/metadata")[1]["metadata"]["signature_def"]["signature_def"]
    assert set(contract["signatures"]) == {"serving_default", "encoded", "content", "stylize"}
    served.pop("__saved_model_init_op", None)
    assert set(served) == set(contract["signatures"])
    kinds = {"DT_FLOAT": "float32", "DT_UINT8": "uint8", "DT_INT32": "int32", "DT_STRING": "string"}
    for name, signature in served.items():
        for side in ("inputs", "outputs"):
            assert {
                key: (kinds[info["dtype"]], [int(dim["size"]) for dim in info["tensor_shape"]["dim"]])
                for key, info in signature[side].items()
            } == {
                key: (info["dtype"], info["shape"])
                for key, info in contract["signatures"][name][side].items()
            }


def test_every_operation_is_in_tensorflow_and_none_must_be_compiled(graph):
    code = "import json; from tests.contract import session; print(json.dumps(sorted(session.core_ops())))"
    listing = subprocess.run([sys.executable, "-c", code], cwd=double.ROOT, capture_output=True, check=True)
    nodes = list(messages.nodes(graph))
    used = {op for op, _ in nodes} - {"function"}
    assert {"Conv2D", "BatchMatMulV2", "DecodeImage", "DecodeJpeg"} <= used, used
    assert {"While", "StatelessWhile"} & used, used
    assert len(used) > 50
    assert used - messages.functions(graph) <= set(json.loads(listing.stdout))
    compiled = [attributes["_XlaMustCompile"] for _, attributes in nodes if "_XlaMustCompile" in attributes]
    assert not [value for value in compiled if wire.last(value, 5, 0)]


def test_each_signature_has_a_warm_up_request_that_succeeds(model, ask, tmp_path):
    path = model / "assets.extra" / "tf_serving_warmup_requests"
    requests = messages.warmup_requests(path)
    assert {request.signature for request in requests} == {"serving_default", "encoded", "content", "stylize"}
    assert {request.model for request in requests} == {"small"}
    assert len(list(tf.data.TFRecordDataset(str(path)))) == len(requests)
    for request in requests:
        outputs = ask(request.signature, **request.inputs)
        assert all(np.isfinite(value).all() and value.any() for value in outputs.values())
    corrupt = bytearray(path.read_bytes())
    corrupt[100] ^= 1
    (tmp_path / "corrupt").write_bytes(corrupt)
    with pytest.raises(ValueError, match="checksum"):
        messages.warmup_requests(tmp_path / "corrupt")


@pytest.mark.slow
def test_saved_model_cli_shows_and_runs_every_signature(model, ask, tmp_path):
    inputs = {
        "serving_default": {"images": pixels(14, 11)[None]},
        "encoded": {"images": batch(encoded(pixels(14, 11)))},
        "content": {"images": pixels(14, 11)[None]},
        "stylize": {"content": pixels(14, 11)[None], "style": pixels(9, 12)[None], "steps": steps(2)},
    }
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    folder = ["--dir", str(model)]
    shown = subprocess.run([*command, "show", *folder, "--all"], capture_output=True, text=True, check=True)
    for name, arrays in inputs.items():
        assert f"signature_def['{name}']" in shown.stdout
        (tmp_path / name).mkdir()
        np.savez(
            tmp_path / name / "inputs.npz", **arrays
        )  # bytes are stored as objects, which the tool can read
        sources = ";".join(f"{key}={tmp_path / name / 'inputs.npz'}[{key}]" for key in arrays)
        subprocess.run(
            [*command, "run", *folder, "--tag_set", "serve", "--signature_def", name, "--inputs", sources,
             "--outdir", str(tmp_path / name)],
            capture_output=True, check=True,
        )  # fmt: skip
        expected = ask(name, **arrays)
        assert_close({key: np.load(tmp_path / name / f"{key}.npy") for key in expected}, expected, 1e-4)


def test_each_weight_is_stored_in_exactly_one_variable(model, small_weights):
    path = str(model / "variables" / "variables")
    stored = [
        tf.train.load_variable(path, name)
        for name, _ in tf.train.list_variables(path)
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
    ]
    weights = list(small_weights.arrays.values())
    assert len(stored) == len(weights) == 8
    assert sum(array.nbytes for array in stored) == sum(array.nbytes for array in weights)
    for weight in weights:
        copies = [weight.shape == array.shape and np.array_equal(weight, array) for array in stored]
        assert sum(copies) == 1


def test_the_highest_version_is_served_and_float16_takes_half_the_space(extractor, models, ask, tmp_path):
    image = pixels(16, 20)[None]
    for version in (9, 10):  # 10 is higher as a number, but lower in alphabetical order
        precision = "float16" if version == 10 else "float32"
        extractor.export(tmp_path, name="half", version=version, precision=precision, limits=LIMITS)
    with double.running(tmp_path, "half") as running, grpc.insecure_channel(running.grpc_target) as channel:
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        request = messages.PredictRequest("half", {"images": image}).encode()
        reply = messages.PredictResponse.decode(predict(request, timeout=120))
    assert reply.version == 10
    sizes = [
        (tmp_path / "half" / v / "variables" / "variables.data-00000-of-00001").stat().st_size
        for v in ("9", "10")
    ]
    assert sizes[1] < 0.51 * sizes[0]
    assert_close(reply.outputs, ask(images=image), 2e-3)  # float16 has eleven significant bits

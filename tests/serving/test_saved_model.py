"""The files of an exported SavedModel (layout, weights, licence, contract), and errors of an export.

test_serving.py tests what the model computes in a graph session.
"""

import json
import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.conftest import make_image
from tests.contract import messages
from tfstyle import StyleExtractor
from tfstyle.backend import KERAS_2
from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError, OutputError, RunError
from tfstyle.layers import NETWORKS
from tfstyle.network import weights
from tfstyle.run import make_objective, scale_shapes
from tfstyle.serving import Limits, Signatures
from tfstyle.serving import saved_model as export
from tfstyle.serving.graph_transfer import _scale_count, stylize_objective


@pytest.fixture(scope="module")
def extractor(small_weights):
    return StyleExtractor(("conv1_1", "conv2_1"), small_weights, content_layers=("conv2_2",), size=32)


@pytest.fixture(scope="module")
def exported(extractor, tmp_path_factory):
    return extractor.export(tmp_path_factory.mktemp("models"))


def stored_variables(path):
    """Return name -> shape and type of every variable of a SavedModel, without the checkpoint's metadata."""
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    kinds = reader.get_variable_to_dtype_map()
    shapes = reader.get_variable_to_shape_map()
    return {name: (shapes[name], kinds[name]) for name in shapes if kinds[name] != tf.string}


def test_the_layout_is_that_of_tensorflow_serving(exported):
    assert exported.parts[-2:] == ("tfstyle", "1")
    assert (exported / "saved_model.pb").is_file()
    assert {p.name for p in (exported / "assets.extra").iterdir()} == {
        "tfstyle.json", "WEIGHTS.md", "tf_serving_warmup_requests",
    }  # fmt: skip
    assert [p.name for p in exported.parent.iterdir()] == ["1"]  # nothing temporary


def test_each_weight_is_stored_once(exported, small_weights):
    shapes = sorted(shape for shape, _ in stored_variables(exported).values())
    assert shapes == sorted(list(array.shape) for array in small_weights.arrays.values())
    data = exported / "variables" / "variables.data-00000-of-00001"
    expected = sum(array.nbytes for array in small_weights.arrays.values())
    assert expected <= data.stat().st_size < expected + 10_000


@pytest.mark.skipif(KERAS_2, reason="only Keras 3 does this; Keras 2.15 stores TensorFlow's own variables")
@pytest.mark.parametrize("track", [True, False])
def test_an_archive_that_tracks_a_model_would_store_each_weight_twice(tmp_path, track):
    """A known fault of an export, which `stored_variables` must detect."""
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(300)])
    archive = keras.export.ExportArchive()
    if track:
        archive.track(model)
    archive.add_endpoint("serve", lambda x: model(x), input_signature=[tf.TensorSpec([None, 4])])
    archive.write_out(str(tmp_path / "model"), verbose=False)
    shapes = sorted(shape for shape, _ in stored_variables(tmp_path / "model").values())
    assert shapes == sorted([[4, 300], [300]] * (2 if track else 1))
    data = tmp_path / "model" / "variables" / "variables.data-00000-of-00001"
    assert (data.stat().st_size > 2 * 4 * 1500) == track


@pytest.mark.slow
def test_an_export_with_the_default_layers_takes_52_megabytes(tmp_path):
    """The layers conv1_1 to conv5_1 have 12.9 million weights."""
    path = StyleExtractor(weights="random").export(tmp_path)
    kernels = [layer.kernel_shape for layer in NETWORKS["vgg19"][:13]]
    count = sum(9 * inputs * filters + filters for _, _, inputs, filters in kernels)
    size = (path / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert 4 * count <= size < 4 * count + 20_000
    assert 51e6 < size < 53e6
    assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) < 56e6


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_takes_half_the_space(extractor, exported, tmp_path, precision):
    path = extractor.export(tmp_path, precision=precision)
    sizes = [(p / "variables" / "variables.data-00000-of-00001").stat().st_size for p in (path, exported)]
    assert 0.49 < sizes[0] / sizes[1] < 0.52
    pixels = (make_image(20, 24)[None] * 255).astype(np.uint8)
    outputs = tf.saved_model.load(str(path)).signatures["serving_default"](images=tf.constant(pixels))
    expected = extractor(pixels)
    limit = {"float16": 2e-3, "bfloat16": 2e-2}[precision]  # their unit roundoffs are 2^-11 and 2^-8
    for name, value in expected.items():
        error = float(tf.norm(outputs[name] - value) / tf.norm(value))
        assert 1e-6 < error < limit, name


def test_versions(extractor, tmp_path):
    (tmp_path / "mine" / "7").mkdir(parents=True)
    assert extractor.export(tmp_path, name="mine").name == "8"
    assert extractor.export(str(tmp_path), name="mine", version=3).name == "3"
    with pytest.raises(OutputError, match=r"mine.3 exists.*overwrite"):
        extractor.export(tmp_path, name="mine", version=3)
    with pytest.raises(ConfigError, match=r"version is '3'.*whole number"):
        extractor.export(tmp_path, name="mine", version="3")
    before = (tmp_path / "mine" / "3" / "saved_model.pb").stat().st_mtime_ns
    extractor.export(tmp_path, name="mine", version=3, overwrite=True)
    assert (tmp_path / "mine" / "3" / "saved_model.pb").stat().st_mtime_ns > before
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["3", "7", "8"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a/b"}, "name.*'a/b'.*letters"),
        ({"name": ""}, "name.*''.*letters"),
        ({"name": ".hidden"}, "name.*'.hidden'.*letters"),
        ({"version": 0}, "version is 0.*from 1"),
        ({"precision": "int8"}, "precision is 'int8'.*float32, float16, bfloat16"),
    ],
)
def test_wrong_options(extractor, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        extractor.export(tmp_path, **options)


def test_impossible_limits_are_refused(extractor, tmp_path):
    for name, value in (("max_batch", 0), ("max_pixels", 1e6)):
        with pytest.raises(ConfigError, match=f"{name} is {value}.*whole number from 1"):
            Limits(**{name: value})
    with pytest.raises(ConfigError, match=r"^max_pixels is 15.*at least 16\b"):
        extractor.export(tmp_path, limits=Limits(max_pixels=15))
    small = StyleExtractor(("conv1_1", "conv2_1"), extractor.encoder.weights, size=3)
    with pytest.raises(ConfigError, match=r"size is 3.*at least 4\b"):
        small.export(tmp_path)
    assert not list(tmp_path.iterdir())


def test_warm_up_requests_are_within_the_smallest_possible_limits(extractor, tmp_path):
    """A server does not serve a model whose warm-up requests fail."""
    side = extractor.minimum_size
    limits = Limits(
        max_pixels=side**2, max_batch=1, stylize_max_pixels=side**2, stylize_max_steps=1,
        stylize_max_batch=1, max_file_bytes=500,
    )  # fmt: skip
    path = extractor.export(tmp_path, limits=limits)
    model = tf.saved_model.load(str(path))
    requests = messages.warmup_requests(path / "assets.extra" / "tf_serving_warmup_requests")
    assert {request.signature for request in requests} == set(model.signatures)
    for request in requests:
        inputs = {name: tf.constant(value) for name, value in request.inputs.items()}
        for value in model.signatures[request.signature](**inputs).values():
            assert np.isfinite(value).all()


def test_a_folder_that_cannot_be_created(extractor, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot.*file.tfstyle"):
        extractor.export(tmp_path / "file")


def test_an_export_that_fails_leaves_nothing(extractor, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "prediction_log", fail)
    with pytest.raises(RunError, match=r"tfstyle.1\b.*No space left"):
        extractor.export(tmp_path)
    assert list((tmp_path / "tfstyle").iterdir()) == []
    old = tmp_path / "tfstyle" / "1"
    old.mkdir()
    with pytest.raises(RunError, match=r"tfstyle.1\b.*No space left"):
        extractor.export(tmp_path, version=1, overwrite=True)
    assert list((tmp_path / "tfstyle").iterdir()) == [old]


def test_the_contract_describes_the_model(exported, extractor):
    contract = json.loads((exported / "assets.extra" / "tfstyle.json").read_text(encoding="utf-8"))
    assert contract["limits"]["stylize_max_steps"] == 500
    assert contract["made_with"] == extractor.describe()
    assert (contract["size"], contract["minimum_size"], contract["name"]) == (32, 4, "tfstyle")
    model = tf.saved_model.load(str(exported))
    assert set(contract["signatures"]) == set(model.signatures) == {
        "serving_default", "encoded", "content", "stylize",
    }  # fmt: skip
    for name, signature in model.signatures.items():
        described = contract["signatures"][name]
        inputs = {spec.name: spec for spec in signature.structured_input_signature[1].values()}
        for side, specs in (("inputs", inputs), ("outputs", signature.structured_outputs)):
            assert set(described[side]) == set(specs)
            for key, spec in specs.items():
                assert described[side][key]["dtype"] == spec.dtype.name
                assert described[side][key]["shape"] == [-1 if n is None else n for n in spec.shape]
    assert set(model.signatures["content"].structured_outputs) == {"conv2_2"}
    assert set(model.signatures["encoded"].structured_outputs) == {"conv1_1", "conv2_1", "embedding"}


@pytest.mark.parametrize("limits", [Limits(max_batch=2, stylize_max_batch=5), Limits(stylize_max_batch=2)])
def test_the_contract_states_the_smaller_of_two_limits(extractor, limits):
    module = Signatures(
        extractor.encoder,
        style_layers=extractor.layers,
        content_layers=("conv2_2",),
        embedding_size=16,
        views=1,
        size=32,
        precision="float32",
        limits=limits,
    )
    assert "at most 2;" in export._holds("stylize", "content", module)
    images = tf.zeros([3, 8, 8, 3], tf.uint8)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"content.*(from 1 to|at most) 2 images"):
        module._stylize(images, images, tf.ones([3], tf.int32))


@pytest.mark.parametrize(
    ("source", "pattern"),
    [
        ("imagenet", "Creative Commons"),
        ("embedded", r"CC0 1\.0"),
        ("mine.npz", r"mine\.npz, SHA-256 ab12"),
        ("random", "random numbers.*no licence"),
    ],
)
def test_an_export_contains_the_licence_of_the_weights(small_weights, tmp_path, source, pattern):
    labelled = weights.Weights(small_weights.arrays, source, sha256="ab12")
    path = StyleExtractor(("conv1_1",), labelled).export(tmp_path)
    assert re.search(pattern, (path / "assets.extra" / "WEIGHTS.md").read_text(encoding="utf-8"))


@pytest.mark.weights
@pytest.mark.parametrize("kind", ["whole", "half", "one layer", "other layers above", "changed"])
def test_the_imagenet_weights_in_a_file_keep_their_licence(data, tmp_path, kind):
    imagenet = weights.load_weights(data / "weights" / "vgg19_imagenet_block1-3.npz")
    arrays = {key: array for key, array in imagenet.arrays.items() if key[:6] == "block1"}
    if kind == "one layer":
        arrays = {key: array for key, array in arrays.items() if "conv1" in key}
    if kind == "other layers above":
        arrays["block1_conv2/kernel"] = arrays["block1_conv2/kernel"] + np.float32(0.1)
    if kind == "changed":
        arrays["block1_conv1/kernel"] = arrays["block1_conv1/kernel"] + np.float32(0.1)
    weights.Weights(arrays, "a file").save(tmp_path / "mine.npz", half=kind == "half")
    read = weights.load_weights(tmp_path / "mine.npz")
    licence = export._licence(SimpleNamespace(weights=read))
    assert ("Creative Commons" in licence and "Karen Simonyan" in licence) == (kind != "changed")
    assert f"mine.npz, SHA-256 {read.sha256}" in licence


def test_without_a_content_layer_two_signatures_are_left_out(small_weights, tmp_path, caplog):
    path = StyleExtractor(weights=small_weights).export(tmp_path)
    assert set(tf.saved_model.load(str(path)).signatures) == {"serving_default", "encoded"}
    (warning,) = [record.message for record in caplog.records if "left out" in record.message]
    assert re.search("content and stylize.*content_layers.*conv3_2.*small", warning)


@pytest.mark.parametrize(
    "shape", [(16, 16), (100, 181), (182, 90), (60, 512), (700, 1024), (33, 4096)], ids=str
)
def test_the_number_of_scales_is_that_of_the_library(shape):
    """The shorter side of some shapes is too small for the coarsest scales."""
    for minimum in (4, 16, 32):
        count = int(_scale_count(tf.constant(shape, tf.float32), float(minimum)))
        expected = len(scale_shapes(shape, StyleConfig(), minimum=minimum)) if min(shape) >= minimum else 0
        assert count == expected


@pytest.fixture(scope="module")
def terms_of_any_size(small_encoder):
    """The terms and the gradient of the exported model's objective, in a graph for images of any size."""
    objective = stylize_objective(
        small_encoder.features, content_layers=("conv2_2",), style_layers=("conv1_1", "conv2_1")
    )

    @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3])] * 3, autograph=False)
    def evaluate(image, content, style):
        targets = objective.targets(content, [objective.style_summary(style)])
        with tf.GradientTape() as tape:
            tape.watch(image)
            terms = objective(image, targets)
        return terms, tape.gradient(terms["total"], image)

    return evaluate


@pytest.mark.parametrize(
    ("shape", "style_shape"),
    [((40, 48), (36, 33)), ((31, 48), (36, 33)), ((40, 48), (44, 31)), ((20, 24), (16, 18))],
    ids=["both large", "small content image", "small style image", "both small"],
)
def test_the_objective_of_stylize_is_that_of_a_run(terms_of_any_size, small_encoder, shape, style_shape):
    """Images with a side below 32 pixels have no local spectrum, even if the graph does not know it."""
    config = StyleConfig()
    image, content, style = (
        tf.constant(make_image(*size, seed)[None]) for seed, size in enumerate((shape, shape, style_shape))
    )
    objective = make_objective(
        config, small_encoder.features, content_layers=("conv2_2",), style_layers=("conv1_1", "conv2_1")
    )
    with tf.GradientTape() as tape:
        tape.watch(image)
        expected = objective(image, objective.targets(content, [objective.style_summary(style)]))
    terms, gradient = terms_of_any_size(image, content, style)
    spectrum = 0.0
    if min(*shape, *style_shape) >= 32:
        difference = np.subtract(*(reference.local_spectrum(x[0].numpy()) for x in (image, style)))
        spectrum = config.spectrum_weight * np.mean(difference**2)
    assert ("spectrum" in expected) == (spectrum > 0)
    assert float(terms["spectrum"]) == pytest.approx(spectrum, rel=1e-3)
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(float(value), rel=1e-5), name
    assert reference.relative_error(gradient, tape.gradient(expected["total"], image).numpy()) < 1e-5


def test_a_model_with_ten_views(small_weights, tmp_path):
    extractor = StyleExtractor(("conv1_1",), small_weights, views=10, embedding_size=None)
    path = extractor.export(tmp_path)
    pixels = (make_image(16, 24)[None] * 255).astype(np.uint8)
    outputs = tf.saved_model.load(str(path)).signatures["serving_default"](images=tf.constant(pixels))
    for name, value in extractor(pixels).items():
        assert float(tf.norm(outputs[name] - value) / tf.norm(value)) < 1e-5

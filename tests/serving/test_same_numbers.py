"""The same image has the same Gram matrices in Python, in a run, in an extractor and in an exported model."""

import inspect
import json

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.conftest import make_image
from tfstyle import Encoder, StyleConfig, StyleExtractor, gram_matrix
from tfstyle.cli import main
from tfstyle.run import Run


@pytest.fixture(scope="module")
def image():
    return np.round(make_image(32, 48, seed=5) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def extractor(small_file):
    return StyleExtractor(weights=str(small_file))


@pytest.fixture(scope="module")
def exported(extractor, tmp_path_factory):
    return extractor.export(tmp_path_factory.mktemp("models"))


def test_all_defaults_give_the_same_gram_matrices(image, extractor, exported, small_file, small_weights):
    run = Run(image, image, StyleConfig(weights=str(small_file), precision="float32", scales=1))
    assert (run.facts["pooling"], run.facts["padding"]) == (StyleConfig().pooling, StyleConfig().padding)
    layers = run.facts["style_layers"]
    assert layers == extractor.layers
    [scale] = run.scales
    targets = run._targets.compute(scale, run.layouts[0]).styles[0]
    encoder = Encoder(layers, str(small_file))
    features = encoder(image[None])
    numbers = extractor(image)
    served = tf.saved_model.load(str(exported)).signatures["serving_default"](images=tf.constant(image[None]))
    pixels = (image / 255).astype(np.float32)
    slow = reference.features(pixels, small_weights.arrays, 3, encoder.pooling, encoder.padding)
    for layer, index in (("conv1_1", 0), ("conv2_1", 2)):
        expected = reference.gram(slow[index])
        for gram in (gram_matrix(features[layer]), targets[layer][0], numbers[layer], served[layer]):
            assert reference.relative_error(np.asarray(gram)[0], expected) < 1e-5


def test_one_pooling_and_padding_is_the_default_everywhere(exported):
    config = StyleConfig()
    contract = json.loads((exported / "assets.extra" / "tfstyle.json").read_text(encoding="utf-8"))
    for name in ("pooling", "padding"):
        default = getattr(config, name)
        for function in (Encoder, StyleExtractor):
            assert inspect.signature(function).parameters[name].default == default
        assert contract[name] == contract["made_with"][name] == default
    assert config.pooling == "avg"


@pytest.mark.parametrize("kind", ["style", "model"])
def test_info_names_the_pooling_and_padding_of_a_file(small_file, tmp_path, capsys, image, kind):
    extractor = StyleExtractor(["conv1_1", "conv2_1"], str(small_file), pooling="max", padding="zeros")
    if kind == "style":
        extractor.style(image, "waves").save(tmp_path / "file.npz")
    path = tmp_path / "file.npz" if kind == "style" else extractor.export(tmp_path).parent
    assert main(["info", str(path)]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["pooling"] == "max"
    assert lines["padding"] == "zeros"
    assert lines["layers"] == "conv1_1, conv2_1"
    assert lines["weights"].endswith("small.npz")
    assert lines.get("styles", "waves") == "waves"


def test_info_refuses_other_files(tmp_path, capsys):
    (tmp_path / "image.npz").write_bytes(b"no style")
    for path, message in (
        (tmp_path / "image.npz", "is not a style file"),
        (tmp_path / "no", "no such style"),
    ):
        assert main(["info", str(path)]) == 2
        assert message in capsys.readouterr().err

"""The sources of weights, and the checks of files and names."""

import hashlib
import re
import runpy
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest

from tests.conftest import write_noise_wheels
from tfstyle import Encoder, StyleExtractor, stylize
from tfstyle.errors import ConfigError, WeightsError
from tfstyle.images import load
from tfstyle.layers import NETWORKS, Layer
from tfstyle.network import download, weights


def test_the_shapes_are_those_of_keras(whole_network):
    for layer in whole_network.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            assert (*kernel.shape[2:], *bias.shape) == (
                *Layer.parse(layer.name).kernel_shape[2:],
                Layer.parse(layer.name).filters,
            )
    assert len(NETWORKS["vgg19"]) == sum(bool(layer.weights) for layer in whole_network.layers)


@pytest.mark.parametrize("name", ["whole.h5", "only.weights.h5"])
def test_keras_files(whole_network, tmp_path, name):
    (whole_network.save_weights if "weights" in name else whole_network.save)(tmp_path / name)
    loaded = weights.load_weights(tmp_path / name)
    assert loaded.layers == NETWORKS["vgg19"]
    for layer in whole_network.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            assert np.array_equal(loaded.arrays[f"{layer.name}/kernel"], kernel)
            assert np.array_equal(loaded.arrays[f"{layer.name}/bias"], bias)


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_npz_and_safetensors_with_the_lower_layers_only(small_weights, tmp_path, dtype):
    from safetensors.numpy import save_file

    arrays = {key: array.astype(dtype) for key, array in small_weights.arrays.items()}
    np.savez(tmp_path / "a.npz", **arrays)
    save_file(arrays, tmp_path / "a.safetensors")
    for name in ("a.npz", "a.safetensors"):
        loaded = weights.load_weights(tmp_path / name)
        assert loaded.layers == NETWORKS["vgg19"][:4]
        assert loaded.source == name
        assert loaded.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for key, array in loaded.arrays.items():
            assert array.dtype == np.float32
            assert np.array_equal(array, arrays[key].astype("f4"))


def test_the_suffix_may_have_capitals(small_weights, tmp_path):
    small_weights.save(tmp_path / "a.NPZ")
    assert weights.load_weights(tmp_path / "a.NPZ").layers == small_weights.layers
    with h5py.File(tmp_path / "a.H5", "w") as file:
        for key, array in small_weights.arrays.items():
            file[key] = array
    assert weights.load_weights(tmp_path / "a.H5").layers == small_weights.layers


@pytest.mark.parametrize(
    "function",
    [
        lambda network: weights.random_weights(network=network),
        weights.imagenet_weights,
        weights.auto_weights,
        lambda network: weights.read_weights(weights.EMBEDDED, network),
        lambda network: weights.load_weights("random", network=network),
        lambda network: Encoder(["conv1_1"], "random", network=network),
        download.imagenet_cache,
    ],
)
def test_an_unknown_network_is_named(function):
    with pytest.raises(ConfigError, match=r"network is 'vgg11' \(did you mean .*it can be vgg19, vgg16"):
        function("vgg11")


def test_another_network_is_refused(tmp_path):
    """VGG-16 lacks the fourth convolution of blocks 3 to 5."""
    keras.applications.VGG16(include_top=False, weights=None).save(tmp_path / "a.h5")
    with pytest.raises(WeightsError, match=r"a\.h5.* block3_conv4/kernel is missing.* VGG-19 "):
        weights.load_weights(tmp_path / "a.h5")


def test_vgg16_has_its_own_shapes_and_files(tmp_path):
    vgg16 = keras.applications.VGG16(include_top=False, weights=None)
    shapes = {layer.name: (*layer.kernel.shape[2:],) for layer in vgg16.layers if layer.weights}
    assert {layer.keras_name: layer.kernel_shape[2:] for layer in NETWORKS["vgg16"]} == shapes
    assert len(shapes) == 13
    vgg16.save(tmp_path / "a.h5")
    vgg16.save_weights(tmp_path / "a.weights.h5")
    for name in ("a.h5", "a.weights.h5"):
        loaded = weights.load_weights(tmp_path / name, network="vgg16")
        assert loaded.network == "vgg16"
        assert [layer.keras_name for layer in loaded.layers] == list(shapes)
        for layer in shapes:
            assert np.array_equal(loaded.arrays[f"{layer}/kernel"], vgg16.get_layer(layer).get_weights()[0])
    loaded.save(tmp_path / "b.npz")
    assert weights.load_weights(tmp_path / "b.npz", network="vgg16").digests == loaded.digests


@pytest.mark.parametrize("name", ["whole.h5", "only.weights.h5", "a.npz"])
def test_vgg19_is_not_taken_for_vgg16(whole_network, tmp_path, name):
    if name.endswith("npz"):
        lower = weights.random_weights().arrays.items()
        np.savez(tmp_path / name, **{key: array for key, array in lower if key[5] in "123"})
    else:
        (whole_network.save_weights if "weights" in name else whole_network.save)(tmp_path / name)
    assert weights.load_weights(tmp_path / name).network == "vgg19"
    with pytest.raises(WeightsError, match=rf"{re.escape(name)}: .*block[34]_conv[14]/kernel.* VGG-16"):
        weights.load_weights(tmp_path / name, network="vgg16")


def test_lower_layers_are_the_same_in_both_networks(small_weights, tmp_path):
    small_weights.save(tmp_path / "a.npz")
    loaded = weights.load_weights(tmp_path / "a.npz", network="vgg16")
    assert loaded.layers == NETWORKS["vgg19"][:4]
    assert Encoder(("conv2_2",), loaded, network="vgg16").weights is loaded


def test_embedded_weights_and_unknown_networks(small_weights, caplog):
    weights._warn_once.cache_clear()
    with pytest.raises(WeightsError, match=r"embedded.* VGG-19.* VGG-16; give imagenet, random"):
        weights.load_weights("embedded", network="vgg16")
    assert not caplog.records
    with pytest.raises(ConfigError, match=r"network.*'vgg11'.*vgg19, vgg16"):
        weights.load_weights("random", network="vgg11")
    assert small_weights.network == "vgg19"
    with pytest.raises(WeightsError, match=r"small.* VGG-19.* VGG-16"):
        weights.load_weights(small_weights, network="vgg16")


def test_an_optimizers_moments_are_not_taken_for_weights(whole_network, tmp_path):
    import h5py

    whole_network.save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        moments = file.create_group("optimizer_weights/adam/block1_conv1")
        moments["kernel"] = np.full((3, 3, 3, 64), 7, "f4")
    kernel = weights.load_weights(tmp_path / "a.h5").arrays["block1_conv1/kernel"]
    assert np.array_equal(kernel, whole_network.get_layer("block1_conv1").get_weights()[0])


def test_a_file_of_another_kind_is_refused(small_weights, tmp_path):
    np.save(tmp_path / "a.npy", small_weights.arrays["block1_conv1/bias"])
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(WeightsError, match=r"a\.npz: not a readable \.npz file"):
        weights.load_weights(tmp_path / "a.npz")


def changed(arrays, **changes):
    return {**arrays, **{key.replace("__", "/"): value for key, value in changes.items()}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a: changed(a, block1_conv2__kernel=np.zeros((3, 3, 2, 2))),
            r"block1_conv2/kernel .*\(3, 3, 2, 2\).*\(3, 3, 64, 64\)",
        ),
        (lambda a: {k: v for k, v in a.items() if k != "block2_conv1/bias"}, "block2_conv1/bias is missing"),
        (lambda a: changed(a, block1_conv1__bias=np.full(64, np.nan)), r"block1_conv1/bias.* finite"),
        (lambda a: changed(a, block1_conv1__bias=np.zeros(64, int)), r"conv1/bias.*int64.* floating-point"),
        (lambda a: {"gamma": np.zeros(3)}, r"gamma.* VGG-19; .*block1_conv1/kernel"),
        (lambda a: {"block1_conv1/kernel": np.array([{}], dtype=object)}, r"not a readable \.npz file"),
    ],
)  # fmt: skip
def test_files_of_something_else_are_refused(small_weights, tmp_path, change, message):
    np.savez(tmp_path / "a.npz", **change(dict(small_weights.arrays)))
    with pytest.raises(WeightsError, match=message) as caught:
        weights.load_weights(tmp_path / "a.npz")
    assert "a.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.safetensors"])
@pytest.mark.parametrize("part", [0, 0.3, 0.95])
def test_cut_off_files_are_refused(small_weights, whole_network, tmp_path, name, part):
    from safetensors.numpy import save_file

    path = tmp_path / name
    {"a.npz": lambda: np.savez(path, **small_weights.arrays), "a.h5": lambda: whole_network.save(path),
     "a.safetensors": lambda: save_file(dict(small_weights.arrays), path)}[name]()  # fmt: skip
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(WeightsError, match=rf"{name}: not a readable {path.suffix} file .*download"):
        weights.load_weights(path)


def test_missing_and_unknown_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere\.npz.*imagenet, embedded"):
        weights.load_weights(tmp_path / "nowhere.npz")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(WeightsError, match=r"a\.txt.*\.h5, \.npz, \.safetensors"):
        weights.load_weights(tmp_path / "a.txt")


@pytest.mark.parametrize("network", ["vgg19", "vgg16"])
def test_random_weights_are_seeded_and_scaled_as_he_et_al_say(network):
    first, again, other = (weights.load_weights("random", seed=seed, network=network) for seed in (3, 3, 4))
    assert first.layers == NETWORKS[network]
    for key, array in first.arrays.items():
        assert np.array_equal(array, again.arrays[key])
        if "kernel" in key:
            assert not np.array_equal(array, other.arrays[key])
            assert array.std() == pytest.approx(np.sqrt(2 / (9 * array.shape[2])), rel=0.05)
            assert array.mean((0, 1, 2)) == pytest.approx(0, abs=1e-6)


def test_embedded_weights_are_small_and_whole():
    embedded = weights.load_weights("embedded")
    assert embedded.source == "embedded"
    assert embedded.layer_names[-1] == "conv3_4"
    assert len(embedded.layers) == 8
    assert weights.EMBEDDED.stat().st_size <= 6_000_000


def test_embedded_weights_log_once_what_they_are(caplog):
    weights._warn_once.cache_clear()
    weights.load_weights("embedded")
    weights.load_weights("embedded")
    (record,) = caplog.records
    message = record.getMessage()
    for fragment in ("embedded weights", f"{weights.EMBEDDED_IMAGE_COUNT} photographs", "ImageNet weights"):
        assert fragment in message
    assert len(message) <= 120
    assert "\n" not in message


def test_the_origin_of_the_embedded_weights_is_written_beside_them():
    text = (weights.EMBEDDED.parent / "PROVENANCE.md").read_text(encoding="utf-8")
    assert weights.load_weights("embedded").sha256 in text
    script = runpy.run_path(str(weights.EMBEDDED.parent / "make_embedded.py"))
    names = [name for _, _, names in script["SOURCES"].values() for name in names.split()]
    assert len(names) == weights.EMBEDDED_IMAGE_COUNT
    for name in names:  # each with its licence
        assert re.search(rf"\| {re.escape(name)} \|.*(CC0|CC BY 2.0|public domain|no known)", text), name
    for version in (version for version, _, _ in script["SOURCES"].values()):
        assert version in text


@pytest.mark.slow
def test_embedded_weights_can_be_made_again(tmp_path):
    """With the script, from two wheels that contain noise images with the names of the photographs."""
    path = weights.EMBEDDED.parent / "make_embedded.py"
    write_noise_wheels(tmp_path, runpy.run_path(str(path))["SOURCES"], side=40)
    out = tmp_path / "made.npz"
    flags = ["-o", str(out), "--wheels", str(tmp_path), "--blocks", "1", "--patches", "2000"]
    subprocess.run([sys.executable, str(path), *flags], check=True)
    made = weights.load_weights(out)
    assert made.layer_names == ("conv1_1", "conv1_2")
    with np.load(out) as file:
        assert {file[key].dtype for key in made.arrays} == {np.dtype(np.float16)}


def test_a_pooling_entry_of_a_file_is_ignored(small_weights, tmp_path, content):
    """embedded.npz has such an entry. A run and an extractor use the pooling of their option."""
    path = tmp_path / "old.npz"
    np.savez(path, pooling="max", **small_weights.arrays)
    assert weights.load_weights(path).arrays.keys() == small_weights.arrays.keys()
    layers = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}
    options = {"size": 32, "iterations": 1, "compile": "eager", "precision": "float32", **layers}
    assert StyleExtractor(weights=path).encoder.pooling == "avg"
    assert stylize(content, content, weights=path, **options).facts["pooling"] == "avg"
    for pooling in ("avg", "max", "rescaled"):
        result = stylize(content, content, weights=path, pooling=pooling, **options)
        assert result.facts["pooling"] == pooling


@pytest.mark.slow
@pytest.mark.weights
def test_embedded_weights_come_much_nearer_to_the_style_than_random_ones(data):
    """Less than half the distance of random filters in the genuine network, and the content is kept."""
    from tests.benchmarks.embedded import Judge

    judge = Judge(
        Encoder(
            ("conv2_1", "conv3_1", "conv3_3", "conv3_4"), data / "weights" / "vgg19_imagenet_block1-3.npz"
        )
    )
    content, style = (
        load(data / "images" / name).fitted(160).on_white()
        for name in ("golden_gate.jpg", "starry_night_google.jpg")
    )
    layers = {"style_layers": ("conv1_1", "conv2_1", "conv3_1", "conv3_4"), "content_layers": ("conv3_3",)}
    learned = judge(stylize(content, style, weights="embedded", iterations=60).image, content, style)
    random = judge(stylize(content, style, weights="random", iterations=60, **layers).image, content, style)
    for embedded_distance, random_distance in zip(learned[:3], random[:3], strict=True):
        assert embedded_distance < random_distance / 2
    assert learned[3] < 1  # a uniform grey image has about 1

"""Extracted styles, which give the same run as their style image without encoding it again."""

import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.conftest import make_image
from tfstyle import Objective, Style, StyleConfig, StyleExtractor, stylize
from tfstyle.errors import ConfigError, ImageError, OutputError
from tfstyle.images import resize
from tfstyle.losses import save_styles
from tfstyle.run import Run

LAYERS = {"style_layers": ("conv1_1", "conv2_1"), "content_layers": ("conv2_2",)}


@pytest.fixture(scope="module")
def extractor(small_weights):
    return StyleExtractor(("conv1_1", "conv2_1"), small_weights, size=64)


@pytest.fixture(scope="module")
def image():
    return make_image(64, 58, seed=5)


@pytest.fixture(scope="module")
def waves(extractor, image):
    return extractor.style(image, "waves")


@pytest.fixture
def run(small_file):
    def run_with(style, **options):
        settings = {
            "size": 64,
            "scales": 3,
            "iterations": 2,
            "precision": "float32",
            "compile": "eager",
            **LAYERS,
            **options,
        }
        return stylize(make_image(50, 64, seed=6), style, weights=str(small_file), **settings)

    return run_with


def test_it_has_the_gram_matrices_of_every_size(waves, image, small_weights):
    assert [set(level) for level in waves.levels] == [{"conv1_1", "conv2_1"}] * 5  # 64 to 4 pixels
    assert (waves.name, waves.size) == ("waves", 64)
    for level, shape in ((0, (64, 58)), (2, (16, 14))):
        features = reference.features(resize(image, shape), small_weights.arrays, 3, "avg", "reflect")
        assert reference.relative_error(waves.levels[level]["conv2_1"], reference.gram(features[2])) < 1e-5


def test_a_run_with_it_equals_the_run_with_its_image(run, waves, image, tmp_path):
    expected = run(image)
    waves.save(tmp_path / "waves.npz")
    for style in (waves, tmp_path / "waves.npz", str(tmp_path / "waves.npz")):
        result = run(style)
        assert result.history.scale == [1, 1, 2, 2, 3, 3]
        assert result.history.style == pytest.approx(expected.history.style, rel=1e-4)
        assert result.history.spectrum == pytest.approx(expected.history.spectrum, rel=1e-3)
    assert expected.history.spectrum[:4] == [0] * 4  # the scales below 32 pixels
    assert all(expected.history.spectrum[4:])
    half, expected = (run(style, size=32, scales=2).history.style for style in (waves, image))
    assert half[:2] == pytest.approx(expected[:2], rel=5e-3)  # the image is resampled twice for 16 pixels
    assert half[0] != pytest.approx(run(image, scales=2).history.style[0], rel=5e-3)
    single, expected = (run(style, size=32, scales=1).history.style for style in (waves, image))
    assert single == pytest.approx(expected, rel=1e-4)


def test_it_is_not_encoded_again(run, waves, monkeypatch, image):
    def fail(*arguments, **options):
        raise AssertionError("a style image was encoded")

    monkeypatch.setattr(Objective, "style_summary", fail)
    run(waves)
    with pytest.raises(AssertionError):
        run(image)


def test_the_result_of_an_extractor_for_one_image_is_a_style(run, extractor, image):
    result = run(extractor(image), scales=1)
    expected = run(image, scales=1, spectrum_weight=0)  # the result has Gram matrices only
    assert result.history.total == pytest.approx(expected.history.total, rel=1e-4)
    with pytest.raises(ConfigError, match=r"conv1_1.*\(2, 64, 64\).*one image.*\[64, 64\]"):
        run(extractor(np.stack([image, image])))
    with pytest.raises(ConfigError, match=r"pooling max, not avg.*extract it again"):
        run(StyleExtractor(extractor.layers, extractor.encoder.weights, pooling="max")(image))
    with pytest.raises(ConfigError, match=r"'embedding'.*Gram matrices by layer.*conv1_1"):
        run({"embedding": np.zeros(3)})


def test_extracted_styles_and_images_can_be_blended(run, waves, image):
    other = make_image(40, 64, seed=9)
    losses = run([waves, other], style_blend=(1, 3)).history.style
    assert losses == pytest.approx(run([image, other], style_blend=(1, 3)).history.style, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "waves.* pooling avg, not max.*same pooling"),
        ({"padding": "zeros"}, "waves.* padding reflect, not zeros.*same padding"),
        ({"style_layers": ("conv1_1", "conv1_2")}, "waves.* conv1_2;.*style_layers from conv1_1,conv2_1"),
        ({"normalize_weights": True}, "normalize_weights.* needs the style's image.*give the image"),
        ({"init": "style"}, "init style needs the style's image.*give the image"),
    ],
)
def test_it_needs_the_encoder_that_extracted_it(run, waves, options, message):
    with pytest.raises(ConfigError, match=message):
        run(waves, **options)


def test_a_style_of_other_weights_is_an_error(run, image, small_weights):
    arrays = {**small_weights.arrays, "block2_conv1/bias": small_weights.arrays["block2_conv1/bias"] + 1}
    other = StyleExtractor(("conv1_1", "conv2_1"), type(small_weights)(arrays, "other"))
    with pytest.raises(ConfigError, match=r"the weights other, .*small\.npz.*same weights"):
        run(other.style(image))


def test_the_name_of_a_style_may_follow_the_path(waves, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = Style([{k: 2 * v for k, v in waves.levels[0].items()}], waves.made_with, name="b#1")
    save_styles(tmp_path / "two.npz", [waves, other])
    waves.save("a#1.npz")  # a name that contains the separator itself
    assert Style.load("a#1.npz").name == "waves"
    for path in ("two.npz#waves", tmp_path / "two.npz#waves"):
        assert Style.load(path).name == "waves"
    loaded = Style.load("two.npz", "b#1")
    assert np.array_equal(loaded.levels[0]["conv1_1"], 2 * waves.levels[0]["conv1_1"])
    with pytest.raises(ConfigError, match=r"append the name of one: two\.npz#waves"):
        Style.load("two.npz")
    with pytest.raises(ConfigError, match=r"two\.npz contains no style 'c'; choose from waves, b#1"):
        Style.load("two.npz#c")
    with pytest.raises(ImageError, match=r"no such style file: three\.npz; give"):
        Style.load("three.npz#waves")


def test_the_suffix_may_have_capitals(waves, tmp_path):
    waves.save(tmp_path / "a.NPZ")
    assert Style.load(tmp_path / "a.NPZ").name == "waves"


def test_files_of_several_styles(waves, tmp_path, run):
    second = Style(
        [{k: 2 * v for k, v in level.items()} for level in waves.levels[:3]],
        waves.made_with,
        name="b",
        size=64,
        original_size=64,
    )
    save_styles(tmp_path / "two.npz", [waves, second], embeddings=np.eye(2))
    loaded = Style.load(tmp_path / "two.npz", "b")
    for level, expected in ((1, 1), (2, 2), (4, 2)):  # the last of its three sizes is repeated
        assert np.array_equal(loaded.levels[level]["conv1_1"], 2 * waves.levels[expected]["conv1_1"])
    with pytest.raises(ConfigError, match=r"2 styles.*two\.npz#waves"):
        run(tmp_path / "two.npz")
    named = run(f"{tmp_path / 'two.npz'}#waves").history.style
    assert named == pytest.approx(run(waves).history.style, rel=1e-4)
    with pytest.raises(ConfigError, match=r"two\.npz.* 'c'.*choose from waves, b"):
        Style.load(tmp_path / "two.npz", "c")


def test_files_that_are_not_style_files(tmp_path, small_file, waves, run):
    with pytest.raises(ImageError, match=r"gone\.npz.*Style\.save"):
        run(tmp_path / "gone.npz")
    with pytest.raises(ImageError, match=r"small\.npz is not.*Style\.save"):
        run(small_file)
    (tmp_path / "cut.npz").write_bytes(b"PK")
    with pytest.raises(ImageError, match=r"cut\.npz is not.*Style\.save"):
        run(tmp_path / "cut.npz")
    with pytest.raises(ConfigError, match=r"a\.json.*ends with \.npz"):
        waves.save(tmp_path / "a.json")
    with pytest.raises(OutputError, match=r"cut\.npz exists.*overwrite"):
        waves.save(tmp_path / "cut.npz")


def test_gram_matrices_that_the_caller_saved(run, extractor, image, tmp_path, caplog):
    numbers = extractor(image)
    np.savez(tmp_path / "saved.npz", **{name: value.numpy() for name, value in numbers.items()})
    losses = run(tmp_path / "saved.npz", scales=1).history.style
    assert losses == pytest.approx(run(numbers, scales=1).history.style, rel=1e-4)
    assert "cannot be checked" in caplog.text
    assert "StyleExtractor.style" in caplog.text


def test_the_nearest_size_is_used_and_logged(waves, caplog):
    assert waves.at(32) is waves.levels[1]
    assert waves.at(31) is waves.levels[1]
    assert not caplog.records
    assert waves.at(47) is waves.levels[0]
    assert re.search("waves was extracted at 64 .* of 64 .* of 47; extract it at this size", caplog.text)
    caplog.clear()
    assert waves.at(128) is waves.levels[0]
    assert re.search("waves .* of 64 .* of 128;", caplog.text)
    caplog.clear()
    assert waves.at(2) is waves.levels[-1]  # the encoder allows no smaller level
    assert not caplog.records


def test_a_style_of_half_the_size_is_used_at_the_scale_of_its_size(run, small_weights, image):
    """The style was extracted at 32 pixels from an image of 64 and is used in a run of 64."""
    half = StyleExtractor(("conv1_1", "conv2_1"), small_weights, size=32).style(image)
    assert (half.size, half.original_size) == (32, 64)
    losses, expected = (run(style, scales=2).history.style for style in (half, image))
    assert losses[:2] == pytest.approx(expected[:2], rel=1e-4)  # the scale of 32 pixels
    assert losses[2] != pytest.approx(expected[2], rel=1e-2)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], "levels.*empty.*at least one size"),
        ([{"conv9_1": np.zeros((64, 64), np.float32)}], "conv9_1"),
        ([{"conv1_1": np.zeros((64, 64))}], "conv1_1.* float64 .*float32"),
        ([{"conv1_1": np.zeros((3, 3), np.float32)}], r"conv1_1.*\(3, 3\).*float32 \[64, 64\]"),
    ],
)
def test_wrong_levels_are_an_error(levels, message):
    with pytest.raises(ConfigError, match=message):
        Style(levels, {})


# Local spectra.


@pytest.fixture(scope="module")
def spectral_styles(small_weights):
    """Name -> image and extracted style; the styles have local spectra at two, one and no sizes."""
    extractor = StyleExtractor(("conv1_1", "conv2_1"), small_weights, size=96)
    shapes = {"large": (96, 70), "medium": (40, 33), "small": (31, 48)}
    images = {name: make_image(*shape, seed=len(name)) for name, shape in shapes.items()}
    return {name: (image, extractor.style(image, name)) for name, image in images.items()}


def test_a_file_stores_the_local_spectra_of_styles_of_different_sizes(spectral_styles, tmp_path):
    shapes = {"large": [(96, 70), (48, 35)], "medium": [(40, 33)], "small": []}
    save_styles(tmp_path / "styles.npz", [style for _, style in spectral_styles.values()])
    with np.load(tmp_path / "styles.npz", allow_pickle=False) as file:
        missing = {name: np.isnan(file[name]).all(1).tolist() for name in file.files if "spectrum" in name}
        assert all(np.isnan(file[name]).any(1).tolist() == rows for name, rows in missing.items())
    assert missing == {"spectrum": [False, False, True], "spectrum/2": [False, True, True]}
    for name, (image, style) in spectral_styles.items():
        loaded = Style.load(tmp_path / "styles.npz", name)
        assert len(loaded.spectra) == len(style.spectra) == len(shapes[name])
        for spectrum, shape in zip(loaded.spectra, shapes[name], strict=True):
            expected = reference.local_spectrum(resize(image, shape))
            np.testing.assert_allclose(spectrum, expected, atol=1e-3)


def test_the_spectrum_of_the_last_size_is_repeated_like_its_gram_matrices(tmp_path):
    """If the encoder needs images of 32 pixels, the last size of a style has a spectrum too."""
    gram, spectrum = np.eye(64, dtype=np.float32), np.arange(13, dtype=np.float32)
    large, small = (
        Style([{"conv1_1": gram}] * n, {}, spectra=[spectrum + i for i in range(n)], name=str(n), size=32 * n)
        for n in (2, 1)
    )
    save_styles(tmp_path / "styles.npz", [large, small])
    for pixels in (32, 16):
        loaded = Style.load(tmp_path / "styles.npz", "1").spectrum_at(pixels)
        assert np.array_equal(loaded, small.spectrum_at(pixels)), pixels
    assert np.array_equal(Style.load(tmp_path / "styles.npz", "2").spectrum_at(32), spectrum + 1)


@pytest.mark.parametrize(
    ("name", "with_spectrum"), [("large", [1, 1]), ("medium", [0, 1]), ("small", [0, 0])], ids=str
)
def test_the_targets_of_a_style_file_are_those_of_its_image(
    name, with_spectrum, spectral_styles, small_file, tmp_path
):
    image, _ = spectral_styles[name]
    save_styles(tmp_path / "styles.npz", [style for _, style in spectral_styles.values()])
    options = {"size": 96, "scales": 2, "iterations": 1, "precision": "float32", "compile": "eager"}
    config = StyleConfig(weights=str(small_file), **options, **LAYERS)
    content = make_image(80, 96, seed=6)
    runs = [Run(content, style, config) for style in (image, f"{tmp_path / 'styles.npz'}#{name}")]
    for scale in runs[0].scales:
        expected, targets = (run._targets.compute(scale, run.layouts[0]) for run in runs)
        tf.nest.assert_same_structure(targets, expected)
        assert len(targets.spectra) == with_spectrum[scale.number - 1]
        for value, truth in zip(tf.nest.flatten(targets), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(value, truth, rtol=1e-4, atol=1e-4 * np.abs(truth).max())


def test_a_style_file_without_spectra_gives_a_run_without_the_term(run, waves, image, tmp_path, caplog):
    """Files of earlier versions have none."""
    dataclasses.replace(waves, spectra=()).save(tmp_path / "old.npz")
    with np.load(tmp_path / "old.npz") as file:
        assert not [name for name in file.files if "spectrum" in name]
    result, expected = run(tmp_path / "old.npz"), run(image, spectrum_weight=0)
    assert result.history.spectrum == [0] * 6
    assert result.history.total == pytest.approx(expected.history.total, rel=1e-4)


def test_styles_of_different_encoders_are_not_written_into_one_file(waves, tmp_path):
    other = dataclasses.replace(waves, made_with={**waves.made_with, "pooling": "max"}, name="other")
    with pytest.raises(ConfigError, match=r"same encoder.*pooling is avg for 'waves' and max for 'other'"):
        save_styles(tmp_path / "styles.npz", [waves, other])
    assert not (tmp_path / "styles.npz").exists()
    copy = {key: value for key, value in waves.made_with.items() if key != "pixel_range"}  # of an older file
    other = dataclasses.replace(waves, made_with={**copy, "source": "another path"}, name="other")
    save_styles(tmp_path / "styles.npz", [waves, other])

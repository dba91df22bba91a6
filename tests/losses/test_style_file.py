"""A kept style in place of a style image: the same run, without encoding it again."""

import numpy as np
import pytest

from tests import reference
from tests.conftest import make_picture
from tfstyle import Objective, Style, StyleExtractor, stylize
from tfstyle.errors import ConfigError, ImageError, OutputError
from tfstyle.losses import save_styles

LAYERS = {"style_layers": ("conv1_1", "conv2_1"), "content_layers": ("conv2_2",)}


@pytest.fixture(scope="module")
def extractor(small_weights):
    return StyleExtractor(("conv1_1", "conv2_1"), small_weights, size=64)


@pytest.fixture(scope="module")
def picture():
    return make_picture(64, 58, seed=5)


@pytest.fixture(scope="module")
def kept(extractor, picture):
    return extractor.style(picture, "waves")


@pytest.fixture
def run(small_file):
    def go(style, **options):
        settings = {"size": 64, "scales": 3, "iterations": 2, "precision": "float32", **LAYERS, **options}
        return stylize(make_picture(50, 64, seed=6), style, weights=str(small_file), **settings)

    return go


def test_it_has_the_gram_matrices_of_every_size(kept, picture, small_weights):
    assert [set(level) for level in kept.levels] == [{"conv1_1", "conv2_1"}] * 5  # 64, 32, 16, 8, 4 pixels
    assert (kept.name, kept.size) == ("waves", 64)
    from tfstyle.images import resize

    for level, shape in ((0, (64, 58)), (2, (16, 14))):
        features = reference.features(resize(picture, shape), small_weights.arrays, 3, "avg", "reflect")
        assert reference.relative_error(kept.levels[level]["conv2_1"], reference.gram(features[2])) < 1e-5


def test_a_run_with_it_is_the_run_with_its_image(run, kept, picture, tmp_path):
    expected = run(picture)
    kept.save(tmp_path / "waves.npz")
    for style in (kept, tmp_path / "waves.npz", str(tmp_path / "waves.npz")):
        found = run(style)
        assert found.history.scale == [1, 1, 2, 2, 3, 3]
        assert found.history.style == pytest.approx(expected.history.style, rel=1e-4)
    half, expected = (run(style, size=32, scales=2).history.style for style in (kept, picture))
    assert half[:2] == pytest.approx(expected[:2], rel=5e-3)  # an image is resampled twice on its way to 16
    assert half[0] != pytest.approx(run(picture, scales=2).history.style[0], rel=5e-3)
    one, image = (run(style, size=32, scales=1).history.style for style in (kept, picture))
    assert one == pytest.approx(image, rel=1e-4)


def test_it_is_not_encoded_again(run, kept, monkeypatch, picture):
    def fail(*arguments):
        raise AssertionError("a style image was encoded")

    monkeypatch.setattr(Objective, "style_summary", fail)
    run(kept)
    with pytest.raises(AssertionError):
        run(picture)


def test_what_the_extractor_gives_for_one_image_serves_too(run, extractor, picture):
    found = run(extractor(picture), scales=1)
    assert found.history.style == pytest.approx(run(picture, scales=1).history.style, rel=1e-4)
    with pytest.raises(ConfigError, match=r"conv1_1 of a style is float32 of shape \(2, 64, 64\)"):
        run(extractor(np.stack([picture, picture])))
    with pytest.raises(ConfigError, match="with pooling max, not avg"):
        run(StyleExtractor(extractor.layers, extractor.encoder.weights, pooling="max")(picture))
    with pytest.raises(ConfigError, match="needs Gram matrices by layer"):
        run({"embedding": np.zeros(3)})


def test_kept_styles_and_images_blend(run, kept, picture):
    other = make_picture(40, 64, seed=9)
    found = run([kept, other], style_blend=(1, 3)).history.style
    assert found == pytest.approx(run([picture, other], style_blend=(1, 3)).history.style, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "waves was extracted with pooling avg, not max"),
        ({"padding": "zeros"}, "padding reflect, not zeros"),
        ({"style_layers": ("conv1_1", "conv1_2")}, "without conv1_2; style_layers can be conv1_1,conv2_1"),
        ({"normalize_weights": True}, "needs the style's image"),
        ({"init": "style"}, "needs the style's image"),
    ],
)
def test_it_serves_the_same_encoder_only(run, kept, options, message):
    with pytest.raises(ConfigError, match=message):
        run(kept, **options)


def test_another_encoders_is_refused(run, picture, small_weights):
    arrays = {**small_weights.arrays, "block2_conv1/bias": small_weights.arrays["block2_conv1/bias"] + 1}
    other = StyleExtractor(("conv1_1", "conv2_1"), type(small_weights)(arrays, "other"))
    with pytest.raises(ConfigError, match=r"with other weights, other, than those here, small\.npz"):
        run(other.style(picture))


def test_files_of_several_styles(kept, tmp_path, run):
    second = Style(
        [{k: 2 * v for k, v in level.items()} for level in kept.levels[:3]],
        kept.made_with,
        name="b",
        size=64,
        original_size=64,
    )
    save_styles(tmp_path / "two.npz", [kept, second], embeddings=np.eye(2))
    found = Style.load(tmp_path / "two.npz", "b")
    for level, same in ((1, 1), (2, 2), (4, 2)):  # where it has no more sizes its last is repeated
        assert np.array_equal(found.levels[level]["conv1_1"], 2 * kept.levels[same]["conv1_1"])
    with pytest.raises(ConfigError, match=r"holds 2 styles; name one: .*two\.npz#waves"):
        run(tmp_path / "two.npz")
    named = run(f"{tmp_path / 'two.npz'}#waves").history.style
    assert named == pytest.approx(run(kept).history.style, rel=1e-4)
    with pytest.raises(ConfigError, match="has no style 'c'; it has waves, b"):
        Style.load(tmp_path / "two.npz", "c")


def test_files_of_something_else(tmp_path, small_file, kept, run):
    with pytest.raises(ImageError, match="no such style file"):
        run(tmp_path / "gone.npz")
    with pytest.raises(ImageError, match="not a file of styles"):
        run(small_file)
    (tmp_path / "cut.npz").write_bytes(b"PK")
    with pytest.raises(ImageError, match="not a file of styles"):
        run(tmp_path / "cut.npz")
    with pytest.raises(ConfigError, match=r"written as \.npz"):
        kept.save(tmp_path / "a.json")
    with pytest.raises(OutputError, match="exists"):
        kept.save(tmp_path / "cut.npz")


def test_gram_matrices_that_the_user_saved(run, extractor, picture, tmp_path, caplog):
    numbers = extractor(picture)
    np.savez(tmp_path / "own.npz", **{name: value.numpy() for name, value in numbers.items()})
    found = run(tmp_path / "own.npz", scales=1).history.style
    assert found == pytest.approx(run(numbers, scales=1).history.style, rel=1e-4)
    assert "cannot be checked" in caplog.text


def test_at_another_size_the_nearest_is_taken_and_said(kept, caplog):
    assert kept.at(32) is kept.levels[1]
    assert kept.at(31) is kept.levels[1]
    assert not caplog.records
    assert kept.at(47) is kept.levels[0]
    assert "waves was extracted at 64 pixels: for 47 those of 64 stand in" in caplog.text
    caplog.clear()
    assert kept.at(128) is kept.levels[0]
    assert "for 128 those of 64 stand in" in caplog.text


def test_a_small_original_is_not_taken_for_a_large_one(run, small_weights, picture):
    """Kept at half the size, and used at the full: what is there is used at the scale where it fits."""
    half = StyleExtractor(("conv1_1", "conv2_1"), small_weights, size=32).style(picture)
    assert (half.size, half.original_size) == (32, 64)
    found, expected = (run(style, scales=2).history.style for style in (half, picture))
    assert found[:2] == pytest.approx(expected[:2], rel=1e-4)  # the scale of 32 pixels
    assert found[2] != pytest.approx(expected[2], rel=1e-2)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], "at least one size"),
        ([{"conv9_1": np.zeros((64, 64), np.float32)}], "no layer 'conv9_1'"),
        ([{"conv1_1": np.zeros((64, 64))}], "conv1_1 of a style is float64"),
        ([{"conv1_1": np.zeros((3, 3), np.float32)}], r"it is float32 \[64, 64\]"),
    ],
)
def test_what_is_no_style(levels, message):
    with pytest.raises(ConfigError, match=message):
        Style(levels, {})

"""The commands extract and export."""

import os
import re
import sys

import numpy as np
import pytest
from PIL import Image

from tests import reference
from tests.conftest import make_image
from tfstyle import StyleExtractor, cli
from tfstyle.images import ImageArray, load, save

ENCODER = ["--style-layers", "conv1_1,conv2_1", "--size", "40", "--embedding-size", "32"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(3):
        Image.fromarray((make_image(48, 30 + 9 * i, i) * 255).astype(np.uint8)).save(folder / f"{i}.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray((make_image(30, 50, 8) * 255).astype(np.uint8)).save(folder / "turned.jpg", exif=exif)
    return folder


@pytest.fixture(scope="module")
def model(small_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    assert cli.main(["export", str(folder), "--weights", str(small_file), *ENCODER]) == 0
    return folder


def extract(*arguments):
    return cli.main(["extract", *map(str, arguments)])


def test_embeddings_are_the_extractors(images, small_file, tmp_path, capsys):
    out = tmp_path / "styles.npz"
    assert extract(images, "-o", out, "--weights", small_file, *ENCODER) == 0
    assert f"{out}: 4 images, 0 skipped; embeddings of 32 numbers" in capsys.readouterr().out
    with np.load(out) as file:
        assert set(file.files) == {"names", "sizes", "made_with", "embedding"}
        assert file["names"].tolist() == ["0.png", "1.png", "2.png", "turned.jpg"]
        extractor = StyleExtractor(("conv1_1", "conv2_1"), small_file, embedding_size=32, size=40)
        expected = extractor([images / name for name in file["names"]])["embedding"].numpy()
        assert np.abs(file["embedding"] - expected).max() < 5e-3  # pixels are rounded to bytes here


def test_images_with_one_name_are_all_kept_and_an_image_given_twice_counts_once(
    images, small_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for place in ("a/x.png", "a/b/x.png", "b/x.png"):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes((images / "0.png").read_bytes())
    places = ["a", "b", "b/x.png", tmp_path / "a"]
    assert extract(*places, "-o", "out.npz", "--weights", small_file, *ENCODER) == 0
    with np.load("out.npz") as file:
        # a/b/x.png comes first in its folder, and has the name that b/x.png could have had.
        assert file["names"].tolist() == ["b/x.png", "x.png", str(tmp_path.resolve() / "b" / "x.png")]


def test_a_model_gives_the_same(images, small_file, model, tmp_path):
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    assert extract(images, "-o", one, "--grams", "--weights", small_file, *ENCODER) == 0
    for folder in (model, model / "tfstyle", model / "tfstyle" / "1"):
        assert extract(images, "-o", two, "--grams", "--model", folder, "--overwrite") == 0
        with np.load(one) as a, np.load(two) as b:
            assert a.files == b.files
            assert {"conv1_1", "conv2_1/4"} <= set(a.files)
            for key in a.files:
                if key.startswith("spectrum"):  # NaN for images that are too small
                    np.testing.assert_array_equal(a[key], b[key])
                elif a[key].dtype.kind == "f":
                    assert np.linalg.norm(a[key] - b[key]) < 1e-5 * np.linalg.norm(a[key])
                else:
                    assert np.array_equal(a[key], b[key])


def test_the_suggested_command_names_the_options_of_the_encoder(images, small_file, tmp_path, capsys):
    style = tmp_path / "style.npz"
    options = ["--pooling", "max", "--padding", "zeros"]
    assert extract(images / "0.png", "-o", style, "--grams", "--weights", small_file, *options) == 0
    said = capsys.readouterr().out
    assert f"tfstyle stylize CONTENT {style} -o OUT --pooling max --padding zeros" in said


def test_gram_matrices_come_with_local_spectra(small_file, tmp_path):
    rgb = make_image(48, 80)
    save(tmp_path / "wide.png", ImageArray(rgb))
    assert (
        extract(tmp_path / "wide.png", "-o", tmp_path / "style.npz", "--grams", "--weights", small_file) == 0
    )
    with np.load(tmp_path / "style.npz") as file:
        assert {key for key in file.files if key.startswith("spectrum")} == {"spectrum"}  # 24 x 40 has none
        expected = reference.local_spectrum(load(tmp_path / "wide.png").rgb)
        np.testing.assert_allclose(file["spectrum"][0], expected, rtol=1e-3)


def test_one_style_serves_stylize(images, small_file, tmp_path, capsys):
    style, out = tmp_path / "style.npz", tmp_path / "out.png"
    command = ["-o", style, "--grams", "--weights", small_file, "--size", "32"]
    assert extract(images / "0.png", *command) == 0
    assert f"tfstyle stylize CONTENT {style} -o OUT" in capsys.readouterr().out
    options = ["--weights", str(small_file), "--size", "32", "--iterations", "5", "--precision", "float32"]
    assert cli.main(["stylize", str(images / "1.png"), str(style), "-o", str(out), *options]) == 0
    direct = tmp_path / "direct.png"
    assert (
        cli.main(["stylize", str(images / "1.png"), str(images / "0.png"), "-o", str(direct), *options]) == 0
    )
    assert np.abs(load(out).rgb - load(direct).rgb).mean() < 0.01
    assert np.abs(load(out).rgb - load(images / "1.png").fitted(32).rgb).mean() > 0.01


def test_parquet(images, small_file, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)  # new ones refuse NumPy 1
    out, other = tmp_path / "styles.parquet", tmp_path / "styles.npz"
    for path in (out, other):
        assert extract(images, "-o", path, "--grams", "--weights", small_file, *ENCODER) == 0
    table = parquet.read_table(out)
    with np.load(other) as expected:
        assert table["name"].to_pylist() == expected["names"].tolist()
        assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), expected["embedding"])
        grams = np.array(table["conv2_1"].to_pylist(), np.float32).reshape(-1, 128, 128)
        assert np.array_equal(grams, expected["conv2_1"])


def test_a_name_that_is_not_utf_8_has_escapes_in_parquet(images, small_file, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    image, out = tmp_path / os.fsdecode(b"caf\xe9.png"), tmp_path / "styles.parquet"
    image.write_bytes((images / "0.png").read_bytes())
    assert extract(image, "-o", out, "--weights", small_file, *ENCODER) == 0
    assert parquet.read_table(out)["name"].to_pylist() == [r"caf\udce9.png"]


def test_parquet_without_pyarrow_is_one_line(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert extract(images, "-o", tmp_path / "a.parquet") == 2
    assert "pip install 'tfstyle[parquet]'" in capsys.readouterr().err


def test_unusable_images_are_skipped_and_counted(images, small_file, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.png").write_bytes((images / "0.png").read_bytes())
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    Image.new("RGB", (1, 1)).save(tmp_path / "in" / "tiny.png")
    assert extract(tmp_path / "in", "-o", tmp_path / "a.npz", "--weights", small_file, *ENCODER) == 0
    said = capsys.readouterr()
    assert "1 image, 2 skipped" in said.out
    assert "broken.jpg" in said.err
    assert re.search("tiny.png.* 1 pixel.*at least 4", said.err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{images}", "-o", "a.txt"], "a.txt.*[.]npz or [.]parquet"),
        (["gone.png", "-o", "{tmp}/a.npz"], "no such image or folder: gone.png"),
        (["{images}", "-o", "{tmp}/no/a.npz"], "no folder .*/no"),
        (["{images}", "-o", "{tmp}/a.npz", "--model", "gone"], "no such model: gone"),
        (["{images}", "-o", "{tmp}/a.npz", "--model", "{images}"], "0 models.*folder of one model"),
        (
            ["{images}", "-o", "{tmp}/a.npz", "--model", "{model}", "--pooling", "max"],
            "--model.*--pooling",
        ),
        (["{images}", "-o", "{tmp}/a.npz", "--model", "{images}/.."], "models.*folder of one model"),
        (
            ["{images}", "-o", "{tmp}/a.npz", "--embedding-size", "0"],
            "--embedding-size.*'0'.*at least 1, or all",
        ),
        (
            ["{images}", "-o", "{tmp}/a.npz", "--views", "2", "--weights", "random"],
            "--views.*2.*1, 10",
        ),
    ],
)
def test_wrong_command_lines(images, model, tmp_path, capsys, arguments, message):
    filled = [a.format(images=images, tmp=tmp_path, model=model) for a in arguments]
    try:
        code = extract(*filled)
    except SystemExit as left:
        code = left.code
    error = capsys.readouterr().err.strip()
    assert code == 2
    assert re.search(message, error.splitlines()[-1])


def test_an_image_that_a_model_rejects(images, small_file, tmp_path, capsys):
    limits = ["--max-pixels", "500", "--max-batch", "2"]
    assert cli.main(["export", str(tmp_path), "--weights", str(small_file), *ENCODER, *limits]) == 0
    assert extract(images / "0.png", "-o", tmp_path / "a.npz", "--model", tmp_path) == 2
    assert "at least 4 pixels a side and at most 500 in all" in capsys.readouterr().err.splitlines()[-1]


def test_export_prints_what_it_wrote(small_file, tmp_path, capsys):
    command = ["export", str(tmp_path), "--weights", str(small_file), "--name", "mine", "--version", "4"]
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert f"{tmp_path / 'mine' / '4'}: serving_default, encoded; " in said.out
    assert sum("left out the signatures content and stylize" in line for line in said.err.splitlines()) == 1
    assert cli.main(command) == 2
    assert "exists; replace it with --overwrite or choose" in capsys.readouterr().err
    assert cli.main([*command, "--overwrite", "--content-layers", "conv2_2"]) == 0
    assert "serving_default, encoded, content, stylize" in capsys.readouterr().out

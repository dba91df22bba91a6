"""Tests of style transfer and style extraction for the rows of a Ray dataset."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray.data", reason="needs tfstyle[cluster]")

import ray

import tfstyle
from tfstyle.cluster import extract, stylize
from tfstyle.errors import ConfigError, ImageError, WeightsError


@pytest.fixture
def paths(folders):
    return [str(path) for path in sorted((folders / "contents").iterdir())]


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content))) / 255


def test_results_are_returned_with_the_columns_of_the_dataset(nodes, folders, paths, options):
    """Images as bytes, two styles, and one image that cannot be read."""
    rows = [{"bytes": Path(path).read_bytes(), "label": index} for index, path in enumerate(paths)]
    dataset = ray.data.from_items([*rows, {"bytes": b"not an image", "label": 3}])
    styles = [str(folders / "styles" / "0.png"), folders / "styles" / "1.png"]
    given = stylize(dataset, styles, column="bytes", cores=1, **options).take_all()
    assert sorted((row["label"], Path(row["styles"][0]).name) for row in given) == [
        (label, name) for label in range(4) for name in ("0.png", "1.png")
    ]
    for row in given:
        if row["label"] == 3:
            assert "image" in row["error"]
            assert row["result"] is None
            continue
        assert row["error"] is None
        expected = tfstyle.stylize(paths[row["label"]], row["styles"][0], **options)
        assert np.abs(decoded(row["result"]) - expected.image).max() < 0.02
        assert row["loss"] == pytest.approx(expected.history.total[-1], rel=1e-3)
    names = [row["output"] for row in given]
    assert len(set(names)) == len(names)


def test_results_are_written_and_not_made_again(nodes, folders, paths, options):
    dataset = ray.data.from_items([{"path": path} for path in paths])
    out, style = folders / "out", folders / "styles" / "0.png"
    versions = []
    for _ in range(2):
        rows = stylize(dataset, style, output=out, suffix=".jpg", cores=1, **options).take_all()
        assert {row["output"] for row in rows} == {path.name for path in out.glob("*.jpg")}
        assert all(row["result"] is None and row["error"] is None for row in rows)
        versions.append([path.stat().st_mtime_ns for path in sorted(out.glob("*.jpg"))])
    assert versions[0] == versions[1]


def test_embeddings_and_gram_matrices(nodes, paths, small_file, tmp_path):
    dataset = ray.data.from_items([{"path": path} for path in [*paths, "none.png"]])
    extracted = extract(dataset, ("conv1_1", "conv2_1"), weights=str(small_file), cores=1, embedding_size=64)
    extracted.write_parquet(str(tmp_path / "features"))
    rows = {row["path"]: row for row in ray.data.read_parquet(str(tmp_path / "features")).take_all()}
    extractor = tfstyle.StyleExtractor(("conv1_1", "conv2_1"), str(small_file), embedding_size=64)
    for path in paths:
        expected = extractor(path)
        assert rows[path]["error"] is None
        for name, value in expected.items():
            array = np.reshape(rows[path][name], value.shape[1:])
            assert np.allclose(array, value[0], rtol=1e-3, atol=1e-4)
    assert "none.png" in rows["none.png"]["error"]
    assert rows["none.png"]["embedding"] is None


def test_wrong_arguments(nodes, folders, paths, options, small_file):
    dataset = ray.data.from_items([{"path": paths[0], "loss": 1.0, "embedding": 2.0}])
    style = str(folders / "styles" / "0.png")
    with pytest.raises(ConfigError, match="the dataset has the columns loss; rename"):
        stylize(dataset, style, **options)
    with pytest.raises(ConfigError, match="the dataset has the columns embedding; rename"):
        extract(dataset, weights=str(small_file))
    good = dataset.select_columns(["path"])
    with pytest.raises(ImageError, match=r"none\.png"):
        stylize(good, "none.png", **options)
    with pytest.raises(WeightsError, match=r"none\.npz"):
        stylize(good, style, weights="none.npz")
    with pytest.raises(ImageError, match="suffix"):
        stylize(good, style, suffix=".xyz", **options)
    with pytest.raises(ConfigError, match="masks"):
        stylize(good, style, masks=("a.png",), **options)
    with pytest.raises(ray.exceptions.RayError, match="no column image, only path"):
        stylize(good, style, column="image", cores=1, **options).take_all()

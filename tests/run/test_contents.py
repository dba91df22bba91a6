"""Tests of the content images of a batch: folders, patterns and lists."""

from pathlib import PureWindowsPath

import pytest

from tfstyle.errors import ConfigError, ImageError
from tfstyle.run import Content, contents, contents_outside, find_contents, pattern_root, read_list


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "a.jpg",
        "cats/tom.jpg",
        "cats/old/tim.PNG",
        "cats/.cache/x.jpg",
        "dogs/rex.webp",
        "notes.txt",
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        ("photos", ["a.jpg", "cats/old/tim.PNG", "cats/tom.jpg", "dogs/rex.webp"]),
        ("photos/a.jpg", ["a.jpg"]),
        ("photos/*.jpg", ["a.jpg"]),
        ("photos/*/*.jpg", ["cats/tom.jpg"]),
        ("photos/**/*.jpg", ["a.jpg", "cats/tom.jpg"]),
        ("photos/c*", ["cats/old/tim.PNG", "cats/tom.jpg"]),
        ("photos/[cd]*/???.*", ["cats/tom.jpg", "dogs/rex.webp"]),
        ("photos/*", ["a.jpg", "cats/old/tim.PNG", "cats/tom.jpg", "dogs/rex.webp"]),
    ],
)
def test_contents_of_folders_and_patterns_have_the_same_keys(photos, source, keys):
    assert find_contents(source) == [Content(f"photos/{key}", key) for key in keys]
    absolute = f"{photos.parent}/{source}"
    assert find_contents(absolute) == [Content(f"{photos}/{key}", key) for key in keys]


def test_a_file_whose_name_looks_like_a_pattern(photos):
    (photos / "[1].jpg").touch()
    assert find_contents("photos/[1].jpg") == [Content("photos/[1].jpg", "[1].jpg")]


def test_the_paths_of_a_list_are_relative_to_its_folder(photos, tmp_path, write_parquet):
    lists = tmp_path / "lists"
    lists.mkdir()
    absolute = str(photos / "a.jpg")
    entries = ["../photos/./cats/tom.jpg", "", "../photos/a.jpg", "../photos/a.jpg", absolute]
    (lists / "list.txt").write_text("\ufeff" + "\r\n".join(entries), encoding="utf-8")
    write_parquet({"path": entries}, lists / "list.parquet")
    for name in ("list.txt", "list.parquet"):
        assert find_contents(f"lists/{name}") == [
            Content("lists/../photos/cats/tom.jpg", "../photos/cats/tom.jpg"),
            Content("lists/../photos/a.jpg", "../photos/a.jpg"),
            Content(absolute, absolute),
        ]


@pytest.mark.parametrize(
    ("name", "data", "pattern"),
    [
        ("list.txt", b"\n \n", r"list\.txt has no entries"),
        ("list.txt", b"\xff\xfe", r"list\.txt.*UTF-8"),
        ("list.parquet", b"no", r"list\.parquet is not a Parquet file"),
    ],
)
def test_unreadable_lists(name, data, pattern):
    with pytest.raises(ImageError, match=pattern):
        read_list(name, data)


def test_wrong_sources(photos, tmp_path, write_parquet):
    with pytest.raises(ImageError, match=r"photos/\*\.gif"):
        find_contents("photos/*.gif")
    with pytest.raises(ImageError, match="no such"):
        find_contents("photos/none.jpg")
    (tmp_path / "list.txt").write_text("s3://bucket/a.jpg")
    with pytest.raises(ConfigError, match=r"s3://bucket/a\.jpg is an address.*Ray"):
        find_contents("list.txt")
    write_parquet({"file": ["a.jpg"]}, tmp_path / "list.parquet")
    with pytest.raises(ImageError, match=r"has the columns file.*column path"):
        find_contents("list.parquet")


def test_the_root_of_a_pattern():
    patterns = ("*.jpg", "/*.jpg", "a/b?c/*.jpg", "s3://bucket/photos/**/*.jpg")
    assert [pattern_root(pattern) for pattern in patterns] == [".", "/", "a", "s3://bucket/photos"]


@pytest.mark.parametrize(
    ("pattern", "root"),
    [
        (r"photos\*.jpg", "photos"),
        (r"C:\photos\2024\**\*.jpg", r"C:\photos\2024"),
        (r"C:\*.jpg", "C:\\"),
        ("C:/photos/c*/*.jpg", r"C:\photos"),
        (r"..\photos\*", r"..\photos"),
        (r"\\server\share\photos\?.jpg", r"\\server\share\photos"),
        ("*.jpg", "."),
        ("s3://bucket/photos/*.jpg", "s3://bucket/photos"),
    ],
)
def test_the_root_of_a_pattern_on_windows(monkeypatch, pattern, root):
    monkeypatch.setattr(contents, "Path", PureWindowsPath)
    assert pattern_root(pattern) == root


def keys_outside(paths, folder):
    return [content.key for content in contents_outside([Content(path, path) for path in paths], folder)]


def test_images_in_the_folder_of_the_results_are_left_out(photos):
    paths = ["photos/a.jpg", "photos/cats/tom.jpg", f"{photos}/cats/old/tim.PNG", "s3://bucket/a.jpg"]
    assert keys_outside(paths, "photos/cats") == ["photos/a.jpg", "s3://bucket/a.jpg"]
    assert keys_outside(paths, "photos/../photos/cat") == paths
    assert keys_outside(paths, ".") == ["s3://bucket/a.jpg"]
    paths = ["s3://bucket/out/a.jpg", "s3://bucket/outside/a.jpg", "photos/a.jpg"]
    for folder in ("s3://bucket/out", "s3://bucket/out/"):
        assert keys_outside(paths, folder) == paths[1:]


def test_images_in_the_folder_of_the_results_are_left_out_on_windows(monkeypatch):
    class Path(PureWindowsPath):
        def resolve(self):
            return type(self)(r"C:\photos") / self

    monkeypatch.setattr(contents, "Path", Path)
    inside = [r"C:\Photos\Out\b.jpg", r"out\c.jpg", "out/d.jpg"]
    outside = [r"C:\photos\a.jpg", r"C:\photos\outside\e.jpg"]
    for folder in ("out", r"C:\photos\out", "C:/photos/out/"):
        assert keys_outside([*inside, *outside], folder) == outside

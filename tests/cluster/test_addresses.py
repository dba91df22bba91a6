"""Tests of files at addresses, with fsspec's file systems for memory and for this machine."""

import io
import ntpath
import os
import time
import types

import pytest

fsspec = pytest.importorskip("fsspec", reason="needs tfstyle[cluster]")
pytest.importorskip("ray.data", reason="needs tfstyle[cluster]")

from fsspec.implementations import local  # noqa: E402

from tfstyle.cluster import addresses  # noqa: E402
from tfstyle.cluster.addresses import OBJECT_STORES, AddressStorage, find_contents_at  # noqa: E402
from tfstyle.errors import ConfigError, ImageError, RunError  # noqa: E402
from tfstyle.run import Content, find_contents  # noqa: E402

NAMES = ("a.jpg", "cats/tom.jpg", "cats/old/tim.PNG", "cats/.cache/x.jpg", "notes.txt")


@pytest.fixture(params=["memory", "file"])
def root(request, tmp_path):
    """An address with images and other files."""
    address = f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/photos"
    system, inside = fsspec.core.url_to_fs(address)
    for name in NAMES:
        system.makedirs(f"{inside}/{name}".rpartition("/")[0], exist_ok=True)
        system.pipe_file(f"{inside}/{name}", name.encode())
    return address


@pytest.mark.parametrize("pattern", ["", "/*", "/**/*", "/cats", "/cats/*.jpg", "/c*", "/*.jpg"])
def test_contents_at_an_address_have_the_keys_of_a_local_folder(root, pattern, tmp_path):
    for name in NAMES:
        path = tmp_path / "local" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    local = find_contents(f"{tmp_path}/local{pattern}")
    folder = f"{root}/cats" if pattern == "/cats" else root
    folder = f"{root}/cats" if pattern == "/cats/*.jpg" else folder
    expected = [Content(f"{folder}/{key}".removeprefix("file://"), key) for _, key in local]
    assert find_contents_at(root + pattern) == expected
    assert find_contents_at(f"{tmp_path}/local{pattern}") == local


def test_a_list_can_be_at_an_address_and_contain_addresses(root, tmp_path, write_parquet):
    entries = ["cats/./tom.jpg", "memory://other/b.png"]
    storage = AddressStorage()
    storage.write(f"{root}/list.txt", "\n".join(entries).encode())
    sink = io.BytesIO()
    write_parquet({"path": entries}, sink)
    storage.write(f"{root}/list.parquet", sink.getvalue())
    (tmp_path / "list.txt").write_text("\n".join(entries))
    for name in ("list.txt", "list.parquet"):
        assert find_contents_at(f"{root}/{name}") == [
            Content(f"{root}/cats/tom.jpg".removeprefix("file://"), "cats/tom.jpg"),
            Content("memory://other/b.png", "memory://other/b.png"),
        ]
    assert find_contents_at(f"{tmp_path}/list.txt")[1].path == "memory://other/b.png"


def test_files_are_read_written_listed_and_removed(root):
    storage, path = AddressStorage(), f"{root}/results/b.png"
    assert storage.modified(path) is None
    assert storage.names(f"{root}/results") == []
    for content in (b"first", b"second"):
        storage.write(path, content)
        with storage.open(path) as file:
            assert file.read() == content
    assert abs(storage.modified(path) - time.time()) < 60
    assert storage.names(f"{root}/results") == ["b.png"]  # no temporary files
    storage.list_folder(f"{root}/results")
    assert abs(storage.modified(path) - time.time()) < 60
    storage.remove(path)
    storage.remove(path)
    assert storage.modified(path) is not None  # as it was listed
    assert AddressStorage().modified(path) is None


def test_a_file_at_an_address_is_never_half_there(root, monkeypatch):
    storage, path = AddressStorage(), f"{root}/b.png"
    storage.write(path, b"first")
    system, _ = fsspec.core.url_to_fs(root)

    def fail(*_, **__):
        raise OSError(28, "No space left")

    monkeypatch.setattr(type(system), "mv", fail)
    with pytest.raises(RunError, match=r"b\.png: OSError.*No space left"):
        storage.write(path, b"second")
    with storage.open(path) as file:
        assert file.read() == b"first"
    assert "b.png" in storage.names(root)
    assert not [name for name in storage.names(root) if name.startswith(".tfstyle")]


@pytest.mark.parametrize(
    ("address", "error", "pattern"),
    [
        ("nonsense://bucket/a.jpg", ConfigError, "nonsense://bucket/a.jpg cannot be used: .*nonsense"),
        ("memory://nowhere", ImageError, "no images at memory://nowhere"),
        ("memory://nowhere/*.jpg", ImageError, "no images at memory://nowhere"),
        ("memory://nowhere/list.txt", ImageError, "no such file: memory://nowhere/list.txt"),
    ],
)
def test_errors_are_one_line(address, error, pattern):
    with pytest.raises(error, match=pattern) as caught:
        find_contents_at(address)
    assert "\n" not in str(caught.value)


def test_a_protocol_without_its_package_says_what_to_install():
    missing = [name for name in OBJECT_STORES if name in fsspec.available_protocols()]
    assert {"s3", "gs", "abfs"} <= set(missing)
    try:
        import s3fs  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match="Install s3fs"):
            find_contents_at("s3://bucket/photos")


def test_paths_of_the_machine_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("photos")
    (tmp_path / "photos" / "a.jpg").touch()
    assert find_contents_at("photos") == [Content(f"{tmp_path}/photos/a.jpg", "a.jpg")]


def test_absolute_paths_of_windows_in_a_list(tmp_path, monkeypatch):
    entries = ["cats/./tom.jpg", r"D:\photos\a.jpg", "D:/photos/../b.jpg", r"\\server\share\c.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(entries))
    monkeypatch.setattr(addresses, "os", types.SimpleNamespace(path=ntpath))
    monkeypatch.setattr(addresses, "absolute", lambda path: path)
    paths = [content.path for content in find_contents_at(str(tmp_path / "list.txt"))]
    assert paths == [rf"{tmp_path}\cats/tom.jpg", r"D:\photos\a.jpg", "D:/b.jpg", r"\\server\share\c.jpg"]


def test_the_address_of_a_file_on_windows(monkeypatch):
    monkeypatch.setattr(local, "os", types.SimpleNamespace(sep="\\", path=ntpath))
    monkeypatch.setattr(addresses, "Path", lambda path: types.SimpleNamespace(absolute=lambda: path))
    assert addresses.absolute("file:///C:/photos/a.jpg") == "C:/photos/a.jpg"

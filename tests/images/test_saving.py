"""Writing: every format, whole or not at all, with profile and settings, and never over another file."""

import errno
import io
import os

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.conftest import make_picture
from tfstyle.errors import ImageError, InputError, OutputError, RunError
from tfstyle.files import check_output
from tfstyle.images import ImageArray, load, read_settings, save
from tfstyle.images.saving import write_atomically

SETTINGS = {"options": {"size": 3, "style_layers": ["conv1_1"]}, "note": "Tübingen 'quoted'"}


@pytest.fixture
def picture():
    return ImageArray(make_picture(20, 30))


@pytest.fixture
def transparent():
    alpha = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    return ImageArray(make_picture(20, 30), alpha)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "tif", "tiff", "PNG"])
def test_8_bit_formats(tmp_path, picture, suffix):
    path = tmp_path / f"a.{suffix}"
    save(path, picture, settings=SETTINGS)
    found = load(path)
    # WebP halves the colours' resolution, JPEG at 4:4:4 rounds, the others keep all 8 bits.
    tolerance = {"webp": 0.15, "jpg": 0.06, "jpeg": 0.06}.get(suffix, 0.5 / 255 + 1e-6)
    assert np.abs(found.rgb - picture.rgb).max() < tolerance
    assert found.bits == 8
    assert read_settings(path) == SETTINGS
    with Image.open(path) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileName(profile)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_16_bit_formats(tmp_path, transparent, suffix, with_alpha):
    deep = ImageArray(transparent.rgb, transparent.alpha if with_alpha else None, bits=16)
    path = tmp_path / f"a.{suffix}"
    save(path, deep, settings=SETTINGS)
    found = load(path)
    assert found.bits == 16
    assert np.abs(found.rgb - deep.rgb).max() < 0.5 / 65535 + 1e-7
    if with_alpha:
        assert np.abs(found.alpha - deep.alpha).max() < 0.5 / 65535 + 1e-7
    assert read_settings(path) == SETTINGS
    with Image.open(path) as image:  # and other programs can read it
        image.load()
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileName(profile)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_alpha_is_kept(tmp_path, transparent, suffix):
    save(tmp_path / f"a.{suffix}", transparent)
    assert np.abs(load(tmp_path / f"a.{suffix}").alpha - transparent.alpha).max() < 0.02


def test_jpeg_flattens_on_white_and_says_so(tmp_path, transparent, caplog):
    save(tmp_path / "a.jpg", transparent)
    assert "flattened on white" in caplog.text
    found = load(tmp_path / "a.jpg")
    assert found.alpha is None
    assert found.rgb[0, 0] == pytest.approx(1, abs=0.06)
    assert np.abs(found.rgb - transparent.on_white()).max() < 0.08


def test_jpeg_keeps_full_colour_resolution(tmp_path):
    """4:4:4: a red pixel beside a blue one keeps its colour."""
    stripes = np.zeros((16, 16, 3), np.float32)
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 1, 1
    save(tmp_path / "a.jpg", ImageArray(stripes))
    assert np.abs(load(tmp_path / "a.jpg").rgb - stripes).mean() < 0.03


def test_existing_files_are_replaced_only_when_told(tmp_path, picture):
    path = tmp_path / "a.png"
    save(path, picture)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists; replace it with"):
        save(path, ImageArray(1 - picture.rgb))
    assert path.read_bytes() == before
    save(path, ImageArray(1 - picture.rgb), overwrite=True)
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.gif", r"suffix must be one of \.png"),
        ("a", "suffix must be one of"),
        ("nowhere/a.png", "there is no folder"),
        ("folder.png", "it is a folder"),
    ],
)
def test_impossible_outputs_are_refused(tmp_path, picture, name, message):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=message):
        save(tmp_path / name, picture, overwrite=True)


def test_outputs_too_large_for_their_format_are_refused(tmp_path):
    check_output(tmp_path / "a.png", shape=(10, 20000))
    with pytest.raises(ImageError, match="at most 16383"):
        check_output(tmp_path / "a.webp", shape=(10, 20000))
    with pytest.raises(ImageError, match="at most 65500"):
        check_output(tmp_path / "a.jpg", shape=(70000, 10))


def test_folders_without_permission_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a superuser may write anywhere
    with pytest.raises(OutputError, match="no permission"):
        check_output(tmp_path / "a.png")


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path, monkeypatch, failure):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(_):
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((RunError, KeyboardInterrupt)) as caught:
        write_atomically(path, b"new")
    if isinstance(failure, OSError):
        assert "No space left" in str(caught.value)
        assert "a.png" in str(caught.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


def test_pictures_without_settings_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    save(tmp_path / "c.png", ImageArray(make_picture(4, 4)), settings={"options": 5})
    for name in ("a.png", "b.png", "c.png"):
        with pytest.raises(ImageError, match=name):
            read_settings(tmp_path / name)

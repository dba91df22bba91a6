"""Writing image files: every format, atomicity, colour profile, settings, and existing files."""

import errno
import io
import os
import re

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.conftest import make_image
from tfstyle.errors import ImageError, InputError, OutputError, RunError
from tfstyle.files import check_output
from tfstyle.images import ImageArray, load, read_settings, save
from tfstyle.images.saving import write_atomically

SETTINGS = {"options": {"size": 3, "style_layers": ["conv1_1"]}, "note": "Tübingen 'quoted'"}


@pytest.fixture
def image():
    return ImageArray(make_image(20, 30))


@pytest.fixture
def transparent():
    alpha = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    return ImageArray(make_image(20, 30), alpha)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "tif", "tiff", "PNG"])
def test_8_bit_formats(tmp_path, image, suffix):
    path = tmp_path / f"a.{suffix}"
    save(path, image, settings=SETTINGS)
    loaded = load(path)
    # WebP halves the resolution of the colours, JPEG at 4:4:4 rounds, and the other formats are exact.
    tolerance = {"webp": 0.15, "jpg": 0.06, "jpeg": 0.06}.get(suffix, 0.5 / 255 + 1e-6)
    assert np.abs(loaded.rgb - image.rgb).max() < tolerance
    assert loaded.bits == 8
    assert read_settings(path) == SETTINGS
    with Image.open(path) as opened:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(opened.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileName(profile)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_16_bit_formats(tmp_path, transparent, suffix, with_alpha):
    image_16_bit = ImageArray(transparent.rgb, transparent.alpha if with_alpha else None, bits=16)
    path = tmp_path / f"a.{suffix}"
    save(path, image_16_bit, settings=SETTINGS)
    loaded = load(path)
    assert loaded.bits == 16
    assert np.abs(loaded.rgb - image_16_bit.rgb).max() < 0.5 / 65535 + 1e-7
    if with_alpha:
        assert np.abs(loaded.alpha - image_16_bit.alpha).max() < 0.5 / 65535 + 1e-7
    assert read_settings(path) == SETTINGS
    with Image.open(path) as opened:  # other programs can read the file
        opened.load()
        profile = ImageCms.ImageCmsProfile(io.BytesIO(opened.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileName(profile)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_alpha_is_kept(tmp_path, transparent, suffix):
    save(tmp_path / f"a.{suffix}", transparent)
    assert np.abs(load(tmp_path / f"a.{suffix}").alpha - transparent.alpha).max() < 0.02


def test_jpeg_composites_on_white_with_a_warning(tmp_path, transparent, caplog):
    save(tmp_path / "a.jpg", transparent)
    assert re.search(r"a\.jpg: JPEG .*\.png", caplog.text)
    loaded = load(tmp_path / "a.jpg")
    assert loaded.alpha is None
    assert loaded.rgb[0, 0] == pytest.approx(1, abs=0.06)
    assert np.abs(loaded.rgb - transparent.on_white()).max() < 0.08


def test_jpeg_keeps_full_colour_resolution(tmp_path):
    """With 4:4:4 subsampling a red pixel next to a blue one keeps its colour."""
    stripes = np.zeros((16, 16, 3), np.float32)
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 1, 1
    save(tmp_path / "a.jpg", ImageArray(stripes))
    assert np.abs(load(tmp_path / "a.jpg").rgb - stripes).mean() < 0.03


def test_existing_files_are_replaced_only_when_told(tmp_path, image):
    path = tmp_path / "a.png"
    save(path, image)
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"a\.png exists.*overwrite=True"):
        save(path, ImageArray(1 - image.rgb))
    assert path.read_bytes() == before
    save(path, ImageArray(1 - image.rgb), overwrite=True)
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.gif", r"a\.gif: .*suffix.*\.png, .*\.webp"),
        ("a", r"a: .*suffix.*\.png, .*\.webp"),
        ("nowhere/a.png", r"nowhere/a\.png: .*no folder .*nowhere;"),
        ("folder.png", r"folder\.png: .*is a folder"),
    ],
)
def test_impossible_outputs_are_refused(tmp_path, image, name, message):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=message):
        save(tmp_path / name, image, overwrite=True)


def test_outputs_too_large_for_their_format_are_refused(tmp_path):
    check_output(tmp_path / "a.png", shape=(10, 20000))
    with pytest.raises(ImageError, match=r"a\.webp: .*16383.*\.png"):
        check_output(tmp_path / "a.webp", shape=(10, 20000))
    with pytest.raises(ImageError, match=r"a\.jpg: .*65500.*\.png"):
        check_output(tmp_path / "a.jpg", shape=(70000, 10))


def test_folders_without_permission_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser may write anywhere
    with pytest.raises(OutputError, match=f"no permission to write in {re.escape(str(tmp_path))}"):
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
        assert re.search(r"a\.png .*No space left", str(caught.value))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


def test_images_without_settings_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"not an image")
    save(tmp_path / "c.png", ImageArray(make_image(4, 4)), settings={"options": 5})
    for name in ("a.png", "b.png", "c.png"):
        with pytest.raises(ImageError, match=rf"{re.escape(name)}.* tfstyle"):
            read_settings(tmp_path / name)

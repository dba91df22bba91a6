"""Reading and resizing images: file formats, orientation, colour profiles, and invalid files."""

import io
import re
import struct
import threading
import zlib

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image, ImageCms, ImageOps

from tests.conftest import make_image
from tfstyle.errors import ImageError
from tfstyle.images import ImageArray, find_images, load, resize


@pytest.fixture
def pixels():
    return (make_image(11, 17) * 255).round().astype(np.uint8)


@pytest.fixture
def pixels_16_bit():
    """Random values of 16 bits, most of which 8 bits cannot represent."""
    return np.random.default_rng(0).integers(0, 65536, (6, 9, 3), dtype=np.uint16)


def test_arrays_pillow_images_and_files_are_the_same(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for source in (
        pixels,
        Image.fromarray(pixels),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        tf.constant(pixels),
    ):
        image = load(source)
        assert image.rgb.dtype == np.float32
        assert image.alpha is None
        assert image.bits == 8
        assert np.array_equal((image.rgb * 255).round(), pixels)
    assert np.allclose(load(pixels / np.float32(255)).rgb, pixels / 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_orientation_is_applied(tmp_path, pixels, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif, quality=100)
    with Image.open(tmp_path / f"a.{suffix}") as unrotated:
        expected = np.asarray(ImageOps.exif_transpose(unrotated))
    rgb = load(tmp_path / f"a.{suffix}").rgb
    assert rgb.shape[:2] == ((11, 17) if orientation < 5 else (17, 11))
    assert np.array_equal((rgb * 255).round(), expected)


def swapped_profile():
    """Return an sRGB profile with exchanged red and green primaries."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "rSGB".encode("utf-16-be"))
    return profile.replace(b"rXYZ", b"tmpZ").replace(b"gXYZ", b"rXYZ").replace(b"tmpZ", b"gXYZ")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_colour_profiles_are_converted_to_srgb(tmp_path, suffix):
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    red.save(tmp_path / f"a.{suffix}", icc_profile=swapped_profile(), quality=100)
    assert load(tmp_path / f"a.{suffix}").rgb.mean((0, 1)) == pytest.approx([0, 1, 0], abs=0.02)


def test_colour_profiles_of_16_bit_files_are_converted(tmp_path):
    red = np.zeros((4, 4, 3), np.uint16)
    red[..., 0] = 65535
    tifffile.imwrite(tmp_path / "a.tif", red, photometric="rgb", iccprofile=swapped_profile())
    assert load(tmp_path / "a.tif").rgb.mean((0, 1)) == pytest.approx([0, 1, 0], abs=0.02)


def test_an_invalid_profile_is_ignored_with_a_warning(tmp_path, pixels, caplog):
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=b"nonsense")
    assert np.array_equal((load(tmp_path / "a.png").rgb * 255).round(), pixels)
    assert re.search(r"a\.png: .*colour profile .*ignored", caplog.text)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA", "PA"])
def test_modes(tmp_path, mode, pixels):
    pillow_image = Image.fromarray(pixels).convert(mode)
    image = load(pillow_image)
    assert image.rgb.shape == (11, 17, 3)
    expected = np.asarray(pillow_image.convert("RGB")) / 255
    assert np.allclose(image.rgb, expected, atol=1e-6)


def test_premultiplied_grey_of_pillow():
    image = load(Image.merge("LA", [Image.new("L", (4, 2), 200), Image.new("L", (4, 2), 128)]).convert("La"))
    assert np.allclose(image.rgb * 255, 200, atol=1)
    assert np.allclose(image.alpha * 255, 128)


@pytest.mark.filterwarnings("error")
def test_palette_transparency_becomes_alpha(tmp_path):
    palette_image = Image.new("P", (4, 2))
    palette_image.putpalette([10, 20, 30, 200, 100, 0])
    palette_image.putdata([0, 1] * 4)
    palette_image.save(tmp_path / "a.png", transparency=0)
    image = load(tmp_path / "a.png")
    assert image.alpha[0].tolist() == [0, 1, 0, 1]
    assert (image.rgb[0, 1] * 255).round().tolist() == [200, 100, 0]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png(tmp_path, pixels_16_bit, channels):
    array = np.concatenate([pixels_16_bit, pixels_16_bit[..., :1]], -1)[..., :channels]
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(array).numpy())
    image = load(tmp_path / "a.png")
    assert image.bits == 16
    colours = image.rgb[..., : 1 if channels < 3 else 3]
    assert np.array_equal((colours * 65535).round(), array[..., : colours.shape[-1]])
    if channels in (2, 4):
        assert np.array_equal((image.alpha * 65535).round(), array[..., -1])


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"planarconfig": "separate"}, {"byteorder": ">"}]
)
def test_16_bit_tiff(tmp_path, pixels_16_bit, options):
    array = np.moveaxis(pixels_16_bit, -1, 0) if "planarconfig" in options else pixels_16_bit
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", **options)
    image = load(tmp_path / "a.tif")
    assert image.bits == 16
    assert np.array_equal((image.rgb * 65535).round(), pixels_16_bit)


def test_16_bit_grey_from_pillow(pixels_16_bit):
    image = load(Image.fromarray(pixels_16_bit[..., 0]))
    assert image.bits == 16
    assert np.array_equal((image.rgb[..., 2] * 65535).round(), pixels_16_bit[..., 0])


def cut(data, part=0.5):
    return data[: int(len(data) * part)]


def encoded(kind, use_16_bits=False):
    array = (make_image(40, 40) * (65535 if use_16_bits else 255)).astype(
        np.uint16 if use_16_bits else np.uint8
    )
    if use_16_bits:
        return tf.io.encode_png(array).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.jpg", b"this is no image", "not an image"),
        ("empty.png", b"", "not an image"),
        ("cut.jpg", cut(encoded("JPEG")), "damaged"),
        ("cut.png", cut(encoded("PNG")), "damaged"),
        ("cut16.png", cut(encoded("PNG", use_16_bits=True)), "damaged"),
        ("cut.tif", cut(encoded("TIFF")), "(damaged|not an image)"),
        ("cut.webp", cut(encoded("WEBP")), "(damaged|not an image)"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=rf"{re.escape(name)}: .*{message}") as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(ImageError, match=r"no such image: .*nowhere\.jpg"):
        load(tmp_path / "nowhere.jpg")
    with pytest.raises(ImageError, match=rf"{re.escape(str(tmp_path))} is a folder"):
        load(tmp_path)


def bomb(side):
    """Return the beginning of a PNG file whose header states a size of side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


def test_decompression_bombs_are_refused_and_the_limit_can_be_raised(tmp_path, pixels):
    (tmp_path / "bomb.png").write_bytes(bomb(20000))
    with pytest.raises(ImageError, match=r"bomb\.png: 20000 x 20000 .*max_pixels"):
        load(tmp_path / "bomb.png")
    with pytest.raises(ImageError, match=r"bomb\.png: damaged"):  # there are no pixels
        load(tmp_path / "bomb.png", max_pixels=400_000_000)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: 17 x 11 .* 186;"):
        load(tmp_path / "a.png", max_pixels=186)
    assert load(tmp_path / "a.png", max_pixels=187).rgb.shape == (11, 17, 3)
    assert Image.MAX_IMAGE_PIXELS == 89478485  # Pillow's limit is unchanged


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 20, 20), np.float32), r"\(3, 20, 20\).*\[height, width, 3\].*channels last"),
        (np.zeros((1, 8, 8, 3), np.float32), r"\(1, 8, 8, 3\).*\[height, width, 3\]"),
        (np.zeros((0, 8, 3), np.float32), r"\(0, 8, 3\).*\[height, width, 3\]"),
        (np.full((4, 4, 3), 255.0), r"255\.0.*0\.\.1.*uint8"),
        (np.full((4, 4, 3), np.nan), r"nan.*0\.\.1"),
        (np.zeros((4, 4, 3), np.int64), "int64.*uint8, uint16"),
        (np.zeros((4, 4, 3), np.uint32), "uint32.*uint8, uint16"),
    ],
)
def test_bad_arrays_are_refused(array, message):
    with pytest.raises(ImageError, match=message):
        load(array)


def test_bytes_and_open_files_are_read(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    sources = [content, bytearray(content), memoryview(content), io.BytesIO(content)]
    with open(tmp_path / "a.png", "rb") as file:
        for source in (*sources, file):
            assert np.array_equal((load(source).rgb * 255).round(), pixels)
        with pytest.raises(ImageError, match=r"a\.png: nothing is left to read; .*current position"):
            load(file)
    with (
        open(tmp_path / "a.png", encoding="latin-1") as file,
        pytest.raises(ImageError, match=r"text mode.*'rb'"),
    ):
        load(file)
    with pytest.raises(ImageError, match="the image: not an image that can be read"):
        load(b"GIF8")
    with pytest.raises(ImageError, match=r"a\.png: cannot be read .*closed.*mode 'rb'"):
        load(file)
    with (
        open(tmp_path / "b.png", "wb") as file,
        pytest.raises(ImageError, match=r"b\.png: cannot be read.*'rb'"),
    ):
        load(file)
    with pytest.raises(ImageError, match=r"17 x 11 .* limit of 10;"):
        load(content, max_pixels=10)


def test_big_endian_arrays_are_read(pixels_16_bit):
    image = load(pixels_16_bit.astype(">u2"))
    assert image.bits == 16
    assert np.array_equal(image.rgb, load(pixels_16_bit).rgb)
    floats = make_image(5, 7)
    assert np.array_equal(load(floats.astype(">f4")).rgb, floats)
    assert np.allclose(load(floats.astype(np.float64)).rgb, floats)
    assert np.allclose(load(tf.cast(floats, tf.bfloat16)).rgb, floats, atol=2**-8)


class NeedsGradients:
    """Behaves as a torch tensor that requires gradients."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError(
            "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
        )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "of type NoneType; expected a path"),
        (5, "of type int; expected a path"),
        ((row for row in "ab"), "of type generator; expected a path"),
        ({"a": 1}, "of type dict; expected a path"),
        (object(), "of type object; expected a path"),
        ([object()], "of type list; expected a path"),
        ([[1], [2, 3]], "of type list cannot be converted.*expected a path"),
        (NeedsGradients(), r"of type NeedsGradients cannot.*detach\(\)\.numpy\(\).*expected a path"),
        ("https://example.org//a.jpg?b=1", r"https://example\.org//a\.jpg\?b=1 is a URL; download the file"),
        ("data:image/png;base64,AAAA", "data:image.* is a URL; download the file"),
        ("x" * 5000, "cannot be a path|no such image"),
        ("a\0b", "no such image"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_other_sources_are_named(source, message):
    with pytest.raises(ImageError, match=message):
        load(source)


def test_integers_of_32_bits_from_pillow_are_refused():
    """Their largest value is not known: 0..255 as 16 bits would be black."""
    image = Image.fromarray(np.full((4, 4), 200, np.int32))
    assert image.mode == "I"
    with pytest.raises(ImageError, match=r"mode I.*uint8 or uint16"):
        load(image)


@pytest.mark.parametrize("name", ["grey16_miniswhite", "grey12", "grey32_unsigned"])
def test_images_that_the_caller_opened_are_right_or_refused(data, name):
    """Pillow does not invert zero-is-white of 16 bits, and does not scale 12 and 32 bits."""
    with (
        Image.open(data / "inputs" / f"{name}.tif") as image,
        pytest.raises(ImageError, match=r"(wrongly; give the path|mode I.*uint8 or uint16)"),
    ):
        load(image)


def test_damaged_files_that_the_caller_opened_are_refused():
    for data in (cut(encoded("PNG")), cut(encoded("JPEG"), 0.8)):
        with Image.open(io.BytesIO(data)) as image, pytest.raises(ImageError, match="the image: damaged"):
            load(image)


def test_the_limit_is_read_while_pillow_has_none(pixels):
    """Other threads that open images set Pillow's limit to None for a moment."""
    data, outcomes = encoded("PNG"), []

    def work():
        for _ in range(200):
            try:
                load(bomb(20000))
            except ImageError as error:
                outcomes.append(str(error))
            load(data)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 800
    assert all("limit of 178956970" in outcome for outcome in outcomes)


def noisy_jpeg(**options):
    noise = np.random.default_rng(0).integers(-20, 20, (320, 200, 3))
    array = np.clip(make_image(320, 200) * 255 + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}], ids=str
)
def test_jpeg_without_its_last_bytes(options, caplog):
    """Without its end marker the image is whole, and without a few bytes its last blocks are grey."""
    data = noisy_jpeg(**options)
    whole = load(data).rgb
    for missing in (1, 2, 10, 60):
        caplog.clear()
        rgb = load(data[:-missing]).rgb
        assert np.array_equal(rgb[:-17], whole[:-17])
        assert np.array_equal(rgb, whole) == (missing <= 2)
        assert "the last bytes of the file are missing" in caplog.text
    # The end of a scan of a progressive file, after which others are missing, is not the end of the image.
    for length in {len(data) // 2, len(data) * 9 // 10, *scan_ends(data)}:
        with pytest.raises(ImageError, match="damaged or truncated"):
            load(data[:length])


def scan_ends(data):
    """Return the places where the scans of a JPEG file begin, except the first."""
    return [match.start() for match in re.finditer(b"\xff\xda", data)][1:]


def test_fitted_shrinks_and_grows_only_when_asked():
    image = ImageArray(make_image(30, 60))
    assert image.fitted(20).rgb.shape == (10, 20, 3)
    assert image.fitted(100) is image
    assert image.fitted(120, enlarge=True).rgb.shape == (60, 120, 3)
    assert ImageArray(make_image(2, 600)).fitted(100).rgb.shape == (1, 100, 3)


def test_resizing_is_antialiased():
    """Stripes of one pixel become their mean."""
    stripes = np.zeros((64, 64, 3), np.float32)
    stripes[:, ::2] = 1
    assert resize(stripes, (16, 16))[2:-2, 2:-2] == pytest.approx(0.5, abs=0.02)
    assert resize(stripes, (64, 64)) is stripes


def test_colours_of_transparent_pixels_do_not_affect_their_neighbours():
    rgb, alpha = np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.float32)
    rgb[:, :4], alpha[:, :4] = 1, 1  # white and opaque next to black and transparent
    small = ImageArray(rgb, alpha).resized((4, 4))
    assert small.rgb[small.alpha > 0.05] == pytest.approx(1, abs=1e-5)
    assert ImageArray(rgb, alpha).on_white().min() == 1


def test_folders_are_searched_for_images(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    others = [
        "notes.txt",
        "odd",
        "._a.JPG",
        ".hidden/d.jpg",
        "book.pdf",
        "weights.h5",
        "film.mpg",
        "drawing.eps",
    ]
    for name in ("c.PNG", "b/z.jpg", "b/a.webp", "d.heic", *others):
        (tmp_path / name).write_bytes(b"")
    paths = find_images([tmp_path, tmp_path / "odd"])
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "b/a.webp",
        "b/z.jpg",
        "c.PNG",
        "d.heic",
        "odd",
    ]
    with pytest.raises(ImageError, match=r"no such image or folder: .*gone"):
        find_images([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=r"empty contains no image.*\.jpg"):
        find_images([tmp_path / "empty"])
    # The place itself may be hidden.
    assert [path.name for path in find_images([tmp_path / ".hidden"])] == ["d.jpg"]

"""Files decoded inside a graph: the pixels are those of Pillow, and too large images are refused."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.conftest import make_image, webp
from tfstyle.images import resize
from tfstyle.serving import assert_in_graph, decode_image, resize_in_graph

LIMIT = 100_000


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def decoded(code):
    return decode_image(
        code, lambda h, w: assert_in_graph((h > 0) & (w > 0) & (h * w <= LIMIT), "too large", h, w)
    )


@pytest.fixture(scope="module")
def image():
    return Image.fromarray((make_image(61, 90, 3) * 255).astype(np.uint8))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded_by_pillow(code):
    return np.asarray(Image.open(io.BytesIO(code)).convert("RGB"))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}), ("BMP", {}), ("GIF", {}), ("JPEG", {}), webp("WEBP", {}),
        webp("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 95, "progressive": True}),
    ],
    ids=str,
)  # fmt: skip
def test_the_pixels_are_those_of_pillow(image, kind, options):
    code = encoded(image, kind, **options)
    assert np.array_equal(decoded(code), decoded_by_pillow(code))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "PNG"), ("P", "PNG"), ("1", "PNG"), ("L", "JPEG"), ("L", "GIF"), ("P", "GIF"), webp("L", "WEBP")],
)
def test_grey_images_and_palettes_give_the_colours_of_pillow(image, mode, kind):
    code = encoded(image.convert(mode), kind)
    assert np.array_equal(decoded(code), decoded_by_pillow(code))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), webp("WEBP", {"lossless": True, "exact": True}), webp("WEBP", {})],
    ids=str,
)
def test_the_alpha_channel_is_dropped(image, kind, options):
    transparent = image.convert("RGBA")
    transparent.putalpha(Image.fromarray(np.tile(np.arange(90, dtype=np.uint8), (61, 1))))
    code = encoded(transparent, kind, **options)
    assert np.array_equal(decoded(code), decoded_by_pillow(code))
    if kind != "WEBP" or options:
        assert np.array_equal(decoded(code), np.asarray(image))


def test_cmyk_and_16_bits_are_reduced_to_8_bit_rgb(image):
    code = encoded(image.convert("CMYK"), "JPEG")
    assert np.array_equal(decoded(code), decoded_by_pillow(code))
    grey = np.random.default_rng(0).integers(0, 65536, (20, 30), np.uint16)
    expected = np.repeat(grey[..., None] / 257, 3, 2)
    assert np.abs(decoded(encoded(Image.fromarray(grey), "PNG")) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_animated_webp_is_refused(image, mode):
    frames = [image.convert(mode).rotate(30 * i) for i in range(3)]
    code = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"WebP.*not be animated; save one frame"):
        decoded(code)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_a_bitmap_with_a_palette_is_refused(image, mode):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"BMP.*24 or 32 bits per pixel"):
        decoded(encoded(image.convert(mode), "BMP"))


def test_an_animated_gif_gives_its_first_frame(image):
    frames = [image.rotate(30 * i).quantize(32) for i in range(6)]
    code = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"long" * 200)
    assert Image.open(io.BytesIO(code)).n_frames == 6
    assert np.array_equal(decoded(code), decoded_by_pillow(code))


def declaring(kind, width, height):
    """Return a small file whose header declares another size."""
    code = bytearray(
        encoded(Image.new("RGB", (4, 4)), kind, **({"lossless": True} if kind == "WEBP" else {}))
    )
    if kind == "PNG":
        code[16:24] = struct.pack(">II", width, height)
    elif kind == "GIF":
        code[6:10] = struct.pack("<HH", width, height)
    elif kind == "BMP":
        code[18:26] = struct.pack("<ii", width, -height)
    elif kind == "WEBP":
        code[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    else:
        offset = code.index(b"\xff\xc0") + 5
        code[offset : offset + 4] = struct.pack(">HH", height, width)
    return bytes(code)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "JPEG"])
def test_a_declared_size_is_checked_before_decoding(kind):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"too large\] \[9000\] \[8000\]"):
        decoded(declaring(kind, 8000, 9000))


def test_a_png_of_more_than_two_to_the_31():
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        decoded(declaring("PNG", 2**31 + 5, 8))


def test_a_gif_whose_frame_is_larger_than_its_screen():
    code = bytearray(encoded(Image.new("L", (6000, 6000)), "GIF"))
    code[6:10] = struct.pack("<HH", 16, 16)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"too large\] \[6000\] \[6000\]"):
        decoded(bytes(code))


@pytest.mark.parametrize(("left", "top", "width", "height"), [(0, 0, 60, 50), (1, 0, 59, 50), (3, 2, 64, 52)])
def test_a_gif_whose_first_frame_is_not_its_whole_screen(left, top, width, height):
    code = bytearray(encoded(Image.new("L", (width, height)), "GIF"))
    code[6:10] = struct.pack("<HH", 64, 52)
    offset = code.index(struct.pack("<BHHHH", 0x2C, 0, 0, width, height))
    code[offset + 1 : offset + 5] = struct.pack("<HH", left, top)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"GIF.*screen\] \[{height}\] \[{width}"):
        decoded(bytes(code))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"", "JPEG, PNG, BMP, GIF or WebP"),
        (b"hello, this is no image of any kind at all", "JPEG, PNG, BMP, GIF or WebP"),
        (b"\xff\xd8\xff\xe0", "Invalid JPEG"),
        (b"GIF89a\x04\x00\x04\x00" + bytes(40), "GIF.*no frame"),
        (b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">II", 4, 4), "Invalid PNG"),
    ],
)
def test_invalid_files_are_refused(code, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decoded(code)


@pytest.mark.parametrize("shape", [(30, 45), (122, 90), (61, 90)], ids=str)
def test_resizing_agrees_with_the_library(image, shape):
    pixels = np.asarray(image, np.float32) / 255
    resized = resize_in_graph(tf.constant(pixels[None]), tf.constant(shape))[0].numpy()
    assert np.abs(resized - resize(pixels, shape)).max() < 2e-3

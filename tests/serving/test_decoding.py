"""Files decoded inside a graph: the pixels that Pillow sees, and nothing that fills the memory."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.conftest import make_picture, webp
from tfstyle.images import resize
from tfstyle.serving import assert_in_graph, decode_image, resize_in_graph

LIMIT = 100_000


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def decoded(code):
    return decode_image(
        code, lambda h, w: assert_in_graph((h > 0) & (w > 0) & (h * w <= LIMIT), "too large", h, w)
    )


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray((make_picture(61, 90, 3) * 255).astype(np.uint8))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pillows(code):
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
def test_the_pixels_are_pillows(picture, kind, options):
    code = encoded(picture, kind, **options)
    assert np.array_equal(decoded(code), pillows(code))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "PNG"), ("P", "PNG"), ("1", "PNG"), ("L", "JPEG"), ("L", "GIF"), ("P", "GIF"), webp("L", "WEBP")],
)
def test_grey_and_palettes_become_pillows_colours(picture, mode, kind):
    code = encoded(picture.convert(mode), kind)
    assert np.array_equal(decoded(code), pillows(code))


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_of_transparent_pixels_the_colour_below_is_taken(picture, kind):
    seen = picture.convert("RGBA")
    seen.putalpha(Image.fromarray(np.tile(np.arange(90, dtype=np.uint8), (61, 1))))
    assert np.array_equal(decoded(encoded(seen, kind)), np.asarray(picture))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_a_bitmap_with_a_palette_is_refused(picture, mode):
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have 24 or 32 bits per pixel"):
        decoded(encoded(picture.convert(mode), "BMP"))


def test_of_a_moving_gif_the_first_frame(picture):
    frames = [picture.rotate(30 * i).quantize(32) for i in range(6)]
    code = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"long" * 200)
    assert Image.open(io.BytesIO(code)).n_frames == 6
    assert np.array_equal(decoded(code), pillows(code))


def declaring(kind, width, height):
    """A small file whose header declares a size."""
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
        at = code.index(b"\xff\xc0") + 5
        code[at : at + 4] = struct.pack(">HH", height, width)
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
    at = code.index(struct.pack("<BHHHH", 0x2C, 0, 0, width, height))
    code[at + 1 : at + 5] = struct.pack("<HH", left, top)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=f"must fill its screen\\] \\[{height}\\] \\[{width}"
    ):
        decoded(bytes(code))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"", "not a JPEG, PNG, BMP, GIF or WebP file"),
        (b"hello, this is no image of any kind at all", "not a JPEG, PNG"),
        (b"\xff\xd8\xff\xe0", "Invalid JPEG"),
        (b"GIF89a\x04\x00\x04\x00" + bytes(40), "a GIF without a frame"),
        (b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">II", 4, 4), "PNG"),
    ],
)
def test_what_is_no_image(code, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decoded(code)


@pytest.mark.parametrize("shape", [(30, 45), (122, 90), (61, 90)], ids=str)
def test_resizing_is_the_librarys(picture, shape):
    image = np.asarray(picture, np.float32) / 255
    found = resize_in_graph(tf.constant(image[None]), tf.constant(shape))[0].numpy()
    assert np.abs(found - resize(image, shape)).max() < 2e-3

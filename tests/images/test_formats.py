"""Image files of every container, depth, channels, alpha and byte order are read as their 8-bit twins.

The files are written here from 8-bit samples. The twin is what the samples mean by the format's definition.
"""

import io
import itertools
import logging
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from tests.conftest import make_image
from tfstyle.errors import ImageError
from tfstyle.images import ImageArray, load

HEIGHT, WIDTH = 14, 20
MINISWHITE, MINISBLACK, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
UNSPECIFIED, PREMULTIPLIED, STRAIGHT = 0, 1, 2
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
DEPTHS = {
    "8": (8, UNSIGNED),
    "12": (12, UNSIGNED),
    "16": (16, UNSIGNED),
    "32": (32, UNSIGNED),
    "float": (32, FLOAT),
}


def scene():
    """Return RGB and alpha as uint8. Alpha is not so low that premultiplied colours lose two levels."""
    colour = (make_image(HEIGHT, WIDTH, seed=5) * 255).round().astype(np.uint8)
    alpha = (make_image(HEIGHT, WIDTH, seed=6)[..., 0] * 120 + 130).round().astype(np.uint8)
    return colour, alpha


def check(image, colour, alpha=None):
    """Compare with the twin: one level of 255 on average, and two at any pixel."""
    planes = [(image.rgb, colour if colour.ndim == 3 else np.repeat(colour[..., None], 3, -1))]
    assert (image.alpha is None) == (alpha is None)
    if alpha is not None:
        planes.append((image.alpha, alpha))
    for values, twin in planes:
        assert values.dtype == np.float32
        assert values.shape == twin.shape
        difference = np.abs(values * 255 - twin.astype(float))
        assert difference.mean() <= 1
        assert difference.max() <= 2


# ------------------------------------------------------------------------------------------------------ TIFF
KINDS = {  # name: (photometric interpretation, colours, kinds of the extra samples)
    "grey": (MINISBLACK, "grey", ()),
    "zero is white": (MINISWHITE, "grey", ()),
    "grey, alpha": (MINISBLACK, "grey", (STRAIGHT,)),
    "grey, premultiplied alpha": (MINISBLACK, "grey", (PREMULTIPLIED,)),
    "zero is white, alpha": (MINISWHITE, "grey", (STRAIGHT,)),
    "grey, extra": (MINISBLACK, "grey", (UNSPECIFIED,)),
    "RGB": (RGB, "rgb", ()),
    "RGB, alpha": (RGB, "rgb", (STRAIGHT,)),
    "RGB, premultiplied alpha": (RGB, "rgb", (PREMULTIPLIED,)),
    "RGB, extra": (RGB, "rgb", (UNSPECIFIED,)),
    "RGB, alpha, extra": (RGB, "rgb", (STRAIGHT, UNSPECIFIED)),
    "RGB, extra, alpha": (RGB, "rgb", (UNSPECIFIED, STRAIGHT)),
    "palette": (PALETTE, "palette", ()),
    "CMYK": (CMYK, "cmyk", ()),
    "CMYK, extra": (CMYK, "cmyk", (UNSPECIFIED,)),
}


def samples_of(kind):
    """Return the samples of a kind as floats in 0..255 ``[height, width, samples]``, and the twin."""
    photometric, colours, extra = KINDS[kind]
    colour, alpha = scene()
    if colours == "grey":
        twin = colour[..., 1]
        stored = twin[..., None].astype(float)
    elif colours == "rgb":
        twin, stored = colour, colour.astype(float)
    elif colours == "palette":
        indices = colour[..., :1] // 32
        twin, stored = PALETTE_COLOURS[indices[..., 0]], indices.astype(float)
    else:
        cyan, black = colour, alpha // 8
        stored = np.concatenate([cyan, black[..., None]], -1).astype(float)
        twin = np.round((255.0 - cyan) * (255 - black[..., None]) / 255)
    if photometric == MINISWHITE:
        stored = 255 - stored
    if PREMULTIPLIED in extra:
        stored = stored * (alpha[..., None] / 255)
    planes = [stored]
    for sample in extra:
        planes.append((alpha if sample != UNSPECIFIED else 255 - alpha)[..., None].astype(float))
    transparent = PREMULTIPLIED in extra or STRAIGHT in extra
    return np.concatenate(planes, -1), twin, alpha if transparent else None


PALETTE_COLOURS = np.random.default_rng(1).integers(0, 256, (8, 3)).astype(np.uint8)


def packed(samples, bits, sample_format, order):
    """Return the bytes of samples in 0..255, scaled to a depth. Rows of 12 bits are padded to bytes."""
    if sample_format == FLOAT:
        return (samples / 255).astype(f"{order}f4").tobytes()
    scaled = np.round(samples / 255 * (2**bits - 1)).astype(np.uint64)
    if bits != 12:
        return scaled.astype(f"{order}u{bits // 8}").tobytes()
    rows = scaled.reshape(len(samples), -1)
    all_bits = (rows[..., None] >> np.arange(11, -1, -1, dtype=np.uint64)) & np.uint64(1)
    return np.packbits(all_bits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def tiff(
    samples,
    photometric,
    depth,
    *,
    extra=(),
    order="<",
    separate=False,
    deflate=False,
    orientation=1,
    profile=None,
    tags=(),
):
    """Return a TIFF file with one strip per plane."""
    bits, sample_format = DEPTHS[depth] if isinstance(depth, str) else depth
    height, width, count = samples.shape
    planes = np.split(samples, count, -1) if separate else [samples]
    if photometric == PALETTE:  # indices are not scaled
        planes = [plane * 255 / (2**bits - 1) for plane in planes]
    strips = [packed(plane, bits, sample_format, order) for plane in planes]
    strips = [zlib.compress(strip) if deflate else strip for strip in strips]
    offsets = np.cumsum([8] + [len(strip) for strip in strips]).tolist()
    entries = [
        (256, "L", [width]),
        (257, "L", [height]),
        (258, "H", [bits] * count),
        (259, "H", [8 if deflate else 1]),
        (262, "H", [photometric]),
        (273, "L", offsets[:-1]),
        (274, "H", [orientation]),
        (277, "H", [count]),
        (278, "L", [height]),
        (279, "L", [len(strip) for strip in strips]),
        (284, "H", [2 if separate else 1]),
        (339, "H", [sample_format] * count),
        *tags,
    ]
    if photometric == PALETTE:
        table = np.zeros((3, 2**bits), np.uint16)
        table[:, :8] = PALETTE_COLOURS.T.astype(np.uint16) * 257
        entries.append((320, "H", table.ravel().tolist()))
    if extra:
        entries.append((338, "H", list(extra)))
    if profile:
        entries.append((34675, "B", list(profile)))
    codes, types = {"B": 1, "H": 3, "L": 4}, sorted(entries)
    start = offsets[-1] + offsets[-1] % 2
    end = start + 2 + 12 * len(types) + 4
    directory, values = struct.pack(f"{order}H", len(types)), b""
    for tag, code, numbers in types:
        data = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        directory += struct.pack(f"{order}HHL", tag, {"B": 7}.get(code, codes[code]), len(numbers))
        if len(data) <= 4:
            directory += data.ljust(4, b"\0")
        else:
            directory += struct.pack(f"{order}L", end + len(values))
            values += data + b"\0" * (len(data) % 2)
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HL", 42, start)
    body = header + b"".join(strips)
    return body.ljust(start, b"\0") + directory + struct.pack(f"{order}L", 0) + values


@pytest.mark.parametrize(
    ("kind", "depth"),
    [
        (kind, depth)
        for kind, depth in itertools.product(KINDS, DEPTHS)
        if kind != "palette" or depth in ("8", "16")  # others would have 4096 entries or more
    ],
)
def test_tiff(kind, depth):
    pytest.importorskip("imagecodecs")
    photometric, _, extra = KINDS[kind]
    samples, twin, alpha = samples_of(kind)
    for order, separate, deflate in itertools.product("<>", (False, True), (False, True)):
        options = {"extra": extra, "order": order, "separate": separate, "deflate": deflate}
        image = load(tiff(samples, photometric, depth, **options))
        check(image, twin, alpha)
        assert image.bits == (8 if depth == "8" else 16)


def test_tiff_orientation_and_profiles():
    """The orientation tag is applied, and profiles are converted as Pillow converts those of 8-bit images."""
    colour, _ = scene()
    profile = swapped_profile()
    for depth, orientation in itertools.product(("8", "16", "float"), (1, 3, 6)):
        image = load(tiff(colour.astype(float), RGB, depth, orientation=orientation, profile=profile))
        expected = {1: colour, 3: np.rot90(colour, 2), 6: np.rot90(colour, -1)}[orientation]
        check(image, expected[..., [1, 0, 2]])


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw"},
        {"compression": "lzw", "predictor": True},
        {"compression": "zlib", "predictor": True},
        {"compression": "packbits"},
        {"compression": "zstd"},
        {"compression": "lzma"},
        {"compression": "webp"},
        {"compression": "jpeg2000"},
        {"compression": "jpegxl"},
        {"tile": (16, 16)},
        {"rowsperstrip": 3},
        {"bigtiff": True},
        {"byteorder": ">", "compression": "lzw"},
    ],
    ids=str,
)
def test_tiff_compressions(options):
    pytest.importorskip("imagecodecs")
    colour, _ = scene()
    for dtype in (np.uint8, np.uint16, np.float32):
        if options.get("compression") == "webp" and dtype != np.uint8:
            continue
        if options.get("compression") == "jpeg2000" and dtype == np.float32:
            continue
        factor = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
        buffer = io.BytesIO()
        arguments = options | ({"compressionargs": {"level": 100}} if "webp" in options.values() else {})
        tifffile.imwrite(
            buffer, (colour.astype(float) * factor).astype(dtype), photometric="rgb", **arguments
        )
        check(load(buffer.getvalue()), colour)


PILLOW_TIFF_MODES = {
    "raw": ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "LAB"),
    "tiff_lzw": ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"),
    "jpeg": ("L", "RGB", "CMYK", "YCbCr"),
    "group4": ("1",),
}


@pytest.mark.parametrize(
    ("compression", "mode"), [(name, mode) for name, modes in PILLOW_TIFF_MODES.items() for mode in modes]
)
def test_tiff_files_that_pillow_wrote(compression, mode):
    colour, alpha = scene()
    original = Image.fromarray(colour)
    if mode == "LAB":
        profiles = [ImageCms.createProfile(space) for space in ("sRGB", "LAB")]
        original = ImageCms.profileToProfile(original, *profiles, outputMode="LAB")
    elif mode in ("LA", "RGBA"):
        original.putalpha(Image.fromarray(alpha))
        original = original.convert(mode)
    else:
        original = original.convert(mode)
    options = {"quality": 100} if compression == "jpeg" else {}
    image = load(pillow_file(original, "TIFF", compression=compression, **options))
    expected = np.asarray(original.convert("RGB"))
    if compression == "jpeg":
        assert np.abs(image.rgb * 255 - expected).mean() < 6
    else:
        check(image, expected, alpha if mode in ("LA", "RGBA") else None)


def directory_first(array):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="rgb", rowsperstrip=4)
    return buffer.getvalue()


def taller(samples, **options):
    """Return a TIFF file that states twice the height of its data."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples.astype(np.uint8), photometric="rgb", **options)
    buffer.seek(0)
    with tifffile.TiffFile(buffer, mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(2 * HEIGHT)
    return buffer.getvalue()


def test_tiff_files_that_are_refused():
    grey, _, _ = samples_of("grey")
    rgb, _, _ = samples_of("RGB")
    for data, message in (
        (tiff(grey, MINISBLACK, (16, SIGNED)), "neither unsigned integers nor floats.*8 or 16 bits"),
        (tiff(grey, MINISBLACK, (8, SIGNED)), "neither unsigned integers nor floats.*8 or 16 bits"),
        (tiff(grey * 2, MINISBLACK, "float"), r"values from .* to .*expected 0\.\.1"),
        (tiff(grey, 32803, "16"), "photometric interpretation CFA is not supported; save it as RGB"),
        (tiff(rgb, CMYK, "16"), "3 channels of photometric interpretation SEPARATED.*RGB"),
        (tiff(grey, MINISBLACK, "16", tags=[(50706, "B", [1, 4, 0, 0])]), "camera raw.*convert"),
        (tiff(samples_of("CMYK")[0], CMYK, "16", tags=[(332, "H", [2])]), "SEPARATED is not supported.*RGB"),
        (tiff(rgb, RGB, "16")[:-300], "damaged or truncated"),
        (directory_first(rgb.astype(np.uint16))[:-300], "damaged or truncated.*ends after"),
        (taller(rgb, rowsperstrip=7), "damaged or truncated.*rows are missing"),
        (taller(rgb, rowsperstrip=7, compression="zlib"), "damaged or truncated.*rows are missing"),
        (taller(rgb, tile=(16, 16), compression="zlib"), "damaged or truncated.*rows are missing"),
    ):
        with pytest.raises(ImageError, match=message) as caught:
            load(io.BytesIO(data))
        assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------- PNG
GREY_PNG, RGB_PNG, PALETTE_PNG, GREY_ALPHA_PNG, RGBA_PNG = 0, 2, 3, 4, 6


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples, colour_type, depth, *chunks):
    """Return a PNG file of integers ``[height, width, channels]``, with chunks before the pixels."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1).astype(np.uint16)
    all_bits = (rows[..., None] >> np.arange(depth - 1, -1, -1, dtype=np.uint16)) & 1
    data = np.packbits(all_bits.reshape(height, -1).astype(np.uint8), axis=1)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in data))
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("key", [False, True])
def test_grey_png(depth, key):
    grey = scene()[0][..., 0]
    levels = np.round(grey / 255 * (2**depth - 1))
    twin = np.round(levels / (2**depth - 1) * 255)
    chunks = [chunk(b"tRNS", struct.pack(">H", int(levels[0, 0])))] if key else []
    alpha = np.where(levels == levels[0, 0], 0, 255) if key else None
    image = load(png(levels[..., None], GREY_PNG, depth, *chunks))
    check(image, twin, alpha)
    assert image.bits == (16 if depth == 16 else 8)


@pytest.mark.parametrize("depth", [8, 16])
def test_colour_png(depth):
    colour, alpha = scene()
    factor = 257 if depth == 16 else 1
    check(load(png(colour.astype(int) * factor, RGB_PNG, depth)), colour)
    both = np.concatenate([colour, alpha[..., None]], -1).astype(int) * factor
    check(load(png(both, RGBA_PNG, depth)), colour, alpha)
    check(load(png(both[..., 2:], GREY_ALPHA_PNG, depth)), colour[..., 2], alpha)
    key = chunk(b"tRNS", struct.pack(">3H", *(colour[3, 4].astype(int) * factor)))
    opaque = np.where((colour == colour[3, 4]).all(-1), 0, 255)
    check(load(png(colour.astype(int) * factor, RGB_PNG, depth, key)), colour, opaque)


@pytest.mark.parametrize("depth", [4, 8])
def test_palette_png(depth):
    indices = scene()[0][..., :1] // 32
    palette = chunk(b"PLTE", PALETTE_COLOURS.tobytes())
    twin = PALETTE_COLOURS[indices[..., 0]]
    check(load(png(indices, PALETTE_PNG, depth, palette)), twin)
    alphas = np.array([0, 100, 255, 255, 200, 255, 255, 9], np.uint8)
    transparency = chunk(b"tRNS", alphas.tobytes())
    check(load(png(indices, PALETTE_PNG, depth, palette, transparency)), twin, alphas[indices[..., 0]])


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"eXIf", b"this is not EXIF"),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n    4\nzzzz\n")),
        chunk(b"tEXt", b"Raw profile type exif\0\nexif\n       6\n457869660000\n"),
        chunk(b"eXIf", b"MM\0*\0\0\xff\xff"),
    ],
    ids=["eXIf", "raw profile", "short profile", "beyond the end"],
)
def test_png_with_metadata_that_are_not_exif(depth, metadata):
    colour, _ = scene()
    check(load(png(colour.astype(int) * (257 if depth == 16 else 1), RGB_PNG, depth, metadata)), colour)


@pytest.mark.parametrize("depth", [8, 16])
def test_png_profiles(depth):
    """A grey profile converts grey, and an RGB profile converts grey and RGB."""
    colour, _ = scene()
    factor = 257 if depth == 16 else 1
    gamma = grey_profile_with_gamma_1()
    grey = png(colour[..., :1].astype(int) * factor, GREY_PNG, depth, icc(gamma))
    linear = colour[..., 0] / 255
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    check(load(grey), encoded * 255)
    swapped = png(colour.astype(int) * factor, RGB_PNG, depth, icc(swapped_profile()))
    check(load(swapped), colour[..., [1, 0, 2]])
    neutral = png(colour[..., :1].astype(int) * factor, GREY_PNG, depth, icc(swapped_profile()))
    check(load(neutral), colour[..., 0])


def test_a_profile_that_does_not_fit_is_named_with_the_file(tmp_path, caplog):
    colour, _ = scene()
    for depth, factor in ((8, 1), (16, 257)):
        caplog.clear()
        path = tmp_path / f"depth{depth}.png"
        path.write_bytes(png(colour.astype(int) * factor, RGB_PNG, depth, icc(grey_profile_with_gamma_1())))
        check(load(path), colour)
        assert f"{path}: the colour profile is invalid and ignored" in caplog.text
        assert len(caplog.records) == 1


def test_profiles_of_16_bit_images_leave_no_bands():
    """A ramp of 16 bits in linear light stays a ramp without steps of a whole level, dark tones included."""
    ramp = np.linspace(0, 20000, 2000).astype(int).reshape(1, -1, 1)
    image = load(png(ramp, GREY_PNG, 16, icc(grey_profile_with_gamma_1())))
    steps = np.diff(image.rgb[0, :, 0]) * 255
    linear = ramp[0, :, 0] / 65535
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert steps.min() >= -1e-3
    assert np.abs(steps - np.diff(encoded)).max() < 0.5


def icc(profile):
    return chunk(b"iCCP", b"profile\0\0" + zlib.compress(profile))


def grey_profile_with_gamma_1():
    """Return a grey ICC profile in linear light, of the smallest set of tags that littleCMS accepts."""
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    text = b"text\0\0\0\0public\0\0"
    tags = [(b"wtpt", white), (b"kTRC", curve), (b"cprt", text)]
    offset, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags:
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content.ljust((len(content) + 3) // 4 * 4, b"\0")
    size = offset + len(data)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def swapped_profile():
    """Return an sRGB profile with exchanged red and green primaries."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "rSGB".encode("utf-16-be"))
    return profile.replace(b"rXYZ", b"tmpZ").replace(b"gXYZ", b"rXYZ").replace(b"tmpZ", b"gXYZ")


# ----------------------------------------------------------------------------------------- other formats
def pillow_file(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "modes", "options"),
    [
        ("BMP", ("L", "RGB", "P", "1"), {}),
        ("GIF", ("L", "P"), {}),
        ("TGA", ("L", "LA", "RGB", "RGBA"), {}),
        ("PPM", ("L", "RGB", "1"), {}),
        ("WEBP", ("RGB", "RGBA", "L"), {"lossless": True, "exact": True}),
        ("JPEG2000", ("L", "LA", "RGB", "RGBA"), {}),
        ("QOI", ("RGB", "RGBA"), {}),
    ],
    ids=str,
)
def test_formats_without_losses(kind, modes, options):
    colour, alpha = scene()
    original = Image.fromarray(np.concatenate([colour, alpha[..., None]], -1))
    for mode in modes:
        image = original.convert("RGB").convert(mode) if mode in "RGB1LP" else original.convert(mode)
        try:
            data = pillow_file(image, kind, **options)
        except (OSError, KeyError, ValueError):
            pytest.skip("this Pillow does not write the format")
        check(load(data), np.asarray(image.convert("RGB")), alpha if mode in ("LA", "RGBA") else None)


def test_16_bits_of_other_formats():
    """Pillow gives 16-bit grey of PGM and JPEG 2000 in modes of 16 or 32 bits."""
    grey = scene()[0][..., 1]
    samples = (grey.astype(np.uint16) * 257).astype(">u2")
    header = f"P5 {WIDTH} {HEIGHT} 65535\n".encode()
    check(load(header + samples.tobytes()), grey)
    ten_bits = (grey.astype(int) * 4).astype(">u2")
    check(load(f"P5 {WIDTH} {HEIGHT} 1023\n".encode() + ten_bits.tobytes()), grey * (4 / 1023 * 255))
    check(load(pillow_file(Image.fromarray(samples.astype(np.uint16)), "JPEG2000")), grey)


def test_formats_with_losses():
    colour, _ = scene()
    image = Image.fromarray(colour)
    cases = [("JPEG", {"subsampling": 0})] + [("AVIF", {"subsampling": "4:4:4"})] * has_avif()
    for kind, options in cases:
        loaded = load(pillow_file(image, kind, quality=100, **options))
        assert np.abs(loaded.rgb * 255 - colour).mean() < 3
    inks = Image.fromarray(np.concatenate([colour, colour[..., :1] // 8], -1), "CMYK")
    loaded = load(pillow_file(inks, "JPEG", quality=100))
    assert np.abs(loaded.rgb * 255 - np.asarray(inks.convert("RGB"))).mean() < 3


def has_avif():
    from PIL import features

    return "avif" in features.modules and features.check("avif")


def test_heic():
    """Colour, alpha and orientation. HEIC has losses, but the waves of the scene are smooth."""
    pillow_heif = pytest.importorskip("pillow_heif")
    colour, alpha = scene()
    large = Image.fromarray(np.concatenate([colour, alpha[..., None]], -1)).resize((80, 56))
    for mode in ("L", "RGB", "RGBA"):
        image, buffer = large.convert(mode), io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        pillow_heif.from_pillow(image).save(buffer, quality=100, chroma=444, exif=exif.tobytes())
        loaded = load(buffer.getvalue())
        expected = np.rot90(np.asarray(image.convert("RGBA")), -1)
        assert np.abs(loaded.rgb * 255 - expected[..., :3]).mean() < 3
        if mode == "RGBA":
            assert np.abs(loaded.alpha * 255 - expected[..., 3]).mean() < 3


# ------------------------------------------------------------------------------------------ the shared files
TWINS = {
    "rgb16_premultiplied_alpha.tif": ("reference_rgba8", True),
    "grey16_miniswhite.tif": ("reference_grey8", False),
    "rgb16_colour_key.png": ("reference_rgb8", "key"),
    "grey16_colour_key.png": ("reference_grey8", "key"),
    "rgb8_broken_exif_chunk.png": ("reference_rgb8", False),
    "rgb8_broken_raw_exif_profile.png": ("reference_rgb8", False),
    "grey12.tif": ("reference_grey8", False),
    "grey32_unsigned.tif": ("reference_grey8", False),
    "rgb32_float.tif": ("reference_rgb8", False),
    "grey16_alpha.tif": ("reference_grey8", True),
}


@pytest.mark.parametrize("name", TWINS)
def test_files_that_users_met(data, name):
    if name == "grey12.tif":
        pytest.importorskip("imagecodecs")
    twin_name, transparency = TWINS[name]
    colour = np.asarray(Image.open(data / "inputs" / f"{twin_name}.png").convert("RGB"))
    alpha = None
    if transparency == "key":
        stored = Image.open(data / "inputs" / name)
        key = np.array(stored.info["transparency"])
        if stored.mode == "RGB":  # Pillow reduced the pixels, but not the key, to 8 bits
            key = key // 256
        alpha = np.where((np.asarray(stored).reshape(*colour.shape[:2], -1) == key).all(-1), 0, 255)
        assert not alpha[:8, :8].any()
    elif transparency:
        alpha = np.asarray(Image.open(data / "inputs" / "reference_rgba8.png"))[..., 3]
    image = load(data / "inputs" / name)
    visible = np.ones(colour.shape[:2], bool) if alpha is None else alpha > 0
    check(ImageArray(image.rgb * visible[..., None], image.alpha), colour * visible[..., None], alpha)


def test_the_shared_grey_profile(data):
    """Converted by Pillow and littleCMS here, from the 8-bit twin."""
    twin = Image.open(data / "inputs" / "reference_grey8_linear_profile.png")
    profile = ImageCms.ImageCmsProfile(io.BytesIO(twin.info["icc_profile"]))
    expected = ImageCms.profileToProfile(twin, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    check(load(data / "inputs" / "grey16_linear_profile.png"), np.asarray(expected))


# --------------------------------------------------------------------------------------------- missing extras
WITHOUT_EXTRAS = """
import sys
sys.modules["imagecodecs"] = sys.modules["pillow_heif"] = None
from tfstyle.errors import TfstyleError
from tfstyle.images import ImageArray, load
for path in sys.argv[1:]:
    try:
        image = load(path)
        print(image.bits, *(image.rgb.mean((0, 1)) * 255).round(1).tolist())
    except TfstyleError as error:
        print(error)
"""


def test_without_the_extras_files_are_right_or_refused(tmp_path):
    """One process in which imagecodecs and pillow_heif cannot be imported."""
    pytest.importorskip("imagecodecs")
    pillow_heif = pytest.importorskip("pillow_heif")
    colour, _ = scene()
    grey, inverted = samples_of("grey"), samples_of("zero is white")
    tifffile.imwrite(tmp_path / "lzw8.tif", colour, photometric="rgb", compression="lzw")
    tifffile.imwrite(
        tmp_path / "lzw16.tif", colour.astype(np.uint16) * 257, photometric="rgb", compression="lzw"
    )
    tifffile.imwrite(
        tmp_path / "planes.tif",
        colour.transpose(2, 0, 1),
        photometric="rgb",
        compression="lzw",
        planarconfig="separate",
    )
    tifffile.imwrite(tmp_path / "grey16.tif", colour[..., 1].astype(np.uint16) * 257, compression="lzw")
    (tmp_path / "twelve.tif").write_bytes(tiff(grey[0], MINISBLACK, "12"))
    (tmp_path / "white16.tif").write_bytes(tiff(inverted[0], MINISWHITE, "16", deflate=True))
    pillow_heif.from_pillow(Image.fromarray(colour)).save(tmp_path / "photo.heic")
    names = ["lzw8.tif", "lzw16.tif", "planes.tif", "grey16.tif", "twelve.tif", "white16.tif", "photo.heic"]
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, *names],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.getcwd()}, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    lzw8, lzw16, planes, grey16, twelve, white16, heic = process.stdout.splitlines()
    means = colour.mean((0, 1))
    for line in (lzw8, lzw16):
        assert np.allclose([float(word) for word in line.split()[1:]], means, atol=1)
    assert "lzw16.tif: read with 8 bits per channel" in process.stderr
    assert np.allclose([float(word) for word in white16.split()[1:]], grey[1].mean(), atol=1)
    for line, name in ((planes, "planes.tif"), (grey16, "grey16.tif"), (twelve, "twelve.tif")):
        assert line.startswith(f"{name}: TIFF with ")
        assert line.endswith("pip install 'tfstyle[tiff]'")
    assert heic.startswith("photo.heic: HEIC")
    assert "pip install 'tfstyle[heic]'" in heic


# ---------------------------------------------------------------------------------------------- damaged files
def files_of_each_kind():
    """Return small valid files, one of each kind of decoder."""
    colour, alpha = scene()
    image = Image.fromarray(colour)
    both = Image.fromarray(np.concatenate([colour, alpha[..., None]], -1))
    files = {
        "png": png(colour, RGB_PNG, 8),
        "png16": png(colour.astype(int) * 257, RGB_PNG, 16, icc(swapped_profile())),
        "jpeg": pillow_file(image, "JPEG"),
        "progressive jpeg": pillow_file(image, "JPEG", progressive=True),
        "gif": pillow_file(image, "GIF"),
        "bmp": pillow_file(image, "BMP"),
        "tga": pillow_file(both, "TGA"),
        "webp": pillow_file(both, "WEBP"),
        "jpeg 2000": pillow_file(image, "JPEG2000"),
        "tiff": tiff(colour.astype(float), RGB, "8"),
        "tiff16": tiff(colour.astype(float), RGB, "16", deflate=True, profile=swapped_profile()),
        "tiff, premultiplied": tiff(
            samples_of("RGB, premultiplied alpha")[0], RGB, "16", extra=(PREMULTIPLIED,)
        ),
        "tiff, lzw": pillow_file(image, "TIFF", compression="tiff_lzw"),
        "tiff, jpeg": pillow_file(image, "TIFF", compression="jpeg"),
        "tiff, lab": pillow_file(Image.fromarray(colour, "LAB"), "TIFF", compression="tiff_lzw"),
    }
    if has_avif():
        files["avif"] = pillow_file(both, "AVIF")
    try:
        import pillow_heif

        buffer = io.BytesIO()
        pillow_heif.from_pillow(image).save(buffer)
        files["heic"] = buffer.getvalue()
    except ImportError:
        pass
    return files


def mutated(data, generator):
    """Return a file that is cut, has changed or inserted bytes, or consists of its header only."""
    kind = generator.integers(4)
    if kind == 0:
        return data[: generator.integers(1, len(data))]
    if kind == 1:
        changed = np.frombuffer(data, np.uint8).copy()
        places = generator.integers(0, len(data), generator.integers(1, 20))
        changed[places] ^= generator.integers(1, 256, len(places)).astype(np.uint8)
        return changed.tobytes()
    if kind == 2:
        return data[: generator.integers(4, 80)]
    place = generator.integers(0, len(data))
    return data[:place] + generator.bytes(generator.integers(1, 50)) + data[place:]


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_end_in_an_image_or_an_error(capfd, monkeypatch):
    """`TFSTYLE_MUTATIONS` sets the number of damaged files of each kind. Decoders print nothing."""
    monkeypatch.setattr(logging.getLogger("tfstyle"), "disabled", True)
    monkeypatch.setattr(logging.getLogger("tfstyle.images.profiles"), "disabled", True)
    generator = np.random.default_rng(0)
    for kind, data in files_of_each_kind().items():
        load(data)
        outcomes = []
        for _ in range(int(os.environ.get("TFSTYLE_MUTATIONS", "200"))):
            try:
                image = load(mutated(data, generator), max_pixels=100_000)
            except ImageError as error:
                outcomes.append(str(error))
            else:
                assert np.isfinite(image.rgb).all()
                assert 0 <= image.rgb.min() <= image.rgb.max() <= 1
        assert outcomes, kind
        assert not any("\n" in message for message in outcomes)
    assert capfd.readouterr().err == ""

"""Image files of every container, depth, channels, alpha and byte order are read as their 8-bit twins.

The files are written here from 8-bit samples. The twin is what the samples mean by the definition of the format.
"""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from tests.conftest import make_image
from tfstyle.errors import ImageError
from tfstyle.images import load

HEIGHT, WIDTH = 14, 20
MINISWHITE, MINISBLACK, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
UNSPECIFIED, PREMULTIPLIED, STRAIGHT = 0, 1, 2
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
DEPTHS = {"8": (8, UNSIGNED), "12": (12, UNSIGNED), "16": (16, UNSIGNED), "32": (32, UNSIGNED), "float": (32, FLOAT)}


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
    """Return the bytes of rows of samples in 0..255, scaled to a depth. Rows of 12 bits are padded to bytes."""
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_tiff(kind, depth):
    pytest.importorskip("imagecodecs")
    photometric, colours, extra = KINDS[kind]
    samples, twin, alpha = samples_of(kind)
    if colours == "palette" and depth in ("12", "32", "float"):
        pytest.skip("the palette would have 4096 entries or more")
    for order, separate, deflate in itertools.product("<>", (False, True), (False, True)):
        options = {"extra": extra, "order": order, "separate": separate, "deflate": deflate}
        image = load(tiff(samples, photometric, depth, **options))
        check(image, twin, alpha)
        assert image.bits == (8 if depth == "8" else 16)

"""The pixels of decoded video frames as images: colours, bit depth, alpha and orientation."""

from __future__ import annotations

from typing import Any

import numpy as np

#: FFmpeg's numbers of matrices between R'G'B' and Y'CbCr -> the coefficients of red and blue in Y', as in
#: ITU-T H.273.
BT709, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020, BT2020_CONSTANT = 1, 4, 5, 6, 7, 9, 10
MATRICES = {
    BT709: (0.2126, 0.0722),
    FCC: (0.30, 0.11),
    BT470BG: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
    BT2020_CONSTANT: (0.2627, 0.0593),
}
#: FFmpeg's numbers of the range in which black is 16 and white is 235 of 255, and of that in which black is 0
#: and white is the largest value.
LIMITED_RANGE, FULL_RANGE = 1, 2
#: Height in pixels from which a clip that names no matrix is read with that of BT.709, as in players.
HIGH_DEFINITION = 720
#: FFmpeg's numbers of transfer functions of HDR clips -> their names.
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
#: Flags of FFmpeg's scaler: bicubic chroma, accurate rounding, chroma at full resolution in and out.
ACCURATE = 4 | 0x40000 | 0x2000 | 0x4000

#: Codecs whose frames have a colour profile with a name. If the side data of such a frame are read, PyAV
#: frees this name twice, and the process crashes.
NAMED_PROFILES = ("png", "apng")


def frame_pixels(frame: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the colours and the alpha channel of a decoded frame.

    Args:
        frame: an `av.VideoFrame`.

    Returns:
        float32 ``[height, width, 3]``, the frame's R'G'B' values in 0..1 before any alpha is applied, and
        float32 ``[height, width]`` in 0..1, or None if the frame has no alpha channel.
    """
    components = frame.format.components
    bits = max(component.bits for component in components)
    has_alpha = any(component.is_alpha for component in components) or frame.format.name == "pal8"
    # Grey frames have one plane of luma. FFmpeg would change their range in a conversion.
    if len(components) == 1 and frame.format.name != "pal8" and not frame.format.is_rgb and bits <= 16:
        luma = _plane(frame.planes[0], frame, np.uint8 if bits <= 8 else np.uint16)
        return np.repeat(_luma(luma, bits, frame)[..., None], 3, axis=-1), None
    if frame.format.is_rgb or frame.format.name == "pal8" or len(components) < 3:
        deep = bits > 8
        rgba = frame.reformat(format="rgba64le" if deep else "rgba").to_ndarray().astype(np.float32)
        rgba /= 65535.0 if deep else 255.0
        return rgba[..., :3], rgba[..., 3] if has_alpha else None
    y, b, r, *alpha = _planes_of_equal_size(frame, bits, has_alpha)
    y, b, r = _luma(y, bits, frame), _chroma(b, bits, frame), _chroma(r, bits, frame)
    red_weight, blue_weight = MATRICES[matrix_of(frame)]
    red, blue = y + 2.0 * (1.0 - red_weight) * r, y + 2.0 * (1.0 - blue_weight) * b
    green = (y - red_weight * red - blue_weight * blue) / (1.0 - red_weight - blue_weight)
    rgb = np.clip(np.stack([red, green, blue], -1), 0.0, 1.0).astype(np.float32)
    return rgb, (alpha[0].astype(np.float32) / np.float32(2**bits - 1) if has_alpha else None)


def matrix_of(frame: Any) -> int:
    """Return the number of the matrix of a frame, a key of `MATRICES`.

    Args:
        frame: an `av.VideoFrame` in Y'CbCr.
    """
    named = int(frame.colorspace)
    return named if named in MATRICES else (BT709 if frame.height >= HIGH_DEFINITION else SMPTE170M)


def display_matrix(frame: Any, codec: str) -> tuple[int, int, int, int]:
    """Return the signs (a, b, c, d) of the matrix that turns a frame upright.

    A pixel at (p, q), to the right and down from the middle, is shown at (a p + c q, b p + d q). Rotations by
    other angles than multiples of 90 degrees are rounded to the nearest multiple.

    Args:
        frame: an `av.VideoFrame`.
        codec: name of its decoder. Where the side data of the frame cannot be read, only its rotation is
            known: with a codec in `NAMED_PROFILES`, or with side data of a type that PyAV does not know.
    """
    from av.sidedata.sidedata import Type

    try:
        side_data = None if codec in NAMED_PROFILES else frame.side_data
    except ValueError:
        side_data = None
    if side_data is None:
        turns = round(frame.rotation / 90) % 4  # counter-clockwise
        return ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))[turns]
    data = side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1), 0, 0, (-1 if d < 0 else 1)
    return 0, (-1 if b < 0 else 1), (-1 if c < 0 else 1), 0


def upright(array: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Return an array ``[height, width, ...]``, turned upright by the display matrix of its frame.

    Args:
        array: the array.
        matrix: the result of `display_matrix`.

    Example:
        >>> import numpy as np
        >>> from tfstyle.video.decoding import upright
        >>> upright(np.array([[1, 2], [3, 4]]), (0, 1, -1, 0)).tolist()  # by 90 degrees clockwise
        [[3, 1], [4, 2]]
    """
    a, b, c, d = matrix
    if a == 0:
        array, a, d = np.swapaxes(array, 0, 1), c, b
    return array[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _planes_of_equal_size(frame: Any, bits: int, has_alpha: bool) -> list[np.ndarray]:
    """Return Y', Cb and Cr, and alpha if there is one, ``[height, width]`` each, with `bits` bits."""
    planes = frame.planes
    sizes = {(plane.height, plane.width) for plane in planes}
    if len(planes) >= 3 and sizes == {(frame.height, frame.width)} and not frame.format.name.endswith("be"):
        return [_plane(plane, frame, np.uint8 if bits == 8 else np.uint16) for plane in planes]
    # FFmpeg only resamples the chroma here. Its conversion to R'G'B' would be off by up to three levels, and
    # the number that stands for white depends on the format. With equal ranges it only shifts the bits.
    number = FULL_RANGE if frame.format.name.startswith("yuvj") else LIMITED_RANGE
    planar = frame.reformat(
        format="yuva444p16le" if has_alpha else "yuv444p16le",
        src_color_range=number, dst_color_range=number, interpolation=ACCURATE,
    )  # fmt: skip
    return [_plane(plane, frame, np.uint16) / 2.0 ** (16 - bits) for plane in planar.planes]


def _is_full(frame: Any) -> bool:
    return int(frame.color_range) == FULL_RANGE or str(frame.format.name).startswith("yuvj")


def _luma(values: np.ndarray, bits: int, frame: Any) -> np.ndarray:
    """Return Y' in 0..1 for integers of `bits` bits."""
    if _is_full(frame):
        return np.asarray(values / np.float32(2**bits - 1), np.float32)
    unit = np.float32(2 ** (bits - 8))
    return np.asarray(np.clip((values / unit - 16.0) / 219.0, 0.0, 1.0), np.float32)


def _chroma(values: np.ndarray, bits: int, frame: Any) -> np.ndarray:
    """Return Cb or Cr in -0.5..0.5 for integers of `bits` bits."""
    centred = values - 2.0 ** (bits - 1)
    scale = 2.0**bits - 1.0 if _is_full(frame) else 224.0 * 2.0 ** (bits - 8)
    return np.asarray(centred / scale, np.float32)


def _plane(plane: Any, frame: Any, dtype: type) -> np.ndarray:
    """Return the values of a plane without the padding of its rows, ``[height, width]``."""
    rows: np.ndarray = np.frombuffer(plane, dtype).reshape(plane.height, -1)
    return rows[: frame.height, : frame.width]

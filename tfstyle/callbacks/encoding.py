"""Video streams that browsers and phones play: H.264 or VP9 in the colours of BT.709."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

#: Encoder -> its options. At these constant rate factors compression artefacts are hardly visible.
ENCODER_OPTIONS = {
    "libx264": {"crf": "18"},
    "libvpx-vp9": {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
}
BT709, LIMITED_RANGE = 1, 1  # FFmpeg's numbers
#: Flags of FFmpeg's scaler: bicubic chroma, accurate rounding, chroma at full resolution.
ACCURATE = 4 | 0x40000 | 0x2000 | 0x4000


def add_video_stream(container: Any, encoder: str, *, shape: tuple[int, int], rate: Fraction) -> Any:
    """Add a video stream to an output container and return it.

    Args:
        container: an `av.container.OutputContainer`.
        encoder: a key of `ENCODER_OPTIONS`.
        shape: height and width of the frames in pixels, both even.
        rate: frames per second.

    Returns:
        The `av.VideoStream`.
    """
    stream = container.add_stream(encoder, rate=rate)
    stream.height, stream.width = shape
    stream.pix_fmt = "yuv420p"
    stream.options = dict(ENCODER_OPTIONS[encoder])
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE  # 16..235, which every player expects
    return stream


def video_frame(pixels: np.ndarray) -> Any:
    """Return an `av.VideoFrame` for a stream of `add_video_stream`.

    Args:
        pixels: uint8 ``[height, width, 3]``, sRGB.
    """
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return frame.reformat(
        format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE, interpolation=ACCURATE
    )

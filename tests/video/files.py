"""Video files for tests, written with PyAV."""

from fractions import Fraction

import numpy as np

SAMPLE_RATE = 48_000


def tone(seconds, frequency=440.0):
    """Return the samples of a tone, float32 ``[1, samples]``."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.2 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)[np.newaxis]


def write_clip(
    path,
    frames,
    *,
    codec="libx264",
    pix_fmt="yuv420p",
    fps=25,
    times=None,
    time_base=None,
    sound=0.0,
    sound_codec="aac",
    rotation=0,
    colorspace=1,
    color_range=1,
    options=None,
    aspect=None,
    converted=True,
):
    """Write frames, uint8 or float in 0..1 ``[count, height, width, 3]``, to a video file.

    ``times`` are the frames' times in units of ``time_base``; by default frames follow at ``fps``. ``sound``
    is the length of a tone in seconds. With ``converted=False`` the frames are `av.VideoFrame` objects, and
    are encoded as they are.
    """
    import av

    path = str(path)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        first = frames[0]
        stream.height, stream.width = (first.height, first.width) if not converted else first.shape[:2]
        stream.pix_fmt = pix_fmt
        stream.options = {"crf": "0", "preset": "ultrafast"} if codec == "libx264" else {}
        stream.options |= options or {}
        context = stream.codec_context
        if colorspace is not None:
            context.colorspace, context.color_range = colorspace, color_range
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        base = Fraction(1, 1) / Fraction(fps) if time_base is None else time_base
        context.time_base = base
        if rotation:
            stream.set_display_rotation(rotation)
        audio = container.add_stream(sound_codec, rate=SAMPLE_RATE) if sound else None
        if audio is not None:
            audio.layout = "mono"
        for i, frame in enumerate(frames):
            if converted:
                pixels = frame if frame.dtype == np.uint8 else np.round(frame * 255).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                if not pix_fmt.startswith(("rgb", "bgr", "pal")):
                    frame = frame.reformat(
                        format=pix_fmt,
                        dst_colorspace=5 if colorspace is None else colorspace,
                        dst_color_range=color_range,
                    )
                else:
                    frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = (i if times is None else times[i]), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            samples = tone(sound)
            for begin in range(0, samples.shape[1], 1024):
                block = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(samples[:, begin : begin + 1024]), format="fltp", layout="mono"
                )
                block.sample_rate, block.pts = SAMPLE_RATE, begin
                block.time_base = Fraction(1, SAMPLE_RATE)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def read_video(path):
    """Return the times in seconds and the frames, uint8 ``[count, height, width, 3]``, of a video file."""
    import av

    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    times = [float(frame.pts * frame.time_base) for frame in decoded]
    return times, np.array([frame.to_ndarray(format="rgb24") for frame in decoded])


def sound_packets(path):
    """Return the content of each packet of sound in a file, and its time in seconds."""
    import av

    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        return [
            (bytes(packet), float(packet.pts * packet.time_base))
            for packet in container.demux(audio=0)
            if packet.size
        ]

"""Reading clips: formats, timestamps, orientation, colours, bit depth, selection, and damaged files."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.video.clips import pan, scene
from tests.video.files import read_video, write_clip

av = pytest.importorskip("av")

from tfstyle.errors import ConfigError, ImageError  # noqa: E402
from tfstyle.images import ImageArray, save  # noqa: E402
from tfstyle.video import Selection, open_clip  # noqa: E402

pytestmark = pytest.mark.skipif(av.__version__ < "14", reason="needs PyAV 14")


def frames_of(path, selection=None, **options):
    clip = open_clip(path, selection or Selection(), **options)
    frames = list(clip.frames())
    return clip, np.array([frame.image for frame in frames]), [float(frame.time) for frame in frames]


@pytest.fixture(scope="module")
def source():
    return np.round(pan(7).frames * 255).astype(np.uint8)


class TestFormats:
    @pytest.mark.parametrize(
        ("name", "codec", "pix_fmt"),
        [
            ("clip.mp4", "libx264", "yuv420p"),
            ("clip.mov", "libx264", "yuv444p"),
            ("clip.mkv", "libx264", "yuv420p"),
            ("clip.webm", "libvpx-vp9", "yuv420p"),
            ("clip.avi", "mjpeg", "yuvj420p"),
            ("clip.gif", "gif", "rgb8"),
        ],
    )
    def test_every_frame_is_read_at_its_size(self, tmp_path, source, name, codec, pix_fmt):
        jpeg = {"colorspace": 5, "color_range": 2, "options": {"qmin": "1", "qmax": "1"}}
        write_clip(
            tmp_path / name, source, codec=codec, pix_fmt=pix_fmt, **(jpeg if codec == "mjpeg" else {})
        )
        clip, images, times = frames_of(tmp_path / name)
        assert images.shape == (7, 72, 96, 3)
        assert images.dtype == np.float32
        assert clip.count == 7
        assert clip.notes == []
        assert np.allclose(np.diff(times), 0.04, atol=0.002)
        limit = 40 if name.endswith("gif") else 8  # a GIF of a fixed palette of 256 colours
        assert np.abs(images * 255 - source).mean() < limit

    def test_a_folder_is_read_in_the_order_of_its_numbers(self, tmp_path, source):
        for i in range(7):
            save(tmp_path / f"shot{i + 5}.png", ImageArray(source[i] / np.float32(255)))
        _, images, times = frames_of(tmp_path)
        assert np.allclose(images, source / 255, atol=1e-6)  # 10 and 11 follow 9
        assert times == pytest.approx([i / 25 for i in range(7)])
        assert frames_of(tmp_path, Selection(fps=10))[2] == pytest.approx([i / 10 for i in range(7)])

    def test_frames_of_a_folder_have_one_size(self, tmp_path, source):
        save(tmp_path / "1.png", ImageArray(source[0] / np.float32(255)))
        save(tmp_path / "2.png", ImageArray(source[0, :50] / np.float32(255)))
        with pytest.raises(ImageError, match=r"2\.png has 96 x 50 pixels, and the first image has 96 x 72"):
            open_clip(tmp_path)
        with pytest.raises(ImageError, match="image 2 has 96 x 50 pixels"):
            open_clip([source[0], source[0, :50]])

    def test_an_array_is_a_clip(self, source):
        clip, images, _ = frames_of(source)
        assert clip.sound is None
        assert np.allclose(images, source / 255, atol=1e-6)
        with pytest.raises(ImageError, match=r"shape \(72, 96, 3\)"):
            open_clip(source[0])

    def test_variable_timestamps_are_kept(self, tmp_path, source):
        times = [0, 1, 3, 4, 10, 11, 30]
        write_clip(tmp_path / "clip.mp4", source, times=times, time_base=Fraction(1, 30))
        _, _, read = frames_of(tmp_path / "clip.mp4")
        assert read == pytest.approx([t / 30 for t in times])

    def test_pixels_that_are_not_square_are_stretched(self, tmp_path, source):
        write_clip(tmp_path / "clip.mp4", source, aspect=Fraction(4, 3))
        clip, images, _ = frames_of(tmp_path / "clip.mp4")
        assert clip.shape == (72, 128)
        assert images.shape == (7, 72, 128, 3)


class TestOrientation:
    @pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (-90, 3)])
    def test_a_rotated_clip_is_turned_upright(self, tmp_path, source, angle, turns):
        write_clip(tmp_path / "clip.mp4", source, rotation=angle)
        _, images, _ = frames_of(tmp_path / "clip.mp4")
        # FFmpeg's angle is counter-clockwise, as is that of np.rot90.
        expected = np.rot90(source, turns, axes=(1, 2))
        assert images.shape == expected.shape
        assert np.abs(images * 255 - expected).mean() < 8

    @pytest.mark.parametrize("flip", ["horizontal", "vertical"])
    def test_a_mirrored_clip_is_mirrored(self, tmp_path, source, flip):
        path = tmp_path / "clip.mp4"
        write_clip(path, source)
        content = path.read_bytes()
        unit = (1 << 16).to_bytes(4, "big")
        minus = (-(1 << 16)).to_bytes(4, "big", signed=True)
        zero, last = bytes(4), (1 << 30).to_bytes(4, "big")
        track = content.index(b"tkhd")
        matrix = unit + zero * 3 + unit + zero * 3 + last
        at = content.index(matrix, track)
        signs = (minus, unit) if flip == "horizontal" else (unit, minus)
        mirrored = signs[0] + zero * 3 + signs[1] + zero * 3 + last
        path.write_bytes(content[:at] + mirrored + content[at + len(matrix) :])
        _, images, _ = frames_of(path)
        expected = source[:, :, ::-1] if flip == "horizontal" else source[:, ::-1]
        assert np.abs(images * 255 - expected).mean() < 8

    @pytest.mark.parametrize(("angle", "turns"), [(0, 0), (90, 1), (180, 2), (-90, 3)])
    def test_a_rotated_clip_of_png_frames_is_turned_upright(self, tmp_path, source, angle, turns):
        write_clip(tmp_path / "clip.mov", source, codec="png", pix_fmt="rgb24", rotation=angle)
        _, images, _ = frames_of(tmp_path / "clip.mov")
        expected = np.rot90(source, turns, axes=(1, 2))
        assert images.shape == expected.shape
        assert np.abs(images * 255 - expected).mean() < 1


def test_an_animated_png_file_with_a_colour_profile_does_not_end_the_process(tmp_path, source):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    first, *others = [Image.fromarray(pixels) for pixels in source]
    path = tmp_path / "clip.png"
    first.save(path, save_all=True, append_images=others, duration=100, icc_profile=profile)
    code = (
        "import gc, sys; from tfstyle.video import open_clip; clip = open_clip(sys.argv[1], trusted=False); "
        "count = len(list(clip.frames())); del clip; gc.collect(); print(count)"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{len(source)}\n")


def test_frames_with_exif_data_are_read(tmp_path, source):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    Image.fromarray(source[0]).save(tmp_path / "frame.jpg", quality=95, exif=exif)
    with av.open(str(tmp_path / "frame.jpg")) as image, av.open(str(tmp_path / "clip.avi"), "w") as clip:
        stream = clip.add_stream_from_template(image.streams.video[0])
        for packet in image.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                clip.mux(packet)
    _, images, _ = frames_of(tmp_path / "clip.avi")
    assert np.abs(images[0] * 255 - source[0]).mean() < 4


def flat_frame(pix_fmt, y, u, v, bits):
    """Return a frame whose planes have one value each."""
    frame = av.VideoFrame(64, 48, pix_fmt)
    for plane, value in zip(frame.planes, (y, u, v), strict=False):
        count = plane.buffer_size // (2 if bits > 8 else 1)
        plane.update(np.full(count, value, np.uint16 if bits > 8 else np.uint8).tobytes())
    return frame


def converted(y, u, v, bits, full, red, blue):
    """Return R'G'B' in 0..1 by the formulas of ITU-T H.273."""
    unit = 2 ** (bits - 8)
    if full:
        y, u, v = y / (2**bits - 1), (u - 128 * unit) / (2**bits - 1), (v - 128 * unit) / (2**bits - 1)
    else:
        y, u, v = (y / unit - 16) / 219, (u / unit - 128) / 224, (v / unit - 128) / 224
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.clip([r, (y - red * r - blue * b) / (1 - red - blue), b], 0, 1)


class TestColours:
    @pytest.mark.parametrize(
        ("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114), (9, 0.2627, 0.0593)]
    )
    @pytest.mark.parametrize("full", [False, True])
    @pytest.mark.parametrize(("pix_fmt", "bits"), [("yuv420p", 8), ("yuv420p10le", 10), ("yuv444p", 8)])
    def test_matrix_range_and_depth_are_those_of_the_clip(
        self, tmp_path, matrix, red, blue, full, pix_fmt, bits
    ):
        unit = 2 ** (bits - 8)
        y, u, v = 140 * unit + unit // 2, 110 * unit, 150 * unit
        path = write_clip(
            tmp_path / "clip.mkv", [flat_frame(pix_fmt, y, u, v, bits)] * 2,
            codec="ffv1", pix_fmt=pix_fmt, colorspace=matrix, color_range=2 if full else 1, converted=False,
        )  # fmt: skip
        _, images, _ = frames_of(path)
        expected = converted(y, u, v, bits, full, red, blue)
        assert np.abs(images - expected).max() < 0.1 / 255

    @pytest.mark.parametrize(("height", "red", "blue"), [(480, 0.299, 0.114), (720, 0.2126, 0.0722)])
    def test_a_clip_that_names_no_matrix_has_that_of_its_height(self, height, red, blue):
        from tfstyle.video.decoding import frame_pixels

        frame = av.VideoFrame(64, height, "yuv420p")
        for plane, value in zip(frame.planes, (140, 110, 150), strict=True):
            plane.update(np.full(plane.buffer_size, value, np.uint8).tobytes())
        rgb, alpha = frame_pixels(frame)
        assert alpha is None
        assert np.abs(rgb - converted(140, 110, 150, 8, False, red, blue)).max() < 0.1 / 255

    def test_ten_bits_have_no_banding(self, tmp_path):
        frame = av.VideoFrame(256, 32, "yuv420p10le")
        ramp = np.linspace(400, 463, 256).round().astype(np.uint16)  # 64 levels, of which 8 bits have 16
        stride = frame.planes[0].line_size // 2
        rows = np.zeros((32, stride), np.uint16)
        rows[:, :256] = ramp
        frame.planes[0].update(rows.tobytes())
        for plane in frame.planes[1:]:
            plane.update(np.full(plane.buffer_size // 2, 512, np.uint16).tobytes())
        path = write_clip(
            tmp_path / "clip.mkv", [frame], codec="ffv1", pix_fmt="yuv420p10le", converted=False
        )
        _, images, _ = frames_of(path)
        assert len(np.unique(images[0, 16, :, 1].round(6))) == 64

    def test_transparent_parts_are_white_and_named(self, tmp_path):
        pixels = np.zeros((48, 64, 4), np.uint8)
        pixels[:, :32] = [255, 0, 0, 255]
        frame = av.VideoFrame.from_ndarray(pixels, format="rgba")
        path = write_clip(
            tmp_path / "clip.mov", [frame], codec="png", pix_fmt="rgba", colorspace=None, converted=False
        )
        clip, images, _ = frames_of(path)
        assert np.allclose(images[0, :, 40], 1)
        assert np.allclose(images[0, :, 10], [1, 0, 0])
        assert clip.notes == [f"{path} has an alpha channel, which is dropped: transparent parts are white"]


class TestSelection:
    @pytest.mark.parametrize(
        ("selection", "expected"),
        [
            (Selection(start=1.0), range(10, 30)),
            (Selection(end=1.0), range(10)),
            (Selection(start=0.5, end=0.8), [5, 6, 7]),
            (Selection(every=4), range(0, 30, 4)),
            (Selection(start=0.5, every=10), [5, 15, 25]),
            (Selection(fps=5), range(0, 30, 2)),
            (Selection(fps=4), [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28]),
            (Selection(fps=30), range(30)),
        ],
    )
    def test_frames_are_selected_by_time_and_rate(self, tmp_path, selection, expected):
        frames = [np.full((32, 48, 3), 8 * i, np.uint8) for i in range(30)]
        path = write_clip(tmp_path / "clip.mp4", frames, fps=10, options={"g": "7"})
        clip, images, times = frames_of(path, selection)
        assert times == pytest.approx([i / 10 for i in expected])
        assert np.allclose(images.mean((1, 2, 3)) * 255, [8 * i for i in expected], atol=2)
        assert clip.count == len(times)

    @pytest.mark.parametrize(
        ("rate", "unit", "fps", "count"),
        [
            (30, Fraction(1, 1000), 30, 60),  # WebM rounds times to milliseconds
            (30, Fraction(1, 1000), 15, 30),
            (24, Fraction(1, 1000), 12, 24),
            (Fraction(30000, 1001), Fraction(1, 30000), 29.97, 60),
            (25, Fraction(1, 1000), 24, 48),
        ],
    )
    def test_rounded_times_do_not_lower_the_rate(self, rate, unit, fps, count):
        times = [round(i / rate / unit) * unit for i in range(60 if rate > 25 else 2 * rate)]
        chosen = list(Selection(fps=fps).choose(times))
        assert sum(chosen) == count

    @pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "mpg", "flv", "avi"])
    @pytest.mark.parametrize("start", [0.04, 0.52, 0.76, 1.4])
    def test_the_first_frame_is_that_at_the_start_in_every_format(self, tmp_path, suffix, start):
        """FFmpeg's search for a time ends after it in some formats."""
        frames = [np.full((48, 64, 3), 5 * i, np.uint8) for i in range(40)]
        codec = {"mpg": "mpeg2video"}.get(suffix, "libx264")
        exact = {"qmin": "1", "qmax": "1"} if suffix == "mpg" else {}
        path = write_clip(
            tmp_path / f"clip.{suffix}", frames, codec=codec, options={"g": "12", "bf": "2", **exact}
        )
        clip, images, times = frames_of(path, Selection(start=start))
        first = round(start * 25)
        assert times[0] - float(clip.origin) == pytest.approx(start, abs=0.002)
        assert np.allclose(images.mean((1, 2, 3)) * 255, [5 * i for i in range(first, 40)], atol=3)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"start": "1"}, "start is '1'"),
            ({"fps": "x"}, "fps is 'x'"),
            ({"start": -1}, "start is -1"),
            ({"start": 2, "end": 1}, "end is 1; give a time in seconds after the start, 2"),
            ({"every": 0}, "every is 0"),
            ({"fps": 0}, "fps is 0"),
        ],
    )
    def test_wrong_values_are_one_line(self, values, message):
        with pytest.raises(ConfigError, match=message):
            Selection(**values)

    def test_a_selection_without_frames_names_the_duration(self, tmp_path, source):
        path = write_clip(tmp_path / "clip.mp4", source)
        with pytest.raises(ConfigError, match=r"is selected; it lasts 0\.28 s"):
            open_clip(path, Selection(start=3))


class TestBadFiles:
    def test_a_file_that_is_no_video(self, tmp_path):
        path = tmp_path / "clip.mp4"
        path.write_bytes(b"not a video" * 100)
        with pytest.raises(ImageError, match=r"clip\.mp4 is not a video that FFmpeg can read: Invalid data"):
            open_clip(path)

    def test_a_file_with_sound_only(self, tmp_path, source):
        path = write_clip(tmp_path / "clip.mp4", source, sound=0.5)
        only_sound = tmp_path / "sound.m4a"
        with av.open(path) as container, av.open(str(only_sound), "w", format="mp4") as output:
            stream = output.add_stream_from_template(container.streams.audio[0])
            for packet in container.demux(audio=0):
                if packet.dts is not None:
                    packet.stream = stream
                    output.mux(packet)
        with pytest.raises(ImageError, match=r"sound\.m4a has no video stream; it has audio"):
            open_clip(only_sound)

    def test_a_missing_file(self):
        with pytest.raises(ImageError, match="no such video or folder: nowhere"):
            open_clip("nowhere.mp4")

    def test_an_address_is_refused(self):
        with pytest.raises(ImageError, match="URL"):
            open_clip("https://example.org/clip.mp4")

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(ImageError, match="contains no image files"):
            open_clip(tmp_path)

    @pytest.mark.parametrize("suffix", ["mp4", "mkv"])
    def test_the_frames_of_a_cut_file_are_read_and_it_says_so(self, tmp_path, suffix):
        frames = [scene(72, 96, seed) for seed in range(12)]
        options = {"movflags": "faststart"} if suffix == "mp4" else {}
        path = tmp_path / f"clip.{suffix}"
        whole = tmp_path / f"whole.{suffix}"
        write_clip(whole, frames, options={"g": "1"})
        if options:  # the index is moved before the frames
            with av.open(str(whole)) as source, av.open(str(path), "w", options=options) as target:
                stream = target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.dts is not None:
                        packet.stream = stream
                        target.mux(packet)
        else:
            path.write_bytes(whole.read_bytes())
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        clip, images, _ = frames_of(path)
        assert 3 <= len(images) <= 7
        assert any("cut off or damaged" in note for note in clip.notes)
        assert np.abs(images[:3] - frames[:3]).mean() < 0.03

    def test_a_damaged_packet_is_left_out_and_named(self, tmp_path):
        frames = [scene(72, 96, seed) for seed in range(6)]
        path = write_clip(tmp_path / "clip.mkv", frames, codec="mjpeg", pix_fmt="yuvj420p")
        content = bytearray(path_bytes := Path(path).read_bytes())
        third = [i for i in range(len(path_bytes)) if path_bytes.startswith(b"\xff\xd8\xff", i)][2]
        content[third : third + 600] = bytes(600)
        with open(path, "wb") as file:
            file.write(content)
        clip, images, times = frames_of(path)
        assert len(images) == 5
        assert times == pytest.approx([0, 0.04, 0.12, 0.16, 0.2], abs=0.002)
        assert any("cannot be decoded" in note for note in clip.notes)

    @pytest.mark.parametrize("suffix", ["mkv", "webm"])
    def test_a_cut_file_with_sound_says_so_too(self, tmp_path, suffix):
        frames = [scene(72, 96, seed) for seed in range(25)]
        codecs = {"codec": "libvpx-vp9", "sound_codec": "libopus"} if suffix == "webm" else {}
        path = write_clip(tmp_path / f"clip.{suffix}", frames, sound=1.0, options={"g": "1"}, **codecs)
        assert open_clip(path).notes == []
        with open(path, "r+b") as file:
            file.truncate(file.seek(0, 2) // 2)
        clip, images, _ = frames_of(path)
        assert 5 <= len(images) <= 20
        assert any("cut off or damaged" in note for note in clip.notes)

    def test_text_is_no_video(self, tmp_path):
        (tmp_path / "notes.txt").write_text("hello " * 500)
        with pytest.raises(ImageError, match="is not a video"):
            open_clip(tmp_path / "notes.txt")

    def test_a_frame_that_is_too_large_is_refused_when_it_comes(self, tmp_path, source):
        """The size in the header of a stream can be that of its first frame."""
        small, large = (write_clip(tmp_path / f"{side}.ts", source[:3, :side, :side]) for side in (32, 64))
        joined = tmp_path / "joined.ts"
        joined.write_bytes(Path(small).read_bytes() + Path(large).read_bytes())
        frame = av.VideoFrame(64, 64, "yuv420p")
        with pytest.raises(ImageError, match="frames of 64 x 64 pixels"):
            list(open_clip(joined, max_pixels=2000).frames())
        with pytest.raises(ImageError, match="frames of 64 x 64 pixels"):
            open_clip(small, max_pixels=2000).source._image(frame, (64, 64), "h264")

    def test_frames_that_are_too_large_are_refused(self, tmp_path, source):
        path = write_clip(tmp_path / "clip.mp4", source)
        with pytest.raises(ImageError, match="frames of 96 x 72 pixels; at most 1000 pixels"):
            open_clip(path, max_pixels=1000)

    def test_a_playlist_is_refused_for_strangers(self, tmp_path, source):
        write_clip(tmp_path / "clip.ts", source)
        playlist = tmp_path / "list.m3u8"
        playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.28,\nclip.ts\n#EXT-X-ENDLIST\n")
        concat = tmp_path / "list.ffconcat"
        concat.write_text("ffconcat version 1.0\nfile clip.ts\n")
        for path in (playlist, concat):
            with pytest.raises(ImageError, match="is not a video that FFmpeg can read"):
                open_clip(path, trusted=False)
        assert open_clip(tmp_path / "clip.ts", trusted=False).count == 7


def test_the_cover_picture_of_a_file_is_not_its_video(tmp_path, source):
    path = write_clip(tmp_path / "clip.mp4", source)
    covered = tmp_path / "covered.mkv"
    with av.open(path) as container, av.open(str(covered), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    assert len(read_video(covered)[0]) == 7
    assert open_clip(covered).count == 7

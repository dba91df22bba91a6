"""Writing videos: timestamps, sound, colours, and files that cannot be completed."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.video.clips import pan
from tests.video.files import read_video, sound_packets, write_clip

av = pytest.importorskip("av")

from tfstyle.errors import ConfigError, OutputError  # noqa: E402
from tfstyle.files import check_video  # noqa: E402
from tfstyle.video import Selection, VideoWriter, open_clip, partial_path  # noqa: E402


@pytest.fixture(scope="module")
def source():
    return np.round(pan(12).frames * 255).astype(np.uint8)


def copy(path, output, selection=None, *, sound=True, frames=None):
    """Write the frames of a clip as they are, at most a number of them."""
    clip = open_clip(path, selection or Selection())
    writer = VideoWriter(Path(output), shape=clip.shape, clip=clip, sound=sound)
    for frame in clip.frames():
        writer.write(frame.image, frame)
        if writer.frames == frames:
            break
    writer.close(complete=frames is None)
    return clip


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize(
    ("times", "base"),
    [
        (None, None),
        ([3, 4, 6, 7, 13, 14, 20, 21, 22, 30, 31, 33], Fraction(1, 30)),
        (None, Fraction(1001, 30000)),
    ],
)
def test_the_timestamps_are_those_of_the_source(tmp_path, source, suffix, times, base):
    path = write_clip(tmp_path / "clip.mkv", source, times=times, time_base=base)
    copy(path, tmp_path / f"out{suffix}")
    expected, frames = read_video(path)
    written, copies = read_video(tmp_path / f"out{suffix}")
    assert written == pytest.approx(expected, abs=0.0011)  # Matroska counts milliseconds
    assert np.abs(copies.astype(float) - frames).mean() < 8  # the colours have half the resolution
    assert not list(tmp_path.glob("*.part*"))
    assert not list(tmp_path.glob("*.index*"))


def test_the_colours_are_named_and_are_those_of_the_frames(tmp_path):
    colours = np.float32([[0.2, 0.5, 0.8], [0.9, 0.1, 0.3], [0.05, 0.6, 0.4]])
    frames = np.repeat(np.repeat(colours[:, None, None], 48, 1), 64, 2)
    copy(frames, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (int(frame.colorspace), int(frame.color_range)) == (1, 1)
    images = [frame.image for frame in open_clip(tmp_path / "out.mp4").frames()]
    assert np.abs(np.array(images) - frames).max() < 2 / 255


def test_an_mp4_file_begins_with_its_index(tmp_path, source):
    path = write_clip(tmp_path / "clip.mkv", source)
    copy(path, tmp_path / "out.mp4")
    content = (tmp_path / "out.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert b"moof" not in content


class TestSound:
    def test_it_is_copied_bit_by_bit(self, tmp_path, source):
        path = write_clip(tmp_path / "clip.mp4", source, sound=0.48)
        copy(path, tmp_path / "out.mp4")
        assert sound_packets(tmp_path / "out.mp4") == sound_packets(path)
        assert len(sound_packets(path)) > 10

    def test_it_can_be_left_out(self, tmp_path, source):
        path = write_clip(tmp_path / "clip.mp4", source, sound=0.48)
        copy(path, tmp_path / "out.mp4", sound=False)
        assert sound_packets(tmp_path / "out.mp4") == []

    def test_it_begins_and_ends_with_the_selection(self, tmp_path, source):
        path = write_clip(tmp_path / "clip.mp4", np.concatenate([source] * 5), fps=20, sound=3.0)
        copy(path, tmp_path / "out.mp4", Selection(start=1.0, end=2.0))
        times, _ = read_video(tmp_path / "out.mp4")
        assert times == pytest.approx([i / 20 for i in range(20)])
        sound = sound_packets(tmp_path / "out.mp4")
        assert 0 <= sound[0][1] < 0.03
        assert 0.95 < sound[-1][1] < 1.0
        whole = dict(sound_packets(path))
        assert all(content in whole for content, _ in sound)
        assert all(abs(whole[content] - 1.0 - time) < 1e-3 for content, time in sound)

    def test_it_is_encoded_again_where_the_container_cannot_hold_it(self, tmp_path, source):
        path = write_clip(tmp_path / "clip.mp4", source, sound=0.48)
        clip = copy(path, tmp_path / "out.webm")
        with av.open(str(tmp_path / "out.webm")) as container:
            assert container.streams.audio[0].codec_context.name in ("opus", "libopus")
            samples = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
        assert 0.44 < len(samples) / 48_000 < 0.56
        spectrum = np.abs(np.fft.rfft(samples))
        assert abs(np.argmax(spectrum) * 48_000 / len(samples) - 440) < 5
        assert any("encoded again (libopus)" in note for note in clip.notes)

    def test_it_ends_with_the_frames_of_an_interrupted_video(self, tmp_path, source):
        path = write_clip(tmp_path / "clip.mp4", source, fps=4, sound=3.0)
        copy(path, tmp_path / "out.mp4", frames=5)
        assert len(read_video(tmp_path / "out.mp4")[0]) == 5
        # The last frame begins at 1.0 s and is shown for 0.25 s.
        assert 1.2 < sound_packets(tmp_path / "out.mp4")[-1][1] <= 1.25

    def test_aac_of_a_broadcast_is_encoded_again(self, tmp_path, source):
        """Its packets lack the header that an MP4 file needs."""
        path = write_clip(tmp_path / "clip.ts", np.concatenate([source] * 3), sound=1.4)
        copy(path, tmp_path / "out.mp4")
        assert len(read_video(tmp_path / "out.mp4")[0]) == 36
        with av.open(str(tmp_path / "out.mp4")) as container:
            samples = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
        assert 1.35 < len(samples) / 48_000 < 1.5

    def test_damaged_sound_does_not_end_the_video(self, tmp_path, source):
        path = write_clip(tmp_path / "clip.mp4", source, sound=0.48)
        content = bytearray(Path(path).read_bytes())
        for packet, _ in sound_packets(path)[5:15]:
            at = content.index(packet)
            content[at : at + len(packet)] = bytes([0xFF]) * len(packet)
        Path(path).write_bytes(content)
        clip = copy(path, tmp_path / "out.webm")
        assert len(read_video(tmp_path / "out.webm")[0]) == 12
        assert any("has damaged parts" in note for note in clip.notes)


def durations(path):
    """Return the durations of the packets of a video in seconds."""
    with av.open(str(path)) as container:
        return [float(p.duration * p.time_base) for p in container.demux(video=0) if p.size]


def test_the_last_frame_is_shown_as_long_as_in_the_clip(tmp_path):
    from PIL import Image

    images = [Image.fromarray(np.full((48, 64, 3), 60 * i, np.uint8)) for i in range(4)]
    images[0].save(
        tmp_path / "clip.gif", save_all=True, append_images=images[1:], duration=[100, 200, 100, 3000]
    )
    copy(tmp_path / "clip.gif", tmp_path / "out.mp4")
    assert read_video(tmp_path / "out.mp4")[0] == pytest.approx([0, 0.1, 0.3, 0.4])
    assert durations(tmp_path / "out.mp4")[-1] == pytest.approx(3.0)


def test_left_out_frames_let_the_last_one_be_shown_longer(tmp_path, source):
    path = write_clip(tmp_path / "clip.mp4", source)
    copy(path, tmp_path / "out.mp4", Selection(every=5))
    assert read_video(tmp_path / "out.mp4")[0] == pytest.approx([0, 0.2, 0.4])
    assert durations(tmp_path / "out.mp4")[-1] == pytest.approx(0.08)


def test_a_recording_that_begins_late_begins_at_zero(tmp_path, source):
    times = [90_000 * 3600 + 3600 * i for i in range(12)]
    path = write_clip(tmp_path / "clip.ts", source, times=times, time_base=Fraction(1, 90_000))
    copy(path, tmp_path / "out.mp4")
    assert read_video(tmp_path / "out.mp4")[0] == pytest.approx([i / 25 for i in range(12)], abs=0.05)


class TestFailures:
    def test_an_unknown_suffix_is_refused(self, tmp_path):
        with pytest.raises(
            OutputError, match=r"the suffix of a video must be one of \.mp4, \.mov, \.mkv, \.webm"
        ):
            check_video(tmp_path / "out.avi")

    def test_an_existing_file_is_kept(self, tmp_path):
        (tmp_path / "out.mp4").write_bytes(b"mine")
        with pytest.raises(OutputError, match="exists"):
            check_video(tmp_path / "out.mp4")

    def test_a_missing_encoder_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
        with pytest.raises(ConfigError, match="lacks the encoder libvpx-vp9"):
            check_video(tmp_path / "out.webm")

    def test_a_missing_library_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "av", None)
        with pytest.raises(ConfigError, match=r"videos need PyAV .*pip install 'tfstyle\[video\]'"):
            check_video(tmp_path / "out.webm")

    def test_without_frames_there_is_no_file(self, tmp_path, source):
        clip = open_clip(source)
        VideoWriter(tmp_path / "out.mp4", shape=clip.shape, clip=clip).close()
        assert list(tmp_path.iterdir()) == []

    def test_a_killed_process_leaves_a_file_that_plays(self, tmp_path, source):
        """The part that is written consists of fragments, each of which can be played."""
        script = f"""
import os, signal, sys
import numpy as np
from pathlib import Path
from tfstyle.video import VideoWriter, open_clip
clip = open_clip(np.random.default_rng(0).random((120, 64, 64, 3), np.float32))
writer = VideoWriter(Path({str(tmp_path / "out.mp4")!r}), shape=clip.shape, clip=clip)
for frame in clip.frames():
    writer.write(frame.image, frame)
os.kill(os.getpid(), signal.SIGKILL)
"""
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
        assert ended.returncode == -9, ended.stderr.decode()
        assert len(list(open_clip(partial_path(tmp_path / "out.mp4")).frames())) >= 50

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
    def test_the_frames_before_the_disk_was_full_stay(self, tmp_path, suffix):
        limit = 200_000
        script = f"""
import resource, signal
import numpy as np
from pathlib import Path
from tfstyle.errors import RunError
from tfstyle.video import VideoWriter, open_clip
clip = open_clip(np.random.default_rng(0).random((60, 96, 96, 3), np.float32))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
writer = VideoWriter(Path({str(tmp_path / f"out{suffix}")!r}), shape=clip.shape, clip=clip)
try:
    for frame in clip.frames():
        writer.write(frame.image, frame)
    writer.close()
except RunError as error:
    print("refused:", error)
    try:
        writer.close(complete=False)
    except RunError as error:
        print("closed:", error)
        print("frames:", writer.frames)
"""
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
        assert "refused:" in ended.stdout
        assert "could not be written: File too large" in ended.stdout
        output = tmp_path / f"out{suffix}"
        assert output.stat().st_size <= limit
        readable = list(open_clip(output).frames())
        assert len(readable) >= 5
        assert f"frames: {len(readable)}" in ended.stdout

"""``tfstyle video``: its files, what it says, wrong inputs, and interrupted runs."""

import argparse
import json
import os
import re
import signal

import numpy as np
import pytest

from tests.video.clips import pan, scene
from tests.video.files import read_video, sound_packets, write_clip
from tfstyle import cli
from tfstyle.cli.parser import make_parser
from tfstyle.errors import RunError
from tfstyle.images import load
from tfstyle.video import Selection, VideoOptions, VideoWriter

SHAPE = (36, 48)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with clip.mp4 (six frames and sound) and style.png."""
    from tfstyle.images import ImageArray, save

    monkeypatch.chdir(tmp_path)
    write_clip("clip.mp4", pan(6, SHAPE).frames, sound=0.24)
    save(tmp_path / "style.png", ImageArray(scene(40, 52, 9)))
    return tmp_path


@pytest.fixture
def command(folder, small_file):
    """The arguments of a short run."""
    return [
        "video", "clip.mp4", "style.png", "--weights", str(small_file), "--size", "48", "--min-scale", "24",
        "--iterations", "3", "--frame-iterations", "2", "--compile", "eager",
    ]  # fmt: skip


def test_it_writes_a_video_with_sound_and_says_so(command, folder, capsys):
    assert cli.main([*command, "--save-frames", "frames", "--history", "history.json"]) == 0
    said = capsys.readouterr()
    assert re.fullmatch(
        r"clip_style\.mp4: 48 x 36 pixels, 6 frames in \d+\.\d s, warping error \d+\.\d levels\n", said.out
    )
    assert "tfstyle: 6 frames of 48 x 36 pixels\n" in said.err
    assert "frame 6 of 6 done, 0 s left, warping error" in said.err
    times, frames = read_video("clip_style.mp4")
    assert times == pytest.approx([i / 25 for i in range(6)])
    assert sound_packets("clip_style.mp4") == sound_packets("clip.mp4")
    saved = [load(path).rgb for path in sorted((folder / "frames").glob("*.png"))]
    assert np.abs(np.array(saved) * 255 - frames).mean() < 10
    history = json.loads((folder / "history.json").read_text())
    assert [frame["begins_shot"] for frame in history["frames"]] == [True] + [False] * 5
    assert cli.main(command) == 0  # a number is added to the name
    assert (folder / "clip_style_2.mp4").is_file()


def test_frames_are_selected(command, capsys):
    assert (
        cli.main(
            [*command, "-o", "out.webm", "--start", "0.04", "--end", "0.2", "--every", "2", "--no-sound"]
        )
        == 0
    )
    assert read_video("out.webm")[0] == pytest.approx([0, 0.08], abs=0.0011)
    assert "2 frames" in capsys.readouterr().out


def test_a_folder_of_images_has_a_rate(command, folder):
    assert cli.main([*command, "-o", "out.mp4", "--save-frames", "frames"]) == 0
    command[1] = "frames"
    assert cli.main([*command, "-o", "again.mkv", "--fps", "10"]) == 0
    assert read_video("again.mkv")[0] == pytest.approx([i / 10 for i in range(6)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: "gone.mp4"}, "no such video or folder: gone.mp4"),
        ({2: "gone.png"}, "gone.png"),
        ({1: "style.png", "-o": "out.avi"}, r"the suffix of a video must be one of \.mp4"),
        ({1: "text.mp4"}, r"text\.mp4 is not a video that FFmpeg can read"),
        ({1: "empty.mp4"}, r"empty\.mp4 is not a video that FFmpeg can read"),
        ({1: "empty"}, "contains no image files"),
        ({1: "-"}, "does not read standard input"),
        ({1: "https://example.org/clip.mp4"}, "URL"),
        ({"--start": "9"}, r"is selected; it lasts 0\.24 s"),
        ({"--start": "0.2", "--end": "0.1"}, "--end is 0.1; give a time in seconds after the start, 0.2"),
        ({"--memory-frames": "2,10"}, r"--memory-frames is \(2, 10\)"),
        ({"--passes": "0"}, "--passes"),
        ({"--flow": "raft"}, "--flow"),
        ({"-o": "clip.mp4", "--overwrite": None}, "the output would replace the input clip.mp4"),
        ({"-o": "there.mp4"}, "there.mp4 exists"),
        ({"-o": "nowhere/out.mp4"}, "nowhere"),
        ({"-o": "same.mp4", "--history": "same.mp4"}, "--history and --output are both same.mp4"),
        ({"--resume": None}, "--resume needs --checkpoint DIR"),
    ],
)  # fmt: skip
def test_a_wrong_input_is_one_line(command, folder, capsys, change, message):
    (folder / "text.mp4").write_text("not a video")
    (folder / "empty.mp4").touch()
    (folder / "there.mp4").touch()
    (folder / "empty").mkdir()
    for key, value in change.items():
        if isinstance(key, int):
            command[key] = value
        else:
            command += [key] if value is None else [key, value]
    try:
        code = cli.main(command)
    except SystemExit as end:
        code = end.code
    assert code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("usage")]
    assert len(lines) == 1
    assert re.search(message, lines[0])


def test_a_codec_that_is_not_there_is_one_line(command, capsys, monkeypatch):
    import av

    monkeypatch.setattr(av, "codecs_available", set())
    assert cli.main([*command, "-o", "out.webm"]) == 2
    assert "this PyAV lacks the encoder libvpx-vp9" in capsys.readouterr().err


def test_the_frames_of_a_cut_clip_are_painted_and_it_says_so(command, capsys):
    write_clip("clip.mkv", [scene(*SHAPE, seed) for seed in range(10)], options={"g": "1"})
    os.truncate("clip.mkv", os.path.getsize("clip.mkv") // 2)
    command[1] = "clip.mkv"
    assert cli.main([*command, "-o", "out.mp4"]) == 0
    said = capsys.readouterr()
    assert said.err.count("is cut off or damaged") == 1
    assert 3 <= len(read_video("out.mp4")[0]) <= 6


def test_an_interrupted_video_can_be_played_and_resumed(command, folder, capsys, monkeypatch):
    assert cli.main([*command, "-o", "whole.mkv", "--save-frames", "whole"]) == 0
    run = [*command, "-o", "out.mp4", "--save-frames", "resumed", "--checkpoint", "frames", "--resume"]
    write = VideoWriter.write

    def interrupting(writer, image, frame):
        write(writer, image, frame)
        if frame.number == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(VideoWriter, "write", interrupting)
    assert cli.main(run) == 130
    said = capsys.readouterr()
    assert "interrupted; run the same command with --resume to continue" in said.err
    assert "3 frames of 6" in said.out
    assert len(read_video("out.mp4")[0]) == 3
    monkeypatch.undo()
    os.chdir(folder)
    assert cli.main(run) == 0
    assert "3 frames of pass 1 were done" in capsys.readouterr().err
    assert len(read_video("out.mp4")[0]) == 6
    for path in sorted((folder / "whole").iterdir()):
        assert np.array_equal(load(path).rgb, load(folder / "resumed" / path.name).rgb)


def test_a_full_disk_keeps_the_frames_before(command, capsys, monkeypatch):
    write = VideoWriter.write

    def full(writer, image, frame):
        if frame.number == 4:
            raise RunError("out.mp4 could not be written: No space left on device")
        write(writer, image, frame)

    monkeypatch.setattr(VideoWriter, "write", full)
    assert cli.main([*command, "-o", "out.mp4"]) == 1
    said = capsys.readouterr()
    assert "No space left on device" in said.err.splitlines()[-1]
    assert len(read_video("out.mp4")[0]) == 3


def test_the_help_states_the_defaults():
    parser = make_parser(show_all=True)
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    text = " ".join(commands.choices["video"].format_help().split())
    video, selection = VideoOptions(), Selection()
    assert f"less freely [{video.temporal_weight:g}]" in text
    assert f"forwards and backwards [{video.passes}]" in text
    assert re.search(rf"--memory-frames [^\[]*\[{','.join(map(str, video.memory_frames))}\]", text)
    assert f"each is shown longer [{selection.every}]" in text
    assert re.search(rf"--flow NAME [^\[]*\[{video.flow}\]", text)
    iterations = {quality: video.iterations(quality) for quality in ("standard", "draft", "high")}
    assert (
        f"[{iterations['standard']}; {iterations['draft']} with --quality draft; {iterations['high']} with "
        "--quality high" in text
    )
    given = {a.dest for a in commands.choices["video"]._actions}
    assert set(vars(video)) <= given
    assert set(vars(selection)) <= given

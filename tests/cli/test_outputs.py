"""The output files of ``tfstyle stylize``: folders that vanish, full disks, existing files, resumed runs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("resource", reason="needs the limits of POSIX")

import resource

from tfstyle import cli, files
from tfstyle.cli.outputs import default_output
from tfstyle.images import load
from tfstyle.run import run as runs


@pytest.fixture
def command(files, small_file):
    """A run of two scales, three iterations each, into a folder of its own."""
    (files / "out").mkdir()
    return [
        "stylize", str(files / "content.png"), str(files / "style.png"), "-o", str(files / "out" / "out.png"),
        "--weights", str(small_file), "--size", "32", "--min-scale", "16", "--compile", "eager",
        "--iterations", "3",
    ]  # fmt: skip


@pytest.fixture
def expected(command, files):
    """What the run gives."""
    assert cli.main([*command[:4], str(files / "expected.png"), *command[5:]]) == 0
    return load(files / "expected.png").rgb


@pytest.fixture
def after(monkeypatch):
    """Have something done after an iteration, counted over both scales."""
    whole = runs.Run.__iter__

    def at(count, action):
        def iterate(self):
            for n, step in enumerate(whole(self), 1):
                yield step
                if n == count:
                    action()

        monkeypatch.setattr(runs.Run, "__iter__", iterate)

    return at


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def closed(folders, monkeypatch):
    """Take the permission to write; a superuser may write anywhere."""
    real = os.access
    shut = [os.path.realpath(folder) for folder in folders]
    monkeypatch.setattr(
        os, "access", lambda path, mode: os.path.realpath(path) not in shut and real(path, mode)
    )


def test_an_image_whose_folder_vanishes_is_saved_here(command, files, expected, after, here, capsys):
    after(4, lambda: shutil.rmtree(files / "out"))
    assert cli.main(command) == 1
    said = capsys.readouterr()
    assert re.search(f"no folder {files / 'out'}; .* {here / 'out.png'}", said.err)
    assert said.out.startswith(f"{here / 'out.png'}: 32 x 23 pixels, 6 iterations")
    assert np.array_equal(load(here / "out.png").rgb, expected)


def test_what_is_here_is_not_replaced(command, files, expected, after, here, capsys):
    (here / "out.png").write_text("precious")
    after(4, lambda: shutil.rmtree(files / "out"))
    assert cli.main([*command, "--overwrite"]) == 1
    assert (here / "out.png").read_text() == "precious"
    assert np.array_equal(load(here / f"out-{os.getpid()}.png").rgb, expected)


def test_a_folder_that_becomes_read_only_and_no_room_here_either(
    command, files, expected, after, here, tmp_path, capsys, monkeypatch
):
    other = tmp_path / "temporary"
    other.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    after(2, lambda: closed([files / "out", here], monkeypatch))
    assert cli.main(command) == 1
    message = f"no permission to write in {files / 'out'}.*saved as {other / 'out.png'}"
    assert re.search(message, capsys.readouterr().err)
    assert np.array_equal(load(other / "out.png").rgb, expected)


def test_where_nothing_can_be_saved_that_is_said(command, files, after, here, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    after(2, lambda: closed([files / "out", here, tmp_path], monkeypatch))
    assert cli.main(command) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"tfstyle: error: cannot write {files / 'out' / 'out.png'}")
    assert re.search("current folder.*temporary files", last)


def test_previews_and_a_history_that_cannot_be_written_are_warnings(command, files, expected, after, capsys):
    (files / "log").mkdir()
    out = files / "out"

    def vanish():
        shutil.rmtree(files / "log")
        (out / "out-0002.png").mkdir()

    after(3, vanish)
    history = files / "log" / "h.json"
    assert cli.main([*command, "--save-every", "2", "--history", str(history)]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "the run continues" in line]
    assert len(warnings) == 2
    assert f"cannot write {out / 'out-0002.png'}: it is a folder" in warnings[0]
    assert f"cannot write {history}: there is no folder" in warnings[1]
    assert load(out / "out-0001.png").rgb.shape == (23, 32, 3)
    assert np.array_equal(load(out / "out.png").rgb, expected)


def test_previews_of_all_scales_join_into_a_film(files, small_file):
    """They have the size, the alpha channel and the unchanged region of the final image, and no gaps."""
    content = np.array(Image.open(files / "content.png").convert("RGBA"))
    content[:8, :, 3], keep = 128, np.zeros(content.shape[:2], np.uint8)
    keep[:, 30:] = 255
    Image.fromarray(content).save(files / "content.png")
    Image.fromarray(keep).save(files / "keep.png")
    words = [
        "stylize", str(files / "content.png"), str(files / "style.png"), "-o", str(files / "film.png"),
        "--content-mask", str(files / "keep.png"), "--weights", str(small_file), "--size", "48",
        "--scales", "3", "--min-scale", "16", "--compile", "eager", "--iterations", "4", "--save-every", "2",
    ]  # fmt: skip
    assert cli.main(words) == 0
    previews = sorted(files.glob("film-*"))
    assert [path.name for path in previews] == [f"film-000{k}.png" for k in range(1, 6)]
    final, unchanged = load(files / "film.png"), load(files / "content.png").resized((34, 48)).rgb
    changes = []
    for path in previews:
        preview = load(path)
        assert preview.rgb.shape == final.rgb.shape == (34, 48, 3)
        assert np.array_equal(preview.alpha, final.alpha)
        assert np.abs(preview.rgb - unchanged)[:, 30:].max() < 0.005  # rounded to 8 bits
        changes.append(np.abs(preview.rgb - final.rgb)[:, :20].mean())
    assert 0 < changes[-1] < changes[0]


def limited(command, size, **options):
    """The command in a process that can write no file larger than so many bytes."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return subprocess.run(
        [sys.executable, "-m", "tfstyle", *command],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        **options,
    )


def test_a_disk_too_small_for_checkpoints_has_room_for_the_image(command, files, expected):
    folder = files / "checkpoints"
    done = limited([*command, "--checkpoint", str(folder), "--checkpoint-every", "0"], 30_000)
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert np.array_equal(load(files / "out" / "out.png").rgb, expected)
    assert not list(folder.glob(".tfstyle-*"))
    assert (
        cli.main([*command, "--checkpoint", str(folder), "--resume", "--overwrite"]) == 0
    )  # of what there was room for
    assert np.array_equal(load(files / "out" / "out.png").rgb, expected)


def test_a_disk_without_any_room_is_exit_code_1(command, files, tmp_path):
    root = str(Path(cli.__file__).parents[2])
    done = limited(command, 1000, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root})
    assert done.returncode == 1
    assert re.search("out.png.*File too large; .*temporary files", done.stderr)
    assert "Traceback" not in done.stderr
    assert not list((files / "out").iterdir())


# Going on.


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_and_the_same_command_again(command, files, expected, after, capsys, monkeypatch):
    out = files / "out"
    flags = [
        "--checkpoint",
        str(files / "run"),
        "--resume",
        "--save-every",
        "2",
        "--history",
        str(out / "h.json"),
    ]
    command = [*command, *flags]
    with monkeypatch.context():
        after(4, interrupt)
        assert cli.main(command) == 130
    said = capsys.readouterr()
    assert "a new run starts" in said.err
    partial = load(out / "out.png").rgb
    # The same command continues, and replaces the files that it wrote: image, history, previews.
    monkeypatch.undo()
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert "2 iterations of scale 2 were done" in said.err
    assert "out.png: 32 x 23 pixels, 6 iterations" in said.out
    assert np.array_equal(load(out / "out.png").rgb, expected)
    assert not np.array_equal(partial, expected)
    assert len(json.loads((out / "h.json").read_text())["total"]) == 6
    assert cli.main(command) == 0  # and once more: it is done
    assert np.array_equal(load(out / "out.png").rgb, expected)


def test_a_run_that_goes_on_replaces_no_other_files(command, files, after, capsys, monkeypatch):
    other = files / "out" / "other.png"
    assert cli.main([*command[:4], str(other), *command[5:], "--seed", "1"]) == 0
    flags = ["--checkpoint", str(files / "run")]
    after(4, interrupt)
    assert cli.main([*command, *flags]) == 130
    monkeypatch.undo()
    (files / "h.json").write_text("precious")
    shutil.copy(other, files / "out" / "out-0001.png")
    before = other.read_bytes()
    for changed in (
        [*command[:4], str(other), *command[5:]],
        [*command, "--history", str(files / "h.json"), "-o", str(files / "out" / "new.png")],
        [*command, "--save-every", "2"],
    ):
        capsys.readouterr()
        assert cli.main([*changed, *flags, "--resume"]) == 2
        assert "exists; replace it with --overwrite or choose" in capsys.readouterr().err
    assert other.read_bytes() == before
    assert (files / "h.json").read_text() == "precious"
    assert cli.main([*command[:4], str(other), *command[5:], *flags, "--resume", "--overwrite"]) == 0
    assert other.read_bytes() != before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resume"], "--resume needs --checkpoint DIR"),
        (["--checkpoint-every", "9"], "--checkpoint-every needs --checkpoint DIR"),
        (["--checkpoint", "run", "--interpolate", "3"], "--checkpoint.*--interpolate"),
        (["--resume", "--interpolate", "3"], "--resume.*--interpolate"),
    ],
)
def test_what_does_not_go_together_is_one_line(command, here, capsys, flags, message):
    assert cli.main([*command, *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert not list(here.iterdir())


def test_another_runs_checkpoints_are_one_line_and_exit_code_2(command, files, capsys):
    flags = ["--checkpoint", str(files / "run")]
    assert cli.main([*command, *flags]) == 0
    capsys.readouterr()
    assert cli.main([*command, *flags, "--overwrite", "--resume", "--style-weight", "2"]) == 2
    assert f"{files / 'run'} holds another run: --style-weight was 1.0, is 2.0;" in capsys.readouterr().err
    assert cli.main([*command, *flags, "-o", str(files / "b.png")]) == 2
    assert "holds the checkpoints of a run" in capsys.readouterr().err
    assert cli.main([*command, *flags, "--overwrite", "--style-weight", "2"]) == 0


def test_temporary_files_of_dead_processes_here_are_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = files._host()
    names = {
        "dead": f".tfstyle-{host}-{ended.pid}-1",
        "alive": f".tfstyle-{host}-{os.getpid()}-1",
        "elsewhere": f".tfstyle-another{host}-{ended.pid}-1",
        "other": "image.png",
    }
    for name in names.values():
        (tmp_path / name).write_text("")
    files.remove_left(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names.values()) - {names["dead"]}


# Without --output.


@pytest.mark.parametrize(
    ("content", "styles", "name"),
    [
        ("photos/cat.jpg", ["waves.png"], "cat_waves.png"),
        ("cat.v2.jpg", ["waves.png", "../night.webp"], "cat.v2_waves_night.png"),
        ("-", ["waves.png"], "stdin_waves.png"),
        ("cat.jpg", ["-"], "cat_stdin.png"),
        ("cat.jpg", ["styles.npz"], "cat_styles.png"),
        ("cat.jpg", ["styles.npz#a/scream.jpg"], "cat_scream.png"),
        ("cat.jpg", ["w" * 200 + ".jpg"], "cat_" + "w" * 30 + ".png"),
        ("c" * 60 + ".jpg", ["waves.jpg", "night.jpg"], "c" * 20 + "_waves_night.png"),
    ],
)
def test_the_name_of_an_output_consists_of_those_of_its_images(content, styles, name):
    assert default_output(content, styles) == Path(name)


def test_the_name_of_an_output_has_no_characters_that_windows_forbids(monkeypatch):
    monkeypatch.setattr(files, "FORBIDDEN_CHARACTERS", '<>:"|?*')
    assert default_output("cat.jpg", ["styles.npz#Night: <study>?.jpg"]) == Path("cat_Night_ _study__.png")


def test_an_output_without_a_name_is_numbered_and_resumed(command, files, expected, after, here, monkeypatch):
    command = [*command[:3], *command[5:]]
    run = ["--checkpoint", str(files / "run"), "--resume"]
    (here / "content_style.png").write_text("precious")
    with monkeypatch.context():
        after(4, interrupt)
        assert cli.main([*command, *run]) == 130
    monkeypatch.undo()
    monkeypatch.chdir(here)
    partial = load(here / "content_style_2.png").rgb
    assert cli.main([*command, *run]) == 0  # replaces the image of the interrupted run
    assert not np.array_equal(partial, expected)
    assert np.array_equal(load(here / "content_style_2.png").rgb, expected)
    assert cli.main(command) == 0  # another run
    assert (here / "content_style.png").read_text() == "precious"
    assert cli.main([*command, "--overwrite"]) == 0
    for name in ("content_style.png", "content_style_3.png"):
        assert np.array_equal(load(here / name).rgb, expected)
    assert len(list(here.iterdir())) == 3


def test_interpolation_without_a_name(command, files, here):
    style = str(files / "content.png")
    for _ in range(2):
        assert cli.main([*command[:3], style, *command[5:], "--interpolate", "2"]) == 0
    assert {path.name for path in here.iterdir()} == {
        "content_style_content.png", "content_style_content_2.png"
    }  # fmt: skip

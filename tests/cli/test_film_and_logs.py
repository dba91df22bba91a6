"""``tfstyle stylize`` with ``--film`` and ``--logdir``."""

import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from tests.callbacks.test_films import frames_of
from tests.callbacks.test_logs import read_logs
from tfstyle import cli
from tfstyle.callbacks import TensorBoard


@pytest.fixture
def command(short_command):
    return short_command(4)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_film_is_written_beside_the_image(command, files, capsys, suffix):
    film = files / f"film{suffix}"
    assert cli.main([*command, "--film", str(film)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"{film}: film of 4 frames"
    frames, _ = frames_of(film)
    side = (22, 32, 3) if suffix == ".mp4" else (23, 32, 3)
    assert {frame.shape for frame in frames} == {side}


def test_logs_are_written(command, files):
    assert cli.main([*command, "--logdir", str(files / "logs")]) == 0
    scalars, images, texts = read_logs(files / "logs")
    assert list(scalars["loss/total"]) == [1, 2, 3, 4]
    assert list(images) == [4]
    assert set(texts) == {"options", "facts"}


def test_a_resumed_run_writes_a_film_of_its_own(command, files, monkeypatch):
    film, logs = files / "film.gif", files / "logs"
    more = ["--checkpoint", str(files / "run"), "--film", str(film), "--logdir", str(logs)]
    whole = [*command[:-1], "6"]

    def interrupt(self, step):
        if step.global_iteration == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(TensorBoard, "__call__", interrupt)
        assert cli.main([*whole, *more]) == 130
    first = film.read_bytes()
    assert cli.main([*whole, *more, "--resume"]) == 0
    assert film.read_bytes() == first
    assert len(frames_of(film)[0]) == 2
    assert len(frames_of(files / "film_2.gif")[0]) == 4
    assert list(read_logs(logs)[0]["loss/total"]) == [3, 4, 5, 6]
    assert cli.main([*whole, *more]) == 2  # the files exist


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--film", "film.avi"],
            "film.avi: the suffix of a film must be one of .mp4, .gif, .webp",
        ),
        (["--film", "missing/film.gif"], "there is no folder missing"),
        (["--film", "content.png.gif", "-o", "content.png.gif"], "suffix must be"),
        (["--film", "out.webp", "-o", "out.webp"], "--film and --output are both out.webp"),
        (["--history", "film.gif", "--film", "film.gif"], "--film and --history are both film.gif"),
        (["--save-every", "2", "-o", "out.webp", "--film", "out-0001.webp"], "the name of a preview"),
        (["--film", "here.gif"], "here.gif exists; replace it with --overwrite"),
        (["--logdir", "here.gif"], "cannot create the folder here.gif"),
        (["--film", "film.gif", "--interpolate", "3"], "--film cannot be combined with --interpolate"),
        (["--logdir", "logs", "--interpolate", "3"], "--logdir cannot be combined with --interpolate"),
    ],
)
def test_wrong_uses_are_refused_before_the_run(command, files, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(files)
    (files / "here.gif").write_bytes(b"mine")
    assert cli.main([*command, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (files / "out.png").exists()


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [("av", ["--film", "film.mp4"], "video"), ("tensorboard", ["--logdir", "logs"], "tensorboard")],
)
def test_without_its_package_one_line_says_what_to_install(command, files, package, arguments, extra):
    """The package is hidden, as if it were not installed. TensorFlow is not imported."""
    code = f"""
import importlib.util, sys
find, sys.modules[{package!r}] = importlib.util.find_spec, None
importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else find(name, *rest)
sys.modules["tensorflow"] = None
from tfstyle import cli
sys.exit(cli.main({[*command, *arguments]!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=files, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"pip install 'tfstyle[{extra}]'" in done.stderr


def test_a_film_can_be_interrupted(command, files):
    """Ctrl-C ends the run; the film has the frames so far."""
    words = [*command[:-1], "100000", "--film", str(files / "film.gif")]
    process = subprocess.Popen([sys.executable, "-m", "tfstyle", *words], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("scale"):  # a progress line, after some seconds
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    with Image.open(files / "film.gif") as film:
        assert film.n_frames >= 1

"""Streams that fail, signals, and errors of the machine: what a command does then, and its exit code."""

import errno
import io
import os
import shlex
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("fcntl", reason="needs the signals and descriptors of POSIX")

from tfstyle import cli
from tfstyle.cli import common, parser, terminal
from tfstyle.errors import ImageError, RunError, WeightsError
from tfstyle.images import load, read_settings
from tfstyle.run import run as runs

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full or /proc")
FAILURES = {"closed": "closed", "full": "No space left on device", "unread": "Broken pipe"}


@pytest.fixture
def command(short_command):
    return short_command(4)


@pytest.fixture
def batch(files, small_file):
    """A batch of two content images in one style."""
    (files / "in").mkdir()
    for name in ("a.png", "b.png"):
        (files / "in" / name).write_bytes((files / "content.png").read_bytes())
    return [
        "batch", str(files / "in"), str(files / "style.png"), "-o", str(files / "results"),
        "--weights", str(small_file), "--size", "32", "--compile", "eager", "--iterations", "2",
    ]  # fmt: skip


@pytest.fixture
def failing_stream():
    """Return a function that opens a stream that fails: None, a full disk, or a pipe that nobody reads."""
    streams = []

    def make(kind):
        if kind == "closed":
            return None
        if kind == "full":
            if not os.path.exists("/dev/full"):
                pytest.skip("needs /dev/full")
            streams.append(open("/dev/full", "w"))  # noqa: SIM115
        else:
            read, write = os.pipe()
            os.close(read)
            streams.append(os.fdopen(write, "w"))
        return streams[-1]

    yield make
    for stream in streams:
        with pytest.raises(OSError, match=r"No space|Broken pipe"):  # it still holds what it could not write
            stream.close()


def command_that(monkeypatch, action):
    """Replace what ``tfstyle presets`` does."""
    monkeypatch.setattr(parser, "run_presets", lambda options: action())
    return ["presets"]


# Standard output and standard error.


@pytest.mark.parametrize("kind", FAILURES)
def test_the_image_is_saved_and_named_if_standard_output_fails(
    command, files, capsys, monkeypatch, failing_stream, kind
):
    monkeypatch.setattr(sys, "stdout", failing_stream(kind))
    assert cli.main(command) == 1
    assert load(files / "out.png").rgb.shape == (23, 32, 3)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("tfstyle: error: ")
    assert FAILURES[kind] in last
    assert last.endswith(f"saved: {files / 'out.png'}")


@pytest.mark.parametrize("kind", FAILURES)
def test_a_standard_error_that_fails_changes_nothing(
    command, files, capsys, monkeypatch, failing_stream, kind
):
    monkeypatch.setattr(sys, "stderr", failing_stream(kind))
    assert cli.main(command) == 0
    assert capsys.readouterr().out.startswith(f"{files / 'out.png'}: 32 x 23 pixels")
    assert cli.main(["stylize", "gone.png", *command[2:]]) == 2


@pytest.mark.parametrize("kind", FAILURES)
def test_a_batch_writes_all_files_if_both_streams_fail(batch, files, monkeypatch, failing_stream, kind):
    monkeypatch.setattr(sys, "stdout", failing_stream(kind))
    monkeypatch.setattr(sys, "stderr", failing_stream(kind))
    assert cli.main(batch) == 1
    names = {path.stem.rpartition("-")[0] for path in (files / "results").glob("*.png")}
    assert names == {"a_style", "b_style"}


def test_a_batch_names_its_folder_if_standard_output_fails(batch, files, capsys, monkeypatch, failing_stream):
    monkeypatch.setattr(sys, "stdout", failing_stream("unread"))
    assert cli.main(batch) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"Broken pipe; saved: {files / 'results'}")


def test_names_that_a_stream_cannot_encode_are_printed_with_escapes(command, files, monkeypatch):
    content = files / os.fsdecode(b"caf\xc3\xa9-\xff.png")
    (files / "content.png").rename(content)
    command[1], command[4] = str(content), str(files / os.fsdecode(b"\xc3\xa9-\xfe.png"))
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert cli.main(command) == 0
    assert cli.main(command) == 2  # the output exists
    assert rb"\xe9-\udcfe.png: 32 x 23 pixels, 4 iterations" in out.buffer.getvalue()
    assert rb"\xe9-\udcfe.png exists" in err.buffer.getvalue()
    assert os.path.exists(os.fsencode(files) + b"/\xc3\xa9-\xfe.png")


def test_a_text_that_the_stream_can_encode_is_unchanged():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    terminal.SafeStream(stream).write("Größe 画 \udcff")
    stream.flush()
    assert stream.buffer.getvalue().decode() == "Größe 画 \\udcff"


class Console(io.RawIOBase):
    """A console of Windows, which refuses text while its descriptor is redirected."""

    def __init__(self):
        self.redirected, self.text = False, b""

    def writable(self):
        return True

    def write(self, data):
        if self.redirected:
            error = OSError(errno.EBADF, "The handle is invalid")
            error.winerror = 6
            raise error
        self.text += bytes(data)
        return len(data)


def test_a_console_is_written_to_again_after_its_descriptor_was_redirected():
    console = Console()
    stream = terminal.SafeStream(
        io.TextIOWrapper(io.BufferedWriter(console), encoding="utf-8", line_buffering=True, newline="")
    )
    stream.write("before\n")
    console.redirected = True  # as while TensorFlow is imported
    stream.write("during\n")
    stream.flush()
    console.redirected = False
    stream.write("after\n")
    assert (stream.failure, console.text) == (None, b"before\nduring\nafter\n")


@linux_only
@pytest.mark.parametrize("words", ["--version", "stylize --help-all"])
def test_the_interpreter_does_not_complain_at_its_end(words):
    """Nothing is left in the buffer of standard output, which Python would flush, fail, and exit with 120."""
    program = [sys.executable, "-m", "tfstyle", *words.split()]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with open("/dev/full", "w") as stream:
        full = subprocess.run(program, stdout=stream, stderr=subprocess.PIPE, text=True, env=buffered)
    assert full.returncode == 1
    assert full.stderr == ("tfstyle: error: standard output could not be written: No space left on device\n")
    read, write = os.pipe()
    os.close(read)
    unread = subprocess.run(program, stdout=write, stderr=subprocess.PIPE, text=True, env=buffered)
    os.close(write)
    assert (unread.returncode, unread.stderr) == (1, "")


def test_wrong_options_keep_their_exit_code_if_nobody_reads_the_error(monkeypatch, failing_stream):
    monkeypatch.setattr(sys, "stderr", failing_stream("full"))
    with pytest.raises(SystemExit) as caught:
        cli.main(["stylize", "--sice", "3"])
    assert caught.value.code == 2


@linux_only
def test_no_file_gets_the_descriptor_of_a_closed_stream(tmp_path):
    """Libraries that write to standard error would write into that file."""
    program = """if True:
        import os, sys
        from tfstyle.cli.terminal import safe_streams
        with safe_streams(), open("file", "w") as file:
            streams = [os.readlink(f"/proc/self/fd/{n}") for n in range(3)]
            print(file.fileno() > 2, *streams, repr(sys.stdin.read()), file=file)
    """
    words = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} <&- >&- 2>&-"
    subprocess.run(words, shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / "file").read_text() == "True /dev/null /dev/null /dev/null ''\n"


@pytest.mark.slow
def test_closed_streams_and_no_home_folder(files):
    program = [
        sys.executable, "-m", "tfstyle", "stylize", "content.png", "style.png", "-o", "out.png",
        "--size", "32", "--compile", "eager", "--iterations", "2", "--weights", "auto",
    ]  # fmt: skip
    before = {path.name for path in files.iterdir()}
    environment = {**os.environ, "HOME": "/dev/null", "KERAS_HOME": "~/keras", "TMPDIR": "/nonexistent"}
    done = subprocess.run(f"{shlex.join(program)} <&- >&- 2>&-", shell=True, cwd=files, env=environment)
    assert done.returncode == 1
    assert load(files / "out.png").rgb.shape == (23, 32, 3)
    assert read_settings(files / "out.png")["facts"]["weights"] == "embedded"
    assert {path.name for path in files.iterdir()} == before | {"out.png"}


# Signals.


@pytest.fixture
def signal_after(monkeypatch):
    """Return a function that sends a signal to this process after so many iterations of a run."""
    whole = runs.Run.__iter__

    def send(number, count):
        def iterate(self):
            for n, step in enumerate(whole(self), 1):
                if n == count:
                    os.kill(os.getpid(), number)
                yield step

        monkeypatch.setattr(runs.Run, "__iter__", iterate)

    return send


@pytest.fixture(autouse=True)
def default_sighup():
    """The tests may run under ``nohup``, which ignores SIGHUP."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_saves_the_image_so_far_and_a_checkpoint(
    command, files, capsys, monkeypatch, signal_after, number, code
):
    assert cli.main([*command[:4], str(files / "expected.png"), *command[5:]]) == 0
    flags = ["--checkpoint", str(files / "run"), "--resume"]
    handlers = [signal.getsignal(handled) for handled, _ in CODES]
    with monkeypatch.context():
        signal_after(number, 2)
        assert cli.main([*command, *flags]) == code
    monkeypatch.undo()
    said = capsys.readouterr()
    assert f"{files / 'out.png'}: 32 x 23 pixels, 2 iterations" in said.out
    assert "interrupted; run the same command with --resume" in said.err
    assert [signal.getsignal(handled) for handled, _ in CODES] == handlers
    assert cli.main([*command, *flags]) == 0
    assert "2 iterations of scale 1 were done" in capsys.readouterr().err
    assert np.array_equal(load(files / "out.png").rgb, load(files / "expected.png").rgb)


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_ends_a_batch_between_two_iterations(batch, files, capsys, signal_after, number, code):
    signal_after(number, 1)
    assert cli.main(batch) == code
    said = capsys.readouterr()
    assert "interrupted; run the same command again" in said.err
    assert "0 results written, 0 skipped, 0 failed" in said.out


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_before_or_outside_a_run_is_one_line(capsys, monkeypatch, number, code):
    """As in the import of TensorFlow, and in extract, pretrain, export and explore."""
    words = command_that(monkeypatch, lambda: os.kill(os.getpid(), number))
    assert cli.main(words) == code
    assert capsys.readouterr().err == "tfstyle: interrupted\n"


def test_the_second_signal_ends_the_command_at_once():
    with common.interruptible() as interrupted:
        os.kill(os.getpid(), signal.SIGTERM)
        assert (interrupted(), interrupted.code) == (True, 143)
        with pytest.raises(common.Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.code == 130


def test_an_ignored_hangup_stays_ignored(command, files, capsys, signal_after):
    signal_after(signal.SIGHUP, 2)
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert cli.main(command) == 0
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert "4 iterations" in capsys.readouterr().out


def test_a_command_in_another_thread_handles_no_signals(command, files):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(cli.main(command)))
    thread.start()
    thread.join()
    assert codes == [0]


# Errors of the machine.


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EIO, 1), (errno.EROFS, 1), (errno.EMFILE, 1),
        (errno.ENOENT, 2), (errno.EACCES, 2), (errno.EISDIR, 2), (errno.ENAMETOOLONG, 2),
    ],
)  # fmt: skip
def test_errors_of_the_machine_exit_with_1_and_wrong_paths_with_2(capsys, monkeypatch, number, code):
    error = OSError(number, os.strerror(number), "cat.png")

    def fail():
        raise error

    def fail_in_a_reader():
        try:
            raise error
        except OSError as cause:
            raise ImageError(f"cat.png: not readable ({cause.strerror})") from cause

    for action in (fail, fail_in_a_reader):
        assert cli.main(command_that(monkeypatch, action)) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("tfstyle: error: cat.png: ")
        assert os.strerror(number) in line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ImageError("not an image"), 2),
        (WeightsError("no network"), 2),
        (RunError("out of memory"), 1),
        (OSError("cannot identify image file"), 2),  # Pillow's errors have no number
        (UnicodeEncodeError("utf-8", "a-\udcff", 2, 3, "surrogates not allowed"), 2),
    ],
)
def test_exit_codes_of_other_errors(capsys, monkeypatch, error, code):
    def fail():
        raise error

    assert cli.main(command_that(monkeypatch, fail)) == code
    assert len(capsys.readouterr().err.splitlines()) == 1


@linux_only
def test_an_image_on_a_disk_that_fails_is_exit_code_1(command, capsys):
    command[1] = "/proc/self/mem"  # reading the first page of the memory is an I/O error
    assert cli.main(command) == 1
    assert "/proc/self/mem" in capsys.readouterr().err


def test_a_folder_on_a_full_disk_is_exit_code_1(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.mkdir", fail)
    assert cli.main(["demo", "-o", str(tmp_path / "demo")]) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_no_folder_with_the_name_of_a_home_that_the_shell_did_not_find(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", "-o", "~/demo"]) == 2
    assert "~/demo: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_folder_for_temporary_files_is_one_line(command, capsys, monkeypatch):
    def fail(*_, **__):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    assert cli.main(command) == 2
    assert "TMPDIR" in capsys.readouterr().err


def test_a_name_that_tensorflow_cannot_use_is_one_line(files, small_file, capsys):
    folder = files / os.fsdecode(b"model-\xff")
    assert cli.main(["export", str(folder), "--weights", str(small_file), "--size", "32"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert r"model-\udcff" in line
    assert "rename" in line

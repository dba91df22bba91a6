"""Files on Windows, for which Linux stands in: files that other programs have open, and forbidden names."""

import ast
import os
import time
import types
from pathlib import Path

import pytest

from tfstyle import cli, files
from tfstyle.errors import OutputError, RunError
from tfstyle.files import check_writable, rename, write_atomically

ACCESS_DENIED, SHARING_VIOLATION, WRITE_FAULT = 5, 32, 29


@pytest.fixture
def failing_replace(monkeypatch):
    """Return a function that lets `os.replace` fail so many times with an error of Windows.

    The function returns the list of the attempts. The waits between them take no time.
    """

    def set_failures(count, number):
        attempts, replace = [], os.replace

        def fail(source, target):
            attempts.append(target)
            if len(attempts) <= count:
                error = PermissionError(13, "Access is denied")
                if number is not None:  # other systems have no such number
                    error.winerror = number
                raise error
            replace(source, target)

        monkeypatch.setattr(os, "replace", fail)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        return attempts

    return set_failures


@pytest.mark.parametrize("number", [ACCESS_DENIED, SHARING_VIOLATION])
def test_a_file_that_is_open_for_a_moment_is_replaced(tmp_path, failing_replace, number):
    path = tmp_path / "out.png"
    path.write_bytes(b"old")
    attempts = failing_replace(3, number)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert attempts == [path] * 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]


def test_a_folder_with_a_file_that_is_open_for_a_moment_is_renamed(tmp_path, failing_replace):
    """As the folder of an exported model, which a virus scanner reads."""
    (tmp_path / "writing").mkdir()
    (tmp_path / "writing" / "saved_model.pb").write_bytes(b"model")
    attempts = failing_replace(2, ACCESS_DENIED)
    rename(tmp_path / "writing", tmp_path / "1")
    assert len(attempts) == 3
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
        "1",
        "1/saved_model.pb",
    ]


def test_a_file_that_stays_open_is_unchanged_and_the_message_says_why(tmp_path, failing_replace):
    path = tmp_path / "out.png"
    path.write_bytes(b"old")
    failing_replace(1000, SHARING_VIOLATION)
    with pytest.raises(RunError, match=r"out\.png could not be written: .*close the file in other programs"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]


@pytest.mark.parametrize("number", [None, WRITE_FAULT])
def test_other_errors_are_final(tmp_path, failing_replace, number):
    attempts = failing_replace(1, number)
    with pytest.raises(RunError, match=r"check the free space and permissions$"):
        write_atomically(tmp_path / "out.png", b"new")
    assert len(attempts) == 1


def test_a_result_whose_name_windows_forbids_is_refused_before_the_run(tmp_path, monkeypatch, capsys):
    name = tmp_path / "cat: waves.png"
    check_writable(name)  # other systems allow it
    monkeypatch.setattr(files, "FORBIDDEN_CHARACTERS", '<>:"|?*')
    check_writable(tmp_path / "cat, waves (2).png")
    with pytest.raises(OutputError, match=r"cat: waves\.png: names of files cannot contain : on this system"):
        check_writable(name)
    assert cli.main(["stylize", "content.png", "style.png", "-o", str(name)]) == 2
    assert "choose another name" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_opened_is_written_to(tmp_path, monkeypatch):
    """Windows cannot open folders, to synchronise them with the disk."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    write_atomically(tmp_path / "out.png", b"new")
    assert (tmp_path / "out.png").read_bytes() == b"new"


def test_windows_is_not_asked_whether_a_process_runs(tmp_path, monkeypatch):
    """There `os.kill` with 0 would send Ctrl-C."""
    left = tmp_path / f".tfstyle-{files._host()}-{os.getpid()}-1"
    left.touch()
    monkeypatch.setattr(files, "os", types.SimpleNamespace(name="nt"))
    files.remove_left(tmp_path)
    assert left.exists()


@pytest.mark.parametrize(
    "source", ["C:/cat.jpg", "C:\\cat.jpg", "C://cat.jpg", "c:cat.jpg", "\\\\server\\a.jpg"]
)
def test_a_drive_is_not_an_address(source):
    assert not files.is_address(source)
    assert files.is_address("s3://bucket/cat.jpg")


def test_no_module_is_imported_that_only_some_systems_have():
    missing = {
        "fcntl", "grp", "msvcrt", "posix", "pty", "pwd", "resource", "termios", "tty", "winreg", "winsound"
    }  # fmt: skip
    package = Path(files.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not missing & {name.partition(".")[0] for name in names}, path

"""A server of the page in a process of its own, and a browser, for the tests with the marker ui."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import types
import urllib.request
from pathlib import Path

import pytest

import tfstyle

ROOT = Path(tfstyle.__file__).parents[1]
DATA = ROOT / "tfstyle" / "data"
#: The server records the addresses that it connects to, other than those of this machine, in a file.
SERVER = """
import socket, sys
connect, log = socket.socket.connect, sys.argv[1]
def watched(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
        with open(log, "a") as file:
            file.write(f"{address}\\\\n")
    return connect(self, address)
socket.socket.connect = watched
from tfstyle import cli
sys.exit(cli.main(sys.argv[2:]))
"""


@contextlib.contextmanager
def running(folder, *arguments):
    """Start ``tfstyle ui``, and end it after the block.

    Yields:
        ``url``, ``log`` (a file with the other addresses it connected to), ``messages`` (a file with what it
        writes to stderr), ``process``, ``pages`` (the folder of its temporary files), and ``seconds``, the
        time from the start to the first answer.
    """
    pages, log, messages = folder / "temporary", folder / "connections.txt", folder / "messages.txt"
    pages.mkdir()
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(log), "ui", "--no-browser", *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=messages.open("w"), text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(pages)},
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        url = re.search(r"http://[\w.:]+", line)[0]
        urllib.request.urlopen(url, timeout=60).read()
        seconds = time.monotonic() - start
        yield types.SimpleNamespace(
            url=url, log=log, messages=messages, process=process, pages=pages, seconds=seconds
        )
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    pytest.importorskip("gradio")
    with running(tmp_path_factory.mktemp("server")) as started:
        yield started


@contextlib.contextmanager
def chromium():
    """Start Debian's Chromium, or the one in $CHROMIUM.

    Raises:
        LookupError: there is none, or playwright is not installed.
    """
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        raise LookupError("no Chromium; install it, or name it in $CHROMIUM")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise LookupError(str(error)) from None
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def browser():
    with contextlib.ExitStack() as stack:
        try:
            driven = stack.enter_context(chromium())
        except LookupError as error:
            pytest.skip(str(error))
        yield driven

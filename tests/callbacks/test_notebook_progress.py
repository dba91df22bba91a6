"""The display in notebooks. tests/test_notebook.py runs it in a kernel."""

import io
import subprocess
import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from PIL import Image

from tfstyle.callbacks import NotebookProgress
from tfstyle.errors import ConfigError


@pytest.fixture
def displayed(monkeypatch):
    """The contents that are displayed and their updates, as (number of the display, data)."""
    shown = []

    def publish(data, metadata=None, *, transient=None, update=False, **_):
        identities.setdefault(transient["display_id"], len(identities))
        shown.append((identities[transient["display_id"]], update, data))

    identities = {}
    shell = InteractiveShell.instance()
    monkeypatch.setattr(shell.display_pub, "publish", publish)
    yield shown
    InteractiveShell.clear_instance()


def test_a_bar_and_a_preview_are_updated_in_place(paint, displayed):
    result = paint(callback=NotebookProgress(interval=0, size=24))
    bars = [(update, data["text/html"]) for number, update, data in displayed if number == 0]
    previews = [(update, data["image/jpeg"]) for number, update, data in displayed if number == 1]
    assert len(bars) == 1 + 8 + 1  # before the first iteration, after each, and at the end
    assert [update for update, _ in bars] == [False] + [True] * 9
    assert [update for update, _ in previews] == [False] + [True] * 8
    assert "preparing" in bars[0][1]
    # The first scale has a quarter of the pixels: 1/4 of 4 iterations is 1/20 of the work.
    assert "value='0.0500'" in bars[1][1]
    assert "scale 1 of 2 (28 x 20), iteration 1 of 4, loss " in bars[1][1]
    assert "value='1.0000'" in bars[-1][1]
    assert f"8 of 8 iterations in {result.history.seconds[-1]:.1f} s, loss " in bars[-1][1]
    sizes = [Image.open(io.BytesIO(as_bytes(data))).size for _, data in previews]
    assert set(sizes) == {(24, 17)}


def as_bytes(data):
    from base64 import b64decode

    return data if isinstance(data, bytes) else b64decode(data)


def test_updates_have_a_minimum_interval(paint, displayed):
    paint(callback=NotebookProgress(interval=3600))
    assert len(displayed) == 1 + 2 + 2  # preparing, the first iteration and the end with bar and preview


def test_a_run_that_does_not_begin_says_so(paint, displayed):
    with pytest.raises(ConfigError):
        paint(callback=NotebookProgress(), content_layers=("conv9_9",))
    assert [(update, data["text/html"].split("<br>")[1]) for _, update, data in displayed] == [
        (False, "preparing the first iteration"),
        (True, "the run ended before the first iteration"),
    ]


def test_another_run_has_another_display(paint, displayed):
    progress = NotebookProgress(interval=3600)
    paint(callback=progress)
    paint(callback=progress)
    assert len({number for number, _, _ in displayed}) == 4  # a bar and a preview for each run


def test_outside_of_a_notebook_it_displays_nothing(paint):
    assert InteractiveShell.initialized() is False
    with capture_output() as output:
        paint(callback=NotebookProgress())
    assert (output.stdout, output.outputs) == ("", [])


def test_wrong_arguments_and_a_missing_ipython_are_refused():
    with pytest.raises(ConfigError, match=r"interval is -1; it must be a number of at least 0"):
        NotebookProgress(interval=-1)
    with pytest.raises(ConfigError, match=r"size is 0; it must be an integer of at least 1"):
        NotebookProgress(size=0)
    code = """
import sys
sys.modules["IPython"] = sys.modules["IPython.display"] = None
import tfstyle
try:
    tfstyle.callbacks.NotebookProgress()
except tfstyle.TfstyleError as error:
    print(error)
assert "matplotlib" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "needs IPython" in done.stdout, done.stderr

"""What users of a page may ask for. Tests that need Gradio are skipped without it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tfstyle
from tests.conftest import GRADIO_MODULES
from tfstyle import StyleConfig
from tfstyle.errors import ConfigError, ImageError
from tfstyle.presets import PRESETS
from tfstyle.web.limits import Limits, allowed_options, make_config, read_options
from tfstyle.web.visits import Visits

LIMITS = Limits(size=1024, iterations=200, file_bytes=1000, styles=2)


def test_options_become_a_config():
    few = {"iterations": 20, "first_iterations": 40}
    config = make_config({"size": 300, "style_weight": 2.0, "preset": "crowsonkb", **few}, LIMITS)
    assert (config.size, config.style_weight, config.optimizer) == (300, 2.0, "adam")
    assert config.max_pixels == LIMITS.pixels
    assert make_config({}, LIMITS).weights == "auto"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1025}, r"size is 1025; this page allows at most 1024"),
        ({"iterations": 201}, r"iterations is 201; this page allows at most 200"),
        ({"first_iterations": 900}, r"first_iterations is 900; this page allows at most 200"),
        ({"preset": "gatys2016"}, r"iterations is 1000; this page allows at most 200"),
        ({"weights": "/etc/passwd"}, r"weights is '/etc/passwd'; on this page it can be imagenet"),
        ({"init": "/etc/passwd"}, r"init is '/etc/passwd'; on this page it can be content"),
        ({"masks": ["/etc/passwd"]}, r"masks cannot be set on this page"),
        ({"fine_style": "/etc/passwd"}, r"fine_style cannot be set"),
        ({"memory": 1.0}, r"memory cannot be set"),
        ({"max_pixels": 10**12}, r"max_pixels cannot be set"),
        ({"device": "gpu:0"}, r"device cannot be set"),
        ({"steps_per_call": 1000}, r"steps_per_call cannot be set"),
        ({"style_size": [100_000]}, r"style_size is 100000; this page allows at most 1024"),
        ({"style_scale": [50.0]}, r"style_scale is 50; this page allows at most 2"),
        ({"lbfgs_history": 50, "size": 1024}, r"lbfgs_history is 50; this page allows at most 25"),
        ({"scale_factor": 1.01}, r"scale_factor is 1.01; this page allows at least 1.2"),
        ({"preset": 3}, r"preset is 3; give a name"),
        ({"preset": "x"}, r"no preset 'x'"),
        ({"sise": 3}, r"sise"),
        ({"size": "x"}, r"size is 'x'"),
        ({"size": [1]}, r"size is \(1,\)"),
    ],
)
def test_what_is_not_allowed_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make_config(options, LIMITS)


@pytest.mark.parametrize("text", ["[1]", "{", "3", "null", '"x"', "[" * 100_000])
def test_options_are_a_json_object(text):
    with pytest.raises(ConfigError, match="not a JSON object"):
        read_options(text)
    assert read_options("") == {}
    assert read_options('{"size": 3}') == {"size": 3}


def test_files_are_checked(tmp_path):
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    small.write_bytes(b"x")
    large.write_bytes(b"x" * 1001)
    LIMITS.check_files(small, [small, small])
    for content, styles, message in (
        (None, [small], "no content image"),
        (small, [], "no style image"),
        (small, [small] * 3, "3 style images; this page allows at most 2"),
        (tmp_path / "gone.png", [small], "no such image: gone.png"),
        (small, [large], "large.png has 0 MB; this page allows at most 0 MB"),
    ):
        with pytest.raises(ImageError, match=message):
            LIMITS.check_files(content, styles)


def test_the_longest_side_is_limited_however_the_size_is_measured(tmp_path):
    path = tmp_path / "wide.png"
    Image.new("RGB", (400, 100)).save(path)
    for size_of, size, allowed in (
        ("longest", 1024, True), ("shortest", 256, True), ("shortest", 257, False), ("area", 512, True),
        ("area", 513, False),
    ):  # fmt: skip
        config = StyleConfig(size=size, size_of=size_of)
        if allowed:
            LIMITS.check_longest_side(config, path)
        else:
            with pytest.raises(ConfigError, match=f"size_of '{size_of}' the longest side would have 10"):
                LIMITS.check_longest_side(config, path)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_used(name):
    few = {"iterations": 20, "first_iterations": 20, "size": 512}
    assert make_config({"preset": name, **few}, Limits()).size == 512


def test_stored_options_lose_what_a_page_does_not_allow():
    stored = StyleConfig(
        size=300, weights="mine.npz", init="start.png", content_mask="mask.png", quality="high"
    ).as_dict()
    allowed = allowed_options(stored)
    assert allowed["size"] == 300
    assert allowed["quality"] == "high"
    assert "color" in allowed
    assert not {"weights", "init", "content_mask", "iterations"} & set(allowed)
    assert make_config(allowed, LIMITS).quality == "high"


def test_the_files_of_a_visit_are_deleted_and_those_of_others_are_kept(tmp_path, monkeypatch):
    cache = tmp_path / "gradio"
    visits = Visits(tmp_path / "visits", cache)
    first, second = visits.of("a"), visits.of("b")
    assert visits.of("a") is first
    assert first is not second
    (cache / "0f").mkdir(parents=True)
    shared, own, outside = cache / "0f" / "shared.png", cache / "0f" / "own.png", tmp_path / "mine.png"
    for path in (shared, own, outside):
        path.write_bytes(b"x")
    first.add_uploads(shared, own, outside, None)
    second.add_uploads(shared)
    made = first.new_file(".png")
    copy = cache / "0f" / made.name  # as Gradio copies what it sends
    for path in (made, copy):
        path.write_bytes(b"x")
    assert first.new_file(".png") != made
    visits.end("a")
    assert first.stopped.is_set()
    assert not second.stopped.is_set()
    assert not made.exists()
    assert own.exists()  # another user may have uploaded an equal file just now
    visits.sweep()
    assert own.exists()
    monkeypatch.setattr("tfstyle.web.visits.UPLOAD_SECONDS", 0.0)
    visits.sweep()
    assert sorted(path.name for path in (shared, own, outside, made, copy) if path.exists()) == [
        "mine.png",  # not a file of the server
        "shared.png",  # another user uploaded an equal file
    ]
    visits.end("a")  # nothing happens
    visits.end("b")
    visits.sweep()
    assert not shared.exists()


def test_a_file_that_is_open_on_windows_is_deleted_later(tmp_path, monkeypatch):
    monkeypatch.setattr("tfstyle.web.visits.UPLOAD_SECONDS", 0.0)
    cache = tmp_path / "gradio"
    visits = Visits(tmp_path / "visits", cache)
    visit = visits.of("a")
    cache.mkdir()
    upload, copy, other = cache / "upload.png", cache / visit.new_file(".png").name, cache / "other.png"
    for path in (upload, copy, other):
        path.write_bytes(b"x")
    visit.add_uploads(upload)
    unlink = Path.unlink

    def refuse(path, missing_ok=False):
        if path.name != other.name:
            raise PermissionError(13, "The process cannot access the file", str(path))
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        visits.end("a")
        for path in (copy, other):
            os.utime(path, (time.time() - 3700,) * 2)
        visits.sweep()
        assert {path.name for path in cache.iterdir()} == {upload.name, copy.name}
    visits.sweep()
    assert not list(cache.iterdir())


def test_a_visit_ends_after_an_hour_without_activity(tmp_path):
    visits = Visits(tmp_path / "visits", tmp_path / "gradio")
    old, active = visits.of("program"), visits.of("another")
    old.active -= 3601
    waiting = visits.of("in the queue")
    waiting.active -= 3601
    waiting.waiting = True
    visits.sweep()
    assert old.stopped.is_set()
    assert not active.stopped.is_set()
    assert not waiting.ended
    assert visits.of("program") is not old
    assert visits.of("another") is active


def test_old_files_that_belong_to_no_visit_are_deleted(tmp_path):
    cache = tmp_path / "gradio"
    visits = Visits(tmp_path / "visits", cache)
    visit = visits.of("a")
    (cache / "0f").mkdir(parents=True)
    forgotten, recent, used = (cache / "0f" / name for name in ("forgotten.png", "recent.png", "used.png"))
    result = cache / "0f" / visit.new_file(".png").name
    for path in (forgotten, recent, used, result):
        path.write_bytes(b"x")
    visit.add_uploads(used)
    for path in (forgotten, used, result):
        os.utime(path, (time.time() - 3700,) * 2)
    visits.sweep()
    assert sorted(path.name for path in (cache / "0f").iterdir()) == sorted(
        [recent.name, used.name, result.name]
    )


def test_the_stored_bytes_are_those_of_uploads_and_results(tmp_path):
    cache = tmp_path / "gradio"
    visits = Visits(tmp_path / "visits", cache)
    assert visits.stored_bytes() == 0
    (cache / "0f").mkdir(parents=True)
    (cache / "0f" / "upload.png").write_bytes(b"x" * 100_000)
    visits.of("a").new_file(".png").write_bytes(b"x")
    assert visits.stored_bytes() == 100_000 + 65_536  # many small files count too


def test_neither_tensorflow_nor_gradio_is_needed_to_import_the_folder():
    code = """
import sys
sys.modules["tensorflow"] = sys.modules["gradio"] = None
import tfstyle.web
try:
    tfstyle.ui(port=1)
except tfstyle.TfstyleError as error:
    print(error)
for options in ({"host": "0.0.0.0"}, {"password": ""}):
    try:
        tfstyle.web.serve(**options)
    except tfstyle.TfstyleError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    first, second, third = done.stdout.splitlines()
    assert "install it with pip install 'tfstyle[ui]'" in first
    assert second.startswith(
        "host is 0.0.0.0, so that others can reach the page; give a password, or no_password"
    )
    assert third == "password is empty; give a password, or no_password to let anyone use the page"


def test_regions_of_a_drawing():
    pytest.importorskip("gradio")
    from tfstyle.web.variations import REGION_COLOURS, regions_of

    drawn = np.zeros((4, 6, 4), np.uint8)
    drawn[:2, :, :] = [*(int(REGION_COLOURS[1][0][i : i + 2], 16) for i in (1, 3, 5)), 255]
    drawn[3, :, :] = 255  # white stays
    masks, keep = regions_of({"layers": [drawn]}, 2)
    assert np.array_equal(masks[1][:, 0], [1, 1, 0, 0])
    assert np.array_equal(masks[0] + masks[1], np.ones((4, 6)))
    assert np.array_equal(keep[:, 0], [0, 0, 0, 1])
    with pytest.raises(ConfigError, match="green stands for style 2, but the number of style images is 1"):
        regions_of({"layers": [drawn]}, 1)
    for nothing in (None, {}, {"layers": [np.zeros((4, 6, 4), np.uint8)]}):
        with pytest.raises(ConfigError, match="nothing is brushed"):
            regions_of(nothing, 2)


def test_the_controls_give_the_options_that_were_changed():
    pytest.importorskip("gradio")
    from tfstyle.web.controls import ADVANCED, control_values, options_of

    defaults = control_values({})
    assert options_of(defaults) == {}
    names = [field.name for field in ADVANCED]
    assert len(set(names)) == len(names)
    changed = {
        "tv_weight": 0.5, "style_layers": ("conv1_1", "conv3_1"), "iterations": 12, "clamp": False,
        "style_loss_weights": (1.0,), "optimizer": "adam",
    }  # fmt: skip
    assert options_of(control_values(changed)) == changed
    preset = StyleConfig(tv_weight=0.5, clamp=False, optimizer="adam")
    shown = control_values(preset.as_dict())
    assert not {"tv_weight", "clamp", "optimizer"} & set(options_of(shown, start=preset))
    shown[names.index("clamp")] = True  # the default, which the preset changes
    assert options_of(shown, start=preset)["clamp"] is True
    values = list(defaults)
    values[names.index("scales")] = "x"
    with pytest.raises(ConfigError, match="scales is 'x'; give an integer"):
        options_of(values)
    values = list(defaults)
    values[names.index("style_layer_weights")] = "1, x"
    with pytest.raises(ConfigError, match="style_layer_weights is '1, x'; give numbers"):
        options_of(values)


def test_the_modules_that_need_gradio_are_known():
    folder = Path(tfstyle.__file__).parent / "web"
    with_gradio = [
        path.stem for path in folder.glob("*.py") if "\nimport gradio" in path.read_text(encoding="utf-8")
    ]
    assert sorted(GRADIO_MODULES) == sorted(f"tfstyle.web.{name}" for name in with_gradio)


def test_a_video_has_limited_frames_and_sides():
    limits = Limits(frames=10, size=320)
    limits.check_video(10, (240, 320))
    with pytest.raises(ConfigError, match="the video would have 11 frames; this page allows at most 10"):
        limits.check_video(11, (240, 320))
    with pytest.raises(ConfigError, match="would have 321 pixels; this page allows at most 320"):
        limits.check_video(10, (240, 321))

"""Films of the evolution: what they show, for how long, and what is refused."""

import logging
import os
import re
import sys
import types

import numpy as np
import pytest
from PIL import Image

from tests.callbacks.conftest import OPTIONS
from tfstyle import StyleConfig, iterate
from tfstyle.callbacks import Film, films
from tfstyle.callbacks.films import MOST_FRAMES
from tfstyle.errors import ConfigError, OutputError
from tfstyle.images import resize
from tfstyle.run.results import Iteration


def frames_of(path):
    """Return the frames of a film, float ``[height, width, 3]`` in 0..255, and their times in seconds."""
    if path.suffix == ".mp4":
        import av

        with av.open(str(path)) as film:
            decoded = list(film.decode(video=0))
        return [frame.to_ndarray(format="rgb24").astype(float) for frame in decoded], [
            f.time for f in decoded
        ]
    images, times, now = [], [], 0.0
    with Image.open(path) as film:
        for number in range(film.n_frames):
            film.seek(number)
            images.append(np.asarray(film.convert("RGB"), float))
            times.append(now)
            now += film.info["duration"] / 1000
    return images, [*times, now]


def step_of(image, number, total=100, **changes):
    """Return an iteration with a given image."""
    shape = image.shape[:2]
    fields = {
        "scale": 1, "scales": 1, "shape": shape, "final_shape": shape, "global_iteration": number,
        "total_iterations": total, "progress": number / total, "losses": {"total": 1.0}, "seconds": 1.0,
        "seconds_left": 0.0,
        "config": StyleConfig(), "facts": {}, "_read_image": lambda: image, "_stop": lambda: None, **changes,
    }  # fmt: skip
    return Iteration(number, total, **fields)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_film_has_the_images_of_all_scales_at_one_size(paint, tmp_path, suffix):
    images = []
    film = Film(tmp_path / f"film{suffix}", fps=10, hold=1.5)
    result = paint(callback=[film, lambda step: images.append(step.image)])
    assert {image.shape for image in images} == {(20, 28, 3), (40, 56, 3)}
    assert film.frames == 8
    frames, times = frames_of(film.path)
    assert {frame.shape for frame in frames} == {(40, 56, 3)}
    last = result.image * 255
    assert np.abs(frames[-1] - last).mean() < 8  # the formats are lossy
    first = resize(images[0], (40, 56)) * 255
    assert np.abs(frames[0] - first).mean() < 8
    assert np.abs(frames[0] - last).mean() > 10
    duration = times[-1] + (0.1 if suffix == ".mp4" else 0)
    assert duration == pytest.approx(0.8 + 1.5 - (0.1 if suffix != ".mp4" else 0), abs=0.11)
    if suffix == ".mp4":
        assert times[1] - times[0] == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_colours_are_kept(tmp_path, suffix):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (255, 255, 255), (0, 0, 0), (128, 128, 128)]
    image = np.zeros((32, 96, 3), np.float32)
    for column, colour in enumerate(colours):
        image[:, 16 * column : 16 * column + 16] = np.array(colour) / 255
    with Film(tmp_path / f"film{suffix}") as film:
        film(step_of(image, 1))
    (frame, *_), _ = frames_of(film.path)
    for column, colour in enumerate(colours):
        np.testing.assert_allclose(frame[16, 16 * column + 8], colour, atol=4)


def test_mp4_is_what_browsers_play(tmp_path):
    import av

    with Film(tmp_path / "film.mp4") as film:
        film(step_of(np.zeros((33, 47, 3), np.float32), 1))
    with av.open(str(film.path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.height, context.width) == (32, 46)  # even
        assert (context.colorspace, context.color_range) == (1, 1)  # BT.709, 16..235
    data = film.path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it can be played while it is loading


def test_an_mp4_film_whose_temporary_file_cannot_be_deleted(tmp_path, monkeypatch):
    """As on Windows while a virus scanner has it open."""
    unlink = os.unlink

    def refuse(path, **options):
        if os.fspath(path).endswith("film.mp4"):
            raise PermissionError(13, "The process cannot access the file", path)
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", refuse)
    with Film(tmp_path / "result.mp4") as film:
        film(step_of(np.zeros((32, 32, 3), np.float32), 1))
    assert film.written
    assert len(frames_of(film.path)[0]) > 1


def test_a_long_run_has_at_most_240_frames_and_every_sets_another_number(tmp_path):
    image = np.zeros((16, 16, 3), np.float32)
    for every, total, expected in ((None, 1000, 200), (None, 240, 240), (7, 100, 16), (1000, 100, 2)):
        film = Film(tmp_path / "film.gif", every=every, overwrite=True)
        for number in range(1, total + 1):
            film(step_of(image, number, total))
        film.close()
        assert film.frames <= MOST_FRAMES
        assert film.frames == pytest.approx(expected, abs=1)


def test_calls_with_several_iterations_give_a_frame_each(tmp_path):
    film = Film(tmp_path / "film.gif", every=4)
    for number in (3, 6, 9, 12):
        film(step_of(np.zeros((16, 16, 3), np.float32), number))
    assert film.frames == 4


@pytest.mark.parametrize(("size", "shape"), [(None, (640, 320)), (100, (100, 50)), (900, (900, 450))])
def test_the_size_of_the_frames(tmp_path, size, shape):
    with Film(tmp_path / "film.webp", size=size) as film:
        film(step_of(np.zeros((1000, 500, 3), np.float32), 1))
    assert frames_of(film.path)[0][0].shape == (*shape, 3)


def test_an_interrupted_run_leaves_the_frames_so_far(paint, small_file, content, style, tmp_path):
    film = Film(tmp_path / "film.gif")

    def fail(step):
        if step.global_iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        paint(callback=[film, fail])
    assert len(frames_of(film.path)[0]) == film.frames == 3
    with Film(tmp_path / "loop.gif") as film:
        for step in iterate(content, style, weights=str(small_file), **OPTIONS):
            film(step)
            if step.global_iteration == 2:
                break
    assert len(frames_of(film.path)[0]) == 2


def test_a_run_without_an_iteration_writes_nothing(tmp_path):
    Film(tmp_path / "film.gif").close()
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_refused_before_the_run(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"film\.avi: the suffix .*\.mp4, \.gif, \.webp"):
        Film(tmp_path / "film.avi")
    with pytest.raises(OutputError, match=r"no folder"):
        Film(tmp_path / "missing" / "film.gif")
    wrong = {
        "fps": (0, 60, None, "x", True), "every": (0, 1.5, "x"), "size": (8, 9000, 20.5),
        "hold": (-1, 700, None, float("nan")),
    }  # fmt: skip
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ConfigError, match=rf"{name} is {re.escape(repr(value))}; it must be a"):
                Film(tmp_path / "film.gif", **{name: value})
    (tmp_path / "film.gif").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"film\.gif exists.*overwrite=True"):
        Film(tmp_path / "film.gif")
    monkeypatch.setitem(sys.modules, "av", None)  # as if its import failed
    with pytest.raises(ConfigError, match=r"MP4 films need PyAV .*; install .* 'tfstyle\[video\]'"):
        Film(tmp_path / "film.mp4")
    monkeypatch.setitem(sys.modules, "av", types.SimpleNamespace(codecs_available={"mpeg4"}))
    with pytest.raises(ConfigError, match=r"libx264"):
        Film(tmp_path / "film.mp4")


@pytest.mark.parametrize("failing", ["write_atomically", "ImageArray"])
def test_a_film_that_cannot_be_written_does_not_lose_the_result(
    paint, tmp_path, caplog, monkeypatch, failing
):
    film = Film(tmp_path / "film.gif")

    def full(*_):
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(films, failing, full)
    with caplog.at_level(logging.WARNING, "tfstyle"):
        result = paint(callback=film)
    assert len(result.history.total) == 8
    assert caplog.text.count("film.gif cannot be written (No space left on device); the run continues") == 1
    assert not film.written
    assert list(tmp_path.glob("*.gif")) == []


def test_a_film_can_be_used_for_another_run(paint, tmp_path):
    film = Film(tmp_path / "film.gif")
    paint(callback=film)
    first = film.path.read_bytes()
    paint(callback=film, iterations=3)
    assert film.path == tmp_path / "film_2.gif"  # the first film is kept
    assert film.frames == 6
    assert 2 <= len(frames_of(film.path)[0]) <= 6  # Pillow joins equal frames
    assert (tmp_path / "film.gif").read_bytes() == first


def test_a_file_that_appears_during_the_run_is_kept(paint, tmp_path):
    film = Film(tmp_path / "film.gif")
    film.path.write_bytes(b"mine")
    paint(callback=film)
    assert (tmp_path / "film.gif").read_bytes() == b"mine"
    assert film.path == tmp_path / "film_2.gif"
    assert film.frames == 8
    assert len(frames_of(film.path)[0]) >= 2

"""Many pictures in one process, and what is made of them together."""

import numpy as np
import pytest
from PIL import Image

from tests.conftest import make_picture
from tfstyle import cli, stylize
from tfstyle.batch import BUCKET, _grown, _names, is_finished, jobs, overview, paint
from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError, TfstyleError
from tfstyle.images import Picture, load
from tfstyle.sheets import GAP, contact_sheet, strip


@pytest.fixture
def folders(tmp_path):
    for folder, shapes in (("contents", [(40, 56), (56, 40), (40, 56)]), ("styles", [(48, 44), (44, 48)])):
        (tmp_path / folder).mkdir()
        for i, shape in enumerate(shapes):
            pixels = (make_picture(*shape, seed=i + len(folder)) * 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    return tmp_path


@pytest.fixture
def config(small_file):
    options = {
        "size": 32,
        "iterations": 2,
        "weights": str(small_file),
        "precision": "float32",
        "compile": "eager",
    }
    return StyleConfig().replace(options)


def files(folder):
    return sorted(folder.iterdir())


def test_it_makes_what_single_runs_make(folders, config):
    planned = jobs(files(folders / "contents"), files(folders / "styles"), config, folders / "out", ".png")
    assert [job.output.name for job in planned] == [f"{c}_{s}.png" for c in range(3) for s in range(2)]
    done = list(paint(planned, config))
    assert [job for job, _ in done] == planned
    for job, result in done[:4]:
        expected = stylize(job.content, list(job.styles), config)
        assert np.abs(result.image - expected.image).max() < 1e-3
        assert result.history.total == pytest.approx(expected.history.total, rel=1e-4)


def test_each_shape_is_compiled_once_and_each_style_encoded_once(folders, config, monkeypatch):
    from tfstyle.losses import Objective

    counts = {"encoded": 0, "traced": 0}
    original, call = Objective.style_summary, Objective.__call__

    def counted(self, *arguments):
        counts["encoded"] += 1
        return original(self, *arguments)

    def traced(self, *arguments):
        counts["traced"] += 1
        return call(self, *arguments)

    monkeypatch.setattr(Objective, "style_summary", counted)
    monkeypatch.setattr(Objective, "__call__", traced)
    planned = jobs(files(folders / "contents"), files(folders / "styles"), config, folders, ".png")
    done = list(paint(planned, config.replace({"compile": "graph"})))
    assert len(done) == 6
    assert counts["encoded"] == 2  # styles
    assert counts["traced"] == 2  # shapes: two contents are of one


def test_blended_styles_make_one_picture_each(folders, config):
    blended = config.replace({"style_blend": (2, 1)})
    planned = jobs(files(folders / "contents"), files(folders / "styles"), blended, folders, ".jpg")
    assert [job.output.name for job in planned] == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(planned[0].styles) == 2


def test_a_failure_does_not_end_the_rest(folders, config):
    (folders / "contents" / "1.png").write_bytes(b"no picture")
    planned = jobs(files(folders / "contents"), files(folders / "styles")[:1], config, folders, ".png")
    outcomes = [outcome for _, outcome in paint(planned, config)]
    assert [isinstance(outcome, TfstyleError) for outcome in outcomes] == [False, True, False]


def test_options_of_one_picture_are_refused(folders, config):
    for option in ("masks", "style_masks", "content_mask"):
        value = "a.png" if option == "content_mask" else ("a.png",)
        with pytest.raises(ConfigError, match=f"{option} belongs to one picture"):
            jobs([], [], config.replace({option: value}), folders, ".png")


def test_names_are_no_two_alike(tmp_path):
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    assert list(_names(paths).values()) == ["a", "b"]
    assert list(_names([tmp_path / "a.jpg", tmp_path / "a.png"]).values()) == ["a-jpg", "a-png"]
    same = [tmp_path / "one" / "a.jpg", tmp_path / "two" / "a.jpg"]
    assert len(set(_names(same).values())) == 2


@pytest.mark.parametrize("shape", [(40, 100), (64, 64), (65, 1)])
def test_growing_to_a_bucket_mirrors(shape):
    picture = Picture(make_picture(*shape), np.ones(shape, np.float32))
    grown = _grown(picture, BUCKET)
    assert all(side % BUCKET == 0 for side in grown.rgb.shape[:2])
    assert np.array_equal(grown.rgb[: shape[0], : shape[1]], picture.rgb)
    assert grown.alpha.shape == grown.rgb.shape[:2]
    if shape[0] == 40:
        assert np.array_equal(grown.rgb[40], grown.rgb[39])


def test_a_hundred_shapes_are_few_buckets():
    shapes = {tuple(-(-side // BUCKET) for side in (512, round(512 * (0.5 + i / 200)))) for i in range(100)}
    assert len(shapes) <= 5


@pytest.mark.slow
def test_buckets_on_xla_give_pictures_of_the_right_size(folders, config):
    planned = jobs(files(folders / "contents")[:2], files(folders / "styles")[:1], config, folders, ".png")
    shapes = [result.image.shape for _, result in paint(planned, config.replace({"compile": "xla"}))]
    assert shapes == [(23, 32, 3), (32, 23, 3)]


def batch(folders, *more):
    out = folders / "out"
    arguments = ["batch", folders / "contents", folders / "styles" / "0.png", "-o", out, *more]
    return cli.main([str(argument) for argument in arguments])


def test_the_command(folders, small_file, capsys):
    flags = ["--weights", small_file, "--size", "32", "--iterations", "2"]
    (folders / "contents" / "3.png").write_bytes(b"no picture")
    assert batch(folders, *flags) == 1
    said = capsys.readouterr()
    assert "contact-sheet.jpg: 3 made, 0 there before, 1 failed" in said.out
    assert said.err.splitlines()[-1].startswith("failed: ")
    assert "3.png" in said.err.splitlines()[-1]
    assert [p.name for p in files(folders / "out")] == ["0_0.png", "1_0.png", "2_0.png", "contact-sheet.jpg"]
    (folders / "contents" / "3.png").unlink()
    (folders / "out" / "1_0.png").unlink()
    times = {p.name: p.stat().st_mtime_ns for p in files(folders / "out")}
    assert batch(folders, *flags) == 0
    said = capsys.readouterr()
    assert "2 of 3 pictures are there already" in said.err
    assert "1 made, 2 there before, 0 failed" in said.out
    for name in ("0_0.png", "2_0.png"):
        assert (folders / "out" / name).stat().st_mtime_ns == times[name]
    assert batch(folders, *flags, "--style-weight", "2") == 0
    assert "was made with other options; --overwrite makes it again" in capsys.readouterr().err
    assert batch(folders, *flags, "--style-weight", "2", "--overwrite") == 0
    assert "3 made" in capsys.readouterr().out


def test_wrong_command_lines(folders, capsys):
    assert cli.main(["batch", str(folders / "none"), "a.png", "-o", str(folders / "out")]) == 2
    assert "no such image or folder" in capsys.readouterr().err
    assert batch(folders, "--weights", "random", "--content-mask", "a.png") == 2
    assert "belongs to one picture" in capsys.readouterr().err


def test_what_is_finished(folders, config, caplog):
    (job,) = jobs(files(folders / "contents")[:1], files(folders / "styles")[:1], config, folders, ".png")
    assert not is_finished(job, config)
    stylize(job.content, list(job.styles), config).save(job.output)
    caplog.clear()
    assert is_finished(job, config)
    assert not caplog.records
    Image.new("RGB", (3, 3)).save(job.output)
    assert is_finished(job, config)
    assert "not made by tfstyle; left as it is" in caplog.text


def test_sheets():
    pictures = [np.full((10, width, 3), grey, np.float32) for width, grey in ((8, 0.2), (12, 0.6))]
    row = strip(pictures)
    assert row.shape == (10, 20 + GAP, 3)
    assert np.array_equal(row[:, :8], pictures[0])
    assert (row[:, 8 : 8 + GAP] == 1).all()
    sheet = contact_sheet([[None, pictures[0]], [pictures[1], None]], 24)
    assert sheet.shape == (2 * 24 + 3 * GAP, 2 * 24 + 3 * GAP, 3)
    assert (sheet[GAP : GAP + 24, GAP : GAP + 24] == 1).all()
    assert np.isclose(sheet[GAP + 12, 2 * GAP + 24 + 12], 0.2).all()


def test_the_overview_has_contents_styles_and_what_is_missing(folders, config):
    planned = jobs(files(folders / "contents"), files(folders / "styles"), config, folders, ".png")
    load(folders / "styles" / "0.png")
    sheet = overview(planned)
    assert sheet.shape == ((240 + GAP) * 4 + GAP, (240 + GAP) * 3 + GAP, 3)
    assert (sheet[300:400, 300:400] == 1).all()  # nothing painted yet

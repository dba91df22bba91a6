"""Tests of batches: plans, runs in one process, finished results and contact sheets."""

import dataclasses
import json
import os
import re
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import make_image
from tfstyle import cli, stylize
from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError, OutputError, RunError, TfstyleError
from tfstyle.images import ImageArray, contact_sheet, save, strip
from tfstyle.images.sheets import GAP
from tfstyle.run import (
    PARQUET_FOLDER,
    Content,
    LocalStorage,
    Manifest,
    ManifestRow,
    contact_sheets,
    find_missing,
    is_finished,
    parquet_file,
    plan_jobs,
    run_jobs,
)
from tfstyle.run import batch as batches
from tfstyle.run.batch import XLA_MULTIPLE, _pad_to_multiple


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


def name_of(path):
    """Return the name of a result without its digest."""
    return re.sub(r"-[0-9a-f]{10}(?=\.)", "", Path(path).name)


def jobs_for(contents, styles, config, *, folder, suffix=".png"):
    contents = [Content(str(path), path.name) for path in contents]
    return plan_jobs(contents, list(map(str, styles)), config, folder=str(folder), suffix=suffix)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"size": 200, "style_scale": (0.5, 1.0)},  # larger than the content images
        {"size_of": "shortest", "scales": None, "min_scale": 12},
        {"normalize_weights": True},
        {"color": "transport"},
    ],
    ids=str,
)
def test_a_batch_gives_the_results_of_single_runs(folders, config, changes):
    config = config.replace(changes)
    planned = jobs_for(files(folders / "contents"), files(folders / "styles"), config, folder=folders / "out")
    assert [name_of(job.output) for job in planned] == [f"{c}_{s}.png" for c in range(3) for s in range(2)]
    done = list(run_jobs(planned[:3]))
    assert [job for job, _ in done] == planned[:3]
    for job, result in done:
        expected = stylize(job.content, list(job.styles), job.config)
        assert result.history.scale == expected.history.scale
        assert result.history.total == pytest.approx(expected.history.total, rel=1e-3)
        assert np.abs(result.image - expected.image).max() < 0.02


def test_each_style_has_its_own_size(folders, config):
    sized = config.replace({"style_scale": (0.5, 1.0), "style_size": None})
    planned = jobs_for(files(folders / "contents")[:1], files(folders / "styles"), sized, folder=folders)
    assert [job.config.style_scale for job in planned] == [(0.5,), (1.0,)]
    wrong = config.replace({"style_scale": (1, 2, 3)})
    with pytest.raises(ConfigError, match=r"style_scale\b.*\b3\b.*\b2;"):
        jobs_for(files(folders / "contents"), files(folders / "styles"), wrong, folder=folders)


def test_a_fine_style_is_mixed_once_for_each_style(folders, config, monkeypatch):
    from tfstyle.run import transfer

    calls = []
    original = transfer.mix_styles
    monkeypatch.setattr(transfer, "mix_styles", lambda *a, **k: calls.append(a) or original(*a, **k))
    fine = config.replace({"fine_style": str(folders / "styles" / "1.png")})
    planned = jobs_for(files(folders / "contents"), files(folders / "styles")[:1], fine, folder=folders)
    done = list(run_jobs(planned))
    assert len(calls) == 1
    expected = stylize(planned[0].content, list(planned[0].styles), fine)
    assert done[0][1].history.total == pytest.approx(expected.history.total, rel=1e-3)
    assert done[0][1].config == fine


def test_each_shape_is_compiled_once_and_each_style_encoded_once(folders, config, monkeypatch):
    from tfstyle.losses import Objective

    counts = {"encoded": 0, "traced": 0}
    original, call = Objective.style_summary, Objective.__call__

    def counted(self, *arguments, **options):
        counts["encoded"] += 1
        return original(self, *arguments, **options)

    def traced(self, *arguments):
        counts["traced"] += 1
        return call(self, *arguments)

    monkeypatch.setattr(Objective, "style_summary", counted)
    monkeypatch.setattr(Objective, "__call__", traced)
    config = config.replace({"compile": "graph"})
    planned = jobs_for(files(folders / "contents"), files(folders / "styles"), config, folder=folders)
    done = list(run_jobs(planned))
    assert len(done) == 6
    assert counts["encoded"] == 1  # one graph serves the styles of all sizes
    assert counts["traced"] == 1  # and one step the content images


def test_blended_styles_give_one_result_for_each_content_image(folders, config):
    blended = config.replace({"style_blend": (2, 1)})
    planned = jobs_for(
        files(folders / "contents"), files(folders / "styles"), blended, folder=folders, suffix=".jpg"
    )
    assert [name_of(job.output) for job in planned] == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(planned[0].styles) == 2


def test_after_a_failed_job_the_others_run(folders, config):
    (folders / "contents" / "1.png").write_bytes(b"not an image")
    planned = jobs_for(files(folders / "contents"), files(folders / "styles")[:1], config, folder=folders)
    outcomes = [outcome for _, outcome in run_jobs(planned)]
    assert [isinstance(outcome, TfstyleError) for outcome in outcomes] == [False, True, False]


def test_options_for_a_single_image_are_refused(folders, config):
    for option in ("masks", "style_masks", "content_mask"):
        value = "a.png" if option == "content_mask" else ("a.png",)
        with pytest.raises(ConfigError, match=rf"{option}\b.*content image.*batch"):
            jobs_for([], [], config.replace({option: value}), folder=folders)


def plan(contents, config, *, root="photos", style="waves.jpg"):
    contents = [Content(f"{root}/{content}", content) for content in contents]
    jobs = plan_jobs(contents, [style], config, folder="out", suffix=".png")
    return [job.name for job in jobs]


def test_the_name_of_a_result_depends_on_its_images_and_options_only(config):
    """It is the same in another batch, in another folder and on another machine."""
    names = plan(["a.jpg", "a.png", "first/a.jpg", "second/a.jpg"], config)
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"a_waves-[0-9a-f]{10}\.png", name) for name in names)
    assert plan(["first/a.jpg"], config, root="/mnt/photos", style="/mnt/waves.jpg") == [names[2]]
    assert plan(["a.jpg"], config.replace(memory=2.0, tile=64)) == [names[0]]
    for other in ({"size": 40}, {"style_weight": 2.0}):
        assert plan(["a.jpg"], config.replace(other)) != [names[0]]
    assert plan(["a.jpg"], config, style="night.jpg") != [names[0]]
    (long,) = plan([f"{'x' * 250}.jpg"], config, style=f"{'y' * 250}.jpg")
    assert len(long) < 150


def test_the_manifest_has_a_row_for_each_image(folders, small_file):
    (folders / "contents" / "3.png").write_bytes(b"not an image")
    flags = ["--weights", small_file, "--size", "32", "--iterations", "2", "--compile", "eager"]
    assert batch(folders, *flags) == 1
    rows = Manifest(folders / "out").rows
    by_content = {Path(row.content).name: row for row in rows.values()}
    assert list(by_content) == ["0.png", "1.png", "2.png", "3.png"]
    row, failed = by_content["0.png"], by_content["3.png"]
    assert row.output == next(p.name for p in files(folders / "out") if p.name.startswith("0_0-"))
    assert row.styles == [str(folders / "styles" / "0.png")]
    single = stylize(row.content, row.styles, StyleConfig(**row.options))
    assert row.loss == pytest.approx(single.history.total[-1], rel=1e-3)
    assert row.seconds > 0
    assert row.error is None
    assert (failed.loss, failed.seconds, failed.digest) == (None, None, None)
    assert "3.png" in failed.error
    other = by_content["1.png"]
    assert len(row.digest) == 64
    assert row.digest != other.digest
    assert datetime.fromisoformat(row.finished).tzinfo is not None


def test_a_result_without_a_row_is_not_made_again(folders, small_file, capsys):
    """The process was killed between the result and its row, or half of the row was written."""
    flags = ["--weights", small_file, "--size", "32", "--iterations", "1", "--compile", "eager"]
    assert batch(folders, *flags) == 0
    path = folders / "out" / "manifest.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1], lines[2][:40]]))
    times = {p: p.stat().st_mtime_ns for p in files(folders / "out") if p.suffix == ".png"}
    capsys.readouterr()
    assert batch(folders, *flags) == 0
    assert re.search(r": 0 results written, 3 skipped", capsys.readouterr().out)
    assert {p: p.stat().st_mtime_ns for p in times} == times
    rows = [json.loads(line) for line in path.read_text().splitlines() if line != lines[2][:40]]
    assert len(rows) == 3
    assert {k: v for k, v in rows[2].items() if k != "finished"} == {
        k: v for k, v in json.loads(lines[2]).items() if k != "finished"
    }


def test_a_restart_opens_only_results_that_may_have_changed(folders, config, monkeypatch):
    """The row of the manifest is enough, unless a file is newer than the row."""
    (job,) = jobs_for(files(folders / "contents")[:1], files(folders / "styles")[:1], config, folder=folders)
    ((_, result),) = run_jobs([job])
    result.save(job.output)
    row = job.row(facts=result.facts)
    storage, opened = LocalStorage(), []
    original = LocalStorage.open
    monkeypatch.setattr(LocalStorage, "open", lambda *a: opened.append(a[1]) or original(*a))
    assert find_missing([job], {job.name: row}, storage=storage) == ([], [], [])
    assert not opened
    for path in (job.content, job.styles[0], job.output):
        os.utime(path, (time.time() + 60,) * 2)
        assert find_missing([job], {job.name: row}, storage=storage).rows[0].digest == row.digest
        assert job.output in opened
        os.utime(path, (time.time() - 60,) * 2)
    failed = dataclasses.replace(row, error="disk full")
    assert len(find_missing([job], {job.name: failed}, storage=storage).rows) == 1
    assert find_missing([job], {}, storage=storage).rows[0].loss == row.loss
    Image.new("RGB", (40, 56)).save(job.content)
    os.utime(job.content, (time.time() + 60,) * 2)
    assert re.search("other images", find_missing([job], {job.name: row}, storage=storage).errors[0])
    Path(job.output).unlink()
    assert find_missing([job], {job.name: row}, storage=storage) == ([job], [], [])


def test_an_image_that_is_content_and_style_is_not_made_again(folders, config):
    contents = files(folders / "contents")[:2]
    for styles, changes in ((contents[:1], {}), (contents, {"style_blend": (1.0, 1.0)})):
        jobs = jobs_for(contents, styles, config.replace(changes), folder=folders)
        for job, result in run_jobs(jobs):
            result.save(job.output)
            assert is_finished(job)
        missing = find_missing(jobs, {}, storage=LocalStorage())
        assert (missing.jobs, len(missing.rows), missing.errors) == ([], 2, [])


def test_the_manifest_of_a_cluster_is_read_too(tmp_path, write_parquet):
    """The latest row of a result counts, whatever file it is in."""
    row = ManifestRow(
        content="a.png", styles=["b.png"], output="a_b.png", options={"size": 64, "layers": ["conv1_1"]},
        digest="12", loss=0.5, seconds=1.5, finished="2026-01-02T00:00:00.000+00:00",
    )  # fmt: skip
    older = dataclasses.replace(row, loss=None, error="no", finished="2026-01-01T00:00:00.000+00:00")
    manifest = Manifest(tmp_path)
    manifest.append(older)
    folder = tmp_path / PARQUET_FOLDER
    folder.mkdir()
    (folder / "part.parquet").write_bytes(parquet_file([row]))
    assert Manifest(tmp_path).rows == {"a_b.png": row}
    manifest.append(dataclasses.replace(row, finished="2026-01-03T00:00:00.000+00:00"))
    assert Manifest(tmp_path).rows["a_b.png"].finished.startswith("2026-01-03")
    (folder / ".tfstyle-123-part.parquet").write_bytes(b"half of a file")
    write_parquet({"label": ["cat"]}, folder / "foreign.parquet")
    assert list(Manifest(tmp_path).rows) == ["a_b.png"]
    (folder / "part.parquet").write_bytes(b"no parquet")
    with pytest.raises(OutputError, match=r"cannot read .*part\.parquet.*not a Parquet file"):
        Manifest(tmp_path)


def test_a_manifest_that_cannot_be_written_is_an_error(tmp_path):
    manifest = Manifest(tmp_path)
    row = ManifestRow(content="a.png", styles=["b.png"], output="a_b.png", options={}, error="no")
    manifest.append(row)
    assert manifest.rows["a_b.png"].error == "no"
    manifest.append(dataclasses.replace(row, error=None))
    assert manifest.rows["a_b.png"].error is None
    assert Manifest(tmp_path).rows == manifest.rows
    manifest.path.unlink()
    manifest.path.mkdir()
    with pytest.raises(RunError, match=r"cannot write .*manifest"):
        manifest.append(row)
    with pytest.raises(OutputError, match=r"cannot read .*manifest"):
        Manifest(tmp_path)


@pytest.mark.parametrize("shape", [(40, 100), (64, 64), (65, 1)])
def test_padding_to_a_multiple_reflects_the_border(shape):
    image = ImageArray(make_image(*shape), np.ones(shape, np.float32))
    padded = _pad_to_multiple(image, XLA_MULTIPLE)
    assert all(side % XLA_MULTIPLE == 0 for side in padded.rgb.shape[:2])
    assert np.array_equal(padded.rgb[: shape[0], : shape[1]], image.rgb)
    assert padded.alpha.shape == padded.rgb.shape[:2]
    if shape[0] == 40:
        assert np.array_equal(padded.rgb[40], padded.rgb[39])


@pytest.mark.slow
def test_with_xla_images_padded_to_the_same_shape_are_compiled_once(tmp_path, folders, config, monkeypatch):
    from tfstyle.losses import Objective

    traced = []
    call = Objective.__call__

    def counted(self, image, targets):
        traced.append(tuple(image.shape[1:3]))
        return call(self, image, targets)

    monkeypatch.setattr(Objective, "__call__", counted)
    config = config.replace({"compile": "xla", "size": 80, "scales": 1, "iterations": 1})
    shapes = [(80, 40 + 4 * i) for i in range(6)]
    for i, shape in enumerate(shapes):
        pixels = (make_image(*shape, seed=i) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    contents = [tmp_path / f"{i}.png" for i in range(6)]
    planned = jobs_for(contents, files(folders / "styles")[:1], config, folder=folders)
    done = list(run_jobs(planned))
    assert [result.image.shape[:2] for _, result in done] == shapes
    assert set(traced) == {(128, 64)}
    assert len(traced) == 1


def test_two_results_of_the_same_name_are_refused(config):
    """Images of one name in two folders, outside of the folder of the batch."""
    contents, styles = [Path("a.png")], [Path("first/b.png"), Path("second/b.png")]
    pattern = r"a_b-.*\.png.*a\.png.*first.b\.png.*a\.png.*second.b\.png.*rename"
    with pytest.raises(ConfigError, match=pattern):
        jobs_for(contents, styles, config, folder=Path("out"))


def batch(folders, *more):
    out = folders / "out"
    arguments = ["batch", folders / "contents", folders / "styles" / "0.png", "-o", out, *more]
    return cli.main([str(argument) for argument in arguments])


def test_the_command(folders, small_file, capsys):
    flags = ["--weights", small_file, "--size", "32", "--iterations", "2", "--compile", "eager"]
    out = folders / "out"
    (folders / "contents" / "3.png").write_bytes(b"not an image")
    assert batch(folders, *flags) == 1
    output = capsys.readouterr()
    assert re.search(rf"{re.escape(str(out))}: 3 .*\b0 .*\b1 failed", output.out)
    assert "3.png" in output.err.splitlines()[-1]
    names = ["0_0.png", "1_0.png", "2_0.png", "contact-sheet.jpg", "manifest.jsonl"]
    assert [name_of(p) for p in files(out)] == names
    first, second, third, *_ = files(out)
    (folders / "contents" / "3.png").unlink()
    second.unlink()
    times = {p.name: p.stat().st_mtime_ns for p in files(out)}
    assert batch(folders, *flags) == 0
    output = capsys.readouterr()
    assert "2 of 3" in output.err
    assert re.search(r": 1 .*\b2 .*\b0 failed", output.out)
    for path in (first, third):
        assert path.stat().st_mtime_ns == times[path.name]
    assert batch(folders, *flags, "--style-weight", "2") == 0
    assert re.search(r": 3 .*\b0 .*\b0 failed", capsys.readouterr().out)
    assert len([p for p in files(out) if p.suffix == ".png"]) == 6  # other options, other names
    (folders / "contents" / "0.png").write_bytes((folders / "contents" / "1.png").read_bytes())
    assert batch(folders, *flags) == 1
    assert re.search(rf"{first.name}.*other images.*--overwrite", capsys.readouterr().err)
    assert batch(folders, *flags, "--overwrite") == 0
    assert re.search(r": 3 .*\b0 .*\b0 failed", capsys.readouterr().out)


def test_results_in_the_folder_of_the_content_images_are_not_content_images(folders, small_file, capsys):
    flags = ["--weights", str(small_file), "--size", "32", "--iterations", "1", "--compile", "eager"]
    command = ["batch", str(folders / "contents"), str(folders / "styles" / "0.png"), "-o"]
    out = folders / "contents" / "results"
    for written in (3, 0):
        assert cli.main([*command, str(out), *flags]) == 0
        assert re.search(rf": {written} .*\b{3 - written} .*\b0 failed", capsys.readouterr().out)


def test_wrong_command_lines_are_refused(folders, capsys):
    assert cli.main(["batch", str(folders / "none"), "a.png", "-o", str(folders / "out")]) == 2
    assert str(folders / "none") in capsys.readouterr().err
    for wrong, pattern in (
        (["--weights", "random", "--content-mask", "a.png"], r"--content-mask\b.*content image.*batch"),
        (["--weights", "none.npz"], r"none\.npz"),
        (["--weights", "random", "--device", "gpu:5"], r"gpu:5.*cpu"),
    ):
        assert batch(folders, *wrong) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(pattern, line)


def test_a_result_is_finished_if_its_files_and_options_are_the_same(folders, config):
    contents, style = files(folders / "contents"), files(folders / "styles")[:1]
    former = {"style_layer_decay": 1.0, "spectrum_weight": 0.0, "border_weight": 1.0}
    config = config.replace({**former, "content_layers": ("gatys",)})
    (job,) = jobs_for(contents[:1], style, config, folder=folders)
    assert not is_finished(job)
    ((_, result),) = run_jobs([job])
    result.save(job.output)
    assert is_finished(job)
    same_values = dataclasses.replace(job, config=config.replace(config.as_dict(), quality="high"))
    assert is_finished(same_values)
    settings = result.settings()
    # Earlier versions did not have these options, and had these values.
    later = ("method", "alpha", "style_rotations", "pyramid_levels")
    for added in ("quality", "content_loss", "self_similarity_weight", *later, *former):
        del settings["options"][added]
    settings["options"]["content_layers"] = None  # conv4_2 in earlier versions
    save(Path(job.output), ImageArray(result.image), settings=settings, overwrite=True)
    assert is_finished(job)
    with pytest.raises(OutputError, match=rf"{job.name}.*other options.*overwrite=True"):
        is_finished(dataclasses.replace(job, config=config.replace({"size": 40})))
    for name in former:
        default = {name: getattr(StyleConfig(), name)}
        with pytest.raises(OutputError, match=rf"{job.name}.*other options.*overwrite=True"):
            is_finished(dataclasses.replace(job, config=config.replace(default)))
    with pytest.raises(OutputError, match=rf"{job.name}.*other images.*overwrite=True"):
        is_finished(dataclasses.replace(job, content=str(contents[1])))
    Image.new("RGB", (3, 3)).save(job.output)
    with pytest.raises(OutputError, match=rf"{job.name}.*not made by tfstyle.*overwrite=True"):
        is_finished(job)


def test_sheets():
    images = [np.full((10, width, 3), grey, np.float32) for width, grey in ((8, 0.2), (12, 0.6))]
    row = strip(images)
    assert row.shape == (10, 20 + GAP, 3)
    assert np.array_equal(row[:, :8], images[0])
    assert (row[:, 8 : 8 + GAP] == 1).all()
    sheet = contact_sheet([[None, images[0]], [images[1], None]], 24)
    assert sheet.shape == (2 * 24 + 3 * GAP, 2 * 24 + 3 * GAP, 3)
    assert (sheet[GAP : GAP + 24, GAP : GAP + 24] == 1).all()
    assert np.isclose(sheet[GAP + 12, 2 * GAP + 24 + 12], 0.2).all()


def test_contact_sheets_show_content_images_styles_and_missing_results(folders, config, monkeypatch):
    planned = jobs_for(files(folders / "contents"), files(folders / "styles"), config, folder=folders)
    (sheet,) = contact_sheets(planned)
    cell = 240 + GAP
    assert sheet.shape == (cell * 4 + GAP, cell * 3 + GAP, 3)
    assert (sheet[cell + GAP :, cell + GAP :] == 1).all()  # no result yet
    assert (sheet[:cell, cell + GAP :] != 1).any()  # styles
    assert (sheet[cell:, :cell] != 1).any()  # content images
    monkeypatch.setattr(batches, "ROWS", 2)
    assert [len(page) for page in contact_sheets(planned)] == [cell * 3 + GAP, cell * 2 + GAP]


def test_a_contact_sheet_replaces_only_a_contact_sheet(folders, config, small_file):
    flags = ["--weights", small_file, "--size", "32", "--iterations", "1", "--compile", "eager"]
    out = folders / "out"
    out.mkdir()
    Image.new("RGB", (3, 3)).save(out / "contact-sheet.jpg")  # the user's
    users = (out / "contact-sheet.jpg").read_bytes()
    for _ in range(2):  # the second time, the sheet of the first is replaced
        assert batch(folders, *flags) == 0
        assert [p.name for p in files(out) if "sheet" in p.name] == [
            "contact-sheet.jpg",
            "contact-sheet_2.jpg",
        ]
        assert (out / "contact-sheet.jpg").read_bytes() == users
    assert batch(folders, *flags, "--overwrite") == 0
    assert Image.open(out / "contact-sheet.jpg").size == Image.open(out / "contact-sheet_2.jpg").size


def test_a_folder_with_files_that_are_no_images(folders, small_file, capsys):
    flags = ["--weights", small_file, "--size", "32", "--iterations", "1", "--compile", "eager"]
    contents = folders / "contents"
    (contents / ".hidden").mkdir()
    for name in ("._0.JPG", "b.pdf", "c.h5", ".hidden/d.png", "notes.txt"):
        (contents / name).write_bytes(b"no image")
    assert batch(folders, *flags) == 0
    assert re.search(r": 3 results written, 0 skipped, 0 failed", capsys.readouterr().out)


def test_heic_files_in_a_folder_are_named_with_what_to_install(folders, small_file, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    flags = ["--weights", small_file, "--size", "32", "--iterations", "1", "--compile", "eager"]
    (folders / "contents" / "4.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert batch(folders, *flags) == 1
    said = capsys.readouterr()
    assert re.search(r": 3 results written, 0 skipped, 1 failed", said.out)
    assert re.search(r"4\.HEIC.*pip install 'tfstyle\[heic\]'", said.err)

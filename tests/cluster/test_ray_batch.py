"""Tests of ``tfstyle batch --ray`` on two nodes, and of its equality with a batch in one process."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray.data", reason="needs tfstyle[cluster]")

import pyarrow.parquet

from tfstyle import cli
from tfstyle.cli import ray_batch
from tfstyle.cluster.coordinator import Attempt, Progress, Worker
from tfstyle.run import LocalStorage, read_rows


def arguments(folders, out, *more):
    words = ["batch", folders / "contents", folders / "styles" / "0.png", folders / "styles" / "1.png"]
    return [str(word) for word in (*words, "-o", out, *more)]


def on_ray(folders, nodes, flags, *more):
    ray_flags = ("--ray", "--ray-address", nodes.address, "--ray-cores", "1")
    return cli.main(arguments(folders, folders / "out", *flags, *ray_flags, *more))


def images(folder):
    return {path.name: np.asarray(Image.open(path)) for path in folder.glob("*.png")}


def test_a_batch_on_ray_gives_the_results_of_one_process(folders, nodes, flags, capsys):
    """The pixels are equal if the number of threads is. Each engine goes on where the other one ended."""
    alone = subprocess.run(
        [sys.executable, "-m", "tfstyle", *arguments(folders, folders / "alone", *flags)],
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    (folders / "contents" / "damaged.png").write_bytes(b"not an image")
    assert on_ray(folders, nodes, flags) == 1
    said = capsys.readouterr()
    assert re.search(r"/out: 6 results written, 0 skipped, 2 failed", said.out)
    assert "damaged.png in the style of" in said.err
    expected, given = images(folders / "alone"), images(folders / "out")
    assert expected.keys() == given.keys()
    assert all(np.array_equal(expected[name], given[name]) for name in expected)
    assert {path.name for path in (folders / "out").iterdir()} == {*expected, "manifest"}

    table = pyarrow.parquet.read_table(folders / "out" / "manifest" / "rows.parquet").to_pylist()
    rows = {row["output"]: row for row in table}
    for name, row in read_rows(str(folders / "alone"), LocalStorage()).items():
        assert (rows[name]["digest"], rows[name]["loss"], rows[name]["error"]) == (row.digest, row.loss, None)
    assert sum("damaged.png" in (row["error"] or "") for row in table) == 2

    (folders / "contents" / "damaged.png").unlink()
    next((folders / "out").glob("0_0-*.png")).unlink()
    times = {path: path.stat().st_mtime_ns for path in (folders / "out").glob("*.png")}
    assert on_ray(folders, nodes, flags) == 0
    said = capsys.readouterr()
    assert re.search(r"/out: 1 results written, 5 skipped, 0 failed", said.out)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert cli.main(arguments(folders, folders / "out", *flags)) == 0
    assert re.search(r"/out: 0 results written, 6 skipped, 0 failed", capsys.readouterr().out)
    (folders / "alone" / "contact-sheet.jpg").unlink()
    ray_flags = ("--ray", "--ray-address", nodes.address)
    assert cli.main(arguments(folders, folders / "alone", *flags, *ray_flags)) == 0
    assert re.search(r"/alone: 0 results written, 6 skipped, 0 failed", capsys.readouterr().out)


def test_addresses_of_contents_styles_and_results(folders, nodes, flags, capsys):
    root = f"file://{folders}"
    words = ["batch", f"{root}/contents/*.png", f"{root}/styles/0.png", "-o", f"{root}/there", *flags]
    assert cli.main([*words, "--ray", "--ray-address", nodes.address, "--ray-cores", "1"]) == 0
    assert re.search(r"/there: 3 results written", capsys.readouterr().out)
    assert cli.main([*words, "--ray", "--ray-address", nodes.address]) == 0
    assert re.search(r"/there: 0 results written, 3 skipped", capsys.readouterr().out)
    local = arguments(folders, folders / "there", *flags)
    local.remove(str(folders / "styles" / "1.png"))
    assert cli.main(local) == 0  # the names of the results are the same
    assert re.search(r"/there: 0 results written, 3 skipped", capsys.readouterr().out)


def test_an_option_that_cannot_be_used_ends_the_run(folders, nodes, flags, capsys):
    """The message is that of one process, and no worker has started."""
    assert on_ray(folders, nodes, flags, "--style-layers", "conv4_1") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search("^tfstyle: error: .*conv4_1", line)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "ray://127.0.0.1:10001"])
def test_a_cluster_that_cannot_be_joined_is_one_line(folders, flags, address):
    """In a process of its own, because this one may have joined a cluster."""
    words = arguments(folders, folders / "out", *flags, "--ray", "--ray-address", address)
    run = subprocess.run([sys.executable, "-m", "tfstyle", *words], capture_output=True, text=True)
    assert run.returncode == 2
    assert re.search(rf"tfstyle: error: .*{re.escape(address)}", run.stderr.strip().splitlines()[-1])


def test_the_line_with_the_progress(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(ray_batch.time, "monotonic", lambda: now[0])
    show = ray_batch.ProgressLines(200)
    working = {"a.png": Attempt(Worker("node", 1), 1, 0.0)}
    times = ((0, 0, 0), (30, 0, 1), (60, 10, 1), (65, 12, 1), (120, 20, 1), (600, 199, 1))
    for seconds, done, errors in times:
        now[0] = 100 + seconds
        show(Progress(done, errors, [], working))
    assert capsys.readouterr().err.splitlines() == [
        "1 of 200 images, 1 errors",
        "11 of 200 images, 10.0 images/min, 19 min left, 1 errors",
        "21 of 200 images, 10.0 images/min, 18 min left, 1 errors",
        "200 of 200 images, 19.9 images/min, 0 s left, 1 errors",
    ]

"""The command score. Random weights stand for genuine ones, because its subject is the command."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import make_image
from tfstyle import cli
from tfstyle.images import load
from tfstyle.network import load_weights, random_weights
from tfstyle.scoring import Judge, Score, judging

KEYS = ["image", "E", "S", "ripple", "frame", "energy"]


@pytest.fixture(scope="module")
def lower_file(tmp_path_factory):
    """A file of random weights of blocks 1 to 3."""
    path = tmp_path_factory.mktemp("weights") / "lower.npz"
    np.savez(path, **{key: array for key, array in random_weights().arrays.items() if key[5] in "123"})
    return path


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("content", "style", "one", "two $x$")):
        Image.fromarray((make_image(48, 56, seed) * 255).astype(np.uint8)).save(f"{name}.png")
    return tmp_path


@pytest.fixture
def fixed_scores(monkeypatch):
    """A judge that loads no weights, and whose scores depend on the image only."""

    class FixedJudge:
        def __init__(self, content, style, *, weights, reference):
            assert (content, style) == ("content.png", "style.png")
            assert weights == "auto"

        def judge(self, image):
            mean = float(load(image).rgb.mean())
            return Score(-mean, mean / 2, 0.126, float("nan"), float("inf") if "two" in image else 0.0125)

    monkeypatch.setattr(judging, "Judge", FixedJudge)


def score(*arguments):
    return cli.main(["score", "content.png", "style.png", *map(str, arguments)])


def test_the_scores_are_those_of_the_library(images, lower_file, monkeypatch, capsys):
    monkeypatch.setattr(judging, "GENUINE", judging.genuine_digest(load_weights(lower_file)))
    (images / "reference").mkdir()
    Image.open("one.png").save("reference/one.png")
    assert score("one.png", "two $x$.png", "--weights", lower_file, "--reference", "reference", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    judge = Judge("content.png", "style.png", weights=lower_file, reference="reference")
    assert [list(item) for item in listed] == [KEYS, KEYS]
    for item in listed:
        assert item == {"image": item["image"], **judge.judge(item["image"])._asdict()}
    assert [item["image"] for item in listed] == ["one.png", "two $x$.png"]


def test_a_table_and_json(images, fixed_scores, capsys):
    assert score("one.png", "two $x$.png") == 0
    said = capsys.readouterr()
    header, *rows = said.out.splitlines()
    assert said.err == ""
    assert header.split() == KEYS
    means = [load(name).rgb.mean() for name in ("one.png", "two $x$.png")]
    assert rows[0].split() == ["one.png", f"{-means[0]:.2f}", f"{means[0] / 2:.3f}", "0.13", "nan", "0.013"]
    assert rows[1].split() == [
        "two",
        "$x$.png",
        f"{-means[1]:.2f}",
        f"{means[1] / 2:.3f}",
        "0.13",
        "nan",
        "inf",
    ]
    assert len({len(line) for line in (header, *rows)}) == 1
    assert score("one.png", "two $x$.png", "--json") == 0
    listed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [item["E"] for item in listed] == pytest.approx([-mean for mean in means])
    assert [item["frame"] for item in listed] == [None, None]  # JSON has neither NaN nor infinity
    assert [item["energy"] for item in listed] == [0.0125, None]


def test_a_contact_sheet(images, fixed_scores, capsys):
    pytest.importorskip("matplotlib")
    assert score("one.png", "two $x$.png", "-o", "sheet.png") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("sheet.png: ")
    sheet = load("sheet.png").rgb
    for name in ("content", "style", "one", "two $x$"):  # each image is shown, with text below it
        colour = load(f"{name}.png").rgb.reshape(-1, 3)[0]
        assert (np.abs(sheet - colour).max(-1) < 0.03).any(), name
    assert score("one.png", "-o", "sheet.png") == 2
    assert "sheet.png exists; replace it with --overwrite or choose" in capsys.readouterr().err
    assert score("one.png", "-o", "sheet.png", "--overwrite", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 1
    assert load("sheet.png").rgb.shape[1] < sheet.shape[1]  # three images in a row and not four


def test_the_text_under_an_image_holds_its_scores(images, fixed_scores, monkeypatch):
    from tfstyle.papers.study import Study

    studies = []
    monkeypatch.setattr(Study, "save_figure", lambda study, path, overwrite: studies.append(study))
    assert score("one.png", "two $x$.png", *["one.png"] * 3, "-o", "sheet.png") == 0
    (study,) = studies
    assert [len(row) for row in study.rows] == [4, 4]
    captions = {panel.title: panel.caption for panel in study.panels}
    assert captions["content.png"] == "content image"
    assert captions["style.png"] == "style image"
    mean = load("one.png").rgb.mean()
    text = f"E {-mean:.2f}   S {mean / 2:.3f}\nripple 0.13   frame nan   energy 0.013"
    assert captions["one.png"] == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.png"], "no such image: gone.png"),
        (["-"], r"does not read standard input \(-\); give image files"),
        (["."], "[.] is a folder; give an image file"),
        (
            ["one.png", "--weights", "embedded"],
            "embedded has other ones; give --weights imagenet, or --weights",
        ),
        (["one.png", "--weights", "gone.npz"], "no weights file gone.npz"),
        (["one.png", "--weights", "{small}"], "small.npz has other ones; give --weights imagenet"),
        (["one.png", "--reference", "gone"], "no such image or folder: gone"),
        (
            ["one.png", "--weights", "{lower}", "--reference", "empty"],
            "the folder empty contains no image files",
        ),
        (
            ["tiny.png", "--weights", "{lower}"],
            "tiny.png has 31 x 90 pixels; a score needs at least 32 pixels",
        ),
        (["broken.png", "--weights", "{lower}"], "broken.png"),
        (["one.png", "-o", "sheet.jpg"], "cannot write sheet.jpg: the name of a figure must end in .png"),
        (["one.png", "-o", "gone/sheet.png"], "no folder gone"),
        ([], "the following arguments are required: IMAGE"),
    ],
)
def test_errors_are_one_line(images, lower_file, small_file, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(judging, "GENUINE", judging.genuine_digest(load_weights(lower_file)))
    (images / "empty").mkdir()
    (images / "broken.png").write_bytes(b"\x89PNG no more")
    Image.new("RGB", (90, 31)).save("tiny.png")
    filled = [argument.format(small=small_file, lower=lower_file) for argument in arguments]
    try:
        code = score(*filled)
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr().err.strip()
    assert code == 2
    assert re.search(message, said)
    assert "\n" not in said


def test_a_contact_sheet_without_matplotlib_is_refused_first(images, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert score("one.png", "-o", "sheet.png", "--weights", "embedded") == 2
    assert "pip install 'tfstyle[papers]'" in capsys.readouterr().err


def test_a_refused_contact_sheet_gives_one_line_on_stderr(images):
    """TensorFlow is loaded before the experiments' module, which imports it, so that its log is not shown."""
    program = (
        "import sys; sys.modules['matplotlib.figure'] = None; from tfstyle import cli; "
        "sys.exit(cli.main(['score', 'one.png', 'one.png', 'one.png', '-o', 'sheet.png']))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=images, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "pip install 'tfstyle[papers]'" in line

"""The commands demo and pretrain, and stylize with --interpolate and other options of control."""

import dataclasses
import re
import shlex
import sys

import numpy as np
import pytest
from PIL import Image

import tfstyle
from tests.conftest import make_image
from tfstyle import cli
from tfstyle.cli import transfer
from tfstyle.config import QUALITIES, StyleConfig
from tfstyle.errors import RunError
from tfstyle.images import load, read_settings, sheets
from tfstyle.network import download, weights
from tfstyle.presets import PRESETS
from tfstyle.run import run as runs


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        Image.fromarray((make_image(80, 90, seed=i) * 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def test_pretrain_writes_what_stylize_uses(photos, files, capsys):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 and no more")
    out = files / "mine.npz"
    assert cli.main(["pretrain", str(photos), "-o", str(out), "--blocks", "1", "--patches", "2000"]) == 0
    said = capsys.readouterr()
    assert f"{out}: block1_conv1 to block1_conv2, " in said.out
    assert "broken.jpg" in said.err
    assert "conv1_2: 5 images" in said.err
    expected = tfstyle.pretrain(photos, blocks=1, patches=2000)
    for key, array in weights.load_weights(out).arrays.items():
        assert np.array_equal(array, expected.arrays[key])
    content, style, output = (str(files / name) for name in ("content.png", "style.png", "out.png"))
    assert (
        cli.main(["stylize", content, style, "-o", output, "--weights", str(out), "--iterations", "2"]) == 0
    )
    assert read_settings(files / "out.png")["facts"]["weights"] == "mine.npz"


@pytest.mark.slow
def test_pretrain_upon_a_base_in_half_precision(photos, files, small_file):
    out = files / "more.npz"
    flags = ["--base", str(small_file), "--patches", "3000", "--half", "--seed", "3"]
    assert cli.main(["pretrain", str(photos), "-o", str(out), *flags]) == 0
    base = weights.load_weights(small_file)
    learned = weights.load_weights(out)
    assert learned.layer_names[-1] == "conv3_4"
    assert np.allclose(
        learned.arrays["block2_conv2/kernel"], base.arrays["block2_conv2/kernel"], rtol=1e-3, atol=1e-6
    )
    with np.load(out) as file:
        assert file["block3_conv1/kernel"].dtype == np.float16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--base", "{base}", "--blocks", "1"], "base.*1 block|1 block.*base|all layers of 1 block"),
        (["-o", "w.h5"], r"w\.h5.*\.npz"),
        (["-o", "gone/w.npz"], "no folder gone"),
        (["--base", "gone.npz"], r"gone\.npz"),
    ],
)
def test_pretrain_says_in_one_line_what_is_wrong(photos, files, small_file, capsys, change, message):
    change = [argument.format(base=small_file) for argument in change]
    assert cli.main(["pretrain", str(photos), "-o", str(files / "w.npz"), *change]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert not (files / "w.npz").exists()


def test_pretrain_of_a_folder_that_is_not_there(files, capsys):
    assert cli.main(["pretrain", "nowhere", "-o", str(files / "w.npz")]) == 2
    assert re.fullmatch("tfstyle: error: .*nowhere.*\n", capsys.readouterr().err)


def test_pretrain_replaces_a_file_only_if_told(photos, files, capsys):
    out = files / "w.npz"
    out.write_bytes(b"precious")
    arguments = ["pretrain", str(photos), "-o", str(out), "--blocks", "1", "--patches", "2000"]
    assert cli.main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_bytes() == b"precious"
    assert cli.main([*arguments, "--overwrite"]) == 0


def test_pretrain_without_scikit_learn_is_one_line(photos, files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    assert cli.main(["pretrain", str(photos), "-o", str(files / "w.npz")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("pip install 'tfstyle[pretrain]'")


def test_demo_uses_the_images_of_the_package(tmp_path, capsys, monkeypatch, small_file):
    monkeypatch.setattr(transfer, "DEMO_SIZE", 32)
    folder = tmp_path / "a folder" / "demo"
    assert cli.main(["demo", "-o", str(folder), "--weights", str(small_file)]) == 0
    result = folder / "result.png"
    before = load(result).rgb
    said = capsys.readouterr().out.splitlines()
    assert shlex.quote(str(result)) in said[-2]
    program, *command = shlex.split(said[-1])  # the printed command gives the same image
    assert program == "tfstyle"
    assert cli.main(command) == 0
    assert np.array_equal(load(result).rgb, before)


@pytest.mark.parametrize(
    ("called", "installed", "expected"),
    [
        ("bin/tfstyle", "bin/tfstyle", "tfstyle"),
        ("Scripts/tfstyle", "Scripts/tfstyle.EXE", "tfstyle"),  # as on Windows
        ("Scripts/tfstyle.exe", "Scripts/tfstyle.exe", "tfstyle"),
        ("env/bin/tfstyle", "bin/tfstyle", "env/bin/tfstyle"),
        ("env/bin/tfstyle", None, "env/bin/tfstyle"),
    ],
)
def test_the_printed_command_calls_the_same_program(monkeypatch, called, installed, expected):
    monkeypatch.setattr("sys.argv", [called])
    monkeypatch.setattr("shutil.which", lambda name: installed)
    assert transfer._program() == expected


def test_demo_runs_again_and_replaces_nothing(tmp_path, capsys, monkeypatch, small_file):
    def write(options):
        Image.new("RGB", (3, 3)).save(options.output)
        return 0

    monkeypatch.setattr(transfer, "run_stylize", write)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a demo"
    demo = ["demo", "-o", folder.name, "--weights", str(small_file)]
    assert cli.main(demo) == 0
    first = (folder / "result.png").read_bytes()
    assert cli.main(demo) == 0
    assert "The result is 'a demo/result_2.png'" in capsys.readouterr().out
    assert (folder / "result.png").read_bytes() == first
    (folder / "style.jpg").write_bytes(b"precious")
    assert cli.main(demo) == 2
    assert re.search("a demo/style.jpg exists.*--overwrite", capsys.readouterr().err)
    assert (folder / "style.jpg").read_bytes() == b"precious"
    assert cli.main([*demo, "--overwrite"]) == 0
    assert "The result is 'a demo/result.png'" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == [
        "content.jpg", "result.png", "result_2.png", "style.jpg"
    ]  # fmt: skip


def test_demo_that_fails_claims_no_result(tmp_path, capsys, monkeypatch, small_file):
    def fail(self):
        raise RunError("out of memory")
        yield

    monkeypatch.setattr(runs.Run, "__iter__", fail)
    assert cli.main(["demo", "-o", str(tmp_path / "demo"), "--weights", str(small_file)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "out of memory" in said.err


@pytest.mark.slow
def test_demo_needs_no_option_and_no_network(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(download, "IMAGENET_URL", "http://127.0.0.1:9/w.h5")
    assert cli.main(["demo"]) == 0
    said = capsys.readouterr()
    assert max(load(tmp_path / "tfstyle-demo" / "result.png").rgb.shape) == transfer.DEMO_SIZE
    assert sum("embedded" in line for line in said.err.splitlines()) == 1  # one line about the weights


def test_demo_where_nothing_can_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "-o", str(tmp_path / "file")]) == 2
    assert "cannot create the folder" in capsys.readouterr().err


def test_demo_leaves_nothing_where_its_weights_do_not_exist(tmp_path, capsys):
    assert cli.main(["demo", "-o", str(tmp_path / "demo"), "--weights", "gone.npz"]) == 2
    assert "no weights file gone.npz" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_a_strip_between_two_styles(files, small_file, capsys):
    content, style, out = (str(files / name) for name in ("content.png", "style.png", "strip.png"))
    flags = ["--weights", str(small_file), "--size", "32", "--iterations", "2", "--interpolate", "3"]
    assert cli.main(["stylize", content, style, content, "-o", out, *flags]) == 0
    said = capsys.readouterr()
    assert f"{out}: 3 results side by side" in said.out
    assert "3 of 3, " in said.err
    height, width = load(content).fitted(32).rgb.shape[:2]
    assert Image.open(out).size == (3 * width + 2 * sheets.GAP, height)
    assert cli.main(["stylize", content, style, "-o", out, "--overwrite", *flags]) == 2
    assert re.search("--interpolate.*two.*1", capsys.readouterr().err)
    assert (
        cli.main(
            ["stylize", content, style, content, "-o", out, "--overwrite", "--history", "a.json", *flags]
        )
        == 2
    )
    assert "--history cannot be combined with --interpolate" in capsys.readouterr().err
    masked = ["--masks", f"{style},{style}"]
    assert cli.main(["stylize", content, style, content, "-o", out, "--overwrite", *masked, *flags]) == 2
    assert "--masks cannot be combined with --interpolate" in capsys.readouterr().err


def test_presets_are_listed(capsys):
    assert cli.main(["presets"]) == 0
    said = capsys.readouterr().out
    for name, preset in PRESETS.items():
        assert f"{name}: {preset.summary}" in said
        assert preset.differs in said
    sections = dict(re.findall(r"^(--quality \w+|[\w-]+)\b.*\n((?:    .*\n)*)", said, re.M))
    assert set(sections) == {*PRESETS, *(f"--quality {quality}" for quality in QUALITIES)}
    assert re.search(r"^    style_losses +gram,mean_deviation$", sections["spst"], re.M)
    assert "    seed " not in sections["spst"]  # it has its default
    defaults = StyleConfig()
    for quality in QUALITIES:
        config = StyleConfig(quality=quality)
        listed = dict(line.split(maxsplit=1) for line in sections[f"--quality {quality}"].splitlines())
        names = [f.name for f in dataclasses.fields(StyleConfig) if f.name != "quality"]
        assert set(listed) == {name for name in names if getattr(config, name) != getattr(defaults, name)}
        assert listed.get("iterations", str(config.iterations)) == str(config.iterations)
        if config.first_iterations is None:
            assert listed.get("first_iterations", "--iterations") == "--iterations"


def test_control_on_the_command_line(files, small_file, capsys):
    content, style, out = (str(files / name) for name in ("content.png", "style.png", "out.png"))
    Image.fromarray(np.tile(np.repeat([0, 255], 20).astype(np.uint8), (30, 1))).save(files / "mask.png")
    flags = {
        "--color": "transport", "--style-losses": "gram,mean_deviation", "--style-loss-weights": "1,0.5",
        "--masks": f"{files / 'mask.png'},{files / 'mask.png'}", "--content-mask": str(files / "mask.png"),
        "--guidance": "average", "--style-scale": "0.8,1", "--style-blend": "2,1", "--tv-form": "nine_point",
        "--fine-style": style, "--weights": str(small_file), "--size": "40", "--iterations": "10",
    }  # fmt: skip
    words = [word for pair in flags.items() for word in pair]
    assert cli.main(["stylize", content, style, style, "-o", out, *words]) == 2
    assert "outside --content-mask" in capsys.readouterr().err  # masked is what is to stay
    words[words.index("--content-mask") + 1] = str(files / "corner.png")
    corner = np.zeros((10, 10), np.uint8)
    corner[:2, :2] = 255
    Image.fromarray(corner).save(files / "corner.png")
    assert cli.main(["stylize", content, style, style, "-o", out, *words]) == 0
    options = read_settings(files / "out.png")["options"]
    assert (options["color"], options["style_scale"], options["tv_form"]) == (
        "transport",
        [0.8, 1.0],
        "nine_point",
    )
    content_image, output_image = (load(files / name).fitted(40).rgb for name in ("content.png", "out.png"))
    assert np.abs(content_image[:4, :4] - output_image[:4, :4]).max() < 0.01
    assert np.abs(content_image[8:, 8:] - output_image[8:, 8:]).mean() > 0.004


@pytest.mark.parametrize(
    "arguments",
    [
        ["stylize", "https://example.org//a.jpg", "style.png", "-o", "out.png"],
        ["stylize", "content.png", "https://example.org//a.jpg", "-o", "out.png"],
        ["stylize", "content.png", "https://example.org//a.npz#name", "-o", "out.png"],
        ["stylize", "content.png", "style.png", "-o", "out.png", "--weights", "https://example.org//a.h5"],
        ["stylize", "content.png", "style.png", "-o", "out.png", "--config", "https://example.org//a.json"],
        [
            "stylize",
            "content.png",
            "style.png",
            "-o",
            "out.png",
            "--fine-style",
            "https://example.org//a.jpg",
        ],
        ["batch", "https://example.org//a.jpg", "style.png", "-o", "out"],
        ["extract", "https://example.org//a.jpg", "-o", "out.npz"],
    ],
    ids=str,
)
def test_urls_are_named_as_they_were_given(files, monkeypatch, capsys, arguments):
    monkeypatch.chdir(files)
    assert cli.main(arguments) == 2
    assert re.search(r"https://example\.org//a\.\S+ is a URL; download the file", capsys.readouterr().err)

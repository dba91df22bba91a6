"""The command line as a user meets it: what it writes, what it says, and its exit codes."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_image
from tfstyle import __version__, cli
from tfstyle.backend import KERAS_2
from tfstyle.cli.common import run_config
from tfstyle.cli.parser import make_parser
from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError
from tfstyle.images import load, read_settings


@pytest.fixture
def command(short_command):
    """The arguments of a short run that works; its folder is `files`."""
    return short_command(3)


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "tfstyle", *map(str, arguments)], capture_output=True, text=True, **options
    )


def test_a_run_in_a_process_of_its_own(command, files):
    done = python(*command, "--history", files / "h.json")
    assert done.returncode == 0, done.stderr
    assert load(files / "out.png").rgb.shape == (23, 32, 3)
    assert done.stdout.startswith(f"{files / 'out.png'}: 32 x 23 pixels, 3 iterations in ")
    # Nothing on stderr but our own words: which layers, and a progress line without control codes.
    said = [line.split(" ")[0] for line in done.stderr.splitlines()]
    assert said == ["tfstyle:", "tfstyle:", "scale"], done.stderr  # the layers, the memory, the progress
    assert "\x1b" not in done.stderr
    history = json.loads((files / "h.json").read_text())
    assert set(history) == {
        "iteration",
        "scale",
        "total",
        "content",
        "style",
        "tv",
        "spectrum",
        "self_similarity",
        "temporal",
        "seconds",
        "style_layers",
        "extra_losses",
    }
    assert all(len(series) == 3 for series in history.values() if isinstance(series, list))
    assert all(len(series) == 3 for series in history["style_layers"].values())


def test_version():
    assert python("--version").stdout == f"tfstyle {__version__}\n"


STYLIZE = ["stylize", "content.png", "style.png", "-o", "new.png", "--weights", "small.npz"]
BATCH = ["batch", "content.png", "style.png", "-o", "out"]
EXTRACT = ["extract", "content.png", "-o", "new.npz"]
EXPORT = ["export", "models", "--weights", "small.npz"]
PRETRAIN = ["pretrain", "content.png", "-o", "new.npz"]
COMMANDS = ("stylize", "batch", "extract", "export", "pretrain", "demo", "explore", "texture")


#: A wrong command line, and what its error must name: the wrong value and what would be right.
REJECTED = [
    (["paint"], "'paint'.*stylize, batch"),
    ([*STYLIZE, "--widht", "3"], "--widht"),
    ([*STYLIZE, "--stye-weight", "3"], "--stye-weight.*did you mean '--style-weight'"),
    ([*STYLIZE, "third.png"], "'third.png'"),
    (["content.png", "style.png"], "'content.png' is a file.*tfstyle stylize content.png"),
    ([*STYLIZE, "-o", "style.png", "--overwrite"], "--output.*input image style.png"),
    (["demo", "word"], "'word'"),
    (["--verison"], "--verison.*did you mean '--version'"),
    (["stylize", "--hepl"], "--hepl.*did you mean '--help'"),
    ([*STYLIZE, "--init", "nois"], "'nois'.*did you mean 'noise'"),
    (["stylize"], "CONTENT, STYLE;"),
    ([*STYLIZE, "--size", "big"], "--size.*'big'.*integer"),
    ([*STYLIZE, "--size", "0"], "--size is 0.*from 1 to 100000"),
    ([*STYLIZE, "--tv-weight", "much"], "--tv-weight.*'much'.*number"),
    ([*STYLIZE, "--style-blend", "1,x"], "--style-blend.*'x'.*number"),
    ([*STYLIZE, "--save-every", "0"], "--save-every.*'0'.*at least 1"),
    ([*STYLIZE, "--checkpoint", "run", "--checkpoint-every", "-1"], "--checkpoint-every.*'-1'.*at least 0"),
    ([*STYLIZE, "--optimizer", "lbgfs"], "--optimizer.*'lbgfs'.*did you mean 'lbfgs'.*adam"),
    ([*STYLIZE, "--style-losses", "gram,slice"], "--style-losses.*'slice'.*did you mean 'sliced'.*across"),
    ([*STYLIZE, "--style-layer-weights", "1,2"], "--style-layer-weights needs --style-layers"),
    ([*STYLIZE, "--preset", "rembrandt"], "--preset.*'rembrandt'.*crowsonkb"),
    ([*STYLIZE, "--style-layers", "conv1_1,conv5_5"], "'conv5_5'.*conv5_4"),
    ([*STYLIZE, "--content-layers", "relu4_2"], "'relu4_2'.*conv4_2"),
    ([*STYLIZE, "--network", "vgg16", "--style-layers", "conv3_4"], "vgg16.*'conv3_4'.*conv3_3"),
    ([*STYLIZE, "-o", "new.gif"], "new.gif.*[.]png"),
    ([*STYLIZE, "-o", "gone/new.png"], "no folder gone"),
    ([*STYLIZE, "-o", "style.png"], "style.png exists.*--overwrite"),
    ([*STYLIZE, "--history", "new.png"], "--history and --output.*new.png"),
    ([*STYLIZE, "--config", "gone.json"], "gone.json"),
    ([*STYLIZE, "--config", "bad.json"], "bad.json.*JSON object"),
    ([*STYLIZE, "--config", "unknown.json"], "unknown.json.*'widht'.*weights"),
    ([*STYLIZE, "--weights", "gone.npz"], "gone.npz.*imagenet, embedded"),
    ([*STYLIZE, "--weights", "content.png"], "content.png.*[.]h5"),
    ([*STYLIZE, "--init", "gone.png"], "'gone.png'.*content, noise,"),
    ([*STYLIZE, "--masks", "gone.png"], "gone.png"),
    (["stylize", "gone.png", *STYLIZE[2:]], "gone.png"),
    (["stylize", "content.png", "gone.png", *STYLIZE[3:]], "gone.png"),
    (["stylize", ".", *STYLIZE[2:]], ". is a folder"),
    (["stylize", "content.png", "gone.npz", *STYLIZE[3:]], "gone.npz"),
    (["stylize", "content.png", "gone.npz#one", *STYLIZE[3:]], "gone.npz"),
    ([*STYLIZE, "--resume"], "--resume needs --checkpoint DIR"),
    ([*STYLIZE, "--checkpoint-every", "9"], "--checkpoint-every needs --checkpoint DIR"),
    ([*STYLIZE, "--interpolate", "3"], "--interpolate.*two.*1"),
    ([*STYLIZE, "--interpolate", "3", "--save-every", "2"], "--save-every.*--interpolate"),
    ([*STYLIZE, "--style-blend", "1,2"], "--style-blend has 2.*style images is 1"),
    ([*STYLIZE, "--style-masks", "style.png,style.png"], "2 --style-masks for 1 style image"),
    ([*STYLIZE, "--masks", "style.png,style.png"], "2 masks for 1 style image"),
    ([*BATCH, "--masks", "style.png"], "masks.*batch"),
    ([*BATCH, "--format", "gif"], "--format.*'gif'.*png, jpg"),
    ([*BATCH, "--device", "tpu"], "device is 'tpu'.*auto, cpu, gpu:0"),
    (["batch", "gone", *BATCH[2:]], "gone"),
    ([*EXTRACT, "-o", "new.txt"], "new.txt.*[.]npz or [.]parquet"),
    ([*EXTRACT, "--style-layers", "conv6_1"], "'conv6_1'.*conv5_4"),
    ([*EXTRACT, "--pooling", "min"], "--pooling.*'min'.*avg, max, rescaled"),
    ([*EXTRACT, "--embedding-size", "no"], "--embedding-size.*'no'.*at least 1, or all"),
    ([*EXTRACT, "--model", "gone"], "no such model: gone"),
    ([*EXTRACT, "--model", ".", "--views", "10"], "--model.*--views"),
    ([*EXTRACT, "--model", "."], "0 models.*folder of one model"),
    (["extract", "gone", *EXTRACT[2:]], "gone"),
    ([*EXPORT, "--name", "a/b"], "name is 'a/b'.*letters"),
    ([*EXPORT, "--max-batch", "0"], "--max-batch.*'0'.*at least 1"),
    ([*EXPORT, "--content-layers", "conv4_5"], "'conv4_5'.*conv4_4"),
    ([*PRETRAIN, "-o", "new.h5"], "new.h5.*[.]npz"),
    ([*PRETRAIN, "--base", "gone.npz"], "gone.npz"),
    ([*PRETRAIN, "--blocks", "6"], "--blocks.*'6'.*from 1 to 5"),
    (["demo", "--weights", "gone.npz"], "gone.npz"),
    (["texture", "content.png", "--size", "big"], "texture: .*--size.*'big'.*see tfstyle texture --help"),
    (["explore", "texture", "content.png", "--colour", "red"], "--colour"),
    (["explore", "texture", "content.png", "--layers", "conv7_1"], "'conv7_1'.*conv5_4"),
    (["explore", "tradeof"], "'tradeof'.*did you mean 'tradeoff'"),
    (["explore", "texture", "gone.png"], "gone.png"),
    (["explore", "texture", "content.png", "--size", "0"], "--size is 0.*from 1 to 100000"),
    (["explore", "reconstruct", "content.png", "--pooling", "min"], "'min'.*avg"),
    (["explore", "compare", *STYLIZE[1:3], "--compilers", "jit"], "'jit'.*xla"),
    (["explore", "compare", *STYLIZE[1:3], "--presets", "rembrandt"], "'rembrandt'.*crowsonkb"),
    (["explore", "gram-entry", "--photographs", "gone.png"], "gone.png"),
    (["--print-completion", "fsh"], "'fsh'.*did you mean 'fish'"),
]

RUN_ALL = """
import contextlib, io, json, sys
sys.modules['tensorflow'] = sys.modules['keras'] = None  # importing them fails
from tfstyle.cli import main
answers = []
for arguments in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        try:
            code = main(arguments)
        except SystemExit as error:
            code = error.code
    answers.append((code, stream.getvalue()))
print(json.dumps(answers))
"""


def test_wrong_options_are_rejected_in_one_line_without_tensorflow(files, small_file):
    shutil.copy(small_file, files / "small.npz")
    (files / "bad.json").write_text("[1]")
    (files / "unknown.json").write_text('{"options": {"widht": 3}}')
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL], input=json.dumps([arguments for arguments, _ in REJECTED]),
        capture_output=True, text=True, cwd=files, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for (arguments, pattern), (code, message) in zip(REJECTED, json.loads(done.stdout), strict=True):
        assert code == 2, (arguments, message)
        assert re.fullmatch("tfstyle.*\n", message), (arguments, message)
        assert re.search(pattern, message), (arguments, message)
        # Errors of the command line itself name the help of the command.
        if message.startswith("tfstyle ") or arguments[0] not in COMMANDS:
            command = arguments[0] if arguments[0] in COMMANDS else ""
            if arguments[:2] == ["explore", "texture"]:  # the same command in fewer words
                command = "texture"
            assert re.search(f"; see tfstyle ?{command}.* --help\n", message), message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: "nowhere.jpg"}, "nowhere.jpg"),
        ({8: "2"}, "at least 4"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(command, capsys, change, message):
    for position, value in change.items():
        command[position] = value
    assert cli.main(command) == 2
    words = capsys.readouterr().err
    assert message in words
    errors = [line for line in words.splitlines() if "error" in line]
    assert errors == [words.splitlines()[-1]]
    assert errors[0].startswith("tfstyle: error: ")
    assert "Traceback" not in words


def test_commands_that_compute_nothing_need_no_tensorflow():
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from tfstyle.cli.explore import recipe_declaration\n"
        "from tfstyle.papers import RECIPES\n"
        "for name in RECIPES: recipe_declaration(name)  # all that --help of an experiment needs\n"
        "from tfstyle.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    for arguments in (["presets"], ["explore", "networks", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_existing_files_are_kept_unless_told(command, files, capsys):
    for name in ("out.png", "h.json"):
        (files / name).write_text("precious")
    assert cli.main(command) == 2
    assert (
        cli.main([*command[:4], str(files / "new.png"), *command[5:], "--history", str(files / "h.json")])
        == 2
    )
    assert "--overwrite" in capsys.readouterr().err
    assert {(files / name).read_text() for name in ("out.png", "h.json")} == {"precious"}
    assert cli.main([*command, "--history", str(files / "h.json"), "--overwrite"]) == 0
    assert load(files / "out.png").rgb.shape == (23, 32, 3)


def test_save_every_writes_previews(command, files):
    command[-1] = "5"
    assert cli.main([*command, "--save-every", "2"]) == 0
    assert sorted(p.name for p in files.glob("out*")) == ["out-0001.png", "out-0002.png", "out.png"]
    assert not np.array_equal(load(files / "out-0001.png").rgb, load(files / "out-0002.png").rgb)


@pytest.mark.parametrize("source", ["image", "json"])
def test_config_replays_a_run(command, files, source):
    assert (
        cli.main([*command, "--init", "noise", "--seed", "5", "--tv-weight", "0.5", "--style-blend", "2"])
        == 0
    )
    stored = read_settings(files / "out.png")
    file = files / "out.png"
    if source == "json":
        file = files / "options.json"
        file.write_text(json.dumps(stored["options"]))
    again = ["stylize", command[1], command[2], "-o", str(files / "again.png"), "--config", str(file)]
    assert cli.main(again) == 0
    assert np.array_equal(load(files / "again.png").rgb, load(files / "out.png").rgb)
    assert read_settings(files / "again.png")["options"] == stored["options"]
    assert cli.main([*again[:4], str(files / "other.png"), *again[5:], "--seed", "6"]) == 0
    assert read_settings(files / "other.png")["options"] == {**stored["options"], "seed": 6}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "a.json.*JSON object"),
        ("a.json", "[1]", "a.json.*JSON object"),
        ("a.json", '{"widht": 3}', "'widht'"),
        ("a.json", '{"tv_weight": "big"}', "--tv-weight is 'big'.*float"),
        ("b.json", None, "b.json"),
    ],
)
def test_bad_config_files_are_refused(command, files, capsys, name, text, message):
    if text is not None:
        (files / name).write_text(text)
    assert cli.main([*command, "--config", str(files / name)]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_config_file_can_need_an_option_of_the_command_line(command, files):
    (files / "warm.json").write_text('{"warm_start": true}')  # valid with Adam only
    assert cli.main([*command, "--config", str(files / "warm.json"), "--optimizer", "adam"]) == 0


def test_a_config_file_can_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "options.json").write_bytes(b'\xef\xbb\xbf{"seed": 7}')  # as PowerShell 5 writes it
    assert options_of("--config", tmp_path / "options.json").seed == 7


def options_of(*arguments):
    return run_config(make_parser().parse_args(["stylize", "c.png", "s.png", *map(str, arguments)]))


def test_quality_with_config_files_and_presets(tmp_path):
    """Given options take precedence; a whole set of options from an image is that of its quality."""

    def file(options):
        (tmp_path / "options.json").write_text(json.dumps(options))
        return "--config", tmp_path / "options.json"

    draft, high = (StyleConfig(quality=name, weights="auto") for name in ("draft", "high"))
    assert options_of("--quality", "draft") == draft
    assert options_of(*file(draft.as_dict())) == draft
    assert options_of(*file(draft.as_dict()), "--quality", "high") == high
    assert options_of(*file({"quality": "draft"})) == draft
    assert options_of(*file({"iterations": 100}), "--quality", "high").iterations == 100
    longer = draft.replace(iterations=100, size=64)  # an image stores all options
    assert options_of(*file(longer.as_dict())) == longer
    assert options_of(*file(longer.as_dict()), "--quality", "high") == high.replace(size=64)
    shorter = options_of(*file(draft.as_dict()), "--iterations", 40)
    assert (shorter.iterations, shorter.first_iterations, shorter.iteration_decay) == (40, None, None)
    assert not options_of(*file(draft.as_dict())).has_own_iterations
    assert options_of(*file(longer.as_dict())).has_own_iterations
    assert options_of("--quality", "high", "--iterations", 40) == high.replace(iterations=40)
    assert options_of("--quality", "high", "--preset", "default") == high
    assert options_of(*file(draft.as_dict()), "--preset", "gatys2016") == draft
    for arguments in (("--quality", "draft"), file({"quality": "draft"})):
        with pytest.raises(ConfigError, match=r"--quality draft .*--preset gatys2016.* leave one"):
            options_of("--preset", "gatys2016", *arguments)


def test_images_of_earlier_versions_had_equal_layer_weights_and_conv4_2(tmp_path):
    older = StyleConfig(weights="auto", iterations=7).as_dict()
    added_later = (
        "content_loss", "self_similarity_weight", "method", "alpha", "style_rotations", "pyramid_levels",
    )  # fmt: skip
    for name in ("quality", "style_layer_decay", "spectrum_weight", "border_weight", *added_later):
        del older[name]
    (tmp_path / "options.json").write_text(json.dumps({"options": older}))
    read = options_of("--config", tmp_path / "options.json")
    assert (read.style_layer_decay, read.spectrum_weight, read.border_weight) == (1.0, 0.0, 1.0)
    assert read.content_layers == ("gatys",)
    (tmp_path / "options.json").write_text(json.dumps({"options": older | {"content_layers": ["conv2_2"]}}))
    assert options_of("--config", tmp_path / "options.json").content_layers == ("conv2_2",)
    (tmp_path / "options.json").write_text(json.dumps({"options": StyleConfig().as_dict()}))
    assert options_of("--config", tmp_path / "options.json").content_layers is None
    (tmp_path / "options.json").write_text(json.dumps({"options": read.as_dict()}))
    assert options_of("--config", tmp_path / "options.json") == read
    newer = StyleConfig(quality="draft").as_dict()  # its quality is recognised, and its content layer kept
    for name in added_later:
        del newer[name]
    (tmp_path / "options.json").write_text(json.dumps({"options": newer}))
    read = options_of("--config", tmp_path / "options.json")
    assert read == StyleConfig(quality="draft")
    assert not read.has_own_iterations
    assert options_of().style_layer_decay == StyleConfig().style_layer_decay < 1


def test_a_preset_and_the_flags_over_it(command, files):
    assert cli.main([*command, "--preset", "gatys2016", "--tv-weight", "0.5"]) == 0
    options = read_settings(files / "out.png")["options"]
    assert (options["loss_normalization"], options["init"], options["tv_weight"], options["iterations"]) == (
        "paper",
        "noise",
        0.5,
        3,
    )


def test_a_loss_that_is_not_finite_is_exit_code_1_with_the_image_saved(command, files, capsys, monkeypatch):
    from tfstyle.run import run as runs

    whole = runs.Run.__iter__

    def fail(self):
        for step in whole(self):
            yield step
            if step.iteration == 2:
                self._fail("the loss is nan at iteration 3")

    monkeypatch.setattr(runs.Run, "__iter__", fail)
    assert cli.main(command) == 1
    captured = capsys.readouterr()
    assert "error: the loss is nan at iteration 3" in captured.err
    assert "out.png: 32 x 23 pixels, 2 iterations" in captured.out
    assert np.isfinite(load(files / "out.png").rgb).all()


def test_an_output_that_appears_during_the_run_is_kept(command, files, capsys, monkeypatch):
    from tfstyle.run import run as runs

    whole = runs.Run.__iter__

    def appear(self):
        (files / "out.png").write_text("precious")
        yield from whole(self)

    monkeypatch.setattr(runs.Run, "__iter__", appear)
    assert cli.main(command) == 0
    assert (files / "out.png").read_text() == "precious"
    assert f"out-{os.getpid()}.png: 32 x 23 pixels" in capsys.readouterr().out
    assert load(files / f"out-{os.getpid()}.png").rgb.shape == (23, 32, 3)


def test_history_and_output_must_differ(command, files, capsys):
    assert cli.main([*command, "--history", str(files / "out.png"), "--overwrite"]) == 2
    assert "both" in capsys.readouterr().err


@pytest.mark.parametrize("position", [1, 2, 4, 6])
def test_names_too_long_for_the_disk_are_one_line(command, capsys, position):
    command[position] = "a" * 300 + ".png"
    assert cli.main(command) == 2
    assert "too long" in capsys.readouterr().err


def test_the_same_run_twice_gives_the_same_file(command, files):
    assert cli.main(command) == 0
    first = (files / "out.png").read_bytes()
    assert cli.main([*command, "--overwrite"]) == 0
    assert (files / "out.png").read_bytes() == first


@pytest.mark.parametrize(
    "options",
    [["--compile", "xla"], ["--compile", "graph"], ["--precision", "float16"], ["--device", "cpu"]],
    ids=" ".join,
)
def test_other_ways_to_compute(command, files, options):
    assert cli.main([*command, *options]) == 0
    assert load(files / "out.png").rgb.shape == (23, 32, 3)


def test_max_pixels(command, capsys):
    assert cli.main([*command, "--max-pixels", "100"]) == 2
    assert "more than the limit of 100" in capsys.readouterr().err


def test_a_full_disk_is_exit_code_1(command, files, capsys, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert cli.main(command) == 1
    assert "out.png could not be written: No space left on device" in capsys.readouterr().err
    assert not (files / "out.png").exists()


def test_ctrl_c_saves_the_image_so_far_and_exits_with_130(command, files):
    command[-1] = "100000"
    process = subprocess.Popen(
        [sys.executable, "-m", "tfstyle", *command, "--save-every", "5"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(files.glob("out-*.png")) and process.poll() is None:
        assert time.monotonic() < deadline, "no preview in two minutes"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert "out.png: 32 x 23 pixels" in out
    assert load(files / "out.png").rgb.shape == (23, 32, 3)


def test_a_terminal_gets_a_bar(command):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tfstyle", *command], stderr=theirs, stdout=subprocess.DEVNULL
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # Linux says so where the other end has closed
        pass
    assert process.wait() == 0
    text = shown.decode()
    waiting = ("loading TensorFlow", "reading images and weights", "preparing the first iteration", "loss ")
    assert sorted(waiting, key=text.index) == list(waiting)  # something moves from the first second
    assert "0:00:0" in text[: text.index("loss ")]
    assert "nan" not in text
    assert "━" in text
    assert "it/s" in text


def test_info(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert cli.main(["info"]) == 0
    words = capsys.readouterr().out
    for name in (
        "tfstyle",
        "python",
        "tensorflow",
        "keras",
        "numpy",
        "pillow",
        "device auto",
        "compile auto",
    ):
        assert f"\n{name}" in f"\n{words}"
    assert "precision auto" in words
    assert f"not downloaded; they would be stored at {tmp_path}" in words


@pytest.mark.skipif(KERAS_2, reason="Keras 2.15 has TensorFlow alone, and does not read the variable")
@pytest.mark.parametrize("name", ["numpy", "nonsense"])
def test_another_backend_is_one_line(name):
    done = python("info", env={**os.environ, "KERAS_BACKEND": name})
    assert done.returncode == 2
    assert "KERAS_BACKEND=tensorflow" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_content_can_be_a_photograph_with_alpha(command, files):
    from PIL import Image

    rgba = np.dstack([make_image(40, 56), np.ones((40, 56), "f4") * 0.5])
    Image.fromarray((rgba * 255).astype(np.uint8)).save(files / "content.png")
    assert cli.main(command) == 0
    assert load(files / "out.png").alpha == pytest.approx(0.5, abs=0.01)

"""The notebook runs from top to bottom, and in Colab tfstyle installs without replacing what is there."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path

import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from packaging.requirements import Requirement
from PIL import Image

import tfstyle
from tfstyle.images import read_settings

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "tfstyle_colab.ipynb"
SIZE, ITERATIONS = 192, 20  # 192: two scales
#: Colab's runtime, by its Python. It must not have to restart, nor lose its TensorFlow.
PINS = [
    Requirement(line) for line in (ROOT / "tests" / "colab.txt").read_text().splitlines() if line[0] != "#"
]
#: Python's version -> package -> the version that Colab has.
COLAB = {
    python: {
        pin.name: next(iter(pin.specifier)).version
        for pin in PINS
        if pin.marker is None or pin.marker.evaluate({"python_version": python})
    }
    for python in ("3.12", "3.13")
}
#: A cell that only the test adds: what the notebook has found, for checks out here.
FACTS = """
import json
print(json.dumps({
    "names": list(pictures), "similarity": similarity.tolist(), "agreement": agreement,
    "history": history.as_dict(), "second": second.history.as_dict(), "kept_levels": len(kept.levels),
    "content_layers": extractor.content_layers, "served": np.asarray(served_picture).std().item(),
}))
"""


def read():
    return nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def python_of(cell):
    """The cell's source with IPython's ``%`` and ``!`` turned into calls."""
    return TransformerManager().transform_cell(cell.source)


def texts(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def images(cell):
    shown = [output.data for output in cell.outputs if "data" in output]
    files = [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]
    return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]


class Client(NotebookClient):
    """Counts how often each cell renews something that it has shown; only the last stays in the output."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "update_display_data":
            self.updates[cell.id] += 1
        return super().process_message(msg, cell, cell_index)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook after a run at a small size, what it found, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = read()
    notebook.cells.append(nbformat.v4.new_code_cell(FACTS, id="facts"))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": str(folder / "ipython"),
        "TFSTYLE_NOTEBOOK_WEIGHTS": "embedded",
        "TFSTYLE_NOTEBOOK_SIZE": str(SIZE),
        "TFSTYLE_NOTEBOOK_ITERATIONS": str(ITERATIONS),
        "TFSTYLE_NOTEBOOK_OUTPUT": "out",
    }
    environment.pop("MPLBACKEND", None)
    client = Client(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.updates = Counter()
    client.execute(env=environment)  # raises where a cell does
    cells = code_cells(notebook)
    return types.SimpleNamespace(
        cells=cells, facts=json.loads(texts(cells["facts"])), folder=folder, updates=client.updates
    )


def test_it_is_valid_and_kept_without_outputs():
    notebook = read()
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    cells = code_cells(notebook)
    assert not any(cell.outputs for cell in cells.values())
    assert {cell.execution_count for cell in cells.values()} == {None}
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_it_is_the_only_one_and_its_badge_opens_it():
    assert list(NOTEBOOK.parent.glob("*.ipynb")) == [NOTEBOOK]
    links = re.findall(
        r"https://colab\.research\.google\.com/github/tfstyle/tfstyle/blob/main/([^)]+)", str(read())
    )
    assert links == [str(NOTEBOOK.relative_to(ROOT))]


def test_each_cell_compiles():
    cells = code_cells(read())
    for name, cell in cells.items():
        compile(python_of(cell), name, "exec")
    assert "run_line_magic" in python_of(cells["install"])


def test_settings_are_read_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = python_of(code_cells(read())["settings"])
    defaults, changed = {}, {}
    exec(source, defaults)
    given = {"WEIGHTS": "embedded", "SIZE": 64, "ITERATIONS": 3, "OUTPUT": Path("elsewhere/deeper")}
    for name, value in given.items():
        monkeypatch.setenv(f"TFSTYLE_NOTEBOOK_{name}", str(value))
    exec(source, changed)
    assert {name: changed[name] for name in given} == given
    config = tfstyle.StyleConfig()
    assert (defaults["SIZE"], defaults["ITERATIONS"]) == (config.size, config.iterations)
    assert defaults["WEIGHTS"] == "auto"
    assert changed["OUTPUT"].is_dir()


@pytest.fixture
def choose_pictures(tmp_path, monkeypatch):
    """A function that runs the cell of the pictures in an empty folder and returns its names."""
    import matplotlib
    import matplotlib.pyplot as plt

    def choose(**names):
        cells = code_cells(read())
        space = {"sys": sys, "tfstyle": tfstyle}
        exec(python_of(cells["settings"]), space)
        space.update(names)
        exec(python_of(cells["pictures"]), space)
        return space

    monkeypatch.chdir(tmp_path)
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    yield choose
    plt.close("all")
    matplotlib.use(before)


def test_a_checkout_has_its_own_pictures(choose_pictures):
    chosen = choose_pictures()
    assert [chosen[name] for name in ("CONTENT", "STYLE")] == [
        NOTEBOOK.with_name(name) for name in ("village.jpg", "evening.jpg")
    ]


def test_a_wheel_has_pictures_too(choose_pictures, tmp_path, monkeypatch):
    package = tmp_path / "installed" / "tfstyle"
    package.mkdir(parents=True)
    (package / "data").symlink_to(ROOT / "tfstyle" / "data")
    monkeypatch.setattr(tfstyle, "__file__", str(package / "__init__.py"))
    chosen = choose_pictures()
    assert (chosen["CONTENT"].name, chosen["STYLE"].name) == ("cat.jpg", "evening.jpg")
    assert chosen["SECOND"].size == (240, 240)


def test_pictures_are_uploaded_in_colab_alone(choose_pictures, tmp_path, monkeypatch):
    picture = (NOTEBOOK.with_name("evening.jpg")).read_bytes()
    answers = [{"mine.jpg": picture}, {}, {"other.jpg": picture}]  # the second is cancelled

    def upload():
        answer = answers.pop(0)
        for name, data in answer.items():
            (tmp_path / name).write_bytes(data)  # as Colab does
        return answer

    assert choose_pictures(UPLOAD=True)["CONTENT"].name == "village.jpg"
    colab = types.ModuleType("google.colab")
    colab.files = types.SimpleNamespace(upload=upload)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    if "google" not in sys.modules:
        monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    assert choose_pictures(UPLOAD=False)["CONTENT"].name == "village.jpg"
    assert len(answers) == 3
    chosen = choose_pictures(UPLOAD=True)
    assert (chosen["CONTENT"], chosen["STYLE"].name, chosen["SECOND"]) == (
        "mine.jpg",
        "evening.jpg",
        "other.jpg",
    )
    assert answers == []


@pytest.mark.slow
class TestExecuted:
    def test_every_cell_ran_in_order_without_an_error(self, executed):
        kept = [cell for name, cell in executed.cells.items() if name != "facts"]
        assert [cell.execution_count for cell in kept] == list(range(1, 14))
        assert not any(output.output_type == "error" for cell in kept for output in cell.outputs)

    def test_the_command_agrees_about_the_device(self, executed):
        words = texts(executed.cells["device"])
        for name in ("device", "compile", "precision"):
            value, why = re.search(rf"^{name}: (\S+), because (.+)$", words, re.M).groups()
            assert re.search(rf"^{name} auto +{re.escape(f'{value} ({why})')}\s*$", words, re.M)

    @pytest.mark.parametrize("name", ["paint", "keep"])
    def test_preview_and_bar_are_alive_to_the_end(self, executed, name):
        cell = executed.cells[name]
        assert executed.updates[name] >= 4  # bar and preview, at the end of each of two scales at the least
        bar = next(
            output.data["text/html"] for output in cell.outputs if "text/html" in output.get("data", {})
        )
        assert "value='1.0000'" in bar
        assert f"scale 2 of 2, {SIZE} x " in bar
        assert f"iteration {ITERATIONS} of {ITERATIONS}" in bar
        (preview,) = images(cell)
        saved = Image.open(executed.folder / "out" / {"paint": "painted.png", "keep": "second.png"}[name])
        assert np.abs(preview.astype(int) - np.asarray(saved.convert("RGB"))).max() <= 1

    @pytest.mark.parametrize(
        "name", ["pictures", "side-by-side", "loss", "keep-side-by-side", "compare", "call-stylize"]
    )
    def test_it_draws(self, executed, name):
        (drawn,) = images(executed.cells[name])
        assert min(drawn.shape[:2]) > 200
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100  # not an empty frame

    def test_the_settings_reached_the_run(self, executed):
        stored = read_settings(executed.folder / "out" / "painted.png")
        options = {name: stored["options"][name] for name in ("weights", "size", "iterations")}
        assert options == {"weights": "embedded", "size": SIZE, "iterations": ITERATIONS}
        assert stored["facts"]["content_layers"] == list(executed.facts["content_layers"]) != []

    def test_the_loss_falls(self, executed):
        for name in ("history", "second"):
            history = executed.facts[name]
            assert len(history["total"]) == 2 * ITERATIONS
            assert history["total"][-1] < 0.5 * history["total"][0]

    def test_similarities_are_those_of_unit_vectors(self, executed):
        similarity = np.array(executed.facts["similarity"])
        np.testing.assert_allclose(np.diag(similarity), 1, atol=1e-5)
        np.testing.assert_allclose(similarity, similarity.T, atol=1e-6)
        assert np.linalg.eigvalsh(similarity).min() > -1e-5
        assert np.abs(similarity).max() < 1 + 1e-5

    @pytest.mark.parametrize(
        ("painted", "content"), [("painted", "content"), ("second painted", "second content")]
    )
    def test_painting_brings_a_picture_nearer_to_the_style(self, executed, painted, content):
        names, similarity = executed.facts["names"], np.array(executed.facts["similarity"])
        to_style = dict(zip(names, similarity[names.index("style")]))
        assert 1 - to_style[painted] < 0.5 * (1 - to_style[content])

    def test_the_kept_style_is_there(self, executed):
        kept = tfstyle.Style.load(executed.folder / "out" / "style.npz")
        assert kept.name == "my style"
        assert len(kept.levels) == executed.facts["kept_levels"] > 1

    def test_the_exported_model_answers(self, executed):
        folder = executed.folder / "out" / "models" / "tfstyle" / "1"
        assert (folder / "saved_model.pb").is_file()
        words = texts(executed.cells["call"]) + texts(executed.cells["call-stylize"])
        assert "signatures: content, encoded, serving_default, stylize" in words
        assert executed.facts["agreement"] == pytest.approx(1, abs=1e-4)
        width, _, loss = re.search(r"stylize: (\d+) x (\d+), loss (\S+)", words).groups()
        assert int(width) == SIZE
        assert 0 < float(loss) < 0.5 * executed.facts["history"]["total"][0]
        assert executed.facts["served"] > 20  # of 255: a picture, not a grey field


def resolve(folder, pins, python, extras=()):
    """What pip would have to install beside these pins: name -> version, or uv's words where it cannot be."""
    constraints = folder / "pins.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()))
    command = [
        sys.executable, "-m", "uv", "pip", "compile", str(ROOT / "pyproject.toml"),
        "--constraint", str(constraints), "--python-version", python,
        "--python-platform", "x86_64-manylinux_2_28", "--only-binary", ":all:", "--no-python-downloads",
        "--no-header", "--no-annotate", *(f"--extra={extra}" for extra in extras),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if "Failed to fetch" in done.stderr:
        if os.environ.get("CI"):
            pytest.fail(f"CI must reach PyPI: {done.stderr}")
        pytest.skip("PyPI cannot be reached")
    if done.returncode == 1 and "No solution found" in done.stderr:
        return done.stderr
    assert done.returncode == 0, done.stderr
    return dict(line.split("==") for line in done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("extras", [(), ("notebook",), ("notebook", "pretrain")], ids=len)
@pytest.mark.parametrize("python", COLAB)
def test_colab_keeps_its_packages(tmp_path, python, extras):
    found = resolve(tmp_path, COLAB[python], python, extras)
    assert isinstance(found, dict), found
    assert {name: found.get(name) for name in COLAB[python]} == COLAB[python]
    assert ("matplotlib" in found) == ("notebook" in extras)
    assert ("scikit-learn" in found) == ("pretrain" in extras)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [{"pillow": "9.0.0"}, {"numpy": "1.25.2"}], ids=str)
def test_pins_that_cannot_be_kept_are_seen(tmp_path, wrong):
    words = resolve(tmp_path, COLAB["3.12"] | wrong, "3.12")
    assert isinstance(words, str), words
    assert next(iter(wrong)) in words

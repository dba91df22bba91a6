"""The notebook runs from top to bottom, and tfstyle can be installed in Colab without replacing packages."""

import base64
import io
import json
import os
import re
import shlex
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
#: Versions of the packages in Colab's runtime. A replaced package would require a restart of the runtime.
PINS = [
    Requirement(line) for line in (ROOT / "tests" / "colab.txt").read_text().splitlines() if line[0] != "#"
]
#: Version of Python -> package -> the version of the package in Colab.
COLAB = {
    python: {
        pin.name: next(iter(pin.specifier)).version
        for pin in PINS
        if pin.marker is None or pin.marker.evaluate({"python_version": python})
    }
    for python in ("3.12", "3.13")
}
#: A cell that the test appends. It prints values of the notebook, which the tests check.
FACTS = """
import json
print(json.dumps({
    "python": sys.executable, "package": tfstyle.__file__, "content_layers": extractor.content_layers,
    "history": result.history.as_dict(), "second": second.history.as_dict(), "style_losses": style_losses,
    "gram": grams["result"].tolist(), "gram_difference": float(difference), "film": film.frames,
    "names": list(images), "similarity": similarity.tolist(), "style_levels": len(kept.levels),
    "agreement": agreement, "served": np.asarray(served_image).std().item(),
}))
"""


def read():
    return nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def python_of(cell):
    """Return the cell's source with IPython's ``%`` and ``!`` lines converted into calls."""
    return TransformerManager().transform_cell(cell.source)


def texts(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def displays(cell, kind):
    """Return what the cell displays as a MIME type."""
    return [output.data[kind] for output in cell.outputs if kind in output.get("data", {})]


def images(cell, kind="image/png"):
    files = [io.BytesIO(base64.b64decode(data)) for data in displays(cell, kind)]
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


class Client(NotebookClient):
    """A client that counts each cell's updates of its displays; a cell's output has only the last update."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "update_display_data":
            self.updates[cell.id] += 1
        return super().process_message(msg, cell, cell_index)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook's cells after a run at a small size, its facts, its folder and its number of updates."""
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
    # The name python3 stands for this interpreter, unless the user has a kernel of this name.
    client = Client(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.updates = Counter()
    client.execute(env=environment)  # raises if a cell raises
    cells = code_cells(notebook)
    return types.SimpleNamespace(
        cells=cells, facts=json.loads(texts(cells["facts"])), folder=folder, updates=client.updates
    )


def test_it_is_valid_and_stored_without_outputs():
    notebook = read()
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    cells = code_cells(notebook)
    assert not any(cell.outputs for cell in cells.values())
    assert {cell.execution_count for cell in cells.values()} == {None}
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_it_is_the_only_one_and_leads_to_no_address_that_does_not_exist():
    assert list(NOTEBOOK.parent.glob("*.ipynb")) == [NOTEBOOK]
    assert re.findall(r"https?://[^\s)\"']+", str(read())) == ["https://arxiv.org/abs/1508.06576"]


def test_each_cell_compiles():
    cells = code_cells(read())
    for name, cell in cells.items():
        compile(python_of(cell), name, "exec")


def test_each_code_cell_is_explained():
    notebook = read()
    kinds = "".join(cell.cell_type[0] for cell in notebook.cells)
    assert re.fullmatch("m(mc+)+", kinds)  # a title, then explanations, each with its code
    assert "ccc" not in kinds
    words = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for function in ("content_loss", "gram_matrix", "style_loss", "Objective"):
        assert f"tfstyle.{function}" in words.replace("\\_", "_")
    assert [words.count("$$"), words.count("$") % 2] == [10, 0]


#: A script that runs the cell of the installation in IPython. tfstyle cannot be imported until `pip` has run.
INSTALLING = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

def pip(command):
    commands.append(command)
    del sys.modules["tfstyle"]

commands = []
source, install = json.load(sys.stdin)
shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
shell.system = pip
sys.modules["tfstyle"] = None
shell.user_ns["SOURCE"] = source
result = shell.run_cell(install)
error = result.error_in_exec
print(json.dumps([commands, type(error).__name__, str(error), shell.user_ns.get("tfstyle") is not None]))
"""


@pytest.fixture
def install(tmp_path):
    """A function that runs the cell of the installation with a value of SOURCE in a process of its own.

    It returns the commands that IPython runs, the type and the message of the error, and whether tfstyle was
    imported.
    """

    def run(source):
        done = subprocess.run(
            [sys.executable, "-c", INSTALLING],
            input=json.dumps([source, code_cells(read())["install"].source]),
            env={**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path)},
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_without_a_source_one_line_says_what_to_set(install):
    commands, error, message, imported = install("")
    assert (commands, error, imported) == ([], "ModuleNotFoundError", False)
    assert "SOURCE" in message
    assert "wheel" in message
    assert "\n" not in message


def test_the_source_is_installed_by_pip(install):
    commands, error, _, imported = install("copies of mine/tfstyle-0.1.0-py3-none-any.whl")
    assert (error, imported) == ("NoneType", True)
    (command,) = commands
    python, *words = shlex.split(command)
    assert Path(python).name.startswith("python")
    assert words == [
        "-m", "pip", "install", "-q", "copies of mine/tfstyle-0.1.0-py3-none-any.whl", "matplotlib",
    ]  # fmt: skip


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
    assert defaults["SIZE"] == tfstyle.StyleConfig().size
    assert defaults["ITERATIONS"] == 0  # the iterations of each scale are those of the defaults
    assert defaults["WEIGHTS"] == "auto"
    assert defaults["SOURCE"] == ""  # neither a name on PyPI nor an address of a repository exists
    assert changed["OUTPUT"].is_dir()


@pytest.fixture
def choose_images(tmp_path, monkeypatch):
    """A function that runs the cell ``images`` in an empty folder and returns the names that it defines."""

    def choose(**names):
        cells = code_cells(read())
        space = {"sys": sys, "tfstyle": tfstyle}
        exec(python_of(cells["settings"]), space)
        space.update(names)
        exec(python_of(cells["images"]), space)
        return space

    monkeypatch.chdir(tmp_path)
    return choose


def test_a_checkout_uses_the_images_of_the_examples(choose_images):
    chosen = choose_images()
    assert [chosen[name] for name in ("CONTENT", "STYLE")] == [
        NOTEBOOK.with_name(name) for name in ("village.jpg", "evening.jpg")
    ]


def test_a_wheel_uses_the_images_of_the_package(choose_images, tmp_path, monkeypatch):
    package = tmp_path / "installed" / "tfstyle"
    package.mkdir(parents=True)
    (package / "data").symlink_to(ROOT / "tfstyle" / "data")
    monkeypatch.setattr(tfstyle, "__file__", str(package / "__init__.py"))
    chosen = choose_images()
    assert (chosen["CONTENT"].name, chosen["STYLE"].name) == ("cat.jpg", "evening.jpg")
    assert chosen["SECOND"].size == (240, 240)


def test_images_are_uploaded_only_in_colab(choose_images, tmp_path, monkeypatch):
    image_file = NOTEBOOK.with_name("evening.jpg").read_bytes()
    answers = [{"mine.jpg": image_file}, {}, {"other.jpg": image_file}]  # the second upload is cancelled

    def upload():
        answer = answers.pop(0)
        for name, data in answer.items():
            (tmp_path / name).write_bytes(data)  # Colab saves uploaded files, too
        return answer

    assert choose_images(UPLOAD=True)["CONTENT"].name == "village.jpg"
    colab = types.ModuleType("google.colab")
    colab.files = types.SimpleNamespace(upload=upload)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    if "google" not in sys.modules:
        monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    assert choose_images(UPLOAD=False)["CONTENT"].name == "village.jpg"
    assert len(answers) == 3
    chosen = choose_images(UPLOAD=True)
    assert (chosen["CONTENT"], chosen["STYLE"].name, chosen["SECOND"]) == (
        "mine.jpg",
        "evening.jpg",
        "other.jpg",
    )
    assert answers == []


@pytest.mark.slow
class TestExecuted:
    def test_the_kernel_is_this_interpreter_and_runs_this_package(self, executed):
        assert executed.facts["python"] == sys.executable
        assert Path(executed.facts["package"]).parents[1] == ROOT

    def test_every_cell_ran_in_order_without_an_error(self, executed):
        cells = [cell for name, cell in executed.cells.items() if name != "facts"]
        assert [cell.execution_count for cell in cells] == list(range(1, 16))
        assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)

    def test_the_command_agrees_about_the_device(self, executed):
        printed = texts(executed.cells["device"])
        for name in ("device", "compile", "precision"):
            value, why = re.search(rf"^{name}: (\S+), because (.+)$", printed, re.M).groups()
            assert re.search(rf"^{name} auto +{re.escape(f'{value} ({why})')}\s*$", printed, re.M)

    @pytest.mark.parametrize(("name", "file"), [("transfer", "result.png"), ("keep", "second.png")])
    def test_preview_and_bar_are_updated_to_the_end(self, executed, name, file):
        cell = executed.cells[name]
        assert executed.updates[name] >= 4  # of bar and preview: during the run and at its end
        (bar,) = displays(cell, "text/html")
        assert "value='1.0000'" in bar
        assert f"{2 * ITERATIONS} of {2 * ITERATIONS} iterations in " in bar
        (preview,) = images(cell, "image/jpeg")
        saved = np.asarray(Image.open(executed.folder / "out" / file).convert("RGB"))
        assert preview.shape == saved.shape
        assert np.abs(preview.astype(int) - saved).mean() < 8  # of 255: a JPEG file of the result

    def test_the_result_is_displayed(self, executed):
        cell = executed.cells["transfer"]
        (shown,) = images(cell)
        saved = Image.open(executed.folder / "out" / "result.png").convert("RGB")
        np.testing.assert_array_equal(shown, np.asarray(saved))
        assert re.search(rf"Result\({SIZE} x \d+ pixels, {2 * ITERATIONS} iterations", texts(cell))

    @pytest.mark.parametrize("name", ["images", "side-by-side", "gram", "history", "keep", "compare"])
    def test_it_draws(self, executed, name):
        (drawn,) = images(executed.cells[name])
        assert min(drawn.shape[:2]) > 200
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100  # not an empty frame

    def test_content_style_and_result_are_side_by_side(self, executed):
        three, two = (images(executed.cells[name])[0] for name in ("side-by-side", "keep"))
        assert three.shape[1] > 1.3 * two.shape[1]  # the style that was kept has no image

    def test_the_film_is_displayed(self, executed):
        (data,) = displays(executed.cells["film"], "image/gif")
        file = executed.folder / "out" / "evolution.gif"
        assert base64.b64decode(data) == file.read_bytes()
        assert len(data) < 3e6  # Jupyter drops more than this in 3 seconds
        film = Image.open(file)
        assert film.n_frames == executed.facts["film"] >= 5
        film.seek(film.n_frames - 1)
        (result,) = images(executed.cells["transfer"])
        assert np.abs(np.asarray(film.convert("RGB"), int) - result).mean() < 16  # of 255: 256 colours

    def test_the_style_losses_fall_in_every_layer(self, executed):
        printed = texts(executed.cells["losses"])
        assert len(executed.facts["style_losses"]) > 3
        for layer, (before, after) in executed.facts["style_losses"].items():
            assert 0 < after < 0.5 * before
            assert (
                f"{layer}: style loss of the content image {before:.4g}, of the result {after:.4g}" in printed
            )
        for layer in executed.facts["content_layers"]:
            assert re.search(rf"^{layer}: content loss of the result [\d.e+]+$", printed, re.M)

    def test_the_model_of_keras_layers_computes_the_same_gram_matrix(self, executed):
        gram = np.array(executed.facts["gram"])
        np.testing.assert_allclose(gram, gram.T, rtol=1e-5)
        assert np.linalg.eigvalsh(gram).min() > -1e-4 * np.trace(gram)
        assert executed.facts["gram_difference"] < 1e-5

    def test_the_settings_reached_the_run(self, executed):
        stored = read_settings(executed.folder / "out" / "result.png")
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
        ("result", "content"), [("result", "content"), ("second result", "second content")]
    )
    def test_a_result_is_nearer_to_the_style_than_its_content_image(self, executed, result, content):
        names, similarity = executed.facts["names"], np.array(executed.facts["similarity"])
        to_style = dict(zip(names, similarity[names.index("style")]))
        assert 1 - to_style[result] < 0.5 * (1 - to_style[content])

    def test_the_style_was_saved(self, executed):
        style = tfstyle.Style.load(executed.folder / "out" / "style.npz")
        assert style.name == "my style"
        assert len(style.levels) == executed.facts["style_levels"] > 1

    def test_the_exported_model_answers(self, executed):
        folder = executed.folder / "out" / "models" / "tfstyle" / "1"
        assert (folder / "saved_model.pb").is_file()
        printed = texts(executed.cells["export"]) + texts(executed.cells["call-stylize"])
        assert "signatures: content, encoded, serving_default, stylize" in printed
        assert executed.facts["agreement"] == pytest.approx(1, abs=1e-4)
        (shown,) = images(executed.cells["call-stylize"])
        width, height, loss = re.search(r"stylize: (\d+) x (\d+), loss (\S+)", printed).groups()
        assert int(width) == SIZE
        assert shown.shape == (int(height), SIZE, 3)
        assert 0 < float(loss) < 0.5 * executed.facts["history"]["total"][0]
        assert executed.facts["served"] > 20  # of 255: the image is not uniformly grey


def resolve(folder, pins, python, extras=()):
    """Return the packages that an installation beside these pins needs, name -> version.

    Without a solution, return uv's error message.
    """
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
    versions = resolve(tmp_path, COLAB[python], python, extras)
    assert isinstance(versions, dict), versions
    assert {name: versions.get(name) for name in COLAB[python]} == COLAB[python]
    assert ("matplotlib" in versions) == ("notebook" in extras)
    assert ("scikit-learn" in versions) == ("pretrain" in extras)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [{"pillow": "9.0.0"}, {"numpy": "1.25.2"}], ids=str)
def test_pins_without_a_solution_are_reported(tmp_path, wrong):
    message = resolve(tmp_path, COLAB["3.12"] | wrong, "3.12")
    assert isinstance(message, str), message
    assert next(iter(wrong)) in message

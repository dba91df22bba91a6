"""The house rules that a machine can check: imports, sizes, lazy loading, no print."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tfstyle

PACKAGE = Path(tfstyle.__file__).parent
MODULES = {path.stem: ast.parse(path.read_text()) for path in PACKAGE.glob("*.py")}
RECIPES = {path.stem: ast.parse(path.read_text()) for path in PACKAGE.glob("papers/*.py")}
SHELLS = {"cli", "commands", "explore", "extraction", "outputs", "progress", "several", "__main__"}
BASE = {"errors", "config"}
#: Which siblings a module may import; a shell may import any, and nothing but a shell imports a shell.
ALLOWED = {
    "config": {"errors"},
    "errors": set(),
    "backend": {"errors"},
    "addons": {"errors"},
    "device": {"errors"},
    "files": {"errors"},
    "download": {"errors"},
    "images": BASE,
    "representations": BASE,
    "quasi_newton": {"errors"},
    "optimizers": BASE | {"quasi_newton"},
    "keras_optimizers": {"backend", "errors", "optimizers"},
    "color": {"errors"},
    "variation": set(),
    "style_losses": BASE | {"representations"},
    "presets": BASE,
    "guidance": BASE | {"addons", "encoder", "images"},
    "sheets": {"images"},
    "saving": BASE | {"files", "images"},
    "weights": {"download", "errors", "files"},
    "network": {"backend", "errors"},
    "encoder": BASE | {"backend", "network", "weights"},
    "pretraining": {"encoder", "errors", "images", "weights"},
    "units": {"style_losses"},
    "local_losses": {"representations", "style_losses"},
    "layer_pairs": {"addons", "style_losses"},
    "quantile_losses": {"style_losses"},
    "targets": {"style_losses"},
    "losses": BASE | {"style_losses", "targets", "units", "variation"},
    "tiles": BASE | {"encoder"},
    "tile_losses": {"losses", "style_losses", "targets"},
    "tiling": BASE
    | {"encoder", "losses", "step", "style_losses", "targets", "tile_losses", "tiles", "units", "variation"},
    "memory": {"optimizers", "tiles"},
    "step": BASE | {"device", "optimizers"},
    "results": BASE | {"files", "images", "saving"},
    "styles": {"encoder", "errors", "files", "images", "weights"},
    "graph_images": set(),
    "painting": BASE | {"graph_images", "losses", "optimizers", "plan", "step", "units"},
    "signatures": BASE | {"backend", "encoder", "graph_images", "painting", "representations", "weights"},
    "export": {"errors", "files", "signatures", "weights"},
    "extractor": BASE
    | {"encoder", "export", "images", "plan", "representations", "signatures", "styles", "weights"},
    "plan": BASE | {"encoder", "weights"},
    "checkpoint": BASE | {"files"},
    "resuming": BASE | {"checkpoint", "encoder", "inputs", "optimizers", "results"},
    "inputs": BASE | {"checkpoint", "color", "encoder", "guidance", "images", "styles", "targets"},
    "preparation": BASE
    | {
        "addons",
        "device",
        "encoder",
        "images",
        "keras_optimizers",
        "layer_pairs",
        "local_losses",
        "losses",
        "optimizers",
        "plan",
        "quantile_losses",
        "step",
        "style_losses",
        "styles",
        "targets",
        "tiling",
        "units",
        "variation",
        "weights",
    },
    "scales": BASE | {"encoder", "memory", "preparation", "tiles", "weights"},
    "goals": BASE | {"encoder", "guidance", "images", "inputs", "preparation", "scales", "styles", "targets"},
    "runs": BASE
    | {
        "checkpoint",
        "device",
        "encoder",
        "goals",
        "guidance",
        "images",
        "inputs",
        "optimizers",
        "plan",
        "preparation",
        "results",
        "resuming",
        "scales",
        "step",
    },
    "transfer": BASE
    | {
        "checkpoint",
        "encoder",
        "guidance",
        "images",
        "optimizers",
        "preparation",
        "results",
        "runs",
        "styles",
    },
    "batch": BASE
    | {"device", "images", "inputs", "preparation", "results", "runs", "saving", "sheets", "transfer"},
}


def siblings(tree):
    """Modules of the package that a module imports when it is loaded or run, typing apart."""
    typing_only = {
        id(node) for branch in ast.walk(tree) if isinstance(branch, ast.If)
        and getattr(branch.test, "id", "") == "TYPE_CHECKING" for node in ast.walk(branch)
    }  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tfstyle."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "tfstyle":
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("tfstyle."))


@pytest.mark.parametrize("name", sorted(set(MODULES) - SHELLS - {"__init__"}))
def test_imports_go_one_way(name):
    assert name in ALLOWED, f"{name} is new: say in ALLOWED what it may import"
    assert set(siblings(MODULES[name])) <= ALLOWED[name]


def test_there_are_no_cycles():
    done = set()
    while len(done) < len(ALLOWED):
        ready = {name for name, needed in ALLOWED.items() if name not in done and needed <= done}
        assert ready, f"a cycle among {sorted(set(ALLOWED) - done)}"
        done |= ready


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_are_small_and_have_a_docstring(name):
    assert len((PACKAGE / f"{name}.py").read_text().splitlines()) <= 300
    assert ast.get_docstring(MODULES[name])
    assert name not in {"utils", "helpers", "misc", "common"}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_papers_experiments_import_no_shell_and_nothing_imports_them_but_shells(name):
    assert not set(siblings(RECIPES[name])) & SHELLS
    for other in set(MODULES) - SHELLS:
        assert "papers" not in set(siblings(MODULES[other]))
    assert len((PACKAGE / "papers" / f"{name}.py").read_text().splitlines()) <= 300
    assert ast.get_docstring(RECIPES[name])
    assert "print" not in [getattr(node.func, "id", "") for node in ast.walk(RECIPES[name])
                           if isinstance(node, ast.Call)]  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(MODULES) - SHELLS))
def test_the_library_does_not_print(name):
    calls = [node.func.id for node in ast.walk(MODULES[name])
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]  # fmt: skip
    assert "print" not in calls


@pytest.mark.parametrize("name", sorted(MODULES | RECIPES))
def test_nothing_is_registered_for_good(name):
    """TensorFlow keeps every custom gradient, and with it the graph it was traced in (its issue 97697)."""
    nodes = list(ast.walk((MODULES | RECIPES)[name]))
    names = {getattr(node, key, "") for node in nodes for key in ("attr", "id", "name")}
    registering = {"custom_gradient", "grad_pass_through", "recompute_grad", "RegisterGradient"}
    assert not (registering | {"py_function", "numpy_function"}) & names


@pytest.mark.parametrize("name", ["config", "errors", "cli"])
def test_no_tensorflow_at_the_packages_edge(name):
    code = f"import sys, tfstyle.{name}, tfstyle; tfstyle.StyleConfig; assert 'tensorflow' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_readme_has_its_pictures_and_no_gaps():
    root = PACKAGE.parent
    words = (root / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)\)", words)
    assert links
    for link in links:
        assert link.startswith("https://") or (root / link).is_file(), link
    assert not re.findall(
        r"\b[A-Z]+_[A-Z0-9]+\b", words.replace("TFSTYLE_TEST_DATA", "").replace("AVX512", "")
    )

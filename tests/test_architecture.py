"""Rules for the source code that can be checked automatically: imports, lazy loading, no print."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import tfstyle
from tests.conftest import importable

PACKAGE = Path(tfstyle.__file__).parent
FILES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in PACKAGE.rglob("*.py")
}
#: Modules at the top of the package, which any folder may import.
TOP = {"errors", "config", "presets", "layers", "files", "device", "backend", "addons"}
#: Folder -> the other folders that it may import, which stand to its left in
#: images, optim <- network <- losses <- tiling, scoring <- run <- callbacks, serving <- papers, cluster,
#: video <- web <- cli.
BELOW = {
    "images": set(),
    "optim": set(),
    "network": {"images", "optim"},
    "losses": {"images", "optim", "network"},
    "tiling": {"images", "optim", "network", "losses"},
    "scoring": {"images", "optim", "network", "losses"},
    "run": {"images", "optim", "network", "losses", "tiling", "scoring"},
    "callbacks": {"images", "optim", "network", "losses", "tiling", "scoring", "run"},
    "serving": {"images", "optim", "network", "losses", "tiling", "scoring", "run"},
    "papers": {"images", "optim", "network", "losses", "tiling", "scoring", "run", "serving"},
}
BELOW["cluster"] = set(BELOW["papers"])
BELOW["video"] = {*BELOW["papers"], "callbacks"}
BELOW["web"] = set(BELOW)
BELOW["cli"] = set(BELOW)
SCRIPTS = {"data/make_embedded.py", "data/make_score_basis.py"}
LIBRARY = sorted(
    name for name in FILES if not name.startswith("cli/") and name not in {"__main__.py", *SCRIPTS}
)


def imports(tree):
    """Return the package's modules that a file imports, each with the names imported from it.

    Imports in ``TYPE_CHECKING`` blocks are included.
    """
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"a relative import, of {node.module}"
            if node.module.partition(".")[0] == "tfstyle":
                modules.setdefault(node.module, set()).update(alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "tfstyle":
                    modules.setdefault(alias.name, set())
    return modules


def modules_imported(name):
    """Yield the path of each file of the package that a file imports; ``__init__.py`` stands for a folder."""
    for module, names in imports(FILES[name]).items():
        path = "/".join(module.split(".")[1:])
        candidates = [f"{path}/{n}.py".lstrip("/") for n in names] + [
            f"{path}/{n}/__init__.py".lstrip("/") for n in names
        ]
        inside = [c for c in candidates if c in FILES]
        yield from inside
        if f"{path}.py" in FILES:
            yield f"{path}.py"
        elif path and (names - {Path(c).stem for c in inside} or not names):
            yield f"{path}/__init__.py"


def folder_of(name):
    return name.partition("/")[0] if "/" in name else ""


@pytest.mark.parametrize("name", sorted(set(FILES) - {"__init__.py", "__main__.py", *SCRIPTS}))
def test_a_file_imports_what_stands_to_its_left_and_its_own_folder(name):
    folder = folder_of(name)
    assert folder in {"", *BELOW}, f"{name} is in a folder that has no place in the order of imports"
    for imported in modules_imported(name):
        other = folder_of(imported)
        if imported == "__init__.py":  # the version
            continue
        if other == "":
            assert Path(imported).stem in TOP, f"{name} imports {imported}"
        else:
            assert folder != "", f"{name} is at the top and imports {imported}"
            assert other == folder or other in BELOW[folder], f"{name} imports {imported}"


def constants(tree):
    """Return the names that a file assigns at its top level."""
    return {
        node.id
        for node in ast.walk(ast.Module([s for s in tree.body if isinstance(s, (ast.Assign, ast.AnnAssign))]))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def wrong_imports(name, tree):
    """Yield a file's imports of names that are not public, or that its own ``__init__.py`` imports."""
    for module, names in imports(tree).items():
        _, *parts = module.split(".")
        if not parts:  # from tfstyle itself: its version, the modules at the top, and the folders
            allowed = {"__version__", *TOP, *BELOW}
            if not names or names - allowed:
                yield f"{module}: {names - allowed or 'import tfstyle'}"
        elif parts[0] == folder_of(name):
            inside = {Path(file).stem for file in FILES if folder_of(file) == parts[0]}
            allowed = inside | constants(FILES[f"{parts[0]}/__init__.py"])
            if len(parts) == 1 and names - allowed:
                yield f"{module}: {names - allowed} by way of __init__.py"
        elif parts[0] in BELOW:
            public = set(importlib.import_module(f"tfstyle.{parts[0]}").__all__)
            if len(parts) > 1 or not names or names - public:
                yield f"{module}: {names - public}"


@pytest.mark.parametrize("name", [name for name in LIBRARY if name != "__init__.py"])
def test_other_folders_are_imported_by_their_public_names(name):
    """Only the command line may import from the files of other folders, because it loads them when needed."""
    assert not list(wrong_imports(name, FILES[name]))


@pytest.mark.parametrize(
    "statement",
    [
        "import tfstyle",
        "from tfstyle import stylize",
        "import tfstyle.images.color",
        "from tfstyle.images.color import grey",
        "from tfstyle.images import color",
        "from tfstyle.run import Run",
    ],
)
def test_imports_past_the_public_names_are_found(statement):
    assert list(wrong_imports("run/made_up.py", ast.parse(statement)))


def test_relative_imports_are_refused():
    with pytest.raises(AssertionError, match="relative import"):
        imports(ast.parse("from .color import grey"))


@pytest.mark.parametrize("folder", ["", *sorted(BELOW)])
def test_there_is_no_import_cycle_inside_a_folder(folder):
    """Imports in ``TYPE_CHECKING`` blocks count, because such a cycle also makes the code harder to read."""
    inside = {name for name in FILES if folder_of(name) == folder and not name.endswith("__init__.py")}
    needs = {name: {m for m in modules_imported(name) if m in inside and m != name} for name in inside}
    done = set()
    while needs.keys() - done:
        ready = {name for name in needs.keys() - done if needs[name] <= done}
        assert ready, f"an import cycle among {sorted(needs.keys() - done)}"
        done |= ready


@pytest.mark.parametrize("folder", sorted(BELOW))
def test_a_folder_says_what_it_is_for_and_what_is_public(folder):
    module = importlib.import_module(f"tfstyle.{folder}")
    assert ast.get_docstring(FILES[f"{folder}/__init__.py"])
    assert len(set(module.__all__)) == len(module.__all__) > 0
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert inspect.getdoc(value), f"tfstyle.{folder}.{name}"


@pytest.mark.parametrize("folder", sorted(BELOW))
def test_no_file_bears_the_name_of_a_public_function_or_class(folder):
    """Otherwise an import from the folder could return a module instead of the function."""
    for name, tree in FILES.items():
        if folder_of(name) != folder:
            continue
        public = {
            node.name for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
        }  # fmt: skip
        files = {Path(file).stem for file in FILES if folder_of(file) == folder}
        assert not public & files, f"{name}: {public & files}"


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_have_a_docstring_and_an_idea(name):
    assert ast.get_docstring(FILES[name])
    assert Path(name).stem not in {"utils", "helpers", "misc"}


@pytest.mark.parametrize("name", LIBRARY)
def test_the_library_does_not_print(name):
    calls = [node.func.id for node in ast.walk(FILES[name])
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]  # fmt: skip
    assert "print" not in calls


@pytest.mark.parametrize("name", sorted(FILES))
def test_errors_of_the_input_have_no_chained_tracebacks(name):
    """The message of an `InputError` says everything; errors of the machine keep their cause."""
    handlers = [node for node in ast.walk(FILES[name]) if isinstance(node, ast.ExceptHandler)]
    raised = [node for handler in handlers for node in ast.walk(handler) if isinstance(node, ast.Raise)]
    for node in raised:
        error, cause = ast.unparse(node.exc or ast.Constant("")), ast.unparse(node.cause or ast.Constant(""))
        if "Error" in error and not error.startswith(("RunError", "BackendError", "ValueError(words)")):
            assert cause == "None", f"line {node.lineno}: raise {error.partition('(')[0]} without 'from None'"


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_is_registered_for_good(name):
    """TensorFlow never releases a custom gradient nor the graph in which it was traced (its issue 97697)."""
    nodes = list(ast.walk(FILES[name]))
    names = {getattr(node, key, "") for node in nodes for key in ("attr", "id", "name")}
    registering = {"custom_gradient", "grad_pass_through", "recompute_grad", "RegisterGradient"}
    assert not (registering | {"py_function", "numpy_function"}) & names


@pytest.mark.parametrize("name", ["config", "errors", "layers", "presets", "papers", "cli"])
def test_no_tensorflow_at_the_packages_edge(name):
    code = f"import sys, tfstyle; tfstyle.{name}, tfstyle.StyleConfig; assert 'tensorflow' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def positional(function):
    """Return the names of the parameters that can be given by position, without self."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds]
    return names[1:] if names[:1] == ["self"] else names


def public_functions():
    """Return every function, class and method of the library whose name does not begin with an underscore."""
    functions = {}
    for file in LIBRARY:
        name = ".".join(["tfstyle", *Path(file).with_suffix("").parts]).removesuffix(".__init__")
        if not importable(name):
            continue
        for key, value in vars(importlib.import_module(name)).items():
            if key.startswith("_") or getattr(value, "__module__", None) != name:
                continue
            if inspect.isclass(value) and any(b.__module__.startswith("gradio.") for b in value.__mro__):
                continue  # Gradio adds methods of its own
            # Layers are excluded, because Keras calls their constructors.
            if inspect.isfunction(value) or (
                inspect.isclass(value) and not issubclass(value, (dict, tuple, Exception, keras.layers.Layer))
            ):
                functions[f"{name}.{key}"] = value
            for method, function in vars(value).items() if inspect.isclass(value) else ():
                bound = getattr(value, method)
                if not method.startswith("_") and callable(bound) and not isinstance(function, property):
                    functions[f"{name}.{key}.{method}"] = bound
    return functions


def test_beyond_the_second_argument_public_functions_are_keyword_only():
    """The third argument may be the config."""
    for name, function in public_functions().items():
        names = positional(function)
        assert len(names) <= 2 or (len(names) == 3 and names[2] == "config"), f"{name}({', '.join(names)})"

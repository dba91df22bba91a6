"""The documentation: code blocks and doctests run, links have targets, public docstrings are complete."""

import ast
import builtins
import contextlib
import dataclasses
import doctest
import functools
import importlib
import importlib.metadata
import inspect
import os
import pkgutil
import pydoc
import re
import shlex
from pathlib import Path

import pytest
import yaml

import tfstyle
from tests.conftest import importable
from tests.test_architecture import public_functions
from tfstyle import cli, errors
from tfstyle.backend import KERAS_2
from tfstyle.cli.parser import make_parser
from tfstyle.network import weights
from tfstyle.run import run as runs
from tfstyle.scoring import judging

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Commands that create, fill and activate environments. `.ci/run` runs them; the tests check their extras.
OTHER_COMMANDS = ("ray", "kubectl", "helm", "docker")  # the tests do not run them
INSTALLS = ("pip install ", "python3 -m venv ", "source .venv/bin/activate")


def blocks(page):
    """The code blocks of a page, as pairs of language and text."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def small_runs(monkeypatch):
    """Runs of 2 iterations at 96 pixels, and random weights in place of those that would be downloaded.

    Scores take them for genuine.
    """
    start, random_weights = runs.Run.__init__, functools.cache(weights.random_weights)

    def start_small(self, content, style, config, **options):
        small = {"size": min(config.size, 96), "scales": 1, "iterations": 2, "first_iterations": None}
        start(self, content, style, config.replace(small, tile="auto", compile="eager"), **options)

    monkeypatch.setattr(weights, "imagenet_weights", lambda network, **_: random_weights(network=network))
    monkeypatch.setattr(judging, "genuine_digest", lambda weights: judging.GENUINE)
    monkeypatch.setattr(runs.Run, "__init__", start_small)


def run_commands(text):
    """Run the lines of a shell block in this process: commands of tfstyle and a few of the shell."""
    for line in text.replace("\\\n", " ").splitlines():
        command, _, target = line.partition(" > ")
        words = shlex.split(command, comments=True)
        if not words:
            continue
        if line.startswith(INSTALLS):
            check_extras(line)
        elif words[:2] == ["tfstyle", "ui"] or "--ray" in words:  # these start servers
            make_parser().parse_args(words[1:])
        elif words[0] in OTHER_COMMANDS:
            continue
        elif words[0] == "tfstyle":
            with contextlib.ExitStack() as stack:
                if target:
                    stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(target, "w"))))
                assert run_tfstyle(words[1:]) == 0, line
        elif words[0] == "cd":
            os.chdir(words[1])
        elif words[0] == "mkdir":
            Path(words[1]).mkdir()
        elif words[0] == "cp":
            Path(words[2]).write_bytes(Path(words[1]).read_bytes())
        else:
            pytest.fail(f"the test cannot run this line: {line}")


def run_tfstyle(arguments):
    try:
        return cli.main(arguments)
    except SystemExit as stopped:  # --help
        return stopped.code


def check_extras(line):
    """Check that the package has the extras that a command installs."""
    extras = importlib.metadata.metadata("tfstyle").get_all("Provides-Extra")
    for names in re.findall(r"(?:tfstyle|\.)\[([\w,]+)\]", line):
        assert set(names.split(",")) <= set(extras), line


@pytest.mark.skipif(KERAS_2, reason="the documentation is for the current stack")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[] if page.stem in ("README", "python") else pytest.mark.slow)
        for page in PAGES
    ],
)
def test_the_blocks_of_a_page_run_from_top_to_bottom(page, tmp_path, monkeypatch, small_runs, capsys):
    monkeypatch.chdir(tmp_path)
    if page.name == "cluster.md":
        pytest.importorskip("ray.data", reason="needs tfstyle[cluster]")
    if page.name == "README.md":  # its first block is `.ci/run`'s; its last command is this one
        assert cli.main(["demo"]) == 0
    if page.name == "video.md":  # "a clip of yours", of ten seconds
        pytest.importorskip("cv2")
        from tests.video.clips import pan
        from tests.video.files import write_clip

        Path("tfstyle-demo").mkdir()
        write_clip("tfstyle-demo/clip.mp4", pan(10, (48, 64)).frames, fps=1)
    namespace = {"__name__": "__main__"}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page.name, "exec"), namespace)
        elif language == "yaml":
            assert all(isinstance(part, dict) for part in yaml.safe_load_all(text))
        else:
            assert language == "sh", f"{page.name}: a block of language {language!r}"
            run_commands(text)


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name
)
def test_every_table_has_its_rows_on_lines_of_their_own(page):
    lines = [line.strip() for line in page.read_text(encoding="utf-8").splitlines()]
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        if "|---" in line:
            assert re.fullmatch(r"\|(:?---+:?\|)+", line), line
            cells = [re.sub(r"`[^`]*`", "", row).count("|") for row in (before, line, after)]
            assert cells[0] == cells[1] == cells[2], before


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_code_block_is_closed(page):
    """Otherwise the test above would not run it."""
    fences = [line for line in page.read_text(encoding="utf-8").splitlines() if "```" in line]
    assert all(re.fullmatch(r"```\w+", fence) for fence in fences[::2]), fences
    assert all(fence == "```" for fence in fences[1::2]), fences
    assert len(fences) == 2 * len(blocks(page))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize(
    "page",
    [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "export" / "README.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_lead_to_files_and_headings(page):
    text = page.read_text(encoding="utf-8")
    for path, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text):
        if path.startswith("https://"):
            continue
        target = page.parent / path if path else page
        assert target.exists(), path
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in slugs, f"{path}#{anchor}"


def test_the_readme_has_no_placeholders():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = set(re.findall(r"\b[A-Z]+_[A-Z0-9]+\b", text.replace("AVX512", "")))
    assert names <= {"TFSTYLE_PASSWORD"}  # an environment variable of the page


def test_every_page_is_linked_from_the_table_of_topics():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    topics = text.partition("## Further topics")[2].partition("\n## ")[0]
    rows = "\n".join(line for line in topics.splitlines() if line.startswith("|"))
    assert set(re.findall(r"\]\(docs/([\w-]+\.md)\)", rows)) == {page.name for page in PAGES[1:]}


# The page about the papers


def cited_functions():
    """Yield a paper and a name in each row of the tables of equations.

    The paper is the title of the section or, if that names no year, the first cell of the row.
    """
    title = ""
    for line in (ROOT / "docs" / "papers.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ").partition(":")[0]
        cells = line.split("|")[1:-1]
        if len(cells) == 4:
            paper = title if re.search(r"\d{4}$", title) else cells[0].strip(" [").partition("]")[0]
            yield from ((paper, name) for name in re.findall(r"`(tfstyle(?:\.\w+)+)`", cells[2]))


def documentation(name):
    """Return the docstring of a function or class, or the comment ``#:`` above a constant."""
    value = pydoc.locate(name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return inspect.getdoc(value)
    module, _, key = name.rpartition(".")
    folder = Path(pydoc.locate(module).__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    (comment,) = [
        match[1] for text in texts for match in re.finditer(rf"((?:^#:.*\n)+){key} = ", text, re.MULTILINE)
    ]
    return comment.replace("#:", "")


def one_form(text):
    """Return a text on one line, with commas between the authors of a paper."""
    return " ".join(text.replace(" & ", ", ").split())


def test_every_function_on_the_page_of_papers_is_public():
    names = re.findall(r"`(tfstyle(?:\.\w+)+)`", (ROOT / "docs" / "papers.md").read_text(encoding="utf-8"))
    assert names
    for name in names:
        home, _, key = name.rpartition(".")
        assert pydoc.locate(name) is not None, name
        assert "._" not in name, name
        assert key in getattr(pydoc.locate(home), "__all__", [key]), f"{name} is not public in {home}"


@pytest.mark.parametrize(("paper", "name"), cited_functions())
def test_a_docstring_names_the_paper_that_the_page_of_papers_gives(paper, name):
    assert re.search(r" \d{4}$", paper), f"{name} is in a row without a paper: {paper!r}"
    assert paper in one_form(documentation(name))


def test_every_reference_in_the_code_is_on_the_page_of_papers():
    page = one_form((ROOT / "docs" / "papers.md").read_text(encoding="utf-8"))
    reference = re.compile(r"Reference: (.*?)(?:Differs|Our reading|\n\s*\n|\"\"\")", re.DOTALL)
    author = r"(?:von )?[A-Z]\w+(?:-\w+)?"
    paper = re.compile(rf"\b{author}(?:, {author})*(?: et al\.)? (?:19|20)\d\d\b")
    cited = set()
    for path in Path(tfstyle.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8").replace("#:", "")
        for source in reference.findall(text):
            cited |= set(paper.findall(one_form(source)))
    assert len(cited) > 20
    assert not {citation for citation in cited if citation not in page}


def error_rows():
    """The rows of the table of errors: the name of the class, and the quoted parts of its messages."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+Error)` \| (.+?) \|", text, re.MULTILINE)
    return [(name, re.findall(r"`([^`]+)`", quotes)) for name, quotes in rows]


def test_the_page_about_troubleshooting_names_every_error_class_and_no_other():
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == errors.__name__
    }
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\b[A-Z]\w*Error\b", text)) - set(dir(builtins)) == classes
    # The three base classes are not raised themselves, except RunError.
    assert {name for name, _ in error_rows()} == classes - {"TfstyleError", "InputError"}


def test_the_quoted_messages_are_in_the_code():
    """Each part of a message that the page quotes, where ``...`` stands for a value."""
    messages = []
    for path in (ROOT / "tfstyle").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
                messages.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                messages.append(node.value)
    quotes = [quote for _, row in error_rows() for quote in row]
    assert quotes
    assert [quote for quote in quotes if not any(quote in message for message in messages)] == []


def test_every_page_is_in_the_navigation_of_the_website():
    """`.ci/run` builds the website, which also checks the links of its pages."""

    def pages(entry):
        if isinstance(entry, str):
            return {entry}
        return set().union(*map(pages, entry.values() if isinstance(entry, dict) else entry))

    navigation = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    docs = ROOT / "docs"
    expected = {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")} | {"index.md"}
    assert {page for page in navigation if not page.startswith("repository/")} == expected
    folders = {path.parent.name for path in (ROOT / "tfstyle").glob("*/__init__.py")} - {"cli"}
    assert folders <= {page.stem for page in (docs / "api").iterdir()}


def test_the_page_of_looks_shows_every_option_that_changes_the_look():
    text = (ROOT / "docs" / "looks.md").read_text(encoding="utf-8")
    without = {"size", "size_of", "enlarge", "seconds", "max_pixels"}  # the size, and the machine
    names = {
        field.name
        for field in dataclasses.fields(tfstyle.StyleConfig)
        if field.metadata["group"] != "machine" and field.name not in without
    }
    flags = {"--" + name.replace("_", "-") for name in names} - {"--clamp"} | {"--no-clamp"}
    assert not {flag for flag in flags if not re.search(rf"`[^`]*{flag}\b", text)}
    headings = re.findall(r"`(--[^`]+ [^`]+)`", text)
    assert len(headings) > 60
    for heading in headings:
        if "weights FILE" not in heading:
            make_parser().parse_args(["stylize", "a.png", "b.png", *shlex.split(heading)])
    choices = tfstyle.StyleConfig.__dataclass_fields__["style_losses"].metadata["choices"]
    assert set(re.findall(r"`--style-losses (\w+)`", text)) == set(choices) - {"normalized_gram"}


# Docstrings


def modules():
    names = [module.name for module in pkgutil.walk_packages(tfstyle.__path__, "tfstyle.")]
    return [
        name
        for name in ("tfstyle", *names)
        if not name.endswith(("__main__", "make_embedded", "make_score_basis")) and importable(name)
    ]


def examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in modules():
        module = importlib.import_module(name)
        yield from (test for test in finder.find(module, name) if test.examples)


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_doctests(test, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    output = []
    results = doctest.DocTestRunner(optionflags=flags).run(test, out=output.append)
    assert results.failed == 0, "".join(output)


def test_public_docstrings_say_what_is_returned():
    """A section ``Returns`` or ``Yields``, or a first line that begins with Return."""
    missing = []
    for name, value in public_functions().items():
        text = inspect.getdoc(value) or ""
        assert text, name
        if inspect.isclass(value):
            continue
        returns = getattr(value, "__annotations__", {}).get("return")
        if returns in (None, "None", "NoReturn") or re.search(r"^(Returns|Yields):$", text, re.MULTILINE):
            continue
        if not re.match(r"(Returns?|Yields?)\b", text):
            missing.append(name)
    assert not missing, missing

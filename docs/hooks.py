"""Hooks of MkDocs that add a file outside of ``docs/`` to the site if a page links to the file.

The README is the home page. Every other file outside of ``docs/`` to which a page links is added below
``repository/``, and the links are changed accordingly. A link to a folder leads to the README of the folder.
A link to a folder without a README, or to a hidden file, is replaced by its text.
"""

from __future__ import annotations

import ast
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = get_plugin_logger("tfstyle")

ROOT = Path(__file__).parents[1]
DOCS = "docs"
OUTSIDE = "repository"
README = "README.md"
HOME = "index.md"
#: A link or an image in Markdown: its text, target and anchor.
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
#: Fenced blocks and inline code, in which nothing is a link.
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def in_repository(uri: str) -> str:
    """Return the path in the repository of a file of the site."""
    if uri == HOME:
        return README
    return uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(f"{OUTSIDE}/") else f"{DOCS}/{uri}"


def in_site(path: str) -> str:
    """Return the path in the site of a file of the repository."""
    if path == README:
        return HOME
    return path.removeprefix(f"{DOCS}/") if path.startswith(f"{DOCS}/") else f"{OUTSIDE}/{path}"


def resolve(target: str, page: str) -> str | None:
    """Return the path in the repository to which a link leads, or None for a hidden file or a bare folder."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
    if (ROOT / path).is_dir():
        path = f"{path}/{README}"
    hidden = any(part.startswith(".") for part in path.split("/"))  # the site contains no such files
    without_page = path.endswith(f"/{README}") and not (ROOT / path).exists()
    return None if hidden or without_page else path  # MkDocs reports files that do not exist


def local_links(text: str) -> list[str]:
    """Return the targets of the links in a page, without those on other servers."""
    return [target for _, _, target, _ in LINK.findall(CODE.sub("", text)) if target and "://" not in target]


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside of ``docs/`` to which the pages link, and those to which these files link."""
    waiting = [README, "CHANGELOG.md", "CONTRIBUTING.md"]
    waiting += [in_repository(file.src_uri) for file in files.documentation_pages()]
    known = {in_repository(file.src_uri) for file in files}
    while waiting:
        page = waiting.pop()
        if page not in known:
            known.add(page)
            files.append(File.generated(config, in_site(page), abs_src_path=os.fspath(ROOT / page)))
        if page.endswith(".md"):
            links = local_links((ROOT / page).read_text(encoding="utf-8"))
            paths = [path for link in links if (path := resolve(link, page)) and path not in known]
            waiting += [path for path in paths if (ROOT / path).exists()]
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Replace the targets of the links of a page by the paths in the site."""
    own = in_repository(page.file.src_uri)
    if own.startswith(f"{DOCS}/api/"):
        return markdown

    def changed(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        if not target or "://" in target:
            return match[0]
        path = resolve(target, own)
        if path is None:
            return text
        link = posixpath.relpath(in_site(path), posixpath.dirname(page.file.src_uri) or ".")
        return f"{image}[{text}]({link}{anchor or ''})"

    parts, end = [], 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(changed, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(changed, markdown[end:])])


def on_post_build(config: Any) -> None:
    """Warn about public names of the package that the pages of the API lack, so that ``--strict`` fails."""
    for page in sorted(Path(config.site_dir, "api").glob("*.html")):
        source = ROOT / "tfstyle" / ("" if page.stem == "tfstyle" else page.stem) / "__init__.py"
        if page.stem == "index" or not source.is_file():
            continue
        names = ast.literal_eval(
            re.search(r"^__all__ = (\[.*?\])", source.read_text(encoding="utf-8"), re.M | re.S)[1]
        )
        shown = {
            name.rpartition(".")[2] for name in re.findall(r' id="(tfstyle[\w.]*)"', page.read_text("utf-8"))
        }
        public = {
            name for name in names if name != "__version__" and not (source.parent / f"{name}.py").is_file()
        }
        if missing := public - shown:
            log.warning("api/%s lacks %s", page.name, ", ".join(sorted(missing)))

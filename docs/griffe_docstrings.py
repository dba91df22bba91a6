"""An extension of Griffe, which reads the docstrings for the API pages of the website.

The docstrings of tfstyle are in Google's style with two differences: the section that Griffe calls
``Examples`` is called ``Example``, and an entry of ``Args`` such as ``low, high:`` describes several
arguments.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe

#: An entry that describes several arguments, with its continuation lines.
SEVERAL = re.compile(r"^    (\*{0,2}\w+(?:,\s+\*{0,2}\w+)+):(.*\n?(?:^ {8,}.*\n?)*)", re.MULTILINE)
ARGUMENTS = re.compile(r"^Args:\n(?:^(?: {4}.*)?\n?)*", re.MULTILINE)


def converted(text: str) -> str:
    """Return a docstring in the form that Griffe expects."""

    def divided(entry: re.Match[str]) -> str:
        description = entry[2] if entry[2].endswith("\n") else f"{entry[2]}\n"
        return "".join(f"    {name}:{description}" for name in re.split(r",\s+", entry[1]))

    text = ARGUMENTS.sub(lambda section: SEVERAL.sub(divided, section[0]), text)
    return re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)


def comment_above(path: Path, line: int) -> str:
    """Return the text of the comments ``#: ...`` above a line of a file, counted from 1, or an empty text."""
    lines = path.read_text(encoding="utf-8").splitlines()[: line - 1]
    comments: list[str] = []
    while lines and lines[-1].lstrip().startswith("#:"):
        comments.insert(0, lines.pop().lstrip().removeprefix("#:").strip())
    return "\n".join(comments)


class Docstrings(griffe.Extension):
    """Converts every docstring when Griffe loads it."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Convert the docstring of an object. That of a value is the comment above it."""
        if obj.is_attribute and not obj.docstring and obj.lineno and isinstance(obj.filepath, Path):
            if comment := comment_above(obj.filepath, obj.lineno):
                obj.docstring = griffe.Docstring(comment, parent=obj)
        elif obj.docstring:
            obj.docstring.value = converted(obj.docstring.value)

"""Writing into RESULTS.md: a benchmark owns the part between two comments that bear its name."""

from __future__ import annotations

import re
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def put(name: str, text: str, path: Path = RESULTS) -> None:
    """Replace the text between ``<!-- name -->`` and ``<!-- /name -->``.

    A part that the file does not have yet is appended.

    Args:
        name: the name of the part.
        text: the new text, in Markdown.
        path: the file, which must exist.
    """
    part = f"<!-- {name} -->\n\n{text.strip()}\n\n<!-- /{name} -->"
    whole = path.read_text()
    pattern = re.compile(rf"<!-- {re.escape(name)} -->.*?<!-- /{re.escape(name)} -->", re.DOTALL)
    if pattern.search(whole):
        path.write_text(pattern.sub(lambda _: part, whole, count=1))
    else:
        path.write_text(f"{whole.rstrip()}\n\n{part}\n")

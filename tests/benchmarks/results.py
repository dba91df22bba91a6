"""RESULTS.md and what a benchmark writes into it: a part between two comments with its name."""

from __future__ import annotations

import re
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def put(name: str, text: str, path: Path = RESULTS) -> None:
    """Replace what is between ``<!-- name -->`` and ``<!-- /name -->``; add it at the end where it is new."""
    part = f"<!-- {name} -->\n\n{text.strip()}\n\n<!-- /{name} -->"
    whole = path.read_text()
    found = re.compile(rf"<!-- {re.escape(name)} -->.*?<!-- /{re.escape(name)} -->", re.DOTALL)
    if found.search(whole):
        path.write_text(found.sub(lambda _: part, whole, count=1))
    else:
        path.write_text(f"{whole.rstrip()}\n\n{part}\n")

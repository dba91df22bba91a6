"""The manifest of a batch: a row for each image that was tried. A later run finds in it what is missing."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tfstyle.errors import OutputError, RunError

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """What is known about one image of a batch.

    Attributes:
        content: path of the content image.
        styles: paths of the style images.
        output: name of the result in the folder of the batch.
        digest: SHA-256 digest of the content file and of the style files, or None without a result.
        options: the options of the result, by the names of the fields of `StyleConfig`.
        loss: the total loss at the last iteration, or None without a result.
        seconds: duration of the optimisation, or None without a result.
        error: the message of the error, or None if there is a result.
        finished: time at which the row was written, in UTC and the format of ISO 8601.
    """

    content: str
    styles: list[str]
    output: str
    options: Mapping[str, Any]
    digest: str | None = None
    loss: float | None = None
    seconds: float | None = None
    error: str | None = None
    finished: str = dataclasses.field(
        default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds")
    )


class Manifest:
    """The manifest in the folder of a batch, a file with one JSON object per line.

    Rows are only appended. Later rows replace earlier ones with the same output.

    Args:
        folder: folder of the results.

    Attributes:
        path: path of the file.
        rows: name of a result -> its latest row.

    Raises:
        OutputError: the file exists and cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / MANIFEST
        self.rows: dict[str, ManifestRow] = {}
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        except OSError as error:
            raise OutputError(f"cannot read {self.path}: {error.strerror}") from None
        for line in text.splitlines():
            row = _read_row(line)
            if row is not None:
                self.rows[row.output] = row
        self._complete = not text or text.endswith("\n")

    def has_result(self, output: str) -> bool:
        """Return whether the latest row of a result says that it exists.

        Args:
            output: name of the result.
        """
        return output in self.rows and self.rows[output].error is None

    def append(self, row: ManifestRow) -> None:
        """Write a row at once, so that it is not lost if the process is killed afterwards.

        Args:
            row: the row.

        Raises:
            RunError: writing failed, for example because the disk is full.
        """
        # A process that was killed may have left half of a line.
        line = ("" if self._complete else "\n") + json.dumps(dataclasses.asdict(row)) + "\n"
        try:
            with self.path.open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._complete = False
            raise RunError(f"cannot write {self.path}: {error.strerror}") from None
        self._complete = True
        self.rows[row.output] = row


def _read_row(line: str) -> ManifestRow | None:
    """Return the row in a line, or None if the line is incomplete or was written by another program."""
    try:
        values = json.loads(line)
        names = {field.name for field in dataclasses.fields(ManifestRow)}
        return ManifestRow(**{name: value for name, value in values.items() if name in names})
    except (ValueError, TypeError, AttributeError):
        return None

"""The manifest of a batch: a row for each image that was tried. A later run finds in it what is missing."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from tfstyle.errors import ImageError, OutputError, RunError, TfstyleError
from tfstyle.files import PARTIAL
from tfstyle.run.storage import LocalStorage, Storage, join, read_all

#: Name of the manifest of a batch in one process, in the folder of the results.
MANIFEST = "manifest.jsonl"
#: Folder of the Parquet files that `tfstyle batch --ray` writes, below the folder of the results.
PARQUET_FOLDER = "manifest"


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
        default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="microseconds")
    )


class Manifest:
    """The manifest in the folder of a batch, a file with one JSON object per line.

    Rows are only appended. Later rows replace earlier ones with the same output.

    Args:
        folder: folder of the results.

    Attributes:
        path: path of the file.
        rows: name of a result -> its latest row, also from the Parquet files of `tfstyle batch --ray`.

    Raises:
        OutputError: the file exists and cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / MANIFEST
        self.rows = read_rows(str(folder), LocalStorage())
        try:
            with self.path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                self._complete = file.read() == b"\n"
        except OSError:  # there is no file, or it is empty
            self._complete = True

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


def read_rows(folder: str, storage: Storage) -> dict[str, ManifestRow]:
    """Return the latest row of each result from the manifests in the folder of a batch.

    Args:
        folder: folder of the results, with `MANIFEST` and the Parquet files in `PARQUET_FOLDER`. Without
            pyarrow the Parquet files are not read.
        storage: where the folder is.

    Returns:
        Name of a result -> its row. Lines that are incomplete or of other programs are left out.

    Raises:
        OutputError: a manifest exists and cannot be read.
    """
    rows: list[ManifestRow | None] = []
    try:
        if storage.modified(path := join(folder, MANIFEST)) is not None:
            lines = read_all(storage, path).read().decode("utf-8", "replace").splitlines()
            rows += map(_read_row, lines)
        parts = join(folder, PARQUET_FOLDER)
        for name in storage.names(parts):
            if name.endswith(".parquet") and not name.startswith(PARTIAL):
                rows += _read_parquet(read_all(storage, path := join(parts, name)))
    except TfstyleError as error:
        raise OutputError(f"cannot read {path}: {error}") from None
    latest: dict[str, ManifestRow] = {}
    for row in rows:
        if row is not None and (row.output not in latest or row.finished >= latest[row.output].finished):
            latest[row.output] = row
    return latest


def parquet_file(rows: Iterable[ManifestRow]) -> bytes:
    """Return the content of a Parquet file with rows of a manifest; ``options`` is a JSON object.

    Args:
        rows: the rows.
    """
    import pyarrow
    import pyarrow.parquet

    types = {
        "content": pyarrow.string(), "styles": pyarrow.list_(pyarrow.string()), "output": pyarrow.string(),
        "options": pyarrow.string(), "digest": pyarrow.string(), "loss": pyarrow.float64(),
        "seconds": pyarrow.float64(), "error": pyarrow.string(), "finished": pyarrow.string(),
    }  # fmt: skip
    values = [{**dataclasses.asdict(row), "options": json.dumps(dict(row.options))} for row in rows]
    buffer = io.BytesIO()
    table = pyarrow.Table.from_pylist(values, pyarrow.schema(list(types.items())))
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def _read_parquet(file: BinaryIO) -> list[ManifestRow | None]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return []
    try:
        values = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ImageError(f"not a Parquet file ({str(error).splitlines()[0]})") from None
    try:
        options = {text: json.loads(text) for text in {row["options"] for row in values}}  # rows share them
    except (KeyError, TypeError, ValueError):  # a file of another program
        return []
    return [_row_of({**row, "options": options[row["options"]]}) for row in values]


def _read_row(line: str) -> ManifestRow | None:
    """Return the row in a line, or None if the line is incomplete or was written by another program."""
    try:
        return _row_of(json.loads(line))
    except ValueError:
        return None


def _row_of(values: Any) -> ManifestRow | None:
    names = {field.name for field in dataclasses.fields(ManifestRow)}
    try:
        return ManifestRow(**{name: value for name, value in values.items() if name in names})
    except (TypeError, AttributeError):
        return None

"""The manifest of a run on a cluster: Parquet files in a folder, because they cannot be appended to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from tfstyle import __version__
from tfstyle.cluster.addresses import AddressStorage
from tfstyle.cluster.runs import prepare_folder
from tfstyle.run import PARQUET_FOLDER, ManifestRow, join, parquet_file, read_rows

WRITE_SECONDS = 30.0  # time between two parts
WHOLE = "rows.parquet"


class ManifestParts:
    """The manifest in the folder of the results; rows are written as Parquet files every `WRITE_SECONDS`.

    If the process ends before, the rows are lost, but not the results: the next run reads the rows from their
    metadata. `close` merges all parts into one file.

    Args:
        folder: path or address of the folder of the results.
        storage: the storage.
        options: the options of the run, which are written to ``run.json`` beside the rows.

    Attributes:
        rows: name of a result -> its latest row, also from ``manifest.jsonl``.

    Raises:
        OutputError: the folder cannot be created, or a manifest in it cannot be read.
        RunError: the folder cannot be written to.
    """

    def __init__(self, folder: str, *, storage: AddressStorage, options: Mapping[str, Any]) -> None:
        self._results, self._storage = folder, storage
        self._folder = join(folder, PARQUET_FOLDER)
        prepare_folder(folder)
        self._started = datetime.now(timezone.utc)
        about = {"tfstyle": __version__, "started": self._started.isoformat(), "options": dict(options)}
        storage.write(join(self._folder, "run.json"), json.dumps(about, indent=1).encode())
        self.rows = read_rows(folder, storage)
        self._pending: list[ManifestRow] = []
        self._parts = 0
        self._written = time.monotonic()

    def append(self, row: ManifestRow) -> None:
        """Add a row.

        Args:
            row: the row.

        Raises:
            RunError: writing failed, for example because the disk is full.
        """
        self._pending.append(row)
        self.rows[row.output] = row
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the rows that were added since the last part.

        Raises:
            RunError: writing failed, for example because the disk is full.
        """
        self._written = time.monotonic()
        if self._pending:
            self._parts += 1
            name = f"{self._started:%Y%m%dT%H%M%S}-{os.getpid()}-{self._parts:05}.parquet"
            self._storage.write(join(self._folder, name), parquet_file(self._pending))
            self._pending = []

    def close(self) -> None:
        """Write the last rows, and merge the parts into one file.

        Raises:
            RunError: writing failed, for example because the disk is full.
        """
        self.write()
        parts = [name for name in self._storage.names(self._folder) if name.endswith(".parquet")]
        if parts not in ([], [WHOLE]):
            rows = read_rows(self._results, self._storage)  # another run may have written to the folder
            self._storage.write(join(self._folder, WHOLE), parquet_file(rows.values()))
            for name in parts:
                if name != WHOLE:
                    self._storage.remove(join(self._folder, name))

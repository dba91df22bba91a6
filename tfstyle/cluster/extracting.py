"""The worker that computes embeddings and Gram matrices for the rows of a dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow
import ray

from tfstyle.cluster.painter import begin_worker
from tfstyle.errors import ConfigError, InputError, RunError


class ExtractorSettings(NamedTuple):
    """What all workers share.

    Attributes:
        column: column with the paths or with the contents of the images.
        grams: whether the Gram matrices are returned.
        cores: number of cores of a worker; 0 for a worker with a GPU.
        weights: reference to the weights.
        layers: names of the layers.
        options: further arguments of `tfstyle.StyleExtractor`.
    """

    column: str
    grams: bool
    cores: int
    weights: Any
    layers: tuple[str, ...]
    options: Mapping[str, Any]


class Extractor:
    """Computes embeddings and Gram matrices; Ray Data calls it with tables.

    Args:
        settings: what all workers share.
    """

    def __init__(self, settings: ExtractorSettings) -> None:
        begin_worker(settings.cores)
        from tfstyle.cluster.addresses import AddressStorage
        from tfstyle.serving import StyleExtractor

        self._settings, self._storage = settings, AddressStorage()
        self._extractor = StyleExtractor(settings.layers, ray.get(settings.weights), **settings.options)

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """Return a table with the columns of `extract_schema` added.

        Args:
            table: rows with the column of the settings.
        """
        column = self._settings.column
        if column not in table.column_names:
            raise ConfigError(f"the dataset has no column {column}, only {', '.join(table.column_names)}")
        schema = extract_schema(self._settings.layers if self._settings.grams else ())
        rows = [self._row(source) for source in table[column].to_pylist()]
        added = pyarrow.Table.from_pylist(rows, schema)
        for name in schema.names:
            table = table.append_column(schema.field(name), added[name])
        return table

    def _row(self, source: str | bytes) -> dict[str, Any]:
        from tfstyle.images import load
        from tfstyle.run import read_all

        try:
            file = source if isinstance(source, bytes) else read_all(self._storage, os.fspath(source))
            numbers = self._extractor(load(file).on_white())
        except (InputError, RunError) as error:
            return {"error": str(error)}
        except Exception as error:  # of a decoder, a storage or TensorFlow: the other rows are computed
            return {"error": f"{type(error).__name__}: {error}"[:500]}
        return {name: value.numpy()[0].ravel() for name, value in numbers.items()}


def extract_schema(layers: tuple[str, ...]) -> pyarrow.Schema:
    """Return the columns that `Extractor` adds.

    Args:
        layers: the layers whose Gram matrices are returned.

    Returns:
        ``embedding`` and a column for each layer, float32 lists, and ``error``, a message or null.
    """
    numbers = pyarrow.list_(pyarrow.float32())
    return pyarrow.schema(
        [*((name, numbers) for name in ("embedding", *layers)), ("error", pyarrow.string())]
    )

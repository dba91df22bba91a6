"""What ``tfstyle extract`` and ``tfstyle export`` do: styles of many pictures, and a model for a server."""

from __future__ import annotations

import argparse
import io
import json
import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tfstyle.cli.common import DONE
from tfstyle.errors import ConfigError, ImageError

if TYPE_CHECKING:
    import numpy as np

    from tfstyle.serving.extractor import StyleExtractor

log = logging.getLogger(__name__)

ENDINGS = (".npz", ".parquet")
#: Options of an extractor; with --model they come with the model.
EXTRACTOR_OPTIONS = (
    "layers", "content_layers", "weights", "pooling", "padding", "views", "embedding_size",
)  # fmt: skip


def extract(options: argparse.Namespace) -> int:
    """``tfstyle extract``."""
    from tfstyle.cli.progress import count_display
    from tfstyle.files import check_writable
    from tfstyle.images.loading import find_images

    output = Path(options.output)
    if output.suffix not in ENDINGS:
        raise ConfigError(f"cannot write {output}: styles are written as {' or '.join(ENDINGS)}")
    if output.suffix == ".parquet":
        _arrow()
    check_writable(output, options.overwrite)
    paths = _named(options.images, find_images)
    several = options.grams and output.suffix == ".npz"
    source = _Source(options)
    found, skipped = [], 0
    with count_display(sys.stderr) as show:
        for done, (name, path) in enumerate(paths.items(), 1):
            try:
                found.append(source.look_at(name, path, options.grams, several))
            except ImageError as error:
                if len(paths) == 1:
                    raise
                log.warning("left out: %s", error)
                skipped += 1
            show("extracting", done, len(paths))
    if not found:
        raise ImageError(f"none of {len(paths)} pictures could be used")
    _write(output, found, source.made_with, options.overwrite)
    levels = max(len(one.levels) for one in found)
    grams = f", Gram matrices at {_count(levels, 'size')}" if options.grams else ""
    numbers = _count(len(found[0].embedding), "number")
    print(f"{output}: {_count(len(found), 'picture')}, {skipped} left out; embeddings of {numbers}{grams}")
    if several and len(found) == 1 and source.made_with.get("views") == "1":
        print(f"use it in place of a style image: tfstyle stylize CONTENT {shlex.quote(str(output))} -o OUT")
    return DONE


def _named(places: Sequence[str], find_images: Callable[[list[Path]], list[Path]]) -> dict[str, Path]:
    """A name of its own for each picture, which counts once however often it was given.

    The first that is free of: its path below the folder that was given, its path as given, its whole path.
    """
    named: dict[str, Path] = {}
    seen: set[Path] = set()
    for place in map(Path, places):
        for path in find_images([place]):
            whole = path.resolve()
            if whole in seen:
                continue
            seen.add(whole)
            short = path.relative_to(place).as_posix() if place.is_dir() else path.name
            named[next(name for name in (short, str(path), str(whole)) if name not in named)] = path
    return named


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class _Found(NamedTuple):
    """One picture's numbers: `tfstyle.Style` has the fields' meaning."""

    name: str
    levels: list[dict[str, np.ndarray]]
    size: int
    original: int
    embedding: np.ndarray


def make_extractor(options: argparse.Namespace) -> StyleExtractor:
    from tfstyle.serving.extractor import StyleExtractor

    given = {key: value for key, value in vars(options).items() if key in (*EXTRACTOR_OPTIONS, "size")}
    return StyleExtractor(**{"weights": "auto", **given})


class _Source:
    """Where the numbers come from: an extractor in this process, or an exported model."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._numbers: Callable[[np.ndarray], Mapping[str, Any]]
        if options.model is None:
            extractor = make_extractor(options)
            self._numbers, self.made_with = extractor, extractor.describe()
            self._layers = extractor.layers
            self._size, self._minimum = extractor.size, extractor.minimum_size
            return
        if wrong := [key for key in EXTRACTOR_OPTIONS if hasattr(options, key)]:
            flag = wrong[0].replace("_", "-") if wrong[0] != "layers" else "style-layers"
            raise ConfigError(f"--{flag} comes with the model of --model and cannot be given")
        self._numbers, contract = _load_model(Path(options.model))
        self.made_with = contract["made_with"]
        self._layers = tuple(
            k for k in contract["signatures"]["serving_default"]["outputs"] if k != "embedding"
        )
        self._size = getattr(options, "size", contract["size"])
        self._minimum = contract["minimum_size"]

    def look_at(self, name: str, path: Path, grams: bool, several: bool) -> _Found:
        """A picture's embedding and, where asked for, Gram matrices, at one size or at several."""
        import numpy as np
        import tensorflow as tf

        from tfstyle.images.loading import load
        from tfstyle.losses.style_file import image_pyramid

        whole = load(path)
        picture = whole.fitted(self._size)
        if min(picture.rgb.shape[:2]) < self._minimum:
            raise ImageError(f"{path}: smaller than {self._minimum} pixels a side")
        levels = []
        for small in image_pyramid(picture, self._minimum) if several else [picture]:
            # As bytes either way, so that this process and a model see the same.
            pixels = np.round(small.on_white() * 255).astype(np.uint8)[None]
            try:
                levels.append({name: np.asarray(value)[0] for name, value in self._numbers(pixels).items()})
            except tf.errors.InvalidArgumentError as error:
                raise ImageError(f"{path}: the model refuses it: {_assertion(error)}") from error
        kept = [{layer: level[layer] for layer in self._layers} for level in levels] if grams else []
        return _Found(
            name, kept, max(picture.rgb.shape), max(whole.rgb.shape), np.asarray(levels[0]["embedding"])
        )


def _load_model(folder: Path) -> tuple[Callable[[np.ndarray], Mapping[str, Any]], dict[str, Any]]:
    """The style signature of an exported model, and its contract."""
    import tensorflow as tf

    path = _version_folder(folder)
    try:
        contract = json.loads((path / "assets.extra" / "tfstyle.json").read_text(encoding="utf-8"))
        for key in ("made_with", "size", "minimum_size"):
            contract[key]
        model = tf.saved_model.load(str(path))
        signature = model.signatures["serving_default"]
    except (OSError, ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        raise ConfigError(
            f"{path} is not a model that tfstyle exported ({str(error).splitlines()[0]})"
        ) from error

    def numbers(pixels: np.ndarray, _alive: Any = model) -> Mapping[str, Any]:
        return signature(images=tf.constant(pixels))

    return numbers, contract


def _version_folder(folder: Path) -> Path:
    """The folder with saved_model.pb: this one, its highest version, or its only model's."""
    if not folder.is_dir():
        raise ConfigError(f"no such model: {folder}")
    if (folder / "saved_model.pb").is_file():
        return folder
    versions = [p for p in folder.iterdir() if p.name.isdigit()]
    if versions:
        return max(versions, key=lambda p: int(p.name))
    models = [p for p in folder.iterdir() if p.is_dir() and any(q.name.isdigit() for q in p.iterdir())]
    if len(models) == 1:
        return _version_folder(models[0])
    raise ConfigError(f"{folder} has {len(models)} models in it; name the folder of one")


def _assertion(error: Exception) -> str:
    """What an assertion in a graph said, without TensorFlow's frame of it."""
    return (
        str(error).partition("assertion failed: [")[2].partition("]")[0] or str(error).splitlines()[0][:160]
    )


def _write(output: Path, found: list[_Found], made_with: Mapping[str, str], overwrite: bool) -> None:
    import numpy as np

    from tfstyle.files import write_atomically
    from tfstyle.losses.style_file import Style, save_styles, write_style_numbers

    names = [one.name for one in found]
    sizes = [(one.size, one.original) for one in found]
    if output.suffix == ".npz":
        embeddings = np.stack([one.embedding for one in found])
        if found[0].levels:
            styles = [Style(one.levels, made_with, one.name, one.size, one.original) for one in found]
            save_styles(output, styles, overwrite, embeddings)
        else:
            write_style_numbers(output, names, sizes, made_with, {"embedding": embeddings})
        return
    arrow, parquet = _arrow()
    columns: dict[str, Any] = {"name": names, "size": [one.size for one in found]}
    kinds = {"name": arrow.string(), "size": arrow.int32()}
    arrays = {"embedding": [one.embedding for one in found]}
    for layer in found[0].levels[0] if found[0].levels else ():  # each [N, N], row by row
        arrays[layer] = [one.levels[0][layer].ravel() for one in found]
    for name, values in arrays.items():
        columns[name] = [value.tolist() for value in values]
        kinds[name] = arrow.list_(arrow.float32())
    table = arrow.table(columns, arrow.schema(list(kinds.items())))
    table = table.replace_schema_metadata({"tfstyle": json.dumps(dict(made_with))})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    write_atomically(output, buffer.getvalue())


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            f"writing .parquet needs pyarrow ({error}): pip install 'tfstyle[parquet]'"
        ) from error
    return pyarrow, pyarrow.parquet

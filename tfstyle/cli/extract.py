"""``tfstyle extract``: style embeddings and Gram matrices of many images, written to one file."""

from __future__ import annotations

import argparse
import io
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tfstyle.cli.common import DONE, check_images_or_folders, check_weights, load_tensorflow
from tfstyle.cli.terminal import report
from tfstyle.cli.wording import quoted
from tfstyle.config import PADDING, POOLING, StyleConfig
from tfstyle.errors import ConfigError, ImageError
from tfstyle.layers import find_layer

if TYPE_CHECKING:
    import numpy as np

    from tfstyle.serving.extractor import StyleExtractor

log = logging.getLogger(__name__)

SUFFIXES = (".npz", ".parquet")
#: Options of an extractor. An exported model fixes them, so that --model excludes them.
EXTRACTOR_OPTIONS = (
    "layers", "content_layers", "weights", "pooling", "padding", "views", "embedding_size",
)  # fmt: skip


class ExtractedStyle(NamedTuple):
    """The style of one image.

    Attributes:
        name: a name of the image that is unique in the file.
        levels, spectra: Gram matrices and local spectra for the full size, half of it, and so on, as in
            `tfstyle.Style`.
        size: longest side in pixels at which the style was extracted.
        original_size: longest side of the image file in pixels.
        embedding: float32 ``[embedding size]``.
    """

    name: str
    levels: list[dict[str, np.ndarray]]
    spectra: list[np.ndarray]
    size: int
    original_size: int
    embedding: np.ndarray


class StyleSource(NamedTuple):
    """An extractor in this process, or an exported model.

    Attributes:
        compute: uint8 ``[1, height, width, 3]`` -> the Gram matrix of each layer and ``embedding``.
        layers: the layers of the Gram matrices.
        size: longest side in pixels; larger images are reduced to it.
        minimum_size: smallest height and width in pixels that it accepts.
        made_with: the settings, as in `tfstyle.Style.made_with`.
    """

    compute: Callable[[np.ndarray], Mapping[str, Any]]
    layers: tuple[str, ...]
    size: int
    minimum_size: int
    made_with: Mapping[str, str]


def run_extract(options: argparse.Namespace) -> int:
    """Run ``tfstyle extract`` and return its exit code."""
    from tfstyle.files import check_writable

    output = Path(options.output)
    if output.suffix not in SUFFIXES:
        raise ConfigError(f"cannot write {output}: the suffix must be {' or '.join(SUFFIXES)}")
    if output.suffix == ".parquet":
        _import_pyarrow()
    check_writable(output, overwrite=options.overwrite)
    check_images_or_folders(options.images)
    check_extractor_options(options)
    model_folder = None if options.model is None else _check_model(options)

    load_tensorflow()
    from tfstyle.cli.progress import count_display

    paths = _name_images(options.images)
    with_pyramid = options.grams and output.suffix == ".npz"
    source = _extractor_source(options) if model_folder is None else _model_source(model_folder, options)
    styles, skipped = [], 0
    with count_display(sys.stderr) as show:
        for count, (name, path) in enumerate(paths.items(), 1):
            try:
                styles.append(
                    _extract_style(source, name, path=path, grams=options.grams, pyramid=with_pyramid)
                )
            except ImageError as error:
                if len(paths) == 1:
                    raise
                log.warning("skipped: %s", error)
                skipped += 1
            show("extracting", count, len(paths))
    if not styles:
        raise ImageError(f"none of the {len(paths)} images could be used")
    if output.suffix == ".npz":
        _write_npz(output, styles, made_with=source.made_with, overwrite=options.overwrite)
    else:
        _write_parquet(output, styles, made_with=source.made_with)
    level_count = max(len(style.levels) for style in styles)
    grams = f", Gram matrices at {_count(level_count, 'size')}" if options.grams else ""
    numbers = _count(len(styles[0].embedding), "number")
    summary = f"{_count(len(styles), 'image')}, {skipped} skipped; embeddings of {numbers}{grams}"
    report(f"{output}: {summary}", saved=output)
    if with_pyramid and len(styles) == 1 and source.made_with.get("views") == "1":
        command = f"tfstyle stylize CONTENT {quoted(str(output))} -o OUT"
        for name, default in (("pooling", POOLING), ("padding", PADDING)):
            if source.made_with[name] != default:
                command += f" --{name} {source.made_with[name]}"
        print(f"Use it in place of a style image: {command}")
    return DONE


def check_extractor_options(options: argparse.Namespace) -> None:
    """Raise InputError if an option of an extractor has an invalid value."""
    names = ("pooling", "padding", "size")
    StyleConfig().replace({name: getattr(options, name) for name in names if hasattr(options, name)})
    for layer in (*getattr(options, "layers", ()), *getattr(options, "content_layers", ())):
        find_layer(layer)
    check_weights(getattr(options, "weights", "auto"))


def make_extractor(options: argparse.Namespace) -> StyleExtractor:
    """Return the extractor that the options describe."""
    from tfstyle.serving.extractor import StyleExtractor

    names = (*EXTRACTOR_OPTIONS, "size")
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    return StyleExtractor(**{"weights": "auto", **given})


def _name_images(places: Sequence[str]) -> dict[str, Path]:
    """Return a unique name for every image, with its path. Images that are given twice are returned once.

    The name is the path below the given folder, or the given path, or the absolute path: the first of them
    that no other image has.
    """
    from tfstyle.images.loading import find_images

    paths: dict[str, Path] = {}
    seen: set[Path] = set()
    for place in map(Path, places):
        for path in find_images([place]):
            resolved = path.resolve()
            if resolved in seen:
                continue
            seen.add(resolved)
            short = path.relative_to(place).as_posix() if place.is_dir() else path.name
            names = (short, str(path), str(resolved))
            paths[next(name for name in names if name not in paths)] = path
    return paths


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _extractor_source(options: argparse.Namespace) -> StyleSource:
    extractor = make_extractor(options)
    return StyleSource(
        extractor, extractor.layers, extractor.size, extractor.minimum_size, extractor.describe()
    )


def _check_model(options: argparse.Namespace) -> Path:
    """Return the folder of the exported model that --model names.

    Raises:
        ConfigError: it is not an exported model, or an option is given that the model fixes.
    """
    if wrong := [name for name in EXTRACTOR_OPTIONS if hasattr(options, name)]:
        flag = wrong[0].replace("_", "-") if wrong[0] != "layers" else "style-layers"
        raise ConfigError(f"the model of --model determines --{flag}; leave one of the two out")
    folder = version_folder(Path(options.model))
    read_contract(folder)
    return folder


def version_folder(folder: Path) -> Path:
    """Return the folder with saved_model.pb: the given folder, its highest version, or its only model's."""
    if not folder.is_dir():
        raise ConfigError(f"no such model: {folder}")
    if (folder / "saved_model.pb").is_file():
        return folder
    versions = [path for path in folder.iterdir() if path.name.isdigit()]
    if versions:
        return max(versions, key=lambda path: int(path.name))
    models = [
        path for path in folder.iterdir()
        if path.is_dir() and any(inner.name.isdigit() for inner in path.iterdir())
    ]  # fmt: skip
    if len(models) == 1:
        return version_folder(models[0])
    raise ConfigError(f"{folder} holds {len(models)} models; give the folder of one model")


def read_contract(folder: Path) -> dict[str, Any]:
    """Return the description that tfstyle stored in an exported model."""
    try:
        contract = json.loads((folder / "assets.extra" / "tfstyle.json").read_text(encoding="utf-8"))
        for key in ("made_with", "size", "minimum_size"):
            contract[key]
        contract["signatures"]["serving_default"]["outputs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_exported(folder, error) from None
    return contract


def _not_exported(folder: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{folder} is not a model that tfstyle exported ({str(error).splitlines()[0]})")


def _model_source(folder: Path, options: argparse.Namespace) -> StyleSource:
    import tensorflow as tf

    contract = read_contract(folder)
    try:
        model = tf.saved_model.load(str(folder))
        signature = model.signatures["serving_default"]
    except (OSError, ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        raise _not_exported(folder, error) from None

    def compute(pixels: np.ndarray, _alive: Any = model) -> Mapping[str, Any]:
        return signature(images=tf.constant(pixels))

    outputs = contract["signatures"]["serving_default"]["outputs"]
    return StyleSource(
        compute,
        tuple(name for name in outputs if name != "embedding"),
        getattr(options, "size", contract["size"]),
        contract["minimum_size"],
        contract["made_with"],
    )


def _extract_style(
    source: StyleSource, name: str, *, path: Path, grams: bool, pyramid: bool
) -> ExtractedStyle:
    """Return an image's embedding and, with ``grams``, its Gram matrices, at all sizes with ``pyramid``."""
    import numpy as np
    import tensorflow as tf

    from tfstyle.images.loading import load
    from tfstyle.losses import image_pyramid, local_spectrum, may_have_spectrum

    original = load(path)
    image = original.fitted(source.size)
    if (shorter_side := min(image.rgb.shape[:2])) < source.minimum_size:
        raise ImageError(
            f"{path}: its shorter side has {shorter_side} pixels at size {source.size}; the encoder needs at "
            f"least {source.minimum_size}"
        )
    levels, spectra = [], []
    for level in image_pyramid(image, source.minimum_size) if pyramid else [image]:
        white = level.on_white()[None]
        # 8 bits in both cases, so that an extractor and an exported model get the same input.
        pixels = np.round(white * 255).astype(np.uint8)
        try:
            numbers = source.compute(pixels)
        except tf.errors.InvalidArgumentError as error:
            raise ImageError(f"{path}: the model rejects it: {_assertion(error)}") from None
        levels.append({key: np.asarray(value)[0] for key, value in numbers.items()})
        if grams and may_have_spectrum(white):
            spectra.append(local_spectrum(tf.constant(white)).numpy())
    gram_levels = [{layer: level[layer] for layer in source.layers} for level in levels] if grams else []
    return ExtractedStyle(
        name, gram_levels, spectra, max(image.rgb.shape), max(original.rgb.shape), levels[0]["embedding"]
    )


def _assertion(error: Exception) -> str:
    """Return the message of an assertion in a graph, without the text that TensorFlow adds."""
    return (
        str(error).partition("assertion failed: [")[2].partition("]")[0] or str(error).splitlines()[0][:160]
    )


def _write_npz(
    output: Path, styles: Sequence[ExtractedStyle], *, made_with: Mapping[str, str], overwrite: bool
) -> None:
    import numpy as np

    from tfstyle.losses.style_file import Style, save_styles, write_style_numbers

    embeddings = np.stack([style.embedding for style in styles])
    if styles[0].levels:
        with_grams = [
            Style(
                style.levels,
                made_with,
                spectra=style.spectra,
                name=style.name,
                size=style.size,
                original_size=style.original_size,
            )
            for style in styles
        ]
        save_styles(output, with_grams, overwrite=overwrite, embeddings=embeddings)
        return
    names = [style.name for style in styles]
    sizes = [(style.size, style.original_size) for style in styles]
    write_style_numbers(output, names, sizes=sizes, made_with=made_with, arrays={"embedding": embeddings})


def _write_parquet(output: Path, styles: Sequence[ExtractedStyle], *, made_with: Mapping[str, str]) -> None:
    from tfstyle.files import write_atomically

    pyarrow, parquet = _import_pyarrow()
    arrays = {"embedding": [style.embedding for style in styles]}
    for layer in styles[0].levels[0] if styles[0].levels else ():  # [N, N], flattened row by row
        arrays[layer] = [style.levels[0][layer].ravel() for style in styles]
    columns: dict[str, Any] = {
        # Parquet stores UTF-8. Other bytes of a file name become escapes.
        "name": [style.name.encode("utf-8", "backslashreplace").decode() for style in styles],
        "size": [style.size for style in styles],
        **{name: [value.tolist() for value in values] for name, values in arrays.items()},
    }
    types = {"name": pyarrow.string(), "size": pyarrow.int32()}
    types |= {name: pyarrow.list_(pyarrow.float32()) for name in arrays}
    table = pyarrow.table(columns, pyarrow.schema(list(types.items())))
    table = table.replace_schema_metadata({"tfstyle": json.dumps(dict(made_with))})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    write_atomically(output, buffer.getvalue())


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            f"writing .parquet needs pyarrow ({error}); install it with pip install 'tfstyle[parquet]'"
        ) from None
    return pyarrow, pyarrow.parquet

"""Style transfer and style extraction for the images of a Ray dataset, as a part of the caller's pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tfstyle.cluster.requirement import load_ray
from tfstyle.config import StyleConfig, check_single_image_options, check_style_count
from tfstyle.errors import ConfigError
from tfstyle.files import image_format

if TYPE_CHECKING:
    from ray.data import Dataset
    from typing_extensions import Unpack

    from tfstyle.config import StyleOptions


def stylize(
    dataset: Dataset,
    styles: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    config: StyleConfig | None = None,
    *,
    column: str = "path",
    key_column: str | None = None,
    output: str | os.PathLike[str] | None = None,
    suffix: str = ".png",
    overwrite: bool = False,
    workers: int | None = None,
    cores: int | None = None,
    **options: Unpack[StyleOptions],
) -> Dataset:
    """Return a dataset with the result of each image of a dataset in each style.

    The dataset is computed when its rows are read. Each worker, one per GPU or group of cores, holds an
    encoder and the compiled steps. If a worker dies, Ray repeats the rows that it had; results that were
    written are not made again.

    Args:
        dataset: a Ray dataset with a row for each content image, such as that of ``ray.data.from_items`` or
            ``ray.data.read_binary_files``.
        styles: path or address of a style image, or a list of them. Each gives one row per content image, or
            all together give one with ``style_blend``.
        config: the options; by default `StyleConfig()`.
        column: the column with the paths or addresses of the images, or with the contents of image files as
            bytes.
        key_column: the column on which the name of a result depends; by default the path, or the digest of
            the content.
        output: folder or address to which results are written; by default they are returned.
        suffix: suffix of the format, such as ``.png``.
        overwrite: whether existing results are replaced. Otherwise they are used if their images and options
            are the same.
        workers: number of workers; by default one per GPU, or as many as the cores allow.
        cores: number of cores of a worker; if given, no GPU is used. By default 1, more if memory is short.
        **options: changes to the config, by the names of the fields of `StyleConfig`.

    Returns:
        A dataset with the columns of the given one, and ``styles`` (paths), ``output`` (name of the result),
        ``digest`` (of the image files), ``loss`` (at the last iteration), ``seconds`` (of the optimisation),
        ``error`` (a message, or null), ``finished`` (time in UTC, ISO 8601) and ``result``, the content of
        the image file unless it was written.

    Raises:
        ConfigError: Ray is not installed, an option has an invalid value, or the dataset has one of these
            columns already.
        ImageError, WeightsError: a style or the weights cannot be read.
    """
    load_ray()
    from tfstyle.cluster.addresses import absolute
    from tfstyle.cluster.painter import DatasetPlan, result_schema
    from tfstyle.cluster.runs import make_settings, paint_dataset, prepare_folder
    from tfstyle.cluster.session import plan_workers

    config = (config or StyleConfig()).replace(options)
    check_single_image_options(config)
    style_paths = [styles] if isinstance(styles, (str, os.PathLike)) else list(styles)
    paths = [absolute(os.fspath(path)) for path in style_paths]
    check_style_count(config, len(paths))
    image_format(f"image{suffix}")
    _check_free(dataset, result_schema().names)
    folder = "" if output is None else absolute(os.fspath(output))
    if folder:
        prepare_folder(folder)
    planned = plan_workers(config.device, count=workers, cores=cores)
    plan = DatasetPlan(
        column=column, key_column=key_column, styles=paths, config=config, folder=folder, suffix=suffix
    )
    settings = make_settings(paths, config, workers=planned, folder=folder, overwrite=overwrite, plan=plan)
    return paint_dataset(dataset, settings, workers=planned)


def extract(
    dataset: Dataset,
    layers: Iterable[str] | None = None,
    *,
    column: str = "path",
    weights: str = "imagenet",
    grams: bool = True,
    workers: int | None = None,
    cores: int | None = None,
    **options: Any,
) -> Dataset:
    """Return a dataset with the style embedding and the Gram matrices of each image of a dataset.

    The dataset is computed when its rows are read or written, for example by ``write_parquet``.

    Args:
        dataset: a Ray dataset with a row for each image.
        layers: style layers; by default those of `tfstyle.StyleExtractor` with the same weights.
        column: the column with the paths or addresses of the images, or with the contents of image files as
            bytes.
        weights: a name or a file, as in `tfstyle.network.load_weights`. They are read once and sent to the
            workers.
        grams: whether the Gram matrices are returned. Those of five layers have 2.6 million numbers.
        workers, cores: as for `stylize`.
        **options: further arguments of `tfstyle.StyleExtractor`, such as ``size`` and ``embedding_size``.

    Returns:
        A dataset with the columns of the given one, and ``embedding``, a float32 list; for each layer its
        Gram matrix ``[N, N]`` as a float32 list, row by row; and ``error``, a message or null.

    Raises:
        ConfigError: Ray is not installed, an option has an invalid value, or the dataset has one of these
            columns already.
        WeightsError: the weights cannot be read.
    """
    load_ray()
    import ray

    from tfstyle.cluster.extracting import Extractor, ExtractorSettings, extract_schema
    from tfstyle.cluster.runs import map_with_workers
    from tfstyle.cluster.session import plan_workers
    from tfstyle.network import load_weights
    from tfstyle.serving import StyleExtractor

    loaded = load_weights(weights)
    names = StyleExtractor(layers, loaded, **options).layers  # checks the options
    _check_free(dataset, extract_schema(names if grams else ()).names)
    planned = plan_workers("auto", count=workers, cores=cores)
    settings = ExtractorSettings(column, grams, planned.cores, ray.put(loaded), names, options)
    return map_with_workers(dataset, Extractor, settings=settings, workers=planned)


def _check_free(dataset: Dataset, names: Iterable[str]) -> None:
    """Raise ConfigError if a dataset has one of the columns that are added."""
    if taken := set(dataset.columns() or ()) & set(names):
        raise ConfigError(f"the dataset has the columns {', '.join(sorted(taken))}; rename them")

"""Runs of a batch on a cluster: the jobs are made by workers, and made again by others if these die."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import pickle
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import ray
import tensorflow as tf
from ray.data import ActorPoolStrategy, DataContext, Dataset

from tfstyle.cluster.addresses import AddressStorage, in_threads
from tfstyle.cluster.coordinator import Progress, start_coordinator
from tfstyle.cluster.painter import JOB, Painter, PainterSettings
from tfstyle.cluster.session import Workers, first_line
from tfstyle.cluster.watcher import Watcher
from tfstyle.config import StyleConfig
from tfstyle.errors import RunError, TfstyleError
from tfstyle.files import is_address, make_folder
from tfstyle.images import exif_tag, open_image
from tfstyle.network import load_weights
from tfstyle.run import (
    PARQUET_FOLDER,
    XLA_MULTIPLE,
    Job,
    ManifestRow,
    Missing,
    Storage,
    find_missing,
    make_setup,
    measured_side,
    read_style_file,
)

log = logging.getLogger(__name__)

#: Number of jobs that a worker gets at a time. Fewer towards the end, so that all workers end together.
MOST_PER_BLOCK = 16
#: Number of blocks for each worker into which the remaining jobs are divided.
BLOCKS_PER_WORKER = 4
ORIENTATION = 0x0112  # EXIF tag
CHUNK = 100  # jobs that a thread checks at a time


def find_missing_in_threads(
    jobs: Sequence[Job], rows: Mapping[str, ManifestRow], *, storage: Storage
) -> Missing:
    """Return what `tfstyle.run.find_missing` returns, with many requests to the storage at a time.

    Args:
        jobs, rows, storage: as for `tfstyle.run.find_missing`.
    """
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    missing = Missing([], [], [])
    for part in in_threads(lambda chunk: find_missing(chunk, rows, storage=storage), chunks):
        missing.jobs.extend(part.jobs)
        missing.rows.extend(part.rows)
        missing.errors.extend(part.errors)
    return missing


def prepare_folder(folder: str) -> None:
    """Create the folder of the results, with the folder of its manifest, unless it is an address.

    Args:
        folder: path or address of the folder.

    Raises:
        OutputError: the folder cannot be created.
    """
    if not is_address(folder):
        make_folder(Path(folder) / PARQUET_FOLDER)


def make_settings(
    styles: Sequence[str], config: StyleConfig, *, workers: Workers, **others: Any
) -> PainterSettings:
    """Return the settings of the workers, with the style files and the weights, which are read once.

    Args:
        styles: paths or addresses of the styles.
        config: the options.
        workers: the workers.
        others: further fields of `PainterSettings`.

    Raises:
        ImageError, RunError, WeightsError: a style or the weights cannot be read.
        ConfigError: the options cannot be used.
    """
    storage = AddressStorage()
    files = {path: ray.put(read_style_file(path, storage)) for path in dict.fromkeys(styles)}
    weights = load_weights(config.weights, seed=config.seed, network=config.network)
    # Before the workers start, this finds options that cannot be used.
    with tf.device("/CPU:0"):
        make_setup(config.replace(normalize_weights=False), "/CPU:0", weights=weights)
    return PainterSettings(
        coordinator=start_coordinator(), weights=ray.put(weights), styles=files,
        number=workers.number, cores=workers.cores, **others,
    )  # fmt: skip


def paint_dataset(dataset: Dataset, settings: PainterSettings, *, workers: Workers) -> Dataset:
    """Return a dataset with the results of its jobs.

    Args:
        dataset: rows with the column `JOB`.
        settings: the settings of the workers.
        workers: the workers.

    Returns:
        A dataset with the columns of `tfstyle.cluster.painter.result_schema` in place of this column.
    """
    alone = settings.plan is None
    return map_with_workers(dataset, Painter, settings=settings, workers=workers, alone=alone)


def map_with_workers(
    dataset: Dataset, worker: type, *, settings: Any, workers: Workers, alone: bool = False
) -> Dataset:
    """Return a dataset that workers compute.

    Args:
        dataset: the dataset.
        worker: class of the workers, which are called with tables.
        settings: argument of the class.
        workers: the number of workers and their resources.
        alone: whether the dataset has no other operators, so that all workers start at once. Otherwise Ray
            adds workers after the first one while it has resources left, because other operators would wait
            for ever.
    """
    initial = workers.number if alone else 1
    return dataset.map_batches(
        worker,
        fn_constructor_args=(settings,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=workers.number, initial_size=initial),
        num_cpus=1 if workers.gpus else workers.cores,
        num_gpus=workers.gpus or None,
        memory=workers.memory or None,
    )


def paint_jobs(
    jobs: Sequence[Job],
    settings: PainterSettings,
    *,
    workers: Workers,
    time_limit: float | None = None,
    show: Callable[[Progress], None] = lambda progress: None,
) -> Generator[ManifestRow, None, None]:
    """Make the images of jobs with the workers of a cluster.

    Args:
        jobs: the jobs.
        settings: the settings of the workers, which store the results.
        workers: the workers.
        time_limit: time limit of an image in seconds, after which its process is ended and another one
            tries; None for 20 times the median of the finished images, and at least 10 minutes.
        show: called with the progress every few seconds, in another thread.

    Yields:
        The row of each job, in the order in which they end.

    Raises:
        ConfigError, WeightsError: the options or the weights cannot be used.
        RunError: Ray failed, or the connection to its head node was lost.
    """
    storage = AddressStorage()
    # Otherwise the error of a worker arrives without its class.
    DataContext.get_current().raise_original_map_exception = True
    remaining = {job.name: job for job in by_shape(jobs, storage)}
    failures = 0
    with Watcher(settings.coordinator, time_limit=time_limit, show=show) as watcher:
        while remaining:
            before = len(remaining)
            dataset = paint_dataset(
                as_dataset(list(remaining.values()), workers.number), settings, workers=workers
            )
            try:
                tables = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
                for table in tables:
                    for values in table.to_pylist():
                        job = remaining.pop(values["output"], None)
                        if job is not None:
                            yield _stored(job, values, storage)
                if len(remaining) == before:
                    raise RunError(f"Ray returned no results for {before} images")
            except KeyboardInterrupt:
                if watcher.lost:
                    raise RunError("the connection to the head node of Ray was lost") from None
                raise
            except (ray.exceptions.RayError, RuntimeError, OSError) as error:
                if (cause := own_error(error)) is not None:
                    raise cause from None
                failures = 0 if len(remaining) < before else failures + 1
                if failures > 1:
                    raise RunError(f"Ray failed: {first_line(error)}") from error
                log.warning("Ray failed (%s); %d images are tried again", first_line(error), len(remaining))


def _stored(job: Job, values: Mapping[str, Any], storage: Storage) -> ManifestRow:
    """Return the row of a job. If its worker could not write the result, this process does."""
    names = ("digest", "loss", "seconds", "error", "finished")
    row = dataclasses.replace(job.row(), **{name: values[name] for name in names})
    if values["result"] is None:
        return row
    try:
        storage.write(job.output, values["result"])
    except TfstyleError as error:
        return job.row(error=str(error))
    return dataclasses.replace(row, finished=job.row().finished)  # the row is newer than the file


def own_error(error: BaseException) -> TfstyleError | None:
    """Return the error of tfstyle that a worker raised, or None if Ray failed for another reason.

    Args:
        error: an error of Ray.
    """
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        # Ray also makes classes that inherit from the class of the cause and from its own.
        if isinstance(cause, TfstyleError) and not isinstance(cause, ray.exceptions.RayError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__ or cause.__context__
    return None


def as_dataset(jobs: Sequence[Job], workers: int) -> Dataset:
    """Return a dataset of jobs in blocks that become smaller towards the end.

    Args:
        jobs: the jobs, those of equal shapes one after another.
        workers: number of workers.
    """
    tables, start = [], 0
    while start < len(jobs):
        count = math.ceil((len(jobs) - start) / (BLOCKS_PER_WORKER * workers))
        block = jobs[start : start + min(count, MOST_PER_BLOCK)]
        tables.append(pyarrow.table({JOB: [pickle.dumps(job) for job in block]}))
        start += len(block)
    return ray.data.from_arrow(tables)


def by_shape(jobs: Sequence[Job], storage: AddressStorage) -> list[Job]:
    """Return jobs in the order of their styles and of the shapes of their results.

    A worker that makes images of one shape after another compiles its step once with XLA, and TensorFlow
    reuses its memory.

    Args:
        jobs: the jobs.
        storage: where the content images are. Their headers are read.
    """
    paths = list(dict.fromkeys(job.content for job in jobs))
    shapes = dict(zip(paths, in_threads(lambda path: _shape(path, storage), paths), strict=True))

    def order(job: Job) -> tuple[tuple[str, ...], tuple[int, int]]:
        height, width = shapes[job.content]
        size = job.config.size
        factor = size / max(measured_side((height, width), job.config), 1)
        factor = factor if job.config.enlarge else min(factor, 1.0)
        rows, columns = (math.ceil(factor * side / XLA_MULTIPLE) for side in (height, width))
        return job.styles, (rows, columns)

    return sorted(jobs, key=order)


def _shape(path: str, storage: AddressStorage) -> tuple[int, int]:
    """Return height and width of an image from its header; 0 x 0 if it cannot be read."""
    with contextlib.suppress(Exception), storage.head(path) as file:  # each decoder has exceptions of its own
        image = open_image(file)
        turned = exif_tag(image, ORIENTATION) in (5, 6, 7, 8)
        return image.size if turned else image.size[::-1]
    return 0, 0

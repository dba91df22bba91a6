"""The worker of a run: an actor that holds an encoder and the compiled steps, and makes images."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import socket
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow
import ray

from tfstyle.cluster.coordinator import Worker
from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError, InputError, RunError
from tfstyle.files import hidden_stderr, is_address, remove_left

if TYPE_CHECKING:  # these modules import TensorFlow, which `Painter` does with its own number of threads
    from tfstyle.losses import Summaries
    from tfstyle.run import Job, ManifestRow

#: Column of a dataset with a job, pickled.
JOB = "tfstyle_job"
#: Number of attempts, each of which ended its process, after which an image is recorded as an error.
MOST_ATTEMPTS = 4
#: Number of attempts with the whole memory of a worker. Each further one has a quarter of the memory of the
#: attempt before, so that a large image is evaluated in smaller tiles.
WHOLE_MEMORY_ATTEMPTS = 2


@dataclass(frozen=True, kw_only=True)
class DatasetPlan:
    """How jobs follow from the rows of a dataset.

    Attributes:
        column: column with the paths, or with the contents, of the content images.
        key_column: column with the keys of the content images, see `tfstyle.run.Content`; None for the paths
            or the digests of the contents.
        styles: paths of the styles.
        config: the options.
        folder: path or address of the folder of the results; empty if results are returned.
        suffix: suffix of the results' names.
    """

    column: str
    key_column: str | None
    styles: Sequence[str]
    config: StyleConfig
    folder: str
    suffix: str

    def jobs(self, table: pyarrow.Table) -> Iterator[tuple[int, Job, bytes | None]]:
        """Return the jobs for the rows of a table.

        Args:
            table: the table.

        Yields:
            The number of a row, the job, and the content of the content image, or None if it is read.

        Raises:
            ConfigError: there is no such column.
        """
        from tfstyle.run import Content, plan_jobs

        for name in filter(None, (self.column, self.key_column)):
            if name not in table.column_names:
                raise ConfigError(f"the dataset has no column {name}, only {', '.join(table.column_names)}")
        values = table[self.column].to_pylist()
        keys = [None] * len(values) if self.key_column is None else table[self.key_column].to_pylist()
        for index, (value, key) in enumerate(zip(values, keys, strict=True)):
            content = value if isinstance(value, bytes) else None
            short = "image" if content is None else f"image-{hashlib.sha256(content).hexdigest()}"
            path = str(value or "") if content is None else str(key or short)
            for job in plan_jobs(
                [Content(path, str(key or path))], self.styles, self.config,
                folder=self.folder, suffix=self.suffix,
            ):  # fmt: skip
                yield index, job, content


@dataclass(frozen=True, kw_only=True)
class PainterSettings:
    """What all workers of a run share.

    Attributes:
        coordinator: handle of the `Coordinator`.
        weights: reference to the weights, which the workers do not load again.
        styles: path of a style -> reference to its `tfstyle.run.StyleFile`.
        number: number of workers.
        cores: number of cores of a worker; its threads are as many. 0 for a worker with a GPU, where
            TensorFlow chooses the number of threads.
        folder: path or address of the folder of the results; empty if results are returned.
        overwrite: whether existing results of former runs are replaced.
        plan: how the jobs follow from the rows of a dataset; None if it has the column `JOB`.
    """

    coordinator: Any
    weights: Any
    styles: Mapping[str, Any]
    number: int
    cores: int
    folder: str = ""
    overwrite: bool = False
    plan: DatasetPlan | None = None


class Painted(NamedTuple):
    """What a worker returns for a job.

    Attributes:
        row: the row of the manifest.
        encoded: the content of the image file, unless the worker has written it.
    """

    row: ManifestRow
    encoded: bytes | None


class Painter:
    """Makes the images of jobs; Ray Data calls it with tables.

    Args:
        settings: what all workers of the run share.
    """

    def __init__(self, settings: PainterSettings) -> None:
        begin_worker(settings.cores)
        from tfstyle.cluster.addresses import AddressStorage
        from tfstyle.run import JobRunner

        if settings.folder and not is_address(settings.folder):
            remove_left(Path(settings.folder))  # by workers of this machine that were killed
        context = ray.get_runtime_context()
        self._worker = Worker(context.get_node_id(), os.getpid())
        self._settings = settings
        self._memory = memory_per_worker(context.get_node_id(), settings.cores, number=settings.number)
        self._storage = AddressStorage()
        self._runner = JobRunner(
            self._storage,
            read_style=lambda path: ray.get(settings.styles[path]),
            weights=ray.get(settings.weights),
            summaries=lambda styles: SharedSummaries(settings.coordinator, styles),
        )

    def __call__(self, table: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """Make the images of a table.

        Args:
            table: rows with the column `JOB`, or those of the settings' `DatasetPlan`.

        Yields:
            The rows without the column `JOB` and with the columns of `result_schema`.
        """
        self.check_folder()
        others = table.drop_columns([JOB]) if self._settings.plan is None else table
        for index, job, content in self._jobs(table):
            painted = self.paint(job, content)
            result = pyarrow.Table.from_pylist([result_columns(painted)], result_schema())
            row = others.slice(index, 1)
            for name in result.column_names:
                row = row.append_column(result.schema.field(name), result[name])
            yield row

    def check_folder(self) -> None:
        """Raise ConfigError if the folder of the results is not on this machine."""
        from tfstyle.run import PARQUET_FOLDER, join

        folder = self._settings.folder
        if folder and not is_address(folder) and not os.path.isdir(join(folder, PARQUET_FOLDER)):
            raise ConfigError(
                f"the folder {folder} is not on the machine {socket.gethostname()}; give a folder that all "
                "machines share, or an address such as s3://bucket/results"
            )

    def _jobs(self, table: pyarrow.Table) -> Iterator[tuple[int, Job, bytes | None]]:
        if self._settings.plan is not None:
            yield from self._settings.plan.jobs(table)
            return
        for index, job in enumerate(table[JOB].to_pylist()):
            yield index, pickle.loads(job), None

    def paint(self, job: Job, content: bytes | None = None) -> Painted:
        """Create the result of a job, unless it exists already.

        Args:
            job: the job.
            content: the content of the content image's file; by default it is read from its path.

        Returns:
            The row of the manifest, with the result unless it was written.
        """
        coordinator = self._settings.coordinator
        number, made = ray.get(coordinator.begin.remote(job.name, self._worker))
        try:
            painted = self._attempt(job, number, made=made, content=content)
        except (InputError, RunError) as error:
            painted = Painted(job.row(error=str(error)), None)
        except Exception as error:  # of a decoder, a storage or TensorFlow: the other images are made
            painted = Painted(job.row(error=f"{job.content}: {type(error).__name__}: {error}"[:500]), None)
        ray.get(coordinator.end.remote(job.name, made=painted.row.error is None))
        return painted

    def _attempt(self, job: Job, number: int, *, made: bool, content: bytes | None) -> Painted:
        from tfstyle.run import finished_facts

        # A former attempt may have written the result before its process ended.
        may_exist = self._settings.folder and (made or not self._settings.overwrite)
        if may_exist and self._storage.modified(job.output) is not None:
            return Painted(job.row(facts=finished_facts(job, self._storage)), None)
        if number > MOST_ATTEMPTS:
            raise RunError(
                f"the process ended {number - 1} times while it made this image: perhaps memory ran out, or "
                "it took too long; use a smaller size"
            )
        result = self._runner.run(job, content=content, memory=self._memory_for(job, number))
        assert result is not None  # it is not stopped
        encoded = result.encode(job.output)
        if self._settings.folder:
            # If the disk of this machine is full, the process that started the run writes the result.
            with contextlib.suppress(RunError):
                self._storage.write(job.output, encoded)
                return Painted(job.row(facts=result.facts), None)
        return Painted(job.row(facts=result.facts), encoded)

    def _memory_for(self, job: Job, number: int) -> float | None:
        """Return the limit of the memory in GB for an attempt, or None for no limit."""
        memory = job.config.memory or self._memory
        return memory and memory / 4 ** max(0, number - WHOLE_MEMORY_ATTEMPTS)


def begin_worker(cores: int) -> None:
    """Import TensorFlow in a worker, with as many threads as it has cores.

    Args:
        cores: number of cores; 0 for a worker with a GPU, where TensorFlow chooses the number of threads.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with hidden_stderr():
        import tensorflow as tf
    if cores:
        tf.config.threading.set_intra_op_parallelism_threads(cores)
        tf.config.threading.set_inter_op_parallelism_threads(cores)
        tf.config.set_visible_devices([], "GPU")


def memory_per_worker(node: str, cores: int, *, number: int) -> float | None:
    """Return the memory of a worker in GB: an equal part of the memory that Ray counts on its node.

    Args:
        node: Ray's identifier of the node.
        cores: number of cores of a worker; 0 for a worker with a GPU, which has a memory of its own.
        number: number of workers of the run; all of them may be on this node.

    Returns:
        The memory, or None if it is not limited.
    """
    resources: Mapping[str, float] = next(
        (each["Resources"] for each in ray.nodes() if each["NodeID"] == node), {}
    )
    if not cores or "memory" not in resources:
        return None
    return float(resources["memory"]) / max(1, min(number, resources.get("CPU", 1) // cores)) / 1e9


def result_schema() -> pyarrow.Schema:
    """Return the columns that a result adds to the rows of a dataset.

    Returns:
        ``styles``, ``output``, ``digest``, ``loss``, ``seconds``, ``error`` and ``finished`` as in
        `tfstyle.run.ManifestRow`, and ``result``, the content of the image file if it was not written.
    """
    text = pyarrow.string()
    return pyarrow.schema({
        "styles": pyarrow.list_(text), "output": text, "digest": text, "loss": pyarrow.float64(),
        "seconds": pyarrow.float64(), "error": text, "finished": text, "result": pyarrow.binary(),
    })  # fmt: skip


def result_columns(painted: Painted) -> dict[str, Any]:
    """Return the values of the columns of `result_schema`.

    Args:
        painted: what a worker returned.
    """
    values = {name: getattr(painted.row, name, None) for name in result_schema().names}
    return {**values, "result": painted.encoded}


class SharedSummaries(dict[Hashable, "Summaries"]):
    """Summaries of styles that one worker computes and all workers use.

    Args:
        coordinator: handle of the `Coordinator`.
        styles: paths of the styles.
    """

    def __init__(self, coordinator: Any, styles: tuple[str, ...]) -> None:
        import tensorflow as tf

        super().__init__()
        self._coordinator, self._styles = coordinator, styles
        self._map, self._constant = tf.nest.map_structure, tf.constant

    def __contains__(self, key: Any) -> bool:
        """Return whether there are summaries; wait for another worker that computes them."""
        if super().__contains__(key):
            return True
        while True:
            answer, references = ray.get(self._coordinator.claim.remote((self._styles, key)))
            if answer == "ready":
                super().__setitem__(key, self._map(self._constant, ray.get(references[0])))
                return True
            if answer == "compute":
                return False
            time.sleep(0.05)

    def __setitem__(self, key: Hashable, summaries: Summaries) -> None:
        """Store summaries, also for the other workers."""
        super().__setitem__(key, summaries)
        arrays = self._map(lambda tensor: tensor.numpy(), summaries)
        ray.get(self._coordinator.share.remote((self._styles, key), arrays))

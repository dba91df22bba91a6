"""Batches: many content images and styles in one process, with one compilation for each shape."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import KW_ONLY
from datetime import datetime
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from tfstyle import __version__
from tfstyle.config import StyleConfig, check_single_image_options, check_style_count, upgraded_options
from tfstyle.device import choose_compile, choose_device
from tfstyle.errors import ConfigError, ImageError, OutputError, RunError, TfstyleError
from tfstyle.files import digest, free_path
from tfstyle.images import ImageArray, contact_sheet, load, read_settings, save
from tfstyle.losses import Style, Summaries
from tfstyle.network import Weights
from tfstyle.run.contents import Content
from tfstyle.run.inputs import fit_to_size
from tfstyle.run.manifest import ManifestRow
from tfstyle.run.results import Result
from tfstyle.run.run import Run
from tfstyle.run.setup import Shape, TransferSetup, measured_side
from tfstyle.run.storage import LocalStorage, Storage, base_name, join, named, read_all
from tfstyle.run.transfer import apply_fine_style

THUMBNAIL = 240  # longest side of an image on a contact sheet in pixels
ROWS = 100  # maximum number of content images on one contact sheet
#: Options that do not change the result, and the quality, since the options that it sets are compared. After
#: a job has run out of memory, the batch may be repeated with other values of ``memory`` and ``tile``.
UNCOMPARED_OPTIONS = ("quality", "memory", "tile")
#: XLA takes minutes to compile a shape. With XLA the sides of images are padded to multiples of this number
#: of pixels, so that images of similar shapes are compiled once.
XLA_MULTIPLE = 64
#: Hexadecimal digits of the digest in the name of a result: two of 100,000 names agree once in 200 batches.
DIGEST_LENGTH = 10
#: Characters and bytes of an image's name in the name of a result. File systems allow 255 bytes in all.
MOST_CHARACTERS, MOST_BYTES = 60, 100
#: Number of style summaries that are stored. Each size of the content images that is below the config's
#: ``size`` needs one per scale.
MOST_SUMMARIES = 50
REPLACE_HINT = "replace it with overwrite=True, or choose another folder"


@dataclasses.dataclass(frozen=True)
class Job:
    """The description of one result of a batch.

    Attributes:
        content: path of the content image.
        styles: paths of the style images: one, or several that are blended.
        output: path of the result.
        config: the options of the result.
    """

    content: str
    styles: tuple[str, ...]
    _: KW_ONLY
    output: str
    config: StyleConfig

    @property
    def name(self) -> str:
        """The name of the result in the folder of the batch."""
        return base_name(self.output)

    def row(self, *, facts: Mapping[str, Any] | None = None, error: str | None = None) -> ManifestRow:
        """Return the row of the manifest for this job.

        Args:
            facts: the facts of the result, as `JobRunner.run` returns them, or None without a result.
            error: the message of the error without a result.
        """
        facts = facts or {}
        return ManifestRow(
            content=self.content,
            styles=list(self.styles),
            output=self.name,
            options=_options_of(self.config),
            digest=digest(list(facts["sources"].values())) if facts else None,
            loss=facts.get("loss"),
            seconds=facts.get("seconds"),
            error=error,
        )


def plan_jobs(
    contents: Iterable[Content], styles: Sequence[str], config: StyleConfig, *, folder: str, suffix: str
) -> list[Job]:
    """Return a job for each content image with each style image.

    If the config has ``style_blend``, return one job for each content image, with all styles blended. The
    name of a result consists of the names of its content and style image and of a digest, which depends on
    the key of the content image, on the names of the styles, and on those options that are not at their
    defaults. It does not depend on the other images of the batch.

    Args:
        contents: the content images.
        styles: paths of the style images.
        config: the options.
        folder: folder of the results.
        suffix: suffix of the results' names, such as ``.png``.

    Raises:
        ConfigError: the config has masks, which belong to one image, an option for each style does not have
            one number per style, or two results would have the same name.

    Example:
        >>> from tfstyle import StyleConfig
        >>> from tfstyle.run import Content, plan_jobs
        >>> contents = [Content("photos/cat.jpg", "cat.jpg"), Content("photos/dog.jpg", "dog.jpg")]
        >>> jobs = plan_jobs(contents, ["waves.jpg"], StyleConfig(), folder="results", suffix=".png")
        >>> [job.name.split("-")[0] for job in jobs]  # such as cat_waves-1b1edab05f.png
        ['cat_waves', 'dog_waves']
    """
    check_single_image_options(config)
    check_style_count(config, len(styles))
    blended = config.style_blend is not None
    groups = [tuple(styles)] if blended else [(style,) for style in styles]
    configs = [config if blended else _config_of_style(config, index) for index in range(len(groups))]
    changes = [_changed_options(style_config) for style_config in configs]
    jobs: dict[str, Job] = {}
    for content in contents:
        for group, style_config, options in zip(groups, configs, changes, strict=True):
            output = join(folder, f"{_result_name(content, group, options=options)}{suffix}")
            if output in jobs:
                first = jobs[output]
                raise ConfigError(
                    f"{output} would be the result of {first.content} with {first.styles[0]} and also of "
                    f"{content.path} with {group[0]}; rename one of the images"
                )
            jobs[output] = Job(content.path, group, output=output, config=style_config)
    return list(jobs.values())


@functools.lru_cache(maxsize=100)
def _options_of(config: StyleConfig) -> Mapping[str, Any]:
    """Return the options of a config; all rows of a manifest share them."""
    return config.as_dict()


def _changed_options(config: StyleConfig) -> dict[str, Any]:
    """Return the options that are not at their defaults and may change the result."""
    defaults = StyleConfig().as_dict()
    return {
        name: value
        for name, value in config.as_dict().items()
        if value != defaults[name] and name not in UNCOMPARED_OPTIONS
    }


def _result_name(content: Content, styles: Sequence[str], *, options: Mapping[str, Any]) -> str:
    """Return the name of a result without its suffix."""
    identity = json.dumps([content.key, [base_name(style) for style in styles], options], sort_keys=True)
    short = digest(identity)[:DIGEST_LENGTH]
    names = [_short_stem(path) for path in (content.path, *styles[:1])]
    return f"{names[0]}-{short}" if len(styles) > 1 else f"{'_'.join(names)}-{short}"


def _short_stem(path: str) -> str:
    """Return the name of a file without its suffix, shortened to `MOST_CHARACTERS` and `MOST_BYTES`."""
    stem = PurePosixPath(base_name(path)).stem[:MOST_CHARACTERS]
    return stem.encode("utf-8", "surrogateescape")[:MOST_BYTES].decode("utf-8", "ignore")


def _config_of_style(config: StyleConfig, index: int) -> StyleConfig:
    """Return the config for one of several styles that are used one at a time."""
    changes = {}
    for name in ("style_scale", "style_size"):
        numbers = getattr(config, name)
        if numbers is not None:
            changes[name] = (numbers[index % len(numbers)],)
    return config.replace(changes)


class StyleFile(NamedTuple):
    """A style of a batch, as it is read and sent to other processes.

    Attributes:
        content: the content of the image file, or the style that was extracted before.
        digest: SHA-256 digest of the file as a hexadecimal string.
    """

    content: bytes | Style
    digest: str


def read_style_file(path: str, storage: Storage) -> StyleFile:
    """Return a style file.

    Args:
        path: path of an image, or of the ``.npz`` file of a style on this machine.
        storage: where the file is.

    Raises:
        ImageError, RunError: as for `Storage.open`; or the ``.npz`` file is not a style file.
    """
    style = Style.from_source(path) if PurePath(path).suffix.lower() == ".npz" else None
    content = read_all(storage, path).read()
    return StyleFile(style or content, hashlib.sha256(content).hexdigest())


class JobRunner:
    """Runs the jobs of a batch one after another, with the same encoder and compiled step.

    Args:
        storage: where the images are; by default the files of this machine.
        read_style: function that returns the style file at a path; by default `read_style_file`.
        weights: the weights that the jobs' config names, if they were loaded before.
        summaries: function that returns the cache of the style summaries for the paths of the styles of a
            job; by default each group of styles has a dict.

    Example:
        >>> import numpy as np
        >>> from tfstyle import StyleConfig
        >>> from tfstyle.images import ImageArray, save
        >>> from tfstyle.run import JobRunner, find_contents, plan_jobs
        >>> for name, seed in (("content.png", 0), ("style.png", 1)):
        ...     pixels = np.random.default_rng(seed).uniform(size=(32, 48, 3)).astype(np.float32)
        ...     save(Path(name), ImageArray(pixels))
        >>> config = StyleConfig(weights="embedded", iterations=2)
        >>> jobs = plan_jobs(
        ...     find_contents("content.png"), ["style.png"], config, folder="results", suffix=".png"
        ... )
        >>> runner = JobRunner()
        >>> [runner.run(job).image.shape for job in jobs]
        [(32, 48, 3)]
    """

    def __init__(
        self,
        storage: Storage | None = None,
        *,
        read_style: Callable[[str], StyleFile] | None = None,
        weights: Weights | None = None,
        summaries: Callable[[tuple[str, ...]], MutableMapping[Hashable, Summaries]] | None = None,
    ) -> None:
        self._storage = storage or LocalStorage()
        self._read_style = read_style or functools.partial(read_style_file, storage=self._storage)
        self._weights = weights
        self._summaries = summaries or (lambda styles: {})
        self._setups: dict[tuple[str, ...], TransferSetup] = {}
        self._styles: dict[tuple[str, ...], list[StyleFile]] = {}
        self._decoded: dict[tuple[str, ...], list[Any]] = {}

    def run(
        self,
        job: Job,
        stop: Callable[[], bool] = lambda: False,
        *,
        content: bytes | None = None,
        memory: float | None = None,
    ) -> Result | None:
        """Return the result of a job, or None if it was stopped.

        The ``facts`` of the result also contain ``sources``, the paths of the files with the digests that
        `is_finished` compares, the ``loss`` at the last iteration, and the ``seconds`` of the optimisation.

        Args:
            job: a job that `plan_jobs` returned.
            stop: called after each iteration. If it returns True, the run ends without a result.
            content: the content of the content image's file; by default it is read from its path.
            memory: limit of the memory in GB in place of the config's.

        Raises:
            ImageError, RunError: the job failed. Other jobs may succeed.
            ConfigError: the options cannot be used.
            WeightsError: the weights cannot be used.
        """
        if job.styles not in self._styles:
            self._styles[job.styles] = [self._read_style(path) for path in job.styles]
        styles = self._styles[job.styles]
        file = read_all(self._storage, job.content) if content is None else named(content, job.content)
        sources = {job.content: hashlib.sha256(file.read()).hexdigest()}
        file.seek(0)
        sources |= {path: style.digest for path, style in zip(job.styles, styles, strict=True)}
        original = load(file, max_pixels=job.config.max_pixels)
        run, (height, width) = self._make_run(job, original, memory or job.config.memory)
        self._setups[job.styles] = run.setup
        for _ in run:
            if stop():
                return None
        for key in list(run.setup.style_summaries)[:-MOST_SUMMARIES]:
            del run.setup.style_summaries[key]
        result, history = run.result(), run.history
        facts = {
            **result.facts, "sources": sources, "loss": history.total[-1],
            "seconds": round(history.seconds[-1], 3),
        }  # fmt: skip
        image = result.image[:height, :width]
        alpha = None if result.alpha is None else result.alpha[:height, :width]
        return dataclasses.replace(result, image=image, alpha=alpha, facts=facts, config=job.config)

    def _make_run(self, job: Job, image: ImageArray, memory: float | None) -> tuple[Run, Shape]:
        """Return the run of a job, and the height and width to which its result is cropped."""
        config = job.config.replace(memory=memory)
        setup = self._setups.get(job.styles)
        if setup is None and self._setups:
            setup = next(iter(self._setups.values())).for_other_styles(self._summaries(job.styles))
        image = fit_to_size(image, config)
        height, width = image.rgb.shape[:2]
        if choose_compile(config.compile, choose_device(config.device).value).value == "xla":
            image = _pad_to_multiple(image, XLA_MULTIPLE)
            config = config.replace(size=math.ceil(measured_side(image.rgb.shape, config)))
        if config.normalize_weights:  # the encoder depends on the content image
            setup = None
        run = Run(image, self._sources(job), config, setup=setup, weights=self._weights)
        if setup is None and not config.normalize_weights:
            run.setup.style_summaries = self._summaries(job.styles)
        return run, (height, width)

    def _sources(self, job: Job) -> list[ImageArray | Style]:
        """Return the styles of a job, decoded once and with the brushwork of ``fine_style``."""
        if job.styles not in self._decoded:
            decoded = [
                file.content if isinstance(file.content, Style)
                else load(named(file.content, path), max_pixels=job.config.max_pixels)
                for path, file in zip(job.styles, self._styles[job.styles], strict=True)
            ]  # fmt: skip
            self._decoded[job.styles] = apply_fine_style(decoded, job.config)
        return self._decoded[job.styles]


def run_jobs(
    jobs: Iterable[Job], stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Job, Result | TfstyleError]]:
    """Run jobs one after another on this machine with one `JobRunner`.

    Args:
        jobs: jobs that `plan_jobs` returned.
        stop: called before each job and after each iteration. If it returns True, the generator ends without
            a result for the current job.

    Yields:
        Each job with its result, or with the ImageError or RunError that ended it. After such an error the
        next job runs.

    Raises:
        ConfigError, WeightsError: as for `JobRunner.run`.
    """
    runner = JobRunner()
    for job in jobs:
        if stop():
            return
        try:
            result = runner.run(job, stop)
        except (ImageError, RunError) as error:
            yield job, error
        except OSError as error:
            yield job, RunError(f"{error.filename}: {error.strerror}")
        else:
            if result is None:
                return
            yield job, result


def _pad_to_multiple(image: ImageArray, multiple: int) -> ImageArray:
    """Return the image, padded by reflection at its right and bottom border to multiples of a side length."""
    height, width = image.rgb.shape[:2]
    padding = [(0, -height % multiple), (0, -width % multiple)]
    rgb = np.pad(image.rgb, [*padding, (0, 0)], mode="symmetric")
    alpha = None if image.alpha is None else np.pad(image.alpha, padding, mode="symmetric")
    return ImageArray(rgb, alpha, bits=image.bits)


class Missing(NamedTuple):
    """What `find_missing` returns.

    Attributes:
        jobs: the jobs without a result.
        rows: the rows of results that are not in the manifest.
        errors: what prevents a job: a file with the name of its result.
    """

    jobs: list[Job]
    rows: list[ManifestRow]
    errors: list[str]


def find_missing(jobs: Iterable[Job], rows: Mapping[str, ManifestRow], *, storage: Storage) -> Missing:
    """Return the jobs of a batch whose results are missing.

    If the manifest has a row for a result and the options are the same, and none of the files was changed
    after it, the result is not opened. Otherwise `is_finished` compares it with its files.

    Args:
        jobs: the jobs.
        rows: name of a result -> its row in the manifest.
        storage: where the files are.
    """
    missing = Missing([], [], [])
    digests: dict[str, str] = {}
    for job in jobs:
        if storage.modified(job.output) is None:
            missing.jobs.append(job)
        elif not _is_unchanged(job, rows.get(job.name), storage):
            try:
                missing.rows.append(job.row(facts=finished_facts(job, storage, digests=digests)))
            except TfstyleError as error:
                missing.errors.append(str(error))
    return missing


def _is_unchanged(job: Job, row: ManifestRow | None, storage: Storage) -> bool:
    """Return whether a result was written before its row, and its row after the last change of its images."""
    if row is None or row.error is not None or not _same_options(job, row.options):
        return False
    try:
        finished = datetime.fromisoformat(row.finished).timestamp()
    except (TypeError, ValueError):
        return False
    times = [storage.modified(path) for path in (job.content, *job.styles, job.output)]
    return all(time is not None and time <= finished for time in times)


def _same_options(job: Job, options: Mapping[str, Any]) -> bool:
    """Return whether a result with these options is that of a job."""
    given = {name: getattr(job.config, name) for name in UNCOMPARED_OPTIONS}
    return {**upgraded_options(dict(options)), **given} == job.config.as_dict()


def is_finished(job: Job, storage: Storage | None = None) -> bool:
    """Return whether the job's result exists and was made from the same files with the same options.

    Args:
        job: a job that `plan_jobs` returned.
        storage: where the files are; by default on this machine.

    Raises:
        OutputError: a file with the result's name exists, and tfstyle did not make it, or made it from other
            images or with other options.
        ImageError, RunError: a content or style file cannot be read.
    """
    storage = storage or LocalStorage()
    if storage.modified(job.output) is None:
        return False
    finished_facts(job, storage)
    return True


def finished_facts(job: Job, storage: Storage, *, digests: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the facts in the existing result of a job.

    Args:
        job: the job.
        storage: where the files are.
        digests: cache of the digests of style files, by their paths.

    Raises:
        OutputError, ImageError, RunError: as for `is_finished`.
    """
    digests = {} if digests is None else digests
    try:
        with storage.open(job.output) as file:
            settings = read_settings(file)
    except ImageError:
        raise OutputError(f"{job.output} exists and was not made by tfstyle; {REPLACE_HINT}") from None
    for path in job.styles:
        if path not in digests:
            digests[path] = _file_digest(path, storage)
    sources = {job.content: _file_digest(job.content, storage)}  # the content image may also be the style
    sources |= {path: digests[path] for path in job.styles}
    facts: dict[str, Any] = settings.get("facts", {})
    # The paths may be others on another machine.
    if list(facts.get("sources", {}).values()) != list(sources.values()):
        raise OutputError(f"{job.output} exists and was made from other images; {REPLACE_HINT}")
    if not _same_options(job, settings["options"]):
        raise OutputError(f"{job.output} exists and was made with other options; {REPLACE_HINT}")
    return facts


def _file_digest(path: str, storage: Storage) -> str:
    """Return the SHA-256 digest of a file as a hexadecimal string."""
    return hashlib.sha256(read_all(storage, path).read()).hexdigest()


def contact_sheets(jobs: Sequence[Job]) -> list[np.ndarray]:
    """Return contact sheets of a batch, with a row for each content image and a column for each style.

    The first row shows the style images, and the first column shows the content images. The cell of a result
    that does not exist is white.

    Args:
        jobs: jobs that `plan_jobs` returned.

    Returns:
        Images, float32 ``[height, width, 3]`` in 0..1. Each shows at most 100 content images.
    """
    contents = list(dict.fromkeys(job.content for job in jobs))
    groups = list(dict.fromkeys(job.styles for job in jobs))
    outputs = {(job.content, job.styles): job.output for job in jobs}

    def thumbnail(path: str | None) -> np.ndarray | None:
        if path is None or not Path(path).is_file():
            return None
        try:
            return load(path).fitted(THUMBNAIL).on_white()
        except TfstyleError:
            return None

    head = [None, *(thumbnail(group[0]) for group in groups)]
    rows = [[thumbnail(c), *(thumbnail(outputs.get((c, g))) for g in groups)] for c in contents]
    return [contact_sheet([head, *rows[k : k + ROWS]], side=THUMBNAIL) for k in range(0, len(rows), ROWS)]


def save_contact_sheets(jobs: Sequence[Job], folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the contact sheets of a batch as ``contact-sheet.jpg``, ``contact-sheet-2.jpg`` and so on.

    A contact sheet of an earlier batch is replaced. If another file has the name, a number is added, such as
    ``contact-sheet_2.jpg``.

    Args:
        jobs: jobs that `plan_jobs` returned.
        folder: folder of the contact sheets.
        overwrite: whether other files with these names are replaced too.

    Returns:
        The paths of the contact sheets.

    Raises:
        OutputError: the folder cannot be written to.
        RunError: writing failed, for example because the disk is full.
    """
    written = []
    for number, sheet in enumerate(contact_sheets(jobs), 1):
        name = f"contact-sheet{f'-{number}' if number > 1 else ''}.jpg"
        path = folder / name if overwrite else free_path(folder / name, may_replace=_is_contact_sheet)
        settings = {"tfstyle": __version__, "options": {}, "facts": {"contact_sheet": number}}
        save(path, ImageArray(sheet), settings=settings, overwrite=True)
        written.append(path)
    return written


def _is_contact_sheet(path: Path) -> bool:
    """Return whether a file is a contact sheet that `save_contact_sheets` wrote."""
    try:
        return "contact_sheet" in read_settings(path).get("facts", {})
    except (TfstyleError, OSError):
        return False

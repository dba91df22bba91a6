"""Batches: many content images and styles in one process, with one compilation for each shape."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY
from pathlib import Path
from typing import Any

import numpy as np

from tfstyle import __version__
from tfstyle.config import StyleConfig, check_single_image_options, check_style_count, upgraded_options
from tfstyle.device import choose_compile, choose_device
from tfstyle.errors import ConfigError, ImageError, OutputError, RunError, TfstyleError
from tfstyle.files import digest, free_path
from tfstyle.images import ImageArray, contact_sheet, load, read_settings, save
from tfstyle.run.inputs import fit_to_size
from tfstyle.run.manifest import ManifestRow
from tfstyle.run.results import Result
from tfstyle.run.run import Run
from tfstyle.run.setup import Shape, TransferSetup, measured_side
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
#: Characters of an image's name in the name of a result.
MOST_CHARACTERS = 60
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

    content: Path
    styles: tuple[Path, ...]
    _: KW_ONLY
    output: Path
    config: StyleConfig

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 digests of the content and style files.

        They are stored in the result, so that `is_finished` recognises it.

        Returns:
            Path of a file -> digest of its bytes as a hexadecimal string.
        """
        return {str(path): _file_digest(path) for path in (self.content, *self.styles)}

    def row(self, *, facts: Mapping[str, Any] | None = None, error: str | None = None) -> ManifestRow:
        """Return the row of the manifest for this job.

        Args:
            facts: the facts of the result, as `run_jobs` returns them, or None without a result.
            error: the message of the error without a result.
        """
        facts = facts or {}
        return ManifestRow(
            content=str(self.content),
            styles=list(map(str, self.styles)),
            output=self.output.name,
            options=self.config.as_dict(),
            digest=digest(list(facts["sources"].values())) if facts else None,
            loss=facts.get("loss"),
            seconds=facts.get("seconds"),
            error=error,
        )


def _file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file as a hexadecimal string. A style file is read once."""
    status = path.stat()
    return _digest_of_version(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest_of_version(path: Path, size: int, modified: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def plan_jobs(
    contents: Sequence[Path],
    styles: Sequence[Path],
    config: StyleConfig,
    *,
    folder: Path,
    suffix: str,
    root: Path | None = None,
) -> list[Job]:
    """Return a job for each content image with each style image.

    If the config has ``style_blend``, return one job for each content image, with all styles blended. The
    name of a result consists of the names of its content and style image and of a digest, which depends on
    the path of the content image below `root`, on the names of the styles, and on those options that are not
    at their defaults. It does not depend on the other images of the batch.

    Args:
        contents: paths of the content images.
        styles: paths of the style images.
        config: the options.
        folder: folder of the results.
        suffix: suffix of the results' names, such as ``.png``.
        root: folder that contains the content images; by default their names count, without folders.

    Raises:
        ConfigError: the config has masks, which belong to one image, an option for each style does not have
            one number per style, or two results would have the same name.

    Example:
        >>> from pathlib import Path
        >>> from tfstyle import StyleConfig
        >>> from tfstyle.run import plan_jobs
        >>> contents, styles = [Path("cat.jpg"), Path("dog.jpg")], [Path("waves.jpg")]
        >>> jobs = plan_jobs(contents, styles, StyleConfig(), folder=Path("results"), suffix=".png")
        >>> [job.output.name.split("-")[0] for job in jobs]  # such as cat_waves-1b1edab05f.png
        ['cat_waves', 'dog_waves']
    """
    check_single_image_options(config)
    check_style_count(config, len(styles))
    blended = config.style_blend is not None
    groups = [tuple(styles)] if blended else [(style,) for style in styles]
    configs = [config if blended else _config_of_style(config, index) for index in range(len(groups))]
    changes = [_changed_options(style_config) for style_config in configs]
    jobs: dict[Path, Job] = {}
    for content in contents:
        for group, style_config, options in zip(groups, configs, changes, strict=True):
            output = folder / f"{_result_name(content, group, options=options, root=root)}{suffix}"
            if output in jobs:
                first = jobs[output]
                raise ConfigError(
                    f"{output} would be the result of {first.content} with {first.styles[0]} and also of "
                    f"{content} with {group[0]}; rename one of the images"
                )
            jobs[output] = Job(content, group, output=output, config=style_config)
    return list(jobs.values())


def _changed_options(config: StyleConfig) -> dict[str, Any]:
    """Return the options that are not at their defaults and may change the result."""
    defaults = StyleConfig().as_dict()
    return {
        name: value
        for name, value in config.as_dict().items()
        if value != defaults[name] and name not in UNCOMPARED_OPTIONS
    }


def _result_name(
    content: Path, styles: Sequence[Path], *, options: Mapping[str, Any], root: Path | None
) -> str:
    """Return the name of a result without its suffix."""
    key = content.name
    if root is not None and root in content.parents:
        key = content.relative_to(root).as_posix()
    identity = json.dumps([key, [style.name for style in styles], options], sort_keys=True)
    short = digest(identity)[:DIGEST_LENGTH]
    names = [path.stem[:MOST_CHARACTERS] for path in (content, *styles[:1])]
    return f"{names[0]}-{short}" if len(styles) > 1 else f"{'_'.join(names)}-{short}"


def _config_of_style(config: StyleConfig, index: int) -> StyleConfig:
    """Return the config for one of several styles that are used one at a time."""
    changes = {}
    for name in ("style_scale", "style_size"):
        numbers = getattr(config, name)
        if numbers is not None:
            changes[name] = (numbers[index % len(numbers)],)
    return config.replace(changes)


def run_jobs(
    jobs: Sequence[Job], stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Job, Result | TfstyleError]]:
    """Run jobs one after another with the same encoder and compiled step.

    Args:
        jobs: jobs that `plan_jobs` returned.
        stop: called before each job and after each iteration. If it returns True, the generator ends without
            a result for the current job.

    Yields:
        Each job with its result, or with the ImageError or RunError that ended it. After such an error the
        next job runs.

    Raises:
        ConfigError: the options cannot be used.
        WeightsError: the weights cannot be used.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from tfstyle import StyleConfig
        >>> from tfstyle.images import ImageArray, save
        >>> from tfstyle.run import plan_jobs, run_jobs
        >>> for name, seed in (("content.png", 0), ("style.png", 1)):
        ...     pixels = np.random.default_rng(seed).uniform(size=(32, 48, 3)).astype(np.float32)
        ...     save(Path(name), ImageArray(pixels))
        >>> config = StyleConfig(weights="embedded", iterations=2)
        >>> contents, styles = [Path("content.png")], [Path("style.png")]
        >>> jobs = plan_jobs(contents, styles, config, folder=Path("results"), suffix=".png")
        >>> [result.image.shape for _, result in run_jobs(jobs)]
        [(32, 48, 3)]
    """
    setups: dict[tuple[Path, ...], TransferSetup] = {}
    styles: dict[tuple[Path, ...], list[Any]] = {}
    for job in jobs:
        if stop():
            return
        try:
            setup = setups.get(job.styles)
            if setup is None and setups:
                setup = next(iter(setups.values())).for_other_styles()
            if job.styles not in styles:
                styles[job.styles] = apply_fine_style([str(path) for path in job.styles], job.config)
            run, (height, width) = _make_run(job, styles[job.styles], setup)
            setups[job.styles] = run.setup
            for _ in run:
                if stop():
                    return
            result = run.result()
            alpha = None if result.alpha is None else result.alpha[:height, :width]
            history = result.history
            facts = {
                **result.facts, "sources": job.sources(), "loss": history.total[-1],
                "seconds": round(history.seconds[-1], 3),
            }  # fmt: skip
            image = result.image[:height, :width]
            yield job, dataclasses.replace(result, image=image, alpha=alpha, facts=facts, config=job.config)
        except (ImageError, RunError) as error:
            yield job, error
        except OSError as error:
            yield job, RunError(f"{error.filename}: {error.strerror}")


def _make_run(job: Job, styles: list[Any], setup: TransferSetup | None) -> tuple[Run, Shape]:
    """Return the run of a job, and the height and width to which its result is cropped."""
    config = job.config
    image = fit_to_size(load(job.content, max_pixels=config.max_pixels), config)
    height, width = image.rgb.shape[:2]
    if choose_compile(config.compile, choose_device(config.device).value).value == "xla":
        image = _pad_to_multiple(image, XLA_MULTIPLE)
        config = config.replace(size=math.ceil(measured_side(image.rgb.shape, config)))
    if config.normalize_weights:  # the encoder depends on the content image
        setup = None
    return Run(image, styles, config, setup=setup), (height, width)


def _pad_to_multiple(image: ImageArray, multiple: int) -> ImageArray:
    """Return the image, padded by reflection at its right and bottom border to multiples of a side length."""
    height, width = image.rgb.shape[:2]
    padding = [(0, -height % multiple), (0, -width % multiple)]
    rgb = np.pad(image.rgb, [*padding, (0, 0)], mode="symmetric")
    alpha = None if image.alpha is None else np.pad(image.alpha, padding, mode="symmetric")
    return ImageArray(rgb, alpha, bits=image.bits)


def is_finished(job: Job) -> bool:
    """Return whether the job's result exists and was made from the same files with the same options.

    Args:
        job: a job that `plan_jobs` returned.

    Raises:
        OutputError: a file with the result's name exists, and tfstyle did not make it, or made it from other
            images or with other options.
        OSError: a content or style file cannot be read.
    """
    if not job.output.is_file():
        return False
    try:
        settings = read_settings(job.output)
    except TfstyleError:
        raise OutputError(f"{job.output} exists and was not made by tfstyle; {REPLACE_HINT}") from None
    sources = settings.get("facts", {}).get("sources", {})
    if list(sources.values()) != list(job.sources().values()):  # the paths may be others on another machine
        raise OutputError(f"{job.output} exists and was made from other images; {REPLACE_HINT}")
    options = {
        **upgraded_options(settings.get("options", {})),
        **{name: getattr(job.config, name) for name in UNCOMPARED_OPTIONS},
    }
    if options != job.config.as_dict():
        raise OutputError(f"{job.output} exists and was made with other options; {REPLACE_HINT}")
    return True


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

    def thumbnail(path: Path | None) -> np.ndarray | None:
        if path is None or not path.is_file():
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

"""Many images in one process: every content image in every style, one compilation for each shape."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY
from pathlib import Path
from typing import Any

import numpy as np

from tfstyle.config import StyleConfig, check_single_image_options, check_style_count
from tfstyle.device import choose_compile, choose_device
from tfstyle.errors import ConfigError, ImageError, OutputError, RunError, TfstyleError
from tfstyle.images import ImageArray, contact_sheet, load, read_settings
from tfstyle.run.inputs import fit_to_size
from tfstyle.run.results import Result
from tfstyle.run.run import Run
from tfstyle.run.setup import Shape, TransferSetup, measured_side
from tfstyle.run.transfer import apply_fine_style

THUMBNAIL = 240  # pixels of the longest side of an image on a contact sheet
ROWS = 100  # content images on one contact sheet
#: Options that change no result, so that an image that ran out of memory can be tried with others.
UNCOMPARED_OPTIONS = ("memory", "tile")
#: Pixels. XLA takes minutes to compile a shape, so that with it images are padded to multiples of this.
XLA_MULTIPLE = 64


@dataclasses.dataclass(frozen=True)
class Job:
    """One result to be made.

    Attributes:
        content: path of the content image.
        styles: paths of one style image, or of several to blend.
        output: path of the result.
        config: its options.
    """

    content: Path
    styles: tuple[Path, ...]
    _: KW_ONLY
    output: Path
    config: StyleConfig

    def sources(self) -> dict[str, str]:
        """Path -> SHA-256 of the content and style files; stored in the result to recognise it."""
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in (self.content, *self.styles)
        }


def plan_jobs(
    contents: Sequence[Path], styles: Sequence[Path], config: StyleConfig, *, folder: Path, suffix: str
) -> list[Job]:
    """Plan a job for each content image with each style, or with all styles where the config blends them.

    Args:
        contents, styles: paths of images.
        config: the options.
        folder: of the results.
        suffix: of the results' names, such as ``.png``.

    Raises:
        ConfigError: the config has masks, which belong to one image, or numbers that do not go with the
            styles; or two results would have one name.
    """
    check_single_image_options(config)
    check_style_count(config, len(styles))
    blended = config.style_blend is not None
    groups = [tuple(styles)] if blended else [(style,) for style in styles]
    content_names, style_names = _short_names(contents), _short_names(styles)
    jobs: dict[Path, Job] = {}
    for content in contents:
        for index, group in enumerate(groups):
            style_name = "" if blended else f"_{style_names[group[0]]}"
            output = folder / f"{content_names[content]}{style_name}{suffix}"
            if output in jobs:
                first = jobs[output]
                raise ConfigError(
                    f"{output} would be {first.content} in {first.styles[0]} and {content} in {group[0]}; "
                    "rename one"
                )
            style_config = config if blended else _config_of_style(config, index)
            jobs[output] = Job(content, group, output=output, config=style_config)
    return list(jobs.values())


def _config_of_style(config: StyleConfig, index: int) -> StyleConfig:
    """The config for one of several styles that are used one at a time."""
    changes = {}
    for name in ("style_scale", "style_size"):
        numbers = getattr(config, name)
        if numbers is not None:
            changes[name] = (numbers[index % len(numbers)],)
    return config.replace(changes)


def _short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A unique name for each path: its stem, its stem with the suffix, or these with the folders before."""
    for short_name in (
        lambda path: path.stem,
        lambda path: path.name.replace(".", "-"),
        lambda path: "-".join(path.with_name(path.name.replace(".", "-")).parts).strip("/\\-"),
    ):
        names = {path: short_name(path) for path in paths}
        if len(set(names.values())) == len(names):
            break
    return names


def run_jobs(
    jobs: Sequence[Job], stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Job, Result | TfstyleError]]:
    """Run jobs one after the other with one encoder and one compiled step.

    Args:
        jobs: of `plan_jobs`.
        stop: called after every iteration; the generator ends where it returns True, without a result of
            the job that is running.

    Yields:
        Each job with its result, or with the error that ended it; the other jobs go on.

    Raises:
        ConfigError, WeightsError: the options or the weights cannot be used by any job.
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
            facts = {**result.facts, "sources": job.sources()}
            image = result.image[:height, :width]
            yield job, dataclasses.replace(result, image=image, alpha=alpha, facts=facts, config=job.config)
        except (ImageError, RunError) as error:
            yield job, error
        except OSError as error:
            yield job, RunError(f"{error.filename}: {error.strerror}")


def _make_run(job: Job, styles: list[Any], setup: TransferSetup | None) -> tuple[Run, Shape]:
    """The run of a job, and the height and width that its result is cropped to."""
    config = job.config
    image = fit_to_size(load(job.content, max_pixels=config.max_pixels), config)
    height, width = image.rgb.shape[:2]
    if choose_compile(config.compile, choose_device(config.device).value).value == "xla":
        image = _pad_to_multiple(image, XLA_MULTIPLE)
        config = config.replace(size=math.ceil(measured_side(image.rgb.shape, config)))
    if config.normalize_weights:  # then the encoder depends on the content image
        setup = None
    return Run(image, styles, config, setup=setup), (height, width)


def _pad_to_multiple(image: ImageArray, multiple: int) -> ImageArray:
    """Pad the image at its right and bottom border by reflection, to multiples of ``multiple`` pixels."""
    height, width = image.rgb.shape[:2]
    padding = [(0, -height % multiple), (0, -width % multiple)]
    rgb = np.pad(image.rgb, [*padding, (0, 0)], mode="symmetric")
    alpha = None if image.alpha is None else np.pad(image.alpha, padding, mode="symmetric")
    return ImageArray(rgb, alpha, bits=image.bits)


def is_finished(job: Job) -> bool:
    """Whether the job's result exists, made from the same files with the same options.

    Raises:
        OutputError: another file has its name.
    """
    if not job.output.is_file():
        return False
    try:
        settings = read_settings(job.output)
    except TfstyleError as error:
        raise OutputError(f"{job.output} is there, not made by tfstyle; --overwrite replaces it") from error
    if settings.get("facts", {}).get("sources") != job.sources():
        raise OutputError(f"{job.output} is there, made from other images; --overwrite replaces it")
    options = {
        **settings.get("options", {}),
        **{name: getattr(job.config, name) for name in UNCOMPARED_OPTIONS},
    }
    if options != job.config.as_dict():
        raise OutputError(f"{job.output} is there, made with other options; --overwrite replaces it")
    return True


def contact_sheets(jobs: Sequence[Job]) -> list[np.ndarray]:
    """Contact sheets: a row for each content image, a column for each style, blank without a result.

    Returns:
        float32 ``[height, width, 3]`` each, of `ROWS` content images at most.
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

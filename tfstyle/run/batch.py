"""Many pictures in one process: contents against styles, one compilation for each shape."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfstyle.config import StyleConfig
from tfstyle.device import choose_compile, choose_device
from tfstyle.errors import ConfigError, ImageError, OutputError, RunError, TfstyleError
from tfstyle.images import ImageArray, contact_sheet, load, read_settings
from tfstyle.run.inputs import counted_side, fit_to_size
from tfstyle.run.results import Result
from tfstyle.run.run import Run
from tfstyle.run.setup import TransferSetup
from tfstyle.run.transfer import apply_fine_style

CELL, ROWS = 240, 100  # pixels of a thumbnail, contents on a sheet
UNCOMPARED_OPTIONS = (
    "memory",
    "tile",
)  # options that change no picture: what ran out of memory may be tried with others
BUCKET = 64  # pixels; on XLA, which takes minutes to compile a shape, pictures grow to multiples of it


@dataclasses.dataclass(frozen=True)
class Job:
    """One picture to be painted.

    Attributes:
        content: its file.
        styles: files, one, or several to blend.
        output: where the picture goes.
        config: its options.
    """

    content: Path
    styles: tuple[Path, ...]
    output: Path
    config: StyleConfig

    def sources(self) -> dict[str, str]:
        """What it is made of -> SHA-256; stored in the picture, so that another's is not taken for it."""
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in (self.content, *self.styles)
        }


def plan_jobs(
    contents: Sequence[Path], styles: Sequence[Path], config: StyleConfig, folder: Path, ending: str
) -> list[Job]:
    """Each content with each style, or with all of them blended where the config has blend weights.

    Raises:
        ConfigError: the config has options for the places of one picture, or numbers that do not go with
            the styles; or two pictures would have one name.
    """
    for option in ("masks", "style_masks", "content_mask"):
        if getattr(config, option) is not None:
            raise ConfigError(f"{option} belongs to one picture; batch cannot take it")
    together = config.style_blend is not None
    groups = [tuple(styles)] if together else [(style,) for style in styles]
    names, style_names = _names(contents), _names(styles)
    found: dict[Path, Job] = {}
    for content in contents:
        for index, group in enumerate(groups):
            suffix = "" if together else f"_{style_names[group[0]]}"
            output = folder / f"{names[content]}{suffix}{ending}"
            own = config if together else _own_numbers(config, index, len(styles))
            if output in found:
                first = found[output]
                raise ConfigError(
                    f"{output} would be {first.content} in {first.styles[0]} and {content} in {group[0]}; "
                    "rename one"
                )
            found[output] = Job(content, group, output, own)
    return list(found.values())


def _own_numbers(config: StyleConfig, index: int, count: int) -> StyleConfig:
    """The config of one style of several that are painted by themselves."""
    changes = {}
    for name in ("style_scale", "style_size"):
        numbers = getattr(config, name)
        if numbers is not None and len(numbers) not in (1, count):
            raise ConfigError(f"{name} has {len(numbers)} numbers for {count} style images")
        if numbers is not None:
            changes[name] = (numbers[index % len(numbers)],)
    return config.replace(changes)


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Short names, no two alike: the stem, with the ending, or with the folders before it."""
    for name in (
        lambda path: path.stem,
        lambda path: path.name.replace(".", "-"),
        lambda path: "-".join(path.with_name(path.name.replace(".", "-")).parts).strip("/\\-"),
    ):
        names = {path: name(path) for path in paths}
        if len(set(names.values())) == len(names):
            break
    return names


def run_jobs(
    todo: Sequence[Job], stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Job, Result | TfstyleError]]:
    """Paint jobs one after the other with one encoder and one compiled step.

    Args:
        todo: of `jobs`.
        stop: asked after every iteration; where it says so the generator ends, with nothing of that job.

    Yields:
        each job with its result, or with the error that it ended with; the others go on.

    Raises:
        ConfigError, WeightsError: what no job could be painted with.
    """
    shared: dict[tuple[Path, ...], TransferSetup] = {}
    mixed: dict[tuple[Path, ...], list[Any]] = {}
    for job in todo:
        if stop():
            return
        try:
            known = shared.get(job.styles) or next(iter(shared.values()), None)
            if known is not None and job.styles not in shared:
                known = dataclasses.replace(known, summaries={})  # of other styles
            if job.styles not in mixed:
                mixed[job.styles] = apply_fine_style([str(style) for style in job.styles], job.config)
            run, (height, width) = _run(job, mixed[job.styles], known)
            shared[job.styles] = run.preparation
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


def _run(job: Job, styles: list[Any], known: TransferSetup | None) -> tuple[Run, tuple[int, int]]:
    """A run, and the height and width of what is to be cut from its result."""
    config = job.config
    picture = fit_to_size(load(job.content, config.max_pixels), config)
    height, width = picture.rgb.shape[:2]
    if choose_compile(config.compile, choose_device(config.device).value).value == "xla":
        picture = _grown(picture, BUCKET)
        config = config.replace({"size": math.ceil(counted_side(picture.rgb.shape, config))})
    known = None if config.normalize_weights else known  # those depend on the content
    return Run(picture, styles, config, preparation=known), (height, width)


def _grown(picture: ImageArray, bucket: int) -> ImageArray:
    """The picture continued, mirrored, to the right and below up to multiples of so many pixels."""
    height, width = picture.rgb.shape[:2]
    more = [(0, -height % bucket), (0, -width % bucket)]
    rgb = np.pad(picture.rgb, [*more, (0, 0)], mode="symmetric")
    alpha = None if picture.alpha is None else np.pad(picture.alpha, more, mode="symmetric")
    return ImageArray(rgb, alpha, picture.bits)


def is_finished(job: Job) -> bool:
    """Whether the job's picture is there, made from the same files with the same options.

    Raises:
        OutputError: another picture is there.
    """
    if not job.output.is_file():
        return False
    try:
        settings = read_settings(job.output)
    except TfstyleError as error:
        raise OutputError(f"{job.output} is there, not made by tfstyle; --overwrite replaces it") from error
    if settings.get("facts", {}).get("sources") != job.sources():
        raise OutputError(f"{job.output} is there, made from other pictures; --overwrite replaces it")
    options = {
        **settings.get("options", {}),
        **{name: getattr(job.config, name) for name in UNCOMPARED_OPTIONS},
    }
    if options != job.config.as_dict():
        raise OutputError(f"{job.output} is there, made with other options; --overwrite replaces it")
    return True


def contact_sheets(made: Sequence[Job]) -> list[np.ndarray]:
    """Contact sheets: a row for each content, a column for each style, blank where a picture is missing.

    Returns:
        float32 ``[height, width, 3]`` each, of `ROWS` contents at most.
    """
    contents = list(dict.fromkeys(job.content for job in made))
    groups = list(dict.fromkeys(job.styles for job in made))
    outputs = {(job.content, job.styles): job.output for job in made}

    def thumbnail(path: Path | None) -> np.ndarray | None:
        if path is None or not path.is_file():
            return None
        try:
            return load(path).fitted(CELL).on_white()
        except TfstyleError:
            return None

    head = [None, *(thumbnail(group[0]) for group in groups)]
    rows = [[thumbnail(c), *(thumbnail(outputs.get((c, g))) for g in groups)] for c in contents]
    return [contact_sheet([head, *rows[k : k + ROWS]], CELL) for k in range(0, len(rows), ROWS)]

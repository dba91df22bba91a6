"""Many pictures in one process: contents against styles, one compilation for each shape."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tfstyle.config import StyleConfig
from tfstyle.device import choose_compile, choose_device
from tfstyle.errors import ConfigError, TfstyleError
from tfstyle.images import Picture, load
from tfstyle.inputs import fitted
from tfstyle.preparation import Preparation
from tfstyle.results import Result
from tfstyle.runs import Run
from tfstyle.saving import read_settings
from tfstyle.sheets import contact_sheet

log = logging.getLogger(__name__)

BUCKET = 64  # pixels; on XLA, which takes minutes to compile a shape, pictures grow to multiples of it


@dataclasses.dataclass(frozen=True)
class Job:
    """One picture to be painted.

    Attributes:
        content: its file.
        styles: files, one, or several to blend.
        output: where the picture goes.
    """

    content: Path
    styles: tuple[Path, ...]
    output: Path


def jobs(
    contents: Sequence[Path], styles: Sequence[Path], config: StyleConfig, folder: Path, ending: str
) -> list[Job]:
    """Each content with each style, or with all of them blended where the config has blend weights.

    Raises:
        ConfigError: the config has options for the styles or places of one picture.
    """
    for option in ("masks", "style_masks", "content_mask"):
        if getattr(config, option) is not None:
            raise ConfigError(f"{option} belongs to one picture; batch cannot take it")
    together = config.style_blend is not None
    groups = [tuple(styles)] if together else [(style,) for style in styles]
    names, style_names = _names(contents), _names(styles)
    found = []
    for content in contents:
        for group in groups:
            suffix = "" if together else f"_{style_names[group[0]]}"
            found.append(Job(content, group, folder / f"{names[content]}{suffix}{ending}"))
    return found


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


def paint(
    todo: Sequence[Job], config: StyleConfig, stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Job, Result | TfstyleError]]:
    """Paint jobs one after the other with one encoder and one compiled step.

    Args:
        todo: of `jobs`.
        config: of all.
        stop: asked after every iteration; where it says so the generator ends, with nothing of that job.

    Yields:
        each job with its result, or with the error that it ended with; the others go on.
    """
    shared: dict[tuple[Path, ...], Preparation] = {}
    for job in todo:
        if stop():
            return
        try:
            known = shared.get(job.styles) or next(iter(shared.values()), None)
            if known is not None and job.styles not in shared:
                known = dataclasses.replace(known, summaries={})  # of other styles
            run, (height, width) = _run(job, config, None if config.normalize_weights else known)
            shared[job.styles] = run.preparation
            for _ in run:
                if stop():
                    return
            result = run.result()
            alpha = None if result.alpha is None else result.alpha[:height, :width]
            yield job, dataclasses.replace(result, image=result.image[:height, :width], alpha=alpha)
        except TfstyleError as error:
            yield job, error


def _run(job: Job, config: StyleConfig, preparation: Preparation | None) -> tuple[Run, tuple[int, int]]:
    """A run, and the height and width of what is to be cut from its result."""
    picture = fitted(load(job.content, config.max_pixels), config)
    height, width = picture.rgb.shape[:2]
    if choose_compile(config.compile, choose_device(config.device).value).value == "xla":
        picture = _grown(picture, BUCKET)
    styles = [str(style) for style in job.styles]
    sized = config.replace({"size": max(picture.rgb.shape), "size_of": "longest"})
    return Run(picture, styles, sized, preparation=preparation), (height, width)


def _grown(picture: Picture, bucket: int) -> Picture:
    """The picture continued, mirrored, to the right and below up to multiples of so many pixels."""
    height, width = picture.rgb.shape[:2]
    more = [(0, -height % bucket), (0, -width % bucket)]
    rgb = np.pad(picture.rgb, [*more, (0, 0)], mode="symmetric")
    alpha = None if picture.alpha is None else np.pad(picture.alpha, more, mode="symmetric")
    return Picture(rgb, alpha, picture.bits)


def is_finished(job: Job, config: StyleConfig) -> bool:
    """Whether the job's picture is there, from this run or one before; it says so if options differ."""
    if not job.output.is_file():
        return False
    try:
        options = read_settings(job.output)["options"]
    except (TfstyleError, KeyError):
        log.warning("%s is there, and not made by tfstyle; left as it is", job.output)
        return True
    # A picture remembers the size that it was made in, which depends on the content.
    sized = ("size", "size_of")
    now = {key: value for key, value in config.as_dict().items() if key not in sized}
    if {key: value for key, value in options.items() if key not in sized} != now:
        log.warning("%s was made with other options; --overwrite makes it again", job.output)
    return True


def overview(made: Sequence[Job]) -> np.ndarray:
    """A contact sheet: a row for each content, a column for each style, blank where a picture is missing.

    Returns:
        float32 ``[height, width, 3]``.
    """
    contents = list(dict.fromkeys(job.content for job in made))
    groups = list(dict.fromkeys(job.styles for job in made))
    outputs = {(job.content, job.styles): job.output for job in made}

    def thumbnail(path: Path | None) -> np.ndarray | None:
        if path is None or not path.is_file():
            return None
        try:
            return load(path).fitted(240).on_white()
        except TfstyleError:
            return None

    head = [None, *(thumbnail(group[0]) for group in groups)]
    rows = [[thumbnail(c), *(thumbnail(outputs.get((c, g))) for g in groups)] for c in contents]
    return contact_sheet([head, *rows])

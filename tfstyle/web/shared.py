"""What the views of a page share: the inputs beside them, the jobs, and the display of their progress."""

from __future__ import annotations

import dataclasses
import functools
import html
import inspect
import logging
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError, TfstyleError
from tfstyle.web.controls import options_of
from tfstyle.web.limits import Limits, make_config
from tfstyle.web.painting import Preview
from tfstyle.web.visits import Visit, Visits

if TYPE_CHECKING:
    from tfstyle.run import Result

log = logging.getLogger(__name__)

#: A component -> its new value or update.
Updates = dict[Any, Any]
#: All jobs of a server wait for each other. Their users see their place in the queue.
QUEUE = {"concurrency_id": "jobs", "show_progress": "minimal", "api_visibility": "private"}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The components beside the views: images and settings.

    Attributes:
        content: the content image.
        styles: the style images.
        settings: strength, size, quality, colours and preset, followed by the advanced controls.
    """

    content: Any
    styles: Any
    settings: Sequence[Any]

    @property
    def all(self) -> list[Any]:
        """All of them, as the inputs of an event."""
        return [self.content, self.styles, *self.settings]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a user has chosen when a job begins.

    Attributes:
        visit: the visit of the user.
        content: path of the content image.
        styles: paths of the style images.
        config: the options.
    """

    visit: Visit
    content: str
    styles: list[str]
    config: StyleConfig

    def with_options(self, **options: Any) -> Chosen:
        """Return a copy with other options."""
        return dataclasses.replace(self, config=self.config.replace(options))


@dataclass(frozen=True)
class Context:
    """The visits and the limits of a page."""

    visits: Visits
    limits: Limits

    def begin(self, request: gr.Request) -> None:
        """Forget an earlier Stop when a user starts a job, before it waits in the queue."""
        self.visits.of(request.session_hash).stopped.clear()

    def choose(self, request: gr.Request, values: Sequence[Any], *, content_needed: bool = True) -> Chosen:
        """Return what the user has chosen.

        Args:
            request: the request of the event.
            values: the values of `Inputs.all`.
            content_needed: whether the job needs a content image.

        Raises:
            TfstyleError: an image is missing or too large, or an option is wrong.
        """
        content, styles, *settings = values
        visit = self.visits.of(request.session_hash)
        if visit.stopped.is_set():
            raise ConfigError("stopped before the job began")
        paths = paths_of(styles)
        visit.add_uploads(content, *paths)
        if not content_needed and not content and paths:
            content = paths[0]
        self.limits.check_files(content, paths)
        return Chosen(visit=visit, content=content, styles=paths, config=self.config(settings))

    def config(self, settings: Sequence[Any]) -> StyleConfig:
        """Return the config for the values of `Inputs.settings`.

        Raises:
            ConfigError: a value is wrong or exceeds the limits.
        """
        strength, size, quality, colours, preset, *advanced = settings
        options = options_of(advanced) | {"preset": preset, "size": int(size)}
        if preset == "default":
            options["quality"] = quality
        if colours:
            options["color"] = "luminance"
        config = make_config(options, self.limits)
        return config if strength == 1 else config.replace(style_weight=strength * config.style_weight)


def paths_of(styles: Any) -> list[str]:
    """Return the files of a gallery's value, which may have captions."""
    return [str(item[0] if isinstance(item, (tuple, list)) else item) for item in styles or ()]


def job(display: Any) -> Callable[[Callable[..., Iterator[Updates]]], Callable[..., Iterator[Updates]]]:
    """Decorate the generator of a job, so that its errors are one line in a display.

    Args:
        display: the HTML component of the view.
    """

    def decorate(function: Callable[..., Iterator[Updates]]) -> Callable[..., Iterator[Updates]]:
        @functools.wraps(function)
        def run(*arguments: Any) -> Iterator[Updates]:
            yield {display: status("preparing")}
            try:
                yield from function(*arguments)
            except TfstyleError as error:
                yield {display: status(f"error: {error_line(error)}")}
            except gr.Error:
                raise
            except Exception:
                log.exception("a job of the page failed")
                yield {display: status("error: the job failed; the log of the server says why")}

        run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        return run

    return decorate


def error_line(error: TfstyleError) -> str:
    """Return the message of an error with the names of uploaded files, without the folders of the server."""
    return re.sub(r"\S*/[0-9a-f]{64}/", "", str(error))


def previews(
    updates: Iterator[Preview | Result], display: Any, *, before: str = ""
) -> Generator[Updates, None, Result]:
    """Show the previews of a style transfer in a display, and return its result.

    Args:
        updates: what `tfstyle.web.painting.transfer` yields.
        display: the HTML component of the view.
        before: text before that of the previews.
    """
    result: Any = None
    for update in updates:
        if isinstance(update, Preview):
            yield {display: status(before + update.text, update)}
        else:
            result = update
    return result


def last_result(updates: Iterator[Preview | Result]) -> Result:
    """Return the result of a style transfer without showing its previews."""
    result: Any = None
    for update in updates:
        result = update
    return result


def status(text: str, preview: Preview | None = None) -> str:
    """Return the HTML of a preview with its bar, and a line of text, which a screen reader announces."""
    bar = image = ""
    if preview is not None:
        bar = f'<progress value="{preview.progress:.4f}" max="1" aria-label="progress"></progress>'
        image = f'<img src="{preview.image}" alt="the image so far">'
    return f'<div class="tfstyle-preview">{bar}<p role="status">{html.escape(text)}</p>{image}</div>'


def done(result: Result) -> str:
    """Return one line about a finished result."""
    height, width = result.image.shape[:2]
    count = len(result.history.total)
    return f"{width} x {height} pixels, {count} iterations in {result.history.seconds[-1]:.1f} s"


def saved(chosen: Chosen, result: Result, *, kind: str) -> tuple[str, str]:
    """Write a result to a PNG file of the visit, and return its path and its caption in the gallery.

    Args:
        chosen: what the user has chosen.
        result: the result.
        kind: the kind of the result, such as ``blend``.
    """
    file = chosen.visit.new_file(".png")
    result.save(file)
    return str(file), f"{kind}, {done(result)}"


def result_image(label: str, **options: Any) -> gr.Image:
    """Return a component that shows an image of the server, without a button that would share it."""
    return gr.Image(
        label=label, type="filepath", interactive=False, buttons=["download", "fullscreen"], **options
    )


def save_image(image: Any, path: Path) -> str:
    """Write an image, float32 ``[height, width, 3]`` in 0..1, and return the path as a string."""
    from tfstyle.images import ImageArray, save

    save(path, ImageArray(image))
    return str(path)

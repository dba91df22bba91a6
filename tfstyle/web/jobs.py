"""The jobs of a page: what a user has chosen, how a job starts and ends, and how its progress is shown."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr

from tfstyle.config import StyleConfig
from tfstyle.errors import RunError, TfstyleError
from tfstyle.presets import preset as find_preset
from tfstyle.web.controls import options_of
from tfstyle.web.display import error_line, status
from tfstyle.web.limits import NO_SPACE, Limits, make_config
from tfstyle.web.painting import Preview, SetupCache, Stopped, transfer
from tfstyle.web.visits import Visit, Visits
from tfstyle.web.weights import ServerWeights

if TYPE_CHECKING:
    from tfstyle.losses import Masks
    from tfstyle.run import Result

log = logging.getLogger(__name__)

#: A component -> its new value or update.
Updates = dict[Any, Any]
#: Time in seconds by which the updates of a job are delayed after Stop. The line that answers the click could
#: otherwise arrive after the result, and replace it.
STOP_SECONDS = 0.3
#: The jobs of a server run one after the other. Users whose jobs wait see their place in the queue.
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
        config: the options, with the weights of the server in place of ``auto``.
        public_weights: what users read instead of the path of the weights.
        limits: the limits of the page.
        setups: the setup of the last job.
        began: time at which the job began, as `time.monotonic` gives it.
    """

    visit: Visit
    content: str
    styles: list[str]
    config: StyleConfig
    public_weights: str
    limits: Limits
    setups: SetupCache
    began: float = field(default_factory=time.monotonic)

    def with_options(self, **options: Any) -> Chosen:
        """Return a copy with other options.

        Raises:
            ConfigError: they exceed the limits.
        """
        config = self.config.replace(options)
        self.limits.check_config(config)
        return dataclasses.replace(self, config=config)

    def with_styles(self, count: int) -> Chosen:
        """Return a copy with the first styles only."""
        return dataclasses.replace(self, styles=self.styles[:count])

    @property
    def late(self) -> bool:
        """Whether the job takes longer than is allowed."""
        return time.monotonic() - self.began > self.limits.seconds

    def should_stop(self) -> bool:
        """Return whether the job should end."""
        return self.visit.should_stop() or self.late

    def transfer(self, *, content: Any = None, masks: Masks | None = None) -> Iterator[Preview | Result]:
        """Yield previews of a style transfer, and then its result.

        Args:
            content: another content image.
            masks: as for `tfstyle.iterate`.

        Raises:
            TfstyleError: as for `tfstyle.stylize`, or the job was stopped before the first iteration, or its
                tab was closed.
        """
        content = self.content if content is None else content
        updates = transfer(
            content, self.styles, self.config, masks=masks, stop=self.should_stop, setups=self.setups
        )
        for update in updates:
            if isinstance(update, Preview):
                yield update
            elif self.visit.ended:
                raise RunError("the tab is closed")
            else:
                yield self._published(update)

    def _published(self, result: Result) -> Result:
        """Return a result whose settings do not contain the path of the weights."""
        weights = self.public_weights
        config = result.config.replace({"weights": weights})
        facts = {**result.facts, "weights": result.facts["weights"].replace(self.config.weights, weights)}
        return dataclasses.replace(result, config=config, facts=facts)


@dataclass(frozen=True)
class Context:
    """What the jobs of a page share: visits, limits, weights, and the setup of the last job."""

    visits: Visits
    limits: Limits
    _: KW_ONLY
    weights: ServerWeights
    setups: SetupCache = field(default_factory=SetupCache)

    def add_job(
        self, button: gr.Button, run: Callable[..., Any], *, stop: gr.Button, inputs: Any, outputs: Any
    ) -> None:
        """Let a button start a job, and another one stop it.

        Args:
            button: the button that starts the job.
            run: the job, as `job` returns it.
            stop: the button that stops it.
            inputs, outputs: the components that it reads and changes. The first output is the display.
        """
        first = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        click = button.click(self._begin, None, outputs[0], **first)
        click.then(run, inputs, outputs, **QUEUE)
        stop.click(self._stop, None, outputs[0], **first)

    def _begin(self, request: gr.Request) -> str:
        """Forget an earlier Stop when a user starts a job, before it waits in the queue."""
        visit = self.visits.of(request.session_hash)
        visit.stopped.clear()
        visit.waiting = True
        return status("waiting until other jobs have ended" if self.visits.busy() else "starting")

    def _stop(self, request: gr.Request) -> Any:
        """Stop the jobs of a visit, and tell the user so."""
        visit = self.visits.of(request.session_hash)
        visit.stopped.set()
        if visit.running:
            return status("stopping")
        return status("stopped; the job will not begin when its turn comes") if visit.waiting else gr.skip()

    @contextlib.contextmanager
    def logged(self, request: gr.Request) -> Iterator[None]:
        """Log the start and the end of a job."""
        visit, began = self.visits.of(request.session_hash), time.monotonic()
        log.info("visit %d: a job begins", visit.number)
        visit.waiting, visit.running = False, True
        try:
            yield
        finally:
            visit.running = False
            log.info("visit %d: the job ended after %.1f s", visit.number, time.monotonic() - began)

    def choose(self, request: gr.Request, values: Sequence[Any], *, content_needed: bool = True) -> Chosen:
        """Return what the user has chosen, when the job begins.

        Args:
            request: the request of the event.
            values: the values of `Inputs.all`.
            content_needed: whether the job needs a content image.

        Raises:
            TfstyleError: an image is missing or too large, an option is wrong, the weights are missing, the
                server has no space, or the job was stopped before it began.
        """
        content, styles, *settings = values
        paths = paths_of(styles)
        if not content_needed and not content and paths:
            content = paths[0]
        return self.checked(request, content, styles=paths, config=lambda: self.config(settings))

    def checked(
        self, request: gr.Request, content: Any, *, styles: list[str], config: Callable[[], StyleConfig]
    ) -> Chosen:
        """Check the inputs of a job, and return what the user has chosen.

        Args:
            request: the request of the event.
            content: path of the content image.
            styles: paths of the style images.
            config: returns the options.

        Raises:
            TfstyleError: as for `choose`.
        """
        visit = self.visits.of(request.session_hash)
        if visit.stopped.is_set():
            raise Stopped("stopped before the job began")
        visit.add_uploads(content, *styles)
        self.limits.check_files(content, styles)
        options = config()
        self.limits.check_longest_side(options, content)
        if self.visits.stored_bytes() > self.limits.stored_bytes:
            raise RunError(NO_SPACE)
        weights = self.weights.chosen(options, stop=visit.should_stop)
        return Chosen(
            visit=visit,
            content=content,
            styles=styles,
            config=options.replace({"weights": weights}),
            public_weights=self.weights.public_name(weights),
            limits=self.limits,
            setups=self.setups,
        )

    def config(self, settings: Sequence[Any]) -> StyleConfig:
        """Return the config for the values of `Inputs.settings`.

        Raises:
            ConfigError: a value is wrong or exceeds the limits.
        """
        strength, size, quality, colours, preset, *advanced = settings
        start = None if preset == "default" else find_preset(preset)
        options = options_of(advanced, start=start) | {"preset": preset, "size": int(size)}
        if preset == "default":
            options["quality"] = quality
        if colours:
            options["color"] = "luminance"
        config = make_config(options, self.limits)
        return config if strength == 1 else config.replace(style_weight=strength * config.style_weight)


def paths_of(styles: Any) -> list[str]:
    """Return the files of a gallery's value, which may have captions."""
    return [str(item[0] if isinstance(item, (tuple, list)) else item) for item in styles or ()]


def job(
    context: Context, display: Any
) -> Callable[[Callable[..., Iterator[Updates]]], Callable[..., Iterator[Updates]]]:
    """Return a decorator for the generator of a job, which shows an error as one line in a display.

    Args:
        context: visits, limits and weights.
        display: the HTML component of the view.
    """

    def decorate(function: Callable[..., Iterator[Updates]]) -> Callable[..., Iterator[Updates]]:
        @functools.wraps(function)
        def run(request: gr.Request, *arguments: Any) -> Iterator[Updates]:
            yield {display: status(context.weights.waiting_for)}
            try:
                work: Any = function(request, *arguments)
                # If the tab is closed, the job ends before the log says so.
                with context.logged(request), contextlib.closing(work):
                    for updates in work:
                        if context.visits.of(request.session_hash).stopped.is_set():
                            time.sleep(STOP_SECONDS)
                        yield updates
            except Stopped as error:
                yield {display: status(str(error))}
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


def saved(chosen: Chosen, result: Result, *, kind: str) -> tuple[str, str]:
    """Write a result to a PNG file of the visit, and return its path and its caption in the gallery.

    Args:
        chosen: what the user has chosen.
        result: the result.
        kind: the kind of the result, such as ``blend``.
    """
    file = chosen.visit.new_file(".png")
    result.save(file)
    return str(file), f"{kind}, {outcome(chosen, result)}"


def outcome(chosen: Chosen, result: Result) -> str:
    """Return one line that describes a finished result."""
    height, width = result.image.shape[:2]
    count, seconds = len(result.history.total), result.history.seconds[-1]
    stopped = ""
    if chosen.late:
        stopped = f"; stopped by the limit of {chosen.limits.seconds:g} s"
    elif chosen.visit.stopped.is_set():
        stopped = f"; stopped at scale {result.history.scale[-1]}"
    return f"{width} x {height} pixels, {count} iterations in {seconds:.1f} s{stopped}"

"""``tfstyle batch --ray``: style transfer for many content images with Ray, on one or many machines."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfstyle.cli.common import (
    DONE,
    FAILED,
    Interrupted,
    check_images_or_folders,
    complain,
    load_tensorflow,
    run_config,
    signals_interrupt,
)
from tfstyle.cli.terminal import report
from tfstyle.cluster.requirement import load_ray
from tfstyle.config import check_single_image_options
from tfstyle.errors import ConfigError, RunError, TfstyleError
from tfstyle.files import is_address

if TYPE_CHECKING:  # these modules import Ray and TensorFlow
    from tfstyle.cluster.coordinator import Progress
    from tfstyle.cluster.manifest_parts import ManifestParts
    from tfstyle.run import ManifestRow

LINE_SECONDS = 10.0  # time between two lines with the progress


def run_ray_batch(options: argparse.Namespace) -> int:
    """Run ``tfstyle batch --ray`` and return its exit code."""
    config = run_config(options)
    check_single_image_options(config)
    check_images_or_folders(style for style in options.styles if not is_address(style))
    load_ray(on_this_machine=options.ray_address is None)
    load_tensorflow()
    from tfstyle.cluster.addresses import AddressStorage, absolute, find_contents_at
    from tfstyle.cluster.manifest_parts import ManifestParts
    from tfstyle.cluster.runs import find_missing_in_threads, make_settings, paint_jobs
    from tfstyle.cluster.session import connected, plan_workers
    from tfstyle.images.loading import find_images
    from tfstyle.run.batch import Missing, plan_jobs
    from tfstyle.run.contents import contents_outside

    folder, storage = absolute(options.output), AddressStorage()
    contents = contents_outside(find_contents_at(options.contents), folder)
    if not contents:
        raise ConfigError(f"no images in {options.contents}; those in {options.output} do not count")
    styles = [
        absolute(str(path)) for place in options.styles
        for path in (
            (content.path for content in find_contents_at(place)) if is_address(place)
            else find_images([Path(place)])
        )
    ]  # fmt: skip
    jobs = plan_jobs(contents, styles, config, folder=folder, suffix=f".{options.format}")
    manifest = ManifestParts(folder, storage=storage, options=config.as_dict())
    missing = Missing(jobs, [], [])
    if not options.overwrite:
        storage.list_folder(folder)
        missing = find_missing_in_threads(jobs, manifest.rows, storage=storage)
    for row in missing.rows:  # the former run ended before it wrote the row
        manifest.append(row)
    skipped = len(jobs) - len(missing.jobs) - len(missing.errors)
    if skipped:
        _say(f"{skipped} of {len(jobs)} results exist already and are skipped")
    outcome, progress = _Outcome(manifest, missing.errors), ProgressLines(len(missing.jobs))
    interrupted, failure = 0, None
    try:
        # Ray replaces the handlers of signals when it starts.
        with signals_interrupt(), contextlib.ExitStack() as stack:
            if missing.jobs:
                _say("starting Ray and its workers; the first result takes a minute or more")
                stack.enter_context(connected(options.ray_address))
                stack.enter_context(signals_interrupt())
                workers = plan_workers(config.device, count=options.ray_workers, cores=options.ray_cores)
                _say(
                    f"at most {workers.number} images at a time, "
                    + (f"with {workers.cores} cores each" if workers.cores else "each on a GPU")
                )
                settings = make_settings(
                    styles, config, workers=workers, folder=folder, overwrite=options.overwrite
                )
                rows = paint_jobs(
                    missing.jobs, settings, workers=workers,
                    time_limit=options.ray_time_limit, show=progress,
                )  # fmt: skip
                with contextlib.closing(rows):
                    for row in rows:
                        outcome.add(row)
    except Interrupted as signal:
        interrupted = signal.code
    except RunError as error:
        failure = error
    finally:
        outcome.close()
    for message in outcome.failures:
        complain(message, FAILED)
    # When a run is interrupted, the workers have written results whose rows did not arrive.
    made = max(outcome.made, progress.made) if interrupted else outcome.made
    written = f"{made} results written, {skipped} skipped, {len(outcome.failures)} failed"
    report(f"{folder}: {written}", saved=Path(folder))
    go_on = "run the same command again to continue"
    if options.overwrite:
        go_on = "run the same command again without --overwrite to continue"
    if interrupted:
        return complain(f"interrupted; {go_on}", interrupted)
    if failure is not None:
        return complain(f"{failure}; {go_on}", FAILED)
    return FAILED if outcome.failures else DONE


class _Outcome:
    """Counts the results of a run and writes them to the manifest.

    Attributes:
        made: number of results.
        failures: messages of the errors.
    """

    def __init__(self, manifest: ManifestParts, failures: Sequence[str]) -> None:
        self.made, self.failures = 0, list(failures)
        self._manifest, self._failed = manifest, False

    def add(self, row: ManifestRow) -> None:
        """Record the row of a result or of an error."""
        if row.error is None:
            self.made += 1
        else:
            self.failures.append(f"{row.content} in the style of {', '.join(row.styles)}: {row.error}")
        self._write(lambda: self._manifest.append(row))

    def close(self) -> None:
        """Write the last rows of the manifest."""
        self._write(self._manifest.close)

    def _write(self, action: Callable[[], None]) -> None:
        """Write to the manifest, and report the first failure. The results store their rows as metadata."""
        try:
            action()
        except TfstyleError as error:
            if not self._failed:
                self.failures.append(f"the manifest is not complete: {error}")
            self._failed = True


class ProgressLines:
    """A callback that prints the progress of a batch as a line, at most every `LINE_SECONDS`.

    Args:
        total: number of images.

    Attributes:
        made: number of results that the workers have made.
    """

    def __init__(self, total: int) -> None:
        self.made = 0
        self._total = total
        self._began: float | None = None
        self._printed, self._last = 0.0, 0

    def __call__(self, progress: Progress) -> None:
        """Print the progress if it has changed and the last line is old enough, or if the batch has ended."""
        now, ended, total = time.monotonic(), progress.done + progress.errors, self._total
        self.made = progress.done
        if self._began is None and progress.current:
            self._began = now
        if self._began is None or ended == self._last:
            return
        if now - self._printed < LINE_SECONDS and ended < total:
            return
        self._printed, self._last = now, ended
        parts = [f"{ended} of {total} images"]
        if progress.done:  # images with errors take no time
            rate = progress.done / max(now - self._began, 1e-3)
            parts += [f"{60 * rate:.1f} images/min", f"{_duration((total - ended) / rate)} left"]
        _say(", ".join([*parts, f"{progress.errors} errors"]))


def _say(message: str) -> None:
    """Print a message about the progress."""
    print(message, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    """Return a duration as text, such as ``40 s``, ``12 min`` or ``5.2 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

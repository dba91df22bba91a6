"""The commands that make more than one picture: ``tfstyle batch``, and ``tfstyle stylize --interpolate``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tfstyle.commands import DONE, FAILED, INTERRUPTED, complain, interruptible, run_config
from tfstyle.errors import ConfigError, RunError

if TYPE_CHECKING:
    from tfstyle.results import Result


def interpolate(options: argparse.Namespace) -> int:
    """``tfstyle stylize --interpolate N``: a strip of pictures between two styles."""
    from tfstyle import transfer
    from tfstyle.images import load
    from tfstyle.inputs import fitted
    from tfstyle.saving import check_output
    from tfstyle.sheets import strip, strip_width

    output, config = Path(options.output), run_config(options)
    height, width = fitted(load(options.content, config.max_pixels), config).rgb.shape[:2]
    check_output(output, options.overwrite, (height, strip_width(width, options.interpolate)))
    for name in ("save_every", "history", "checkpoint", "checkpoint_every", "resume"):
        if getattr(options, name) not in (None, False):
            raise ConfigError(
                f"--{name.replace('_', '-')} is of one picture; leave it out with --interpolate"
            )
    found: list[Result] = []
    error: Exception | None = None
    began = time.perf_counter()
    with interruptible() as interrupted:
        try:
            for result in transfer.interpolate(
                options.content, options.styles, options.interpolate, config, stop=interrupted
            ):
                found.append(result)
                seconds = time.perf_counter() - began
                print(f"{len(found)} of {options.interpolate}, {seconds:.0f} s", file=sys.stderr, flush=True)
        except RunError as caught:
            error = caught
        if found:
            whole = strip([result.image for result in found])
            dataclasses.replace(found[-1], image=whole, alpha=None).save(output, options.overwrite)
            print(f"{output}: {len(found)} pictures side by side")
        stopped = interrupted()
    if error is not None:
        return complain(error, FAILED)
    return complain("interrupted", INTERRUPTED) if stopped else DONE


def batch(options: argparse.Namespace) -> int:
    """``tfstyle batch``."""
    from tfstyle.batch import is_finished, jobs, overviews, paint
    from tfstyle.errors import OutputError, TfstyleError
    from tfstyle.files import make_folder
    from tfstyle.images import Picture, find_images
    from tfstyle.saving import save

    config, folder = run_config(options), Path(options.output)
    contents, styles = find_images([Path(options.contents)]), find_images(map(Path, options.styles))
    contents = [path for path in contents if folder.resolve() not in path.resolve().parents]
    if not contents:
        raise ConfigError(f"{options.contents} has no picture but those in {folder}")
    planned = jobs(contents, styles, config, make_folder(folder), f".{options.format}")
    todo, failures, began, done = [], [], time.perf_counter(), 0
    for job in planned:
        try:
            if options.overwrite or not is_finished(job):
                todo.append(job)
        except OutputError as error:
            failures.append(str(error))
    if skipped := len(planned) - len(todo) - len(failures):
        print(f"{skipped} of {len(planned)} pictures are there already", file=sys.stderr, flush=True)
    with interruptible() as interrupted:
        for job, outcome in paint(todo, interrupted):
            try:
                if isinstance(outcome, TfstyleError):
                    raise outcome
                outcome.save(job.output, overwrite=True)
                done += 1
                print(f"{job.output}  {done} of {len(todo)}, {time.perf_counter() - began:.0f} s", flush=True)
            except TfstyleError as error:
                failures.append(f"{job.content} in the style of {', '.join(map(str, job.styles))}: {error}")
        stopped = interrupted()
    for failure in failures:
        complain(failure, FAILED)
    sheets = overviews(planned) if any(job.output.is_file() for job in planned) else []
    for number, sheet in enumerate(sheets, 1):
        path = folder / f"contact-sheet{f'-{number}' if number > 1 else ''}.jpg"
        save(path, Picture(sheet), overwrite=True)
        print(path)
    print(f"{folder}: {done} made, {skipped} there before, {len(failures)} failed")
    if stopped:
        return complain("interrupted; the same command goes on with what is missing", INTERRUPTED)
    return FAILED if failures else DONE

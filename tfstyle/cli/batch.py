"""The commands that make more than one picture: ``tfstyle batch``, and ``tfstyle stylize --interpolate``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tfstyle.cli.common import DONE, FAILED, INTERRUPTED, complain, interruptible, run_config
from tfstyle.errors import ConfigError

if TYPE_CHECKING:
    pass


def batch(options: argparse.Namespace) -> int:
    """``tfstyle batch``."""
    from tfstyle.errors import OutputError, TfstyleError
    from tfstyle.files import make_folder
    from tfstyle.images.loading import ImageArray, find_images
    from tfstyle.images.saving import save
    from tfstyle.run.batch import contact_sheets, is_finished, plan_jobs, run_jobs

    config, folder = run_config(options), Path(options.output)
    contents, styles = find_images([Path(options.contents)]), find_images(map(Path, options.styles))
    contents = [path for path in contents if folder.resolve() not in path.resolve().parents]
    if not contents:
        raise ConfigError(f"{options.contents} has no picture but those in {folder}")
    planned = plan_jobs(contents, styles, config, make_folder(folder), f".{options.format}")
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
        for job, outcome in run_jobs(todo, interrupted):
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
    sheets = contact_sheets(planned) if any(job.output.is_file() for job in planned) else []
    for number, sheet in enumerate(sheets, 1):
        path = folder / f"contact-sheet{f'-{number}' if number > 1 else ''}.jpg"
        save(path, ImageArray(sheet), overwrite=True)
        print(path)
    print(f"{folder}: {done} made, {skipped} there before, {len(failures)} failed")
    if stopped:
        return complain("interrupted; the same command goes on with what is missing", INTERRUPTED)
    return FAILED if failures else DONE

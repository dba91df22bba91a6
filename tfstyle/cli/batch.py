"""``tfstyle batch``: style transfer for many content images, each in one or several styles."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

from tfstyle.cli.common import (
    DONE,
    FAILED,
    check_images_or_folders,
    complain,
    interruptible,
    load_tensorflow,
    run_config,
)
from tfstyle.cli.terminal import report
from tfstyle.config import check_single_image_options
from tfstyle.errors import ConfigError, OutputError, RunError, TfstyleError


def run_batch(options: argparse.Namespace) -> int:
    """Run ``tfstyle batch`` and return its exit code."""
    config, folder = run_config(options), Path(options.output)
    check_single_image_options(config)
    check_images_or_folders([options.contents, *options.styles])

    load_tensorflow()
    from tfstyle.files import make_folder
    from tfstyle.images import read_settings
    from tfstyle.images.loading import find_images
    from tfstyle.run.batch import is_finished, plan_jobs, run_jobs, save_contact_sheets
    from tfstyle.run.manifest import Manifest

    contents, styles = find_images([Path(options.contents)]), find_images(map(Path, options.styles))
    contents = [path for path in contents if folder.resolve() not in path.resolve().parents]
    if not contents:
        raise ConfigError(
            f"no images in {options.contents}; those in the output folder {folder} do not count"
        )
    jobs = plan_jobs(
        contents, styles, config,
        folder=make_folder(folder), suffix=f".{options.format}", root=Path(options.contents),
    )  # fmt: skip
    manifest = Manifest(folder)
    pending, failures, made, start = [], [], 0, time.perf_counter()
    for job in jobs:
        try:
            if options.overwrite or not is_finished(job):
                pending.append(job)
            elif not manifest.has_result(job.output.name):
                # The former run was killed before it wrote the row.
                manifest.append(job.row(facts=read_settings(job.output)["facts"]))
        except OutputError as error:
            failures.append(str(error))
    if skipped := len(jobs) - len(pending) - len(failures):
        print(f"{skipped} of {len(jobs)} results exist already and are skipped", file=sys.stderr, flush=True)
    with interruptible() as interrupted:
        for job, outcome in run_jobs(pending, interrupted):
            try:
                if isinstance(outcome, TfstyleError):
                    raise outcome
                outcome.save(job.output, overwrite=True)
                manifest.append(job.row(facts=outcome.facts))
                made += 1
                seconds = time.perf_counter() - start
                print(f"{job.output}  {made} of {len(pending)}, {seconds:.0f} s", flush=True)
            except TfstyleError as error:
                with contextlib.suppress(RunError):  # the disk is full
                    manifest.append(job.row(error=str(error)))
                failures.append(f"{job.content} in the style of {', '.join(map(str, job.styles))}: {error}")
    for failure in failures:
        complain(failure, FAILED)
    if any(job.output.is_file() for job in jobs):
        for path in save_contact_sheets(jobs, folder, overwrite=options.overwrite):
            print(path)
    report(f"{folder}: {made} results written, {skipped} skipped, {len(failures)} failed", saved=folder)
    if interrupted():
        return complain("interrupted; run the same command again to continue", interrupted.code)
    return FAILED if failures else DONE

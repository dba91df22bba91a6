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
from tfstyle.errors import ConfigError, RunError, TfstyleError

#: Options that imply --ray.
RAY_OPTIONS = ("ray_address", "ray_workers", "ray_cores", "ray_time_limit")


def check_contents(source: str) -> None:
    """Raise an InputError unless the contents are an existing file or folder, or a pattern."""
    from tfstyle.files import is_address, is_pattern

    if is_address(source):
        raise ConfigError(
            f"{source} is a URL; download the file and give its path, or add --ray, which reads addresses"
        )
    if not is_pattern(source):
        check_images_or_folders([source])


def run_batch(options: argparse.Namespace) -> int:
    """Run ``tfstyle batch`` and return its exit code."""
    if options.ray or any(getattr(options, name) is not None for name in RAY_OPTIONS):
        from tfstyle.cli.ray_batch import run_ray_batch

        return run_ray_batch(options)
    config, folder = run_config(options), Path(options.output)
    check_single_image_options(config)
    check_contents(options.contents)
    check_images_or_folders(options.styles)

    load_tensorflow()
    from tfstyle.files import make_folder
    from tfstyle.images.loading import find_images
    from tfstyle.run.batch import Missing, find_missing, plan_jobs, run_jobs, save_contact_sheets
    from tfstyle.run.contents import contents_outside, find_contents
    from tfstyle.run.manifest import Manifest
    from tfstyle.run.storage import LocalStorage

    contents = contents_outside(find_contents(options.contents), options.output)
    if not contents:
        raise ConfigError(
            f"no images in {options.contents}; those in the output folder {folder} do not count"
        )
    styles = [str(path) for path in find_images(map(Path, options.styles))]
    jobs = plan_jobs(contents, styles, config, folder=str(make_folder(folder)), suffix=f".{options.format}")
    manifest, made, start = Manifest(folder), 0, time.perf_counter()
    missing = Missing(jobs, [], [])
    if not options.overwrite:
        missing = find_missing(jobs, manifest.rows, storage=LocalStorage())
    for row in missing.rows:  # the former run was killed before it wrote the row
        manifest.append(row)
    pending, failures = missing.jobs, missing.errors
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
                failures.append(f"{job.content} in the style of {', '.join(job.styles)}: {error}")
    for failure in failures:
        complain(failure, FAILED)
    if any(Path(job.output).is_file() for job in jobs):
        for path in save_contact_sheets(jobs, folder, overwrite=options.overwrite):
            print(path)
    report(f"{folder}: {made} results written, {skipped} skipped, {len(failures)} failed", saved=folder)
    if interrupted():
        return complain("interrupted; run the same command again to continue", interrupted.code)
    return FAILED if failures else DONE

"""What each command does: read its options, call the library, say what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfstyle.run.results import Result

import argparse
import contextlib
import dataclasses
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tfstyle.cli.common import DONE, FAILED, INTERRUPTED, complain, interruptible, run_config
from tfstyle.cli.outputs import Outputs
from tfstyle.errors import ConfigError, RunError

if TYPE_CHECKING:
    from tfstyle.run.checkpoints import CheckpointFolder

DATA = Path(__file__).parent / "data"
DEMO_CONTENT, DEMO_STYLE, DEMO_SIZE = "cat.jpg", "evening.jpg", 384
CHECKPOINT_EVERY = 300.0  # seconds


def stylize(options: argparse.Namespace) -> int:
    """``tfstyle stylize``."""
    from tfstyle.cli.progress import progress_display
    from tfstyle.run.layout import describe_layout
    from tfstyle.run.run import Run
    from tfstyle.run.transfer import apply_fine_style

    if options.interpolate is not None:
        return interpolate(options)
    outputs = Outputs(options)
    config, checkpoints = run_config(options), _checkpoints(options)
    styles = apply_fine_style(options.styles, config, checkpoints=checkpoints)
    run = Run(options.content, styles, config, pause_every=outputs.every, checkpoints=checkpoints)
    outputs.check(run)
    about = describe_layout(run.preparation, run.shapes[-1], run.layouts[-1])
    print(f"tfstyle: {about}", file=sys.stderr, flush=True)
    error: Exception | None = None
    trouble = ""
    with interruptible() as interrupted:
        try:
            with (
                progress_display(run.shapes, run.iterations, sys.stderr) as show,
                contextlib.closing(iter(run)) as iterations,
            ):
                for iteration in iterations:
                    show(iteration)
                    outputs.after(run)
                    if interrupted():
                        break
        except RunError as caught:
            error = caught
        if run.history.iteration:
            trouble = outputs.save(run)
    if error is not None:
        complain(error, FAILED)
    if trouble:
        complain(trouble, FAILED)
    if error is not None or trouble:
        return FAILED
    return complain("interrupted", INTERRUPTED) if interrupted() else DONE


def _checkpoints(options: argparse.Namespace) -> CheckpointFolder | None:
    from tfstyle.run.checkpoints import open_checkpoints

    every = options.checkpoint_every
    if every is not None and options.checkpoint is None:
        raise ConfigError("--checkpoint-every needs --checkpoint DIR")
    return open_checkpoints(
        options.checkpoint, CHECKPOINT_EVERY if every is None else every, options.resume, options.overwrite
    )


def demo(options: argparse.Namespace) -> int:
    """``tfstyle demo``: `stylize` with the pictures in the package, copied to where the user can see them."""
    from tfstyle.files import check_writable, make_folder, write_atomically

    folder = make_folder(Path(options.output))
    content, style, output = (folder / name for name in ("content.jpg", "style.jpg", "picture.png"))
    for path in (content, style, output):
        check_writable(path, options.overwrite)
    for source, path in ((DEMO_CONTENT, content), (DEMO_STYLE, style)):
        write_atomically(path, (DATA / source).read_bytes())
    given = {name: getattr(options, name) for name in ("weights",) if hasattr(options, name)}
    code = stylize(
        argparse.Namespace(
            content=str(content), styles=[str(style)], output=str(output), overwrite=options.overwrite,
            save_every=None, history=None, config=None, preset="default", size=DEMO_SIZE, interpolate=None,
            checkpoint=None, checkpoint_every=None, resume=False, **given,
        )
    )  # fmt: skip
    flags = "".join(f" --{name} {shlex.quote(value)}" for name, value in given.items())
    paths = [shlex.quote(str(path)) for path in (content, style, output)]
    print(
        f"The picture is {paths[2]}. It is what this makes, try it with pictures of your own:\n"
        f"tfstyle stylize {paths[0]} {paths[1]} -o {paths[2]} --size {DEMO_SIZE}{flags}"
    )
    return code


def interpolate(options: argparse.Namespace) -> int:
    """``tfstyle stylize --interpolate N``: a strip of pictures between two styles."""
    from tfstyle.images.loading import load
    from tfstyle.images.saving import check_output
    from tfstyle.images.sheets import strip, strip_width
    from tfstyle.run import transfer
    from tfstyle.run.inputs import fit_to_size

    output, config = Path(options.output), run_config(options)
    height, width = fit_to_size(load(options.content, config.max_pixels), config).rgb.shape[:2]
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

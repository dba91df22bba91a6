"""``tfstyle stylize``, with and without ``--interpolate``, and ``tfstyle demo``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tfstyle.cli.common import (
    DONE,
    FAILED,
    check_images,
    check_weights,
    complain,
    interruptible,
    load_tensorflow,
    run_config,
)
from tfstyle.cli.outputs import Outputs, default_output
from tfstyle.cli.standard_input import load_standard_input, read_standard_input
from tfstyle.cli.terminal import report
from tfstyle.cli.wording import quoted
from tfstyle.config import CHECKPOINT_SECONDS, StyleConfig, check_mask_count, check_style_count
from tfstyle.errors import ConfigError, RunError

if TYPE_CHECKING:
    from tfstyle.run.results import Result
    from tfstyle.run.run import Run

DATA = Path(__file__).parents[1] / "data"
DEMO_CONTENT, DEMO_STYLE, DEMO_SIZE = "cat.jpg", "evening.jpg", 384
#: Options of ``tfstyle stylize`` that cannot be combined with --interpolate, which makes several runs.
SINGLE_RUN_OPTIONS = (
    "save_every", "history", "film", "logdir", "checkpoint", "checkpoint_every", "resume", "seconds",
)  # fmt: skip


def run_stylize(options: argparse.Namespace) -> int:
    """Run ``tfstyle stylize`` and return its exit code."""
    started = time.perf_counter()  # the import of TensorFlow counts for --seconds
    if options.interpolate is not None:
        return _run_interpolation(options)
    outputs = Outputs(options)
    _check_checkpoint_options(options)
    content, *styles = read_standard_input([options.content, *options.styles])
    check_images([content, *styles])
    config = run_config(options)
    check_styles_and_masks(config, len(styles))
    if options.seconds is not None and options.preset != "default":
        raise ConfigError(
            f"--seconds cannot be combined with --preset {options.preset}, which has its own number of "
            "iterations; leave one of them out"
        )

    load_tensorflow()
    from tfstyle.cli.progress import progress_display, waiting_display
    from tfstyle.run.callbacks import calling
    from tfstyle.run.checkpoints import open_checkpoints
    from tfstyle.run.layout import describe_layout
    from tfstyle.run.run import Run
    from tfstyle.run.timed import make_timed_run, make_timetable
    from tfstyle.run.transfer import apply_fine_style

    seconds = CHECKPOINT_SECONDS if options.checkpoint_every is None else options.checkpoint_every
    timetable = make_timetable(
        options.seconds, config, checkpoint=options.checkpoint, resume=options.resume, started=started
    )
    checkpoints = open_checkpoints(
        options.checkpoint, every=seconds, resume=options.resume, overwrite=options.overwrite
    )
    with waiting_display("reading images and weights", sys.stderr):
        content, *styles = load_standard_input([content, *styles], config.max_pixels)
        styles = apply_fine_style(styles, config, checkpoints=checkpoints)
        if timetable is None:
            run = Run(content, styles, config, pause_every=outputs.pause_every, checkpoints=checkpoints)
        else:
            run = make_timed_run(
                content, styles, config, timetable=timetable,
                keep_quality=hasattr(options, "quality"),
                pause_every=outputs.pause_every,
            )  # fmt: skip
    outputs.check(run)
    layout = describe_layout(run.setup, run.scales[-1].shape, layout=run.layouts[-1])
    print(f"tfstyle: {layout}", file=sys.stderr, flush=True)
    if "plan" in run.facts:
        print(f"tfstyle: {_describe_plan(run)}", file=sys.stderr, flush=True)
    run_error: RunError | None = None
    save_error = ""
    with interruptible() as interrupted:
        try:
            with (
                progress_display(sys.stderr) as show,
                calling(outputs.callbacks()) as call,
                contextlib.closing(iter(run)) as iterations,
            ):
                for iteration in iterations:
                    show(iteration)
                    call(iteration)
                    outputs.write_preview(run)
                    if interrupted():
                        break
        except RunError as error:
            run_error = error
        if run.history.iteration:
            save_error = outputs.save(run)
    if run_error is not None:
        complain(run_error, FAILED)
    if save_error:
        complain(save_error, FAILED)
    if run_error is not None or save_error:
        return FAILED
    if interrupted():
        hint = "" if options.checkpoint is None else "; run the same command with --resume to continue"
        return complain(f"interrupted{hint}", interrupted.code)
    return DONE


def _describe_plan(run: Run) -> str:
    plan = run.facts["plan"]
    counts = ", ".join(map(str, plan["iterations"]))
    quality = "" if run.config.has_own_iterations else f"quality {run.config.quality}, "
    return f"planned for {plan['seconds']:g} s: {quality}iterations per scale: {counts}"


def _check_checkpoint_options(options: argparse.Namespace) -> None:
    for name in ("checkpoint_every", "resume"):
        if getattr(options, name) not in (None, False) and options.checkpoint is None:
            raise ConfigError(f"--{name.replace('_', '-')} needs --checkpoint DIR")


def check_styles_and_masks(config: StyleConfig, styles: int) -> None:
    """Raise an InputError if an option has no value for each style, or the file of a mask does not exist."""
    check_style_count(config, styles)
    for name in ("masks", "style_masks"):
        check_mask_count(name, len(getattr(config, name) or ()), styles=styles)
    content_mask = [] if config.content_mask is None else [config.content_mask]
    check_images([*(config.masks or ()), *(config.style_masks or ()), *content_mask])


def run_demo(options: argparse.Namespace) -> int:
    """Run ``tfstyle demo``: copy the images of the package to a folder and call `run_stylize` with them."""
    from tfstyle.files import check_writable, free_path, make_folder, write_atomically

    given = {name: getattr(options, name) for name in ("weights",) if hasattr(options, name)}
    check_weights(given.get("weights", "auto"))
    folder = make_folder(Path(options.output))
    content, style, output = (folder / name for name in ("content.jpg", "style.jpg", "result.png"))
    if not options.overwrite:
        output = free_path(output)
    inputs = {content: (DATA / DEMO_CONTENT).read_bytes(), style: (DATA / DEMO_STYLE).read_bytes()}
    for path, image in inputs.items():
        is_unchanged = path.is_file() and path.read_bytes() == image
        check_writable(path, overwrite=options.overwrite or is_unchanged)
    for path, image in inputs.items():
        write_atomically(path, image)
    code = run_stylize(
        argparse.Namespace(
            content=str(content), styles=[str(style)], output=str(output), overwrite=options.overwrite,
            save_every=None, history=None, film=None, logdir=None, config=None, preset="default",
            size=DEMO_SIZE, interpolate=None, checkpoint=None, checkpoint_every=None, resume=False,
            seconds=None, **given,
        )
    )  # fmt: skip
    if code != DONE:
        return code
    flags = "".join(f" --{name} {quoted(value)}" for name, value in given.items())
    paths = [_quoted_path(path) for path in (content, style, output)]
    print(
        f"The result is {paths[2]}. This command creates it; try it with your own images:\n"
        f"{_program()} stylize {paths[0]} {paths[1]} -o {paths[2]} --size {DEMO_SIZE}{flags} --overwrite"
    )
    return code


def _quoted_path(path: Path) -> str:
    """Return a path, quoted for a shell. A path that begins with a hyphen is prefixed with ``./``."""
    return quoted(f"./{path}" if str(path).startswith("-") else str(path))


def _program() -> str:
    """Return the beginning of a shell command that calls this program as it was called."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == "tfstyle":
        return f"{quoted(sys.executable)} -m tfstyle"
    installed = shutil.which("tfstyle")
    # On Windows only one of the two paths may have the suffix .exe.
    if called.stem != "tfstyle" or (
        installed is not None
        and Path(installed).resolve().with_suffix("") == called.resolve().with_suffix("")
    ):
        return "tfstyle"
    return quoted(sys.argv[0])  # the script of an environment that is not activated


def _run_interpolation(options: argparse.Namespace) -> int:
    """Run ``tfstyle stylize --interpolate N``: one image with N results between two styles side by side."""
    from tfstyle.files import check_output, free_path

    output = Path(options.output or default_output(options.content, options.styles))
    if options.output is None and not options.overwrite:
        output = free_path(output)
    check_output(output, overwrite=options.overwrite)
    for name in SINGLE_RUN_OPTIONS:
        if getattr(options, name) not in (None, False):
            raise ConfigError(
                f"--{name.replace('_', '-')} cannot be combined with --interpolate; leave one of them out"
            )
    if len(options.styles) != 2:
        raise ConfigError(f"--interpolate needs two style images, not {len(options.styles)}")
    content, *styles = read_standard_input([options.content, *options.styles])
    check_images([content, *styles])
    config = run_config(options)
    if config.masks is not None:
        raise ConfigError("--masks cannot be combined with --interpolate; leave one of them out")
    check_style_count(config, 2)

    load_tensorflow()
    from tfstyle.images.loading import load
    from tfstyle.images.sheets import strip, strip_width
    from tfstyle.run.inputs import fit_to_size
    from tfstyle.run.transfer import interpolate

    content, *styles = load_standard_input([content, *styles], config.max_pixels)
    content_image = load(content, max_pixels=config.max_pixels)
    height, width = fit_to_size(content_image, config).rgb.shape[:2]
    check_output(output, overwrite=options.overwrite, shape=(height, strip_width(width, options.interpolate)))
    results: list[Result] = []
    run_error: RunError | None = None
    start = time.perf_counter()
    with interruptible() as interrupted:
        try:
            for result in interpolate(
                content_image, styles, config, count=options.interpolate, stop=interrupted
            ):
                results.append(result)
                seconds = time.perf_counter() - start
                print(
                    f"{len(results)} of {options.interpolate}, {seconds:.0f} s", file=sys.stderr, flush=True
                )
        except RunError as error:
            run_error = error
        if results:
            image = strip([result.image for result in results])
            dataclasses.replace(results[-1], image=image, alpha=None).save(
                output, overwrite=options.overwrite
            )
            report(f"{output}: {len(results)} results side by side", saved=output)
    if run_error is not None:
        return complain(run_error, FAILED)
    return complain("interrupted", interrupted.code) if interrupted() else DONE

"""``tfstyle video``: style transfer of a clip."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tfstyle.cli.common import (
    DONE,
    check_images,
    complain,
    exit_code,
    interruptible,
    load_tensorflow,
    refuse_standard_input,
    run_config,
)
from tfstyle.cli.outputs import default_output
from tfstyle.cli.terminal import report
from tfstyle.cli.transfer import check_styles_and_masks
from tfstyle.cli.wording import in_options
from tfstyle.errors import ConfigError, TfstyleError

if TYPE_CHECKING:
    from tfstyle.video.stylizing import VideoIterations

#: Options of the command -> the fields of `tfstyle.video.Selection` and of `tfstyle.video.VideoOptions`.
SELECTION = ("start", "end", "every", "fps")
VIDEO = ("temporal_weight", "frame_iterations", "memory_frames", "passes", "fast", "flow")


def run_video(options: argparse.Namespace) -> int:
    """Run ``tfstyle video`` and return its exit code."""
    from tfstyle.files import check_clip, check_video, check_writable, free_path

    refuse_standard_input([options.clip, *options.styles])
    check_clip(options.clip)
    check_images(options.styles)
    config = run_config(options)
    check_styles_and_masks(config, len(options.styles))
    if options.resume and options.checkpoint is None:
        raise ConfigError("--resume needs --checkpoint DIR")
    if options.output is None:
        output = default_output(options.clip, options.styles).with_suffix(".mp4")
        output = output if options.overwrite or options.resume else free_path(output)
    else:
        output = Path(options.output)
    check_video(output, overwrite=options.overwrite or options.resume)
    history = None if options.history is None else Path(options.history)
    if history is not None:
        check_writable(history, overwrite=options.overwrite or options.resume)
        if history.resolve() == output.resolve():
            raise ConfigError(f"--history and --output are both {output}; choose two names")

    load_tensorflow()
    from tfstyle.cli.progress import frame_display, waiting_display
    from tfstyle.video.options import VideoOptions
    from tfstyle.video.selection import Selection
    from tfstyle.video.stylizing import iterate

    selection = Selection(**{k: v for k, v in vars(options).items() if k in SELECTION})
    video = VideoOptions(**{k: v for k, v in vars(options).items() if k in VIDEO})
    with waiting_display("reading the clip and the weights", sys.stderr):
        steps = iterate(
            options.clip,
            list(options.styles),
            config,
            output=output,
            video=video,
            selection=selection,
            sound=options.sound,
            save_frames=options.save_frames,
            checkpoint=options.checkpoint,
            resume=options.resume,
            overwrite=options.overwrite,
        )
    height, width = steps.run.shape
    count = _frames(steps.run.clip.count)
    print(f"tfstyle: {count} of {width} x {height} pixels", file=sys.stderr, flush=True)
    run_error: TfstyleError | None = None
    told = 0
    with interruptible() as interrupted:
        try:
            with frame_display(sys.stderr) as show, steps:
                for step in steps:
                    told = _tell(steps.run.clip.notes, told)
                    show(step)
                    if interrupted():
                        step.stop()
        except TfstyleError as error:  # the frames so far are in the video
            run_error = error
    _tell(steps.run.clip.notes, told)
    _report(steps, failed=run_error is not None)
    if history is not None:
        steps.result().save_history(history, overwrite=options.overwrite or options.resume)
    if run_error is not None:
        return complain(run_error, exit_code(run_error))
    if interrupted():
        hint = "" if options.checkpoint is None else "; run the same command with --resume to continue"
        return complain(f"interrupted{hint}", interrupted.code)
    return DONE


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _tell(notes: list[str], told: int) -> int:
    """Print the notes about the clip that were not printed yet, and return how many there are."""
    for note in notes[told:]:
        print(f"tfstyle: {in_options(note)}", file=sys.stderr, flush=True)
    return len(notes)


def _report(steps: VideoIterations, *, failed: bool) -> None:
    """Print what was written."""
    result = steps.result()
    if result.path is None:
        if not failed:  # otherwise the error says why
            print("tfstyle: no frame was finished, so no video was written", file=sys.stderr, flush=True)
        return
    height, width = steps.run.shape
    count = _frames(result.frames)
    if result.frames < result.expected:
        count += f" of {result.expected}"
    error = "" if result.warping_error is None else f", warping error {result.warping_error:.1f} levels"
    report(
        f"{result.path}: {width} x {height} pixels, {count} in {result.seconds:.1f} s{error}",
        saved=result.path,
    )

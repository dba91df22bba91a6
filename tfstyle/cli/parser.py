"""The arguments of every command, and `main`, which runs a command and turns its errors into an exit code.

TensorFlow is imported by the commands and not by the parser, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from tfstyle import __version__
from tfstyle.cli.arguments import (
    HelpFormatter,
    Parser,
    comma_separated,
    embedding_size,
    integer,
    number,
    value_settings,
    word,
)
from tfstyle.cli.batch import run_batch
from tfstyle.cli.common import (
    DONE,
    INTERRUPTED,
    Interrupted,
    complain,
    describe,
    exit_code,
    signals_interrupt,
)
from tfstyle.cli.explore import SHORTCUTS, expand_shortcut, run_explore
from tfstyle.cli.export import run_export
from tfstyle.cli.extract import run_extract
from tfstyle.cli.info import run_info, run_presets
from tfstyle.cli.pretrain import run_pretrain
from tfstyle.cli.score import run_score
from tfstyle.cli.terminal import check_reports, safe_streams
from tfstyle.cli.transfer import run_demo, run_stylize
from tfstyle.cli.ui import run_ui
from tfstyle.cli.video import run_video
from tfstyle.cli.wording import LogHandler
from tfstyle.config import (
    ADDONS,
    CHECKPOINT_SECONDS,
    OPTION_GROUPS,
    QUALITIES,
    SINGLE_IMAGE_OPTIONS,
    StyleConfig,
)
from tfstyle.errors import TfstyleError
from tfstyle.papers import RECIPES
from tfstyle.presets import PRESETS

#: Shells for which ``--print-completion`` writes a script.
SHELLS = ("bash", "zsh", "fish")
#: Names for values in the help that the shells complete with files and with folders.
FILE_METAVARS = (
    "CLIP", "CONTENT", "CONTENTS", "STYLE", "IMAGE", "IMAGES_OR_FOLDER",
    "FILE", "FILE.npz", "FILE.json", "FILE.png", "...",
)  # fmt: skip
FOLDER_METAVARS = ("DIR",)
#: Options of `StyleConfig` whose values are not, or not only, a name.
METAVARS = {
    "weights": "NAME|FILE",
    "init": "NAME|FILE",
    "tile": "N|auto|off",
    "fine_style": "FILE",
    "content_mask": "FILE",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after ``tfstyle``; ``sys.argv[1:]`` by default.

    Returns:
        The exit code: 0 done; 1 the run failed, or standard output could not be written; 2 wrong options or
        input; 130, 143 or 129 interrupted by Ctrl-C, SIGTERM or SIGHUP.

    Raises:
        SystemExit: the options are wrong, or ask for the help, the version or a completion script.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    with safe_streams() as stdout, signals_interrupt():
        try:
            code = _run(arguments)
        except SystemExit as end:  # raised by argparse
            raise SystemExit(check_reports(stdout, int(end.code or 0))) from None
        return check_reports(stdout, code)


def _run(arguments: Sequence[str]) -> int:
    """Run a command and turn its errors into an exit code."""
    try:
        parser = make_parser(show_all="--help-all" in arguments)
        if not arguments:
            parser.print_help()
            return DONE
        options = parser.parse_args(expand_shortcut(arguments))
        _log_to_stderr()
        code: int = options.command(options)
        return code
    except (TfstyleError, OSError, UnicodeEncodeError) as error:  # TensorFlow needs file names in UTF-8
        return complain(describe(error), exit_code(error))
    except KeyboardInterrupt as error:
        return complain("interrupted", error.code if isinstance(error, Interrupted) else INTERRUPTED)


def make_parser(*, show_all: bool = False) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        show_all: whether the help of a command lists the advanced options as well.
    """
    parser = Parser(
        prog="tfstyle",
        description="Neural style transfer after Gatys, Ecker and Bethge.",
        epilog="tfstyle COMMAND --help describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"tfstyle {__version__}")
    parser.add_argument(
        "--print-completion", action=_PrintCompletion, choices=SHELLS, metavar="|".join(SHELLS),
        help="print a script that completes commands and options in this shell",
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def add(name: str, help: str) -> argparse.ArgumentParser:
        description = f"{help[0].upper()}{help[1:]}."
        return commands.add_parser(name, help=help, description=description, formatter_class=HelpFormatter)

    _add_demo(add("demo", "create a first result from the images in the package"))
    _add_stylize(add("stylize", "transfer the style of one or more images to a content image"), show_all)
    _add_batch(add("batch", "transfer styles to many content images"), show_all)
    _add_video(add("video", "transfer styles to a clip, without flicker"), show_all)
    _add_ui(add("ui", "open a page in the browser that needs no command line"))
    _add_score(add("score", "compare results by numbers for style, content and artefacts"))
    _add_pretrain(add("pretrain", "learn the encoder's filters from images without labels"))
    _add_extract(add("extract", "write style embeddings and Gram matrices of images to a file"))
    _add_export(add("export", "write a SavedModel for TensorFlow Serving"))
    _add_explore(add("explore", "reproduce the papers' experiments with options"))
    for name in SHORTCUTS:
        add(name, RECIPES[name].summary)
    add("presets", "list the presets and their options").set_defaults(command=run_presets)
    info = add("info", "show versions, devices and what auto chooses, or the encoder of a style or a model")
    info.add_argument("file", nargs="?", help="a style file (.npz), or the folder of an exported model")
    info.set_defaults(command=run_info)
    return parser


class _PrintCompletion(argparse.Action):
    """Print a completion script made by shtab, and exit."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        import shtab

        full_parser = make_parser(show_all=True)
        completers = dict.fromkeys(FILE_METAVARS, shtab.FILE) | dict.fromkeys(
            FOLDER_METAVARS, shtab.DIRECTORY
        )
        _complete_paths(full_parser, completers)
        print(shtab.complete(full_parser, shell=values))
        parser.exit()


def _complete_paths(parser: argparse.ArgumentParser, completers: Mapping[Any, Any]) -> None:
    """Attach completers of paths to the arguments of a parser and of its commands, by their metavars."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_paths(command, completers)
        elif action.metavar in completers:
            action.complete = completers[action.metavar]  # type: ignore[attr-defined]


def _add_demo(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=run_demo)
    command.add_argument(
        "-o", "--output", metavar="DIR", default="tfstyle-demo", help="folder of the images [tfstyle-demo]"
    )
    command.add_argument("--overwrite", action="store_true", help="replace existing files")
    _add_options(command, ("weights",))


def _add_pretrain(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=run_pretrain)
    command.add_argument(
        "images", metavar="IMAGES_OR_FOLDER", nargs="+", help="at least four photographs, or folders of them"
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="FILE.npz",
        required=True,
        help="file of the weights, for use with --weights",
    )
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    command.add_argument(
        "--blocks", metavar="N", type=integer(1, 5), default=3, help="number of VGG blocks, 1 to 5 [3]"
    )
    command.add_argument(
        "--base", metavar="FILE", help="weights file whose layers are kept; the layers above are learned"
    )
    command.add_argument("--seed", metavar="N", type=integer(0), default=0, help="random seed [0]")
    command.add_argument(
        "--patches", metavar="N", type=integer(1), default=30_000,
        help="number of image patches from which each layer is learned [30000]",
    )  # fmt: skip
    command.add_argument(
        "--half", action="store_true", help="write the weights as float16, in half the space"
    )


def _add_ui(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=run_ui)
    command.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1",
        help="address to listen on; any but 127.0.0.1, localhost or ::1 needs --password or --no-password "
        "[127.0.0.1]",
    )  # fmt: skip
    command.add_argument(
        "--port", metavar="N", type=integer(1, 65535), help="port to listen on [the first free one from 7860]"
    )
    command.add_argument(
        "--password", metavar="WORD", default=os.environ.get("TFSTYLE_PASSWORD"),
        help="password that the page asks for, with any user name; the environment variable TFSTYLE_PASSWORD "
        "sets it too, and other users of the machine do not see it there",
    )  # fmt: skip
    command.add_argument("--no-password", action="store_true", help="let anyone who reaches the page use it")
    command.add_argument(
        "--weights", metavar="NAME|FILE", default="auto",
        help="weights for users who choose auto: auto, imagenet, embedded, random or a file; they are "
        "downloaded when the server starts, never by a job of a user [auto]",
    )  # fmt: skip
    command.add_argument(
        "--no-browser", action="store_false", dest="browser", help="do not open the page in the browser"
    )


def _add_score(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=run_score)
    command.usage = "tfstyle score CONTENT STYLE IMAGE [IMAGE ...] [options]"
    command.epilog = (
        "E compares the style, and higher is closer; S compares the content, and lower is closer; ripple and "
        "frame measure artefacts; energy is the distance from the style, and lower is closer."
    )
    command.add_argument("content", metavar="CONTENT", help="content image")
    command.add_argument("style", metavar="STYLE", help="style image")
    command.add_argument("images", metavar="IMAGE", nargs="+", help="images to be scored, each at its size")
    command.add_argument(
        "--weights", metavar="NAME|FILE", default="auto",
        help="weights under which the images are scored: auto or imagenet (cached or downloaded), or a file "
        "that holds at least blocks 1 to 3 of VGG-19's ImageNet weights [auto]",
    )  # fmt: skip
    command.add_argument(
        "--reference", metavar="DIR", help="folder of images from which the basis of E is computed [the "
        "basis in the package]",
    )  # fmt: skip
    command.add_argument(
        "--json", action="store_true",
        help="print a JSON list of objects with image, E, S, ripple, frame and energy",
    )  # fmt: skip
    command.add_argument(
        "-o", "--output", metavar="FILE.png", help="write a contact sheet with the scores under each image"
    )
    command.add_argument("--overwrite", action="store_true", help="replace an existing contact sheet")


def _add_extract(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=run_extract)
    command.add_argument(
        "images",
        metavar="IMAGES_OR_FOLDER",
        nargs="+",
        help="images, or folders that are searched for images",
    )
    command.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="output file, .npz or .parquet"
    )
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    command.add_argument(
        "--grams", action="store_true",
        help="write the Gram matrices as well; stylize then takes the file in place of a style image. With "
        "the default layers each image needs about 40 MB of memory until the file is written",
    )  # fmt: skip
    command.add_argument("--model", metavar="DIR", help="compute with a model that tfstyle export wrote")
    _add_extractor_options(command)


def _add_export(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=run_export)
    command.add_argument(
        "folder", metavar="DIR", help="folder of models; the model is written to DIR/NAME/VERSION/"
    )
    command.add_argument("--name", default="tfstyle", help="name of the model [tfstyle]")
    command.add_argument(
        "--version", metavar="N", type=integer(1), dest="model_version",
        help="version of the model [the highest existing version + 1]",
    )  # fmt: skip
    command.add_argument("--overwrite", action="store_true", help="replace an existing version")
    command.add_argument(
        "--precision", choices=("float32", "float16", "bfloat16"), default="float32", metavar="NAME",
        help="data type of the stored weights: float32, float16 (half the space), bfloat16 (half the space, "
        "and the features are computed in it) [float32]",
    )  # fmt: skip
    _add_extractor_options(command)
    command.add_argument(
        "--content-layers", metavar="A,B,..", type=comma_separated(word()), default=argparse.SUPPRESS,
        help="layers of the content features and of stylize [conv3_2, if the weights reach conv4_1]",
    )  # fmt: skip
    # The defaults are those of `tfstyle.serving.signatures.Limits`, which loads TensorFlow; a test compares.
    for name, text in (
        ("max-pixels", "maximum number of pixels of an image [4194304]"),
        ("max-batch", "maximum number of images in a request [64]"),
        ("stylize-max-pixels", "maximum number of pixels of an image in a stylize request [1048576]"),
        ("stylize-max-steps", "maximum number of iterations per scale in a stylize request [500]"),
        ("stylize-max-batch", "maximum number of images in a stylize request [8]"),
        ("max-file-bytes", "maximum size of a file in an encoded request, in bytes [16777216]"),
    ):
        command.add_argument(f"--{name}", metavar="N", type=integer(1), default=argparse.SUPPRESS, help=text)


def _add_extractor_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--size", metavar="N", type=integer(), default=argparse.SUPPRESS,
        help="longest side in pixels; larger images are reduced to it [512]",
    )  # fmt: skip
    _add_options(command, ("weights", "pooling", "padding"))
    command.add_argument(
        "--style-layers", metavar="A,B,..", type=comma_separated(word()), dest="layers",
        default=argparse.SUPPRESS, help="layers of the Gram matrices [the style layers of stylize]",
    )  # fmt: skip
    command.add_argument(
        "--views", choices=(1, 10), type=int, metavar="1|10", default=argparse.SUPPRESS,
        help="1: the whole image; 10: the mean over its corners, its centre, and their mirror images [1]",
    )  # fmt: skip
    command.add_argument(
        "--embedding-size", metavar="N|all", type=embedding_size, default=argparse.SUPPRESS,
        help="number of values of the embedding [1024]",
    )  # fmt: skip


def _add_stylize(command: argparse.ArgumentParser, show_all: bool) -> None:
    command.set_defaults(command=run_stylize)
    command.usage = "tfstyle stylize CONTENT STYLE [STYLE ...] [-o FILE] [options]"
    command.add_argument("--help-all", action="help", help="show every option and exit")
    command.add_argument(
        "content",
        metavar="CONTENT",
        help="content image; - is standard input, and can also be given as a STYLE",
    )
    command.add_argument(
        "styles",
        metavar="STYLE",
        nargs="+",
        help="style image, or several; an .npz file of tfstyle extract --grams, or FILE.npz#NAME for one of "
        "its images, can stand for a style image",
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="output image: .png, .jpg, .webp or .tif [CONTENT_STYLE.png in the current folder; a number is "
        "added if it exists]",
    )
    command.add_argument("--overwrite", action="store_true", help="replace existing files")
    groups = _add_run_options(command, show_all)
    groups["size"].add_argument(
        "--seconds", metavar="N", type=number(0),
        help="time that the whole command should take; chooses the quality and the iterations",
    )  # fmt: skip
    groups["style control"].add_argument(
        "--interpolate", metavar="N", type=integer(2),
        help=_shown(show_all, "write one image that shows N results between two styles side by side"),
    )  # fmt: skip
    long_runs = command.add_argument_group("long runs")
    long_runs.add_argument(
        "--checkpoint", metavar="DIR", help="folder in which the last two checkpoints of the run are stored"
    )
    long_runs.add_argument(
        "--checkpoint-every", metavar="SECONDS", type=number(0),
        help=_shown(
            show_all,
            "seconds between two checkpoints; one is also stored after each scale and when the run is "
            f"interrupted [{CHECKPOINT_SECONDS:.0f}]",
        ),
    )  # fmt: skip
    long_runs.add_argument(
        "--resume", action="store_true",
        help="continue from the last checkpoint in --checkpoint; start a new run if there is none",
    )  # fmt: skip
    progress = command.add_argument_group("previews and logs")
    progress.add_argument(
        "--save-every", metavar="N", type=integer(1),
        help=_shown(show_all, "write a preview image in the size of the final image every N iterations"),
    )  # fmt: skip
    progress.add_argument(
        "--history", metavar="FILE.json",
        help=_shown(show_all, "write the losses of every iteration to a JSON file"),
    )  # fmt: skip
    progress.add_argument(
        "--film", metavar="FILE",
        help=_shown(show_all, "write the evolution of the image as a film: .mp4 (needs PyAV), .gif or .webp"),
    )  # fmt: skip
    progress.add_argument(
        "--logdir", metavar="DIR",
        help=_shown(show_all, "write losses, images and options to a folder for TensorBoard"),
    )  # fmt: skip


def _add_batch(command: argparse.ArgumentParser, show_all: bool) -> None:
    command.set_defaults(command=run_batch)
    command.usage = "tfstyle batch CONTENTS STYLE [STYLE ...] -o DIR [options]"
    command.add_argument("--help-all", action="help", help="show every option and exit")
    command.add_argument(
        "contents", metavar="CONTENTS",
        help="content image, folder that is searched for images, pattern such as 'photos/*.jpg' in quotes, "
        "or list of images (.txt with a path per line, or .parquet with a column path)",
    )  # fmt: skip
    command.add_argument(
        "styles", metavar="STYLE", nargs="+",
        help="style images; each content image gets one result per style, or one for their blend with "
        "--style-blend",
    )  # fmt: skip
    command.add_argument("-o", "--output", metavar="DIR", required=True, help="folder of the results")
    command.add_argument(
        "--overwrite", action="store_true", help="compute and replace results that exist already"
    )
    command.add_argument(
        "--format", choices=("png", "jpg", "webp", "tif"), default="png", metavar="NAME",
        help="file format of the results: png, jpg, webp, tif [png]",
    )  # fmt: skip
    cluster = command.add_argument_group("many machines or processes (needs tfstyle[cluster])")
    cluster.add_argument(
        "--ray", action="store_true",
        help="use Ray: workers for all GPUs or cores of this machine; contents, styles and results can be at "
        "addresses such as s3://bucket/photos",
    )  # fmt: skip
    for name, metavar, kind, text in (
        ("address", "HOST:PORT", str, "join the Ray cluster of this head node; auto: that of this machine"),
        ("workers", "N", integer(1), "number of workers [one per GPU, or as many as the cores allow]"),
        ("cores", "N", integer(1), "cores of each worker; no GPU is used [1, or more if memory is short]"),
        (
            "time-limit", "SECONDS", number(1),
            "end the worker of an image that takes longer, and let another one try [20 times the median, at "
            "least 10 minutes]",
        ),
    ):  # fmt: skip
        cluster.add_argument(f"--ray-{name}", metavar=metavar, type=kind, help=_shown(show_all, text))
    _add_run_options(command, show_all, hidden=SINGLE_IMAGE_OPTIONS)


def _add_video(command: argparse.ArgumentParser, show_all: bool) -> None:
    command.set_defaults(command=run_video)
    command.usage = "tfstyle video CLIP STYLE [STYLE ...] [-o FILE] [options]"
    command.add_argument("--help-all", action="help", help="show every option and exit")
    command.add_argument("clip", metavar="CLIP", help="video file, GIF, or folder of images")
    command.add_argument(
        "styles", metavar="STYLE", nargs="+",
        help="style image, or several; an .npz file of tfstyle extract --grams can stand for a style image",
    )  # fmt: skip
    command.add_argument(
        "-o", "--output", metavar="FILE",
        help="output video: .mp4, .mov or .mkv (H.264), or .webm (VP9) [CLIP_STYLE.mp4 in the current "
        "folder; a number is added if it exists]",
    )  # fmt: skip
    command.add_argument("--overwrite", action="store_true", help="replace existing files")
    frames = command.add_argument_group("frames")
    # The defaults are those of `tfstyle.video.Selection` and `VideoOptions`, which load TensorFlow; a test
    # compares them.
    for name, metavar, kind, text in (
        ("start", "SECONDS", number(0), "begin at this time of the clip"),
        ("end", "SECONDS", number(0), "end before this time of the clip"),
        ("every", "N", integer(1), "use every N-th frame; each is shown longer [1]"),
        (
            "fps", "N", number(0.01),
            "use at most N frames per second; for a folder of images: show N images per second [all; 25]",
        ),
    ):  # fmt: skip
        frames.add_argument(f"--{name}", metavar=metavar, type=kind, default=argparse.SUPPRESS, help=text)
    frames.add_argument(
        "--sound", action=argparse.BooleanOptionalAction, default=True, help="copy the sound of the clip [on]"
    )
    frames.add_argument(
        "--save-frames", metavar="DIR", help=_shown(show_all, "also write the frames as PNG files")
    )
    time = command.add_argument_group("from frame to frame")
    time.add_argument(
        "--fast", action="store_true", default=argparse.SUPPRESS,
        help="fewer iterations of each frame after the first one of a shot, which end as soon as the loss "
        "hardly falls [off]",
    )  # fmt: skip
    time.add_argument(
        "--temporal-weight", metavar="X", type=number(0), default=argparse.SUPPRESS,
        help="weight of the temporal loss, the difference from the warped results; with a higher weight the "
        "video flickers less, but the strokes move less freely [20]",
    )  # fmt: skip
    time.add_argument(
        "--frame-iterations", metavar="N", type=integer(1), default=argparse.SUPPRESS,
        help="largest number of iterations of each frame after the first one of a shot [16; 7 with --quality "
        "draft; 40 with --quality high; about half as many with --fast]",
    )  # fmt: skip
    time.add_argument(
        "--passes", metavar="N", type=integer(1), default=argparse.SUPPRESS,
        help="stylise all frames N times, alternately forwards and backwards [1]",
    )  # fmt: skip
    time.add_argument(
        "--memory-frames", metavar="N,..", type=comma_separated(integer(1)), default=argparse.SUPPRESS,
        help=_shown(show_all, "compare each frame with the results this many frames back [1,10]"),
    )  # fmt: skip
    time.add_argument(
        "--flow", choices=("dis", "off"), metavar="NAME", default=argparse.SUPPRESS,
        help=_shown(
            show_all,
            "optical flow: dis (by OpenCV), off (compare with the result of the frame before plus the "
            "difference between the frames of the clip) [dis]",
        ),
    )  # fmt: skip
    long_runs = command.add_argument_group("long runs")
    long_runs.add_argument(
        "--checkpoint", metavar="DIR", help="folder in which the finished frames are stored"
    )
    long_runs.add_argument(
        "--resume", action="store_true",
        help="continue after the last finished frame in --checkpoint; start a new video if there is none",
    )  # fmt: skip
    long_runs.add_argument(
        "--history", metavar="FILE.json",
        help=_shown(show_all, "write loss, warping error and time of every frame to a JSON file"),
    )  # fmt: skip
    _add_run_options(command, show_all)


def _add_explore(command: argparse.ArgumentParser) -> None:
    """Add the experiment's name. `tfstyle.cli.explore` parses the words after it."""
    command.set_defaults(command=run_explore)
    names = "\n".join(f"  {name:14}{recipe.summary}" for name, recipe in RECIPES.items())
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = f"experiments:\n{names}\n\ntfstyle explore NAME --help describes an experiment."
    command.add_argument("name", metavar="NAME", choices=tuple(RECIPES), help="name of the experiment")
    command.add_argument(
        "recipe_arguments",
        metavar="...",
        nargs=argparse.REMAINDER,
        help="images and options of the experiment",
    )


def _add_run_options(
    command: argparse.ArgumentParser, show_all: bool, hidden: Sequence[str] = ()
) -> Mapping[str, Any]:
    """Add --config, --preset and a flag for every field of `StyleConfig`. Return the groups."""
    command.add_argument(
        "--config", metavar="FILE", help="read options from a JSON file or from an image that tfstyle wrote"
    )
    command.add_argument(
        "--preset", choices=tuple(PRESETS), default="default", metavar="NAME",
        help=f"named set of options, described by tfstyle presets: {', '.join(PRESETS)} [default]",
    )  # fmt: skip
    command.epilog = (
        "Defaults are in brackets. A given option takes precedence over --config, and --config over --preset."
    )
    if not show_all:
        command.epilog += " --help-all shows every option."
    groups = {name: command.add_argument_group(title) for name, title in OPTION_GROUPS.items()}
    for field in dataclasses.fields(StyleConfig):
        visible = (show_all or field.metadata["usual"]) and field.name not in hidden
        _add_option(groups[field.metadata["group"]], field, visible=visible)
    return groups


def _add_options(command: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Add flags for some fields of `StyleConfig`."""
    for field in dataclasses.fields(StyleConfig):
        if field.name in names:
            _add_option(command, field)


def _add_option(group: Any, field: dataclasses.Field[Any], *, visible: bool = True) -> None:
    """Add a flag for a field of `StyleConfig`. The parsed options have it only if it was given."""
    kind, choices = str(field.type), tuple(field.metadata["choices"])
    settings: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
    if kind == "bool":
        settings["action"] = argparse.BooleanOptionalAction
    else:
        settings |= value_settings(kind, choices)
        if choices and "tuple" not in kind:
            settings["choices"] = choices  # for the completion
        settings["metavar"] = METAVARS.get(field.name, settings["metavar"])
    settings["help"] = _describe_option(field) if visible else argparse.SUPPRESS
    group.add_argument(f"--{field.name.replace('_', '-')}", **settings)


def _describe_option(field: dataclasses.Field[Any]) -> str:
    """Return an option's help, its choices with their explanations, and its default in brackets."""
    text = field.metadata["help"]
    choices = {name: note for name, note in field.metadata["choices"].items() if ":" not in name}
    if field.name == "optimizer":
        choices["addons:NAME"] = f"of tensorflow-addons, NAME is one of {', '.join(ADDONS)}"
    if choices:
        text += ": " + ", ".join(f"{name} ({note})" if note else name for name, note in choices.items())
    own = {"weights": "auto"}.get(field.name, field.metadata["default"])  # of the command line
    defaults = {quality: options.get(field.name, own) for quality, options in QUALITIES.items()}
    standard = defaults.pop(StyleConfig().quality)
    shown = [_describe_default(standard, field)]
    shown += [
        f"{_describe_default(default, field)} with --quality {quality}"
        for quality, default in defaults.items()
        if default != standard
    ]
    return (text if shown == [None] else f"{text} [{'; '.join(map(str, shown))}]").replace("%", "%%")


def _describe_default(default: Any, field: dataclasses.Field[Any]) -> str | None:
    """Return what the help shows for a default, or None if it shows nothing."""
    if default is None:
        shown: str | None = field.metadata["shown"]
        return shown
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _shown(show_all: bool, text: str) -> str:
    """Return the help text of an advanced option, which argparse hides unless every option is shown."""
    return text if show_all else argparse.SUPPRESS


def _log_to_stderr() -> None:
    logger = logging.getLogger("tfstyle")
    logger.handlers = [LogHandler()]
    logger.propagate = False
    warnings.filterwarnings("ignore", module="PIL")  # they concern metadata that tfstyle does not use

"""What each command does: read its options, call the library, say what came of it."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tfstyle import __version__
from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError, RunError
from tfstyle.outputs import Outputs
from tfstyle.presets import PRESETS

if TYPE_CHECKING:
    from tfstyle.checkpoint import Checkpoints

DATA = Path(__file__).parent / "data"
DEMO_CONTENT, DEMO_STYLE, DEMO_SIZE = "cat.jpg", "evening.jpg", 384
CHECKPOINT_EVERY = 300.0  # seconds
DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """One line, where argparse prints its usage first."""
        self.exit(WRONG_INPUT, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def stylize(options: argparse.Namespace) -> int:
    """``tfstyle stylize``."""
    from tfstyle.progress import progress_display
    from tfstyle.runs import Run
    from tfstyle.scales import words
    from tfstyle.several import interpolate
    from tfstyle.transfer import with_fine_style

    if options.interpolate is not None:
        return interpolate(options)
    outputs = Outputs(options)
    config, checkpoints = run_config(options), _checkpoints(options)
    styles = with_fine_style(options.styles, config, checkpoints=checkpoints)
    run = Run(options.content, styles, config, pause_every=outputs.every, checkpoints=checkpoints)
    outputs.check(run)
    about = words(run.preparation, run.shapes[-1], run.layouts[-1])
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


def _checkpoints(options: argparse.Namespace) -> Checkpoints | None:
    from tfstyle.checkpoint import open_checkpoints

    every = options.checkpoint_every
    if every is not None and options.checkpoint is None:
        raise ConfigError("--checkpoint-every needs --checkpoint DIR")
    return open_checkpoints(
        options.checkpoint, CHECKPOINT_EVERY if every is None else every, options.resume, options.overwrite
    )


def presets(options: argparse.Namespace) -> int:
    """``tfstyle presets``: what there is, and what each sets."""
    for name, preset in PRESETS.items():
        print(f"{name}: {preset.words}{preset.differs and f' ({preset.differs})'}")
        for option, value in preset.options.items():
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
            print(f"    {option:22}{'default' if value is None else shown}")
    return DONE


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


def pretrain(options: argparse.Namespace) -> int:
    """``tfstyle pretrain``."""
    from tfstyle.pretraining import pretrain
    from tfstyle.progress import count_display
    from tfstyle.weights import check_weights_output

    output = Path(options.output)
    check_weights_output(output, options.overwrite)
    began = time.perf_counter()
    with count_display(sys.stderr) as show:
        learned = pretrain(
            options.images, options.blocks, options.base, options.seed, options.patches, progress=show
        )
    learned.save(output, options.overwrite, options.half)
    layers = learned.convolutions
    print(
        f"{output}: {layers[0]} to {layers[-1]}, {learned.note}, in {time.perf_counter() - began:.0f} s\n"
        f"use it with --weights {shlex.quote(str(output))}"
    )
    return DONE


def info(options: argparse.Namespace) -> int:
    """``tfstyle info``: what is installed and what ``auto`` would choose."""
    import tensorflow as tf

    from tfstyle.backend import check_backend
    from tfstyle.device import XLA_CACHE, choose_compile, choose_device, choose_precision, xla_cache
    from tfstyle.download import imagenet_cache

    check_backend()
    device = choose_device()
    from tfstyle import addons

    names = ("tensorflow", "keras", "numpy", "pillow")
    lines = {"tfstyle": __version__, "python": platform.python_version()}
    lines |= {name: version(name) if name != "tensorflow" else tf.__version__ for name in names}
    lines["tensorflow-addons"] = addons.version() or f"none: {addons.why_not()}"
    lines["processors"] = f"{os.cpu_count()}"
    gpus = [tf.config.experimental.get_device_details(g) for g in tf.config.list_physical_devices("GPU")]
    lines["gpus"] = ", ".join(details.get("device_name", "unnamed") for details in gpus) or "none"
    chosen = {
        "device": device,
        "compile": choose_compile("auto", device.value),
        "precision": choose_precision("auto", device.value),
    }
    lines |= {f"{key} auto": f"{choice.value} ({choice.why})" for key, choice in chosen.items()}
    flag = f"none; TF_XLA_FLAGS={XLA_CACHE}DIR keeps what is compiled"
    lines["xla cache"] = xla_cache() or flag
    cached = "cached at" if imagenet_cache().is_file() else "not cached; would be kept at"
    lines["imagenet weights"] = f"{cached} {imagenet_cache()}"
    width = max(map(len, lines))
    print("\n".join(f"{key:{width}}  {value}" for key, value in lines.items()))
    return DONE


def run_config(options: argparse.Namespace) -> StyleConfig:
    """Preset, then --config, then the flags, each over the one before."""
    names = {field.name for field in dataclasses.fields(StyleConfig)}
    stored = _stored_options(Path(options.config)) if options.config is not None else {}
    given = {name: value for name, value in vars(options).items() if name in names}
    return StyleConfig().replace({"weights": "auto", **PRESETS[options.preset].options, **stored, **given})


def _stored_options(path: Path) -> dict[str, Any]:
    """The options in a picture's metadata, or in a JSON file by themselves or under ``options``."""
    from tfstyle.saving import FORMATS, read_settings

    if not path.is_file():
        raise ConfigError(f"no such file: {path}")
    if path.suffix.lower() in FORMATS:
        return read_settings(path)["options"]
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found.get("options", found))
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: not a JSON object of options ({error})") from error


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C wait for the end of an iteration, where there is a picture to save.

    Inside TensorFlow's own code an exception can come out as another one. A second Ctrl-C ends at once.

    Yields:
        A function that tells whether there was one.
    """
    seen: list[int] = []

    def handle(number: int, frame: object) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)


def complain(what: object, code: int) -> int:
    """Say on stderr what went wrong, and return the code."""
    print(f"tfstyle: {'error: ' if code != INTERRUPTED else ''}{what}", file=sys.stderr, flush=True)
    return code

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
from tfstyle.presets import PRESETS

if TYPE_CHECKING:
    from tfstyle.runs import Run

DATA = Path(__file__).parent / "data"
DEMO_CONTENT, DEMO_STYLE, DEMO_SIZE = "cat.jpg", "evening.jpg", 384
DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """One line, where argparse prints its usage first."""
        self.exit(WRONG_INPUT, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def stylize(options: argparse.Namespace) -> int:
    """``tfstyle stylize``."""
    from tfstyle.files import check_writable
    from tfstyle.progress import progress_display
    from tfstyle.runs import Run
    from tfstyle.saving import check_output
    from tfstyle.several import interpolate
    from tfstyle.transfer import with_fine_style

    if options.interpolate is not None:
        return interpolate(options)
    output = Path(options.output)
    check_output(output, options.overwrite)
    config = run_config(options)
    if options.history is not None:
        if Path(options.history).resolve() == output.resolve():
            raise ConfigError(f"--history and --output are both {output}")
        check_writable(Path(options.history), options.overwrite)
    every = options.save_every or 0
    run = Run(options.content, with_fine_style(options.styles, config), config, pause_every=every)
    check_output(output, options.overwrite, run.shapes[-1])
    total = sum(run.iterations)
    for n in range(every, total, every) if every else ():
        check_writable(_preview(output, n), options.overwrite)
    error: Exception | None = None
    with interruptible() as interrupted:
        try:
            with progress_display(run.shapes, run.iterations, sys.stderr) as show:
                for iteration in run:
                    show(iteration)
                    done = len(run.history.iteration)
                    if every and done % every == 0 and done < total:
                        run.result().save(_preview(output, done), options.overwrite)
                    if interrupted():
                        break
        except RunError as caught:
            error = caught
        if run.history.iteration:
            _save(run, options)
    if error is not None:
        return complain(error, FAILED)
    return complain("interrupted", INTERRUPTED) if interrupted() else DONE


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
            **given,
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
    from tfstyle.device import choose_compile, choose_device, choose_precision
    from tfstyle.download import imagenet_cache

    check_backend()
    device = choose_device()
    names = ("tensorflow", "keras", "numpy", "pillow")
    lines = {"tfstyle": __version__, "python": platform.python_version()}
    lines |= {name: version(name) if name != "tensorflow" else tf.__version__ for name in names}
    lines["processors"] = f"{os.cpu_count()}"
    gpus = [tf.config.experimental.get_device_details(g) for g in tf.config.list_physical_devices("GPU")]
    lines["gpus"] = ", ".join(details.get("device_name", "unnamed") for details in gpus) or "none"
    chosen = {
        "device": device,
        "compile": choose_compile("auto", device.value),
        "precision": choose_precision("auto", device.value),
    }
    lines |= {f"{key} auto": f"{choice.value} ({choice.why})" for key, choice in chosen.items()}
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


def _preview(output: Path, iteration: int) -> Path:
    """Where the picture of an iteration, counted over all scales, goes: out-0050.png beside out.png."""
    return output.with_stem(f"{output.stem}-{iteration:04d}")


def _save(run: Run, options: argparse.Namespace) -> None:
    """Write the picture so far, and the history; say what was written."""
    result, output = run.result(), Path(options.output)
    if output.exists() and not options.overwrite:  # it was not there when the run began
        output = output.with_stem(f"{output.stem}-{os.getpid()}")
    result.save(output, options.overwrite)
    height, width = result.image.shape[:2]
    done, seconds = len(result.history.iteration), result.history.seconds[-1]
    print(f"{output}: {width} x {height} pixels, {done} iterations in {seconds:.1f} s", flush=True)
    if options.history is not None:
        result.history.save(options.history, options.overwrite)


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

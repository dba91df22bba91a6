"""``tfstyle info`` and ``tfstyle presets``: the installed versions, and the named sets of options."""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tfstyle import __version__
from tfstyle.cli.common import DONE, load_tensorflow
from tfstyle.cli.extract import read_contract, version_folder
from tfstyle.config import QUALITIES, StyleConfig
from tfstyle.presets import PRESETS


def run_presets(options: argparse.Namespace) -> int:
    """Run ``tfstyle presets``: print the presets and the qualities with the options that they change.

    Options whose values are the defaults of quality ``standard`` are left out. Return the exit code.
    """
    for name, preset in PRESETS.items():
        print(f"{name}: {preset.summary}{preset.differs and f' ({preset.differs})'}")
        _print_changes(preset.options)
    for name in QUALITIES:
        print(f"--quality {name}{': the defaults' if name == StyleConfig().quality else ''}")
        _print_changes(StyleConfig(quality=name).as_dict())
    return DONE


def _print_changes(options: Mapping[str, Any]) -> None:
    defaults = StyleConfig().as_dict()
    values = StyleConfig().replace(options).as_dict()
    for field in dataclasses.fields(StyleConfig):
        option, value = field.name, values[field.name]
        if option in options and option != "quality" and value != defaults[option]:
            shown = ",".join(map(str, value)) if isinstance(value, list) else value
            print(f"    {option:22}{field.metadata['shown'] if value is None else shown}")


def run_info(options: argparse.Namespace) -> int:
    """Run ``tfstyle info`` and return the exit code.

    It prints versions, devices and what ``auto`` chooses, or the encoder of a style file or a model.
    """
    load_tensorflow()
    if options.file is not None:
        return _print_lines(_describe_file(Path(options.file)))
    import tensorflow as tf

    from tfstyle import addons
    from tfstyle.backend import check_backend
    from tfstyle.device import XLA_CACHE, choose_compile, choose_device, choose_precision, xla_cache
    from tfstyle.network.download import imagenet_cache, imagenet_source

    check_backend()
    device = choose_device()
    packages = ("tensorflow", "keras", "numpy", "pillow")
    lines = {"tfstyle": __version__, "python": platform.python_version()}
    lines |= {name: version(name) if name != "tensorflow" else tf.__version__ for name in packages}
    lines["tensorflow-addons"] = addons.version() or f"none: {addons.why_not()}"
    lines["processors"] = f"{os.cpu_count()}"
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    lines["gpus"] = ", ".join(gpu.get("device_name", "unnamed") for gpu in details) or "none"
    choices = {
        "device": device,
        "compile": choose_compile("auto", device.value),
        "precision": choose_precision("auto", device.value),
    }
    lines |= {f"{key} auto": f"{choice.value} ({choice.why})" for key, choice in choices.items()}
    flag = f"none; set TF_XLA_FLAGS={XLA_CACHE}DIR to keep compiled programs"
    lines["xla cache"] = xla_cache() or flag
    cache, (_, url, _) = imagenet_cache(), imagenet_source()
    missing = f"not downloaded; they would be stored at {cache} and downloaded from {url}"
    lines["imagenet weights"] = f"cached at {cache}" if cache.is_file() else missing
    return _print_lines(lines)


def _describe_file(path: Path) -> dict[str, str]:
    """Return what a style file or an exported model contains, and the encoder that it was made with.

    Raises:
        InputError: it is neither of them.
    """
    from tfstyle.losses.style_file import stored_styles

    if path.is_dir():
        folder = version_folder(path)
        contract = read_contract(folder)
        lines, made_with = {"signatures": ", ".join(contract["signatures"])}, contract["made_with"]
    else:
        names, made_with = stored_styles(path)
        lines = {"styles": ", ".join(names)}
    layers = [key.removesuffix(" weights") for key in made_with if key.endswith(" weights")]
    encoder = {key: value for key, value in made_with.items() if not key.endswith(" weights")}
    return {**lines, "layers": ", ".join(layers), "weights": encoder.pop("source", "not known"), **encoder}


def _print_lines(lines: Mapping[str, str]) -> int:
    """Print names and values in two columns, and return the exit code."""
    width = max(map(len, lines))
    print("\n".join(f"{key:{width}}  {value}" for key, value in lines.items()))
    return DONE

"""``tfstyle info`` and ``tfstyle presets``: the installed versions, and the named sets of options."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from tfstyle import __version__
from tfstyle.cli.common import DONE, load_tensorflow
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
    for option, value in StyleConfig().replace(options).as_dict().items():
        if option in options and option != "quality" and value != defaults[option]:
            shown = ",".join(map(str, value)) if isinstance(value, list) else value
            print(f"    {option:22}{'default' if value is None else shown}")


def run_info(options: argparse.Namespace) -> int:
    """Run ``tfstyle info``: print versions, devices and what ``auto`` chooses. Return the exit code."""
    load_tensorflow()
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
    width = max(map(len, lines))
    print("\n".join(f"{key:{width}}  {value}" for key, value in lines.items()))
    return DONE

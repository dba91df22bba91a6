"""The limits of a page, and the options that its users may set. TensorFlow is not imported here."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tfstyle.config import INIT_NAMES, StyleConfig, check_option_names, quality_options
from tfstyle.errors import ConfigError, ImageError
from tfstyle.files import NAMED_WEIGHTS
from tfstyle.presets import preset

#: Options that name files of the server, or that belong to whoever runs it. Users of a page cannot set them.
SERVER_OPTIONS = (
    "masks", "style_masks", "content_mask", "fine_style", "memory", "max_pixels", "device", "steps_per_call",
)  # fmt: skip
#: Options whose value can be the path of a file -> the names that users of a page may choose from.
NAMES_ONLY: Mapping[str, Sequence[str]] = {"weights": NAMED_WEIGHTS, "init": INIT_NAMES}


NO_SPACE = "the server has no space for more images; close tabs, or try again in an hour"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a user of a page may ask for.

    Attributes:
        size: longest side of a result in pixels.
        pixels: pixels of an image file.
        file_bytes: bytes of an image file or a clip.
        iterations: iterations at each scale.
        styles: style images of one result.
        frames: frames of a video.
        waiting: jobs that wait for the running job.
        seconds: time of a job, from its begin.
        stored_bytes: bytes of all files that the server stores: uploads and results of all open tabs.
        logins: wrong passwords in a minute from one address.
    """

    size: int = 2048
    pixels: int = 50_000_000
    file_bytes: int = 50_000_000
    iterations: int = 1000
    styles: int = 6
    frames: int = 1000
    waiting: int = 20
    seconds: float = 3600.0
    stored_bytes: int = 4_000_000_000
    logins: int = 10

    @property
    def upload_bytes(self) -> int:
        """Bytes of an upload, which may consist of all images of a result."""
        return (self.styles + 1) * self.file_bytes

    def check_config(self, config: StyleConfig) -> None:
        """Raise ConfigError if a result with these options would be larger or take longer than is allowed."""
        shown: dict[str, tuple[float, float]] = {
            "size": (config.size, self.size),
            "iterations": (config.iterations, self.iterations),
        }
        if config.first_iterations is not None:
            shown["first_iterations"] = (config.first_iterations, self.iterations)
        # At a large size each pair of L-BFGS takes as much memory as two images of this size.
        shown["lbfgs_history"] = config.lbfgs_history, max(20, round(100 * (512 / config.size) ** 2))
        shown["style_size"] = max(config.style_size or (0,)), self.size
        shown["style_scale"] = max(config.style_scale or (0,)), self.size / config.size
        for name, (value, most) in shown.items():
            if value > most:
                raise ConfigError(f"{name} is {value:g}; this page allows at most {most:g}")
        if config.scale_factor < 1.2:
            raise ConfigError(f"scale_factor is {config.scale_factor:g}; this page allows at least 1.2")

    def check_longest_side(self, config: StyleConfig, content: object) -> None:
        """Raise ConfigError if ``size_of`` makes the longest side of a result longer than is allowed.

        Args:
            config: the options.
            content: path of the content image. An image that Pillow cannot read is not checked.
        """
        if config.size_of == "longest":
            return
        shape = sides_of(str(content))
        if shape is None:
            return
        short, long = sorted(shape)
        ratio = long / max(short, 1)
        longest = config.size * (ratio if config.size_of == "shortest" else math.sqrt(ratio))
        if longest > self.size:
            raise ConfigError(
                f"with size_of {config.size_of!r} the longest side would have {longest:.0f} pixels; this "
                f"page allows at most {self.size}"
            )

    def check_video(self, frames: int, shape: tuple[int, int]) -> None:
        """Raise ConfigError if a video would have more frames, or larger ones, than the page allows.

        Args:
            frames: number of frames.
            shape: height and width of the frames in pixels.
        """
        if frames > self.frames:
            raise ConfigError(
                f"the video would have {frames} frames; this page allows at most {self.frames}; choose a "
                "part of the clip, or fewer frames per second"
            )
        if max(shape) > self.size:
            raise ConfigError(
                f"the longest side of the video would have {max(shape)} pixels; this page allows at most "
                f"{self.size}"
            )

    def check_files(self, content: object, styles: Sequence[object]) -> None:
        """Raise ImageError unless there are a content image and style images, of which none is too large."""
        if not content:
            raise ImageError("no content image; upload or paste one, or use the webcam")
        if not styles:
            raise ImageError("no style image; upload one, or add one from the package")
        if len(styles) > self.styles:
            raise ImageError(f"{len(styles)} style images; this page allows at most {self.styles}")
        for source in (content, *styles):
            path = Path(str(source))
            if not path.is_file():
                raise ImageError(f"no such image: {path.name}; upload it again")
            if (size := os.path.getsize(path)) > self.file_bytes:
                raise ImageError(
                    f"{path.name} has {size / 1e6:.0f} MB; this page allows at most "
                    f"{self.file_bytes / 1e6:.0f} MB"
                )


def sides_of(path: str) -> tuple[int, int] | None:
    """Return the width and height of an image file from its header, or None if Pillow cannot read it.

    Args:
        path: path of the file.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def make_config(options: Mapping[str, Any], limits: Limits) -> StyleConfig:
    """Return the config for options that a user of a page has chosen.

    Args:
        options: names of the fields of `StyleConfig` -> values; the name ``preset`` -> the name of a preset,
            whose options the others change.
        limits: the limits of the page.

    Raises:
        ConfigError: an option does not exist, has a wrong value, exceeds the limits, or may be set by
            whoever runs the page only.
    """
    chosen = dict(options)
    start = preset(_word(chosen.pop("preset", "default"), "preset"))
    check_option_names(chosen)
    for name, value in chosen.items():
        if name in SERVER_OPTIONS and value != getattr(StyleConfig(), name):
            raise ConfigError(f"{name} cannot be set on this page; leave it out")
        if name in NAMES_ONLY and value not in NAMES_ONLY[name]:
            raise ConfigError(f"{name} is {value!r}; on this page it can be {', '.join(NAMES_ONLY[name])}")
    config = start.replace({"weights": "auto", **chosen, "max_pixels": limits.pixels})
    limits.check_config(config)
    return config


def read_options(text: str) -> dict[str, Any]:
    """Return the options in the text of a JSON object.

    Args:
        text: a JSON object of options; empty for none.

    Raises:
        ConfigError: the text is not a JSON object.
    """
    try:
        options = json.loads(text or "{}")
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict):
        raise ConfigError('options are not a JSON object; give an object such as {"size": 512}, or nothing')
    return options


def allowed_options(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the options stored in an image that users of a page may set, without its files."""
    names = {field.name for field in dataclasses.fields(StyleConfig)} - set(SERVER_OPTIONS)
    allowed = {name: value for name, value in stored.items() if name in names}
    for name, choices in NAMES_ONLY.items():
        if allowed.get(name) not in choices:
            allowed.pop(name, None)
    if allowed.get("quality") is not None:  # the iterations follow from it
        allowed = {name: value for name, value in allowed.items() if name not in quality_options()}
    return allowed


def _word(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name} is {value!r}; give a name")
    return value

"""Styles in files: Gram matrices at several sizes, extracted once and used with many content images."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfstyle.errors import ConfigError, ImageError
from tfstyle.files import check_writable, split_style_source, write_atomically
from tfstyle.images import ImageArray
from tfstyle.layers import find_layer, layer_names
from tfstyle.network import Encoder

log = logging.getLogger(__name__)

Grams = Mapping[str, np.ndarray]
ENCODER_OPTIONS = ("pooling", "padding", "pixel_range", "feature_scale")
#: Encoder options of files that were written before these were stored.
DEFAULT_OPTIONS = {"pixel_range": "255.0", "feature_scale": "1.0"}
MAX_LEVELS = 9  # sizes of a style at most: the full one, half of it, a quarter, ...
SIZE_TOLERANCE = 0.05  # relative difference of a level's size from the size asked for without a warning


class StyleNumbers(dict[str, Any]):
    """The dict of numbers that `tfstyle.StyleExtractor` gives, and the encoder that they were made with.

    Attributes:
        made_with: the encoder's options and weights, as `describe_encoder` gives them.
    """

    def __init__(self, numbers: Mapping[str, Any], made_with: Mapping[str, str]) -> None:
        super().__init__(numbers)
        self.made_with = made_with


@dataclass(frozen=True, eq=False)
class Style:
    """Gram matrices in place of a style image for `tfstyle.stylize`; `tfstyle.StyleExtractor.style` makes it.

    Attributes:
        levels: layer -> float32 Gram matrix ``[N, N]``, of the image at its full size, at half of it,
            at a quarter, ... Each scale of a run takes the level that fits.
        made_with: the encoder's options and weights, as `describe_encoder` gives them; empty if unknown.
        name: of the image.
        size: longest side of the image in pixels at its full size; 0 if it is not known.
        original_size: the same before it was shrunk to be extracted.
    """

    levels: Sequence[Grams] = dataclasses.field(repr=False)
    made_with: Mapping[str, str]
    _: KW_ONLY
    name: str = ""
    size: int = 0
    original_size: int = 0

    def __post_init__(self) -> None:
        if not self.levels:
            raise ConfigError("a style needs the Gram matrices of at least one size")
        for level in self.levels:
            for layer, gram in level.items():
                channels = find_layer(layer).filters
                if gram.shape != (channels, channels) or gram.dtype != np.float32:
                    raise ConfigError(
                        f"{layer} of a style is {gram.dtype} of shape {gram.shape}; of one image it is "
                        f"float32 [{channels}, {channels}]"
                    )

    def at(self, longest: float) -> Grams:
        """The Gram matrices of the image with about that many pixels on its longest side.

        Where no level is within `SIZE_TOLERANCE` of that, the nearest is taken, and a warning logged.
        """
        if not self.size:
            return self.levels[0]
        sizes = [self.size / 2**level for level in range(len(self.levels))]
        nearest = min(sizes, key=lambda size: abs(np.log(size / longest)))
        # An image smaller than the last level is too small for the encoder.
        if abs(nearest / longest - 1) > SIZE_TOLERANCE and longest > sizes[-1]:
            log.warning(
                "%s was extracted at %d pixels: for %d those of %d stand in; extract it at this size, or at "
                "two or four times it",
                self.name or "the style", self.size, round(longest), round(nearest),
            )  # fmt: skip
        return self.levels[sizes.index(nearest)]

    def check(self, encoder: Encoder, layers: Sequence[str]) -> None:
        """Raise ConfigError unless these are Gram matrices of this encoder, with these layers."""
        name = self.name or "the style"
        available = [layer for layer in layers if layer in self.levels[0]]
        expected = describe_encoder(encoder, available)
        differ = [
            key
            for key, value in expected.items()
            if self.made_with and value != self.made_with.get(key, DEFAULT_OPTIONS.get(key))
        ]
        for key in ENCODER_OPTIONS:
            if key in differ:
                raise ConfigError(
                    f"{name} was extracted with {key} {self.made_with.get(key)}, not {expected[key]}"
                )
        if differ:
            raise ConfigError(
                f"{name} was extracted with other weights, {self.made_with.get('source', 'unknown')}, "
                f"than those here, {encoder.weights.source}"
            )
        missing = [layer for layer in layers if layer not in self.levels[0]]
        if missing:
            choices = ",".join(self.levels[0])
            raise ConfigError(
                f"{name} was extracted without {', '.join(missing)}; style_layers can be {choices}"
            )

    @classmethod
    def from_source(cls, source: Any) -> Style | None:
        """The style that a source holds, or None where it is something else, such as an image.

        Args:
            source: a `Style`; what `tfstyle.StyleExtractor` gave for one image, whose Gram matrices then
                serve at all scales; or the path of an ``.npz`` file of one style, or of several with the
                name of one behind it, ``styles.npz#scream.jpg``.

        Raises:
            ImageError, ConfigError: as `load`; a mapping without Gram matrices, or of several images.
        """
        if isinstance(source, (str, os.PathLike)):
            file_and_name = split_style_source(os.fspath(source))
            return None if file_and_name is None else cls.load(*file_and_name)
        if not isinstance(source, Mapping):
            return source if isinstance(source, cls) else None
        return cls._from_grams(source)

    @classmethod
    def _from_grams(cls, source: Mapping[str, Any]) -> Style:
        """A style of one size from Gram matrices by layer, with or without a batch axis of one."""
        grams = {str(k): np.asarray(v, np.float32) for k, v in source.items() if str(k) in layer_names()}
        if not grams:
            raise ConfigError(f"a style given as a mapping needs Gram matrices by layer; not {list(source)}")
        made_with = getattr(source, "made_with", {})
        if not made_with:
            log.warning("Gram matrices alone: whether they are of this encoder cannot be checked")
        return cls([{k: v[0] if v.shape[:1] == (1,) else v for k, v in grams.items()}], made_with)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write an ``.npz`` file that `load`, `tfstyle.stylize` and the command line read.

        Raises:
            ConfigError: another ending.
            OutputError: nothing can be written there, or a file is there.
            RunError: writing failed half way.
        """
        save_styles(Path(path), [self], overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str], name: str | None = None) -> Style:
        """Read a style that `save` or ``tfstyle extract --grams`` wrote.

        Args:
            path: of the ``.npz`` file.
            name: of the style, where the file holds several.

        Raises:
            ImageError: no such file, or not one of styles.
            ConfigError: no style of that name, or several and none chosen.
        """
        path = Path(path)
        if not path.is_file():
            raise ImageError(f"no such style file: {path}")
        try:
            with np.load(path, allow_pickle=False) as file:
                if "names" not in file.files and set(layer_names()) & set(file.files):
                    return cls._from_grams(file)  # an extractor's Gram matrices, saved by the user
                names, sizes = [str(n) for n in file["names"]], file["sizes"]
                made_with = dict(json.loads(str(file["made_with"])))
                layers = [key for key in file.files if key.startswith("conv") and "/" not in key]
                index = _style_index(names, name, path)
                levels = [
                    {layer: file[_array_key(layer, level)][index] for layer in layers}
                    for level in range(MAX_LEVELS)
                    if layers and _array_key(layers[0], level) in file.files
                ]
                if not levels:
                    raise ConfigError(f"{path}: it holds no Gram matrices; extract it with --grams")
                size, original_size = (int(n) for n in sizes[index])
                name = name or names[index]
                return cls(levels, made_with, name=name, size=size, original_size=original_size)
        except ConfigError:
            raise
        except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ImageError(f"{path}: not a file of styles") from error


def require_images(styles: Sequence[ImageArray | Style], option: str) -> list[ImageArray]:
    """The styles, which must all be images, for an option that needs their pixels.

    Raises:
        ConfigError: one of them is given by its Gram matrices.
    """
    images = [style for style in styles if isinstance(style, ImageArray)]
    if len(images) < len(styles):
        raise ConfigError(f"{option} needs the style's image, not its Gram matrices")
    return images


def image_pyramid(image: ImageArray, minimum: int) -> Iterator[ImageArray]:
    """Yield the image, then at half its size, at a quarter, ... down to the minimum in pixels a side."""
    smallest_factor = min(1.0, minimum / min(image.rgb.shape[:2]))
    for level in range(MAX_LEVELS):
        yield image.shrunk(0.5**level, minimum)
        if 0.5**level <= smallest_factor:
            return


def describe_encoder(encoder: Encoder, layers: Sequence[str]) -> dict[str, str]:
    """The encoder's options and the digests of its weights, on which Gram matrices of these layers depend."""
    digests = encoder.weights.digests
    weights = {f"{layer} weights": digests[layer] for layer in layers}
    options = {name: str(getattr(encoder, name)) for name in ENCODER_OPTIONS}
    return {**options, **weights}


def save_styles(
    path: Path, styles: Sequence[Style], *, overwrite: bool = False, embeddings: np.ndarray | None = None
) -> None:
    """Write the styles of several images, all with the same layers.

    The file holds ``names``; ``sizes`` ``[styles, 2]``, the longest side as extracted and before;
    ``made_with`` as JSON; ``embedding`` ``[styles, size]`` where given; and for each layer ``conv1_1``
    ``[styles, N, N]``, at half the size ``conv1_1/2``, and so on. A small image, which has fewer sizes,
    repeats its last.
    """
    if path.suffix != ".npz":
        raise ConfigError(f"cannot write {path}: styles are written as .npz")
    check_writable(path, overwrite)
    arrays: dict[str, Any] = {}
    for level in range(max(len(style.levels) for style in styles)):
        for layer in styles[0].levels[0]:
            grams = [style.levels[min(level, len(style.levels) - 1)][layer] for style in styles]
            arrays[_array_key(layer, level)] = np.stack(grams)
    if embeddings is not None:
        arrays["embedding"] = embeddings
    write_style_numbers(
        path,
        [style.name for style in styles],
        sizes=[(style.size, style.original_size) for style in styles],
        made_with=styles[0].made_with,
        arrays=arrays,
    )


def write_style_numbers(
    path: Path,
    names: Sequence[str],
    *,
    sizes: Sequence[tuple[int, int]],
    made_with: Mapping[str, str],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write an ``.npz`` file as `save_styles` describes it, with any of its arrays."""
    buffer = io.BytesIO()
    named_arrays: dict[str, Any] = {"names": np.array(names), "sizes": np.array(sizes), **arrays}
    np.savez_compressed(buffer, made_with=np.array(json.dumps(dict(made_with))), **named_arrays)
    write_atomically(path, buffer.getvalue())


def _array_key(layer: str, level: int) -> str:
    return layer if level == 0 else f"{layer}/{2**level}"


def _style_index(names: Sequence[str], name: str | None, path: Path) -> int:
    if name is None and len(names) > 1:
        raise ConfigError(f"{path} holds {len(names)} styles; name one: {path}#{names[0]}")
    if name is not None and name not in names:
        raise ConfigError(f"{path} has no style {name!r}; it has {', '.join(names[:5])}")
    return 0 if name is None else names.index(name)

"""A style that is kept: Gram matrices at several sizes, for use with many contents."""

from __future__ import annotations

import io
import json
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfstyle.errors import ConfigError, ImageError
from tfstyle.files import check_writable, write_atomically
from tfstyle.images import ImageArray
from tfstyle.layers import find_layer, layer_names
from tfstyle.network import Encoder

log = logging.getLogger(__name__)

Grams = Mapping[str, np.ndarray]
ENCODER_OPTIONS = ("pooling", "padding", "pixel_range", "feature_scale")
#: What files that do not say so were made with.
UNSAID = {"pixel_range": "255.0", "feature_scale": "1.0"}
LEVELS = 9  # halvings of the size that are kept at most, the full one included
NEAR = 0.05  # how far, relatively, a level's size may be from the one asked for, before that is said


class StyleNumbers(dict[str, Any]):
    """What `tfstyle.StyleExtractor` gives, a dict, and what it was made with.

    Attributes:
        made_with: what the encoder was, of `describe`.
    """

    def __init__(self, numbers: Mapping[str, Any], made_with: Mapping[str, str]) -> None:
        super().__init__(numbers)
        self.made_with = made_with


@dataclass(frozen=True, eq=False)
class Style:
    """What `tfstyle.stylize` takes in place of a style image; `tfstyle.StyleExtractor.style` makes it.

    Attributes:
        levels: layer -> float32 Gram matrix ``[N, N]``, of the picture at its full size, at half of it,
            at a quarter, ... A run from coarse to fine takes from each scale the level that fits.
        made_with: what the encoder was, of `describe`; empty if it is not known.
        name: of the picture.
        size: longest side of the picture in pixels at its full size; 0 if it is not known.
        original: the same before it was shrunk to be extracted.
    """

    levels: Sequence[Grams]
    made_with: Mapping[str, str]
    name: str = ""
    size: int = 0
    original: int = 0

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
        """The Gram matrices of the picture with about that many pixels on its longest side.

        Where no level is within `NEAR` of that, the nearest is taken, and a line says so.
        """
        if not self.size:
            return self.levels[0]
        sizes = [self.size / 2**level for level in range(len(self.levels))]
        nearest = min(sizes, key=lambda size: abs(np.log(size / longest)))
        # Below the last there is none that the encoder could look at.
        if abs(nearest / longest - 1) > NEAR and longest > sizes[-1]:
            log.warning(
                "%s was extracted at %d pixels: for %d those of %d stand in; extract it at this size, or at "
                "two or four times it",
                self.name or "the style", self.size, round(longest), round(nearest),
            )  # fmt: skip
        return self.levels[sizes.index(nearest)]

    def check(self, encoder: Encoder, layers: Sequence[str]) -> None:
        """Raise ConfigError unless these are Gram matrices of this encoder, with these layers."""
        name = self.name or "the style"
        here = describe_encoder(encoder, [layer for layer in layers if layer in self.levels[0]])
        differ = [
            key for key in here if self.made_with and here[key] != self.made_with.get(key, UNSAID.get(key))
        ]
        for key in ENCODER_OPTIONS:
            if key in differ:
                raise ConfigError(
                    f"{name} was extracted with {key} {self.made_with.get(key)}, not {here[key]}"
                )
        if differ:
            raise ConfigError(
                f"{name} was extracted with other weights, {self.made_with.get('source', 'unknown')}, "
                f"than those here, {encoder.weights.source}"
            )
        missing = [layer for layer in layers if layer not in self.levels[0]]
        if missing:
            has = ",".join(self.levels[0])
            raise ConfigError(f"{name} was extracted without {', '.join(missing)}; style_layers can be {has}")

    @classmethod
    def of(cls, source: Any) -> Style | None:
        """A style from whatever holds one, or None where that is something else, such as an image.

        Args:
            source: a `Style`; what `tfstyle.StyleExtractor` gave for one image, whose Gram matrices then
                serve at all scales; or the path of an ``.npz`` file of one style, or of several with the
            name of one behind it, ``styles.npz#scream.jpg``.

        Raises:
            ImageError, ConfigError: as `load`; a mapping without Gram matrices, or of several images.
        """
        if isinstance(source, (str, os.PathLike)):
            file, mark, name = os.fspath(source).rpartition("#")
            if mark and Path(file).suffix.lower() == ".npz":
                return cls.load(file, name)
            return cls.load(source) if Path(source).suffix.lower() == ".npz" else None
        if not isinstance(source, Mapping):
            return source if isinstance(source, cls) else None
        return cls._of_grams(source)

    @classmethod
    def _of_grams(cls, source: Mapping[str, Any]) -> Style:
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
        save_styles(Path(path), [self], overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str], name: str | None = None) -> Style:
        """Read a style that `save` or ``tfstyle extract --grams`` wrote.

        Args:
            path: of the ``.npz`` file.
            name: which, where the file holds several.

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
                    return cls._of_grams(file)  # what an extractor gave, saved by the user
                names, sizes = [str(n) for n in file["names"]], file["sizes"]
                made_with = dict(json.loads(str(file["made_with"])))
                layers = [key for key in file.files if key.startswith("conv") and "/" not in key]
                index = _index(names, name, path)
                levels = [
                    {layer: file[_key(layer, level)][index] for layer in layers}
                    for level in range(LEVELS)
                    if layers and _key(layers[0], level) in file.files
                ]
                if not levels:
                    raise ConfigError(f"{path}: it holds no Gram matrices; extract it with --grams")
                return cls(levels, made_with, name or names[index], *(int(n) for n in sizes[index]))
        except ConfigError:
            raise
        except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ImageError(f"{path}: not a file of styles") from error


def require_images(styles: Sequence[ImageArray | Style], option: str) -> list[ImageArray]:
    """The styles, which are all images; an option that looks at pixels asks for them so.

    Raises:
        ConfigError: one is a kept style.
    """
    images = [style for style in styles if isinstance(style, ImageArray)]
    if len(images) < len(styles):
        raise ConfigError(f"{option} needs the style's image, not its Gram matrices")
    return images


def image_pyramid(picture: ImageArray, minimum: int) -> Iterator[ImageArray]:
    """The picture, at half its size, at a quarter, ... down to the minimum in pixels a side."""
    least = min(1.0, minimum / min(picture.rgb.shape[:2]))
    for level in range(LEVELS):
        yield picture.shrunk(0.5**level, minimum)
        if 0.5**level <= least:
            return


def describe_encoder(encoder: Encoder, layers: Sequence[str]) -> dict[str, str]:
    """What Gram matrices of these layers depend on: the encoder's options, and the weights up to each."""
    digests = encoder.weights.digests
    weights = {f"{layer} weights": digests[layer] for layer in layers}
    options = {name: str(getattr(encoder, name)) for name in ENCODER_OPTIONS}
    return {**options, **weights}


def save_styles(
    path: Path, styles: Sequence[Style], overwrite: bool = False, embeddings: np.ndarray | None = None
) -> None:
    """Write the styles of several pictures, all with the same layers.

    The file holds ``names``; ``sizes`` ``[styles, 2]``, the longest side as extracted and before;
    ``made_with`` as JSON; ``embedding`` ``[styles, size]`` where given; and for each layer ``conv1_1``
    ``[styles, N, N]``, at half the size ``conv1_1/2``, and so on. A small picture, which has fewer sizes,
    repeats its last.
    """
    if path.suffix != ".npz":
        raise ConfigError(f"cannot write {path}: styles are written as .npz")
    check_writable(path, overwrite)
    arrays: dict[str, Any] = {}
    for level in range(max(len(style.levels) for style in styles)):
        for layer in styles[0].levels[0]:
            grams = [style.levels[min(level, len(style.levels) - 1)][layer] for style in styles]
            arrays[_key(layer, level)] = np.stack(grams)
    write_style_numbers(
        path, [s.name for s in styles], [(s.size, s.original) for s in styles], styles[0].made_with,
        {**arrays, **({} if embeddings is None else {"embedding": embeddings})},
    )  # fmt: skip


def write_style_numbers(
    path: Path,
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    made_with: Mapping[str, str],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write an ``.npz`` file as `save_styles` describes it, with any of its arrays."""
    buffer = io.BytesIO()
    described: dict[str, Any] = {"names": np.array(names), "sizes": np.array(sizes), **arrays}
    np.savez_compressed(buffer, made_with=np.array(json.dumps(dict(made_with))), **described)
    write_atomically(path, buffer.getvalue())


def _key(layer: str, level: int) -> str:
    return layer if level == 0 else f"{layer}/{2**level}"


def _index(names: Sequence[str], name: str | None, path: Path) -> int:
    if name is None and len(names) > 1:
        raise ConfigError(f"{path} holds {len(names)} styles; name one: {path}#{names[0]}")
    if name is not None and name not in names:
        raise ConfigError(f"{path} has no style {name!r}; it has {', '.join(names[:5])}")
    return 0 if name is None else names.index(name)

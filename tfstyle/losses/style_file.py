"""Styles as Gram matrices at several sizes, extracted once and used for many content images; style files."""

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
from tfstyle.losses.spectrum import WAVE_NUMBERS
from tfstyle.network import Encoder

log = logging.getLogger(__name__)

Grams = Mapping[str, np.ndarray]
ENCODER_OPTIONS = ("pooling", "padding", "pixel_range", "feature_scale")
#: Encoder options of older files, which do not store these options.
DEFAULT_OPTIONS = {"pixel_range": "255.0", "feature_scale": "1.0"}
#: Keys of `Style.made_with` that do not change the Gram matrices of a layer.
NOT_COMPARED = {"source", "views"}
MAX_LEVELS = 9  # maximum number of sizes of a style: the full size, half of it, a quarter, ...
#: Remedy in error messages about files that are not style files.
_STYLE_FILES = "give an .npz file that Style.save or tfstyle extract --grams wrote"
SPECTRA = "spectrum"  # name of the arrays of local spectra in a style file
SIZE_TOLERANCE = 0.05  # maximum relative difference between the size of a level and the requested size


class StyleNumbers(dict[str, Any]):
    """The result of a `tfstyle.StyleExtractor`: a dict of arrays, and the encoder that computed them.

    Attributes:
        made_with: the options and weights of the encoder, as `describe_encoder` returns them.
    """

    def __init__(self, numbers: Mapping[str, Any], made_with: Mapping[str, str]) -> None:
        super().__init__(numbers)
        self.made_with = made_with


@dataclass(frozen=True, eq=False)
class Style:
    """The Gram matrices of a style image at several sizes, which replace the image in `tfstyle.stylize`.

    `tfstyle.StyleExtractor.style` computes it.

    Attributes:
        levels: for each size, layer -> float32 Gram matrix ``[N, N]``. The sizes are the full size of the
            image, half of it, a quarter, and so on. Each scale of a run uses the level with the nearest size.
        made_with: the options and weights of the encoder, as `describe_encoder` returns them; empty if they
            are not known.
        name: name of the style, by default the name of the image file.
        spectra: the local spectra of the image at the first sizes (see `tfstyle.losses.local_spectrum`), each
            float32 ``[13]``. An image with a side below 32 pixels has none.
        size: longest side in pixels of the first level; 0 if it is not known.
        original_size: longest side in pixels of the image before it was shrunk for the extraction; 0 if it is
            not known.

    Raises:
        ConfigError: there is no level, a layer is unknown, or a Gram matrix has a wrong type or shape.

    Example:
        >>> import numpy as np
        >>> from tfstyle import Style, StyleExtractor
        >>> extractor = StyleExtractor(["conv1_1", "conv2_1"], "embedded")
        >>> image = np.random.default_rng(0).random((64, 48, 3), np.float32)
        >>> extractor.style(image, "waves").save("waves.npz")
        >>> style = Style.load("waves.npz")
        >>> style.name, style.size, style.levels[0]["conv2_1"].shape
        ('waves', 64, (128, 128))
    """

    levels: Sequence[Grams] = dataclasses.field(repr=False)
    made_with: Mapping[str, str]
    _: KW_ONLY
    spectra: Sequence[np.ndarray] = dataclasses.field(default=(), repr=False)
    name: str = ""
    size: int = 0
    original_size: int = 0

    def __post_init__(self) -> None:
        if not self.levels:
            raise ConfigError("levels of a style is empty; give the Gram matrices of at least one size")
        for level in self.levels:
            for layer, gram in level.items():
                channels = find_layer(layer).filters
                if gram.shape != (channels, channels) or gram.dtype != np.float32:
                    raise ConfigError(
                        f"the Gram matrix of {layer} of a style is {gram.dtype} with shape {gram.shape}; "
                        f"it must be that of one image, float32 [{channels}, {channels}]"
                    )

    def at(self, longest: float) -> Grams:
        """Return the Gram matrices of the level with the nearest size.

        If `size` is not known, this is the first level. Otherwise a warning is logged if the sizes differ by
        more than 5 %, unless the requested size is smaller than the smallest level.

        Args:
            longest: longest side of the style image in pixels.

        Returns:
            layer -> float32 Gram matrix ``[N, N]``.
        """
        level = self._nearest_level(longest)
        nearest, smallest = (self.size / 2**k for k in (level, len(self.levels) - 1))
        # There is no level below the last one, because the encoder needs an image of at least this size.
        if self.size and longest > smallest and abs(nearest / longest - 1) > SIZE_TOLERANCE:
            log.warning(
                "%s was extracted at %d pixels: its Gram matrices of %d pixels are used for an image of %d; "
                "extract it at this size, or at two or four times this size",
                self.name or "the style", self.size, round(nearest), round(longest),
            )  # fmt: skip
        return self.levels[level]

    def spectrum_at(self, longest: float) -> np.ndarray | None:
        """Return the local spectrum of the level with the nearest size, or None if the level has none.

        Args:
            longest: longest side of the style image in pixels.
        """
        level = self._nearest_level(longest)
        return self.spectra[level] if level < len(self.spectra) else None

    def _nearest_level(self, longest: float) -> int:
        if not self.size:
            return 0
        return min(range(len(self.levels)), key=lambda level: abs(np.log(self.size / 2**level / longest)))

    def _made_with(self, key: str) -> str | None:
        """Return a value of `made_with`. Options that older files do not store have their default."""
        return self.made_with.get(key, DEFAULT_OPTIONS.get(key))

    def check(self, encoder: Encoder, layers: Sequence[str]) -> None:
        """Check that the Gram matrices were computed by an encoder, and that they include some layers.

        If `made_with` is empty, the encoder cannot be checked, and a warning is logged.

        Args:
            encoder: the encoder of a run.
            layers: the style layers of the run.

        Raises:
            ConfigError: the style was extracted with other encoder options or weights, or lacks a layer.
        """
        name = self.name or "the style"
        available = [layer for layer in layers if layer in self.levels[0]]
        expected = describe_encoder(encoder, available)
        if not self.made_with:
            log.warning(
                "the Gram matrices of %s do not name their encoder, so that it cannot be checked; they are "
                "used as those of this run's weights, %s pooling and %s padding. StyleExtractor.style and "
                "tfstyle extract make styles that name it",
                name, expected["pooling"], expected["padding"],
            )  # fmt: skip
        differ = [key for key, value in expected.items() if self.made_with and value != self._made_with(key)]
        for key in ENCODER_OPTIONS:
            if key in differ:
                raise ConfigError(
                    f"{name} was extracted with {key} {self.made_with.get(key)}, not {expected[key]}; use "
                    f"the same {key}, or extract it again"
                )
        if differ:
            raise ConfigError(
                f"{name} was extracted with the weights {self.made_with.get('source', 'unknown')}, which "
                f"differ from {encoder.weights.source}; use the same weights, or extract it again"
            )
        missing = [layer for layer in layers if layer not in self.levels[0]]
        if missing:
            choices = ",".join(self.levels[0])
            raise ConfigError(
                f"{name} has no Gram matrix of {', '.join(missing)}; choose style_layers from {choices}, or "
                "extract it with more layers"
            )

    @classmethod
    def from_source(cls, source: Any) -> Style | None:
        """Return the style that a source contains, or None if the source is something else, such as an image.

        Args:
            source: a `Style`; or the result of a `tfstyle.StyleExtractor` for one image, whose Gram matrices
                are then used at all scales; or the path of an ``.npz`` file of one style. For a file of
                several styles the name of a style follows the path, ``styles.npz#scream.jpg``.

        Returns:
            The style or None.

        Raises:
            ImageError: the file does not exist or is not a style file.
            ConfigError: the file has no style of that name, or has several and no name is given; or a mapping
                has no Gram matrices, or those of several images.
        """
        if isinstance(source, (str, os.PathLike)):
            file_and_name = split_style_source(os.fspath(source))
            return None if file_and_name is None else cls.load(*file_and_name)
        if not isinstance(source, Mapping):
            return source if isinstance(source, cls) else None
        return cls._from_grams(source)

    @classmethod
    def _from_grams(cls, source: Mapping[str, Any]) -> Style:
        """Return a style of one size from Gram matrices by layer, with or without a batch axis of one."""
        grams = {str(k): np.asarray(v, np.float32) for k, v in source.items() if str(k) in layer_names()}
        if not grams:
            raise ConfigError(
                f"a style given as a mapping has the keys {list(source)}; give Gram matrices by layer, "
                "such as conv1_1"
            )
        made_with = getattr(source, "made_with", {})
        return cls([{k: v[0] if v.shape[:1] == (1,) else v for k, v in grams.items()}], made_with)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the style to an ``.npz`` file, which `load`, `tfstyle.stylize` and the command line read.

        Args:
            path: path of the file; its name ends with ``.npz``.
            overwrite: whether to replace an existing file.

        Raises:
            ConfigError: the path does not end with ``.npz``.
            OutputError: the file exists, or the folder does not exist or cannot be written.
            RunError: writing failed, for example because the disk is full.
        """
        save_styles(Path(path), [self], overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str], name: str | None = None) -> Style:
        """Read a style from a file that `save` or ``tfstyle extract --grams`` wrote.

        Args:
            path: path of the ``.npz`` file, or the path and the name of a style: ``styles.npz#scream.jpg``.
            name: name of the style, which is needed for a file of several styles if the path does not contain
                it.

        Returns:
            The style. From a file of arrays by layer that is not a style file, it is a style of one size.

        Raises:
            ImageError: the file does not exist or is not a style file.
            ConfigError: the file has no style of that name, or has several and no name is given, or has no
                Gram matrices.
        """
        path = Path(path)
        if name is None and not path.is_file():
            path, name = split_style_source(str(path)) or (path, None)
        if not path.is_file():
            raise ImageError(f"no such style file: {path}; {_STYLE_FILES}")
        try:
            with np.load(path, allow_pickle=False) as file:
                if "names" not in file.files and set(layer_names()) & set(file.files):
                    return cls._from_grams(file)  # the result of an extractor, saved by the caller
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
                    raise ConfigError(
                        f"{path} contains no Gram matrices; extract it again with tfstyle extract --grams"
                    )
                spectra = [
                    file[_array_key(SPECTRA, level)][index]
                    for level in range(len(levels))
                    if _array_key(SPECTRA, level) in file.files
                ]
                size, original_size = (int(n) for n in sizes[index])
                return cls(
                    levels,
                    made_with,
                    spectra=[spectrum for spectrum in spectra if np.isfinite(spectrum).all()],
                    name=name or names[index],
                    size=size,
                    original_size=original_size,
                )
        except ConfigError:
            raise
        except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile):
            raise ImageError(f"{path} is not a style file; {_STYLE_FILES}") from None


def stored_styles(path: Path) -> tuple[list[str], dict[str, str]]:
    """Return the names of the styles in a file of `save_styles`, and the encoder that computed them.

    Args:
        path: path of the ``.npz`` file.

    Returns:
        The names, and `Style.made_with`.

    Raises:
        ImageError: the file does not exist or is not a style file.
    """
    if not path.is_file():
        raise ImageError(f"no such style file: {path}; {_STYLE_FILES}")
    try:
        with np.load(path, allow_pickle=False) as file:
            return [str(name) for name in file["names"]], dict(json.loads(str(file["made_with"])))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        raise ImageError(f"{path} is not a style file; {_STYLE_FILES}") from None


def require_images(styles: Sequence[ImageArray | Style], option: str) -> list[ImageArray]:
    """Return the styles, all of which must be images, for an option that needs their pixels.

    Args:
        styles: the styles of a run.
        option: name of the option in the error message.

    Raises:
        ConfigError: a style is given by its Gram matrices.
    """
    images = [style for style in styles if isinstance(style, ImageArray)]
    if len(images) < len(styles):
        raise ConfigError(f"{option} needs the style's image, not its Gram matrices; give the image itself")
    return images


def image_pyramid(image: ImageArray, minimum: int) -> Iterator[ImageArray]:
    """Yield the image at its full size, at half of it, at a quarter, and so on, at most 9 images.

    Args:
        image: the image.
        minimum: minimum length in pixels of the shorter side, from 1. An image that is smaller is yielded as
            it is.

    Yields:
        The images from large to small.
    """
    smallest_factor = min(1.0, minimum / min(image.rgb.shape[:2]))
    for level in range(MAX_LEVELS):
        yield image.shrunk(0.5**level, minimum)
        if 0.5**level <= smallest_factor:
            return


def describe_encoder(encoder: Encoder, layers: Sequence[str]) -> dict[str, str]:
    """Return the options of an encoder and the digests of its weights that determine Gram matrices of layers.

    Args:
        encoder: the encoder.
        layers: layers of the encoder.

    Returns:
        Name of an option, or name of a layer and ``weights`` -> its value or its digest.
    """
    digests = encoder.weights.digests
    weights = {f"{layer} weights": digests[layer] for layer in layers}
    options = {name: str(getattr(encoder, name)) for name in ENCODER_OPTIONS}
    return {**options, **weights}


def save_styles(
    path: Path, styles: Sequence[Style], *, overwrite: bool = False, embeddings: np.ndarray | None = None
) -> None:
    """Write the styles of several images, which all have the same layers, to one file.

    The file contains the arrays ``names``; ``sizes`` ``[styles, 2]``, the longest sides as extracted and of
    the original images; ``made_with`` as JSON; ``embedding`` ``[styles, size]`` if given; and for each layer,
    for example, ``conv1_1`` ``[styles, N, N]`` for the full size and ``conv1_1/2`` for half of it. For a
    style that has fewer sizes than others its last size is repeated. The local spectra are ``spectrum``
    ``[styles, 13]``, ``spectrum/2`` and so on, NaN where a style has none at that size.

    Args:
        path: path of the file; its name ends with ``.npz``.
        styles: the styles, extracted with the same encoder.
        overwrite: whether to replace an existing file.
        embeddings: style embeddings ``[styles, size]`` to store with the styles.

    Raises:
        ConfigError: the path does not end with ``.npz``, or the encoders of the styles differ.
        OutputError: the file exists, or the folder does not exist or cannot be written.
        RunError: writing failed, for example because the disk is full.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from tfstyle import Style, StyleExtractor
        >>> from tfstyle.losses import save_styles
        >>> extractor = StyleExtractor(["conv1_1"], "embedded")
        >>> waves, scream = np.random.default_rng(0).random((2, 48, 48, 3), np.float32)
        >>> styles = [extractor.style(waves, "waves"), extractor.style(scream, "scream")]
        >>> save_styles(Path("styles.npz"), styles)
        >>> Style.load("styles.npz", "scream").name
        'scream'
    """
    if path.suffix.lower() != ".npz":
        raise ConfigError(f"{path}: style files are written as .npz; choose a name that ends with .npz")
    for style in styles:
        # The file has one encoder and one set of layers for all styles.
        for key in sorted({*style.made_with, *styles[0].made_with} - NOT_COMPARED):
            first, value = styles[0]._made_with(key), style._made_with(key)
            if first != value:
                raise ConfigError(
                    f"{path}: the styles of a file must be extracted with the same encoder and layers; "
                    f"{key} is {first} for {styles[0].name!r} and {value} for {style.name!r}"
                )
    check_writable(path, overwrite)
    arrays: dict[str, Any] = {}
    for level in range(max(len(style.levels) for style in styles)):
        for layer in styles[0].levels[0]:
            grams = [style.levels[min(level, len(style.levels) - 1)][layer] for style in styles]
            arrays[_array_key(layer, level)] = np.stack(grams)
        spectra = [_spectrum(style, min(level, len(style.levels) - 1)) for style in styles]
        if np.isfinite(spectra).any():
            arrays[_array_key(SPECTRA, level)] = np.stack(spectra)
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
    """Write an ``.npz`` file in the format of `save_styles`, with some of its arrays.

    Args:
        path: path of the file.
        names: name of each style.
        sizes: for each style, the longest side in pixels as extracted and of the original image.
        made_with: the options and weights of the encoder, as `describe_encoder` returns them.
        arrays: name -> array, such as ``conv1_1`` or ``embedding``.

    Raises:
        RunError: writing failed, for example because the disk is full.
    """
    buffer = io.BytesIO()
    named_arrays: dict[str, Any] = {"names": np.array(names), "sizes": np.array(sizes), **arrays}
    np.savez_compressed(buffer, made_with=np.array(json.dumps(dict(made_with))), **named_arrays)
    write_atomically(path, buffer.getvalue())


def _array_key(layer: str, level: int) -> str:
    return layer if level == 0 else f"{layer}/{2**level}"


def _spectrum(style: Style, level: int) -> np.ndarray:
    """Return the local spectrum of a level of a style, NaN if it has none."""
    return (
        style.spectra[level] if level < len(style.spectra) else np.full(len(WAVE_NUMBERS), np.nan, np.float32)
    )


def _style_index(names: Sequence[str], name: str | None, path: Path) -> int:
    if name is None and len(names) > 1:
        raise ConfigError(f"{path} contains {len(names)} styles; append the name of one: {path}#{names[0]}")
    if name is not None and name not in names:
        raise ConfigError(f"{path} contains no style {name!r}; choose from {', '.join(names[:5])}")
    return 0 if name is None else names.index(name)

"""From images to a style's numbers, the same that a run pulls towards."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfstyle.config import CONTENT_LAYERS
from tfstyle.errors import ConfigError, ImageError
from tfstyle.images import load
from tfstyle.layers import layer_names
from tfstyle.losses import Style, StyleNumbers, describe_encoder, image_pyramid
from tfstyle.network import Encoder, Weights, default_layers, load_weights
from tfstyle.serving.numbers import style_numbers
from tfstyle.serving.saved_model import write_saved_model
from tfstyle.serving.signatures import Limits, Signatures, minimum_size

log = logging.getLogger(__name__)

VIEWS = (1, 10)
IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32)


class StyleExtractor:
    """Gram matrices, an embedding to compare styles by, and content features, of images.

    With the defaults of all options the Gram matrices are those that `tfstyle.stylize` pulls towards.

    Args:
        layers: style layers, by default those of `tfstyle.stylize` with the same weights.
        weights: a name or file as `tfstyle.network.load_weights` takes it, or `Weights`.
        pooling, padding, dtype: as `tfstyle.Encoder` takes them.
        content_layers: of `content`; by default conv4_2 where the weights reach it, else none.
        views: 1, or 10 to average over the corners, the centre and their mirror images.
        embedding_size: components of the embedding, or None for whole Gram triangles.
        size: longest side in pixels to which image files and single images are shrunk.

    Attributes:
        encoder: the `tfstyle.Encoder`.
        layers, content_layers: in the network's order.
        minimum_size: the smallest height and width in pixels that it can look at.

    Raises:
        ConfigError: an unknown layer or option.
        WeightsError: the weights cannot be had, or stop below a layer asked for.
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        weights: str | os.PathLike[str] | Weights = "imagenet",
        *,
        pooling: str = "avg",
        padding: str = "reflect",
        dtype: str = "float32",
        content_layers: Sequence[str] | None = None,
        views: int = 1,
        embedding_size: int | None = 1024,
        size: int = 512,
    ) -> None:
        if views not in VIEWS:
            raise ConfigError(f"views is {views!r}; it can be 1 or 10")
        for name, number in {"embedding_size": embedding_size, "size": size}.items():
            if not (isinstance(number, int) and number >= 1) and (number, name) != (None, "embedding_size"):
                raise ConfigError(f"{name} is {number!r}; it must be a whole number from 1")
        for name, names in {"layers": layers, "content_layers": content_layers}.items():
            if isinstance(names, str):
                raise ConfigError(f"{name} is {names!r}; give a list of layers")
        loaded = load_weights(weights)
        content, style = default_layers(loaded)
        if content_layers is None:
            content_layers = content if content == CONTENT_LAYERS else ()
        if layers is not None and not layers:
            raise ConfigError("layers is empty; an extractor needs a style layer")
        style = style if layers is None else tuple(layers)
        self.encoder = Encoder(
            (*style, *content_layers), loaded, pooling=pooling, padding=padding, dtype=dtype
        )
        self.layers = tuple(x for x in layer_names() if x in style)
        self.content_layers = tuple(x for x in layer_names() if x in content_layers)
        self.views, self.embedding_size, self.size = views, embedding_size, size
        self.minimum_size = minimum_size(self.encoder, views)

    def __call__(self, images: Any) -> dict[str, tf.Tensor]:
        """The numbers of each image's style.

        Args:
            images: a batch, uint8 or floats in 0..1, ``[batch, height, width, 3]``, taken as it is; or
                one image as `tfstyle.stylize` takes it (a path, a PIL image, an array of three axes),
                or a list of such, each shrunk to `size` and looked at by itself.

        Returns:
            layer -> Gram matrix, float32 ``[batch, N, N]``; ``embedding`` -> float32 ``[batch, size]`` of
            unit length, see `tfstyle.serving.embedding`. Of one image, `tfstyle.stylize` takes it
            for a style.

        Raises:
            ImageError: an image that cannot be read or is too small; an empty batch.
        """
        numbers = _stacked([self._style_numbers(batch) for batch in self._batches(images)])
        return StyleNumbers(numbers, self.describe())

    def content(self, images: Any) -> dict[str, tf.Tensor]:
        """Content layer -> features, float32 ``[batch, height / 2^p, width / 2^p, N]``.

        Args:
            images: as above; a list must be of images of one size.

        Raises:
            ConfigError: the extractor has no content layer.
            ImageError: as above, or images of several sizes.
        """
        if not self.content_layers:
            raise ConfigError(
                f"no content layer; choose content_layers, {self.encoder.weights.source} has no default"
            )
        return _stacked([self._content_features(batch) for batch in self._batches(images)])

    def style(self, image: Any, name: str = "") -> Style:
        """One image's style at every size that a run from coarse to fine needs, for `tfstyle.stylize`.

        A run of the same `size` has the same targets with it as with the image, up to the precision of
        either. At other sizes it takes the nearest that is here, and says so if none is near.

        Args:
            image: a path, a PIL image or an array, shrunk to `size`.
            name: by default the file's.

        Raises:
            ImageError: it cannot be read or is too small.
        """
        original = load(image)
        style_image = original.fitted(self.size)
        levels = []
        for level in image_pyramid(style_image, self.minimum_size):
            numbers = self(level.on_white()[None])
            levels.append({layer: numbers[layer][0].numpy() for layer in self.layers})
        if not name and isinstance(image, (str, os.PathLike)):
            name = Path(image).name
        return Style(
            levels,
            self.describe(),
            name=name,
            size=max(style_image.rgb.shape),
            original_size=max(original.rgb.shape),
        )

    def describe(self) -> dict[str, str]:
        """What the Gram matrices depend on, as `tfstyle.Style.made_with` has it."""
        source = {"source": self.encoder.weights.source, "views": str(self.views)}
        return {**describe_encoder(self.encoder, self.layers), **source}

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        name: str = "tfstyle",
        version: int | None = None,
        precision: str = "float32",
        limits: Limits | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write a SavedModel for TensorFlow Serving, ``path/name/version/``.

        Args:
            path: the folder of models; made if it is not there.
            name: of the model.
            version: a positive number, by default one more than the highest there.
            precision: how weights are stored: float32; float16, in half the space, computing in float32;
                or bfloat16, in half the space and computing so, for processors that have it.
            limits: what a request may ask for, by default `tfstyle.serving.Limits()`.
            overwrite: replace that version if it is there.

        Returns:
            The folder of that version.

        Raises:
            ConfigError: a name, version, precision, size or limit that cannot be.
            OutputError: it cannot be written there, or is there already.
            RunError: writing failed half way; nothing is left behind.
        """
        signatures = Signatures(
            self.encoder,
            style_layers=self.layers,
            content_layers=self.content_layers,
            embedding_size=self.embedding_size,
            views=self.views,
            size=self.size,
            precision=precision,
            limits=limits or Limits(),
        )
        written = write_saved_model(
            Path(path),
            signatures,
            name=name,
            version=version,
            made_with=self.describe(),
            overwrite=overwrite,
        )
        if not self.content_layers:
            log.warning(
                "left out the signatures content and stylize: no content layers (--content-layers) given; "
                "the default is %s where the weights have it, and these are %s",
                CONTENT_LAYERS[0], self.encoder.weights.source,
            )  # fmt: skip
        return written

    @functools.cached_property
    def _style_numbers(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        return tf.function(self._compute_style, autograph=False).get_concrete_function(IMAGES)

    @functools.cached_property
    def _content_features(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        return tf.function(self._compute_content, autograph=False).get_concrete_function(IMAGES)

    def _compute_style(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return style_numbers(
            self.encoder.features,
            images,
            layers=self.layers,
            embedding_size=self.embedding_size,
            views=self.views,
        )

    def _compute_content(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        features = self.encoder(images)
        return {layer: features[layer] for layer in self.content_layers}

    def _batches(self, images: Any) -> Iterator[tf.Tensor]:
        if getattr(images, "ndim", None) == 4:
            pixels = tf.convert_to_tensor(images)
            yield self._checked(_zero_to_one(pixels))
            return
        sources = images if isinstance(images, (list, tuple)) else [images]
        if not sources:
            raise ImageError("no image: the list is empty")
        for source in sources:
            yield self._checked(tf.constant(load(source).fitted(self.size).on_white()[None]))

    def _checked(self, images: tf.Tensor) -> tf.Tensor:
        batch, height, width, channels = images.shape
        if channels != 3 or batch == 0:
            raise ImageError(
                f"images have shape {images.shape}; expected [batch, height, width, 3], batch above 0"
            )
        if min(height, width) < self.minimum_size:
            raise ImageError(
                f"an image is {width} x {height} pixels; at least {self.minimum_size} a side are needed"
            )
        return images


def _zero_to_one(pixels: tf.Tensor) -> tf.Tensor:
    if pixels.dtype == tf.uint8:
        return tf.cast(pixels, tf.float32) / 255.0
    if not pixels.dtype.is_floating:
        raise ImageError(f"images are {pixels.dtype.name}; expected uint8, or floats in 0..1")
    if not bool(tf.reduce_all((pixels >= 0) & (pixels <= 1))):  # false of NaN too
        raise ImageError("floating-point images hold values outside 0..1")
    return tf.cast(pixels, tf.float32)


def _stacked(parts: Sequence[dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    shapes = {tuple(next(iter(part.values())).shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise ImageError("content features of images of several sizes do not stack; give one size")
    return {name: tf.concat([part[name] for part in parts], 0) for name in parts[0]}

"""The style extractor: Gram matrices, embeddings and content features of images."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfstyle.config import CONTENT_LAYERS, PADDING, POOLING
from tfstyle.errors import ConfigError, ImageError
from tfstyle.images import load
from tfstyle.layers import as_names, layer_names
from tfstyle.losses import (
    Style,
    StyleNumbers,
    describe_encoder,
    image_pyramid,
    local_spectrum,
    may_have_spectrum,
)
from tfstyle.network import Encoder, Weights, check_range, default_layers, float_images, load_weights
from tfstyle.serving.decoding import assert_in_graph, resize_in_graph
from tfstyle.serving.numbers import style_numbers
from tfstyle.serving.saved_model import write_saved_model
from tfstyle.serving.signatures import Limits, Signatures, minimum_size

log = logging.getLogger(__name__)

VIEWS = (1, 10)
IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32)


class StyleExtractor:
    """An extractor of Gram matrices, style embeddings and content features of images.

    With the default options the Gram matrices of an image are the style targets that `tfstyle.stylize`
    computes from it.

    Args:
        layers: style layers; by default those of `tfstyle.stylize` with the same weights.
        weights: a name or a file as in `tfstyle.network.load_weights`, or `tfstyle.network.Weights`.
        pooling, padding, dtype: as in `tfstyle.Encoder`.
        content_layers: layers of `content`; by default conv3_2 if the weights reach conv4_1, otherwise none.
        views: 1, or 10 to average the Gram matrices over crops of the corners and the centre and over their
            mirror images, see `tfstyle.serving.ten_views`.
        embedding_size: number of components of the embedding, from 1, or None for the whole upper triangles
            of the Gram matrices.
        size: longest side in pixels to which larger image files and single images are shrunk, from 1.

    Attributes:
        encoder: the `tfstyle.Encoder`.
        layers, content_layers: the layers in the order of the network.
        views, embedding_size, size: the arguments.
        minimum_size: smallest height and width in pixels of an image.

    Raises:
        ConfigError: a layer is unknown, or an option has a wrong value.
        WeightsError: the weights cannot be loaded or do not include one of the layers.

    Example:
        >>> import numpy as np
        >>> extractor = StyleExtractor(("conv1_1", "conv2_1"), weights="embedded")
        >>> images = np.random.default_rng(0).random((2, 64, 48, 3), np.float32)
        >>> {name: tuple(value.shape) for name, value in extractor(images).items()}
        {'conv1_1': (2, 64, 64), 'conv2_1': (2, 128, 128), 'embedding': (2, 1024)}
    """

    def __init__(
        self,
        layers: Iterable[str] | None = None,
        weights: str | os.PathLike[str] | Weights = "imagenet",
        *,
        pooling: str = POOLING,
        padding: str = PADDING,
        dtype: str = "float32",
        content_layers: Iterable[str] | None = None,
        views: int = 1,
        embedding_size: int | None = 1024,
        size: int = 512,
    ) -> None:
        if views not in VIEWS:
            raise ConfigError(f"views is {views!r}; it can be 1 or 10")
        for name, number in {"embedding_size": embedding_size, "size": size}.items():
            if not (isinstance(number, int) and number >= 1) and (number, name) != (None, "embedding_size"):
                raise ConfigError(f"{name} is {number!r}; it must be a whole number from 1")
        loaded = load_weights(weights)
        content, style = default_layers(loaded)
        if content_layers is None:
            content_layers = content if content == CONTENT_LAYERS else ()
        content_layers = as_names(content_layers, "content_layers")
        style = style if layers is None else as_names(layers)
        if not style:
            raise ConfigError("layers is empty; give at least one style layer")
        self.encoder = Encoder(
            (*style, *content_layers), loaded, pooling=pooling, padding=padding, dtype=dtype
        )
        self.layers = tuple(x for x in layer_names() if x in style)
        self.content_layers = tuple(x for x in layer_names() if x in content_layers)
        self.views, self.embedding_size, self.size = views, embedding_size, size
        self.minimum_size = minimum_size(self.encoder, views)

    def __repr__(self) -> str:
        return f"StyleExtractor({', '.join(self.layers)}; size {self.size}, {self.encoder!r})"

    def __call__(self, images: Any) -> dict[str, tf.Tensor]:
        """Compute the Gram matrices and the embedding of each image.

        Args:
            images: a batch ``[batch, height, width, 3]`` of uint8, or of floats in 0..1, which is not
                resized; or one image as in `tfstyle.stylize` (a path, a PIL image, or an array without the
                batch axis), or a list of such images, which may differ in size. These are shrunk to `size`
                if they are larger. In `tf.data.Dataset.map` and `tf.function` it must be a tensor, of a batch
                or of one image.

        Returns:
            layer -> Gram matrix, float32 ``[batch, N, N]``; ``embedding`` -> float32
            ``[batch, embedding_size]`` of unit length, see `tfstyle.serving.embedding`. The result for one
            image can stand for a style image in `tfstyle.stylize`.

        Raises:
            ImageError: an image cannot be read or is too small, or there is no image. In a graph in which the
                size of an image is not known, an image that is too small raises
                `tf.errors.InvalidArgumentError` when the graph runs.

        Example:
            >>> import numpy as np
            >>> import tensorflow as tf
            >>> extractor = StyleExtractor(("conv1_1", "conv2_1"), weights="embedded")
            >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3), np.uint8)
            >>> dataset = tf.data.Dataset.from_tensor_slices(images).batch(2)
            >>> [tuple(numbers["embedding"].shape) for numbers in dataset.map(extractor)]
            [(2, 1024), (2, 1024)]
        """
        numbers = _stacked([self._style_numbers(batch) for batch in self._batches(images)])
        # Tensors of a graph are returned in a plain dict, which TensorFlow can rebuild.
        return StyleNumbers(numbers, self.describe()) if tf.executing_eagerly() else numbers

    def content(self, images: Any) -> dict[str, tf.Tensor]:
        """Compute the features of the content layers.

        Args:
            images: as in a call of the extractor, but the images of a list must have the same size after
                shrinking.

        Returns:
            content layer -> features, float32 ``[batch, height / 2^p, width / 2^p, N]``, where p is the
            number of pooling layers below the layer. Sizes are rounded down.

        Raises:
            ConfigError: the extractor has no content layer.
            ImageError: an image cannot be read or is too small, the images differ in size, or there is no
                image.
        """
        if not self.content_layers:
            raise ConfigError(
                "the extractor has no content layer; give content_layers (the default is "
                f"{CONTENT_LAYERS[0]} if the weights reach conv4_1, and these are "
                f"{self.encoder.weights.source})"
            )
        return _stacked([self._content_features(batch) for batch in self._batches(images)])

    def style(self, image: Any, name: str = "") -> Style:
        """Compute the Gram matrices of one image at several sizes, for `tfstyle.stylize`.

        The result can stand for a style image. It has the Gram matrices of the image at its full size, at
        half of it, at a quarter, and so on. In a run with the same `size` the style targets are those of the
        image itself, up to the precision of the computation. A run with another `size` takes the Gram
        matrices of the nearest of these sizes, and logs a warning if none of them is close.

        Args:
            image: a path, a PIL image or an array; it is shrunk to `size` if it is larger.
            name: name of the style; by default the name of the file, or empty if the image is not a file.

        Returns:
            The style. `tfstyle.Style.save` writes it to a file.

        Raises:
            ImageError: the image cannot be read or is too small.

        Example:
            >>> import numpy as np
            >>> extractor = StyleExtractor(("conv1_1", "conv2_1"), weights="embedded")
            >>> image = np.random.default_rng(0).random((64, 48, 3), np.float32)
            >>> style = extractor.style(image, name="noise")
            >>> style.size, sorted(style.levels[0])
            (64, ['conv1_1', 'conv2_1'])
            >>> extractor.minimum_size, len(style.levels)  # the last level is 4 pixels wide
            (4, 5)
        """
        original = load(image)
        style_image = original.fitted(self.size)
        levels, spectra = [], []
        for level in image_pyramid(style_image, self.minimum_size):
            pixels = tf.constant(level.on_white()[None])
            numbers = self(pixels)
            levels.append({layer: numbers[layer][0].numpy() for layer in self.layers})
            if may_have_spectrum(pixels):
                spectra.append(local_spectrum(pixels).numpy())
        if not name and isinstance(image, (str, os.PathLike)):
            name = Path(image).name
        return Style(
            levels,
            self.describe(),
            spectra=spectra,
            name=name,
            size=max(style_image.rgb.shape),
            original_size=max(original.rgb.shape),
        )

    def describe(self) -> dict[str, str]:
        """Return the encoder's options, digests of its weights, and the number of views.

        The Gram matrices depend on these values. `tfstyle.Style.made_with` stores them.

        Returns:
            Name -> value, both strings.
        """
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
            path: the folder of models; it is created if it does not exist.
            name: name of the model: letters, digits, ``_``, ``-`` and ``.``.
            version: version of the model, from 1; by default the highest existing version + 1.
            precision: data type of the stored weights: ``float32``; ``float16``, which takes half the space
                and computes in float32; or ``bfloat16``, which takes half the space and computes in bfloat16,
                for processors with bfloat16 instructions.
            limits: limits of a request; by default `tfstyle.serving.Limits()`.
            overwrite: replace an existing version.

        Returns:
            The folder of the version.

        Raises:
            ConfigError: the name, version, precision, size or a limit has a wrong value.
            OutputError: the folder cannot be written, or the version exists and ``overwrite`` is False.
            RunError: writing failed. No part of the version is left, and an existing version is unchanged.

        Example:
            >>> extractor = StyleExtractor(
            ...     ("conv1_1", "conv2_1"), weights="embedded", content_layers=("conv2_2",)
            ... )
            >>> extractor.export("models").as_posix()
            'models/tfstyle/1'
            >>> import tensorflow as tf
            >>> sorted(tf.saved_model.load("models/tfstyle/1").signatures)
            ['content', 'encoded', 'serving_default', 'stylize']
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
                "left out the signatures content and stylize, which need content layers: give "
                "content_layers; the default is %s if the weights reach conv4_1, and these are %s",
                CONTENT_LAYERS[0], self.encoder.weights.source,
            )  # fmt: skip
        return written

    @functools.cached_property
    def _style_numbers(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        return self._traced(self._compute_style)

    @functools.cached_property
    def _content_features(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        return self._traced(self._compute_content)

    @staticmethod
    def _traced(compute: Callable[[tf.Tensor], dict[str, tf.Tensor]]) -> Callable[..., dict[str, tf.Tensor]]:
        with tf.init_scope():  # the first call may be in a graph, and the function outlives that graph
            return tf.function(compute, autograph=False).get_concrete_function(IMAGES)

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
        if tf.is_tensor(images) and not hasattr(images, "numpy"):
            yield self._graph_batch(images)
            return
        if getattr(images, "ndim", None) == 4:
            batch = float_images(images)
            check_range(batch)
            yield self._checked(batch)
            return
        sources = images if isinstance(images, (list, tuple)) else [images]
        if not sources:
            raise ImageError("the list of images is empty; give at least one image")
        for source in sources:
            yield self._checked(tf.constant(load(source).fitted(self.size).on_white()[None]))

    def _graph_batch(self, images: tf.Tensor) -> tf.Tensor:
        """Return a batch from a tensor of a graph, which is a batch or one image, and check its size."""
        pixels = float_images(images)
        if pixels.shape.rank == 3:
            pixels = pixels[tf.newaxis]
            shape = tf.cast(tf.shape(pixels)[1:3], tf.float32)
            factor = tf.minimum(1.0, self.size / tf.reduce_max(shape))
            pixels = resize_in_graph(pixels, tf.cast(tf.maximum(tf.round(shape * factor), 1.0), tf.int32))
        pixels = self._checked(pixels)
        smallest = tf.reduce_min(tf.shape(pixels)[1:3])
        enough = assert_in_graph(
            smallest >= self.minimum_size,
            f"an image is too small; the layers need at least {self.minimum_size} pixels a side",
            smallest,
        )
        with tf.control_dependencies([enough]):
            return tf.identity(pixels)

    def _checked(self, images: tf.Tensor) -> tf.Tensor:
        """Return a batch after a check of its shape, as far as the shape is known when it is traced."""
        if not images.shape.is_compatible_with(IMAGES.shape) or images.shape[:1] == [0]:
            raise ImageError(
                f"images have shape {images.shape}; expected [batch, height, width, 3] with a batch from 1"
            )
        images = tf.ensure_shape(images, IMAGES.shape)
        _, height, width, _ = images.shape
        if any(side is not None and side < self.minimum_size for side in (height, width)):
            raise ImageError(
                f"an image is {width} x {height} pixels; the layers need at least {self.minimum_size} a side"
            )
        return images


def _stacked(parts: Sequence[dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    shapes = {tuple(next(iter(part.values())).shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise ImageError(
            "content features need images of the same size; resize the images or pass them singly"
        )
    return {name: tf.concat([part[name] for part in parts], 0) for name in parts[0]}

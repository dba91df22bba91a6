"""The signatures of an exported model and the checks of their inputs, as one `tf.Module`.

The module holds the weights as plain TensorFlow variables and no Keras object, because a graph session, in
which TensorFlow Serving runs a model, does not find the variables of a Keras object. No state is kept between
requests. Each check fails before memory for the request is allocated, with a message that names the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import tensorflow as tf

from tfstyle.backend import short_name
from tfstyle.errors import ConfigError
from tfstyle.network import Encoder
from tfstyle.serving.decoding import assert_in_graph, decode_image, resize_in_graph
from tfstyle.serving.graph_transfer import stylize_in_graph, stylize_objective
from tfstyle.serving.numbers import style_numbers

Tensors = dict[str, tf.Tensor]
#: Data type of the stored weights -> data type in which the encoder computes.
PRECISIONS = {"float32": "float32", "float16": "float32", "bfloat16": "bfloat16"}
PIXELS_AT_ONCE = 2**20  # pixels that are encoded at once; a batch of more pixels is encoded in parts


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one request to an exported model. Each is a whole number from 1.

    Attributes:
        max_pixels: maximum number of pixels of an image, and in ``content`` of all images of a request.
        max_batch: maximum number of images in a request.
        stylize_max_pixels: maximum number of pixels of a content or style image in ``stylize``.
        stylize_max_steps: maximum number of iterations per scale in ``stylize``.
        stylize_max_batch: maximum number of images in a request to ``stylize``.
        max_file_bytes: maximum size in bytes of a file in ``encoded``.

    Raises:
        ConfigError: a limit is not a whole number from 1.

    Example:
        >>> Limits(max_batch=8).max_batch
        8
    """

    max_pixels: int = 2**22
    max_batch: int = 64
    stylize_max_pixels: int = 2**20
    stylize_max_steps: int = 500
    stylize_max_batch: int = 8
    max_file_bytes: int = 2**24

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number from 1")


class Signatures(tf.Module):
    """One copy of an encoder's weights and the functions of an exported model that use them.

    Args:
        encoder: the encoder whose weights, pooling and padding the model takes.
        style_layers: layers of the Gram matrices that ``serving_default`` and ``encoded`` return.
        content_layers: layers of the features that ``content`` returns. Without any, the model has neither
            ``content`` nor ``stylize``.
        embedding_size, views: as in `tfstyle.serving.style_numbers`.
        size: longest side in pixels to which ``encoded`` resizes each image.
        precision: data type of the stored weights, one of `PRECISIONS`.
        limits: limits of a request.

    Attributes:
        size, limits: the arguments.
        minimum_size: smallest height and width in pixels of an image.
        weights: the encoder's `tfstyle.network.Weights`.

    Raises:
        ConfigError: the precision is unknown, or the size or a limit is too small for any image.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        style_layers: Sequence[str],
        content_layers: Sequence[str],
        embedding_size: int | None,
        views: int,
        size: int,
        precision: str,
        limits: Limits,
    ) -> None:
        super().__init__(name="tfstyle")
        if precision not in PRECISIONS:
            raise ConfigError(f"precision is {precision!r}; it can be {', '.join(PRECISIONS)}")
        layers = (*style_layers, *content_layers)
        stored = Encoder(
            layers,
            encoder.weights,
            pooling=encoder.pooling,
            padding=encoder.padding,
            dtype=PRECISIONS[precision],
        )
        # All signatures call the same graph function, so that the model is small and loads quickly.
        images = tf.TensorSpec([None, None, None, 3], tf.float32)
        values = [tf.TensorSpec(v.shape, tf.float32) for v in stored.model.variables]
        features = tf.function(stored.features, input_signature=[images, values], autograph=False)
        # The lambda hides the function from tf.Module, which would track it and with it the Keras model.
        self._features: Callable[..., Mapping[str, tf.Tensor]] = lambda images, values: features(
            images, values
        )
        self._values = [
            tf.Variable(tf.cast(tf.convert_to_tensor(v), precision), name=short_name(v))
            for v in stored.model.variables
        ]
        self._style_layers, self._content_layers = tuple(style_layers), tuple(content_layers)
        self._embedding_size, self._views, self._precision = embedding_size, views, precision
        self.size, self.limits = size, limits
        self.minimum_size = minimum_size(stored, views)
        for name in ("max_pixels", "stylize_max_pixels"):
            if getattr(limits, name) < self.minimum_size**2:
                raise ConfigError(
                    f"{name} is {getattr(limits, name)}; it must be at least {self.minimum_size**2}, since "
                    f"the layers need images of at least {self.minimum_size} pixels a side"
                )
        if size < self.minimum_size:
            raise ConfigError(
                f"size is {size}; it must be at least {self.minimum_size} pixels with these layers"
            )
        self.weights = encoder.weights
        self._pooling, self._padding = encoder.pooling, encoder.padding

    def settings(self) -> dict[str, Any]:
        """Return the options of the model and its limits, as values that JSON can store."""
        return {
            "pooling": self._pooling,
            "padding": self._padding,
            "precision": self._precision,
            "views": self._views,
            "embedding_size": self._embedding_size,
            "size": self.size,
            "minimum_size": self.minimum_size,
            "limits": asdict(self.limits),
        }

    def functions(self) -> dict[str, Any]:
        """Trace the functions of the model.

        Returns:
            Name of the signature -> concrete function. ``serving_default`` takes pixels and ``encoded`` takes
            image files; both return Gram matrices and embeddings. With content layers there are also
            ``content``, which returns features, and ``stylize``, which transfers a style.
        """
        pixels = [None, None, None, 3]
        signatures: dict[str, tuple[Callable[..., Tensors], dict[str, tf.TensorSpec]]] = {
            "serving_default": (self._default, {"images": tf.TensorSpec(pixels, tf.uint8)}),
            "encoded": (self._encoded, {"images": tf.TensorSpec([None], tf.string)}),
        }
        if self._content_layers:
            image_pair = {name: tf.TensorSpec(pixels, tf.uint8) for name in ("content", "style")}
            signatures["content"] = (self._content, {"images": tf.TensorSpec(pixels, tf.uint8)})
            signatures["stylize"] = (self._stylize, {**image_pair, "steps": tf.TensorSpec([None], tf.int32)})
        return {
            name: tf.function(function, autograph=False).get_concrete_function(**specs)
            for name, (function, specs) in signatures.items()
        }

    def _encode(self, images: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return self._features(images, self._float_values())

    def _float_values(self) -> list[tf.Tensor]:
        return [tf.cast(value, tf.float32) for value in self._values]

    def _default(self, images: tf.Tensor) -> Tensors:
        return self._in_parts(self._style_numbers, self._checked(images, self.limits.max_pixels))

    def _encoded(self, images: tf.Tensor) -> Tensors:
        with tf.control_dependencies([self._check_batch(tf.shape(images)[0])]):
            images = tf.identity(images)
        # One image at a time, since their sizes differ.
        return _map(lambda code: self._style_numbers(self._decoded(code)[None]), images)

    def _content(self, images: tf.Tensor) -> Tensors:
        def features(pixels: tf.Tensor) -> Tensors:
            maps = self._encode(pixels)
            return {layer: tf.cast(maps[layer], tf.float32) for layer in self._content_layers}

        max_pixels, shape = self.limits.max_pixels, tf.shape(images, tf.int64)
        total = assert_in_graph(
            tf.reduce_prod(shape[:3]) <= max_pixels,
            f"images: content accepts at most {max_pixels} pixels in all images of a request",
        )
        with tf.control_dependencies([total]):  # the size of the reply grows with the number of pixels
            images = self._checked(images, max_pixels)
        return self._in_parts(features, images)

    def _stylize(self, content: tf.Tensor, style: tf.Tensor, steps: tf.Tensor) -> Tensors:
        max_pixels = self.limits.stylize_max_pixels
        content = self._checked(content, max_pixels, "content")
        style = self._checked(style, max_pixels, "style")
        limit = self.limits.stylize_max_steps
        batch, styles, counts = (tf.shape(x)[0] for x in (content, style, steps))
        max_batch = self.limits.stylize_max_batch
        checks = [
            assert_in_graph(batch <= max_batch, f"content: stylize accepts at most {max_batch} images"),
            assert_in_graph(
                (batch == styles) & (batch == counts),
                "content, style and steps must have the same batch size",
            ),
            assert_in_graph(
                tf.reduce_all((steps >= 1) & (steps <= limit)),
                f"steps must be from 1 to {limit} for each image",
            ),
        ]
        with tf.control_dependencies(checks):
            content = tf.identity(content)

        values = self._float_values()  # converted once, not in each iteration

        def stylize_one(item: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> Tensors:
            objective = stylize_objective(
                lambda images: self._features(images, values),
                content_layers=self._content_layers,
                style_layers=self._style_layers,
            )
            image, loss = stylize_in_graph(
                objective,
                _floats(item[0][None]),
                style=_floats(item[1][None]),
                steps=item[2],
                minimum=self.minimum_size,
            )
            return {"image": tf.cast(tf.round(image * 255.0), tf.uint8), "loss": loss[None]}

        output_specs = {
            "image": tf.TensorSpec([None, None, None, 3], tf.uint8),
            "loss": tf.TensorSpec([None]),
        }
        return _map(stylize_one, (content, style, steps), output_specs)

    def _style_numbers(self, pixels: tf.Tensor) -> Tensors:
        return style_numbers(
            self._encode,
            pixels,
            layers=self._style_layers,
            embedding_size=self._embedding_size,
            views=self._views,
        )

    def _in_parts(self, function: Callable[[tf.Tensor], Tensors], pixels: tf.Tensor) -> Tensors:
        """Apply a function of float images to a uint8 batch, in parts of about `PIXELS_AT_ONCE` pixels."""
        batch, area = tf.shape(pixels)[0], tf.reduce_prod(tf.shape(pixels, tf.int64)[1:3])
        part_size = tf.cast(tf.clip_by_value(PIXELS_AT_ONCE // area, 1, tf.cast(batch, tf.int64)), tf.int32)

        def part(start: tf.Tensor) -> Tensors:
            return function(_floats(pixels[start : start + part_size]))

        output_specs = _output_specs(part, tf.TensorSpec([], tf.int32))
        parts = {
            name: tf.TensorArray(
                spec.dtype, 0, dynamic_size=True, infer_shape=False, element_shape=spec.shape
            )
            for name, spec in output_specs.items()
        }
        _, parts = tf.while_loop(
            lambda i, _: i * part_size < batch,
            lambda i, parts: (
                i + 1,
                {name: parts[name].write(i, value) for name, value in part(i * part_size).items()},
            ),
            (tf.constant(0), parts),
            parallel_iterations=1,
        )
        return {
            name: tf.ensure_shape(parts[name].concat(), spec.shape) for name, spec in output_specs.items()
        }

    def _checked(self, images: tf.Tensor, max_pixels: int, name: str = "images") -> tf.Tensor:
        """Return the images after checks that the batch and the image size are within the limits."""
        shape = tf.shape(images)
        checks = [self._check_batch(shape[0], name), self._check_size(shape[1], shape[2], max_pixels, name)]
        with tf.control_dependencies(checks):
            return tf.identity(images)

    def _check_batch(self, count: tf.Tensor, name: str = "images") -> tf.Operation:
        max_batch = self.limits.max_batch
        return assert_in_graph(
            (count >= 1) & (count <= max_batch), f"{name}: a batch must have from 1 to {max_batch} images"
        )

    def _check_size(self, height: tf.Tensor, width: tf.Tensor, max_pixels: int, name: str) -> tf.Operation:
        minimum = self.minimum_size
        area = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
        fits = (tf.minimum(height, width) >= minimum) & (area <= max_pixels)
        return assert_in_graph(
            fits,
            f"{name}: an image must have at least {minimum} pixels a side and at most {max_pixels} in all",
            height,
            width,
        )

    def _decoded(self, code: tf.Tensor) -> tf.Tensor:
        """Decode a file to float32 ``[height, width, 3]`` in 0..1 with the longest side `size`."""
        bytes_limit = self.limits.max_file_bytes
        size = assert_in_graph(
            tf.strings.length(code) <= bytes_limit, f"images: a file must have at most {bytes_limit} bytes"
        )
        with tf.control_dependencies([size]):
            code = tf.identity(code)
        pixels = decode_image(code, self._check_file_size)
        height, width = tf.unstack(tf.shape(pixels)[:2])
        with tf.control_dependencies([self._check_file_size(height, width)]):
            return resize_in_graph(_floats(pixels[None]), self._fitted(height, width))[0]

    def _fitted(self, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """Return the ``[height, width]`` of an image after resizing to the longest side `size`."""
        shape = tf.cast(tf.stack([height, width]), tf.float32)
        return tf.cast(tf.round(shape * (self.size / tf.reduce_max(shape))), tf.int32)

    def _check_file_size(self, height: tf.Tensor, width: tf.Tensor) -> tf.Operation:
        with tf.control_dependencies([self._check_size(height, width, self.limits.max_pixels, "images")]):
            return assert_in_graph(
                tf.reduce_min(self._fitted(height, width)) >= self.minimum_size,
                f"images: an image resized to {self.size} pixels on its longest side must have at least "
                f"{self.minimum_size} pixels on its shorter side",
                height,
                width,
            )


def minimum_size(encoder: Encoder, views: int) -> int:
    """Return the smallest height and width in pixels of an image, so that each view is large enough."""
    return encoder.minimum_size if views == 1 else -(-encoder.minimum_size * 8 // 7)


def _map(
    function: Callable[..., Tensors], items: Any, output_specs: Mapping[str, tf.TensorSpec] | None = None
) -> Tensors:
    """Apply a function to each item in turn and concatenate the batches of one that it returns."""
    if output_specs is None:
        output_specs = _output_specs(
            function, tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape[1:], x.dtype), items)
        )
    item_specs = {name: tf.TensorSpec(spec.shape[1:], spec.dtype) for name, spec in output_specs.items()}
    return tf.map_fn(
        lambda item: {name: value[0] for name, value in function(item).items()},
        items, fn_output_signature=item_specs, parallel_iterations=1,
    )  # fmt: skip


def _output_specs(function: Callable[..., Tensors], specs: Any) -> dict[str, tf.TensorSpec]:
    """Return the data types and shapes of a function's outputs."""
    traced = tf.function(function, autograph=False).get_concrete_function(specs)
    return {name: tf.TensorSpec(out.shape, out.dtype) for name, out in traced.structured_outputs.items()}


def _floats(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(pixels, tf.float32) / 255.0

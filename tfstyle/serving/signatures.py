"""The functions that an exported model offers, with their checks, as one `tf.Module` of raw values.

No Keras object is tracked: a graph session, which TensorFlow Serving uses, would not find its variables.
Nothing is kept between requests. Each check names its limit and comes before the memory is taken.
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
#: How weights are stored -> what the encoder computes in.
PRECISIONS = {"float32": "float32", "float16": "float32", "bfloat16": "bfloat16"}
PIXELS_AT_ONCE = 2**20  # of a batch; a larger batch is encoded in parts


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may ask for.

    Attributes:
        max_pixels: of each image.
        max_batch: images.
        stylize_max_pixels: of the content and of the style image in ``stylize``.
        stylize_max_steps: per scale in ``stylize``.
        stylize_max_batch: images in ``stylize``.
        max_file_bytes: of each file in ``encoded``.

    Raises:
        ConfigError: one is not a positive whole number.
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
    """The weights of an encoder, once, and the functions over them.

    Args:
        encoder: whose weights and layers are taken.
        style_layers, content_layers: what ``serving_default`` and ``encoded``, and ``content``, give.
        embedding_size, views: as `tfstyle.serving.style_numbers` takes them.
        size: longest side that ``encoded`` brings each image to.
        precision: of the stored weights, one of `PRECISIONS`.
        limits: what a request may ask for.

    Raises:
        ConfigError: no such precision; a size, or a limit, that no image can meet.
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
        # One graph function, that all signatures call: the model is small and quick to load.
        images = tf.TensorSpec([None, None, None, 3], tf.float32)
        values = [tf.TensorSpec(v.shape, tf.float32) for v in stored.model.variables]
        features = tf.function(stored.features, input_signature=[images, values], autograph=False)
        # Reached through a lambda, and so out of sight: what a tf.Module has for an attribute it tracks.
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
                    f"{name} is {getattr(limits, name)}; these layers need {self.minimum_size} pixels a side"
                )
        if size < self.minimum_size:
            raise ConfigError(f"size is {size}; these layers need {self.minimum_size} pixels a side")
        self.weights = encoder.weights

    def settings(self) -> dict[str, Any]:
        """What the functions were made with, as plain values."""
        return {
            "precision": self._precision,
            "views": self._views,
            "embedding_size": self._embedding_size,
            "size": self.size,
            "minimum_size": self.minimum_size,
            "limits": asdict(self.limits),
        }

    def functions(self) -> dict[str, Any]:
        """Signature's name -> concrete function."""
        pixels = [None, None, None, 3]
        signatures: dict[str, tuple[Callable[..., Tensors], dict[str, tf.TensorSpec]]] = {
            "serving_default": (self._default, {"images": tf.TensorSpec(pixels, tf.uint8)}),
            "encoded": (self._encoded, {"images": tf.TensorSpec([None], tf.string)}),
        }
        if self._content_layers:
            two = {name: tf.TensorSpec(pixels, tf.uint8) for name in ("content", "style")}
            signatures["content"] = (self._content, {"images": tf.TensorSpec(pixels, tf.uint8)})
            signatures["stylize"] = (self._stylize, {**two, "steps": tf.TensorSpec([None], tf.int32)})
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
        # One at a time, as each has another size.
        return _map(lambda code: self._style_numbers(self._decoded(code)[None]), images)

    def _content(self, images: tf.Tensor) -> Tensors:
        def features(pixels: tf.Tensor) -> Tensors:
            maps = self._encode(pixels)
            return {layer: tf.cast(maps[layer], tf.float32) for layer in self._content_layers}

        max_pixels, shape = self.limits.max_pixels, tf.shape(images, tf.int64)
        total = assert_in_graph(
            tf.reduce_prod(shape[:3]) <= max_pixels,
            f"images: content takes at most {max_pixels} pixels in all",
        )
        with tf.control_dependencies([total]):  # its answer grows with them
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
            assert_in_graph(batch <= max_batch, f"stylize takes at most {max_batch} images"),
            assert_in_graph(
                (batch == styles) & (batch == counts), "content, style and steps: not of one batch size"
            ),
            assert_in_graph(
                tf.reduce_all((steps >= 1) & (steps <= limit)), f"steps must be from 1 to {limit}"
            ),
        ]
        with tf.control_dependencies(checks):
            content = tf.identity(content)

        values = self._float_values()  # once, not at each step

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

        kinds = {"image": tf.TensorSpec([None, None, None, 3], tf.uint8), "loss": tf.TensorSpec([None])}
        return _map(stylize_one, (content, style, steps), kinds)

    def _style_numbers(self, pixels: tf.Tensor) -> Tensors:
        return style_numbers(
            self._encode,
            pixels,
            layers=self._style_layers,
            embedding_size=self._embedding_size,
            views=self._views,
        )

    def _in_parts(self, function: Callable[[tf.Tensor], Tensors], pixels: tf.Tensor) -> Tensors:
        """Apply a function of float images to as many images of a uint8 batch at a time as memory allows."""
        batch, area = tf.shape(pixels)[0], tf.reduce_prod(tf.shape(pixels, tf.int64)[1:3])
        several = tf.cast(tf.clip_by_value(PIXELS_AT_ONCE // area, 1, tf.cast(batch, tf.int64)), tf.int32)

        def part(start: tf.Tensor) -> Tensors:
            return function(_floats(pixels[start : start + several]))

        kinds = _kinds(part, tf.TensorSpec([], tf.int32))
        parts = {
            name: tf.TensorArray(
                kind.dtype, 0, dynamic_size=True, infer_shape=False, element_shape=kind.shape
            )
            for name, kind in kinds.items()
        }
        _, parts = tf.while_loop(
            lambda i, _: i * several < batch,
            lambda i, parts: (
                i + 1,
                {name: parts[name].write(i, value) for name, value in part(i * several).items()},
            ),
            (tf.constant(0), parts),
            parallel_iterations=1,
        )
        return {name: tf.ensure_shape(parts[name].concat(), kind.shape) for name, kind in kinds.items()}

    def _checked(self, images: tf.Tensor, max_pixels: int, name: str = "images") -> tf.Tensor:
        """The images, once the batch and the size are known to be within the limits."""
        shape = tf.shape(images)
        checks = [self._check_batch(shape[0], name), self._check_size(shape[1], shape[2], max_pixels, name)]
        with tf.control_dependencies(checks):
            return tf.identity(images)

    def _check_batch(self, count: tf.Tensor, name: str = "images") -> tf.Operation:
        max_batch = self.limits.max_batch
        return assert_in_graph(
            (count >= 1) & (count <= max_batch), f"{name}: a batch has from 1 to {max_batch} images"
        )

    def _check_size(self, height: tf.Tensor, width: tf.Tensor, max_pixels: int, name: str) -> tf.Operation:
        minimum = self.minimum_size
        area = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
        fits = (tf.minimum(height, width) >= minimum) & (area <= max_pixels)
        return assert_in_graph(
            fits,
            f"{name}: an image has at least {minimum} pixels a side and at most {max_pixels} in all",
            height,
            width,
        )

    def _decoded(self, code: tf.Tensor) -> tf.Tensor:
        """The bytes of a file as float32 ``[height, width, 3]`` in 0..1 with the longest side `size`."""
        bytes_limit = self.limits.max_file_bytes
        size = assert_in_graph(
            tf.strings.length(code) <= bytes_limit, f"images: a file has at most {bytes_limit} bytes"
        )
        with tf.control_dependencies([size]):
            code = tf.identity(code)
        pixels = decode_image(code, self._check_file_size)
        height, width = tf.unstack(tf.shape(pixels)[:2])
        with tf.control_dependencies([self._check_file_size(height, width)]):
            return resize_in_graph(_floats(pixels[None]), self._fitted(height, width))[0]

    def _fitted(self, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """``[height, width]`` with the longest side `size`."""
        shape = tf.cast(tf.stack([height, width]), tf.float32)
        return tf.cast(tf.round(shape * (self.size / tf.reduce_max(shape))), tf.int32)

    def _check_file_size(self, height: tf.Tensor, width: tf.Tensor) -> tf.Operation:
        with tf.control_dependencies([self._check_size(height, width, self.limits.max_pixels, "images")]):
            return assert_in_graph(
                tf.reduce_min(self._fitted(height, width)) >= self.minimum_size,
                f"images: with {self.size} pixels on its longest side, the shorter has fewer than "
                f"{self.minimum_size}",
                height,
                width,
            )


def minimum_size(encoder: Encoder, views: int) -> int:
    """The least pixels a side that an image must have, so that each of its views is large enough."""
    return encoder.minimum_size if views == 1 else -(-encoder.minimum_size * 8 // 7)


def _map(
    function: Callable[..., Tensors], items: Any, kinds: Mapping[str, tf.TensorSpec] | None = None
) -> Tensors:
    """Apply a function that gives batches of one to each item in turn, and join what it gives."""
    if kinds is None:
        kinds = _kinds(function, tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape[1:], x.dtype), items))
    item_kinds = {name: tf.TensorSpec(kind.shape[1:], kind.dtype) for name, kind in kinds.items()}
    return tf.map_fn(
        lambda item: {name: value[0] for name, value in function(item).items()},
        items, fn_output_signature=item_kinds, parallel_iterations=1,
    )  # fmt: skip


def _kinds(function: Callable[..., Tensors], given: Any) -> dict[str, tf.TensorSpec]:
    """Types and shapes of what a function gives."""
    traced = tf.function(function, autograph=False).get_concrete_function(given)
    return {name: tf.TensorSpec(out.shape, out.dtype) for name, out in traced.structured_outputs.items()}


def _floats(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(pixels, tf.float32) / 255.0

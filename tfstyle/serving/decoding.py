"""Decoding and resizing of images inside a graph, with size checks before memory is allocated.

All functions are pure functions of tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

HEADER = 40  # bytes at the start of a file, enough for the format and the size of every supported one


def assert_in_graph(condition: tf.Tensor, message: str, *values: tf.Tensor) -> tf.Operation:
    """Return an operation that fails with a message unless a condition holds.

    Args:
        condition: bool scalar.
        message: the text of the error; it starts with the name of the wrong input.
        values: tensors whose values TensorFlow appends to the text.

    Returns:
        The operation. Make what must not run before the check depend on it with `tf.control_dependencies`.
        Outside a graph the check is made at once, and the result is None.
    """
    return tf.debugging.Assert(condition, [message, *values])


def resize_in_graph(images: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Resize images as `tfstyle.images.resize` does: by Lanczos resampling with antialiasing.

    Args:
        images: float32 ``[batch, height, width, channels]`` in 0..1.
        shape: int32 ``[2]``, the new height and width in pixels.

    Returns:
        float32 ``[batch, *shape, channels]``, clipped to 0..1; the input itself if it already has that size.

    Example:
        >>> images = tf.zeros([1, 40, 60, 3])
        >>> resize_in_graph(images, tf.constant([20, 30])).shape
        TensorShape([1, 20, 30, 3])
    """
    return tf.cond(
        tf.reduce_all(tf.shape(images)[1:3] == shape),
        lambda: images,
        lambda: tf.clip_by_value(tf.image.resize(images, shape, "lanczos3", antialias=True), 0.0, 1.0),
    )


def decode_image(code: tf.Tensor, check_size: Callable[[tf.Tensor, tf.Tensor], tf.Operation]) -> tf.Tensor:
    """Decode a JPEG, PNG, BMP, GIF or WebP file after a check of the size that its header declares.

    The check comes first because a small file can declare an image that would fill the memory. A GIF gives
    its first frame, which must cover the whole logical screen. A BMP file must have 24 or 32 bits per pixel.
    A WebP file must not be animated, and needs a TensorFlow whose `tf.io.decode_image` reads WebP. Values of
    16 bits are reduced to 8.

    Args:
        code: scalar string, the bytes of the file.
        check_size: (height, width) -> an operation that fails if an image of that size is not allowed.

    Returns:
        uint8 ``[height, width, 3]``. An alpha channel is dropped, not blended.

    Raises:
        InvalidArgumentError: the bytes are not such a file, or `check_size` refuses the size.

    Example:
        >>> code = tf.io.encode_png(tf.zeros([20, 30, 3], tf.uint8))
        >>> decode_image(code, lambda height, width: assert_in_graph(height <= 100, "too high")).shape
        TensorShape([20, 30, 3])
    """
    start = tf.io.decode_raw(
        tf.strings.substr(tf.strings.join([code, tf.constant(bytes(HEADER))]), 0, HEADER), tf.uint8
    )

    def starts(text: bytes, offset: int = 0) -> tf.Tensor:
        return tf.reduce_all(start[offset : offset + len(text)] == list(text))

    jpeg, gif = starts(b"\xff\xd8\xff"), starts(b"GIF8")
    webp = starts(b"RIFF") & starts(b"WEBP", 8)
    size, known = _declared_size(start, starts)
    size = tf.cond(jpeg, lambda: tf.image.extract_jpeg_shape(code)[:2], lambda: size)
    known = assert_in_graph(known | jpeg, "images: a file is not a JPEG, PNG, BMP, GIF or WebP file")
    animated = starts(b"VP8X", 12) & ((start[20] & 0x02) > 0)
    still = assert_in_graph(~(webp & animated), "images: a WebP file must not be animated; save one frame")
    with tf.control_dependencies([known, still]):
        allowed = check_size(size[0], size[1])
    with tf.control_dependencies([allowed]):
        # Pillow uses the accurate cosine transform as well. The fast one differs by up to 12 grey levels.
        pixels = tf.cond(
            jpeg,
            lambda: tf.io.decode_jpeg(code, 3, dct_method="INTEGER_ACCURATE"),
            lambda: tf.cond(
                webp,
                # The decoder of WebP cannot leave out an alpha channel.
                lambda: tf.io.decode_image(code, expand_animations=False)[:, :, :3],
                lambda: tf.io.decode_image(
                    tf.cond(gif, lambda: _first_frame(code, check_size), lambda: code),
                    3,
                    expand_animations=False,
                ),
            ),
        )
    return tf.ensure_shape(pixels, [None, None, 3])


def _declared_size(start: tf.Tensor, starts: Callable[..., tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return ``[height, width]`` from the header of a file other than JPEG, and whether its format is known.

    A file of an unknown format gets ``[-1, -1]``.
    """
    header = tf.cast(start, tf.int32)

    def little(offset: int, count: int) -> tf.Tensor:
        return tf.add_n([header[offset + i] * 256**i for i in range(count)])

    def big(offset: int) -> tf.Tensor:  # four bytes; 2^31 and more overflows to a negative number
        return tf.add_n([header[offset + i] * 256 ** (3 - i) for i in range(4)])

    packed = little(21, 4)  # lossless WebP: width - 1 and height - 1 in fourteen bits each
    sizes = [
        (starts(b"\x89PNG"), (big(20), big(16))),
        (starts(b"GIF8"), (little(8, 2), little(6, 2))),
        (starts(b"BM"), (tf.abs(little(22, 4)), little(18, 4))),
        (starts(b"VP8X", 12), (little(27, 3) + 1, little(24, 3) + 1)),
        (starts(b"VP8 ", 12), (little(28, 2) % 2**14, little(26, 2) % 2**14)),
        (starts(b"VP8L", 12), (packed // 2**14 % 2**14 + 1, packed % 2**14 + 1)),
    ]
    plain = ((little(28, 2) == 24) | (little(28, 2) == 32)) & ((little(30, 4) == 0) | (little(30, 4) == 3))
    # TensorFlow's decoder would read the indices of a palette as grey levels.
    bitmap = assert_in_graph(
        plain | ~starts(b"BM"), "images: a BMP file must have 24 or 32 bits per pixel and no compression"
    )
    with tf.control_dependencies([bitmap]):
        declared = tf.constant([-1, -1]) + 0
    for match, size in sizes:
        declared = tf.where(match, tf.stack(size), declared)
    return declared, tf.reduce_any([match for match, _ in sizes])


def _first_frame(code: tf.Tensor, check_size: Callable[[tf.Tensor, tf.Tensor], tf.Operation]) -> tf.Tensor:
    """Return the bytes of a GIF file up to the end of its first frame.

    TensorFlow's decoder would decode all frames, and the header of the file does not bound their sizes.

    Reference: Graphics Interchange Format 89a, sections 18 to 24.
    """
    data = tf.io.decode_raw(code, tf.uint8)
    end = tf.size(data)

    def byte(offset: tf.Tensor) -> tf.Tensor:  # 0 after the end of the file, which stops every loop below
        return tf.where(offset < end, tf.cast(data[tf.minimum(offset, end - 1)], tf.int32), 0)

    def colour_table_size(flags: tf.Tensor) -> tf.Tensor:
        return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)

    def after_blocks(offset: tf.Tensor, limit: int) -> tf.Tensor:
        """Return the offset after the data blocks that start at `offset` and their terminator.

        Each block is preceded by its length. The terminator is a length of 0.
        """
        (terminator,) = tf.while_loop(
            lambda p: byte(p) > 0, lambda p: [p + 1 + byte(p)], [offset], maximum_iterations=limit
        )
        return terminator + 1

    (frame,) = tf.while_loop(
        lambda p: byte(p) == 0x21,
        lambda p: [after_blocks(p + 2, 2**12)],
        [13 + colour_table_size(byte(tf.constant(10)))],
        maximum_iterations=2**5,
    )
    left, top, width, height = (byte(frame + i) + 256 * byte(frame + i + 1) for i in (1, 3, 5, 7))
    screen = [byte(tf.constant(i)) + 256 * byte(tf.constant(i + 1)) for i in (6, 8)]
    with tf.control_dependencies([assert_in_graph(byte(frame) == 0x2C, "images: a GIF file has no frame")]):
        allowed = check_size(height, width)
    with tf.control_dependencies([allowed]):
        # TensorFlow's decoder returns the frame alone, where other readers return the whole screen.
        fills = assert_in_graph(
            tf.reduce_all(tf.stack([left, top, width, height]) == tf.stack([0, 0, *screen])),
            "images: the first frame of a GIF file must fill its screen",
            height,
            width,
        )
    with tf.control_dependencies([fills]):
        cut = after_blocks(frame + 11 + colour_table_size(byte(frame + 9)), 2**16)
        return tf.strings.join([tf.strings.substr(code, 0, cut), b";"])

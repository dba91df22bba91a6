"""Image files and sizes inside a graph, checked before memory is taken for them. Pure tensor functions."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

HEADER = 40  # bytes at the start of a file that say what it is


def assert_in_graph(condition: tf.Tensor, message: str, *values: tf.Tensor) -> tf.Operation:
    """An operation that fails with the message, and the values, where the condition does not hold."""
    return tf.debugging.Assert(condition, [message, *values])


def resize_in_graph(images: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """As `tfstyle.images.resize`: Lanczos, antialiased; nothing is done where the size is right."""
    return tf.cond(
        tf.reduce_all(tf.shape(images)[1:3] == shape),
        lambda: images,
        lambda: tf.clip_by_value(tf.image.resize(images, shape, "lanczos3", antialias=True), 0.0, 1.0),
    )


def decode_image(code: tf.Tensor, check_size: Callable[[tf.Tensor, tf.Tensor], tf.Operation]) -> tf.Tensor:
    """Decode the bytes of a JPEG, PNG, BMP, GIF (its first frame, which must fill its screen) or WebP file.

    A small file can declare a picture that fills the memory, so that its header is looked at first.

    Args:
        code: scalar string.
        check_size: (height, width) -> an operation that fails where that is not allowed.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    start = tf.io.decode_raw(
        tf.strings.substr(tf.strings.join([code, tf.constant(bytes(HEADER))]), 0, HEADER), tf.uint8
    )

    def starts(text: bytes, offset: int = 0) -> tf.Tensor:
        return tf.reduce_all(start[offset : offset + len(text)] == list(text))

    jpeg, gif = starts(b"\xff\xd8\xff"), starts(b"GIF8")
    size, known = _declared_size(start, starts)
    size = tf.cond(jpeg, lambda: tf.image.extract_jpeg_shape(code)[:2], lambda: size)
    known = assert_in_graph(known | jpeg, "images: not a JPEG, PNG, BMP, GIF or WebP file")
    with tf.control_dependencies([known]):
        first = check_size(size[0], size[1])
    with tf.control_dependencies([first]):
        # Pillow's reader takes the accurate cosine transform too; the fast one is up to 12 grey levels off.
        pixels = tf.cond(
            jpeg,
            lambda: tf.io.decode_jpeg(code, 3, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_image(
                tf.cond(gif, lambda: _first_frame(code, check_size), lambda: code), 3, expand_animations=False
            ),
        )
    return tf.ensure_shape(pixels, [None, None, 3])


def _declared_size(start: tf.Tensor, starts: Callable[..., tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """``[height, width]`` in the header of a file that is no JPEG, and whether its format is known."""
    header = tf.cast(start, tf.int32)

    def little(offset: int, count: int) -> tf.Tensor:
        return tf.add_n([header[offset + i] * 256**i for i in range(count)])

    def big(offset: int) -> tf.Tensor:  # four bytes; more than 2^31 comes out negative, and too small
        return tf.add_n([header[offset + i] * 256 ** (3 - i) for i in range(4)])

    packed = little(21, 4)  # WebP without loss: twice fourteen bits, less one
    sizes = [
        (starts(b"\x89PNG"), (big(20), big(16))),
        (starts(b"GIF8"), (little(8, 2), little(6, 2))),
        (starts(b"BM"), (tf.abs(little(22, 4)), little(18, 4))),
        (starts(b"VP8X", 12), (little(27, 3) + 1, little(24, 3) + 1)),
        (starts(b"VP8 ", 12), (little(28, 2) % 2**14, little(26, 2) % 2**14)),
        (starts(b"VP8L", 12), (packed // 2**14 % 2**14 + 1, packed % 2**14 + 1)),
    ]
    plain = ((little(28, 2) == 24) | (little(28, 2) == 32)) & ((little(30, 4) == 0) | (little(30, 4) == 3))
    # TensorFlow's decoder takes the indices of a palette for grey levels.
    bitmap = assert_in_graph(
        plain | ~starts(b"BM"), "images: a BMP file must have 24 or 32 bits per pixel, not compressed"
    )
    with tf.control_dependencies([bitmap]):
        declared = tf.constant([-1, -1]) + 0
    for match, size in sizes:
        declared = tf.where(match, tf.stack(size), declared)
    return declared, tf.reduce_any([match for match, _ in sizes])


def _first_frame(code: tf.Tensor, check_size: Callable[[tf.Tensor, tf.Tensor], tf.Operation]) -> tf.Tensor:
    """A GIF cut behind its first frame: TensorFlow's decoder would unpack them all, of whatever size.

    Reference: Graphics Interchange Format 89a, sections 18 to 24.
    """
    data = tf.io.decode_raw(code, tf.uint8)
    end = tf.size(data)

    def byte(place: tf.Tensor) -> tf.Tensor:  # 0 behind the end, which ends every walk
        return tf.where(place < end, tf.cast(data[tf.minimum(place, end - 1)], tf.int32), 0)

    def colours(flags: tf.Tensor) -> tf.Tensor:
        return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)

    def blocks(place: tf.Tensor, limit: int) -> tf.Tensor:
        """Behind the data blocks that start here, each with its length before it, and their closing 0."""
        (last,) = tf.while_loop(
            lambda p: byte(p) > 0, lambda p: [p + 1 + byte(p)], [place], maximum_iterations=limit
        )
        return last + 1

    (frame,) = tf.while_loop(
        lambda p: byte(p) == 0x21,
        lambda p: [blocks(p + 2, 2**12)],
        [13 + colours(byte(tf.constant(10)))],
        maximum_iterations=2**5,
    )
    left, top, width, height = (byte(frame + i) + 256 * byte(frame + i + 1) for i in (1, 3, 5, 7))
    screen = [byte(tf.constant(i)) + 256 * byte(tf.constant(i + 1)) for i in (6, 8)]
    with tf.control_dependencies([assert_in_graph(byte(frame) == 0x2C, "images: a GIF without a frame")]):
        allowed = check_size(height, width)
    with tf.control_dependencies([allowed]):
        # The decoder knows no screen: it would give the frame alone, where others fill in the rest.
        fills = assert_in_graph(
            tf.reduce_all(tf.stack([left, top, width, height]) == tf.stack([0, 0, *screen])),
            "images: a GIF's first frame must fill its screen",
            height,
            width,
        )
    with tf.control_dependencies([fills]):
        cut = blocks(frame + 11 + colours(byte(frame + 9)), 2**16)
        return tf.strings.join([tf.strings.substr(code, 0, cut), b";"])

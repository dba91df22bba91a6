"""The targets of the method neighbours: the hypercolumns of the style images nearest to those of an image."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.images import resize
from tfstyle.losses import match_vectors, resize_mask
from tfstyle.optim import laplacian_pyramid
from tfstyle.run.setup import TransferSetup


class StyleSource(NamedTuple):
    """A style image whose hypercolumns are the candidates of the search for nearest neighbours.

    Attributes:
        image: float32 ``[height, width, 3]`` in 0..1.
        mask: mask of the part of the image that is used, float32 ``[height, width]`` in 0..1; None for the
            whole image.
        share: fraction of the positions that are searched, in 0..1.
    """

    image: np.ndarray
    mask: np.ndarray | None = None
    share: float = 1.0


class MatchedColumns(NamedTuple):
    """The hypercolumns of style images that are the nearest to those of an image.

    Attributes:
        columns: vectors of length 1, ``[1, h, w, N]``, of the data type of the features.
        weights: weights of the positions, float32 ``[1, h, w, 1]``, at least 0.
    """

    columns: tf.Tensor
    weights: tf.Tensor


def style_rotations(image: np.ndarray, *, rotated: bool) -> list[np.ndarray]:
    """Return an image or a mask, followed by its rotations by 90, 180 and 270 degrees if `rotated` is set.

    Args:
        image: ``[height, width, ...]``.
        rotated: whether the rotations are wanted.
    """
    return [np.ascontiguousarray(np.rot90(image, turns)) for turns in range(4 if rotated else 1)]


def query_image(content: np.ndarray, image: np.ndarray, *, alpha: float) -> np.ndarray:
    """Return the image whose hypercolumns are matched with those of the style images.

    The image is ``α c + (1 - α) (x + L)``, clipped to 0..1. c is the content image, and L is the finest level
    of its Laplacian pyramid. x is the image at the beginning of the scale, which has been enlarged from the
    scale before and therefore has no such fine detail yet.

    Args:
        content: the content image, float32 ``[height, width, 3]``.
        image: the image x, of the same shape.
        alpha: α, in 0..1.

    Returns:
        float32 ``[height, width, 3]``.

    Reference: Kolkin et al. 2022, Neural Neighbor Style Transfer.
    """
    detail = laplacian_pyramid(tf.constant(content[None]), levels=1)[0][0].numpy()
    return np.clip(alpha * content + (1.0 - alpha) * (image + detail), 0, 1).astype(np.float32)


def match_hypercolumns(
    setup: TransferSetup,
    query: np.ndarray,
    *,
    regions: Sequence[Sequence[StyleSource]],
    masks: Sequence[np.ndarray],
    rotated: bool,
    seed: int = 0,
) -> MatchedColumns:
    """Return the hypercolumns of style images that are the nearest to those of an image.

    Args:
        setup: the setup of the run.
        query: the image, float32 ``[height, width, 3]``.
        regions: for each region of the image, the style images among which neighbours are searched.
        masks: for each region its mask, float32 ``[height, width]`` in 0..1. Each position belongs to the
            region with the largest value, which is the weight of the position.
        rotated: whether rotated style images are searched as well.
        seed: seed of the positions that are drawn if a style has a share below 1.
    """
    columns = _columns(setup, query)
    size, channels = tuple(columns.shape[1:3]), columns.shape[3]
    queries = tf.reshape(columns, [-1, channels])
    coverage = np.stack([resize_mask(mask, size) for mask in masks])
    labels = np.where(coverage.max(0) > 0, coverage.argmax(0), -1).ravel()
    matched = queries
    for number, sources in enumerate(regions):
        vectors = functools.partial(_style_vectors, setup, sources, rotated, seed)
        rows = np.flatnonzero(labels == number)[:, None].astype(np.int32)
        if len(rows) == len(labels):  # the usual case, without copies
            matched = match_vectors(queries, vectors)
        elif len(rows):
            part = match_vectors(tf.gather_nd(queries, rows), vectors)
            matched = tf.tensor_scatter_nd_update(matched, rows, part)
    weights = tf.constant(coverage.max(0)[None, :, :, None], tf.float32)
    return MatchedColumns(tf.reshape(matched, columns.shape), weights)


def _columns(setup: TransferSetup, image: np.ndarray, *, of_style: bool = False) -> tf.Tensor:
    objective = setup.style_objective if of_style else setup.objective
    return setup.evaluate(objective.hypercolumns, tf.constant(image[None]))


def _style_vectors(
    setup: TransferSetup, sources: Sequence[StyleSource], rotated: bool, seed: int
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Yield the hypercolumns ``[S, N]`` of each style image and rotation, and which of them may be chosen."""
    generator = np.random.default_rng(seed)
    for source in sources:
        masks = [None] * 4 if source.mask is None else style_rotations(source.mask, rotated=rotated)
        for image, mask in zip(style_rotations(source.image, rotated=rotated), masks, strict=False):
            columns = _columns(setup, image, of_style=True)
            size = tuple(columns.shape[1:3])
            inside = np.ones(size, bool) if mask is None else _inside(resize(mask[..., None], size)[..., 0])
            allowed = inside & (generator.uniform(size=size) < source.share)
            allowed = allowed if allowed.any() else inside
            yield tf.reshape(columns, [-1, columns.shape[3]]), tf.constant(allowed.ravel())


def _inside(mask: np.ndarray) -> np.ndarray:
    """Return where a mask has at least half of its largest value."""
    return mask >= 0.5 * mask.max()

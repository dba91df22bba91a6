"""What an objective pulls towards: plain structures of tensors, and the parts of a picture that stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from tfstyle.style_losses import Summary

Tensors = dict[str, tf.Tensor]
#: Layer -> what each style loss keeps of it, in the order of the losses.
Summaries = dict[str, tuple[Summary, ...]]


class Region(NamedTuple):
    """A part of the picture that a style is painted in.

    Attributes:
        share: of the style loss that is this region's; all shares add up to 1.
        weights: layer -> float32 ``[1, h, w, 1]`` of mean 1, what each position counts.
    """

    share: float
    weights: Mapping[str, tf.Tensor]


class Targets(NamedTuple):
    """What an `Objective` pulls towards, computed once per scale; a structure of tensors.

    Attributes:
        content: layer -> features ``[1, h, w, N]``.
        styles: for each region, layer -> the target of each style loss.
        content_scale: layer -> scalar that the layer's loss is multiplied with.
        style_scales: for each region, layer -> the same for each style loss.
        weights: for each region, layer -> what its positions count; empty where all count alike.
        kept: ``()``, or a mask ``[1, height, width, 1]`` and the picture that stays as it is there.
    """

    content: Tensors
    styles: tuple[Summaries, ...]
    content_scale: Tensors
    style_scales: tuple[dict[str, tuple[tf.Tensor, ...]], ...]
    weights: tuple[Tensors, ...] = ()
    kept: tuple[tf.Tensor, ...] = ()


def keep_parts(image: tf.Tensor, targets: Targets) -> tf.Tensor:
    """The image with the content put back where it is to stay as it is."""
    if not targets.kept:
        return image
    mask, picture = targets.kept
    return image + mask * (picture - image)

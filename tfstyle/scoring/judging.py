"""`Judge` and `score`, which score images with the ImageNet weights of VGG-19."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfstyle.errors import ConfigError, ImageError, WeightsError
from tfstyle.images import find_images, load
from tfstyle.layers import NETWORKS
from tfstyle.network import Encoder, Weights, imagenet_cache, load_weights, one_line
from tfstyle.scoring.artefacts import WINDOW, frame, ripple
from tfstyle.scoring.distances import directions, energy_distance, sample, self_similarity_distance
from tfstyle.scoring.gaussians import (
    LAYERS,
    Moments,
    e_statistic,
    projected_moments,
    reference_basis,
    shipped_basis,
)

log = logging.getLogger(__name__)

#: Layer of the self-similarity.
CONTENT_LAYER = "conv3_3"
#: Layers of the energy distance: those of blocks 1 to 3, and those that only weights of full depth have.
ENERGY_LAYERS = ("conv1_2", "conv2_2", "conv3_2", "conv4_3", "conv5_2")
#: SHA-256 of the ImageNet weights of VGG-19's blocks 1 to 3, rounded to float16. See `genuine_digest`.
GENUINE = "de7ac8c54d479b1a553f42459b6d6e48c5a47c8fbf558608de202243efe09937"


class Score(NamedTuple):
    """The scores of an image. docs/scoring.md describes each score with its source and its limits.

    Attributes:
        E: effectiveness, by the E statistic of Yeh et al. 2019. Higher is closer to the style. Values are
            comparable only for the same pair, size and basis. E uses only conv1_1, conv2_1 and conv3_1,
            does not measure periodic artefacts, and favours the style loss ``wasserstein``. It is infinite if
            the image is the style image. If the style image or the image has a single colour, E is not
            meaningful; it is usually minus infinity.
        S: difference between the self-similarities of the image and the content image (Kolkin et al. 2019)
            at conv3_3. Lower is closer to the content; 0 is the content itself. S does not measure
            details below 16 pixels, and favours content layers near conv3_3.
        ripple: periodic artefacts at periods of 2.3 to 5.3 pixels. Photographs and paintings have 0.05 to
            0.16.
        frame: change towards the borders relative to the interior. About 1 if no frame is visible.
        energy: energy distance from the style image, divided by that of the content image. Lower is closer
            to the style. It is NaN if the content image and the style image are the same.
    """

    E: float
    S: float
    ripple: float
    frame: float
    energy: float


class _References(NamedTuple):
    """Values with which images of one size are compared.

    Attributes:
        moments: projected moments of the style image.
        content: directions of the features of the content image.
        energies: for each pooling and layer, a sample of the features of the style image and the energy
            distance of the content image from it.
    """

    moments: Mapping[str, Moments]
    content: np.ndarray
    energies: Mapping[tuple[str, str], tuple[np.ndarray, float]]


class Judge:
    """Scorer of images that show one content image in the style of one style image.

    The scores do not depend on the losses with which an image was made. The judge keeps its encoders, and
    everything that it has computed from the content image and the style image for the last size, so that
    further images of this size are scored faster.

    Args:
        content: content image: a path, bytes, a PIL image or an array, as for `tfstyle.images.load`.
            Transparent images are put on a white background.
        style: style image.
        weights: weights of VGG-19 whose blocks 1 to 3 were trained on ImageNet: `Weights`, a file, or
            ``auto`` or ``imagenet``, which both mean the ImageNet weights, cached or downloaded. If they have
            conv4_3 and conv5_2, the energy distance includes these layers. Embedded and random weights are
            refused.
        reference: images from which the basis of E is computed: a folder, a file, or images as for `content`.
            By default it is the basis of the package. Values of E are comparable only with the same basis.

    Attributes:
        weights: the `Weights`.

    Raises:
        WeightsError: the weights are not available, or their blocks 1 to 3 are not those of ImageNet.
        ImageError: an image cannot be read, or the folder of reference images contains none.
        ConfigError: `reference` is empty.

    Example:
        >>> from tfstyle.scoring import Judge
        >>> judge = Judge("content.jpg", "style.jpg")  # doctest: +SKIP
        >>> [judge.judge(path).E for path in ("a.png", "b.png")]  # doctest: +SKIP
        [-6.6, -4.8]
    """

    def __init__(
        self,
        content: Any,
        style: Any,
        *,
        weights: str | os.PathLike[str] | Weights = "auto",
        reference: Any = None,
    ) -> None:
        self._content, self._style = load(content), load(style)
        self.weights = genuine_weights(weights)
        self._encoder = Encoder((*LAYERS, CONTENT_LAYER), self.weights, pooling="max", padding="zeros")
        energy_layers = [layer for layer in ENERGY_LAYERS if layer in self.weights.layer_names]
        self._energy_encoders = [
            Encoder(energy_layers, self.weights, pooling=pooling, padding="reflect")
            for pooling in ("avg", "max")
        ]
        self._basis = shipped_basis() if reference is None else self._reference_basis(reference)
        self._last: tuple[tuple[int, int], _References] | None = None

    def judge(self, image: Any) -> Score:
        """Return the scores of an image.

        The content image is resized to the size of the image with the Lanczos filter. The style image is
        reduced to the same longest side, as in a run with the default options.

        Args:
            image: the image, as for `tfstyle.images.load`.

        Raises:
            ImageError: the image cannot be read, or it or the reduced style image is too small: a side is
                shorter than 32 pixels, or conv3_1 has too few positions for a covariance of full rank.
        """
        pixels = load(image).on_white()
        name = os.fspath(image) if isinstance(image, (str, os.PathLike)) else "the image"
        _check_size(name, pixels)
        shape = pixels.shape[:2]
        if self._last is None or self._last[0] != shape:
            self._last = shape, self._compare_with(shape)
        references = self._last[1]
        features = _encode(self._encoder, pixels)
        energies = self._energy_samples(pixels)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = [
                np.divide(energy_distance(energies[key], style), content)
                for key, (style, content) in references.energies.items()
            ]
        return Score(
            E=e_statistic(projected_moments(features, self._basis), references.moments),
            S=self_similarity_distance(directions(features[CONTENT_LAYER]), references.content),
            ripple=ripple(pixels),
            frame=frame(pixels),
            energy=float(np.mean(ratios)),
        )

    def _compare_with(self, shape: tuple[int, int]) -> _References:
        content = self._content.resized(shape).on_white()
        style = self._style.fitted(max(shape)).on_white()
        _check_size(f"the style image, reduced to {max(shape)} pixels,", style)
        own_height, own_width = self._content.rgb.shape[:2]
        if not 0.95 < shape[0] * own_width / (shape[1] * own_height) < 1.05:
            log.warning(
                "the image has %d x %d pixels and the content image %d x %d: the content image is stretched",
                *shape, own_height, own_width,
            )  # fmt: skip
        content_samples, style_samples = self._energy_samples(content), self._energy_samples(style)
        return _References(
            projected_moments(_encode(self._encoder, style), self._basis),
            directions(_encode(self._encoder, content)[CONTENT_LAYER]),
            {
                k: (style_samples[k], energy_distance(content_samples[k], style_samples[k]))
                for k in style_samples
            },
        )

    def _energy_samples(self, pixels: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        """Return a sample of the features for each pooling and each layer of the energy distance."""
        return {
            (encoder.pooling, layer): sample(features)
            for encoder in self._energy_encoders
            for layer, features in _encode(encoder, pixels).items()
        }

    def _reference_basis(self, reference: Any) -> dict[str, np.ndarray]:
        if isinstance(reference, (str, os.PathLike)):
            reference = find_images([Path(reference)])
        images = [load(source) for source in reference]
        if not images:
            raise ConfigError("reference is empty; give a folder of images, or at least one image")
        return reference_basis(images, lambda pixels: _encode(self._encoder, pixels))


def score(
    content: Any,
    style: Any,
    *images: Any,
    weights: str | os.PathLike[str] | Weights = "auto",
    reference: Any = None,
) -> list[Score]:
    """Return the scores of images that show a content image in the style of a style image.

    Args:
        content: content image: a path, bytes, a PIL image or an array.
        style: style image.
        images: the images to be scored, each at its own size.
        weights: as for `Judge`.
        reference: as for `Judge`.

    Returns:
        A `Score` for each image.

    Raises:
        WeightsError: the weights are not available, or their blocks 1 to 3 are not those of ImageNet.
        ImageError: an image cannot be read or is too small, as for `Judge.judge`.
        ConfigError: `reference` is empty.

    Example:
        >>> import tfstyle
        >>> tfstyle.score("content.jpg", "style.jpg", "out.png")  # doctest: +SKIP
        [Score(E=-4.84, S=0.293, ripple=0.17, frame=0.97, energy=0.03)]
    """
    judge = Judge(content, style, weights=weights, reference=reference)
    return [judge.judge(image) for image in images]


def genuine_weights(source: str | os.PathLike[str] | Weights) -> Weights:
    """Load weights, and check that blocks 1 to 3 are those of VGG-19 trained on ImageNet.

    Args:
        source: as for `Judge`.

    Returns:
        The weights.

    Raises:
        WeightsError: the weights are not available, or their blocks 1 to 3 are not those of ImageNet.
    """
    if source in ("auto", "imagenet"):
        try:
            weights = load_weights("imagenet")
        except WeightsError as error:
            raise WeightsError(
                "scores need the ImageNet weights of VGG-19, which could not be downloaded "
                f"({one_line(error.__context__ or error)}); give weights=FILE, where FILE holds at least "
                f"their blocks 1 to 3, or store Keras' file as {imagenet_cache()}"
            ) from None
    elif source in ("embedded", "random"):
        raise _not_genuine(str(source))
    else:
        weights = load_weights(source)
    if genuine_digest(weights) != GENUINE:
        raise _not_genuine(weights.source)
    return weights


def _not_genuine(name: str) -> WeightsError:
    return WeightsError(
        f"scores need blocks 1 to 3 of VGG-19's ImageNet weights, and {name} has other ones; give "
        'weights="imagenet", or weights=FILE where FILE holds these blocks'
    )


def genuine_digest(weights: Weights) -> str:
    """Return the SHA-256 of the weights of blocks 1 to 3, rounded to float16.

    A file that stores them in half precision has the same digest. The result is an empty string if the
    weights end below conv3_4.
    """
    running = hashlib.sha256()
    for layer in NETWORKS["vgg19"]:
        if layer.keras_name[5] not in "123":
            continue
        for kind in ("kernel", "bias"):
            array = weights.arrays.get(f"{layer.keras_name}/{kind}")
            if array is None:
                return ""
            running.update(array.astype("<f2").tobytes())
    return running.hexdigest()


def _encode(encoder: Encoder, pixels: np.ndarray) -> dict[str, np.ndarray]:
    return {layer: maps[0].numpy() for layer, maps in encoder(pixels[None]).items()}


def _check_size(name: str, pixels: np.ndarray) -> None:
    """Raise ImageError unless ripple can be measured and conv3_1 has enough positions for its covariance."""
    height, width = pixels.shape[:2]
    smallest = LAYERS["conv3_1"][0] + 1
    if min(height, width) < WINDOW or (height // 4) * (width // 4) < smallest:
        raise ImageError(
            f"{name} has {height} x {width} pixels; a score needs at least {WINDOW} pixels a side and "
            f"at least {smallest} blocks of 4 x 4 pixels"
        )

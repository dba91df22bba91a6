"""The options of a run: defaults, choices, ranges and descriptions. TensorFlow is not imported here.

The flags and the help of the command line, the metadata of output images and the checks of `tfstyle.stylize`
are generated from the fields of `StyleConfig`.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

from typing_extensions import Unpack

from tfstyle.errors import ConfigError, suggest

#: The style layers of Gatys et al. 2016, section 3, which are also the default.
STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
#: The content layer of Gatys et al. 2016, section 3. Most presets and the experiments use it.
PAPER_CONTENT_LAYERS: tuple[str, ...] = ("conv4_2",)
#: The value of ``content_layers`` that stands for `PAPER_CONTENT_LAYERS`, or for another layer if the weights
#: end below; see `tfstyle.network.paper_layers`.
PAPER = ("gatys",)
#: The default content layers of weights that reach conv4_1, and of weights that end below.
CONTENT_LAYERS: tuple[str, ...] = ("conv3_2",)
SHALLOW_CONTENT_LAYERS: tuple[str, ...] = ("conv2_2",)
#: The default content weight, and the default for quality ``high`` if no layer is in block 4 or 5.
CONTENT_WEIGHT, SHALLOW_HIGH_CONTENT_WEIGHT = 0.012, 0.003
#: The default weight of the self-similarity loss, if ``content_loss`` selects it.
SELF_SIMILARITY_WEIGHT = 0.06
#: Defaults of the encoder in runs, in Python, in extracted styles, exported models and experiments. They are
#: shared so that the same image has the same Gram matrices everywhere.
POOLING, PADDING = "avg", "reflect"
#: The style layers with the lowest style distance at all depths, measured for the embedded weights.
EMBEDDED_STYLE_LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_4")

#: Quality -> values of the options that `StyleConfig` marks with ``by_quality``. An option that a quality
#: does not set keeps its own default, and so do all of them if ``iterations`` is given. The iterations of all
#: scales have a common divisor from 7 to 10, so that one call performs several iterations on a GPU.
QUALITIES: Mapping[str, Mapping[str, Any]] = {
    "draft": {"iterations": 7, "first_iterations": 28, "iteration_decay": 2.0},
    "standard": {"iterations": 24, "first_iterations": 48},
    "high": {"iterations": 88},
}
#: Options that are missing in images of earlier versions -> the value with which those were made.
ADDED_OPTIONS: Mapping[str, Any] = {
    "style_layer_decay": 1.0, "spectrum_weight": 0.0, "border_weight": 1.0,
    "content_loss": ["features"], "self_similarity_weight": SELF_SIMILARITY_WEIGHT,
    "method": "gatys",
    "alpha": 0.75,
    "style_rotations": True,
    "pyramid_levels": None,
}  # fmt: skip


def upgraded_options(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options stored in an image, with values for the options that its version did not have.

    The default content layer of versions without ``border_weight`` was conv4_2.
    """
    options = {**ADDED_OPTIONS, **stored}
    if "border_weight" not in stored and options.get("content_layers") is None:
        options["content_layers"] = list(PAPER)
    return options


#: Options that only make sense for one content image.
SINGLE_IMAGE_OPTIONS = ("masks", "style_masks", "content_mask")
#: Default number of seconds between two checkpoints of a run.
CHECKPOINT_SECONDS = 300.0
#: The style layers of Kolkin et al. 2022, the default of ``method="neighbours"`` as far as the weights reach.
NEIGHBOUR_LAYERS = (
    "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3",
    "conv4_1", "conv4_2", "conv4_3",
)  # fmt: skip
#: Number of levels of the Laplacian pyramid of Kolkin et al. 2022, the default of ``method="neighbours"``.
NEIGHBOUR_PYRAMID_LEVELS = 8
#: Values of `StyleConfig.init` other than the path of an image file.
INIT_NAMES = ("content", "noise", "style", "grey", "uniform", "mean", "style_stats")

_STYLE_LOSSES = ("normalized_gram",)
#: The optimisers of `tfstyle.addons`.
ADDONS = (
    "adabelief", "adamw", "cocob", "lamb", "lazyadam", "lookahead", "movingaverage", "novograd",
    "proximaladagrad", "radam", "sgdw", "swa", "yogi",
)  # fmt: skip


#: Groups of options, in the order of ``--help-all``, with their titles.
OPTION_GROUPS = {
    "size": "size and scales",
    "network": "network",
    "losses": "losses",
    "style control": "style control",
    "optimiser": "optimiser",
    "machine": "machine",
    "compatibility": "compatibility with other programs",
}


class _ByQuality:
    """The default of an option that depends on the quality, as ``help(StyleConfig)`` shows it."""

    def __repr__(self) -> str:
        return "<by quality>"


_BY_QUALITY = _ByQuality()


def _option(
    default: Any,
    help: str,
    *,
    group: str,
    usual: bool = False,
    choices: Mapping[str, str] | tuple[str, ...] = (),
    low: float = -math.inf,
    high: float = math.inf,
    shown: str | None = None,
    by_quality: bool = False,
) -> Any:
    """Return a dataclass field with what the checks and the command line need to know about it.

    Args:
        default: the default value, unless the quality sets another one.
        help: what the option does, in a phrase that begins in lower case.
        group: a key of `OPTION_GROUPS`.
        usual: whether ``--help`` lists the option. ``--help-all`` lists every option.
        choices: the allowed values, each with an explanation where it needs one; empty if any value in
            the range is allowed.
        low, high: the smallest and the largest number allowed.
        shown: what the help shows for a default of None.
        by_quality: whether one of `QUALITIES` may set the option.
    """
    metadata = {
        "help": help,
        "group": group,
        "usual": usual,
        "choices": choices if isinstance(choices, Mapping) else dict.fromkeys(choices, ""),
        "low": low,
        "high": high,
        "shown": shown,
        "by_quality": by_quality,
        "default": default,
    }
    return dataclasses.field(default=_BY_QUALITY if by_quality else default, metadata=metadata)


class TransferOptions(TypedDict, total=False):
    """The fields of `StyleConfig` as keyword arguments, for editors and type checkers.

    It leaves out ``optimizer`` and ``masks``, which are arguments of `tfstyle.stylize` itself.
    """

    quality: str
    size: int
    size_of: str
    enlarge: bool
    style_scale: Sequence[float] | None
    style_size: Sequence[int] | None
    weights: str | os.PathLike[str]
    network: str
    pooling: str
    padding: str
    pixel_range: float
    feature_scale: float
    normalize_weights: bool
    content_layers: Sequence[str] | None
    style_layers: Sequence[str] | None
    content_layer_weights: Sequence[float] | None
    style_layer_weights: Sequence[float] | None
    style_layer_decay: float
    content_loss: Sequence[str]
    content_weight: float | None
    self_similarity_weight: float
    border_weight: float
    method: str
    alpha: float
    style_rotations: bool
    style_weight: float
    style_losses: Sequence[str]
    style_loss_weights: Sequence[float] | None
    tv_weight: float
    spectrum_weight: float
    tv_form: str
    normalize_gradients: bool
    style_blend: Sequence[float] | None
    fine_style: str | os.PathLike[str] | None
    loss_normalization: str
    color: str
    style_masks: Sequence[str | os.PathLike[str]] | None
    content_mask: str | os.PathLike[str] | None
    mask_blur: float
    guidance: str
    init: str | os.PathLike[str]
    init_noise: float
    learning_rate: float
    beta_1: float
    beta_2: float
    epsilon: float
    epsilon_corrected: bool
    lbfgs_history: int
    clamp: bool
    pyramid_levels: int | None
    ema_decay: float
    warm_start: bool
    iterations: int
    first_iterations: int | None
    iteration_decay: float | None
    scales: int | None
    scale_factor: float
    min_scale: int
    tolerance: float
    seed: int
    compile: str
    device: str
    precision: str
    steps_per_call: int | None
    tile: int | str
    memory: float | None
    max_pixels: int | None


class StyleOptions(TransferOptions, total=False):
    """All fields of `StyleConfig` as keyword arguments, for editors and type checkers."""

    optimizer: str
    masks: Sequence[str | os.PathLike[str]] | None


@dataclass(frozen=True, kw_only=True, repr=False)
class StyleConfig:
    """The options of one run. Instances are immutable; `replace` returns a changed copy.

    `tfstyle stylize --help-all` describes every option. A default that is shown as ``<by quality>`` may be
    set by ``quality``; `tfstyle.config.QUALITIES` lists what each quality sets.

    The defaults were chosen with `tfstyle.score` and by eye. E is the score of the style (higher is better)
    and S that of the content (lower is better). All runs had average pooling. With stand-in weights (blocks 1
    to 3 of VGG-19, blocks 4 and 5 learned without labels) at 256 pixels, medians of three pairs of images:

    - The former default, ``gram`` with equal layer weights and 100 iterations per scale: E -6.4, S 0.259,
      ripple 0.53.
    - ``gram`` with ``style_layer_decay`` 0.5, 150 iterations at the first scale and 30 at the second: E -6.2.
      ``normalized_gram`` with 60 and 30 iterations: -5.7; with half of the content weight in addition: -5.1.
      Gram matrices that are whitened by those of the style: -6.6.
    - Adding ``mean_deviation`` raises E from -5.7 to -5.3. Halving the content weight raises it more, to
      -5.1. ``mean_deviation`` is not a default, because style files do not contain the means.
    - With ``style_layer_decay`` 0.7, 0.5 and 0.35, S is 0.267, 0.258 and 0.229, E is -5.7, -5.7 and -6.0, and
      the energy distance of the deep layers, where swirls are, is 0.02, 0.05 and 0.10.
    - The local spectrum reduces ripple from 0.5-0.8 to 0.1 at the same E, and makes a run about 10% slower.
      With absolute total variation ripple is 0.5 or more. With Adam it is 0.1 to 0.3, but the energy distance
      of the deep layers is two to four times as large.
    - With ``border_weight`` 1, 4 and 16, on one pair, frame is 1.17, 1.07 and 1.00, and E is -5.2, -5.4
      and -6.2.
    - Padding with zeros raises E by 0.3 and leaves a dark frame; replicated pixels leave a line at the
      border.

    At 384 pixels, means of two pairs with other content layers and content weights:

    - stand-in weights: conv4_2 with 0.02: E -4.8, S 0.298, and weak outlines; conv4_1 with 0.02: -4.7 and
      0.285; conv3_3 with 0.02: -4.5 and 0.278; conv3_2 with 0.015: -4.3 and 0.281; conv2_2 with 0.015: -4.3
      and 0.285. The default is conv3_2 with 0.012.
    - embedded weights, which end in block 3: conv3_3 with 0.02: -7.3 and 0.262; conv3_2 with 0.022: -7.4 and
      0.260; conv2_2 with 0.015: -7.0 and 0.251.

    Embedded weights at 384 pixels; E and S by content layer and content weight:

    - Quality ``high``, means of two other pairs: conv3_3 with 0.003: -2.5 and 0.327; conv3_3 with 0.007: -3.6
      and 0.318; conv3_2 with 0.003: -2.6 and 0.325; conv2_2 with 0.003: -3.0 and 0.308.
    - conv2_2, medians of five pairs. Quality ``high``: -5.2 and 0.240 with 0.012, -3.4 and 0.257 with 0.003,
      which is the default. Quality ``standard``: -5.3 and 0.266 with 0.012, the default. With 0.003 it has
      -4.2 and 0.288, but outlines dissolve, because 24 iterations do not recover them.

    Stand-in weights at 256 pixels, with E and S computed with the ImageNet weights of blocks 1 to 3; E and S
    of two pairs (Tübingen and Starry Night; Golden Gate and The Scream) by content loss:

    - ``features``: -5.1 and 0.261; -6.3 and 0.264. Frame is 1.00 and 0.98.
    - ``self_similarity`` with 0.03: -4.7 and 0.277; -5.9 and 0.270. With 0.06, the default: -5.0 and 0.260;
      -6.2 and 0.253. With 0.1: -5.5 and 0.240; -6.5 and 0.231. With 0.2: -6.4 and 0.214; -7.4 and 0.201, and
      a regular pattern in the sky. With 0.06 frame is 1.15 and 1.16: ``border_weight`` does not apply.
    - Both, with half of the content weight and 0.03: -4.9 and 0.258; -6.1 and 0.258. Frame is 1.02 and 1.03.

    Sources of the options: ``color``, ``masks``, ``guidance`` and ``fine_style`` are from Gatys et al. 2017,
    Controlling Perceptual Factors; the functions in `tfstyle.losses` name the sources of ``style_losses`` and
    ``content_loss``; ``method``, ``alpha``, ``style_rotations`` and ``pyramid_levels`` are from Kolkin et al.
    2022, Neural Neighbor Style Transfer; ``normalize_gradients`` and ``style_scale`` are from
    jcjohnson/neural-style; ``ema_decay``, ``warm_start``, ``scale_factor``, nine-point variation, and the
    pooling and padding ``rescaled`` and ``replicate_first`` are from crowsonkb/style-transfer-pytorch.
    ``content_mask`` works as in inpainting: pixels that do not change take no part in the losses.

    Raises:
        ConfigError: an option has an invalid value; the message names the valid ones.

    Example:
        >>> config = StyleConfig(size=256, optimizer="adam", style_losses=("gram", "mean_deviation"))
        >>> config.tv_weight == StyleConfig().tv_weight
        True
        >>> config.as_dict()["style_losses"]
        ['gram', 'mean_deviation']
        >>> StyleConfig(quality="draft", iterations=40).iterations
        40
    """

    quality: str = _option(
        "standard",
        "how good the result is and how long it takes; sets the default iterations, and may set the content "
        "weight",
        group="size",
        usual=True,
        choices=tuple(QUALITIES),
    )
    size: int = _option(
        512, "longest side of the result in pixels, or what --size-of selects", group="size", usual=True,
        low=1, high=100_000,
    )  # fmt: skip
    size_of: str = _option(
        "longest",
        "what --size measures",
        group="size",
        choices={
            "longest": "the longest side",
            "shortest": "the shortest side",
            "area": "the square root of the area",
        },
    )
    enlarge: bool = _option(
        False,
        "enlarge a content image that is smaller than --size; by default images are only reduced",
        group="size",
        usual=True,
    )
    style_scale: tuple[float, ...] | None = _option(
        None,
        "size of the style images relative to the content image, one number or one per style; a smaller "
        "number gives smaller brush strokes",
        group="style control",
        usual=True,
        low=0.01,
        shown="1",
    )
    style_size: tuple[int, ...] | None = _option(
        None,
        "longest side of the style images in pixels, one number or one per style",
        group="style control",
        low=1,
        shown="the content image's",
    )
    weights: str = _option(
        "imagenet",
        "weights of the encoder: imagenet (downloaded once), embedded (part of the package), auto (imagenet "
        "if they are cached or can be downloaded, otherwise embedded), random, or a .npz, .h5 or "
        ".safetensors file",
        group="network",
        usual=True,
    )
    network: str = _option(
        "vgg19", "architecture of the encoder", group="network", choices=("vgg19", "vgg16")
    )
    pooling: str = _option(
        POOLING,
        "pooling layers of the encoder",
        group="network",
        choices={"avg": "average", "max": "maximum", "rescaled": "average, multiplied by 2"},
    )
    padding: str = _option(
        PADDING,
        "padding of the encoder's convolutions",
        group="network",
        choices={
            "zeros": "zeros, as in the published network",
            "reflect": "the image mirrored at its border",
            "replicate": "the border pixels repeated",
            "replicate_first": "replicate in the first convolution, zeros in the others",
            "circular": "the opposite side, for images that tile",
        },
    )
    pixel_range: float = _option(
        255.0,
        "value of a white pixel at the encoder's input; jcjohnson/neural-style uses 256",
        group="compatibility",
        low=1,
    )
    feature_scale: float = _option(
        1.0, "factor by which the encoder's features are multiplied", group="compatibility", low=1e-6
    )
    normalize_weights: bool = _option(
        False,
        "rescale the weights so that each filter's mean activation over the content and style images is 1",
        group="compatibility",
    )
    content_layers: tuple[str, ...] | None = _option(
        None,
        "layers of the content loss; gatys selects conv4_2, or the second deepest layer of weights without "
        "conv4_2",
        group="losses",
        shown="conv3_2, or conv2_2 if the weights end below conv4_1",
    )
    style_layers: tuple[str, ...] | None = _option(
        None,
        "layers of the style loss",
        group="losses",
        shown="conv1_1,conv2_1,conv3_1,conv4_1,conv5_1, or others if the weights end below",
    )
    content_layer_weights: tuple[float, ...] | None = _option(
        None, "weights of the content layers, one number per layer", group="losses", low=0, shown="equal"
    )
    style_layer_weights: tuple[float, ...] | None = _option(
        None,
        "weights of the style layers, one number per layer",
        group="losses",
        low=0,
        shown="from --style-layer-decay",
    )
    style_layer_decay: float = _option(
        0.4,
        "weight of the style layers of each block, divided by that of the style layers in the block before; "
        "--style-layer-weights overrides it",
        group="losses",
        low=1e-3,
        high=1e3,
    )
    content_loss: tuple[str, ...] = _option(
        ("features",),
        "content losses, which are added",
        group="losses",
        choices={
            "features": "features of the content layers, as in Gatys et al.",
            "self_similarity": "distances between features at sampled positions: keeps the layout, and lets "
            "textures change",
        },
    )
    content_weight: float | None = _option(
        None,
        "weight of the content loss features; with a third of the default the result follows the content "
        "loosely, with three times the default it keeps the details",
        group="losses",
        usual=True,
        low=0,
        shown=f"{CONTENT_WEIGHT}, or {SHALLOW_HIGH_CONTENT_WEIGHT} with --quality high if all layers are in "
        "blocks 1 to 3 of VGG, or 0 with --method neighbours",
    )
    self_similarity_weight: float = _option(
        SELF_SIMILARITY_WEIGHT,
        "weight of the content loss self_similarity, which --content-loss turns on",
        group="losses",
        low=0,
    )
    border_weight: float = _option(
        4.0,
        "weight of the outermost positions in the content loss features; values above 1 avoid a frame at the "
        "border",
        group="losses",
        low=0,
    )
    style_weight: float = _option(1.0, "weight of the style loss", group="losses", usual=True, low=0)
    method: str = _option(
        "gatys",
        "what the style loss compares the features of the result with",
        group="losses",
        usual=True,
        choices={
            "gatys": "statistics of the style images' features, see --style-losses",
            "neighbours": "features of the style images: the nearest neighbours of the content image's "
            "features, and at the last scale those of the result's features",
        },
    )
    alpha: float = _option(
        0.75,
        "with --method neighbours, weight of the content image in the search: at 1 the neighbours are those "
        "of the content image's features; at 0, after the first scale, those of the features of the result "
        "so far, with the finest detail of the content image",
        group="style control",
        low=0,
        high=1,
    )
    style_rotations: bool = _option(
        True,
        "with --method neighbours or --style-losses neighbours, also search for neighbours in the style "
        "images rotated by 90, 180 and 270 degrees",
        group="style control",
    )
    style_losses: tuple[str, ...] = _option(
        _STYLE_LOSSES,
        "style losses, combined as a weighted sum",
        group="losses",
        choices={
            "gram": "Gram matrices",
            "normalized_gram": "Gram matrices of channels divided by their root mean square in the style",
            "mean_deviation": "means and standard deviations of the channels",
            "wasserstein": "Wasserstein distance of normal distributions",
            "histogram": "histogram of each channel",
            "sliced": "sliced Wasserstein distance",
            "shift": "Gram matrices of the features minus 1",
            "local": "Gram matrices of 4 x 4 windows, each compared with the window at the same place",
            "local_by_content": "the same, each compared with the window whose content is most similar",
            "chain": "Gram matrices of each layer with the next",
            "blurred": "chain with blurred features",
            "across": "Gram matrices of every pair of layers",
            "neighbours": "distance of each feature vector from the nearest one in the style images",
        },
    )
    style_loss_weights: tuple[float, ...] | None = _option(
        None,
        "weights of the style losses, one number per loss",
        group="losses",
        low=0,
        shown="1",
    )
    tv_weight: float = _option(
        0.15,
        "weight of the total variation, which smooths the image",
        group="losses",
        low=0,
    )
    spectrum_weight: float = _option(
        0.015,
        "weight of the local spectrum, which removes a ripple with a period of a few pixels: it matches the "
        "mean logarithm of the power of small windows, at each wavelength, to that of the style image",
        group="losses",
        low=0,
    )
    tv_form: str = _option(
        "mean_squared",
        "form of the total variation of neighbouring pixels",
        group="losses",
        choices={
            "mean_squared": "mean of the squared differences",
            "sum_squared": "half of their sum",
            "sum_absolute": "sum of the absolute differences",
            "nine_point": "mean of the squared differences from all eight neighbours",
        },
    )
    normalize_gradients: bool = _option(
        False,
        "divide the gradient of each layer's loss by its L1 norm; with --optimizer adam or lbfgs_fixed_step",
        group="compatibility",
    )
    style_blend: tuple[float, ...] | None = _option(
        None,
        "weights of the style images in the blend, one number per style",
        group="style control",
        usual=True,
        low=0,
        shown="equal",
    )
    fine_style: str | None = _option(
        None,
        "image whose brushwork replaces that of the style image, which keeps its larger forms",
        group="style control",
    )
    loss_normalization: str = _option(
        "balanced",
        "how each layer's losses are normalised",
        group="compatibility",
        choices={
            "balanced": "relative to the target",
            "paper": "sums as in Gatys et al.",
            "mean": "means over all entries",
            "channels": "means, with Gram matrices also divided by the number of channels",
            "root": "content losses divided by the square roots of channels and positions",
        },
    )
    color: str = _option(
        "style",
        "colours of the result",
        group="style control",
        usual=True,
        choices={
            "style": "the style image's",
            "luminance": "the content image's: only luminance is transferred",
            "cholesky": "the content image's: the style image is recoloured first, by Cholesky factors",
            "root": "the same by matrix square roots",
            "transport": "the same by optimal transport",
            "transport_result": "the result is recoloured by optimal transport",
            "content_chroma": "the result takes the content image's chroma",
            "style_chroma": "the same, moved to the mean and covariance of the style image's chroma",
        },
    )
    masks: tuple[str, ...] | None = _option(
        None,
        "one mask image per style: white where the content image takes this style",
        group="style control",
        usual=True,
    )
    style_masks: tuple[str, ...] | None = _option(
        None,
        "one mask image per style: white where the style image is used",
        group="style control",
    )
    content_mask: str | None = _option(
        None,
        "mask image: white where the content image is not changed",
        group="style control",
        usual=True,
    )
    mask_blur: float = _option(
        0.0,
        "standard deviation of a Gaussian blur of the masks, as a fraction of the image's longer side",
        group="style control",
        low=0,
        high=0.25,
    )
    guidance: str = _option(
        "average",
        "how a mask is reduced to the size of a layer",
        group="style control",
        choices={
            "average": "mean over the pixels of each position",
            "dilate": "positions whose receptive field meets the region",
            "erode": "positions whose receptive field lies inside the region",
        },
    )
    init: str = _option(
        "content",
        f"image to start from: {', '.join(INIT_NAMES)}, or an image file",
        group="optimiser",
        usual=True,
    )
    init_noise: float = _option(
        0.25,
        "standard deviation of the noise of --init noise and mean, for pixels in 0..1",
        group="optimiser",
        low=0,
    )
    optimizer: str = _option(
        "lbfgs",
        "optimiser of the image",
        group="optimiser",
        choices={
            "adam": "",
            "lbfgs": "with line search",
            "lbfgs_fixed_step": "without line search",
            **{f"addons:{name}": "" for name in ADDONS},
        },
    )
    learning_rate: float = _option(
        0.02,
        "learning rate of adam and addons:NAME, for pixels in 0..1",
        group="optimiser",
        low=1e-9,
    )
    beta_1: float = _option(0.9, "decay rate of Adam's first moment", group="optimiser", low=0, high=0.999999)
    # 0.99 as in crowsonkb's program. After 100 iterations at each of two sizes the loss was 1.4% lower than
    # with 0.999.
    beta_2: float = _option(
        0.99, "decay rate of Adam's second moment", group="optimiser", low=0, high=0.999999
    )
    # The gradient of a mean falls with the number of pixels. At 768 x 576 a twentieth of its entries are
    # below 1e-8. With Keras' 1e-7 the loss was 2% higher after 40 iterations at each size.
    epsilon: float = _option(
        1e-10, "term added to the square root of Adam's second moment", group="optimiser", low=1e-20
    )
    epsilon_corrected: bool = _option(
        False,
        "add epsilon after the bias correction of the second moment, as PyTorch does",
        group="compatibility",
    )
    lbfgs_history: int = _option(
        10,
        "number of curvature pairs that L-BFGS stores",
        group="optimiser",
        low=1,
        high=100,
    )
    clamp: bool = _option(
        True,
        "clip the image to 0..1 at every step, and not only at the end; not with a pyramid",
        group="compatibility",
    )
    pyramid_levels: int | None = _option(
        None,
        "number of levels of a Laplacian pyramid whose coefficients are optimised in place of the pixels; 0 "
        "optimises the pixels",
        group="optimiser",
        low=0,
        high=20,
        shown="8 with --method neighbours, otherwise 0",
    )
    ema_decay: float = _option(
        0.0,
        "EMA decay of the output image; 0 returns the last iterate",
        group="optimiser",
        low=0,
        high=0.999999,
    )
    warm_start: bool = _option(
        False, "carry Adam's moments over from each scale to the next; not with a pyramid", group="optimiser"
    )
    iterations: int = _option(
        24,
        "iterations per scale; each one evaluates the loss once",
        group="optimiser",
        usual=True,
        low=1,
        by_quality=True,
    )
    first_iterations: int | None = _option(
        None, "iterations at the first scale", group="optimiser", low=1, shown="--iterations", by_quality=True
    )
    iteration_decay: float | None = _option(
        None,
        "divide the iterations by this number at each further scale, starting from --first-iterations, but "
        "take at least --iterations",
        group="optimiser",
        low=1,
        shown="no decay",
        by_quality=True,
    )
    scales: int | None = _option(
        None,
        "number of scales, from coarse to fine",
        group="size",
        low=1,
        high=20,
        shown="as many as --min-scale allows",
    )
    scale_factor: float = _option(
        2.0,
        "ratio of the size of each scale to that of the scale before",
        group="size",
        low=1.01,
    )
    min_scale: int = _option(
        91,
        "minimum size of the first scale in pixels, measured like --size; --scales overrides it",
        group="size",
        low=1,
    )
    tolerance: float = _option(
        0.0,
        "stop a scale early when the loss falls by less than this fraction within 10 iterations; 0 never "
        "stops early",
        group="optimiser",
        low=0,
        high=1,
    )
    seed: int = _option(
        0,
        "seed of the initial noise, of random weights, and of the positions of the content loss "
        "self_similarity",
        group="optimiser",
        usual=True,
        low=0,
        high=2**32 - 1,
    )
    compile: str = _option(
        "auto",
        "how the step is compiled",
        group="machine",
        choices={
            "auto": "xla on a GPU, graph on a CPU and on the GPU of a Mac",
            "xla": "tf.function with XLA",
            "graph": "tf.function",
            "eager": "not compiled",
        },
    )
    device: str = _option("auto", "device: auto, cpu, gpu:0, gpu:1, ...", group="machine")
    precision: str = _option(
        "auto",
        "data type of the encoder's features",
        group="machine",
        choices={
            "auto": "16 bits where the hardware computes in them",
            "float32": "",
            "bfloat16": "",
            "float16": "",
        },
    )
    steps_per_call: int | None = _option(
        None,
        "maximum number of iterations per call of the compiled step; tiles always take 1",
        group="machine",
        low=1,
        shown="10 on a GPU, otherwise 1",
    )
    tile: int | str = _option(
        "auto",
        "side of the tiles in pixels; off evaluates the whole image at once; auto uses tiles if a step does "
        "not fit into --memory",
        group="machine",
    )
    memory: float | None = _option(
        None,
        "memory limit in GB (10^9 bytes) of the process, or of the GPU",
        group="machine",
        low=1e-3,
        shown="what is free",
    )
    max_pixels: int | None = _option(
        None,
        "largest image file that is read, in pixels",
        group="machine",
        low=1,
        shown="Pillow's limit",
    )

    # Names of the options that depend on the quality and were given. `__post_init__` sets this attribute for
    # each instance. It is not a field, because two configs with the same values are equal.
    _given: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        given = {name for name in quality_options() if getattr(self, name) is not _BY_QUALITY}
        object.__setattr__(self, "_given", frozenset(given))
        for field in dataclasses.fields(self):
            value = _plain(getattr(self, field.name))
            if value is _BY_QUALITY:
                continue
            if str(field.type).startswith("tuple") and isinstance(value, (str, int, float)):
                value = (value,)
            if field.name == "tile" and isinstance(value, int) and not isinstance(value, bool):
                value = str(value)
            object.__setattr__(self, field.name, value)
            _check(field, value)
        for name, value in self._values_by_quality().items():
            object.__setattr__(self, name, value)
        if self.content_layers != PAPER and PAPER[0] in (self.content_layers or ()):
            raise ConfigError(f"content_layers is {self.content_layers!r}; {PAPER[0]} must be the only entry")
        for layers, weights in (
            ("content_layers", "content_layer_weights"),
            ("content_loss", None),
            ("style_layers", "style_layer_weights"),
            ("style_losses", "style_loss_weights"),
        ):
            names, numbers = getattr(self, layers), None if weights is None else getattr(self, weights)
            if names is not None and len(set(names)) < len(names):
                raise ConfigError(f"{layers} is {names!r}; give each name once")
            if numbers is not None and (names is None or len(names) != len(numbers)):
                raise ConfigError(f"{weights} needs {layers} with as many entries ({len(numbers)})")
            if numbers is not None and sum(numbers) <= 0:
                raise ConfigError(f"{weights} are all zero; at least one must be positive")
        if self.style_scale is not None and self.style_size is not None:
            raise ConfigError(
                "style_scale and style_size both set the size of the style images; give one of them"
            )
        if self.warm_start and self.optimizer != "adam":
            raise ConfigError(f'warm_start needs optimizer="adam"; optimizer is {self.optimizer!r}')
        if not re.fullmatch(r"auto|cpu|gpu:\d+", self.device):
            raise ConfigError(f"device is {self.device!r}; it can be auto, cpu, gpu:0, gpu:1, ...")
        if not re.fullmatch(r"auto|off|0*[1-9]\d{0,5}", str(self.tile)):
            raise ConfigError(f"tile is {self.tile!r}; it can be auto, off, or a number of pixels from 1")
        if self.style_blend is not None and sum(self.style_blend) <= 0:
            raise ConfigError("style_blend is all zero; at least one number must be positive")
        if self.method == "neighbours" and self.style_losses not in (_STYLE_LOSSES, ("neighbours",)):
            raise ConfigError(
                f"style_losses is {self.style_losses!r}, and method is 'neighbours', which has its own style "
                "loss; leave one of them out"
            )
        by_loss = {"features": "content_weight", "self_similarity": "self_similarity_weight"}
        used = (*(by_loss[name] for name in self.content_loss), "style_weight", "tv_weight")
        if all(getattr(self, name) == 0 for name in used):
            raise ConfigError(
                f"{', '.join(used[:-1])} and {used[-1]} are all 0; at least one must be positive"
            )

    def replace(
        self, changes: Mapping[str, Any] | StyleOptions | None = None, /, **options: Unpack[StyleOptions]
    ) -> StyleConfig:
        """Return a copy with some options changed.

        If ``quality`` changes, the options that were set by the quality get the values of the new one. If
        ``iterations`` is given, they get their own defaults. A config that is made from the result of
        `as_dict` counts all options as given; `without_quality_options` leaves out those of the quality.

        Args:
            changes: a mapping from option names to values, for names that are only known at run time.
            **options: options as keyword arguments; they take precedence over ``changes``.

        Returns:
            The new config.

        Raises:
            ConfigError: an option does not exist, or its value is not allowed.

        Example:
            >>> StyleConfig().replace(size=1024, scales=3).size
            1024
        """
        merged: dict[str, Any] = {**(changes or {}), **options}
        check_option_names(merged)
        not_given = {name: _BY_QUALITY for name in quality_options() if name not in self._given}
        return dataclasses.replace(self, **{**not_given, **merged})

    def _values_by_quality(self) -> dict[str, Any]:
        """Return a dict with the values of the options that depend on the quality and were not given."""
        quality = {} if self.has_own_iterations else QUALITIES[self.quality]
        defaults = {field.name: field.metadata["default"] for field in dataclasses.fields(self)}
        return {
            name: quality.get(name, defaults[name]) for name in quality_options() if name not in self._given
        }

    def __repr__(self) -> str:
        """Return an expression with the options that differ from their defaults."""
        shown = []
        for field in dataclasses.fields(self):
            value, name = getattr(self, field.name), field.name
            if name in self._given if field.metadata["by_quality"] else value != field.metadata["default"]:
                shown.append(f"{name}={value!r}")
        return f"StyleConfig({', '.join(shown)})"

    @property
    def chosen_style_losses(self) -> tuple[str, ...]:
        """Names of the style losses of the run: ``style_losses``, or those of the method."""
        return ("neighbours",) if self.method == "neighbours" else self.style_losses

    @property
    def chosen_pyramid_levels(self) -> int:
        """The number of levels of the pyramid, which is ``pyramid_levels`` or the default of the method."""
        default = NEIGHBOUR_PYRAMID_LEVELS if self.method == "neighbours" else 0
        return default if self.pyramid_levels is None else self.pyramid_levels

    @property
    def has_own_iterations(self) -> bool:
        """True if ``iterations`` was given. The iterations of the quality do not apply in this case."""
        return "iterations" in self._given

    def as_dict(self) -> dict[str, Any]:
        """Return the options as a dictionary of values that JSON can represent."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def quality_options() -> tuple[str, ...]:
    """Return the names of the options whose default values depend on ``quality``."""
    return tuple(field.name for field in dataclasses.fields(StyleConfig) if field.metadata["by_quality"])


def without_quality_options(options: Mapping[str, Any], *, replaced: bool = False) -> dict[str, Any]:
    """Return the options stored in an image, except for those that were set by its quality.

    Args:
        options: all options, as `StyleConfig.as_dict` returns them.
        replaced: whether the quality is replaced by another one. If it is, the iterations that were given for
            the image are left out, too.

    Example:
        >>> from tfstyle import StyleConfig
        >>> from tfstyle.config import without_quality_options
        >>> options = StyleConfig(quality="draft").as_dict()
        >>> StyleConfig(**without_quality_options(options)).replace(quality="high").iterations
        88
    """
    own = StyleConfig(quality=options.get("quality", StyleConfig().quality))
    if replaced or all(options.get(name) == getattr(own, name) for name in quality_options()):
        return {name: value for name, value in options.items() if name not in quality_options()}
    return dict(options)


def check_option_names(names: Iterable[str]) -> None:
    """Raise ConfigError unless all names are those of fields of `StyleConfig`."""
    known = {field.name for field in dataclasses.fields(StyleConfig)}
    if unknown := sorted(set(names) - known):
        hint = suggest(unknown[0], known)
        raise ConfigError(f"no option {unknown[0]!r}{hint}; there are {', '.join(map(repr, sorted(known)))}")


def check_init(config: StyleConfig) -> None:
    """Raise ConfigError unless a config's ``init`` is one of `INIT_NAMES` or an existing file."""
    if config.init not in INIT_NAMES and not os.path.exists(config.init):
        hint = suggest(config.init, INIT_NAMES)
        raise ConfigError(
            f"init is {config.init!r}{hint}; it can be {', '.join(INIT_NAMES)}, or an image file"
        )


def check_style_count(config: StyleConfig, count: int) -> None:
    """Raise ConfigError if there is no style image, or a per-style option does not have one value for each.

    ``style_scale`` and ``style_size`` may also have a single value, which then holds for all style images.
    """
    if not count:
        raise ConfigError("no style image was given; give at least one")
    for option in ("style_blend", "style_scale", "style_size"):
        values = getattr(config, option)
        allowed = {count} if option == "style_blend" else {1, count}
        if values is not None and len(values) not in allowed:
            raise ConfigError(
                f"{option} has {len(values)} numbers, and the number of style images is {count}; "
                "give one number for each image"
            )


def check_mask_count(option: str, count: int, *, styles: int) -> None:
    """Raise ConfigError unless the number of masks is 0 or equals the number of style images."""
    if count not in (0, styles):
        raise ConfigError(f"{count} {option} for {styles} style images: give one for each")


def check_single_image_options(config: StyleConfig) -> None:
    """Raise ConfigError if a config has one of `SINGLE_IMAGE_OPTIONS`."""
    for option in SINGLE_IMAGE_OPTIONS:
        if getattr(config, option) is not None:
            raise ConfigError(f"{option} applies to a single content image; leave it out of a batch")


def _plain(value: Any) -> Any:
    """Return paths as strings, NumPy's numbers as Python's, and lists as tuples."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, (int, float)) else value


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    """Raise ConfigError if a value has the wrong type, is not one of the choices, or is out of range."""
    kind = str(field.type)
    if value is None and "None" in kind:
        return
    several = kind.startswith("tuple")
    items = value if several and isinstance(value, tuple) else (value,)
    wanted = next(t for name, t in _TYPES.items() if name in kind)
    fits = all(isinstance(i, wanted) and isinstance(i, bool) == (wanted is bool) for i in items)
    if not fits or several != isinstance(value, tuple):
        raise ConfigError(f"{field.name} is {value!r}; expected {kind.replace(' | None', '')}")
    if not items:
        raise ConfigError(f"{field.name} is empty; give at least one value")
    choices, low, high = (field.metadata[key] for key in ("choices", "low", "high"))
    for item in items:
        if choices and item not in choices:
            raise ConfigError(
                f"{field.name} is {item!r}{suggest(item, choices)}; it can be {', '.join(choices)}"
            )
        if isinstance(item, (int, float)) and not (low <= item <= high and math.isfinite(item)):
            raise ConfigError(f"{field.name} is {value!r}; it must be {_range(low, high)}")


# An int is valid for a float. Of these names, the first one in a type such as tuple[str, ...] counts.
_TYPES: dict[str, Any] = {"bool": bool, "str": str, "float": (float, int), "int": int}


def _range(low: float, high: float) -> str:
    if math.isinf(low):
        return "a finite number"
    return f"at least {low:g}" if math.isinf(high) else f"from {low:.10g} to {high:.10g}"

"""Named sets of options that reproduce Gatys et al. 2016 and other programs.

The preset of a program has the objective of the program in the program's units, its initial image, its
optimiser and its number of iterations. The losses of tfstyle can therefore be compared with those that the
program prints. The encoder is Keras' VGG-19, which has the weights that all these programs use except
crowsonkb's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from tfstyle.config import PAPER, SELF_SIMILARITY_WEIGHT, STYLE_LAYERS, StyleConfig
from tfstyle.errors import ConfigError, suggest


class Preset(NamedTuple):
    """A set of options, as ``tfstyle presets`` lists it.

    Attributes:
        summary: the paper or the program that the options reproduce.
        options: the options that the preset sets. The preset of a program sets every option on which the
            result of the program depends, so that it does not change with the defaults of `StyleConfig`.
        differs: known differences between the results or losses of tfstyle with these options and those of
            the program; empty if none are known.
    """

    summary: str
    options: Mapping[str, Any]
    differs: str = ""


#: The defaults of `StyleConfig` before there was a quality, of every option on which a result depends. The
#: presets of programs begin with them, so that they do not change with today's defaults. Balanced
#: content losses were then multiplied by 1/64 of the number of pixels for each position of the layer, by 1 at
#: conv4_2.
FORMER_DEFAULTS: Mapping[str, Any] = {
    "size": 512,
    "size_of": "longest",
    "enlarge": False,
    "pooling": "avg",
    "padding": "reflect",
    "pixel_range": 255.0,
    "feature_scale": 1.0,
    "normalize_weights": False,
    "content_layers": PAPER,
    "style_layers": None,
    "content_layer_weights": None,
    "style_layer_weights": None,
    "style_layer_decay": 1.0,
    "content_loss": ("features",),
    "content_weight": 0.04,
    "self_similarity_weight": SELF_SIMILARITY_WEIGHT,
    "style_weight": 1.0,
    "method": "gatys",
    "alpha": 0.75,
    "style_rotations": True,
    "style_losses": ("gram",),
    "style_loss_weights": None,
    "tv_weight": 0.3,
    "spectrum_weight": 0.0,
    "border_weight": 1.0,
    "tv_form": "mean_squared",
    "normalize_gradients": False,
    "loss_normalization": "balanced",
    "init": "content",
    "init_noise": 0.25,
    "optimizer": "lbfgs",
    "learning_rate": 0.02,
    "beta_1": 0.9,
    "beta_2": 0.99,
    "epsilon": 1e-10,
    "epsilon_corrected": False,
    "lbfgs_history": 10,
    "clamp": True,
    "pyramid_levels": None,
    "ema_decay": 0.0,
    "warm_start": False,
    "iterations": 100,
    "first_iterations": None,
    "iteration_decay": None,
    "scales": None,
    "scale_factor": 2.0,
    "min_scale": 91,
    "tolerance": 0.0,
}
# Most of the programs have padding with zeros, max pooling, one scale, no total variation and no clipping.
_PEER: dict[str, Any] = {
    **FORMER_DEFAULTS, "padding": "zeros", "pooling": "max", "tv_weight": 0.0, "scales": 1, "clamp": False,
}  # fmt: skip
_TORCH_LBFGS: dict[str, Any] = {"optimizer": "lbfgs_fixed_step", "lbfgs_history": 100}
_GATYS: dict[str, Any] = {
    **_PEER, **_TORCH_LBFGS, "enlarge": True, "loss_normalization": "channels", "content_weight": 1.0,
    "style_weight": 5 * 1e3,
}  # fmt: skip
_JOHNSON: dict[str, Any] = {
    **_PEER, **_TORCH_LBFGS, "enlarge": True, "loss_normalization": "channels", "content_weight": 5.0,
    "style_weight": 5 * 100.0, "init": "mean", "iterations": 1000,
}  # fmt: skip

#: Name -> preset. The preset ``default`` sets no option.
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "default": Preset("the defaults of tfstyle", {}),
        # Normalised weights, unnormalised sums, alpha/beta = 1e-3 (Fig. 3 B), white noise, L-BFGS, one scale.
        # The paper does not state the number of iterations; 1000 is an assumption. With this ratio the result
        # stays close to the content image, because the sum over the features of conv4_2 is about 10^6 times
        # their mean. At 256 pixels content_weight 1e-7 gives a stylised image; larger images should need
        # less.
        "gatys2016": Preset(
            "Gatys, Ecker, Bethge 2016, with the formulas and the weight ratio of the paper",
            {
                **FORMER_DEFAULTS,
                "normalize_weights": True,
                "pooling": "avg",
                "padding": "zeros",
                "loss_normalization": "paper",
                "content_weight": 1e-3,
                "style_weight": 1.0,
                "tv_weight": 0.0,
                "init": "noise",
                "optimizer": "lbfgs",
                "scales": 1,
                "iterations": 1000,
            },
        ),
        # Pixels are in 0..256, not 0..255. The total variation leaves out the last row and the last column.
        "neural-style": Preset(
            "jcjohnson/neural-style (Torch7)",
            {
                **_JOHNSON,
                "pixel_range": 256.0,
                "init_noise": 1e-3 / 256,
                "tv_form": "sum_squared",
                "tv_weight": 1e-3 * 256**2,
                "learning_rate": 10 / 256,
                "beta_2": 0.999,
                "epsilon": 1e-8 * 256,
            },
            "tfstyle's loss includes the total variation; the loss that the program logs does not",
        ),
        "neural-style-pt": Preset(
            "ProGamerGov/neural-style-pt",
            {
                **_JOHNSON,
                "init_noise": 1e-3 / 255,
                "tv_form": "sum_absolute",
                "tv_weight": 1e-3 * 255,
                "learning_rate": 1 / 255,
                "beta_2": 0.999,
                "epsilon": 1e-8 * 255,
                "epsilon_corrected": True,
            },
        ),
        "gatys-pytorch": Preset(
            "the PyTorch notebook of Gatys et al., at 512 and then 800 pixels",
            {
                **_GATYS,
                "size": 800,
                "size_of": "shortest",
                "scales": 2,
                "scale_factor": 800 / 512,
                "first_iterations": 500,
                "iterations": 200,
            },
            "the program evaluates the loss in blocks of 20: 520 times at 512 pixels and 220 times at 800",
        ),
        "gatys-normalised": Preset(
            "leongatys/NeuralImageSynthesis, with normalised weights, at 512² and then 1024² pixels",
            {
                **_GATYS,
                "enlarge": False,
                "normalize_weights": True,
                "pooling": "avg",
                "loss_normalization": "mean",
                "content_weight": 1e6,
                "style_weight": 1e9,
                "size": 1024,
                "size_of": "area",
                "scales": 2,
                "first_iterations": 500,
                "iterations": 200,
            },
            "the program has weights normalised over images of ImageNet; tfstyle normalises them over the "
            "content image and the style images",
        ),
        # torchvision's VGG-19 divides pixels in 0..1 by about 0.225; Keras' VGG-19 multiplies them by 255.
        # The feature scale converts the features to the former unit. The program uses max pooling by default;
        # its average pooling is called "rescaled" in tfstyle.
        "crowsonkb": Preset(
            "crowsonkb/style-transfer-pytorch",
            {
                **_PEER,
                "padding": "replicate_first",
                "feature_scale": 1 / (255 * 0.225),
                "enlarge": True,
                "loss_normalization": "mean",
                "content_weight": 0.015,
                "style_losses": ("wasserstein",),
                "style_layers": STYLE_LAYERS,
                "style_layer_weights": (256.0, 64.0, 16.0, 4.0, 1.0),
                "tv_form": "nine_point",
                "tv_weight": 2.0,
                "optimizer": "adam",
                "learning_rate": 0.02,
                "beta_2": 0.99,
                "epsilon": 1e-8,
                "epsilon_corrected": True,
                "clamp": True,
                "ema_decay": 0.99,
                "warm_start": True,
                "scales": None,
                "scale_factor": math.sqrt(2),
                "min_scale": 128,
                "first_iterations": 1000,
                "iterations": 500,
            },
            "the program uses torchvision's VGG-19, which has other weights, and does not enlarge small "
            "style images",
        ),
        "neural-style-tf": Preset(
            "cysmith/neural-style-tf",
            {
                **_PEER,
                "pooling": "avg",
                "loss_normalization": "root",
                "content_weight": 5.0,
                "style_weight": 1e4 / 5,
                "tv_form": "sum_absolute",
                "tv_weight": 1e-3 * 255,
                "optimizer": "lbfgs",
                "iterations": 1000,
            },
            "the program compares the content features before the ReLU, and resizes each style image to the "
            "shape of the content image",
        ),
        "anishathalye": Preset(
            "anishathalye/neural-style",
            {
                **_PEER,
                "size": 100_000,
                "loss_normalization": "channels",
                "content_weight": 5.0,
                "style_weight": 500.0,
                "tv_weight": 100.0 * 255**2,
                "init": "mean",
                "init_noise": 0.256 / 255,
                "optimizer": "adam",
                "learning_rate": 10 / 255,
                "beta_2": 0.999,
                "epsilon": 1e-8 * 255,
                "iterations": 1000,
            },
            "the program resizes style images to the width of the content image; tfstyle reduces them to its "
            "longest side, and never enlarges them",
        ),
        "tensorflow-tutorial": Preset(
            "the TensorFlow tutorial on neural style transfer",
            {
                **_PEER,
                "enlarge": True,
                "content_layers": ("conv5_2",),
                "loss_normalization": "mean",
                "content_weight": 1e4,
                "style_weight": 1e-2,
                "tv_form": "sum_absolute",
                "tv_weight": 30.0,
                "optimizer": "adam",
                "learning_rate": 0.02,
                "beta_1": 0.99,
                "beta_2": 0.999,
                "epsilon": 0.1,
                "clamp": True,
                "iterations": 1000,
            },
        ),
        "spst": Preset(
            "Galerne et al. 2024, Scaling Painting Style Transfer",
            {
                **_GATYS,
                "enlarge": False,
                "style_losses": ("gram", "mean_deviation"),
                "style_loss_weights": (1.0, 10.0),
                "size": 100_000,
                "size_of": "shortest",
                "scales": None,
                "min_scale": 512,
                "first_iterations": 600,
                "iterations": 30,
                "iteration_decay": 3.0,
            },
            "the program stores 100 curvature pairs at the first scale and 10 at the others; tfstyle stores "
            "100 at every scale",
        ),
        "nnst": Preset(
            "Kolkin et al. 2022, Neural Neighbor Style Transfer",
            {
                **_PEER,
                "method": "neighbours",
                "style_losses": ("neighbours",),
                "content_weight": 0.0,
                "color": "style_chroma",
                "scales": None,
                "min_scale": 64,
                "optimizer": "adam",
                "learning_rate": 2e-3,
                "beta_2": 0.999,
                "epsilon": 1e-8,
                "epsilon_corrected": True,
                "iterations": 200,
            },
            "the program uses VGG-16, moves the chroma in Oklab, and in its final pass compares positions "
            "that are drawn anew in each iteration",
        ),
    }
)


def preset(name: str) -> StyleConfig:
    """Return the options of a preset.

    `tfstyle presets` lists the presets, their options, and how they differ from the programs.

    Args:
        name: a key of `tfstyle.presets.PRESETS`, such as ``gatys2016``.

    Returns:
        A `StyleConfig` with the options of the preset, and the defaults for the others.

    Raises:
        ConfigError: there is no preset with this name.

    Example:
        >>> import tfstyle
        >>> config = tfstyle.preset("gatys2016").replace(content_weight=1e-7)
        >>> config.init, config.optimizer, config.iterations
        ('noise', 'lbfgs', 1000)
        >>> from tfstyle.presets import PRESETS
        >>> list(PRESETS)[:3]
        ['default', 'gatys2016', 'neural-style']
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}{suggest(name, PRESETS)}; choose one of {', '.join(PRESETS)}")
    return StyleConfig().replace(PRESETS[name].options)

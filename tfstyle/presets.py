"""Named sets of options: the paper's, and those of the programs that people know.

A peer's preset has its objective in its own units, its start, its optimiser and its iterations, so that
losses can be compared with what it prints. The encoder is Keras' VGG-19, whose weights are those of all these
programs but crowsonkb's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from tfstyle.config import STYLE_LAYERS, StyleConfig
from tfstyle.errors import ConfigError


class Preset(NamedTuple):
    """A set of options.

    Attributes:
        summary: the paper or program that it is of.
        options: what differs from the defaults.
        differs: in what its pictures or losses are not the program's own; empty: in nothing known.
    """

    summary: str
    options: Mapping[str, Any]
    differs: str = ""


# What the peers do not have, unless it is said again: a mirrored border, several sizes, total variation.
_PEER: dict[str, Any] = {
    "padding": "zeros", "pooling": "max", "tv_weight": 0.0, "scales": 1, "clamp": False,
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

#: Name -> preset; what one does not name stays at its default.
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "default": Preset("tfstyle's own", {}),
        # Weights normalised, raw sums, alpha/beta = 1e-3 (Fig. 3 B), white noise, L-BFGS, one scale. How many
        # iterations they took is not said; 1000 is our reading. Taken literally, that ratio keeps a
        # photograph: a raw sum over conv4_2 weighs some 10^6 times a mean. At 256 pixels content_weight
        # 1e-7 paints, and so should less in larger pictures.
        "gatys2016": Preset(
            "Gatys, Ecker, Bethge 2016, to the letter",
            {
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
        # 256, not 255, times the picture. Its total variation leaves out the last row and column.
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
            "the logged loss has the total variation in it",
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
            "the authors' PyTorch notebook, 512 and then 800 pixels",
            {
                **_GATYS,
                "size": 800,
                "size_of": "shortest",
                "scales": 2,
                "scale_factor": 800 / 512,
                "first_iterations": 500,
                "iterations": 200,
            },
            "evaluations come in blocks of 20 there, 520 and 220 of them",
        ),
        "gatys-normalised": Preset(
            "leongatys/NeuralImageSynthesis, normalised weights, 512² and then 1024² pixels",
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
            "weights are normalised over the content and the style, there over ImageNet",
        ),
        # torchvision's VGG-19 takes pixels divided by some 0.225 where Keras' takes 255 times them: the
        # features are brought to that unit. The program's own default is max pooling; its average pooling
        # is "rescaled" here.
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
            "torchvision's VGG-19 there, with other weights; small styles are not enlarged there",
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
            "the content is compared before the ReLU there, and the style squeezed to its shape",
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
            "styles are brought to the content's width there, up or down, here only down",
        ),
        "tensorflow-tutorial": Preset(
            "the TensorFlow tutorial",
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
            "L-BFGS keeps 10 pairs after the first scale there, and 100 before",
        ),
    }
)


def preset(name: str) -> StyleConfig:
    """The configuration of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return StyleConfig().replace(PRESETS[name].options)

"""Neural style transfer of Gatys, Ecker and Bethge with TensorFlow and Keras.

The public names are loaded when they are first used, so that ``import tfstyle`` does not import TensorFlow.

Example:
    >>> import numpy as np
    >>> import tfstyle
    >>> generator = np.random.default_rng(0)
    >>> content, style = generator.random((2, 48, 64, 3), np.float32)
    >>> result = tfstyle.stylize(content, style, size=32, iterations=2, weights="embedded", compile="eager")
    >>> result.image.shape, len(result.history.total)
    ((24, 32, 3), 2)
    >>> result.save("result.png")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name -> the module or subpackage that defines it.
_HOMES = {
    "ContentLoss": "losses",
    "Encoder": "network",
    "GramStyleLoss": "losses",
    "History": "run",
    "Iteration": "run",
    "Masks": "losses",
    "Objective": "losses",
    "Result": "run",
    "Style": "losses",
    "StyleConfig": "config",
    "StyleExtractor": "serving",
    "TfstyleError": "errors",
    "Weights": "network",
    "adam": "optim",
    "content_loss": "losses",
    "gram_matrix": "losses",
    "interpolate": "run",
    "iterate": "run",
    "lbfgs": "optim",
    "make_step": "optim",
    "preset": "presets",
    "pretrain": "network",
    "score": "scoring",
    "style_loss": "losses",
    "stylize": "run",
    "total_variation": "losses",
    "ui": "web",
}
#: Modules and subpackages that are loaded as attributes, such as ``tfstyle.images``.
_SUBMODULES = (
    "addons",
    "backend",
    "callbacks",
    "cli",
    "cluster",
    "config",
    "device",
    "errors",
    "files",
    "images",
    "layers",
    "losses",
    "network",
    "optim",
    "papers",
    "presets",
    "run",
    "scoring",
    "serving",
    "tiling",
    "video",
    "web",
)
#: Modules and subpackages that can be loaded without TensorFlow.
_WITHOUT_TENSORFLOW = ("cli", "cluster", "config", "errors", "files", "layers", "papers", "presets", "web")

__all__ = [
    "ContentLoss",
    "Encoder",
    "GramStyleLoss",
    "History",
    "Iteration",
    "Masks",
    "Objective",
    "Result",
    "Style",
    "StyleConfig",
    "StyleExtractor",
    "TfstyleError",
    "Weights",
    "__version__",
    "adam",
    "content_loss",
    "gram_matrix",
    "interpolate",
    "iterate",
    "lbfgs",
    "make_step",
    "preset",
    "pretrain",
    "score",
    "style_loss",
    "stylize",
    "total_variation",
    "ui",
]

if TYPE_CHECKING:
    from tfstyle.config import StyleConfig
    from tfstyle.errors import TfstyleError
    from tfstyle.losses import (
        ContentLoss,
        GramStyleLoss,
        Masks,
        Objective,
        Style,
        content_loss,
        gram_matrix,
        style_loss,
        total_variation,
    )
    from tfstyle.network import Encoder, Weights, pretrain
    from tfstyle.optim import adam, lbfgs, make_step
    from tfstyle.presets import preset
    from tfstyle.run import History, Iteration, Result, interpolate, iterate, stylize
    from tfstyle.scoring import score
    from tfstyle.serving import StyleExtractor
    from tfstyle.web import ui


def __getattr__(name: str) -> Any:
    home = name if name in _SUBMODULES else _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'tfstyle' has no attribute {name!r}")
    if home not in _WITHOUT_TENSORFLOW:
        import_module("tfstyle.backend")  # raises BackendError if Keras cannot be imported
    module = import_module(f"tfstyle.{home}")
    if name in _SUBMODULES:
        return module
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES])

"""tfstyle: neural style transfer after Gatys, Ecker and Bethge, on TensorFlow.

Names are loaded when they are first used, so that ``import tfstyle`` does not wait for TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Encoder": "encoder",
    "History": "results",
    "Iteration": "results",
    "Masks": "guidance",
    "Objective": "losses",
    "Result": "results",
    "Style": "styles",
    "StyleConfig": "config",
    "StyleExtractor": "extractor",
    "TfstyleError": "errors",
    "Weights": "weights",
    "adam": "optimizers",
    "content_loss": "losses",
    "gram_matrix": "representations",
    "interpolate": "transfer",
    "iterate": "transfer",
    "lbfgs": "optimizers",
    "make_step": "step",
    "preset": "presets",
    "pretrain": "pretraining",
    "style_loss": "style_losses",
    "stylize": "transfer",
    "total_variation": "variation",
}

__all__ = [
    "Encoder",
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
    "style_loss",
    "stylize",
    "total_variation",
]

if TYPE_CHECKING:
    from tfstyle.config import StyleConfig
    from tfstyle.encoder import Encoder
    from tfstyle.errors import TfstyleError
    from tfstyle.extractor import StyleExtractor
    from tfstyle.guidance import Masks
    from tfstyle.losses import Objective, content_loss
    from tfstyle.optimizers import adam, lbfgs
    from tfstyle.presets import preset
    from tfstyle.pretraining import pretrain
    from tfstyle.representations import gram_matrix
    from tfstyle.results import History, Iteration, Result
    from tfstyle.step import make_step
    from tfstyle.style_losses import style_loss
    from tfstyle.styles import Style
    from tfstyle.transfer import interpolate, iterate, stylize
    from tfstyle.variation import total_variation
    from tfstyle.weights import Weights


def __getattr__(name: str) -> Any:
    if name == "addons":
        import_module("tfstyle.backend")
        return import_module("tfstyle.addons")
    if name not in _HOMES:
        raise AttributeError(f"module 'tfstyle' has no attribute {name!r}")
    if _HOMES[name] not in ("config", "errors", "presets"):
        import_module("tfstyle.backend")  # a clear error where Keras is set up for something else
    value = getattr(import_module(f"tfstyle.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

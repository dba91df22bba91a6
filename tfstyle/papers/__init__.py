"""The experiments of Gatys, Ecker, Bethge (2015, 2016) and Nikulin, Novak (2016), each one function.

A recipe takes images as `tfstyle.stylize` takes them, and options by name. It returns a `Study`: labelled
images, captions that give the numbers, and a table. ``tfstyle explore NAME`` calls the same functions.

Details that the papers do not give, or that we could not read, are named "our reading of".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from tfstyle.errors import ConfigError

if TYPE_CHECKING:
    from tfstyle.papers.study import Study

__all__ = ["COMPARED_NETWORKS", "RECIPES", "Recipe", "recipe"]

#: Networks that ``networks`` compares: VGG, and some of `keras.applications`.
COMPARED_NETWORKS = ("vgg19", "vgg16", "resnet50", "densenet121", "mobilenet_v3_small")


class Recipe(NamedTuple):
    """Where the function of an experiment is, and what the experiment shows.

    Attributes:
        module: name of the module in this package.
        summary: one line of help.
    """

    module: str
    summary: str


#: Name of the command and, with underscores, of the function -> its module and its line of help.
RECIPES: Mapping[str, Recipe] = {
    "reconstruct": Recipe("reconstruction", "what each layer keeps of a content image, from white noise"),
    "texture": Recipe(
        "textures", "a style reconstructed from nested sets of layers, of any size, also seamless"
    ),
    "tradeoff": Recipe("gatys", "content against style: a row of ratios"),
    "layers": Recipe("gatys", "deep against shallow content; style from nested sets of layers by ratio"),
    "starts": Recipe("gatys", "starting from the content, the style, and four seeds of noise"),
    "photo": Recipe("gatys", "one photograph in the manner of another"),
    "networks": Recipe("network_comparison", "one pair through VGG-19, VGG-16 and other Keras networks"),
    "partition": Recipe(
        "network_comparison", "which layers carry the style and which the content, as a grid"
    ),
    "compare": Recipe("comparison", "optimisers, compilers, precisions and presets on one pair"),
    "gram-entry": Recipe("gram_entries", "pictures that make one entry of a Gram matrix large"),
    "gram-mimic": Recipe("gram_textures", "textures from Gram matrices drawn like a painting's"),
    "local": Recipe(
        "local_styles", "styles kept in their places, and across layers, beside the global Gram matrix"
    ),
    "show": Recipe("gram_maps", "a picture's Gram matrices, their spectra, and its strongest feature maps"),
}


def recipe(name: str) -> Callable[..., Study]:
    """Import the function of an experiment.

    Args:
        name: a key of `RECIPES`.

    Raises:
        ConfigError: there is no such experiment.
    """
    if name not in RECIPES:
        raise ConfigError(f"no experiment {name!r}; there are {', '.join(RECIPES)}")
    module = import_module(f"tfstyle.papers.{RECIPES[name].module}")
    function: Callable[..., Study] = getattr(module, name.replace("-", "_"))
    return function

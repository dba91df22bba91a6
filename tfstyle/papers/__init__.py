"""The experiments of Gatys, Ecker, Bethge (2015, 2016) and of Nikulin, Novak (2016), one function for each.

A recipe takes images as `tfstyle.stylize` takes them, and options by keyword. It returns a `Study`, which
holds labelled images, captions with the numbers, and a table. ``tfstyle explore NAME`` calls the same
functions.

A detail is marked "our reading" if the paper does not state it, or if only the paper's abstract was
available.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from tfstyle.errors import ConfigError, suggest

if TYPE_CHECKING:
    from tfstyle.papers.study import Study

__all__ = ["COMPARED_NETWORKS", "RECIPES", "Recipe", "recipe"]

#: Names of the networks that the recipe ``networks`` compares: VGG and three networks of
#: `keras.applications`.
COMPARED_NETWORKS = ("vgg19", "vgg16", "resnet50", "densenet121", "mobilenet_v3_small")


class Recipe(NamedTuple):
    """The location and the summary of an experiment's function.

    Attributes:
        module: name of the module in this package that has the function.
        summary: one line of help.
    """

    module: str
    summary: str


#: Name of the experiment -> its module and its line of help. The function has the same name, with underscores
#: for hyphens.
RECIPES: Mapping[str, Recipe] = {
    "reconstruct": Recipe("reconstruction", "reconstruct a content image from each of several layers"),
    "texture": Recipe("textures", "synthesise textures of a style image, of any size, optionally seamless"),
    "tradeoff": Recipe("gatys", "vary the ratio of content weight to style weight"),
    "layers": Recipe("gatys", "vary the content layer, the set of style layers and the ratio of the weights"),
    "starts": Recipe("gatys", "start from the content image, the style image and noise of several seeds"),
    "photo": Recipe("gatys", "transfer the style of one photograph to another"),
    "networks": Recipe("network_comparison", "compare VGG-19, VGG-16 and other Keras networks"),
    "partition": Recipe("network_comparison", "compare sets of content layers and style layers in a grid"),
    "compare": Recipe("comparison", "compare optimisers, compile modes, precisions and presets"),
    "gram-entry": Recipe("gram_entries", "synthesise images that maximise one entry of a Gram matrix"),
    "gram-mimic": Recipe(
        "gram_textures", "synthesise textures from random Gram matrices like a style image's"
    ),
    "local": Recipe(
        "local_styles", "compare local, cross-layer and global Gram matrices as the style representation"
    ),
    "show": Recipe(
        "gram_maps", "show an image's Gram matrices, their spectra and its strongest feature maps"
    ),
}


def recipe(name: str) -> Callable[..., Study]:
    """Import and return the function of an experiment.

    Args:
        name: a key of `RECIPES`, such as ``gram-entry``.

    Returns:
        A function of the experiment's images, by position, and options, by keyword, that returns a `Study`.

    Raises:
        ConfigError: `RECIPES` has no such name.

    Example:
        >>> from tfstyle.papers import recipe
        >>> tradeoff = recipe("tradeoff")
        >>> tradeoff.__name__
        'tradeoff'
    """
    if name not in RECIPES:
        hint = suggest(name, RECIPES)
        raise ConfigError(f"unknown experiment {name!r}{hint}; choose from {', '.join(RECIPES)}")
    module = import_module(f"tfstyle.papers.{RECIPES[name].module}")
    function: Callable[..., Study] = getattr(module, name.replace("-", "_"))
    return function

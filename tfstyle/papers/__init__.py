"""The experiments of Gatys, Ecker, Bethge (2015, 2016) and Nikulin, Novak (2016), each one function.

A recipe takes images as `tfstyle.stylize` takes them, and options by name; it returns a `Study`: labelled
pictures, captions that give the numbers, a table. ``tfstyle explore NAME`` calls the same functions.

Details that the papers do not give, or that we could not read, are named "our reading of".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from tfstyle.errors import ConfigError

if TYPE_CHECKING:
    from tfstyle.papers.study import Study


class Recipe(NamedTuple):
    """Where an experiment is, and what it shows.

    Attributes:
        module: of this package.
        words: one line.
    """

    module: str
    words: str


#: Name, of the command and, with underscores, of the function -> where it is.
RECIPES: Mapping[str, Recipe] = {
    "reconstruct": Recipe("reconstruction", "what each layer keeps of a content image, from white noise"),
    "texture": Recipe(
        "textures", "a style reconstructed from nested sets of layers, of any size, also seamless"
    ),
    "tradeoff": Recipe("gatys", "content against style: a row of ratios"),
    "layers": Recipe("gatys", "deep against shallow content; style from nested sets of layers by ratio"),
    "starts": Recipe("gatys", "starting from the content, the style, and four seeds of noise"),
    "photo": Recipe("gatys", "one photograph in the manner of another"),
    "networks": Recipe("networks", "one pair through VGG-19, VGG-16 and other Keras networks"),
    "partition": Recipe("networks", "which layers carry the style and which the content, as a grid"),
    "compare": Recipe("comparison", "optimisers, compilers, precisions and presets on one pair"),
    "gram-entry": Recipe("gram_entry", "pictures that make one entry of a Gram matrix large"),
    "gram-mimic": Recipe("gram_mimic", "textures from Gram matrices drawn like a painting's"),
    "local": Recipe("local", "styles kept in their places, and across layers, beside the global Gram matrix"),
    "show": Recipe("show", "a picture's Gram matrices, their spectra, and its strongest feature maps"),
}


def recipe(name: str) -> Callable[..., Study]:
    """The function of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RECIPES:
        raise ConfigError(f"no experiment {name!r}; there are {', '.join(RECIPES)}")
    module = import_module(f"tfstyle.papers.{RECIPES[name].module}")
    found: Callable[..., Study] = getattr(module, name.replace("-", "_"))
    return found

"""The main entrance: a content image and style images in, a finished picture out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError
from tfstyle.images import load
from tfstyle.losses import Masks, Style
from tfstyle.network import Encoder
from tfstyle.optim import Optimizer
from tfstyle.run.checkpoints import CheckpointFolder, open_checkpoints
from tfstyle.run.results import Iteration, Result
from tfstyle.run.run import Run


def stylize(
    content: Any,
    style: Any,
    config: StyleConfig | None = None,
    *,
    encoder: Encoder | None = None,
    optimizer: str | Optimizer | keras.optimizers.Optimizer | None = None,
    callback: Callable[[Iteration], None] | None = None,
    masks: Masks | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 300.0,
    resume: bool = False,
    **options: Any,
) -> Result:
    """Paint the content image in the style of another.

    Args:
        content: a path, a PIL image, or an array ``[height, width, 3]`` of uint8, uint16 or floats in
            0..1.
        style: the same; or a style that was extracted before, which then is not encoded again: a
            `tfstyle.Style`, the ``.npz`` file of one, or what `tfstyle.StyleExtractor` gives for one
            image; or a list of any of these, blended as `StyleConfig.style_blend` says.
        config: the options; by default `StyleConfig()`.
        encoder: one of your own making, instead of the config's weights, pooling and padding.
        optimizer: ``adam`` or ``lbfgs``, a `tfstyle.optimizers.Optimizer`, or any Keras optimiser.
        callback: called after every iteration.
        masks: regions for the styles, and what stays as it is; by default those that the config names.
        checkpoint: a folder for the run's checkpoints, of which the last two are kept.
        checkpoint_every: seconds between two of them; one more is written at the end of each scale and
            where the run is interrupted.
        resume: go on from the newest checkpoint there, to the picture that one run without a break would
            have given; where there is none, begin.
        **options: changes to the config, by the names of `StyleConfig`'s fields.

    Raises:
        InputError: an option, an image or the weights cannot be used, or are not those of the run that is
            to be resumed; the message says which.
        NotFiniteError: the loss became infinite or NaN; the last good picture is in ``error.result``.
        RunError: the device ran out of memory.

    Reference: Gatys, Ecker, Bethge 2016, section 2.
    Differs from Gatys: starts from the content, small, and grows; losses in balanced units, see
    `tfstyle.units.balanced_units`; total variation. The preset ``gatys2016`` does not.
    """
    checkpoints = open_checkpoints(checkpoint, checkpoint_every, resume)
    run = _run(content, style, config, encoder, optimizer, masks, checkpoints, options)
    with contextlib.closing(iter(run)) as iterations:  # at once, also where the callback raises
        for iteration in iterations:
            if callback is not None:
                callback(iteration)
    return run.result()


def iterate(
    content: Any,
    style: Any,
    config: StyleConfig | None = None,
    *,
    encoder: Encoder | None = None,
    optimizer: str | Optimizer | keras.optimizers.Optimizer | None = None,
    masks: Masks | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 300.0,
    resume: bool = False,
    **options: Any,
) -> Iterator[Iteration]:
    """The same as a generator: one `Iteration` after each, for progress and previews.

    Leaving the loop cancels the run; `Iteration.image` is the picture so far.

    Args, Raises: as `stylize`.
    """
    checkpoints = open_checkpoints(checkpoint, checkpoint_every, resume)
    yield from _run(content, style, config, encoder, optimizer, masks, checkpoints, options)


def _run(
    content: Any,
    style: Any,
    config: StyleConfig | None,
    encoder: Encoder | None,
    optimizer: str | Optimizer | keras.optimizers.Optimizer | None,
    masks: Masks | None,
    checkpoints: CheckpointFolder | None,
    options: dict[str, Any],
) -> Run:
    if isinstance(optimizer, str):
        options["optimizer"], optimizer = optimizer, None
    config = (config or StyleConfig()).replace(options)
    style = apply_fine_style(style, config, encoder, checkpoints)
    return Run(content, style, config, encoder, optimizer, masks=masks, checkpoints=checkpoints)


def apply_fine_style(
    style: Any,
    config: StyleConfig,
    encoder: Encoder | None = None,
    checkpoints: CheckpointFolder | None = None,
) -> Any:
    """The style or styles with the brushwork of the config's ``fine_style``; as they are without one.

    Args, Raises: as `mix_styles`, and ``checkpoints`` of the run that will use them: where it goes on, they
    are mixed again as they were.
    """
    if config.fine_style is None:
        return style
    config = config if checkpoints is None else checkpoints.pinned(config)
    styles = style if isinstance(style, (list, tuple)) else [style]
    return [mix_styles(one, config.fine_style, config, encoder).image for one in styles]


def mix_styles(coarse: Any, fine: Any, config: StyleConfig, encoder: Encoder | None = None) -> Result:
    """A style image with the forms of one style and the brushwork of another.

    The coarse style is painted over in the fine one, by the lower half of the style layers only.

    Args:
        coarse, fine: style images as `stylize` takes them.
        config: of the run that will use the mixture.
        encoder: as `stylize`.

    Raises:
        ConfigError: a kept style, which has no image.

    Reference: Gatys et al. 2017, Controlling Perceptual Factors, section 6; which layers is our reading.
    """
    if any(Style.from_source(style) is not None for style in (coarse, fine)):
        raise ConfigError("fine_style needs the style's image, not its Gram matrices")
    plain = StyleConfig()
    unused = (
        "fine_style", "masks", "style_masks", "content_mask", "style_blend", "style_scale", "style_size",
        "color", "init",
    )  # fmt: skip
    config = config.replace({name: getattr(plain, name) for name in unused})
    run = Run(coarse, fine, config, encoder)
    layers = [layer for layer in run.preparation.encoder.layers if layer in run.preparation.style_layers]
    lower = tuple(layers[: max(1, len(layers) // 2)])
    chosen = {
        "style_layers": lower,
        "content_layers": run.preparation.content_layers,
        "style_layer_weights": None,
    }
    run = Run(coarse, fine, config.replace(chosen), encoder)
    for _ in run:
        pass
    return run.result()


def interpolate(
    content: Any,
    styles: Sequence[Any],
    count: int,
    config: StyleConfig | None = None,
    *,
    encoder: Encoder | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Result]:
    """Paint one content in styles between two, from the first to the second.

    Args:
        content: as `stylize`.
        styles: two.
        count: of pictures, at least 2; the k-th has the blend weights ``(1 - t, t)``, t = k / (count - 1).
        config, encoder: as `stylize`.
        stop: asked after every iteration; where it says so the generator ends.

    Raises:
        ConfigError: not two styles, fewer than two pictures, or masks, which give each style a place.
    """
    config = config or StyleConfig()
    if len(styles) != 2 or count < 2:
        raise ConfigError(
            f"interpolation goes between two styles in at least 2 pictures, not {len(styles)} in {count}"
        )
    if config.masks is not None:
        raise ConfigError("masks give each style a place, and so nothing is between them: leave them out")
    styles = apply_fine_style(styles, config, encoder)
    picture, preparation = load(content, config.max_pixels), None
    for k in range(count):
        t = k / (count - 1)
        run = Run(
            picture,
            list(styles),
            config.replace({"style_blend": (1 - t, t)}),
            encoder,
            preparation=preparation,
        )
        preparation = run.preparation
        for _ in run:
            if stop():
                return
        yield run.result()

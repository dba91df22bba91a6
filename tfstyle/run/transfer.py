"""The public functions: `stylize` and `iterate` for one result, `interpolate` for a series of results."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from typing_extensions import Unpack

from tfstyle.config import CHECKPOINT_SECONDS, StyleConfig, TransferOptions
from tfstyle.errors import ConfigError
from tfstyle.images import load
from tfstyle.losses import Masks, Style
from tfstyle.network import Encoder
from tfstyle.optim import Optimizer
from tfstyle.run.checkpoints import CheckpointFolder, open_checkpoints
from tfstyle.run.results import Iteration, Result
from tfstyle.run.run import Run
from tfstyle.run.setup import TransferSetup


def stylize(
    content: Any,
    style: Any,
    config: StyleConfig | None = None,
    *,
    encoder: Encoder | None = None,
    optimizer: str | Optimizer | keras.optimizers.Optimizer | None = None,
    callback: Callable[[Iteration], None] | None = None,
    masks: Masks | Sequence[Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    resume: bool = False,
    **options: Unpack[TransferOptions],
) -> Result:
    """Transfer the style of one or more images to the content image.

    Args:
        content: a path, a PIL image, or an array ``[height, width, 3]`` of uint8, uint16 or floats in
            0..1.
        style: the same; or a style that was extracted before, which then is not encoded again: a
            `tfstyle.Style`, the ``.npz`` file of one, or what `tfstyle.StyleExtractor` gives for one
            image; or a list of any of these, blended as `StyleConfig.style_blend` says.
        config: the options; by default `StyleConfig()`.
        encoder: used in place of the config's weights, network, pooling and padding.
        optimizer: a name as `StyleConfig.optimizer` has it, a `tfstyle.optim.Optimizer`, or any Keras
            optimiser.
        callback: called after every iteration.
        masks: the regions of the styles, and the region in which the content image is not changed; by
            default those that the config names.
        checkpoint: a folder for the run's checkpoints, of which the last two are kept.
        checkpoint_every: seconds between two of them; one more is written at the end of each scale and
            where the run is interrupted.
        resume: go on from the newest checkpoint there, to the image that one run without a break would
            have given; where there is none, begin.
        **options: changes to the config, by the names of `StyleConfig`'s fields.

    Returns:
        The image with its history, its options and what ``auto`` became.

    Raises:
        InputError: an option, an image or the weights cannot be used, or are not those of the run that is
            to be resumed; the message says which.
        NotFiniteError: the loss became infinite or NaN; the last good image is in ``error.result``.
        RunError: the device ran out of memory.

    Reference: Gatys, Ecker, Bethge 2016, section 2.
    Differs from Gatys: the optimisation starts from the content image and goes from coarse to fine scales;
    each loss is relative to its target, see `tfstyle.losses.balanced_normalization`; a total-variation term
    is added. The preset ``gatys2016`` does none of this.
    """
    checkpoints = open_checkpoints(checkpoint, every=checkpoint_every, resume=resume)
    run = _make_run(content, style, config, encoder, optimizer, masks, checkpoints, options)
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
    masks: Masks | Sequence[Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    resume: bool = False,
    **options: Unpack[TransferOptions],
) -> Iterator[Iteration]:
    """Run `stylize` as a generator of its iterations, for progress and previews.

    Leaving the loop cancels the run; `Iteration.image` is the image so far.

    Args, Raises: as `stylize`.
    """
    checkpoints = open_checkpoints(checkpoint, every=checkpoint_every, resume=resume)
    yield from _make_run(content, style, config, encoder, optimizer, masks, checkpoints, options)


def _make_run(
    content: Any,
    style: Any,
    config: StyleConfig | None,
    encoder: Encoder | None,
    optimizer: str | Optimizer | keras.optimizers.Optimizer | None,
    masks: Masks | Sequence[Any] | None,
    checkpoints: CheckpointFolder | None,
    options: TransferOptions,
) -> Run:
    changes: dict[str, Any] = dict(options)
    if isinstance(optimizer, str):
        changes["optimizer"], optimizer = optimizer, None
    config = StyleConfig() if config is None else config
    if not isinstance(config, StyleConfig):
        raise ConfigError(f"config is a {type(config).__name__}; give tfstyle.StyleConfig(**options)")
    config = config.replace(changes)
    style = apply_fine_style(style, config, encoder=encoder, checkpoints=checkpoints)
    return Run(
        content, style, config, encoder=encoder, optimizer=optimizer, masks=masks, checkpoints=checkpoints
    )


def apply_fine_style(
    style: Any,
    config: StyleConfig,
    *,
    encoder: Encoder | None = None,
    checkpoints: CheckpointFolder | None = None,
) -> Any:
    """Give the style or styles the brushwork of the config's ``fine_style``; without one, return them.

    Args, Raises: as `mix_styles`, and ``checkpoints`` of the run that will use the result: where that run
    is resumed, the styles are mixed with the options that it had.
    """
    if config.fine_style is None:
        return style
    config = config if checkpoints is None else checkpoints.pinned(config)
    styles = style if isinstance(style, (list, tuple)) else [style]
    return [mix_styles(coarse, config.fine_style, config, encoder=encoder).image for coarse in styles]


def mix_styles(coarse: Any, fine: Any, config: StyleConfig, *, encoder: Encoder | None = None) -> Result:
    """Make a style image with the forms of one style and the brushwork of another.

    The fine style is transferred to the coarse style image, with the shallower half of the style layers.

    Args:
        coarse, fine: style images as `stylize` takes them.
        config: of the run that will use the mixture.
        encoder: as `stylize`.

    Raises:
        ConfigError: a style that was extracted before, which has no image.

    Reference: Gatys et al. 2017, Controlling Perceptual Factors, section 6; which layers is our reading.
    """
    if any(Style.from_source(style) is not None for style in (coarse, fine)):
        raise ConfigError("fine_style needs the style's image, not its Gram matrices")
    defaults = StyleConfig()
    unused = (
        "fine_style", "masks", "style_masks", "content_mask", "style_blend", "style_scale", "style_size",
        "color", "init",
    )  # fmt: skip
    config = config.replace({name: getattr(defaults, name) for name in unused})
    setup = Run(coarse, fine, config, encoder=encoder).setup
    style_layers = [layer for layer in setup.encoder.layers if layer in setup.style_layers]
    config = config.replace(
        style_layers=tuple(style_layers[: max(1, len(style_layers) // 2)]),
        content_layers=setup.content_layers,
        style_layer_weights=None,
    )
    run = Run(coarse, fine, config, encoder=encoder)
    for _ in run:
        pass
    return run.result()


def interpolate(
    content: Any,
    styles: Sequence[Any],
    config: StyleConfig | None = None,
    *,
    count: int,
    encoder: Encoder | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Result]:
    """Transfer styles between two to one content image, from the first style to the second.

    Args:
        content: as `stylize`.
        styles: two.
        config: as `stylize`.
        count: of results, at least 2; the k-th has the blend weights ``(1 - t, t)``, t = k / (count - 1).
        encoder: as `stylize`.
        stop: called after every iteration; the generator ends where it returns True.

    Raises:
        ConfigError: not two styles, fewer than two results, or masks, which give each style a place.
    """
    config = config or StyleConfig()
    if len(styles) != 2 or count < 2:
        raise ConfigError(
            f"interpolation goes between two styles in at least 2 images, not {len(styles)} in {count}"
        )
    if config.masks is not None:
        raise ConfigError("masks give each style a place, and so nothing is between them: leave them out")
    styles = apply_fine_style(styles, config, encoder=encoder)
    image = load(content, max_pixels=config.max_pixels)
    setup: TransferSetup | None = None
    for k in range(count):
        t = k / (count - 1)
        run = Run(image, list(styles), config.replace(style_blend=(1 - t, t)), encoder=encoder, setup=setup)
        setup = run.setup
        for _ in run:
            if stop():
                return
        yield run.result()

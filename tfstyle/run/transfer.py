"""The public functions: `stylize` and `iterate` for one result, and `interpolate` for a series of results."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
from typing_extensions import Unpack

from tfstyle.config import CHECKPOINT_SECONDS, StyleConfig, TransferOptions
from tfstyle.errors import ConfigError
from tfstyle.images import load
from tfstyle.losses import ExtraLoss, Masks, Style
from tfstyle.network import Encoder
from tfstyle.optim import Optimizer
from tfstyle.run.callbacks import Callback, calling
from tfstyle.run.checkpoints import CheckpointFolder, open_checkpoints
from tfstyle.run.results import Iteration, Result
from tfstyle.run.run import Run
from tfstyle.run.setup import TransferSetup
from tfstyle.run.timed import make_timed_run, make_timetable


def stylize(
    content: Any,
    style: Any,
    config: StyleConfig | None = None,
    *,
    encoder: Encoder | None = None,
    optimizer: str | Optimizer | keras.optimizers.Optimizer | None = None,
    callback: Callback | Sequence[Callback] | None = None,
    masks: Masks | Sequence[Any] | None = None,
    extra_losses: Mapping[str, ExtraLoss] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    resume: bool = False,
    seconds: float | None = None,
    **options: Unpack[TransferOptions],
) -> Result:
    """Transfer the style of one or more images to the content image.

    Args:
        content: a path, a PIL image, or an array ``[height, width, 3]`` of uint8, uint16 or floats in 0..1. A
            fourth channel is an alpha channel.
        style: a style image in the same forms, or a style that was extracted before and is not encoded again:
            a `tfstyle.Style`, the path of its ``.npz`` file, or the numbers that `tfstyle.StyleExtractor`
            returns for one image. A list of several styles is blended with the weights
            `StyleConfig.style_blend`, or applied to the regions of `masks`.
        config: the options; by default `StyleConfig()`.
        encoder: an encoder to use in place of the config's weights, network, pooling and padding.
        optimizer: a value of `StyleConfig.optimizer`, a `tfstyle.optim.Optimizer`, or a Keras optimiser.
        callback: a function that is called with each `Iteration`, such as an object of `tfstyle.callbacks`,
            or a list of such functions. If one of them returns True, the run ends and the result so far is
            returned. If a callback has a method ``close``, that method is called when the run ends, even if
            the run is interrupted or raises an error.
        masks: the regions of the styles, and the region in which the content image is not changed; by default
            the masks that the config names.
        extra_losses: additional losses, a dict from names to pairs of a function and a finite weight. The
            function takes the image at the current scale, float32 ``[1, height, width, 3]``, sRGB in 0..1,
            and its features, a dict from the names of the encoder's layers to float32 ``[1, h, w, N]``. It
            returns a scalar tensor, which is multiplied by the weight. It must use differentiable TensorFlow
            operations, because it is traced as a part of the compiled step. With extra losses the image is
            not evaluated in tiles.
        checkpoint: folder for the checkpoints of the run, of which the last two are kept.
        checkpoint_every: time between two checkpoints in seconds, at least 0. A checkpoint is also written at
            the end of each scale and when the run is interrupted.
        resume: whether to continue from the newest checkpoint in the folder. The result is the same as that
            of a run without interruption. If the folder has no checkpoint, the run starts from the beginning.
        seconds: the time that the call should take. The run measures its steps, chooses the quality unless
            ``quality`` or ``iterations`` are given, and multiplies the iterations of all scales by the same
            factor. If the time is too short, every scale has its fewest iterations (at most 10, rounded up to
            whole calls of the step), and a warning is logged. ``result.facts["plan"]`` has the plan. It
            cannot be combined with ``checkpoint``, ``resume`` and ``fine_style``.
        **options: changes to the config, by the names of the fields of `StyleConfig`.

    Returns:
        The result image with its history, its options, and the values that were chosen for ``auto``.

    Raises:
        InputError: an option, an image or the weights cannot be used, or differ from those of the run that
            should be resumed.
        NotFiniteError: the loss became infinite or NaN. ``error.result`` has the last finite image.
        RunError: the device ran out of memory, or TensorFlow failed.

    Reference: Gatys, Ecker, Bethge 2016, section 2.
    Differs from Gatys: the optimisation starts from the content image and goes from coarse to fine scales.
    Each layer's loss is relative to its target, see `tfstyle.losses.balanced_normalization`. A total
    variation term is added. With the preset ``gatys2016`` none of these differences remains.

    Example:
        >>> import numpy as np
        >>> import tfstyle
        >>> content, style = np.random.default_rng(0).uniform(size=(2, 32, 48, 3))
        >>> result = tfstyle.stylize(content, style, weights="embedded", size=32, iterations=3)
        >>> result.image.shape, len(result.history.total)
        ((21, 32, 3), 3)
    """
    with calling(callback) as call:
        run = _make_run(
            content, style, config, options,
            encoder=encoder, optimizer=optimizer, masks=masks, extra_losses=extra_losses,
            checkpoint=checkpoint, checkpoint_every=checkpoint_every, resume=resume, seconds=seconds,
            setup=None,
        )  # fmt: skip
        with contextlib.closing(iter(run)) as iterations:  # closed at once if a callback raises an exception
            for iteration in iterations:
                if call(iteration):
                    run.stop()
    return run.result()


def _close(iterations: Any) -> None:
    with contextlib.suppress(ValueError):  # another thread runs the generator while Python exits
        iterations.close()


class Iterations(Iterator[Iteration]):
    """The iterations of a style transfer, as `iterate` returns them.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._iterations = run, iter(run)
        # A loop that is left writes its checkpoint when this object is freed, or when Python exits.
        weakref.finalize(self, _close, self._iterations)

    def __next__(self) -> Iteration:
        return next(self._iterations)

    @property
    def setup(self) -> TransferSetup:
        """The parts of the run that do not depend on the content image, which another run can reuse."""
        return self._run.setup

    def result(self) -> Result:
        """Return the result so far: before, between or after the iterations."""
        return self._run.result()

    def stop(self) -> None:
        """End the run, as `Iteration.stop` does."""
        self._run.stop()

    def close(self) -> None:
        """End the run at once, and write a checkpoint if the run has a folder for checkpoints."""
        self._iterations.close()


def iterate(
    content: Any,
    style: Any,
    config: StyleConfig | None = None,
    *,
    encoder: Encoder | None = None,
    optimizer: str | Optimizer | keras.optimizers.Optimizer | None = None,
    masks: Masks | Sequence[Any] | None = None,
    extra_losses: Mapping[str, ExtraLoss] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    resume: bool = False,
    seconds: float | None = None,
    setup: TransferSetup | None = None,
    **options: Unpack[TransferOptions],
) -> Iterations:
    """Return an iterator over the iterations of a style transfer, for progress, previews and early stopping.

    `stylize` runs the same iterations. The run ends when the caller leaves the loop or calls
    `Iteration.stop`. If a call of the step performs several iterations, as on a GPU, only the last of them is
    yielded.

    Args:
        content, style, config, encoder, optimizer, masks, extra_losses, checkpoint, checkpoint_every, resume,
            seconds, **options: as for `stylize`.
        setup: `Iterations.setup` of an earlier run with the same options, encoder, optimiser and extra
            losses, so that the step is not compiled again. The images and the size may differ; with XLA each
            new size is compiled. For other styles, give ``setup.for_other_styles()``. It cannot be combined
            with ``seconds``, ``checkpoint`` and the option ``normalize_weights``.

    Returns:
        The iterations, in order. The iterator's method ``result`` returns the result so far.

    Raises:
        InputError, NotFiniteError, RunError: as for `stylize`.
        ConfigError: `setup` is combined with an argument that needs another setup.

    Example:
        >>> import numpy as np
        >>> import tfstyle
        >>> content, style = np.random.default_rng(0).uniform(size=(2, 32, 48, 3))
        >>> run = tfstyle.iterate(content, style, weights="embedded", iterations=50)
        >>> for step in run:
        ...     if step.iteration >= 2:
        ...         step.stop()
        >>> step.iteration, step.iterations, run.result().image.shape
        (2, 50, (32, 48, 3))
    """
    run = _make_run(
        content, style, config, options,
        encoder=encoder, optimizer=optimizer, masks=masks, extra_losses=extra_losses,
        checkpoint=checkpoint, checkpoint_every=checkpoint_every, resume=resume, seconds=seconds,
        setup=setup,
    )  # fmt: skip
    return Iterations(run)


def _make_run(
    content: Any,
    style: Any,
    config: StyleConfig | None,
    options: TransferOptions,
    *,
    encoder: Encoder | None,
    optimizer: str | Optimizer | keras.optimizers.Optimizer | None,
    masks: Masks | Sequence[Any] | None,
    extra_losses: Mapping[str, ExtraLoss] | None,
    checkpoint: str | os.PathLike[str] | None,
    checkpoint_every: float,
    resume: bool,
    seconds: float | None,
    setup: TransferSetup | None,
) -> Run:
    """Return the run for the arguments of `stylize`."""
    started = time.perf_counter()
    config, optimizer = combined_options(config, options, optimizer=optimizer)
    if setup is not None and (seconds is not None or checkpoint is not None or config.normalize_weights):
        raise ConfigError(
            "setup cannot be combined with seconds, checkpoint or normalize_weights; leave out one of them"
        )
    timetable = make_timetable(seconds, config, checkpoint=checkpoint, resume=resume, started=started)
    if timetable is not None:
        return make_timed_run(
            content, style, config, timetable=timetable,
            keep_quality="quality" in options,
            encoder=encoder, optimizer=optimizer, masks=masks, extra_losses=extra_losses,
        )  # fmt: skip
    checkpoints = open_checkpoints(checkpoint, every=checkpoint_every, resume=resume)
    style = apply_fine_style(style, config, encoder=encoder, checkpoints=checkpoints)
    return Run(
        content, style, config,
        encoder=encoder, optimizer=optimizer, masks=masks, extra_losses=extra_losses, checkpoints=checkpoints,
        setup=setup,
    )  # fmt: skip


def combined_options(
    config: StyleConfig | None,
    options: Mapping[str, Any],
    *,
    optimizer: str | Optimizer | keras.optimizers.Optimizer | None,
) -> tuple[StyleConfig, Optimizer | keras.optimizers.Optimizer | None]:
    """Return the config of a run, and its optimiser if it is not one that the config names.

    Args:
        config: the config, or None for the default options.
        options: changes to the config.
        optimizer: as for `stylize`.

    Raises:
        ConfigError: `config` is not a `StyleConfig`, or an option has an invalid value.
    """
    changes = dict(options)
    if isinstance(optimizer, str):
        changes["optimizer"], optimizer = optimizer, None
    config = StyleConfig() if config is None else config
    if not isinstance(config, StyleConfig):
        raise ConfigError(f"config is a {type(config).__name__}; give tfstyle.StyleConfig(**options)")
    return config.replace(changes), optimizer


def apply_fine_style(
    style: Any,
    config: StyleConfig,
    *,
    encoder: Encoder | None = None,
    checkpoints: CheckpointFolder | None = None,
) -> Any:
    """Return the styles with the brushwork of the config's ``fine_style``, or unchanged without that option.

    Args:
        style: a style or a list of styles, as for `stylize`.
        config: the options of the run that uses the styles.
        encoder: as for `stylize`.
        checkpoints: the checkpoints of that run. If the run is resumed, the styles are mixed with the values
            that it had chosen for ``auto``.

    Returns:
        ``style`` itself, or a list of images ``[height, width, 3]``.

    Raises:
        ConfigError: as for `mix_styles`.
    """
    if config.fine_style is None:
        return style
    config = config if checkpoints is None else checkpoints.pinned(config)
    styles = style if isinstance(style, (list, tuple)) else [style]
    return [mix_styles(coarse, config.fine_style, config, encoder=encoder).image for coarse in styles]


def mix_styles(coarse: Any, fine: Any, config: StyleConfig, *, encoder: Encoder | None = None) -> Result:
    """Return a style image with the coarse structure of one style and the brushwork of another.

    The fine style is transferred to the coarse style image with the shallower half of the style layers,
    rounded down to at least one layer.

    Args:
        coarse: the style image with the coarse structure, as for `stylize`.
        fine: the style image with the brushwork, as for `stylize`.
        config: the options of the run that uses the new style image.
        encoder: as for `stylize`.

    Returns:
        The result whose image is the new style image.

    Raises:
        ConfigError: a style was extracted before and has no image.

    Reference: Gatys et al. 2017, Controlling Perceptual Factors, section 6. The choice of the layers is our
    reading of it.
    """
    if any(Style.from_source(style) is not None for style in (coarse, fine)):
        raise ConfigError(
            "fine_style needs the style's image, and a style has only Gram matrices; give the image it was "
            "extracted from"
        )
    defaults = StyleConfig()
    unused = (
        "fine_style", "masks", "style_masks", "content_mask", "style_blend", "style_scale", "style_size",
        "color", "init", "content_loss",
    )  # fmt: skip
    config = config.replace({name: getattr(defaults, name) for name in unused})
    setup = Run(coarse, fine, config, encoder=encoder).setup
    style_layers = [layer for layer in setup.encoder.layers if layer in setup.style_layers]
    config = config.replace(
        style_layers=tuple(style_layers[: max(1, len(style_layers) // 2)]),
        content_layers=setup.content_layers,
        style_layer_weights=None,
        content_weight=setup.objective.content_weight,  # the default depends on the depth of the layers
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
    """Yield results for one content image that go from one style to another.

    Result k, counted from 0, has the blend weights ``(1 - t, t)`` with t = k / (count - 1).

    Args:
        content: the content image, as for `stylize`.
        styles: the first and the last style, as for `stylize`.
        config: the options; by default `StyleConfig()`.
        count: number of results, at least 2.
        encoder: as for `stylize`.
        stop: called after every iteration. If it returns True, the generator ends without another result.

    Yields:
        The results, in order.

    Raises:
        ConfigError: there are not two styles, `count` is less than 2, or the config has masks, which assign
            each style to a region.
        InputError, NotFiniteError, RunError: as for `stylize`.

    Example:
        >>> import numpy as np
        >>> import tfstyle
        >>> content, first, last = np.random.default_rng(0).uniform(size=(3, 32, 48, 3))
        >>> config = tfstyle.StyleConfig(weights="embedded", iterations=1, compile="eager")
        >>> results = tfstyle.interpolate(content, [first, last], config, count=3)
        >>> [result.config.style_blend for result in results]
        [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
    """
    config = config or StyleConfig()
    if len(styles) != 2 or count < 2:
        raise ConfigError(
            f"interpolation needs 2 styles and a count of at least 2, not {len(styles)} and {count}"
        )
    if config.masks is not None:
        raise ConfigError(
            "masks assign each style to a region, but interpolation blends two styles everywhere; leave out "
            "masks"
        )
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

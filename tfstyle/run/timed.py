"""Make a run for a given time, planned from the step times that a probe run measures."""

from __future__ import annotations

import logging
from typing import Any

from tfstyle.config import QUALITIES, StyleConfig
from tfstyle.errors import ConfigError
from tfstyle.run.planning import MEASURED_CALLS, Timetable, choose_quality, fewest_iterations
from tfstyle.run.run import Run
from tfstyle.run.setup import Scale, content_weight, plan_scales

log = logging.getLogger(__name__)


def make_timetable(
    seconds: float | None, config: StyleConfig, *, checkpoint: object, resume: bool, started: float
) -> Timetable | None:
    """Return the timetable of a run, or None if the run has no given time.

    Args:
        seconds: the time that the run should take; None if it is not limited.
        config: the options of the run.
        checkpoint: the folder for checkpoints, or None.
        resume: whether a run is resumed.
        started: the time of `time.perf_counter` at which the run began.

    Raises:
        ConfigError: `seconds` is not a positive number, or is combined with checkpoints or ``resume``,
            because a resumed run must have the same iterations, or with ``fine_style``, which makes a
            separate run.
    """
    if seconds is None:
        return None
    timetable = Timetable(seconds, started=started)
    others = {"checkpoint": checkpoint, "resume": resume or None, "fine_style": config.fine_style}
    for name, value in others.items():
        if value is not None:
            raise ConfigError(
                f'seconds={seconds:g} cannot be combined with {name}="{value}"; leave one of them out'
            )
    return timetable


def make_timed_run(
    content: Any,
    style: Any,
    config: StyleConfig,
    *,
    timetable: Timetable,
    keep_quality: bool,
    **arguments: Any,
) -> Run:
    """Return a run whose scales have as many iterations as its timetable allows.

    A probe performs a few iterations at the first scale. Unless the quality or the iterations are given, the
    run gets the quality that `choose_quality` returns for the time that is left.

    Args:
        content, style, config: as for `tfstyle.stylize`.
        timetable: the timetable of the run.
        keep_quality: whether the caller has chosen the quality of the config, so that it is kept even if it
            is the default.
        **arguments: further arguments of `Run`.

    Raises:
        InputError, NotFiniteError, RunError: as for `tfstyle.stylize`.
    """
    probe = Run(content, style, config, timetable=timetable, **arguments)
    first = probe.scales[0]
    measured = (MEASURED_CALLS + 1) * probe.steps_per_call
    probe.scales[0] = first._replace(iterations=max(first.iterations, measured))
    for iteration in probe:
        if timetable.seconds_per_pixel > 0:
            iteration.stop()

    def plan(options: StyleConfig) -> list[Scale]:
        return plan_scales(probe.inputs.shape, options, minimum=probe.setup.encoder.minimum_size)

    planned = config
    if not keep_quality and not config.has_own_iterations and config.quality == StyleConfig().quality:
        planned = config.replace(
            quality=choose_quality(
                {quality: plan(config.replace(quality=quality)) for quality in QUALITIES},
                seconds=timetable.seconds_left(),
                seconds_per_pixel=timetable.seconds_per_pixel,
                preparation=timetable.preparation,
                multiple=probe.steps_per_call,
            )
        )
    scales, setup = plan(planned), probe.setup
    weight = content_weight(planned, (*setup.content_layers, *setup.style_layers))
    if weight != setup.objective.content_weight:  # the quality has another default
        setup = setup.with_content_weight(weight)
    per_call, _ = setup.step(
        [scale.iterations for scale in scales],
        planned.steps_per_call,
        pause_every=arguments.get("pause_every", 0),
    )
    if setup is probe.setup and setup.any_size and per_call == probe.steps_per_call:
        timetable.preparation = 0.0  # one graph serves all scales, and the probe has traced it
    run = Run(content, style, planned, timetable=timetable, setup=setup, **arguments)
    expected = timetable.expected_seconds(run.scales, done=0)
    fewest = fewest_iterations(scales[-1].iterations, run.steps_per_call)
    if expected > timetable.seconds and run.scales[-1].iterations <= fewest:
        height, width = run.inputs.shape
        log.warning(
            "seconds is %g, which is too short for %d x %d pixels: the run takes about %.0f seconds with the "
            "fewest iterations, %d at the last scale",
            timetable.seconds, width, height, expected, run.scales[-1].iterations,
        )  # fmt: skip
    return run

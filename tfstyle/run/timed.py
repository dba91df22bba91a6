"""Make a run for a given time, planned from the step times that a probe run measures."""

from __future__ import annotations

import logging
from typing import Any

from tfstyle.config import QUALITIES, StyleConfig
from tfstyle.errors import ConfigError
from tfstyle.run.planning import MEASURED_CALLS, MINIMUM_ITERATIONS, Timetable, choose_quality
from tfstyle.run.run import Run
from tfstyle.run.setup import plan_scales

log = logging.getLogger(__name__)

#: Options of the scales and iterations. Runs that differ only in these options can share a setup.
PLAN_OPTIONS = (
    "quality", "iterations", "first_iterations", "iteration_decay", "scales", "scale_factor", "min_scale",
)  # fmt: skip


def make_timetable(
    seconds: float | None, config: StyleConfig, *, checkpoint: object, started: float
) -> Timetable | None:
    """Return the timetable of a run, or None if the run has no given time.

    Args:
        seconds: the time that the run should take; None if it is not limited.
        config: the options of the run.
        checkpoint: the folder for checkpoints, or None.
        started: the time of `time.monotonic` at which the run began.

    Raises:
        ConfigError: `seconds` is not a positive number, or is combined with checkpoints, because a resumed
            run must have the same iterations, or with ``fine_style``, which makes a separate run.
    """
    if seconds is None:
        return None
    timetable = Timetable(seconds, started=started)
    for name, value in (("checkpoint", checkpoint), ("fine_style", config.fine_style)):
        if value is not None:
            raise ConfigError(
                f'seconds={seconds:g} cannot be combined with {name}="{value}"; leave one of them out'
            )
    return timetable


def _without_plan(config: StyleConfig) -> dict[str, Any]:
    """Return the options without those of the scales and iterations."""
    return {name: value for name, value in config.as_dict().items() if name not in PLAN_OPTIONS}


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

    A probe performs a few iterations at the first scale. Unless `keep_quality` is True or the config differs
    from the default in its quality or iterations, the run gets the quality that `choose_quality` returns for
    the time that is left.

    Args:
        content, style, config: as for `tfstyle.stylize`.
        timetable: the timetable of the run.
        keep_quality: whether the quality of the config is kept because the caller has chosen it or the
            iterations.
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
    planned, standard = config, StyleConfig()
    if not keep_quality and (config.quality, config.iterations) == (standard.quality, standard.iterations):
        plans = {
            quality: plan_scales(
                probe.inputs.shape,
                config.replace(quality=quality),
                minimum=probe.setup.encoder.minimum_size,
            )
            for quality in QUALITIES
        }
        planned = config.replace(
            quality=choose_quality(
                plans,
                seconds=timetable.seconds_left(),
                seconds_per_pixel=timetable.seconds_per_pixel,
                preparation=timetable.preparation,
            )
        )
    if _without_plan(planned) == _without_plan(config):
        arguments["setup"] = probe.setup
        if probe.setup.any_size:
            timetable.preparation = 0.0  # one graph serves all scales, and the probe has traced it
    run = Run(content, style, planned, timetable=timetable, **arguments)
    expected = timetable.expected_seconds(run.scales, done=0)
    fewest = max(MINIMUM_ITERATIONS, run.steps_per_call)
    if expected > timetable.seconds and run.scales[-1].iterations <= fewest:
        height, width = run.inputs.shape
        log.warning(
            "seconds is %g, which is too short for %d x %d pixels: the run takes about %.0f seconds with the "
            "fewest iterations, %d at the last scale",
            timetable.seconds, width, height, expected, run.scales[-1].iterations,
        )  # fmt: skip
    return run

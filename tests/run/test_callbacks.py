"""The protocol of callbacks: when they are called, what stops a run, and when they are closed."""

import logging

import numpy as np
import pytest

from tests.callbacks.conftest import OPTIONS
from tests.callbacks.conftest import paint as paint
from tfstyle import iterate
from tfstyle.errors import ConfigError, RunError


class Recorder:
    def __init__(self, stop_at=None, error=None):
        self.steps, self.closed, self.stop_at, self.error = [], 0, stop_at, error

    def __call__(self, step):
        self.steps.append(step)
        return step.global_iteration == self.stop_at

    def close(self):
        self.closed += 1
        if self.error is not None:
            raise self.error


def test_an_iteration_says_where_the_run_is(paint):
    recorder = Recorder()
    result = paint(callback=recorder)
    steps = recorder.steps
    assert [step.global_iteration for step in steps] == list(range(1, 9))
    assert {step.total_iterations for step in steps} == {8}
    assert {step.final_shape for step in steps} == {(40, 56)}
    pixels = [20 * 28] * 4 + [40 * 56] * 4
    np.testing.assert_allclose([step.progress for step in steps], np.cumsum(pixels) / sum(pixels))
    assert steps[-1].seconds_left == 0
    assert all(step.seconds_left > 0 for step in steps[:-1])
    assert [step.time_left for step in (steps[0], steps[-1])] == ["estimating the time left", "0 s left"]
    assert all(step.config == result.config for step in steps)
    assert steps[0].facts == result.facts


def test_several_callbacks_are_called_and_each_can_stop_the_run(paint):
    recorders = Recorder(), Recorder(stop_at=3)
    result = paint(callback=list(recorders))
    assert [len(recorder.steps) for recorder in recorders] == [3, 3]
    assert len(result.history.total) == 3
    assert [recorder.closed for recorder in recorders] == [1, 1]
    assert len(paint(callback=()).history.total) == 8
    assert len(paint(callback=lambda step: "yes").history.total) == 8  # only True stops


def test_they_are_closed_however_the_run_ends(paint):
    recorder = Recorder()

    def fail(step):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        paint(callback=[recorder, fail])
    assert recorder.closed == 1
    with pytest.raises(RunError):
        paint(callback=recorder, content_weight=1e38, precision="float32", loss_normalization="paper")
    assert recorder.closed == 2


def test_an_error_while_closing_is_a_warning(paint, caplog):
    last = Recorder()
    with caplog.at_level(logging.WARNING, "tfstyle"):
        result = paint(callback=[Recorder(error=OverflowError("the disk is full")), last])
    assert len(result.history.total) == 8
    assert "the disk is full" in caplog.text
    assert last.closed == 1


@pytest.mark.parametrize("wrong", [3, [None], "print"])
def test_what_cannot_be_called_is_refused(paint, wrong):
    with pytest.raises(ConfigError, match=r"callback is a (int|NoneType|str); give a function"):
        paint(callback=wrong)


def test_a_loop_over_iterate_calls_them_by_itself(small_file, content, style):
    recorder = Recorder()
    for step in iterate(content, style, weights=str(small_file), **OPTIONS):
        if recorder(step):
            break
    assert len(recorder.steps) == 8

"""The jobs of a page, without a server."""

import dataclasses
import types

import numpy as np
import pytest

import tfstyle
from tests.web.conftest import DATA
from tfstyle import StyleConfig
from tfstyle.errors import ConfigError, RunError
from tfstyle.network import load_weights
from tfstyle.web.limits import Limits, make_config
from tfstyle.web.painting import MOST_USES, SetupCache
from tfstyle.web.visits import Visits
from tfstyle.web.weights import ServerWeights

pytest.importorskip("gradio")
from tfstyle.web.jobs import Context, last_result, outcome

FEW = {"size": 64, "iterations": 20, "scales": 1}


@pytest.fixture
def context(tmp_path):
    weights = ServerWeights("embedded")
    weights.prepare()
    return Context(Visits(tmp_path / "visits", tmp_path / "gradio"), Limits(), weights=weights)


def begin(context):
    """Return the inputs of a job of the session ``a``."""
    request = types.SimpleNamespace(session_hash="a")
    content, style = str(DATA / "cat.jpg"), str(DATA / "evening.jpg")
    return context.checked(request, content, styles=[style], config=lambda: make_config(FEW, context.limits))


def test_a_job_that_takes_too_long_ends_with_the_image_so_far(context):
    chosen = begin(context)
    updates = chosen.transfer()
    next(updates)  # the preview after the first iteration
    object.__setattr__(chosen, "began", chosen.began - 3601)
    result = last_result(updates)
    assert len(result.history.total) == 2
    assert outcome(chosen, result).endswith("; stopped by the limit of 3600 s")


def test_a_job_ends_when_its_tab_is_closed(context):
    updates = begin(context).transfer()
    next(updates)
    context.visits.end("a")
    with pytest.raises(RunError, match="the tab is closed"):
        list(updates)


def test_the_settings_of_a_result_contain_no_path_of_the_server(context, tmp_path):
    path = tmp_path / "mine.npz"
    load_weights("embedded").save(path)
    weights = ServerWeights(path)
    weights.prepare()
    result = last_result(begin(Context(context.visits, Limits(), weights=weights)).transfer())
    assert result.facts["weights"] == "mine.npz"
    assert str(tmp_path) not in str(result.settings())


def test_a_job_with_the_setup_of_another_one_gives_the_same_image(context):
    """The second job has other images and another size, and nothing is compiled for it."""
    last_result(begin(context).transfer())
    chosen = dataclasses.replace(begin(context), styles=[str(DATA / "cat.jpg")])
    chosen = chosen.with_options(size=96)
    setup = context.setups.find(chosen.config)
    assert setup is not None
    (graph,) = (step for step in setup.steps.values())
    traced = graph.experimental_get_tracing_count()
    result = last_result(chosen.transfer())
    assert graph.experimental_get_tracing_count() == traced
    alone = tfstyle.stylize(chosen.content, chosen.styles[0], chosen.config)
    assert np.array_equal(result.image, alone.image)


def test_a_setup_is_not_used_for_other_options_and_not_for_ever():
    setups, config = SetupCache(), StyleConfig()
    setup = types.SimpleNamespace(for_other_styles=lambda: "setup")
    setups.store(config, setup)
    assert setups.find(config.replace(size=64)) == "setup"
    assert setups.find(config.replace(style_weight=2.0)) is None
    setups.store(config, setup)
    uses = 0
    while setups.find(config):
        uses += 1
    assert uses == MOST_USES
    normalized = config.replace(normalize_weights=True)
    setups.store(normalized, setup)
    assert setups.find(normalized) is None


def test_stop_says_what_it_stops(context):
    request = types.SimpleNamespace(session_hash="a")
    visit = context.visits.of("a")
    assert "starting" in context._begin(request)
    assert "will not begin" in context._stop(request)
    assert "starting" in context._begin(request)
    with context.logged(request):
        assert (visit.waiting, visit.running) == (False, True)
        other = types.SimpleNamespace(session_hash="b")
        assert "waiting" in context._begin(other)
        assert "stopping" in context._stop(request)
    assert not visit.running
    assert "starting" in context._begin(other)


def test_a_stopped_job_does_not_begin(context):
    context.visits.of("a").stopped.set()
    with pytest.raises(ConfigError, match="stopped before the job began"):
        begin(context)


def test_a_full_server_accepts_no_job(context, tmp_path):
    context = Context(context.visits, Limits(stored_bytes=70_000), weights=context.weights)
    begin(context)
    (tmp_path / "gradio").mkdir()
    (tmp_path / "gradio" / "upload.png").write_bytes(b"x" * 80_000)
    with pytest.raises(RunError, match="no space"):
        begin(context)

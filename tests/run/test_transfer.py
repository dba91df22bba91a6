"""Tests of whole runs on small images: their results, their inputs, and the ways in which they can end."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfstyle
from tests.conftest import make_image
from tfstyle import Encoder, StyleConfig, iterate, stylize
from tfstyle.errors import ConfigError, ImageError, NotFiniteError, RunError, WeightsError
from tfstyle.losses import LossNormalization, balanced_normalization
from tfstyle.optim import Optimizer
from tfstyle.run import Run
from tfstyle.run.setup import LOSS_NORMALIZATIONS, make_setup


@pytest.fixture
def fast(small_weights):
    """Options of a short run with the small encoder."""
    return {"size": 32, "iterations": 4, "weights": small_weights, "precision": "float32"}


@pytest.fixture
def run(fast, content, style, small_file):
    def go(**changes):
        options = {**fast, "weights": str(small_file)} | changes
        return stylize(
            changes.pop("content", content),
            changes.pop("style", style),
            **{key: value for key, value in options.items() if key not in ("content", "style")},
        )

    return go


def test_a_run(run, content):
    result = run(iterations=12)
    assert result.image.shape == (23, 32, 3)
    assert result.image.dtype == np.float32
    assert 0 <= result.image.min() <= result.image.max() <= 1
    history = result.history
    assert history.iteration == list(range(1, 13))
    assert history.scale == [1] * 12
    assert history.total[-1] < 0.7 * history.total[0]
    assert all(b >= a for a, b in zip(history.seconds, history.seconds[1:]))
    assert list(history.style_layers) == ["conv1_1", "conv2_1", "conv2_2"]
    for i in range(12):
        assert history.total[i] == pytest.approx(
            history.content[i] + history.style[i] + history.tv[i], rel=1e-5
        )
        assert history.style[i] == pytest.approx(sum(s[i] for s in history.style_layers.values()), rel=1e-5)
    assert history.content[0] == pytest.approx(0, abs=1e-9)  # the initial image is the content image


def test_default_layers_are_replaced_by_layers_of_the_weights(run, caplog):
    result = run()
    assert result.facts["style_layers"] == ("conv1_1", "conv2_1", "conv2_2")
    assert result.facts["content_layers"] == ("conv2_1",)
    assert re.search(
        r"small\.npz end at conv2_2; .*style.* conv1_1,conv2_1,conv2_2,? .*content.* conv2_1$",
        caplog.text,
        re.MULTILINE,
    )


@pytest.mark.weights
def test_default_layers_of_the_real_partial_weights(data):
    weights = str(data / "weights" / "vgg19_imagenet_block1-3.npz")
    images = make_image(32, 32), make_image(32, 32, 1)
    result = stylize(*images, weights=weights, iterations=1)
    assert result.facts["style_layers"] == ("conv1_1", "conv2_1", "conv3_1", "conv3_4")
    assert result.facts["content_layers"] == ("conv2_2",)
    with pytest.raises(WeightsError, match=r"conv4_2.*conv1_1, .*conv3_4"):
        stylize(*images, weights=weights, content_layers=("conv4_2",))


def test_the_same_seed_gives_the_same_image(run):
    first, same_seed, other_seed = (run(init="noise", seed=seed).image for seed in (1, 1, 2))
    assert np.array_equal(first, same_seed)
    assert np.abs(first - other_seed).mean() > 0.05


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_coarse_to_fine(fast, small_file, optimizer):
    content, style = make_image(90, 260, 2), make_image(200, 150, 3)
    result = stylize(content, style, **fast | {"weights": str(small_file), "size": 260}, optimizer=optimizer)
    assert result.history.scale == [1] * 4 + [2] * 4
    assert result.image.shape == (90, 260, 3)


def trace_counts(run):
    (step,) = run.setup.steps.values()
    return [f.experimental_get_tracing_count() for f in (step, *run.setup._graphs.values())]


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "warm_start": True, "steps_per_call": 4},
        {"optimizer": "adam", "style_losses": ("gram", "mean_deviation"), "padding": "zeros"},
        {"optimizer": "adam", "precision": "bfloat16", "ema_decay": 0.5},
    ],
)
def test_one_graph_serves_all_scales(fast, small_file, options):
    """The step, the targets and the style's summary are traced once, with the results of a graph per scale.

    Without known sizes TensorFlow folds fewer constants, so that the results differ by rounding. Adam's
    epsilon is large, because otherwise the sign of a gradient near 0 moves a pixel by the learning rate. A
    change of the content image by 1e-7 changes the last losses by up to 1e-2 with epsilon 1e-7, by up to 2e-3
    with 1e-4, and by 2e-6 with 1e-2.
    """
    config = StyleConfig().replace(
        fast | {"weights": str(small_file), "size": 101, "min_scale": 50, "epsilon": 1e-2} | options
    )
    inputs = make_image(71, 101, 2), make_image(64, 90, 3)
    run, per_scale = Run(*inputs, config), Run(*inputs, config)
    per_scale.setup.any_size = False
    assert {step.scale for step in run} == {step.scale for step in per_scale} == {1, 2}
    assert trace_counts(run) == [1, 1, 1]
    assert trace_counts(per_scale) == [2, 2, 2]
    rounding = 1e-5 if config.precision == "float32" else 1e-2
    assert run.history.total == pytest.approx(per_scale.history.total, rel=rounding)
    assert np.abs(run.result().image - per_scale.result().image).mean() < rounding


def test_graphs_are_traced_per_scale_where_sizes_are_needed_in_python(fast, small_file, small_encoder):
    """Cross-layer losses, XLA, and functions of the caller may compute with static sizes."""
    layers = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}
    config = StyleConfig().replace(fast | {"weights": str(small_file)} | layers)
    assert make_setup(config, "/CPU:0").any_size
    for changes in ({"style_losses": ("gram", "chain")}, {"compile": "xla"}, {"compile": "eager"}):
        assert not make_setup(config.replace(changes), "/CPU:0").any_size
    assert not make_setup(config, "/CPU:0", encoder=small_encoder).any_size
    assert not make_setup(config, "/CPU:0", optimizer=tfstyle.adam(0.05)).any_size


@pytest.mark.parametrize("steps_per_call", [1, None])
def test_the_first_iteration_has_an_image(fast, small_file, content, style, steps_per_call):
    """On a CPU the first preview waits for one step only, also with the default of several steps on a GPU."""
    options = fast | {"weights": str(small_file), "iterations": 20, "steps_per_call": steps_per_call}
    first = next(tfstyle.iterate(content, style, StyleConfig().replace(options), device="cpu"))
    assert (first.iteration, first.scale) == (1, 1)
    assert first.image.shape == (*first.shape, 3)


def test_images_that_are_too_small_are_refused(run):
    with pytest.raises(ImageError, match=r"content image is 32 x 2 pixels.*at least 4 pixels.*larger"):
        run(content=make_image(3, 40))
    with pytest.raises(ImageError, match=r"style image 1 is 32 x 2 pixels.*at least 4 pixels.*larger"):
        run(style=make_image(3, 40))


def test_a_flat_style_is_not_shrunk_below_the_minimum_size(fast, small_file):
    """Without a minimum the style image would be 1 pixel high at the coarsest scale."""
    content, style = make_image(260, 260, 2), make_image(20, 200, 3)
    result = stylize(
        content, style, **fast | {"weights": str(small_file), "size": 260, "iterations": 1, "scales": 5}
    )
    assert max(result.history.scale) == 5


@pytest.mark.parametrize("init", ["content", "noise", "style"])
def test_initial_images(fast, small_file, content, style, init):
    config = StyleConfig().replace(fast | {"weights": str(small_file), "init": init, "iterations": 1})
    first = Run(content, style, config).result().image
    assert first.shape == (23, 32, 3)
    if init == "content":
        assert np.abs(first - tfstyle.images.load(content).fitted(32).rgb).max() == 0
    if init == "noise":
        assert abs(np.corrcoef(first[:-1].ravel(), first[1:].ravel())[0, 1]) < 0.1


def test_a_file_as_initial_image(run, files, style):
    result = run(init=str(files / "style.png"), iterations=1, optimizer="adam", learning_rate=1e-6)
    expected = tfstyle.images.resize(style, (23, 32))
    assert np.abs(result.image - expected).max() < 0.01


def test_several_styles_are_blended(fast, small_file, content, style):
    other = make_image(30, 30, 9)
    options = fast | {"weights": str(small_file), "optimizer": "adam"}
    alone = stylize(content, style, **options).image
    first = stylize(content, [style, other], **options, style_blend=(1, 0)).image
    both = stylize(content, [style, other], **options).image
    assert np.abs(first - alone).max() < 1e-3
    assert np.abs(both - alone).max() > 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"style": []}, r"no style image.*at least one"),
        ({"style_blend": (1, 2)}, r"style_blend\b.*\b2\b.*\b1;"),
        ({"content_layers": ("conv9_9",)}, r"conv9_9.*conv1_1"),
        ({"nonsense": 1}, r"nonsense.*style_weight"),
        ({"device": "gpu:7"}, r"gpu:7.*cpu"),
    ],
)
def test_wrong_options_are_refused(run, changes, message):
    with pytest.raises(ConfigError, match=message):
        run(**changes)


def test_the_result_has_the_content_images_alpha_channel(run, content):
    alpha = np.linspace(0, 1, content.shape[1], dtype=np.float32) * np.ones(content.shape[:1] + (1,), "f4")
    result = run(content=np.concatenate([content, alpha[..., None]], -1))
    assert result.image.shape == (23, 32, 3)
    assert result.alpha.shape == (23, 32)
    assert result.alpha[10] == pytest.approx(np.linspace(0, 1, 32), abs=0.03)


def test_results_of_16_bit_content_images_are_written_with_16_bits(run, content, tmp_path):
    result = run(content=(content * 65535).astype(np.uint16))
    result.save(tmp_path / "a.png")
    written = tfstyle.images.load(tmp_path / "a.png")
    assert written.bits == 16
    assert np.abs(written.rgb - result.image).max() < 1e-5


def test_a_tolerance_ends_a_scale_early(run):
    assert len(run(iterations=60, tolerance=0.5).history.total) < 60
    assert len(run(iterations=30, tolerance=0.0).history.total) == 30


def test_iterate_yields_previews_and_can_be_left(fast, small_file, content, style):
    config = StyleConfig().replace(fast | {"weights": str(small_file)})
    seen = []
    for step in iterate(content, style, config):
        seen.append((step.iteration, step.iterations, step.scale, step.scales, step.shape))
        assert step.image.shape == (23, 32, 3)
        assert step.losses["total"] > 0
        if len(seen) == 3:
            break
    assert seen == [(i, 4, 1, 1, (23, 32)) for i in (1, 2, 3)]
    first, *_, last = iterate(content, style, config)
    assert np.abs(first.image - last.image).max() > 0.01  # later iterations do not change it


def test_the_callback_is_called(fast, small_file, content, style):
    seen = []
    stylize(content, style, **fast | {"weights": str(small_file)}, callback=seen.append)
    assert [step.iteration for step in seen] == [1, 2, 3, 4]


def test_an_encoder_that_the_caller_made(content, style, small_weights):
    encoder = Encoder(("conv1_1", "conv1_2"), small_weights)
    layers = {"content_layers": ("conv1_2",), "style_layers": ("conv1_1",)}
    result = stylize(content, style, encoder=encoder, size=24, iterations=2, **layers)
    assert list(result.history.style_layers) == ["conv1_1"]
    with pytest.raises(ConfigError, match=r"conv1_1, conv1_2.*default content.*content_layers"):
        stylize(content, style, encoder=encoder, size=24)


@pytest.mark.parametrize("optimizer", [keras.optimizers.Adam(0.02), tfstyle.adam(0.05), "adam"])
def test_optimizers_by_name_and_as_objects(run, optimizer):
    history = run(optimizer=optimizer, iterations=8).history
    assert history.total[-1] < history.total[0]


def test_normalized_weights_have_mean_activation_one(fast, small_file, content, style):
    config = StyleConfig().replace(fast | {"weights": str(small_file), "normalize_weights": True})
    run = Run(content, style, config)
    images = [tfstyle.images.load(image).fitted(32).rgb for image in (content, style)]
    features = [run.setup.encoder(image[None])["conv2_2"].numpy().reshape(-1, 128) for image in images]
    means = np.concatenate(features).mean(0)
    assert means[means > 0] == pytest.approx(1, abs=1e-3)
    assert "normalized" in run.facts["weights"]


def test_the_papers_preset_runs_and_lowers_the_loss(content, style, small_file):
    result = stylize(
        content, style, tfstyle.preset("gatys2016"), weights=str(small_file), size=24, iterations=20
    )
    assert result.history.total[-1] < 0.2 * result.history.total[0]
    assert set(result.history.tv) == {0.0}


@pytest.mark.parametrize("how", ["xla", "eager"])
def test_other_compilers_give_the_same_image(run, how):
    expected, result = (run(compile=compiler, optimizer="adam") for compiler in ("graph", how))
    assert result.history.total == pytest.approx(expected.history.total, rel=1e-3)
    assert np.abs(result.image - expected.image).mean() < 1e-3


def test_calls_of_the_step_end_at_previews(fast, small_file, content, style):
    config = StyleConfig().replace(
        fast | {"weights": str(small_file), "iterations": 12, "steps_per_call": 10}
    )
    assert [Run(content, style, config, pause_every=n).steps_per_call for n in (0, 4, 9, 5)] == [6, 4, 3, 1]


def test_several_steps_per_call_give_the_same_history(run):
    single, several = (run(iterations=6, steps_per_call=n) for n in (1, 4))  # 3 is the divisor of 6 up to 4
    assert several.history.total == pytest.approx(single.history.total, rel=1e-3)
    assert several.history.iteration == single.history.iteration


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_runs(run, precision):
    result = run(precision=precision, iterations=8)
    assert result.facts["precision"] == precision
    assert np.isfinite(result.history.total).all()
    assert result.history.total[-1] < 0.8 * result.history.total[0]


def poison(optimizer, after):
    """Return an optimiser whose image is NaN after some step."""
    calls = []

    def step(evaluate, x, state):
        x, state, terms = optimizer.step(evaluate, x, state)
        calls.append(1)
        return (x * float("nan") if len(calls) == after else x), state, terms

    return Optimizer(optimizer.init, step, traceable=False)


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_good_image(run, after):
    good = []
    pattern = rf"nan at iteration {after + 1} of scale 1" if after < 6 else r"image is not finite.*scale 1"
    with pytest.raises(NotFiniteError, match=rf"{pattern}.*learning rate") as caught:
        run(
            optimizer=poison(tfstyle.adam(), after),
            iterations=6,
            callback=lambda s: good.append(s.losses["total"]),
        )
    result = caught.value.result
    assert np.isfinite(result.image).all()
    assert len(good) == after
    if after < 6:  # the loss after the sixth and last update is not evaluated
        assert math.isnan(result.history.total[-1])
        assert result.history.as_dict()["total"][-1] is None
    assert isinstance(caught.value, RunError)


def test_lbfgs_fails_if_no_loss_is_finite(run, monkeypatch):
    infinite = LossNormalization(lambda target: tf.constant(float("inf")), balanced_normalization.style)
    monkeypatch.setitem(LOSS_NORMALIZATIONS, "balanced", infinite)
    for iterations, done in ((100, 21), (5, 5)):
        with pytest.raises(NotFiniteError) as caught:
            run(iterations=iterations, init="noise")
        assert np.isfinite(caught.value.result.image).all()
        assert len(caught.value.result.history.total) == done


@pytest.mark.parametrize("error", [tf.errors.ResourceExhaustedError(None, None, "OOM\nshape"), MemoryError()])
def test_running_out_of_memory_is_reported_in_one_line(run, error):
    def step(evaluate, x, state):
        raise error

    with pytest.raises(RunError, match=r"out of memory at 32 x 23.*smaller") as caught:
        run(optimizer=Optimizer(lambda x: (), step, traceable=False))
    assert "\n" not in str(caught.value)


def test_the_result_file_has_its_options_and_facts(run, tmp_path):
    result = run(seed=7)
    result.save(tmp_path / "a.jpg")
    settings = tfstyle.images.saving.read_settings(tmp_path / "a.jpg")
    assert settings["options"]["seed"] == 7
    assert settings["facts"]["weights"] == "small.npz"
    assert settings["facts"]["precision"] == "float32"
    assert settings["versions"]["tensorflow"] == tf.__version__
    assert settings["iterations"] == 4


def test_a_config_of_another_type_is_refused(content, style):
    with pytest.raises(ConfigError, match=r"config\b.*\bdict\b.*StyleConfig\("):
        stylize(content, style, {"size": 32})


def test_a_setup_can_be_reused_for_other_images_and_sizes(small_file, content, style):
    """Nothing is compiled again, and the result is that of a run by itself."""
    config = StyleConfig(
        weights=small_file, iterations=3, scales=1, style_layers=("conv1_1",), compile="graph"
    )
    first = iterate(content, style, config)
    list(first)
    (step,) = first.setup.steps.values()
    traced = step.experimental_get_tracing_count()
    other = config.replace(size=40)
    second = iterate(style, content, other, setup=first.setup.for_other_styles())
    list(second)
    assert step.experimental_get_tracing_count() == traced
    assert second.setup.steps is first.setup.steps
    np.testing.assert_array_equal(second.result().image, stylize(style, content, other).image)


@pytest.mark.parametrize(
    "options", [{"seconds": 5.0}, {"checkpoint": "folder"}, {"normalize_weights": True}], ids=str
)
def test_a_setup_is_refused_where_it_would_be_wrong(small_file, content, style, options):
    config = StyleConfig(weights=small_file, iterations=1, scales=1, style_layers=("conv1_1",))
    setup = iterate(content, style, config).setup
    with pytest.raises(ConfigError, match="setup cannot be combined"):
        iterate(content, style, config, setup=setup, **options)

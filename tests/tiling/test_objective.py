"""The loss and gradient in tiles against those of the whole image, and whole runs in tiles."""

import dataclasses
import logging
import re

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_image
from tests.reference import relative_error
from tfstyle import Encoder, Masks, Objective, StyleConfig, adam, iterate, lbfgs, make_step, stylize
from tfstyle.device import choose_device
from tfstyle.errors import ConfigError, RunError
from tfstyle.losses import Region
from tfstyle.network import weights
from tfstyle.optim import averaged, value_and_gradient
from tfstyle.run import Run, layout
from tfstyle.run.setup import LOSS_NORMALIZATIONS, STYLE_LOSSES, VARIATIONS
from tfstyle.tiling import TiledObjective, host_step, in_host_memory, make_host_step, memory, spectrum, tiles
from tfstyle.tiling import objective as tiled_objective
from tfstyle.tiling.tile_step import TileStep

ADDITIVE = ("gram", "normalized_gram", "mean_deviation", "wasserstein", "shift", "chain", "across")
OTHERS = ("histogram", "sliced", "local", "local_by_content", "blurred")
SHALLOW = (("conv1_1", "conv2_1", "conv2_2"), ("conv2_2",))
DEEP = (("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"), ("conv4_2",))


@pytest.fixture(scope="module")
def random_weights():
    return weights.load_weights("random")


def make_objective(network_weights, layers=SHALLOW, losses=("gram",), dtype="float32", **options):
    style, content = layers
    pooling, padding = options.pop("pooling", "avg"), options.pop("padding", "reflect")
    encoder = Encoder((*style, *content), network_weights, dtype=dtype, pooling=pooling, padding=padding)
    normalization, tv = options.pop("normalization", "balanced"), options.pop("tv", "mean_squared")
    objective = Objective(
        encoder.features,
        dict.fromkeys(content, 1.0),
        style_layers={layer: 0.1 * (i + 1) for i, layer in enumerate(style)},
        content_weight=0.5,
        style_weight=1.0,
        tv_weight=0.3,
        normalization=LOSS_NORMALIZATIONS[normalization],
        style_losses=[(STYLE_LOSSES[name], 1.0 + i) for i, name in enumerate(losses)],
        variation=VARIATIONS[tv],
        **options,
    )
    return objective, encoder


def noise(height, width, seed):
    """Return an image with all frequencies, so that the gradient is not small anywhere."""
    rough = np.random.default_rng(seed).random((height, width, 3))
    return (0.6 * make_image(height, width, seed) + 0.4 * rough).astype(np.float32)[None]


def both(
    objective, encoder, shape, side, compile="eager", styles=1, regions=(), keep=None, blend=None, margin=None
):
    """Return (terms, gradient) of the whole image and of its tiles, and the tiled objective."""
    content, image = noise(*shape, 1), noise(*shape, 2)
    style_images = [noise(shape[0] + 8 * k - 6, shape[1] - 6 * k + 2, 3 + k) for k in range(styles)]
    whole = objective.targets(
        tf.constant(content),
        [objective.style_summary(tf.constant(style)) for style in style_images],
        blend_weights=blend,
        regions=regions,
        keep=keep,
    )
    expected = value_and_gradient(objective, tf.constant(image), targets=whole)
    tiled = TiledObjective(objective, encoder, side=side, compile=compile)
    if margin is not None:
        tiled.receptive_field = tiled.receptive_field._replace(margin=margin)
    targets = tiled.targets(
        content,
        [tiled.style_summary(style) for style in style_images],
        blend_weights=blend,
        regions=regions,
        keep=keep,
    )
    return expected, tiled.value_and_gradient(image, targets), tiled


def assert_same(expected, result, tolerance=1e-4):
    terms, gradient = result
    assert set(terms) == set(expected[0])
    for name, value in expected[0].items():
        assert float(terms[name]) == pytest.approx(float(value), rel=tolerance, abs=1e-9), name
    assert gradient.shape == expected[1].shape
    assert relative_error(gradient, expected[1]) < tolerance


# Some of the last tiles are one pixel wide: 33 = 2 x 16 + 1, 41 = 5 x 8 + 1.
@pytest.mark.parametrize(("shape", "side"), [((33, 49), 16), ((41, 30), 8), ((47, 35), 10), ((20, 90), 32)])
@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_loss_and_gradient_are_those_of_the_whole_image(small_weights, shape, side, pooling, padding):
    made = make_objective(small_weights, pooling=pooling, padding=padding)
    expected, tiled, _ = both(*made, shape, side)
    assert_same(expected, tiled)


@pytest.mark.parametrize("padding", ["replicate", "replicate_first", "circular"])
@pytest.mark.parametrize("pooling", ["rescaled", "max"])
def test_any_padding(small_weights, padding, pooling):
    shape = (48, 32) if padding == "circular" else (49, 33)
    expected, tiled, _ = both(*make_objective(small_weights, pooling=pooling, padding=padding), shape, 16)
    assert_same(expected, tiled)


@pytest.mark.parametrize("loss", ADDITIVE)
@pytest.mark.parametrize("shape", [(67, 50), (49, 33)])
def test_any_style_loss_that_is_a_sum_over_positions(random_weights, loss, shape):
    """With conv3_1, some tiles have no position of a layer."""
    layers = ("conv1_1", "conv2_1", "conv2_2", "conv3_1"), ("conv3_1",)
    expected, tiled, _ = both(*make_objective(random_weights, layers, (loss,)), shape, 16)
    assert_same(expected, tiled)


def test_several_style_losses_styles_and_regions(small_weights):
    objective, encoder = make_objective(small_weights, losses=("gram", "wasserstein", "chain"))
    generator = np.random.default_rng(0)
    regions = []
    for share, place in ((0.3, np.s_[:, :20]), (0.7, np.s_[10:])):  # some tiles lie outside the first region
        mask = np.zeros((40, 52), np.float32)
        mask[place] = generator.random(mask[place].shape)
        sizes = {"conv1_1": 1, "conv2_1": 2, "conv2_2": 2}
        maps = {layer: mask[::step, ::step] for layer, step in sizes.items()}
        region_weights = {
            layer: tf.constant((values / values.mean())[None, :, :, None], tf.float32)
            for layer, values in maps.items()
        }
        regions.append(Region(share, region_weights))
    expected, tiled, _ = both(objective, encoder, (40, 52), 12, styles=2, regions=regions, blend=[1.0, 3.0])
    assert_same(expected, tiled)


def test_a_kept_region(small_weights):
    mask = np.zeros((1, 40, 52, 1), np.float32)
    mask[:, 10:30, 5:40] = 0.7
    mask[:, 30:] = 1
    expected, tiled, _ = both(*make_objective(small_weights), (40, 52), 16, keep=mask)
    assert_same(expected, tiled)
    assert not tiled[1][:, 30:].any()


@pytest.mark.parametrize("name", LOSS_NORMALIZATIONS)
def test_any_normalization(small_weights, name):
    expected, tiled, _ = both(*make_objective(small_weights, normalization=name), (33, 41), 16)
    assert_same(expected, tiled)


@pytest.mark.parametrize("tv", VARIATIONS)
def test_any_total_variation_in_bands(small_weights, tv, monkeypatch):
    monkeypatch.setattr(tiled_objective, "BAND_PIXELS", 7 * 41)
    expected, tiled, _ = both(*make_objective(small_weights, tv=tv), (33, 41), 16)
    assert_same(expected, tiled)


@pytest.mark.parametrize(("shape", "side"), [((33, 49), 16), ((41, 30), 8)])
def test_weights_of_the_border(small_weights, shape, side):
    objective, encoder = make_objective(small_weights)
    whole, _, _ = both(objective, encoder, shape, side)
    objective = dataclasses.replace(objective, border_weight=4.0)
    expected, tiled, _ = both(objective, encoder, shape, side)
    assert_same(expected, tiled)
    assert float(expected[0]["content"]) > 1.01 * float(whole[0]["content"])


@pytest.mark.parametrize("masked", [False, True])
def test_the_local_spectrum_in_bands(small_weights, monkeypatch, masked):
    monkeypatch.setattr(spectrum, "BAND_PIXELS", 50 * 32)  # bands of two rows of windows
    objective, encoder = make_objective(small_weights)
    objective = dataclasses.replace(objective, spectrum_weight=0.5)
    regions = []
    if masked:
        mask = noise(75, 50, 7)[..., :1]
        sizes = {"conv1_1": 1, "conv2_1": 2, "conv2_2": 2}
        maps = {layer: mask[:, : 75 // step * step : step, ::step] for layer, step in sizes.items()}
        weights = {layer: tf.constant(values / values.mean()) for layer, values in maps.items()}
        regions = [Region(1.0, weights, tf.constant(mask))]
    expected, tiled, _ = both(objective, encoder, (75, 50), 16, regions=regions)
    assert float(expected[0]["spectrum"]) > 0
    assert_same(expected, tiled)


@pytest.mark.parametrize("compile", ["graph", pytest.param("xla", marks=pytest.mark.slow)])
def test_any_compiler_and_few_compilations(small_weights, compile):
    """Along each side the crops and insides of any number of tiles have at most three pairs of sizes."""
    made = make_objective(small_weights)
    shape, side = ((97, 75), 8) if compile == "graph" else ((41, 35), 24)
    expected, tiled, objective = both(*made, shape, side, compile)
    assert_same(expected, tiled)
    functions = objective.tile_step._functions.values()
    # The content targets, the style summaries and the two passes, each for at most nine pairs of sizes.
    assert 4 <= sum(function.experimental_get_tracing_count() for function in functions) <= 4 * 9
    if compile == "graph":
        assert len(tiles(shape, side, receptive_field=objective.receptive_field)) == 130


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_the_whole_depth(random_weights, pooling):
    made = make_objective(random_weights, DEEP, pooling=pooling)
    expected, tiled, _ = both(*made, (257, 225), 64)
    assert_same(expected, tiled)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_within_its_rounding_error(small_weights, dtype):
    """The rounding error is that of the whole image's gradient, relative to float32."""
    exact, _, _ = both(*make_objective(small_weights), (49, 65), 16)
    expected, tiled, _ = both(*make_objective(small_weights, dtype=dtype), (49, 65), 16)
    rounding = relative_error(expected[1], exact[1])
    assert 0 < rounding < 0.05
    assert relative_error(tiled[1], exact[1]) < 1.5 * rounding
    assert float(tiled[0]["total"]) == pytest.approx(float(expected[0]["total"]), rel=0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_there_is_no_seam(small_weights, dtype):
    """The gradient changes across the border of a tile as much as between other neighbouring pixels."""
    _, tiled, _ = both(*make_objective(small_weights, dtype=dtype), (128, 128), 16)
    assert_no_seam(tiled[1])


def assert_no_seam(gradient, side=16):
    for rows in (gradient, gradient.swapaxes(1, 2)):
        steps = np.square(np.diff(rows[0], axis=0)).mean((1, 2))
        across = np.arange(len(steps)) % side == side - 1
        inside = steps[~across]
        error = inside.std() * np.sqrt(1 / across.sum() + 1 / len(inside))
        assert abs(steps[across].mean() - inside.mean()) < 3 * error


def test_a_margin_that_is_too_small_would_be_noticed(small_weights):
    """With a third of the margin, the checks of the gradient and of the seam both fail."""
    expected, tiled, _ = both(*make_objective(small_weights), (128, 128), 16, margin=2)
    assert relative_error(tiled[1], expected[1]) > 1e-3
    with pytest.raises(AssertionError):
        assert_no_seam(tiled[1])


@pytest.mark.parametrize("loss", OTHERS)
def test_losses_that_need_all_positions_are_refused(small_weights, loss):
    with pytest.raises(ConfigError, match=r"style_losses.*tile=.off.*gram.*across"):
        TiledObjective(*make_objective(small_weights, losses=(loss,)), side=16)


def test_unit_gradients_are_refused(small_weights):
    with pytest.raises(ConfigError, match=r"normalize_gradients.*tile=.off"):
        TiledObjective(*make_objective(small_weights, unit_gradients=True), side=16)


# The step


@pytest.mark.parametrize(
    "optimizer", [adam(), averaged(adam(), 0.9), lbfgs(3)], ids=["adam", "averaged", "lbfgs"]
)
def test_a_host_step_is_the_step_of_the_optimiser(optimizer, monkeypatch):
    """Elementwise optimisers update the image in place and band by band."""
    monkeypatch.setattr(host_step, "BAND_PIXELS", 4 * 9)
    target = make_image(10, 9, 1)[None]

    def loss(x, targets):
        return {"total": tf.reduce_sum((x - targets) ** 4)}

    def evaluate(image, targets):
        terms, gradient = value_and_gradient(loss, tf.constant(image), targets=targets)
        return terms, gradient.numpy()

    x = tf.constant(make_image(10, 9, 2)[None])
    step, in_host = make_step(loss, optimizer, compile="graph"), make_host_step(evaluate, optimizer)
    state = optimizer.init(x)
    host_x, host_state = in_host_memory((x, state)) if optimizer.elementwise else (x, state)
    for _ in range(6):
        x, state, terms = step(x, state, target)
        host_x, host_state, host_terms = in_host(host_x, host_state, target)
        assert float(host_terms["total"]) == pytest.approx(float(terms["total"]), rel=1e-4)
    np.testing.assert_allclose(
        optimizer.solution(tf.constant(host_x), host_state), optimizer.solution(x, state), atol=1e-5
    )


def test_a_gradient_that_is_not_finite_moves_nothing():
    image, state = in_host_memory((tf.ones([1, 4, 4, 3]), adam().init(tf.ones([1, 4, 4, 3]))))
    bad = np.full((1, 4, 4, 3), np.inf, np.float32)
    step = make_host_step(lambda image, targets: ({"total": tf.constant(1.0)}, bad), adam())
    moved, _, terms = step(image, state, None)
    assert np.isnan(float(terms["total"]))
    assert (moved == 1).all()


# Runs


@pytest.fixture
def options(small_file):
    return {
        "weights": str(small_file), "precision": "float32", "size": 56, "iterations": 4,
        "content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_2"),
    }  # fmt: skip


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs", "lbfgs_fixed_step"])
def test_a_run_in_tiles_is_the_same_run(options, content, style, optimizer):
    whole = stylize(content, style, **options, optimizer=optimizer, tile="off")
    tiled = stylize(content, style, **options, optimizer=optimizer, tile=16)
    assert tiled.facts["tiles"] == (16, 16)
    assert whole.facts["tiles"] is None
    np.testing.assert_allclose(tiled.history.total, whole.history.total, rtol=1e-3)
    assert np.abs(tiled.image - whole.image).mean() < 1e-3


@pytest.mark.slow
def test_tiles_with_many_options_at_once(options, content, style):
    """Masks, two styles, two scales, a warm start of Adam, EMA and initialisation with noise."""
    mask = np.zeros((40, 56))
    mask[:, :30] = 1
    masks = Masks([mask, 1 - mask], [np.ones((5, 5)), np.eye(4)], keep=np.eye(40, 56))
    many = options | {
        "optimizer": "adam", "warm_start": True, "ema_decay": 0.5, "scales": 2, "init": "noise",
        "color": "luminance", "tv_form": "nine_point", "style_scale": (1.0, 0.7),
    }  # fmt: skip
    whole, tiled = (
        stylize(content, [style, style[::-1]], **many, masks=masks, tile=tile) for tile in ("off", 12)
    )
    assert tiled.history.scale == [1] * 4 + [2] * 4
    np.testing.assert_allclose(tiled.history.total, whole.history.total, rtol=1e-3)


def test_a_keras_optimiser_in_tiles(options, content, style):
    import keras

    options |= {"optimizer": keras.optimizers.SGD(1.0)}
    whole, tiled = (stylize(content, style, **options, tile=tile) for tile in ("off", 16))
    np.testing.assert_allclose(tiled.history.total, whole.history.total, rtol=1e-3)


def test_the_content_image_is_not_changed(options, content, style):
    before = content.copy()
    stylize(content, style, **options, optimizer="adam", tile=16)
    assert (content == before).all()


@pytest.mark.parametrize(
    ("tile", "message"),
    [("some", r"tile.*'some'.*auto.*off"), (0, r"tile.*'0'.*auto.*off"), (-5, r"tile.*'-5'.*auto.*off")],
)
def test_tile_is_checked(tile, message):
    with pytest.raises(ConfigError, match=message):
        StyleConfig(tile=tile)


def test_an_impossible_tile_is_refused_before_the_run(options, content, style):
    with pytest.raises(ConfigError, match=r"style_losses.*sliced.*tile=.off"):
        Run(content, style, StyleConfig(**options, style_losses=("sliced",), tile=4096))


def gigabytes(limit):
    """Return the option ``memory`` with which a step may use a number of bytes."""
    return (limit - memory.budget(0.0, choose_device().value)) / 1e9


def test_auto_takes_tiles_if_memory_is_short_and_logs_it(options, content, style, monkeypatch, caplog):
    monkeypatch.setattr(memory, "MIN_TILE_SIDE", 8)
    limit = gigabytes(61e6 + 56 * 40 * 400)
    run = Run(content, style, StyleConfig(**options, optimizer="adam", memory=limit))
    assert max(run.layouts[-1].side) < 40
    assert re.search(r"56 x 40.*\b0\.1 GB.*tile", caplog.text)
    for _ in run:
        pass
    whole = stylize(content, style, **options, optimizer="adam", tile="off")
    np.testing.assert_allclose(run.history.total, whole.history.total, rtol=1e-3)


def test_auto_evaluates_images_whole_if_memory_suffices(options, content, style):
    run = Run(content, style, StyleConfig(**options))
    assert run.layouts == [layout.Layout()] * len(run.scales)


def test_lbfgs_stores_as_many_pairs_as_fit(options, content, style, monkeypatch, caplog):
    monkeypatch.setattr(memory, "MIN_TILE_SIDE", 8)
    monkeypatch.setattr(layout, "LBFGS_TILE_SIDE", 8)
    limit = gigabytes(60e6 + 56 * 40 * 1600)
    run = Run(content, style, StyleConfig(**options, lbfgs_history=100, memory=limit))
    pairs = run.layouts[-1].lbfgs_pairs
    assert 1 <= pairs < 100
    assert re.search(rf"L-BFGS.*\b{pairs}\b.*\b100\b", caplog.text)
    for _ in run:
        pass
    assert len(run._state.s) == pairs
    assert run.history.total[-1] < run.history.total[0]


def out_of_memory(*arguments, **options):
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def test_a_run_that_is_out_of_memory_continues_in_tiles(options, content, style, monkeypatch, caplog):
    monkeypatch.setattr(memory, "MIN_TILE_SIDE", 8)
    run = Run(content, style, StyleConfig(**options, scales=1))
    monkeypatch.setattr(run, "_step", out_of_memory)
    assert len(list(run)) == 4
    assert run.layouts[0].side is not None
    assert re.search(r"out of memory.*56 x 40.*tiles", caplog.text)
    whole = stylize(content, style, **options, scales=1, tile="off")
    np.testing.assert_allclose(run.history.total, whole.history.total, rtol=1e-3)


def test_tiles_that_do_not_fit_become_smaller(options, content, style, monkeypatch, caplog):
    monkeypatch.setattr(memory, "MIN_TILE_SIDE", 8)
    run = Run(content, style, StyleConfig(**options, optimizer="adam", scales=1))
    run.layouts[0] = layout.Layout((32, 32), None)
    large = run.setup.tiled_objective((32, 32))
    monkeypatch.setattr(large.tile_step, "gradient", out_of_memory)
    assert len(list(run)) == 4
    assert max(run.layouts[0].side) <= 16
    assert re.search(r"out of memory.*56 x 40.*tiles.* 1[46] x 14\b", caplog.text)


@pytest.mark.parametrize("tile", ["off", 16])
def test_without_auto_a_run_that_is_out_of_memory_fails(options, content, style, monkeypatch, tile):
    monkeypatch.setattr(TileStep, "gradient", out_of_memory)
    run = Run(content, style, StyleConfig(**options, tile=tile, scales=1))
    monkeypatch.setattr(run, "_step", out_of_memory)
    with pytest.raises(RunError, match=r"out of memory.*56 x 40.*smaller.*tiles"):
        list(run)


@pytest.mark.slow
def test_a_resumed_run_uses_the_tiles_that_auto_chose(options, content, style, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "MIN_TILE_SIDE", 8)
    options |= {"optimizer": "adam", "scales": 1}
    limited = options | {"memory": gigabytes(61e6 + 56 * 40 * 400)}
    uninterrupted = stylize(content, style, **limited)
    for step in iterate(content, style, **limited, checkpoint=tmp_path / "run", checkpoint_every=0):
        if step.iteration == 2:
            break
    resumed = stylize(content, style, **options, memory=1000.0, checkpoint=tmp_path / "run", resume=True)
    assert resumed.facts["tiles"] == uninterrupted.facts["tiles"] is not None
    assert (resumed.image == uninterrupted.image).all()


def test_ctrl_c_during_an_update_in_place_leaves_a_valid_checkpoint(
    options, content, style, monkeypatch, tmp_path
):
    options |= {"optimizer": "adam", "scales": 1, "tile": 16}
    monkeypatch.setattr(host_step, "BAND_PIXELS", 10 * 56)
    uninterrupted = stylize(content, style, **options)
    calls, state_band = [], host_step._state_band

    def interrupted(state, band):
        calls.append(band)
        if len(calls) == 2 * 4 + 3:  # the third band of four of the third iteration
            raise KeyboardInterrupt
        return state_band(state, band)

    monkeypatch.setattr(host_step, "_state_band", interrupted)
    folder = {"checkpoint": tmp_path / "run", "resume": True}
    with pytest.raises(KeyboardInterrupt):
        stylize(content, style, **options, **folder, checkpoint_every=0)
    assert len(calls) == 11
    resumed = stylize(content, style, **options, **folder)
    assert (resumed.image == uninterrupted.image).all()


def test_no_warning_is_logged_without_tiles(options, content, style, caplog):
    with caplog.at_level(logging.WARNING):
        stylize(content, style, **options)
    assert not caplog.text

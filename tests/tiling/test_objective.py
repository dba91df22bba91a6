"""Tiles against the whole image: the same loss, the same gradient, and runs that go through."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_picture
from tfstyle import Encoder, Masks, Objective, StyleConfig, adam, iterate, lbfgs, make_step, stylize
from tfstyle.errors import ConfigError, RunError
from tfstyle.losses import Region
from tfstyle.network import weights
from tfstyle.optim import averaged, value_and_gradient
from tfstyle.run import Run, layout
from tfstyle.run.setup import LOSS_NORMALIZATIONS, STYLE_LOSSES, VARIATIONS
from tfstyle.tiling import TiledObjective, host_step, in_host_memory, make_host_step, tiles

ADDITIVE = ("gram", "mean_deviation", "wasserstein", "shift", "chain", "across")
OTHERS = ("histogram", "sliced", "local", "local_by_content", "blurred")
SHALLOW = (("conv1_1", "conv2_1", "conv2_2"), ("conv2_2",))
DEEP = (("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"), ("conv4_2",))


@pytest.fixture(scope="module")
def random_weights():
    return weights.load_weights("random")


def make_objective(found, layers=SHALLOW, losses=("gram",), dtype="float32", **options):
    style, content = layers
    kinds = {"pooling": "avg", "padding": "reflect"}
    encoder = Encoder(
        (*style, *content), found, dtype=dtype, **{k: options.pop(k, v) for k, v in kinds.items()}
    )
    settings = {"normalization": "balanced", "tv": "mean_squared"}
    normalization, tv = (options.pop(k, v) for k, v in settings.items())
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
    """A picture with something in it at every frequency, so that no gradient is small by itself."""
    rough = np.random.default_rng(seed).random((height, width, 3))
    return (0.6 * make_picture(height, width, seed) + 0.4 * rough).astype(np.float32)[None]


def both(objective, encoder, shape, side, compile="eager", styles=1, regions=(), keep=None, blend=None):
    """Terms and gradient of the whole image, and those in tiles."""
    content, image = noise(*shape, 1), noise(*shape, 2)
    paintings = [noise(shape[0] + 8 * k - 6, shape[1] - 6 * k + 2, 3 + k) for k in range(styles)]
    whole = objective.targets(
        tf.constant(content),
        [objective.style_summary(tf.constant(painting)) for painting in paintings],
        blend_weights=blend,
        regions=regions,
        keep=keep,
    )
    expected = value_and_gradient(objective, tf.constant(image), targets=whole)
    tiled = TiledObjective(objective, encoder, side=side, compile=compile)
    targets = tiled.targets(
        content, [tiled.style_summary(p) for p in paintings], blend_weights=blend, regions=regions, keep=keep
    )
    return expected, tiled.value_and_gradient(image, targets), tiled


def assert_same(expected, found, tolerance=1e-4):
    terms, gradient = expected
    assert set(found[0]) == set(terms)
    for name, value in terms.items():
        assert float(found[0][name]) == pytest.approx(float(value), rel=tolerance, abs=1e-9), name
    gradient = gradient.numpy()
    assert found[1].shape == gradient.shape
    assert np.linalg.norm(found[1] - gradient) < tolerance * np.linalg.norm(gradient)


# One-pixel-wide last tiles among them: 33 = 2 x 16 + 1, 41 = 5 x 8 + 1.
@pytest.mark.parametrize(("shape", "side"), [((33, 49), 16), ((41, 30), 8), ((47, 35), 10), ((20, 90), 32)])
@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_any_size_has_the_whole_images_loss_and_gradient(small_weights, shape, side, pooling, padding):
    made = make_objective(small_weights, pooling=pooling, padding=padding)
    expected, found, _ = both(*made, shape, side)
    assert_same(expected, found)


@pytest.mark.parametrize("padding", ["replicate", "replicate_first", "circular"])
@pytest.mark.parametrize("pooling", ["rescaled", "max"])
def test_any_border(small_weights, padding, pooling):
    shape = (48, 32) if padding == "circular" else (49, 33)
    expected, found, _ = both(*make_objective(small_weights, pooling=pooling, padding=padding), shape, 16)
    assert_same(expected, found)


@pytest.mark.parametrize("loss", ADDITIVE)
@pytest.mark.parametrize("shape", [(67, 50), (49, 33)])
def test_any_style_loss_that_is_a_sum_over_positions(random_weights, loss, shape):
    """conv3_1 as well, so that tiles hold no position of some layers."""
    layers = ("conv1_1", "conv2_1", "conv2_2", "conv3_1"), ("conv3_1",)
    expected, found, _ = both(*make_objective(random_weights, layers, (loss,)), shape, 16)
    assert_same(expected, found)


def test_several_style_losses_styles_and_regions(small_weights):
    objective, encoder = make_objective(small_weights, losses=("gram", "wasserstein", "chain"))
    generator = np.random.default_rng(0)
    parts = []
    for share, place in ((0.3, np.s_[:, :20]), (0.7, np.s_[10:])):  # the first is empty in whole tiles
        mask = np.zeros((40, 52), np.float32)
        mask[place] = generator.random(mask[place].shape)
        sizes = {"conv1_1": 1, "conv2_1": 2, "conv2_2": 2}
        maps = {layer: mask[::step, ::step] for layer, step in sizes.items()}
        found = {k: tf.constant((m / m.mean())[None, :, :, None], tf.float32) for k, m in maps.items()}
        parts.append(Region(share, found))
    expected, found, _ = both(objective, encoder, (40, 52), 12, styles=2, regions=parts, blend=[1.0, 3.0])
    assert_same(expected, found)


def test_what_stays_as_it_is(small_weights):
    mask = np.zeros((1, 40, 52, 1), np.float32)
    mask[:, 10:30, 5:40] = 0.7
    mask[:, 30:] = 1
    expected, found, _ = both(*make_objective(small_weights), (40, 52), 16, keep=mask)
    assert_same(expected, found)
    assert not found[1][:, 30:].any()


@pytest.mark.parametrize("name", LOSS_NORMALIZATIONS)
def test_any_normalization(small_weights, name):
    expected, found, _ = both(*make_objective(small_weights, normalization=name), (33, 41), 16)
    assert_same(expected, found)


@pytest.mark.parametrize("tv", VARIATIONS)
def test_any_total_variation_in_bands(small_weights, tv, monkeypatch):
    monkeypatch.setattr("tfstyle.tiling.objective.BAND_PIXELS", 7 * 41)
    expected, found, _ = both(*make_objective(small_weights, tv=tv), (33, 41), 16)
    assert_same(expected, found)


@pytest.mark.parametrize("compile", ["graph", "xla"])
def test_any_compiler_and_few_compilations(small_weights, compile):
    """However many tiles: along each side their crops and insides have at most three pairs of sizes."""
    made = make_objective(small_weights)
    shape, side = ((97, 75), 8) if compile == "graph" else ((41, 35), 24)
    expected, found, tiled = both(*made, shape, side, compile)
    assert_same(expected, found)
    programs = sum(
        function.experimental_get_tracing_count() for function in tiled.tile_step._functions.values()
    )
    # Of the content's features, the style, and the two passes.
    assert 4 <= programs <= 4 * 9
    if compile == "graph":
        assert len(tiles(shape, side, receptive_field=tiled.receptive_field)) == 130


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_the_whole_depth(random_weights, pooling):
    made = make_objective(random_weights, DEEP, pooling=pooling)
    expected, found, _ = both(*made, (257, 225), 64)
    assert_same(expected, found)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_as_near_as_its_rounding(small_weights, dtype):
    """The whole image's own gradient is this far from float32's."""
    exact, _, _ = both(*make_objective(small_weights), (49, 65), 16)
    expected, found, _ = both(*make_objective(small_weights, dtype=dtype), (49, 65), 16)
    size = np.linalg.norm(exact[1])
    rounding = np.linalg.norm(expected[1] - exact[1]) / size
    assert 0 < rounding < 0.05
    assert np.linalg.norm(found[1] - exact[1]) / size < 1.5 * rounding
    assert float(found[0]["total"]) == pytest.approx(float(expected[0]["total"]), rel=0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_there_is_no_seam(small_weights, dtype):
    """The gradient steps no further from pixel to pixel across a tile's border than inside."""
    _, found, _ = both(*make_objective(small_weights, dtype=dtype), (128, 128), 16)
    assert_no_seam(found[1])


def assert_no_seam(gradient, side=16):
    for rows in (gradient, gradient.swapaxes(1, 2)):
        steps = np.square(np.diff(rows[0], axis=0)).mean((1, 2))
        across = np.arange(len(steps)) % side == side - 1
        inside = steps[~across]
        error = inside.std() * np.sqrt(1 / across.sum() + 1 / len(inside))
        assert abs(steps[across].mean() - inside.mean()) < 3 * error


def test_a_tile_that_sees_too_little_would_be_noticed(small_weights, monkeypatch):
    """The checks above can fail: with a third of a margin both do."""
    made = make_objective(small_weights)
    field = TiledObjective(*made, side=16).receptive_field
    monkeypatch.setattr("tfstyle.tiling.objective.receptive_field", lambda encoder: field._replace(margin=2))
    expected, found, _ = both(*made, (128, 128), 16)
    assert np.linalg.norm(found[1] - expected[1]) > 1e-3 * np.linalg.norm(expected[1])
    with pytest.raises(AssertionError):
        assert_no_seam(found[1])


@pytest.mark.parametrize("loss", OTHERS)
def test_losses_that_need_all_positions_refuse(small_weights, loss):
    with pytest.raises(ConfigError, match="need the whole picture at once; use tile=off, or gram"):
        TiledObjective(*make_objective(small_weights, losses=(loss,)), side=16)


def test_unit_gradients_refuse(small_weights):
    with pytest.raises(ConfigError, match="normalize_gradients needs all of a layer at once; use tile=off"):
        TiledObjective(*make_objective(small_weights, unit_gradients=True), side=16)


# The step


@pytest.mark.parametrize(
    "optimizer", [adam(), averaged(adam(), 0.9), lbfgs(3)], ids=["adam", "averaged", "lbfgs"]
)
def test_optimisers_move_an_image_in_host_memory_as_any(optimizer, monkeypatch):
    """In place and band by band, where they work element by element."""
    monkeypatch.setattr("tfstyle.tiling.host_step.BAND_PIXELS", 4 * 9)
    goal = make_picture(10, 9, 1)[None]

    def loss(x, targets):
        return {"total": tf.reduce_sum((x - targets) ** 4)}

    def evaluate(image, targets):
        terms, gradient = value_and_gradient(loss, tf.constant(image), targets=targets)
        return terms, gradient.numpy()

    x = tf.constant(make_picture(10, 9, 2)[None])
    one, other = make_step(loss, optimizer, compile="graph"), make_host_step(evaluate, optimizer)
    state = optimizer.init(x)
    y, other_state = in_host_memory((x, state)) if optimizer.elementwise else (x, state)
    for _ in range(6):
        x, state, terms = one(x, state, goal)
        y, other_state, other_terms = other(y, other_state, goal)
        assert float(other_terms["total"]) == pytest.approx(float(terms["total"]), rel=1e-4)
    np.testing.assert_allclose(
        optimizer.solution(tf.constant(y), other_state), optimizer.solution(x, state), atol=1e-5
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
    one = stylize(content, style, **options, optimizer=optimizer, tile="off")
    other = stylize(content, style, **options, optimizer=optimizer, tile=16)
    assert other.facts["tiles"] == (16, 16)
    assert one.facts["tiles"] is None
    np.testing.assert_allclose(other.history.total, one.history.total, rtol=1e-3)
    assert np.abs(other.image - one.image).mean() < 1e-3


def test_tiles_go_with_everything_at_once(options, content, style):
    """Masks, two styles, several scales, Adam's state and average carried over, a start from noise."""
    mask = np.zeros((40, 56))
    mask[:, :30] = 1
    masks = Masks([mask, 1 - mask], [np.ones((5, 5)), np.eye(4)], keep=np.eye(40, 56))
    many = options | {
        "optimizer": "adam", "warm_start": True, "ema_decay": 0.5, "scales": 2, "init": "noise",
        "color": "luminance", "tv_form": "nine_point", "style_scale": (1.0, 0.7),
    }  # fmt: skip
    one, other = (
        stylize(content, [style, style[::-1]], **many, masks=masks, tile=tile) for tile in ("off", 12)
    )
    assert other.history.scale == [1] * 4 + [2] * 4
    np.testing.assert_allclose(other.history.total, one.history.total, rtol=1e-3)


def test_a_keras_optimiser_in_tiles(options, content, style):
    import keras

    options |= {"optimizer": keras.optimizers.SGD(1.0)}
    one, other = (stylize(content, style, **options, tile=tile) for tile in ("off", 16))
    np.testing.assert_allclose(other.history.total, one.history.total, rtol=1e-3)


def test_the_content_is_not_painted_over_in_place(options, content, style):
    before = content.copy()
    stylize(content, style, **options, optimizer="adam", tile=16)
    assert (content == before).all()


@pytest.mark.parametrize(
    ("tile", "message"),
    [("some", "tile is 'some'; it can be auto, off, or a number"), (0, "tile is '0'"), (-5, "tile is '-5'")],
)
def test_tile_is_checked(tile, message):
    with pytest.raises(ConfigError, match=message):
        StyleConfig(tile=tile)


def test_an_impossible_tile_is_refused_before_anything_is_done(options, content, style):
    with pytest.raises(ConfigError, match="use tile=off"):
        Run(content, style, StyleConfig(**options, style_losses=("sliced",), tile=4096))


def test_auto_tiles_where_memory_is_short_and_says_so(options, content, style, monkeypatch, caplog):
    monkeypatch.setattr("tfstyle.tiling.memory.budget", lambda memory, device: 61e6 + 56 * 40 * 400)
    monkeypatch.setattr("tfstyle.tiling.memory.MIN_TILE_SIDE", 8)
    one = Run(content, style, StyleConfig(**options, optimizer="adam"))
    down, across = one.layouts[-1].side
    assert max(down, across) < 40
    assert "GB at 56 x 40 pixels, and 0.1 GB may be used: it is tiled" in caplog.text
    for _ in one:
        pass
    whole = stylize(content, style, **options, optimizer="adam", tile="off")
    np.testing.assert_allclose(one.history.total, whole.history.total, rtol=1e-3)


def test_auto_takes_pictures_whole_where_there_is_room(options, content, style):
    run = Run(content, style, StyleConfig(**options))
    assert run.layouts == [layout.Layout()] * len(run.scales)


def test_the_history_of_lbfgs_is_shortened_to_what_fits(options, content, style, monkeypatch, caplog):
    monkeypatch.setattr("tfstyle.tiling.memory.budget", lambda memory, device: 60e6 + 56 * 40 * 1600)
    monkeypatch.setattr("tfstyle.tiling.memory.MIN_TILE_SIDE", 8)
    monkeypatch.setattr("tfstyle.run.layout.LBFGS_TILE_SIDE", 8)
    run = Run(content, style, StyleConfig(**options, lbfgs_history=100))
    pairs = run.layouts[-1].lbfgs_pairs
    assert 1 <= pairs < 100
    assert f"L-BFGS keeps {pairs} pairs in place of 100" in caplog.text
    for _ in run:
        pass
    assert len(run._state.s) == pairs
    assert run.history.total[-1] < run.history.total[0]


def out_of_memory(*arguments, **options):
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def test_running_out_of_memory_turns_into_tiles(options, content, style, monkeypatch, caplog):
    monkeypatch.setattr("tfstyle.tiling.memory.MIN_TILE_SIDE", 8)
    run = Run(content, style, StyleConfig(**options, scales=1))
    monkeypatch.setattr(run, "_step", out_of_memory)
    assert len(list(run)) == 4
    assert run.layouts[0].side is not None
    assert "out of memory at 56 x 40 pixels: tiles of" in caplog.text
    whole = stylize(content, style, **options, scales=1, tile="off")
    np.testing.assert_allclose(run.history.total, whole.history.total, rtol=1e-3)


def test_tiles_that_do_not_fit_become_smaller(options, content, style, monkeypatch, caplog):
    monkeypatch.setattr("tfstyle.tiling.memory.MIN_TILE_SIDE", 8)
    run = Run(content, style, StyleConfig(**options, optimizer="adam", scales=1))
    run.layouts[0] = layout.Layout((32, 32), None)
    large = run.setup.tiled_objective((32, 32))
    monkeypatch.setattr(large.tile_step, "gradient", out_of_memory)
    assert len(list(run)) == 4
    assert max(run.layouts[0].side) <= 16
    assert "tiles of 14 x 14" in caplog.text or "tiles of 16 x 14" in caplog.text


@pytest.mark.parametrize("tile", ["off", 16])
def test_running_out_of_memory_is_one_line_where_tiles_were_not_left_to_tfstyle(
    options, content, style, monkeypatch, tile
):
    monkeypatch.setattr("tfstyle.tiling.tile_step.TileStep.gradient", out_of_memory)
    run = Run(content, style, StyleConfig(**options, tile=tile, scales=1))
    monkeypatch.setattr(run, "_step", out_of_memory)
    with pytest.raises(
        RunError, match="out of memory at 56 x 40 pixels; use a smaller size or smaller tiles"
    ):
        list(run)


def test_the_tiles_that_auto_chose_are_used_again(options, content, style, monkeypatch, tmp_path):
    monkeypatch.setattr("tfstyle.tiling.memory.budget", lambda memory, device: 61e6 + 56 * 40 * 400)
    monkeypatch.setattr("tfstyle.tiling.memory.MIN_TILE_SIDE", 8)
    options |= {"optimizer": "adam", "scales": 1}
    whole = stylize(content, style, **options)
    for step in iterate(content, style, **options, checkpoint=tmp_path / "run", checkpoint_every=0):
        if step.iteration == 2:
            break
    monkeypatch.setattr("tfstyle.tiling.memory.budget", lambda memory, device: 1e12)
    resumed = stylize(content, style, **options, checkpoint=tmp_path / "run", resume=True)
    assert resumed.facts["tiles"] == whole.facts["tiles"] is not None
    assert (resumed.image == whole.image).all()


def test_ctrl_c_while_an_image_moves_in_place_stores_no_half_of_it(
    options, content, style, monkeypatch, tmp_path
):
    options |= {"optimizer": "adam", "scales": 1, "tile": 16}
    monkeypatch.setattr("tfstyle.tiling.host_step.BAND_PIXELS", 10 * 56)
    whole = stylize(content, style, **options)
    calls, rows = [], host_step._state_band

    def interrupted(state, band):
        calls.append(band)
        if len(calls) == 2 * 4 + 3:  # the third band of four of the third iteration
            raise KeyboardInterrupt
        return rows(state, band)

    monkeypatch.setattr(host_step, "_state_band", interrupted)
    folder = {"checkpoint": tmp_path / "run", "resume": True}
    with pytest.raises(KeyboardInterrupt):
        stylize(content, style, **options, **folder, checkpoint_every=0)
    assert len(calls) == 11
    resumed = stylize(content, style, **options, **folder)
    assert (resumed.image == whole.image).all()


def test_the_log_is_quiet_where_nothing_is_tiled(options, content, style, caplog):
    with caplog.at_level(logging.WARNING):
        stylize(content, style, **options)
    assert not caplog.text

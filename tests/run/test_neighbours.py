"""The method neighbours through `stylize`: its scales, regions, rotations, colours, and resumed runs."""

import numpy as np
import pytest

from tests import reference
from tests.conftest import make_image
from tfstyle import Masks, StyleConfig, adam, stylize
from tfstyle.errors import ConfigError
from tfstyle.images import luminance, match_chroma, match_colors, resize
from tfstyle.losses import Style
from tfstyle.run import Run, make_setup
from tfstyle.run.matching import StyleSource, match_hypercolumns, query_image, style_rotations

FAST = {"method": "neighbours", "size": 48, "min_scale": 24, "iterations": 2, "precision": "float32"}


@pytest.fixture
def options(small_file):
    return {**FAST, "weights": str(small_file)}


@pytest.fixture
def setup(options):
    return make_setup(StyleConfig(**options), "/CPU:0")


def columns(setup, image):
    """Return the hypercolumns of an image, ``[h, w, N]``, by loops over the encoder's features."""
    features = setup.encoder(image[None])
    maps = [features[layer][0].numpy().astype(float) for layer in setup.style_layers]
    return reference.hypercolumns(maps, image.shape[0] // 4, image.shape[1] // 4)


def matched(setup, query, sources, *, masks=None, rotated=False):
    masks = [np.ones(query.shape[:2], np.float32)] if masks is None else masks
    return match_hypercolumns(setup, query, regions=sources, masks=masks, rotated=rotated)


def test_the_last_size_has_a_second_scale_for_single_layers(content, style, options):
    run = Run(content, style, StyleConfig(**options))
    assert [(scale.shape, scale.hypercolumns) for scale in run.scales] == [
        ((17, 24), True), ((34, 48), True), ((34, 48), False),
    ]  # fmt: skip
    steps = list(run)
    assert [step.scale for step in steps] == [1, 1, 2, 2, 3, 3]
    history = run.result().history
    assert all(len(values) == 6 for values in history.style_layers.values())
    assert [any(values[i] for values in history.style_layers.values()) for i in (0, 2, 4)] == [0, 0, 1]
    assert history.style[1] < history.style[0]
    assert history.content == [0] * 6  # no content loss by default
    assert run.setup.style_layers == ("conv1_1", "conv1_2", "conv2_1", "conv2_2")


def test_matches_are_the_nearest_hypercolumns_of_the_style(setup):
    query, style = make_image(24, 32, 1), make_image(28, 20, 2)
    target = matched(setup, query, [[StyleSource(style)]])
    q, s = (columns(setup, image).reshape(-1, 384) for image in (query, style))
    centred, samples = q - q.mean(0), s - s.mean(0)
    norms = np.linalg.norm(centred, axis=1)[:, None] * np.linalg.norm(samples, axis=1)
    best = s[np.argmax(centred @ samples.T / norms, 1)]
    best /= np.linalg.norm(best, axis=1, keepdims=True)
    assert reference.relative_error(target.columns.numpy().reshape(-1, 384), best) < 1e-4


def test_an_image_matches_itself(setup):
    image = make_image(24, 32, 1)
    target = matched(setup, image, [[StyleSource(image)]])
    expected = columns(setup, image)
    expected /= np.linalg.norm(expected, axis=2, keepdims=True)
    assert reference.relative_error(target.columns[0].numpy(), expected) < 1e-4


def test_rotations_are_found(setup):
    """A rotated style image has the features of the query only if its rotations are searched."""
    image = make_image(24, 32, 1)
    turned = np.ascontiguousarray(np.rot90(image))
    expected = columns(setup, image)
    expected /= np.linalg.norm(expected, axis=2, keepdims=True)
    errors = [
        reference.relative_error(
            matched(setup, image, [[StyleSource(turned)]], rotated=flag).columns[0].numpy(), expected
        )
        for flag in (False, True)
    ]
    assert errors[1] < 1e-4 < 0.05 < errors[0]


def test_regions_take_neighbours_from_their_own_style(setup):
    query, styles = make_image(24, 32, 1), [make_image(24, 24, seed) for seed in (2, 3)]
    left = np.zeros((24, 32), np.float32)
    left[:, :16] = 1
    both = matched(setup, query, [[StyleSource(image)] for image in styles], masks=[left, 1 - left])
    halves = [query[:, :16], query[:, 16:]]
    for number, style in enumerate(styles):
        s = columns(setup, style).reshape(-1, 384)
        s /= np.linalg.norm(s, axis=1, keepdims=True)
        part = both.columns[0, :, 4 * number : 4 * number + 4].numpy().reshape(-1, 384)
        assert part.shape[0] == halves[number].size // 48
        assert np.abs(part @ s.T - 1).min(1).max() < 1e-4  # each is one of this style's vectors


def test_a_style_mask_restricts_the_neighbours(setup):
    query, style = make_image(24, 32, 1), make_image(24, 24, 2)
    top = np.zeros((24, 24), np.float32)
    top[:12] = 1
    for rotated in (False, True):
        target = matched(setup, query, [[StyleSource(style, top)]], rotated=rotated)
        allowed = [
            columns(setup, image)[mask[::4, ::4] > 0]
            for image, mask in zip(
                style_rotations(style, rotated=rotated), style_rotations(top, rotated=rotated), strict=True
            )
        ]
        s = np.concatenate(allowed)
        s /= np.linalg.norm(s, axis=1, keepdims=True)
        assert np.abs(target.columns.numpy().reshape(-1, 384) @ s.T - 1).min(1).max() < 1e-4


def test_alpha_moves_the_query_from_the_result_to_the_content_image():
    content, image = make_image(16, 24, 1), np.full((16, 24, 3), 0.5, np.float32)
    np.testing.assert_allclose(query_image(content, image, alpha=1.0), content, atol=1e-6)
    detail = reference.laplacian_pyramid(content.astype(float), 1)[0]
    free = query_image(content, image, alpha=0.0)
    np.testing.assert_allclose(free, np.clip(0.5 + detail, 0, 1), atol=1e-6)


def test_alpha_has_an_effect(content, style, options):
    images = [
        stylize(content, style, **{**options, "iterations": 10, "alpha": alpha}).image for alpha in (0.0, 1.0)
    ]
    assert np.abs(images[0] - images[1]).max() > 0.005


@pytest.mark.parametrize(
    "more",
    [
        {"optimizer": "adam", "learning_rate": 0.002},
        {"pyramid_levels": 0},
        {"optimizer": "adam", "ema_decay": 0.5, "warm_start": True},
        {"content_weight": 0.1, "compile": "eager"},
        {"padding": "circular"},
        {"precision": "bfloat16"},
        {"style_rotations": False},
    ],
    ids=str,
)
def test_every_optimiser_lowers_the_loss(content, style, options, more):
    history = stylize(content, style, **{**options, "iterations": 8, **more}).history
    assert history.style[7] < history.style[0]
    assert history.style[-1] < history.style[-8]


def test_several_styles_masks_and_a_kept_region(content, style, options):
    height, width = content.shape[:2]
    left, keep = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    left[:, : width // 2], keep[-8:] = 1, 1
    styles = [style, style[::-1].copy()]
    result = stylize(content, styles, **options, masks=Masks(content=[left, 1 - left], keep=keep))
    resized = resize(content, result.image.shape[:2])
    np.testing.assert_allclose(result.image[-3:], resized[-3:], atol=1e-5)
    assert np.abs(result.image[:20] - resized[:20]).max() > 0.01
    blends = [stylize(content, styles, **options, style_blend=blend).image for blend in ((1, 0), (0, 1))]
    alone = stylize(content, style, **options).image
    np.testing.assert_allclose(blends[0], alone, atol=2e-3)
    assert np.abs(blends[1] - alone).max() > 2 * np.abs(blends[0] - alone).max()


@pytest.mark.parametrize("given", ["keras", "ours"])
def test_a_given_optimiser_moves_the_image_as_the_named_one_does(content, style, options, given):
    """An `Optimizer` has the bounds of pixels and therefore moves the pixels, not the coefficients."""
    import keras

    optimizer = keras.optimizers.Adam(0.005, beta_2=0.99, epsilon=1e-10) if given == "keras" else adam(0.005)
    more = {} if given == "keras" else {"pyramid_levels": 0}
    runs = [
        stylize(content, style, **{**options, "iterations": 6}, optimizer=optimizer),
        stylize(
            content, style, **{**options, "iterations": 6}, optimizer="adam", learning_rate=0.005, **more
        ),
    ]
    np.testing.assert_allclose(runs[0].history.style, runs[1].history.style, rtol=2e-3)
    if given == "ours":
        with pytest.raises(ConfigError, match="in_pyramid"):
            stylize(content, style, **options, optimizer=optimizer, pyramid_levels=3)


def test_style_images_are_encoded_without_circular_padding(options):
    setup = make_setup(StyleConfig(**options, padding="circular"), "/CPU:0")
    image, style = make_image(24, 32, 1), make_image(24, 24, 2)
    target = matched(setup, image, [[StyleSource(style)]])
    maps = setup.style_encoder(style[None])
    s = reference.hypercolumns([maps[layer][0].numpy() for layer in setup.style_layers], 6, 6).reshape(
        -1, 384
    )
    s /= np.linalg.norm(s, axis=1, keepdims=True)
    assert np.abs(target.columns.numpy().reshape(-1, 384) @ s.T - 1).min(1).max() < 1e-4


def test_positions_outside_of_all_masks_change_no_match(setup):
    query, style = make_image(24, 32, 1), make_image(24, 24, 2)
    left = np.zeros((24, 32), np.float32)
    left[:, :16] = 1
    alone = matched(setup, query, [[StyleSource(style)]], masks=[left])
    second = matched(
        setup, query, [[StyleSource(query)], [StyleSource(style)]], masks=[np.zeros_like(left), left]
    )
    np.testing.assert_array_equal(alone.columns[:, :, :4], second.columns[:, :, :4])
    np.testing.assert_array_equal(alone.weights, second.weights)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_resumed_run_equals_an_uninterrupted_one(content, style, options, tmp_path, optimizer):
    """It is interrupted in the middle of the second scale, whose targets depend on its first image."""
    from tfstyle.run import CheckpointFolder

    config = StyleConfig(**{**options, "iterations": 6, "optimizer": optimizer})
    whole = Run(content, style, config)
    for _ in whole:
        pass
    run = Run(content, style, config, checkpoints=CheckpointFolder(tmp_path, every=0))
    for step in run:
        if (step.scale, step.iteration) == (2, 3):
            run.stop()
    resumed = Run(content, style, config, checkpoints=CheckpointFolder(tmp_path, resume=True))
    for _ in resumed:
        pass
    np.testing.assert_array_equal(resumed.result().image, whole.result().image)
    assert resumed.history.total == whole.history.total


def test_tiles_are_refused_in_words(content, style, options):
    with pytest.raises(ConfigError, match=r'^method="neighbours" .*tile="off"'):
        Run(content, style, StyleConfig(**options, tile=32))


def test_a_style_without_an_image_is_refused(content, options):
    style = Style([{"conv1_1": np.eye(64, dtype=np.float32)}], {})
    with pytest.raises(ConfigError, match=r"method=.neighbours. needs the style's image"):
        Run(content, style, StyleConfig(**options))


def test_other_style_losses_are_refused_with_the_method():
    with pytest.raises(ConfigError, match="has its own style loss"):
        StyleConfig(method="neighbours", style_losses=("gram",))


def test_the_final_loss_alone_in_the_usual_objective(content, style, options):
    config = StyleConfig(**{**options, "method": "gatys", "style_losses": ("neighbours",), "iterations": 8})
    run = Run(content, style, config)
    assert [scale.hypercolumns for scale in run.scales] == [False, False]
    for _ in run:
        pass
    assert run.history.style[-1] < run.history.style[-8]
    assert run.history.content[-1] > 0


def test_the_final_loss_equals_slow_loops(content, style, options):
    """At the first iteration of the usual objective, with rotations of the style image."""
    config = StyleConfig(
        **{
            **options, "size": 30, "method": "gatys", "style_losses": ("neighbours",), "iterations": 1,
            "scales": 1, "style_size": 32,
            "style_layers": ("conv1_1", "conv2_1"), "style_layer_decay": 1.0,
        }
    )  # fmt: skip
    run = Run(content, style, config)
    (step,) = run
    image, source = run.inputs.content.rgb, run.inputs.styles[0].on_white()
    distances = []
    for layer in ("conv1_1", "conv2_1"):
        x = run.setup.encoder(image[None])[layer].numpy()[0]
        s = [run.setup.encoder(np.rot90(source, k)[None])[layer].numpy()[0] for k in range(4)]
        x, s = x.reshape(-1, x.shape[2]), np.concatenate([f.reshape(-1, f.shape[2]) for f in s])
        assert len(s) <= 4096  # all positions are taken
        distances.append(reference.nearest_distance(x.astype(float), s.astype(float)))
    assert step.losses["style"] == pytest.approx(np.mean(distances), rel=1e-3)


def test_the_colours_follow_the_blend(content, options):
    styles = [np.full((40, 40, 3), value, np.float32) + make_image(40, 40, 1) * 0.1 for value in (0.2, 0.7)]
    styles[1] = np.concatenate([styles[1]] * 3)  # a larger image has no larger share
    means = [
        stylize(content, styles, **options, style_blend=(1 - part, part)).image.mean()
        for part in (0.0, 0.25, 0.5, 1.0)
    ]
    low, high = styles[0].mean(), styles[1].mean()
    expected = [low + part * (high - low) for part in (0.0, 0.25, 0.5, 1.0)]
    np.testing.assert_allclose(means, expected, atol=0.03)


def test_soft_masks_have_a_soft_edge_of_the_colours(content, options):
    styles = [np.full((40, 40, 3), value, np.float32) + make_image(40, 40, 1) * 0.1 for value in (0.2, 0.7)]
    ramp = np.tile(np.linspace(0, 1, content.shape[1], dtype=np.float32), (content.shape[0], 1))
    image = stylize(content, styles, **options, masks=[1 - ramp, ramp]).image
    columns = image.mean((0, 2))
    assert columns[-1] - columns[0] > 0.3
    assert np.abs(np.diff(columns)).max() < 0.2


def test_noise_of_a_grey_result_is_not_amplified_without_limit():
    noisy = 0.5 + np.random.default_rng(0).normal(0, 0.001, (24, 24, 3))
    colourful = make_image(24, 24, 2)
    matched_colors = match_colors(noisy, colourful, max_gain=4.0)
    assert matched_colors.std((0, 1)).max() < 0.0045
    np.testing.assert_allclose(matched_colors.mean((0, 1)), colourful.mean((0, 1)), atol=1e-3)


def test_frames_of_a_video_keep_their_colours(content, style, options):
    run = Run(content, style, StyleConfig(**options))
    frame = run.inputs.for_frame(run.inputs.original)
    np.testing.assert_allclose(frame.finish(run.inputs.content.rgb), run.inputs.content.rgb, atol=1e-6)


def test_the_chroma_is_that_of_the_style_and_the_luminance_that_of_the_result(content, style, options):
    run = Run(content, style, StyleConfig(**options))
    for _ in run:
        pass
    plain = np.clip(run.iterate(), 0, 1)
    moved = stylize(content, style, **options, color="style_chroma").image
    inside = (moved > 0.001).all(-1) & (moved < 0.999).all(-1)
    np.testing.assert_allclose(luminance(moved)[inside], luminance(plain)[inside], atol=2e-3)
    assert np.abs(moved - plain).max() > 0.01


def test_the_result_has_the_colours_of_the_style(content, style, options):
    """Cosine distances leave the contrast free, so that mean and covariance are matched at the end."""
    content, style = (0.4 * image + 0.3 for image in (content, style))  # no pixel is clipped
    result = stylize(content, style, **options)
    source = resize(style, (40, 30)).reshape(-1, 3)
    pixels = result.image.reshape(-1, 3)
    np.testing.assert_allclose(pixels.mean(0), source.mean(0), atol=0.01)
    np.testing.assert_allclose(np.cov(pixels.T), np.cov(source.T), atol=0.002)


def test_each_region_has_the_colours_of_its_style(content, options):
    styles = [np.full((40, 40, 3), value, np.float32) + make_image(40, 40, 1) * 0.1 for value in (0.2, 0.7)]
    left = np.zeros(content.shape[:2], np.float32)
    left[:, : left.shape[1] // 2] = 1
    image = stylize(content, styles, **options, masks=[left, 1 - left]).image
    half = image.shape[1] // 2
    for part, style in zip((image[:, : half - 1], image[:, half + 1 :]), styles, strict=True):
        np.testing.assert_allclose(part.mean((0, 1)), style.mean((0, 1)), atol=0.02)


def test_the_chroma_is_matched_and_smoothed_as_by_slow_loops(monkeypatch):
    content, style = (make_image(12, 15, seed).astype(float) * 0.4 + 0.3 for seed in (1, 2))
    y = luminance(make_image(12, 15, 3) * 0.3 + 0.35)
    yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    chroma, wanted = ((x.reshape(-1, 3) @ yiq.T)[:, 1:] for x in (content, style))
    covariance, goal = np.cov(chroma.T, bias=True), np.cov(wanted.T, bias=True)

    def root(matrix, power=0.5):
        values, vectors = np.linalg.eigh(matrix)
        return vectors @ np.diag(values**power) @ vectors.T

    covariance, goal = covariance + 1e-5 * np.eye(2), goal + 1e-5 * np.eye(2)
    half, inverse = root(covariance), root(covariance, -0.5)
    moved = (chroma - chroma.mean(0)) @ (inverse @ root(half @ goal @ half) @ inverse).T + wanted.mean(0)
    moved = moved.reshape(12, 15, 2)
    clipped = np.clip(y.astype(float), (style @ yiq[0]).min(), (style @ yiq[0]).max())
    for _ in range(5):
        moved = reference.joint_bilateral(moved, clipped)
    expected = np.clip(np.concatenate([clipped[..., None], moved], 2) @ np.linalg.inv(yiq).T, 0, 1)
    np.testing.assert_allclose(match_chroma(content, style, y=y), expected, atol=1e-5)


def test_a_graph_serves_hypercolumns_of_all_sizes(content, style, options):
    """The step is traced once for the hypercolumns and once for the last scale."""
    run = Run(content, style, StyleConfig(**{**options, "min_scale": 12}))
    for _ in run:
        pass
    step = run.setup.steps[run.steps_per_call]
    assert step.experimental_get_tracing_count() == 2

"""Tests of the options: colours, masks, sizes, initial images, and every option with every other."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from PIL import Image

import tfstyle
from tests import reference
from tests.conftest import make_image
from tfstyle import Masks, StyleConfig, stylize
from tfstyle.config import CONTENT_WEIGHT
from tfstyle.errors import ConfigError
from tfstyle.images import color, load, resize
from tfstyle.run import Run, interpolate, mix_styles

LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}


@pytest.fixture
def run(small_file, content, style):
    def go(content=content, style=style, **options):
        fast = {"size": 32, "iterations": 4, "weights": str(small_file), "precision": "float32", **LAYERS}
        fast["compile"] = "eager"  # nothing to trace
        masks = options.pop("masks", None)
        return stylize(content, style, masks=masks, **{**fast, **options})

    return go


@pytest.fixture
def left():
    mask = np.zeros((40, 56), np.float32)
    mask[:, :28] = 1
    return mask


# Every option with every other


@pytest.fixture(scope="module")
def choices(tmp_path_factory, small_file):
    """Option -> its values. Options that exclude each other are one option here."""
    folder = tmp_path_factory.mktemp("masks")
    halves = np.zeros((2, 30, 20), np.uint8)
    halves[0, :, :15], halves[1, :, 5:] = 255, 255
    paths = [str(folder / f"{i}.png") for i in range(2)]
    for path, half in zip(paths, halves, strict=True):
        Image.fromarray(half).save(path)
    Image.fromarray((make_image(40, 40, 9) * 255).astype(np.uint8)).save(folder / "fine.png")
    corner = np.zeros((8, 8), np.uint8)
    corner[:3, :3] = 200
    Image.fromarray(corner).save(folder / "keep.png")
    file = str(folder / "fine.png")
    return {
        "size": [{"size": 48}, {"size": 50, "enlarge": True}],
        "size_of": [{"size_of": name} for name in ("longest", "shortest", "area")],
        "style size": [{}, {"style_scale": (0.8, 1.0)}, {"style_size": (40,)}],
        "network": [{"network": "vgg19"}, {"network": "vgg16"}],
        "pooling": [{"pooling": name} for name in ("avg", "max", "rescaled")],
        "padding": [
            {"padding": name} for name in ("zeros", "reflect", "replicate", "replicate_first", "circular")
        ],
        "pixels": [{}, {"pixel_range": 256.0, "feature_scale": 0.5}],
        "normalize_weights": [{"normalize_weights": flag} for flag in (False, True)],
        "layer weights": [
            {"style_layer_decay": 0.5},
            {"style_layer_weights": (1, 2), "content_layer_weights": (3,)},
        ],
        "spectrum_weight": [{"spectrum_weight": weight} for weight in (0.0, 0.5)],
        "border_weight": [{}, {"border_weight": 1.0}],
        "content_loss": [
            {},
            {"content_loss": ("self_similarity",), "self_similarity_weight": 0.3},
            {"content_loss": ("features", "self_similarity")},
        ],
        "weights": [{}, {"content_weight": 0.0}, {"tv_weight": 0.0, "style_weight": 2.0}],
        "style_losses": [
            {},
            {"style_losses": ("gram",)},
            {"style_losses": ("mean_deviation", "gram"), "style_loss_weights": (1, 0.5)},
            {"style_losses": ("wasserstein",)},
            {"style_losses": ("histogram", "shift")},
            {"style_losses": ("sliced",)},
            {"style_losses": ("local_by_content", "chain")},
            {"style_losses": ("local", "across", "blurred")},
            {"style_losses": ("gram", "neighbours")},
            {"method": "neighbours", "alpha": 0.25},
            {"method": "neighbours", "style_rotations": False},
        ],
        "tv": [{"tv_form": name} for name in ("mean_squared", "sum_squared", "sum_absolute", "nine_point")],
        "normalize_gradients": [{"normalize_gradients": flag} for flag in (False, True)],
        "blend": [{}, {"style_blend": (2, 1)}],
        "fine_style": [{}, {"fine_style": file}],
        "units": [{"loss_normalization": name} for name in ("balanced", "paper", "mean", "channels", "root")],
        "color": [
            {"color": name}
            for name in (
                "style",
                "luminance",
                "cholesky",
                "root",
                "transport",
                "transport_result",
                "content_chroma",
                "style_chroma",
            )
        ],
        "masks": [
            {},
            {"masks": tuple(paths)},
            {"masks": tuple(paths), "style_masks": tuple(paths), "mask_blur": 0.05},
        ],
        "content_mask": [{}, {"content_mask": str(folder / "keep.png")}],
        "guidance": [{"guidance": name} for name in ("average", "dilate", "erode")],
        "init": [
            {"init": name}
            for name in ("content", "noise", "style", "grey", "uniform", "mean", "style_stats", file)
        ],
        "init_noise": [{}, {"init_noise": 0.1, "seed": 3}],
        "optimizer": [
            {"optimizer": "lbfgs", "lbfgs_history": 3},
            {"optimizer": "lbfgs_fixed_step"},
            {"optimizer": "adam", "learning_rate": 0.01},
            {"optimizer": "adam", "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "warm_start": True},
            {"optimizer": "adam", "epsilon_corrected": True},
            {"optimizer": "addons:lamb"},
        ],
        "clamp": [{"clamp": flag} for flag in (True, False)],
        "pyramid_levels": [{}, {"pyramid_levels": 0}, {"pyramid_levels": 3}],
        "ema_decay": [{}, {"ema_decay": 0.5}],
        "iterations": [{}, {"first_iterations": 4, "iteration_decay": 2.0}],
        "scales": [{"scales": 2}, {"scale_factor": 1.5, "min_scale": 20}],
        "tolerance": [{}, {"tolerance": 0.01}],
        "precision": [{"precision": "float32"}, {"precision": "bfloat16"}],
        "steps_per_call": [{}, {"steps_per_call": 2}],
    }


def covering(choices):
    """Yield rows of one value per option such that every pair of values of two options is in some row."""
    uncovered = {
        ((a, i), (b, j))
        for a, b in itertools.combinations(choices, 2)
        for i in range(len(choices[a]))
        for j in range(len(choices[b]))
    }
    order = {name: position for position, name in enumerate(choices)}

    def pair(a, b):
        return (a, b) if order[a[0]] < order[b[0]] else (b, a)

    generator = np.random.default_rng(0)
    while uncovered:
        (a, b), row = min(uncovered), {}
        row[a[0]], row[b[0]] = a[1], b[1]
        for name in generator.permutation([n for n in choices if n not in row]):
            counts = [
                sum(pair((name, i), chosen) in uncovered for chosen in row.items())
                for i in range(len(choices[name]))
            ]
            row[name] = int(np.argmax(counts))
        uncovered -= {pair(x, y) for x, y in itertools.combinations(row.items(), 2)}
        yield {key: value for name, i in row.items() for key, value in choices[name][i].items()}


def test_the_choices_are_of_every_option(choices):
    named = {key for values in choices.values() for value in values for key in value}
    rest = {"iterations", "weights", "content_layers", "style_layers", "device", "max_pixels", "memory"}
    rest |= {"compile", "tile"}  # tested below
    rest |= {"quality"}  # it only changes other options
    assert named | rest == {field.name for field in dataclasses.fields(StyleConfig)}


def check_run(content, style, row, **options):
    """Check the result of a run with two style images and the options of a row."""
    if row["optimizer"].startswith("addons:"):  # their step runs in Python
        row.pop("steps_per_call", None)
    styles = [style, style[::-1, ::-1].copy()]
    result = stylize(content, styles, **{"iterations": 2, **LAYERS, **row, **options})
    assert np.isfinite(result.image).all(), row
    assert 0 <= result.image.min() <= result.image.max() <= 1, row
    assert np.isfinite(result.history.total).all(), row
    assert result.image.std() > 0, row


PARTS = 6  # so that several processes can share the rows


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_option_works_with_every_other(choices, small_file, content, style, part):
    for row in itertools.islice(covering(choices), part, None, PARTS):
        check_run(content, style, row, weights=str(small_file), compile="eager")


@pytest.mark.slow
def test_every_value_of_an_option_compiles(choices, small_file, content, style):
    # A fine style adds runs, and further scales and style images add traces of the same functions.
    compiled = {name: values for name, values in choices.items() if name not in ("fine_style", "scales")}
    for k in range(max(map(len, compiled.values()))):
        row = {key: value for values in compiled.values() for key, value in values[k % len(values)].items()}
        check_run(content, style, row, weights=str(small_file), compile="graph", scales=1)


@pytest.mark.slow
def test_every_option_works_in_tiles(choices, small_file, content, style):
    """Every value at least once, except values that need the whole image and are refused."""
    whole_image = {
        "histogram", "sliced", "local", "local_by_content", "blurred", "neighbours", "self_similarity",
    }  # fmt: skip
    values_in_tiles = {
        name: [
            value
            for value in values
            if not whole_image & {*value.get("style_losses", ()), *value.get("content_loss", ())}
            and value.get("method") != "neighbours"
            and value.get("padding") != "circular"
            and not value.get("normalize_gradients")
        ]
        for name, values in choices.items()
        if name not in ("scales", "iterations", "compile")
    }
    values_in_tiles["style_losses"].append({"style_losses": ("across", "shift")})
    for k in range(max(map(len, values_in_tiles.values()))):
        row = {
            key: value
            for values in values_in_tiles.values()
            for key, value in values[k % len(values)].items()
        }
        fast = {"iterations": 1, "steps_per_call": 1, "scales": 1, "compile": "eager", "precision": "float32"}
        options = {"weights": str(small_file), **LAYERS, **row, **fast}
        styles = [style, style[::-1, ::-1].copy()]
        whole, tiled = (stylize(content, styles, **options, tile=tile) for tile in ("off", 24))
        assert tiled.facts["tiles"] == (24, 24)
        assert tiled.history.total == pytest.approx(whole.history.total, rel=1e-4), row


# Colour


def test_luminance_keeps_the_contents_chroma(run, content):
    for how in ("luminance", "content_chroma"):
        result = run(color=how, iterations=8)
        before = load(content).fitted(32).rgb
        # Without clipping, the differences of the channels are the chroma.
        inside = ((result.image > 0) & (result.image < 1)).all(-1)
        assert inside.mean() > 0.5
        for a, b in ((0, 1), (1, 2)):
            chroma = result.image[..., a] - result.image[..., b]
            assert np.allclose(chroma[inside], (before[..., a] - before[..., b])[inside], atol=1e-5)
        assert np.abs(color.luminance(result.image) - color.luminance(before)).mean() > 0.01


def test_color_transport_recolours_the_style_image(run, content, style):
    expected = run(style=color.match_colors(load(style).fitted(32).rgb, load(content).fitted(32).rgb))
    result = run(color="transport")
    assert result.history.total == pytest.approx(expected.history.total, rel=1e-3)


def test_color_transport_result_recolours_the_result(run, content):
    result, before = run(color="transport_result", iterations=8).image, load(content).fitted(32).rgb
    assert np.allclose(result.mean((0, 1)), before.mean((0, 1)), atol=0.03)
    covariances = [np.cov(p.reshape(-1, 3).T) for p in (result, before)]
    assert np.linalg.norm(covariances[0] - covariances[1]) < 0.25 * np.linalg.norm(covariances[1])


@pytest.mark.parametrize(
    "how", ["luminance", "cholesky", "root", "transport", "transport_result", "content_chroma"]
)
@pytest.mark.parametrize("what", ["content", "style", "both"])
def test_grey_and_single_coloured_images_give_finite_results(run, content, style, how, what):
    flat = np.full((40, 40, 3), (0.7, 0.2, 0.4), np.float32)
    grey = np.repeat(make_image(40, 40, 5)[..., :1], 3, -1)
    images = {
        "content": {"content": flat},
        "style": {"style": flat},
        "both": {"content": grey, "style": grey},
    }
    result = run(color=how, iterations=2, **images[what])
    assert np.isfinite(result.image).all()


# Masks


def test_each_region_gets_its_own_style(run, left):
    reds, blues = np.zeros((2, 40, 40, 3), np.float32)
    reds[..., 0], blues[..., 2] = 0.9, 0.9
    reds[::2], blues[:, ::2] = 0.5, 0.5
    options = {"style": [reds, blues], "iterations": 30, "content_weight": 0.0, "init": "grey"}
    image = run(masks=Masks(content=[left, 1 - left]), **options).image
    red_left, red_right = image[:, :13, 0].mean(), image[:, 19:, 0].mean()
    blue_left, blue_right = image[:, :13, 2].mean(), image[:, 19:, 2].mean()
    assert red_left > red_right + 0.1
    assert blue_right > blue_left + 0.1


def test_a_mask_of_the_whole_image_changes_nothing(run):
    expected = run(iterations=2).history.total
    white = np.ones((10, 10), np.float32)
    assert run(iterations=2, masks=Masks(content=[white])).history.total == pytest.approx(expected, rel=1e-4)


def test_a_style_mask_selects_the_positions_of_the_gram_matrix(run, small_file, content, style):
    """The Gram matrix of the style is the mean over the positions in the mask."""
    half = np.zeros(style.shape[:2], np.float32)
    half[:, : style.shape[1] // 2] = 1
    encoder = tfstyle.Encoder(("conv1_1",), small_file, padding="reflect")
    features = [encoder(image[None])["conv1_1"][0].numpy() for image in (content, style)]
    grams = [reference.gram(f) for f in (features[0], features[1][:, : style.shape[1] // 2])]
    expected = np.sum((grams[0] - grams[1]) ** 2) / np.sum(grams[1] ** 2)
    options = {"style_layers": ("conv1_1",), "iterations": 1, "size": 56, "content_weight": 0.0}
    options |= {"style_losses": ("gram",)}
    style_loss = run(masks=Masks(styles=[half]), **options).history.style[0]
    assert style_loss == pytest.approx(expected, rel=1e-3)


def test_the_region_of_content_mask_is_not_changed(run, content, left):
    for optimizer in ("lbfgs", "adam"):
        image = run(masks=Masks(keep=left), optimizer=optimizer, iterations=6).image
        before = load(content).fitted(32).rgb
        assert np.array_equal(image[:, :15], before[:, :15])
        assert np.abs(image[:, 17:] - before[:, 17:]).mean() > 0.01


def test_a_mask_as_a_path_and_as_an_array_give_the_same_result(small_file, content, style, left, tmp_path):
    Image.fromarray((left * 255).astype(np.uint8)).save(tmp_path / "left.png")
    options = {"size": 32, "iterations": 3, "weights": str(small_file), "compile": "eager", **LAYERS}
    by_path = stylize(content, style, content_mask=tmp_path / "left.png", **options)
    by_array = stylize(content, style, masks=Masks(keep=left), **options)
    assert np.array_equal(by_path.image, by_array.image)
    steps = list(tfstyle.iterate(content, style, StyleConfig().replace(options), masks=Masks(keep=left)))
    assert np.array_equal(steps[-1].image, by_array.image)


def test_masks_as_arguments_are_combined_with_those_of_the_config(run, left, tmp_path):
    Image.fromarray((left * 255).astype(np.uint8)).save(tmp_path / "left.png")
    expected = run(masks=Masks(content=[1 - left], keep=left)).history.total
    assert (
        run(masks=Masks(content=[1 - left]), content_mask=str(tmp_path / "left.png")).history.total
        == expected
    )
    stacked = run(masks=np.stack([1 - left]), content_mask=str(tmp_path / "left.png"))
    assert stacked.history.total == expected


def test_masks_as_arguments_replace_those_of_the_config(run, left):
    """The files that the config names are not read, and their number does not matter."""
    given = Masks(content=[1 - left])
    replaced = run(config=StyleConfig(masks=("gone.png", "gone.png")), masks=given).history.total
    assert replaced == run(masks=given).history.total


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (Masks(content=[np.zeros((5, 5), np.float32)]), r"\bmask 1 is empty.*black"),
        (Masks(keep=np.zeros((5, 5), np.float32)), r"content_mask is empty.*black"),
        (Masks(keep=np.ones((5, 5), np.float32)), r"region outside content_mask.*conv1_1.*larger region"),
        (
            Masks(content=[np.eye(2, dtype=np.float32)], keep=np.eye(2, dtype=np.float32)),
            r"mask 1 outside content_mask.*conv1_1.*larger region",
        ),
        (Masks(content=[np.ones((5, 5), np.float32)] * 2), r"\b2 masks\b.*\b1 style"),
        (Masks(styles=[np.ones((5, 5), np.float32)] * 2), r"\b2 style_masks\b.*\b1 style"),
    ],
)
def test_wrong_masks_are_refused(run, masks, message):
    with pytest.raises(ConfigError, match=message):
        run(masks=masks)


def test_masks_that_do_not_cover_the_content_image_are_warned_of(run, left, caplog):
    run(iterations=1, masks=Masks(content=[left]))
    assert re.search(r"masks cover 50%.*extend the masks", caplog.text)


# Sizes of style images


def test_style_scale_is_the_size_of_the_style(run, style):
    result = run(style_scale=(0.5,), scales=1)
    small = load(style).fitted(16).rgb
    assert result.history.style == pytest.approx(run(style=small, scales=1).history.style, rel=1e-3)
    assert run(style_size=(16,), scales=1).history.style == result.history.style
    assert run(scales=1).history.style != result.history.style


def test_styles_of_several_sizes(run, style):
    result = run(style=[style, style], style_scale=(1.0, 0.5), style_blend=(1, 0), scales=1)
    assert result.history.style == pytest.approx(run(scales=1).history.style, rel=1e-4)
    with pytest.raises(ConfigError, match=r"style_scale\b.*\b3\b.*\b2;"):
        run(style=[style, style], style_scale=(1, 1, 1))


def test_a_fine_style_is_transferred_to_the_coarse_style_image(run, small_file, style):
    fine = np.zeros((40, 40, 3), np.float32)
    fine[::2, ::2] = 1
    config = StyleConfig().replace(
        {"size": 32, "iterations": 15, "weights": str(small_file), "compile": "eager"}
    )
    mixed = mix_styles(style, fine, config)
    assert mixed.facts["style_layers"] == ("conv1_1",)
    coarse = load(style).fitted(32).rgb
    assert mixed.image.shape == coarse.shape
    assert mixed.history.style[-1] < 0.5 * mixed.history.style[0]  # closer to the fine style

    def blurred(image):
        return resize(image, (4, 4)) - resize(image, (4, 4)).mean()

    product = np.sum(blurred(mixed.image) * blurred(coarse))
    assert product > 0.5 * np.linalg.norm(blurred(mixed.image)) * np.linalg.norm(blurred(coarse))


def test_the_layers_of_a_fine_style_do_not_change_the_default_content_weight(style):
    """The fine style is transferred with the shallower style layers, here conv1_1 only."""
    config = StyleConfig(
        size=32, iterations=1, weights="random", compile="eager", style_layers=("conv1_1", "conv4_1"),
        content_layers=("conv1_2",), quality="high",
    )  # fmt: skip
    mixed = mix_styles(style, style, config)
    assert mixed.facts["style_layers"] == ("conv1_1",)
    assert mixed.facts["content_weight"] == CONTENT_WEIGHT


def test_fine_style_in_a_run(run, small_file, style, files):
    options = {
        "size": 32, "iterations": 4, "weights": str(small_file), "precision": "float32", "compile": "eager",
        **LAYERS,
    }  # fmt: skip
    fine = str(files / "style.png")
    mixed = mix_styles(style, fine, StyleConfig().replace(options))
    expected = run(style=mixed.image).history.total
    assert run(fine_style=fine).history.total == pytest.approx(expected, rel=1e-4)


def test_interpolation_begins_and_ends_with_the_two_styles(run, small_file, content, style):
    other = make_image(30, 50, 8)
    options = {
        "size": 32, "iterations": 4, "weights": str(small_file), "precision": "float32", "compile": "eager",
        **LAYERS,
    }  # fmt: skip
    results = list(interpolate(content, [style, other], StyleConfig().replace(options), count=3))
    assert [result.config.style_blend for result in results] == [(1, 0), (0.5, 0.5), (0, 1)]
    for result, single_style in ((results[0], style), (results[2], other)):
        assert result.history.total == pytest.approx(run(style=single_style).history.total, rel=1e-4)
    for styles, count in ([style], 3), ([style, other, style], 2), ([style, other], 1):
        with pytest.raises(ConfigError, match=rf"2 styles.*at least 2.*\b{len(styles)}\b.*\b{count}$"):
            next(interpolate(content, styles, count=count))
    with pytest.raises(ConfigError, match="leave out masks"):
        next(interpolate(content, [style, other], StyleConfig(masks=("a.png", "b.png")), count=2))


# Initial images, iterations, averages


def test_initial_images(run, content, style):
    def initial(**options):
        return run(iterations=1, optimizer="adam", learning_rate=1e-9, content_weight=0.0, **options).image

    assert np.allclose(initial(init="grey"), 0.5, atol=1e-6)
    uniform = initial(init="uniform")
    assert uniform.mean() == pytest.approx(0.5, abs=0.03)
    assert uniform.std() == pytest.approx(12**-0.5, abs=0.02)
    assert initial(init="noise", init_noise=0.01).std() == pytest.approx(0.01, rel=0.1)
    small = load(style).fitted(32).rgb
    stats = initial(init="style_stats", clamp=False)
    assert np.allclose(stats.mean((0, 1)), small.mean((0, 1)), atol=0.05)


def test_the_first_scale_can_have_more_iterations(run):
    history = run(scales=2, size=48, first_iterations=5, iterations=2).history
    assert history.scale == [1] * 5 + [2] * 2
    history = run(scales=2, size=48, first_iterations=6, iterations=2, iteration_decay=2).history
    assert history.scale == [1] * 6 + [2] * 3


def test_scales_of_another_factor(small_file, content, style):
    options = {"size": 48, "weights": str(small_file), "scale_factor": 1.5, "min_scale": 20, **LAYERS}
    config = StyleConfig().replace(options)
    assert [max(scale.shape) for scale in Run(content, style, config).scales] == [21, 32, 48]


def test_with_ema_decay_the_result_is_the_average_of_iterates(run, small_file, content, style):
    options = {
        "size": 32,
        "weights": str(small_file),
        "optimizer": "adam",
        "iterations": 5,
        "compile": "eager",
        **LAYERS,
    }
    iterates = [s.image for s in tfstyle.iterate(content, style, StyleConfig().replace(options))]
    iterates.insert(0, load(content).fitted(32).rgb)  # the initial image is part of the average
    average = stylize(content, style, ema_decay=0.6, **options).image
    weights = 0.6 ** np.arange(6)[::-1]
    expected = np.tensordot(weights / weights.sum(), np.stack(iterates), 1)
    assert np.allclose(average, expected, atol=1e-5)


def test_without_clamp_iterates_leave_the_range_and_the_result_is_clipped(run):
    unclamped = run(clamp=False, optimizer="adam", learning_rate=0.3, iterations=5)
    assert 0 <= unclamped.image.min() <= unclamped.image.max() <= 1
    clamped = run(clamp=True, optimizer="adam", learning_rate=0.3, iterations=5)
    assert unclamped.history.total != clamped.history.total


def test_warm_start_carries_adams_state_over(run):
    options = {"optimizer": "adam", "scales": 2, "size": 48, "iterations": 4}
    warm, cold = (run(warm_start=flag, **options).history.total for flag in (True, False))
    assert warm[:5] == cold[:5]
    assert warm[5:] != cold[5:]
    with pytest.raises(ConfigError, match=r"warm_start\b.*optimizer\b.*\badam"):
        run(warm_start=True)


def test_options_that_need_the_style_image_refuse_an_extracted_style(run, small_file, style):
    extracted = tfstyle.StyleExtractor(LAYERS["style_layers"], small_file).style(style)
    for options, option in (
        ({"init": "style"}, "init style"),
        ({"init": "style_stats"}, "init style_stats"),
        ({"color": "transport"}, "color transport"),
        ({"style_losses": ("wasserstein",)}, "style_losses wasserstein"),
        ({"fine_style": "a.png"}, "fine_style"),
        ({"masks": Masks(styles=[np.ones((3, 3), np.float32)])}, "style_masks"),
    ):
        with pytest.raises(ConfigError, match=rf"{option}\b.*image.*Gram matrices"):
            run(style=extracted, **options)


def test_resizing_without_clipping():
    step = np.zeros((8, 8, 3), np.float32)
    step[:, 4:] = 1
    assert resize(step, (16, 16)).max() <= 1
    assert resize(step, (16, 16), clip=False).max() > 1

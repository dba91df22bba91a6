"""Tests of textures by guided correspondence."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tfstyle
from tests.images.test_orientation import difference, grating
from tfstyle.cli.parser import main
from tfstyle.errors import ConfigError
from tfstyle.images import estimate_orientation
from tfstyle.papers.guided_textures import random_start, read_guidance, turned_copy
from tfstyle.papers.textures import measure_seam, texture


def grey_image(values):
    return np.repeat(np.asarray(values, np.float32)[..., None], 3, -1)


EVENING = Path(tfstyle.__file__).parent / "data" / "evening.jpg"


def two_halves():
    """Return a style image with horizontal lines on the left and vertical lines on the right."""
    return np.concatenate([grating(0, (64, 48)), grating(90, (64, 48))], 1)


OPTIONS = {"weights": "embedded", "layers": ("conv2_1",), "size": 64, "iterations": 40, "seed": 1}


def make(style, **options):
    return texture(style, **{**OPTIONS, **options})


def test_one_texture_of_any_size_that_resembles_the_style_image():
    study = make(grating(30, (64, 64)), loss="correspondence", size=48, width=80, height=56)
    assert [panel.title for panel in study.panels] == ["style image", "texture"]
    assert study.panels[1].image.shape == (56, 80, 3)
    estimate = 180 * estimate_orientation(study.panels[1].image)
    assert np.mean(difference(estimate, 30)) < 10
    (row,) = study.table  # half of 48 pixels is too small for another scale
    assert row["scale"] == "80 x 56 pixels"
    assert row["first distance / lowest distance"] > 2


def test_lines_turn_where_the_map_says_so():
    """The style image has horizontal lines only. The right half of the texture should have vertical lines."""
    wanted = np.zeros((64, 96))
    wanted[:, 48:] = 0.5
    study = make(grating(0, (64, 64)), orientation=grey_image(wanted), width=96, height=64)
    assert [panel.title for panel in study.panels] == ["style image", "orientation", "texture"]
    estimate = 180 * estimate_orientation(study.panels[-1].image)
    assert np.mean(difference(estimate[8:-8, 8:36], 0)) < 20
    assert np.mean(difference(estimate[8:-8, 60:-8], 90)) < 20


def test_a_style_map_replaces_the_estimate():
    """The map says that the horizontal lines of the style image are vertical ones."""
    study = make(
        grating(0, (64, 64)),
        orientation=grey_image(np.zeros((64, 64))),
        style_orientation=grey_image(np.full((64, 64), 0.5)),
    )
    estimate = 180 * estimate_orientation(study.panels[-1].image)
    assert np.mean(difference(estimate[8:-8, 8:-8], 90)) < 20


def test_the_progression_is_followed():
    """The map of the texture is black at the top, like the part of the style image with horizontal lines."""
    style_map, wanted = np.zeros((64, 96)), np.zeros((80, 64))
    style_map[:, 48:] = 1
    wanted[40:] = 1
    study = make(
        two_halves(), progression=grey_image(wanted), style_progression=grey_image(style_map),
        size=96, width=64, height=80,
    )  # fmt: skip
    assert [panel.title for panel in study.panels] == ["style image", "progression", "texture"]
    estimate = 180 * estimate_orientation(study.panels[-1].image)
    assert np.mean(difference(estimate[4:32], 0)) < 25
    assert np.mean(difference(estimate[48:-4], 90)) < 25


def test_more_patches_are_used_if_repetition_is_avoided():
    options = {"size": 80, "width": 80, "height": 60}
    used = [
        make(EVENING, avoid_repetition=weight, **options).table[-1]["used style patches in %"]
        for weight in (0.0, 0.05)
    ]
    assert used[1] > 1.2 * used[0]


def test_a_seamless_texture_has_no_visible_seam():
    study = make(EVENING, loss="correspondence", seamless=True, width=62, height=50)
    *_, image, tiled = (panel.image for panel in study.panels)
    assert image.shape == (50, 62, 3)
    np.testing.assert_array_equal(tiled[:50, 62:], image)
    seam = measure_seam(image)
    assert 0.7 < seam.edge_difference / seam.inner_difference < 1.3
    assert abs(seam.standard_deviations) < 3


def test_the_start_has_pixels_of_the_same_progression():
    source = np.tile(np.linspace(0, 1, 64, dtype=np.float32)[:, None], (48, 1, 3))
    style_map = np.tile(np.linspace(0, 1, 64), (48, 1))
    guidance = read_guidance(
        source,
        progression=grey_image(np.kron(np.eye(2), np.ones((20, 20)))),
        style_progression=grey_image(style_map),
        weight=1.0,
    )
    start = random_start(source, (40, 40), guidance=guidance, generator=np.random.default_rng(0))
    assert (start[:12, :12] > 0.9).all()
    assert (start[:12, -12:] < 0.1).all()
    anywhere = random_start(source, (40, 40), guidance=None, generator=np.random.default_rng(0))
    pixels = {tuple(pixel) for pixel in source.reshape(-1, 3)}
    assert all(tuple(pixel) in pixels for pixel in anywhere.reshape(-1, 3))


@pytest.mark.parametrize("degrees", [22.5, 45, 90, 112.5, 157.5])
@pytest.mark.parametrize("shape", [(64, 64), (40, 90)])
def test_a_turned_copy_has_turned_lines_and_no_empty_corners(degrees, shape):
    turned = turned_copy(grating(30, shape) * 0.5 + 0.5, degrees)
    assert turned.min() > 0.5
    estimate = 180 * estimate_orientation(turned, window=3)
    assert np.mean(difference(estimate[6:-6, 6:-6], 30 + degrees)) < 4
    white = turned_copy(np.ones((*shape, 1), np.float32), degrees)
    np.testing.assert_allclose(white, 1, atol=1e-5)
    # The largest square inside a square that is turned by the angle a has the side 1 / (cos a + sin a).
    if shape[0] == shape[1] and degrees < 90:
        side = shape[0] / (math.cos(math.radians(degrees)) + math.sin(math.radians(degrees)))
        assert turned.shape[0] == pytest.approx(side, abs=6)


MAP = grey_image(np.zeros((8, 8)))


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"loss": "grams"}, "loss is 'grams'.*gram.*correspondence"),
        ({"loss": "gram", "orientation": MAP}, 'orientation needs loss="correspondence"'),
        ({"loss": "gram", "avoid_repetition": 0.1}, 'avoid_repetition needs loss="correspondence"'),
        ({"progression": MAP}, "progression needs style_progression"),
        ({"style_progression": MAP}, "progression is missing, but style_progression was given"),
        ({"style_orientation": MAP}, "orientation is missing, but style_orientation was given"),
        ({"orientation": MAP, "noise": 0.1}, 'noise needs loss="gram"'),
        ({"orientation": MAP, "guidance_weight": -1.0}, "guidance_weight is -1.*at least 0"),
        ({"avoid_repetition": -1.0}, "avoid_repetition is -1.*at least 0"),
        ({"loss": "correspondence", "iterations": 0}, "iterations is 0.*at least 1"),
        ({"loss": "correspondence", "layers": ("conv9_1",)}, "'conv9_1'"),
    ],
)
def test_what_is_wrong_is_rejected(options, pattern):
    with pytest.raises(ConfigError, match=pattern) as caught:
        make(EVENING, **options)
    assert "\n" not in str(caught.value)


def test_a_guided_texture_on_the_command_line(tmp_path, small_file, capsys):
    Image.fromarray((grating(30) * 255).astype(np.uint8)).save(tmp_path / "style.png")
    Image.new("L", (16, 16), 128).save(tmp_path / "map.png")
    command = ["texture", str(tmp_path / "style.png"), "--weights", str(small_file), "--layers", "conv2_1"]
    command += ["--iterations", "2", "-o", str(tmp_path / "out")]
    assert main([*command, "--progression", str(tmp_path / "map.png")]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"tfstyle: error: --progression needs --style-progression.*\n", error)
    assert main([*command, "--orientation", str(tmp_path / "gone.png")]) == 2
    assert "gone.png" in capsys.readouterr().err
    assert main([*command, "--orientation", str(tmp_path / "map.png"), "--avoid-repetition", "0.1"]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"01_style_image.png", "02_orientation.png", "03_texture.png", "figure.png"} <= names

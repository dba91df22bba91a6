"""Results in a notebook: short representations, images and figures."""

import io
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

import tfstyle
from tests.callbacks.conftest import paint as paint
from tests.conftest import make_image
from tests.run.test_extra_losses import contrast
from tfstyle.errors import ConfigError
from tfstyle.images import ImageArray


@pytest.fixture
def plt():
    import matplotlib.pyplot as plt

    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    yield plt
    plt.close("all")
    matplotlib.use(before)


def test_representations_are_short(paint, small_encoder, small_weights, content, style):
    steps = []
    result = paint(iterations=150, callback=steps.append)
    assert len(result.history.total) == 300
    loss, seconds = result.history.total[-1], result.history.seconds[-1]
    described = f"56 x 40 pixels, 300 iterations in {seconds:.1f} s, loss {loss:.4g}, weights small.npz"
    assert repr(result) == f"Result({described})"
    first = result.history.total[0]
    assert (
        repr(result.history)
        == f"History(300 iterations, 2 scales, loss {first:.4g} to {loss:.4g}, {seconds:.1f} s)"
    )
    assert repr(tfstyle.History()) == "History(no iterations)"
    extractor = tfstyle.StyleExtractor(("conv1_1",), small_weights)
    objects = [
        result, result.history, steps[0], result.config, small_encoder, small_weights, extractor,
        small_encoder.as_layer(), extractor.style(style), ImageArray(content), tfstyle.Masks([content]),
        tfstyle.ContentLoss(small_encoder),
    ]  # fmt: skip
    for value in objects:
        assert len(repr(value)) < 700, type(value)


def test_the_representation_of_a_config_is_an_expression_of_what_was_given():
    from tfstyle import StyleConfig

    assert repr(StyleConfig()) == "StyleConfig()"
    assert repr(StyleConfig(quality="high")) == "StyleConfig(quality='high')"
    assert repr(StyleConfig(style_layers=["conv1_1"], size=256)) == (
        "StyleConfig(size=256, style_layers=('conv1_1',))"
    )
    for config in (
        StyleConfig(iterations=30, scales=2),
        StyleConfig(quality="draft"),
        tfstyle.preset("gatys2016"),
    ):
        again = eval(repr(config), {"StyleConfig": StyleConfig})
        assert again == config
        assert again.has_own_iterations == config.has_own_iterations


def test_a_notebook_displays_the_image(paint):
    result = paint(iterations=1)
    shown = Image.open(io.BytesIO(result._repr_png_()))
    assert (shown.format, shown.mode, shown.size) == ("PNG", "RGB", (56, 40))
    assert np.abs(np.asarray(shown, float) - result.image * 255).max() <= 0.5 + 1e-3
    large = tfstyle.Result(
        np.zeros((1500, 3000, 3), np.float32), result.history, result.config, facts={},
        alpha=np.ones((1500, 3000), np.float32),
    )  # fmt: skip
    shown = Image.open(io.BytesIO(large._repr_png_()))
    assert (shown.mode, shown.size) == ("RGBA", (1024, 512))


def test_show_draws_content_styles_and_result(paint, plt, content, style, small_file):
    result = paint(iterations=1)
    result.show()
    axes = plt.gcf().axes
    assert [axis.get_title() for axis in axes] == ["content", "style", "result"]
    drawn = [axis.get_images()[0].get_array() for axis in axes]
    assert np.abs(drawn[0] - content).max() < 1e-6
    assert np.abs(drawn[1] - style).max() < 0.2  # at its size for the run
    assert np.abs(drawn[2] - result.image).max() < 1e-6
    two = tfstyle.stylize(
        content, [style, make_image(40, 40, 5)], weights=str(small_file), content_layers=("conv2_2",),
        style_layers=("conv1_1",), size=56, iterations=1, scales=1, compile="eager",
    )  # fmt: skip
    two.show()
    assert [axis.get_title() for axis in plt.gcf().axes] == ["content", "style 1", "style 2", "result"]
    extracted = tfstyle.StyleExtractor(("conv1_1", "conv2_1"), str(small_file)).style(style)
    without = tfstyle.stylize(
        content, extracted, weights=str(small_file), content_layers=("conv2_2",), size=56, iterations=1,
        style_layers=("conv1_1", "conv2_1"), scales=1, compile="eager", precision="float32",
    )  # fmt: skip
    without.show()
    assert [axis.get_title() for axis in plt.gcf().axes] == ["content", "result"]


def test_plot_draws_every_loss_and_the_scales(paint, plt):
    history = paint(extra_losses={"flat": (contrast, 0.5)}).history
    axes = history.plot()
    lines = {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}
    assert list(lines)[:3] == ["total", "content", "style"]
    assert "extra/flat" in lines
    for name in ("total", "content", "style"):
        assert list(lines[name].get_xdata()) == list(range(1, 9))
        assert list(lines[name].get_ydata()) == getattr(history, name)
    dashed = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in dashed] == [4.5]
    assert axes.get_yscale() == "log"
    given = plt.figure().subplots()
    assert history.plot(given, layers=True) is given
    assert {"conv1_1", "conv2_1"} <= {line.get_label() for line in given.get_lines()}
    with pytest.raises(ConfigError, match="no iteration"):
        tfstyle.History().plot()


def test_plot_draws_losses_that_are_zero_negative_or_infinite(plt):
    history = tfstyle.History()
    for total in (0.0, 0.0):
        history.record(1, {"total": total, "content": 0.0, "style": 0.0, "tv": 0.0}, seconds=1.0)
    assert [line.get_label() for line in history.plot().get_lines()] == ["total"]
    history = tfstyle.History()
    for total in (1.0, -2.0, float("inf"), -3.0):
        terms = {"content": 0.0, "style": 0.0, "tv": 0.0, "extra/total": total, r"extra/$\bad{$": 1.0}
        history.record(1, {"total": total, **terms}, seconds=1.0)
    axes = history.plot()
    plt.gcf().canvas.draw()
    low, high = axes.get_ylim()
    assert low <= -3 < 1 <= high
    assert list(axes.get_lines()[0].get_ydata()) == [1.0, -2.0, float("inf"), -3.0]
    assert [line.get_label() for line in axes.get_lines()][:2] == ["total", "extra/total"]


def test_the_images_of_a_result_cannot_change_the_run(paint):
    result = paint(iterations=1)
    for image in (result.content, *result.styles):
        with pytest.raises(ValueError, match="read-only"):
            image[:] = 0


def test_only_figures_need_matplotlib(small_file, content, style, tmp_path):
    np.savez(tmp_path / "images.npz", content=content, style=style)
    code = f"""
import sys
sys.modules["matplotlib"] = sys.modules["matplotlib.pyplot"] = None  # as if it were not installed
import numpy as np, tfstyle
images = np.load("images.npz")
result = tfstyle.stylize(images["content"], images["style"], weights={str(small_file)!r}, size=32, scales=1,
    iterations=1, content_layers=["conv2_2"], style_layers=["conv1_1"], compile="eager")
repr(result), result._repr_png_()
for draw in (result.show, result.history.plot):
    try:
        draw()
    except tfstyle.TfstyleError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.count("pip install 'tfstyle[notebook]'") == 2, done.stderr

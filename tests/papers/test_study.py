"""Tests of the files of a study: the figure, the images, the captions and the numbers."""

import json
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfstyle.errors import ConfigError, OutputError
from tfstyle.papers import study as module
from tfstyle.papers.descent import descend
from tfstyle.papers.study import Curves, Panel, Study, check_folder, iterations_shown, markdown_table


def constant_image(height, width, value):
    return np.full((height, width, 3), value, np.float32)


LONG = "style 0.0123 at every one of the layers, content 0.456 at conv4_2, after 123 evaluations; " * 3


@pytest.fixture
def study():
    curves = Curves(
        {"one": (range(1, 4), [1.0, float("nan"), 0.01]), "two": ([1, 2], [0.5, 0.25])}, "Loss", "s", "loss"
    )
    return Study(
        "A title",
        (
            (
                Panel(constant_image(20, 30, 0.2), "conv1_1", "loss 1"),
                None,
                Panel(constant_image(30, 20, 0.4), "a/b: β = 1e-3, 0.5", "2\nlines"),
            ),
            (curves, Panel(constant_image(20, 30, 0.6), "conv1_1 .. conv3_1")),
        ),
        caption="What the figure shows.",
        table=({"layer": "conv1_1", "loss": 0.123456, "n": 3}, {"layer": "a | b", "more": np.float32(2.5)}),
        facts={"weights": "mine", "seed": np.int64(3), "losses": np.array([1.0, np.inf]), "sizes": (1, 2)},
    )  # fmt: skip


def test_save_writes_the_files_of_a_study(study, tmp_path):
    paths = study.save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [
        "figure.png",
        "01_conv1_1.png",
        "02_a_b_1e-3_0.5.png",
        "03_conv1_1_conv3_1.png",
        "captions.md",
        "numbers.json",
    ]
    assert all(path.is_file() for path in paths)
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(path.name for path in paths)
    for path, panel in zip(paths[1:4], study.panels, strict=True):
        stored = np.asarray(Image.open(path))
        assert stored.shape == panel.image.shape
        np.testing.assert_allclose(stored / 255, panel.image, atol=0.51 / 255)


def test_captions_have_all_text_and_the_table(study, tmp_path):
    text = study.save(tmp_path)[-2].read_text(encoding="utf-8")
    for line in (
        "# A title",
        "What the figure shows.",
        "- **conv1_1** (01_conv1_1.png): loss 1",
        "- **a/b: β = 1e-3, 0.5** (02_a_b_1e-3_0.5.png): 2; lines",
        "- **Loss**",
        "- **conv1_1 .. conv3_1** (03_conv1_1_conv3_1.png)",
    ):
        assert line in text.splitlines()
    assert text.splitlines()[-4:] == [
        "| layer | loss | n | more |",
        "| --- | --- | --- | --- |",
        "| conv1_1 | 0.123 | 3 |  |",
        "| a \\| b |  |  | 2.5 |",
    ]


def test_numbers_are_strict_json(study, tmp_path):
    """JSON has no NaN and no infinity."""
    text = study.save(tmp_path)[-1].read_text()
    numbers = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert numbers["title"] == "A title"
    assert numbers["facts"] == {"weights": "mine", "seed": 3, "losses": [1.0, None], "sizes": [1, 2]}
    table = [{"layer": "conv1_1", "loss": 0.123456, "n": 3}, {"layer": "a | b", "more": 2.5}]
    assert numbers["table"] == table
    series = {"one": [[1, 2, 3], [1.0, None, 0.01]], "two": [[1, 2], [0.5, 0.25]]}
    assert numbers["curves"] == [{"title": "Loss", "x": "s", "y": "loss", "series": series}]


def test_an_empty_table_has_no_lines():
    assert markdown_table(()) == []


@pytest.mark.parametrize("existing", ["figure.png", "captions.md", "numbers.json", "03_other.png"])
def test_existing_files_are_replaced_only_with_overwrite(study, tmp_path, existing):
    (tmp_path / existing).write_text("mine")
    with pytest.raises(OutputError, match=re.escape(existing)):
        check_folder(tmp_path)
    with pytest.raises(OutputError, match=re.escape(existing)):
        study.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    study.save(tmp_path, overwrite=True)
    study.save(tmp_path, overwrite=True)


def test_a_file_is_rejected_as_the_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(OutputError, match=re.escape(str(path))):
        check_folder(path)
    assert path.is_file()


def test_without_matplotlib_the_error_says_how_to_install_it(monkeypatch, study, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'tfstyle\[papers\]'"):
        study.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.fixture
def render(monkeypatch, tmp_path):
    """A function that saves a study and returns matplotlib's figure and the pixels of the PNG file."""
    from matplotlib.figure import Figure

    figures = []

    def make_figure(*arguments, **options):
        figures.append(Figure(*arguments, **options))
        return figures[-1]

    monkeypatch.setattr(module, "_matplotlib", lambda: make_figure)

    def save_and_read(study):
        path = study.save(tmp_path, overwrite=True)[0]
        return figures[-1], np.asarray(Image.open(path).convert("RGB"))

    return save_and_read


def extents(figure):
    """Return the texts of the figure, the titles and the horizontal axes, with their boxes in pixels."""
    figure.canvas.draw()
    texts = [*figure.texts, *(t for axis in figure.axes for t in (axis.title, axis.xaxis.label))]
    return [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text()]


@pytest.mark.parametrize("columns", [1, 2, 5])
@pytest.mark.parametrize("shape", [(40, 60), (60, 20)])
def test_long_texts_are_wrapped_and_do_not_overlap(render, columns, shape):
    image = constant_image(*shape, 0.5)
    panel = Panel(image, "a title that is longer than an image of the figure is wide", LONG)
    curves = Curves({"a": ([1, 2], [1.0, 2.0])}, "a diagram", "seconds", "loss", caption=LONG)
    rows = ((panel,) * columns, (curves, *[panel] * (columns - 1)))
    figure, pixels = render(Study(f"A long title. {LONG}", rows, caption=LONG * 4))
    height, width = pixels.shape[:2]
    boxes = extents(figure)
    assert len(boxes) == 2 + 4 * columns  # the figure's title and caption; two for each panel
    for text, box in boxes:
        assert box.x0 >= 0 and box.x1 <= width, text  # noqa: PT018
        assert box.y0 >= 0 and box.y1 <= height, text  # noqa: PT018
    for i, (text, box) in enumerate(boxes):
        for other, second in boxes[i + 1 :]:
            apart = box.x1 <= second.x0 or second.x1 <= box.x0 or box.y1 <= second.y0 or second.y1 <= box.y0
            assert apart, f"{text!r} and {other!r}"
    assert " ".join(figure.texts[-1].get_text().split()) == (LONG * 4).strip()


def test_the_figure_has_every_image_and_a_suitable_size(render):
    colours = [(200, 30, 30), (30, 160, 30), (30, 30, 200)]
    panels = [
        Panel(np.full((30, 40, 3), np.array(c) / 255, np.float32), f"{i}") for i, c in enumerate(colours)
    ]
    _, pixels = render(Study("Title", (tuple(panels),), caption="Caption."))
    height, width = pixels.shape[:2]
    assert 3 * 300 <= width <= 3 * 400
    assert 250 <= height <= 600  # no taller than images of 3 : 4 and their texts need
    for colour in colours:
        share = (np.abs(pixels.astype(int) - colour).max(-1) < 8).mean()
        assert share > 0.12  # a third of the figure without its texts and margins


def test_dollar_signs_are_not_parsed_as_mathematics(render):
    figure, _ = render(
        Study("a $x_1$", ((Panel(constant_image(9, 9, 0), "$t$", "cost $5, $6_"),),), caption="from $HOME/$x")
    )
    assert {"a $x_1$", "$t$", "cost $5, $6_", "from $HOME/$x"} <= {text for text, _ in extents(figure)}


def test_axes_are_logarithmic_if_positive_values_span_a_factor_of_ten(render):
    wide, narrow, signed = [1.0, 50.0], [1.0, 2.0], [-1.0, 50.0]
    for y, log, scale in (
        (wide, True, "log"),
        (wide, False, "linear"),
        (narrow, True, "linear"),
        (signed, True, "linear"),
    ):
        figure, _ = render(Study("t", ((Curves({"a": ([1, 2], y)}, "c", "x", "y", log),),), caption="c"))
        assert figure.axes[0].get_yscale() == scale


def test_iterations_are_shown_in_a_block_only():
    calls = []
    square = lambda image, targets: {"total": tf.reduce_sum(image**2)}  # noqa: E731
    start = np.full((4, 4, 3), 0.5, np.float32)
    with iterations_shown(lambda done, total: calls.append((done, total))):
        descend(square, start, iterations=3)
    descend(square, start, iterations=3)
    assert calls == [(1, 3), (2, 3), (3, 3)]

"""What an experiment leaves: the figure, the pictures, captions and numbers."""

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from tfstyle.errors import ConfigError, OutputError
from tfstyle.papers import study as module
from tfstyle.papers.study import Curves, Panel, Study, check_folder, markdown_table


def plain(height, width, value):
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
                Panel(plain(20, 30, 0.2), "conv1_1", "loss 1"),
                None,
                Panel(plain(30, 20, 0.4), "a/b: β = 1e-3, 0.5", "2\nlines"),
            ),
            (curves, Panel(plain(20, 30, 0.6), "conv1_1 .. conv3_1")),
        ),
        caption="What is to be seen.",
        table=({"layer": "conv1_1", "loss": 0.123456, "n": 3}, {"layer": "a | b", "more": np.float32(2.5)}),
        facts={"weights": "mine", "seed": np.int64(3), "losses": np.array([1.0, np.inf]), "sizes": (1, 2)},
    )  # fmt: skip


def test_files_are_the_studys(study, tmp_path):
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


def test_captions_hold_all_that_is_said(study, tmp_path):
    words = study.save(tmp_path)[-2].read_text()
    for line in (
        "# A title",
        "What is to be seen.",
        "- **conv1_1** (01_conv1_1.png): loss 1",
        "- **a/b: β = 1e-3, 0.5** (02_a_b_1e-3_0.5.png): 2; lines",
        "- **Loss**",
        "- **conv1_1 .. conv3_1** (03_conv1_1_conv3_1.png)",
    ):
        assert line in words.splitlines()
    assert words.splitlines()[-4:] == [
        "| layer | loss | n | more |",
        "| --- | --- | --- | --- |",
        "| conv1_1 | 0.123 | 3 |  |",
        "| a \\| b |  |  | 2.5 |",
    ]


def test_numbers_are_json_without_words_that_it_does_not_have(study, tmp_path):
    text = study.save(tmp_path)[-1].read_text()
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert found["title"] == "A title"
    assert found["facts"] == {"weights": "mine", "seed": 3, "losses": [1.0, None], "sizes": [1, 2]}
    assert found["table"] == [{"layer": "conv1_1", "loss": 0.123456, "n": 3}, {"layer": "a | b", "more": 2.5}]
    series = {"one": [[1, 2, 3], [1.0, None, 0.01]], "two": [[1, 2], [0.5, 0.25]]}
    assert found["curves"] == [{"title": "Loss", "x": "s", "y": "loss", "series": series}]


def test_a_table_without_lines_is_none():
    assert markdown_table(()) == []


@pytest.mark.parametrize("existing", ["figure.png", "captions.md", "numbers.json", "03_other.png"])
def test_nothing_of_another_experiment_is_replaced_unless_asked(study, tmp_path, existing):
    (tmp_path / existing).write_text("mine")
    with pytest.raises(OutputError, match=re.escape(existing)):
        check_folder(tmp_path)
    with pytest.raises(OutputError, match=re.escape(existing)):
        study.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    study.save(tmp_path, overwrite=True)
    study.save(tmp_path, overwrite=True)


def test_the_folder_must_be_one(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        check_folder(tmp_path / "file")


def test_without_matplotlib_one_line_says_what_to_do(monkeypatch, study, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'tfstyle\[papers\]'"):
        study.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.fixture
def render(monkeypatch, tmp_path):
    """A function that draws a study and returns matplotlib's figure, drawn, and the PNG's pixels."""
    from matplotlib.figure import Figure

    made = []

    def figure(*arguments, **options):
        made.append(Figure(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(module, "_matplotlib", lambda: figure)

    def draw(study):
        path = study.save(tmp_path, overwrite=True)[0]
        return made[-1], np.asarray(Image.open(path).convert("RGB"))

    return draw


def extents(figure):
    """The figure's texts, the titles and what is below the panels, with their boxes in pixels."""
    figure.canvas.draw()
    texts = [*figure.texts, *(t for axis in figure.axes for t in (axis.title, axis.xaxis.label))]
    return [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text()]


@pytest.mark.parametrize("columns", [1, 2, 5])
@pytest.mark.parametrize("shape", [(40, 60), (60, 20)])
def test_long_words_are_wrapped_and_overlap_nothing(render, columns, shape):
    panel = Panel(plain(*shape, 0.5), "a title that is longer than a picture of the figure is wide", LONG)
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


def test_the_figure_has_every_picture_and_a_sensible_size(render):
    colours = [(200, 30, 30), (30, 160, 30), (30, 30, 200)]
    panels = [
        Panel(np.full((30, 40, 3), np.array(c) / 255, np.float32), f"{i}") for i, c in enumerate(colours)
    ]
    _, pixels = render(Study("Title", (tuple(panels),), caption="Caption."))
    height, width = pixels.shape[:2]
    assert 3 * 300 <= width <= 3 * 400
    assert 250 <= height <= 600  # no taller than pictures of 3 : 4 need, with their words
    for colour in colours:
        share = (np.abs(pixels.astype(int) - colour).max(-1) < 8).mean()
        assert share > 0.12  # a third of the figure less its words and margins


def test_words_are_no_mathematics(render):
    figure, _ = render(
        Study("a $x_1$", ((Panel(plain(9, 9, 0), "$t$", "cost $5, $6_"),),), caption="from $HOME/$x")
    )
    assert {"a $x_1$", "$t$", "cost $5, $6_", "from $HOME/$x"} <= {text for text, _ in extents(figure)}


def test_axes_are_logarithmic_where_there_is_a_decade_to_show(render):
    wide, narrow, signed = [1.0, 50.0], [1.0, 2.0], [-1.0, 50.0]
    for y, log, scale in (
        (wide, True, "log"),
        (wide, False, "linear"),
        (narrow, True, "linear"),
        (signed, True, "linear"),
    ):
        figure, _ = render(Study("t", ((Curves({"a": ([1, 2], y)}, "c", "x", "y", log),),), caption="c"))
        assert figure.axes[0].get_yscale() == scale

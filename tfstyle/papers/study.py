"""The outcome of an experiment: images and curves with captions, as one figure and as single files."""

from __future__ import annotations

import io
import json
import math
import os
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfstyle.errors import ConfigError
from tfstyle.files import check_writable, make_folder, write_atomically
from tfstyle.images import ImageArray, save

CELL = 3.0  # inches of an image's side in the figure
PAD = 0.1  # inches around it
DPI = 120
NO_MATPLOTLIB = "figures are drawn with matplotlib; pip install 'tfstyle[papers]'"
#: Called with one line whenever a part of an experiment is done.
Progress = Callable[[str], None]


class Panel(NamedTuple):
    """An image of a figure.

    Attributes:
        image: float32 ``[height, width, 3]`` in 0..1.
        title: text above it in the figure, and the name of its file.
        caption: text below it: the numbers.
    """

    image: np.ndarray
    title: str
    caption: str = ""


class Curves(NamedTuple):
    """A diagram of a figure.

    Attributes:
        series: label -> (x, y), of equal length.
        title: text above it.
        x, y: labels of the axes, with units.
        log: whether an axis is logarithmic where its numbers are positive and span a decade.
        caption: text below it.
    """

    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    title: str
    x: str
    y: str
    log: bool = True
    caption: str = ""


@dataclass(frozen=True)
class Study:
    """The outcome of an experiment.

    Attributes:
        title: what was done.
        rows: panels as they lie in the figure, of equal length; None for a blank.
        caption: what is to be seen, with whose experiment it is, and the numbers that hold for all.
        table: one mapping of column to text or number for each line.
        facts: what made it: weights, sizes, iterations, seeds; written into ``numbers.json``.
    """

    title: str
    rows: tuple[tuple[Panel | Curves | None, ...], ...]
    _: KW_ONLY
    caption: str
    table: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] | None = None

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The images in reading order."""
        return tuple(panel for row in self.rows for panel in row if isinstance(panel, Panel))

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> list[Path]:
        """Write ``figure.png``, every image by itself, ``captions.md`` and ``numbers.json``.

        Args:
            folder: is made if it does not exist.
            overwrite: replace files that exist.

        Returns:
            the paths that were written, the figure first.

        Raises:
            ConfigError: matplotlib, which draws the figure, is not installed.
            OutputError: nothing can be written there, or a file exists.
        """
        folder = Path(folder)
        names = _file_names([panel.title for panel in self.panels])
        paths = [folder / name for name in ("figure.png", *names, "captions.md", "numbers.json")]
        check_folder(folder, overwrite)
        for path in paths:
            check_writable(path, overwrite)
        figure, captions, numbers = paths[0], paths[-2], paths[-1]
        write_atomically(figure, _render_figure(self))
        for path, panel in zip(paths[1:-2], self.panels, strict=True):
            save(path, ImageArray(panel.image), overwrite=overwrite)
        write_atomically(captions, self.captions(names).encode())
        write_atomically(numbers, json.dumps(_to_json(self.numbers()), indent=1).encode())
        return paths

    def numbers(self) -> dict[str, Any]:
        """Collect title, facts, table and curves."""
        return {
            "title": self.title,
            "facts": self.facts or {},
            "table": self.table,
            "curves": [
                {"title": panel.title, "x": panel.x, "y": panel.y, "series": panel.series}
                for row in self.rows
                for panel in row
                if isinstance(panel, Curves)
            ],
        }

    def captions(self, names: Sequence[str] = ()) -> str:
        """Write title, caption, the caption of every panel and the table as Markdown."""
        lines = [f"# {self.title}", "", self.caption, ""]
        files = iter(names)
        for panel in (panel for row in self.rows for panel in row if panel is not None):
            file = next(files, "") if isinstance(panel, Panel) else ""
            link = f" ({file})" if file else ""
            lines.append(f"- **{panel.title}**{link}: {panel.caption}".rstrip(": ").replace("\n", "; "))
        return "\n".join([*lines, "", *markdown_table(self.table)]) + "\n"


def report_progress(progress: Progress | None, title: str, *, text: str) -> None:
    """Report one part of an experiment that is done, in one line, to whoever asked for it."""
    if progress is not None:
        progress(f"{title}: {text}".replace("\n", ", "))


def panel_rows(panels: Sequence[Panel], columns: int) -> tuple[tuple[Panel | None, ...], ...]:
    """Arrange panels in rows of equal length; the last is filled with blanks."""
    padded = (*panels, *[None] * (-len(panels) % columns))
    return tuple(padded[i : i + columns] for i in range(0, len(padded), columns))


def markdown_table(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write the lines of a Markdown table; numbers with three digits, blanks where a line lacks a column."""
    if not table:
        return []
    columns = list(dict.fromkeys(column for row in table for column in row))
    rows = [[_format_cell(row.get(column, "")) for column in columns] for row in table]
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]


def check_folder(folder: Path, overwrite: bool = False) -> None:
    """Make the folder of an experiment and check that it can be written, before the experiment runs.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: the folder cannot be made or written to, or has the files of an experiment.
    """
    _matplotlib()
    make_folder(folder)
    images = sorted(folder.glob("[0-9][0-9]_*.png"))
    for path in (*(folder / name for name in ("figure.png", "captions.md", "numbers.json")), *images):
        check_writable(path, overwrite)


def _format_cell(value: Any) -> str:
    return (f"{value:.3g}" if isinstance(value, float) else str(value)).replace("|", "\\|")


def _to_json(value: Any) -> Any:
    """Convert a value to what JSON can hold: numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _to_json(value.tolist())
    if isinstance(value, (list, tuple, range)):
        return [_to_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _file_names(titles: Sequence[str]) -> list[str]:
    """Name files ``01_conv1_1.png`` and so on, of letters that every file system has."""
    stems = [re.sub(r"[^a-z0-9.-]+|\.{2,}", "_", title.lower()) for title in titles]
    shortened = [re.sub("_+", "_", stem).strip("_.")[:40] for stem in stems]
    return [f"{i:02}_{stem}.png" for i, stem in enumerate(shortened, 1)]


def _matplotlib() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(NO_MATPLOTLIB) from error
    return Figure


def _render_figure(study: Study) -> bytes:
    """Draw the figure as PNG: a grid of panels with their titles and captions, and the caption below."""
    columns = max(map(len, study.rows))
    width = max(CELL * columns, 2 * CELL)
    caption, title = (
        textwrap.fill(text, int(width * letters)) for text, letters in ((study.caption, 13), (study.title, 9))
    )
    caption_height = 0.25 + 0.16 * (caption.count("\n") + 1)  # inches
    heights = [_row_heights(row) for row in study.rows]
    height = sum(map(sum, heights)) + caption_height + 0.3 + 0.2 * (title.count("\n") + 1)
    figure = _matplotlib()(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(
        h_pad=PAD, rect=(0, caption_height / height, 1, 1 - caption_height / height)
    )
    figure.suptitle(title, fontsize=12, parse_math=False)
    axes = figure.subplots(len(study.rows), columns, squeeze=False, height_ratios=[h for h, _ in heights])
    for line, row in zip(axes, study.rows, strict=True):
        for axis, panel in zip(line, (*row, *[None] * (columns - len(row))), strict=True):
            if isinstance(panel, Curves):
                _plot(axis, panel)
            else:
                axis.set(xticks=[], yticks=[], frame_on=False)
            if isinstance(panel, Panel):
                axis.imshow(np.clip(panel.image, 0, 1), interpolation="nearest")
            if panel is not None:
                axis.set_title(_wrapped_title(panel), fontsize=9, parse_math=False)
                axis.set_xlabel(_text_below(panel), fontsize=7, parse_math=False)
    figure.text(0.1 / width, 0.1 / height, caption, fontsize=8, va="bottom", parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _row_heights(row: Sequence[Panel | Curves | None]) -> tuple[float, float]:
    """Measure a row in inches: its tallest image or diagram, and the text above and below it."""
    panels = [panel for panel in row if panel is not None]
    shapes = [panel.image.shape[:2] if isinstance(panel, Panel) else (4, 5) for panel in panels]
    tallest = max((h / w for h, w in shapes), default=0.0)
    lines_above = max((_wrapped_title(panel).count("\n") + 1 for panel in panels), default=0)
    lines_below = max((_text_below(panel).count("\n") + 1 for panel in panels), default=0)
    ticks = 0.25 * any(isinstance(panel, Curves) for panel in panels)
    return CELL * min(max(tallest, 0.25), 1.5), 0.16 * lines_above + 0.12 * lines_below + ticks + 2 * PAD


def _wrapped_title(panel: Panel | Curves) -> str:
    return textwrap.fill(panel.title, 42)


def _text_below(panel: Panel | Curves) -> str:
    """Wrap the label of the axis and the caption to the width of a panel."""
    text = "\n".join(filter(None, (panel.x if isinstance(panel, Curves) else "", panel.caption)))
    return "\n".join(textwrap.fill(line, 54) for line in text.split("\n"))


def _plot(axis: Any, curves: Curves) -> None:
    for label, (x, y) in curves.series.items():
        axis.plot(x, y, label=label, linewidth=1, marker="." if len(x) <= 12 else None)
    if curves.log:
        values = [np.concatenate([np.asarray(s[i], float) for s in curves.series.values()]) for i in (0, 1)]
        axis.set_xscale(_axis_scale(values[0]))
        axis.set_yscale(_axis_scale(values[1]))
    for direction in (axis.xaxis, axis.yaxis):
        if direction.get_scale() == "linear":
            direction.get_major_formatter().set_useOffset(False)
    axis.set_ylabel(curves.y, fontsize=7)
    axis.tick_params(which="both", labelsize=6)
    if len(curves.series) > 1:
        axis.legend(fontsize=6)


def _axis_scale(values: np.ndarray) -> str:
    """Choose a logarithmic axis where it spans a decade: else its ticks are few and crowded."""
    return "log" if values.min() > 0 and values.max() >= 10 * values.min() else "linear"

"""The result of an experiment: images and diagrams with captions, saved as a figure and as single files."""

from __future__ import annotations

import contextlib
import contextvars
import io
import json
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfstyle.errors import ConfigError, ImageError
from tfstyle.files import check_writable, make_folder, write_atomically
from tfstyle.images import ImageArray, save

CELL = 3.0  # width of a panel of the figure in inches
PAD = 0.1  # padding around a panel in inches
DPI = 120
NO_MATPLOTLIB = "figures need matplotlib, which is not installed; run pip install 'tfstyle[papers]'"
#: Function that is called with one line of text when a part of an experiment is done.
Progress = Callable[[str], None]


class Panel(NamedTuple):
    """An image of a figure.

    Attributes:
        image: float32 ``[height, width, 3]`` in 0..1.
        title: text above the image in the figure, from which the name of its file is made.
        caption: text below the image, such as its distances.
    """

    image: np.ndarray
    title: str
    caption: str = ""


class Curves(NamedTuple):
    """A diagram of a figure.

    Attributes:
        series: label -> (x, y), two sequences of equal length.
        title: text above the diagram.
        x: label of the horizontal axis, with its unit.
        y: label of the vertical axis, with its unit.
        log: whether an axis is logarithmic if its values are positive and span at least a factor of 10.
        caption: text below the diagram.
    """

    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    title: str
    x: str
    y: str
    log: bool = True
    caption: str = ""


@dataclass(frozen=True)
class Study:
    """The result of an experiment.

    Attributes:
        title: title of the figure.
        rows: rows of panels, as in the figure; None leaves a place empty.
        caption: text below the figure: the experiment, its source and the settings of all images.
        table: one mapping of column to text or number for each line.
        facts: settings of the experiment, such as weights, sizes, iterations and seeds, for ``numbers.json``.

    Example:
        >>> import numpy as np
        >>> from tfstyle.papers.study import Panel, Study
        >>> grey = Panel(np.full((32, 48, 3), 0.5, np.float32), "grey", "value 0.5")
        >>> study = Study("Constant images", ((grey,),), caption="All pixels are equal.")
        >>> [path.name for path in study.save("constant")]
        ['figure.png', '01_grey.png', 'captions.md', 'numbers.json']
    """

    title: str
    rows: tuple[tuple[Panel | Curves | None, ...], ...]
    _: KW_ONLY
    caption: str
    table: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] | None = None

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The panels with images, row by row."""
        return tuple(panel for row in self.rows for panel in row if isinstance(panel, Panel))

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> list[Path]:
        """Write ``figure.png``, a PNG file for every image, ``captions.md`` and ``numbers.json``.

        Args:
            folder: folder of the files; it is created if it does not exist.
            overwrite: whether to replace existing files.

        Returns:
            The paths of the written files: the figure, the images, the captions and the numbers.

        Raises:
            ConfigError: matplotlib, which the figure needs, is not installed.
            OutputError: the folder cannot be created or written to, or a file exists and ``overwrite`` is
                False.
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

    def save_figure(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the figure alone to a PNG file.

        Args:
            path: path of the file, which must end in ``.png``.
            overwrite: whether to replace an existing file.

        Raises:
            ConfigError: matplotlib is not installed.
            ImageError: the path does not end in ``.png``.
            OutputError: the path cannot be written to, or the file exists and ``overwrite`` is False.
        """
        check_figure(Path(path), overwrite)
        write_atomically(Path(path), _render_figure(self))

    def numbers(self) -> dict[str, Any]:
        """Return the title, facts, table and curves as a dict, the content of ``numbers.json``."""
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
        """Return the title, the caption, the captions of all panels and the table as Markdown.

        Args:
            names: file names of the images, in the order of `panels`; by default the images have no file
                names.
        """
        lines = [f"# {self.title}", "", self.caption, ""]
        files = iter(names)
        for panel in (panel for row in self.rows for panel in row if panel is not None):
            file = next(files, "") if isinstance(panel, Panel) else ""
            link = f" ({file})" if file else ""
            lines.append(f"- **{panel.title}**{link}: {panel.caption}".rstrip(": ").replace("\n", "; "))
        return "\n".join([*lines, "", *markdown_table(self.table)]) + "\n"


#: Function that `report_iteration` calls, for the progress display of the command line.
_show_iteration: contextvars.ContextVar[Callable[[int, int], None] | None] = contextvars.ContextVar(
    "show_iteration", default=None
)


@contextlib.contextmanager
def iterations_shown(show: Callable[[int, int], None]) -> Iterator[None]:
    """Call a function after each iteration of the experiments that run in the block.

    Args:
        show: function of the number of iterations done and their total, in a part of an experiment.

    Yields:
        None.
    """
    token = _show_iteration.set(show)
    try:
        yield
    finally:
        _show_iteration.reset(token)


def report_iteration(done: int, total: int) -> None:
    """Call the function that was given to `iterations_shown`, if any, after an iteration of an experiment."""
    show = _show_iteration.get()
    if show is not None:
        show(done, total)


def report_progress(progress: Progress | None, title: str, *, text: str) -> None:
    """Call ``progress``, if it is given, with the title and the text of a finished part in one line."""
    if progress is not None:
        progress(f"{title}: {text}".replace("\n", ", "))


def panel_rows(panels: Sequence[Panel], columns: int) -> tuple[tuple[Panel | None, ...], ...]:
    """Return panels in rows of equal length. The last row is filled with None."""
    padded = (*panels, *[None] * (-len(panels) % columns))
    return tuple(padded[i : i + columns] for i in range(0, len(padded), columns))


def markdown_table(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table.

    Floats have three significant digits. If a mapping lacks a column, its cell is empty.
    """
    if not table:
        return []
    columns = list(dict.fromkeys(column for row in table for column in row))
    rows = [[_format_cell(row.get(column, "")) for column in columns] for row in table]
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]


def check_folder(folder: Path, overwrite: bool = False) -> None:
    """Create the folder of an experiment and check that files can be written, before the experiment runs.

    Args:
        folder: folder of the files; it is created if it does not exist.
        overwrite: whether files of an earlier experiment may be replaced.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: the folder cannot be created or written to, or it has files of an experiment and
            ``overwrite`` is False.
    """
    _matplotlib()
    make_folder(folder)
    images = sorted(folder.glob("[0-9][0-9]_*.png"))
    for path in (*(folder / name for name in ("figure.png", "captions.md", "numbers.json")), *images):
        check_writable(path, overwrite)


def check_figure(path: Path, overwrite: bool = False) -> None:
    """Check that a figure can be written to a file, as `Study.save_figure` does, before it is computed.

    Args:
        path: path of the file.
        overwrite: whether an existing file may be replaced.

    Raises:
        ConfigError: matplotlib is not installed.
        ImageError: the path does not end in ``.png``.
        OutputError: the path cannot be written to, or the file exists and ``overwrite`` is False.
    """
    _matplotlib()
    if path.suffix.lower() != ".png":
        raise ImageError(f"cannot write {path}: the name of a figure must end in .png")
    check_writable(path, overwrite)


def _format_cell(value: Any) -> str:
    return (f"{value:.3g}" if isinstance(value, float) else str(value)).replace("|", "\\|")


def _to_json(value: Any) -> Any:
    """Convert a value to types that JSON has. Numbers that are not finite become None."""
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
    """Return numbered file names, such as ``01_conv1_1.png``, with characters that are allowed everywhere."""
    stems = [re.sub(r"[^a-z0-9.-]+|\.{2,}", "_", title.lower()) for title in titles]
    shortened = [re.sub("_+", "_", stem).strip("_.")[:40] for stem in stems]
    return [f"{i:02}_{stem}.png" for i, stem in enumerate(shortened, 1)]


def _matplotlib() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(NO_MATPLOTLIB) from None
    return Figure


def _render_figure(study: Study) -> bytes:
    """Render the figure as PNG: a grid of panels with titles and captions, and the caption below the grid."""
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
    """Return the height of a row's tallest image or diagram and the height of its text, in inches."""
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
    """Return the label of the horizontal axis and the caption, wrapped to the width of a panel."""
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
    """Return ``log`` if the values are positive and span a factor of 10, otherwise ``linear``.

    A logarithmic axis with a smaller range has too few ticks.
    """
    return "log" if values.min() > 0 and values.max() >= 10 * values.min() else "linear"

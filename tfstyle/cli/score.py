"""The command ``tfstyle score``, which scores images that show a content image in another image's style."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfstyle.cli.common import (
    DONE,
    check_images,
    check_images_or_folders,
    check_weights,
    load_tensorflow,
    refuse_standard_input,
)
from tfstyle.cli.terminal import report

if TYPE_CHECKING:
    from tfstyle.scoring.judging import Score

#: Column of the table -> number of decimals.
COLUMNS = {"E": 2, "S": 3, "ripple": 2, "frame": 2, "energy": 3}
#: Images in a row of the contact sheet, and the longest side in pixels at which it shows them.
SHEET_COLUMNS, SHEET_SIZE = 4, 400


def run_score(options: argparse.Namespace) -> int:
    """Run ``tfstyle score`` and return its exit code."""
    sources = [options.content, options.style, *options.images]
    refuse_standard_input(sources)
    check_images(sources)
    check_weights(options.weights)
    if options.reference is not None:
        check_images_or_folders([options.reference])
    sheet = None if options.output is None else Path(options.output)
    load_tensorflow()
    if sheet is not None:
        from tfstyle.papers.study import check_figure

        check_figure(sheet, options.overwrite)
    from tfstyle.scoring.judging import Judge

    judge = Judge(options.content, options.style, weights=options.weights, reference=options.reference)
    width = max(map(len, ("image", *options.images)))
    if not options.json:
        print(f"{'image':{width}}", *(f"{name:>7}" for name in COLUMNS))
    scores = []
    for path in options.images:
        scores.append(judge.judge(path))
        if not options.json:
            print(f"{path:{width}}", *(f"{text:>7}" for text in _texts(scores[-1]).values()), flush=True)
    if options.json:
        print(json.dumps([_to_json(*item) for item in zip(options.images, scores, strict=True)], indent=1))
    if sheet is not None:
        _save_sheet(sheet, sources, scores, overwrite=options.overwrite)
        if not options.json:  # standard output is then one JSON document
            report(f"{sheet}: the content image, the style image and the scored images", saved=sheet)
    return DONE


def _texts(score: Score) -> dict[str, str]:
    """Return the numbers of a score, rounded for people."""
    return {name: f"{getattr(score, name):.{decimals}f}" for name, decimals in COLUMNS.items()}


def _to_json(path: str, score: Score) -> dict[str, str | float | None]:
    """Return the object of an image. JSON has no infinity and no NaN, so they become null."""
    numbers = {name: value if math.isfinite(value) else None for name, value in score._asdict().items()}
    return {"image": path, **numbers}


def _save_sheet(path: Path, sources: Sequence[str], scores: Sequence[Score], *, overwrite: bool) -> None:
    """Write a contact sheet of the content image, the style image and the images with their scores."""
    from tfstyle.images.loading import load
    from tfstyle.papers.study import Panel, Study, panel_rows

    captions = ["content image", "style image"]
    for score in scores:
        e, s, *artefacts = (f"{name} {text}" for name, text in _texts(score).items())
        captions.append(f"{e}   {s}\n{'   '.join(artefacts)}")
    panels = [
        Panel(load(source).fitted(SHEET_SIZE).on_white(), Path(source).name, caption)
        for source, caption in zip(sources, captions, strict=True)
    ]
    title = f"{Path(sources[0]).name} in the style of {Path(sources[1]).name}"
    note = (
        "E: style, higher is closer. S: content, lower is closer. ripple: images have 0.05 to 0.16. "
        "frame: 1 if none is visible. energy: distance from the style, lower is closer."
    )
    study = Study(title, panel_rows(panels, min(len(panels), SHEET_COLUMNS)), caption=note)
    study.save_figure(path, overwrite)

"""What the views of a page show: lines of text, previews, and images."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import gradio as gr

from tfstyle.errors import TfstyleError
from tfstyle.web.painting import Preview


def status(text: str, preview: Preview | None = None) -> str:
    """Return the HTML of a line of text. With a preview, a bar is above the line and the image below it.

    A screen reader announces the line, except beside a preview, where it changes twice a second.
    """
    line = html.escape(text)
    if preview is None:
        return f'<div class="tfstyle-preview"><p role="status">{line}</p></div>'
    bar = f'<progress value="{preview.progress:.4f}" max="1" aria-label="progress"></progress>'
    image = f'<img src="{preview.image}" alt="the image so far">'
    return f'<div class="tfstyle-preview">{bar}<p>{line}</p>{image}</div>'


def error_line(error: TfstyleError) -> str:
    """Return the message of an error with the names of uploaded files, without the folders of the server."""
    return re.sub(r"\S*/[0-9a-f]{64}/", "", str(error))


def stop_button(elem_id: str) -> gr.Button:
    """Return the button that stops the job of a view. The image so far becomes its result."""
    return gr.Button("Stop", elem_id=elem_id)


def result_image(label: str, **options: Any) -> gr.Image:
    """Return a component that shows an image of the server, without a button that would share it."""
    return gr.Image(
        label=label, type="filepath", interactive=False, buttons=["download", "fullscreen"], **options
    )


def save_image(image: Any, path: Path) -> str:
    """Write an image, float32 ``[height, width, 3]`` in 0..1, and return the path as a string."""
    from tfstyle.images import ImageArray, save

    save(path, ImageArray(image))
    return str(path)

"""The page: the inputs on one side, and the views on the other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gradio as gr

from tfstyle.config import QUALITIES, StyleConfig
from tfstyle.errors import TfstyleError
from tfstyle.presets import PRESETS
from tfstyle.presets import preset as find_preset
from tfstyle.web.controls import ADVANCED_GROUPS, control_values, make_control
from tfstyle.web.display import error_line
from tfstyle.web.explain import explain_view
from tfstyle.web.guarding import GuardedBlocks
from tfstyle.web.jobs import Context, Inputs, paths_of
from tfstyle.web.limits import Limits, allowed_options, make_config
from tfstyle.web.paint import paint_view
from tfstyle.web.variations import blend_view, compare_view, places_view, texture_view
from tfstyle.web.video import video_view
from tfstyle.web.visits import Visits
from tfstyle.web.weights import ServerWeights

DATA = Path(__file__).parents[1] / "data"
#: The style images of the package: name -> file.
PACKAGE_STYLES = {"Evening": DATA / "evening.jpg", "Cat": DATA / "cat.jpg"}
CSS = """
.tfstyle-preview img { width: 100%; border-radius: 8px; }
.tfstyle-preview progress { width: 100%; height: 1rem; accent-color: var(--primary-500); }
/* Gradio's line with the place in the queue would be hidden, because the display of a waiting job is low. */
[id$="preview"] > .wrap.minimal { position: static !important; height: auto !important; max-height: none; }
[id$="preview"] > .wrap.minimal > .progress-text { position: static; font-size: 1rem; transform: none; }
[id$="preview"] > .html-container.pending { opacity: 1; }
"""
#: Arguments of `gradio.Blocks.launch` for the look. The fonts are those of the operating system, so that the
#: browser loads none.
LOOK: dict[str, Any] = {
    "theme": gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")),
    "css": CSS,
}


def make_page(visits: Visits, *, limits: Limits, weights: ServerWeights) -> gr.Blocks:
    """Return the page.

    Args:
        visits: the visits.
        limits: the limits of its users.
        weights: the weights of the server.
    """
    context = Context(visits, limits, weights=weights)
    with GuardedBlocks(title="tfstyle", analytics_enabled=False) as page:
        gr.Markdown("# tfstyle\nNeural style transfer with the method of Gatys, Ecker and Bethge.")
        gallery = gr.State([])
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                inputs = _inputs(context)
            with gr.Column(scale=3, min_width=300):
                with gr.Tab("Paint"):
                    paint_view(context, inputs, gallery=gallery)
                with gr.Tab("Places"):
                    places_view(context, inputs, gallery=gallery)
                with gr.Tab("Blend"):
                    blend_view(context, inputs, gallery=gallery)
                with gr.Tab("Texture"):
                    texture_view(context, inputs, gallery=gallery)
                with gr.Tab("Video"):
                    video_view(context, inputs)
                with gr.Tab("Compare"):
                    compare_view(context, inputs, gallery=gallery)
                with gr.Tab("Gallery"):
                    shown = gr.Gallery(
                        label="Results of this visit",
                        interactive=False,
                        elem_id="gallery",
                        buttons=["download", "fullscreen"],
                    )
                    gallery.change(lambda results: results, gallery, shown, api_visibility="private")
                with gr.Tab("Explain"):
                    explain_view(context, inputs)

        def end(request: gr.Request) -> None:
            context.visits.end(request.session_hash)

        page.unload(end)
    page.queue(default_concurrency_limit=1, max_size=limits.waiting, api_open=False)
    return page


def _inputs(context: Context) -> Inputs:
    """Add the images and settings to the page that is being made, and return their components."""
    limits, default = context.limits, StyleConfig()
    content = gr.Image(
        label="Content image", type="filepath", image_mode=None, elem_id="content", height=260,
        sources=["upload", "clipboard", "webcam"],
    )  # fmt: skip
    note = gr.Markdown(elem_id="note")
    # Gradio would open the file itself, and show its own error and traceback for a damaged one.
    content.preprocess = lambda payload: None if payload is None else payload.path
    styles = gr.Gallery(
        label="Style images", type="filepath", interactive=True, columns=3, height=180, elem_id="styles",
        object_fit="cover", file_types=["image"], buttons=["fullscreen"],
    )  # fmt: skip
    with gr.Row():
        for name, path in PACKAGE_STYLES.items():
            button = gr.Button(f"Add style: {name}", size="sm")
            button.click(_adding(context, path), styles, styles, api_visibility="private")
    strength = gr.Slider(
        0.1, 10, value=1, step=0.1, label="Strength of the style",
        info="how much stronger or weaker than usual", elem_id="strength",
    )  # fmt: skip
    size = gr.Slider(
        64, limits.size, value=default.size, step=32, label="Size",
        info="longest side of the result in pixels", elem_id="size",
    )  # fmt: skip
    quality = gr.Radio(list(QUALITIES), value=default.quality, label="Quality", elem_id="quality")
    colours = gr.Checkbox(label="Keep the colours of the content image", elem_id="colours")
    advanced = []
    with gr.Accordion("Advanced", open=False):
        preset = gr.Dropdown(
            list(PRESETS),
            value="default",
            label="preset",
            info="a named set of options, for example those of another program; with one, the quality has no "
            "effect",
        )
        for title, fields in ADVANCED_GROUPS.items():
            with gr.Accordion(title, open=False):
                advanced += [make_control(field) for field in fields]

    def uploaded(request: gr.Request, path: str | None) -> list[Any]:
        """Show in the controls the settings that are stored in an image written by tfstyle."""
        context.visits.of(request.session_hash).add_uploads(path)
        context.weights.wait_for_import()
        from tfstyle.images import read_settings

        try:
            options = allowed_options(read_settings(Path(str(path)))["options"])
            make_config(options, limits)
        except (TfstyleError, TypeError, ValueError):
            return [_unreadable(path, limits), *[gr.skip()] * (5 + len(advanced))]
        return [
            "The settings that are stored in this image are shown in the controls.",
            1,
            max(int(options.get("size", default.size)), 64),
            options.get("quality", default.quality),
            False,
            "default",
            *control_values(options),
        ]

    def styles_changed(request: gr.Request, chosen: Any) -> None:
        context.visits.of(request.session_hash).add_uploads(*paths_of(chosen))

    styles.change(styles_changed, styles, None, api_visibility="private")
    outputs = [note, strength, size, quality, colours, preset, *advanced]
    content.upload(uploaded, content, outputs, show_progress="hidden", api_visibility="private")

    def preset_chosen(name: str) -> list[Any]:
        """Show the options of a preset in the controls."""
        return control_values({} if name == "default" else _plain(find_preset(name)))

    preset.input(preset_chosen, preset, advanced, api_visibility="private")
    settings = [strength, size, quality, colours, preset, *advanced]
    return Inputs(content=content, styles=styles, settings=settings)


def _unreadable(path: str | None, limits: Limits) -> str:
    """Return the line of the error if an image cannot be read, and otherwise nothing."""
    from tfstyle.images import load

    try:
        load(str(path), max_pixels=limits.pixels)
    except TfstyleError as error:
        return f"error: {error_line(error)}"
    return ""


def _plain(config: StyleConfig) -> dict[str, Any]:
    """Return the options of a preset for the controls, in which the weights are chosen by the server."""
    return {name: value for name, value in config.as_dict().items() if name != "weights"}


def _adding(context: Context, path: Path) -> Any:
    """Return the function that adds a style image of the package to those of the user."""

    def add(request: gr.Request, chosen: Any) -> list[str]:
        copy = context.visits.of(request.session_hash).new_file(path.suffix)
        shutil.copy(path, copy)  # Gradio sends no files of the package
        return [*paths_of(chosen), str(copy)]

    return add

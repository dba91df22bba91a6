"""The view Paint: one result, with its preview, scores and files; and the page's endpoint for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from tfstyle.errors import TfstyleError
from tfstyle.web.limits import make_config, read_options
from tfstyle.web.painting import transfer
from tfstyle.web.shared import (
    QUEUE,
    Chosen,
    Context,
    Inputs,
    Updates,
    done,
    error_line,
    job,
    last_result,
    previews,
    save_image,
    status,
)

if TYPE_CHECKING:
    from tfstyle.run import Result


def paint_view(context: Context, inputs: Inputs, *, gallery: Any) -> None:
    """Add the view to the page that is being made.

    Args:
        context: visits and limits.
        inputs: the inputs beside the views.
        gallery: state with the results of the visit.
    """
    with gr.Row():
        paint = gr.Button("Paint", variant="primary", elem_id="paint")
        stop = gr.Button("Stop", elem_id="stop")
    display = gr.HTML(
        status("Choose a content image and a style image, then press Paint."), elem_id="preview"
    )
    slider = gr.ImageSlider(
        label="Content image and result", elem_id="result", type="filepath", interactive=False, visible=False
    )
    facts = gr.Markdown(elem_id="facts")
    with gr.Row():
        png = gr.DownloadButton("Download PNG", visible=False, elem_id="png")
        tiff = gr.DownloadButton("Download TIFF, 16 bits", visible=False, elem_id="tiff")
    outputs = [display, slider, facts, png, tiff, gallery]

    @job(display)
    def run(request: gr.Request, results: list[Any], *values: Any) -> Iterator[Updates]:
        hidden = gr.update(visible=False)
        yield {slider: hidden, png: hidden, tiff: hidden, facts: ""}
        chosen = context.choose(request, values)
        updates = transfer(chosen.content, chosen.styles, chosen.config, stop=chosen.visit.should_stop)
        result = yield from previews(updates, display)
        if chosen.visit.ended:  # the tab is closed
            return
        yield from finished(chosen, result, results)

    def finished(chosen: Chosen, result: Result, results: list[Any]) -> Iterator[Updates]:
        files = [chosen.visit.new_file(suffix) for suffix in (".png", ".tif")]
        result.save(files[0])
        result.save(files[1], bits=16)
        before = save_image(result.content, chosen.visit.new_file(".png"))
        yield {
            display: status(done(result)),
            slider: gr.update(value=(before, str(files[0])), visible=True),
            facts: _facts(result),
            png: gr.update(value=str(files[0]), visible=True),
            tiff: gr.update(value=str(files[1]), visible=True),
            gallery: [*results, (str(files[0]), done(result))],
        }
        yield {facts: f"{_facts(result)}  \n{_scores(chosen, result)}"}

    paint.click(context.begin, queue=False, api_visibility="private").then(
        run, [gallery, *inputs.all], outputs, **QUEUE
    )
    stop.click(_stopping(context), queue=False, api_visibility="private")
    _add_endpoint(context)


def _stopping(context: Context) -> Any:
    def stop(request: gr.Request) -> None:
        context.visits.of(request.session_hash).stopped.set()

    return stop


def _facts(result: Result) -> str:
    facts = result.facts
    return (
        f"seed {result.config.seed}, loss {result.history.total[-1]:.4g}, weights {facts['weights']}, "
        f"{facts['device'].strip('/')}, {facts['precision']}"
    )


def _scores(chosen: Chosen, result: Result) -> str:
    """Return the scores of a result, or the reason why there are none."""
    from tfstyle.scoring import score

    if len(chosen.styles) > 1:
        return "No scores: they compare a result with a single style image."
    if not result.facts["weights"].startswith("imagenet"):
        return "No scores: they need VGG-19's ImageNet weights."
    try:
        (scores,) = score(chosen.content, chosen.styles[0], result.image, weights="imagenet")
    except TfstyleError as error:  # such as an image that is too small
        return f"No scores: {error_line(error)}"
    return f"{scores} (higher E: closer style; lower S: closer content)"


def _add_endpoint(context: Context) -> None:
    """Add the endpoint ``/paint`` for programs."""

    def paint(
        request: gr.Request, content_file: str, style_file: str, options_as_json_text: str
    ) -> tuple[str, Any]:
        visit = context.visits.of(request.session_hash)
        visit.add_uploads(content_file, style_file)
        try:
            context.limits.check_files(content_file, [style_file])
            config = make_config(read_options(options_as_json_text), context.limits)
            updates = transfer(content_file, [style_file], config, stop=visit.should_stop)
            result = last_result(updates)
        except TfstyleError as error:
            raise gr.Error(error_line(error), print_exception=False) from None
        file = visit.new_file(".png")
        result.save(file)
        history = result.history
        facts = {
            "facts": result.settings()["facts"],
            "iterations": len(history.total),
            "loss": {name: getattr(history, name)[-1] for name in ("total", "content", "style", "tv")},
            "seconds": history.seconds[-1],
        }
        return str(file), facts

    with gr.Row(visible=False):
        content = gr.File(label="content_file", type="filepath")
        style = gr.File(label="style_file", type="filepath")
        options = gr.Textbox(label="options_as_json_text")
        image, facts = gr.File(label="image"), gr.JSON(label="facts")
        trigger = gr.Button("paint")
    trigger.click(
        paint, [content, style, options], [image, facts], api_name="paint", concurrency_id="jobs",
        api_description="Transfer the style of one image to another. The options are a JSON object by the "
        "names of the fields of StyleConfig, and \"preset\". Returns a PNG file and the facts of the run.",
    )  # fmt: skip

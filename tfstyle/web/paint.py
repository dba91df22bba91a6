"""The view Paint: one result, with its preview, scores and files; and the page's endpoint for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from tfstyle.config import StyleConfig
from tfstyle.errors import TfstyleError, WeightsError
from tfstyle.web.display import error_line, save_image, status, stop_button
from tfstyle.web.jobs import Chosen, Context, Inputs, Updates, job, last_result, outcome, previews
from tfstyle.web.limits import make_config, read_options

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
        stop = stop_button("stop")
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

    @job(context, display)
    def run(request: gr.Request, results: list[Any], *values: Any) -> Iterator[Updates]:
        hidden = gr.update(visible=False)
        yield {slider: hidden, png: hidden, tiff: hidden, facts: ""}
        chosen = context.choose(request, values)
        result = yield from previews(chosen.transfer(), display)
        yield from finished(chosen, result, results)

    def finished(chosen: Chosen, result: Result, results: list[Any]) -> Iterator[Updates]:
        line = outcome(chosen, result)
        files = [chosen.visit.new_file(suffix) for suffix in (".png", ".tif")]
        result.save(files[0])
        result.save(files[1], bits=16)
        before = save_image(result.content, chosen.visit.new_file(".png"))
        yield {
            display: status(line),
            slider: gr.update(value=(before, str(files[0])), visible=True),
            facts: _facts(result),
            png: gr.update(value=str(files[0]), visible=True),
            tiff: gr.update(value=str(files[1]), visible=True),
            gallery: [*results, (str(files[0]), line)],
        }
        yield {facts: f"{_facts(result)}  \n{_scores(chosen, result)}"}

    context.add_job(paint, run, stop=stop, inputs=[gallery, *inputs.all], outputs=outputs)
    _add_endpoint(context)


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
    try:
        (scores,) = score(chosen.content, chosen.styles[0], result.image, weights=chosen.config.weights)
    except WeightsError:
        return "No scores: they need VGG-19's ImageNet weights, and this result was made with others."
    except TfstyleError as error:  # such as an image that is too small
        return f"No scores: {error_line(error)}"
    return (
        f"E {scores.E:.2f} (style, higher is closer), S {scores.S:.3f} (content, lower is closer), "
        f"ripple {scores.ripple:.2f}, frame {scores.frame:.2f}, energy {scores.energy:.3f}"
    )


def _add_endpoint(context: Context) -> None:
    """Add the endpoint ``/paint`` for programs."""

    def paint(
        request: gr.Request, content_file: str, style_file: str, options_as_json_text: str
    ) -> tuple[str, Any]:
        def config() -> StyleConfig:
            return make_config(read_options(options_as_json_text), context.limits)

        with context.logged(request):
            try:
                chosen = context.checked(request, content_file, styles=[style_file], config=config)
                result = last_result(chosen.transfer())
                file = chosen.visit.new_file(".png")
                result.save(file)
            except TfstyleError as error:
                raise gr.Error(error_line(error), print_exception=False) from None
        history = result.history
        facts = {
            "facts": result.settings()["facts"],
            "iterations": len(history.total),
            "loss": {name: getattr(history, name)[-1] for name in ("total", "content", "style", "tv")},
            "seconds": history.seconds[-1],
            "summary": outcome(chosen, result),
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

"""The view Explain: which layers do what, for readers of the papers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np

from tfstyle.config import StyleConfig
from tfstyle.web.display import result_image, save_image, status, stop_button
from tfstyle.web.jobs import Context, Inputs, Updates, job, previews

#: Longest side in pixels of the images in this view.
SIDE = 192
LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
CONTENT_LAYERS = ("conv1_2", "conv2_2", "conv3_2", "conv4_2", "conv5_2")


def explain_view(context: Context, inputs: Inputs) -> None:
    """Add the view to the page that is being made."""
    gr.Markdown(
        "**Style layer**: an image from noise that has the Gram matrix of the first style image in this "
        "layer alone. **Content layer**: an image from noise that has the features of the content image in "
        "this layer alone. **Gram matrix**: which features occur together in the style image (eq. 3 of "
        "Gatys, Ecker and Bethge 2016); its diagonal is the power of each filter. **Loss**: the losses of a "
        "style transfer with these two layers."
    )
    with gr.Row():
        style_layer = gr.Dropdown(list(LAYERS), value="conv2_1", label="Style layer")
        content_layer = gr.Dropdown(list(CONTENT_LAYERS), value="conv2_2", label="Content layer")
        explain = gr.Button("Explain", variant="primary", elem_id="explain-run")
        stop = stop_button("explain-stop")
    display = gr.HTML(elem_id="explain-preview")
    names = ("Style layer alone", "Content layer alone", "Gram matrix of the style", "Loss")
    with gr.Row():
        shown = [result_image(name) for name in names[:2]]
    with gr.Row():
        shown += [result_image(name) for name in names[2:]]

    @job(context, display)
    def run(request: gr.Request, style: str, content: str, *values: Any) -> Iterator[Updates]:
        chosen = context.choose(request, values)
        layers = {"style_layers": (style,), "content_layers": (content,), "size": SIDE, "scales": 1}
        chosen = chosen.with_options(
            **layers, style_layer_weights=None, content_layer_weights=None, color=StyleConfig().color
        )
        chosen = chosen.with_styles(1)
        noise = {"init": "noise", "iterations": 60, "tv_weight": 0.0, "spectrum_weight": 0.0}
        cases = {
            "the style layer: ": {**noise, "content_weight": 0.0},
            "the content layer: ": {**noise, "content_weight": 1.0, "style_weight": 0.0},
            "both: ": {},
        }
        results = []
        for index, (before, options) in enumerate(cases.items()):
            updates = chosen.with_options(**options).transfer()
            result = yield from previews(updates, display, before=before)
            results.append(result)
            if index < 2:
                yield {shown[index]: save_image(result.image, chosen.visit.new_file(".png"))}
        gram = _gram_matrix(results[0], style, weights=chosen.config.weights)
        yield {
            shown[2]: save_image(gram, chosen.visit.new_file(".png")),
            shown[3]: save_image(_loss_curve(results[2]), chosen.visit.new_file(".png")),
            display: status("done"),
        }

    context.add_job(
        explain, run, stop=stop, inputs=[style_layer, content_layer, *inputs.all], outputs=[display, *shown]
    )


def _gram_matrix(result: Any, layer: str, *, weights: str) -> np.ndarray:
    """Return the logarithm of a Gram matrix as a heat map, float32 ``[height, width, 3]`` in 0..1."""
    from matplotlib import colormaps

    from tfstyle.losses import gram_matrix
    from tfstyle.network import Encoder

    facts = result.facts
    encoder = Encoder((layer,), weights, pooling=facts["pooling"], padding=facts["padding"])
    gram = gram_matrix(encoder(result.styles[0][None])[layer])[0].numpy()
    logarithm = np.log10(np.abs(gram) + 1e-3 * np.abs(gram).max() + 1e-12)
    share = (logarithm - logarithm.min()) / max(float(np.ptp(logarithm)), 1e-12)
    repeated = np.kron(share, np.ones((max(1, 384 // len(share)),) * 2))
    return np.asarray(colormaps["magma"](repeated)[..., :3], np.float32)


def _loss_curve(result: Any) -> np.ndarray:
    """Return a figure of the losses, float32 ``[height, width, 3]`` in 0..1."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    result.history.plot(figure.subplots())
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), np.float32)[..., :3] / 255

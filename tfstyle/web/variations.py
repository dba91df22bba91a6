"""The views Places, Blend, Texture and Compare: other results from the same images and settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
import numpy as np

from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError, TfstyleError
from tfstyle.web.display import error_line, result_image, save_image, status, stop_button
from tfstyle.web.guarding import bound_editor
from tfstyle.web.jobs import Context, Inputs, Updates, job, paths_of, previews, saved
from tfstyle.web.painting import Stopped

#: Colours of the brush for the regions of the styles, and for what stays, with their names.
REGION_COLOURS = (
    ("#e6194b", "red"), ("#3cb44b", "green"), ("#4363d8", "blue"), ("#f58231", "orange"),
    ("#911eb4", "purple"), ("#42d4f4", "cyan"),
)  # fmt: skip
STAYS = ("#ffffff", "white")
#: Longest side of the image in the editor, and of the masks, in pixels.
EDITOR_SIDE = 1024
#: Maximum number of settings of a comparison.
MOST_SETTINGS = 6


def places_view(context: Context, inputs: Inputs, *, gallery: Any) -> None:
    """Add the view in which the regions of the styles are brushed on the content image."""
    legend = ", ".join(f"{name}: style {number}" for number, (_, name) in enumerate(REGION_COLOURS, 1))
    gr.Markdown(
        "Brush the regions of the styles on the content image. Each colour of the brush stands for a style: "
        f"{legend}. {STAYS[1].capitalize()} marks what stays unchanged. The rest gets style 1."
    )
    load = gr.Button("Load the content image", elem_id="places-load")
    colours = [colour for colour, _ in (*REGION_COLOURS, STAYS)]
    editor = gr.ImageEditor(
        label="Regions", type="numpy", image_mode="RGBA", sources=(), transforms=(), layers=False,
        brush=gr.Brush(colors=colours, default_color=colours[1], color_mode="fixed", default_size=40),
        elem_id="places-editor", height=420,
    )  # fmt: skip
    with gr.Row():
        paint = gr.Button("Paint the regions", variant="primary", elem_id="places-paint")
        stop = stop_button("places-stop")
    display = gr.HTML(elem_id="places-preview")
    shown = result_image("Result", elem_id="places-result")

    bound_editor(editor)

    def take(request: gr.Request, content: str | None) -> Any:
        """Return the content image at a size at which a drawing takes little memory."""
        if not content:
            return None
        context.weights.wait_for_import()
        from tfstyle.images import load as load_image

        image = load_image(content, max_pixels=context.limits.pixels)
        return image.fitted(EDITOR_SIDE).as_pil()

    load.click(take, inputs.content, editor, api_visibility="private")

    @job(context, display)
    def run(request: gr.Request, results: list[Any], drawn: Any, *values: Any) -> Iterator[Updates]:
        from tfstyle.losses import Masks

        chosen = context.choose(request, values)
        regions, keep = regions_of(drawn, len(chosen.styles))
        masks = Masks(regions if len(chosen.styles) > 1 else (), keep=keep)
        result = yield from previews(chosen.transfer(masks=masks), display)
        file, caption = saved(chosen, result, kind="regions")
        yield {display: status(caption), shown: file, gallery: [*results, (file, caption)]}

    context.add_job(
        paint, run, stop=stop, inputs=[gallery, editor, *inputs.all], outputs=[display, shown, gallery]
    )


def regions_of(drawn: Any, count: int) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Return the masks of the styles, and the mask of what stays, from the layers of an image editor.

    Args:
        drawn: value of the editor: a dict whose ``layers`` are uint8 ``[height, width, 4]``.
        count: number of styles.

    Returns:
        For each style a mask, float32 ``[height, width]`` with 1 inside, which add up to 1; and the mask of
        what stays, or None if nothing is marked.

    Raises:
        ConfigError: nothing is drawn, the layers have different sizes, or a colour belongs to a style that
            does not exist.
    """
    layers = [np.asarray(layer) for layer in (drawn or {}).get("layers", ()) if layer is not None]
    step = max([1, *(-(-max(layer.shape[:2]) // EDITOR_SIDE) for layer in layers)])
    layers = [layer[::step, ::step] for layer in layers]
    if not any((layer[..., 3] > 0).any() for layer in layers):
        raise ConfigError("nothing is brushed; load the content image, and brush the regions of the styles")
    palette = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c, _ in (*REGION_COLOURS, STAYS)]
    choice = np.full(layers[0].shape[:2], -1)
    for layer in layers:
        if layer.shape != layers[0].shape:
            raise ConfigError("the layers of the drawing have different sizes; load the content image again")
        nearest, distance = np.zeros(choice.shape, int), np.full(choice.shape, 1000)
        for number, colour in enumerate(palette):  # one colour at a time, which takes less memory
            difference = np.abs(layer[..., :3].astype(np.int16) - colour).sum(-1)
            nearest = np.where(difference < distance, number, nearest)
            distance = np.minimum(difference, distance)
        choice = np.where(layer[..., 3] > 127, nearest, choice)
    stays = choice == len(REGION_COLOURS)
    choice = np.where((choice < 0) | stays, 0, choice)
    if choice.max() >= count:
        number = int(choice.max()) + 1
        raise ConfigError(
            f"the colour {REGION_COLOURS[number - 1][1]} stands for style {number}, but the number of style "
            f"images is {count}; add style images, or use another colour"
        )
    masks = [(choice == number).astype(np.float32) for number in range(count)]
    return masks, stays.astype(np.float32) if stays.any() else None


def blend_view(context: Context, inputs: Inputs, *, gallery: Any) -> None:
    """Add the view that blends the styles by sliders, and the strip of results between two styles."""
    gr.Markdown("The sliders set the weights of the styles in the blend, in the order of the style images.")
    sliders = [
        gr.Slider(
            0, 1, value=1, step=0.05, label=f"Style {number}", visible=number <= 2,
            elem_id=f"blend-{number}",
        )
        for number in range(1, context.limits.styles + 1)
    ]  # fmt: skip
    count = gr.Slider(3, 9, value=5, step=1, label="Results in a strip between the first two styles")
    with gr.Row():
        paint = gr.Button("Paint the blend", variant="primary", elem_id="blend-paint")
        strip = gr.Button("Paint the strip", elem_id="blend-strip")
        stop = stop_button("blend-stop")
    display = gr.HTML(elem_id="blend-preview")
    shown = result_image("Result", elem_id="blend-result")

    def styles_changed(styles: Any) -> list[Any]:
        number = max(2, len(paths_of(styles)))
        return [gr.update(visible=k < number) for k in range(len(sliders))]

    inputs.styles.change(styles_changed, inputs.styles, sliders, api_visibility="private")

    @job(context, display)
    def run(request: gr.Request, results: list[Any], *values: Any) -> Iterator[Updates]:
        weights, others = values[: len(sliders)], values[len(sliders) :]
        chosen = context.choose(request, others)
        if len(chosen.styles) < 2:
            raise ConfigError("a blend needs at least two style images")
        chosen = chosen.with_options(style_blend=tuple(float(w) for w in weights[: len(chosen.styles)]))
        result = yield from previews(chosen.transfer(), display)
        file, caption = saved(chosen, result, kind="blend")
        yield {display: status(caption), shown: file, gallery: [*results, (file, caption)]}

    @job(context, display)
    def run_strip(request: gr.Request, results: list[Any], count: float, *values: Any) -> Iterator[Updates]:
        chosen = context.choose(request, values)
        if len(chosen.styles) < 2:
            raise ConfigError("a strip needs two style images")
        from tfstyle.images import strip
        from tfstyle.run import interpolate

        images: list[np.ndarray] = []
        finished = interpolate(
            chosen.content, chosen.styles[:2], chosen.config, count=int(count),
            stop=chosen.should_stop,
        )  # fmt: skip
        for result in finished:
            images.append(result.image)
            file = save_image(strip(images), chosen.visit.new_file(".png"))
            yield {display: status(f"{len(images)} of {int(count)} results"), shown: file}
        if not images:
            raise Stopped("stopped before the first result")
        yield {gallery: [*results, (file, f"strip of {len(images)} results")]}

    outputs = [display, shown, gallery]
    context.add_job(paint, run, stop=stop, inputs=[gallery, *sliders, *inputs.all], outputs=outputs)
    context.add_job(strip, run_strip, stop=stop, inputs=[gallery, count, *inputs.all], outputs=outputs)


def texture_view(context: Context, inputs: Inputs, *, gallery: Any) -> None:
    """Add the view that makes a seamless texture of the first style image, shown tiled."""
    gr.Markdown("A texture with the Gram matrices of the first style image. It tiles without seams.")
    side = gr.Slider(
        64, 1024, value=256, step=64, label="Side of the texture", info="in pixels", elem_id="texture-side"
    )
    with gr.Row():
        make = gr.Button("Make the texture", variant="primary", elem_id="texture-make")
        stop = stop_button("texture-stop")
    display = gr.HTML(elem_id="texture-preview")
    with gr.Row():
        shown = result_image("Texture", elem_id="texture-result")
        tiled = result_image("Tiled 2 x 2")

    @job(context, display)
    def run(request: gr.Request, results: list[Any], side: float, *values: Any) -> Iterator[Updates]:
        chosen = context.choose(request, values, content_needed=False)
        chosen = chosen.with_options(
            size=int(side),
            padding="circular",
            init="noise",
            content_weight=0.0,
            color=StyleConfig().color,
        )
        canvas = np.full((int(side), int(side), 3), 0.5, np.float32)  # only its size matters
        result = yield from previews(chosen.with_styles(1).transfer(content=canvas), display)
        file, caption = saved(chosen, result, kind="texture")
        tiles = save_image(np.tile(result.image, (2, 2, 1)), chosen.visit.new_file(".png"))
        yield {display: status(caption), shown: file, tiled: tiles, gallery: [*results, (file, caption)]}

    context.add_job(
        make, run, stop=stop, inputs=[gallery, side, *inputs.all], outputs=[display, shown, tiled, gallery]
    )


def compare_view(context: Context, inputs: Inputs, *, gallery: Any) -> None:
    """Add the view that shows the same images under several settings as a sheet."""
    gr.Markdown(
        f"Choose settings and add them to the list, up to {MOST_SETTINGS} times. Compare paints the same "
        "images with each entry of the list."
    )
    remembered = gr.State([])
    with gr.Row():
        add = gr.Button("Add settings", elem_id="compare-add")
        clear = gr.Button("Clear list", elem_id="compare-clear")
        run_all = gr.Button("Compare", variant="primary", elem_id="compare-run")
        stop = stop_button("compare-stop")
    listed = gr.Markdown("The list is empty.", elem_id="compare-list")
    display = gr.HTML(elem_id="compare-preview")
    shown = result_image("Sheet", elem_id="compare-result")

    def add_settings(settings: list[Any], *values: Any) -> tuple[Any, str]:
        if len(settings) == MOST_SETTINGS:
            return settings, f"The list is full: it has {MOST_SETTINGS} settings. Clear it first."
        settings = [*settings, list(values)]
        try:
            configs = [context.config(values) for values in settings]
        except TfstyleError as error:
            return settings[:-1], f"error: {error_line(error)}"
        return settings, "\n".join(
            f"{number}. `{config.replace(max_pixels=None)}`" for number, config in enumerate(configs, 1)
        )

    add.click(add_settings, [remembered, *inputs.settings], [remembered, listed], api_visibility="private")
    clear.click(lambda: ([], "The list is empty."), None, [remembered, listed], api_visibility="private")

    @job(context, display)
    def run(
        request: gr.Request, results: list[Any], settings: Sequence[Any], content: Any, styles: Any
    ) -> Iterator[Updates]:
        if not settings:
            raise ConfigError("the list is empty; add settings to it")
        from tfstyle.images import contact_sheet

        choices = [context.choose(request, [content, styles, *values]) for values in settings]
        images = []
        for number, chosen in enumerate(choices, 1):
            before = f"{number} of {len(choices)}: "
            result = yield from previews(chosen.transfer(), display, before=before)
            images.append(result.image)
            if choices[0].should_stop():
                break
        columns = min(3, len(images))
        cells = [*images, *[None] * (-len(images) % columns)]
        rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
        file = save_image(contact_sheet(rows, side=480), choices[0].visit.new_file(".png"))
        yield {
            display: status(
                f"{len(images)} results in the order of the list, from left to right and from top to bottom"
            ),
            shown: file,
            gallery: [*results, (file, f"sheet of {len(images)} settings")],
        }

    context.add_job(
        run_all, run, stop=stop, inputs=[gallery, remembered, inputs.content, inputs.styles],
        outputs=[display, shown, gallery],
    )  # fmt: skip

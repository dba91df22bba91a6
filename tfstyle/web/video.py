"""The view Video: a clip in the styles of the page."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from tfstyle.errors import ImageError
from tfstyle.web.display import status, stop_button
from tfstyle.web.jobs import Context, Inputs, Updates, job
from tfstyle.web.painting import PREVIEW_INTERVAL, Preview, Stopped, data_uri

#: Largest number of frames per second, unless the user moves the control.
DEFAULT_FPS = 12


def video_view(context: Context, inputs: Inputs) -> None:
    """Add the view in which a clip is stylised."""
    gr.Markdown(
        "Choose a clip. The styles are transferred to its frames; the content image is not used. Each frame "
        "starts from the result of the frame before, warped along the motion of the clip, so that the video "
        "does not flicker. Stop keeps the finished frames."
    )
    clip = gr.File(
        label="Clip", type="filepath", file_types=["video", ".gif"], file_count="single", elem_id="video-clip"
    )
    with gr.Row():
        start = gr.Number(0, label="Start", info="in seconds", minimum=0, elem_id="video-start")
        end = gr.Number(
            0, label="End", info="in seconds; 0 is the end of the clip", minimum=0, elem_id="video-end"
        )
        fps = gr.Slider(
            1, 60, value=DEFAULT_FPS, step=1, label="Frames per second", info="at most", elem_id="video-fps"
        )
    fast = gr.Checkbox(label="Fast: fewer iterations per frame", elem_id="video-fast")
    with gr.Row():
        paint = gr.Button("Paint the video", variant="primary", elem_id="video-paint")
        stop = stop_button("video-stop")
    display = gr.HTML(elem_id="video-preview")
    shown = gr.Video(
        label="Result", interactive=False, elem_id="video-result", buttons=["download"], autoplay=False
    )

    @job(context, display)
    def run(
        request: gr.Request,
        clip: str | None,
        start: float | None,
        end: float | None,
        fps: float,
        fast: bool,
        *values: Any,
    ) -> Iterator[Updates]:
        chosen = context.choose(request, values, content_needed=False)
        if not clip:
            raise ImageError("no clip; upload one")
        chosen.visit.add_uploads(clip)
        from tfstyle.run import fitted_shape
        from tfstyle.video import Selection, VideoOptions, iterate, open_clip

        selection = Selection(start=start or None, end=end or None, fps=fps)

        def check() -> None:
            if chosen.should_stop():
                raise Stopped("stopped while the clip was read")

        opened = open_clip(clip, selection, max_pixels=context.limits.pixels, trusted=False, check=check)
        context.limits.check_video(opened.count, fitted_shape(opened.shape, chosen.config))
        file, last = chosen.visit.new_file(".mp4"), -float("inf")
        video = VideoOptions(fast=bool(fast))
        steps = iterate(opened, chosen.styles, chosen.config, output=file, video=video)
        with steps, contextlib.suppress(Stopped):
            for step in steps:
                if chosen.should_stop():
                    step.stop()
                elif time.monotonic() - last >= PREVIEW_INTERVAL:
                    preview = Preview(step.progress, step.text, image=data_uri(step.image))
                    yield {display: status(step.text, preview)}
                    last = time.monotonic()
        result = steps.result()
        if result.path is None:
            raise Stopped("stopped before the first frame was finished")
        height, width = steps.run.shape
        count = f"{result.frames} of {result.expected} frames"
        error = "" if result.warping_error is None else f", warping error {result.warping_error:.1f} levels"
        late = f"; stopped by the limit of {chosen.limits.seconds:g} s" if chosen.late else ""
        notes = late + "".join(f"; {note.replace(opened.name, 'the clip')}" for note in result.notes)
        line = f"{width} x {height} pixels, {count} in {result.seconds:.1f} s{error}{notes}"
        yield {display: status(line), shown: str(result.path)}

    context.add_job(
        paint, run, stop=stop, inputs=[clip, start, end, fps, fast, *inputs.all], outputs=[display, shown]
    )

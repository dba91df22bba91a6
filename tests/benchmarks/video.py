"""Videos: flicker, style, drift and seconds per frame: ``python -m tests.benchmarks.video``.

The clips are made from a photograph by `tests.video.clips`: a pan, a zoom, a moving object in front of a
still background, a noisy pan, and a still clip. Their motion is known. For each clip the benchmark makes a
video, stylises the last frames (``--singles N``) one by one with the same options, and prints the warping
error of both along the true flow, the style score E of the last frame of both, and the error of the estimated
flow. With ``--drift N`` it makes a video of a pan of N frames, and prints E and the warping error along it.
With ``--times`` it measures the seconds per frame of a video, a fast video and single images, those of the
flow, and those of reading and writing the file. ``--strip FILE`` writes frames and difference images of the
noisy pan.

E needs weights that hold blocks 1 to 3 of VGG-19's ImageNet weights (``--score-weights``).
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import machine, results
from tests.video import clips
from tests.video.files import write_clip

DATA = Path(__file__).parents[2] / "tfstyle" / "data"
CLIPS = ["pan", "zoom", "moving object", "noisy pan", "still"]
SHAPES = {"320 x 240": (240, 320), "640 x 360": (360, 640)}


def scenes(photo: Any, shape: tuple[int, int], count: int) -> dict[str, clips.Clip]:
    """Return the clips by name, made from a photograph."""
    height, width = shape
    large = photo.resized((height + 8 + count, width + 8 + 3 * count)).rgb
    exact = photo.resized(shape).rgb
    pan = clips.pan(count, shape, (2.3, 0.7), image=large)
    return {
        "pan": pan,
        "zoom": clips.zoom(count, shape, 1.01, image=exact),
        "moving object": clips.moving_object(count, shape, (2.0, 0.5), image=exact),
        "noisy pan": clips.noisy(pan, 4 / 255),
        "still": clips.still(count, image=exact),
    }


def painted_video(clip: clips.Clip, style: Any, options: dict[str, Any], **video: Any) -> tuple[Any, Any]:
    """Return the frames of a video and its result."""
    from tfstyle.video import VideoOptions, iterate

    frames = []
    with iterate(clip.frames, style, **options, video=VideoOptions(**video)) as steps:
        for step in steps:
            if step.frame_done:
                frames.append(step.image)
    return np.array(frames), steps.result()


def painted_singly(frames: Sequence[np.ndarray], style: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """Return the results of frames that are stylised one by one, and the seconds of each."""
    from tfstyle.config import StyleConfig
    from tfstyle.run import Run

    images, seconds, setup = [], [], None
    for frame in frames:
        began = time.perf_counter()
        run = Run(frame, style, StyleConfig(**options), setup=setup)
        setup = run.setup
        for _ in run:
            pass
        images.append(run.result().image)
        seconds.append(time.perf_counter() - began)
    return np.array(images), seconds


def true_warping_errors(frames: np.ndarray, clip: clips.Clip, first: int = 0) -> list[float]:
    """Return the mean difference of each frame from the one before, warped along the true flow, in levels.

    Pixels that the frame before does not show, and those within two pixels of them, are left out.
    """
    from scipy.ndimage import binary_erosion, map_coordinates

    errors = []
    for t in range(1, len(frames)):
        flow, visible = clip.flows[first + t], clip.visible[first + t]
        rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]]
        points = [rows + flow[..., 1], columns + flow[..., 0]]
        moved = [map_coordinates(frames[t - 1][..., i], points, order=3, mode="nearest") for i in range(3)]
        difference = np.abs(np.stack(moved, -1) - frames[t]).mean(-1)
        errors.append(255 * float(difference[binary_erosion(visible, iterations=2)].mean()))
    return errors


def flow_error(clip: clips.Clip) -> float:
    """Return the median error of the estimated flow in pixels, where the frame before shows the point."""
    from tfstyle.video import estimate_flow, grey_frame

    errors = []
    for t in range(1, len(clip.frames)):
        flow = estimate_flow(grey_frame(clip.frames[t]), grey_frame(clip.frames[t - 1]))
        errors.append(np.linalg.norm(flow - clip.flows[t], axis=-1)[clip.visible[t]])
    return float(np.median(np.concatenate(errors)))


def measure_flicker(options: argparse.Namespace, settings: dict[str, Any]) -> list[str]:
    """Return the table of flicker and style."""
    from tfstyle.images import load
    from tfstyle.scoring import score

    photo, style = load(options.content), load(options.style)
    height, width = options.shape
    rows = [
        f"{options.frames} frames of {width} x {height} pixels; single images: the last {options.singles}:",
        "",
        "| clip | flow error, px | warping error of the video | of single images | ratio | E of the last "
        "frame | of the single image |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, clip in scenes(photo, options.shape, options.frames).items():
        if name not in options.clips:
            continue
        frames, _ = painted_video(clip, style, settings)
        first = options.frames - options.singles
        singles, _ = painted_singly(clip.frames[first:], style, settings)
        video_error = float(np.mean(true_warping_errors(frames, clip)))
        single_error = float(np.mean(true_warping_errors(singles, clip, first)))
        scores = ["", ""]
        if options.score_weights is not None:
            scored = score(clip.frames[-1], style, frames[-1], singles[-1], weights=options.score_weights)
            scores = [f"{s.E:.2f}" for s in scored]
        flow = "0" if name == "still" else f"{flow_error(clip):.3f}"
        if single_error > 1e-3:
            ratio = f"{video_error / single_error:.2f}"
        else:  # of a still clip, whose frames have equal results
            ratio = "-"
        cells = [name, flow, f"{video_error:.2f}", f"{single_error:.2f}", ratio, *scores]
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], flush=True)
        if name == "noisy pan" and options.strip is not None:
            write_strip(options.strip, clip, frames, singles, first)
    return rows


def measure_drift(options: argparse.Namespace, settings: dict[str, Any]) -> list[str]:
    """Return the table of E along a long pan."""
    from tfstyle.images import load
    from tfstyle.scoring import score

    photo, style, count = load(options.content), load(options.style), options.drift
    height, width = options.shape
    large = photo.resized((height + 8 + count, width + 8 + 2 * count)).rgb
    clip = clips.pan(count, options.shape, (1.3, 0.4), image=large)
    frames, _ = painted_video(clip, style, settings)
    errors = true_warping_errors(frames, clip)
    rows = ["| frame | E | warping error |", "|---|---|---|"]
    for number in sorted({1, 5, 10, 20, 40, count}):
        if number <= count:
            value = score(clip.frames[number - 1], style, frames[number - 1], weights=options.score_weights)
            error = "" if number == 1 else f"{errors[number - 2]:.2f}"
            rows.append(f"| {number} | {value[0].E:.2f} | {error} |")
    return [f"A pan of {count} frames of {width} x {height} pixels:", "", *rows]


def measure_times(options: argparse.Namespace, settings: dict[str, Any]) -> list[str]:
    """Return the table of seconds per frame."""
    from tfstyle.images import load
    from tfstyle.video import consistency_weights, estimate_flow, grey_frame

    photo, style = load(options.content), load(options.style)
    rows = [
        "| frames | first frame, s | later frame, s | share of a single image | fast later frame, s | share "
        "| single image, s | flow of a frame, s | reading and writing of a frame, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, shape in SHAPES.items():
        if name not in options.times:
            continue
        height, width = shape
        count = options.timed
        image = photo.resized((height + 8 + count, width + 8 + 3 * count)).rgb
        clip = clips.pan(count, shape, (2.3, 0.7), image=image)
        sized = {**settings, "size": max(shape)}
        _, usual = painted_video(clip, style, sized)
        _, fast = painted_video(clip, style, sized, fast=True)
        _, singles = painted_singly(clip.frames[:3], style, sized)
        later = statistics.median(record.seconds for record in usual.records[1:])
        quick = statistics.median(record.seconds for record in fast.records[1:])
        single = statistics.median(singles[1:])  # the first one traces the step
        now, before = grey_frame(clip.frames[1]), grey_frame(clip.frames[0])

        def flows(now: np.ndarray = now, before: np.ndarray = before) -> None:
            for _ in range(2):  # to the frame before and to the tenth frame before
                consistency_weights(estimate_flow(now, before), estimate_flow(before, now))

        with tempfile.TemporaryDirectory() as folder:
            path = write_clip(Path(folder) / "clip.mp4", clip.frames)
            file_seconds = _seconds(functools.partial(_copy, path, Path(folder) / "out.mp4")) / count
        rows.append(
            f"| {name} | {usual.records[0].seconds:.1f} | {later:.2f} | {later / single:.2f} | {quick:.2f} | "
            f"{quick / single:.2f} | {single:.2f} | {_seconds(flows):.2f} | {file_seconds:.3f} |"
        )
        print(rows[-1], flush=True)
    return rows


def _seconds(function: Callable[[], None]) -> float:
    """Return the median time of five calls."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _copy(source: str, path: Path) -> None:
    from tfstyle.video import VideoWriter, open_clip

    clip = open_clip(source)
    writer = VideoWriter(path, shape=clip.shape, clip=clip, overwrite=True)
    for frame in clip.frames():
        writer.write(frame.image, frame)
    writer.close()


def write_strip(path: Path, clip: clips.Clip, frames: np.ndarray, singles: np.ndarray, first: int) -> None:
    """Write an image with rows of frames: the clip, the single images, the video, and their differences.

    The differences are those from the frame before, warped along the true flow, eight times as strong.
    """
    from scipy.ndimage import map_coordinates

    from tfstyle.images import ImageArray, save

    def differences(images: np.ndarray) -> list[np.ndarray]:
        shown = []
        for t in range(1, len(images)):
            flow, visible = clip.flows[first + t], clip.visible[first + t]
            rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]]
            points = [rows + flow[..., 1], columns + flow[..., 0]]
            moved = [
                map_coordinates(images[t - 1][..., i], points, order=3, mode="nearest") for i in range(3)
            ]
            difference = np.abs(np.stack(moved, -1) - images[t]) * visible[..., None]
            shown.append(np.clip(8 * difference, 0, 1).astype(np.float32))
        return shown

    last = frames[first:]
    rows = [
        list(clip.frames[first + 1 :]),
        list(singles[1:]),
        differences(singles),
        list(last[1:]),
        differences(last),
    ]
    gap = np.ones((clip.frames.shape[1], 6, 3), np.float32)
    lines = [np.concatenate([part for image in row for part in (image, gap)][:-1], axis=1) for row in rows]
    gap = np.ones((6, lines[0].shape[1], 3), np.float32)
    image = np.concatenate([part for line in lines for part in (line, gap)][:-1])
    save(path, ImageArray(image.astype(np.float32)), overwrite=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="auto", help="weights of the encoder [auto]")
    parser.add_argument("--score-weights", help="weights for E; without them E is left out")
    parser.add_argument("--content", default=str(DATA / "cat.jpg"), help="photograph for the clips")
    parser.add_argument("--style", default=str(DATA / "evening.jpg"), help="style image")
    parser.add_argument("--shape", type=int, nargs=2, default=(144, 192), help="height and width [144 192]")
    parser.add_argument("--frames", type=int, default=10, help="frames of each clip [10]")
    parser.add_argument("--singles", type=int, default=4, help="last frames stylised one by one [4]")
    parser.add_argument("--clips", nargs="*", default=CLIPS, help="names of the clips [all]")
    parser.add_argument("--drift", type=int, default=0, help="frames of a long pan [0: none]")
    parser.add_argument("--timed", type=int, default=6, help="frames of the timed clips [6]")
    parser.add_argument("--times", nargs="*", default=["320 x 240"], help="sizes that are timed")
    parser.add_argument("--strip", type=Path, help="write a PNG file with a strip of frames")
    parser.add_argument("--results", action="store_true", help="put the tables into RESULTS.md")
    options = parser.parse_args()
    options.shape = tuple(options.shape)
    print(machine.line(), flush=True)
    settings = {"weights": options.weights, "size": max(options.shape)}
    text = [machine.line(), "", *measure_flicker(options, settings)]
    if options.drift:
        text += ["", *measure_drift(options, settings)]
    if options.times:
        text += ["", *measure_times(options, settings)]
    print("\n".join(text[2:]))
    if options.results:
        results.put("video", "\n".join(text))


if __name__ == "__main__":
    main()

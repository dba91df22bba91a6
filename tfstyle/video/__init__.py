"""Style transfer of clips: each frame starts from the result of the frame before, warped along the flow."""

from tfstyle.video.checkpoints import VideoCheckpoints
from tfstyle.video.flow import consistency_weights, estimate_flow, grey_frame
from tfstyle.video.measures import warping_error
from tfstyle.video.motion import Motion, motions
from tfstyle.video.options import FLOWS, VideoOptions
from tfstyle.video.reading import Clip, open_clip
from tfstyle.video.run import VideoRun
from tfstyle.video.selection import Frame, Selection
from tfstyle.video.steps import FrameRecord, VideoStep
from tfstyle.video.stylizing import VideoResult, iterate, stylize
from tfstyle.video.warping import warp
from tfstyle.video.writing import VideoWriter, partial_path

__all__ = [
    "FLOWS",
    "Clip",
    "Frame",
    "FrameRecord",
    "Motion",
    "Selection",
    "VideoCheckpoints",
    "VideoOptions",
    "VideoResult",
    "VideoRun",
    "VideoStep",
    "VideoWriter",
    "consistency_weights",
    "estimate_flow",
    "grey_frame",
    "iterate",
    "motions",
    "open_clip",
    "partial_path",
    "stylize",
    "warp",
    "warping_error",
]

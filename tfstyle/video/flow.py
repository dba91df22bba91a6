"""Optical flow between frames of a clip, by OpenCV, and the weights that say where it can be trusted.

A flow is float32 ``[height, width, 2]``: for each pixel of a frame, how far to the right and how far down in
pixels the same point lies in another frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfstyle.images import luminance
from tfstyle.video.requirement import load_cv2

#: DIS flow at the full resolution with variational refinement: in measurements its error is about a third of
#: that of the preset alone.
FINEST_SCALE, REFINEMENTS = 0, 5
#: Constants of Ruder et al. 2016, section 4.2: a pixel is disoccluded if the difference of the backward and
#: the forward flow exceeds the first bound, and on the boundary of a moving object if the gradient of the
#: flow exceeds the second one.
OCCLUSION_RELATIVE, OCCLUSION_ABSOLUTE = 0.01, 0.5
EDGE_RELATIVE, EDGE_ABSOLUTE = 0.01, 0.002
#: Standard deviation of the Gaussian filter that softens the weights, in pixels.
SOFTENING = 0.8
#: Shorter side in pixels below which OpenCV's DIS flow has too few scales.
SMALLEST_SIDE = 16


def estimate_flow(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the optical flow from one frame to another.

    Args:
        source: the frame for whose pixels the flow is returned, uint8 ``[height, width]``, as `grey_frame`
            returns it.
        target: the other frame, in the same shape.

    Returns:
        float32 ``[height, width, 2]`` in pixels, to the right and down.

    Reference: Kroeger et al. 2016, Fast Optical Flow using Dense Inverse Search.
    """
    cv2 = load_cv2()

    shape = source.shape
    if min(shape) < SMALLEST_SIDE:
        return np.zeros((*shape, 2), np.float32)
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(FINEST_SCALE)
    method.setVariationalRefinementIterations(REFINEMENTS)
    flow: np.ndarray = method.calc(source, target, None)
    return flow


def grey_frame(image: np.ndarray) -> np.ndarray:
    """Return the luminance of an image ``[height, width, 3]`` in 0..1 as uint8 ``[height, width]``."""
    return np.round(255.0 * np.clip(luminance(image), 0, 1)).astype(np.uint8)


def consistency_weights(backward: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Return weights of the pixels of a frame, which are 0 where the earlier frame does not show them.

    With the backward flow b, the forward flow f and y = x + b(x), the weight of a pixel x is 0 if y lies
    outside the earlier frame, if x is disoccluded, ``|b + f(y)|² ≥ 0.01 (|b|² + |f(y)|²) + 0.5``, or if
    x is on the boundary of a moving object, ``|∇b_u|² + |∇b_v|² > 0.01 |b|² + 0.002``. Elsewhere it is 1. The
    weights are softened by a Gaussian filter in such a way that the areas with weight 0 become larger.

    Args:
        backward: flow from the frame to the earlier frame, float32 ``[height, width, 2]`` in pixels.
        forward: flow from the earlier frame to the frame.

    Returns:
        float32 ``[height, width]`` in 0..1.

    Reference: Ruder, Dosovitskiy, Brox 2016, Artistic Style Transfer for Videos, eq. 4 and 5.
    Differs from Ruder et al.: the weights are softened.
    """
    cv2 = load_cv2()

    x, y = sampling_points(backward)
    inside = leads_inside(backward)
    forward_there = cv2.remap(forward, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    sizes = _squared(backward) + _squared(forward_there)
    disoccluded = _squared(backward + forward_there) >= OCCLUSION_RELATIVE * sizes + OCCLUSION_ABSOLUTE
    gradients = [_squared(np.stack(np.gradient(backward[..., i]), -1)) for i in range(2)]
    edge = gradients[0] + gradients[1] > EDGE_RELATIVE * _squared(backward) + EDGE_ABSOLUTE
    weights = (inside & ~disoccluded & ~edge).astype(np.float32)
    blurred = cv2.GaussianBlur(weights, (0, 0), SOFTENING, borderType=cv2.BORDER_REPLICATE)
    softened: np.ndarray = np.clip(2.0 * blurred - 1.0, 0.0, 1.0)
    return softened


def leads_inside(flow: np.ndarray) -> np.ndarray:
    """Return where a flow leads to a point inside the other frame, bool ``[height, width]``."""
    height, width = flow.shape[:2]
    x, y = sampling_points(flow)
    inside: np.ndarray = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside


def sampling_points(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates x and y, float32 ``[height, width]`` each, to which a flow leads."""
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return columns + flow[..., 0], rows + flow[..., 1]


def _squared(vectors: np.ndarray) -> Any:
    return np.sum(np.square(vectors), axis=-1)

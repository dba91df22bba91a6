"""The content, style and total variation losses, and the objective, which is their weighted sum."""

from tfstyle.losses.cross_layer import cross_layer_gram
from tfstyle.losses.gram import gram_matrix
from tfstyle.losses.masks import Masks, blur_mask, load_mask, mask_coverage, position_weights, resize_mask
from tfstyle.losses.normalization import (
    ContentExtent,
    LossNormalization,
    balanced_normalization,
    channel_normalization,
    mean_normalization,
    paper_normalization,
    root_normalization,
)
from tfstyle.losses.objective import (
    Objective,
    Region,
    Summaries,
    Targets,
    Tensors,
    content_loss,
    restore_kept,
    shares,
)
from tfstyle.losses.sliced import HISTOGRAM, sliced_wasserstein
from tfstyle.losses.style import (
    GRAM,
    MEAN_DEVIATION,
    StyleLoss,
    Summary,
    shifted_gram,
    style_loss,
    wasserstein,
)
from tfstyle.losses.style_file import (
    Style,
    StyleNumbers,
    describe_encoder,
    image_pyramid,
    require_images,
    save_styles,
    write_style_numbers,
)
from tfstyle.losses.variation import (
    Band,
    Variation,
    nine_point_variation,
    summed_differences,
    summed_squares,
    total_variation,
)
from tfstyle.losses.windowed import windowed_gram

__all__ = [
    "GRAM",
    "HISTOGRAM",
    "MEAN_DEVIATION",
    "Band",
    "ContentExtent",
    "LossNormalization",
    "Masks",
    "Objective",
    "Region",
    "Style",
    "StyleLoss",
    "StyleNumbers",
    "Summaries",
    "Summary",
    "Targets",
    "Tensors",
    "Variation",
    "balanced_normalization",
    "blur_mask",
    "channel_normalization",
    "content_loss",
    "cross_layer_gram",
    "describe_encoder",
    "gram_matrix",
    "image_pyramid",
    "load_mask",
    "mask_coverage",
    "mean_normalization",
    "nine_point_variation",
    "paper_normalization",
    "position_weights",
    "require_images",
    "resize_mask",
    "restore_kept",
    "root_normalization",
    "save_styles",
    "shares",
    "shifted_gram",
    "sliced_wasserstein",
    "style_loss",
    "summed_differences",
    "summed_squares",
    "total_variation",
    "wasserstein",
    "windowed_gram",
    "write_style_numbers",
]

"""Images: reading, writing, resizing, colours and contact sheets. Images are float32 sRGB in 0..1."""

from tfstyle.images.array import ImageArray, resize, resize_circular
from tfstyle.images.color import (
    COLOR_MATCHING,
    grey,
    luminance,
    match_chroma,
    match_colors,
    match_luminance,
    with_luminance,
)
from tfstyle.images.decoding import exif_tag, first_line, open_image
from tfstyle.images.loading import find_images, is_image_name, load
from tfstyle.images.orientation import estimate_orientation, orientation_vectors
from tfstyle.images.saving import encode, read_settings, save, srgb_profile
from tfstyle.images.sheets import contact_sheet, strip, strip_width

__all__ = [
    "COLOR_MATCHING",
    "ImageArray",
    "contact_sheet",
    "encode",
    "estimate_orientation",
    "exif_tag",
    "find_images",
    "first_line",
    "grey",
    "is_image_name",
    "load",
    "luminance",
    "match_chroma",
    "match_colors",
    "match_luminance",
    "open_image",
    "orientation_vectors",
    "read_settings",
    "resize",
    "resize_circular",
    "save",
    "srgb_profile",
    "strip",
    "strip_width",
    "with_luminance",
]

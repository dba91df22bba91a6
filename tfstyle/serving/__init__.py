"""The style extractor, and its export as a SavedModel for TensorFlow Serving."""

from tfstyle.serving.decoding import assert_in_graph, decode_image, resize_in_graph
from tfstyle.serving.extractor import StyleExtractor
from tfstyle.serving.graph_transfer import stylize_in_graph, stylize_objective
from tfstyle.serving.numbers import embedding, style_numbers, ten_views
from tfstyle.serving.saved_model import write_saved_model
from tfstyle.serving.signatures import PRECISIONS, Limits, Signatures

__all__ = [
    "PRECISIONS",
    "Limits",
    "Signatures",
    "StyleExtractor",
    "assert_in_graph",
    "decode_image",
    "embedding",
    "resize_in_graph",
    "style_numbers",
    "stylize_in_graph",
    "stylize_objective",
    "ten_views",
    "write_saved_model",
]

"""Thousands of images with Ray Data, on one machine or on many. It needs the extra ``cluster``.

`stylize` and `extract` add results to a dataset of images. `tfstyle batch --ray` also restarts runs and keeps
a manifest.
"""

from tfstyle.cluster.datasets import extract, stylize

__all__ = ["extract", "stylize"]

"""A web page for style transfer without a command line. It needs Gradio.

The page computes nothing itself. It turns its controls into a `tfstyle.StyleConfig` and drives
`tfstyle.iterate`. `tfstyle ui` loads TensorFlow in the background after the page is shown; `tfstyle.ui()`
loads it before.
"""

from tfstyle.web.limits import Limits
from tfstyle.web.serving import serve, ui

__all__ = ["Limits", "serve", "ui"]

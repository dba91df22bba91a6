"""``tfstyle ui``: a page in the browser."""

from __future__ import annotations

import argparse
import logging

from tfstyle.cli.common import DONE, load_tensorflow


def run_ui(options: argparse.Namespace) -> int:
    """Run ``tfstyle ui`` until it is interrupted, and return its exit code."""
    from tfstyle.web import serve

    logging.getLogger("tfstyle.web.jobs").setLevel(logging.INFO)  # show when jobs begin and end
    page = serve(
        host=options.host,
        port=options.port,
        password=options.password,
        no_password=options.no_password,
        weights=options.weights,
        browser=options.browser,
        block=False,
        load=load_tensorflow,
    )
    print(f"tfstyle: the page is at {page.public_url} (press Ctrl-C to stop the server)", flush=True)
    page.block_thread()
    return DONE

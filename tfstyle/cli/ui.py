"""``tfstyle ui``: a page in the browser."""

from __future__ import annotations

import argparse

from tfstyle.cli.common import DONE


def run_ui(options: argparse.Namespace) -> int:
    """Run ``tfstyle ui`` until it is interrupted, and return its exit code."""
    from tfstyle.web import serve

    page = serve(
        host=options.host,
        port=options.port,
        password=options.password,
        no_password=options.no_password,
        browser=options.browser,
        block=False,
    )
    print(f"tfstyle: the page is at {page.local_url} (press Ctrl-C to stop the server)", flush=True)
    page.block_thread()
    return DONE

"""Start the page: from the command line, or in a notebook."""

from __future__ import annotations

import atexit
import functools
import hmac
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from tfstyle.errors import ConfigError, OutputError
from tfstyle.web.limits import Limits
from tfstyle.web.visits import Visits
from tfstyle.web.weights import ServerWeights

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY_ADDRESS = ("0.0.0.0", "::", "")
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
DEFAULT_PORT = 7860
SWEEP_SECONDS = 60.0


def serve(
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    password: str | None = None,
    no_password: bool = False,
    weights: str | os.PathLike[str] = "auto",
    browser: bool = True,
    limits: Limits | None = None,
    block: bool = True,
    inline: bool = False,
    load: Callable[[], None] | None = None,
) -> Any:
    """Start the server of the page.

    Args:
        host: address to listen on. By default, only this machine can reach the page. Any address other than
            those of this machine needs `password` or `no_password`.
        port: port to listen on; by default the first free one from 7860 on.
        password: password that users of the page must give, with any user name.
        no_password: whether anyone who reaches `host` may use the page.
        weights: weights of the encoder for users who choose ``auto``, as `StyleConfig.weights`. They are
            downloaded, if necessary, when the server starts; a job of a user downloads nothing.
        browser: whether to open the page in the browser of this machine.
        limits: the limits of the page.
        block: whether to return only when the server ends, for example by Ctrl-C.
        inline: whether to show the page below the cell of a notebook.
        load: function that imports TensorFlow after the page is shown. By default TensorFlow is imported
            after the page is shown if `block` is set, and otherwise before: two threads must not import it
            at the same time.

    Returns:
        The `gradio.Blocks` of the page, on which ``close()`` ends the server.

    Raises:
        ConfigError: Gradio is not installed, or `host` is not this machine and there is neither a password
            nor `no_password`.
        WeightsError: there is no such file of weights.
        OutputError: the port is in use, or the address does not belong to this machine.
    """
    if host not in LOOPBACK and password is None and not no_password:
        raise ConfigError(
            f"host is {host}, so that others can reach the page; give a password, or no_password to let "
            "anyone use it"
        )
    if password is not None and not password:
        raise ConfigError("password is empty; give a password, or no_password to let anyone use the page")
    limits = limits or Limits()
    server_weights = ServerWeights(weights, load=load)
    folder = _folder()
    visits = Visits(Path(folder) / "visits", Path(folder) / "gradio")
    page = _make_page(folder, visits, limits=limits, weights=server_weights)
    if not block and load is None:
        import_module("tfstyle.run")
    check = None if password is None else (lambda user, given: _equal(given, password))
    from starlette.middleware import Middleware

    from tfstyle.web.guarding import Guard
    from tfstyle.web.page import LOOK

    # If other host names were allowed, a page of another site could use the server through the user's browser
    # (DNS rebinding).
    names = LOOPBACK_NAMES if host in LOOPBACK and not inline else ()
    guard = Middleware(Guard, hosts=names, limits=limits, stored_bytes=visits.stored_bytes)
    try:
        _, url, _ = page.launch(
            server_name=host, server_port=port, auth=check, inbrowser=False, inline=inline, share=False,
            quiet=True, auth_message="Any user name will do; whoever runs the page knows the password.",
            prevent_thread_lock=True, show_error=False, max_file_size=limits.file_bytes,
            ssr_mode=False, enable_monitoring=False, footer_links=["api"], run_history=False, pwa=False,
            mcp_server=False, strict_cors=True, blocked_paths=[], allowed_paths=[],
            app_kwargs={"middleware": [guard]}, state_session_capacity=10_000,
            **LOOK,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        reason = "the port is in use" if "empty port" in str(error) else str(error)
        raise OutputError(
            f"cannot listen on {host}:{port or DEFAULT_PORT} ({reason}); choose another port, or an address "
            "of this machine"
        ) from None
    for target in (server_weights.prepare, lambda: _sweep(visits, page)):
        threading.Thread(target=target, daemon=True).start()
    if host not in LOOPBACK:
        url = f"http://{socket.gethostname() if host in ANY_ADDRESS else host}:{page.server_port}/"
    page.public_url = url
    log.info("the page is at %s", url)
    if browser:
        webbrowser.open(url)
    if block:
        page.block_thread()
    return page


def ui(**options: Any) -> Any:
    """Show the page in a notebook; elsewhere, start the server and open the browser.

    In a program, the call returns when the server ends, for example by Ctrl-C. In a notebook and at Python's
    prompt it returns at once.

    Args:
        **options: arguments of `tfstyle.web.serve`, such as ``port``, ``host`` and ``password``.

    Returns:
        The `gradio.Blocks` of the page, on which ``close()`` ends the server.
    """
    notebook = _in_notebook()
    block = not notebook and not hasattr(sys, "ps1") and not sys.flags.interactive
    if not notebook:
        logging.getLogger("tfstyle.web").setLevel(logging.INFO)  # the address of the page
        logging.basicConfig(format="tfstyle: %(message)s")
    return serve(**{"browser": not notebook, "block": block, "inline": notebook, **options})


def _in_notebook() -> bool:
    """Return whether the program runs in a notebook, such as Jupyter or Colab."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@functools.cache
def _folder() -> str:
    """Return the folder of this process for the files of its pages, which is removed at its end."""
    folder = tempfile.mkdtemp(prefix="tfstyle-page-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _make_page(folder: str, visits: Visits, *, limits: Limits, weights: ServerWeights) -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = f"{folder}/gradio"
    os.environ["GRADIO_EXAMPLES_CACHE"] = f"{folder}/examples"
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"
    # Some proxies hide that a tab is closed until the server sends something.
    os.environ["GRADIO_HEARTBEAT_INTERVAL"] = "0.5"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the page needs Gradio ({error}); install it with pip install 'tfstyle[ui]'"
        ) from None
    from tfstyle.web.page import make_page

    return make_page(visits, limits=limits, weights=weights)


def _equal(given: str, password: str) -> bool:
    return hmac.compare_digest(given.encode(), password.encode())


def _sweep(visits: Visits, page: Any) -> None:
    """End visits without activity every minute, as long as the server runs."""
    while page.is_running:
        visits.sweep()
        time.sleep(SWEEP_SECONDS)

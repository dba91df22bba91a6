"""Guards of the server: files of its cache only, no outgoing requests, known host names, bounded uploads."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import unquote

import gradio as gr
from gradio.components.base import server

from tfstyle.web.limits import NO_SPACE, Limits, sides_of

#: Layers of a drawing: the one that is drawn on, and one that older editors add.
MOST_LAYERS = 2
TOO_MANY_LAYERS = "the drawing has too many layers"
#: Pixels of each layer of a drawing. The view sends images of at most `EDITOR_SIDE` pixels per side.
MOST_PIXELS = 4_000_000
#: Bytes of a request that is not an upload.
MOST_BYTES = 2_000_000
#: Drawings of which the server keeps parts in memory until their jobs begin.
MOST_DRAWINGS = 8


class GuardedBlocks(gr.Blocks):
    """A page whose events accept files of its cache only.

    Gradio checks only references to files that are marked as references. It passes all others to the
    components, which open the files.
    """

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *arguments: Any, **options: Any) -> Any:
        """Check all paths in the inputs of an event before Gradio looks at them.

        Raises:
            gradio.Error: an input refers to another file of this machine, or to an address.
        """
        check_references(inputs, self.GRADIO_CACHE)
        return await super().preprocess_data(block_fn, inputs, *arguments, **options)


def check_references(value: Any, cache: str) -> None:
    """Raise gradio.Error unless all references to files in nested inputs are to files in a folder.

    Args:
        value: inputs of an event, as decoded from JSON.
        cache: the folder.
    """
    if isinstance(value, dict):
        if "path" in value or "url" in value:
            path = value.get("path")
            root = os.path.realpath(cache) + os.sep
            if not isinstance(path, str) or "\0" in path or not os.path.realpath(path).startswith(root):
                raise gr.Error("no such image; upload it again", print_exception=False)
        for item in value.values():
            check_references(item, cache)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_references(item, cache)


def bound_editor(editor: gr.ImageEditor) -> None:
    """Limit the layers of an image editor, and what a browser can store in memory before a job begins.

    The methods of the object are replaced. For a subclass Gradio would write a file into this folder.

    Args:
        editor: the editor.
    """
    preprocess, store = editor.preprocess, editor.accept_blobs

    def checked(payload: Any) -> Any:
        if payload is not None and len(payload.layers or ()) > MOST_LAYERS:
            raise gr.Error(TOO_MANY_LAYERS, print_exception=False)
        for file in () if payload is None else (payload.background, *payload.layers, payload.composite):
            if file is not None and math.prod(sides_of(file.path) or (0,)) > MOST_PIXELS:
                raise gr.Error("the drawing has too many pixels", print_exception=False)
        return preprocess(payload)

    def accept_blobs(data: Any) -> Any:
        index = data.data.get("index")
        if index not in (None, "", "null") and not 0 <= int(index) < MOST_LAYERS:
            raise gr.Error(TOO_MANY_LAYERS, print_exception=False)
        while len(editor.blob_storage) >= MOST_DRAWINGS:
            editor.blob_storage.pop(next(iter(editor.blob_storage)))
        return store(data)

    editor.preprocess, editor.accept_blobs = checked, server(accept_blobs)


class Guard:
    """ASGI middleware that refuses requests before they reach Gradio.

    It refuses requests for files of other servers, requests that name another host, requests of pages of
    other sites, bodies that are too large or for which there is no space, and further passwords after too
    many wrong ones.

    Args:
        app: the application behind it.
        hosts: allowed host names without their ports; empty for any.
        limits: the limits of the page.
        stored_bytes: returns the bytes that the server stores.
    """

    def __init__(
        self, app: Any, hosts: Collection[str], *, limits: Limits, stored_bytes: Callable[[], int]
    ) -> None:
        self._app, self._hosts, self._limits, self._stored_bytes = app, hosts, limits, stored_bytes
        self._uploading = 0  # bytes of the uploads that are being received
        self._logins = dict[str, deque[float]]()  # client -> times of logins, without those that succeeded

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        wanted = unquote(unquote(scope["path"])).lower().rstrip("/")
        code, text = self._refusal(scope, wanted, headers)
        is_upload = not code and scope["method"] == "POST" and wanted.endswith("/upload")
        uploaded = int(headers[b"content-length"]) if is_upload else 0
        self._uploading += uploaded
        try:
            if is_upload:
                stored = await asyncio.to_thread(self._stored_bytes)
                if stored + self._uploading > self._limits.stored_bytes:
                    code, text = 507, NO_SPACE
            if code:
                await _answer(send, code, text)
            elif wanted.endswith("/login") and scope["method"] == "POST":
                await self._pass_on_login(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        finally:
            self._uploading -= uploaded

    def _refusal(self, scope: Any, wanted: str, headers: Mapping[bytes, bytes]) -> tuple[int, str]:
        """Return the status code and the text with which a request is refused, or 0 to accept it."""
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts and _name(host) not in self._hosts:
            return 403, "this page is not available under this host name; open it as localhost or 127.0.0.1"
        if "file=http" in wanted.replace(" ", "") or wanted.endswith(("/process_recording", "/vibe-edit")):
            return 403, "this server fetches no files from other servers"
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return 0, ""
        origin = headers.get(b"origin", b"").decode("latin-1")
        if self._hosts and origin and origin.partition("://")[2] != host:
            return 403, "this page cannot be used by pages of other sites"
        length = headers.get(b"content-length", b"")
        if b"transfer-encoding" in headers or not length.isdigit():
            return 411, "a request must state its length; send the header Content-Length"
        most = self._most_bytes(wanted)
        if int(length) > most:
            return 413, f"a request of this kind has at most {most / 1e6:.0f} MB"
        if wanted.endswith("/login") and self._count_logins(_client(scope)) >= self._limits.logins:
            return 429, "too many wrong passwords; try again in a minute"
        return 0, ""

    def _most_bytes(self, wanted: str) -> int:
        """Return the maximum number of bytes of a request."""
        if wanted.endswith("/upload"):
            return self._limits.upload_bytes
        return self._limits.file_bytes if wanted.endswith("/component_server") else MOST_BYTES

    async def _pass_on_login(self, scope: Any, receive: Any, send: Any) -> None:
        """Count a login before it is answered, so that several at once are counted, until it succeeds."""
        times = self._logins.setdefault(_client(scope), deque())
        now = time.monotonic()
        times.append(now)

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400 and now in times:
                times.remove(now)
            await send(message)

        await self._app(scope, receive, watched)

    def _count_logins(self, client: str) -> int:
        """Return the number of logins of a client in the last minute, without those that succeeded."""
        limit = time.monotonic() - 60
        for key, times in list(self._logins.items()):
            while times and times[0] < limit:
                times.popleft()
            if not times:
                del self._logins[key]
        return len(self._logins.get(client, ()))


async def _answer(send: Any, code: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def _client(scope: Any) -> str:
    """Return the address of a client."""
    return str((scope.get("client") or ("unknown",))[0])


def _name(host: str) -> str:
    """Return the host name without its port."""
    return host.rsplit("]", 1)[0] + "]" if host.startswith("[") else host.partition(":")[0]

"""Guards of the server: files of its cache only, no outgoing requests, known host names, bounded drawings."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any
from urllib.parse import unquote

import gradio as gr
from gradio.components.base import server

#: Layers of a drawing: the one that is drawn on, and one that older editors add.
MOST_LAYERS = 2
TOO_MANY_LAYERS = "the drawing has too many layers"
#: Drawings of which the server keeps parts in memory until their jobs begin.
MOST_DRAWINGS = 8


class GuardedBlocks(gr.Blocks):
    """A page whose events accept files of its cache only.

    Gradio checks only those references to files that say that they are references. Others reach the
    components, which open them.
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
    """Middleware that refuses requests for files of other servers, and requests that name another host.

    Args:
        app: the application behind it.
        hosts: allowed host names without their ports; empty for any.
    """

    def __init__(self, app: Any, hosts: Collection[str] = ()) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "http":
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            wanted = unquote(unquote(scope["path"])).lower()
            if (self._hosts and _name(host) not in self._hosts) or "file=http" in wanted.replace(" ", ""):
                await send({"type": "http.response.start", "status": 403, "headers": []})
                await send({"type": "http.response.body", "body": b"refused"})
                return
        await self._app(scope, receive, send)


def _name(host: str) -> str:
    """Return the host name without its port."""
    return host.rsplit("]", 1)[0] + "]" if host.startswith("[") else host.partition(":")[0]

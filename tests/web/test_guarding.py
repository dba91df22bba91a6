"""The guard in front of the server, with an application that takes its time."""

import asyncio
import concurrent.futures
import types

import pytest
from PIL import Image

pytest.importorskip("gradio")
import gradio as gr

from tfstyle.web.guarding import Guard, bound_editor
from tfstyle.web.limits import Limits


def run(coroutine):
    """Run a coroutine in a thread, because the browser's tests leave an event loop running in this one."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def answers(requests, *, code=200, hosts=(), **limits):
    """Send requests at the same time, and return the codes of the answers.

    Args:
        requests: pairs of a path and of headers.
        code: the code with which the application answers.
        hosts: as for the guard.
        limits: limits that differ from the usual ones.
    """
    reached, sent = [], []

    async def application(scope, receive, send):
        reached.append(scope["path"])
        await asyncio.sleep(0.05)
        await send({"type": "http.response.start", "status": code, "headers": []})

    guard = Guard(application, hosts, limits=Limits(**limits), stored_bytes=lambda: 0)

    async def request(path, headers):
        scope = {
            "type": "http", "method": "POST", "path": path, "client": ("1.2.3.4", 5),
            "headers": [(k.encode(), str(v).encode()) for k, v in headers.items()],
        }  # fmt: skip

        async def send(message):
            if "status" in message:
                sent.append(message["status"])

        await guard(scope, None, send)

    async def all_requests():
        await asyncio.gather(*(request(path, headers) for path, headers in requests))

    run(all_requests())
    assert len(reached) == sent.count(code)
    return sorted(sent)


def test_passwords_that_are_tried_at_the_same_time_are_counted():
    tries = [("/login", {"content-length": 20})] * 15
    assert answers(tries, code=400) == [400] * 10 + [429] * 5
    assert answers(tries, code=400, logins=3) == [400] * 3 + [429] * 12


def test_logins_that_succeed_do_not_count():
    """The application is asked one after the other, so that each success is known before the next try."""
    codes = []

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        codes.append(message.get("status"))

    guard = Guard(application, (), limits=Limits(logins=2), stored_bytes=lambda: 0)
    headers = [(b"content-length", b"20")]
    scope = {"type": "http", "method": "POST", "path": "/login", "headers": headers, "client": ("1.2.3.4", 5)}
    for _ in range(5):
        run(guard(scope, None, send))
    assert codes == [200] * 5


def test_uploads_at_the_same_time_share_the_space():
    uploads = [("/gradio_api/upload", {"content-length": 60})] * 3
    assert answers(uploads, stored_bytes=130) == [200, 200, 507]
    assert answers(uploads, stored_bytes=1000) == [200] * 3


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/gradio_api/upload", {"content-length": 400_000_000}, 413),
        ("/gradio_api/upload", {"content-length": 10, "transfer-encoding": "chunked"}, 411),
        ("/gradio_api/upload", {}, 411),
        ("/gradio_api/upload", {"content-length": "-5"}, 411),
        ("/gradio_api/reset", {"content-length": 3_000_000}, 413),
        ("/login", {"content-length": 3_000_000}, 413),
        ("/gradio_api/component_server", {"content-length": 60_000_000}, 413),
        ("/gradio_api/process_recording", {"content-length": 10}, 403),
        ("/gradio_api/upload", {"content-length": 10, "origin": "http://evil.example"}, 403),
        ("/gradio_api/upload", {"content-length": 10, "origin": "http://localhost:7860"}, 200),
        ("/gradio_api/reset", {"content-length": 10}, 200),
    ],
)
def test_requests_are_limited(path, headers, expected):
    headers = {"host": "localhost:7860", **headers}
    assert answers([(path, headers)], hosts=("localhost",)) == [expected]


def test_a_drawing_is_not_decoded_if_it_has_too_many_pixels(tmp_path):
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    Image.new("1", (5000, 1000)).save(large)
    Image.new("RGBA", (50, 10)).save(small)
    editor = types.SimpleNamespace(preprocess=lambda payload: "decoded", accept_blobs=None, blob_storage={})
    bound_editor(editor)

    def drawing(background, layer):
        return types.SimpleNamespace(
            background=types.SimpleNamespace(path=str(background)),
            layers=[types.SimpleNamespace(path=str(layer))],
            composite=None,
        )

    assert editor.preprocess(drawing(small, small)) == "decoded"
    assert editor.preprocess(None) == "decoded"
    for wrong in ((large, small), (small, large)):
        with pytest.raises(gr.Error, match="too many pixels"):
            editor.preprocess(drawing(*wrong))

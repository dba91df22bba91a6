"""The server of the page: its endpoint for programs, wrong requests, visits, passwords."""

import concurrent.futures
import io
import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.web.conftest import DATA, running
from tfstyle.images import read_settings

pytest.importorskip("gradio")
gradio_client = pytest.importorskip("gradio_client")

pytestmark = pytest.mark.ui
SMALL = json.dumps({"size": 64, "iterations": 3, "scales": 1, "weights": "embedded"})


@pytest.fixture
def client(server):
    return gradio_client.Client(server.url, verbose=False)


def paint(client, options=SMALL, content=DATA / "cat.jpg", style=DATA / "evening.jpg"):
    file = gradio_client.handle_file
    return client.predict(file(str(content)), file(str(style)), options, api_name="/paint")


def test_the_page_names_itself_and_no_other_server(server):
    html = urllib.request.urlopen(server.url).read().decode()
    assert '"title":"tfstyle"' in html
    assert '"analytics_enabled":false' in html
    assert "fonts.googleapis" not in html


def test_a_program_calls_the_endpoint(client):
    file, facts = paint(client)
    assert Image.open(file).size == (64, 43)
    stored = read_settings(Path(file))
    assert (stored["options"]["size"], stored["options"]["iterations"]) == (64, 3)
    assert facts["facts"]["weights"] == "embedded"
    assert facts["iterations"] == 3
    assert facts["loss"]["total"] > 0
    assert list(client.view_api(return_format="dict", print_info=False)["named_endpoints"]) == ["/paint"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("[1]", "not a JSON object"),
        ('{"size": 99999}', "size is 99999; this page allows at most 2048"),
        ('{"size": 1e9}', "size is 1000000000.0"),
        ('{"sise": 3}', "did you mean 'size'"),
        ('{"weights": "/etc/passwd"}', "weights is '/etc/passwd'; on this page it can be"),
    ],
)
def test_wrong_options_are_one_line(client, options, message):
    with pytest.raises(Exception, match=message) as caught:
        paint(client, options)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_gets_the_line_of_the_command_line(client, tmp_path, capsys):
    from tfstyle import cli

    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG not an image")
    with pytest.raises(Exception, match=r"damaged\.png") as caught:
        paint(client, content=damaged)
    assert cli.main(["stylize", str(damaged), str(DATA / "evening.jpg"), "-o", str(tmp_path / "o.png")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(caught.value) == line.removeprefix("tfstyle: error: ").replace(str(damaged), "damaged.png")


def post(url, path, body):
    """Send a request, and return the status and the text of the answer."""
    request = urllib.request.Request(f"{url}{path}", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read(100_000).decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read(100_000).decode(errors="replace")


def wrong_requests(secret):
    """Yield the path and the body of wrong requests: types, huge numbers, path tricks, forged references."""
    forged = [
        {"path": str(secret), "meta": {"_type": "gradio.FileData"}},
        {"path": f"../../../..{secret}", "meta": {"_type": "gradio.FileData"}},
        {"path": "/etc/passwd", "url": f"file://{secret}", "meta": {"_type": "gradio.FileData"}},
        {"url": "http://127.0.0.1:1/", "path": "x", "meta": {"_type": "gradio.FileData"}},
    ]
    values = [None, 1, 1e308, -1, "x" * 10_000, [], {}, [[[]]], True, {"path": None}, *forged]
    for number, value in enumerate(values):
        other = values[(number + 3) % len(values)]
        yield "/gradio_api/call/paint", {"data": [value, other, "{}"]}
        yield "/gradio_api/run/paint", {"data": [value, value, value]}
        for index in range(3):
            body = {"data": [value] * number, "fn_index": index, "session_hash": "x"}
            yield "/gradio_api/queue/join", body
    for index in (-1, 10**9, "x", None):
        yield "/gradio_api/queue/join", {"data": [], "fn_index": index, "session_hash": "y"}
    for body in (b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 10_000):
        yield "/gradio_api/call/paint", body
        yield "/gradio_api/queue/join", body


def wrong_paths(secret):
    tricks = (
        str(secret),
        f"..{secret}",
        f"%2e%2e%2f{secret}",
        f"//{secret}",
        f"....//{secret}",
        f"%00{secret}",
    )
    for trick in tricks:
        yield f"/gradio_api/file={trick}"
        yield f"/file={trick}"
        yield f"/static/{trick}"
        yield f"/gradio_api/stream/{trick}"


def forged(path):
    """Return references to a file as a browser could forge them: with and without Gradio's mark."""
    marked = {"meta": {"_type": "gradio.FileData"}}
    for name in ("a.png", "a.svg"):
        for more in ({}, marked, {"url": f"file://{path}"}):
            yield {"path": path, "orig_name": name, **more}


def run_event(url, index, data, session):
    """Run an event through the queue as a browser does, and return all that the server answers."""
    body = {"data": data, "fn_index": index, "session_hash": session, "event_data": None, "trigger_id": None}
    code, text = post(url, "/gradio_api/queue/join", json.dumps(body).encode())
    if code != 200:
        return text
    answers = [text]
    address = f"{url}/gradio_api/queue/data?session_hash={session}"
    with urllib.request.urlopen(address, timeout=60) as stream:
        for line in stream:
            answers.append(line.decode(errors="replace"))
            if "process_completed" in answers[-1] or "close_stream" in answers[-1]:
                break
    return "".join(answers)


def test_no_event_reads_a_file_outside_of_the_cache(tmp_path):
    """Files in the server's folder and in the folder for temporary files are the nearest ones."""
    with running(tmp_path) as server:
        secrets = [tmp_path / "secret.png", server.pages / "secret.png", tmp_path / "secret.txt"]
        for secret in secrets[:2]:
            Image.new("RGB", (64, 64), (255, 0, 255)).save(secret)
        secrets[2].write_text("the secret of this machine")
        config = json.loads(urllib.request.urlopen(f"{server.url}/config").read())
        components = {component["id"]: component for component in config["components"]}
        tried = 0
        for number, event in enumerate(config["dependencies"]):
            kinds = [components[i]["type"] for i in event["inputs"]]
            if not set(kinds) & {"image", "gallery", "imageeditor", "file"}:
                continue
            for k, reference in enumerate(forged(str(secrets[number % 3]))):
                data = []
                for kind, component in zip(kinds, event["inputs"]):
                    value = components[component]["props"].get("value")
                    if kind in ("image", "file"):
                        value = reference
                    elif kind == "gallery":
                        value = [{"image": reference, "caption": None}]
                    elif kind == "imageeditor":
                        value = {"background": reference, "layers": [reference], "composite": reference}
                    data.append(value)
                answer = run_event(server.url, event["id"], data, f"s{number}x{k}")
                assert "upload it again" in answer or '"success":false' in answer, (kinds, answer[-500:])
                tried += 1
        assert tried > 30
        cached = [path.read_bytes() for path in server.pages.rglob("gradio/**/*") if path.is_file()]
        assert not {secret.read_bytes() for secret in secrets} & set(cached)


def test_the_queue_cannot_be_bypassed_and_no_address_is_fetched(server):
    body = json.dumps({"data": [None, None, "{}"]}).encode()
    for path in ("/gradio_api/run/paint", "/gradio_api/api/paint"):
        assert post(server.url, path, body)[0] == 404
    for path in ("file=http://127.0.0.1:1/x", "file=https://example.org/x", "file=HTTP%3A//127.0.0.1:1/"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{server.url}/gradio_api/{path}")
        assert caught.value.code == 403


def test_other_host_names_are_refused(server):
    """A page of another site cannot use the server through a host name that resolves to this machine."""
    request = urllib.request.Request(server.url, headers={"Host": "attacker.example"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 403


def test_a_drawing_cannot_fill_the_memory(server):
    config = json.loads(urllib.request.urlopen(f"{server.url}/config").read())
    (editor,) = (c["id"] for c in config["components"] if c["type"] == "imageeditor")
    lines = []
    fields = {
        "data": json.dumps({"type": "layer", "index": "100000000000", "id": "x", "file": "f"}),
        "fn_name": "accept_blobs", "component_id": str(editor), "session_hash": "z",
    }  # fmt: skip
    for name, value in fields.items():
        lines += ["--b", f'Content-Disposition: form-data; name="{name}"', "", value]
    lines += ["--b", 'Content-Disposition: form-data; name="file"; filename="f"', "", "x", "--b--", ""]
    request = urllib.request.Request(
        f"{server.url}/gradio_api/component_server", "\r\n".join(lines).encode(),
        {"Content-Type": "multipart/form-data; boundary=b"},
    )  # fmt: skip
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=20)
    assert urllib.request.urlopen(server.url).status == 200


def test_it_survives_wrong_requests_and_reads_nothing_outside_of_its_cache(server, client, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret of this machine")
    answers = []
    for path, body in wrong_requests(secret):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answers.append(post(server.url, path, data))
    for path in wrong_paths(secret):
        try:
            with urllib.request.urlopen(server.url + path, timeout=20) as answer:
                answers.append((answer.status, answer.read(100_000).decode(errors="replace")))
        except (urllib.error.HTTPError, ValueError, OSError) as error:
            answers.append((getattr(error, "code", 0), ""))
    assert len(answers) > 100
    assert not [text for _, text in answers if "the secret" in text]
    file, _ = paint(client)  # it still works
    assert Image.open(file).size == (64, 43)


def test_it_connects_to_no_other_machine(tmp_path):
    """The only exception is the download of the ImageNet weights when the server starts."""
    with running(tmp_path) as server:
        paint(gradio_client.Client(server.url, verbose=False))
        assert not server.log.exists(), server.log.read_text()


def test_two_users_get_their_own_images(server):
    clients = [gradio_client.Client(server.url, verbose=False) for _ in range(2)]
    styles = [DATA / "evening.jpg", DATA / "cat.jpg"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda pair: paint(pair[0], style=pair[1]), zip(clients, styles)))
    images = [np.asarray(Image.open(io.BytesIO(Path(file).read_bytes())), float) for file, _ in results]
    assert np.abs(images[0] - images[1]).mean() > 1
    names = [Path(file).name for file, _ in results]
    tokens = {name.split("-")[1] for name in names}
    assert len(tokens) == 2
    assert all(len(token) == 32 for token in tokens)  # nobody guesses the name of another user's file


def test_a_password_is_asked_for(tmp_path):
    with running(tmp_path, "--password", "open sesame") as server:
        gets = (
            "config", "gradio_api/info", "gradio_api/file=x", "gradio_api/queue/status",
            "gradio_api/queue/data?session_hash=x", "gradio_api/upload_progress?upload_id=x",
        )  # fmt: skip
        posts = (
            "queue/join", "upload", "call/paint", "run/paint", "api/paint", "component_server",
            "stream/x", "cancel", "reset",
        )  # fmt: skip
        requests = [urllib.request.Request(f"{server.url}/{path}") for path in gets]
        for path in posts:
            address, headers = f"{server.url}/gradio_api/{path}", {"Content-Type": "application/json"}
            requests.append(urllib.request.Request(address, b"{}", headers))
        for request in requests:
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=20)
            assert caught.value.code in (401, 403, 404, 405, 422), request.full_url
        with pytest.raises(Exception, match=r"(?i)credentials|log"):
            gradio_client.Client(server.url, auth=("me", "wrong"), verbose=False)
        file, _ = paint(gradio_client.Client(server.url, auth=("me", "open sesame"), verbose=False))
        assert Image.open(file).size == (64, 43)


def test_a_password_cannot_be_tried_often(tmp_path):
    with running(tmp_path, "--password", "open sesame") as server:
        codes = []
        for number in range(12):
            body = f"username=me&password={number}".encode()
            try:
                urllib.request.urlopen(f"{server.url}/login", body)
            except urllib.error.HTTPError as error:
                codes.append(error.code)
                text = error.read().decode()
        assert codes == [400] * 10 + [429] * 2
        assert text == "too many wrong passwords; try again in a minute"


def test_uploads_are_limited(server):
    """An upload states its length, which is at most that of all images of a result."""
    host, port = server.url.removeprefix("http://").split(":")
    for headers, code in (("Content-Length: 999999999999", 413), ("Transfer-Encoding: chunked", 411)):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            request = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\n{headers}\r\n\r\n"
            connection.sendall(request.encode())
            assert f" {code} ".encode() in connection.recv(1000)


def test_a_port_that_is_taken_is_one_line(capsys):
    from tfstyle import cli

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["ui", "--no-browser", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    assert cli.main(["ui", "--no-browser", "--host", "0.0.0.0"]) == 2
    assert "--no-password" in capsys.readouterr().err

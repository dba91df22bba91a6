"""The ImageNet weights: the download, its verification, the cache, and the errors."""

import hashlib
import http.server
import inspect
import os
import pwd
import re
import socket
import tempfile
import threading
import time
import traceback
from pathlib import Path

import keras
import numpy as np
import pytest

from tfstyle import Encoder, files
from tfstyle.errors import WeightsError
from tfstyle.network import download, weights


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models" / download.IMAGENET_FILE


@pytest.fixture
def serve(monkeypatch):
    """Return a function that serves bytes as the download, or that never answers if they are None."""
    servers, hang = [], threading.Event()

    def start(content, stalls=False):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.do_GET(body=False)

            def do_GET(self, body=True):
                if content is None:
                    hang.wait(30)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if body and stalls:
                    self.wfile.write(content[:10])
                    hang.wait(30)
                elif body:
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(download, "IMAGENET_URL", f"http://127.0.0.1:{server.server_port}/w.h5")

    yield start
    hang.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def test_imagenet_weights_are_downloaded_checked_and_cached(
    whole_network, tmp_path, cache, serve, monkeypatch
):
    whole_network.save(tmp_path / "served.h5")
    content = (tmp_path / "served.h5").read_bytes()
    monkeypatch.setattr(download, "IMAGENET_MD5", hashlib.md5(content).hexdigest())
    serve(content)
    imagenet = weights.load_weights("imagenet")
    assert imagenet.source == "imagenet"
    assert np.array_equal(
        imagenet.arrays["block5_conv4/kernel"], whole_network.get_layer("block5_conv4").get_weights()[0]
    )
    assert cache.is_file()
    monkeypatch.setattr(download, "IMAGENET_URL", "http://127.0.0.1:9/gone")
    assert weights.load_weights("auto").note == "using the ImageNet weights"
    assert Encoder(("conv1_1",)).weights.source == "imagenet"  # the API's default


def test_a_cached_file_is_used_from_a_folder_that_cannot_be_written_to(cache, monkeypatch):
    """Such as one that is mounted into a container. Keras would download the file to another folder."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_bytes(b"weights")
    monkeypatch.setattr(download, "IMAGENET_MD5", hashlib.md5(b"weights").hexdigest())
    monkeypatch.setattr(download, "IMAGENET_URL", "http://127.0.0.1:9/gone")
    monkeypatch.setattr(os, "access", lambda path, mode, **_: mode != os.W_OK)
    assert download.imagenet_file() == cache


def test_a_cached_file_that_cannot_be_read_is_one_line(cache, monkeypatch):
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_bytes(b"weights")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(cache), "read_bytes", refuse)
    with pytest.raises(WeightsError, match="Permission denied"):
        download.imagenet_file()


def test_the_addresses_and_hashes_are_those_of_keras():
    """Read from the source of the installed Keras, which has no public names for them."""
    for network in ("vgg19", "vgg16"):
        name, url, md5 = download.imagenet_source(network)
        application = getattr(keras.applications, network)
        module = inspect.getmodule(inspect.unwrap(getattr(application, network.upper())))
        assert url == module.WEIGHTS_PATH_NO_TOP
        source = inspect.getsource(module)
        assert re.search(rf'"{name}",\s+WEIGHTS_PATH_NO_TOP,[^)]*file_hash="{md5}"', source)


def test_vgg16_is_downloaded_to_a_file_of_its_own(tmp_path, cache, serve, monkeypatch):
    vgg16 = keras.applications.VGG16(include_top=False, weights=None)
    vgg16.save(tmp_path / "served.h5")
    content = (tmp_path / "served.h5").read_bytes()
    serve(content)
    monkeypatch.setattr(download, "VGG16_URL", download.IMAGENET_URL)
    monkeypatch.setattr(download, "VGG16_MD5", hashlib.md5(content).hexdigest())
    loaded = Encoder(("conv5_3",), network="vgg16").weights
    assert (loaded.source, loaded.network) == ("imagenet", "vgg16")
    assert loaded.sha256 == hashlib.sha256(content).hexdigest()
    kernel = vgg16.get_layer("block5_conv3").get_weights()[0]
    assert np.array_equal(loaded.arrays["block5_conv3/kernel"], kernel)
    assert not cache.is_file()
    assert download.imagenet_cache("vgg16").is_file()
    assert weights.load_weights("auto", network="vgg16").note == "using the ImageNet weights"


def test_auto_has_nothing_to_fall_back_to_for_vgg16(cache, monkeypatch):
    monkeypatch.setattr(download, "VGG16_URL", "http://127.0.0.1:9/w.h5")
    with pytest.raises(WeightsError, match="refused") as caught:
        weights.load_weights("auto", network="vgg16")
    assert str(cache.with_name(download.VGG16_FILE)) in str(caught.value)


def test_a_download_with_the_wrong_hash_is_refused(cache, serve):
    serve(b"something else")
    with pytest.raises(WeightsError, match="hash") as caught:
        weights.load_weights("imagenet")
    assert str(cache) in str(caught.value)
    assert 'give weights="embedded" or weights="auto", or download ' in str(caught.value)


def test_no_network_is_an_error_that_says_what_to_do(cache, monkeypatch):
    monkeypatch.setattr(download, "IMAGENET_URL", "http://127.0.0.1:9/w.h5")
    with pytest.raises(WeightsError, match="refused") as caught:
        weights.load_weights("imagenet")
    message = str(caught.value)
    remedies = ('weights="embedded"', 'weights="auto"', download.IMAGENET_URL, str(cache))
    places = [message.index(remedy) for remedy in remedies]
    assert places == sorted(places)
    assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1  # no chained tracebacks


def test_a_silent_server_is_given_up(cache, serve, monkeypatch):
    assert download.ANSWER_TIMEOUT == 10
    serve(None)
    monkeypatch.setattr(download, "ANSWER_TIMEOUT", 0.3)
    with pytest.raises(WeightsError, match=r"no answer|timed out"):
        weights.load_weights("imagenet")


def test_a_download_that_stalls_is_given_up(cache, serve, monkeypatch):
    serve(bytes(1000), stalls=True)
    monkeypatch.setattr(download, "ANSWER_TIMEOUT", 0.5)
    with pytest.raises(WeightsError, match="timed out"):
        weights.load_weights("imagenet")
    assert socket.getdefaulttimeout() is None


def test_auto_falls_back_and_says_why_in_a_short_line(cache, monkeypatch, caplog):
    monkeypatch.setattr(download, "IMAGENET_URL", "http://127.0.0.1:9/w.h5")
    chosen = weights.load_weights("auto")
    assert chosen.source == "embedded"
    # The weights that are used, the reason, and what to do.
    for fragment in ("embedded weights", "(Connection refused)", "choose imagenet to try again"):
        assert fragment in chosen.note
    assert chosen.note in caplog.text
    assert "\n" not in chosen.note
    assert len(chosen.note) < 140


@pytest.fixture
def requests(monkeypatch):
    """The times at which the server was asked. It never answers."""
    times = []

    def ask(url, timeout):
        times.append(time.time())
        raise TimeoutError("no answer")

    monkeypatch.setattr(download, "_expect_answer", ask)
    return times


def test_auto_waits_for_a_silent_network_once_in_six_hours(cache, requests):
    notes = {weights.load_weights("auto").note for _ in range(3)}
    assert len(requests) == 1
    (note,) = notes
    assert "(no answer)" in note
    (failure,) = cache.parent.iterdir()
    for hours, count in ((5.9, 1), (6.1, 2)):
        then = time.time() - 3600 * hours
        os.utime(failure, (then, then))
        assert weights.load_weights("auto").source == "embedded"
        assert len(requests) == count
    later = time.time() + 3600  # the clock was set back
    os.utime(failure, (later, later))
    weights.load_weights("auto")
    assert len(requests) == 3


def test_imagenet_always_tries_the_download(whole_network, tmp_path, cache, requests, serve, monkeypatch):
    weights.load_weights("auto")
    for count in (2, 3):
        with pytest.raises(WeightsError, match="no answer"):
            weights.load_weights("imagenet")
        assert len(requests) == count
    whole_network.save(tmp_path / "served.h5")
    content = (tmp_path / "served.h5").read_bytes()
    monkeypatch.setattr(download, "IMAGENET_MD5", hashlib.md5(content).hexdigest())
    monkeypatch.setattr(download, "_expect_answer", lambda url, timeout: None)
    serve(content)
    assert weights.load_weights("auto").source == "embedded"  # not yet
    assert weights.load_weights("imagenet").source == "imagenet"
    assert list(cache.parent.iterdir()) == [cache]  # the failure is forgotten
    assert weights.load_weights("auto").source == "imagenet"


@pytest.mark.parametrize("home", ["/dev/null/keras", "/proc/keras"])
def test_a_folder_that_cannot_be_written_costs_no_time(requests, monkeypatch, home):
    monkeypatch.setenv("KERAS_HOME", home)
    chosen = weights.load_weights("auto")
    assert chosen.source == "embedded"
    assert home in chosen.note
    assert not requests
    with pytest.raises(WeightsError, match=f"{home}.*store it as {home}"):
        weights.load_weights("imagenet")


def test_a_user_without_a_home_folder(tmp_path, requests, monkeypatch):
    def unknown(_):
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("HOME", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert download.imagenet_cache().parent == tmp_path / ".keras" / "models"
    assert weights.load_weights("auto").source == "embedded"


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        (None, "/home/ada/.keras"), ("", "/home/ada/.keras"), ("~/k", "/home/ada/k"), ("/cache", "/cache"),
    ],
)  # fmt: skip
def test_the_folder_of_keras(monkeypatch, variable, folder):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("KERAS_HOME", raising=False)
    if variable is not None:
        monkeypatch.setenv("KERAS_HOME", variable)
    assert files.keras_home() == Path(folder)

"""The ImageNet weights: the download, its verification, the cache, and the errors."""

import hashlib
import http.server
import inspect
import re
import socket
import threading
import traceback

import keras
import numpy as np
import pytest

from tfstyle import Encoder
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


def test_auto_falls_back_and_says_why(cache, monkeypatch, caplog):
    monkeypatch.setattr(download, "IMAGENET_URL", "http://127.0.0.1:9/w.h5")
    chosen = weights.load_weights("auto")
    assert chosen.source == "embedded"
    # What is used, why, and where the user can put the ImageNet weights.
    for fragment in ("embedded weights", "refused", str(cache)):
        assert fragment in chosen.note
    assert chosen.note in caplog.text
    assert "\n" not in chosen.note

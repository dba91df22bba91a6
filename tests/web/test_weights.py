"""The weights of a server. Gradio is not needed."""

import threading

import pytest

from tfstyle import StyleConfig
from tfstyle.errors import ConfigError, WeightsError
from tfstyle.web.weights import ServerWeights


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder for Keras' weights, which is empty, on a machine without a network."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("tfstyle.network.download.IMAGENET_URL", "http://127.0.0.1:1/none")
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def chosen(server, stop=lambda: False, **options):
    return server.chosen(StyleConfig(**options), stop=stop)


def test_jobs_get_the_imagenet_weights_if_the_server_has_them(cache, caplog):
    weights = ServerWeights()
    weights.prepare()  # the download fails
    assert "could not be downloaded" in caplog.text
    assert chosen(weights, weights="auto") == "embedded"
    assert chosen(weights, weights="random") == "random"
    for options in ({"weights": "imagenet"}, {"weights": "auto", "network": "vgg16"}):
        with pytest.raises(WeightsError, match="the server has no ImageNet weights of vgg"):
            chosen(weights, **options)
    (cache / "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5").write_bytes(b"x")
    assert chosen(weights, weights="auto") == chosen(weights, weights="imagenet") == "imagenet"


def test_a_file_takes_the_place_of_auto(tmp_path, cache, caplog):
    path = tmp_path / "mine.npz"
    with pytest.raises(WeightsError, match="no weights file"):
        ServerWeights(path)
    path.write_bytes(b"not weights")
    weights = ServerWeights(path)
    weights.prepare()
    assert str(path) in caplog.text
    assert chosen(weights, weights="auto") == str(path)
    assert chosen(weights, weights="embedded") == "embedded"
    assert (weights.public_name(str(path)), weights.public_name("embedded")) == ("mine.npz", "embedded")


def test_a_job_waits_for_the_weights_until_it_is_stopped(cache):
    weights = ServerWeights("embedded")
    assert "loading" in weights.waiting_for
    asked = []
    with pytest.raises(ConfigError, match="stopped"):
        chosen(weights, stop=lambda: asked.append(1) or len(asked) == 3, weights="auto")
    assert len(asked) == 3
    threading.Timer(0.2, weights.prepare).start()
    assert chosen(weights, weights="auto") == "embedded"
    assert weights.waiting_for == "preparing"

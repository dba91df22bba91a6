"""What auto stands for."""

import pytest
import tensorflow as tf

from tfstyle import device
from tfstyle.errors import ConfigError


@pytest.fixture
def gpus(monkeypatch):
    def pretend(*capabilities):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(capabilities))
        monkeypatch.setattr(
            tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": gpu}
        )

    return pretend


def test_device(gpus):
    gpus()
    assert device.choose_device("auto").value == "/CPU:0"
    with pytest.raises(ConfigError, match="TensorFlow sees 0 GPUs"):
        device.choose_device("gpu:0")
    gpus((8, 0), (9, 0))
    assert device.choose_device("auto").value == "/GPU:0"
    assert device.choose_device("gpu:1").value == "/GPU:1"
    assert device.choose_device("cpu").value == "/CPU:0"


def test_compile():
    assert device.choose_compile("auto", "/GPU:0").value == "xla"
    assert device.choose_compile("auto", "/CPU:0").value == "graph"
    assert device.choose_compile("eager", "/GPU:0").value == "eager"
    with pytest.raises(ConfigError, match="'XLA'; it can be auto, xla"):
        device.choose_compile("XLA", "/CPU:0")


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_precision_on_a_gpu(gpus, capability, expected):
    gpus(capability)
    assert device.choose_precision("auto", "/GPU:0").value == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2"}, "float32"),
        ({"avx512_bf16"}, "bfloat16"),
        ({"amx_bf16", "avx512_bf16"}, "bfloat16"),
        (set(), "float32"),
    ],
)
def test_precision_on_a_cpu(monkeypatch, flags, expected):
    monkeypatch.setattr(device, "_processor_flags", lambda: flags)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    assert device.choose_precision("auto", "/CPU:0").value == expected
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert device.choose_precision("auto", "/CPU:0").value == "float32"
    assert device.choose_precision("bfloat16", "/CPU:0").value == "bfloat16"

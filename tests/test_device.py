"""The device, compiler and precision that auto chooses; GPU memory, out-of-memory errors, the XLA cache."""

import os
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from tfstyle import device, stylize
from tfstyle.backend import check_backend
from tfstyle.errors import ConfigError


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that gives TensorFlow one GPU for each compute capability."""

    def set_gpus(*capabilities):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(capabilities))
        monkeypatch.setattr(
            tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": gpu}
        )

    return set_gpus


def test_device(gpus):
    gpus()
    assert device.choose_device("auto").value == "/CPU:0"
    with pytest.raises(ConfigError, match=r"'gpu:0'.* 0 GPUs.*cpu or auto"):
        device.choose_device("gpu:0")
    gpus((8, 0), (9, 0))
    assert device.choose_device("auto").value == "/GPU:0"
    assert device.choose_device("gpu:1").value == "/GPU:1"
    assert device.choose_device("cpu").value == "/CPU:0"


def test_compile():
    assert device.choose_compile("auto", "/GPU:0").value == "xla"
    assert device.choose_compile("auto", "/CPU:0").value == "graph"
    assert device.choose_compile("eager", "/GPU:0").value == "eager"
    with pytest.raises(ConfigError, match=r"'XLA'.* auto, xla, graph, eager"):
        device.choose_compile("XLA", "/CPU:0")


def test_the_gpu_of_a_mac(gpus, monkeypatch):
    """TensorFlow has no XLA for it; Keras' `model_supports_jit` says so too."""
    monkeypatch.setattr("sys.platform", "darwin")
    gpus((0, 0))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": "METAL"})
    assert device.choose_compile("auto", "/GPU:0").value == "graph"
    assert device.choose_compile("xla", "/GPU:0").value == "xla"
    assert device.choose_precision("auto", "/GPU:0").value == "float32"


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 1), "float32"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")],
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


def test_the_precision_without_a_list_of_the_processors_instructions(monkeypatch):
    """As on Windows and macOS, which have no /proc."""
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    monkeypatch.setattr(device, "Path", lambda path: Path("/nonexistent", path[1:]))
    choice = device.choose_precision("auto", "/CPU:0")
    assert (choice.value, "not known" in choice.why) == ("float32", True)


def test_a_gpus_memory_grows_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    check_backend()
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    check_backend()
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "false"


def test_a_run_leaves_tensorflows_configuration_as_it_was(small_file, content, style):
    def configuration():
        return (
            tf.config.optimizer.get_jit(),
            tf.config.optimizer.get_experimental_options(),
            tf.config.get_visible_devices(),
            tf.config.list_logical_devices(),
            tf.config.get_soft_device_placement(),
            tf.config.functions_run_eagerly(),
            tf.config.threading.get_intra_op_parallelism_threads(),
            tf.config.threading.get_inter_op_parallelism_threads(),
            keras.mixed_precision.global_policy().name,
        )

    before = configuration()
    stylize(content, style, weights=str(small_file), size=32, iterations=2, tile=16, precision="bfloat16")
    assert configuration() == before


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), True),
        (tf.errors.InternalError(None, None, "Out of memory while trying to allocate 5 bytes"), True),
        (tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY"), True),
        (tf.errors.InternalError(None, None, "the autotuner failed"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_mean_out_of_memory(error, expected):
    assert device.is_out_of_memory(error) is expected


def test_the_folder_of_the_xla_cache(monkeypatch):
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    assert device.xla_cache() is None
    monkeypatch.setenv("TF_XLA_FLAGS", "--x=1 --tf_xla_persistent_cache_directory=/somewhere")
    assert device.xla_cache() == "/somewhere"

"""Negative controls: models with known faults, which the checks of test_serving.py must detect.

The third known fault, weights that are stored twice, is in serving/test_saved_model.py.
"""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.contract import messages, wire
from tests.contract.double import ROOT
from tfstyle.backend import KERAS_2

pytestmark = pytest.mark.serving

SPEC = tf.TensorSpec([None, 4], tf.float32)
RUN = """
import sys
import numpy as np
from tests.contract.session import GraphSession, RequestError
session = GraphSession(sys.argv[1])
try:
    session.run("", {"x": np.ones((2, 4), np.float32)})
except RequestError as error:
    print(error.code, error.message)
"""


def in_a_graph_session(folder):
    """Return the error of a graph session for one request; empty if the request succeeds."""
    command = [sys.executable, "-c", RUN, str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def save(module, function, folder):
    signature = tf.function(function, input_signature=[SPEC], autograph=False).get_concrete_function()
    tf.saved_model.save(module, str(folder), {"serving_default": signature})


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(300)])
    model.layers[0].bias.assign(np.arange(300))
    return model


@pytest.mark.parametrize("compiled", [True, False])
def test_a_function_that_must_be_compiled_is_visible_in_the_graph(tmp_path, compiled):
    module = tf.Module()
    module.weight = tf.Variable(tf.ones([4]))
    inner = tf.function(lambda x: x * module.weight, jit_compile=compiled, autograph=False)
    save(module, lambda x: {"y": inner(x)}, tmp_path)
    graph = messages.meta_graph((tmp_path / "saved_model.pb").read_bytes())
    flags = [attributes.get("_XlaMustCompile", {}) for _, attributes in messages.nodes(graph)]
    assert any(wire.last(flag, 5, 0) for flag in flags) == compiled


@pytest.mark.parametrize("raw", [True, False])
def test_a_keras_model_works_in_python_and_not_in_a_graph_session(tmp_path, model, raw):
    """A graph session does not find the variables of Keras 3, but finds plain variables with their values."""
    module = tf.Module()
    if raw:
        module.values = [tf.Variable(tf.convert_to_tensor(variable)) for variable in model.variables]
        kernel, bias = module.values
        save(module, lambda x: {"y": x @ kernel + bias}, tmp_path)
    else:
        module.model = model
        save(module, lambda x: {"y": model(x)}, tmp_path)
    loaded = tf.saved_model.load(str(tmp_path))
    x = tf.ones([2, 4])
    np.testing.assert_allclose(loaded.signatures["serving_default"](x=x)["y"], model(x), rtol=1e-5)
    error = in_a_graph_session(tmp_path)
    assert (error == "") == (raw or KERAS_2)
    assert error == "" or "Could not find variable" in error

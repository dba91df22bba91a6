"""A small cluster of processes on this machine, and images, for the tests of batches on Ray."""

import os

import pytest

OPTIONS = {"size": 32, "iterations": 2, "precision": "float32", "compile": "graph"}


@pytest.fixture(scope="session")
def nodes():
    """A cluster with two nodes of one core each, which this process has joined."""
    pytest.importorskip("ray.data")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    import ray

    from tests.benchmarks.kills import Nodes

    nodes = Nodes(2)
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.stop()


@pytest.fixture
def options(small_file):
    """Options of a short run with the weights of a small encoder."""
    return {**OPTIONS, "weights": str(small_file)}


@pytest.fixture
def flags(options):
    """The same options for the command line."""
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]

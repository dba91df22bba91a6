"""Starting Ray on this machine, joining a cluster, and the number of workers for its cores and GPUs."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import os
import socket
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import ray

from tfstyle.errors import ConfigError, RunError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0  # time limit of a connection to the head node

#: Memory in bytes that a worker should have at least: TensorFlow, the encoder, and a step at 512 pixels.
WORKER_BYTES = 3e9


class Workers(NamedTuple):
    """The workers of a run.

    Attributes:
        number: largest number of workers at the same time.
        cores: number of cores, and of threads, of each worker; 0 for workers with a GPU.
        gpus: number of GPUs of each worker, 0 or 1.
        memory: bytes of memory that Ray reserves for each worker, so that no node has too many; 0 for none.
    """

    number: int
    cores: int
    gpus: int
    memory: int = 0


@contextlib.contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Start Ray on this machine, or join a cluster, as a context manager.

    A Ray that is started here ends with the block. ``RAY_TMPDIR`` is its folder for temporary files.

    Args:
        address: address of the head node of a cluster, such as ``10.0.0.1:6379``, or ``auto`` for the cluster
            that this machine belongs to; None starts a new Ray.

    Yields:
        None.

    Raises:
        ConfigError: there is no cluster at the address, or its Ray or Python has another version.
        RunError: Ray could not be started.
    """
    if ray.is_initialized():  # the caller has joined a cluster
        yield
        return
    if address is None:
        _start()
    else:
        _join(address)
    try:
        yield
    finally:
        ray.shutdown()


def _start() -> None:
    """Start Ray on this machine, with its dashboard if that is installed and can be started."""
    # Ray's default is 15: whenever a process of Ray works, the threads of a step wait for the one that it
    # interrupts. On two cores an iteration then took 20 to 35% longer, and 5 to 20% with 0.
    os.environ.setdefault("RAY_worker_niceness", "0")
    for dashboard in (importlib.util.find_spec("aiohttp") is not None, False):
        try:
            ray.init(
                address="local", include_dashboard=dashboard, dashboard_host="127.0.0.1",
                logging_level=logging.WARNING,
            )  # fmt: skip
            return
        except Exception as error:  # Ray raises Exception itself if the dashboard fails
            ray.shutdown()
            if not dashboard:
                raise RunError(f"Ray could not be started: {first_line(error)}") from error
            log.warning("Ray's dashboard could not be started (%s)", first_line(error))


def _join(address: str) -> None:
    if address.startswith("ray://"):
        raise ConfigError(
            f"the address {address} is that of a Ray client, which cannot run datasets; run the command on a "
            "machine of the cluster with the address auto, or with ray job submit"
        )
    if ":" in address and not reaches(address):  # Ray would try for minutes
        raise ConfigError(f"no Ray cluster can be reached at {address}; give the address of its head node")
    try:
        ray.init(address=address, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"the Ray cluster at {address} cannot be joined: {first_line(error)}") from None


def reaches(address: str) -> bool:
    """Return whether a connection to an address can be opened.

    Args:
        address: host and port, such as ``127.0.0.1:6379``.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, with at most 200 characters.

    Args:
        error: the error.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def plan_workers(device: str, *, count: int | None = None, cores: int | None = None) -> Workers:
    """Return the workers for the cluster that this process has joined.

    Args:
        device: `tfstyle.StyleConfig.device`: ``auto`` takes the GPUs of the cluster if it has any, ``cpu``
            its cores.
        count: number of workers; by default one for each GPU, or as many as the cores of all nodes allow.
        cores: number of cores of a worker without a GPU. By default it is 1, or as many as are needed for a
            worker to have `WORKER_BYTES` of memory.

    Raises:
        ConfigError: a GPU is asked for by its number, or no node has so many cores.
    """
    if device.startswith("gpu:"):
        raise ConfigError(f"device is {device!r}; with Ray it must be auto or cpu: Ray assigns the GPUs")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if device == "auto" and gpus and not cores:
        return Workers(count or gpus, 0, 1)
    nodes = [node for node in nodes if node.get("CPU", 0) >= (cores or 1)]
    memory = min(WORKER_BYTES, max((memory_of(node) for node in nodes), default=WORKER_BYTES))
    fitting = [(int(node["CPU"]), int(memory_of(node) // memory)) for node in nodes]
    fitting = [(cpus, number) for cpus, number in fitting if number]
    if not fitting and count is None:
        raise ConfigError(
            f"no node of the Ray cluster has {cores or 1} cores for workers; add nodes, or give the number "
            "of workers to wait for them"
        )
    if not cores:
        cores = min((math.ceil(cpus / number) for cpus, number in fitting), default=1)
    possible = sum(min(cpus // cores, number) for cpus, number in fitting)
    return Workers(count or possible, cores, 0, int(memory))


def memory_of(node: Mapping[str, float]) -> float:
    """Return the memory of a node in bytes, or a large number if Ray does not state it.

    Args:
        node: the resources of the node.
    """
    return float(node.get("memory", 1e15))

"""Tests of the workers of a batch on Ray: attempts, shared summaries, errors; and of their number."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray.data", reason="needs tfstyle[cluster]")

import ray

from tfstyle.cli.common import Interrupted, signals_interrupt
from tfstyle.cluster import coordinator as coordinators
from tfstyle.cluster import session, watcher
from tfstyle.cluster.addresses import AddressStorage
from tfstyle.cluster.coordinator import Coordinator, Worker, start_coordinator
from tfstyle.cluster.painter import MOST_ATTEMPTS, Painter, SharedSummaries
from tfstyle.cluster.runs import as_dataset, by_shape, make_settings, own_error, prepare_folder
from tfstyle.cluster.session import Workers, plan_workers
from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError, RunError, WeightsError
from tfstyle.images import ImageArray, read_settings, save
from tfstyle.run import JobRunner, LocalStorage, find_contents, find_missing, plan_jobs, run_jobs

FIRST, SECOND = Worker("node", 1), Worker("node", 2)


def test_attempts_are_counted_until_one_ends():
    coordinator = Coordinator()
    assert coordinator.begin("a.png", FIRST) == (1, False)
    assert coordinator.begin("a.png", SECOND) == (2, False)  # the first process was killed
    assert coordinator.begin("b.png", FIRST) == (1, False)
    current = coordinator.progress().current
    assert {name: attempt.worker for name, attempt in current.items()} == {"a.png": SECOND, "b.png": FIRST}
    coordinator.end("a.png", made=True)
    assert coordinator.begin("a.png", SECOND) == (1, True)  # the block of rows is repeated
    coordinator.end("a.png", made=True)
    coordinator.end("b.png", made=False)
    progress = coordinator.progress()
    assert (progress.done, progress.errors, progress.current) == (1, 1, {})
    assert len(progress.durations) == 2  # that of a.png was counted once


def test_a_value_is_computed_by_one_worker(nodes, monkeypatch):
    coordinator = Coordinator()
    assert coordinator.claim("key") == ("compute", [])
    assert coordinator.claim("key") == ("wait", [])
    assert coordinator.claim("other")[0] == "compute"
    monkeypatch.setattr(coordinators, "PROMISE_SECONDS", 0.0)
    assert coordinator.claim("key")[0] == "compute"  # the first worker may have died
    coordinator.share("key", 7)
    coordinator.share("key", 8)  # it was slow, not dead
    answer, (reference,) = coordinator.claim("key")
    assert (answer, ray.get(reference)) == ("ready", 7)


def test_summaries_are_shared(nodes):
    import tensorflow as tf

    actor = start_coordinator()
    mine, other = (SharedSummaries(actor, ("style.png",)) for _ in range(2))
    assert "key" not in mine
    mine["key"] = {"conv1_1": (tf.constant([[1.0, 2.0]]), {"mean": tf.constant(3.0)})}
    assert "key" in other
    layer, extra = other["key"]["conv1_1"]
    assert layer.numpy().tolist() == [[1.0, 2.0]]
    assert extra["mean"].numpy() == 3
    assert "key" not in SharedSummaries(actor, ("other.png",))
    del other["key"]
    assert "key" in other  # it is fetched again


@pytest.fixture
def jobs(folders, options):
    config = StyleConfig().replace(options)
    contents, style = find_contents(str(folders / "contents")), str(folders / "styles" / "0.png")
    prepare_folder(str(folders / "out"))
    return plan_jobs(contents, [style], config, folder=str(folders / "out"), suffix=".png")


def make_painter(jobs, **others):
    job = jobs[0]
    settings = make_settings(
        job.styles, job.config, workers=Workers(1, 0, 0), **{"folder": str(Path(job.output).parent), **others}
    )
    return Painter(settings)


def test_a_worker_makes_what_a_batch_in_one_process_makes(nodes, jobs):
    painter = make_painter(jobs)
    for (job, expected), painted in zip(run_jobs(jobs), map(painter.paint, jobs), strict=True):
        assert painted.encoded is None
        stored = read_settings(Path(job.output))
        assert stored["facts"]["sources"] == expected.facts["sources"]
        assert stored["options"] == expected.settings()["options"]
        assert painted.row.loss == pytest.approx(expected.history.total[-1], rel=1e-6)
        assert painted.row.digest == job.row(facts=expected.facts).digest


def test_a_result_that_exists_is_not_made_again(nodes, jobs, monkeypatch):
    painter = make_painter(jobs)
    first = painter.paint(jobs[0]).row
    monkeypatch.setattr(JobRunner, "run", lambda *_, **__: pytest.fail("made again"))
    again = painter.paint(jobs[0]).row
    assert dataclasses.replace(again, finished="") == dataclasses.replace(first, finished="")
    save(Path(jobs[1].output), ImageArray(np.zeros((8, 8, 3), np.float32)))
    assert "not made by tfstyle" in painter.paint(jobs[1]).row.error


def test_overwriting_replaces_results_of_former_runs_once(nodes, jobs):
    painter = make_painter(jobs, overwrite=True)
    save(Path(jobs[0].output), ImageArray(np.zeros((8, 8, 3), np.float32)))
    assert painter.paint(jobs[0]).row.error is None
    version = Path(jobs[0].output).stat().st_mtime_ns
    assert painter.paint(jobs[0]).row.error is None  # the block of rows is repeated
    assert Path(jobs[0].output).stat().st_mtime_ns == version


def test_an_image_that_ends_its_process_gets_less_memory_and_then_an_error(nodes, jobs, monkeypatch):
    painter, limits = make_painter(jobs), []
    painter._memory = 16.0
    original = JobRunner.run

    def killed(self, job, *arguments, memory, **options):
        limits.append(memory)
        raise KeyboardInterrupt  # stands for the end of the process: no end of the attempt is recorded

    monkeypatch.setattr(JobRunner, "run", killed)
    for _ in range(MOST_ATTEMPTS):
        with pytest.raises(KeyboardInterrupt):
            painter.paint(jobs[0])
    assert limits == [16, 16, 4, 1]
    monkeypatch.setattr(JobRunner, "run", original)
    error = painter.paint(jobs[0]).row.error
    assert re.search(r"the process ended 4 times.*memory.*smaller size", error)
    assert painter.paint(jobs[1]).row.error is None


def test_a_result_that_cannot_be_written_is_returned(nodes, jobs, monkeypatch):
    """The disk of one machine is full: the process that started the run writes the result."""
    painter = make_painter(jobs)

    def full(path, data):
        raise RunError(f"{path} could not be written: No space left on device")

    monkeypatch.setattr("tfstyle.cluster.addresses.write_atomically", full)
    painted = painter.paint(jobs[0])
    assert painted.row.error is None
    assert painted.encoded[1:4] == b"PNG"
    assert not Path(jobs[0].output).exists()


def test_errors_of_an_image_are_rows_and_those_of_the_options_end_the_run(nodes, jobs, tmp_path):
    painter = make_painter(jobs)
    Path(jobs[0].content).write_bytes(b"not an image")
    assert "0.png" in painter.paint(jobs[0]).row.error
    Path(jobs[1].content).unlink()
    assert "no such image" in painter.paint(jobs[1]).row.error
    wrong = dataclasses.replace(jobs[2], config=jobs[2].config.replace(init="none.png"))
    assert "none.png" in painter.paint(wrong).row.error
    with pytest.raises(ConfigError, match=rf"{tmp_path}/none is not on the machine .*share"):
        make_painter(jobs, folder=str(tmp_path / "none")).check_folder()


def test_an_unexpected_error_of_an_image_is_a_row(nodes, jobs, monkeypatch):
    """Decoders and file systems have exceptions of their own."""
    painter = make_painter(jobs)
    original = AddressStorage.open

    def fail(self, path):
        if path == jobs[0].content:
            raise LookupError("a strange file")
        return original(self, path)

    monkeypatch.setattr(AddressStorage, "open", fail)
    assert re.search(r"0\.png: LookupError: a strange file", painter.paint(jobs[0]).row.error)
    assert painter.paint(jobs[1]).row.error is None


def test_the_row_of_a_result_is_newer_than_its_file(nodes, jobs, monkeypatch):
    """So that a restart need not open the file."""
    painter = make_painter(jobs)
    rows = {job.name: painter.paint(job).row for job in jobs}
    monkeypatch.setattr(LocalStorage, "open", lambda *_: pytest.fail("opened"))
    assert find_missing(jobs, rows, storage=LocalStorage()) == ([], [], [])


def test_an_error_of_tfstyle_is_found_among_those_of_ray():
    inner = WeightsError("no weights file")
    task = ray.exceptions.RayTaskError("f", "traceback", inner)
    assert own_error(task) is inner
    assert own_error(task.as_instanceof_cause()) is not None
    outer = RuntimeError("failed")
    outer.__cause__ = task
    assert isinstance(own_error(outer), WeightsError)
    assert own_error(ray.exceptions.ActorDiedError()) is None


def test_jobs_of_equal_shapes_follow_each_other(jobs):
    larger = jobs[0].config.replace({"size": 200, "enlarge": True})  # 143 x 200 and 200 x 143 pixels
    jobs = [dataclasses.replace(job, config=larger) for job in jobs]
    ordered = by_shape(jobs, AddressStorage())
    assert [Path(job.content).name for job in ordered] == ["0.png", "2.png", "1.png"]
    Path(jobs[0].content).write_bytes(b"not an image")
    assert len(by_shape(jobs, AddressStorage())) == 3


def test_blocks_become_smaller(nodes, jobs):
    many = [dataclasses.replace(jobs[0], output=f"{k}.png") for k in range(300)]
    blocks = as_dataset(many, 2).materialize().get_internal_block_refs()
    sizes = [len(table) for table in ray.get(blocks)]
    assert sum(sizes) == 300
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (16, 1)


@pytest.mark.parametrize(
    ("resources", "device", "count", "cores", "expected"),
    [
        ([{"CPU": 8, "memory": 64e9}], "auto", None, None, (8, 1, 0)),
        ([{"CPU": 8, "memory": 12e9}], "auto", None, None, (4, 2, 0)),  # 3 GB each
        ([{"CPU": 8, "memory": 1e9}], "auto", None, None, (1, 8, 0)),
        ([{"CPU": 8, "memory": 64e9}, {"CPU": 3, "memory": 64e9}], "auto", None, 2, (5, 2, 0)),
        ([{"CPU": 8, "memory": 64e9, "GPU": 2}, {"CPU": 8, "GPU": 1}], "auto", None, None, (3, 0, 1)),
        ([{"CPU": 8, "memory": 64e9, "GPU": 2}], "cpu", 3, None, (3, 1, 0)),
        ([{"CPU": 8, "memory": 64e9, "GPU": 2}], "auto", None, 4, (2, 4, 0)),
        ([{"CPU": 16, "memory": 3e9}, *[{"CPU": 8, "memory": 64e9}] * 9], "auto", None, None, (73, 1, 0)),
        ([{"CPU": 0}], "auto", 8, None, (8, 1, 0)),  # nodes that are added later
        ([{"CPU": 0, "memory": 1e9}, {"CPU": 2, "memory": 64e9}], "auto", None, None, (2, 1, 0)),
    ],
)
def test_the_number_of_workers(resources, device, count, cores, expected, monkeypatch):
    monkeypatch.setattr(session.ray, "nodes", lambda: [{"Alive": True, "Resources": r} for r in resources])
    assert plan_workers(device, count=count, cores=cores)[:3] == expected


def test_wrong_workers_are_one_line(monkeypatch):
    monkeypatch.setattr(session.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2}}])
    with pytest.raises(ConfigError, match=r"gpu:1.*auto or cpu"):
        plan_workers("gpu:1")
    with pytest.raises(ConfigError, match=r"no node .* has 8 cores"):
        plan_workers("auto", cores=8)


#: Starts Ray as the command does, and prints the addresses on which its processes listen.
LISTENERS = """
import os
from pathlib import Path
from tfstyle.cluster.requirement import load_ray
load_ray(on_this_machine=True)
from tfstyle.cluster.session import connected
import ray

def parents():
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            yield int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass

def sockets(process):
    for link in Path(f"/proc/{process}/fd").glob("*"):
        try:
            yield os.readlink(link)
        except OSError:
            pass

with connected():
    ray.get(ray.remote(lambda: 0).remote())
    own, found = {os.getpid()}, {child: parent for child, parent in parents()}
    for _ in found:
        own |= {child for child, parent in found.items() if parent in own}
    mine = {socket for process in own for socket in sockets(process)}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in mine:
                print("listens", words[1].partition(":")[0])
"""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
def test_ray_on_this_machine_listens_on_loopback_only():
    run = subprocess.run([sys.executable, "-c", LISTENERS], capture_output=True, text=True, timeout=300)
    addresses = re.findall(r"^listens (\w+)$", run.stdout, re.MULTILINE)
    assert len(addresses) > 3, run.stdout + run.stderr
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert set(addresses) <= loopback


def test_a_process_that_takes_too_long_is_ended(nodes):
    @ray.remote(num_cpus=1, max_restarts=1, max_task_retries=1)
    class Slow:
        def work(self):
            return ray.get_runtime_context().get_node_id(), os.getpid()

    slow = Slow.remote()
    node, process = ray.get(slow.work.remote())
    os.kill(process, signal.SIGSTOP)
    watcher.end_process(Worker(node, process))
    assert ray.get(slow.work.remote(), timeout=60)[1] != process


@pytest.mark.parametrize(
    ("limit", "durations", "age", "ended"),
    [(5, [], 6, True), (5, [], 4, False), (None, [], 3000, False), (None, [1.0] * 5, 599, False),
     (None, [1.0] * 5, 601, True), (None, [100.0] * 5, 1999, False), (None, [100.0] * 5, 2001, True)],
)  # fmt: skip
def test_the_time_limit_follows_the_finished_images(nodes, limit, durations, age, ended, monkeypatch):
    killed = []
    monkeypatch.setattr(watcher, "end_process", killed.append)
    current = {"a.png": coordinators.Attempt(FIRST, 1, time.time() - age)}
    progress = coordinators.Progress(0, 0, durations, current)
    watching = watcher.Watcher(None, time_limit=limit, show=print)
    for _ in range(2):  # until another process begins, the attempt does not change
        watching._end_overdue(progress)
    assert killed == [FIRST] * ended


@pytest.mark.parametrize("system", ["posix", "nt"])
def test_a_lost_connection_interrupts_the_main_thread(monkeypatch, system):
    """On Windows `os.kill` would end the process at once."""
    calls = types.SimpleNamespace(name=system, kill=os.kill, getpid=os.getpid)
    if system == "nt":
        del calls.kill
    monkeypatch.setattr(watcher, "os", calls)

    def wait():
        for _ in range(1000):
            time.sleep(0.01)

    threading.Timer(0.1, watcher.interrupt_main_thread).start()
    with pytest.raises(Interrupted) as caught, signals_interrupt():
        wait()
    assert caught.value.code == 130

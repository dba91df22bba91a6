"""Processes to be killed: ``python -m tests.run.killing`` loads TensorFlow, and forks a run for each request.

A request is a line of JSON: ``arguments`` of the command line, the file ``said`` for what it says, and
``die``, an instant of a checkpoint's writing at which the process kills itself. The answers are the child's
number, and how it ended.
"""

import io
import json
import os
import signal
import subprocess
import sys

#: Instants within the writing of a checkpoint.
INSTANTS = (
    "half written",
    "before fsync",
    "before the new name",
    "after the new name",
    "before the old is dropped",
)


class Server:
    """One process that others are forked from, which saves each of them four seconds of imports."""

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.run.killing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def start(self, arguments, said, die=""):
        """Start a run, and return its process' number."""
        request = {"arguments": [*map(str, arguments)], "said": str(said), "die": die}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def end(self):
        """Wait for the run: its exit code, or less than 0 the signal that killed it."""
        return int(self._process.stdout.readline())


def serve():
    import tfstyle.cli
    import tfstyle.run

    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            sink = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            if request["die"]:
                die_at(request["die"])
            os._exit(tfstyle.cli.main(request["arguments"]))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def die_at(instant):
    """Kill this process in the fourth checkpoint that it writes."""
    from tfstyle.run import checkpoints

    numbers = iter(range(1, 10_000))
    write, fsync, replace = checkpoints._write, os.fsync, os.replace
    drop = checkpoints.CheckpointFolder._delete_others
    writing = {"the fourth": False}

    def die_if(here):
        if writing["the fourth"] and here == instant:
            os.kill(os.getpid(), signal.SIGKILL)

    def save(file, arrays):
        writing["the fourth"] = next(numbers) == 4
        buffer = io.BytesIO()
        write(buffer, arrays)
        whole = buffer.getvalue()
        file.write(whole[: len(whole) // 2])
        file.flush()
        die_if("half written")
        file.write(whole[len(whole) // 2 :])

    def sync(handle):
        die_if("before fsync")
        fsync(handle)

    def rename(source, target):
        die_if("before the new name")
        replace(source, target)
        die_if("after the new name")

    def dropping(self):
        die_if("before the old is dropped")
        drop(self)

    checkpoints._write, os.fsync, os.replace = save, sync, rename
    checkpoints.CheckpointFolder._delete_others = dropping


if __name__ == "__main__":
    serve()

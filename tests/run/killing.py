"""A server of processes that tests kill: ``python -m tests.run.killing`` forks a run for each request.

A request is a line of JSON: the ``arguments`` of the command line, the file ``log`` for the output, and
``die``, the instant during the writing of a checkpoint at which the process kills itself. The answers are the
child's process number and its exit code.
"""

import io
import json
import os
import signal
import subprocess
import sys

#: Instants during the writing of a checkpoint, in order.
INSTANTS = (
    "half written",
    "before fsync",
    "before the file is renamed",
    "after the file is renamed",
    "before old files are deleted",
)


class Server:
    """A process from which runs are forked, which saves the 4 seconds that TensorFlow takes to import."""

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

    def start(self, arguments, log, die=""):
        """Start a run, and return its process number."""
        request = {"arguments": [*map(str, arguments)], "log": str(log), "die": die}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def end(self):
        """Wait for the run, and return its exit code, or minus the number of the signal that killed it."""
        return int(self._process.stdout.readline())


def serve():
    import tfstyle.cli
    import tfstyle.run

    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            sink = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            if request["die"]:
                die_at(request["die"])
            os._exit(tfstyle.cli.main(request["arguments"]))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def die_at(instant):
    """Make this process kill itself at an instant of the fourth checkpoint that it writes."""
    from tfstyle.run import checkpoints

    numbers = iter(range(1, 10_000))
    write, fsync, replace = checkpoints._write, os.fsync, os.replace
    delete_others = checkpoints.CheckpointFolder._delete_others
    writes_fourth = False

    def die_if(current):
        if writes_fourth and current == instant:
            os.kill(os.getpid(), signal.SIGKILL)

    def write_in_halves(file, arrays):
        nonlocal writes_fourth
        writes_fourth = next(numbers) == 4
        buffer = io.BytesIO()
        write(buffer, arrays)
        data = buffer.getvalue()
        file.write(data[: len(data) // 2])
        file.flush()
        die_if("half written")
        file.write(data[len(data) // 2 :])

    def fsync_or_die(handle):
        die_if("before fsync")
        fsync(handle)

    def replace_or_die(source, target):
        die_if("before the file is renamed")
        replace(source, target)
        die_if("after the file is renamed")

    def delete_others_or_die(self):
        die_if("before old files are deleted")
        delete_others(self)

    checkpoints._write, os.fsync, os.replace = write_in_halves, fsync_or_die, replace_or_die
    checkpoints.CheckpointFolder._delete_others = delete_others_or_die


if __name__ == "__main__":
    serve()

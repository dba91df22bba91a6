"""The page: its start, 50 jobs, 200 wrong requests, previews: ``python -m tests.benchmarks.page``.

It starts ``tfstyle ui`` and prints the seconds until the page answers, the seconds that the first job and the
later jobs of a program take, the memory of the server after every tenth job, and the answers to wrong
requests. If Chromium is installed, it also prints the seconds from a click until the first preview of a
result of 512 pixels, and from the closing of a tab until the end of its job. It needs Gradio and, for the
browser, playwright (``pip install '.[test,ui]' playwright``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import machine
from tests.web.conftest import DATA, chromium, running


def memory(process: int) -> float:
    """Return the resident memory of a process in megabytes."""
    status = Path(f"/proc/{process}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=50, help="number of jobs [50]")
    parser.add_argument("--requests", type=int, default=200, help="number of wrong requests [200]")
    parser.add_argument("--size", type=int, default=128, help="longest side of the results in pixels [128]")
    parser.add_argument("--tabs", type=int, default=8, help="number of measured pairs of tabs [8]")
    options = parser.parse_args()
    print(machine.line(), flush=True)
    import gradio_client

    from tests.web.test_server import post, wrong_requests

    choices = {"size": options.size, "iterations": 5, "scales": 1, "weights": "embedded"}
    files = [gradio_client.handle_file(str(DATA / name)) for name in ("cat.jpg", "evening.jpg")]
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as server:
        print(f"seconds from the start until the page answers: {server.seconds:.1f}")
        client = gradio_client.Client(server.url, verbose=False)
        seconds = []
        for number in range(1, options.jobs + 1):
            began = time.perf_counter()
            client.predict(*files, json.dumps(choices), api_name="/paint")
            seconds.append(time.perf_counter() - began)
            if number == 1 or number % 10 == 0:
                megabytes = memory(server.process.pid)
                print(
                    f"after {number} jobs: {megabytes:.0f} MB, {seconds[-1]:.2f} s for the last", flush=True
                )
        later = statistics.median(seconds[1:])
        print(f"seconds of a job: first {seconds[0]:.2f}, median of the others {later:.2f}")
        secret = Path(folder) / "secret.txt"
        secret.write_text("the secret of this machine")
        wrong = list(wrong_requests(secret)) * (1 + options.requests // 50)
        codes: dict[int, int] = {}
        leaks = 0
        for path, body in wrong[: options.requests]:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            code, text = post(server.url, path, data)
            codes[code] = codes.get(code, 0) + 1
            leaks += "the secret" in text
        print(
            f"{options.requests} wrong requests: answers {codes}, {leaks} with a file from outside the cache"
        )
        client.predict(*files, json.dumps(choices), api_name="/paint")
        print(f"a job after them works; {memory(server.process.pid):.0f} MB")
        measure_tabs(server, options.tabs)


def measure_tabs(server: Any, count: int) -> None:
    """Print the seconds until the first preview, and from the closing of a tab until the end of its job."""
    from tests.web.test_browser import check, open_tab, set_number

    with contextlib.ExitStack() as stack:
        try:
            browser = stack.enter_context(chromium())
        except LookupError as error:
            print(f"previews and tabs were not measured: {error}")
            return
        other, same, ends = [], [], []
        for number in range(2 * count + 1):  # the first one warms up
            tab = open_tab(server, browser)
            set_number(tab, "#size", 512)
            check(tab, "high")
            set_number(tab, "#strength", 1 + number // 2 / 10)
            ended, began = server.messages.read_text().count("job ended"), time.perf_counter()
            tab.click("#paint")
            tab.wait_for_selector("#preview img")
            preview = time.perf_counter() - began
            time.sleep(number / (2 * count))  # at any moment of an iteration
            began = time.perf_counter()
            tab.context.close()
            while server.messages.read_text().count("job ended") == ended:
                time.sleep(0.01)
            if number > 0:
                (same if number % 2 else other).append(preview)
                ends.append(time.perf_counter() - began)
        for what, seconds in (
            ("from a click to the first preview of 512 pixels, after a job with other options", other),
            ("from a click to the first preview of 512 pixels, after a job with the same options", same),
            ("from the closing of a tab to the end of its job", ends),
        ):
            print(f"seconds {what}: median {statistics.median(seconds):.2f}, at most {max(seconds):.2f}")


if __name__ == "__main__":
    main()

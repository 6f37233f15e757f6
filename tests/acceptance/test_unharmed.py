"""What one part does not do, the others do all the same: a log that nobody takes, a worker that stands still.

How much of their throughput the others keep is measured by ``python -m benchmarks unharmed``.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow import Flow, event, trace_ids
from waiting import until

REQUESTS = 50


@contextlib.contextmanager
def unread(folder: Path) -> Iterator[Path]:
    """A pipe that is full, and whose reader does not read."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(end, b"x" * 4096)
        yield pipe
    finally:
        os.close(end)


def dropped(flow: Flow) -> float:
    """The log lines that the workers could not write."""
    lines = flow.http("/metrics")[1].splitlines()
    found = [line for line in lines if line.startswith("pipelined_log_messages_dropped_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in found)


@pytest.mark.parametrize("sink", ["full disk", "unread pipe"])
def test_a_log_that_nobody_takes_holds_up_nobody(flow: Flow, tmp_path: Path, sink: str) -> None:
    flow.configure({"logs.level": "DEBUG", "logs.repeats": 0})
    with contextlib.ExitStack() as stack:
        place = Path("/dev/full") if sink == "full disk" else stack.enter_context(unread(tmp_path))
        flow.wrapper = ["sh", "-c", f'exec "$@" >{place} 2>&1', "sh"]
        flow.start()
        flow.load(flow.day(150, seed=23).lines())
        for _ in range(REQUESTS):
            assert flow.http("/livez")[0] == 200
        assert flow.settle().read > 0
        until(lambda: dropped(flow) > 5, "it is counted what was lost")
        assert flow.stop() == 0


def test_a_parent_that_is_stopped_is_told_by_the_endpoint_and_holds_up_no_worker(flow: Flow) -> None:
    flow.start()
    assert flow.http("/livez")[0] == 200
    port = flow.workers()["endpoint"]["published"]
    assert flow.daemon is not None
    os.kill(flow.daemon.pid, signal.SIGSTOP)
    try:
        until(lambda: flow.http("/livez", port)[0] == 503, "somebody says so")
        for path in ("/livez", "/readyz"):
            assert "supervisor: its loop has not turned for" in flow.http(path, port)[1]
    finally:
        os.kill(flow.daemon.pid, signal.SIGCONT)
    until(lambda: flow.http("/livez")[0] == 200, "it turns again")
    flow.load(flow.day(50, seed=31).lines())
    assert flow.settle().read > 0
    assert flow.stop() == 0


def test_a_worker_that_is_stopped_holds_up_no_other(flow: Flow) -> None:
    flow.start()
    stopped = flow.workers()["upload"]["pid"]
    os.kill(stopped, signal.SIGSTOP)
    flow.load(event(trace) for trace in trace_ids(200))
    flow.until_worker("event-writer", lambda worker: worker["records_out"] >= 200, "has all rows", 60)
    upload = flow.workers()["upload"]
    assert (upload["pid"], upload["restarts"]) == (stopped, 0), "it stood still all the time"
    os.kill(stopped, signal.SIGCONT)
    flow.load(flow.day(50, seed=29).lines())
    assert flow.settle().read > 200
    assert flow.stop() == 0

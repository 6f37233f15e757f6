"""The contract of docs/why/shutdown.md: each worker of a working pipeline is stopped in turn."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time

import pytest

from flow import RUNNING, Flow
from processes import gone
from waiting import until

#: Seconds within which a worker without anything slow in hand is gone. The machine may be busy.
QUICK = 10.0


@pytest.mark.timeout(300)
def test_each_worker_finishes_or_hands_back_what_it_has_and_ends_with_0_in_its_time(flow: Flow) -> None:
    flow.start()
    done = threading.Event()

    def feed() -> None:
        for seed in itertools.count(1):
            if done.wait(0.2):
                return
            flow.load(flow.day(60, seed=seed).lines())

    feeder = threading.Thread(target=feed)
    feeder.start()
    took: dict[str, float] = {}
    try:
        for name in RUNNING:
            before = flow.until_worker(name, lambda worker: worker["state"] == "RUNNING", "runs")
            if before["lag"] is not None and name not in {"retry-scheduler", "endpoint", "table-maintenance"}:
                count = before["records_in"]
                flow.until_worker(name, lambda worker, count=count: worker["records_in"] > count, "works")
            began = time.monotonic()
            os.kill(before["pid"], signal.SIGTERM)
            os.kill(before["pid"], signal.SIGTERM)  # a second one changes nothing
            os.kill(before["pid"], signal.SIGINT)
            until(lambda pid=before["pid"]: gone(pid), f"{name} ends", 30)
            took[name] = time.monotonic() - began
            after = flow.until_worker(
                name, lambda worker, pid=before["pid"]: worker["pid"] not in {None, pid}, "is back"
            )
            assert after["last_exit"] == "exit 0: done", (name, after, flow.tail())
            assert took[name] < QUICK, took
    finally:
        done.set()
        feeder.join()
    assert flow.settle().read > 0
    assert flow.stop() == 0
    assert took["table-maintenance"] < 5, took
    assert took["endpoint"] < 5, took

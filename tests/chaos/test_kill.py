"""kill -9, each worker once and then the daemon, while events flow: the books balance."""

from __future__ import annotations

import itertools
import os
import random
import secrets
import signal
import threading
import time

import pytest

from flow import PATIENCE_S, Flow, event, trace_ids, until
from pipelined.config import WORKER_TYPES
from pipelined.local.fileserver import file_path

CHUNK = 40


class Feeder(threading.Thread):
    """Loads events, chunk by chunk, until it is told to end; ``error`` is what ended it, if anything did."""

    def __init__(self, flow: Flow, seed: int) -> None:
        super().__init__(daemon=True)
        self._flow = flow
        self._day = flow.day(100_000, seed).lines()
        self._numbers = itertools.count()
        self._end = threading.Event()
        self.error: Exception | None = None
        self.loaded = 0

    def run(self) -> None:
        try:
            while not self._end.wait(0.15):
                self.loaded += self._flow.load([*itertools.islice(self._day, CHUNK), self._retried()])
        except Exception as error:
            self.error = error

    def _retried(self) -> bytes:
        """An event whose attachment goes over a retry tier, to keep the scheduler at work."""
        url = self._flow.files_url + file_path("flaky-1", 5_000, next(self._numbers), "GENERIC.pdf")
        return event(next(trace_ids(1)), [url])

    def end(self) -> None:
        """Let it finish its chunk."""
        self._end.set()
        self.join(PATIENCE_S)
        assert not self.is_alive(), "the events are not taken any more"
        if self.error is not None:
            raise self.error


def kill_worker(flow: Flow, name: str) -> None:
    """Kill it in the middle of its work, and wait until its successor works."""
    # At work: it has taken something already. The endpoint takes nothing.
    before = flow.until_worker(
        name,
        lambda worker: worker["state"] == "RUNNING" and (worker["records_in"] > 0 or name == "endpoint"),
        "is at work",
    )
    os.kill(before["pid"], signal.SIGKILL)
    after = flow.until_worker(
        name,
        lambda worker: (
            worker["state"] == "RUNNING"
            and worker["pid"] != before["pid"]
            and (worker["records_in"] > before["records_in"] or name == "endpoint")
        ),
        "works again",
        30,
    )
    assert after["restarts"] == before["restarts"] + 1
    assert after["last_exit"] == "killed by SIGKILL"


@pytest.mark.timeout(180)
@pytest.mark.xdist_group("own-kafka")
def test_with_each_worker_and_the_daemon_killed_once_the_ledger_balances(flow: Flow) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000))
    print(f"the order and the moments come from CHAOS_SEED={seed}")
    rng = random.Random(seed)
    flow.start()
    feeder = Feeder(flow, seed)
    feeder.start()
    try:
        for name in rng.sample(WORKER_TYPES, len(WORKER_TYPES)):
            time.sleep(rng.uniform(0.05, 0.5))  # the moment is the point of it
            kill_worker(flow, name)
        time.sleep(rng.uniform(0.05, 0.5))
        assert flow.daemon is not None
        flow.daemon.kill()
        assert flow.daemon.wait(10) == -signal.SIGKILL
        until(lambda: not flow.processes(), "no worker outlives the daemon", 3)
        flow.start()
    finally:
        feeder.end()
    balance = flow.settle()
    assert balance.read == feeder.loaded
    assert balance.completed > 100
    assert flow.stop() == 0

"""kill -9, each worker once and then the daemon, while events flow from every source: the books balance."""

from __future__ import annotations

import itertools
import os
import random
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import realparts
from chaos.day.plan import READERS
from chaos.day.supply import Supplies
from flow import RUNNING, Flow, event, trace_ids
from pipelined.local.fileserver import file_path
from pipelined.local.upstream import BOTH, Upstream
from waiting import until

CHUNK = 25


@pytest.fixture
def sourced(flow: Flow, tmp_path: Path) -> Iterator[Flow]:
    """An installation that reads an Eventhouse and an Event Hub."""
    realparts.require("the local Kafka", realparts.local_kafka_missing())
    with Upstream(tmp_path / "upstream", BOTH) as upstream:
        flow.configure(upstream.settings)
        yield flow


def feed(flow: Flow, seed: int, end: threading.Event) -> int:
    """Load events, chunk by chunk, and feed them to the sources, until it is time to end.

    Returns how many lines were loaded.
    """
    day = flow.day(100_000, seed).lines()
    supplies = Supplies(BOTH, flow.config, seed)
    supplies.start()
    loaded = 0
    for number in itertools.count():
        if end.wait(0.15):
            break
        # Its attachment goes over a retry tier, to keep the scheduler at work.
        url = flow.files_url + file_path("flaky-1", 5_000, number, "GENERIC.pdf")
        lines = [*itertools.islice(day, CHUNK), event(next(trace_ids(1)), [url])]
        if number % 2:
            supplies.give(lines)
        else:
            loaded += flow.load(lines)
    supplies.finish()
    return loaded


def kill_worker(flow: Flow, name: str) -> None:
    """Kill it in the middle of its work, and wait until its successor works."""
    # At work: it has taken something already. These two take nothing.
    takes_nothing = name in ("table-maintenance", "endpoint")
    before = flow.until_worker(
        name,
        lambda worker: worker["state"] == "RUNNING" and (worker["records_in"] > 0 or takes_nothing),
        "is at work",
    )
    os.kill(before["pid"], signal.SIGKILL)
    after = flow.until_worker(
        name,
        lambda worker: (
            worker["state"] == "RUNNING"
            and worker["pid"] != before["pid"]
            and (worker["records_in"] > before["records_in"] or takes_nothing)
        ),
        "works again",
        30,
    )
    assert after["restarts"] == before["restarts"] + 1
    assert after["last_exit"] == "killed by SIGKILL"


@pytest.mark.timeout(240)
@pytest.mark.xdist_group("own-kafka")
def test_with_each_worker_and_the_daemon_killed_once_the_ledger_balances(sourced: Flow) -> None:
    flow, workers = sourced, (*READERS[BOTH], *RUNNING)
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000))
    print(f"the order and the moments come from CHAOS_SEED={seed}")
    rng = random.Random(seed)
    flow.start()
    end = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        feeding = pool.submit(feed, flow, seed, end)
        try:
            for name in rng.sample(workers, len(workers)):
                time.sleep(rng.uniform(0.05, 0.5))  # the moment is the point of it
                kill_worker(flow, name)
            time.sleep(rng.uniform(0.05, 0.5))
            assert flow.daemon is not None
            flow.daemon.kill()
            assert flow.daemon.wait(10) == -signal.SIGKILL
            until(lambda: not flow.processes(), "no worker outlives the daemon", 3)
            flow.start()
        finally:
            end.set()
    balance = flow.settle()
    held = {name: found.held for name, found in balance.sources.items()}
    assert balance.read == feeding.result() + sum(held.values())
    assert all(count > 100 for count in held.values()), held
    assert balance.completed > 100
    assert flow.stop() == 0

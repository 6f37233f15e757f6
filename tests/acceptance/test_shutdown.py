"""The contract of docs/why/shutdown.md: each worker of a working pipeline is stopped in turn, sources too."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from flow import RUNNING, Flow, event, trace_ids
from pipelined.config.tree import SOURCE_TYPES
from pipelined.local.eventhouse import Eventhouse
from pipelined.local.fileserver import FileServer
from pipelined.local.table_rows import table_row
from pipelined.local.upstream import TABLE, create_table
from processes import gone
from waiting import until

#: Seconds within which a worker without anything slow in hand is gone. The machine may be busy.
QUICK = 10.0
#: So many events a fifth of a second, from each of the three ways in.
EACH = 30
#: Those that need not have anything to do while the others have.
AT_REST = {"retry-scheduler", "table-maintenance", "endpoint"}


@pytest.fixture
def fed(tmp_path: Path, kafka_bootstrap: str, domain: str) -> Iterator[tuple[Flow, Eventhouse]]:
    """A pipeline with both sources; the Event Hub is another topic of the same brokers."""
    hub = NewTopic(f"{domain}.hub", 2, 1)
    brokers = AdminClient({"bootstrap.servers": kafka_bootstrap})
    settings: dict[str, Any] = {
        "workers.eventhouse_poller.processes": 1,
        "eventhouse.table": TABLE,
        "eventhouse.poll_seconds": 0.2,
        "eventhouse.page_rows": EACH,
        "workers.eventhub_reader.processes": 1,
        "eventhub.bootstrap": kafka_bootstrap,
        "eventhub.topic": hub.topic,
        "eventhub.security_protocol": "PLAINTEXT",
    }
    with (
        FileServer() as files,
        Eventhouse(tmp_path / "eventhouse") as eventhouse,
        Flow(tmp_path, kafka_bootstrap, domain, files.url, settings) as flow,
    ):
        flow.configure({"eventhouse.url": eventhouse.url, "eventhouse.database": eventhouse.database})
        create_table(eventhouse)
        brokers.create_topics([hub])[hub.topic].result(30)
        flow.apply_topics()
        yield flow, eventhouse
    brokers.delete_topics([hub.topic])[hub.topic].result(30)


class Feeder(threading.Thread):
    """Feeds a file, the table and the hub, other events to each, until it is stopped; counts what came."""

    def __init__(self, flow: Flow, eventhouse: Eventhouse) -> None:
        super().__init__(daemon=True)
        self.lines = 0
        self.brought = 0
        self._flow = flow
        self._eventhouse = eventhouse
        self._over = threading.Event()
        self._producer = Producer({"bootstrap.servers": flow.config.kafka.bootstrap, "linger.ms": 0})

    def run(self) -> None:
        for seed in itertools.count(1):
            if self._over.wait(0.2):
                return
            self.lines += self._flow.load(self._flow.day(EACH, seed=seed).lines())
            rows = [table_row(event(trace)) for trace in trace_ids(EACH)]
            self._eventhouse.ingest(TABLE, [row for row in rows if row is not None])
            for trace in trace_ids(EACH):
                self._producer.produce(self._flow.config.eventhub.topic, event(trace))
            assert self._producer.flush(20) == 0
            self.brought += EACH

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.mark.timeout(300)
def test_each_worker_finishes_or_hands_back_what_it_has_and_ends_with_0_in_its_time(
    fed: tuple[Flow, Eventhouse],
) -> None:
    flow, eventhouse = fed
    flow.start()
    feeder = Feeder(flow, eventhouse)
    feeder.start()
    took: dict[str, float] = {}
    try:
        for name in (*SOURCE_TYPES, *RUNNING):
            before = flow.until_worker(name, lambda worker: worker["state"] == "RUNNING", "runs")
            if name not in AT_REST:
                done = "records_out" if name in SOURCE_TYPES else "records_in"
                before = flow.until_worker(name, lambda worker, done=done: worker[done] > 0, "works")
                count = before[done]
                flow.until_worker(
                    name, lambda worker, done=done, count=count: worker[done] > count, "goes on"
                )
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
        feeder.stop()
    balance = flow.settle()
    assert balance.read == feeder.lines + 2 * feeder.brought > 0
    for name in SOURCE_TYPES:
        assert flow.workers()[name]["records_out"] == feeder.brought, "each event was brought once"
    assert flow.stop() == 0
    assert took["table-maintenance"] < 5, took
    assert took["endpoint"] < 5, took

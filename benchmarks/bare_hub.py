"""A hub read onto ``events.raw`` in a process: by the package's source and runtime, and by a bare loop.

``python -m benchmarks.bare_hub CONFIG MODE COUNT``. ``source`` and ``bare`` move COUNT events in
transactions of ``eventhub.page_records``, and print the time, the count and the processor seconds at each
commit. ``memory`` is ``source`` once more, and prints the private bytes before it and at most.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from pipelined.config import Config, load
from pipelined.kafka.lag import Lags
from pipelined.kafka.settings import Names, hub_consumer_settings, producer_settings
from pipelined.kafka.transactions import Transactor
from pipelined.sources.contract import Page
from pipelined.sources.eventhub import EventhubSource
from pipelined.sources.hub_login import Login
from pipelined.stats.slots import Child
from pipelined.workers.pressure import Pressure
from pipelined.workers.source import SourceRuntime

Commit = tuple[float, int, float]


class Watched(EventhubSource):
    """The source; notes when each page was committed, and the memory then."""

    commits: list[Commit]
    measured: list[int] | None = None
    done = 0

    def committed(self, page: Page) -> None:
        super().committed(page)
        self.done += len(page.outputs)
        self.commits.append((time.monotonic(), self.done, time.process_time()))
        if self.measured is not None:
            self.measured.append(private_bytes())


def source(config: Config, count: int, *, memory: bool = False) -> Watched:
    """Move so many events as the worker does."""
    stats = Child(memoryview(bytearray(4096)))
    stats.begin(os.getpid())
    reader = Watched(config)
    reader.commits = []
    if memory:
        reader.measured = [private_bytes()]
    SourceRuntime(
        config,
        source=reader,
        transactor=Transactor(config, "bench.hub", stats.beat),
        pressure=Pressure(config.sources, Lags(config, config.sources.pause_stages).ask),
        stats=stats,
        should_stop=lambda: reader.done >= count,
    ).run()
    return reader


def bare(config: Config, count: int) -> list[Commit]:
    """Move so many events with nothing but the client: consume, produce the same bytes and key, commit."""
    hub = config.eventhub
    login = Login(config).settings()
    consumer = Consumer(hub_consumer_settings(config, login) | {"enable.partition.eof": False})
    partitions = consumer.list_topics(hub.topic, timeout=30).topics[hub.topic].partitions
    consumer.assign([TopicPartition(hub.topic, number, 0) for number in partitions])
    producer = Producer(producer_settings(config, "bench.bare"))
    producer.init_transactions(30)
    raw, checkpoints = (Names(config).topic(stream) for stream in ("events_raw", "checkpoints"))
    commits: list[Commit] = []
    done = 0
    produce = producer.produce
    while done < count:
        messages: list[Any] = consumer.consume(hub.page_records, 1.0)
        if not messages:
            continue
        producer.begin_transaction()
        last = {}
        for message in messages:
            produce(raw, message.value(), message.key())
            last[message.partition()] = message.offset()
        produce(checkpoints, json.dumps(last).encode(), b"bare")
        producer.commit_transaction(30)
        done += len(messages)
        commits.append((time.monotonic(), done, time.process_time()))
    return commits


def private_bytes() -> int:
    """The unique set size of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def main(path: str, mode: str, count: int) -> dict[str, Any]:
    """Do what the command line says; what it came to."""
    config = load(Path(path), environ={}).config
    if mode == "bare":
        return {"commits": bare(config, count)}
    reader = source(config, count, memory=mode == "memory")
    if reader.measured:
        return {"before": reader.measured[0], "most": max(reader.measured)}
    return {"commits": reader.commits}


if __name__ == "__main__":
    gc.set_threshold(50_000, 20, 50)  # as in a worker
    found = main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the thread of the source is of no interest any more

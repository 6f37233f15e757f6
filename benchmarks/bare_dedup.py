"""One process of the ``deduplication`` benchmark: ``back PATH``, ``bare PATH`` or ``memory COUNT``."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from pipelined.config import load
from pipelined.fetch.policy import UrlPolicy
from pipelined.kafka.history import History
from pipelined.kafka.settings import Names, consumer_settings
from pipelined.stages.contract import Partition
from pipelined.stages.dedup import Horizon
from pipelined.stages.failures import Envelope
from pipelined.stages.ingest import IngestStage
from pipelined.stats.slots import Child

_DAY_MS = 24 * 3_600_000
_BATCH = 5000


def back(path: str) -> dict[str, float]:
    """The ingester's own way, for all partitions."""
    config = load(Path(path), environ={}).config
    hours = config.ingest.dedup_horizon_hours
    stage = IngestStage(
        domain=config.domain,
        horizon_hours=hours,
        largest=config.kafka.max_message_bytes,
        policy=UrlPolicy(config.urls),
        envelope=Envelope("event-ingester", "bench", "bench"),
        history=History(config, hours, lambda: None),
        stats=Child(memoryview(bytearray(4096))),
    )
    began = time.monotonic()
    stage.assigned(Partition("raw", n) for n in range(config.topics.events_raw.partitions))
    return {"seconds": time.monotonic() - began}


def bare(path: str) -> dict[str, float]:
    """The client alone."""
    config = load(Path(path), environ={}).config
    began = time.monotonic()
    consumer = Consumer(consumer_settings(config, "bare", None) | {"fetch.wait.max.ms": 10})
    topic = Names(config).topic("events_ingested")
    reading = config.topics.events_ingested.partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in range(reading)])
    while reading:
        reading -= sum(message.error() is not None for message in consumer.consume(10_000, 0.1))
    return {"seconds": time.monotonic() - began}


def memory(count: int) -> dict[str, float]:
    """One memory of so many identities."""
    known = Horizon(24)
    by = bytes([1]) * _BATCH
    before, spent = _private_bytes(), 0.0
    for traces, arrivals in _batches(count, 0, count):
        began = time.process_time()
        known.admit(traces, arrivals, by)
        spent += time.process_time() - began
    held = (_private_bytes() - before) / count
    asked = []
    for _ in range(5):
        began = time.process_time()
        known.admit(traces, arrivals, by)
        asked.append(time.process_time() - began)
    longest = 0.0
    for more, later in _batches(count, count, count + count // 4):
        for trace, arrival in zip(more, later, strict=True):
            began = time.thread_time()
            known.add(trace, arrival, 1)
            longest = max(longest, time.thread_time() - began)
    return {
        "memory": held,
        "asked and added": spent / count * 1e6,
        "asked": min(asked) / _BATCH * 1e6,
        "longest pause": longest * 1e3,
    }


def _batches(count: int, start: int, end: int) -> Iterator[tuple[list[bytes], list[int]]]:
    """Random identities, ``count`` in 24 hours."""
    for first in range(start, end, _BATCH):
        noise = os.urandom(16 * _BATCH)
        arrivals = [1_767_622_951_480 + number * _DAY_MS // count for number in range(first, first + _BATCH)]
        yield [noise[at : at + 16] for at in range(0, len(noise), 16)], arrivals


def _private_bytes() -> int:
    """The unique set size of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


if __name__ == "__main__":
    gc.set_threshold(50_000, 20, 50)  # as in a worker
    kind, argument = sys.argv[1:]
    result = memory(int(argument)) if kind == "memory" else {"back": back, "bare": bare}[kind](argument)
    print(json.dumps(result))

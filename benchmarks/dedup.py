"""``deduplication``: reading the memory back, what an identity costs in it, and how long a look takes."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import Producer

from benchmarks.ground import Ground, run_bare
from benchmarks.report import Check, Figure, Result
from pipelined.config import load
from pipelined.kafka import topics
from pipelined.kafka.layout import Layout, write_layout
from pipelined.kafka.settings import Names

NAME = "deduplication"

_PARTITIONS = 6
_HOURS = 23
_METHOD = (
    "{count:,} events of 0.95 kB with random UUIDs, arrived over {hours} hours, lie on events.ingested, "
    "{partitions} partitions, LZ4, committed in transactions of 5,000. A process of its own "
    "(benchmarks/bare_dedup.py) reads all partitions back as the ingester does when they are assigned to it: "
    "topic to identities to memory. Beside it the bare loop, with the same client settings: consume, and "
    "nothing else. Then, without Kafka, new processes fill one memory with 1, 2 and 5 million identities "
    "over 24 hours of arrivals and go on for a quarter of that, so that old ones are forgotten: the bytes "
    "are private memory (USS) of the process before and after, by identity; the time is per identity of "
    "batches of 5,000, new ones (asked and added) and known ones (asked); the pause is the longest single "
    "call of add(), with the forgetting and the growing in it. All times of the memory are processor time."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    del folder
    count = 100_000 if quick else 1_000_000
    sizes = (100_000,) if quick else (1_000_000, 2_000_000, 5_000_000)
    path = _fill(ground, count)
    rates, bare_rates = [], []
    for _ in range(repetitions):
        rates.append(count / run_bare("bare_dedup", "back", path)["seconds"])
        bare_rates.append(count / run_bare("bare_dedup", "bare", path)["seconds"])
    back, loop = Figure("read back", "ids/s", rates), Figure("bare loop", "ids/s", bare_rates)
    figures, checks = [back, loop], [Check("read back", back.median, ">=", 300_000, "ids/s")]
    for size in sizes:
        runs = [run_bare("bare_dedup", "memory", size) for _ in range(repetitions)]
        for title, unit, target in (
            ("memory", "bytes/id", 100.0),
            ("asked and added", "µs/id", 1.0),
            ("asked", "µs/id", 1.0),
            ("longest pause", "ms", 50.0),
        ):
            figure = Figure(f"{title}, {size:,} ids", unit, [measured[title] for measured in runs])
            figures.append(figure)
            checks.append(Check(figure.name, figure.median, "<=", target, unit))
    return Result(
        NAME,
        "Deduplication",
        _METHOD.format(count=count, hours=_HOURS, partitions=_PARTITIONS),
        figures,
        checks,
    )


def _fill(ground: Ground, count: int) -> Path:
    """A configuration whose events.ingested holds so many events."""
    path = ground.config()
    text = path.read_text()
    path.write_text(text.replace("partitions = 4\n", f"partitions = {_PARTITIONS}\n"))
    config = load(path, environ={}).config
    topics.apply(config, topics.plan(config))
    topic = Names(config).topic("events_ingested")
    write_layout(config, Layout(_PARTITIONS, topic))
    producer = Producer(
        {
            "bootstrap.servers": config.kafka.bootstrap,
            "transactional.id": "fill",
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    producer.init_transactions(30)
    began = time.time() * 1000 - _HOURS * 3_600_000
    bodies = list(_bodies())
    for start in range(0, count, 5000):
        producer.begin_transaction()
        for number in range(start, start + 5000):
            key = str(uuid.uuid4()).encode()
            producer.produce(
                topic,
                bodies[number % len(bodies)],
                key,
                partition=number % _PARTITIONS,
                timestamp=int(began + number / count * _HOURS * 3_600_000),
                headers=[("trace_id", key), ("source", b"eventhouse")],
            )
        producer.commit_transaction(60)
    return path


def _bodies() -> Iterator[bytes]:
    """Events of 0.95 kB that compress as real ones do, about five to one."""
    some = random.Random(4)
    for _ in range(64):
        noise = some.randbytes(80).hex()
        body = {"type": "verisk.claims.property.xn.x", "version": 1, "note": noise, "data": {}}
        text = json.dumps(body)
        yield (text + " " * 20 + '"assignmentId":"05QK7ZD",' * 40)[:950].encode()

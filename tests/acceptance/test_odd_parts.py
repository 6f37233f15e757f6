"""Parts that are not as they should be: a table of another schema, a record nobody can read."""

from __future__ import annotations

import pyarrow as pa
from confluent_kafka import Consumer, Producer
from deltalake import write_deltalake

from flow import Flow
from waiting import until


def test_a_table_of_another_schema_stops_its_writer_alone_with_a_line_that_names_the_column(
    flow: Flow,
) -> None:
    table = flow.folder / "tables" / f"{flow.domain}_events"
    table.mkdir(parents=True)
    write_deltalake(table, pa.table({"trace_id": pa.array([1], pa.int64())}))
    flow.start(wait=False)
    status = flow.until_state("degraded", patience=30)
    states = {worker["type"]: worker["state"] for worker in status["workers"]}
    assert states.pop("event-writer") == "FATAL"
    assert set(states.values()) == {"RUNNING"}
    flow.until_logged("column trace_id is long; wanted: string")
    assert flow.ctl("status").returncode == 1

    day = flow.day(60, seed=21)
    flow.load(day.lines())
    results = day.summary.attachments
    flow.until_worker(
        "result-processor", lambda worker: worker["records_in"] >= results, "has taken all results"
    )


def dead_letters(flow: Flow, wanted: int) -> list[bytes]:
    """The unreadable values in ``downloads.dlq``, as soon as there are so many."""
    consumer = Consumer(
        {
            "bootstrap.servers": flow.config.kafka.bootstrap,
            "group.id": f"{flow.domain}.test",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    found: list[bytes] = []

    def read() -> bool:
        for message in consumer.consume(100, 0.5):
            value = message.value()
            if message.error() is None and value and not value.startswith(b"{"):
                found.append(value)
        return len(found) >= wanted

    try:
        consumer.subscribe([f"{flow.domain}.downloads.dlq"])
        until(read, f"{wanted} unreadable records are in downloads.dlq", 30)
        return found
    finally:
        consumer.close()


def test_a_record_nobody_can_read_is_a_dead_letter_with_its_bytes_and_the_workers_go_on(flow: Flow) -> None:
    streams = ("downloads.pending", "downloads.cached", "downloads.results")
    garbage = [b"\x00\xff{ not from " + stream.encode() + b" \xfe\x00" for stream in streams]
    producer = Producer({"bootstrap.servers": flow.config.kafka.bootstrap})
    for stream, value in zip(streams, garbage, strict=True):
        producer.produce(f"{flow.domain}.{stream}", value, b"key")
    assert producer.flush(20) == 0
    flow.start()
    flow.load(flow.day(40, seed=8).lines())
    balance = flow.settle()
    assert balance.completed > 0
    assert sorted(dead_letters(flow, 3)) == sorted(garbage)
    assert balance.dead_letters == balance.dead + balance.failed + 3
    assert all(worker["restarts"] == 0 for worker in flow.status()["workers"])

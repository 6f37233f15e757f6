"""The bare loop of the tables: events decoded with msgspec, as 28 columns, through ``write_deltalake``.

``python -m benchmarks.bare_table CONFIG TOPIC|- FOLDER COUNT BATCH``: with a topic the events are consumed
from Kafka, with ``-`` they lie in memory. The rate can be read from the table's log afterwards.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake

from benchmarks.events import Events
from benchmarks.ground import PARTITIONS
from pipelined.config import load
from pipelined.kafka.settings import consumer_settings
from pipelined.lake.schemas import EVENTS
from pipelined.stages.event_shape import EventBody

_TIME = pa.timestamp("us", "UTC")
_SLICE = 500  # so few that what is decoded is still in the processor's cache when it is read


def table(values: Sequence[bytes]) -> pa.Table:
    """The rows of all ``values``."""
    slices = [_rows(values[start : start + _SLICE]) for start in range(0, len(values), _SLICE)]
    return pa.concat_tables(slices).combine_chunks()


def _rows(values: Sequence[bytes]) -> pa.Table:
    """The rows of events that are all of the usual shape: nothing is checked but what decoding checks."""
    decode = msgspec.json.Decoder(EventBody).decode
    events: list[Any] = [decode(value) for value in values]
    datas = [event.data for event in events]
    contacts = [data.contact for data in datas]
    phones = [contact.contact_methods.phone for contact in contacts]
    times = pa.array([dt.datetime.fromisoformat(event.utc_date_time) for event in events], _TIME)
    now = pa.repeat(pa.scalar(time.time_ns() // 1000, _TIME), len(events))
    columns = {
        "type": [event.type for event in events],
        "status_subtype": [event.type.rpartition(".")[2] for event in events],
        "version": [str(event.version) for event in events],
        "ingested_at": now,
        "event_time": times,
        "event_date": times.cast(pa.date32()),
        "trace_id": [event.trace_id for event in events],
        "event_datetime_mdt": [data.date_time for data in datas],
        "claim_number": [data.adm.coverage_loss.claim_number for data in datas],
        "contact_type": [contact.type for contact in contacts],
        "contact_name": [contact.name for contact in contacts],
        "contact_phone_type": [phone.type for phone in phones],
        "contact_phone_number": [phone.number for phone in phones],
        "contact_phone_extension": [phone.extension for phone in phones],
        "contact_email_address": [contact.contact_methods.email.address for contact in contacts],
        "raw_json": [value.decode() for value in values],
        "source": ["local"] * len(values),
        "created_at": now,
    }
    arrays = []
    for field in EVENTS.schema:
        column = columns.get(field.name)
        if column is None:
            column = [getattr(data, field.name) for data in datas]
        arrays.append(column if isinstance(column, pa.Array) else pa.array(column, field.type))
    return pa.Table.from_arrays(arrays, schema=EVENTS.schema)


def write(batches: Iterator[list[bytes]], folder: str) -> None:
    """One commit for each batch."""
    place = DeltaTable.create(folder, EVENTS.schema, partition_by=list(EVENTS.partition_by))
    properties = WriterProperties(compression="ZSTD", compression_level=1)
    done = 0
    for values in batches:
        done += len(values)
        write_deltalake(
            place,
            table(values),
            mode="append",
            writer_properties=properties,
            commit_properties=CommitProperties(app_transactions=[Transaction("bare", done)]),
        )


def consumed(path: str, topic: str, count: int, batch: int) -> Iterator[list[bytes]]:
    """Batches of the events of a topic."""
    config = load(Path(path), environ={}).config
    consumer = Consumer(consumer_settings(config, "bare", None) | {"enable.partition.eof": False})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    done = 0
    while done < count:
        values = [message.value() or b"" for message in consumer.consume(batch, 1.0)]
        done += len(values)
        if values:
            yield values
    consumer.close()


def in_memory(count: int, batch: int) -> Iterator[list[bytes]]:
    """Batches of the same events, made beforehand."""
    values = [value for _, value in Events("http://127.0.0.1:1").range(count)]
    for start in range(0, count, batch):
        yield values[start : start + batch]


if __name__ == "__main__":
    path, topic, folder, count, batch = sys.argv[1:]
    found = (
        in_memory(int(count), int(batch)) if topic == "-" else consumed(path, topic, int(count), int(batch))
    )
    write(found, folder)
    sys.stdout.write("{}\n")

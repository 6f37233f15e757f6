"""Bare loops on Kafka: consume, decode, produce the same bytes, in transactions. One process.

``python -m benchmarks.bare_hop CONFIG FROM TO COUNT BATCH`` prints, at the end, the time, the count and the
processor time at each commit. COUNT 0: go on until killed; a small BATCH then gives the least latency.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.ground import PARTITIONS
from pipelined.config import load
from pipelined.kafka.settings import consumer_settings, producer_settings
from pipelined.stages.event_shape import EventBody


def hop(path: str, source: str, target: str, count: int, batch: int) -> list[tuple[float, int, float]]:
    """Move ``count`` events; returns (time, events so far, CPU seconds so far) at each commit."""
    config = load(Path(path), environ={}).config
    name = f"bare.{source}.{target}"
    consumer = Consumer(consumer_settings(config, name, None) | {"enable.partition.eof": False})
    producer = Producer(producer_settings(config, name))
    decode = msgspec.json.Decoder(EventBody).decode
    producer.init_transactions(30)
    consumer.assign([TopicPartition(source, number, 0) for number in range(PARTITIONS)])
    if not count:
        committed = consumer.committed([TopicPartition(source, number) for number in range(PARTITIONS)], 30)
        consumer.assign([TopicPartition(p.topic, p.partition, max(p.offset, 0)) for p in committed])
        sys.stdout.write("ready\n")
    commits = []
    done = 0
    produce = producer.produce
    while not count or done < count:
        if count:
            messages = consumer.consume(batch, 1.0)
        else:  # consume() alone would wait for the whole batch
            messages = consumer.consume(1, 1.0)
            messages += consumer.consume(batch, 0) if messages else []
        if not messages:
            continue
        producer.begin_transaction()
        last: dict[int, int] = {}
        message: Any
        for message in messages:
            value = message.value()
            decode(value)
            produce(target, value, message.key())
            last[message.partition()] = message.offset()
        offsets = [TopicPartition(source, number, offset + 1) for number, offset in last.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        producer.commit_transaction(30)
        if count:
            done += len(messages)
            commits.append((time.monotonic(), done, time.process_time()))
    consumer.close()
    return commits


if __name__ == "__main__":
    arguments = sys.argv
    made = hop(arguments[1], arguments[2], arguments[3], int(arguments[4]), int(arguments[5]))
    sys.stdout.write(json.dumps({"commits": made}) + "\n")

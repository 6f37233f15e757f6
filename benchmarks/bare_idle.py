"""A bare process with one consumer and one transactional producer that has nothing to do.

``python -m benchmarks.bare_idle CONFIG``
"""

from __future__ import annotations

import sys
from pathlib import Path

from confluent_kafka import Consumer, Producer

from pipelined.config import load
from pipelined.kafka.settings import Names, consumer_settings, producer_settings

if __name__ == "__main__":
    config = load(Path(sys.argv[1]), environ={}).config
    producer = Producer(producer_settings(config, "bare.idle"))
    producer.init_transactions(30)
    settings = consumer_settings(config, "bare.idle", "bare.idle") | {"auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.subscribe([Names(config).topic("events_raw")])
    sys.stdout.write("ready\n")
    while True:
        consumer.consume(1, 0.2)

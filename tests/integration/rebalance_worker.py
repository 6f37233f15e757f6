"""One worker of a rebalance test, in a process of its own: run as a script, never imported.

It copies each record after a random time, so that much is in hand, in any order, whenever partitions move.
"""

from __future__ import annotations

import heapq
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from kafka_tools import small
from pipelined.crashpoints import enter
from pipelined.kafka.settings import Names
from pipelined.stages.contract import Done, Outcome, Output, Partition, Record, Stream
from pipelined.stages.failures import Envelope
from pipelined.workers.routing import Router
from pipelined.workers.runtime import Runtime
from records import slot


class Slow:
    """Copies each record to downloads.cached, with its input partition as a header, 0 to 30 ms later.

    One in a hundred takes a second.
    """

    name = "download"
    waits = True

    def __init__(self) -> None:
        self._random = random.Random(os.getpid())
        self._heap: list[tuple[float, int, Record]] = []
        self._count = 0

    @property
    def in_flight(self) -> int:
        return len(self._heap)

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """Nothing to prepare."""

    def forget(self, partitions: Iterable[Partition]) -> None:
        gone = set(partitions)
        self._heap = [entry for entry in self._heap if entry[2].partition not in gone]
        heapq.heapify(self._heap)

    def submit(self, records: Sequence[Record]) -> None:
        now = time.monotonic()
        for record in records:
            self._count += 1
            late = 1.0 if self._random.random() < 0.01 else self._random.uniform(0, 0.03)
            heapq.heappush(self._heap, (now + late, self._count, record))

    def poll(self, timeout: float) -> list[Outcome]:
        if self._heap and timeout > 0:
            time.sleep(max(0.0, min(timeout, self._heap[0][0] - time.monotonic())))
        done: list[Outcome] = []
        while self._heap and self._heap[0][0] <= time.monotonic():
            record = heapq.heappop(self._heap)[2]
            where: list[tuple[str, str | bytes | None]] = [("from", b"%d" % record.partition.number)]
            done.append(Done(record, (Output(Stream.CACHED, record.key, record.value, where),)))
        return done

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """Nothing was kept for them."""

    def give_up(self, records: Sequence[Record]) -> None:
        """Nothing takes so long."""

    def drain(self) -> None:
        """What is in hand is done in a second."""

    def close(self) -> None:
        """Nothing is held."""


def main() -> None:
    """Work until told to stop."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    enter("download")
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    config = small(order["bootstrap"], order["domain"], 6, session_timeout_s=order["session_timeout_s"])
    stats = slot()
    stats.begin(os.getpid())
    Runtime(
        config,
        index=order["index"],
        stage=Slow(),
        router=Router(config, Envelope("download", Names(config).group("download"), "h1"), Stream.DLQ),
        streams=[Stream.PENDING],
        stats=stats,
        should_stop=lambda: stopping,
    ).run()


if __name__ == "__main__":
    main()

"""The runtime of a source with pages that lie in memory, in a process; and the bare loop beside it.

``python -m benchmarks.paged_source CONFIG MODE COUNT ROWS``. ``runtime`` and ``bare`` bring COUNT events in
pages and transactions of ROWS, and print the time, the count and the processor seconds at each commit.
``idle`` has nothing to bring: COUNT is the seconds it lasts, ROWS the milliseconds between two polls; it
prints the polls and the processor seconds of that time.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from benchmarks.events import Events
from pipelined.config import Config, load
from pipelined.kafka.lag import Lags
from pipelined.kafka.settings import Names, producer_settings
from pipelined.kafka.transactions import Transactor
from pipelined.sources.contract import Facts, Page, Probe
from pipelined.stages.contract import Output, Stream
from pipelined.stats.slots import Child
from pipelined.workers.pressure import Pressure
from pipelined.workers.source import SourceRuntime

_DISTINCT = 10

Commit = tuple[float, int, float]


def pages(rows: int) -> list[list[Output]]:
    """Some pages of different events, to be sent over and over."""
    events = list(Events("http://127.0.0.1:1").range(_DISTINCT * rows))
    return [
        [
            Output(Stream.RAW, key, value, [("source", b"eventhouse"), ("trace_id", key)])
            for key, value in events[start : start + rows]
        ]
        for start in range(0, len(events), rows)
    ]


class Paged:
    """A source of ``count`` events in pages; notes when each was committed."""

    name = "eventhouse"
    key = "eventhouse:bench"

    def __init__(self, made: list[list[Output]], count: int, pause_s: float) -> None:
        self.pause_s = pause_s
        self.commits: list[Commit] = []
        self._pages = itertools.cycle(made)
        self._count = count
        self._given = self._done = 0
        #: Moment and processor seconds at each fetch that found nothing.
        self.empty: list[tuple[float, float]] = []

    def resume(self, position: bytes | None) -> None:
        self._given = int(position or 0)

    def fetch(self, timeout: float) -> Page | None:
        del timeout
        if self._given >= self._count:
            self.empty.append((time.monotonic(), time.process_time()))
            return None
        outputs = next(self._pages)
        self._given += len(outputs)
        return Page(outputs, b"%d" % self._given, time.time(), self._given < self._count)

    def committed(self, page: Page) -> None:
        self._done += len(page.outputs)
        self.commits.append((time.monotonic(), self._done, time.process_time()))

    @property
    def finished(self) -> bool:
        return self._done >= self._count

    def probe(self) -> Probe:
        return Probe(waiting=False, now=None)

    def facts(self) -> Facts:
        return Facts()

    def close(self) -> None:
        """Nothing is held."""


def turn(config: Config, source: Paged, over: Callable[[], bool]) -> None:
    """Run the source until it is over."""
    stats = Child(memoryview(bytearray(4096)))
    stats.begin(os.getpid())
    lags = Lags(config, config.sources.pause_stages)
    SourceRuntime(
        config,
        source=source,
        transactor=Transactor(config, "bench.source", stats.beat),
        pressure=Pressure(config.sources, lags.ask),
        stats=stats,
        should_stop=over,
    ).run()


def bare(config: Config, made: list[list[Output]], count: int) -> list[Commit]:
    """The same messages, in transactions of the same size, and nothing else."""
    producer = Producer(producer_settings(config, "bench.bare"))
    producer.init_transactions(30)
    raw, checkpoints = (Names(config).topic(stream) for stream in (Stream.RAW, "checkpoints"))
    commits: list[Commit] = []
    done = 0
    produce = producer.produce
    for outputs in itertools.cycle(made):
        producer.begin_transaction()
        for output in outputs:
            produce(raw, output.value, output.key, headers=output.headers)
        produce(checkpoints, b"%d" % done, b"bare")
        producer.commit_transaction(30)
        done += len(outputs)
        commits.append((time.monotonic(), done, time.process_time()))
        if done >= count:
            return commits
    return commits


def idle(config: Config, seconds: float, pause_s: float) -> dict[str, float]:
    """Polls that bring nothing, and the processor seconds of that time."""
    source = Paged([], 0, pause_s)
    empty = source.empty
    turn(config, source, lambda: bool(empty) and empty[-1][0] - empty[0][0] >= seconds)
    (began, used), (ended, used_at_end) = empty[0], empty[-1]
    return {"polls": len(empty) - 1, "cpu": used_at_end - used, "seconds": ended - began}


def main(path: str, mode: str, count: int, rows: int) -> dict[str, Any]:
    """Do what the command line says; what it came to."""
    config = load(Path(path), environ={}).config
    if mode == "idle":
        return idle(config, count, rows / 1000)
    made = pages(rows)
    if mode == "bare":
        return {"commits": bare(config, made, count)}
    source = Paged(made, count, 0.01)
    turn(config, source, lambda: source.finished)
    return {"commits": source.commits}


if __name__ == "__main__":
    found = main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the thread of the source is of no interest any more

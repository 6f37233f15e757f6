"""``table-growth``: what a commit to a table costs that is old, or large, beside one that is neither."""

from __future__ import annotations

import datetime as dt
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from benchmarks.ground import Ground
from benchmarks.machine import durable_folder
from benchmarks.report import Check, Figure, Result
from pipelined.config import Config
from pipelined.config.work import Tables
from pipelined.lake import log
from pipelined.lake.maintenance import Maintenance
from pipelined.lake.schemas import EVENTS
from pipelined.lake.sink import Chunk, DeltaSink
from pipelined.lake.tables import sink, source

NAME = "table-growth"

_METHOD = (
    "Commits of {batch:,} rows of 0.5 kB through the sink, default settings, files and log synced to disk, "
    "in one process without Kafka. What the worker table-maintenance does every {tend} s is done every "
    "{tend} commits, which take as long at one commit a second; its time is a figure of its own. It keeps "
    "no part of the log for its age, as commits come faster here. Commit 10: commits 6 to 15 of new tables. "
    "Commit {commits:,}: the last {window} commits of one table. {large:,} rows: a table filled by commits "
    "of 200,000 over 30 days, and one of {batch:,} rows and the same number of commits. In turns of {turn} "
    "commits, so that whatever else the machine does meets both. Processor time is that of all threads. "
    "Ratios are of the medians. Tables on {disk}."
)
_BATCH = 1_000
_TURN = 10
_TEND = 30
_DAY = dt.date(2026, 1, 5)
_BULK = 200_000


class _Cost(NamedTuple):
    """What commits took, in milliseconds: by the clock, and of the processor."""

    clock: list[float]
    processor: list[float]


class _Table:
    """One table and its sink, fed with rows that nobody else has."""

    def __init__(self, folder: Path) -> None:
        self._config = Config(tables=Tables(url=folder.as_uri()))
        self._sink: DeltaSink = sink(self._config, EVENTS, app="benchmark")
        self._sink.open()
        self._next = 0
        self.commits = 0

    def commit(self, count: int, day: dt.date = _DAY, cost: _Cost | None = None) -> None:
        """Store so many rows; what it cost is added to ``cost``."""
        offsets = range(self._next, self._next + count)
        self._next += count
        chunk = Chunk(("benchmark", 0), self._next, _rows(offsets, day), offsets)
        clock, processor = time.perf_counter(), time.process_time()
        self._sink.commit([chunk])
        if cost is not None:
            cost.clock.append((time.perf_counter() - clock) * 1000)
            cost.processor.append((time.process_time() - processor) * 1000)
        self.commits += 1

    def tend(self) -> float:
        """What the worker table-maintenance does once a minute; returns the seconds."""
        began = time.perf_counter()
        Maintenance(source(self._config, EVENTS), self._config.tables).tend()
        return time.perf_counter() - began


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    del ground, repetitions  # no Kafka in it; a table grows once
    commits, window, large = (600, 120, 1_000_000) if quick else (5_000, 240, 10_000_000)
    log._READING_S = 0  # see the method
    with durable_folder(folder) as (place, disk):
        old, young, tending = _by_age(place / "age", commits, window)
        many, few = _by_rows(place / "rows", large, window // 2)
    costs = {
        "around commit 10": young,
        f"around commit {commits:,}": old,
        f"with {_BATCH:,} rows": few,
        f"with {large:,} rows": many,
    }
    figures = [Figure(f"{name}, clock", "ms", cost.clock) for name, cost in costs.items()]
    figures += [Figure(f"{name}, processor", "ms", cost.processor) for name, cost in costs.items()]
    figures.append(Figure("one look of the maintenance, clock", "ms", tending))
    checks = []
    for name, these, those in (
        (f"commit {commits:,} / commit 10", old, young),
        (f"{large:,} rows / {_BATCH:,} rows", many, few),
    ):
        checks.append(Check(f"{name}, clock", _ratio(these.clock, those.clock), "<=", 1.2))
        checks.append(Check(f"{name}, processor", _ratio(these.processor, those.processor), "<=", 1.2))
    method = _METHOD.format(
        batch=_BATCH, tend=_TEND, commits=commits, window=window, large=large, turn=_TURN, disk=disk
    )
    return Result(NAME, "What a commit costs in an old and in a large table", method, figures, checks)


def _by_age(folder: Path, commits: int, window: int) -> tuple[_Cost, _Cost, list[float]]:
    """A commit around the last of ``commits``, one around commit 10, and the time of one look."""
    table = _Table(folder / "old")
    old, young = _Cost([], []), _Cost([], [])
    tending: list[float] = []
    while table.commits < commits:
        measured = table.commits >= commits - window
        table.commit(_BATCH, cost=old if measured else None)
        if table.commits % _TEND == 0:
            tending.append(table.tend() * 1000)
        if measured and table.commits % _TURN == 0:
            fresh = _Table(folder / f"young{table.commits}")
            for number in range(15):
                fresh.commit(_BATCH, cost=young if number >= 5 else None)
    return old, young, tending


def _by_rows(folder: Path, large: int, window: int) -> tuple[_Cost, _Cost]:
    """A commit to a table of ``large`` rows, and to one of a thousand that is as old."""
    tables = _Table(folder / "many"), _Table(folder / "few")
    costs = _Cost([], []), _Cost([], [])
    bulks = large // _BULK
    for number in range(bulks):
        day = _DAY - dt.timedelta(days=number % 30)
        tables[0].commit(_BULK, day)
        tables[1].commit(_BATCH // bulks, day)
    for turn in range(window // _TURN):
        for which in (0, 1) if turn % 2 else (1, 0):
            for _ in range(_TURN):
                tables[which].commit(_BATCH, cost=costs[which])
    return costs


def _rows(offsets: range, day: dt.date) -> pa.Table:
    count = len(offsets)
    values = {
        "trace_id": pa.array([f"{offset:032x}" for offset in offsets]),
        "raw_json": pa.array([f'{{"note":"{offset * 7919:0450d}"}}' for offset in offsets]),
        "event_date": pa.repeat(pa.scalar(day), count),
    }
    columns = [values.get(field.name, pa.nulls(count, field.type)) for field in EVENTS.schema]
    return pa.table(columns, schema=EVENTS.schema)


def _ratio(these: list[float], those: list[float]) -> float:
    return round(statistics.median(these) / statistics.median(those), 3)

"""What the tests of the sink share: sinks, rows, another reader, and faults to order."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from pipelined.config.work import Tables
from pipelined.lake import sink as sink_module
from pipelined.lake.schemas import EVENTS, TableSpec
from pipelined.lake.sink import Chunk, DeltaSink

P0, P1 = ("xact.events.ingested", 0), ("xact.events.ingested", 1)
DAY = dt.date(2026, 1, 5)
SETTINGS = Tables()


class Observed:
    """An observer that keeps the results it is told."""

    def __init__(self) -> None:
        self.results: list[str] = []

    def commit(self, result: str, rows: int, seconds: float) -> None:
        assert rows >= 0
        assert seconds >= 0
        self.results.append(result)


def make(
    folder: Path,
    spec: TableSpec = EVENTS,
    *,
    app: str = "writer",
    observer: Observed | None = None,
    **settings: Any,
) -> DeltaSink:
    return DeltaSink(
        (folder / "t").as_uri(),
        spec.schema,
        app=app,
        settings=dataclasses.replace(SETTINGS, **settings),
        merge_keys=spec.merge_keys,
        statistics=spec.statistics,
        observer=observer,
    )


def opened(folder: Path, spec: TableSpec = EVENTS, **options: Any) -> DeltaSink:
    sink = make(folder, spec, **options)
    sink.open()
    return sink


def chunk(
    offsets: Iterable[int],
    partition: tuple[str, int] = P0,
    *,
    spec: TableSpec = EVENTS,
    next_offset: int | None = None,
    ids: Callable[[int], str] = "{}".format,
    day: dt.date | Callable[[int], dt.date] = DAY,
    **columns: Any,
) -> Chunk:
    """Rows of the offsets; ``trace_id`` names partition and offset unless ``ids`` says otherwise."""
    numbers = list(offsets)
    count = len(numbers)
    values: dict[str, list[Any]] = {name: [value] * count for name, value in columns.items()}
    values["event_date"] = [day(n) if callable(day) else day for n in numbers]
    values["trace_id"] = [f"{partition[1]}:{ids(n)}" for n in numbers]
    if "attachment_id" in spec.schema.names:
        values["attachment_id"] = values["trace_id"]
    rows = pa.table(
        [pa.array(values.get(field.name, [None] * count), field.type) for field in spec.schema],
        schema=spec.schema,
    )
    return Chunk(partition, numbers[-1] + 1 if next_offset is None else next_offset, rows, numbers)


def read(folder: Path, *columns: str) -> list[tuple[Any, ...]]:
    """The table as another reader sees it, sorted."""
    scan = DeltaTable(str(folder / "t")).scan(columns=list(columns))
    rows = pa.RecordBatchReader.from_stream(scan).read_all().to_pylist()
    return sorted(tuple(row[name] for name in columns) for row in rows)


def ids(folder: Path) -> list[str]:
    return [trace for (trace,) in read(folder, "trace_id")]


def names(partition: int, offsets: Iterable[int]) -> list[str]:
    return sorted(f"{partition}:{n}" for n in offsets)


class Fault:
    """A write function that does as told, in order: before or after the real write, or not at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *plan: tuple[str, BaseException]) -> None:
        self.plan = list(plan)
        self.calls = 0
        monkeypatch.setattr(sink_module, "write_deltalake", self)
        monkeypatch.setattr(sink_module, "_back_off", lambda *_args: None)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self.calls += 1
        when, error = self.plan.pop(0) if self.plan else ("never", None)
        if when == "before":
            assert error is not None
            raise error
        write_deltalake(*args, **kwargs)
        if when == "after":
            assert error is not None
            raise error


class Panic(BaseException):
    """As the table layer's panics: no Exception."""

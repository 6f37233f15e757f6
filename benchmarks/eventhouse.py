"""``eventhouse``: rows a second from a table, beside Microsoft's client alone; an empty poll; memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.events import Events
from benchmarks.ground import Ground, run_bare
from benchmarks.report import Check, Figure, Result
from pipelined.local.eventhouse import Eventhouse

NAME = "eventhouse"

_TABLE = "Events"
_COLUMNS = "type:string, version:long, utcDateTime:datetime, traceId:guid, data:dynamic"
_ROWS = 5000
_MOST_ROWS = 50_000
_METHOD = (
    "{count:,} rows of 0.95 kB lie in a table of the local Eventhouse, each {batch:,} of one ingestion time. "
    "`sources.eventhouse.EventhouseSource` reads them in pages of {rows:,}, called as the runtime calls it: "
    "the page before is kept while the next is fetched. Nothing is produced. Beside it the unmodified "
    "azure-kusto-data client (synchronous, raw rows) sends the same queries for pages of the same size, and "
    "does nothing with the rows. Each in a process of its own, in turns; rates over all of it, of which "
    "most is the engine's time, processor time of the reading process alone. Then {polls} polls that find "
    "nothing, each one query. Memory: how much the resident set of the reading process grew at most from "
    "before its first query, with page_rows {rows:,} and with the largest allowed, {most:,}."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure; Kafka has no part in it."""
    del ground
    count, polls = (20_000, 50) if quick else (100_000, 300)
    with Eventhouse(folder / "eventhouse") as house:
        house.command(f".create table {_TABLE} ({_COLUMNS})")
        events = Events("http://127.0.0.1:1")
        for rows in _batches(events, count):
            house.ingest(_TABLE, rows)

        def measured(mode: str, rows: int, much: int) -> dict[str, Any]:
            return run_bare("paged_eventhouse", mode, house.url, _TABLE, rows, much)

        found: dict[str, list[dict[str, Any]]] = {"source": [], "bare": [], "idle": [], "most": []}
        for _ in range(repetitions):
            found["source"].append(measured("source", _ROWS, count))
            found["bare"].append(measured("bare", _ROWS, count))
            found["idle"].append(measured("idle", _ROWS, polls))
            found["most"].append(measured("source", _MOST_ROWS, count))
    rate = Figure("source", "rows/s", [each["rows"] / each["seconds"] for each in found["source"]])
    bare = Figure("client alone", "rows/s", [each["rows"] / each["seconds"] for each in found["bare"]])
    poll = Figure("one empty poll, CPU", "ms", [each["cpu"] / each["polls"] * 1e3 for each in found["idle"]])
    memory = Figure(
        f"memory grown, page_rows {_MOST_ROWS:,}", "MB", [each["grown_kb"] / 1024 for each in found["most"]]
    )
    return Result(
        NAME,
        "Rows of an Eventhouse",
        _METHOD.format(count=count, batch=_ROWS // 2, rows=_ROWS, polls=polls, most=_MOST_ROWS),
        [
            rate,
            bare,
            Figure("source, CPU", "µs/row", [each["cpu"] / each["rows"] * 1e6 for each in found["source"]]),
            Figure("client alone, CPU", "µs/row", [e["cpu"] / e["rows"] * 1e6 for e in found["bare"]]),
            poll,
            Figure(
                f"memory grown, page_rows {_ROWS:,}", "MB", [e["grown_kb"] / 1024 for e in found["source"]]
            ),
            memory,
        ],
        [
            Check("source / client alone", rate.median / bare.median, ">=", 0.7),
            Check("source", rate.median, ">=", 20_000, "rows/s"),
            Check("one empty poll, CPU", poll.median, "<=", 2.0, "ms"),
            Check("memory grown at the largest page", memory.median, "<=", 60, "MB"),
        ],
    )


def _batches(events: Events, count: int) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for _, value in events.range(count):
        rows.append(json.loads(value))
        if len(rows) == _ROWS // 2:
            yield rows
            rows = []
    if rows:
        yield rows

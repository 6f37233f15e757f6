"""``event-writer``: events a second from Kafka into the Delta table, beside bare decoding and writing."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.events import Events
from benchmarks.ground import Daemon, Ground, Message, run_bare, wait_for
from benchmarks.report import Check, Figure, Result

NAME = "event-writer"

_BATCH = 20_000
_METHOD = (
    "{count:,} events of 0.95 kB lie on events.ingested, 4 partitions, LZ4. The worker is `pipelined run "
    "--worker event-writer`, one process, default settings (a commit for {batch:,} rows, ZSTD 1, every "
    "file and the log synced to disk). The bare loop has the same events in memory, decodes them whole "
    "with msgspec, makes the 28 columns and calls write_deltalake with an app transaction for {batch:,} "
    "rows; the second bare loop consumes them from Kafka besides. Neither syncs, tolerates another shape, "
    "or keeps offsets. All rates are between the first and the last commit, by the times of the log's "
    "files. Tables on {disk}. In turns."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    count = 100_000 if quick else 300_000
    topic = ground.fill("events_ingested", _messages(count))
    rates: list[float] = []
    bare_rates: list[float] = []
    fed_rates: list[float] = []
    for turn in range(repetitions):
        rates.append(_worker(ground, topic, count))
        for name, source, found in (("memory", "-", bare_rates), ("kafka", topic, fed_rates)):
            place = folder / f"{name}{turn}"
            run_bare("bare_table", ground.config(), source, place, count, _BATCH)
            found.append(_rate(place))
    worker = Figure("event-writer", "events/s", rates)
    loop = Figure("bare loop, from memory", "events/s", bare_rates)
    return Result(
        NAME,
        "Events written to the table",
        _METHOD.format(count=count, batch=_BATCH, disk=folder),
        [worker, loop, Figure("bare loop, from Kafka", "events/s", fed_rates)],
        [Check("event-writer / bare loop from memory", worker.median / loop.median, ">=", 0.6)],
    )


def _messages(count: int) -> list[Message]:
    events = Events("http://127.0.0.1:1")
    return [(key, value, [("trace_id", key), ("source", b"local")]) for key, value in events.range(count)]


def _worker(ground: Ground, topic: str, count: int) -> float:
    path = ground.config(inputs={"events_ingested": topic})
    with Daemon(path, NAME) as daemon:
        place = path.parent / "tables" / f"{daemon.config.domain}_events"
        wait_for(lambda: sum(rows for _, rows in _commits(place)) >= count, "the rows", 120, every=0.1)
    return _rate(place)


def _rate(table: Path) -> float:
    """Rows a second between the first and the last commit of a table."""
    commits = _commits(table)
    return sum(rows for _, rows in commits[1:]) / (commits[-1][0] - commits[0][0])


def _commits(table: Path) -> list[tuple[float, int]]:
    """The time and the rows of each commit that added some."""
    found = []
    for path in sorted((table / "_delta_log").glob("*.json")):
        text = path.read_text()
        rows = sum(
            json.loads(json.loads(line)["add"]["stats"])["numRecords"]
            for line in text.splitlines()
            if line.startswith('{"add"')
        )
        if rows:
            found.append((path.stat().st_mtime, rows))
    return found

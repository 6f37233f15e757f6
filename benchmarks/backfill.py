"""``backfill``: a range of the Eventhouse's table beside a live poll, and what live events notice of it."""

from __future__ import annotations

import datetime as dt
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.events import FILE_BYTES, Events
from benchmarks.fileserver import serving
from benchmarks.ground import Daemon, Ground, wait_for
from benchmarks.latency import arrivals, committed_rows
from benchmarks.report import Check, Figure, Result
from pipelined.kafka.settings import Names
from pipelined.local.eventhouse import Eventhouse

NAME = "backfill"

_ROWS = 700_000
_QUICK_ROWS = 20_000
_TABLE = "Events"
_COLUMNS = "type:string, version:long, utcDateTime:datetime, traceId:string, data:dynamic"
_POLL_S = 0.5
_LIVE_BATCH, _LIVE_EVERY_S = 10, 0.2
_DAY = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
_RANGE = ("--from", "2026-01-05", "--to", "2026-01-06")
_INGEST_ROWS = 5000
_ROOT = Path(__file__).parents[1]
_METHOD = (
    "The whole daemon with the eventhouse-poller (poll_seconds {poll:g}), default settings, against the "
    "local Eventhouse, whose table holds {rows:,} rows of 0.95 kB of an earlier day, every {every}th with "
    "one file. Live: {batch} rows every {pause:g} s come into that table. An event's latency is from just "
    "before its row is handed to the Eventhouse to its message on events.raw, to that on events.ingested (a "
    "read_committed reader notes both), and to the commit that holds its row in xact_events (time of the "
    "log's file). First {alone:g} s of live rows alone, then `pipelinectl backfill` beside them, until it "
    "has ended; rows a second are those of the whole command, its start included. Then the same command with "
    "--restart: every row is known from the table. All of it, and the Eventhouse's engine, on the same cores."
)
_EVERY = 50


class Live(threading.Thread):
    """Live rows at an even pace; ``sent`` has the moment of each trace id, on the monotonic clock."""

    def __init__(self, eventhouse: Eventhouse, events: Events) -> None:
        super().__init__(daemon=True)
        self.sent: dict[bytes, float] = {}
        self._eventhouse = eventhouse
        self._events = events
        self._over = threading.Event()

    def run(self) -> None:
        """Ingest until it is stopped."""
        number, due = 0, time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += _LIVE_EVERY_S
            numbers = range(number, number + _LIVE_BATCH)
            number += _LIVE_BATCH
            rows = [json.loads(self._events.value(each)) for each in numbers]
            now = time.monotonic()
            self.sent |= {self._events.key(each): now for each in numbers}
            self._eventhouse.ingest(_TABLE, rows)

    def stop(self) -> None:
        """End it."""
        self._over.set()
        self.join()


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    rows, alone_s = (_QUICK_ROWS, 5.0) if quick else (_ROWS, 30.0)
    figures: dict[str, list[float]] = {}
    for turn in range(repetitions):
        with serving(FILE_BYTES) as files_url, Eventhouse(folder / f"eventhouse{turn}") as eventhouse:
            _fill(eventhouse, Events(files_url, every=_EVERY, files=1, series=300 + turn), rows)
            for name, value in _turn(ground, files_url, eventhouse, rows, alone_s, turn).items():
                figures.setdefault(name, []).append(value)
    found = [Figure(name, "rows/s" if "rows" in name else "ms", samples) for name, samples in figures.items()]
    median = {figure.name: figure.median for figure in found}
    return Result(
        NAME,
        "Back-fill",
        _METHOD.format(
            poll=_POLL_S, rows=rows, every=_EVERY, batch=_LIVE_BATCH, pause=_LIVE_EVERY_S, alone=alone_s
        ),
        found,
        [
            Check(
                f"live event to {where}, {cut}: beside the back-fill / alone",
                median[f"to {where} beside it, {cut}"] / median[f"to {where} alone, {cut}"],
                "<=",
                2.0,
            )
            for where in ("events.ingested", "xact_events")
            for cut in ("p50", "p99")
        ],
    )


def _fill(eventhouse: Eventhouse, events: Events, rows: int) -> None:
    """Rows of an earlier day, in batches, each with its ingestion time."""
    eventhouse.command(f".create table {_TABLE} ({_COLUMNS})")
    step = 86_000 / rows
    for start in range(0, rows, _INGEST_ROWS):
        at = _DAY + dt.timedelta(seconds=start * step)
        batch = []
        for number in range(start, min(rows, start + _INGEST_ROWS)):
            moment = _DAY + dt.timedelta(seconds=number * step)
            batch.append(json.loads(events.value(number)) | {"utcDateTime": moment.isoformat()})
        eventhouse.ingest(_TABLE, batch, ingested=round(at.timestamp()) * 10**9)


def _turn(
    ground: Ground, files_url: str, eventhouse: Eventhouse, rows: int, alone_s: float, turn: int
) -> dict[str, float]:
    """The figures of one back-fill."""
    more = (
        f'[eventhouse]\nurl = "{eventhouse.url}"\ndatabase = "{eventhouse.database}"\ntable = "{_TABLE}"\n'
        f'start = "now"\npoll_seconds = {_POLL_S}\n[eventhouse.auth]\nmethod = "none"\n'
        "[workers.eventhouse_poller]\nprocesses = 1\n"
    )
    # Every commit's log is read in the end: when which row was committed.
    path = ground.config(files_url=files_url, tables="log_commits = 0\n", more=more)
    live = Live(eventhouse, Events(files_url, every=1 << 40, series=600 + turn))
    with Daemon(path) as daemon:
        daemon.ready()
        names = Names(daemon.config)
        table = path.parent / "tables" / f"{daemon.config.domain}_events"
        with (
            arrivals(daemon.config, names.topic("events_raw")) as raw,
            arrivals(daemon.config, names.topic("events_ingested")) as ingested,
        ):
            live.start()
            wait_for(lambda: bool(ingested), "the live poll")
            began = time.monotonic()
            time.sleep(alone_s)
            begun = time.monotonic()
            seconds = _backfill(path)
            ended = time.monotonic()
            live.stop()
            wait_for(lambda: len(ingested) >= rows + len(live.sent), "all events", 300)
        wait_for(lambda: len(committed_rows(table)) >= rows + len(live.sent), "all rows", 300, every=5.0)
        wall = time.time() - time.monotonic()
        stored = {trace: when - wall for trace, when in committed_rows(table).items()}
        again = _backfill(path, "--restart")
    alone = [trace for trace, sent in live.sent.items() if began <= sent < begun]
    beside = [trace for trace, sent in live.sent.items() if begun <= sent < ended]
    figures = {"rows back-filled": rows / seconds, "rows recognised from the table": rows / again}
    for where, arrived in (("events.raw", raw), ("events.ingested", ingested), ("xact_events", stored)):
        for phase, traces in (("alone", alone), ("beside it", beside)):
            p50, p99 = _cuts([arrived[trace] - live.sent[trace] for trace in traces])
            figures |= {f"to {where} {phase}, p50": p50, f"to {where} {phase}, p99": p99}
    return figures


def _cuts(latencies: Sequence[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(latencies, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


def _backfill(path: Path, *options: str) -> float:
    """Seconds that the command took; RuntimeError where it did not come to a good end."""
    entry = "from pipelined.cli.pipelinectl import main; main()"
    command = [sys.executable, "-c", entry, "--config", str(path), "backfill", *_RANGE, *options]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"the back-fill ended with {done.returncode}: {done.stderr[-500:]}")
    return time.monotonic() - began

"""A back-fill beside the whole daemon and its live poll: killed at each step, and given again."""

from __future__ import annotations

import datetime as dt
import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from flow import Flow, event, pipelinectl_command, trace_ids
from kafka_tools import read
from pipelined.crashpoints import VARIABLE, Point
from pipelined.kafka.checkpoints import read_checkpoint
from pipelined.ledger import judge
from pipelined.local.eventhouse import Eventhouse
from pipelined.local.fileserver import FileServer, file_path
from pipelined.local.upstream import TABLE, create_table
from pipelined.sources.eventhouse.source import table_key
from pipelined.stages.contract import Stream
from waiting import until

pytestmark = pytest.mark.timeout(300)

OLD = 2000
DAY = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
RANGE = ["--from", "2026-01-05", "--to", "2026-01-06"]
POINTS = [point for point in Point if "backfill" in point.workers]


class Live(threading.Thread):
    """Rows that come into the table now, until it is stopped."""

    def __init__(self, eventhouse: Eventhouse) -> None:
        super().__init__(daemon=True)
        self.traces: list[str] = []
        self._eventhouse = eventhouse
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.2):
            rows = [json.loads(event(trace)) for trace in trace_ids(20)]
            self._eventhouse.ingest(TABLE, rows)
            self.traces += [row["traceId"] for row in rows]

    def stop(self) -> list[str]:
        self._over.set()
        self.join(30)
        return self.traces


class World:
    """A daemon that polls from now on, and a table that had rows before."""

    def __init__(self, flow: Flow, eventhouse: Eventhouse) -> None:
        self.flow = flow
        self.eventhouse = eventhouse
        self.old = self._ingest(OLD)

    def _ingest(self, count: int) -> list[str]:
        rows = []
        for number, trace in enumerate(trace_ids(count)):
            urls = [self.flow.files_url + file_path("ok", 3000, number, "GENERIC.pdf")] * (number % 20 == 0)
            moment = DAY + dt.timedelta(seconds=number)
            rows.append(json.loads(event(trace, urls)) | {"utcDateTime": moment.isoformat()})
        for start in range(0, count, 500):
            at = DAY + dt.timedelta(hours=1 + start / 1000)
            self.eventhouse.ingest(TABLE, rows[start : start + 500], ingested=round(at.timestamp()) * 10**9)
        return [row["traceId"] for row in rows]

    def backfill(self, *options: str) -> tuple[int, str]:
        """The command's exit code and output."""
        done = self.flow.ctl("backfill", *RANGE, *options)
        return done.returncode, done.stdout + done.stderr

    def rows(self) -> Counter[str]:
        """The trace ids in the events table, with how many rows each has."""
        table = DeltaTable(f"{self.flow.folder}/tables/{self.flow.domain}_events")
        return Counter(table.to_pyarrow_table(columns=["trace_id"])["trace_id"].to_pylist())

    def raw(self) -> Counter[str]:
        """The trace ids on events.raw, with how often each is there."""
        return Counter(json.loads(message.value)["traceId"] for message in read(self.flow.config, Stream.RAW))

    def until_rows(self, traces: list[str]) -> None:
        """Wait until the table has these, and see that it has nothing else, and nothing twice."""
        until(lambda: len(self.rows()) >= len(traces), "the rows are in the table")
        assert self.rows() == Counter(traces)


@pytest.fixture
def world(tmp_path: Path, kafka_bootstrap: str, domain: str) -> Iterator[World]:
    settings: dict[str, Any] = {
        "workers.eventhouse_poller.processes": 1,
        "eventhouse.table": TABLE,
        "eventhouse.poll_seconds": 0.2,
        "eventhouse.start": "now",
        "eventhouse.page_rows": 250,
    }
    with (
        FileServer() as files,
        Eventhouse(tmp_path / "eventhouse") as eventhouse,
        Flow(tmp_path, kafka_bootstrap, domain, files.url, settings) as flow,
    ):
        flow.configure({"eventhouse.url": eventhouse.url, "eventhouse.database": eventhouse.database})
        create_table(eventhouse)
        flow.apply_topics()
        made = World(flow, eventhouse)
        flow.start()
        # What came before the poller found out what "now" is, it leaves out.
        key = table_key(flow.config.eventhouse)
        until(lambda: read_checkpoint(flow.config, key), "the poller has a position")
        yield made


def test_killed_at_each_step_beside_a_live_poll_nothing_is_lost_and_nothing_sent_twice(world: World) -> None:
    points = world.flow.folder / "points"
    points.mkdir()
    live = Live(world.eventhouse)
    live.start()
    until(world.raw, "the live poll brings rows")
    world.flow.environment[VARIABLE] = str(points)
    for number, point in enumerate(POINTS):
        armed = points / f"backfill:{point.label}"
        armed.write_text(str(1 + number % 2))
        code, text = world.backfill()
        assert (code, armed.exists()) == (-signal.SIGKILL, False), f"{point.label}: {text}"
    code, text = world.backfill()
    assert code == 0, text
    assert "went on behind row" in text
    traces = [*world.old, *live.stop()]
    until(lambda: len(world.raw()) == len(traces), "everything is on events.raw")
    assert world.raw() == Counter(traces), "nothing is sent twice"
    world.until_rows(traces)
    balance = world.flow.settle()
    assert balance.accepted == balance.rows == len(traces)
    assert balance.completed == OLD / 20


def test_what_is_known_is_told_from_the_table_and_from_the_memory_of_the_ingester(world: World) -> None:
    code, text = world.backfill()
    assert code == 0, text
    world.until_rows(world.old)
    code, text = world.backfill("--restart")
    assert code == 0, text
    assert f"{OLD:,} rows read: 0 are on events.raw, {OLD:,} were in the table already" in text
    assert world.raw() == Counter(world.old)
    code, text = world.backfill("--restart", "--no-table-known")
    assert f"{OLD:,} rows read: {OLD:,} are on events.raw" in text
    until(lambda: set(world.raw().values()) == {2}, "all of them are sent again")
    # The ledger calls a row that came twice a difference; what matters is what became of it.
    until(lambda: judge(world.flow.config, 0).duplicate == OLD, "the ingester drops them")
    world.until_rows(world.old)


def test_ctrl_c_ends_it_cleanly_and_the_same_command_goes_on(world: World, tmp_path: Path) -> None:
    log = tmp_path / "backfill.log"
    command = pipelinectl_command("--config", world.flow.config_file, "backfill", *RANGE, "--rate", "100/s")
    process = world.flow.popen(command, log)
    until(lambda: len(world.raw()) >= 100, "pages come")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert "interrupted; the same command goes on from here" in log.read_text()
    code, text = world.backfill()
    assert code == 0, text
    until(lambda: world.raw() == Counter(world.old), "each of them is sent once")
    world.until_rows(world.old)

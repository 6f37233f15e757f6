"""Every crash point of every worker type: the worker dies there, once, comes back, and the books balance.

The tests are made from the registry (pipelined/crashpoints.py), so that a new point has its tests at once.
One daemon serves them all, and those of one point share a round: all its worker types are armed and driven
to it together, and the ledger judges the end. ``-k upload-file.renamed`` makes a round of that one alone.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from flow import Flow, event, pipelined_command, trace_ids
from pipelined.config.tree import SOURCE_TYPES
from pipelined.crashpoints import VARIABLE, Point
from pipelined.errors import PipelinedError
from pipelined.ledger.balance import Balance
from pipelined.ledger.follower import Follower
from pipelined.local.eventhouse import Eventhouse
from pipelined.local.fileserver import FileServer, file_path
from pipelined.local.table_rows import table_row
from pipelined.local.upstream import TABLE, create_table
from waiting import until

pytestmark = [pytest.mark.xdist_group("crash-points"), pytest.mark.timeout(180)]

#: In the order of the registry; the second host of that one stays until the end.
PAIRS = sorted(
    ((point, worker) for point in Point for worker in point.workers),
    key=lambda pair: pair[0] is Point.REVOKED,
)


def name_of(point: Point, worker: str) -> str:
    """The test's name of a pair."""
    return f"{worker}-{point.label}"


#: What a table worker has transactions for, and what it is given then: its input, unreadable.
LETTERS = {Point.BEGUN, Point.PRODUCED, Point.OFFSETS_SENT, Point.COMMITTED, Point.LETTERS_WRITTEN}
INPUTS = {"event-writer": "events.ingested", "result-processor": "downloads.results"}
TABLES = {"event-writer": "events", "result-processor": "attachments"}
#: Reached only by a worker that starts, or that is told to stop.
STARTING = {Point.OFFSETS_READ, Point.ASSIGNED, Point.POSITIONED}
STOPPING = {Point.DRAINING, Point.DRAINED}
#: Reached when another host comes and wants its share.
SHARING = {Point.REVOKED}


class Rig:
    """A daemon whose crash points can be armed, and what was put into it."""

    def __init__(
        self,
        flow: Flow,
        folder: Path,
        follower: Follower,
        selected: set[tuple[Point, str]],
        eventhouse: Eventhouse,
    ) -> None:
        self.flow = flow
        self._eventhouse = eventhouse
        self.folder = folder
        self.loaded = 0
        self.poisoned = 0
        self._in_ingested = 0
        self._follower = follower
        self._files = 0
        self._fills = 0
        self._hosts = contextlib.ExitStack()
        self._selected = selected
        self._rounds: dict[Point, Round | BaseException] = {}
        self._producer = Producer({"bootstrap.servers": flow.config.kafka.bootstrap, "linger.ms": 0})

    def round(self, point: Point) -> Round:
        """What became of the selected worker types of a point; the first to ask has it made."""
        if point not in self._rounds:
            workers = [worker for worker in point.workers if (point, worker) in self._selected]
            try:
                self._rounds[point] = Round(self, point, workers)
            except (AssertionError, PipelinedError, OSError) as error:
                self._rounds[point] = error
        found = self._rounds[point]
        if isinstance(found, BaseException):
            raise found
        return found

    def lines(self) -> list[bytes]:
        """Two events; of one the attachment is fetched at once, of the other at the third attempt.

        One failed attempt may be lost with the download worker; the scheduler shall have one all the same.
        """
        made = []
        for kind, trace in zip(("ok", "flaky-2"), trace_ids(2), strict=True):
            self._files += 1
            made.append(
                event(trace, [self.flow.files_url + file_path(kind, 3000, self._files, "GENERIC.pdf")])
            )
        self.loaded += len(made)
        return made

    def bring(self, source: str) -> None:
        """Events that come by this source."""
        lines = self.lines()
        if source == "eventhouse-poller":
            self._eventhouse.ingest(TABLE, [row for row in map(table_row, lines) if row is not None])
            return
        for line in lines:
            self._producer.produce(self.flow.config.eventhub.topic, line)
        assert self._producer.flush(20) == 0

    def fill_back(self) -> list[int]:
        """Events that only a back-fill finds, since they get no cursor; its exit codes, given twice."""
        self._fills += 1
        start = dt.datetime(2026, 1, 5, tzinfo=dt.UTC) + dt.timedelta(hours=self._fills)
        rows = [row for row in map(table_row, self.lines()) if row is not None]
        self._eventhouse.ingest(TABLE, rows, ingested=round(start.timestamp()) * 10**9, cursor_lag=None)
        span = ["--from", start.isoformat(), "--to", (start + dt.timedelta(hours=1)).isoformat()]
        return [self.flow.ctl("backfill", *span).returncode for _ in ("killed", "again")]

    def poison(self, worker: str) -> None:
        """A record that this table worker cannot read."""
        self.poisoned += 1
        self._in_ingested += worker == "event-writer"
        value = b"\x00\xff neither event nor result %d" % self.poisoned
        self._producer.produce(f"{self.flow.domain}.{INPUTS[worker]}", value, b"key")
        assert self._producer.flush(20) == 0

    def another_host(self, workers: list[str]) -> None:
        """A second daemon, for these worker types alone."""
        flow = self._hosts.enter_context(self.flow.beside("there"))
        command = pipelined_command("--config", flow.config_file, "run")
        for worker in workers:
            command += ["--worker", worker]
        flow.popen(command, flow.log_file)

    def close(self) -> None:
        self._hosts.close()

    def signal(self, worker: str, number: signal.Signals) -> None:
        os.kill(self.flow.workers()[worker]["pid"], number)

    def orphans(self, worker: str) -> int:
        """Data files that no commit names, in the first table of a worker."""
        table = self.flow.folder / "tables" / f"{self.flow.domain}_{TABLES[worker]}"
        log = b"".join(path.read_bytes() for path in table.glob("_delta_log/*.json")).decode()
        return sum(path.name not in log for path in table.glob("*=*/*.parquet"))

    def settle(self) -> Balance:
        """Wait until the books balance, but for what :meth:`poison` put where nothing unreadable can be."""
        latest: list[Balance] = []
        expected = {"event_unreadable": self._in_ingested} if self._in_ingested else {}

        def balanced() -> bool:
            if not self._follower.catch_up().settled:
                return False
            latest[:] = [self._follower.balance()]
            return (
                latest[0].difference_kinds == expected
                and latest[0].read == self.loaded
                and latest[0].dead_letters >= self.poisoned
            )

        try:
            until(balanced, "the books balance")
        except AssertionError as error:
            books = json.dumps(latest[0].as_json(), indent=1) if latest else "not settled"
            raise AssertionError(f"{error}\n{books}\n{self.flow.tail()}") from None
        return latest[0]


class Round:
    """Worker types armed at one point, brought to it, killed there, back again; and the balance behind it."""

    def __init__(self, rig: Rig, point: Point, workers: list[str]) -> None:
        before = {name: found["restarts"] for name, found in rig.flow.workers().items()}
        orphans = {worker: rig.orphans(worker) for worker in TABLES}
        self.files = {worker: rig.folder / f"{worker}:{point.label}" for worker in workers}
        for worker, file in self.files.items():
            file.touch()
            if point in LETTERS and worker in INPUTS:
                rig.poison(worker)
            if point in STARTING:
                rig.signal(worker, signal.SIGKILL)
        if point in SHARING and workers:
            rig.another_host(workers)
        self.loads: list[int] = []
        if "load" in workers:
            path = rig.flow.write(rig.lines())
            self.loads = [rig.flow.ctl("load", path).returncode for _ in ("killed", "again")]
        else:
            rig.flow.load(rig.lines())
        self.fills = rig.fill_back() if "backfill" in workers else []
        for worker in set(workers) & set(SOURCE_TYPES):
            rig.bring(worker)
        if point in STOPPING:
            for worker in workers:
                rig.signal(worker, signal.SIGTERM)
        for worker, file in self.files.items():
            until(lambda file=file: not file.exists(), f"{worker} comes to {point.label}")
        # A successor that finds nobody with what was to change hands leaves once, so that all share anew.
        ends = 2 if point in STARTING | SHARING else 1
        self.expected = {name: count + ends * (name in workers) for name, count in before.items()}
        for worker in self.expected:
            rig.flow.until_worker(worker, self._is_back, "is back")
        self.balance = rig.settle()
        self.poisoned = rig.poisoned
        self.status = rig.flow.workers()
        self.orphans = {worker: rig.orphans(worker) - orphans[worker] for worker in TABLES}

    def _is_back(self, found: dict[str, Any]) -> bool:
        return found["restarts"] >= self.expected[found["type"]] and found["state"] == "RUNNING"


@pytest.fixture(scope="module")
def rig(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, request: pytest.FixtureRequest
) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("crash")
    domain = f"t{os.urandom(4).hex()}"
    hub = NewTopic(f"{domain}.hub", 2, 1)
    brokers = AdminClient({"bootstrap.servers": kafka_bootstrap})
    settings = {
        # Both sources are there; the Event Hub is another topic of the same brokers.
        "workers.eventhouse_poller.processes": 1,
        "eventhouse.table": TABLE,
        "eventhouse.poll_seconds": 0.2,
        "workers.eventhub_reader.processes": 1,
        "eventhub.bootstrap": kafka_bootstrap,
        "eventhub.topic": hub.topic,
        "eventhub.security_protocol": "PLAINTEXT",
        # Whoever dies for a test is wanted back at once, however often.
        "supervisor.healthy_s": 0,
        "supervisor.max_restarts": 1000,
        "tables.flush_seconds": 0.1,
        "retry.delays_s": [0.1, 0.2],
    }
    chosen = {item.name for item in request.session.items}
    selected = {pair for pair in PAIRS if f"{test_a_worker_killed_at.__name__}[{name_of(*pair)}]" in chosen}
    with (
        FileServer() as files,
        Eventhouse(folder / "eventhouse") as eventhouse,
        Flow(folder, kafka_bootstrap, domain, files.url, settings) as flow,
    ):
        flow.configure({"eventhouse.url": eventhouse.url, "eventhouse.database": eventhouse.database})
        create_table(eventhouse)
        brokers.create_topics([hub])[hub.topic].result(30)
        flow.apply_topics()
        points = folder / "points"
        points.mkdir()
        flow.environment[VARIABLE] = str(points)
        flow.start()
        with Follower(flow.config) as follower:
            made = Rig(flow, points, follower, selected, eventhouse)
            yield made
            made.close()
        brokers.delete_topics([hub.topic])[hub.topic].result(30)


@pytest.mark.parametrize(("point", "worker"), PAIRS, ids=[name_of(*pair) for pair in PAIRS])
def test_a_worker_killed_at(rig: Rig, point: Point, worker: str) -> None:
    found = rig.round(point)
    assert not found.files[worker].exists()
    if worker == "load":
        assert found.loads == [-signal.SIGKILL, 0]
    elif worker == "backfill":
        assert found.fills == [-signal.SIGKILL, 0]
    elif point in SHARING:
        assert found.status[worker]["last_exit"] == "exit 69: something it needs cannot be reached"
    else:
        assert found.status[worker]["last_exit"] == "killed by SIGKILL"
    if point is Point.DATA_WRITTEN:
        assert found.orphans[worker] > 0, "the commit came before the kill"
    assert {name: each["restarts"] for name, each in found.status.items()} == found.expected
    balance = found.balance
    assert balance.accepted == balance.rows == balance.expected == balance.completed
    assert balance.dead_letters == found.poisoned, "each unreadable record is a dead letter, once"

"""The download stage on transfers that end when the test says so: who gets a place, who is given up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

import pytest

import records
from pipelined.config.leaves import built
from pipelined.errors import TransientError
from pipelined.fetch.slot import SPOOL_BYTES
from pipelined.fetch.transfers import Fetched
from pipelined.messages.codec import encode
from pipelined.stages.contract import Done, Failed, Outcome, Record
from pipelined.stages.download import DownloadStage
from pipelined.stats import registry as metrics
from pipelined.storage.durable import LARGEST_BATCH, Placed

PLACES = 10
BODY = b"%PDF-1.7 " + b"x" * (SPOOL_BYTES - 9)


class Transfers:
    """Stands for ``fetch.transfers``: a host answers at once, or never."""

    def __init__(self) -> None:
        self.dead = {"dead.example"}
        self.fails: set[str] = set()
        self.active: dict[Hashable, tuple[str, str]] = {}
        self.begun: Counter[str] = Counter()

    def start(self, key: Hashable, url: str, path: str) -> None:
        host = url.split("/")[2]
        self.active[key] = (host, path)
        self.begun[host] += 1

    def cancel(self, key: Hashable) -> None:
        del self.active[key]

    def poll(self, timeout: float) -> list[Fetched]:
        ended = [(key, *who) for key, who in self.active.items() if who[0] not in self.dead]
        found = []
        for key, host, path in ended:
            del self.active[key]
            if host in self.fails:
                found.append(Fetched(key, path, TransientError("connect", "no connection")))
            else:
                found.append(
                    Fetched(key, path, None, -1, BODY, len(BODY), "0", 200, "application/pdf", BODY[:16])
                )
        return found

    def held(self) -> Counter[str]:
        return Counter(host for host, _ in self.active.values())

    def wake(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


class Placer:
    """Stands for ``storage.durable``: a disk that is done when the test says so, or at once."""

    def __init__(self) -> None:
        self.slow = False
        self.waiting: list[tuple[Hashable, bytes]] = []

    def place(self, key: Hashable, file: int, body: bytes, source: str, target: str) -> None:
        self.waiting.append((key, body))

    def results(self) -> list[Placed]:
        if self.slow:
            return []
        waiting, self.waiting = self.waiting, []
        return [Placed(key) for key, _ in waiting]

    def close(self) -> None:
        """There are no threads."""


class Bench:
    """The stage, its stand-ins, and what came out of it."""

    def __init__(self, folder: Path) -> None:
        config = built(
            {
                "cache_dir": str(folder / "cache"),
                "urls.allowed_hosts": ("*.example",),
                "download.concurrency": PLACES,
                "download.fsync_threads": 1,
                "workers.download.window_records": 2000,
                "breaker.failures": 3,
            }
        )
        self.stats = records.slot()
        self.stage = DownloadStage(config, self.stats)
        self.transfers, self.placer = Transfers(), Placer()
        self.stage._transfers.close()
        self.stage._placer.close()
        self.stage._transfers = self.transfers  # type: ignore[assignment]  # as much of it as the stage uses
        self.stage._placer = self.placer  # type: ignore[assignment]  # as much of it as the stage uses
        self._offset = 0

    def submit(self, host: str, count: int) -> list[Record]:
        made = []
        for _ in range(count):
            task = records.task(
                trace_id=f"t{self._offset}",
                attachment_url=f"https://{host}/x.pdf",
                file_type="PDF",
                blob_path=f"s/a/t{self._offset}/a_x.pdf",
            )
            made.append(records.record(encode(task), self._offset))
            self._offset += 1
        self.stage.submit(made)
        return made

    def poll(self, times: int = 50) -> list[Outcome]:
        return [outcome for _ in range(times) for outcome in self.stage.poll(0)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.stage.close()


def codes(outcomes: Sequence[Outcome]) -> Counter[str]:
    return Counter(each.error.code if isinstance(each, Failed) else "done" for each in outcomes)


def test_a_dead_host_with_any_number_of_tasks_before_them_holds_up_no_tasks_of_others(bench: Bench) -> None:
    bench.submit("dead.example", 500)
    bench.submit("good.example", 300)
    assert codes(bench.poll(200)) == {"done": 300}
    assert bench.transfers.held() == {"dead.example": PLACES // 2}
    assert bench.stage.in_flight == 500


def test_a_host_that_answers_gets_every_place(bench: Bench) -> None:
    bench.submit("good.example", 100)
    bench.poll(1)
    bench.transfers.dead.add("good.example")
    bench.poll(1)
    assert bench.transfers.held() == {"good.example": PLACES}


def test_a_host_with_an_open_breaker_is_counted_and_its_tasks_wait_elsewhere(bench: Bench) -> None:
    bench.transfers.fails.add("bad.example")
    bench.submit("bad.example", 50)
    bench.submit("good.example", 50)
    found = codes(bench.poll())
    assert found["done"] == 50
    assert found["connect"] < 2 * PLACES
    assert found["connect"] + found["host_circuit_open"] == 50
    bench.stage._gauge_due = 0.0
    bench.poll(1)
    assert bench.stats.gauge(metrics.OPEN_HOSTS) == 1


def test_a_breaker_is_that_of_a_host_and_its_port(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.transfers.fails.add("a.example:8443")
    bench.stage._policy._ports = frozenset({443, 8443})
    bench.submit("a.example:8443", 20)
    bench.submit("a.example", 20)
    assert codes(bench.poll())["done"] == 20
    bench.stage.close()


def test_records_that_are_given_up_end_as_stuck_and_their_places_are_free(bench: Bench) -> None:
    stuck = bench.submit("dead.example", PLACES)
    bench.submit("good.example", 1)
    assert codes(bench.poll()) == {"done": 1}
    bench.stage.give_up(stuck)
    assert bench.transfers.held() == {}
    outcomes = bench.poll()
    assert bench.stage.in_flight == 0
    assert codes(outcomes) == {"stuck": PLACES}
    failed = {each.record.offset: each for each in outcomes if isinstance(each, Failed)}
    assert {failed[record.offset].record is record for record in stuck} == {True}
    begun = PLACES // 2
    assert [failed[record.offset].error.attempted for record in stuck] == [True] * begun + [False] * begun
    assert all(each.task is not None for each in failed.values()), "or they could not be retried"


def test_only_the_records_named_are_given_up(bench: Bench) -> None:
    first, *others = bench.submit("dead.example", 5)
    bench.poll(1)
    bench.stage.give_up([first])
    assert [outcome.record for outcome in bench.poll(1)] == [first]
    assert bench.stage.in_flight == len(others)
    assert bench.transfers.held() == {"dead.example": 4}


def test_a_file_that_is_being_placed_is_not_given_up(bench: Bench) -> None:
    bench.placer.slow = True
    given = bench.submit("good.example", 1)
    assert bench.poll() == []
    bench.stage.give_up(given)
    assert bench.stage.in_flight == 1
    bench.placer.slow = False
    (outcome,) = bench.poll()
    assert isinstance(outcome, Done)
    assert outcome.record is given[0]


def test_however_large_the_window_a_slow_disk_keeps_only_so_many_files_in_memory(bench: Bench) -> None:
    bench.placer.slow = True
    bench.submit("good.example", 2000)
    bench.poll()
    kept = sum(len(body) for _, body in bench.placer.waiting)
    most = LARGEST_BATCH + bench.stage._turns.most  # one thread, and what was under way
    assert LARGEST_BATCH * SPOOL_BYTES <= kept <= most * SPOOL_BYTES
    bench.placer.slow = False
    assert codes(bench.poll(2000)) == {"done": 2000}


def test_tasks_that_a_dead_host_would_keep_in_the_window_are_put_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(bench.stage._turns, "_clock", lambda: now)
    bench.submit("dead.example", 2000)
    assert bench.poll() == []
    now += 300
    found = bench.poll()
    assert codes(found) == {"host_busy": 1000 - PLACES}
    assert all(isinstance(each, Failed) and not each.error.attempted for each in found)
    assert bench.stage.in_flight == 1000 + PLACES, "half of the window"

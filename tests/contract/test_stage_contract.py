"""The contract of ``stages.contract``, held by every stage, the slow ones and the quick ones alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import records
from pipelined.config.leaves import built
from pipelined.config.tree import Config
from pipelined.fetch.policy import UrlPolicy
from pipelined.local.fileserver import FileServer, file_path
from pipelined.messages.codec import encode
from pipelined.messages.task import CachedDownload, DownloadTask
from pipelined.stages.contract import Done, Outcome, Partition, Record, Stage
from pipelined.stages.download import DownloadStage
from pipelined.stages.failures import NOT_BEFORE, Envelope
from pipelined.stages.ingest import IngestStage
from pipelined.stages.retry import RetryStage
from pipelined.stages.upload import UploadStage

DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


class Bench:
    """A stage, and records that it can handle."""

    def __init__(self, stage: Stage, make: Callable[[int, Partition], Record]) -> None:
        self.stage = stage
        self._make = make

    def records(self, count: int, partition: Partition = records.P0) -> list[Record]:
        return [self._make(offset, partition) for offset in range(count)]

    def outcomes(self) -> list[Outcome]:
        """All that the stage owes."""
        found: list[Outcome] = []
        deadline = time.monotonic() + DEADLINE_S
        while self.stage.in_flight:
            assert time.monotonic() < deadline, f"{self.stage.in_flight} outcomes never came"
            found += self.stage.poll(0.05)
        return found


def ingest(config: Config, server: FileServer) -> Bench:
    def make(offset: int, partition: Partition) -> Record:
        event = records.event(traceId=f"trace-{partition.number}-{offset}")
        return records.record(event, offset, partition)

    stage = IngestStage(
        domain="t",
        horizon_hours=1,
        largest=4194304,
        policy=UrlPolicy(config.urls),
        envelope=Envelope("event-ingester", "g", "h"),
        history=lambda numbers: [],
        stats=records.slot(),
    )
    return Bench(stage, make)


def retry(config: Config, server: FileServer) -> Bench:
    def make(offset: int, partition: Partition) -> Record:
        return records.record(encode(records.task()), offset, partition, headers=[(NOT_BEFORE, b"1")])

    return Bench(RetryStage(), make)


def task_for(server: FileServer, offset: int, partition: Partition) -> DownloadTask:
    path = file_path("ok", 2000, partition.number * 1000 + offset, "x.pdf")
    return records.task(
        trace_id=f"trace-{partition.number}-{offset}",
        attachment_url=server.url + path,
        blob_path=f"s/a/trace-{partition.number}-{offset}/a_x.pdf",
    )


def download(config: Config, server: FileServer) -> Bench:
    def make(offset: int, partition: Partition) -> Record:
        return records.record(encode(task_for(server, offset, partition)), offset, partition)

    return Bench(DownloadStage(config, records.slot()), make)


def upload(config: Config, server: FileServer) -> Bench:
    def make(offset: int, partition: Partition) -> Record:
        task = task_for(server, offset, partition)
        path = Path(config.cache_dir) / task.trace_id / "a_x.pdf"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"data")
        cached = CachedDownload(
            **{name: getattr(task, name) for name in DownloadTask.__struct_fields__},
            local_cache_path=str(path),
            bytes_downloaded=4,
            sha256="0" * 64,
            http_status=200,
            downloaded_at="2026-01-05T00:00:00Z",
            host="h",
        )
        return records.record(encode(cached), offset, partition)

    return Bench(UploadStage(config, records.slot()), make)


@pytest.fixture(params=[ingest, retry, download, upload])
def bench(request: pytest.FixtureRequest, tmp_path: Path, server: FileServer) -> Iterator[Bench]:
    config = built(
        {
            "cache_dir": str(tmp_path / "cache"),
            "upload.url": f"file://{tmp_path}/files",
            "urls.allowed_hosts": ("127.0.0.1",),
            "urls.allowed_ports": (int(server.url.rpartition(":")[2]),),
            "urls.allow_http": True,
            "urls.allowed_networks": ("127.0.0.0/8",),
        }
    )
    bench: Bench = request.param(config, server)
    bench.stage.assigned([records.P0, records.P1])
    yield bench
    bench.stage.close()


def test_each_record_gets_exactly_one_outcome(bench: Bench) -> None:
    submitted = bench.records(30)
    bench.stage.submit(submitted[:10])
    bench.stage.submit(submitted[10:])
    found = bench.outcomes()
    assert sorted(outcome.record.offset for outcome in found) == list(range(30))
    assert all(isinstance(outcome, Done) for outcome in found)
    bench.stage.committed(found)


def test_an_outcome_carries_the_very_record_that_was_submitted(bench: Bench) -> None:
    submitted = {id(record): record for record in bench.records(5)}
    bench.stage.submit(list(submitted.values()))
    assert {id(outcome.record) for outcome in bench.outcomes()} == set(submitted)


def test_what_is_in_flight_is_what_is_owed(bench: Bench) -> None:
    assert bench.stage.in_flight == 0
    bench.stage.submit(bench.records(7))
    assert bench.stage.in_flight == 7
    assert len(bench.outcomes()) == 7
    assert bench.stage.in_flight == 0


def test_submitting_never_waits(bench: Bench) -> None:
    submitted = bench.records(30)
    began = time.monotonic()
    bench.stage.submit(submitted)
    assert time.monotonic() - began < 1.0
    bench.outcomes()


def test_polling_with_nothing_to_do_returns_nothing_in_about_the_time_allowed(bench: Bench) -> None:
    began = time.monotonic()
    assert bench.stage.poll(0.05) == []
    assert time.monotonic() - began < 1.0


def test_records_of_a_forgotten_partition_are_dropped_and_the_others_kept(bench: Bench) -> None:
    bench.stage.submit(bench.records(10, records.P0))
    bench.stage.submit(bench.records(10, records.P1))
    bench.stage.forget([records.P0])
    found = bench.outcomes()
    assert {outcome.record.partition for outcome in found} == {records.P1}
    assert len(found) == 10


def test_records_that_are_given_up_have_one_outcome_each_all_the_same(bench: Bench) -> None:
    submitted = bench.records(30)
    bench.stage.submit(submitted)
    bench.stage.give_up(submitted[:20])
    bench.stage.give_up(submitted[:5])
    found = bench.outcomes()
    assert sorted(outcome.record.offset for outcome in found) == list(range(30))
    for outcome in found:
        assert isinstance(outcome, Done) or (outcome.error.code, outcome.error.category) == (
            "stuck",
            "transient",
        )
        assert isinstance(outcome, Done) or (outcome.record.offset < 20 and outcome.task is not None)
    bench.stage.committed(found)


def test_unreadable_bytes_are_an_outcome_too(bench: Bench) -> None:
    broken = records.record(b"\xff{", 0)
    bench.stage.submit([broken])
    (found,) = bench.outcomes()
    if isinstance(bench.stage, RetryStage):  # it passes bytes on unread, for the download stage to judge
        assert isinstance(found, Done)
        assert found.outputs[0].value == broken.value
    else:
        assert not isinstance(found, Done)
        assert found.error.category == "poison"


def test_after_drain_everything_begun_is_finished(bench: Bench) -> None:
    bench.stage.submit(bench.records(10))
    bench.stage.drain()
    offsets = [outcome.record.offset for outcome in bench.outcomes()]
    assert len(offsets) == len(set(offsets)) <= 10
    assert bench.stage.in_flight == 0

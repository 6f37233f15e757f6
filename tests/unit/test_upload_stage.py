from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelined.config.tree import Config, Upload
from pipelined.errors import (
    AuthError,
    BugError,
    DependencyError,
    PoisonError,
    RecordError,
    TransientError,
)
from pipelined.messages.codec import decode, encode
from pipelined.messages.task import CachedDownload, DownloadTask, Result
from pipelined.stages.contract import Done, Failed, Headers, Outcome, Partition, Record, Stream
from pipelined.stages.upload import UploadStage
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child
from pipelined.storage.stores import PART_BYTES


class Shelf:
    """A store that does what the test says."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.trouble: Callable[[], object] | None = None

    def put(self, path: str, source: Path, size: int, sha256: str) -> None:
        if self.trouble:
            self.trouble()
        self.files[path] = source.read_bytes()

    def holds(self, path: str, size: int, sha256: str) -> bool:
        if self.trouble:
            self.trouble()
        data = self.files.get(path)
        return data is not None and (len(data), hashlib.sha256(data).hexdigest()) == (size, sha256)


class Bench:
    """An upload stage with two threads on a cache folder of its own."""

    def __init__(self, root: Path) -> None:
        self.shelf = Shelf()
        self.cache = root / "cache"
        self.stats = Child(memoryview(bytearray(4096)))
        config = Config(cache_dir=str(self.cache), upload=Upload(concurrency=2))
        self.stage = UploadStage(config, self.stats, self.shelf)

    def record(self, offset: int = 0, partition: int = 0, data: bytes = b"data", **changes: Any) -> Record:
        """A record whose file lies in the cache."""
        path = self.cache / f"t{offset}" / "a_x.pdf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        fields: dict[str, Any] = {
            "trace_id": f"t{offset}",
            "attachment_id": "a1",
            "attachment_url": "https://h.example/x.pdf?X-Amz-Signature=abc&v=1",
            "blob_path": f"s/a/t{offset}/a_x.pdf",
            "status_subtype": "s",
            "file_type": "PDF",
            "assignment_id": "a",
            "event_type": "xact",
            "event_subtype": "s",
            "original_timestamp": "2026-01-05T00:00:00Z",
            "retry_count": 2,
            "local_cache_path": str(path),
            "bytes_downloaded": len(data),
            "sha256": "00",
            "http_status": 200,
            "downloaded_at": "2026-01-05T00:00:01Z",
            "host": "here",
        }
        value = encode(CachedDownload(**(fields | changes)))
        headers: Headers = [("trace_id", b"t"), ("source", b"local"), ("attempt", b"2")]
        return Record(Partition("cached", partition), offset, b"key", value, headers, 0)

    def run(self, *records: Record) -> list[Outcome]:
        self.stage.submit(records)
        return self.finish(len(records))

    def finish(self, count: int) -> list[Outcome]:
        found: list[Outcome] = []
        deadline = time.monotonic() + 30
        while len(found) < count:
            assert time.monotonic() < deadline
            found += self.stage.poll(0.2)
        assert self.stage.in_flight == 0
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.stage.close()


def test_a_cached_file_is_stored_and_its_result_says_so(bench: Bench) -> None:
    record = bench.record()
    (outcome,) = bench.run(record)
    assert isinstance(outcome, Done)
    assert bench.shelf.files == {"s/a/t0/a_x.pdf": b"data"}
    (output,) = outcome.outputs
    assert (output.stream, output.key) == (Stream.RESULTS, b"key")
    assert output.headers == [("trace_id", b"t"), ("source", b"local")]
    result = decode(output.value, Result)
    assert (result.status, result.bytes_downloaded, result.retry_count) == ("completed", 4, 2)
    assert result.attachment_url == "https://h.example/x.pdf?v=1"


def test_the_cached_file_stays_until_the_outcome_is_committed(bench: Bench) -> None:
    outcomes = bench.run(bench.record(0), bench.record(1))
    assert len(list(bench.cache.rglob("*.pdf"))) == 2
    bench.stage.committed(outcomes)
    assert bench.stats.counter(metrics.BYTES) == 8
    bench.stage.committed(outcomes)  # told twice, nothing happens
    bench.stage.close()
    assert list(bench.cache.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"bytes_downloaded": 5},
        {"local_cache_path": "/nothing/there/x.pdf"},
        {"local_cache_path": "/etc/hostname"},
        {"local_cache_path": "{cache}/../cache/t0/a_x.pdf"},
        {"local_cache_path": "{cache}/other/a_x.pdf"},
    ],
)
def test_a_file_that_is_not_here_is_fetched_again_at_once(bench: Bench, changes: dict[str, Any]) -> None:
    changes = {k: v.format(cache=bench.cache) if isinstance(v, str) else v for k, v in changes.items()}
    (outcome,) = bench.run(bench.record(**changes))
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, TransientError)
    assert (outcome.error.code, outcome.error.retry_after) == ("cache_file_missing", 0)
    assert not outcome.error.attempted, "it costs no attempt"
    assert type(outcome.task) is DownloadTask
    assert outcome.task.attachment_url.endswith("X-Amz-Signature=abc&v=1")
    assert bench.shelf.files == {}


def elsewhere(bench: Bench, path: str = "/cache/of/another/host.pdf") -> Record:
    """A record whose file, b"data", was fetched by another host."""
    return bench.record(sha256=hashlib.sha256(b"data").hexdigest(), local_cache_path=path)


def test_a_file_that_is_not_here_and_stored_already_is_done(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.shelf.files["s/a/t0/a_x.pdf"] = b"data"
    looked: list[threading.Thread] = []
    bench.shelf.trouble = lambda: looked.append(threading.current_thread())
    for path in ("/cache/of/another/host.pdf", str(bench.cache / "t1/a_x.pdf")):
        outcomes = bench.run(elsewhere(bench, path))
        assert isinstance(outcomes[0], Done)
        (output,) = outcomes[0].outputs
        result = decode(output.value, Result)
        assert (output.stream, output.key, result.status) == (Stream.RESULTS, b"key", "completed")
        assert (result.bytes_downloaded, result.sha256) == (4, hashlib.sha256(b"data").hexdigest())
        bench.stage.committed(outcomes)
    bench.stage.close()
    assert bench.stats.counter(metrics.BYTES) == 8
    assert len(looked) == 2
    assert threading.current_thread() not in looked
    assert caplog.records == [], "there is nothing to fetch and nothing to remove"


def test_a_file_that_is_not_here_is_fetched_again_where_another_content_is_stored(bench: Bench) -> None:
    bench.shelf.files["s/a/t0/a_x.pdf"] = b"tada"
    (outcome,) = bench.run(elsewhere(bench))
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "cache_file_missing"
    assert type(outcome.task) is DownloadTask


def test_a_store_that_is_down_when_it_is_looked_into_is_a_pause(bench: Bench) -> None:
    def trouble() -> None:
        raise DependencyError("store_down", "no")

    bench.shelf.trouble = trouble
    (outcome,) = bench.run(elsewhere(bench))
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, DependencyError)


def test_a_file_that_vanishes_while_it_is_stored_is_fetched_again(bench: Bench) -> None:
    def trouble() -> None:
        (bench.cache / "t0/a_x.pdf").unlink(missing_ok=True)

    bench.shelf.trouble = trouble
    (outcome,) = bench.run(bench.record())
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "cache_file_missing"


def test_a_record_that_cannot_be_read_is_poison(bench: Bench) -> None:
    record = bench.record()
    outcome = bench.run(Record(record.partition, 1, None, b"{}", [], 0))[0]
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, PoisonError)


@pytest.mark.parametrize(
    ("error", "kind"), [(AuthError("store_auth", "no"), AuthError), (OSError("?"), BugError)]
)
def test_what_the_store_raises_is_the_records_outcome(
    bench: Bench, error: Exception, kind: type[RecordError]
) -> None:
    def trouble() -> None:
        raise error

    bench.shelf.trouble = trouble
    (outcome,) = bench.run(bench.record())
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, kind)
    bench.stage.committed([outcome])
    assert (bench.cache / "t0/a_x.pdf").exists()


def test_forgotten_records_owe_nothing_even_when_their_upload_ends_later(bench: Bench) -> None:
    gate = threading.Event()
    bench.shelf.trouble = lambda: gate.wait(30)
    bench.stage.submit([bench.record(number, number % 2) for number in range(10)])
    bench.stage.forget([Partition("cached", 1)])
    assert bench.stage.in_flight == 5
    gate.set()
    found = bench.finish(5)
    assert {outcome.record.partition.number for outcome in found} == {0}


def test_a_drained_stage_finishes_only_what_has_begun(bench: Bench) -> None:
    gate = threading.Event()
    begun = threading.Semaphore(0)

    def trouble() -> None:
        begun.release()
        gate.wait(30)

    bench.shelf.trouble = trouble
    bench.stage.submit([bench.record(number) for number in range(10)])
    for _ in range(2):
        assert begun.acquire(timeout=30)
    bench.stage.drain()
    assert bench.stage.in_flight == 2
    gate.set()
    assert len(bench.finish(2)) == 2


def test_records_that_are_given_up_end_at_once_and_their_uploads_late_end_counts_for_nothing(
    bench: Bench,
) -> None:
    gate = threading.Event()
    begun = threading.Semaphore(0)

    def trouble() -> None:
        begun.release()
        gate.wait(30)

    bench.shelf.trouble = trouble
    records = [bench.record(number) for number in range(4)]
    bench.stage.submit(records)
    for _ in range(2):
        assert begun.acquire(timeout=30)
    bench.stage.give_up(records[:3])
    found = bench.stage.poll(0)
    assert [outcome.record for outcome in found] == records[:3]
    assert all(isinstance(outcome, Failed) and outcome.error.code == "stuck" for outcome in found)
    assert [isinstance(o, Failed) and o.error.attempted for o in found] == [True, True, False]
    assert bench.stage.in_flight == 1
    gate.set()
    (outcome,) = bench.finish(1)
    assert outcome.record is records[3]
    bench.stage.committed([*found, outcome])
    bench.stage.close()
    assert "s/a/t2/a_x.pdf" not in bench.shelf.files, "it had not begun"
    left = sorted(path.parent.name for path in bench.cache.rglob("*.pdf"))
    assert left == ["t0", "t1", "t2"], "only a committed upload removes its file"


def test_an_upload_that_ended_before_it_was_given_up_is_done(bench: Bench) -> None:
    record = bench.record()
    bench.stage.submit([record])
    deadline = time.monotonic() + 30
    while bench.stage._ended.empty():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    bench.stage.give_up([record])
    (outcome,) = bench.finish(1)
    assert isinstance(outcome, Done)


def test_small_files_do_not_wait_for_large_ones(bench: Bench) -> None:
    gate = threading.Event()
    large = PART_BYTES + 1

    def put(path: str, source: Path, size: int, sha256: str) -> None:
        if size == large:
            gate.wait(30)

    bench.shelf.put = put  # type: ignore[method-assign]  # this test's own store
    bench.stage.submit([bench.record(number, data=bytes(large)) for number in range(5)])
    bench.stage.submit([bench.record(number) for number in range(5, 25)])
    found: list[Outcome] = []
    deadline = time.monotonic() + 30
    while len(found) < 20:
        assert time.monotonic() < deadline
        found += bench.stage.poll(0.2)
    assert {outcome.record.offset for outcome in found} == set(range(5, 25))
    gate.set()
    assert len(bench.finish(5)) == 5


def test_removing_cached_files_keeps_nobody_waiting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    removed: list[str] = []

    def slowly(path: str) -> None:
        gate.wait(30)
        removed.append(path)

    monkeypatch.setattr(bench.stage._cache, "remove", slowly)
    bench.stage.committed(bench.run(bench.record(0), bench.record(1)))
    assert removed == []
    assert len(bench.run(bench.record(2))) == 1
    gate.set()
    bench.stage.close()
    assert len(removed) == 2


def test_missing_files_are_told_of_once_and_not_once_each(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.run(*(bench.record(number, local_cache_path="/nothing/there/x.pdf") for number in range(20)))
    told = [record for record in caplog.records if "fetched again" in record.message]
    assert len(told) == 1
    assert getattr(told[0], "cache_dir", "") == str(bench.cache)


def test_a_poll_with_nothing_to_do_waits_no_longer_than_told(bench: Bench) -> None:
    begun = time.monotonic()
    assert bench.stage.poll(0.05) == []
    assert 0.04 < time.monotonic() - begun < 10


def test_a_real_folder_gets_the_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    store = tmp_path / "store"
    config = Config(cache_dir=str(bench.cache), upload=Upload(url=store.as_uri()))
    bench.stage.close()
    bench.stage = UploadStage(config, bench.stats)
    (outcome,) = bench.run(bench.record())
    bench.stage.close()
    assert isinstance(outcome, Done)
    assert (store / "s/a/t0/a_x.pdf").read_bytes() == b"data"

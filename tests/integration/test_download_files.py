from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from filehost import Host, settings

from pipelined.config.tree import Config
from pipelined.errors import Category, DependencyError, TransientError
from pipelined.local.fileserver import FileServer, expected_body, file_path
from pipelined.messages.codec import decode, encode
from pipelined.messages.task import CachedDownload, DownloadTask
from pipelined.stages.contract import Done, Failed, Outcome, Partition, Record, Stream
from pipelined.stages.download import DownloadStage
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child

#: More than is kept in memory, so that there is a file before the transfer ends.
LARGE = b"%PDF-1.7 " + bytes(200_000)


@pytest.fixture(scope="module")
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


@pytest.fixture
def host() -> Iterator[Host]:
    running = Host()
    yield running
    running.stop()


class Bench:
    """A download stage on a cache folder of its own."""

    def __init__(self, root: Path, *ports: int, **download: float) -> None:
        base = settings(*ports, **download)
        self.cache = root / "cache"
        self.config = Config(
            cache_dir=str(self.cache), urls=base.urls, files=base.files, download=base.download
        )
        self.stats = Child(memoryview(bytearray(4096)))
        self.stage = DownloadStage(self.config, self.stats)

    def record(self, url: str, offset: int = 0, partition: int = 0, **changes: Any) -> Record:
        fields: dict[str, Any] = {
            "trace_id": f"t{offset}",
            "attachment_id": f"a{offset}",
            "attachment_url": url,
            "blob_path": f"s/a/t{offset}/a_x.pdf",
            "status_subtype": "s",
            "file_type": "PDF",
            "assignment_id": "a",
            "event_type": "xact",
            "event_subtype": "s",
            "original_timestamp": "2026-01-05T00:00:00Z",
            "metadata": {"last_error": "x"},
        }
        headers = [("trace_id", b"t"), ("source", b"local"), ("attempt", b"1"), ("not_before", b"5")]
        value = encode(DownloadTask(**(fields | changes)))
        return Record(Partition("pending", partition), offset, b"key", value, headers, 0)

    def run(self, *records: Record) -> list[Outcome]:
        self.stage.submit(records)
        found: list[Outcome] = []
        deadline = time.monotonic() + 60
        while self.stage.in_flight:
            assert time.monotonic() < deadline
            found += self.stage.poll(0.2)
        assert len(found) == len(records)
        return sorted(found, key=lambda outcome: outcome.record.offset)

    def leftovers(self) -> list[Path]:
        """Temporary files, without the lock."""
        return [path for path in (self.cache / ".tmp").rglob("*") if path.is_file() and path.name != "lock"]


@pytest.fixture
def bench(tmp_path: Path, server: FileServer) -> Iterator[Bench]:
    made = Bench(tmp_path, urlsplit(server.url).port or 0)
    yield made
    made.stage.close()
    assert made.leftovers() == []


def test_files_are_fetched_hashed_and_placed_and_the_message_says_where(
    bench: Bench, server: FileServer
) -> None:
    paths = [file_path("ok", 1000 + number, number, "x.pdf") for number in range(120)]
    outcomes = bench.run(*(bench.record(server.url + path, n) for n, path in enumerate(paths)))
    for number, (path, outcome) in enumerate(zip(paths, outcomes, strict=True)):
        assert isinstance(outcome, Done)
        (output,) = outcome.outputs
        assert (output.stream, output.key) == (Stream.CACHED, b"key")
        assert output.headers == [("trace_id", b"t"), ("source", b"local")]
        cached = decode(output.value, CachedDownload)
        body = expected_body(path)
        assert cached.local_cache_path == f"{bench.cache}/t{number}/a_x.pdf"
        assert Path(cached.local_cache_path).read_bytes() == body
        assert (cached.bytes_downloaded, cached.sha256) == (len(body), hashlib.sha256(body).hexdigest())
        assert (cached.http_status, cached.content_type) == (200, "application/pdf")
        assert (cached.host, cached.metadata) == (socket.gethostname(), {"last_error": "x"})
    assert bench.leftovers() == []
    bench.stage.committed(outcomes)
    assert bench.stats.counter(metrics.BYTES) == sum(1000 + number for number in range(120))


@pytest.mark.parametrize(
    ("fault", "name", "category", "code"),
    [
        ("missing", "x.pdf", Category.PERMANENT, "http_404"),
        ("flaky", "x.pdf", Category.TRANSIENT, "http_503"),
        ("ratelimit", "x.pdf", Category.TRANSIENT, "http_429"),
        ("cut", "x.pdf", Category.TRANSIENT, "short_body"),
        ("stall", "x.pdf", Category.TRANSIENT, "timeout"),
        ("astray", "x.pdf", Category.PERMANENT, "url_host"),
        ("wrongtype", "x.pdf", Category.PERMANENT, "file_type_program"),
        ("disguised", "x.pdf", Category.PERMANENT, "file_type_program"),
    ],
)
def test_a_fault_is_an_outcome_and_leaves_no_file(
    bench: Bench, server: FileServer, fault: str, name: str, category: Category, code: str
) -> None:
    (outcome,) = bench.run(bench.record(server.url + file_path(fault, 20_000, 1, name)))
    assert isinstance(outcome, Failed)
    assert (outcome.error.category, outcome.error.code) == (category, code)
    assert outcome.task.attachment_id == "a0"
    assert not (bench.cache / "t0").exists()


def test_a_file_fetched_twice_replaces_itself(bench: Bench, server: FileServer) -> None:
    record = bench.record(server.url + file_path("ok", 5000, 1, "x.pdf"))
    for _ in range(2):
        assert isinstance(bench.run(record)[0], Done)
    assert [path.name for path in (bench.cache / "t0").iterdir()] == ["a_x.pdf"]


def test_no_file_is_seen_under_its_final_name_before_it_is_whole(tmp_path: Path, host: Host) -> None:
    body = b"%PDF-1.7 " + bytes(400_000)
    go_on = threading.Event()

    def in_halves(connection: socket.socket, _request: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n")
        connection.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body[:200_000])
        go_on.wait(30)
        connection.sendall(body[200_000:])

    host.answers["/x"] = in_halves
    bench = Bench(tmp_path, host.port, low_speed_s=60)
    bench.stage.submit([bench.record(host.url("/x"))])
    deadline = time.monotonic() + 30
    while sum(path.stat().st_size for path in bench.leftovers()) < 200_000:
        assert time.monotonic() < deadline
        assert bench.stage.poll(0.05) == []
    assert not (bench.cache / "t0").exists()
    go_on.set()
    assert isinstance(_next(bench), Done)
    assert (bench.cache / "t0/a_x.pdf").read_bytes() == body
    bench.stage.close()


def _next(bench: Bench) -> Outcome:
    deadline = time.monotonic() + 30
    while True:
        assert time.monotonic() < deadline
        if found := bench.stage.poll(0.2):
            return found[0]


def test_an_outcome_is_returned_only_after_its_file_and_its_folder_were_synced(
    bench: Bench, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", fsync)
    (outcome,) = bench.run(bench.record(server.url + file_path("ok", 5000, 1, "x.pdf")))
    assert isinstance(outcome, Done)
    assert "/.tmp/" in synced[0]
    assert set(synced[1:]) == {str(bench.cache / "t0"), str(bench.cache)}


def test_a_full_disk_makes_the_record_wait(
    bench: Bench, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bench.record(server.url + file_path("ok", 5000, 1, "x.pdf"))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        (outcome,) = bench.run(record)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, DependencyError)
    assert outcome.error.code == "disk_full"
    assert bench.leftovers() == []
    assert isinstance(bench.run(record)[0], Done)


@pytest.mark.parametrize("size", [5_000, 200_000])
def test_an_emptied_cache_folder_is_noticed_and_what_was_being_written_is_fetched_again(
    bench: Bench, server: FileServer, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    records = [bench.record(server.url + file_path("ok", size, n, "x.pdf"), n) for n in range(5)]
    assert isinstance(bench.run(records[0])[0], Done)
    shutil.rmtree(bench.cache)
    outcomes = bench.run(*records[1:])
    for outcome in outcomes:
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, TransientError)
        assert (outcome.error.code, outcome.error.retry_after) == ("cache_emptied", 0)
        assert not outcome.error.attempted
    assert caplog.text.count("somebody emptied the cache folder") == 1
    outcomes = bench.run(*records)
    assert all(isinstance(outcome, Done) for outcome in outcomes)
    assert len(list(bench.cache.glob("t*/a_x.pdf"))) == 5


def test_a_file_under_transfer_when_the_cache_folder_is_emptied_is_fetched_again(
    tmp_path: Path, host: Host
) -> None:
    go_on = threading.Event()

    def in_halves(connection: socket.socket, _request: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n")
        connection.sendall(b"Content-Length: %d\r\n\r\n" % len(LARGE) + LARGE[:150_000])
        go_on.wait(30)
        connection.sendall(LARGE[150_000:])

    host.answers["/x"] = in_halves
    bench = Bench(tmp_path, host.port, low_speed_s=60)
    record = bench.record(host.url("/x"))
    bench.stage.submit([record])
    deadline = time.monotonic() + 30
    while not bench.leftovers():
        assert time.monotonic() < deadline
        assert bench.stage.poll(0.05) == []
    shutil.rmtree(bench.cache)
    go_on.set()
    outcome = _next(bench)
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "cache_emptied"
    assert isinstance(bench.run(record)[0], Done)
    assert (bench.cache / "t0/a_x.pdf").read_bytes() == LARGE
    bench.stage.close()


def test_a_dead_host_holds_up_nobody_else(tmp_path: Path, host: Host, server: FileServer) -> None:
    hanging = host.says("/h", "HTTP/1.1 200 OK\nContent-Length: 1000000", LARGE, then="hang")
    bench = Bench(tmp_path, host.port, urlsplit(server.url).port or 0, concurrency=8, low_speed_s=60)
    bench.stage.submit([bench.record(hanging, number) for number in range(40)])
    good = [bench.record(server.url + file_path("ok", 2000, n, "x.pdf"), n) for n in range(40, 240)]
    bench.stage.submit(good)
    found: list[Outcome] = []
    deadline = time.monotonic() + 30
    while len(found) < len(good):
        assert time.monotonic() < deadline, f"{len(found)} of {len(good)}"
        found += bench.stage.poll(0.2)
    assert {outcome.record.offset for outcome in found} == set(range(40, 240))
    assert all(isinstance(outcome, Done) for outcome in found)
    assert bench.stage.in_flight == 40
    bench.stage.close()


def test_forgotten_transfers_are_cancelled_and_the_others_go_on(tmp_path: Path, host: Host) -> None:
    hanging = host.says("/h", "HTTP/1.1 200 OK\nContent-Length: 1000000", LARGE, then="hang")
    good = host.says("/g", "HTTP/1.1 200 OK\nContent-Length: 8\nContent-Type: application/pdf", b"%PDF-1.7")
    bench = Bench(tmp_path, host.port, concurrency=3, low_speed_s=60)
    bench.stage.submit([bench.record(hanging, number, 1) for number in range(3)])
    bench.stage.submit([bench.record(good, 10, 0)])
    deadline = time.monotonic() + 30
    while len(bench.leftovers()) < 3:
        assert time.monotonic() < deadline
        assert bench.stage.poll(0.05) == []
    bench.stage.forget([Partition("pending", 1)])
    assert bench.leftovers() == []
    assert bench.stage.in_flight == 1
    outcome = _next(bench)
    assert isinstance(outcome, Done)
    assert outcome.record.offset == 10
    bench.stage.close()


def test_a_closed_stage_leaves_neither_threads_nor_files_nor_descriptors(tmp_path: Path, host: Host) -> None:
    hanging = host.says("/h", "HTTP/1.1 200 OK\nContent-Length: 1000000", LARGE, then="hang")
    threads = set(threading.enumerate())
    open_files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a Path would open it too
    bench = Bench(tmp_path, host.port, low_speed_s=60)
    bench.stage.submit([bench.record(hanging)])
    deadline = time.monotonic() + 30
    while not bench.leftovers():
        assert time.monotonic() < deadline
        bench.stage.poll(0.05)
    mine = {thread for thread in threading.enumerate() if thread.name.startswith(("place-", "cache-"))}
    assert mine
    bench.stage.close()
    assert not mine & set(threading.enumerate())
    assert bench.leftovers() == []
    host.stop()
    assert len(os.listdir("/proc/self/fd")) <= open_files  # noqa: PTH208
    assert threads >= {thread for thread in threading.enumerate() if thread.is_alive()}

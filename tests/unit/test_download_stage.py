from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelined.config.tree import Breaker, Config, Download, Urls
from pipelined.errors import BugError, PermanentError, PoisonError, TransientError
from pipelined.messages.codec import encode
from pipelined.messages.task import DownloadTask
from pipelined.stages.contract import Failed, Partition, Record
from pipelined.stages.download import DownloadStage
from pipelined.stats.slots import Child

NOWHERE = "https://127.0.0.1:1/x.pdf"  # refused at once: nobody listens


def task(url: str = NOWHERE, **changes: Any) -> DownloadTask:
    fields: dict[str, Any] = {
        "trace_id": "t1",
        "attachment_id": "a1",
        "attachment_url": url,
        "blob_path": "s/a/t1/a_x.pdf",
        "status_subtype": "s",
        "file_type": "PDF",
        "assignment_id": "a",
        "event_type": "xact",
        "event_subtype": "s",
        "original_timestamp": "2026-01-05T00:00:00Z",
    }
    return DownloadTask(**(fields | changes))


def record(value: bytes | DownloadTask, offset: int = 0, partition: int = 0) -> Record:
    data = value if isinstance(value, bytes) else encode(value)
    return Record(Partition("pending", partition), offset, b"t1", data, [("trace_id", b"t1")], 0)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[DownloadStage]:
    config = Config(
        cache_dir=str(tmp_path / "cache"),
        urls=Urls(allowed_hosts=("127.0.0.1",), allowed_ports=(1, 443), allowed_networks=("127.0.0.0/8",)),
        breaker=Breaker(failures=3, open_s=600),
        download=Download(concurrency=2),
    )
    made = DownloadStage(config, Child(memoryview(bytearray(4096))))
    yield made
    made.close()


def failures(stage: DownloadStage, *records: Record) -> list[Failed]:
    stage.submit(records)
    found: list[Failed] = []
    for _ in range(100):
        for outcome in stage.poll(0.2):
            assert isinstance(outcome, Failed)
            found.append(outcome)
        if not stage.in_flight:
            break
    assert len(found) == len(records)
    return found


@pytest.mark.parametrize("value", [b"", b"not json", b"{}", b'{"trace_id":1}', b"\xff\xfe"])
def test_a_record_that_cannot_be_read_is_poison(stage: DownloadStage, value: bytes) -> None:
    (failed,) = failures(stage, record(value))
    assert isinstance(failed.error, PoisonError)
    assert failed.task is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"url": "http://127.0.0.1/x.pdf"}, "url_scheme"),
        ({"url": "https://evil.example/x.pdf"}, "url_host"),
        ({"url": "https://127.0.0.1:8443/x.pdf"}, "url_port"),
        ({"url": "https://u:p@127.0.0.1/x.pdf"}, "url_userinfo"),
        ({"file_type": "EXE"}, "file_type_extension"),
        ({"expires_at": "2026-01-05T00:00:00Z"}, "expired"),
        ({"url": "https://127.0.0.1/x?X-Amz-Date=20260105T142230Z&X-Amz-Expires=60"}, "expired"),
        ({"url": "https://127.0.0.1/x?se=2026-01-05T00:00:00Z&sig=abc"}, "expired"),
    ],
)
def test_what_will_never_work_is_told_without_asking_the_host(
    stage: DownloadStage, changes: dict[str, Any], code: str
) -> None:
    (failed,) = failures(stage, record(task(**changes)))
    assert isinstance(failed.error, PermanentError)
    assert failed.error.code == code
    assert failed.task.attachment_id == "a1"


def test_a_task_that_is_still_valid_or_has_an_unreadable_end_is_tried(stage: DownloadStage) -> None:
    later = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()
    for number, expires in enumerate((later, "some day", None)):
        (failed,) = failures(stage, record(task(expires_at=expires), number))
        assert failed.error.code == "connect"


def test_a_host_that_keeps_failing_is_left_alone(stage: DownloadStage) -> None:
    found = [failed for number in range(5) for failed in failures(stage, record(task(), number))]
    assert [failed.error.code for failed in found] == ["connect"] * 3 + ["host_circuit_open"] * 2
    assert isinstance(found[-1].error, TransientError)
    assert (found[-1].error.retry_after or 0) > 500


def test_forgotten_partitions_owe_nothing(stage: DownloadStage) -> None:
    stage.submit([record(task(), number, number % 2) for number in range(20)] + [record(b"junk", 20, 1)])
    assert stage.in_flight == 21
    stage.forget([Partition("pending", 1)])
    assert stage.in_flight == 10
    stage.forget([Partition("pending", 0)])
    assert stage.in_flight == 0
    assert stage.poll(0.0) == []


def test_a_drained_stage_drops_what_has_not_begun(stage: DownloadStage) -> None:
    stage.submit([record(task(), number) for number in range(20)])
    stage.poll(0.0)
    stage.drain()
    assert stage.in_flight <= 2  # the transfers under way
    for _ in range(100):
        stage.poll(0.2)
        if not stage.in_flight:
            break
    assert stage.in_flight == 0


def test_an_exception_of_our_own_is_a_bug_of_that_record_alone(
    stage: DownloadStage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(url: str) -> None:
        raise ZeroDivisionError(url)

    monkeypatch.setattr(stage._policy, "check", broken)
    (failed,) = failures(stage, record(task()))
    assert isinstance(failed.error, BugError)
    assert isinstance(failed.error.__cause__, ZeroDivisionError)
    assert "unexpected error at pending/0@0" in caplog.text

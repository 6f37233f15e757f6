"""What the ingest stage makes of an event's attachments: a task for each, or a result that says why not."""

from __future__ import annotations

import msgspec
import pytest

from ingesting import SIGNED, Ingest, done, of, results, task_of, tasks
from pipelined.messages.task import DownloadTask
from pipelined.stages.contract import Stream
from pipelined.stats import registry as metrics
from records import HOST, TRACE, event, headers_of, record


@pytest.fixture
def ingest() -> Ingest:
    return Ingest()


@pytest.mark.parametrize("value", [None, [], [None], "", "  ", ["", None], {"url": "x"}, 7])
def test_what_names_no_attachment_is_none(ingest: Ingest, value: object) -> None:
    outcome = done(ingest, event(data={"attachments": value}))
    assert [output.stream for output in outcome.outputs] == [Stream.INGESTED]


@pytest.mark.parametrize(
    "value",
    [f"{HOST}/a.pdf", f"  {HOST}/a.pdf ", [f"{HOST}/a.pdf", None, ""], f'["{HOST}/a.pdf", null]'],
)
def test_a_lone_url_and_a_list_as_text_are_attachments(ingest: Ingest, value: object) -> None:
    task = task_of(ingest, data={"assignmentId": "A", "attachments": value})
    assert task.attachment_url == f"{HOST}/a.pdf"


def test_an_entry_that_is_no_text_is_refused_and_accounted_for(ingest: Ingest) -> None:
    outcome = done(ingest, event(7, {"url": f"{HOST}/a.pdf"}, f"{HOST}/b.pdf"))
    assert [result.status for result in results(outcome)] == ["failed_permanent"] * 2
    assert len(of(outcome, Stream.DLQ)) == 2
    assert [task.attachment_url for task in tasks(outcome)] == [f"{HOST}/b.pdf"]


def test_the_same_url_listed_or_signed_twice_is_one_attachment(ingest: Ingest) -> None:
    task = task_of(
        ingest,
        f"{HOST}/k/a.pdf?{SIGNED}",
        f"{HOST}/k/a.pdf?X-Amz-Date=20260105T150000Z&X-Amz-Expires=3600&X-Amz-Signature=other",
        f"{HOST}/k/a.pdf",
        f"{HOST}/k/a.pdf#page=2",
    )
    assert task.attachment_url.endswith(SIGNED)


def test_attachments_of_one_name_get_paths_of_their_own(ingest: Ingest) -> None:
    found = tasks(done(ingest, event(*(f"{HOST}/{n}/a.pdf" for n in range(3)))))
    names = [task.blob_path.rpartition("/")[2] for task in found]
    assert names == ["05QK7ZD_2_a.pdf", *(f"05QK7ZD_2_a~{t.attachment_id[:8]}.pdf" for t in found[1:])]
    assert [task.file_type for task in found] == ["PDF"] * 3


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://evil.example/a.pdf", "url_host"),
        (HOST.replace("https", "http") + "/a.pdf", "url_scheme"),
        (f"{HOST}:8443/a.pdf", "url_port"),
        (HOST.replace("://", "://u:p@") + "/a.pdf", "url_userinfo"),
        (f"{HOST}/a b.pdf", "url_characters"),
        ("/a.pdf", "url_malformed"),
        ("not a url", "url_characters"),
    ],
)
def test_a_refused_url_is_a_result_and_a_dead_letter_with_its_task_and_no_task_to_do(
    ingest: Ingest, url: str, code: str
) -> None:
    outcome = done(ingest, record(event(url), 7, headers=[("source", b"eventhub")]))
    assert tasks(outcome) == []
    (result,) = results(outcome)
    assert (result.status, result.error_category, result.expired_at_ingest) == (
        "failed_permanent",
        "permanent",
        False,
    )
    (letter,) = of(outcome, Stream.DLQ)
    dead = msgspec.json.decode(letter.value, type=DownloadTask)
    assert (dead.attachment_url, dead.attachment_id) == (url, result.attachment_id)
    assert letter.key == TRACE.encode()
    told = headers_of(letter)
    assert (told["dlq_code"], told["dlq_category"], told["trace_id"]) == (code, "permanent", TRACE)
    assert (told["dlq_origin_topic"], told["dlq_origin_partition"], told["dlq_origin_offset"]) == (
        "t.in",
        "0",
        "7",
    )
    assert (told["source"], told["attachment_id"]) == ("eventhub", result.attachment_id)
    assert ingest.stats.counter(metrics.REJECTED) == 1


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Date=20260104T142230Z&X-Amz-Expires=86400&X-Amz-Signature=secret",
        "X-Amz-Date=20260104T142230&X-Amz-Expires=86400&X-Amz-Signature=secret",
        "X-Amz-Date=20260104T142230+0000&X-Amz-Expires=86400&X-Amz-Signature=secret",
        "sv=1&se=2026-01-05T14%3A59%3A59Z&sig=secret",
        "se=2026-01-05&sig=secret",
        "se=2026-01-05T07:30:00-07:00&sig=secret",
        "systemDate=1767621600000&expires=600000&sig=secret",
    ],
)
def test_an_expired_url_is_a_permanent_failure_known_at_ingest(ingest: Ingest, query: str) -> None:
    outcome = done(ingest, event(f"{HOST}/a.pdf?{query}"))
    (result,) = results(outcome)
    assert (result.status, result.expired_at_ingest) == ("failed_permanent", True)
    assert result.attachment_url == f"{HOST}/a.pdf"
    assert result.expires_at is not None
    assert result.expires_at.endswith("Z")
    assert "signature ended" in (result.error_message or "")
    (letter,) = of(outcome, Stream.DLQ)
    assert headers_of(letter)["dlq_code"] == "expired"
    assert tasks(outcome) == []


def test_a_url_that_does_not_say_when_it_ends_is_tried(ingest: Ingest) -> None:
    assert task_of(ingest, f"{HOST}/a.pdf?X-Amz-Date=soon&X-Amz-Expires=never").expires_at is None


def test_the_file_type_is_that_of_the_attachment_and_not_of_what_stands_before_it(ingest: Ingest) -> None:
    data = {"assignmentId": "A", "estimateVersion": "2.0", "attachments": [f"{HOST}/scan"]}
    task = task_of(ingest, data=data)
    assert task.blob_path.endswith("/A_2.0_scan")
    assert task.file_type == "UNKNOWN"

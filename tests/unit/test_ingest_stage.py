"""Which records the ingest stage takes for events, and what it makes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingesting import NOW, SIGNED, Ingest, done, kinds, of, refused, task_of, tasks
from pipelined.errors import BugError, PoisonError
from pipelined.messages import attachments
from pipelined.messages.task import DownloadTask
from pipelined.stages import ingest as ingest_stage
from pipelined.stages.contract import Done, Failed, Output, Stream
from records import ARRIVED, HOST, P1, TRACE, event, headers_of, record


@pytest.fixture
def ingest() -> Ingest:
    return Ingest()


# Valid events.


def test_an_event_without_attachments_goes_on_as_it_came_in_the_same_partition_with_its_arrival() -> None:
    ingest = Ingest()
    value = (
        b'{"traceId":"%s", "type":"a.b","utcDateTime":"2026-01-05T14:22:31Z","more":[1,2]}' % TRACE.encode()
    )
    given = record(value, 5, P1, headers=[("source", b"eventhub"), ("line", b"1")])
    (outcome,) = ingest.outcomes(given)
    assert isinstance(outcome, Done)
    assert outcome.kind == "done"
    (output,) = outcome.outputs
    assert output == Output(
        Stream.INGESTED,
        TRACE.encode(),
        value,
        [("trace_id", TRACE.encode()), ("source", b"eventhub")],
        partition=1,
        timestamp=ARRIVED,
    )


def test_the_task_of_an_attachment_has_every_field_of_the_contract(ingest: Ingest) -> None:
    url = f"{HOST}/k/GENERIC.PDF?{SIGNED}"
    outcome = done(ingest, event(url))
    (task,) = tasks(outcome)
    assert task == DownloadTask(
        trace_id=TRACE,
        attachment_id=attachments.attachment_id(TRACE, attachments.parse_link(url)),
        attachment_url=url,
        blob_path=f"estimatePackageReceived/05QK7ZD/{TRACE}/05QK7ZD_2_GENERIC.PDF",
        status_subtype="estimatePackageReceived",
        file_type="PDF",
        assignment_id="05QK7ZD",
        estimate_version="2",
        event_type="xact",
        event_subtype="estimatePackageReceived",
        original_timestamp="2026-01-05T14:22:31.480000Z",
        expires_at="2026-01-06T14:22:30Z",
    )
    (pending,) = of(outcome, Stream.PENDING)
    assert pending.key == TRACE.encode()
    assert headers_of(pending) == {"trace_id": TRACE, "source": "local"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2026-01-05T14:22:31", "2026-01-05T14:22:31Z"),
        ("2026-01-05T14:22:31Z", "2026-01-05T14:22:31Z"),
        ("2026-01-05T14:22:31+00:00", "2026-01-05T14:22:31Z"),
        ("2026-01-05T07:22:31-07:00", "2026-01-05T14:22:31Z"),
        ("2026-01-05T14:22:31.4Z", "2026-01-05T14:22:31.400000Z"),
        ("2026-01-05T14:22:31.48", "2026-01-05T14:22:31.480000Z"),
        ("2026-01-05T14:22:31.480+00:00", "2026-01-05T14:22:31.480000Z"),
        ("2026-01-05T14:22:31.4801Z", "2026-01-05T14:22:31.480100Z"),
        ("2026-01-05T14:22:31.48012Z", "2026-01-05T14:22:31.480120Z"),
        ("2026-01-05T14:22:31.480123Z", "2026-01-05T14:22:31.480123Z"),
        ("2026-01-05T14:22:31.4801239Z", "2026-01-05T14:22:31.480123Z"),
        (" 2026-01-05 14:22:31 ", "2026-01-05T14:22:31Z"),
    ],
)
def test_a_time_is_taken_with_0_to_7_digits_and_is_utc_without_an_offset(
    ingest: Ingest, given: str, expected: str
) -> None:
    assert task_of(ingest, f"{HOST}/a.pdf", utcDateTime=given).original_timestamp == expected


def test_numbers_where_text_is_expected_are_text(ingest: Ingest) -> None:
    data = {"assignmentId": 4711, "estimateVersion": 3, "attachments": [f"{HOST}/a.pdf"]}
    task = task_of(ingest, traceId=99, data=data)
    assert (task.trace_id, task.assignment_id, task.estimate_version) == ("99", "4711", "3")
    assert task.blob_path == "estimatePackageReceived/4711/99/4711_3_a.pdf"


def test_data_as_json_text_becomes_an_object_and_the_rest_of_the_event_is_kept(ingest: Ingest) -> None:
    inner = {"assignmentId": "A1", "attachments": [f"{HOST}/a.pdf"], "big": 12345678901234567890123}
    outcome = done(ingest, event(data=json.dumps(inner), extra={"x": [None, 1.5]}))
    (ingested,) = of(outcome, Stream.INGESTED)
    assert json.loads(ingested.value) == event(data=inner, extra={"x": [None, 1.5]})
    assert tasks(outcome)[0].assignment_id == "A1"


@pytest.mark.parametrize("data", ["", "  ", None, ...])
def test_an_event_without_data_is_an_event_without_attachments(ingest: Ingest, data: object) -> None:
    outcome = done(ingest, event(data=data))
    assert [output.stream for output in outcome.outputs] == [Stream.INGESTED]


def test_a_trace_id_in_capitals_is_the_same_event(ingest: Ingest) -> None:
    first, second = ingest.outcomes(event(traceId=TRACE.upper()), event())
    assert isinstance(first, Done)
    assert isinstance(second, Done)
    assert (first.kind, second.kind) == ("done", "duplicate")
    assert first.outputs[0].key == TRACE.encode()
    assert second.outputs == ()


def test_a_trace_id_that_is_no_uuid_keeps_its_capitals(ingest: Ingest) -> None:
    kinds = [o.kind for o in ingest.outcomes(event(traceId="Ab"), event(traceId="aB")) if isinstance(o, Done)]
    assert kinds == ["done", "done"]


def test_text_with_a_nul_character_passes_and_is_no_part_of_a_path(ingest: Ingest) -> None:
    data = {"assignmentId": "a\0b", "note": "x\0", "attachments": [f"{HOST}/a.pdf"]}
    task = task_of(ingest, traceId="t\0r", type="x.y\0z", data=data)
    assert task.blob_path == "y_z/a_b/t_r/a_b_a.pdf"


def test_an_event_of_one_megabyte_is_an_event(ingest: Ingest) -> None:
    outcome = done(ingest, event(data={"note": "x" * (1 << 20)}))
    assert len(outcome.outputs[0].value) > 1 << 20


def test_an_event_without_an_arrival_time_arrives_now(ingest: Ingest) -> None:
    outcome = done(ingest, record(event(), timestamp=-1))
    assert outcome.outputs[0].timestamp == NOW.timestamp() * 1000


# Events that are none.


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", "not_json"),
        (b"not json", "not_json"),
        (b'{"traceId":"x"', "not_json"),
        (b'\xff\xfe{"a":1}', "not_json"),
        (b'\xef\xbb\xbf{"a":1}', "not_json"),
        (b'{"traceId":"\\ud800"}', "not_json"),
        (b'{"traceId":"x","version":1e999}', "not_json"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "not_json"),
        (b"[]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"null", "not_an_object"),
        (event(traceId=...), "no_trace_id"),
        (event(traceId=None), "no_trace_id"),
        (event(traceId=""), "no_trace_id"),
        (event(traceId=["x"]), "no_trace_id"),
        (event(traceId="x" * 513), "trace_id_too_long"),
        (event(type=...), "no_type"),
        (event(type=""), "no_type"),
        (event(type={}), "no_type"),
        (event(utcDateTime=...), "no_time"),
        (event(utcDateTime=None), "no_time"),
        (event(utcDateTime={}), "no_time"),
        (event(utcDateTime="yesterday"), "bad_time"),
        (event(utcDateTime=""), "bad_time"),
        (event(utcDateTime="2026-13-05T00:00:00Z"), "bad_time"),
        (event(utcDateTime="0001-01-01T00:00:00+05:00"), "bad_time"),
        (event(data=[1]), "bad_data"),
        (event(data=7), "bad_data"),
        (event(data="[1]"), "bad_data"),
        (event(data="{"), "bad_data"),
        (event(data={"attachments": [f"{HOST}/a.pdf"]}), "no_assignment_id"),
        (event(data={"assignmentId": "", "attachments": [f"{HOST}/a.pdf"]}), "no_assignment_id"),
        (event(data={"assignmentId": {}, "attachments": f"{HOST}/a.pdf"}), "no_assignment_id"),
    ],
)
def test_an_event_that_cannot_be_read_or_is_invalid_is_poison(ingest: Ingest, value: Any, code: str) -> None:
    assert refused(ingest, value).code == code


def test_an_invalid_event_does_not_make_a_later_valid_one_a_duplicate(ingest: Ingest) -> None:
    refused(ingest, event(utcDateTime="yesterday"))
    refused(ingest, event(data={"attachments": [f"{HOST}/a.pdf"]}))
    assert done(ingest, event()).kind == "done"


# Unexpected exceptions.


def test_an_unexpected_exception_is_a_bug_of_one_record_and_the_next_go_on(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> list[str]:
        raise ZeroDivisionError("by zero")

    with monkeypatch.context() as patched:
        patched.setattr(ingest_stage, "canonical", broken)
        first, second = ingest.outcomes(event(), b"not json")
    assert isinstance(first, Failed)
    assert isinstance(first.error, BugError)
    assert "ZeroDivisionError: by zero" in str(first.error)
    assert isinstance(second, Failed)
    assert isinstance(second.error, PoisonError)
    assert "Traceback" in caplog.text


def test_an_event_that_met_a_bug_after_it_was_judged_is_no_duplicate_when_it_is_tried_again(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> attachments.Link:
        raise ZeroDivisionError("by zero")

    given = record(event(f"{HOST}/a.pdf"))
    with monkeypatch.context() as patched:
        patched.setattr(attachments, "parse_link", broken)
        (first,) = ingest.outcomes(given)
    assert isinstance(first, Failed)
    (again,) = ingest.outcomes(given)
    assert isinstance(again, Done)
    assert (again.kind, len(tasks(again))) == ("done", 1)
    assert kinds(ingest, event()) == ["duplicate"]


def test_draining_and_closing_keep_nothing_back(ingest: Ingest) -> None:
    ingest.stage.submit([record(event())])
    ingest.stage.drain()
    assert ingest.stage.in_flight == 1
    assert len(ingest.stage.poll(0)) == 1
    ingest.stage.close()
    assert ingest.stage.in_flight == 0

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest

from pipelined.config.tree import Urls
from pipelined.errors import BugError, PoisonError
from pipelined.fetch.policy import UrlPolicy
from pipelined.messages import attachments
from pipelined.messages.task import DownloadTask, Result
from pipelined.stages import ingest as ingest_stage
from pipelined.stages.contract import Done, Failed, Outcome, Output, Record, Stream
from pipelined.stages.failures import Envelope
from pipelined.stages.ingest import IngestStage
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child
from records import ARRIVED, HOST, P0, P1, TRACE, event, headers_of, record, slot

NOW = dt.datetime(2026, 1, 5, 15, 0, tzinfo=dt.UTC)
SIGNED = "X-Amz-Date=20260105T142230Z&X-Amz-Expires=86400&X-Amz-Signature=abc"


class Ingest:
    """An ingest stage that owns both partitions, and what it is told to read back."""

    def __init__(self, hours: float = 24.0) -> None:
        self.admitted: dict[int, list[tuple[bytes, int]]] = {}
        self.before: list[bytes] = []
        self.brought_by = b"local"
        self.stats: Child = slot()
        self.stage = IngestStage(
            domain="xact",
            horizon_hours=hours,
            largest=4194304,
            policy=UrlPolicy(Urls()),
            envelope=Envelope("event-ingester", "t.event-ingester", "h1"),
            history=self._history,
            stats=self.stats,
            clock=NOW.timestamp,
        )
        self.stage.assigned([P0, P1])

    def _history(self, numbers: Sequence[int]) -> Iterable[ingest_stage.Past]:
        if self.before:
            yield None, self.before, [ARRIVED] * len(self.before), [self.brought_by] * len(self.before)
        for number in numbers:
            found = self.admitted.get(number, [])
            sources = [self.brought_by] * len(found)
            yield number, [key for key, _ in found], [arrival for _, arrival in found], sources

    def outcomes(self, *values: Any) -> list[Outcome]:
        given = [v if isinstance(v, Record) else record(v, n) for n, v in enumerate(values)]
        self.stage.submit(given)
        assert self.stage.in_flight == len(given)
        found = self.stage.poll(0)
        assert [outcome.record for outcome in found] == given
        return found


@pytest.fixture
def ingest() -> Ingest:
    return Ingest()


def done(ingest: Ingest, value: Any) -> Done:
    (outcome,) = ingest.outcomes(value)
    assert isinstance(outcome, Done), outcome
    return outcome


def refused(ingest: Ingest, value: Any) -> PoisonError:
    (outcome,) = ingest.outcomes(value)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, PoisonError)
    assert outcome.task is None
    return outcome.error


def tasks(outcome: Done) -> list[DownloadTask]:
    return [
        msgspec.json.decode(output.value, type=DownloadTask)
        for output in outcome.outputs
        if output.stream == Stream.PENDING
    ]


def task_of(ingest: Ingest, *urls: Any, **changes: Any) -> DownloadTask:
    (found,) = tasks(done(ingest, event(*urls, **changes)))
    return found


def results(outcome: Done) -> list[Result]:
    return [
        msgspec.json.decode(output.value, type=Result)
        for output in outcome.outputs
        if output.stream == Stream.RESULTS
    ]


def of(outcome: Done, stream: str) -> list[Output]:
    return [output for output in outcome.outputs if output.stream == stream]


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


# Attachments.


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


# Deduplication.


def kinds(ingest: Ingest, *values: Any) -> list[str]:
    return [o.kind for o in ingest.outcomes(*values) if isinstance(o, Done)]


def test_duplicates_are_found_within_a_batch_and_across_batches(ingest: Ingest) -> None:
    other = event(traceId="other")
    assert kinds(ingest, event(), event(), other) == ["done", "duplicate", "done"]
    assert kinds(ingest, other, event()) == ["duplicate", "duplicate"]
    ingest.stage.committed([])
    assert ingest.stats.gauge(metrics.KNOWN_IDS) == 2


def test_a_duplicate_leads_to_no_task_again(ingest: Ingest) -> None:
    ingest.outcomes(event(f"{HOST}/a.pdf"))
    assert done(ingest, event(f"{HOST}/b.pdf")).outputs == ()


def test_what_the_partition_admitted_before_is_known_when_it_is_assigned() -> None:
    ingest = Ingest()
    ingest.admitted = {0: [(TRACE.encode(), ARRIVED - 3_600_000), (b"plain", ARRIVED)]}
    ingest.stage.forget([P0])
    ingest.stage.assigned([P0])
    assert kinds(ingest, event(), event(traceId="plain"), event(traceId="new")) == [
        "duplicate",
        "duplicate",
        "done",
    ]
    assert kinds(ingest, record(event(), partition=P1)) == ["done"]


def test_a_partition_that_went_and_came_back_is_judged_by_what_was_committed_meanwhile(
    ingest: Ingest,
) -> None:
    assert kinds(ingest, event(traceId="never-committed")) == ["done"]
    ingest.stage.submit([record(event(traceId="dropped"))])
    ingest.stage.forget([P0])
    assert ingest.stage.poll(0) == []
    assert ingest.stats.gauge(metrics.KNOWN_IDS) == 0
    ingest.admitted = {0: [(b"by-another-member", ARRIVED)]}
    ingest.stage.assigned([P0])
    assert kinds(ingest, event(traceId="by-another-member"), event(traceId="never-committed")) == [
        "duplicate",
        "done",
    ]


def test_what_is_read_back_beyond_the_horizon_is_forgotten() -> None:
    ingest = Ingest(hours=1)
    ingest.admitted = {0: [(TRACE.encode(), ARRIVED - 2 * 3_600_000), (b"new", ARRIVED)]}
    ingest.stage.forget([P0])
    ingest.stage.assigned([P0])
    assert kinds(ingest, event()) == ["done"]


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


def test_what_any_partition_admitted_before_the_topic_grew_is_a_duplicate(ingest: Ingest) -> None:
    ingest.before = [TRACE.encode()]
    ingest.stage.assigned([P0])
    assert done(ingest, event()).kind == "duplicate"
    assert ingest.stats.gauge(metrics.KNOWN_IDS) == 0

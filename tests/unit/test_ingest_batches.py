"""A batch is judged as its records are, one by one: the same outcomes, the same memory, the same counts."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelined.config.tree import Urls
from pipelined.fetch.policy import UrlPolicy
from pipelined.local.generator import Day
from pipelined.messages import attachments
from pipelined.stages import failures
from pipelined.stages.contract import Failed, Headers, Outcome, Partition, Record
from pipelined.stages.failures import Envelope
from pipelined.stages.ingest import IngestStage
from pipelined.stats import registry as metrics
from records import ARRIVED, HOST, P0, P1, TRACE, event, slot

NOW = dt.datetime(2026, 1, 5, 15, 0, tzinfo=dt.UTC)
HOUR = 3_600_000
LARGEST = 4000
NOT_OURS = Partition("t.in", 7)
BUG = f"{HOST}/bug.pdf"
EXPIRED = f"{HOST}/old.pdf?X-Amz-Date=20260104T142230Z&X-Amz-Expires=60&X-Amz-Signature=x"


def _file(name: str, **changes: Any) -> dict[str, Any]:
    return event(f"{HOST}/{name}.pdf", **changes)


WRONG: list[Any] = [..., "", {}]
#: Every way in which an event can be one or not, most of them of a few trace ids, so that they collide.
EVENTS: list[Any] = [
    # Valid, new or duplicate.
    event(),
    event(traceId=TRACE.upper()),
    event(traceId="Other"),
    event(traceId="other", data=None),
    event(traceId=7, data=json.dumps({"assignmentId": "A", "attachments": f"{HOST}/a.pdf"})),
    event(data={"assignmentId": 5, "estimateVersion": 2.5, "attachments": [f"{HOST}/a.pdf", None, ""]}),
    event(data={"note": "é" * 50}, utcDateTime="2026-01-05T07:22:31-07:00"),
    _file("a"),
    _file("b", traceId="other"),
    event(f"{HOST}/a.pdf", f"{HOST}/a.pdf#1", f"{HOST}/k/a.pdf", type="x.firstNoticeOfLossReceived"),
    # With attachments that are refused, all or some.
    event("https://evil.example/a.pdf", f"{HOST}/a b.pdf", f"{HOST}/ok.pdf", traceId="refused"),
    event(EXPIRED, 7, {"url": "x"}, traceId="refused"),
    event(EXPIRED, traceId="expired"),
    # No events.
    b"",
    b"not json",
    b"[]",
    b'{"traceId":"x"',
    b'{"type":"\xff\xfe"}',
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    *(event(**{name: wrong}) for name in ("traceId", "type", "utcDateTime") for wrong in WRONG),
    event(traceId="x" * 513),
    event(utcDateTime="0001-01-01T00:00:00+05:00"),
    event(data=[1]),
    event(data="{"),
    event(data={"attachments": [f"{HOST}/a.pdf"]}),
    event(data={"assignmentId": "A", "note": "x" * LARGEST}),
    event(data=json.dumps({"note": "x" * LARGEST})),
    # A bug of ours.
    event(BUG),
    event(f"{HOST}/a.pdf", BUG, traceId="other"),
]
VALUES = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in EVENTS]
HEADERS: list[Headers] = [
    [],
    [("source", b"eventhub"), ("line", b"1")],
    [("source", b"\xff")],
    [("source", b""), ("source", None)],
]
ARRIVALS = [ARRIVED, ARRIVED, ARRIVED + HOUR, ARRIVED - 30 * HOUR, ARRIVED + 40 * HOUR, 0, -1]


@pytest.fixture(scope="module", autouse=True)
def _fixed() -> Iterator[None]:
    """One time of day in all that is written, and a URL at which the stage breaks."""
    parse_link = attachments.parse_link

    def broken(url: str) -> attachments.Link:
        if url == BUG:
            raise ZeroDivisionError("by zero")
        return parse_link(url)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(attachments, "parse_link", broken)
        patched.setattr(failures, "iso_now", lambda: "2026-01-05T15:00:00.000Z")
        yield


class Ingest:
    """A stage, and everything that can be seen of it."""

    def __init__(self, policy: UrlPolicy, now: dt.datetime = NOW) -> None:
        self.stats = slot()
        self._stage = IngestStage(
            domain="xact",
            horizon_hours=24.0,
            largest=LARGEST,
            policy=policy,
            envelope=Envelope("event-ingester", "t.event-ingester", "h1"),
            history=lambda _: (),
            stats=self.stats,
            clock=now.timestamp,
        )
        self._stage.assigned([P0, P1])

    def take(self, batches: Iterable[Sequence[Record]]) -> list[object]:
        """What these batches led to, in a form that can be compared, and what was counted."""
        seen: list[object] = []
        for batch in batches:
            self._stage.submit(batch)
            outcomes = self._stage.poll(0)
            assert [outcome.record for outcome in outcomes] == list(batch)
            seen += [_visible(outcome) for outcome in outcomes]
        self._stage.committed([])
        return [*seen, self.stats.counter(metrics.REJECTED), self.stats.gauge(metrics.KNOWN_IDS)]


def _visible(outcome: Outcome) -> object:
    if isinstance(outcome, Failed):
        return type(outcome.error), outcome.error.code, str(outcome.error), outcome.task
    return outcome.kind, list(outcome.outputs)


def _cut(records: list[Record], sizes: list[int]) -> list[list[Record]]:
    batches: list[list[Record]] = []
    while records:
        size = sizes[len(batches) % len(sizes)]
        batches.append(records[:size])
        records = records[size:]
    return batches


RECORDS = st.lists(
    st.builds(
        Record,
        st.sampled_from([P0, P0, P0, P1, P1, NOT_OURS]),
        st.integers(0, 9),
        st.none(),
        st.sampled_from(VALUES),
        st.sampled_from(HEADERS),
        st.sampled_from(ARRIVALS),
    ),
    max_size=30,
)


@given(RECORDS, st.lists(st.integers(1, 30), min_size=1, max_size=3))
def test_a_batch_leads_to_what_its_records_lead_to_one_by_one(
    records: list[Record], sizes: list[int]
) -> None:
    policy = UrlPolicy(Urls())
    together, alone = Ingest(policy), Ingest(policy)
    assert together.take(_cut(records, sizes)) == alone.take([record] for record in records)
    # What each remembers of them is the same, too.
    assert together.take([records]) == alone.take([record] for record in records)


@pytest.mark.parametrize("value", VALUES)
def test_every_kind_of_event_is_judged_among_others_as_alone(value: bytes) -> None:
    policy = UrlPolicy(Urls())
    others = [Record(P0, n, None, json.dumps(event(traceId=f"n{n}")).encode(), [], ARRIVED) for n in range(4)]
    given_one = Record(P0, 9, None, value, [], ARRIVED)
    batch = [*others[:2], given_one, *others[2:], given_one]
    together, alone = Ingest(policy).take([batch]), Ingest(policy).take([record] for record in batch)
    assert together == alone


def test_an_event_that_is_forgotten_within_a_batch_is_new_again_with_all_its_attachments() -> None:
    value, other = (json.dumps(_file("a", traceId=name)).encode() for name in ("old", "young"))
    late = ARRIVED + 40 * HOUR
    records = [Record(P0, n, None, v, [], at) for n, (v, at) in enumerate([(other, late), (value, late)])]
    policy = UrlPolicy(Urls())
    together, alone = Ingest(policy), Ingest(policy)
    for ingest in (together, alone):
        ingest.take([[Record(P0, 9, None, value, [], ARRIVED)]])
    found = together.take([records])
    assert found == alone.take([record] for record in records)
    assert [len(seen[1]) for seen in found if isinstance(seen, tuple)] == [2, 2]


def test_a_generated_day_is_judged_in_batches_as_line_by_line() -> None:
    policy = UrlPolicy(Urls(allow_http=True, allowed_hosts=("127.0.0.1",), allowed_ports=(1,)))
    lines = Day(1500, 11, "http://127.0.0.1:1", "http://127.0.0.2:1", start=NOW).lines()
    records = [
        Record((P0, P1)[n // 100 % 2], n, None, line, HEADERS[n % 2], ARRIVED + n)
        for n, line in enumerate(lines)
    ]
    together, alone = Ingest(policy), Ingest(policy)
    found = together.take(_cut(records, [700, 1, 300]))
    assert found == alone.take([record] for record in records)
    kinds = [seen[0] for seen in found if isinstance(seen, tuple)]
    assert {"done", "duplicate"} < set(kinds)
    assert together.stats.counter(metrics.REJECTED) > 0

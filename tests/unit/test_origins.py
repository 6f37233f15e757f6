"""What each source brought, and what it alone brought so far: counted once, when it is committed."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelined.config.tree import Urls
from pipelined.fetch.policy import UrlPolicy
from pipelined.stages import ingest as ingest_stage
from pipelined.stages.contract import Done, Headers, Outcome, Partition, Record
from pipelined.stages.failures import Envelope
from pipelined.stages.ingest import IngestStage
from pipelined.stages.origins import LOCAL, flag_of, origin
from pipelined.stats import registry as metrics
from pipelined.stats.registry import SOURCES, Metric
from records import ARRIVED, P0, P1, event, slot

NOW = dt.datetime(2026, 1, 5, 15, 0, tzinfo=dt.UTC)
HOUR = 3_600_000
POLICY = UrlPolicy(Urls())
COUNTERS = (
    metrics.SOURCE_SEEN,
    metrics.SOURCE_FIRST,
    metrics.SOURCE_DUPLICATE,
    metrics.SOURCE_MATCHED,
)


class Ingest:
    """An ingest stage, and what it has counted for each source."""

    def __init__(self) -> None:
        self.stats = slot()
        self.before: list[tuple[bytes, bytes]] = []
        self.stage = IngestStage(
            domain="xact",
            horizon_hours=24.0,
            largest=4_000_000,
            policy=POLICY,
            envelope=Envelope("event-ingester", "t.event-ingester", "h1"),
            history=self._history,
            stats=self.stats,
            clock=NOW.timestamp,
        )
        self.stage.assigned([P0, P1])

    def _history(self, numbers: Sequence[int]) -> Iterable[ingest_stage.Past]:
        keys, sources = [key for key, _ in self.before], [source for _, source in self.before]
        yield 0, keys, [ARRIVED] * len(keys), sources

    def judge(self, *brought: Record) -> list[Outcome]:
        self.stage.submit(brought)
        return self.stage.poll(0)

    def take(self, *brought: Record) -> list[str]:
        """Judge them and commit; what became of each."""
        outcomes = self.judge(*brought)
        self.stage.committed(outcomes)
        return [outcome.kind if isinstance(outcome, Done) else "refused" for outcome in outcomes]

    def counted(self, metric: Metric) -> dict[str, int]:
        counts = {source: self.stats.counter(metric, source) for source in SOURCES}
        return {source: count for source, count in counts.items() if count}

    @property
    def only_here(self) -> dict[str, int]:
        matched = self.counted(metrics.SOURCE_MATCHED)
        return {s: n - matched.get(s, 0) for s, n in self.counted(metrics.SOURCE_FIRST).items()}


def brought(source: str | None, name: str, partition: Partition = P0, offset: int = 0) -> Record:
    headers: Headers = [] if source is None else [("source", source.encode()), ("line", b"1")]
    return Record(partition, offset, None, json.dumps(event(traceId=name)).encode(), headers, ARRIVED)


def test_an_event_counts_for_the_source_that_brought_it() -> None:
    ingest = Ingest()
    given_ = [brought("eventhouse", "a"), brought("eventhub", "b"), brought(None, "c"), brought("x", "d")]
    assert ingest.take(*given_, brought("eventhub", "b")) == ["done"] * 4 + ["duplicate"]
    assert ingest.counted(metrics.SOURCE_SEEN) == {"eventhouse": 1, "eventhub": 2, "local": 1, "other": 1}
    assert ingest.counted(metrics.SOURCE_FIRST) == dict.fromkeys(SOURCES, 1)
    assert ingest.counted(metrics.SOURCE_DUPLICATE) == {"eventhub": 1}
    assert ingest.counted(metrics.SOURCE_MATCHED) == {}


def test_what_two_sources_bring_is_first_of_one_and_only_of_neither() -> None:
    ingest = Ingest()
    ingest.take(*(brought("eventhub", f"e{n}") for n in range(10)))
    assert ingest.only_here == {"eventhub": 10}
    kinds = ingest.take(*(brought("eventhouse", f"e{n}") for n in range(2, 12)))
    assert kinds == ["duplicate"] * 8 + ["done"] * 2
    assert ingest.only_here == {"eventhub": 2, "eventhouse": 2}
    assert ingest.counted(metrics.SOURCE_DUPLICATE) == {"eventhouse": 8}


def test_a_source_that_repeats_itself_has_matched_nothing() -> None:
    ingest = Ingest()
    ingest.take(brought("eventhub", "a"), brought("eventhub", "a"))
    ingest.take(brought("eventhub", "a"))
    assert ingest.only_here == {"eventhub": 1}
    assert ingest.counted(metrics.SOURCE_DUPLICATE) == {"eventhub": 2}


def test_what_others_repeat_is_matched_once() -> None:
    ingest = Ingest()
    for source in ("eventhub", "eventhouse", "eventhouse", "local", "eventhub"):
        ingest.take(brought(source, "a"))
    assert ingest.counted(metrics.SOURCE_MATCHED) == {"eventhub": 1}
    assert ingest.only_here == {"eventhub": 0}


def test_what_is_refused_was_seen_and_nothing_else() -> None:
    ingest = Ingest()
    broken = Record(P0, 3, None, b"not json", [("source", b"eventhub")], ARRIVED)
    assert ingest.take(brought("eventhub", "a"), broken) == ["done", "refused"]
    assert ingest.counted(metrics.SOURCE_SEEN) == {"eventhub": 2}
    assert ingest.counted(metrics.SOURCE_FIRST) == {"eventhub": 1}


def test_a_record_that_met_a_bug_was_seen() -> None:
    ingest = Ingest()
    not_ours = brought("eventhouse", "a", Partition("t.in", 7))
    assert ingest.take(not_ours) == ["refused"]
    assert ingest.counted(metrics.SOURCE_SEEN) == {"eventhouse": 1}


def test_nothing_counts_before_it_is_committed_and_then_once() -> None:
    ingest = Ingest()
    first = ingest.judge(brought("eventhub", "a"), brought("eventhub", "b", P1))
    second = ingest.judge(brought("eventhub", "c", offset=1))
    assert ingest.counted(metrics.SOURCE_SEEN) == {}
    ingest.stage.committed(first)
    assert ingest.counted(metrics.SOURCE_SEEN) == {"eventhub": 2}
    ingest.stage.committed(first)
    assert ingest.counted(metrics.SOURCE_SEEN) == {"eventhub": 2}
    ingest.stage.committed(second)
    assert ingest.counted(metrics.SOURCE_FIRST) == {"eventhub": 3}


def test_what_goes_to_another_owner_uncommitted_is_that_owners_to_count() -> None:
    ingest = Ingest()
    ingest.judge(brought("eventhub", "a"), brought("eventhub", "b", P1), brought("eventhub", "", P0, 1))
    ingest.stage.forget([P0])
    outcomes = ingest.judge(brought("eventhub", "c", P1))
    ingest.stage.committed(outcomes)
    assert ingest.counted(metrics.SOURCE_SEEN) == {"eventhub": 1}


def test_after_a_restart_the_first_source_of_each_event_is_known_again() -> None:
    ingest = Ingest()
    ingest.before = [(b"a", b"eventhub"), (b"b", b"eventhouse"), (b"c", b"someone")]
    ingest.stage.assigned([P0])
    ingest.take(*(brought("eventhouse", name) for name in "abcd"))
    assert ingest.counted(metrics.SOURCE_DUPLICATE) == {"eventhouse": 3}
    assert ingest.counted(metrics.SOURCE_MATCHED) == {"eventhub": 1, "other": 1}
    assert ingest.counted(metrics.SOURCE_FIRST) == {"eventhouse": 1}


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from([*SOURCES, "x"]), st.integers(0, 9), st.sampled_from([P0, P1])),
            max_size=20,
        ),
        max_size=8,
    )
)
def test_the_counters_are_those_of_a_plain_book(batches: list[list[tuple[str, int, Partition]]]) -> None:
    ingest = Ingest()
    book: dict[Metric, Counter[str]] = {metric: Counter() for metric in COUNTERS}
    sources: dict[tuple[Partition, int], list[str]] = {}
    for batch in batches:
        ingest.take(*(brought(source, f"n{name}", partition) for source, name, partition in batch))
        for named, name, partition in batch:
            source = named if named in SOURCES else "other"
            before = sources.setdefault((partition, name), [])
            book[metrics.SOURCE_SEEN][source] += 1
            book[metrics.SOURCE_DUPLICATE if before else metrics.SOURCE_FIRST][source] += 1
            if before and set(before) == {before[0]} and source != before[0]:
                book[metrics.SOURCE_MATCHED][before[0]] += 1
            before.append(source)
    assert {metric.name: ingest.counted(metric) for metric in COUNTERS} == {
        metric.name: dict(book[metric]) for metric in COUNTERS
    }


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], LOCAL),
        ([("source", b"")], LOCAL),
        ([("source", None)], LOCAL),
        ([("line", b"1")], LOCAL),
        ([("source", b"eventhub"), ("line", b"1")], (("source", b"eventhub"), flag_of(b"eventhub"))),
        ([("source", b"local"), ("source", b"eventhouse")], (("source", b"eventhouse"), 1)),
        ([("source", b"\xff")], (("source", "\ufffd".encode()), flag_of(b"whatever"))),
    ],
)
def test_the_last_source_that_is_named_counts(headers: Headers, expected: object) -> None:
    assert origin(headers) == expected

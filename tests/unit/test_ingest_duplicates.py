"""Which events the ingest stage takes for ones that it has admitted before."""

from __future__ import annotations

import pytest

from ingesting import Ingest, done, kinds
from pipelined.stats import registry as metrics
from records import ARRIVED, HOST, P0, P1, TRACE, event, record


@pytest.fixture
def ingest() -> Ingest:
    return Ingest()


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


def test_what_any_partition_admitted_before_the_topic_grew_is_a_duplicate(ingest: Ingest) -> None:
    ingest.before = [TRACE.encode()]
    ingest.stage.assigned([P0])
    assert done(ingest, event()).kind == "duplicate"
    assert ingest.stats.gauge(metrics.KNOWN_IDS) == 0

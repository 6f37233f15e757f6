"""An ingest stage in tests: what is put into it, and what of its outcomes is looked at."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pipelined.config.tree import Urls
from pipelined.errors import PoisonError
from pipelined.fetch.policy import UrlPolicy
from pipelined.messages.task import DownloadTask, Result
from pipelined.stages import ingest as ingest_stage
from pipelined.stages.contract import Done, Failed, Outcome, Output, Record, Stream
from pipelined.stages.failures import Envelope
from pipelined.stages.ingest import IngestStage
from pipelined.stats.slots import Child
from records import ARRIVED, P0, P1, event, record, slot

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


def kinds(ingest: Ingest, *values: Any) -> list[str]:
    return [o.kind for o in ingest.outcomes(*values) if isinstance(o, Done)]

"""A table put back to an older version under its worker, and while it was away: no event stays missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable
from test_table_runtime import events, named, rows, start, writing

from kafka_tools import declared, small
from pipelined.config.tree import Config, Tables
from pipelined.errors import TableRestoredError
from pipelined.lake import schemas
from pipelined.lake.tables import table_url
from pipelined.stats import registry as metrics
from waiting import until


@pytest.fixture
def filled(kafka_bootstrap: str, domain: str, tmp_path: Path) -> Iterator[Config]:
    """Thirty events stored by a worker that has ended since, each ten in a commit."""
    tables = Tables(url=(tmp_path / "tables").as_uri(), flush_seconds=0.2)
    with declared(small(kafka_bootstrap, domain, tables=tables)) as config:
        with writing(config) as worker:
            for first in (0, 10, 20):
                events(config, range(first, first + 10))
                until(lambda end=first + 10: worker.stats.counter(metrics.RECORDS_DONE, "done") == end)
        yield config


def restore(config: Config, rows_left: int) -> None:
    """Back to the first version with so many rows."""
    url = table_url(config, schemas.EVENTS)
    version = next(n for n in range(100) if DeltaTable(url, version=n).count() == rows_left)
    DeltaTable(url).restore(version)
    assert len(rows(config)) == rows_left


def test_restored_while_the_worker_was_away_the_events_are_stored_again(filled: Config) -> None:
    restore(filled, 10)
    with writing(filled):
        until(lambda: len(rows(filled)) >= 30)
    assert rows(filled) == named(range(30))


def test_restored_under_a_running_worker_it_ends_and_its_successor_fills_the_gap(filled: Config) -> None:
    worker = start(filled).ready()
    restore(filled, 20)
    events(filled, range(30, 35))
    ended = worker.ended()
    assert isinstance(ended, TableRestoredError)
    assert "stands at offset" in str(ended)
    with writing(filled):
        until(lambda: len(rows(filled)) >= 35)
    assert rows(filled) == named(range(35))

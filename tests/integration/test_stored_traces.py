"""What stands in the events table, by date: asked compactly, forgotten in time, and read again."""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from pipelined.config.tree import Config
from pipelined.config.work import Tables
from pipelined.errors import DependencyError
from pipelined.lake.schemas import EVENTS
from pipelined.lake.tables import source
from pipelined.lake.traces import Identities, StoredTraces
from pipelined.messages.identity import identity

DAY = dt.date(2026, 1, 5)
NEXT = dt.date(2026, 1, 6)


class Stored:
    """An events table in a folder, and what is asked of it by a clock of the test's own."""

    def __init__(self, folder: Path, most: int = 1_000_000) -> None:
        config = Config(tables=Tables(url=folder.as_uri()))
        self.now = 0.0
        self._source = source(config, EVENTS)
        self.traces = StoredTraces(
            self._source, "app", [("topic", 0)], lasts_s=100.0, most=most, clock=lambda: self.now
        )

    def add(self, day: dt.date, count: int) -> list[bytes]:
        self._source.open()
        names = [str(uuid.uuid4()) for _ in range(count)]
        made = pa.table({"trace_id": names, "event_date": [day] * count})
        columns = [
            made[field.name] if field.name in made.column_names else pa.nulls(count, field.type)
            for field in EVENTS.schema
        ]
        write_deltalake(self._source.location, pa.table(columns, schema=EVENTS.schema), mode="append")
        return [identity(name.encode()) for name in names]


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


@pytest.mark.parametrize("count", [0, 1, 13, 20_000])
def test_identities_are_found_and_no_others(count: int) -> None:
    given = [uuid.uuid4().bytes for _ in range(count)]
    found = Identities(b"".join(given))
    assert found.size == count
    assert all(trace in found for trace in given)
    assert not any(uuid.uuid4().bytes in found for _ in range(20_000))


def test_bytes_that_lie_across_two_identities_are_none_of_them() -> None:
    joined = bytes(range(160))
    found = Identities(joined)
    for at in range(len(joined) - 15):
        assert (joined[at : at + 16] in found) == (at % 16 == 0)


def test_what_is_under_a_date_is_known_and_under_another_it_is_not(stored: Stored) -> None:
    there = stored.add(DAY, 50)
    other = stored.add(NEXT, 10)
    assert stored.traces.lacks([DAY, NEXT])
    assert stored.traces.look() == {("topic", 0): 0}
    assert stored.traces.known(DAY, [*there, other[0]]) == [True] * 50 + [False]
    assert stored.traces.known(NEXT, other) == [True] * 10
    assert not stored.traces.lacks([DAY, NEXT])
    assert stored.traces.held == 60


def test_a_table_that_is_not_there_holds_nothing(stored: Stored) -> None:
    assert stored.traces.look() == {("topic", 0): 0}
    assert stored.traces.known(DAY, [uuid.uuid4().bytes]) == [False]


def test_a_reading_is_good_for_its_time_and_made_anew_then(stored: Stored) -> None:
    stored.add(DAY, 5)
    stored.traces.look()
    stored.traces.known(DAY, [])
    later = stored.add(DAY, 5)
    stored.now = 99.0
    assert not stored.traces.lacks([DAY])
    assert stored.traces.known(DAY, later) == [False] * 5
    stored.now = 101.0
    assert stored.traces.lacks([DAY])
    stored.traces.look()
    assert stored.traces.known(DAY, later) == [True] * 5


def test_of_more_than_may_be_held_the_least_recently_used_dates_are_read_again(tmp_path: Path) -> None:
    stored = Stored(tmp_path, most=25)
    days = [DAY + dt.timedelta(days=number) for number in range(6)]
    there = {day: stored.add(day, 10) for day in days}
    stored.traces.look()
    for _ in range(2):
        for day in days:
            if stored.traces.lacks([day]):
                stored.traces.look()
            assert stored.traces.known(day, there[day]) == [True] * 10
            assert stored.traces.held <= 25


def test_a_table_that_cannot_be_read_says_so(stored: Stored, tmp_path: Path) -> None:
    there = stored.add(DAY, 5)
    stored.traces.look()
    for file in tmp_path.rglob("*.parquet"):
        file.unlink()
    with pytest.raises(DependencyError, match="cannot be read"):
        stored.traces.known(DAY, there)
    assert stored.traces.lacks([DAY]), "half a reading is none"

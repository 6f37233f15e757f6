"""The loop of the Kafka → Delta workers: a real Kafka, a real table, and ends in the middle of everything."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from kafka_tools import DEADLINE, Working, committed, declared, produce, read, small
from pipelined.config.tree import Config, Tables
from pipelined.errors import ConfigError, DependencyError, PipelinedError
from pipelined.kafka.settings import Names
from pipelined.lake import schemas
from pipelined.lake.sink import Chunk, Committed, DeltaSink
from pipelined.lake.tables import sink, table_url
from pipelined.messages.codec import encode
from pipelined.stages.contract import Record, Stream
from pipelined.stages.events_table import EventRows
from pipelined.stages.failures import Envelope
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child
from pipelined.workers.tables import CommitObserver, Converted, TableRuntime
from records import event
from waiting import until

BAD = b"\xff not json"


class Killed(BaseException):
    """The process is gone in this moment."""


class Sink:
    """A real sink that does as the test says before and after its commits."""

    def __init__(self, real: DeltaSink, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._real = real
        self._before = before
        self._after = after
        self.url = real.url
        self.open = real.open
        self.positions = real.positions
        self.close = real.close

    def commit(self, chunks: Sequence[Chunk]) -> Committed:
        self._before()
        done = self._real.commit(chunks)
        self._after()
        return done


def nothing() -> None:
    """Nothing happens."""


@pytest.fixture
def config(kafka_bootstrap: str, domain: str, tmp_path: Path) -> Iterator[Config]:
    tables = Tables(url=(tmp_path / "tables").as_uri(), flush_seconds=0.2)
    with declared(small(kafka_bootstrap, domain, tables=tables)) as made:
        yield made


def start(
    config: Config,
    *,
    before: Callable[[], None] = nothing,
    after: Callable[[], None] = nothing,
    index: int = 0,
) -> Working:
    rows = EventRows(schemas.EVENTS.schema)
    app = Names(config).group("event-writer")

    def convert(records: Sequence[Record]) -> Converted:
        found = rows.convert(list(records))
        return Converted([found.rows], found.poison, found.misshapen.total())

    def make(stats: Child, should_stop: Callable[[], bool]) -> TableRuntime:
        real = sink(config, schemas.EVENTS, app=app, observer=CommitObserver(stats))
        return TableRuntime(
            config,
            worker_type="event-writer",
            index=0,
            stream=Stream.INGESTED,
            convert=convert,
            sinks=[cast(DeltaSink, Sink(real, before, after))],
            envelope=Envelope("event-writer", app, "h1"),
            stats=stats,
            should_stop=should_stop,
        )

    return Working(make)


@contextmanager
def writing(config: Config, before: Callable[[], None] = nothing) -> Iterator[Working]:
    worker = start(config, before=before)
    try:
        yield worker.ready()
    finally:
        worker._stop.set()
        worker._thread.join(DEADLINE)
        assert not worker.alive


@contextmanager
def killed(
    config: Config, at: int, *, before: Callable[[], None] = nothing, after: Callable[[], None] = nothing
) -> Iterator[None]:
    """A worker that is gone when it stores its first ``at`` records: nothing is committed or left by it."""
    tables = dataclasses.replace(config.tables, flush_seconds=1e9, flush_rows=at)
    worker = start(dataclasses.replace(config, tables=tables), before=before, after=after)
    member = worker.runtime._member
    leave, member.close = member.close, nothing
    assert isinstance(worker.ended(), Killed)
    try:
        yield  # its successor takes its place, as after a real kill
    finally:
        leave()


def once(error: BaseException) -> Callable[[], None]:
    """Raise it at the first call, and never again."""
    left = [error]

    def hook() -> None:
        if left:
            raise left.pop()

    return hook


def events(config: Config, numbers: range, *bad_at: int) -> None:
    """Events named by their numbers, and unreadable bytes instead of those of ``bad_at``."""
    values = [BAD if n in bad_at else encode(event(traceId=f"n{n}")) for n in numbers]
    produce(config, Stream.INGESTED, values, headers=[("source", b"local")])


def rows(config: Config) -> list[str]:
    location = table_url(config, schemas.EVENTS).removeprefix("file://")
    if not DeltaTable.is_deltatable(location):
        return []
    scan: Any = DeltaTable(location).scan(columns=["trace_id"])
    return sorted(pa.RecordBatchReader.from_stream(scan).read_all().column("trace_id").to_pylist())


def named(numbers: range, *without: int) -> list[str]:
    return sorted(f"n{n}" for n in numbers if n not in without)


def next_offsets(config: Config) -> dict[int, int]:
    of_group = committed(config, "event-writer", Stream.INGESTED)
    return {number: offset for number, (offset, _) in of_group.items()}


def test_each_event_is_a_row_once_and_the_broker_is_told_how_far_the_table_is(config: Config) -> None:
    events(config, range(100))
    with writing(config) as worker:
        until(lambda: worker.stats.counter(metrics.RECORDS_DONE, "done") == 100)
        events(config, range(100, 110))
        until(lambda: worker.stats.counter(metrics.RECORDS_DONE, "done") == 110)
        until(lambda: next_offsets(config) == {0: 55, 1: 55})
    assert rows(config) == named(range(110))
    with writing(config) as worker:
        events(config, range(110, 112))
        until(lambda: worker.stats.counter(metrics.RECORDS_DONE, "done") == 2)
    assert rows(config) == named(range(112))


def test_told_to_stop_it_stores_what_it_has_taken(kafka_bootstrap: str, domain: str, tmp_path: Path) -> None:
    tables = Tables(url=(tmp_path / "tables").as_uri(), flush_seconds=1e9)
    with declared(small(kafka_bootstrap, domain, tables=tables)) as config:
        events(config, range(10))
        with writing(config) as worker:
            until(lambda: worker.stats.counter(metrics.RECORDS_IN) == 10)
            worker.stop()
        taken = worker.stats.counter(metrics.RECORDS_DONE, "done")
        assert (taken, rows(config)) == (10, named(range(10)))


def test_a_quiet_time_is_flushed_by_age(config: Config) -> None:
    with writing(config) as worker:
        events(config, range(1))
        began = time.monotonic()
        until(lambda: worker.stats.counter(metrics.RECORDS_DONE, "done") == 1)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("hook", ["before", "after"])
def test_killed_before_or_after_the_tables_commit_each_row_is_there_once(config: Config, hook: str) -> None:
    events(config, range(40))
    with killed(config, 40, **{hook: once(Killed())}):
        assert len(rows(config)) == (40 if hook == "after" else 0)
        events(config, range(40, 60))
        with writing(config) as worker:
            until(lambda: len(rows(config)) >= 60)
            until(lambda: worker.stats.gauge(metrics.LAG) == 0)
    assert rows(config) == named(range(60))


def test_a_killed_worker_that_never_told_the_broker_is_not_missed_by_the_table(config: Config) -> None:
    events(config, range(10))
    with killed(config, 10, after=once(Killed())):
        assert next_offsets(config)[0] == -1001
        with writing(config) as worker:
            events(config, range(10, 12))
            until(lambda: next_offsets(config) == {0: 6, 1: 6})
            assert worker.stats.counter(metrics.RECORDS_IN) == 2, "it began where the table ended"
    assert rows(config) == named(range(12))


def test_an_unreadable_record_is_a_dead_letter_once_with_its_bytes_and_the_others_are_rows(
    config: Config,
) -> None:
    events(config, range(20), 6)
    with writing(config) as worker:
        until(lambda: worker.stats.counter(metrics.RECORDS_DONE, "done") == 19)
        assert worker.stats.counter(metrics.DEAD_LETTERS, "poison") == 1
        until(lambda: next_offsets(config)[0] == 10)
    note = committed(config, "event-writer", Stream.INGESTED)[0][1]
    assert note is not None
    assert note.dead == 4
    assert rows(config) == named(range(20), 6)
    (letter,) = read(config, Stream.DLQ)
    assert letter.value == BAD
    origin = [letter.header(f"dlq_origin_{name}") for name in ("topic", "partition", "offset")]
    assert origin == [Names(config).topic(Stream.INGESTED), "0", "3"]
    assert letter.header("source") == "local"


def test_killed_between_dead_letter_and_table_it_is_not_written_again(
    config: Config,
) -> None:
    events(config, range(20), 6, 11)
    with killed(config, 20, before=once(Killed())):
        assert [letter.value for letter in read(config, Stream.DLQ)] == [BAD, BAD]
        assert rows(config) == []
        events(config, range(20, 30), 25)
        with writing(config) as worker:
            until(lambda: worker.stats.counter(metrics.RECORDS_DONE, "done") == 27)
    assert rows(config) == named(range(30), 6, 11, 25)
    letters = read(config, Stream.DLQ)
    places = [
        tuple(letter.header(f"dlq_origin_{name}") for name in ("partition", "offset")) for letter in letters
    ]
    assert sorted(places) == [("0", "3"), ("1", "12"), ("1", "5")]


def test_nothing_but_poison_moves_the_tables_position_on_too(config: Config) -> None:
    events(config, range(4), 0, 1, 2, 3)
    with writing(config) as worker:
        until(lambda: worker.stats.counter(metrics.RECORDS_DONE, "dead") == 4)
    with writing(config) as worker:
        events(config, range(4, 6))
        until(lambda: worker.stats.counter(metrics.RECORDS_DONE, "done") == 2)
        assert worker.stats.counter(metrics.RECORDS_IN) == 2
    assert len(read(config, Stream.DLQ)) == 4


def test_while_the_table_is_out_of_reach_it_pauses_and_then_stores_everything(config: Config) -> None:
    down = True

    def before() -> None:
        if down:
            raise DependencyError("table_unavailable", "the store does not answer")

    events(config, range(50))
    with writing(config, before=before) as worker:
        until(lambda: worker.stats.counter(metrics.PAUSES) >= 3)
        assert worker.stats.gauge(metrics.PAUSED) == 1
        assert rows(config) == []
        events(config, range(50, 100))
        down = False
        until(lambda: worker.stats.counter(metrics.RECORDS_DONE, "done") == 100)
        assert worker.stats.gauge(metrics.PAUSED) == 0
    assert rows(config) == named(range(100))
    assert read(config, Stream.DLQ) == []


def test_a_table_that_is_out_of_reach_at_the_start_is_waited_for_and_then_no_pause_is_shown(
    config: Config,
) -> None:
    worker = start(config)
    real, left = worker.runtime._sinks[0].open, [1, 2]

    def opening() -> None:
        if left:
            left.pop()
            raise DependencyError("table_unavailable", "the store does not answer")
        real()

    worker.runtime._sinks[0].open = opening
    try:
        worker.ready()
        assert worker.stats.gauge(metrics.PAUSED) == 0, "nothing is paused, though nothing came yet"
    finally:
        worker.stop()


def test_a_table_that_is_ahead_of_its_topic_is_refused_and_no_record_taken_for_stored(config: Config) -> None:
    events(config, range(4))
    real = sink(config, schemas.EVENTS, app=Names(config).group("event-writer"))
    real.open()
    place = (Names(config).topic(Stream.INGESTED), 0)
    real.commit([Chunk(place, 500, schemas.EVENTS.schema.empty_table(), [])])
    error = start(config).ended()
    assert isinstance(error, ConfigError)
    assert "up to offset 500" in str(error)


def test_what_can_never_be_stored_ends_the_worker_with_its_error(config: Config) -> None:
    def before() -> None:
        raise PipelinedError("the columns do not fit")

    events(config, range(2))
    worker = start(config, before=before)
    error = worker.ended()
    assert isinstance(error, PipelinedError)
    assert rows(config) == []
    with writing(config) as again:
        until(lambda: again.stats.counter(metrics.RECORDS_DONE, "done") == 2)
    assert rows(config) == named(range(2))

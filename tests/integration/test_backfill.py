"""A range of the Eventhouse's table on the real Kafka: each row of it once, but for those that are known."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from eventhouse_table import Event, Table, events
from kafka_tools import declared, produce, read, small
from pipelined.config.tree import Config
from pipelined.config.work import Ingest, Tables
from pipelined.errors import AuthError, ConfigError, DependencyError, FencedError, UsageError
from pipelined.kafka.checkpoints import read_checkpoint
from pipelined.lake.schemas import EVENTS
from pipelined.lake.tables import source
from pipelined.local.eventhouse import Eventhouse
from pipelined.sources.eventhouse.range import Backfilled, Range, RangeReader
from pipelined.stages.contract import Stream
from pipelined.workers.backfill import Backfill, Filled
from waiting import until

#: Of an ingestion time, in ns: 2026-01-05T14:00:00Z.
HOUR = 1_767_621_600_000_000_000
DAY = Range.times("2026-01-05", "2026-01-06")


class Told:
    """What a run tells; ``after`` is called with the rows read so far, ``waiting`` when it waits."""

    def __init__(
        self,
        after: Callable[[int], None] = lambda _rows: None,
        waiting: Callable[[], object] = lambda: None,
    ) -> None:
        self.rows: list[int] = []
        self.waited: list[str] = []
        self.total: int | None = None
        self._after = after
        self._waiting = waiting

    def progress(self, filled: Filled) -> None:
        self.rows.append(filled.first + filled.rows)
        self.total = filled.total
        self._after(filled.rows)

    def waits(self, why: str) -> None:
        self.waited.append(why)
        self._waiting()


@pytest.fixture(scope="module")
def house() -> Iterator[Eventhouse]:
    with Eventhouse() as server:
        yield server


@pytest.fixture
def table(house: Eventhouse) -> Iterator[Table]:
    made = Table(house)
    yield made
    made.close()


@pytest.fixture
def config(kafka_bootstrap: str, domain: str, table: Table, tmp_path: Path) -> Iterator[Config]:
    base = small(
        kafka_bootstrap, domain, 2, eventhouse=table.section, tables=Tables(url=f"file://{tmp_path}")
    )
    with declared(base) as made:
        yield made


def fill(config: Config, span: Range = DAY, told: Told | None = None, **options: Any) -> Filled:
    stop = options.pop("should_stop", lambda: False)
    restart = options.pop("restart", False)
    return Backfill(config, span, told or Told(), stop, **options).run(restart=restart)


def traces(config: Config) -> Counter[str]:
    """The trace ids on events.raw, with how often each is there."""
    return Counter(json.loads(message.value)["traceId"] for message in read(config, Stream.RAW))


def arrives(config: Config, expected: Counter[str]) -> None:
    """Exactly these are on events.raw, as soon as every partition has heard of the commit."""
    until(lambda: traces(config).total() >= expected.total(), "the events are on events.raw")
    assert traces(config) == expected


def ids(rows: list[Event]) -> Counter[str]:
    return Counter(row["traceId"] for row in rows)


def store(config: Config, rows: list[Event], day: dt.date = dt.date(2026, 1, 5)) -> None:
    """Put rows into the events table, as the event-writer would have."""
    table = source(config, EVENTS)
    table.open()
    made = pa.table({"trace_id": [row["traceId"] for row in rows], "event_date": [day] * len(rows)})
    columns = [
        made[field.name] if field.name in made.column_names else pa.nulls(len(rows), field.type)
        for field in EVENTS.schema
    ]
    write_deltalake(table.location, pa.table(columns, schema=EVENTS.schema), mode="append")


def test_the_rows_of_the_range_come_once_each_and_no_others(config: Config, table: Table) -> None:
    inside = events(730)
    table.ingest(inside, ingested=HOUR)
    edge = events(2)
    first, last = 1_767_571_200_000_000_000, 1_767_657_600_000_000_000
    table.ingest([edge[0]], ingested=first)
    table.ingest([edge[1]], ingested=last - 100)
    table.ingest(events(3), ingested=first - 100)
    table.ingest(events(3), ingested=last)
    told = Told()
    filled = fill(config, told=told)
    assert (filled.rows, filled.known, filled.total, filled.complete) == (732, 0, 732, True)
    arrives(config, ids([*inside, *edge]))
    assert told.rows == sorted(told.rows)
    assert told.rows[-1] == 732


def test_an_event_is_what_the_poller_would_have_sent(config: Config, table: Table) -> None:
    (row,) = events(1)
    table.ingest([row], ingested=HOUR)
    fill(config)
    arrives(config, ids([row]))
    (message,) = read(config, Stream.RAW)
    assert (message.key or b"").decode() == row["traceId"]
    assert (message.header("source"), message.header("trace_id")) == ("eventhouse", row["traceId"])
    assert message.header("backfill") == str(DAY), "which tells it from what the poll brought"
    assert json.loads(message.value)["data"] == row["data"]


def test_a_range_that_is_done_is_not_gone_through_again_but_by_restart(config: Config, table: Table) -> None:
    rows = events(150)
    table.ingest(rows, ingested=HOUR)
    fill(config)
    again = fill(config)
    assert (again.first, again.rows, again.complete) == (150, 0, True)
    arrives(config, ids(rows))
    once_more = fill(config, restart=True)
    assert (once_more.first, once_more.rows) == (0, 150)
    arrives(config, ids(rows) + ids(rows))  # nothing is in the table: it is sent again


def test_a_run_that_is_told_to_stop_goes_on_behind_its_last_page(config: Config, table: Table) -> None:
    rows = events(550)
    table.ingest(rows, ingested=HOUR)
    stopped = threading.Event()
    told = Told(lambda done: stopped.set() if done >= 200 else None)
    first = fill(config, told=told, should_stop=stopped.is_set)
    assert not first.complete
    assert 200 <= first.rows < 550
    rest = fill(config)
    assert (rest.first, rest.first + rest.rows, rest.total) == (first.rows, 550, 550)
    arrives(config, ids(rows))


def test_of_two_runs_of_one_range_the_second_ends_the_first(config: Config, table: Table) -> None:
    rows = events(900)
    table.ingest(rows, ingested=HOUR)
    begun, ended = threading.Event(), list[BaseException]()

    def first() -> None:
        try:
            # As slowly as may be: the second one comes in the middle.
            fill(config, told=Told(lambda done: begun.set() if done else None), rate=200.0)
        except BaseException as error:  # noqa: BLE001 - it is looked at
            ended.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(30)
    second = fill(config)
    thread.join(60)
    assert isinstance(ended[0], FencedError)
    assert second.complete
    assert second.first > 0
    arrives(config, ids(rows))


def test_two_ranges_side_by_side_do_not_know_of_each_other(config: Config, table: Table) -> None:
    rows = events(300)
    for hour, start in enumerate((0, 150)):
        table.ingest(rows[start : start + 150], ingested=HOUR + hour * 3_600_000_000_000)
    spans = [Range.times(f"2026-01-05T{hour}:00:00Z", f"2026-01-05T{hour + 1}:00:00Z") for hour in (14, 15)]
    with_threads = [threading.Thread(target=fill, args=(config, span)) for span in spans]
    for thread in with_threads:
        thread.start()
    for thread in with_threads:
        thread.join(60)
    arrives(config, ids(rows))


def test_what_stands_in_the_table_is_not_sent(config: Config, table: Table) -> None:
    rows = events(400)
    table.ingest(rows, ingested=HOUR)
    store(config, rows[:250])
    filled = fill(config)
    assert (filled.rows, filled.known) == (400, 250)
    arrives(config, ids(rows[250:]))
    position = Backfilled.read(read_checkpoint(config, RangeReader(config, DAY, 10).key) or b"")
    assert (position.rows, position.known, position.done) == (400, 250, True)


def test_without_the_table_everything_is_sent(config: Config, table: Table) -> None:
    rows = events(120)
    table.ingest(rows, ingested=HOUR)
    store(config, rows)
    assert fill(config, table_known=False).known == 0
    arrives(config, ids(rows))


def test_rows_of_many_dates_and_of_none_are_each_looked_for_where_they_would_be(
    config: Config, table: Table
) -> None:
    days = [dt.date(2025, 12, 1) + dt.timedelta(days=number) for number in range(30)]
    rows = [row for day in days for row in events(10, utcDateTime=f"{day}T23:59:59.9999999Z")]
    timeless = events(5, utcDateTime=None)
    table.ingest([*rows, *timeless], ingested=HOUR)
    for number, day in enumerate(days[:20]):
        store(config, rows[number * 10 : number * 10 + 10], day)
    filled = fill(config)
    assert filled.known == 200
    arrives(config, ids([*rows[200:], *timeless]))


def test_it_waits_while_what_is_on_its_way_to_the_table_is_too_old(config: Config, table: Table) -> None:
    rows = events(10)
    table.ingest(rows, ingested=HOUR)
    hours_ago = round(time.time() * 1000) - 7 * 3_600_000
    config = dataclasses.replace(config, ingest=Ingest(dedup_horizon_hours=24.0))
    # It may be one of the range: the ingester forgets it soon, and the table does not have it yet.
    produce(config, Stream.INGESTED, [b"{}"], key=rows[0]["traceId"].encode(), timestamp=hours_ago)
    stopped = threading.Event()
    told = Told(waiting=stopped.set)
    filled = fill(config, told=told, should_stop=stopped.is_set)
    assert not filled.complete
    assert "7.0 h ago is not in the table yet" in told.waited[0]
    assert traces(config) == Counter()


def test_while_a_stage_is_behind_nothing_is_sent_and_then_it_goes_on(config: Config, table: Table) -> None:
    rows = events(30)
    table.ingest(rows, ingested=HOUR)
    produce(config, Stream.PENDING, [b"{}"] * 60)
    stopped = threading.Event()
    told = Told()
    thread = threading.Thread(
        target=fill, args=(config, DAY, told), kwargs={"most_lag": 50, "should_stop": stopped.is_set}
    )
    thread.start()
    until(lambda: told.waited, "it waits")
    assert "download is 60 records behind" in told.waited[0]
    assert traces(config) == Counter()
    stopped.set()
    thread.join(30)
    assert fill(config, most_lag=100).rows == 30


def test_the_rate_is_an_upper_bound(config: Config, table: Table) -> None:
    table.ingest(events(300), ingested=HOUR)
    began = time.monotonic()
    fill(config, rate=100.0)
    assert 1.9 <= time.monotonic() - began < 30  # three pages: the second and the third wait for a second


@pytest.mark.parametrize("kind", ["throttled", "reset", "unavailable", "login-page", "cut"])
def test_what_passes_is_tried_again(config: Config, table: Table, kind: str) -> None:
    rows = events(250)
    table.ingest(rows, ingested=HOUR)
    house, made = table.local, list[str]()
    assert house

    def trouble(done: int) -> None:
        if done and not made:
            made.append(kind)
            house.fault(kind, times=3)

    told = Told(trouble)
    assert fill(config, told=told).complete
    arrives(config, ids(rows))
    assert told.waited


def test_a_query_that_hangs_is_not_in_the_way_of_an_end(config: Config, table: Table) -> None:
    table.ingest(events(250), ingested=HOUR)
    assert table.local
    table.local.fault("hang", contains="order by")
    stopped = threading.Event()
    threading.Timer(2.0, stopped.set).start()
    began = time.monotonic()
    filled = fill(config, should_stop=stopped.is_set)
    assert not filled.complete
    assert time.monotonic() - began < 20, "the query itself has sixty seconds"
    table.local.clear_faults()
    assert fill(config).rows == 250


def test_a_table_that_is_not_there_ends_it(config: Config, table: Table) -> None:
    table.drop()
    with pytest.raises(ConfigError, match=r"eventhouse\.table"):
        fill(config)


def test_an_eventhouse_that_was_never_reached_ends_it(config: Config) -> None:
    away = dataclasses.replace(
        config, eventhouse=dataclasses.replace(config.eventhouse, url="http://127.0.0.1:1")
    )
    with pytest.raises(DependencyError):
        fill(away)


def test_a_refused_login_ends_it(config: Config, table: Table) -> None:
    assert table.local
    table.local.fault("forbidden")
    with pytest.raises(AuthError):
        fill(config)


def test_a_range_of_cursors(config: Config, table: Table) -> None:
    def cursor() -> str:
        return str(table.rows("print cursor_current()")[0][0])

    table.ingest(events(5))
    start = cursor()
    rows = events(130)
    table.ingest(rows)
    end = cursor()
    table.ingest(events(5))
    fill(config, Range(start, end, by_cursor=True))
    arrives(config, ids(rows))


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2026-01-05", "2026-01-06T12:30", "2026-01-05T00:00:00.0000000Z..2026-01-06T12:30:00.0000000Z"),
        (
            "2026-01-05T02:00:00.1234567+02:00",
            "2026-01-05T00:00:00.1234568Z",
            "2026-01-05T00:00:00.1234567Z..2026-01-05T00:00:00.1234568Z",
        ),
    ],
)
def test_times_keep_all_their_digits(start: str, end: str, expected: str) -> None:
    assert str(Range.times(start, end)) == expected


@pytest.mark.parametrize(
    ("start", "end"), [("2026-01-06", "2026-01-05"), ("then", "now"), ("", "2026-01-05")]
)
def test_a_range_that_is_none_is_refused(start: str, end: str) -> None:
    with pytest.raises(UsageError):
        Range.times(start, end)


def test_a_trace_id_in_capitals_is_known_too(config: Config, table: Table) -> None:
    trace = str(uuid.uuid4())
    rows = events(1, traceId=trace.upper())
    table.ingest(rows, ingested=HOUR)
    store(config, events(1, traceId=trace))
    assert fill(config).known == 1

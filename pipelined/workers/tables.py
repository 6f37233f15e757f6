"""The loop of every Kafka → Delta worker: poll → buffer → rows and offsets in one commit of each table.

The tables are the truth about what was consumed; the broker is told afterwards, for lag tools. A record
that cannot be read goes to the DLQ first, in a Kafka transaction that notes with the group's offset how
far dead letters have been written, so that neither a crash nor a rebalance writes one twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pipelined.config import Config
from pipelined.crashpoints import Point, crashpoint
from pipelined.errors import AuthError, ConfigError, DependencyError, PoisonError
from pipelined.kafka.membership import Member
from pipelined.kafka.positions import Position
from pipelined.kafka.settings import Names
from pipelined.kafka.transactions import Aborted, Transactor
from pipelined.lake.sink import Chunk, DeltaSink
from pipelined.stages.columns import Rows
from pipelined.stages.contract import Partition, Record, Stream
from pipelined.stages.failures import Envelope
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child
from pipelined.workers.brakes import DlqBreaker, Pause
from pipelined.workers.buffer import Buffer
from pipelined.workers.gauges import Gauges
from pipelined.workers.runtime import IDLE_WAIT

__all__ = ["CommitObserver", "Converted", "TableRuntime"]

_logger = logging.getLogger("pipelined.workers")


class Converted(NamedTuple):
    """Records as rows for each of the worker's tables, in the order of its sinks."""

    rows: Sequence[Rows]
    poison: Sequence[tuple[Record, PoisonError]]
    misshapen: int


class CommitObserver:
    """Counts the commits of a table."""

    def __init__(self, stats: Child) -> None:
        self._stats = stats

    def commit(self, result: str, rows: int, seconds: float) -> None:
        """One try of a commit, as the sink tells it."""
        del seconds
        self._stats.add(metrics.TABLE_COMMITS, 1, result)
        self._stats.add(metrics.RECORDS_OUT, rows)


class TableRuntime:
    """One worker process. ``run()`` returns when told to stop and what was buffered is stored."""

    def __init__(
        self,
        config: Config,
        *,
        worker_type: str,
        index: int,
        stream: str,
        convert: Callable[[Sequence[Record]], Converted],
        sinks: Sequence[DeltaSink],
        envelope: Envelope,
        stats: Child,
        should_stop: Callable[[], bool],
        is_paused: Callable[[], bool] = lambda: False,
    ) -> None:
        names = Names(config)
        self._settings = config.worker(worker_type)
        self._tables = config.tables
        self._convert = convert
        self._sinks = sinks
        self._envelope = envelope
        self._stats = stats
        self._should_stop = should_stop
        self._is_paused = is_paused
        self._buffer = Buffer()
        self._pause = Pause(config.retry, stats)
        self._breaker = DlqBreaker(config.breaker, stats)
        self._gauges = Gauges(stats)
        self._next: dict[Partition, int] = {}
        self._marks: dict[Partition, int] = {}
        self._flushed = 0.0
        self._leaving = False
        self._transactor = Transactor(config, names.instance(worker_type, index), stats.beat)
        self._member = Member(config, worker_type, index, names.topics(stream), self, stats.beat)

    def run(self) -> None:
        """Work until told to stop, then store what is buffered."""
        try:
            if not self._transactor.begin_session(self._should_stop) or not self._open():
                return
            self._member.subscribe()
            while not self._should_stop():
                self._turn()
            if len(self._buffer) and not self._flush():
                _logger.warning(
                    "%d records could not be stored before the stop; they are read again", len(self._buffer)
                )
        finally:
            self._leaving = True
            self._member.close()
            self._transactor.close()
            for sink in self._sinks:
                sink.close()

    def _open(self) -> bool:
        """Open the tables; waits while the store is down. False when told to stop meanwhile."""
        waiting = list(self._sinks)
        while waiting and not self._should_stop():
            self._stats.beat()
            if self._pause.active:
                time.sleep(0.1)
                continue
            try:
                waiting[0].open()
                waiting.pop(0)
                self._pause.over()  # or it would be shown until the first record comes
            except (AuthError, DependencyError) as error:
                self._pause.begin(error)
        return not waiting

    def _turn(self) -> None:
        stats = self._stats
        stats.beat()
        began = time.monotonic()
        self._throttle()
        due = self._flushed + self._tables.flush_seconds - began
        wait = min(IDLE_WAIT, max(0.0, due)) if len(self._buffer) and not self._pause.active else IDLE_WAIT
        records = self._member.poll(self._settings.batch_records, wait)
        self._gauges.ready(self._member)
        polled = time.monotonic()
        if records:
            stats.add(metrics.RECORDS_IN, len(records))
            self._buffer.add(records)
        if self._due(polled):
            self._flush()
        self._gauges.spent("paused" if self._closed() else "idle", polled - began)
        self._gauges.spent("commit", time.monotonic() - polled)
        self._gauges.update(self._buffer, self._member, self._next)

    def _throttle(self) -> None:
        """Back-pressure: no more than the window, and nothing while the tables are out of reach."""
        full = (
            len(self._buffer) >= self._settings.window_records
            or self._buffer.size >= 2 * self._tables.flush_bytes
        )
        closed = full or self._closed()
        for partition in self._member.partitions:
            if closed:
                self._member.pause(partition)
            else:
                self._member.resume(partition)

    def _closed(self) -> bool:
        return self._pause.active or self._breaker.tripped or self._is_paused()

    def _due(self, now: float) -> bool:
        if not len(self._buffer) or self._pause.active:
            return False
        return (
            len(self._buffer) >= self._tables.flush_rows
            or self._buffer.size >= self._tables.flush_bytes
            or now - self._flushed >= self._tables.flush_seconds
        )

    def _flush(self) -> bool:
        """Store what is buffered; False, with everything kept and the worker paused, where that failed."""
        began = self._flushed = time.monotonic()
        chunks: list[list[Chunk]] = [[] for _ in self._sinks]
        poison: list[tuple[Record, PoisonError]] = []
        misshapen = 0
        for partition, records in self._buffer.partitions.items():
            converted = self._convert(records)
            next_offset = records[-1].offset + 1
            for of_sink, rows in zip(chunks, converted.rows, strict=True):
                of_sink.append(
                    Chunk((partition.topic, partition.number), next_offset, rows.table, rows.offsets)
                )
            poison += converted.poison
            misshapen += converted.misshapen
        try:
            self._bury(poison)
            for sink, of_sink in zip(self._sinks, chunks, strict=True):
                self._stats.beat()
                sink.commit(of_sink)
                crashpoint(Point.TABLE_STORED)
        except Aborted as aborted:
            self._pause.begin(DependencyError("kafka", f"a dead letter could not be written: {aborted}"))
            return False
        except (AuthError, DependencyError) as error:
            self._stats.add(metrics.FAILURES, 1, str(error.category))
            self._stats.failed(f"{error.code}: {error}")
            self._pause.begin(error)
            return False
        crashpoint(Point.TABLES_STORED)
        self._stored(poison, misshapen, time.monotonic() - began)
        return True

    def _stored(self, poison: Sequence[tuple[Record, PoisonError]], misshapen: int, seconds: float) -> None:
        """Everything buffered is durable: tell the broker, count it, let go of it."""
        self._pause.over()
        lanes = self._buffer.partitions
        records = [record for lane in lanes.values() for record in lane]
        if poison:
            dead = {(record.partition, record.offset) for record, _ in poison}
            self._breaker.record(
                (record.partition, "dead" if (record.partition, record.offset) in dead else "done")
                for record in records
            )
        else:
            self._breaker.clean({partition: len(lane) for partition, lane in lanes.items()})
        kinds = {"done": len(records) - len(poison), "dead": len(poison)}
        self._gauges.committed(records, kinds, 0, seconds)
        for _, error in poison:
            self._gauges.failed(error, "dead")
        if misshapen:
            self._stats.add(metrics.WRONG_SHAPES, misshapen)
        mirror = []
        for partition, lane in lanes.items():
            self._next[partition] = lane[-1].offset + 1
            mirror.append(
                self._member.place(partition, self._next[partition], dead=self._marks.get(partition, 0))
            )
        self._buffer.clear()
        self._member.commit(mirror)

    def _bury(self, poison: Sequence[tuple[Record, PoisonError]]) -> None:
        """Write the dead letters that are not written yet, and how far they are, in one transaction."""
        fresh = [(r, e) for r, e in poison if r.offset >= self._marks.get(r.partition, 0)]
        if not fresh:
            return
        marks = dict(self._marks)
        for record, error in fresh:
            marks[record.partition] = max(marks.get(record.partition, 0), record.offset + 1)
            _logger.error(
                "unreadable record at %s/%d@%d goes to the DLQ: %s",
                *record.partition,
                record.offset,
                error,
                extra={"code": error.code, "category": str(error.category), **record.log_fields()},
            )
        places = [
            self._member.place(p, self._next.get(p, self._buffer.partitions[p][0].offset), dead=marks[p])
            for p in {record.partition for record, _ in fresh}
        ]
        letters = [self._envelope.dead_letter(Stream.DLQ, record, error) for record, error in fresh]
        self._transactor.run(letters, places, self._member.group_metadata())
        crashpoint(Point.LETTERS_WRITTEN)
        self._marks = marks

    # What the member tells, inside its poll().

    def assigned(self, positions: Mapping[Partition, Position]) -> dict[Partition, int]:
        """Take partitions over where the tables say that their predecessor ended."""
        self._stats.add(metrics.REBALANCES, 1, "assigned")
        places = [(partition.topic, partition.number) for partition in positions]
        stored = [sink.positions(places) for sink in self._sinks]
        starts = {}
        for partition, position in positions.items():
            start = min(of_sink[partition.topic, partition.number] for of_sink in stored)
            self._check(partition, position, start)
            starts[partition] = self._next[partition] = max(start, position.low)
            if position.note and not position.is_of_another_topic:
                self._marks[partition] = position.note.dead
        return starts

    def _check(self, partition: Partition, position: Position, stored: int) -> None:
        """Hold what the tables have stored against what the topic has, and what the group has committed."""
        name, table = f"{partition.topic}/{partition.number}", self._sinks[0].url
        if stored and (position.is_of_another_topic or stored > position.high):
            # New records would be taken for stored ones, and lost.
            msg = (
                f"{table} holds {name} up to offset {stored}, but the topic is not the one that it was "
                f"filled from (it ends at {position.high}): it was made anew, or this is another cluster. "
                "Give the topic another name, or the tables another folder"
            )
            raise ConfigError(msg)
        committed = position.offset or 0
        if stored < committed and not position.is_of_another_topic:
            _logger.error(
                "%s holds %s up to offset %d, but had it up to %d: it was restored to an older version, or "
                "is another table. What lies between is stored again, as far as the topic still has it",
                table,
                name,
                stored,
                committed,
                extra={"code": "table_went_back"},
            )
        if stored < position.low and position.low > 0 and (stored or committed):
            gone = position.low - stored
            self._stats.add(metrics.RECORDS_EXPIRED, gone)
            _logger.critical(
                "%d offsets of %s, from %d on, were removed by retention before they were stored in %s. Keep "
                "the topic longer (topics.*.retention_hours), and load the events of that time again",
                gone,
                name,
                stored,
                table,
                extra={"code": "records_expired"},
            )

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Store what is buffered, then let go."""
        self._stats.add(metrics.REBALANCES, 1, "revoked")
        if len(self._buffer) and not self._pause.active and not self._leaving:
            self._flush()
        self._forget(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Somebody else has them: what is buffered is theirs to read again."""
        self._stats.add(metrics.REBALANCES, 1, "lost")
        self._forget(partitions)

    def _forget(self, partitions: Sequence[Partition]) -> None:
        self._buffer.forget(partitions)
        for partition in partitions:
            self._next.pop(partition, None)
            self._marks.pop(partition, None)

"""The one way rows get into a Delta table: rows and positions in one commit, each row once.

The rules (why each, and how breaking it duplicates or loses: docs/why/tables.md):

* A commit carries, for each input partition, an app transaction ``{app}/{topic}/{partition}`` whose
  version is *the next offset to consume*; no such transaction means that nothing was consumed.
* What is stored already is compared, and dropped, through the same handle that then writes: the table
  refuses a commit through a handle that has not seen another one's position of the same partition.
* A commit that raised may have happened: reopen, compare, and count what is stored as success.
* An upsert table has a fence besides, one app transaction in each commit, by which a writer whose
  knowledge of the keys is out of date is refused.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
import logging
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from pipelined.config.work import Tables
from pipelined.crashpoints import Point, crashpoint
from pipelined.errors import AuthError, PipelinedError
from pipelined.lake.durable import LocalDisk, local_path
from pipelined.lake.faults import classify, is_conflict, plain
from pipelined.lake.halfway import write_data_only
from pipelined.lake.keys import KnownKeys
from pipelined.lake.positions import Partition, Positions
from pipelined.lake.table import WRITER, TableSource
from pipelined.lake.upsert import Upsert

__all__ = ["Chunk", "Committed", "DeltaSink", "Observer", "Partition"]

_log = logging.getLogger("pipelined.lake")

_FENCE = "pipelined/fence"
_COMMIT_RETRIES = 30
#: Writes tried in one :meth:`DeltaSink.commit` when other writers come first, and when it fails otherwise.
_CONFLICT_TRIES = 10
_FAULT_TRIES = 3


class Chunk(NamedTuple):
    """Rows of one partition in the order of their offsets.

    ``offsets[i]`` is the offset that ``rows[i]`` came from, ascending (repeated where a record gave
    several rows). ``next_offset`` is the next offset to consume once this chunk is stored; it may lie
    further than the last row's, where records gave none.
    """

    partition: Partition
    next_offset: int
    rows: pa.Table
    offsets: Sequence[int]


class Committed(NamedTuple):
    """What a commit came to: the result as the observer is told it, rows written, rows there already."""

    result: str
    rows: int
    skipped: int


class Observer(Protocol):
    """Is told what each try came to."""

    def commit(self, result: str, rows: int, seconds: float) -> None:
        """``result``: ``ok``, ``conflict``, ``ambiguous_resolved``, ``skipped_duplicate`` or ``failed``.

        ``rows`` were written, ``seconds`` after the commit began.
        """


class DeltaSink:
    """Writes one table. Use it from one thread, and only in the process that opened it."""

    def __init__(
        self,
        url: str,
        schema: pa.Schema,
        *,
        app: str,
        settings: Tables,
        partition_by: Sequence[str] = ("event_date",),
        merge_keys: Sequence[str] = (),
        statistics: Sequence[str] = (),
        observer: Observer | None = None,
    ) -> None:
        """``app`` names this consumer of its topics for ever: group and cluster, for example.

        ``merge_keys`` make it an upsert table, one row for each key within a value of the one column
        that it is partitioned by (a date that does not change for a key).
        """
        self.url = url
        self._settings = settings
        self._observer = observer
        self._source = TableSource(
            url, schema, partition_by=partition_by, statistics=statistics, settings=settings
        )
        self._path = path = local_path(url)
        self._disk = None if path is None else LocalDisk(path)
        self._upsert = Upsert(merge_keys, partition_by[0], schema.names, WRITER) if merge_keys else None
        self._keys = KnownKeys(settings.known_keys)
        self._table: DeltaTable | None = None
        self._due = 0.0  # when the handle is too old, on the monotonic clock
        self._commits = 0  # through this handle
        self._positions = Positions(app, self._source)
        self._restored = 0  # the table's last RESTORE, when the known keys were read
        self._fence = 0

    def open(self) -> None:
        """Open the table, creating it if there is none.

        Raises ConfigError for columns that do not fit, AuthError, or DependencyError.
        """
        with self._classified():
            self._reopen()

    def positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The next offset to consume for each partition as the table has it now, 0 for an unknown one.

        Raises what :meth:`open` raises.
        """
        with self._classified():
            table = self._reopen()
            return {partition: self._positions.ask(table, partition) for partition in partitions}

    def commit(self, chunks: Sequence[Chunk]) -> Committed:
        """Store the chunks and their positions, all or nothing, leaving out rows that are stored already.

        Durable when it returns. Raises AuthError, DependencyError (``disk_full``, ``table_unavailable``)
        or ConfigError where that could not be had: the caller keeps the chunks, pauses and calls again
        with them (and more), or asks for :meth:`positions` anew. Neither stores anything twice.
        """
        for chunk in chunks:
            self._validate(chunk)
        total = sum(chunk.rows.num_rows for chunk in chunks)
        began = time.monotonic()
        failure: BaseException | None = None
        for tries in itertools.count():
            try:
                table = self._current()
                pending = [*self._pending(table, chunks)]
                if pending and failure is not None and tries >= _allowed(failure):
                    break
                if pending:
                    self._write(table, pending)
                    crashpoint(Point.LOGGED)
                if self._disk is not None:
                    self._disk.sync(table.version())
            except (PipelinedError, KeyboardInterrupt, SystemExit, GeneratorExit):
                self._forget()
                self._tell("failed", 0, began)
                raise
            except BaseException as error:  # noqa: BLE001 - a panic of the table layer is no Exception
                self._forget()
                failure = error
                if tries >= _allowed(error):
                    break
                if is_conflict(error):
                    self._tell("conflict", 0, began)
                _log.warning(
                    "a commit to %s failed; looking whether it happened all the same: %s",
                    self.url,
                    plain(error),
                    extra={"table": self.url, "try": tries + 1},
                )
                _back_off(tries, error)
            else:
                rows = sum(chunk.rows.num_rows for chunk in pending)
                result = "ok" if pending else "skipped_duplicate" if failure is None else "ambiguous_resolved"
                self._tell(result, rows, began)
                return Committed(result, rows, total - rows)
        assert failure is not None
        self._tell("failed", 0, began)
        raise classify(failure, self.url) from failure

    def close(self) -> None:
        """Give the handle and what is remembered back."""
        self._forget()
        self._keys.clear()

    def _current(self) -> DeltaTable:
        """The handle to compare and write through: reopened when due, brought up to date for an upsert.

        Due is it also after a checkpoint: a handle carries what was committed since its own with it.
        """
        if (
            self._table is None
            or self._commits >= self._settings.reopen_commits
            or time.monotonic() >= self._due
            or (self._commits and (self._table.version() + 1) % self._settings.checkpoint_commits == 0)
        ):
            return self._reopen()
        if self._upsert is not None:
            # Whatever the handle has not seen would make the fence, or a MERGE, fail: look before.
            self._table.update_incremental()
        self._take_in(self._table)
        return self._table

    def _reopen(self) -> DeltaTable:
        table = self._source.open()
        if self._disk is not None:
            self._disk.sync(table.version())
        self._take_in(table)
        self._table = table
        self._commits = 0
        self._due = time.monotonic() + self._source.lasts()
        return table

    def _take_in(self, table: DeltaTable) -> None:
        """Keep what we know of the table if only we have written since, or else forget it."""
        if not self._positions.look(table) or self._upsert is None:
            return
        fence = table.transaction_version(_FENCE) or 0
        if fence != self._fence or self._positions.restored != self._restored:
            self._keys.clear()
        self._fence = fence
        self._restored = self._positions.restored

    def _forget(self) -> None:
        """After any failure look at the table anew; its fence tells then whether the known keys count."""
        self._table = None
        self._positions.forget()

    def _pending(self, table: DeltaTable, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """What of the chunks is not stored yet, by the positions that this handle has."""
        for chunk in chunks:
            stored = self._positions.of(table, chunk.partition)
            if chunk.next_offset > stored:
                first = bisect.bisect_left(chunk.offsets, stored)
                yield chunk._replace(rows=chunk.rows.slice(first), offsets=chunk.offsets[first:])

    def _write(self, table: DeltaTable, pending: Sequence[Chunk]) -> None:
        """One commit of rows and positions through ``table``."""
        before = table.version()
        rows = pa.concat_tables([chunk.rows for chunk in pending])
        moved: dict[Partition, int] = {}
        for chunk in pending:
            moved[chunk.partition] = max(chunk.next_offset, moved.get(chunk.partition, 0))
        transactions = self._positions.transactions(moved)
        keys: dict[int, set[int]] = {}
        if self._upsert is not None:
            transactions.append(Transaction(_FENCE, self._fence + 1))
            rows, keys = self._upsert.latest(rows)
        properties = CommitProperties(app_transactions=transactions, max_commit_retries=_COMMIT_RETRIES)
        if self._upsert is not None and self._keys.any_known(
            keys, functools.partial(self._upsert.read_keys, table)
        ):
            self._upsert.merge(table, rows, keys, properties)
            rows = rows.slice(0, 0)
        if table.version() == before:  # a MERGE that changes nothing commits nothing
            self._append(table, rows, properties)
        self._commits += 1
        self._positions.committed(moved, before, table.version())
        if self._upsert is not None:
            self._fence += 1
            self._keys.add(keys)

    def _append(self, table: DeltaTable, rows: pa.Table, properties: CommitProperties) -> None:
        """Also without any row: then only the positions are committed."""
        for field in self._source.foreign:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
        options: dict[str, Any] = {
            "mode": "append",
            "writer_properties": WRITER,
            "commit_properties": properties,
        }
        if self._path is not None and rows.num_rows:
            half = functools.partial(write_data_only, table, rows, self._path, options)
            crashpoint(Point.DATA_WRITTEN, half)
        write_deltalake(table, rows, **options)

    def _validate(self, chunk: Chunk) -> None:
        offsets = chunk.offsets
        if len(offsets) != chunk.rows.num_rows or (offsets and offsets[-1] >= chunk.next_offset):
            msg = f"the offsets of a chunk of {chunk.partition} do not fit its rows or its next offset"
            raise ValueError(msg)
        if not chunk.rows.schema.equals(self._source.schema):
            msg = f"the rows of a chunk of {chunk.partition} do not have the columns of {self.url}"
            raise ValueError(msg)

    @contextlib.contextmanager
    def _classified(self) -> Iterator[None]:
        try:
            yield
        except (PipelinedError, KeyboardInterrupt, SystemExit, GeneratorExit):
            self._forget()
            raise
        except BaseException as error:  # a panic of the table layer is no Exception
            self._forget()
            raise classify(error, self.url) from error

    def _tell(self, result: str, rows: int, began: float) -> None:
        if self._observer is not None:
            self._observer.commit(result, rows, time.monotonic() - began)


def _allowed(error: BaseException) -> int:
    """How many writes may fail in one commit, the last of them with ``error``."""
    if is_conflict(error):
        return _CONFLICT_TRIES
    failure = classify(error, "")
    return 1 if isinstance(failure, AuthError) or failure.code == "disk_full" else _FAULT_TRIES


def _back_off(tries: int, error: BaseException) -> None:
    first, longest = (0.02, 0.5) if is_conflict(error) else (0.2, 2.0)
    time.sleep(random.uniform(0.5, 1) * min(first * 2**tries, longest))

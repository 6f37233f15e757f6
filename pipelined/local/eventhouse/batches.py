"""From ingested to visible to having a cursor: the way of rows, as slow as a test wants it.

A batch is stamped with its ingestion time when it is handed in. It may become visible later, so that rows
turn up with a stamp earlier than what was read already, and it may have its cursor later still, as the rows
of streaming ingestion do. What waits is in the folder, and outlives the server.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from pipelined.local.eventhouse.refusals import RefusedError
from pipelined.local.eventhouse.rows import quoted
from pipelined.local.eventhouse.settings import Settings
from pipelined.local.eventhouse.storage import BATCH, CURSOR, Storage, Table
from pipelined.local.eventhouse.ticks import EPOCH_TICKS

__all__ = ["Batches"]

#: Cursors below are those after ``restart_cursors``, which count from one.
_SMALL = 10**12


@dataclass
class _Batch:
    """One that is not finished. Times are Unix seconds; None waits until it is told."""

    number: int
    table: str
    ingested: int
    visible: bool
    visible_at: float | None
    lag: float | None

    def due(self, now: float) -> bool:
        """Whether it is time for its next step."""
        if self.visible_at is None or (self.visible and self.lag is None):
            return False
        return self.visible_at + (self.lag or 0) * self.visible <= now


class Batches:
    """Takes rows in and moves them on when their time has come. Thread-safe."""

    def __init__(self, storage: Storage, settings: Callable[[], Settings]) -> None:
        self._storage = storage
        self._settings = settings
        self._lock = threading.RLock()
        self._folder = storage.directory / "waiting"
        self._folder.mkdir(exist_ok=True)
        with storage.reader() as connection:
            found = connection.execute("SELECT * FROM local.batches ORDER BY number").fetchall()
        self._waiting = {row[0]: _Batch(*row) for row in found}
        self._number = max([storage.state("batch"), *self._waiting])
        self._cursor = storage.state("cursor") or self._ticks()
        for path in self._folder.iterdir():  # of batches that were finished, or never accepted
            batch = self._waiting.get(int(path.stem))
            if batch is None or batch.visible:
                path.unlink()

    def now(self) -> int:
        """The service's clock, in nanoseconds since the epoch and whole ticks."""
        ahead = int(self._settings().clock_offset_s * 1e9)
        return (time.time_ns() + ahead) // 100 * 100

    def cursor(self) -> int:
        """The current cursor of the database: all rows up to it are visible, and no later one is."""
        if self._settings().cursor_always_moves:
            with self._lock, self._storage.change() as connection:
                self._cursor = self._next(connection)
        return self._cursor  # set after the commit: no query waits for rows that are on their way

    def _next(self, connection: duckdb.DuckDBPyConnection) -> int:
        """The cursor of what this transaction commits: growing, and shaped like the service's."""
        drawn = self._cursor + 1
        if drawn > _SMALL:
            drawn = max(drawn, self._ticks())
        self._storage.set_state(connection, "cursor", drawn)
        return drawn

    def _ticks(self) -> int:
        return self.now() // 100 + EPOCH_TICKS

    def restart_cursors(self) -> None:
        """Begin with the cursors anew, far below all that were given: none that a client kept is known."""
        with self._lock:
            with self._storage.change() as connection:
                self._storage.set_state(connection, "cursor", 1)
                for name in self._storage.tables:
                    cursor = quoted(CURSOR)
                    connection.execute(f"UPDATE main.{quoted(name)} SET {cursor} = 1 WHERE {cursor} > 0")
            self._cursor = 1

    def new_file(self) -> Path:
        """Where the rows of the next batch may be written, as JSON lines."""
        with self._lock:
            self._number += 1
            return self._folder / f"{self._number}.jsonl"

    def take(
        self,
        table: Table,
        path: Path,
        *,
        ingested: int | None = None,
        delay: float | None = 0.0,
        lag: float | None = 0.0,
    ) -> int:
        """Ingest a file of ``new_file()``; the number of the batch.

        ``ingested`` is its stamp in nanoseconds, now by default. The rows become visible after ``delay``
        seconds and have a cursor ``lag`` seconds after that; None waits for ``reveal`` and ``seal``.
        """
        stamp = self.now() if ingested is None else ingested // 100 * 100
        visible_at = None if delay is None else time.time() + delay
        batch = _Batch(int(path.stem), table.name, stamp, False, visible_at, lag)
        try:
            with self._lock:
                if delay == 0:
                    self._reveal(batch, path)
                else:
                    _keep(path)
                    with self._storage.change() as connection:
                        self._remember(connection, batch)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return batch.number

    def append(self, table: Table, sql: str) -> int:
        """Ingest the rows of a SELECT at once; how many they were."""
        with self._lock:
            with self._storage.change() as connection:
                cursor = self._next(connection)
                count = self._storage.append(connection, table, sql, ingested=self.now(), cursor=cursor)
            self._cursor = cursor
            return count

    def settle(self) -> None:
        """Move on what has come due."""
        now = time.time()
        if not any(batch.due(now) for batch in list(self._waiting.values())):
            return
        with self._lock:
            for batch in list(self._waiting.values()):
                if not batch.visible and batch.due(now):
                    self._reveal(batch, self._folder / f"{batch.number}.jsonl")
                if batch.number in self._waiting and batch.visible and batch.due(now):
                    self._seal(batch)

    def reveal(self, number: int | None = None) -> None:
        """Make a batch visible, or every one that waits."""
        with self._lock:
            for batch in self._chosen(number):
                if not batch.visible:
                    self._reveal(batch, self._folder / f"{batch.number}.jsonl")

    def seal(self, number: int | None = None) -> None:
        """Give a batch, or all that are visible, their cursors."""
        with self._lock:
            for batch in self._chosen(number):
                if batch.visible:
                    self._seal(batch)

    def _chosen(self, number: int | None) -> list[_Batch]:
        if number is None:
            return list(self._waiting.values())
        if number not in self._waiting:
            raise RefusedError.bad_request(f"no batch {number} waits here")
        return [self._waiting[number]]

    def _remember(self, connection: duckdb.DuckDBPyConnection, batch: _Batch) -> None:
        self._storage.set_state(connection, "batch", self._number)
        values = [batch.number, batch.table, batch.ingested, batch.visible, batch.visible_at, batch.lag]
        connection.execute("INSERT OR REPLACE INTO local.batches VALUES (?, ?, ?, ?, ?, ?)", values)
        self._waiting[batch.number] = batch

    def _reveal(self, batch: _Batch, path: Path) -> None:
        """The rows into the table, with a cursor unless that is to lag."""
        table = self._storage.table(batch.table)
        at_once = batch.lag == 0 or not table.stamped
        with self._storage.change() as connection:
            cursor = self._next(connection) if at_once else None
            number = None if at_once else batch.number
            self._storage.insert(
                connection, table, path, ingested=batch.ingested, cursor=cursor, batch=number
            )
            if at_once:
                connection.execute("DELETE FROM local.batches WHERE number = ?", [batch.number])
                self._storage.set_state(connection, "batch", self._number)
            else:
                now = time.time()
                batch.visible, batch.visible_at = True, min(batch.visible_at or now, now)
                self._remember(connection, batch)
        if cursor is not None:
            self._waiting.pop(batch.number, None)
            self._cursor = cursor
        path.unlink()

    def _seal(self, batch: _Batch) -> None:
        table = self._storage.table(batch.table)
        with self._storage.change() as connection:
            cursor = self._next(connection)
            connection.execute(
                f"UPDATE main.{quoted(table.name)} SET {quoted(CURSOR)} = ?, {quoted(BATCH)} = NULL "
                f"WHERE {quoted(BATCH)} = ?",
                [cursor, batch.number],
            )
            connection.execute("DELETE FROM local.batches WHERE number = ?", [batch.number])
        del self._waiting[batch.number]
        self._cursor = cursor

    def forget(self, table: str) -> None:
        """What waited for a table that is gone is gone too."""
        with self._lock:
            for batch in [batch for batch in self._waiting.values() if batch.table == table]:
                del self._waiting[batch.number]
                (self._folder / f"{batch.number}.jsonl").unlink(missing_ok=True)

    def rename(self, old: str, new: str) -> None:
        """What waits for a table that has a new name."""
        with self._lock:
            for batch in self._waiting.values():
                batch.table = new if batch.table == old else batch.table


def _keep(path: Path) -> None:
    """The rows are acknowledged: they are on the disk by then."""
    with path.open("rb") as file:
        os.fsync(file.fileno())

"""Where the tables lie: one DuckDB file in the folder, with what it says about itself.

A table has its columns and three hidden ones: when a row was ingested, its cursor (null while it has none)
and the batch it came with while that is not finished. The catalog is in the file too; all of it is one
transaction at a time, so a killed server goes on where it was.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from pipelined.errors import UnavailableError
from pipelined.local.eventhouse.answers import Column
from pipelined.local.eventhouse.refusals import RefusedError
from pipelined.local.eventhouse.rows import DUCKDB_TYPES, from_text, quoted

__all__ = ["BATCH", "CURSOR", "HIDDEN", "INGESTED", "Storage", "Table"]

INGESTED, CURSOR, BATCH = "$IngestionTime", "$Cursor", "$Batch"
HIDDEN = {INGESTED: "TIMESTAMP_NS", CURSOR: "BIGINT", BATCH: "BIGINT"}
_STAMPED = ", ".join(quoted(name) for name in HIDDEN)
_FILE = "eventhouse.duckdb"
_CATALOG = """
CREATE SCHEMA IF NOT EXISTS local;
CREATE TABLE IF NOT EXISTS local.tables (name VARCHAR PRIMARY KEY, columns JSON, stamped BOOLEAN);
CREATE TABLE IF NOT EXISTS local.state (name VARCHAR PRIMARY KEY, value BIGINT);
CREATE TABLE IF NOT EXISTS local.batches (number BIGINT PRIMARY KEY, table_name VARCHAR, ingested BIGINT,
    visible BOOLEAN, visible_at DOUBLE, lag DOUBLE);
"""
#: A single row of JSON may be this long.
_LONGEST_ROW = 64 * 1024 * 1024


@dataclass
class Table:
    """A table of the catalog. ``stamped``: its ingestion time policy is on."""

    name: str
    columns: list[Column] = field(default_factory=list)
    stamped: bool = True

    def all_columns(self) -> list[str]:
        """The names of all its columns, the hidden ones at the end."""
        return [column.name for column in self.columns] + list(HIDDEN)


class Storage:
    """The database file of a folder, which is made where it is not there. UnavailableError if it is in use.

    Read through ``reader()``, as many at once as there are threads; change under ``change()``, one at a time.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        try:
            self._main = duckdb.connect(str(directory / _FILE), config={"threads": "2"})
        except duckdb.IOException as error:
            text = (
                f"the local Eventhouse in {directory} cannot be opened, another server may have it: {error}"
            )
            raise UnavailableError(text) from error
        self._main.execute("SET TimeZone='UTC'")
        self._main.execute(_CATALOG)
        self._lock = threading.RLock()
        #: Grows with every change of the catalog: what was translated before it is not to be used again.
        self.version = 0
        self.tables: dict[str, Table] = {}
        self._load()

    def _load(self) -> None:
        self.tables = {
            name: Table(name, [Column(*pair) for pair in json.loads(columns)], stamped)
            for name, columns, stamped in self._main.execute(
                "SELECT name, columns, stamped FROM local.tables ORDER BY name"
            ).fetchall()
        }
        self.version += 1

    def close(self) -> None:
        """Write everything into the one file and let go of it."""
        with self._lock:
            self._main.close()

    @contextmanager
    def reader(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of one's own, for queries."""
        with self._main.cursor() as connection:
            connection.execute("SET TimeZone='UTC'")
            yield connection

    @contextmanager
    def change(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction that is committed at the end, or rolled back when an exception leaves it."""
        with self._lock:
            self._main.execute("BEGIN")
            try:
                yield self._main
                self._main.execute("COMMIT")
            except BaseException:
                self._main.execute("ROLLBACK")
                self._load()
                raise

    def table(self, name: str) -> Table:
        """A table by its name; RefusedError if it is not here."""
        if name not in self.tables:
            raise RefusedError.no_table(name)
        return self.tables[name]

    def state(self, name: str) -> int:
        """A number of the database's own state, 0 before it was first set."""
        with self._lock:
            found = self._main.execute("SELECT value FROM local.state WHERE name = ?", [name]).fetchone()
        return int(found[0]) if found else 0

    def set_state(self, connection: duckdb.DuckDBPyConnection, name: str, value: int) -> None:
        """Set such a number, in the transaction of the connection."""
        connection.execute("INSERT OR REPLACE INTO local.state VALUES (?, ?)", [name, value])

    def create(self, name: str, columns: Sequence[Column]) -> None:
        """Make a table. One that is there already stays as it is, as in the service."""
        if name in self.tables:
            return
        self._checked(columns)
        described = [f"{quoted(column.name)} {DUCKDB_TYPES[column.type]}" for column in columns]
        described += [f"{quoted(hidden)} {kind}" for hidden, kind in HIDDEN.items()]
        with self.change() as connection:
            connection.execute(f"CREATE TABLE main.{quoted(name)} ({', '.join(described)})")
            self._save(connection, Table(name, list(columns)))

    def _checked(self, columns: Sequence[Column]) -> None:
        names = [column.name.casefold() for column in columns]
        if len(set(names)) < len(names):
            text = "the local Eventhouse cannot tell columns apart that differ in case only"
            raise RefusedError.bad_request(text)

    def _save(self, connection: duckdb.DuckDBPyConnection, table: Table) -> None:
        columns = json.dumps([(column.name, column.type) for column in table.columns])
        connection.execute(
            "INSERT OR REPLACE INTO local.tables VALUES (?, ?, ?)", [table.name, columns, table.stamped]
        )
        self.tables[table.name] = table
        self.version += 1

    def drop(self, name: str) -> None:
        """Remove a table, and what was still to come into it."""
        with self.change() as connection:
            connection.execute(f"DROP TABLE main.{quoted(name)}")
            connection.execute("DELETE FROM local.tables WHERE name = ?", [name])
            connection.execute("DELETE FROM local.batches WHERE table_name = ?", [name])
            del self.tables[name]
            self.version += 1

    def alter(self, old: Table, new: Table, statements: Sequence[str]) -> None:
        """Change a table by SQL of the form ``ALTER TABLE {table} ...`` and what the catalog says of it."""
        self._checked(new.columns)
        with self.change() as connection:
            for statement in statements:
                connection.execute(statement.format(table=f"main.{quoted(old.name)}"))
            if old.name != new.name:
                connection.execute("DELETE FROM local.tables WHERE name = ?", [old.name])
                renamed = [new.name, old.name]
                connection.execute("UPDATE local.batches SET table_name = ? WHERE table_name = ?", renamed)
                del self.tables[old.name]
            self._save(connection, new)

    def insert(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        path: Path,
        *,
        ingested: int,
        cursor: int | None,
        batch: int | None,
    ) -> int:
        """Put the rows of a file of JSON lines into a table; how many they were.

        ``ingested`` is in nanoseconds since the epoch. Keys that are no columns are passed over, columns
        without a key are null.
        """
        kinds = {c.name: "JSON" if c.type == "dynamic" else "VARCHAR" for c in table.columns}
        names = ", ".join(quoted(name) for name in kinds)
        values = ", ".join(from_text(column) for column in table.columns)
        stamps = [ingested, cursor, batch] if table.stamped else [None, None, None]
        done = connection.execute(
            f"INSERT INTO main.{quoted(table.name)} ({names}, {_STAMPED}) "
            f"SELECT {values}, make_timestamp_ns(?), ?, ? FROM read_json(?, format = 'newline_delimited', "
            f"maximum_object_size = {_LONGEST_ROW}, columns = {_struct(kinds)})",
            [*stamps, str(path)],
        ).fetchone()
        return int(done[0]) if done else 0

    def append(
        self, connection: duckdb.DuckDBPyConnection, table: Table, sql: str, *, ingested: int, cursor: int
    ) -> int:
        """Put the rows of a SELECT into a table, column by column; how many they were."""
        names = ", ".join(quoted(column.name) for column in table.columns)
        stamps = [ingested, cursor] if table.stamped else [None, None]
        done = connection.execute(
            f"INSERT INTO main.{quoted(table.name)} ({names}, {_STAMPED}) "
            f"SELECT *, make_timestamp_ns(?), ?, NULL FROM ({sql})",
            stamps,
        ).fetchone()
        return int(done[0]) if done else 0


def _struct(columns: dict[str, str]) -> str:
    """A DuckDB struct literal of names and types."""
    pairs = ("'{}': '{}'".format(name.replace("'", "''"), kind) for name, kind in columns.items())
    return "{" + ", ".join(pairs) + "}"

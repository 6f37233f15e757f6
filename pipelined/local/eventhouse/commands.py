"""The commands that a poller's table and its tests need: ``.create``, ``.ingest``, ``.show``, their kin."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from pipelined.local.eventhouse.answers import Column, Result
from pipelined.local.eventhouse.batches import Batches
from pipelined.local.eventhouse.engine import Engine
from pipelined.local.eventhouse.refusals import RefusedError
from pipelined.local.eventhouse.requests import Request
from pipelined.local.eventhouse.rows import DUCKDB_TYPES, quoted
from pipelined.local.eventhouse.storage import Storage, Table

__all__ = ["Commands", "parsed_columns"]

_NAME = r"(?:\[\s*['\"](?P<{0}_q>[^'\"]+)['\"]\s*\]|(?P<{0}>\w+))"
_COLUMNS: Final = re.compile(r"\s*(?:\[\s*['\"]([^'\"]+)['\"]\s*\]|(\w+))\s*:\s*(\w+)\s*(?:,|$)")
_ALIASES: Final = {
    "boolean": "bool",
    "double": "real",
    "date": "datetime",
    "time": "timespan",
    "uuid": "guid",
}
_NET_TYPES: Final = {
    "bool": "System.SByte",
    "int": "System.Int32",
    "long": "System.Int64",
    "real": "System.Double",
    "decimal": "System.Data.SqlTypes.SqlDecimal",
    "string": "System.String",
    "datetime": "System.DateTime",
    "timespan": "System.TimeSpan",
    "guid": "System.Guid",
    "dynamic": "System.Object",
}
_TABLE_HEAD = "TableName:string, DatabaseName:string, Folder:string, DocString:string"
_SCHEMA_HEAD = "TableName:string, Schema:string, DatabaseName:string, Folder:string, DocString:string"
_POLICY_HEAD = "PolicyName:string, EntityName:string, Policy:string, ChildEntities:string, EntityType:string"

_Groups = dict[str, str]


class Commands:
    """Runs commands. Thread-safe as far as its parts are."""

    def __init__(self, storage: Storage, batches: Batches, engine: Engine, database: str) -> None:
        self._storage = storage
        self._batches = batches
        self._engine = engine
        self._database = database

    def run(self, request: Request) -> Result:
        """The result of a command; RefusedError if there is none like it here, or it cannot be done."""
        self._batches.settle()
        for pattern, does, writes in _COMMANDS:
            if match := pattern.fullmatch(request.text.strip()):
                if writes and (request.asks("request_readonly") or request.asks("request_readonly_hardline")):
                    raise RefusedError.forbidden("The request is read-only: the command would write.")
                found = match.groupdict()
                named = {key: found.get(f"{key}_q") or value for key, value in found.items()}
                return does(self, {key: value or "" for key, value in named.items()})
        raise RefusedError.syntax(f"the local Eventhouse knows no such command: {request.text[:200]}")

    def create(self, found: _Groups) -> Result:
        """``.create table``: nothing happens to one that is there."""
        self._storage.create(found["table"], parsed_columns(found["columns"]))
        return self._schema(self._storage.table(found["table"]))

    def merge(self, found: _Groups) -> Result:
        """``.create-merge table`` and ``.alter-merge table``: columns are added."""
        columns = parsed_columns(found["columns"])
        if found["table"] not in self._storage.tables and found["verb"].startswith("create"):
            return self.create(found)
        table = self._storage.table(found["table"])
        had = {column.name for column in table.columns}
        added = [column for column in columns if column.name not in had]
        statements = [
            f"ALTER TABLE {{table}} ADD COLUMN {quoted(c.name)} {DUCKDB_TYPES[c.type]}" for c in added
        ]
        self._storage.alter(table, replace(table, columns=table.columns + added), statements)
        return self._schema(self._storage.table(table.name))

    def drop(self, found: _Groups) -> Result:
        """``.drop table``."""
        if found["table"] in self._storage.tables or not found["ifexists"]:
            self._storage.drop(self._storage.table(found["table"]).name)
            self._batches.forget(found["table"])
        return self.show_tables({})

    def clear(self, found: _Groups) -> Result:
        """``.clear table T data``."""
        table = self._storage.table(found["table"])
        with self._storage.change() as connection:
            connection.execute(f"DELETE FROM main.{quoted(table.name)}")
        return Result.of("ExtentId:guid, TableName:string")

    def rename_table(self, found: _Groups) -> Result:
        """``.rename table``."""
        table = self._storage.table(found["table"])
        statement = f"ALTER TABLE {{table}} RENAME TO {quoted(found['new'])}"
        self._storage.alter(table, replace(table, name=found["new"]), [statement])
        self._batches.rename(table.name, found["new"])
        return self.show_tables({})

    def rename_column(self, found: _Groups) -> Result:
        """``.rename column``."""
        table, column = self._column(found)
        new = Column(found["new"], column.type)
        statement = f"ALTER TABLE {{table}} RENAME COLUMN {quoted(column.name)} TO {quoted(new.name)}"
        return self._replace(table, column, [new], [statement])

    def retype_column(self, found: _Groups) -> Result:
        """``.alter column``: what the column held before is null, as in the service."""
        table, column = self._column(found)
        new = Column(column.name, _type(found["type"]))
        value = "''" if new.type == "string" else "NULL"
        kind = DUCKDB_TYPES[new.type]
        statement = f"ALTER TABLE {{table}} ALTER COLUMN {quoted(column.name)} TYPE {kind} USING {value}"
        return self._replace(table, column, [new], [statement])

    def drop_column(self, found: _Groups) -> Result:
        """``.drop column``."""
        table, column = self._column(found)
        return self._replace(table, column, [], [f"ALTER TABLE {{table}} DROP COLUMN {quoted(column.name)}"])

    def _column(self, found: _Groups) -> tuple[Table, Column]:
        table = self._storage.table(found["table"])
        for column in table.columns:
            if column.name == found["column"]:
                return table, column
        raise RefusedError.bad_request(f"Column '{found['column']}' of table '{table.name}' was not found.")

    def _replace(self, table: Table, old: Column, new: list[Column], statements: list[str]) -> Result:
        at = table.columns.index(old)
        columns = [*table.columns[:at], *new, *table.columns[at + 1 :]]
        self._storage.alter(table, replace(table, columns=columns), statements)
        return self._schema(self._storage.table(table.name))

    def set_policy(self, found: _Groups) -> Result:
        """``.alter table T policy ingestiontime true|false``: rows from now on are stamped, or are not."""
        table = self._storage.table(found["table"])
        self._storage.alter(table, replace(table, stamped=found["value"].lower() == "true"), [])
        return self.show_policy(found)

    def ingest(self, found: _Groups) -> Result:
        """``.ingest inline``: the rows as CSV, or as JSON lines with ``format='json'``."""
        table = self._storage.table(found["table"])
        path = self._batches.new_file()
        rows = io.StringIO(found["rows"].strip("\r\n"))
        with path.open("w", encoding="utf-8") as file:
            if re.search(r"format\s*=\s*['\"]?(?:multi)?json", found["properties"], re.IGNORECASE):
                file.writelines(rows)
            else:
                file.writelines(json.dumps(_record(table, row)) + "\n" for row in csv.reader(rows) if row)
        self._batches.take(table, path)
        return Result.of("ExtentId:guid, ItemLoaded:string, Duration:timespan, HasErrors:bool")

    def ingest_query(self, found: _Groups) -> Result:
        """``.set``, ``.append``, ``.set-or-append``, ``.set-or-replace``: the rows of a query."""
        sql, columns = self._engine.select(found["query"])
        name, verb = found["table"], found["verb"].lower()
        if name not in self._storage.tables and verb != "append":
            self._storage.create(name, columns)
        elif verb == "set":
            raise RefusedError.bad_request(f"Table '{name}' exists already.")
        elif verb == "set-or-replace":
            self.clear(found)
        count = self._batches.append(self._storage.table(name), sql)
        head = "ExtentId:guid, OriginalSize:real, ExtentSize:real, RowCount:long"
        return Result.of(head, [["00000000-0000-0000-0000-000000000000", 0.0, 0.0, count]])

    def show_tables(self, _found: _Groups) -> Result:
        """``.show tables``."""
        return Result.of(_TABLE_HEAD, [[name, self._database, "", ""] for name in self._storage.tables])

    def show_schema(self, found: _Groups) -> Result:
        """``.show table T cslschema`` and ``.show table T schema as json``."""
        table = self._storage.table(found["table"])
        if not found["json"]:
            return self._schema(table)
        columns = [
            {"Name": c.name, "Type": _NET_TYPES[c.type], "CslType": c.type, "DocString": None}
            for c in table.columns
        ]
        return self._schema(table, json.dumps({"Name": table.name, "OrderedColumns": columns}))

    def _schema(self, table: Table, text: str | None = None) -> Result:
        text = text or ",".join(f"{column.name}:{column.type}" for column in table.columns)
        return Result.of(_SCHEMA_HEAD, [[table.name, text, self._database, "", ""]])

    def show_details(self, found: _Groups) -> Result:
        """``.show table T details``: how many rows it has, of the many things the service tells."""
        table = self._storage.table(found["table"])
        with self._storage.reader() as connection:
            count = connection.execute(f"SELECT count(*) FROM main.{quoted(table.name)}").fetchone()
        head = _TABLE_HEAD + ", TotalExtents:long, TotalRowCount:long"
        return Result.of(head, [[table.name, self._database, "", "", 1, count[0] if count else 0]])

    def show_policy(self, found: _Groups) -> Result:
        """``.show table T policy ingestiontime``."""
        table = self._storage.table(found["table"])
        policy = json.dumps({"IsEnabled": table.stamped})
        entity = f"[{self._database}].[{table.name}]"
        return Result.of(_POLICY_HEAD, [["IngestionTimePolicy", entity, policy, "[]", "Table"]])

    def show_databases(self, _found: _Groups) -> Result:
        """``.show databases``."""
        head = (
            "DatabaseName:string, PersistentStorage:string, Version:string, IsCurrent:bool, "
            "DatabaseAccessMode:string, PrettyName:string, ReservedSlot1:bool, DatabaseId:guid"
        )
        identity = "00000000-0000-0000-0000-000000000001"
        return Result.of(head, [[self._database, "", "v1.0", True, "ReadWrite", "", None, identity]])

    def show_version(self, _found: _Groups) -> Result:
        """``.show version``."""
        head = "BuildVersion:string, BuildTime:datetime, ServiceType:string, ProductVersion:string"
        return Result.of(
            head, [["1.0.0.0", "2026-01-01T00:00:00Z", "Engine", "local Eventhouse of pipelined"]]
        )


def _record(table: Table, row: list[str]) -> dict[str, object]:
    """A row of CSV by the names of the columns. A dynamic value is JSON, or else the text itself."""
    record: dict[str, object] = {}
    for column, value in zip(table.columns, row, strict=False):
        record[column.name] = value
        if column.type == "dynamic":
            try:
                record[column.name] = json.loads(value) if value else None
            except ValueError:
                continue
    return record


def _type(name: str) -> str:
    known = _ALIASES.get(name.lower(), name.lower())
    if known not in DUCKDB_TYPES:
        raise RefusedError.syntax(f"'{name}' is no type of a column")
    return known


def parsed_columns(text: str) -> list[Column]:
    """The columns of ``a:string, ['b c']:long``; RefusedError if it is no such list."""
    columns, at = [], 0
    while at < len(text.rstrip()):
        match = _COLUMNS.match(text, at)
        if not match:
            raise RefusedError.syntax(f"no list of columns: {text}")
        columns.append(Column(match[1] or match[2], _type(match[3])))
        at = match.end()
    return columns


def _command(
    pattern: str, does: Callable[[Commands, _Groups], Result], *, writes: bool = True
) -> tuple[re.Pattern[str], Callable[[Commands, _Groups], Result], bool]:
    """A command by its text, where ``@name`` stands for a name, quoted or not, and a space for any."""
    for name in re.findall(r"@(\w+)", pattern):
        pattern = pattern.replace(f"@{name}", _NAME.replace("{0}", name))
    spaced = pattern.replace(" ", r"\s+")
    return re.compile(rf"{spaced}\s*;?", re.IGNORECASE | re.DOTALL), does, writes


_LIST = r"\s*\((?P<columns>[^)]*)\)(?:\s*with\s*\([^)]*\))?"
_PROPERTIES = r"(?:\s+with\s*\((?P<properties>[^)]*)\))?"
_COMMANDS: Final = [
    _command(r"\.create table @table" + _LIST, Commands.create),
    _command(r"\.(?P<verb>create-merge|alter-merge) table @table" + _LIST, Commands.merge),
    _command(r"\.drop table @table(?P<ifexists>\s+ifexists)?", Commands.drop),
    _command(r"\.clear table @table data", Commands.clear),
    _command(r"\.rename table @table to @new", Commands.rename_table),
    _command(r"\.rename column @table\.@column to @new", Commands.rename_column),
    _command(r"\.alter column @table\.@column type\s*=\s*(?P<type>\w+)", Commands.retype_column),
    _command(r"\.drop column @table\.@column", Commands.drop_column),
    _command(r"\.alter table @table policy ingestiontime (?P<value>true|false)", Commands.set_policy),
    _command(
        r"\.ingest inline into table @table" + _PROPERTIES + r"\s*<\|(?P<rows>.*)",
        Commands.ingest,
    ),
    _command(
        r"\.(?P<verb>set-or-append|set-or-replace|append|set) @table" + _PROPERTIES + r"\s*<\|(?P<query>.*)",
        Commands.ingest_query,
    ),
    _command(r"\.show tables", Commands.show_tables, writes=False),
    _command(
        r"\.show table @table (?:cslschema|schema as (?P<json>json))", Commands.show_schema, writes=False
    ),
    _command(r"\.show table @table details", Commands.show_details, writes=False),
    _command(r"\.show table @table policy ingestiontime", Commands.show_policy, writes=False),
    _command(r"\.show databases", Commands.show_databases, writes=False),
    _command(r"\.show version", Commands.show_version, writes=False),
]

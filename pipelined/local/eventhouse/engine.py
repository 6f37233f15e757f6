"""KQL on the tables: duckdb-kql translates it to SQL, DuckDB runs it.

duckdb-kql is extended by entries of its table of functions: what it lacks of the functions a poller needs.
"""

from __future__ import annotations

import datetime
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import duckdb_kql
from duckdb_kql.errors import KqlError, KqlSyntaxError
from duckdb_kql.params import ParameterDeclaration
from duckdb_kql.translate.functions import SCALAR_FUNCTIONS, FunctionSpec

from pipelined.local.eventhouse.answers import Column, Result
from pipelined.local.eventhouse.batches import Batches
from pipelined.local.eventhouse.lists import COLUMN, lifted
from pipelined.local.eventhouse.names import misspelt
from pipelined.local.eventhouse.refusals import RefusedError
from pipelined.local.eventhouse.requests import Request, parameter
from pipelined.local.eventhouse.rows import kql_type, to_json
from pipelined.local.eventhouse.settings import Settings
from pipelined.local.eventhouse.storage import CURSOR, INGESTED, Storage
from pipelined.local.eventhouse.ticks import widen

__all__ = ["Engine"]

#: A cursor is a number as text; the empty one lies before all rows. Any other text is an error.
_BOUND: Final = "CASE WHEN {0} = '' THEN -1 ELSE CAST({0} AS BIGINT) END"
_FUNCTIONS: Final = {
    "ingestion_time": (f'"{INGESTED}"', 0),
    "cursor_current": ("getvariable('kql_cursor')", 0),
    "current_cursor": ("getvariable('kql_cursor')", 0),
    "cursor_after": (f'("{CURSOR}" > {_BOUND})', 1),
    "cursor_before_or_at": (f'("{CURSOR}" <= {_BOUND})', 1),
    "strcmp": ("CASE WHEN {0} < {1} THEN -1 WHEN {0} > {1} THEN 1 ELSE 0 END", 2),
}
_CURSOR_FUNCTION: Final = re.compile(
    r"\b(cursor_after|cursor_before_or_at|cursor_current|current_cursor)\s*\("
)
_NOT_FOUND: Final = re.compile(
    r'(?:Referenced column|Table with name) "?([^"\s]+)"? (?:not found|does not exist)'
)
_LIST: Final = re.compile(r"\b__list\w+")
_CLOCK: Final = "kqlnow"
_PLANS_KEPT: Final = 500
_FETCHED_AT_ONCE: Final = 5000
#: The service's own limit of the time of a query.
_TIMEOUT_S: Final = 240.0
_INTERRUPT_S: Final = 0.05


@dataclass(frozen=True)
class _Plan:
    """A translated query. ``defaults`` are the values of parameters that may be left out, by slot."""

    sql: str
    declarations: tuple[ParameterDeclaration, ...]
    slots: frozenset[str]
    defaults: dict[str, Any]
    clock: bool


class Engine:
    """Runs queries. Thread-safe."""

    def __init__(self, storage: Storage, batches: Batches, settings: Callable[[], Settings]) -> None:
        for name, (template, arguments) in _FUNCTIONS.items():
            SCALAR_FUNCTIONS[name] = FunctionSpec(name, "template", template, (arguments,))
        self._storage = storage
        self._batches = batches
        self._settings = settings
        self._lock = threading.Lock()
        self._plans: OrderedDict[tuple[str, int], _Plan] = OrderedDict()

    def run(self, request: Request) -> Result:
        """The result of a query, cut at the limits of the request and of the service."""
        self._batches.settle()
        text, lists = lifted(request.text, request.parameters)
        plan = self._plan(text)
        values = self._values(plan, request)
        cursor = "" if self._settings().cursors == "empty" else str(self._batches.cursor())
        with self._storage.reader() as connection, _wording(connection, request):
            connection.execute(f"SET VARIABLE kql_cursor = '{cursor}'")
            for name, items in lists.items():
                connection.execute(f'CREATE TEMP TABLE "{name}" AS SELECT unnest(?) AS {COLUMN}', [items])
            described = connection.execute(f"DESCRIBE {plan.sql}", values).fetchall()
            # The hidden columns of a table go along with its rows, but are nobody's to see.
            shown = [(str(name), str(kind)) for name, kind, *_ in described if not name.startswith("$")]
            result = Result([Column(name, kql_type(kind)) for name, kind in shown])
            as_text = self._settings().dynamic_as_text
            # A projection keeps the order of what it projects.
            sql = f"SELECT {to_json(shown, dynamic_as_text=as_text)} FROM ({plan.sql})"
            self._fetch(connection.execute(sql, values), result, request)
        if [column.name for column in result.columns][:2] == ["ColumnName", "ColumnOrdinal"]:
            result.rows = [row for row in result.rows if not row.startswith('["$')]  # getschema
        return result

    def select(self, text: str) -> tuple[str, list[Column]]:
        """The SQL of a query without parameters and the columns it has: for a command that keeps its rows."""
        plan = self._plan(text)
        request = Request("query", text=text)
        with self._storage.reader() as connection, _wording(connection, request):
            described = connection.execute(f"DESCRIBE {plan.sql}", self._values(plan, request)).fetchall()
        shown = [(name, kind) for name, kind, *_ in described if not name.startswith("$")]
        names = ", ".join('"' + name.replace('"', '""') + '"' for name, _ in shown)
        clock = f"TIMESTAMP '{self._now():%Y-%m-%d %H:%M:%S.%f}'"
        sql = plan.sql.replace(f"${_CLOCK}", clock)
        return f"SELECT {names} FROM ({sql})", [Column(name, kql_type(kind)) for name, kind in shown]

    def _fetch(self, rows: duckdb.DuckDBPyConnection, result: Result, request: Request) -> None:
        records, size = self._limits(request)
        most = request.number("query_take_max_records")
        taken = 0
        while fetched := rows.fetchmany(_FETCHED_AT_ONCE):
            texts = [row for (row,) in fetched]
            if most is not None:
                texts = texts[: most - len(result.rows)]
            taken += sum(map(len, texts))
            result.rows += texts
            if len(result.rows) > records:
                result.cut = f"Query result set has exceeded the internal record count limit {records}"
                del result.rows[int(records) :]
            elif taken > size:
                result.cut = f"Query result set has exceeded the internal data size limit {size}"
                while taken > size:
                    taken -= len(result.rows.pop())
            if result.cut:
                result.cut += " (E_QUERY_RESULT_SET_TOO_LARGE; see https://aka.ms/kustoquerylimits)"
            if result.cut or len(result.rows) == most:
                return

    def _limits(self, request: Request) -> tuple[float, float]:
        """How many records, and how many bytes of them, this request may have."""
        records, size = (request.number(f"truncationmax{what}") for what in ("records", "size"))
        if request.asks("notruncation") and records is None and size is None:
            return float("inf"), float("inf")
        settings = self._settings()
        return (
            settings.max_records if records is None else records,
            settings.max_bytes if size is None else size,
        )

    def _plan(self, text: str) -> _Plan:
        if self._settings().cursors == "off" and (match := _CURSOR_FUNCTION.search(text)):
            raise RefusedError.semantic(f"SEM0260: Unknown function: '{match[1]}'.")
        with self._lock:
            key = (text, self._storage.version)
            if key not in self._plans:
                self._plans[key] = self._translate(text)
                if len(self._plans) > _PLANS_KEPT:
                    self._plans.popitem(last=False)
            self._plans.move_to_end(key)
            return self._plans[key]

    def _translate(self, text: str) -> _Plan:
        tables = dict(self._storage.tables)
        if name := misspelt(text, tables):
            raise RefusedError.semantic(_unresolved(name))
        schema = {name: table.all_columns() for name, table in tables.items()}
        schema |= {name: [COLUMN] for name in _LIST.findall(text)}
        try:
            found = duckdb_kql.to_sql(text, schema=schema, allow_write=False, query_now=self._now())
        except KqlSyntaxError as error:
            raise RefusedError.syntax(f"SYN0002: {error}. Query: '{text}'") from error
        except (KqlError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            # Not all it cannot translate does it refuse in words of its own.
            raise RefusedError.semantic(f"the local Eventhouse cannot run this query: {error}") from error
        defaults = {slot: value for slot, value in found.parameters.items() if slot != _CLOCK}
        clock = _CLOCK in found.parameters
        return _Plan(widen(str(found)), found.declarations, found.slots, defaults, clock)

    def _values(self, plan: _Plan, request: Request) -> dict[str, object]:
        """What the parameters of the SQL are bound to."""
        values: dict[str, object] = {_CLOCK: self._now()} if plan.clock else {}
        for told in plan.declarations:
            if told.name not in request.parameters and told.slot not in plan.defaults:
                if told.slot in plan.slots:
                    text = f"The query parameter '{told.name}' is declared and has no value"
                    raise RefusedError.semantic(text)
            elif told.slot in plan.slots:
                value = request.parameters.get(told.name, plan.defaults.get(told.slot))
                values[told.slot] = parameter(told.name, told.type, value)
        return values

    def _now(self) -> datetime.datetime:
        seconds = self._batches.now() / 1e9
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(tzinfo=None)


@contextmanager
def _wording(connection: duckdb.DuckDBPyConnection, request: Request) -> Iterator[None]:
    """Stop at the request's timeout, and word what DuckDB says as the service would."""
    seconds = request.timeout() or _TIMEOUT_S
    done = threading.Event()

    def interrupt() -> None:
        over = done.wait(seconds)
        while not over:  # between two statements there is nothing to interrupt yet
            connection.interrupt()
            over = done.wait(_INTERRUPT_S)

    watch = threading.Thread(target=interrupt, daemon=True)
    watch.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise RefusedError.timed_out(seconds) from error
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        match = _NOT_FOUND.search(str(error))
        raise RefusedError.semantic(_unresolved(match[1]) if match else f"SEM0001: {error}") from error
    except duckdb.Error as error:
        raise RefusedError.bad_request(f"the query failed: {error}") from error
    finally:
        done.set()
        watch.join()


def _unresolved(name: str) -> str:
    return f"SEM0100: Failed to resolve table or column or scalar expression named '{name}'"

"""Is a table whole: its columns, its files, each row once?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

from pipelined.lake.files import StoredFile
from pipelined.lake.positions import Partition, Positions
from pipelined.lake.table import TableSource

__all__ = ["Checked", "Doubled", "check"]

#: Rows whose keys are compared at once: about 250 MB of memory.
_AT_ONCE = 1_000_000
_BUCKETS = 16**3
_DAY = "event_date"


class Doubled(NamedTuple):
    """A key that has several rows, and the days that they are of, ISO dates."""

    key: tuple[str, ...]
    rows: int
    days: tuple[str, ...]


class Checked(NamedTuple):
    """What a check found. ``problems`` are sentences; the rest is for information.

    ``doubled`` are at most as many as asked for, ``doubled_by_day`` counts all of them by their first day.
    ``unneeded`` are data files that the newest version does not name, older versions' among them;
    ``staging`` what killed writers left behind.
    """

    version: int
    rows: int
    files: int
    problems: list[str]
    doubled: list[Doubled]
    doubled_by_day: dict[str, int]
    positions: dict[str, int]
    unneeded: tuple[int, int]
    staging: tuple[int, int]


def check(
    source: TableSource,
    keys: Sequence[str],
    *,
    app: str,
    partitions: Iterable[Partition],
    since: dt.date | None = None,
    most: int = 100,
) -> Checked:
    """Check the newest version; rows by their ``keys``, of days from ``since`` on.

    Without ``keys`` no rows are compared. Raises the table layer's errors where it cannot be read.
    """
    table = source.existing()
    files = source.files()
    problems = source.problems(table)
    actions = pa.table(table.get_add_actions(flatten=True))
    paths = map(unquote, actions.column("path").to_pylist())
    named = dict(zip(paths, actions.column("size_bytes").to_pylist(), strict=True))
    there = {file.path: file for file in files.data()}
    problems += _missing(named, there)
    doubled: list[Doubled] = []
    by_day: dict[str, int] = {}
    if keys and not problems:
        for found in _doubled(table, keys, since):
            by_day[found.days[0]] = by_day.get(found.days[0], 0) + 1
            if len(doubled) < most:
                doubled.append(found)
    positions = Positions(app, source)
    positions.look(table)
    return Checked(
        version=table.version(),
        rows=sum(actions.column("num_records").to_pylist()),
        files=len(named),
        problems=problems,
        doubled=sorted(doubled),
        doubled_by_day=dict(sorted(by_day.items())),
        positions={f"{topic}/{number}": positions.of(table, (topic, number)) for topic, number in partitions},
        unneeded=_sum(file for path, file in there.items() if path not in named),
        staging=_sum(files.staging()),
    )


def _missing(named: dict[str, int], there: dict[str, StoredFile]) -> Iterator[str]:
    for path, size in named.items():
        file = there.get(path)
        if file is None:
            yield f"file {path} is missing; its rows are lost unless it is put back"
        elif file.size != size:
            yield f"file {path} has {file.size} bytes, not {size} as the log says; put back the right one"


def _doubled(table: DeltaTable, keys: Sequence[str], since: dt.date | None) -> Iterator[Doubled]:
    """Keys with several rows, found part by part, so that the memory does not grow with the table."""
    days = "TRUE" if since is None else f"{_DAY} >= DATE '{since}'"
    query = QueryBuilder().register("t", table)

    def rows(sql: str) -> list[dict[str, Any]]:
        # The reader of its own holds the GIL while it waits; pyarrow's does not.
        found = pa.RecordBatchReader.from_stream(query.execute(sql)).read_all()
        return [dict(row) for row in found.to_pylist()]

    (count,) = rows(f"SELECT count(*) AS n FROM t WHERE {days}")  # noqa: S608 - a date of ours
    parts = min(_BUCKETS, -(-count["n"] // _AT_ONCE))
    names = ", ".join(keys)
    digest = f"substr(md5(concat_ws('/', {names})), 1, 3)"
    for part in range(parts):
        first, last = (_BUCKETS * number // parts for number in (part, part + 1))
        mine = "TRUE" if parts == 1 else f"{digest} BETWEEN '{first:03x}' AND '{last - 1:03x}'"
        what = f"{names}, count(*) AS n, min({_DAY}) AS first, max({_DAY}) AS last"
        which = f"{days} AND {mine} GROUP BY {names} HAVING count(*) > 1"
        for row in rows(f"SELECT {what} FROM t WHERE {which}"):  # noqa: S608 - columns and dates of ours
            between = tuple(sorted({str(row["first"]), str(row["last"])}))
            yield Doubled(tuple(str(row[key]) for key in keys), row["n"], between)


def _sum(files: Iterable[StoredFile]) -> tuple[int, int]:
    """How many, and their bytes together."""
    sizes = [file.size for file in files]
    return len(sizes), sum(sizes)

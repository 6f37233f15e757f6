"""The queries that a poller sends: the local Eventhouse runs them, Microsoft's own parser binds them.

The table is the source event of the pipeline. Column names are written ``['name']``, which is right for any.
"""

from __future__ import annotations

TABLE = "Events"
COLUMNS = {
    "type": "string",
    "version": "long",
    "utcDateTime": "datetime",
    "traceId": "guid",
    "data": "dynamic",
}
CREATE = f".create table {TABLE} ({', '.join(f'{name}:{kind}' for name, kind in COLUMNS.items())})"

_PROJECT = "project ['type'], ['version'], ['utcDateTime'], id, ['data'], it"
_EXTEND = "extend it = ingestion_time(), id = tostring(['traceId'])"
_AFTER = "where it > t or (it == t and strcmp(id, k) > 0)"
_WINDOW = "where cursor_after(c0) and cursor_before_or_at(c1)"


def _paged(declared: str, source: str, rows: int) -> str:
    declare = f"declare query_parameters({declared});\n"
    return f"{declare}{source}\n| order by it asc, id asc\n| take {rows}\n| {_PROJECT}"


def first_page(rows: int) -> str:
    """The first page of a window of cursors: c0 and c1."""
    return _paged("c0:string, c1:string", f"{TABLE}\n| {_WINDOW}\n| {_EXTEND}", rows)


def next_page(rows: int) -> str:
    """The page after the row with the ingestion time t and the id k."""
    return _paged(
        "c0:string, c1:string, t:datetime, k:string", f"{TABLE}\n| {_WINDOW}\n| {_EXTEND}\n| {_AFTER}", rows
    )


def filtered_page(rows: int) -> str:
    """A page with an extra filter of the operator's, its value a parameter."""
    source = f"{TABLE}\n| {_WINDOW}\n| where ['type'] startswith prefix\n| {_EXTEND}\n| {_AFTER}"
    return _paged("c0:string, c1:string, t:datetime, k:string, prefix:string", source, rows)


def page_by_time(rows: int) -> str:
    """Without cursors, and for a back-fill: the page after (t, k) of what was ingested from f until u."""
    declared = "f:datetime, u:datetime, t:datetime, k:string"
    return _paged(declared, f"{TABLE}\n| {_EXTEND}\n| where it >= f and it < u\n| {_AFTER}", rows)


CURRENT = "print c = cursor_current()"
WAITING = (
    "declare query_parameters(c0:string);\n"
    f"{TABLE}\n| where cursor_after(c0)\n| take 1\n| summarize waiting = count()"
)
EXTENT = (
    "declare query_parameters(f:datetime, u:datetime);\n"
    f"{TABLE}\n| extend it = ingestion_time()\n| where it >= f and it < u\n"
    "| summarize n = count(), oldest = min(it), newest = max(it)"
)
UNSTAMPED = f"{TABLE}\n| where isnull(ingestion_time())\n| summarize n = count()"
NEWEST = f"{TABLE}\n| summarize newest = max(ingestion_time())"
SCHEMA = f"{TABLE}\n| getschema\n| project ColumnName, ColumnType"

QUERIES = {
    "current": CURRENT,
    "first_page": first_page(100),
    "next_page": next_page(100),
    "filtered_page": filtered_page(100),
    "page_by_time": page_by_time(100),
    "waiting": WAITING,
    "extent": EXTENT,
    "unstamped": UNSTAMPED,
    "newest": NEWEST,
    "schema": SCHEMA,
}

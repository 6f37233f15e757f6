"""Every query text that the Eventhouse source and the back-fill can send, for one table."""

from __future__ import annotations

from pipelined.config.sources import Columns, Eventhouse
from pipelined.sources.eventhouse.queries import Bounds, Queries
from pipelined.sources.eventhouse.range import Range

ROWS = 100
STAMP = "2026-01-05T14:22:31.1234567Z"


def texts(section: Eventhouse) -> dict[str, str]:
    """By what they are for."""
    queries = Queries(section)
    bounds = {
        "a window": Bounds.cursors("a", "b"),
        "the first window from a time": Bounds.cursors("a", "b", STAMP),
        "times": Bounds.times(STAMP, STAMP),
        "from a time": Bounds.since(STAMP),
        "a back-fill": Range(STAMP, STAMP).bounds(),
        "a back-fill by cursors": Range("a", "b", by_cursor=True).bounds(),
    }
    found = {
        "the poll": queries.poll(),
        "the overlap at the beginning": queries.overlap(behind=False),
        "the overlap": queries.overlap(behind=True),
        "the cursor": queries.cursor(),
        "the clock": queries.clock(),
        "the unstamped": queries.unstamped(),
        "the schema": queries.schema(),
        "the filter": queries.filtered(),
    }
    for name, each in bounds.items():
        found[f"the first page of {name}"] = queries.page(each, ROWS, behind=False)
        found[f"the next page of {name}"] = queries.page(each, ROWS, behind=True)
        found[f"a crowd of {name}"] = queries.crowd(each, ROWS)
        found[f"the count of {name}"] = queries.count(each)
    return found


#: Columns of any name, and a table of one.
NAMED = Eventhouse(
    table="raw events-v1.2",
    columns=Columns(
        type="last", version="payload version", utc_date_time="order", trace_id="time", data="data.v-2"
    ),
    filter="['last'] startswith 'claims.' // ours",
)
NAMED_TYPES = {
    "last": "string",
    "payload version": "string",
    "order": "datetime",
    "time": "string",
    "data.v-2": "dynamic",
    "it": "string",
}

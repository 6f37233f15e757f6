"""The KQL that is sent: every text there is, values as parameters only.

Columns and table are written ``['name']``. What the queries name themselves begins with ``pipelined_``, and
no mapped column may (config.source_checks), so that no column hides a parameter, or the other way round.

A page is what lies within bounds (a window of cursors, or of ingestion times), behind a key, in order of
ingestion time and id. Rows that share both are a *crowd*. One that does not fit into a page is read for
itself, in order of a hash of the whole row, with rows that are alike in everything counted: that order is
complete whatever the table holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pipelined.config.sources import Eventhouse
from pipelined.errors import UsageError
from pipelined.messages.codec import parse_time

__all__ = ["PREFIX", "Bounds", "Queries", "moment", "parameters", "tick"]

#: What names of our own begin with.
PREFIX: Final = "pipelined_"
_FRACTION: Final = re.compile(r"\.(\d{1,7})")
_TYPES: Final = {
    "after": "string",
    "until": "string",
    "since": "datetime",
    "settled": "datetime",
    "to": "datetime",
    "time": "datetime",
    "id": "string",
    "hash": "string",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which rows to look: ``conditions`` in KQL, with these parameters."""

    conditions: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def cursors(cls, after: str, until: str, since: str = "") -> Bounds:
        """Rows that came after one cursor until the other, and not before the time ``since``."""
        text = "cursor_after(pipelined_after) and cursor_before_or_at(pipelined_until)"
        given = {"after": after, "until": until}
        if since:
            return cls(f"{text} and ingestion_time() >= pipelined_since", given | {"since": moment(since)})
        return cls(text, given)

    @classmethod
    def times(cls, since: str, to: str) -> Bounds:
        """Rows ingested from one time until the other, both included."""
        text = "ingestion_time() >= pipelined_since and ingestion_time() <= pipelined_to"
        return cls(text, {"since": moment(since), "to": moment(to)})

    @classmethod
    def since(cls, since: str) -> Bounds:
        """Rows ingested at this time and later."""
        return cls("ingestion_time() >= pipelined_since", {"since": moment(since)})


def moment(text: str) -> str:
    """A time as a value of a parameter, all its digits kept."""
    return f"datetime({text})"


def tick(text: str) -> str:
    """A time as the service writes it: UTC, seven digits; raises UsageError for what is none."""
    try:
        told = parse_time(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is not an ISO-8601 time such as 2026-01-05T00:00:00Z") from error
    fraction = _FRACTION.search(text)  # Python would keep six digits of it
    return f"{told:%Y-%m-%dT%H:%M:%S}.{fraction.group(1) if fraction else '':0<7}Z"


class Queries:
    """The texts for one table."""

    def __init__(self, config: Eventhouse) -> None:
        columns = config.columns
        self.table = _quoted(config.table)
        self._id = _quoted(columns.trace_id)
        #: As the rows have them: type, version, time and payload.
        self._plain = [_quoted(name) for name in (columns.type, columns.version, columns.utc_date_time)]
        self._data = f"tostring({_quoted(columns.data)})"
        # A line of its own, so that a comment in the filter ends.
        self._filter = f"\n| where ({config.filter}\n)" if config.filter.strip() else ""

    def poll(self) -> str:
        """One row: whether rows wait behind a cursor, the present cursor and time, rows before the cursor."""
        behind = (
            f"toscalar({self.table} | where cursor_before_or_at(pipelined_after) "
            "| take 1 | summarize count())"
        )
        return (
            f"{_declared('after')}{self.table}\n| where cursor_after(pipelined_after){self._filter}\n"
            "| take 1\n| summarize waiting = count()\n"
            f"| extend cursor = cursor_current(), moment = now(), behind = {behind}"
        )

    def page(self, bounds: Bounds, rows: int, *, behind: bool) -> str:
        """The first rows within the bounds, or those behind a key (parameters time and id)."""
        where = (
            "\n| where pipelined_it > pipelined_time or "
            "(pipelined_it == pipelined_time and strcmp(pipelined_key, pipelined_id) > 0)"
        )
        names = ("time", "id") if behind else ()
        return (
            f"{self._rows(bounds, *names)}{where if behind else ''}\n"
            f"| order by pipelined_it asc, pipelined_key asc\n| take {rows}\n| project {self._wanted()}"
        )

    def crowd(self, bounds: Bounds, rows: int) -> str:
        """Of the rows of one time and id those behind a hash, alike ones once, with how many they are."""
        kind, version, when = self._plain
        wanted = f"pipelined_it, {self._id}, {kind}, {version}, {when}, pipelined_data"
        return (
            f"{self._rows(bounds, 'time', 'id', 'hash')}\n"
            "| where pipelined_it == pipelined_time and pipelined_key == pipelined_id\n"
            f"| extend pipelined_data = {self._data}\n"
            f"| summarize pipelined_copies = count() by {wanted}\n"
            # One after the other: nested they are more than the local Eventhouse can translate.
            f"| extend pipelined_v = tostring({version}), pipelined_w = tostring({when})\n"
            f"| extend pipelined_n = tostring(strlen({kind}))\n"
            f"| extend pipelined_row = strcat(pipelined_v, ' ', pipelined_w, ' ', pipelined_n, ' ', {kind}, "
            "pipelined_data)\n"
            "| extend pipelined_sum = hash_sha256(pipelined_row)\n"
            "| where strcmp(pipelined_sum, pipelined_hash) > 0\n"
            f"| order by pipelined_sum asc\n| take {rows}\n"
            f"| project {wanted}, pipelined_sum, pipelined_copies"
        )

    def _rows(self, bounds: Bounds, *names: str) -> str:
        return (
            f"{_declared(*bounds.parameters, *names)}{self.table}\n"
            f"| where {bounds.conditions}{self._filter}\n"
            f"| extend pipelined_it = ingestion_time(), pipelined_key = tostring({self._id})"
        )

    def _wanted(self) -> str:
        plain = ", ".join(self._plain)
        return f"pipelined_it, {self._id}, {plain}, pipelined_data = {self._data}"

    def count(self, bounds: Bounds) -> str:
        """One row: how many rows lie within the bounds."""
        return f"{self._rows(bounds)}\n| summarize waiting = count()"

    def overlap(self, *, behind: bool) -> str:
        """One row: of what was ingested since a time, how many rows lie behind a key (all, without one),
        how many of the others are not settled; and the time.
        """
        fresh = "true"
        if behind:
            fresh = (
                "pipelined_it > pipelined_time or "
                "(pipelined_it == pipelined_time and strcmp(pipelined_key, pipelined_id) > 0)"
            )
        names = ("settled", "time", "id") if behind else ("settled",)
        return (
            f"{self._rows(Bounds.since(''), *names)}\n"
            f"| extend pipelined_fresh = {fresh}\n"
            "| summarize fresh = countif(pipelined_fresh), "
            "known = countif(not(pipelined_fresh) and pipelined_it >= pipelined_settled)\n"
            "| extend moment = now()"
        )

    def clock(self) -> str:
        """One row: the time."""
        return "print moment = now()"

    def cursor(self) -> str:
        """One row: the present cursor."""
        return "print cursor = cursor_current()"

    def unstamped(self) -> str:
        """One row: how many rows have no ingestion time, and so are in no window."""
        return f"{self.table}\n| where isnull(ingestion_time())\n| summarize unstamped = count()"

    def schema(self) -> str:
        """The columns of the table: name, ordinal, type of .NET, type."""
        return f"{self.table}\n| getschema"

    def filtered(self) -> str:
        """No rows; what is refused is the filter."""
        return f"{self.table}{self._filter}\n| take 0"


def parameters(given: Mapping[str, str]) -> dict[str, str]:
    """Values by the names they have in the queries."""
    return {PREFIX + name: value for name, value in given.items()}


def _declared(*names: str) -> str:
    told = ", ".join(f"{PREFIX}{name}:{_TYPES[name]}" for name in names)
    return f"declare query_parameters({told});\n"


def _quoted(name: str) -> str:
    return "['" + name.replace("\\", "\\\\").replace("'", "\\'") + "']"

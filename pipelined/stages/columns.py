"""What the two conversions of messages into table rows share: their result, times, and the trace."""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from pipelined.errors import PoisonError
from pipelined.messages.codec import parse_time
from pipelined.stages.contract import Record

__all__ = ["TIME", "Converted", "Rows", "now", "table", "utc"]

#: How the tables keep times.
TIME = pa.timestamp("us", "UTC")


class Rows(NamedTuple):
    """``table`` has one row for each of ``records``, in their order."""

    table: pa.Table
    records: list[Record]

    @property
    def offsets(self) -> list[int]:
        """The offset that each row came from."""
        return [record.offset for record in self.records]


class Converted(NamedTuple):
    """Messages as rows: what became one, what cannot be read, and fields left null for their shape.

    ``misshapen`` counts by the field's name in the message (``data.contact``).
    """

    rows: Rows
    poison: list[tuple[Record, PoisonError]]
    misshapen: Counter[str]


def utc(text: str, field: str) -> dt.datetime:
    """An ISO-8601 time, UTC where it has no offset. Raises PoisonError, naming the message's field.

    The result may be naive, and then is UTC too: Arrow takes both.
    """
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        try:
            return parse_time(text)
        except (ValueError, OverflowError) as error:
            raise _no_time(text, field) from error
    if moment.tzinfo is None or moment.tzinfo is dt.UTC:
        return moment
    try:
        return moment.astimezone(dt.UTC)
    except OverflowError as error:
        raise _no_time(text, field) from error


def _no_time(text: str, field: str) -> PoisonError:
    return PoisonError("bad_time", f"{field} {text[:64]!r} is not an ISO-8601 time")


def now(count: int) -> pa.Array:
    """The time now, in µs, ``count`` times."""
    return pa.repeat(pa.scalar(time.time_ns() // 1000, TIME), count)


def table(columns: dict[str, Sequence[object] | pa.Array], schema: pa.Schema) -> pa.Table:
    """The columns by name, in the order and with the types of ``schema``, all of one length."""
    arrays = []
    for field in schema:
        column = columns[field.name]
        arrays.append(column if isinstance(column, pa.Array) else pa.array(column, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)

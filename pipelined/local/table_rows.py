"""Events as rows of a table: what of a line a table can hold, and how rows come into a local Eventhouse."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pipelined.local.eventhouse.remote import Remote

__all__ = ["COLUMNS", "TableWriter", "table_row"]

COLUMNS: Final = ("type", "version", "utcDateTime", "traceId", "data")
#: The years that the local Eventhouse can hold.
_YEARS: Final = range(1678, 2262)
#: How a batch comes in, and its share: in the usual way; streamed, so that its rows are visible before they
#: have a cursor; late, so that it turns up with a stamp of before; with the very stamp of the batch before.
_WAYS: Final = {"batch": 5, "streamed": 2, "late": 2, "same-time": 1}
_LEAST_S, _MOST_S = 0.3, 2.5


def table_row(line: bytes) -> dict[str, Any] | None:
    """The row that a line becomes, None where no table can hold it: only an event has columns.

    A table has no other columns than these, and text there is valid Unicode.
    """
    try:
        found = json.loads(line.decode())
        if not isinstance(found, dict):
            return None
        row = {name: found.get(name) for name in COLUMNS}
        # What is no Unicode, half a surrogate pair, is replaced as a service would.
        text = json.dumps(row, ensure_ascii=False).encode(errors="replace")
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    year = str(row["utcDateTime"])[:4]
    if year.isdigit() and int(year) not in _YEARS:
        return None
    assert isinstance(row, dict)
    return row


class TableWriter:
    """Puts batches of rows into a table as they come in life; ``done_at`` is when the last has its cursor."""

    def __init__(self, eventhouse: Remote, table: str, rng: random.Random) -> None:
        self._eventhouse = eventhouse
        self._table = table
        self._rng = rng
        self._ways = self._deck()
        self._stamp = time.time_ns()
        self.done_at = 0.0

    def put(self, rows: Sequence[dict[str, Any]]) -> None:
        """Hand over the rows of one batch; UnavailableError where the server does not answer."""
        if not rows:
            return
        way, wait = next(self._ways), self._rng.uniform(_LEAST_S, _MOST_S)
        if way != "same-time":
            self._stamp = time.time_ns()
        delay, lag = wait * (way == "late"), wait * (way == "streamed")
        self._eventhouse.ingest(self._table, rows, ingested=self._stamp, delay=delay, cursor_lag=lag)
        self.done_at = max(self.done_at, time.monotonic() + delay + lag)

    def _deck(self) -> Iterator[str]:
        cards = [way for way, count in _WAYS.items() for _ in range(count)]
        while True:
            yield from self._rng.sample(cards, len(cards))

"""Reading what lies within bounds page by page, each row once, whatever ids and times the rows share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from pipelined.errors import BugError, DependencyError
from pipelined.sources.eventhouse.client import Answer, Client
from pipelined.sources.eventhouse.errors import LimitError
from pipelined.sources.eventhouse.position import Key
from pipelined.sources.eventhouse.queries import Bounds, Queries, moment, parameters
from pipelined.sources.eventhouse.rows import Row, size

__all__ = ["Pages", "Read"]

_logger = logging.getLogger("pipelined.sources")

#: About so large is an answer; it is in memory several times over while it is taken apart.
_PAGE_BYTES: Final = 8 << 20
#: A larger one is not taken.
_MOST_BYTES: Final = 12 << 20
#: The first page of a process, whose rows' size nobody knows yet.
_FIRST_ROWS: Final = 2000
#: Of a page of two rows one is sent: with fewer nothing would move.
_LEAST_ROWS: Final = 2
#: Full pages after a limit before the next attempt at larger ones.
_PATIENCE: Final = 16
#: Where a row has its id.
_ID: Final = 1


class Read(NamedTuple):
    """Rows, the key behind them, whether they were the last within the bounds, and the type of their ids."""

    rows: Sequence[Row]
    key: Key | None
    finished: bool
    kind: str


class Pages:
    """Reads pages of at most ``most_rows`` rows, fewer where rows are large or the service says so.

    ``shortened`` counts the pages asked for again because of a limit; whoever reads it sets it back.
    """

    def __init__(self, client: Client, queries: Queries, most_rows: int) -> None:
        self._client = client
        self._queries = queries
        self._most = max(most_rows, _LEAST_ROWS)
        self._halvings = 0
        while self.rows > _FIRST_ROWS:
            self._halvings += 1
        self._patience = 0
        self.shortened = 0

    @property
    def rows(self) -> int:
        """How many rows the next page asks for."""
        return max(self._most >> self._halvings, _LEAST_ROWS)

    def read(self, bounds: Bounds, key: Key | None) -> Read:
        """The next rows behind ``key``."""
        if key is not None and key.hash is not None:
            return self._crowd(bounds, key)
        asked, (rows, types) = self._ask(bounds, key)
        self._in_order(rows, key)
        if len(rows) < asked:
            return Read(rows, _key_of(rows[-1]) if rows else key, True, types[_ID])
        # More rows like the last one may be behind it: they are read again, together.
        kept, last = len(rows), rows[-1][:2]
        while kept and rows[kept - 1][:2] == last:
            kept -= 1
        if not kept:
            return self._crowd(bounds, Key(last[0], last[1], hash=""))
        return Read(rows[:kept], _key_of(rows[kept - 1]), False, types[_ID])

    def _crowd(self, bounds: Bounds, key: Key) -> Read:
        """Rows of one ingestion time and id, in the order of their hashes."""
        asked, (found, types) = self._ask(bounds, key)
        rows: list[Row] = []
        most = max(self.rows, 1)
        skipped = key.copies
        for row in found:
            sum_, copies = row[6], row[7]
            fits = min(copies - skipped, most - len(rows))
            rows += [row] * fits
            if skipped + fits < copies:
                return Read(rows, msgspec.structs.replace(key, copies=skipped + fits), False, types[_ID])
            key, skipped = msgspec.structs.replace(key, hash=sum_, copies=0), 0
        if len(found) < asked:  # that was all of them; on with what is behind
            key = Key(key.it, key.id)
        return Read(rows, key, False, types[_ID])

    def _ask(self, bounds: Bounds, key: Key | None) -> tuple[int, Answer]:
        """A page, and how many rows it was asked for; smaller and smaller ones where there is a limit."""
        while True:
            asked = self.rows
            given = dict(bounds.parameters)
            if key is not None:
                given |= {"time": moment(key.it), "id": key.id}
            if key is not None and key.hash is not None:
                given["hash"] = key.hash
                text = self._queries.crowd(bounds, asked)
            else:
                text = self._queries.page(bounds, asked, behind=key is not None)
            # The smallest page is only bounded by the service itself.
            limit = None if asked == _LEAST_ROWS else _MOST_BYTES
            try:
                answer = self._client.query(text, parameters(given), limit)
            except LimitError as error:
                if asked == _LEAST_ROWS:
                    msg = f"even a page of {asked} rows is beyond a limit: {error}"
                    raise DependencyError("limit", msg) from error
                self._shrink(str(error))
                continue
            for row in answer.rows:
                row[_ID] = row[_ID] or ""  # there is no null text, but a null guid
            self._adapt(answer.rows, asked)
            return asked, answer

    def _shrink(self, why: str) -> None:
        self._halvings += 1
        self._patience = _PATIENCE
        self.shortened += 1
        _logger.info("pages of %d rows from now on: %s", self.rows, why, extra={"rows": self.rows})

    def _adapt(self, rows: list[Row], asked: int) -> None:
        """Let the next page be about as large as it may."""
        if len(rows) < asked:
            return
        held = sum(map(size, rows))
        if held > _PAGE_BYTES and asked > _LEAST_ROWS:
            self._halvings += 1
        elif self._patience:
            self._patience -= 1
        elif self._halvings and 2 * held <= _PAGE_BYTES:
            self._halvings -= 1

    def _in_order(self, rows: list[Row], key: Key | None) -> None:
        """The order of the rows is what paging stands on: an order of another kind would lose some."""
        keys = [(row[0].removesuffix("Z"), row[1]) for row in rows]
        if key is not None and rows:
            keys.insert(0, (key.it.removesuffix("Z"), key.id))
        if keys != sorted(keys) and all(id_.isascii() for _, id_ in keys):
            msg = "the Eventhouse orders texts otherwise than it compares them: its rows cannot be paged"
            raise BugError("order", msg)


def _key_of(row: Row) -> Key:
    return Key(row[0], row[1])

"""The Eventhouse as a source: one window of cursors after the other, each read to its end before the next.

A window is closed at the cursor that is current when it is opened, so what lies in it does not change any
more, whatever comes meanwhile; behind its last page the position is that cursor. Rows that become visible
late, or have their cursor late, are in a later window. One query tells whether there is anything to open a
window for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from pipelined.auth import provider
from pipelined.config import Config
from pipelined.config.sources import Eventhouse
from pipelined.errors import ConfigError
from pipelined.messages.codec import parse_time
from pipelined.sources.contract import Facts, Page, Probe
from pipelined.sources.eventhouse.client import Client
from pipelined.sources.eventhouse.diagnosis import RESET, check_table, diagnose
from pipelined.sources.eventhouse.errors import RefusedError
from pipelined.sources.eventhouse.pages import Pages
from pipelined.sources.eventhouse.position import Position
from pipelined.sources.eventhouse.queries import Bounds, Queries, parameters
from pipelined.sources.eventhouse.rows import SOURCE, Row, output
from pipelined.stages.contract import Output

__all__ = ["SCOPE", "EventhouseSource", "table_key"]

_logger = logging.getLogger("pipelined.sources")

#: What a login is asked for; any cluster takes it.
SCOPE: Final = "https://kusto.kusto.windows.net/.default"
#: A cursor that moves though no row comes is kept so often.
_KEPT_S: Final = 600.0
#: How often rows without an ingestion time are counted.
_COUNTED_S: Final = 300.0
#: Within it no retention takes all rows there were: they went some other way.
_RETENTION_S: Final = 86400.0


def table_key(where: Eventhouse) -> str:
    """The key of the table's position on the checkpoints topic."""
    return f"eventhouse:{urlsplit(where.url).netloc}/{where.database}/{where.table}"


class _Poll(NamedTuple):
    """How things stand: whether rows wait, the cursor, the time, whether there are rows before the cursor."""

    waiting: bool
    cursor: str
    moment: str
    behind: bool


class EventhouseSource:
    """A source by the contract of pipelined.sources.contract."""

    name = SOURCE

    def __init__(self, config: Config) -> None:
        where = config.eventhouse
        self._config = where
        self.key = table_key(where)
        self.pause_s = where.poll_seconds
        self._login = provider(
            where.auth, SCOPE, section="eventhouse.auth", host=urlsplit(where.url).hostname or ""
        )
        self._client = Client(where, self._login)
        self._queries = Queries(where)
        self._pages = Pages(self._client, self._queries, where.page_rows)
        self._position: Position | None = None
        self._saved = time.monotonic()
        #: The cursor of the last poll that found nothing; the position may move there after the next.
        self._idle_cursor = ""
        self._several = False
        self._checked = False
        self._counted = -_COUNTED_S
        self._unstamped: int | None = None
        self._lesser = ""
        self._now: float | None = None

    def resume(self, position: bytes | None) -> None:
        """Go on behind a position, or begin as configured."""
        self._position = Position.read(position, RESET) if position is not None else None
        self._idle_cursor = ""
        self._several = False

    def begin_at(self, where: str) -> bytes:
        """The position of ``beginning``, ``now`` or a time, as bytes for ``resume``."""
        return self._begin(where).to_bytes()

    def fetch(self, timeout: float) -> Page | None:
        """The next page; what takes time is the query, so ``timeout`` is not waited for."""
        del timeout
        if not self._checked:
            check_table(self._client, self._queries, self._config)
            self._checked = True
        if self._position is None:
            self._position = self._begin(self._config.start)
            if self._config.start == "now":  # which is this moment, and no later one
                return Page((), self._position.to_bytes(), self._now, more=False)
        try:
            return self._next(self._position)
        except RefusedError as error:
            raise diagnose(self._client, self._queries, self._config, error, self._position.cursor) from error

    def _begin(self, where: str) -> Position:
        if where == "beginning":
            return Position.beginning()
        if where == "now":
            ((cursor,),) = self._client.query(self._queries.cursor(), {}).rows
            return msgspec.structs.replace(Position.beginning(), cursor=cursor)
        return Position.beginning(since=where)

    def _next(self, position: Position) -> Page | None:
        if position.until is None:
            poll = self._poll(position)
            if not poll.waiting or poll.cursor == position.cursor:
                return self._idle(position, poll)
            self._idle_cursor = ""
            self._several = False
            position = msgspec.structs.replace(position, until=poll.cursor, asked=poll.moment)
        return self._read(position)

    def _poll(self, position: Position) -> _Poll:
        ((waiting, cursor, moment, behind),) = self._client.query(
            self._queries.poll(), parameters({"after": position.cursor})
        ).rows
        self._now = parse_time(moment).timestamp()
        known = position.cursor
        if known.isdecimal() and cursor.isdecimal() and int(cursor) < int(known):
            msg = (
                f"the database is at cursor {cursor}, before {known} where reading ended: it was made anew "
                f"or put back, and what lies behind that cursor cannot be known; {RESET}"
            )
            raise ConfigError(msg)
        if waiting and not behind and self._fresh(position):
            msg = (
                f'the table "{self._config.table}" was emptied or made anew since {position.last}: no row '
                f"that was read is in it any more, and what is there may have been read before; {RESET}"
            )
            raise ConfigError(msg)
        return _Poll(bool(waiting), cursor, moment, bool(behind))

    def _fresh(self, position: Position) -> bool:
        """Whether the last row read is so young that it should still be there."""
        if not position.last or self._now is None:
            return False
        return self._now - parse_time(position.last).timestamp() < _RETENTION_S

    def _idle(self, position: Position, poll: _Poll) -> Page | None:
        """Nothing came. A cursor of the poll before lies before all that may come now: move up to it."""
        if self._idle_cursor and self._idle_cursor != position.cursor:
            self._position = position = msgspec.structs.replace(position, cursor=self._idle_cursor, since="")
            if time.monotonic() - self._saved > _KEPT_S:
                self._saved = time.monotonic()
                return Page((), position.to_bytes(), self._now, more=False)
        self._idle_cursor = "" if poll.waiting else poll.cursor
        return None

    def _read(self, position: Position) -> Page | None:
        """The next page of the open window."""
        bounds = Bounds.cursors(position.cursor, position.until or "", position.since)
        read = self._pages.read(bounds, position.key)
        if position.kind and read.kind != position.kind:
            column = self._config.columns.trace_id
            msg = (
                f'eventhouse.columns.trace_id: column "{column}" was of type {position.kind} and is of type '
                f"{read.kind} now; what it held before may be gone; {RESET}"
            )
            raise ConfigError(msg)
        last = max(position.last, read.rows[-1][0], key=_sortable) if read.rows else position.last
        if read.finished:
            reached = parse_time(position.asked).timestamp()
            after = Position(position.version, position.until or "", last=last, kind=read.kind)
        else:
            reached = parse_time(read.rows[-1][0]).timestamp() if read.rows else 0.0
            after = msgspec.structs.replace(position, key=read.key, last=last, kind=read.kind)
        self._position = after
        self._saved = time.monotonic()
        more, self._several = not read.finished or self._several, not read.finished
        return Page(_outputs(read.rows), after.to_bytes(), reached or None, more)

    def committed(self, page: Page) -> None:
        """Nothing is kept for a page."""

    def probe(self) -> Probe:
        """By the same query as a poll; and whether rows come in that no window will ever have."""
        position = self._position or Position.beginning()
        self._count_unstamped()
        if position.until is not None:
            return Probe(waiting=True, now=self._now)
        try:
            return Probe(self._poll(position).waiting, self._now)
        except RefusedError as error:
            raise diagnose(self._client, self._queries, self._config, error, position.cursor) from error

    def _count_unstamped(self) -> None:
        if time.monotonic() - self._counted < _COUNTED_S:
            return
        self._counted = time.monotonic()
        ((count,),) = self._client.query(self._queries.unstamped(), {}).rows
        before, self._unstamped = self._unstamped, count
        table = self._config.table
        if count and before is None:
            text = "%d rows of the table %s have no ingestion time: they are never read"
            _logger.warning(text, count, table, extra={"rows": count})
        self._lesser = ""
        if before is not None and count > before:
            self._lesser = (
                f"{count - before} rows came into the table without an ingestion time and are never read: "
                f"turn its policy on (.alter table ['{table}'] policy ingestiontime true)"
            )

    def facts(self) -> Facts:
        """What happened since it was last asked."""
        client = self._client
        facts = Facts(
            queries=tuple(client.seconds),
            throttled=client.throttled,
            shortened=self._pages.shortened,
            now=self._now,
            token_expires=client.token_expires,
            fallback=self._lesser,
        )
        client.seconds, client.throttled, self._pages.shortened, self._now = [], 0, 0, None
        return facts

    def close(self) -> None:
        """Give the connection and the login back."""
        self._client.close()
        self._login.close()


def _sortable(moment: str) -> str:
    """The service writes no zeros at the end."""
    return moment.removesuffix("Z")


def _outputs(rows: Sequence[Row]) -> list[Output]:
    return [output(row) for row in rows]

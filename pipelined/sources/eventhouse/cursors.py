"""Reading by cursors: one window after the other, each to its end.

A window is closed at the cursor that is current when it is opened, so what lies in it does not change any
more, whatever comes meanwhile; behind its last page the position is that cursor. Rows that become visible
late, or have their cursor late, are in a later window. One query tells whether there is anything to open a
window for.
"""

from __future__ import annotations

import re
import time
from typing import Final, NamedTuple

from msgspec.structs import replace

from pipelined.errors import ConfigError
from pipelined.sources.contract import Page
from pipelined.sources.eventhouse.access import Access, emptied, outputs, seconds, sortable
from pipelined.sources.eventhouse.diagnosis import RESET
from pipelined.sources.eventhouse.errors import RefusedError
from pipelined.sources.eventhouse.position import Position
from pipelined.sources.eventhouse.queries import Bounds

__all__ = ["CursorReader", "NoCursorsError"]

#: A cursor that moves though no row comes is kept so often.
_KEPT_S: Final = 600.0
#: Within it no retention takes all rows there were: they went some other way.
_RETENTION_S: Final = 86400.0
#: What the service says of functions it does not have.
_UNKNOWN: Final = re.compile(r"SEM0260.*'cursor_")


class NoCursorsError(ConfigError):
    """The database has no cursors."""


class _Poll(NamedTuple):
    """How things stand: whether rows wait behind the position, the present cursor, and the time."""

    waiting: bool
    cursor: str
    moment: str


class CursorReader:
    """Reads on from ``position``."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self.position = Position.beginning()
        self._saved = time.monotonic()
        #: The cursor of the last poll that found nothing; the position may move there after the next.
        self._idle_cursor = ""
        self._several = False

    def resume(self, position: Position) -> None:
        """Go on from here."""
        self.position = position
        self._idle_cursor = ""
        self._several = False

    def current(self) -> str:
        """The present cursor. NoCursorsError where there is none."""
        try:
            (cursor,) = self._access.one(self._access.queries.cursor())
        except RefusedError as error:
            raise self._without(error) from error
        if not cursor:
            raise self._without(None)
        return str(cursor)

    def _without(self, error: RefusedError | None) -> ConfigError:
        """What it means that a cursor was refused, or is empty."""
        if error is not None and not _UNKNOWN.search(str(error)):
            return error
        if not self.position.cursor and self.position.until is None:
            return NoCursorsError("the database has no cursors")
        until = self.position.cursor
        msg = f"the database has no cursors any more, and was read by them until {until}; {RESET}"
        return ConfigError(msg)

    def waiting(self) -> bool:
        """Whether rows wait."""
        return self.position.until is not None or self._poll().waiting

    def fetch(self) -> Page | None:
        """The next page, or None. NoCursorsError where there are none, and nothing was read by them yet."""
        position = self.position
        if position.until is None:
            poll = self._poll()
            if not poll.waiting or poll.cursor == position.cursor:
                return self._idle(poll)
            self._idle_cursor = ""
            self._several = False
            position = replace(position, until=poll.cursor, asked=poll.moment)
        return self._read(position)

    def _poll(self) -> _Poll:
        position, access = self.position, self._access
        try:
            waiting, cursor, moment, behind = access.one(access.queries.poll(), after=position.cursor)
        except RefusedError as error:
            raise self._without(error) from error
        if not cursor:
            raise self._without(None)
        access.now = seconds(moment)
        known = position.cursor
        if known.isdecimal() and cursor.isdecimal() and int(cursor) < int(known):
            msg = (
                f"the database is at cursor {cursor}, before {known} where reading ended: it was made anew "
                f"or put back, and what lies behind that cursor cannot be known; {RESET}"
            )
            raise ConfigError(msg)
        young = position.last and access.now - seconds(position.last) < _RETENTION_S
        if waiting and not behind and young:
            raise emptied(access.config.table, position.last)
        return _Poll(bool(waiting), cursor, moment)

    def _idle(self, poll: _Poll) -> Page | None:
        """Nothing came. A cursor of the poll before lies before all that may come now: move up to it."""
        if self._idle_cursor and self._idle_cursor != self.position.cursor:
            self.position = replace(self.position, cursor=self._idle_cursor, since="")
            if time.monotonic() - self._saved > _KEPT_S:
                self._saved = time.monotonic()
                return Page((), self.position.to_bytes(), self._access.now, more=False)
        self._idle_cursor = "" if poll.waiting else poll.cursor
        return None

    def _read(self, position: Position) -> Page:
        """The next page of the open window."""
        bounds = Bounds.cursors(position.cursor, position.until or "", position.since)
        read = self._access.read(bounds, position.key, position.kind)
        times = [row[0] for row in read.rows[-1:]]
        last = max([position.last, *times], key=sortable)
        if read.finished:
            reached = position.asked
            after = Position(position.version, position.until or "", last=last, kind=read.kind)
        else:
            reached = times[0] if times else ""
            after = replace(position, key=read.key, last=last, kind=read.kind)
        more, self._several = not read.finished or self._several, not read.finished
        page = Page(outputs(read.rows), after.to_bytes(), seconds(reached) if reached else None, more)
        self.position, self._saved = after, time.monotonic()
        return page

"""Reading by ingestion times, for a database without cursors.

Rows may become visible after others with a later stamp, so the order of stamps is no order of arrival. Two
things are kept apart: the rows behind the last one read in order (fresh), which are simply read on; and
those before it that were not there when it was read (late). Late ones are looked for within the overlap:
the digests of all rows sent from there are in the position, and one query tells whether there are as many
rows as digests. Where there are not, that part of the table is read again, and what is not known is sent.

What comes later than the overlap is lost; that, and the digests, are the price of having no cursors.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from msgspec.structs import replace

from pipelined.messages.codec import iso, parse_time
from pipelined.sources.contract import Page
from pipelined.sources.eventhouse.access import Access, emptied, seconds, sortable
from pipelined.sources.eventhouse.pages import Read
from pipelined.sources.eventhouse.position import Key, Position, Watermark
from pipelined.sources.eventhouse.queries import Bounds, moment
from pipelined.sources.eventhouse.rows import Row, output
from pipelined.stages.contract import Output

__all__ = ["ALL_TIME", "TimeReader"]

_logger = logging.getLogger("pipelined.sources")

#: Before every row.
ALL_TIME: Final = "1970-01-01T00:00:00Z"
#: So many digests are remembered; where there are more within the overlap, reading waits for it to move on.
MOST_SEEN: Final = 40_000
_DIGEST: Final = 8
#: Digests are kept by ten seconds of ingestion time, "2026-01-05T14:22:3": so many characters.
_SLOT: Final = 18


class _Poll(NamedTuple):
    """Rows behind the last one read in order, and those before it within the overlap."""

    fresh: int
    known: int


class _Scan(NamedTuple):
    """A reading of the overlap: how far it is, the rows it found, and how often each was sent already."""

    key: Key | None
    found: Counter[tuple[str, bytes]]
    sent: Counter[tuple[str, bytes]]


class TimeReader:
    """Reads on from ``position``, which has a watermark."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._overlap = dt.timedelta(seconds=access.config.overlap_seconds)
        self.position = Position.beginning()
        #: Digests of the rows sent that are not settled, by their ten seconds.
        self._seen: dict[str, bytearray] = {}
        self._scan: _Scan | None = None
        self._fresh = False
        self._moment = ""
        #: Whether fresh rows wait because more than can be remembered came within the overlap.
        self.held_back = False

    def begin(self, where: str) -> Position:
        """The position of ``beginning``, ``now`` or a time."""
        if where == "now":
            (where,) = self._access.one(self._access.queries.clock())
        start = ALL_TIME if where == "beginning" else where
        settled = start[:_SLOT] + "0Z"
        return replace(Position.beginning(since=start), watermark=Watermark(settled=settled))

    def resume(self, position: Position) -> None:
        """Go on from here."""
        self.position = position
        self._seen = {slot: bytearray(base64.b64decode(text)) for slot, text in self._watermark.seen.items()}
        self._scan = None
        # A crowd that was begun is read to its end before anything is counted.
        self._fresh = self._in_crowd

    @property
    def _watermark(self) -> Watermark:
        return self.position.watermark or Watermark(settled=ALL_TIME)

    @property
    def _in_crowd(self) -> bool:
        key = self._watermark.key
        return key is not None and key.hash is not None

    def waiting(self) -> bool:
        """Whether rows wait."""
        if self._fresh or self._scan is not None:
            return True
        poll = self._poll()
        return poll.fresh > 0 or poll.known != self._remembered

    def fetch(self) -> Page | None:
        """The next page, or None."""
        if self._scan is None and not self._fresh:
            poll = self._poll()
            self._fresh = poll.fresh > 0
            if poll.known == self._remembered:
                self._settle()
            else:
                sent = ((slot, digest) for slot, held in self._seen.items() for digest in _digests(held))
                self._scan = _Scan(None, Counter(), Counter(sent))
        if self._scan is not None and (page := self._look_back(self._scan)) is not None:
            return page
        if self._fresh and self._may_read_on():
            return self._read_on()
        self._fresh = False
        return None

    def _poll(self) -> _Poll:
        watermark, access = self._watermark, self._access
        key = watermark.key or Key(self.position.since, "")
        given = {
            # Rows on either side of the key are counted, but none from before the beginning.
            "since": moment(self._after_start(min(watermark.settled, key.it, key=sortable))),
            "settled": moment(watermark.settled),
        }
        if watermark.key is not None:
            given |= {"time": moment(key.it), "id": key.id}
        text = access.queries.overlap(behind=watermark.key is not None)
        fresh, known, self._moment = access.one(text, **given)
        access.now = seconds(self._moment)
        if self._seen and not known:
            raise emptied(access.config.table, min(self._seen) + "0Z")
        return _Poll(fresh, known)

    def _after_start(self, moment: str) -> str:
        return max(moment, self.position.since, key=sortable)

    @property
    def _remembered(self) -> int:
        return sum(map(len, self._seen.values())) // _DIGEST

    def _settle(self) -> None:
        """What lies before the overlap, as of the last poll, is dealt with."""
        until = iso(parse_time(self._moment) - self._overlap)[:_SLOT]
        if until + "0" > self._watermark.settled:
            self._seen = {slot: held for slot, held in self._seen.items() if slot >= until}
            watermark = replace(self._watermark, settled=until + "0Z")
            self.position = replace(self.position, watermark=watermark)

    def _look_back(self, scan: _Scan) -> Page | None:
        """The next rows of the overlap that were not sent; None where there are none any more."""
        watermark = self._watermark
        assert watermark.key
        bounds = Bounds.times(self._after_start(watermark.settled), watermark.key.it)
        end = sortable(watermark.key.it), watermark.key.id
        key = scan.key
        while True:
            read = self._access.read(bounds, key, self.position.kind)
            late = []
            for row in read.rows:
                if (sortable(row[0]), row[1]) > end:
                    continue  # not late: it is read in its turn
                event = output(row)
                place = row[0][:_SLOT], _digest(row, event)
                scan.found[place] += 1
                if scan.found[place] > scan.sent[place]:
                    late.append(event)
                    self._remember(*place)
            key = read.key
            if read.finished:
                self._scan = None
                self._replace_seen(scan.found)
                self._settle()
            else:
                self._scan = scan._replace(key=key)
            if late:
                return self._page(late, read, None, more=True)
            if read.finished:
                return None

    def _may_read_on(self) -> bool:
        """Not beyond what can be remembered: what came in so fast is read when it has settled."""
        full = self._remembered >= MOST_SEEN and not self._in_crowd
        if full and not self.held_back:
            _logger.warning(
                "more than %d rows came within eventhouse.overlap_seconds: those behind them are read when "
                "that time has passed",
                MOST_SEEN,
                extra={"rows": self._remembered},
            )
        self.held_back = full
        return not full

    def _read_on(self) -> Page:
        """The next fresh rows."""
        watermark = self._watermark
        key = watermark.key
        bounds = Bounds.since(key.it if key is not None else self.position.since)
        read = self._access.read(bounds, key, self.position.kind)
        events = []
        for row in read.rows:
            events.append(event := output(row))
            if sortable(row[0]) >= sortable(watermark.settled):
                self._remember(row[0][:_SLOT], _digest(row, event))
        self._fresh = not read.finished
        return self._page(events, read, read.key, more=self._fresh)

    def _page(self, events: list[Output], read: Read, key: Key | None, *, more: bool) -> Page:
        """A page, behind which the key is ``key`` or, where None, what it was."""
        seen = {slot: base64.b64encode(held).decode() for slot, held in self._seen.items()}
        watermark = replace(self._watermark, seen=seen, key=key or self._watermark.key)
        newest = watermark.key.it if watermark.key else ""
        self.position = replace(self.position, watermark=watermark, kind=read.kind, last=newest)
        reached = newest if more else self._moment
        return Page(events, self.position.to_bytes(), seconds(reached) if reached else None, more)

    def _remember(self, slot: str, digest: bytes) -> None:
        self._seen.setdefault(slot, bytearray()).extend(digest)

    def _replace_seen(self, found: Counter[tuple[str, bytes]]) -> None:
        """What is there is what was sent; rows that vanished are not counted for ever."""
        self._seen = {}
        for (slot, digest), count in found.items():
            self._remember(slot, digest * count)


def _digests(held: bytearray) -> Iterator[bytes]:
    return (bytes(held[at : at + _DIGEST]) for at in range(0, len(held), _DIGEST))


def _digest(row: Row, event: Output) -> bytes:
    """Of the whole row, with its time: rows that are alike in everything have the same."""
    return hashlib.blake2b(event.value + row[0].encode(), digest_size=_DIGEST).digest()

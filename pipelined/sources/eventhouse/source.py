"""The Eventhouse as a source: by cursors, or where the database has none by ingestion times."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import urlsplit

from msgspec.structs import replace

from pipelined.auth import provider
from pipelined.config import Config
from pipelined.config.sources import Eventhouse
from pipelined.sources.contract import Facts, Page, Probe
from pipelined.sources.eventhouse.access import Access
from pipelined.sources.eventhouse.client import Client
from pipelined.sources.eventhouse.cursors import CursorReader, NoCursorsError
from pipelined.sources.eventhouse.diagnosis import RESET, check_table, diagnose
from pipelined.sources.eventhouse.errors import RefusedError
from pipelined.sources.eventhouse.position import Position
from pipelined.sources.eventhouse.queries import tick
from pipelined.sources.eventhouse.rows import SOURCE
from pipelined.sources.eventhouse.times import TimeReader

__all__ = ["SCOPE", "EventhouseSource", "table_key"]

T = TypeVar("T")

_logger = logging.getLogger("pipelined.sources")

#: What a login is asked for; any cluster takes it.
SCOPE: Final = "https://kusto.kusto.windows.net/.default"
#: How often rows without an ingestion time are counted.
_COUNTED_S: Final = 300.0
_BY_TIME: Final = (
    "the database has no cursors: the table is read by ingestion time, and rows that become visible more "
    "than eventhouse.overlap_seconds late are lost"
)
_HELD_BACK: Final = "; more rows came than can be remembered, and wait until that time has passed"


def table_key(where: Eventhouse) -> str:
    """The key of the table's position on the checkpoints topic."""
    return f"eventhouse:{urlsplit(where.url).netloc}/{where.database}/{where.table}"


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
        self._access = Access(where, self._client)
        self._cursors = CursorReader(self._access)
        self._times = TimeReader(self._access)
        #: What reads; None before a beginning where no position was.
        self._reader: CursorReader | TimeReader | None = None
        self._checked = False
        self._counted = -_COUNTED_S
        self._unstamped: int | None = None
        self._growing = ""

    def resume(self, position: bytes | None) -> None:
        """Go on behind a position, or begin as configured."""
        self._reader = None
        if position is not None:
            self._read_by(Position.read(position, RESET))

    def _read_by(self, position: Position) -> CursorReader | TimeReader:
        self._reader = self._cursors if position.watermark is None else self._times
        self._reader.resume(position)
        return self._reader

    def begin_at(self, to: str) -> bytes:
        """The position of ``beginning``, ``now`` or a time, as bytes for ``resume``."""
        return self._mended(lambda: self._begin(to)).to_bytes()

    def _begin(self, where: str) -> Position:
        where = where if where in ("beginning", "now") else tick(where)
        self._cursors.resume(Position.beginning())
        try:
            cursor = self._cursors.current()
            self._cursors.waiting()  # the table may lack what the database has
        except NoCursorsError:
            fields = {"event": "eventhouse.by_time", "table": self._config.table}
            _logger.warning("%s", _BY_TIME, extra=fields)
            return self._times.begin(where)
        if where == "now":
            return replace(Position.beginning(), cursor=cursor)
        return Position.beginning(since="" if where == "beginning" else where)

    def fetch(self, timeout: float) -> Page | None:
        """The next page; what takes time is the query, so ``timeout`` is not waited for."""
        del timeout
        return self._mended(self._fetch)

    def _fetch(self) -> Page | None:
        if not self._checked:
            check_table(self._client, self._access.queries, self._config)
            self._checked = True
        if self._reader is not None:
            return self._reader.fetch()
        position = self._begin(self._config.start)
        reader = self._read_by(position)
        if self._config.start == "now":  # which is this moment, and no later one
            return Page((), position.to_bytes(), self._access.now, more=False)
        return reader.fetch()

    def _mended(self, asked: Callable[[], T]) -> T:
        """What is ``asked``; where the service refuses it, a ConfigError that says what to mend."""
        try:
            return asked()
        except RefusedError as error:
            cursor = self._reader.position.cursor if self._reader is not None else ""
            raise diagnose(self._client, self._access.queries, self._config, error, cursor) from error

    def committed(self, page: Page) -> None:
        """Nothing is kept for a page."""

    def probe(self) -> Probe:
        """By the same query as a poll; and whether rows come in that nobody will ever read."""
        return self._mended(self._probe)

    def _probe(self) -> Probe:
        self._count_unstamped()
        if self._reader is None:
            return Probe(waiting=True, now=None)  # the next fetch tells
        return Probe(self._reader.waiting(), self._access.now)

    def _count_unstamped(self) -> None:
        if time.monotonic() - self._counted < _COUNTED_S:
            return
        (count,) = self._access.one(self._access.queries.unstamped())
        self._counted = time.monotonic()
        before, self._unstamped = self._unstamped, count
        table = self._config.table
        if count and before is None:
            text = "%d rows of the table %s have no ingestion time: they are never read"
            _logger.warning(text, count, table, extra={"rows": count})
        self._growing = ""
        if before is not None and count > before:
            self._growing = (
                f"{count - before} rows came into the table without an ingestion time and are never read: "
                f"turn its policy on (.alter table ['{table}'] policy ingestiontime true)"
            )

    def facts(self) -> Facts:
        """What happened since it was last asked."""
        client, access = self._client, self._access
        lesser = [self._growing] if self._growing else []
        if self._reader is self._times:
            lesser.append(_BY_TIME + (_HELD_BACK if self._times.held_back else ""))
        facts = Facts(
            queries=tuple(client.seconds),
            throttled=client.throttled,
            shortened=access.pages.shortened,
            now=access.now,
            token_expires=client.token_expires,
            fallback="; ".join(lesser),
        )
        client.seconds, client.throttled, access.pages.shortened, access.now = [], 0, 0, None
        return facts

    def close(self) -> None:
        """Give the connection and the login back."""
        self._client.close()
        self._login.close()

"""A part of the table, read beside the poll: what lies between two ingestion times, or two cursors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import msgspec

from pipelined.auth import provider
from pipelined.config import Config
from pipelined.errors import ConfigError, UsageError
from pipelined.messages.codec import UNREADABLE, encode
from pipelined.sources.eventhouse.client import Client
from pipelined.sources.eventhouse.diagnosis import check_table, diagnose
from pipelined.sources.eventhouse.errors import RefusedError
from pipelined.sources.eventhouse.pages import Pages, Read
from pipelined.sources.eventhouse.position import Key
from pipelined.sources.eventhouse.queries import Bounds, Queries, moment, parameters, tick
from pipelined.sources.eventhouse.source import SCOPE, table_key

__all__ = ["Backfilled", "Range", "RangeReader", "tick"]

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Range:
    """From ``start`` on and before ``end``, by ingestion time; or after one cursor until the other."""

    start: str
    end: str
    by_cursor: bool = False

    @classmethod
    def times(cls, start: str, end: str) -> Range:
        """Of ISO-8601 times, UTC unless they say otherwise; raises UsageError for anything else."""
        first, last = tick(start), tick(end)
        if first >= last:
            raise UsageError(f"the range is empty: {start} is not before {end}")
        return cls(first, last)

    def __str__(self) -> str:
        return f"cursors {self.start}..{self.end}" if self.by_cursor else f"{self.start}..{self.end}"

    def bounds(self) -> Bounds:
        """Its conditions."""
        if self.by_cursor:
            return Bounds.cursors(self.start, self.end)
        text = "ingestion_time() >= pipelined_since and ingestion_time() < pipelined_to"
        return Bounds(text, {"since": moment(self.start), "to": moment(self.end)})


class Backfilled(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a range is read: behind ``key``, or to its end (``done``).

    ``rows`` were read, of which ``known`` stood in the table and were not sent. ``total`` is how many
    there were in the beginning, None where the service could not count them.
    """

    version: int = _VERSION
    key: Key | None = None
    rows: int = 0
    known: int = 0
    total: int | None = None
    done: bool = False
    updated_at: str = ""

    @classmethod
    def read(cls, value: bytes) -> Backfilled:
        """From its bytes; raises ConfigError for what another version wrote."""
        try:
            found = msgspec.json.decode(value, type=cls)
        except UNREADABLE as error:
            msg = f"the position of this back-fill cannot be read ({error}); --restart begins it anew"
            raise ConfigError(msg) from error
        if found.version != _VERSION:
            msg = f"the position of this back-fill is of version {found.version}, not {_VERSION}"
            raise ConfigError(f"{msg}: use the version that wrote it, or --restart to begin anew")
        return found

    def to_bytes(self) -> bytes:
        """As it is kept."""
        return encode(self)


class RangeReader:
    """Reads one range; raises what a source's ``fetch`` raises (sources.contract). One call at a time."""

    def __init__(self, config: Config, span: Range, most_rows: int) -> None:
        where = config.eventhouse
        host = urlsplit(where.url).hostname or ""
        #: The key of its position on the checkpoints topic, which names the table and the range.
        self.key = f"backfill:{table_key(where)}/{span}"
        self._config = where
        self._span = span
        self._login = provider(where.auth, SCOPE, section="eventhouse.auth", host=host)
        self._client = Client(where, self._login)
        self._queries = Queries(where)
        self._pages = Pages(self._client, self._queries, most_rows)

    def check(self) -> None:
        """ConfigError where the table is not there, or not as it is configured."""
        check_table(self._client, self._queries, self._config)

    def count(self) -> int:
        """How many rows there are now."""
        bounds = self._span.bounds()
        try:
            answer = self._client.query(self._queries.count(bounds), parameters(bounds.parameters))
        except RefusedError as error:
            raise self._diagnosed(error) from error
        ((count,),) = answer.rows
        return int(count)

    def read(self, key: Key | None) -> Read:
        """The next rows behind ``key``."""
        try:
            return self._pages.read(self._span.bounds(), key)
        except RefusedError as error:
            raise self._diagnosed(error) from error

    def _diagnosed(self, error: RefusedError) -> ConfigError:
        return diagnose(self._client, self._queries, self._config, error, "")

    def close(self) -> None:
        """Give the connection and the login back."""
        self._client.close()
        self._login.close()

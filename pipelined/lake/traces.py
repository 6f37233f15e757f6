"""Which trace ids stand in the events table: read from it one day at a time, and held compactly."""

from __future__ import annotations

import datetime as dt
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

from pipelined.lake.faults import classified
from pipelined.lake.positions import Partition, Positions
from pipelined.lake.table import TableSource
from pipelined.messages.identity import identity

__all__ = ["Identities", "StoredTraces"]

_ID = 16
#: So many are in a shard, at most, on average.
_FULL = 12
#: Up to 140 MB: twenty days of production.
_MOST = 4_000_000


class Identities:
    """A set of identities, 16 bytes each, that takes 20 to 35 for one; a Python set takes 105 to 160.

    It is made of all of them, one behind the other.
    """

    __slots__ = ("_mask", "_shards", "size")

    def __init__(self, joined: bytes | bytearray) -> None:
        #: How many there are; one given twice counts twice.
        self.size = len(joined) // _ID
        self._mask = (1 << (self.size // _FULL).bit_length()) - 1
        self._shards = shards = [b""] * (self._mask + 1)
        for at in range(0, len(joined), _ID):
            trace = bytes(joined[at : at + _ID])
            shards[hash(trace) & self._mask] += trace

    def __contains__(self, trace: bytes) -> bool:
        shard = self._shards[hash(trace) & self._mask]
        at = shard.find(trace)
        while at >= 0 and at % _ID:  # found across two of them
            at = shard.find(trace, at + 1)
        return at >= 0


class StoredTraces:
    """Asked for identities by event date. ``most`` are held at once; a day is good for ``lasts_s`` seconds.

    ``app`` is the consumer that fills the table, from ``partitions``. Raises AuthError or DependencyError
    where the table cannot be read; one that does not exist holds nothing.
    """

    def __init__(
        self,
        source: TableSource,
        app: str,
        partitions: Sequence[Partition],
        *,
        lasts_s: float,
        most: int = _MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._app = app
        self._partitions = partitions
        self._lasts_s = lasts_s
        self._most = most
        self._clock = clock
        self._table: DeltaTable | None = None
        self._opened = 0.0
        self._days: OrderedDict[dt.date, tuple[float, Identities]] = OrderedDict()

    @property
    def held(self) -> int:
        """Identities in memory."""
        return sum(found.size for _, found in self._days.values())

    def lacks(self, days: Iterable[dt.date]) -> bool:
        """Whether the table must be looked at again before it can be asked for these days."""
        oldest = self._clock() - self._lasts_s
        for day in [day for day, (read, _) in self._days.items() if read < oldest]:
            del self._days[day]
        return any(day not in self._days for day in days)

    def look(self) -> dict[Partition, int]:
        """Open the table as it is now; the next offset of each partition that it lacks, 0 without a table."""
        with classified(self._source.url):
            self._opened = self._clock()
            if not self._source.exists():
                self._table = None
                return dict.fromkeys(self._partitions, 0)
            self._table = self._source.existing()
            positions = Positions(self._app, self._source)
            positions.look(self._table)
            return {partition: positions.ask(self._table, partition) for partition in self._partitions}

    def known(self, day: dt.date, traces: Sequence[bytes]) -> list[bool]:
        """For each in turn whether it stands in the table, under this date, as it was when last looked at."""
        read = self._days.get(day)
        if read is None:
            read = self._days[day] = (self._opened, self._read(day))
        self._days.move_to_end(day)
        found = read[1]
        told = [trace in found for trace in traces]
        while len(self._days) > 1 and self.held > self._most:
            self._days.popitem(last=False)
        return told

    def _read(self, day: dt.date) -> Identities:
        found = bytearray()
        if self._table is None:
            return Identities(found)
        with classified(self._source.url):
            query = QueryBuilder().register("t", self._table)
            sql = f"SELECT trace_id FROM t WHERE event_date = DATE '{day}'"  # noqa: S608 - a date of ours
            # The reader of its own holds the GIL while it waits; pyarrow's does not.
            for batch in pa.RecordBatchReader.from_stream(query.execute(sql)):
                found += b"".join(identity(trace.encode()) for trace in batch.column(0).to_pylist())
        return Identities(found)

"""The table of the Eventhouse, read whole and in slices of its ingestion times.

A poller goes along the cursor; the ledger asks what there is at all, and takes it in another order, so
that what one of them passes over the other has.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

from pipelined.config.tree import Config
from pipelined.ledger.content import FIELDS, Item, item_of_event
from pipelined.ledger.kusto import Kusto

__all__ = ["EventhouseReader"]

#: Rows of one answer, about; the rows of one ingestion time come in sixteen answers where they are more.
_SLICE_ROWS: Final = 5_000
_COUNT_S: Final = 1.0
_TIME = "ledger_ingestion_time"


class EventhouseReader:
    """The rows of the configured table that match its filter. Its methods raise ``UnavailableError``."""

    name = "eventhouse"
    #: Rows that retention removed cannot be known of.
    forgets = False

    def __init__(self, config: Config) -> None:
        where = config.eventhouse
        self._kusto = Kusto(config)
        columns = where.columns
        names = (columns.type, columns.version, columns.utc_date_time, columns.trace_id, columns.data)
        self._columns = ", ".join(_quoted(name) for name in names)
        self._id = _quoted(columns.trace_id)
        # On a line of its own, so that a comment in the filter ends.
        self._rows = _quoted(where.table) + (f" | where ({where.filter}\n)" if where.filter else "")
        if where.start not in ("beginning", "now"):
            self._rows += f" | where ingestion_time() >= datetime({where.start})"
        self.begins_anywhere = where.start == "now"
        self._count_due = 0.0
        self._count = 0
        self.before: Counter[Item] = Counter()

    def close(self) -> None:
        """Give the connection back."""
        self._kusto.close()

    def poll(self) -> int:
        """How many rows there are, at most a second ago."""
        if time.monotonic() >= self._count_due:
            self.catch_up()
        return self._count

    def catch_up(self) -> int:
        """How many rows there are."""
        ((self._count,),) = self._kusto.rows(f"{self._rows} | count")
        self._count_due = time.monotonic() + _COUNT_S
        return self._count

    def remember(self) -> None:
        """Keep what there is now as what there was before."""
        self.before = Counter(self.items())

    def items(self) -> Iterator[Item]:
        """Each row."""
        for condition in self._slices():
            query = (
                f"{self._rows} | extend {_TIME} = ingestion_time() | where {condition} "
                f"| project {self._columns}"
            )
            for row in self._kusto.rows(query):
                yield item_of_event(dict(zip(FIELDS, row, strict=True)))

    def _slices(self) -> Iterator[str]:
        """Conditions that each row fulfils one of, each of about so many rows."""
        times = self._kusto.rows(
            f"{self._rows} | extend {_TIME} = ingestion_time() | summarize rows = count() by {_TIME}"
        )
        if any(moment is None for moment, _ in times):
            yield f"isnull({_TIME})"
        held, first, last = 0, "", ""
        for moment, count in sorted((each for each in times if each[0] is not None), key=_moment):
            if held and held + count > _SLICE_ROWS:
                yield _between(first, last)
                held = 0
            if count > _SLICE_ROWS:
                yield from (f"{_between(moment, moment)} and {part}" for part in self._sixteenths())
                continue
            first, last = (first if held else moment), moment
            held += count
        if held:
            yield _between(first, last)

    def _sixteenths(self) -> Iterator[str]:
        for digit in "0123456789abcdef":
            yield f'hash_md5(tostring({self._id})) startswith "{digit}"'


def _moment(row: list[str]) -> str:
    """Sortable: the service writes no zeros at the end, and no fraction of a whole second."""
    text = row[0].removesuffix("Z")
    return text if "." in text else text + "."


def _between(first: str, last: str) -> str:
    return f"{_TIME} >= datetime({first}) and {_TIME} <= datetime({last})"


def _quoted(name: str) -> str:
    return "['" + name.replace("\\", "\\\\").replace("'", "\\'") + "']"

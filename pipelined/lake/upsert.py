"""One row for each key, the latest: what a batch's keys are, which the table has, and the MERGE."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, WriterProperties

__all__ = ["Upsert"]

_EPOCH = dt.date(1970, 1, 1)


class Upsert:
    """The keys of an upsert table, whose rows of one key all have the same date in ``day_column``."""

    def __init__(
        self, merge_keys: Sequence[str], day_column: str, columns: Sequence[str], writer: WriterProperties
    ) -> None:
        self._merge_keys = list(merge_keys)
        self._day = day_column
        self._assignments = {name: f"s.{name}" for name in columns}
        self._writer = writer

    def latest(self, rows: pa.Table) -> tuple[pa.Table, dict[int, set[int]]]:
        """The last row of each key, in order of offsets as ``rows`` are, and the keys' hashes by day."""
        keys = self._keys(rows)
        last = {key: place for place, key in enumerate(keys)}
        if len(last) < len(keys):
            rows = rows.take(pa.array(sorted(last.values()), pa.int64()))
        by_day: dict[int, set[int]] = {}
        for day, *key in last:
            by_day.setdefault(day, set()).add(hash(tuple(key)))
        return rows, by_day

    def read_keys(self, table: DeltaTable, days: Iterable[int]) -> Iterator[tuple[int, int]]:
        """The day and hash of each key that ``table`` has of these days."""
        scan = table.scan(
            columns=[self._day, *self._merge_keys], predicate=f"{self._day} IN ({_literals(days)})"
        )
        # The reader of its own holds the GIL while it waits; pyarrow's does not.
        for batch in pa.RecordBatchReader.from_stream(scan):
            for day, *key in self._keys(batch):
                yield day, hash(tuple(key))

    def merge(
        self, table: DeltaTable, rows: pa.Table, days: Iterable[int], properties: CommitProperties
    ) -> None:
        """Replace the rows whose keys are there, insert the others; ``days`` are all that ``rows`` have.

        The days are literals in the condition: without them the whole table would be read.
        """
        conditions = [f"t.{self._day} IN ({_literals(days)})"]
        conditions += [f"t.{name} = s.{name}" for name in (self._day, *self._merge_keys)]
        merger = table.merge(
            rows,
            " AND ".join(conditions),
            source_alias="s",
            target_alias="t",
            writer_properties=self._writer,
            commit_properties=properties,
        )
        merger.when_matched_update(self._assignments).when_not_matched_insert(self._assignments).execute()

    def _keys(self, rows: pa.Table | pa.RecordBatch) -> list[tuple[int, str, str]]:
        days = rows.column(self._day).cast(pa.int32()).to_pylist()
        return [*zip(days, *(rows.column(name).to_pylist() for name in self._merge_keys), strict=True)]


def _literals(days: Iterable[int]) -> str:
    return ", ".join(f"DATE '{_EPOCH + dt.timedelta(days=day)}'" for day in sorted(days))

"""Results as rows of the attachments table, and the final failures among them as rows of their own table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from pipelined.errors import PoisonError
from pipelined.messages.codec import decode
from pipelined.messages.task import Result, Status
from pipelined.stages.columns import TIME, Rows, now, table, utc
from pipelined.stages.contract import Record

__all__ = ["ConvertedResults", "ResultRows"]

_STATUSES = frozenset({Status.COMPLETED, Status.FAILED, Status.FAILED_PERMANENT})
_TIMES = ("original_timestamp", "created_at", "expires_at")
_INT_BITS = {"http_status": 31, "retry_count": 31, "bytes_downloaded": 63}


class ConvertedResults(NamedTuple):
    """All results as rows, the final failures as rows, and what cannot be read."""

    attachments: Rows
    failed: Rows
    poison: list[tuple[Record, PoisonError]]


class ResultRows:
    """Converts messages of ``downloads.results`` into rows with the columns of the two tables' schemas."""

    def __init__(self, attachments: pa.Schema, failed: pa.Schema) -> None:
        self._attachments = attachments
        self._failed = failed

    def convert(self, records: Sequence[Record]) -> ConvertedResults:
        """One row for each record that is a result; ``failed_at`` is when the result came about."""
        poison: list[tuple[Record, PoisonError]] = []
        accepted: list[Record] = []
        results: list[Result] = []
        times: list[tuple[Any, ...]] = []
        for record in records:
            try:
                result = _read(record.value)
                moments = tuple(_moment(result, name) for name in _TIMES)
            except PoisonError as error:
                poison.append((record, error))
            else:
                accepted.append(record)
                results.append(result)
                times.append(moments)
        return ConvertedResults(
            Rows(_attachments(results, times, self._attachments), accepted),
            self._failures(accepted, results, times),
            poison,
        )

    def _failures(self, records: list[Record], results: list[Result], times: list[tuple[Any, ...]]) -> Rows:
        places = [place for place, result in enumerate(results) if result.status != Status.COMPLETED]
        columns = _columns([results[place] for place in places], [times[place] for place in places])
        columns["failed_at"] = columns["created_at"]
        return Rows(table(columns, self._failed), [records[place] for place in places])


def _attachments(results: list[Result], times: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = _columns(results, times)
    columns["updated_at"] = now(len(results))
    return table(columns, schema)


def _columns(results: list[Result], times: list[tuple[Any, ...]]) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: [getattr(result, name) for result in results]
        for name in Result.__struct_fields__
        if name not in _TIMES
    }
    for place, name in enumerate(_TIMES):
        columns[name] = pa.array([moments[place] for moments in times], TIME)
    columns["event_date"] = columns["original_timestamp"].cast(pa.date32())
    return columns


def _read(value: bytes) -> Result:
    result = decode(value, Result)
    if result.status not in _STATUSES:
        raise PoisonError("bad_result", f"a result of unknown status {result.status!r}")
    for name, bits in _INT_BITS.items():
        number = getattr(result, name)
        if number is not None and not -(2**bits) <= number < 2**bits:
            raise PoisonError("bad_result", f"a result whose {name} is out of range: {number}")
    return result


def _moment(result: Result, name: str) -> Any:
    text = getattr(result, name)
    return None if text is None else utc(text, name)

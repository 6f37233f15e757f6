"""Events as rows of the events table: every key of the message tolerated, every message one row."""

from __future__ import annotations

import datetime as dt
import operator
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipelined.errors import PoisonError
from pipelined.messages.identity import canonical
from pipelined.stages.columns import TIME, Converted, Rows, now, table, utc
from pipelined.stages.contract import Record
from pipelined.stages.event_shape import Adm, Contact, Data, Email, EventBody, Loss, Methods, Phone, read

__all__ = ["EventRows"]

#: The version of an event that names none.
_FIRST_VERSION = "1"

#: Rows converted at a time: so few that what is decoded is still in the processor's cache when it is read.
_SLICE = 500

_NO_DATA = Data()
_NO_ADM = Adm()
_NO_LOSS = Loss()
_NO_CONTACT = Contact()
_NO_METHODS = Methods()
_NO_PHONE = Phone()
_NO_EMAIL = Email()

#: Columns taken as they are from a key of ``data``, and that key's name in :class:`Data`.
_PLAIN = {
    name: name
    for name in "description assignment_id original_assignment_id xn_address carrier_id note author "
    "sender_reviewer_name sender_reviewer_email carrier_reviewer_name carrier_reviewer_email".split()
} | {"event_datetime_mdt": "date_time"}
_plain = operator.attrgetter(*_PLAIN.values())
_phone = operator.attrgetter("type", "number", "extension")


class EventRows:
    """Converts messages of ``events.ingested`` into rows with the columns of ``schema``."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema

    def convert(self, records: Sequence[Record]) -> Converted:
        """One row for each record that is an event with a time and a trace id; the others are poison.

        ``trace_id`` is the header's, or else the body's; ``ingested_at`` the record's timestamp,
        ``created_at`` now, ``raw_json`` the message as it is.
        """
        misshapen: Counter[str] = Counter()
        poison: list[tuple[Record, PoisonError]] = []
        accepted: list[Record] = []
        tables = [self._schema.empty_table()]
        for start in range(0, len(records), _SLICE):
            rows = []
            for record in records[start : start + _SLICE]:
                try:
                    rows.append(_row(record, misshapen))
                except PoisonError as error:
                    poison.append((record, error))
            if rows:
                accepted += [row[0] for row in rows]
                tables.append(table(_columns(rows), self._schema))
        return Converted(Rows(pa.concat_tables(tables).combine_chunks(), accepted), poison, misshapen)


#: A record, its body, its text, its time, its trace id and its source.
_Row = tuple[Record, EventBody, str, dt.datetime, str, str | None]


def _row(record: Record, misshapen: Counter[str]) -> _Row:
    try:
        text = record.value.decode()
    except UnicodeDecodeError as error:
        raise PoisonError("not_json", f"not UTF-8: {error}") from error
    event = read(record.value, misshapen)
    trace: str | None = None
    source: str | None = None
    for name, value in record.headers:
        if not isinstance(value, bytes):
            continue
        if name == "trace_id":
            trace = value.decode("utf-8", "replace")
        elif name == "source":
            source = value.decode("utf-8", "replace")
    trace = trace or canonical(event.trace_id or "")
    if not trace:
        raise PoisonError("no_trace_id", "the event has no traceId")
    return record, event, text, utc(event.utc_date_time or "", "utcDateTime"), trace, source


def _columns(rows: list[_Row]) -> dict[str, Any]:
    records, events, texts, times, traces, sources = zip(*rows, strict=True)
    datas = [event.data or _NO_DATA for event in events]
    contacts = [data.contact or _NO_CONTACT for data in datas]
    methods = [contact.contact_methods or _NO_METHODS for contact in contacts]
    event_time = pa.array(times, TIME)
    columns: dict[str, Any] = dict(zip(_PLAIN, zip(*map(_plain, datas), strict=True), strict=True))
    columns["contact_phone_type"], columns["contact_phone_number"], columns["contact_phone_extension"] = zip(
        *[_phone(method.phone or _NO_PHONE) for method in methods], strict=True
    )
    return columns | {
        "type": [event.type for event in events],
        "status_subtype": [event.type and event.type.rpartition(".")[2] for event in events],
        "version": [_FIRST_VERSION if event.version is None else str(event.version) for event in events],
        "ingested_at": pa.array([record.timestamp for record in records], pa.timestamp("ms", "UTC")).cast(
            TIME
        ),
        "event_time": event_time,
        "event_date": event_time.cast(pa.date32()),
        "trace_id": traces,
        "estimate_version": [
            None if data.estimate_version is None else str(data.estimate_version) for data in datas
        ],
        "attachments": [data.attachments and [url for url in data.attachments if url] for data in datas],
        "claim_number": [((data.adm or _NO_ADM).coverage_loss or _NO_LOSS).claim_number for data in datas],
        "contact_type": [contact.type for contact in contacts],
        "contact_name": [contact.name for contact in contacts],
        "contact_email_address": [(method.email or _NO_EMAIL).address for method in methods],
        "raw_json": texts,
        "source": sources,
        "created_at": now(len(rows)),
    }

"""A row of the table as an event on ``events.raw``."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from pipelined.messages.codec import UNREADABLE, encode
from pipelined.messages.identity import canonical
from pipelined.stages.contract import Output, Stream

__all__ = ["SOURCE", "Row", "output", "size"]

Row = list[Any]

SOURCE: Final = "eventhouse"
_HEADER: Final = ("source", SOURCE.encode())
#: What a row has beside its payload, about.
_HEAD_BYTES: Final = 180


class _Object(msgspec.Struct):
    """Any JSON object; nothing of it is kept."""


_check = msgspec.json.Decoder(_Object).decode


class _Event(msgspec.Struct, gc=False):
    type: object
    version: object
    utcDateTime: object  # noqa: N815 - the field's name in the event
    traceId: str | None  # noqa: N815
    data: object


def size(row: Row) -> int:
    """Bytes of a row in an answer, about."""
    return len(row[5]) + _HEAD_BYTES


def output(row: Row) -> Output:
    """The event of a row: ingestion time, id, type, version, time, and the payload as text.

    Text that is a JSON object becomes that object; any other goes on as text, for the ingester to judge.
    """
    _, trace_id, kind, version, moment, data = row[:6]
    payload: object = data or None
    key = canonical(trace_id).encode("utf-8", "surrogatepass") if trace_id else None
    headers: list[tuple[str, str | bytes | None]] = [_HEADER]
    if key is not None:
        headers.append(("trace_id", key))
    try:
        if data and data.lstrip()[:1] == "{":
            raw = data.encode()
            try:
                _check(raw)
                payload = msgspec.Raw(raw)
            except UNREADABLE:
                pass  # text that only begins like an object
        value = encode(_Event(kind, version, moment, trace_id or None, payload))
    except UnicodeEncodeError:  # half a character, which JSON can say and UTF-8 cannot
        event = dict(
            zip(
                ("type", "version", "utcDateTime", "traceId", "data"),
                (kind, version, moment, trace_id, data),
                strict=True,
            )
        )
        value = json.dumps(event).encode()
    return Output(Stream.RAW, key, value, headers)

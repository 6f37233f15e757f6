"""What an event says, whichever way it is written: how a row of a table is known again on ``events.raw``.

A row has five columns and no bytes of its own: what its source made of it is held against it by what
both say. A message of an Event Hub is its bytes, or several events: some senders put many into an array.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipelined.ledger.identity import Key, key_of, parse, text_of, trace_id_of

__all__ = ["FIELDS", "Item", "item_of_event", "item_of_record", "items_of_message"]

#: The fields of the source event; the columns of a table in this order.
FIELDS = ("type", "version", "utcDateTime", "traceId", "data")

#: One thing delivered: the key of its trace id, where it has one, and a hash of what it says.
Item = tuple[Key | None, int]

_BOM = b"\xef\xbb\xbf"
_ZONE = re.compile(r"(?:[zZ]|[+-]00:?00)$")


def item_of_event(event: Mapping[str, Any] | None, value: bytes = b"") -> Item:
    """The item of an event by its fields; of what is no event by its bytes."""
    if event is None:
        return None, hash(value)
    trace_id = trace_id_of({"traceId": event.get("traceId")})
    told: Sequence[object] = (
        _text(event.get("type")),
        _text(event.get("version")),
        _time(event.get("utcDateTime")),
        trace_id or "",
        _data(event.get("data")),
    )
    return (key_of(trace_id) if trace_id else None), hash(json.dumps(told, sort_keys=True))


def items_of_message(value: bytes) -> list[Item]:
    """The items of a message: itself, or each of the objects of a JSON array of them."""
    text = value.removeprefix(_BOM)
    if text.lstrip()[:1] == b"[":
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if found and all(isinstance(each, dict) for each in found):
            return [item_of_record(each, b"", from_array=True) for each in found]
    return [item_of_record(parse(text), text)]


def item_of_record(event: Mapping[str, Any] | None, value: bytes, *, from_array: bool = False) -> Item:
    """The item of what a message brought: its bytes, or, as part of an array, what it says."""
    trace_id = trace_id_of({"traceId": event.get("traceId")}) if event else None
    told: object = json.dumps(event, sort_keys=True) if from_array else value.removeprefix(_BOM)
    return (key_of(trace_id) if trace_id else None), hash(told)


def _text(value: object) -> str:
    """A table has no null text: nothing and the empty text are one."""
    if value is None:
        return ""
    text = text_of(value)
    return json.dumps(value) if text is None else text


def _time(value: object) -> str:
    """A time without what can be written in several ways: T or blank, Z or +00:00, zeros at its end."""
    text = _ZONE.sub("", _text(value)).replace(" ", "T", 1)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _data(value: object) -> object:
    """The payload, also where it comes as JSON text; no text and none are one."""
    if not isinstance(value, str):
        return "" if value is None else value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value

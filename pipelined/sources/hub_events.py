"""What a message of the Event Hub holds where it is not one event as it stands."""

from __future__ import annotations

import msgspec

from pipelined.errors import PoisonError
from pipelined.messages.codec import UNREADABLE
from pipelined.messages.identity import event_key
from pipelined.stages.contract import Headers, Output, Stream

__all__ = ["odd_message"]

_BOM = b"\xef\xbb\xbf"
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def odd_message(value: bytes, key: bytes | None, origin: Headers) -> list[Output]:
    """The outputs of such a message: the events of an array, each on its own, or the message as it came.

    ``key`` is the message's own, which stays where there is no trace id; a byte order mark goes.
    """
    text = value.removeprefix(_BOM)
    items = _items(text)
    if not items:
        return [_event(text, key, origin, value)]
    return [
        _event(item, key, [*origin, ("origin_item", b"%d" % number)], item)
        for number, item in enumerate(items)
    ]


def _event(text: bytes, key: bytes | None, origin: Headers, otherwise: bytes) -> Output:
    try:
        key = event_key(text)
    except PoisonError:
        return Output(Stream.RAW, key, otherwise, list(origin))
    return Output(Stream.RAW, key, text, [*origin, ("trace_id", key)])


def _items(text: bytes) -> list[bytes]:
    """The elements of a JSON array of objects as they stand; nothing for anything else."""
    if text.lstrip()[:1] != b"[":
        return []
    try:
        items = [bytes(item) for item in _decode_array(text)]
    except UNREADABLE:
        return []
    return items if all(item[:1] == b"{" for item in items) else []

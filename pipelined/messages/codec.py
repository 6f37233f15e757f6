"""JSON codecs: one decoder for each type, made once, and times as the topics carry them."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any, TypeVar

import msgspec

from pipelined.errors import PoisonError

__all__ = ["decode", "decode_object", "encode", "iso", "iso_ms", "iso_now", "parse_time", "to_text"]

T = TypeVar("T", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder()
_decoders: dict[type, msgspec.json.Decoder[object]] = {}

encode = _encoder.encode
_decode_any = msgspec.json.Decoder().decode

#: What decoding raises for bytes that are no JSON; nesting without end is one of them.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(value: bytes, kind: type[T]) -> T:
    """Decode one message; raises :class:`PoisonError` saying what is wrong with it."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        message = decoder.decode(value)
    except UNREADABLE as error:
        msg = f"not a {kind.__name__}: {error}"
        raise PoisonError("unreadable", msg) from error
    assert isinstance(message, kind)
    return message


def decode_object(value: bytes | str) -> dict[str, Any]:
    """Decode one JSON object whole, every part of it checked; raises :class:`PoisonError`."""
    try:
        message = _decode_any(value)
    except UNREADABLE as error:
        msg = f"not JSON: {error}"
        raise PoisonError("not_json", msg) from error
    if not isinstance(message, dict):
        msg = f"a JSON {type(message).__name__}, not an object"
        raise PoisonError("not_an_object", msg)
    return message


def iso(moment: dt.datetime) -> str:
    """A time that is in UTC as ISO-8601 with ``Z``, as many digits as it has."""
    return moment.isoformat()[: -len("+00:00")] + "Z"


def iso_ms(milliseconds: int) -> str:
    """A time in ms since the epoch as ISO-8601 UTC with milliseconds and ``Z``."""
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_now() -> str:
    """Now, in the same form."""
    return iso_ms(time.time_ns() // 1_000_000)


def parse_time(text: str) -> dt.datetime:
    """An event's time as an aware UTC datetime; without an offset it is UTC. Raises ValueError.

    Accepts 0 to 7 fraction digits; Python keeps six (a position never goes through here).
    """
    moment = dt.datetime.fromisoformat(text.strip())
    zone = moment.tzinfo
    if zone is dt.UTC:  # as nearly all are: "Z" and "+00:00" make this very object
        return moment
    return moment.replace(tzinfo=dt.UTC) if zone is None else moment.astimezone(dt.UTC)


def to_text(value: object) -> str | None:
    """Text from what should be text: numbers and booleans become text, any other shape None."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return None

"""The identity of an event: its trace id, in one form for all sources."""

from __future__ import annotations

import hashlib
import re
from binascii import unhexlify
from collections.abc import Sequence

import msgspec

from pipelined.errors import PoisonError
from pipelined.messages.codec import UNREADABLE, to_text

__all__ = ["canonical", "event_key", "identities", "identity"]

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class _TraceId(msgspec.Struct):
    traceId: object = None  # noqa: N815 - the field's name at the source


_decode = msgspec.json.Decoder(_TraceId).decode


def event_key(value: bytes | msgspec.Raw) -> bytes:
    """The key of an event as a source has it, JSON: its canonical trace id.

    Raises PoisonError for what has none, or is no JSON object. Nothing else of the event is judged.
    """
    try:
        trace_id = _decode(value).traceId
    except UNREADABLE as error:
        raise PoisonError("unreadable", f"not a JSON object: {error}") from error
    if type(trace_id) is str and len(trace_id) == 36 and trace_id.islower():
        return trace_id.encode()  # as nearly all are
    text = to_text(trace_id)
    if not text:
        raise PoisonError("no_trace_id", "no traceId")
    return canonical(text).encode()


def canonical(trace_id: str) -> str:
    """A trace id as everything downstream uses it: a UUID in lower case, anything else as it is.

    One source writes a GUID in capitals, the other does not; both mean the same event.
    """
    if len(trace_id) == 36 and not trace_id.islower() and _UUID.fullmatch(trace_id):
        return trace_id.lower()
    return trace_id


def identity(key: bytes) -> bytes:
    """16 bytes that stand for a canonical trace id: those of the UUID, else a BLAKE2b digest."""
    if len(key) == 36 and key[8:24:5] == b"----":
        try:
            found = unhexlify(key.replace(b"-", b""))
        except ValueError:
            pass
        else:
            if len(found) == 16:
                return found
    return hashlib.blake2b(key, digest_size=16).digest()


def identities(keys: Sequence[bytes]) -> list[bytes]:
    """The identity of each: quick where all are UUIDs, which are taken apart as one text."""
    count, text = len(keys), b"".join(keys)
    if set(map(len, keys)) == {36} and text.count(b"-") == 4 * count:
        dashes = b"-" * count
        if all(text[place::36] == dashes for place in (8, 13, 18, 23)):
            try:
                found = unhexlify(text.replace(b"-", b""))
            except ValueError:
                pass
            else:
                return [found[at : at + 16] for at in range(0, 16 * count, 16)]
    return list(map(identity, keys))

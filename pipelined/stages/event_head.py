"""An event as the ingester judges it: in its usual shape, and its bytes as they go on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec

from pipelined.errors import PoisonError
from pipelined.messages.attachments import attachment_urls
from pipelined.messages.codec import decode_object, encode, parse_time, to_text
from pipelined.stages.event_shape import Data, EventBody, usual

__all__ = ["EventHead", "moment_of", "read_head"]


class EventHead(msgspec.Struct, frozen=True, gc=False):
    """What is needed of a valid event. ``value`` is the event as it goes on, ``key`` its trace id.

    ``urls`` are its attachments; where there are any, ``data`` tells where they belong.
    """

    value: bytes
    trace_id: str
    key: bytes
    type: str
    moment: dt.datetime
    urls: Sequence[str]
    data: Data | None


def read_head(value: bytes) -> tuple[EventBody, bytes]:
    """Take an event apart; raises PoisonError for what is none.

    Returns the event and the bytes that go on. Of one that has another than the usual shape only what the
    ingester judges is filled in: identity, type, time, assignment, estimate version and attachments.
    """
    body = usual(value)
    if body is not None:
        return body, value
    event = decode_object(value)
    data, rewritten = _data(event)
    body = EventBody(
        type=to_text(event.get("type")),
        utc_date_time=to_text(event.get("utcDateTime")),
        trace_id=to_text(event.get("traceId")),
        data=Data(
            assignment_id=to_text(data.get("assignmentId")),
            estimate_version=to_text(data.get("estimateVersion")),
            attachments=attachment_urls(data.get("attachments")),
        ),
    )
    return body, encode(event) if rewritten else value


def moment_of(text: str | None) -> dt.datetime:
    """An event's time, in UTC; raises PoisonError where there is none."""
    if text is None:
        msg = "the event has no utcDateTime"
        raise PoisonError("no_time", msg)
    try:
        return parse_time(text)
    except (ValueError, OverflowError) as error:
        msg = f"utcDateTime {text[:64]!r} is not an ISO-8601 time"
        raise PoisonError("bad_time", msg) from error


def _data(event: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The payload as an object, and whether it had to be made one of JSON text (in ``event`` too)."""
    data = event.get("data")
    if isinstance(data, dict):
        return data, False
    if data is None:
        return {}, False
    if isinstance(data, str):
        try:
            event["data"] = decode_object(data) if data.strip() else None
        except PoisonError as error:
            msg = f"data is text, but no JSON object: {error}"
            raise PoisonError("bad_data", msg) from error
        return event["data"] or {}, True
    msg = f"data is a JSON {type(data).__name__}, not an object"
    raise PoisonError("bad_data", msg)

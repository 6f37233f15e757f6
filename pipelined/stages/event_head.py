"""What the ingester needs of an event: its identity, time and attachments, and its bytes as they go on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipelined.errors import PoisonError
from pipelined.messages.attachments import attachment_urls
from pipelined.messages.codec import decode_object, encode, parse_time, to_text
from pipelined.stages.event_shape import usual

__all__ = ["EventHead", "moment_of", "read_head"]


class EventHead(NamedTuple):
    """The few fields that decide; ``value`` is the event as it goes on."""

    trace_id: str | None
    type: str | None
    time: str | None
    assignment_id: str | None
    estimate_version: str | None
    urls: Sequence[str]
    value: bytes


def read_head(value: bytes) -> EventHead:
    """Take an event apart; raises PoisonError for what is none."""
    body = usual(value)
    if body is None:
        return _read_unusual(value)
    data = body.data
    if data is None:
        return EventHead(body.trace_id, body.type, body.utc_date_time, None, None, (), value)
    version = data.estimate_version
    return EventHead(
        body.trace_id,
        body.type,
        body.utc_date_time,
        data.assignment_id,
        version if version is None else str(version),
        [url for url in data.attachments if url] if data.attachments else (),
        value,
    )


def _read_unusual(value: bytes) -> EventHead:
    """An event with a number for text, ``data`` as JSON text, or whatever else is tolerated."""
    event = decode_object(value)
    data, rewritten = _data(event)
    return EventHead(
        to_text(event.get("traceId")),
        to_text(event.get("type")),
        to_text(event.get("utcDateTime")),
        to_text(data.get("assignmentId")),
        to_text(data.get("estimateVersion")),
        attachment_urls(data.get("attachments")),
        encode(event) if rewritten else value,
    )


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

"""Every log event of the package: a code for alerts and queries that outlives a better wording.

The template of a log call is the key, so that a call stays one sentence. docs/reference/log-events.md is
generated from here, and tests/unit/test_log_events.py holds it against every call.
"""

from __future__ import annotations

import logging

from pipelined.logs.events import dev, sources, storage, supervision, work
from pipelined.logs.events.event import Event

__all__ = ["EVENTS", "Event", "code_of"]

EVENTS: tuple[Event, ...] = (
    *supervision.EVENTS,
    *work.EVENTS,
    *sources.EVENTS,
    *storage.EVENTS,
    *dev.EVENTS,
)

_CODES = {event.sentence: event.code for event in EVENTS}


def code_of(record: logging.LogRecord) -> str | None:
    """The code of a record; None for one of a library."""
    named = vars(record).get("event")
    return named if isinstance(named, str) else _CODES.get(str(record.msg))

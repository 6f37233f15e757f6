"""A generated day of source events: what two installations would send, with everything that is odd about it.

All fields and subtypes of the source event occur; Unicode, nulls, numbers and wrong shapes in place of
text, times in every spelling, payloads as JSON text, duplicates, lines nobody can read, and attachments of
which some cannot be had (pipelined.local.links).
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pipelined.local.links import MOST, Links

__all__ = ["Day", "Summary"]

_UNREADABLE: Final = 0.003
_DUPLICATE: Final = 0.02
_UNASSIGNED: Final = 0.002  # of the events with attachments
_WINDOW: Final = 1_000  # duplicates repeat one of this many recent events

_PREFIX: Final = "verisk.claims.property.xn."
# Subtype, its weight and the share of its events with attachments: a quarter of all events in the end.
_SUBTYPES: Final = (
    ("documentsReceived", 14, 0.95),
    ("estimatePackageReceived", 8, 0.93),
    ("firstNoticeOfLossReceived", 5, 0.85),
    ("assignmentReceived", 12, 0.0),
    ("assignmentAcknowledged", 9, 0.0),
    ("customerContacted", 11, 0.0),
    ("inspectionScheduled", 9, 0.0),
    ("siteInspected", 8, 0.0),
    ("estimateStarted", 6, 0.0),
    ("estimateReturned", 5, 0.0),
    ("noteAdded", 7, 0.0),
    ("correctionRequested", 2, 0.0),
    ("jobSold", 2, 0.0),
    ("assignmentCancelled", 1, 0.0),
    ("closed", 1, 0.0),
)
_SUBTYPE_BOUNDS: Final = tuple(itertools.accumulate(weight for _, weight, _ in _SUBTYPES))
_PEOPLE: Final = (
    "J. Doe",
    "Maria González",
    "Zoë Müller-Łukasz",
    "山田 太郎",
    "Seán Ó'Briain",
    "נועה כהן",
    "محمد علي",
    "Nguyễn Thị Hà",
    "O\u2019Neill \u201cBud\u201d",
    "Rene\u0301e Cafe\u0301",
)
_SENTENCES: Final = (
    "Water damage in the basement after the storm of last night.",
    "Roof shingles are missing on the north side; tarp in place.",
    "Insured called, prefers to be reached after 5 pm.",
    'Estimate revised: drywall 1/2" instead of 5/8", see line 14.',
    "Keine Rückmeldung erhalten – bitte erneut anrufen.",
    "El ajustador visitó la propiedad; faltan fotos del ático.",
    "現地調査は完了しました。",
    "Depreciation 20\u202f% applied \u2013 ACV € 1.234,50.",
    "Mitigation vendor on site 🚿🏠.",
    "Path on the old system: C:\\claims\\2026\\new",
    "First line\nsecond line\twith a tab",
    "line\u2028separator and zero\u200bwidth",
)
_ROLES: Final = ("Insured", "Claimant", "Agent", "Adjuster")
_PHONES: Final = ("Home", "Work", "Mobile")
_VERSIONS: Final = (1, 1, 1, 1, 1, 1, 2, "1", "2", None)
# Wrong shapes for parts of the payload: each is put where the path leads.
_WRONG: Final[tuple[tuple[tuple[str, ...], Any], ...]] = (
    (("contact",), "J. Doe"),
    (("contact",), []),
    (("contact",), None),
    (("contact", "name"), {"first": "J.", "last": "Doe"}),
    (("contact", "contactMethods"), None),
    (("contact", "contactMethods", "phone"), "555-0100"),
    (("contact", "contactMethods", "phone", "number"), 5550100),
    (("contact", "contactMethods", "email"), ["j@example.org"]),
    (("adm",), None),
    (("adm",), "CLM-0099"),
    (("adm", "coverageLoss"), 7),
    (("adm", "coverageLoss", "claimNumber"), 990099),
    (("carrierId",), 3041234),
    (("estimateVersion",), 2),
    (("note",), ["two", "lines"]),
    (("note",), 12.5),
    (("note",), "before\x00after the NUL"),
    (("description",), {"text": "Estimate package"}),
    (("author",), None),
    (("dateTime",), 20260105),
)

_ENCODERS: Final = {
    (ascii_only, spaced): json.JSONEncoder(
        ensure_ascii=ascii_only, separators=None if spaced else (",", ":"), check_circular=False
    )
    for ascii_only in (False, True)
    for spaced in (False, True)
}
_Event = dict[str, Any]
_T = TypeVar("_T")


@dataclass(slots=True)
class Summary:
    """What ``Day.lines`` has written so far: for display; the ledger counts for itself."""

    lines: int = 0
    distinct: int = 0  # readable events, each once
    duplicates: int = 0
    unreadable: int = 0
    unassigned: int = 0  # of the distinct: attachments, but no assignment to put them under
    with_attachments: int = 0  # of the distinct, without the unassigned
    attachments: int = 0
    attachment_bytes: int = 0
    deliverable: int = 0  # of the attachments: those that can arrive in the end
    faults: Counter[str] = field(default_factory=Counter)  # of the attachments, without the good ones


class Day:
    """``events`` lines of the 24 hours before ``start``, the moment they are handed over (UTC).

    The same arguments give the same bytes. The links lead to the file server at ``files_url``; those of
    a forbidden host to ``forbidden_url`` and to a cloud metadata address. They are signed at the time of
    their event for a week, so at least three days from ``start`` remain to fetch them. No attachment is
    larger than ``largest`` bytes.
    """

    def __init__(
        self,
        events: int,
        seed: int,
        files_url: str,
        forbidden_url: str | None = None,
        *,
        start: dt.datetime,
        largest: int = MOST,
    ) -> None:
        self._events = events
        self._seed = seed
        self._links = Links(files_url, forbidden_url, largest)
        self._start = start.astimezone(dt.UTC)
        self.summary = Summary()

    def lines(self) -> Iterator[bytes]:
        """The events as JSON lines without newline; in constant memory. ``summary`` keeps pace, from zero."""
        rng = random.Random(self._seed)
        summary = self.summary = Summary()
        recent: list[tuple[_Event, bytes]] = []
        for number in range(self._events):
            draw = rng.random()
            when = self._when(rng, number)
            if draw < _UNREADABLE:
                line = _unreadable(rng, _event(rng, when, "noteAdded"))
                summary.unreadable += 1
            elif draw < _UNREADABLE + _DUPLICATE and recent:
                line = _again(rng, *_pick(rng, recent))
                summary.duplicates += 1
            else:
                event, assigned = self._next(rng, when)
                line = _written(rng, event)
                if assigned:
                    # Each new one takes the place of a random one: old duplicates are rarer than fresh ones.
                    if len(recent) < _WINDOW:
                        recent.append((event, line))
                    else:
                        recent[int(_WINDOW * rng.random())] = (event, line)
            summary.lines += 1
            yield line

    def _when(self, rng: random.Random, number: int) -> dt.datetime:
        """A time about where in the day the event stands; a few are days late, a few minutes early."""
        seconds = 86_400 * (number / self._events - 1) - 90 * rng.random()
        draw = rng.random()
        if draw < 0.005:
            seconds -= 3 * 86_400 * rng.random()
        elif draw < 0.006:
            seconds += 300
        return self._start + dt.timedelta(seconds=seconds)

    def _next(self, rng: random.Random, when: dt.datetime) -> tuple[_Event, bool]:
        """A new event, and whether it is one to be repeated: it is not when its attachments go nowhere."""
        summary = self.summary
        subtype, _, share = rng.choices(_SUBTYPES, cum_weights=_SUBTYPE_BOUNDS)[0]
        event = _event(rng, when, subtype)
        summary.distinct += 1
        if rng.random() >= share:
            return event, True
        links = self._links.make(rng, when)
        event["data"]["attachments"] = [link.url for link in links]
        if rng.random() < _UNASSIGNED:
            event["data"]["assignmentId"] = _pick(rng, (None, ""))
        if not event["data"].get("assignmentId"):
            summary.unassigned += 1
            return event, False
        summary.with_attachments += 1
        for link in links:
            summary.attachments += 1
            summary.attachment_bytes += link.size
            summary.deliverable += link.delivered
            if link.fault != "ok":
                summary.faults[link.fault] += 1
        return event, True


def _event(rng: random.Random, when: dt.datetime, subtype: str) -> _Event:
    """An event without attachments."""
    bits = f"{rng.getrandbits(128):032x}"
    person, reviewer = _pick(rng, _PEOPLE), _pick(rng, _PEOPLE)
    assignment = f"05{bits[20:25]}".upper()
    local = when - dt.timedelta(hours=7)  # Mountain time, as a clock without summer time shows it
    data: _Event = {
        "assignmentId": assignment,
        "originalAssignmentId": _pick(rng, (assignment, assignment[:-1] + "0", None)),
        "xnAddress": f"{bits[:4].upper()}.{bits[4:6].upper()}",
        "carrierId": f"30{bits[6:8]}{int(1000 * rng.random()):03d}",
        "description": f"{subtype} for {person}",
        "dateTime": local.isoformat(" ")[:19],
        "adm": {"coverageLoss": {"claimNumber": f"CLM-{int(1_000_000 * rng.random()):06d}"}},
        "contact": {
            "type": _pick(rng, _ROLES),
            "name": person,
            "contactMethods": {
                "phone": {
                    "type": _pick(rng, _PHONES),
                    "number": f"555{int(10_000 * rng.random()):04d}",
                    "extension": _pick(rng, ("", "", None, "12")),
                },
                "email": {"address": f"{bits[8:14]}@example.org"},
            },
        },
    }
    if rng.random() < 0.8:
        data["note"] = " ".join(rng.choices(_SENTENCES, k=1 + int(5 * rng.random())))
        data["author"] = reviewer
    if subtype.startswith("estimate"):
        data["estimateVersion"] = _pick(rng, ("1", "2", "3", None))
    draw = rng.random()
    if draw < 0.5:
        data |= {"senderReviewerName": reviewer, "senderReviewerEmail": f"{bits[14:20]}@carrier.example"}
    if draw < 0.3:
        data |= {"carrierReviewerName": person, "carrierReviewerEmail": None}
    draw = rng.random()
    if draw < 0.2:
        data["attachments"] = [] if draw < 0.1 else None
    elif draw < 0.26:
        _put(data, *_pick(rng, _WRONG))
    elif draw < 0.261:
        data = {}
    event: _Event = {"type": _PREFIX + subtype}
    if (version := _pick(rng, _VERSIONS)) is not None:
        event["version"] = version
    event["utcDateTime"] = _time(rng, when)
    event["traceId"] = f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"
    event["data"] = data
    return event


def _pick(rng: random.Random, among: Sequence[_T]) -> _T:
    """``rng.choice`` in a third of its time: there are twenty of them in an event."""
    return among[int(len(among) * rng.random())]


def _put(data: _Event, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


def _time(rng: random.Random, when: dt.datetime) -> str:
    """A UTC time with 0 to 7 digits of fraction, and +00:00, Z or no offset behind it."""
    text = when.isoformat()[:19]
    digits = _pick(rng, (0, 1, 2, 3, 3, 4, 5, 6, 6, 6, 7))
    if digits:
        text += f".{when.microsecond:06d}{int(10 * rng.random())}"[: digits + 1]
    return text + _pick(rng, ("+00:00", "+00:00", "+00:00", "Z", "Z", ""))


def _written(rng: random.Random, event: _Event) -> bytes:
    """The event as one of the ways to write JSON."""
    draw = rng.random()
    if draw < 0.1:
        event = {**event, "data": _json(event["data"])}
    return _json(event, ascii_only=draw > 0.8, spaced=0.1 <= draw < 0.2).encode()


def _json(value: Any, *, ascii_only: bool = False, spaced: bool = False) -> str:
    return _ENCODERS[ascii_only, spaced].encode(value)


def _again(rng: random.Random, event: _Event, line: bytes) -> bytes:
    """A duplicate: the same bytes, or the same event with its keys in another order or its data as text."""
    draw = rng.random()
    if draw < 0.5:
        return line
    data = dict(reversed(event["data"].items()))
    turned = dict(reversed((event | {"data": data if draw < 0.75 else _json(data, ascii_only=True)}).items()))
    return _json(turned, spaced=draw > 0.9).encode()


def _unreadable(rng: random.Random, event: _Event) -> bytes:
    """A line that is no event: the same one in one of seven ways broken."""
    line = _json(event).encode()
    without = {key: value for key, value in event.items() if key != "traceId"}
    broken = (
        line[: int(len(line) * (0.2 + 0.7 * rng.random()))],
        b"[" + line + b"]",
        b'{"type":"\xff\xfe' + line[len(b'{"type":"') :],
        _json(without).encode(),
        _json(without | {"traceId": None}).encode(),
        b"Service Unavailable",
        b"42",
    )
    return _pick(rng, broken)

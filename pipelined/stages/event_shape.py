"""An event's body as the events table needs it: fast where it has its usual shape, tolerant elsewhere."""

from __future__ import annotations

import typing
from collections import Counter
from typing import Any

import msgspec

from pipelined.errors import PoisonError
from pipelined.messages.attachments import attachment_urls
from pipelined.messages.codec import UNREADABLE, decode_object, to_text

__all__ = ["Contact", "Data", "Email", "EventBody", "Loss", "Phone", "read", "usual"]


class _Shape(msgspec.Struct, rename="camel", gc=False):
    """Every key is optional; unknown ones are skipped."""


class Phone(_Shape):
    """``data.contact.contactMethods.phone``."""

    type: str | None = None
    number: str | None = None
    extension: str | None = None


class Email(_Shape):
    """``data.contact.contactMethods.email``."""

    address: str | None = None


class Methods(_Shape):
    """``data.contact.contactMethods``."""

    phone: Phone | None = None
    email: Email | None = None


class Contact(_Shape):
    """``data.contact``."""

    type: str | None = None
    name: str | None = None
    contact_methods: Methods | None = None


class Loss(_Shape):
    """``data.adm.coverageLoss``."""

    claim_number: str | None = None


class Adm(_Shape):
    """``data.adm``."""

    coverage_loss: Loss | None = None


class Data(_Shape):
    """``data``."""

    description: str | None = None
    assignment_id: str | None = None
    original_assignment_id: str | None = None
    xn_address: str | None = None
    carrier_id: str | None = None
    estimate_version: int | str | None = None
    note: str | None = None
    author: str | None = None
    sender_reviewer_name: str | None = None
    sender_reviewer_email: str | None = None
    carrier_reviewer_name: str | None = None
    carrier_reviewer_email: str | None = None
    date_time: str | None = None
    attachments: list[str] | None = None
    adm: Adm | None = None
    contact: Contact | None = None


class EventBody(_Shape):
    """The event."""

    type: str | None = None
    version: int | str | None = None
    utc_date_time: str | None = None
    trace_id: str | None = None
    data: Data | None = None


_decoder = msgspec.json.Decoder(EventBody)


def usual(value: bytes) -> EventBody | None:
    """An event of the usual shape, UTF-8 throughout; None where it has any other, or is no event at all.

    Ingester and writer both look at an event in this way first: whatever the one takes, the other can read.
    """
    try:
        body = _decoder.decode(value)
        if not value.isascii():
            value.decode()  # the decoder does not look into what it skips
    except UNREADABLE:
        return None
    return body


def read(value: bytes, misshapen: Counter[str]) -> EventBody:
    """One event. Raises PoisonError where the bytes are no JSON object.

    A number or boolean where text is expected becomes text; what has the wrong shape is left out and
    counted in ``misshapen``. Both as the ingester reads them, so that tasks and tables agree.
    """
    body = usual(value)
    if body is None:
        body = typing.cast("EventBody", _fill(EventBody, decode_object(value), "", misshapen))
    return body


def _nested(annotation: Any) -> type[_Shape] | None:
    kinds = [k for k in typing.get_args(annotation) if isinstance(k, type) and issubclass(k, _Shape)]
    return kinds[0] if kinds else None


#: For each shape its fields: name here, name in the message, and the shape of what is nested in it.
_FIELDS: dict[type[_Shape], list[tuple[str, str, type[_Shape] | None]]] = {
    shape: [(field.name, field.encode_name, _nested(field.type)) for field in msgspec.structs.fields(shape)]
    for shape in (EventBody, Data, Adm, Loss, Contact, Methods, Phone, Email)
}


def _fill(shape: type[_Shape], found: dict[str, Any], prefix: str, misshapen: Counter[str]) -> _Shape:
    values: dict[str, Any] = {}
    for name, key, nested in _FIELDS[shape]:
        value = found.get(key)
        if value is None:
            continue
        filled: Any
        if nested is not None:
            inner = _object_in(value) if nested is Data and isinstance(value, str) else value
            filled = _fill(nested, inner, f"{prefix}{key}.", misshapen) if isinstance(inner, dict) else None
        elif name == "attachments":
            filled = attachment_urls(value) if isinstance(value, str | list) else None
        else:
            filled = to_text(value)
        if filled is None:
            misshapen[prefix + key] += 1
        values[name] = filled
    return shape(**values)


def _object_in(text: str) -> dict[str, Any] | None:
    """The object that JSON text holds."""
    try:
        return decode_object(text)
    except PoisonError:
        return None

"""An event's body as the events table needs it: fast where it has its usual shape, tolerant elsewhere."""

from __future__ import annotations

import json
import typing
from collections import Counter
from typing import Any

import msgspec

from pipelined.errors import PoisonError

__all__ = ["Contact", "Data", "Email", "EventBody", "Loss", "Phone", "read"]


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


class _Number(str):
    """A number's text as it stands in the message: 1.10 stays 1.10."""

    __slots__ = ()


_decoder = msgspec.json.Decoder(EventBody)


def read(value: bytes, text: str, misshapen: Counter[str]) -> EventBody:
    """One event, from its bytes and the same as text. Raises PoisonError where it is no JSON object.

    A number or boolean where text is expected becomes text; what has the wrong shape is left out and
    counted in ``misshapen``; a lone surrogate becomes U+FFFD.
    """
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, RecursionError):
        pass
    body = _loads(text)
    if not isinstance(body, dict):
        raise PoisonError("unreadable", f"an event is a JSON object, not {_kind(body)}")
    return typing.cast("EventBody", _fill(EventBody, body, "", misshapen))


def _loads(text: str) -> Any:
    try:
        return json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise PoisonError("unreadable", f"not JSON: {error}") from error


def _refuse(word: str) -> None:
    msg = f"{word} is not JSON"
    raise ValueError(msg)


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
        if nested is Data and isinstance(value, str) and not isinstance(value, _Number):
            value = _object_in(value)
        if nested is not None:
            fits = isinstance(value, dict)
            filled: Any = _fill(nested, value, f"{prefix}{key}.", misshapen) if fits else None
        elif name == "attachments":
            filled = _urls(value)
            fits = filled is not None
        else:
            filled = _text(value)
            fits = filled is not None
        if not fits:
            misshapen[prefix + key] += 1
        values[name] = filled
    return shape(**values)


def _object_in(text: str) -> Any:
    """What JSON text holds, or the text itself."""
    try:
        return _loads(text)
    except PoisonError:
        return text


def _urls(value: Any) -> list[str] | None:
    """A list of strings from a list, JSON text of one, or a lone string; None for any other shape."""
    if isinstance(value, _Number):
        return None
    if isinstance(value, str):
        inner = _object_in(value) if value.lstrip().startswith("[") else [value]
        value = inner if isinstance(inner, list) else [value]
    if not isinstance(value, list):
        return None
    return [text for entry in value if entry is not None and (text := _entry(entry))]


def _entry(value: Any) -> str:
    text = _text(value)
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")) if text is None else text


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return (
            str(value)
            if value.isascii()
            else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        )
    if isinstance(value, bool):
        return "true" if value else "false"
    return None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, _Number):
        return "a number"
    return {bool: "a boolean", str: "a string", list: "a list"}[type(value)]

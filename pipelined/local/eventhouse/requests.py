"""What a request asks for: its text, database, options and parameters, as the client sends them."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipelined.local.eventhouse.refusals import RefusedError
from pipelined.local.eventhouse.ticks import exact

__all__ = ["Request", "parameter"]

_SET: Final = re.compile(r"\s*(?://[^\n]*\n\s*)*set\s+(\w+)\s*(?:=\s*([^;]*?)\s*)?;", re.IGNORECASE)
_WRAPPED: Final = re.compile(
    r"\s*(?:datetime|date|long|int|real|double|bool|guid|timespan|time|dynamic|decimal)"
)
_SPAN: Final = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d\d):(\d\d(?:\.\d+)?)")


@dataclass
class Request:
    """One call of the protocol. ``options`` are named in small letters; ``set`` statements are some."""

    endpoint: str
    database: str = ""
    text: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, endpoint: str, headers: Mapping[str, str], body: bytes) -> Request:
        """Read the body of a query or a command; RefusedError if it is none."""
        request = cls(endpoint, headers={name.lower(): value for name, value in headers.items()})
        try:
            told = json.loads(body)
            properties = told.get("properties") or {}
            # The SDK sends JSON within the JSON; the documentation shows an object as well.
            properties = json.loads(properties) if isinstance(properties, str) else properties
            request.database, request.text = told.get("db") or "", told["csl"]
            options, request.parameters = properties.get("Options") or {}, properties.get("Parameters") or {}
            request.options = {str(name).lower(): value for name, value in options.items()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise RefusedError.bad_request(f"the body of the request is no request: {error!r}") from error
        request._take_settings()
        return request

    def _take_settings(self) -> None:
        """Options may stand in the text as well; of two limits the lower is meant."""
        while match := _SET.match(self.text):
            name, value = match[1].lower(), match[2]
            told: object = True if value is None else value.strip("\"'")
            with contextlib.suppress(ValueError, TypeError):
                told = min(int(str(told)), int(str(self.options.get(name, told))))
            self.options[name] = told
            self.text = self.text[match.end() :]

    @property
    def id(self) -> str:
        """What the client calls this request."""
        return self.headers.get("x-ms-client-request-id", "")

    def asks(self, option: str) -> bool:
        """Whether an option is there and true."""
        return str(self.options.get(option, "")).lower() in ("true", "1")

    def number(self, option: str) -> int | None:
        """An option that is a number, None if it is not there."""
        value = self.options.get(option)
        try:
            return None if value is None else int(value)
        except (TypeError, ValueError) as error:
            raise RefusedError.bad_request(f"option {option} is no number: {value!r}") from error

    def timeout(self) -> float | None:
        """The server timeout in seconds that the request sets, None for the service's own."""
        value = self.options.get("servertimeout")
        if value is None or self.asks("norequesttimeout"):
            return None
        match = _SPAN.fullmatch(str(value).strip())
        if not match:
            raise RefusedError.bad_request(f"option servertimeout is no timespan: {value!r}")
        days, hours, minutes, seconds = match.groups()
        return ((int(days or 0) * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(seconds)


def parameter(name: str, kind: str, value: object) -> object:
    """A query parameter as DuckDB takes it, for its declared KQL type.

    Text and whole numbers come as they are, everything else may come as a KQL literal in a string.
    RefusedError if it is no value of the type.
    """
    if kind == "string":
        return value if isinstance(value, str) else json.dumps(value)
    text = _literal(value)
    try:
        return None if text == "null" and kind != "dynamic" else _typed(kind, text)
    except ValueError as error:
        refusal = f"The value of the query parameter '{name}' is no {kind}: {text!r}"
        raise RefusedError.semantic(refusal) from error


def _literal(value: object) -> str:
    """The text in ``datetime(...)`` and the like, or the text itself."""
    if isinstance(value, datetime.datetime | datetime.timedelta):  # a default of the declaration
        return str(value)
    if not isinstance(value, str):
        return json.dumps(value)
    found = _WRAPPED.match(value)
    rest = value[found.end() :].strip() if found else ""
    if rest.startswith("(") and rest.endswith(")"):
        return rest[1:-1].strip()
    return value


def _typed(kind: str, text: str) -> object:
    from duckdb_kql.params import parse_timespan

    if kind == "datetime":
        return exact(text)
    if kind in ("int", "long"):
        return int(text)
    if kind == "real":
        return float(text)
    if kind == "bool":
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(text)
        return text.lower() in ("true", "1")
    if kind == "timespan":
        span = parse_timespan(text)
        if span is None:
            raise ValueError(text)
        return span
    if kind == "dynamic":
        json.loads(text)
    return text.strip("\"'") if kind == "guid" else text

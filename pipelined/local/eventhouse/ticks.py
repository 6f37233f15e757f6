"""Datetimes of 100 ns in an engine that computes in microseconds.

Kusto counts in ticks of 100 ns; duckdb-kql writes SQL for DuckDB's TIMESTAMP, which holds microseconds.
Columns here are TIMESTAMP_NS, and what is done to the SQL keeps the seventh digit of literals, parameters and
texts. Sums and differences of times are still rounded to microseconds.
"""

from __future__ import annotations

import datetime
import re
from typing import Final

__all__ = ["EPOCH_TICKS", "exact", "stamp", "widen"]

#: The Unix epoch in ticks since the year 1, which .NET counts from.
EPOCH_TICKS: Final = 621_355_968_000_000_000

#: What a TIMESTAMP_NS can hold; a bound beyond it is as good as the last it can.
FIRST: Final = "1677-09-22T00:00:00.0000000"
LAST: Final = "2262-04-11T00:00:00.0000000"

_ISO: Final = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)(?:[T ](?P<time>\d\d:\d\d(?::\d\d)?)(?:\.(?P<digits>\d+))?)?"
    r"\s*(?P<zone>[Zz]|[+-]\d\d:?\d\d)?"
)
_LITERAL: Final = re.compile(
    r"COALESCE\(TRY_CAST\('(?P<text>[^']*)' AS TIMESTAMPTZ\) AT TIME ZONE 'UTC', "
    r"try_strptime\(CAST\('(?P=text)' AS VARCHAR\), \[[^\]]*\]\)\)"
)
_PARAMETER: Final = re.compile(r"CAST\((\$kqlp\d+) AS TIMESTAMP\)")
_TO_TEXT: Final = re.compile(r"WHEN 'TIMESTAMP' THEN (to_json\()?\(strftime\(CAST\(")
_TEXT_TAIL: Final = " AS TIMESTAMP), '%Y-%m-%dT%H:%M:%S.%f') || '0Z')"
_TO_TICKS: Final = "WHEN typeof(_v) = 'TIMESTAMP' THEN"
_NS_TO_TICKS: Final = (
    f"WHEN typeof(_v) = 'TIMESTAMP_NS' THEN (epoch_ns(CAST(_v AS TIMESTAMP_NS)) // 100 + {EPOCH_TICKS}) "
)


def exact(text: str) -> str:
    """A time as ``YYYY-MM-DDTHH:MM:SS.fffffff`` in UTC, not earlier than FIRST and not later than LAST.

    ValueError if it is no ISO 8601 time.
    """
    match = _ISO.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no time")
    digits = (match["digits"] or "").ljust(7, "0")[:7]
    zone = (match["zone"] or "Z").upper().replace("Z", "+00:00")
    moment = datetime.datetime.fromisoformat(f"{match['date']}T{match['time'] or '00:00'}{zone}")
    try:
        moment = moment.astimezone(datetime.UTC)
    except OverflowError:  # within a day of the first or last year there is
        moment = moment.replace(tzinfo=datetime.UTC)
    return min(max(f"{moment:%Y-%m-%dT%H:%M:%S}.{digits}".rjust(27, "0"), FIRST), LAST)


def stamp(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as ``YYYY-MM-DDTHH:MM:SS.fffffffZ``."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 100:07d}Z"


def widen(sql: str) -> str:
    """The SQL of a translated query, with what it says about times made exact."""
    sql = _LITERAL.sub(_literal, sql)
    sql = _PARAMETER.sub(r"CAST(\1 AS TIMESTAMP_NS)", sql)
    sql = sql.replace(_TO_TICKS, _NS_TO_TICKS + _TO_TICKS)
    return _texts(sql)


def _literal(match: re.Match[str]) -> str:
    try:
        return f"TIMESTAMP_NS '{exact(match['text'])}'"
    except ValueError:  # one of the other formats that Kusto knows
        return match[0]


def _texts(sql: str) -> str:
    """Add to every conversion of a value to text the branch for the exact type."""
    pieces = []
    while match := _TO_TEXT.search(sql):
        end = _closing(sql, match.end())
        pieces.append(sql[: match.start()])
        if sql.startswith(_TEXT_TAIL, end):
            value = sql[match.end() : end]
            text = f"left(strftime(CAST({value} AS TIMESTAMP_NS), '%Y-%m-%dT%H:%M:%S.%n'), 27) || 'Z'"
            pieces.append(f"WHEN 'TIMESTAMP_NS' THEN {match[1] or '('}{text}) ")
        pieces.append(match[0])
        sql = sql[match.end() :]  # the value may hold conversions of its own
    return "".join(pieces) + sql


def _closing(sql: str, begin: int) -> int:
    """Where the expression that begins here ends: at `` AS TIMESTAMP)`` of its own CAST."""
    depth, position = 0, begin
    while position < len(sql):
        character = sql[position]
        if character in "'\"":
            position = sql.find(character, position + 1)
            if position < 0:
                return len(sql)
        elif character == "(":
            depth += 1
        elif character == ")":
            if depth == 0:
                return sql.rfind(" AS ", begin, position)
            depth -= 1
        position += 1
    return len(sql)

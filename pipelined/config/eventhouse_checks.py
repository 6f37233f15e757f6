"""What must hold of ``[eventhouse]`` beyond the limits of each key alone."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from pipelined.config.problems import Problem, is_host
from pipelined.config.sources import Eventhouse
from pipelined.config.tree import Config
from pipelined.config.trust import is_loopback, may_carry_token

__all__ = ["HOSTS", "eventhouse", "filter_problem"]

#: Where Eventhouses and their kin are: below these a token may be sent, and below ``eventhouse.hosts``.
HOSTS: Final = (
    "kusto.fabric.microsoft.com",
    "kusto.windows.net",
    "kustomfa.windows.net",
    "kusto.azuresynapse.net",
    "kusto.usgovcloudapi.net",
    "kusto.chinacloudapi.cn",
)
#: What an entity of the service may be called.
_NAME: Final = re.compile(r"[\w .-]{1,1024}")
#: Text and comments, in which nothing else has a meaning.
_PASSED_OVER: Final = re.compile(
    r"""//[^\n]*|h?@"(?:""|[^"])*"|h?@'(?:''|[^'])*'|h?"(?:\\.|[^"\\\n])*"|h?'(?:\\.|[^'\\\n])*'"""
)
_BRACKETS: Final = {")": "(", "]": "[", "}": "{"}
#: Names that begin so are those of the queries themselves.
_RESERVED: Final = "pipelined_"


def eventhouse(config: Config) -> Iterator[Problem]:
    """Its address may be trusted, and what goes into its queries stays in its place there."""
    where = config.eventhouse
    for host in where.hosts:
        if not is_host(host):
            yield Problem(("eventhouse.hosts",), f'eventhouse.hosts: "{host}" is no host name')
    if where.url:
        yield from _address(where)
    for name in ("database", "table"):
        value = getattr(where, name)
        if value and not _NAME.fullmatch(value):
            key = f"eventhouse.{name}"
            yield Problem(
                (key,), f'{key}: "{value}" is not allowed: expected letters, digits, _ . - and spaces'
            )
    yield from _columns(where)
    if where.start not in ("beginning", "now") and not _is_time(where.start):
        yield Problem(
            ("eventhouse.start",),
            f'eventhouse.start: "{where.start}" is not allowed: expected beginning, now, or a time such as '
            "2026-01-05T00:00:00Z",
        )
    if wrong := filter_problem(where.filter):
        yield Problem(("eventhouse.filter",), f"eventhouse.filter: {wrong}")


def _address(where: Eventhouse) -> Iterator[Problem]:
    key = "eventhouse.url"
    try:
        parts = urlsplit(where.url)
        host = parts.hostname or ""
    except ValueError as error:
        yield Problem((key,), f"{key}: is no URL: {error}")
        return
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        yield Problem((key,), f'{key}: "{where.url}" is not allowed: expected no path and no query')
    elif not may_carry_token(where.url, (*HOSTS, *where.hosts)):
        yield Problem(
            (key, "eventhouse.hosts"),
            f'{key}: "{where.url}" is not allowed: expected https:// and a host below {", ".join(HOSTS)} or '
            "one of eventhouse.hosts (or an address of this machine)",
        )
    elif where.auth.method == "none" and not is_loopback(host):
        yield Problem(
            ("eventhouse.auth.method", key),
            f'eventhouse.auth.method: "none" is for an Eventhouse on this machine, and {host} is another',
        )
    elif where.auth.method == "none" and parts.scheme != "http":
        yield Problem((key,), f"{key}: without a login the client speaks http only, to this machine")


def _columns(where: Eventhouse) -> Iterator[Problem]:
    taken: dict[str, str] = {}
    for field in dataclasses.fields(where.columns):
        key, name = f"eventhouse.columns.{field.name}", getattr(where.columns, field.name)
        if not _NAME.fullmatch(name):
            yield Problem(
                (key,), f'{key}: "{name}" is not allowed: expected letters, digits, _ . - and spaces'
            )
        elif name.startswith(_RESERVED):
            yield Problem((key,), f'{key}: "{name}" is not allowed: names with {_RESERVED} are our own')
        elif (other := taken.setdefault(name, key)) != key:
            yield Problem((key, other), f'{key}: "{name}" is also {other}')


def _is_time(text: str) -> bool:
    try:
        dt.datetime.fromisoformat(text)
    except ValueError:
        return False
    return re.match(r"\d{4}-\d\d-\d\d([T ]|$)", text) is not None


def filter_problem(text: str) -> str:
    """Why a text cannot be a condition within parentheses, "" where it can: it must not end them."""
    bare = _PASSED_OVER.sub(" ", text)
    opened: list[str] = []
    for character in bare:
        if character in "([{":
            opened.append(character)
        elif character in _BRACKETS and (not opened or opened.pop() != _BRACKETS[character]):
            return f"{character} closes what is not open"
        elif character in "\"'`":
            return "a text in it does not end"
        elif character == ";":
            return "expected one condition, without ;"
        elif character == "|" and not opened:
            return "expected a condition, without |"
    return f"{opened[-1]} is not closed" if opened else ""

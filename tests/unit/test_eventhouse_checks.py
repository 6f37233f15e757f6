"""[eventhouse]: where a token may go, and what may stand in a query."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pipelined.config import Config
from pipelined.config.auth import Auth
from pipelined.config.eventhouse_checks import eventhouse, filter_problem
from pipelined.config.sources import Columns, Eventhouse

LOGIN = Auth(method="az_cli")


def problems(**fields: Any) -> list[str]:
    section = dataclasses.replace(Eventhouse(), **fields)
    return [problem.text for problem in eventhouse(dataclasses.replace(Config(), eventhouse=section))]


@pytest.mark.parametrize(
    "url",
    [
        "https://abc.z0.kusto.fabric.microsoft.com",
        "https://help.westeurope.kusto.windows.net/",
        "http://127.0.0.1:8080",
        "https://localhost",
    ],
)
def test_an_eventhouse_of_microsofts_clouds_or_of_this_machine_is_fine(url: str) -> None:
    assert problems(url=url, auth=LOGIN) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://abc.kusto.windows.net",
        "https://evil.example.org",
        "https://kusto.windows.net.example.org",
        "https://xkusto.windows.net",
        "https://user@abc.kusto.windows.net",
        "https://abc.kusto.windows.net:x",
        "ftp://127.0.0.1",
        "abc.kusto.windows.net",
        "https://abc.kusto.windows.net/v2/rest/query",
        "https://abc.kusto.windows.net?x=1",
    ],
)
def test_a_token_goes_nowhere_else(url: str) -> None:
    (text,) = problems(url=url, auth=LOGIN)
    assert text.startswith("eventhouse.url: ")


def test_hosts_adds_domains() -> None:
    url = "https://kusto.corp.example.org"
    assert problems(url=url, auth=LOGIN, hosts=("corp.example.org",)) == []
    assert problems(url="http://kusto.corp.example.org", auth=LOGIN, hosts=("corp.example.org",))
    (text,) = problems(hosts=("*.example.org",))
    assert text.startswith("eventhouse.hosts: ")


def test_without_a_login_only_this_machine_is_asked() -> None:
    assert problems(url="http://127.0.0.1:1") == []
    (text,) = problems(url="https://abc.kusto.windows.net")
    assert text.startswith("eventhouse.auth.method: ")
    (text,) = problems(url="https://127.0.0.1")
    assert "http" in text


@pytest.mark.parametrize(
    "fields",
    [
        {"table": "Events']"},
        {"table": "a\nb"},
        {"database": "a;b"},
        {"columns": Columns(type="a'b")},
        {"columns": Columns(data="")},
        {"columns": Columns(trace_id="pipelined_it")},
        {"columns": Columns(trace_id="type")},
        {"start": "tomorrow"},
        {"start": "2026-13-01"},
        {"start": "20260105"},
        {"start": ""},
    ],
)
def test_what_does_not_fit_is_one_problem(fields: dict[str, Any]) -> None:
    assert len(problems(**fields)) == 1


@pytest.mark.parametrize("start", ["beginning", "now", "2026-01-05", "2026-01-05T00:00:00.1234567Z"])
def test_a_start_is_a_word_or_a_time(start: str) -> None:
    assert problems(start=start, table="raw events-v1.2", columns=Columns(type="the type")) == []


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "type startswith 'verisk.claims'",
        "['type'] in ('a', \"b\") and version > 1 // ours; and | others (",
        "traceId in (Other | where x > 1 | project id)",
        "type == 'it''s' or type == \"a\\\"b;|(\"",
        "type matches regex @'^\\w+\\'",
        'data.x == @"a""|;("',
    ],
)
def test_one_condition_may_be_a_filter(condition: str) -> None:
    assert filter_problem(condition) == ""


@pytest.mark.parametrize(
    "condition",
    [
        "true) | take 1 //",
        "true | take 1",
        "true; drop",
        "(true",
        "true]",
        "a[1)",
        "type == 'open",
        'type == "a\nb"',
        "`x`",
    ],
)
def test_what_would_leave_its_parentheses_is_no_filter(condition: str) -> None:
    assert filter_problem(condition)
    assert len(problems(filter=condition)) == 1

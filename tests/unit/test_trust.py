"""Where a token may be sent to."""

from __future__ import annotations

import pytest

from pipelined.config.trust import is_loopback, may_carry_token

SUFFIXES = ("kusto.fabric.microsoft.com", "kusto.windows.net")


@pytest.mark.parametrize(
    "url",
    [
        "https://x.z9.kusto.fabric.microsoft.com",
        "https://help.kusto.windows.net/db?a=b",
        "https://HELP.Kusto.Windows.NET:8443",
        "https://kusto.windows.net",
        "http://127.0.0.1:8080",
        "http://127.8.9.10",
        "http://localhost:1/x",
        "https://LOCALHOST",
        "http://[::1]:80",
    ],
)
def test_a_token_goes_to_a_known_host_or_to_this_machine(url: str) -> None:
    assert may_carry_token(url, SUFFIXES)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "help.kusto.windows.net",
        "//help.kusto.windows.net",
        "http://help.kusto.windows.net",
        "ftp://help.kusto.windows.net",
        "https://evil-kusto.windows.net",
        "https://kusto.windows.net.evil.example",
        "https://help.kusto.windows.net.",
        "https://evil.example/kusto.windows.net",
        "https://evil.example?kusto.windows.net",
        "https://evil.example#.kusto.windows.net",
        "https://help.kusto.windows.net@evil.example",
        "https://user@help.kusto.windows.net",
        "https://@help.kusto.windows.net",
        "https://evil.example\\.kusto.windows.net",
        "https://evil.example\t.kusto.windows.net",
        "https://help.kusto.windows.net\n",
        " https://help.kusto.windows.net",
        "https://hélp.kusto.windows.net",
        "https://help.kusto.windows.net:port",
        "https://[help.kusto.windows.net",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://127.1",
        "http://0.0.0.0",
        "http://10.0.0.1",
        "http://2130706433",
    ],
)
def test_a_token_goes_nowhere_else(url: str) -> None:
    assert not may_carry_token(url, SUFFIXES)


def test_without_suffixes_a_token_stays_on_this_machine() -> None:
    assert may_carry_token("http://127.0.0.1", ())
    assert not may_carry_token("https://help.kusto.windows.net", ())


@pytest.mark.parametrize(
    ("host", "here"), [("localhost", True), ("::1", True), ("127.0.0.1", True), ("", False), ("::", False)]
)
def test_loopback_is_told(host: str, here: bool) -> None:
    assert is_loopback(host) is here

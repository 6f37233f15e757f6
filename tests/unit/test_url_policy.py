from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelined.config.tree import Urls
from pipelined.errors import PermanentError
from pipelined.fetch.policy import UrlPolicy, host_of, wire_url

POLICY = UrlPolicy(
    Urls(allowed_hosts=("*.amazonaws.com", "files.example.com", "bücher.example", "[2606::1]"))
)


@pytest.mark.parametrize(
    "url",
    [
        "https://a.amazonaws.com/k/x.pdf?X-Amz-Signature=abc",
        "https://a.b.amazonaws.com:443/",
        "HTTPS://A.AmazonAWS.com/x",
        "https://files.example.com./x",
        "https://files.example.com",
        "https://files.example.com?x=1",
        "https://files.example.com/a@b:c",
        "https://files.example.com/Überblick.pdf",
        "https://bücher.example/x",
        "https://xn--bcher-kva.example/x",
        "https://BÜCHER.example/x",
        "https://[2606::1]/x",
        "https://[2606:0:0::1]/x",
        "https://files.example.com:/x",
    ],
)
def test_a_url_of_an_allowed_host_may_be_fetched(url: str) -> None:
    POLICY.check(url)
    assert host_of(url)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Files.Example.com./x", "files.example.com"),
        ("https://files.example.com:443/x", "files.example.com"),
        ("https://files.example.com:8443/x", "files.example.com:8443"),
        ("HTTP://files.example.com:80/x", "files.example.com"),
        ("http://files.example.com:443/x", "files.example.com:443"),
        ("https://[2606:0::1]:8443", "[2606::1]:8443"),
    ],
)
def test_another_port_is_another_host(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://files.example.com/x", "url_scheme"),
        ("ftp://files.example.com/x", "url_scheme"),
        ("file:///etc/passwd", "url_scheme"),
        ("gopher://files.example.com/", "url_scheme"),
        ("https://evil.example/x", "url_host"),
        ("https://amazonaws.com/x", "url_host"),
        ("https://evilamazonaws.com/x", "url_host"),
        ("https://files.example.com.evil.example/x", "url_host"),
        ("https://sub.files.example.com/x", "url_host"),
        ("https://127.0.0.1/x", "url_host"),
        ("https://2130706433/x", "url_host"),
        ("https://[::1]/x", "url_host"),
        ("https://files%2eexample.com/x", "url_host"),
        ("https://files.example.com..", "url_host"),
        ("https://.amazonaws.com/x", "url_host"),
        ("https://files.example.com\uff0f.evil.example/x", "url_host"),
        ("https://files.example.com:8443/x", "url_port"),
        ("https://files.example.com:80/x", "url_port"),
        ("https://user@files.example.com/x", "url_userinfo"),
        ("https://user:secret@files.example.com/x", "url_userinfo"),
        ("https://evil.example@files.example.com/x", "url_userinfo"),
        ("https://files.example.com\\@evil.example/x", "url_characters"),
        ("https://files.example.com/a b", "url_characters"),
        ("https://files.example.com/a\tb", "url_characters"),
        ("https://files.example.com/a\r\nHost: evil", "url_characters"),
        ("https://files.example.com/\x00", "url_characters"),
        ("https://files.example.com/\u2028", "url_characters"),
        (" https://files.example.com/", "url_characters"),
        ("https:/files.example.com/x", "url_malformed"),
        ("//files.example.com/x", "url_malformed"),
        ("https:files.example.com", "url_malformed"),
        ("", "url_malformed"),
        ("https:///x", "url_malformed"),
        ("https://files.example.com:44x/x", "url_malformed"),
        ("https://files.example.com:1:443/x", "url_malformed"),
    ],
)
def test_a_url_outside_the_policy_is_refused_with_its_reason(url: str, code: str) -> None:
    with pytest.raises(PermanentError) as caught:
        POLICY.check(url)
    assert caught.value.code == code


def test_http_and_other_ports_are_taken_only_where_configured() -> None:
    policy = UrlPolicy(Urls(allowed_hosts=("127.0.0.1",), allowed_ports=(8080,), allow_http=True))
    policy.check("http://127.0.0.1:8080/x")
    for url in ("http://127.0.0.1/x", "https://127.0.0.1/x"):
        with pytest.raises(PermanentError, match="allowed_ports"):
            policy.check(url)


def test_the_error_shows_no_signature_and_no_password() -> None:
    for url in (
        "https://evil.example/x?X-Amz-Signature=s3cret",
        "https://u:s3cret@files.example.com/x",
        "https://files.example.com/ x?sig=s3cret",
    ):
        with pytest.raises(PermanentError) as caught:
            POLICY.check(url)
        assert "s3cret" not in str(caught.value)


def test_a_url_goes_over_the_wire_in_ascii() -> None:
    assert wire_url("https://bücher.example/ü?q=%41&ä") == "https://xn--bcher-kva.example/%C3%BC?q=%41&%C3%A4"
    assert wire_url("https://a.example/%7E?x=a+b") == "https://a.example/%7E?x=a+b"


@given(st.text(max_size=40))
def test_no_text_makes_the_policy_fail_otherwise_than_by_refusing(text: str) -> None:
    for url in (text, f"https://{text}", f"https://files.example.com{text}"):
        with contextlib.suppress(PermanentError):
            POLICY.check(url)
            host = host_of(url)
            assert host == "files.example.com" or host.endswith(".amazonaws.com")


def test_many_hosts_do_not_fill_the_memory() -> None:
    for number in range(10_050):
        POLICY.check(f"https://b{number}.amazonaws.com/x")
    assert len(POLICY._verdicts) <= 10_000


def test_a_check_is_fast_enough_for_the_path_of_every_event() -> None:
    url = (
        "https://exports.example-bucket.s3.us-west-2.amazonaws.com/k/GENERIC.PDF?X-Amz-Signature=" + 64 * "a"
    )
    POLICY.check(url)
    best = min(_seconds(url) for _ in range(5))
    assert best < 0.2  # 10,000 checks; about 10 ms on an idle machine


def _seconds(url: str) -> float:
    begun = time.perf_counter()
    for _ in range(10_000):
        POLICY.check(url)
    return time.perf_counter() - begun

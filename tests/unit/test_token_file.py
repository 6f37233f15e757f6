"""Tokens that something else renews in a file."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelined.auth import provider, tokenfile
from pipelined.auth.grant import brief, expiry_of
from pipelined.config.auth import Auth
from pipelined.errors import AuthError

SCOPE = "https://storage.azure.com/.default"
HOST = "onelake.dfs.fabric.microsoft.com"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "token"


def tokens(file: Path, host: str = HOST) -> tokenfile.TokenFile:
    made = provider(Auth(method="token_file", token_file=str(file)), SCOPE, section="tables.auth", host=host)
    assert isinstance(made, tokenfile.TokenFile)
    return made


def jwt(ends: object) -> str:
    """A token that says when it ends, as those of Entra do."""
    parts = ({"alg": "none"}, {"exp": ends, "aud": "x"})
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    return ".".join((*encoded, "signature"))


@pytest.mark.parametrize("content", ["abc", "abc\n", "\ufeffabc\r\n", " abc "])
def test_a_plain_token_is_taken_without_what_an_editor_adds(file: Path, content: str) -> None:
    file.write_text(content, encoding="utf-8")
    assert tokens(file).token() == "abc"
    assert tokens(file).expires_at is None


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({HOST: "mine", "other.example": "other"}, "mine"),
        ({"https://OneLake.dfs.fabric.microsoft.com/": "mine"}, "mine"),
        ({"storage.azure.com": "resource"}, "resource"),
        ({"https://storage.azure.com": "resource", HOST: "host"}, "host"),
    ],
)
def test_of_several_tokens_that_of_the_host_is_taken(file: Path, content: object, wanted: str) -> None:
    file.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    assert tokens(file).token() == wanted


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no token"),
        ("two words", "holds no token"),
        ("two\nlines", "holds no token"),
        (json.dumps({HOST: 5}), "holds no token"),
        (json.dumps({HOST: ""}), "holds no token"),
        ('{"other.example": "hunter2"}', f"has no token for {HOST} or storage.azure.com"),
        ('{"hunter2', "is no valid JSON"),
        ("h\u00fcnter2", "holds no token"),
    ],
)
def test_a_file_without_a_token_says_what_it_lacks_and_nothing_of_what_it_has(
    file: Path, content: str, told: str
) -> None:
    file.write_text(content, encoding="utf-8")
    with pytest.raises(AuthError, match=told) as caught:
        tokens(file).token()
    assert caught.value.code == "token_file"
    assert str(caught.value).startswith(f"tables.auth.token_file: {file} ")
    assert "hunter2" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_told_and_used_once_it_can(file: Path) -> None:
    given = tokens(file)
    with pytest.raises(AuthError, match="cannot be read: No such file"):
        given.token()
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(AuthError, match="not UTF-8"):
        given.token()
    file.write_text("abc")
    assert given.token() == "abc"
    file.unlink()
    with pytest.raises(AuthError, match="cannot be read"):
        given.token()
    assert given.expires_at is None


def replaced(file: Path, token: str) -> None:
    new = file.with_name("new")
    new.write_text(token)
    new.replace(file)


def written(file: Path, token: str) -> None:
    file.write_text(token)


@pytest.mark.parametrize("renew", [replaced, written])
def test_a_changed_file_is_read_at_once(file: Path, renew: Callable[[Path, str], None]) -> None:
    given = tokens(file)
    for number in range(50):  # of one length, and faster than time stamps tell apart
        renew(file, f"token{number:02}")
        assert given.token() == f"token{number:02}"


def test_a_file_that_has_not_changed_is_not_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("abc")
    monkeypatch.setattr(tokenfile, "_SETTLED_S", -1.0)
    given = tokens(file)
    assert given.token() == "abc"
    monkeypatch.setattr(Path, "read_text", lambda *_args, **_keys: pytest.fail("read again"))
    assert given.token() == "abc"


def test_a_token_says_itself_when_it_ends(file: Path) -> None:
    file.write_text(jwt(4102444800))
    given = tokens(file)
    given.token()
    assert given.expires_at == 4102444800


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "a..", "a.e30.c", jwt("soon"), jwt(None), jwt([1])])
def test_a_token_that_does_not_say_when_it_ends_has_no_known_end(token: str) -> None:
    assert expiry_of(token) is None


def test_a_refused_token_is_not_used_again_before_another_is_there(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = jwt(int(time.time()) - 60)
    file.write_text(ended)
    given = tokens(file)
    assert given.token() == ended, "the service's clock counts, not ours"
    given.refresh("another one")
    assert given.token() == ended
    given.refresh(ended)
    with pytest.raises(AuthError, match=r"which expired at 20.*put a new one there") as caught:
        given.token()
    assert caught.value.code == "token_refused"
    assert ended not in str(caught.value)
    file.write_text("new")
    assert given.token() == "new"
    given.refresh()
    with pytest.raises(AuthError, match="refused the token in"):
        given.token()
    # The service may have been wrong: after a while the token is tried once more.
    monkeypatch.setattr(given, "_refused_until", 0.0)
    assert given.token() == "new"


def test_no_login_is_an_empty_token() -> None:
    none = provider(Auth(), SCOPE)
    none.refresh("x")
    none.close()
    assert (none.token(), none.expires_at) == ("", None)


def test_a_foreign_text_is_shown_short_on_one_line_and_without_secrets() -> None:
    text = brief("a\n b hunter2 password=x " + "y" * 1000, ["hunter2", ""])
    assert text.startswith("a b *** password=***")
    assert len(text) <= 400
    assert os.linesep not in text

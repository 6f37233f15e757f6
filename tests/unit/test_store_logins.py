"""How a store comes by its tokens: asked for with each request, given back when they are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blobs import Blobs, login, serving, source
from pipelined.errors import AuthError
from pipelined.storage.stores import open_store


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serving(monkeypatch) as url:
        yield url


def test_a_login_that_fails_says_itself_who_must_act(azure: str, tmp_path: Path) -> None:
    store = open_store(azure, timeout_s=5, auth=login(tmp_path))
    (tmp_path / "token").unlink()
    with pytest.raises(AuthError, match=r"upload\.auth\.token_file: .*cannot be read"):
        store.put("a/201", *source(tmp_path, b"x"))
    assert Blobs.seen == []


def test_a_token_that_the_store_refused_is_not_used_again(azure: str, tmp_path: Path) -> None:
    store = open_store(azure, timeout_s=5, auth=login(tmp_path))
    file = source(tmp_path, b"x")
    with pytest.raises(AuthError) as caught:
        store.put("a/401", *file)
    assert (caught.value.code, len(Blobs.seen)) == ("store_auth", 1)
    with pytest.raises(AuthError) as caught:
        store.put("a/201", *file)
    assert (caught.value.code, len(Blobs.seen)) == ("token_refused", 1)
    login(tmp_path, "second")
    store.put("a/201", *file)
    assert Blobs.seen[-1]["authorization"] == "Bearer second"


def test_a_token_is_kept_by_a_store_that_only_lacks_a_right(azure: str, tmp_path: Path) -> None:
    store = open_store(azure, timeout_s=5, auth=login(tmp_path))
    file = source(tmp_path, b"x")
    with pytest.raises(AuthError):
        store.put("a/403", *file)
    store.put("a/201", *file)
    assert Blobs.seen[-1]["authorization"] == "Bearer first"


def test_the_token_is_looked_up_again_when_it_was_renewed(azure: str, tmp_path: Path) -> None:
    store = open_store(azure, timeout_s=5, auth=login(tmp_path))
    file = source(tmp_path, b"x")
    store.put("a/201", *file)
    login(tmp_path, "second")
    store.put("a/201", *file)
    assert [headers["authorization"] for headers in Blobs.seen] == ["Bearer first", "Bearer second"]
    assert all(headers["if-none-match"] == "*" for headers in Blobs.seen)
    assert Blobs.seen[0]["x-ms-meta-sha256"] == file[2]

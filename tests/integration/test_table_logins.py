"""A table is reached with a token: one that is refused is replaced, and a handle ends before it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from deltalake.exceptions import TableNotFoundError

from entra import Entra, serving
from pipelined.config.auth import Auth
from pipelined.config.work import Tables
from pipelined.errors import AuthError, DependencyError
from pipelined.lake import faults, table
from pipelined.lake.schemas import EVENTS
from pipelined.lake.table import TableSource


class Container(BaseHTTPRequestHandler):
    """An empty container, for whoever has the right token."""

    protocol_version = "HTTP/1.1"
    taken: ClassVar[str] = ""
    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        type(self).seen.append(token)
        body = b'<?xml version="1.0"?><EnumerationResults><Blobs></Blobs></EnumerationResults>'
        listing = "comp=list" in self.path
        self.send_response(401 if token != self.taken else 200 if listing else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Container]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Container)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    Container.seen, Container.taken = [], "token-2"
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AZURE_STORAGE_ALLOW_HTTP", "true")
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
    yield Container
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def entra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entra]:
    monkeypatch.setenv("APP_SECRET", "hunter2")
    table._tokens.cache_clear()
    with serving(tmp_path, monkeypatch) as made:
        yield made
    table._tokens.cache_clear()


def source(auth: Auth, url: str = "az://container/tables/t") -> TableSource:
    settings = Tables(auth=auth, reopen_seconds=900)
    return TableSource(url, EVENTS.schema, partition_by=["event_date"], statistics=[], settings=settings)


def application(entra: Entra) -> Auth:
    return Auth(
        method="client_secret",
        tenant_id="contoso.example",
        client_id="app",
        client_secret="env:APP_SECRET",
        authority=entra.url,
    )


def test_a_refused_token_is_replaced_by_a_fresh_one_once(entra: Entra, container: type[Container]) -> None:
    reached = source(application(entra))
    with pytest.raises(TableNotFoundError):
        reached.existing()
    assert set(container.seen) == {"token-1", "token-2"}
    assert container.seen == sorted(container.seen), "the refused one is not used again"
    container.taken = "another"
    with pytest.raises(AuthError) as caught, faults.classified(reached.url):
        reached.existing()
    assert caught.value.code == "table_refused"
    assert caught.value.http_status == 401
    assert len(entra.asked) == 3, "one fresh login for each try, not more"


def test_the_tables_of_a_process_share_one_login(entra: Entra, container: type[Container]) -> None:
    container.taken = "token-1"
    for name in ("a", "b"):
        assert not source(application(entra), f"az://container/tables/{name}").exists()
    assert len(entra.asked) == 1


def test_a_token_file_that_was_not_renewed_is_told(tmp_path: Path, container: type[Container]) -> None:
    file = tmp_path / "token"
    file.write_text("token-1")
    reached = source(Auth(method="token_file", token_file=str(file)))
    with pytest.raises(
        AuthError, match=r"tables\.auth: the service refused the token in .*put a new one there"
    ):
        reached.exists()
    file.write_text("token-2")
    assert not reached.exists()


def test_a_login_service_that_is_away_is_a_dependency_that_is_down(container: type[Container]) -> None:
    auth = Auth(method="managed_identity")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
        with pytest.raises(DependencyError) as caught, faults.classified("az://container/tables/t"):
            source(auth).open()
    assert caught.value.code == "login_unreachable"
    assert container.seen == []


@pytest.mark.parametrize(
    ("left", "lasts"),
    [
        (None, 900.0),  # not known: tables.reopen_seconds
        (86400.0, 900.0),
        (1200.0, 900.0),
        (900.0, 675.0),  # a quarter ahead
        (60.0, 45.0),
        (0.0, 1.0),  # each commit looks for a new one
        (-100.0, 1.0),
    ],
)
def test_a_handle_is_given_up_before_its_token_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: float | None, lasts: float
) -> None:
    class Tokens:
        expires_at = None if left is None else time.time() + left

    made: Callable[[Auth, str], Tokens] = lambda _auth, _host: Tokens()  # noqa: E731 - one line
    monkeypatch.setattr(table, "_tokens", made)
    assert source(Auth()).lasts() == pytest.approx(lasts, abs=2)
    assert source(Auth(), (tmp_path / "t").as_uri()).lasts() == 900.0

"""A store whose login is refused: the upload waits, says why without a secret, and goes on by itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from entra import Answer, Entra, serving
from flow import Flow
from waiting import until

SECRET = "kvqzxjwkplmtrbgn"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJ0aWQiOiJrdnF6eGp3a3BsIn0.c2lnbmF0dXJl"


class Container(BaseHTTPRequestHandler):
    """A container that takes every file from whoever has the token."""

    protocol_version = "HTTP/1.1"
    files: set[str]

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if known:
            type(self).files.add(self.path.partition("?")[0])
        self.send_response(201 if known else 401)
        self.send_header("Content-Length", "0")
        self.send_header("ETag", '"x"')
        self.end_headers()

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def container(flow: Flow) -> Iterator[set[str]]:
    """The files that arrived there; the daemon of ``flow`` finds it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Container)
    Container.files = set()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    flow.environment |= {
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "AZURE_ALLOW_HTTP": "true",
    }
    yield Container.files
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def entra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entra]:
    with serving(tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.timeout(120)
def test_a_refused_login_is_told_without_the_secret_and_the_files_arrive_once_it_is_granted(
    flow: Flow, entra: Entra, container: set[str]
) -> None:
    said = "AADSTS7000215: Invalid client secret provided:"
    entra.answer = lambda form: Answer(
        401, {"error": "invalid_client", "error_description": f"{said} {form}"}
    )
    (flow.folder / "secret").write_text(SECRET)
    flow.environment |= {"REQUESTS_CA_BUNDLE": str(entra.ca), "NO_PROXY": "127.0.0.1"}
    flow.configure(
        {
            "upload.url": "az://container/files",
            "upload.auth.method": "client_secret",
            "upload.auth.tenant_id": "contoso.example",
            "upload.auth.client_id": "11111111-2222-3333-4444-555555555555",
            "upload.auth.client_secret": f"file:{flow.folder / 'secret'}",
            "upload.auth.authority": entra.url,
            "logs.level": "DEBUG",
        }
    )
    flow.start()
    day = flow.day(60, seed=5)
    flow.load(day.lines())
    wanted = day.summary.deliverable
    assert wanted > 0
    flow.until_worker("upload", lambda worker: worker["paused"], "pauses")
    assert entra.asked[0]["client_secret"] == SECRET, "it was told to the login service"
    paused = [flow.ctl("status").stdout, json.dumps(flow.status()), *(flow.http(path)[1] for path in PATHS)]
    assert container == set()

    entra.answer = lambda _form: Answer(body={"access_token": TOKEN, "expires_in": 3600})
    until(lambda: len(container) == wanted, "the files arrive")
    flow.until_worker("upload", lambda worker: not worker["paused"], "goes on")
    assert flow.stop() == 0

    log = flow.log_file.read_text()
    assert "client_secret must be the value of the secret, not its id" in log
    assert "logged in (upload.auth)" in log
    for text in (*paused, log):
        assert SECRET not in text
        assert TOKEN.split(".")[1] not in text


PATHS = ("/metrics", "/readyz", "/status")

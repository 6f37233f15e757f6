"""An Azure Blob endpoint on loopback that answers as it is told, and a token to reach it with."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from pipelined.config.auth import Auth


class Blobs(BaseHTTPRequestHandler):
    """An Azure endpoint that answers with the status its path asks for."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[dict[str, str]]] = []

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).seen.append(dict(self.headers))
        self.send_response(int(self.path.rpartition("/")[2]))
        self.send_header("Content-Length", "0")
        self.send_header("ETag", '"x"')
        self.end_headers()

    def do_HEAD(self) -> None:
        self.send_response(int(self.path.rpartition("/")[2]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a folder there; the environment says where it really lies."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Blobs)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Blobs.seen = []
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
    try:
        yield "az://container/files"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def login(tmp_path: Path, token: str = "first") -> Auth:
    """A login by a file, which holds this token from now on."""
    file = tmp_path / "token"
    file.write_text(token)
    return Auth(method="token_file", token_file=str(file))


def source(tmp_path: Path, data: bytes, name: str = "source") -> tuple[Path, int, str]:
    """A file with these bytes, its size and its hash."""
    file = tmp_path / name
    file.write_bytes(data)
    return file, len(data), hashlib.sha256(data).hexdigest()

"""A login service on loopback, over https, that msal as it is logs in to; its answers are to order."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Answer:
    """What is answered to one request for a token; ``text`` goes out as it is, else ``body`` as JSON."""

    status: int = 200
    body: Any = None
    text: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Entra:
    """``asked`` is the form (or query) of each request for a token, ``paths`` where it went.

    ``answer`` gets that form; without one, tokens named token-1, token-2 … are given for an hour.
    """

    url: str
    ca: Path
    asked: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answer: Callable[[dict[str, str]], Answer] | None = None
    discovery: Answer | None = None

    def token(self, **fields: Any) -> Answer:
        """The usual answer; ``fields`` replace what is in it."""
        body = {"token_type": "Bearer", "expires_in": 3600, "access_token": f"token-{len(self.asked)}"}
        return Answer(body={**body, **fields})

    def refuse(self, number: int, words: str, status: int = 401, error: str = "invalid_client") -> None:
        """Refuse each login from now on as Entra words it."""
        text = f"AADSTS{number}: {words} Trace ID: 0f1e Correlation ID: 2d3c Timestamp: 2026-01-05 14:22:31Z"
        body = {"error": error, "error_description": text, "error_codes": [number]}
        self.answer = lambda _form: Answer(status, body)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path.endswith("/.well-known/openid-configuration"):
            tenant = parts.path.split("/")[1]
            base = f"{self.entra.url}/{tenant}/oauth2/v2.0"
            known = {"authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/token"}
            self._send(self.entra.discovery or Answer(body={**known, "issuer": self.entra.url}))
        else:  # what gives a machine its identity is asked by GET
            self._token(parts.query)

    def do_POST(self) -> None:
        self._token(self.rfile.read(int(self.headers["Content-Length"])).decode())

    @property
    def entra(self) -> Entra:
        return cast(Entra, cast(Any, self.server).entra)

    def _token(self, text: str) -> None:
        form = {name: values[0] for name, values in parse_qs(text).items()}
        self.entra.paths.append(urlsplit(self.path).path)
        self.entra.headers.append(dict(self.headers))
        self.entra.asked.append(form)
        self._send(self.entra.answer(form) if self.entra.answer else self.entra.token())

    def _send(self, answer: Answer) -> None:
        data = (json.dumps(answer.body) if answer.text is None else answer.text).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(data)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch, *, tls: bool = True) -> Iterator[Entra]:
    """The service, trusted by this process; without ``tls`` as the one that knows a machine's identity."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    key = ec.generate_private_key(ec.SECP256R1())
    ca = folder / "entra.pem"
    ca.write_text(pem(key) + certificate(key))
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ca)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    entra = Entra(f"http{'s' * tls}://127.0.0.1:{server.server_port}", ca)
    cast(Any, server).entra = entra
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    try:
        yield entra
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def pem(key: Key, password: str = "") -> str:
    """A private key as text."""
    encryption = (
        serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    )
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def certificate(key: Key, name: str = "localhost", issuer: tuple[Key, str] | None = None) -> str:
    """A certificate (PEM) of ``key``, signed by itself or by ``issuer``."""
    by, of = issuer or (key, name)
    now = dt.datetime.now(dt.UTC)
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, of)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(by, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()

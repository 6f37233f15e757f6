from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filehost import Host, failure, fetch, settings

from pipelined.config.tree import Config, Urls
from pipelined.errors import PermanentError


@pytest.fixture
def host() -> Iterator[Host]:
    server = Host()
    yield server
    server.stop()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"])
def test_a_refused_address_is_never_connected_to(host: Host, tmp_path: Path, name: str) -> None:
    host.says("/x", "HTTP/1.1 200 OK\nContent-Length: 5", b"hello")
    config = settings(host.port, networks=(), hosts=(name,))
    error = failure(config, f"http://{name}:{host.port}/x", tmp_path)
    assert (type(error), error.code) == (PermanentError, "url_address")
    assert host.connections == 0


def test_a_redirect_to_a_refused_address_is_never_connected_to(host: Host, tmp_path: Path) -> None:
    inner = Host()
    try:
        target = f"http://localhost:{inner.port}/secret"
        url = host.says("/x", f"HTTP/1.1 302 Found\nLocation: {target}\nContent-Length: 0")
        for hosts in (("127.0.0.1",), ("127.0.0.1", "localhost")):
            config = settings(host.port, inner.port, hosts=hosts, networks=("127.0.0.1/32",))
            if "localhost" in hosts:  # the name passes, its address must not
                config = settings(host.port, hosts=hosts)
            error = failure(config, url, tmp_path)
            assert type(error) is PermanentError
            assert error.code in ("url_host", "url_port")
        assert inner.connections == 0
    finally:
        inner.stop()


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1/x",
        "ftp://127.0.0.1/x",
        "http://u:p@127.0.0.1/",
        "//u@127.0.0.1/",
    ],
)
def test_a_redirect_to_another_protocol_or_with_a_password_is_refused(
    host: Host, tmp_path: Path, target: str
) -> None:
    url = host.says("/x", f"HTTP/1.1 302 Found\nLocation: {target}\nContent-Length: 0")
    error = failure(settings(host.port), url, tmp_path)
    assert type(error) is PermanentError
    assert error.code in ("url_scheme", "url_userinfo")


def test_redirects_end_at_their_limit(host: Host, tmp_path: Path) -> None:
    url = host.says("/x", "HTTP/1.1 302 Found\nLocation: /x\nContent-Length: 0", then="keep")
    error = failure(settings(host.port, max_redirects=3), url, tmp_path)
    assert (type(error), error.code) == (PermanentError, "redirects")
    assert len(host.requests) == 4


def test_a_proxy_of_the_environment_is_not_used(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Host()
    try:
        for name in ("http_proxy", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        url = host.says("/x", "HTTP/1.1 200 OK\nContent-Length: 5", b"hello")
        assert fetch(settings(host.port), url, tmp_path).error is None
        assert proxy.connections == 0
    finally:
        proxy.stop()


def test_a_signed_path_goes_out_as_it_is_written(host: Host, tmp_path: Path) -> None:
    path = "/a/../b/%7E%2F./x.pdf?sig=a%2Bb&x=1"
    host.says(path, "HTTP/1.1 200 OK\nContent-Length: 5", b"hello")
    assert fetch(settings(host.port), host.url(path), tmp_path).error is None
    assert host.requests[0].startswith(f"GET {path} HTTP/1.1")


@pytest.mark.parametrize("location", ["b/x.pdf?q=1", "/a/b/x.pdf?q=1", "//127.0.0.1:{port}/a/b/x.pdf?q=1"])
def test_a_relative_redirect_is_resolved_against_the_url_it_came_from(
    host: Host, tmp_path: Path, location: str
) -> None:
    where = location.format(port=host.port)
    url = host.says("/a/start", f"HTTP/1.1 307 Moved\nLocation: {where}\nContent-Length: 0", then="keep")
    host.says("/a/b/x.pdf?q=1", "HTTP/1.1 200 OK\nContent-Length: 5", b"hello")
    assert fetch(settings(host.port), url, tmp_path).error is None


def _authority(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for a host name, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split()
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True, timeout=60
    )
    return certificate, key


@pytest.mark.parametrize(("name", "code"), [("localhost", None), ("other.example", "certificate")])
def test_the_certificate_must_be_trusted_and_bear_the_name_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str | None
) -> None:
    certificate, key = _authority(tmp_path, name)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hello)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    config = Config(
        urls=Urls(
            allowed_hosts=("localhost",),
            allowed_ports=(server.server_port,),
            allowed_networks=("127.0.0.0/8", "::1/128"),
        )
    )
    try:
        fetched = fetch(config, f"https://localhost:{server.server_port}/x", tmp_path)
        assert (fetched.error.code if fetched.error else None) == code
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *args: object) -> None:
        pass

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipelined.config.tree import Config, Download, Files, Urls
from pipelined.errors import DependencyError, PermanentError, RecordError, TransientError
from pipelined.fetch.transfers import Fetched, Transfers
from pipelined.local.fileserver import FileServer, expected_body, file_path

Answer = Callable[[socket.socket, str], None]
BODY = b"%PDF-1.7 " + b"x" * 5000


class Host:
    """A server of raw sockets: a path names what is sent, whatever it may be. Counts its connections."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[str] = []
        self.answers: dict[str, Answer] = {}
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(0.1)
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._main = threading.Thread(target=self._accept)
        self._main.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def says(self, path: str, head: str, body: bytes = b"", *, then: str = "close") -> str:
        """Answer a path with these bytes, then close the connection, keep it, or hang. Returns the URL."""

        def answer(connection: socket.socket, _request: str) -> None:
            connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
            if then == "hang":
                self._stopped.wait(60)
            elif then == "close":
                connection.shutdown(socket.SHUT_RDWR)

        self.answers[path] = answer
        return self.url(path)

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(0.1)
        buffer = b""
        with connection:
            while not self._stopped.is_set():
                try:
                    data = connection.recv(65536)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not data:
                    return
                buffer += data
                while b"\r\n\r\n" in buffer:
                    request, _, buffer = buffer.partition(b"\r\n\r\n")
                    text = request.decode()
                    self.requests.append(text)
                    try:
                        connection.settimeout(20)
                        self.answers[text.split(" ")[1]](connection, text)
                        connection.settimeout(0.1)
                    except OSError:
                        return

    def stop(self) -> None:
        self._stopped.set()
        self._main.join()
        for thread in self._threads:
            thread.join()
        self._listener.close()


@pytest.fixture
def host() -> Iterator[Host]:
    server = Host()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


def settings(
    *ports: int,
    networks: tuple[str, ...] = ("127.0.0.0/8",),
    files: Files | None = None,
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "*.localhost"),
    **download: float,
) -> Config:
    limits: dict[str, float] = {"low_speed_s": 1, "connect_timeout_s": 3, "timeout_s": 20, **download}
    return Config(
        urls=Urls(allowed_hosts=hosts, allowed_ports=ports, allow_http=True, allowed_networks=networks),
        files=files or Files(),
        download=Download(**limits),  # type: ignore[arg-type]  # all are numbers, some of them whole
    )


def fetch_all(transfers: Transfers, urls: list[str], folder: Path, seconds: float = 30) -> list[Fetched]:
    """Fetch the URLs and return what became of them, in their order."""
    waiting = list(enumerate(urls))
    found: dict[int, Fetched] = {}
    deadline = time.monotonic() + seconds
    while len(found) < len(urls):
        assert time.monotonic() < deadline, f"only {len(found)} of {len(urls)} ended"
        while waiting and transfers.free:
            number, url = waiting.pop(0)
            transfers.start(number, url, str(folder / str(number)))
        for fetched in transfers.poll(0.2):
            assert isinstance(fetched.key, int)
            found[fetched.key] = fetched
            if fetched.file >= 0:
                os.close(fetched.file)
    return [found[number] for number in range(len(urls))]


def fetch(config: Config, url: str, folder: Path) -> Fetched:
    transfers = Transfers(config)
    try:
        return fetch_all(transfers, [url], folder)[0]
    finally:
        transfers.close()


def failure(config: Config, url: str, folder: Path) -> RecordError:
    fetched = fetch(config, url, folder)
    assert fetched.error is not None
    assert not Path(fetched.path).exists()
    return fetched.error


def test_files_of_all_sizes_arrive_whole_with_their_hash(server: FileServer, tmp_path: Path) -> None:
    paths = [file_path("ok", size, size, "a.pdf") for size in (0, 1000, 10_240, 300_000, 3_000_000)]
    transfers = Transfers(settings(urlsplit(server.url).port or 0))
    results = fetch_all(transfers, [server.url + path for path in paths], tmp_path)
    transfers.close()
    for path, fetched in zip(paths, results, strict=True):
        body = expected_body(path)
        assert fetched.error is None
        assert Path(fetched.path).read_bytes() == body
        assert fetched.size == len(body)
        assert fetched.sha256 == hashlib.sha256(body).hexdigest()
        assert fetched.head == body[:1024]
        assert (fetched.http_status, fetched.content_type) == (200, "application/pdf")


def test_many_transfers_share_few_handles_and_connections(host: Host, tmp_path: Path) -> None:
    url = host.says("/x", f"HTTP/1.1 200 OK\nContent-Length: {len(BODY)}", BODY, then="keep")
    transfers = Transfers(settings(host.port, concurrency=4))
    results = fetch_all(transfers, [url] * 60, tmp_path)
    assert transfers.free == 4
    transfers.close()
    assert [fetched.error for fetched in results] == [None] * 60
    assert host.connections <= 4


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ("missing", PermanentError, "http_404"),
        ("gone", PermanentError, "http_410"),
        ("forbidden", PermanentError, "http_403"),
        ("flaky", TransientError, "http_503"),
        ("ratelimit", TransientError, "http_429"),
        ("cut", TransientError, "short_body"),
        ("stall", TransientError, "timeout"),
        ("nolength", TransientError, "unknown_length"),
        ("astray", PermanentError, "url_host"),
    ],
)
def test_each_fault_of_the_file_server_says_what_it_was(
    server: FileServer, tmp_path: Path, fault: str, kind: type[RecordError], code: str
) -> None:
    config = settings(urlsplit(server.url).port or 0)
    error = failure(config, server.url + file_path(fault, 20_000, 1, "a.pdf"), tmp_path)
    assert (type(error), error.code) == (kind, code)
    if fault == "ratelimit":
        assert (error.retry_after, error.http_status) == (1, 429)


def test_a_redirect_is_followed_to_the_file(server: FileServer, tmp_path: Path) -> None:
    path = file_path("redirect", 20_000, 1, "a.pdf")
    fetched = fetch(settings(urlsplit(server.url).port or 0), server.url + path, tmp_path)
    assert fetched.error is None
    assert Path(fetched.path).read_bytes() == expected_body(path)


def test_a_body_of_unknown_length_is_taken_where_configured(server: FileServer, tmp_path: Path) -> None:
    path = file_path("nolength", 20_000, 1, "a.pdf")
    config = settings(urlsplit(server.url).port or 0, files=Files(accept_unknown_length=True))
    fetched = fetch(config, server.url + path, tmp_path)
    assert fetched.error is None
    assert fetched.size == 20_000


@pytest.mark.parametrize(
    ("head", "body", "kind", "code"),
    [
        ("HTTP/1.1 200 OK\nContent-Length: 6000", BODY, TransientError, "short_body"),
        ("HTTP/1.1 200 OK\nContent-Length: abc", BODY, TransientError, "bad_response"),
        ("HTTP/1.1 200 OK\nContent-Length: 9\nContent-Length: 10", BODY, TransientError, "bad_response"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"5\r\nhello\r\n", TransientError, "short_body"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"zz\r\n", TransientError, "connection_lost"),
        ("garbage", b"", TransientError, "bad_response"),
        ("HTTP/1.1 206 Partial Content\nContent-Length: 5", b"hello", TransientError, "http_206"),
        ("HTTP/1.1 204 No Content", b"", TransientError, "http_204"),
        ("HTTP/1.1 304 Not Modified", b"", PermanentError, "http_304"),
        ("HTTP/1.1 302 Found\nContent-Length: 0", b"", PermanentError, "http_302"),
        ("HTTP/1.1 400 Bad Request\nContent-Length: 0", b"", PermanentError, "http_400"),
        ("HTTP/1.1 401 Unauthorized\nContent-Length: 0", b"", PermanentError, "http_401"),
        ("HTTP/1.1 408 Timeout\nContent-Length: 0", b"", TransientError, "http_408"),
        ("HTTP/1.1 425 Too Early\nContent-Length: 0", b"", TransientError, "http_425"),
        ("HTTP/1.1 404 Not Found", b"x" * 200_000, PermanentError, "http_404"),
        ("HTTP/1.1 500 Oops\nContent-Length: 100000", b"cut", TransientError, "http_500"),
    ],
)
def test_a_server_that_misbehaves_never_yields_a_file(
    host: Host, tmp_path: Path, head: str, body: bytes, kind: type[RecordError], code: str
) -> None:
    error = failure(settings(host.port), host.says("/x", head, body), tmp_path)
    assert (type(error), error.code) == (kind, code)


def test_a_server_that_closes_without_a_word_is_a_transient_failure(host: Host, tmp_path: Path) -> None:
    host.answers["/x"] = lambda connection, _: connection.shutdown(socket.SHUT_RDWR)
    assert failure(settings(host.port), host.url("/x"), tmp_path).code == "empty_reply"


def test_a_chunked_body_that_ends_as_it_should_is_taken(host: Host, tmp_path: Path) -> None:
    body = b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n"
    url = host.says("/x", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked", body, then="keep")
    fetched = fetch(settings(host.port), url, tmp_path)
    assert fetched.error is None
    assert Path(fetched.path).read_bytes() == b"hello world"


def test_more_bytes_than_announced_are_cut_at_the_length(host: Host, tmp_path: Path) -> None:
    url = host.says("/x", "HTTP/1.1 200 OK\nContent-Length: 5", b"hello and more")
    fetched = fetch(settings(host.port), url, tmp_path)
    assert (fetched.error, fetched.size) == (None, 5)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("HTTP/1.1 200 OK\nContent-Length: 1001", b"x" * 1001),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"),
    ],
)
def test_a_file_beyond_the_largest_size_is_refused(
    host: Host, tmp_path: Path, head: str, body: bytes
) -> None:
    error = failure(settings(host.port, files=Files(max_bytes=1000)), host.says("/x", head, body), tmp_path)
    assert (type(error), error.code) == (PermanentError, "too_large")


def test_an_encoded_body_is_kept_as_it_came(host: Host, tmp_path: Path) -> None:
    url = host.says("/x", "HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: 5", b"\x1f\x8bxyz")
    fetched = fetch(settings(host.port), url, tmp_path)
    assert Path(fetched.path).read_bytes() == b"\x1f\x8bxyz"
    assert "accept-encoding" not in host.requests[0].lower()


def test_a_server_that_never_begins_to_answer_is_given_up(host: Host, tmp_path: Path) -> None:
    host.answers["/x"] = lambda connection, _: None
    error = failure(settings(host.port), host.url("/x"), tmp_path)
    assert (type(error), error.code) == (TransientError, "timeout")


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(host: Host, tmp_path: Path) -> None:
    def drip(connection: socket.socket, _request: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(0.05)

    host.answers["/x"] = drip
    begun = time.monotonic()
    assert failure(settings(host.port), host.url("/x"), tmp_path).code == "timeout"
    assert time.monotonic() - begun < 8


def test_a_transfer_that_crawls_for_too_long_is_given_up_though_it_never_stands_still(
    host: Host, tmp_path: Path
) -> None:
    def crawl(connection: socket.socket, _request: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(400):
            connection.sendall(b"x" * 10)
            time.sleep(0.02)

    host.answers["/x"] = crawl
    config = settings(host.port, timeout_s=1, low_speed_bytes=1000, low_speed_s=600)
    error = failure(config, host.url("/x"), tmp_path)
    assert error.code == "timeout"
    assert "too long" in str(error)


def test_nobody_listening_is_a_transient_failure(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    error = failure(settings(port), f"http://127.0.0.1:{port}/x", tmp_path)
    assert (type(error), error.code) == (TransientError, "connect")


def test_a_name_that_does_not_exist_is_a_transient_failure(tmp_path: Path) -> None:
    config = settings(80, hosts=("nothing.invalid",))
    error = failure(config, "http://nothing.invalid/x", tmp_path)
    assert (type(error), error.code) == (TransientError, "dns")


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


def test_a_cancelled_transfer_ends_without_a_result_and_without_a_file(host: Host, tmp_path: Path) -> None:
    url = host.says("/x", "HTTP/1.1 200 OK\nContent-Length: 100000", BODY, then="hang")
    good = host.says("/y", "HTTP/1.1 200 OK\nContent-Length: 5", b"hello")
    transfers = Transfers(settings(host.port, concurrency=1, low_speed_s=60))
    transfers.start("hanging", url, str(tmp_path / "hanging"))
    deadline = time.monotonic() + 20
    while not (tmp_path / "hanging").exists():
        assert time.monotonic() < deadline
        assert transfers.poll(0.05) == []
    transfers.cancel("hanging")
    assert not (tmp_path / "hanging").exists()
    assert (transfers.free, transfers.running) == (1, 0)
    assert fetch_all(transfers, [good], tmp_path)[0].error is None
    transfers.close()


def test_a_disk_without_space_is_a_dependency_that_is_down(host: Host) -> None:
    url = host.says("/x", f"HTTP/1.1 200 OK\nContent-Length: {len(BODY)}", BODY)
    transfers = Transfers(settings(host.port))
    transfers.start(1, url, "/proc/nothing-can-be-made-here")
    results: list[Fetched] = []
    deadline = time.monotonic() + 20
    while not results:
        assert time.monotonic() < deadline
        results = transfers.poll(0.2)
    transfers.close()
    assert isinstance(results[0].error, DependencyError)


def test_a_poll_that_waits_is_woken(host: Host) -> None:
    transfers = Transfers(settings(host.port))
    timer = threading.Timer(0.05, transfers.wake)
    timer.start()
    begun = time.monotonic()
    assert transfers.poll(30) == []
    assert time.monotonic() - begun < 20
    timer.join()
    transfers.close()


def test_a_poll_without_transfers_waits_no_longer_than_told(host: Host) -> None:
    transfers = Transfers(settings(host.port))
    begun = time.monotonic()
    assert transfers.poll(0.05) == []
    assert 0.04 < time.monotonic() - begun < 10
    transfers.close()


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

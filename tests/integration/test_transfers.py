from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from filehost import BODY, Host, failure, fetch, fetch_all, settings

from pipelined.config.tree import Files
from pipelined.errors import DependencyError, PermanentError, RecordError, TransientError
from pipelined.fetch.transfers import Fetched, Transfers
from pipelined.local.fileserver import FileServer, expected_body, file_path


@pytest.fixture
def host() -> Iterator[Host]:
    server = Host()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


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


#: More than is kept in memory, so that there is a file before the transfer ends.
LARGE = b"%PDF-1.7 " + bytes(200_000)


def test_a_small_body_is_handed_over_in_memory_and_a_large_one_in_its_file(
    host: Host, tmp_path: Path
) -> None:
    small = host.says("/s", f"HTTP/1.1 200 OK\nContent-Length: {len(BODY)}", BODY)
    large = host.says("/l", f"HTTP/1.1 200 OK\nContent-Length: {len(LARGE)}", LARGE)
    transfers = Transfers(settings(host.port, concurrency=1))
    transfers.start("small", small, str(tmp_path / "small"))
    found = ended(transfers)
    assert (found.body, found.file, (tmp_path / "small").exists()) == (BODY, -1, False)
    transfers.start("large", large, str(tmp_path / "large"))
    found = ended(transfers)
    assert (found.body, (tmp_path / "large").read_bytes() == LARGE) == (b"", True)
    os.close(found.file)
    transfers.close()


def ended(transfers: Transfers) -> Fetched:
    """The next transfer that ends."""
    deadline = time.monotonic() + 20
    while not (results := transfers.poll(0.2)):
        assert time.monotonic() < deadline
    return results[0]


def test_a_cancelled_transfer_ends_without_a_result_and_without_a_file(host: Host, tmp_path: Path) -> None:
    url = host.says("/x", "HTTP/1.1 200 OK\nContent-Length: 1000000", LARGE, then="hang")
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
    url = host.says("/x", f"HTTP/1.1 200 OK\nContent-Length: {len(LARGE)}", LARGE)
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

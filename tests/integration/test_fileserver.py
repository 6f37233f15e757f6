from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelined.errors import UnavailableError
from pipelined.local.fileserver import FAULTS, FileServer, expected_body, file_path

SIZE = 40_000


@pytest.fixture(scope="module")
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


@pytest.fixture
def client(server: FileServer) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    yield connection
    connection.close()


def get(client: http.client.HTTPConnection, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    client.request("GET", path)
    answer = client.getresponse()
    return answer, answer.read()


@pytest.mark.parametrize(
    ("name", "content_type", "beginning"),
    [
        ("a.pdf", "application/pdf", b"%PDF-1.4"),
        ("A.PDF", "application/pdf", b"%PDF-1.4"),
        ("a.png", "image/png", b"\x89PNG"),
        ("a.jpeg", "image/jpeg", b"\xff\xd8\xff"),
        ("a.xml", "application/xml", b"<?xml"),
        ("a.zip", "application/zip", b"PK\x03\x04"),
        ("a.ESX", "application/octet-stream", b"PK\x03\x04"),
        ("a.exe", "application/x-msdownload", b"MZ"),
        ("%E8%A6%8B%E7%A9%8D%2Epdf%2E%20", "application/pdf", b"%PDF"),
        ("..%2F..%2Fpasswd", "text/plain; charset=utf-8", b"Claim note"),
    ],
)
def test_a_file_is_what_its_name_says(
    client: http.client.HTTPConnection, name: str, content_type: str, beginning: bytes
) -> None:
    path = file_path("ok", SIZE, 3, name) + "?X-Amz-Date=20260105T142230Z&X-Amz-Signature=ab"
    answer, body = get(client, path)
    assert answer.status == 200
    assert answer.getheader("Content-Type") == content_type
    assert answer.getheader("Content-Length") == str(SIZE)
    assert answer.getheader("ETag")
    assert body.startswith(beginning)
    assert body == expected_body(path)


def test_a_connection_serves_many_files(client: http.client.HTTPConnection) -> None:
    first = get(client, file_path("ok", 2_000, 0, "a.xml"))[1]
    assert client.sock is not None
    local = client.sock.getsockname()
    bodies = {first} | {get(client, file_path("ok", 2_000, seed, "a.xml"))[1] for seed in range(1, 50)}
    assert client.sock.getsockname() == local
    assert len(bodies) == 50


@pytest.mark.parametrize(
    ("fault", "status"),
    [("missing", 404), ("gone", 410), ("forbidden", 403), ("flaky", 503), ("ratelimit", 429)],
)
def test_a_refusal_keeps_the_connection(client: http.client.HTTPConnection, fault: str, status: int) -> None:
    for _ in range(3):
        answer, body = get(client, file_path(fault, SIZE, 3, "a.pdf"))
        assert answer.status == status
        assert b"<Error>" in body
        assert answer.getheader("Retry-After") == ("1" if fault == "ratelimit" else None)
    assert get(client, file_path("ok", 3_000, 3, "a.pdf"))[0].status == 200


@pytest.mark.parametrize(("fault", "status"), [("flaky-2", 503), ("ratelimit-1", 429), ("missing-3", 404)])
def test_a_fault_of_limited_number_passes(
    client: http.client.HTTPConnection, fault: str, status: int
) -> None:
    path = file_path(fault, SIZE, 4, "a.png")
    times = int(fault[-1])
    # The signature is no part of the count.
    answers = [get(client, f"{path}?sig={attempt}") for attempt in range(times + 2)]
    assert [answer.status for answer, _ in answers] == [status] * times + [200, 200]
    assert answers[-1][1] == expected_body(path)
    # Nor does another file share it.
    assert get(client, file_path(fault, SIZE, 5, "a.png"))[0].status == status


def test_a_slow_file_comes_in_pieces_and_whole(client: http.client.HTTPConnection) -> None:
    path = file_path("slow", SIZE, 3, "a.zip")
    begun = time.monotonic()
    client.request("GET", path)
    answer = client.getresponse()
    first = answer.read(SIZE // 10)
    early = time.monotonic() - begun
    body = first + answer.read()
    assert time.monotonic() - begun >= 1.4
    assert early < 1.4
    assert body == expected_body(path)
    assert get(client, file_path("ok", 3_000, 3, "a.pdf"))[0].status == 200


def test_a_cut_file_is_short_of_its_length_every_time(client: http.client.HTTPConnection) -> None:
    path = file_path("cut", SIZE, 3, "a.pdf")
    for _ in range(3):
        client.request("GET", path)
        answer = client.getresponse()
        assert answer.getheader("Content-Length") == str(SIZE)
        with pytest.raises(http.client.IncompleteRead) as short:
            answer.read()
        assert short.value.partial == expected_body(path)[: SIZE // 2]
        client.close()


def test_a_file_cut_once_comes_whole_the_second_time(client: http.client.HTTPConnection) -> None:
    path = file_path("cutonce", SIZE, 3, "a.pdf")
    client.request("GET", path)
    with pytest.raises(http.client.IncompleteRead):
        client.getresponse().read()
    client.close()
    assert get(client, path)[1] == expected_body(path)


def test_a_stalled_file_stops_in_the_middle_and_stays_open(server: FileServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    path = file_path("stall", SIZE, 3, "a.pdf")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < SIZE // 2:
            received += raw.recv(65536)
        assert received.partition(b"\r\n\r\n")[2] == expected_body(path)[: SIZE // 2]
        assert not select.select([raw], [], [], 0.3)[0]


def test_a_file_without_length_ends_with_its_connection(client: http.client.HTTPConnection) -> None:
    path = file_path("nolength", SIZE, 3, "a.jpg")
    answer, body = get(client, path)
    assert answer.getheader("Content-Length") is None
    assert answer.getheader("Connection") == "close"
    assert body == expected_body(path)


def test_a_redirect_leads_to_the_file(client: http.client.HTTPConnection) -> None:
    path = file_path("redirect", SIZE, 3, "a%20b.pdf")
    answer, _ = get(client, path)
    assert answer.status == 302
    location = answer.getheader("Location")
    assert location == file_path("ok", SIZE, 3, "a%20b.pdf")
    assert get(client, location)[1] == expected_body(path)


def test_a_redirect_may_lead_astray(client: http.client.HTTPConnection) -> None:
    answer, _ = get(client, file_path("astray", SIZE, 3, "a.pdf"))
    assert answer.status == 302
    assert answer.getheader("Location") == "http://169.254.169.254/latest/meta-data/"


@pytest.mark.parametrize(
    ("fault", "content_type"),
    [("wrongtype", "application/x-msdownload"), ("disguised", "application/octet-stream")],
)
def test_a_program_may_hide_behind_the_name_of_a_document(
    client: http.client.HTTPConnection, fault: str, content_type: str
) -> None:
    answer, body = get(client, file_path(fault, SIZE, 3, "a.pdf"))
    assert answer.status == 200
    assert answer.getheader("Content-Type") == content_type
    assert body.startswith(b"MZ")


def test_head_is_refused_like_a_url_signed_for_get(client: http.client.HTTPConnection) -> None:
    client.request("HEAD", file_path("ok", SIZE, 3, "a.pdf"))
    answer = client.getresponse()
    assert answer.status == 403
    assert answer.read() == b""
    assert get(client, file_path("ok", 3_000, 3, "a.pdf"))[0].status == 200


def test_another_method_is_refused(client: http.client.HTTPConnection) -> None:
    client.request("DELETE", file_path("ok", SIZE, 3, "a.pdf"))
    assert client.getresponse().status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a.pdf",
        "/ok/10/1",
        "/odd/10/1/a.pdf",
        "/ok/ten/1/a.pdf",
        "/ok/-1/1/a.pdf",
        "/ok/9999999999/1/a.pdf",
        "/ok/10/1/",
        "/flaky-x/10/1/a.pdf",
    ],
)
def test_a_path_of_another_layout_is_not_found(client: http.client.HTTPConnection, path: str) -> None:
    assert get(client, path)[0].status == 404
    with pytest.raises(ValueError, match="is no path of the file server"):
        expected_body(path)


def test_requests_sent_together_are_answered_in_their_order(server: FileServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    paths = [file_path("slow", 3_000, 1, "a.xml"), file_path("ok", 3_000, 2, "a.xml")]
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        first, second = (f"GET {path} HTTP/1.1\r\nHost: {host}\r\n" for path in paths)
        raw.sendall(f"{first}\r\n{second}Connection: close\r\n\r\n".encode())
        received = b""
        while data := raw.recv(65536):
            received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert rest[:3_000] == expected_body(paths[0])
    assert rest.endswith(b"\r\n\r\n" + expected_body(paths[1]))


def test_every_fault_is_described() -> None:
    assert all(expected_body(file_path(fault, 2_000, 1, "a.pdf")) and text for fault, text in FAULTS.items())


def test_a_taken_port_is_said(server: FileServer, capfd: pytest.CaptureFixture[str]) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(UnavailableError, match=f"did not start on 127.0.0.1:{port}"):
        FileServer(port=port)
    assert f"cannot listen on 127.0.0.1:{port}" in capfd.readouterr().err


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.05)
                continue
        return True
    return False


def test_the_server_is_gone_after_its_context() -> None:
    with FileServer() as running:
        pid = running.pid
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    assert not Path(f"/proc/{pid}").exists()
    running.stop()  # a second time changes nothing


def test_the_server_ends_with_an_owner_that_was_killed() -> None:
    program = (
        "import time; from pipelined.local.fileserver import FileServer\n"
        "server = FileServer(); print(server.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        pid = int(owner.stdout.readline())
        owner.kill()
    assert ended(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_announces_itself_and_ends_cleanly_on_a_signal(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "pipelined.local.fileserver", "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        url = json.loads(process.stdout.readline())["url"]
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20):
            os.kill(process.pid, number)
            assert process.wait(20) == 0


def test_the_command_ends_when_its_stdin_closes() -> None:
    command = [sys.executable, "-m", "pipelined.local.fileserver"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(20) == 0

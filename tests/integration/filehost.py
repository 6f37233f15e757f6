"""A file host of raw sockets for tests, and short ways to fetch from it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipelined.config.tree import Config, Download, Files, Urls
from pipelined.errors import RecordError
from pipelined.fetch.transfers import Fetched, Transfers

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
            elif fetched.error is None:
                Path(fetched.path).write_bytes(fetched.body)
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

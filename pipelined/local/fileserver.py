"""A file server with faults to order, for local runs and tests: plain HTTP/1.1 on one core.

A path says everything about the answer, ``/{fault}/{size}/{id}/{name}``: the file is made from its size,
its id (hex) and the extension of its name, and the fault (one of ``FAULTS``) says what goes wrong on the way.
A number behind the fault limits it to that many requests for the path, then all is fine: ``flaky-2``. So the
server keeps no state but the requests it has counted for such paths. The query is not looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from pipelined.errors import ExitCode, UnavailableError
from pipelined.local.samples import make_file

__all__ = ["FAULTS", "FileServer", "expected_body", "file_path"]

FAULTS: Final = {
    "ok": "the file",
    "missing": "404",
    "gone": "410",
    "forbidden": "403, as for a signature that is not right",
    "flaky": "503",
    "ratelimit": "429 with Retry-After: 1",
    "slow": "the file, in ten pieces over 1.5 s",
    "cut": "half of the file, then the connection is closed",
    "stall": "half of the file, then nothing more",
    "nolength": "the file without Content-Length, ended by closing the connection",
    "redirect": "302 to the same file without a fault",
    "astray": "302 to the cloud's metadata address, which nobody may follow",
    "wrongtype": "a Windows program, said to be one",
    "disguised": "a Windows program, said to be application/octet-stream",
}
_ALIASES: Final = {"cutonce": ("cut", "1")}
_PATH: Final = re.compile(r"/([a-z]+)(?:-(\d{1,9}))?/(\d{1,9})/([0-9a-f]{1,16})/([^/]+)", re.ASCII)
_PROGRAMS: Final = {"wrongtype": "application/x-msdownload", "disguised": "application/octet-stream"}
_REFUSALS: Final[dict[str, tuple[int, str, dict[str, str]]]] = {
    "missing": (404, "NoSuchKey", {}),
    "gone": (410, "Gone", {}),
    "forbidden": (403, "SignatureDoesNotMatch", {}),
    "flaky": (503, "SlowDown", {}),
    "ratelimit": (429, "TooManyRequests", {"Retry-After": "1"}),
}
# Extension → the kind of sample and its Content-Type; an ESX estimate is an archive of its own name.
_TYPES: Final = {
    "pdf": ("pdf", "application/pdf"),
    "png": ("png", "image/png"),
    "jpg": ("jpg", "image/jpeg"),
    "jpeg": ("jpg", "image/jpeg"),
    "xml": ("xml", "application/xml"),
    "zip": ("zip", "application/zip"),
    "esx": ("zip", "application/octet-stream"),
    "exe": ("exe", "application/x-msdownload"),
    "txt": ("txt", "text/plain; charset=utf-8"),
}
_SLOW_SECONDS: Final = 1.5
_SLOW_PIECES: Final = 10
_LARGEST_HEAD: Final = 65536
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0
_OWNER_CHECK_SECONDS: Final = 0.5


class _Target(NamedTuple):
    fault: str
    times: int | None  # the fault befalls this many requests; None: every one
    size: int
    seed: int
    name: str

    def body(self) -> bytes:
        kind = "exe" if self.fault in _PROGRAMS else self._type()[0]
        return make_file(kind, self.size, self.seed)

    def content_type(self) -> str:
        return _PROGRAMS.get(self.fault) or self._type()[1]

    def _type(self) -> tuple[str, str]:
        extension = unquote(self.name).rstrip(". ").rpartition(".")[2].lower()
        return _TYPES.get(extension, _TYPES["txt"])


def _target(path: str) -> _Target:
    """What a path asks for; ValueError if it is none of this server's."""
    match = _PATH.fullmatch(path)
    fault, times = (_ALIASES.get(match[1]) or (match[1], match[2])) if match else ("", None)
    if not match or fault not in FAULTS:
        raise ValueError(f"{path!r} is no path of the file server, /fault/size/id/name")
    return _Target(fault, int(times) if times else None, int(match[3]), int(match[4], 16), match[5])


def file_path(fault: str, size: int, seed: int, name: str) -> str:
    """The path of a file of ``size`` bytes: ``name`` must be percent-encoded, ``fault`` may end in ``-N``."""
    return f"/{fault}/{size}/{seed:016x}/{name}"


def expected_body(path: str) -> bytes:
    """The bytes behind a path or URL of this server, whatever its fault does to them on the way.

    ValueError if it is not one of this server's.
    """
    return _target(urlsplit(path).path).body()


class _Connection(asyncio.Protocol):
    """One client: its requests one after another, kept alive between them."""

    _transport: asyncio.Transport

    def __init__(self, requests: Counter[str]) -> None:
        self._requests = requests  # per path whose fault is limited in number
        self._buffer = bytearray()
        self._busy = False  # an answer is on its way; what arrives meanwhile waits
        self._last = False  # the answer is the last one of this connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()
        if len(self._buffer) > _LARGEST_HEAD:
            self._transport.close()

    def _next(self) -> None:
        while not self._busy and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].decode("latin-1")
            del self._buffer[: end + 4]
            self._busy = True
            self._answer(head)

    def _done(self) -> None:
        self._busy = self._last
        if self._last:
            self._transport.close()

    def _answer(self, head: str) -> None:
        line, _, headers = head.partition("\r\n")
        method, _, rest = line.partition(" ")
        path = urlsplit(rest.partition(" ")[0]).path
        self._last = "connection: close" in headers.lower()
        if method == "HEAD":
            # A URL signed for GET answers nothing else, as on S3.
            self._head("403 Forbidden", {"Content-Type": "application/xml"})
            return self._done()
        if method != "GET":
            self._last = True  # its body, if any, is not read
            return self._refuse(405, "MethodNotAllowed", {"Allow": "GET"})
        try:
            target = _target(path)
        except ValueError:
            return self._refuse(404, "NoSuchKey", {})
        if target.times is not None:
            self._requests[path] += 1
            if self._requests[path] > target.times:
                target = target._replace(fault="ok")
        return self._get(target)

    def _get(self, target: _Target) -> None:
        fault = target.fault
        if fault in _REFUSALS:
            return self._refuse(*_REFUSALS[fault])
        if fault == "redirect":
            return self._redirect(file_path("ok", target.size, target.seed, target.name))
        if fault == "astray":
            return self._redirect("http://169.254.169.254/latest/meta-data/")
        body = target.body()
        headers = {"Content-Type": target.content_type(), "ETag": f'"{len(body):x}-{target.seed:016x}"'}
        if fault == "nolength":
            self._last = True
            self._head("200 OK", headers, length=None)
        else:
            self._head("200 OK", headers, len(body))
        if fault == "slow":
            return self._drip(body, 0)
        if fault in ("cut", "stall"):
            self._transport.write(body[: len(body) // 2])
            if fault == "stall":
                return None  # busy until the client goes
            self._last = True
        else:
            self._transport.write(body)
        return self._done()

    def _drip(self, body: bytes, piece: int) -> None:
        if self._transport.is_closing():
            return
        step = -(-len(body) // _SLOW_PIECES)
        self._transport.write(body[piece * step : (piece + 1) * step])
        if piece + 1 == _SLOW_PIECES:
            self._done()
            self._next()
        else:
            wait = _SLOW_SECONDS / (_SLOW_PIECES - 1)
            asyncio.get_running_loop().call_later(wait, self._drip, body, piece + 1)

    def _redirect(self, location: str) -> None:
        self._head("302 Found", {"Location": location})
        self._done()

    def _refuse(self, status: int, code: str, headers: dict[str, str]) -> None:
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'.encode()
        self._head(f"{status} {code}", {"Content-Type": "application/xml", **headers}, len(body))
        self._transport.write(body)
        self._done()

    def _head(self, status: str, headers: dict[str, str], length: int | None = 0) -> None:
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        if self._last:
            lines.append("Connection: close")
        self._transport.write("\r\n".join((*lines, "\r\n")).encode("latin-1"))


class FileServer:
    """A file server in a process of its own, which ends with its owner. A context manager.

    ``port`` 0 takes a free one. UnavailableError if it cannot be started.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        root = str(Path(__file__).parents[2])  # for a checkout that is not installed
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "--host", host, "--port", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # a Ctrl-C in the owner's terminal is the owner's to handle
        )
        self.url = self._announced(host, port)

    def _announced(self, host: str, port: int) -> str:
        """Where it can be reached, as its first line says: http://host:port."""
        assert self._process.stdout
        line = b""
        if select.select([self._process.stdout], [], [], _START_SECONDS)[0]:
            line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise UnavailableError(
                f"the local file server did not start on {host}:{port}; what it wrote to stderr says why. "
                "Choose a free port, or 0 for any."
            )
        return str(json.loads(line)["url"])

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def stop(self) -> None:
        """End the server, if it still runs; it is gone when this returns."""
        with self._process as process:  # closes its pipes, which ends it, and waits
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()

    def __enter__(self) -> FileServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _watch_owner(stop: Callable[[], object]) -> None:
    """Return, having called ``stop``, when stdin closes or the process that started this one is gone."""
    owner = os.getppid()
    # The parent is watched too: a process the owner forked may hold the other end of the pipe.
    while os.getppid() == owner:
        if select.select([0], [], [], _OWNER_CHECK_SECONDS)[0] and not os.read(0, 4096):
            break
    stop()


async def _serve(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    requests: Counter[str] = Counter()
    server = await loop.create_server(lambda: _Connection(requests), host, port, backlog=1024)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    watch = threading.Thread(
        target=_watch_owner, args=(lambda: loop.call_soon_threadsafe(ended.set),), daemon=True
    )
    watch.start()
    taken = server.sockets[0].getsockname()[1]
    sys.stdout.write(json.dumps({"url": f"http://{host}:{taken}"}) + "\n")
    sys.stdout.flush()
    await ended.wait()


def main() -> int:
    """Serve until stdin closes, TERM or INT; the first line of stdout is ``{"url": ...}``."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m pipelined.local.fileserver")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve(arguments.host, arguments.port))
    except OSError as error:
        sys.stderr.write(f"the file server cannot listen on {arguments.host}:{arguments.port}: {error}\n")
        return ExitCode.UNAVAILABLE
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())

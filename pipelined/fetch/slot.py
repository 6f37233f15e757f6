"""One download in progress: a reusable libcurl handle, the file it writes, and the addresses it may use."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import socket
import ssl
import time
from collections.abc import Hashable
from typing import Any

import pycurl

from pipelined import __version__
from pipelined.config.tree import Config
from pipelined.errors import RecordError
from pipelined.fetch.addresses import Network, is_allowed
from pipelined.fetch.answers import Answer, judge_code, read_answer
from pipelined.fetch.filetypes import HEAD_BYTES
from pipelined.fetch.policy import wire_url
from pipelined.storage.disk import create, disk_error, write_all

__all__ = ["Slot"]

_BUFFER = 256 * 1024
#: A body up to this size stays in memory: it is written by the thread that places it.
SPOOL_BYTES = 64 * 1024
#: Bytes of a body nobody wants (an error page, a redirect) that are read to keep the connection.
_DISCARD_LIMIT = 64 * 1024


class Slot:
    """One reusable handle and the state of the transfer it is busy with."""

    def __init__(self, config: Config, allowed: tuple[Network, ...]) -> None:
        self._allowed = allowed
        self._max_bytes = config.files.max_bytes
        self.lines: list[bytes] = []
        self.file = -1
        self.curl = _handle(config)
        self.curl.setopt(pycurl.HEADERFUNCTION, self.lines.append)
        self.curl.setopt(pycurl.WRITEFUNCTION, self._write)
        self.curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)

    def begin(self, key: Hashable, path: str) -> None:
        """Forget the last transfer and get ready for the next."""
        self.key = key
        self.path = path
        self.begun = time.monotonic()
        self.error: RecordError | None = None
        self.hash = hashlib.sha256()
        self.head = b""
        self.body: list[bytes] = []
        self.size = 0
        self.redirects = 0

    def hop(self, url: str) -> None:
        """Get ready for one request of the transfer."""
        self.lines.clear()
        self.answer: Answer | None = None
        self.discarded = 0
        self.refused: str | None = None
        self.opened = False
        self.url = url
        self.curl.setopt(pycurl.URL, wire_url(url))

    def open_file(self) -> None:
        """Make the file. Raises OSError."""
        self.file = create(self.path)

    def drop_file(self) -> None:
        """Remove what has been received so far."""
        self.body = []
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)  # noqa: PTH108 - paths are text here: a Path costs 20 µs a file

    def _write(self, data: bytes) -> int | None:
        """Libcurl's write callback: None takes the data, -1 ends the transfer."""
        if self.answer is None:
            self.answer = read_answer(self.lines)
        if self.answer.status != 200:
            self.discarded += len(data)
            return None if self.discarded <= _DISCARD_LIMIT else -1
        self.size += len(data)
        if self.size > self._max_bytes:
            self.error = judge_code(
                pycurl.E_FILESIZE_EXCEEDED, "", max_bytes=self._max_bytes, http_status=200
            )
            return -1
        if len(self.head) < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - len(self.head)]
        self.hash.update(data)
        self.body.append(data)
        if self.size > SPOOL_BYTES:
            try:
                self._spill()
            except OSError as error:
                self.error = disk_error(error, self.path)
                return -1
        return None

    def _spill(self) -> None:
        """Write what is in memory to the file, which is made where it is missing. Raises OSError."""
        if self.file < 0:
            self.open_file()
        for data in self.body:
            write_all(self.file, data)
        self.body.clear()

    def _open_socket(self, _purpose: int, address: tuple[int, int, int, Any]) -> Any:
        """Libcurl's socket callback, with the very address that is about to be connected to."""
        family, kind, protocol, where = address
        if family not in (socket.AF_INET, socket.AF_INET6) or not is_allowed(where[0], self._allowed):
            self.refused = str(where[0])
            return pycurl.SOCKET_BAD
        self.opened = True
        return socket.socket(family, kind, protocol)


def _handle(config: Config) -> Any:
    """A libcurl handle with every option that does not change from one transfer to the next."""
    download = config.download
    curl = pycurl.Curl()
    protocols = pycurl.PROTO_HTTPS | (pycurl.PROTO_HTTP if config.urls.allow_http else 0)
    paths = ssl.get_default_verify_paths()  # the system's; a bundled libcurl looks where its builder had them
    if paths.cafile:
        curl.setopt(pycurl.CAINFO, paths.cafile)
    elif paths.capath:
        curl.unsetopt(pycurl.CAINFO)
        curl.setopt(pycurl.CAPATH, paths.capath)
    for option, value in (
        (pycurl.NOSIGNAL, 1),
        (pycurl.PROTOCOLS, protocols),
        (
            pycurl.HTTP_VERSION,
            pycurl.CURL_HTTP_VERSION_1_1,
        ),  # one connection a transfer, each with its limits
        (pycurl.PROXY, ""),
        (pycurl.NOPROXY, "*"),
        (pycurl.FOLLOWLOCATION, 0),
        (pycurl.PATH_AS_IS, 1),  # a signature covers the path as it is written
        (pycurl.HTTP_CONTENT_DECODING, 0),
        (pycurl.USERAGENT, f"pipelined/{__version__}"),
        (pycurl.BUFFERSIZE, _BUFFER),
        (pycurl.TCP_KEEPALIVE, 1),
        (pycurl.CONNECTTIMEOUT_MS, int(download.connect_timeout_s * 1000)),
        (pycurl.LOW_SPEED_LIMIT, download.low_speed_bytes),
        (pycurl.LOW_SPEED_TIME, max(1, math.ceil(download.low_speed_s))),
        (pycurl.MAXFILESIZE_LARGE, config.files.max_bytes),
    ):
        curl.setopt(option, value)
    return curl

"""A file server that costs next to nothing: the same ready-made answer to every request.

The package's own server makes every file anew and can order faults; beside a download worker on two cores it
would be what is measured. A path that begins with ``/slow/`` is answered in pieces, over a given time.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.ground import bare
from pipelined.local.samples import make_file

__all__ = ["SLOW_BYTES", "serving"]

#: A slow file is large enough not to crawl below ``download.low_speed_bytes`` for a minute.
SLOW_BYTES = 300_000
_PIECES = 100


@contextmanager
def serving(size: int, slow_s: float = 0.0) -> Iterator[str]:
    """A server in a process of its own; its URL. Every path is a PDF of ``size`` bytes.

    Those below ``/slow/`` have ``SLOW_BYTES`` and take ``slow_s`` seconds.
    """
    with bare("fileserver", size, slow_s) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


class _Connection(asyncio.Protocol):
    answer = slow_answer = b""
    slow_s = 0.0
    _transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        requests = (self._rest + data).split(b"\r\n\r\n")
        self._rest = requests.pop()
        for request in requests:  # one at a time: nobody sends the next before the answer
            if request.startswith(b"GET /slow/"):
                self._drip(0)
            else:
                self._transport.write(self.answer)

    def _drip(self, piece: int) -> None:
        step = -(-len(self.slow_answer) // _PIECES)
        part = self.slow_answer[piece * step : (piece + 1) * step]
        if part and not self._transport.is_closing():
            self._transport.write(part)
            asyncio.get_running_loop().call_later(self.slow_s / _PIECES, self._drip, piece + 1)


def _answer(size: int) -> bytes:
    body = make_file("pdf", size, 1)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _serve(size: int, slow_s: float) -> None:
    _Connection.answer = _answer(size)
    _Connection.slow_answer = _answer(SLOW_BYTES)
    _Connection.slow_s = slow_s
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))

"""A file server that costs next to nothing: the same ready-made answer to every request.

The package's own server makes every file anew and can order faults; beside a download worker on two cores it
would be what is measured.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.ground import bare
from pipelined.local.samples import make_file

__all__ = ["serving"]


@contextmanager
def serving(size: int) -> Iterator[str]:
    """A server in a process of its own; its URL. Every path is a PDF of ``size`` bytes."""
    with bare("fileserver", size) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


class _Connection(asyncio.Protocol):
    answer = b""
    _transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        requests = (self._rest + data).split(b"\r\n\r\n")
        self._rest = requests.pop()
        self._transport.write(self.answer * len(requests))


async def _serve(size: int) -> None:
    body = make_file("pdf", size, 1)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\nContent-Length: {len(body)}\r\n\r\n"
    _Connection.answer = head.encode() + body
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))

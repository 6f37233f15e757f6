"""One end of a cable: run as a script by ``cable.py``, never imported."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(end: str, places: dict[int, Path]) -> None:
    servers = []
    for port, path in places.items():

        async def near(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = port) -> None:
            await _join(reader, writer, await asyncio.open_connection("127.0.0.1", port))

        async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: Path = path) -> None:
            await _join(reader, writer, await asyncio.open_unix_connection(str(path)))

        if end == "near":
            servers.append(await asyncio.start_unix_server(near, str(path)))
        else:
            servers.append(await asyncio.start_server(far, "127.0.0.1", port))
            path.with_suffix(".up").touch()
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    other: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    await asyncio.gather(_carry(reader, other[1]), _carry(other[0], writer))


if __name__ == "__main__":
    if sys.argv[1] == "far":
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    named = (argument.partition("=") for argument in sys.argv[2:])
    asyncio.run(_serve(sys.argv[1], {int(port): Path(path) for port, _, path in named}))

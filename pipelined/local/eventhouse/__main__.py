"""``python -m pipelined.local.eventhouse``: serve until stdin closes or SIGTERM or SIGINT comes.

The first line of stdout is ``{"url": ..., "database": ..., "pid": ...}``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import tempfile
import threading
from pathlib import Path

import msgspec

from pipelined.errors import ExitCode, UnavailableError
from pipelined.local.eventhouse.server import Server
from pipelined.local.eventhouse.service import Service
from pipelined.local.eventhouse.settings import Settings
from pipelined.local.ports import draw_ports

_OWNER_CHECK_S = 0.5
_PORT_ATTEMPTS = 5


def _signals() -> int:
    """From now on SIGTERM and SIGINT can be read here; the file descriptor."""
    ended, ending = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(ending, b"."))
    return ended


def _wait_for_end(signals: int) -> None:
    """Return when stdin closes, a signal comes or the process that started this one is gone."""
    owner = os.getppid()
    # The parent is watched too: a process the owner forked may hold the other end of the pipe.
    while os.getppid() == owner:
        ready = select.select([0, signals], [], [], _OWNER_CHECK_S)[0]
        if signals in ready or (0 in ready and not os.read(0, 4096)):
            return


def _listening(service: Service, port: int) -> Server:
    """A server on the port, or on a free one that is still free for it after a restart (see ports.py)."""
    if not port:
        for _ in range(_PORT_ATTEMPTS):
            with contextlib.suppress(OSError):
                return Server(service, draw_ports(1)[0].plain)
    return Server(service, port)


def _serve(directory: Path, port: int, database: str, settings: Settings) -> int:
    signals = _signals()
    try:
        service = Service(directory, database, settings)
    except UnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return ExitCode.UNAVAILABLE
    try:
        server = _listening(service, port)
    except OSError as error:
        service.close()
        sys.stderr.write(f"the local Eventhouse cannot listen on 127.0.0.1:{port}: {error}\n")
        return ExitCode.UNAVAILABLE
    with server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        about = {"url": server.url, "database": database, "pid": os.getpid()}
        sys.stdout.write(json.dumps(about) + "\n")
        sys.stdout.flush()
        _wait_for_end(signals)
        server.shutdown()
    service.faults.clear()
    service.close()
    return ExitCode.OK


def main(arguments: list[str] | None = None) -> int:
    """Serve a folder; without one, a temporary folder that goes with the server."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m pipelined.local.eventhouse")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--database", default="events")
    parser.add_argument("--settings", default="{}", help="settings as JSON")
    options = parser.parse_args(arguments)
    try:
        settings = msgspec.json.decode(options.settings, type=Settings)
    except msgspec.DecodeError as error:
        parser.error(f"--settings: {error}")
    if options.directory is not None:
        return _serve(options.directory.absolute(), options.port, options.database, settings)
    with tempfile.TemporaryDirectory(prefix="eventhouse-") as folder:
        return _serve(Path(folder), options.port, options.database, settings)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the engine's module tells at length of what it did not free, to whoever ends in order

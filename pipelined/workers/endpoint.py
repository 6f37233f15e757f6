"""The HTTP endpoint: metrics, health and status, from shared memory alone."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client.exposition import choose_encoder

from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.stats.disks import DiskCollector
from pipelined.stats.health import alive, ready
from pipelined.stats.rendering import registry_of
from pipelined.stats.slots import Child, SharedStats
from pipelined.stats.status import document

__all__ = ["serve"]

_logger = logging.getLogger("pipelined.endpoint")

Answer = tuple[int, str, bytes]


#: How long what is being answered is waited for, at the end.
_LAST_ANSWERS_S = 0.3


def serve(
    config: Config,
    stats: SharedStats,
    slot: Child,
    should_stop: Callable[[], bool],
    listening: socket.socket | None = None,
) -> None:
    """Answer on ``endpoint.host:port`` until told to stop; UnavailableError where the port is taken.

    ``listening`` is a socket of this address that somebody else made, and that outlives this worker.
    """
    place = (config.endpoint.host, config.endpoint.port)
    registry = registry_of(stats)
    registry.register(DiskCollector(config))

    def metrics(accept: str) -> Answer:
        encoder, kind = choose_encoder(accept)
        return 200, kind, encoder(registry)

    routes: dict[str, Callable[[str], Answer]] = {
        "/metrics": metrics,
        "/livez": lambda _: _health(alive(config, stats)),
        "/readyz": lambda _: _health(ready(config, stats)),
        "/status": lambda _: (
            200,
            "application/json",
            json.dumps(document(stats, pid=os.getppid()), indent=1).encode(),
        ),
    }
    try:
        server = _Server(place, routes, listening)
    except OSError as error:
        msg = (
            f"the endpoint cannot listen on {place[0]}:{place[1]}: {error.strerror}; "
            "set endpoint.port to a free port"
        )
        raise UnavailableError(msg) from error
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
        thread.start()
        port = server.server_address[1]
        slot.publish(int(port))
        slot.ready()
        _logger.info("listening on http://%s:%d/", place[0], port)
        while not should_stop():
            slot.beat()
            time.sleep(0.2)
        server.shutdown()
        server.finish(_LAST_ANSWERS_S)


def _health(failing: list[str]) -> Answer:
    """200 and "ok", or 503 and what fails, a line each."""
    if failing:
        return 503, "text/plain; charset=utf-8", ("\n".join(failing) + "\n").encode()
    return 200, "text/plain; charset=utf-8", b"ok\n"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self,
        place: tuple[str, int],
        routes: dict[str, Callable[[str], Answer]],
        listening: socket.socket | None,
    ) -> None:
        self._unanswered: set[Any] = set()
        super().__init__(place, _handler(routes, self._unanswered), bind_and_activate=listening is None)
        if listening is not None:
            self.socket.close()
            self.socket = listening
            self.server_address = listening.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """From here on nobody else can answer who asks."""
        self._unanswered.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """All requests of one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._unanswered.discard(request)

    def finish(self, patience: float) -> None:
        """Wait until all have their answers, no longer than ``patience`` seconds."""
        deadline = time.monotonic() + patience
        while self._unanswered and time.monotonic() < deadline:
            time.sleep(0.01)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news; anything else is logged."""
        _logger.debug("request from %s failed: %s", client_address, request, exc_info=True)


def _handler(
    routes: dict[str, Callable[[str], Answer]], unanswered: set[Any]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "pipelined"
        timeout = 30

        def do_GET(self) -> None:
            unanswered.add(self.connection)
            route = routes.get(self.path.partition("?")[0])
            if route is None:
                paths = " ".join(routes)
                status, kind, body = 404, "text/plain", f"not here; there is {paths}\n".encode()
            else:
                status, kind, body = route(self.headers.get("Accept") or "")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            unanswered.discard(self.connection)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            _logger.debug(format, *args, extra={"event": "endpoint.request"})

    return Handler

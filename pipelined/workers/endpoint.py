"""The HTTP endpoint: metrics, health and status, from shared memory alone."""

from __future__ import annotations

import json
import logging
import os
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


def serve(config: Config, stats: SharedStats, slot: Child, should_stop: Callable[[], bool]) -> None:
    """Answer on ``endpoint.host:port`` until told to stop; UnavailableError where the port is taken."""
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
        server = _Server(place, _handler(routes))
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


def _health(failing: list[str]) -> Answer:
    """200 and "ok", or 503 and what fails, a line each."""
    if failing:
        return 503, "text/plain; charset=utf-8", ("\n".join(failing) + "\n").encode()
    return 200, "text/plain; charset=utf-8", b"ok\n"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news; anything else is logged."""
        _logger.debug("request from %s failed: %s", client_address, request, exc_info=True)


def _handler(routes: dict[str, Callable[[str], Answer]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "pipelined"
        timeout = 30

        def do_GET(self) -> None:
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

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            _logger.debug(format, *args, extra={"event": "endpoint.request"})

    return Handler

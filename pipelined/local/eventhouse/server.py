"""The local Eventhouse on HTTP: the paths of the Kusto protocol, and ``/local/`` for its tests."""

from __future__ import annotations

import json
import logging
import select
import socket
import socketserver
import struct
import time
from http.server import BaseHTTPRequestHandler
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import duckdb
import msgspec

from pipelined.local.eventhouse.answers import Result, v1, v2
from pipelined.local.eventhouse.faults import Fault, refusal
from pipelined.local.eventhouse.refusals import RefusedError, limits_error
from pipelined.local.eventhouse.requests import Request
from pipelined.local.eventhouse.service import Service

__all__ = ["Server"]

QUERY, MANAGE, METADATA = "/v2/rest/query", "/v1/rest/mgmt", "/v1/rest/auth/metadata"
STREAM = "/v1/rest/ingest/"
ADMIN = "/local/"
_JSON: Final = "application/json; charset=utf-8"
_PLACEMENTS: Final = {"error-in-rows": "rows", "error-at-end": "end", "partial": "deferred"}
_LOOK_S: Final = 0.1

_log = logging.getLogger("pipelined.local")


class Server(socketserver.ThreadingTCPServer):
    """Listens on the loopback interface; ``port`` 0 takes a free one. OSError if it cannot."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, service: Service, port: int = 0) -> None:
        self.service = service
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """http://host:port, for clients."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    """The requests of one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "Kestrel"
    disable_nagle_algorithm = True
    _fault: Fault | None

    def do_GET(self) -> None:
        """Metadata, and what the tests ask."""
        self._handle(b"")

    def do_DELETE(self) -> None:
        """For the tests only."""
        self._handle(b"")

    def do_POST(self) -> None:
        """Queries, commands, rows, and what the tests order."""
        self._handle(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _handle(self, body: bytes) -> None:
        url = urlsplit(self.path)
        self._request_id = self.headers.get("x-ms-client-request-id", "")
        try:
            if url.path.startswith(ADMIN):
                told = {name: values[0] for name, values in parse_qs(url.query).items()}
                return self._send_json(200, self._admin(url.path.removeprefix(ADMIN), told, body))
            self._serve(url.path, parse_qs(url.query), body)
        except RefusedError as error:
            self._send_json(error.status, error.body(self._request_id))
        except duckdb.Error as error:
            self._send_json(400, RefusedError.bad_request(str(error)).body(self._request_id))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client went
        return None

    def _serve(self, path: str, told: dict[str, list[str]], body: bytes) -> None:
        service = self.server.service
        endpoint = _endpoint(self.command, path)
        headers = dict(self.headers.items())
        if endpoint in ("query", "mgmt"):
            request = Request.read(endpoint, headers, body)
        else:
            request = Request(endpoint, text=unquote(path.rpartition("/")[2]))
            request.headers = {name.lower(): value for name, value in headers.items()}
        self._fault = service.faults.take(endpoint, request.text)
        self._note(request)
        if self._fault and self._strike(self._fault):
            return
        if endpoint == "metadata":
            self._send_json(200, service.metadata())
        elif not endpoint:
            self._send(404, b"", {})
        elif not service.admit(self.headers.get("Authorization")):
            self._send(401, b"", {"WWW-Authenticate": f'Bearer authorization_uri="{_login(service)}"'})
        elif endpoint == "query":
            self._send_rows(service.query(request))
        elif endpoint == "mgmt":
            self._send(200, v1(service.command(request)), {"Content-Type": _JSON})
        else:
            _, database, table = path.removeprefix("/v1/rest/").split("/", 2)
            kind = told.get("streamFormat", ["csv"])[0]
            result = service.stream(request, unquote(database), unquote(table), kind, body)
            self._send(200, v1(result), {"Content-Type": _JSON})

    def _note(self, request: Request) -> None:
        """Keep what was asked."""
        self.server.service.requests.append(
            {
                "endpoint": request.endpoint,
                "database": request.database,
                "text": request.text,
                "options": request.options,
                "parameters": request.parameters,
                "headers": request.headers,
                "fault": self._fault.kind if self._fault else None,
                "connection": self.client_address[1],
            }
        )

    def _strike(self, fault: Fault) -> bool:
        """What a fault does before or in place of an answer; whether that was all."""
        if fault.kind == "hang":
            self._wait(fault.seconds or None)
            return self._drop()
        if fault.kind != "slow":
            self._wait(fault.seconds)
        if fault.kind in ("close", "reset"):
            return self._drop(reset=fault.kind == "reset")
        if fault.kind == "reset-after-head":
            self._head(200, {"Content-Type": _JSON, "Transfer-Encoding": "chunked"})
            time.sleep(_LOOK_S)  # for the head to arrive ahead of the reset
            return self._drop(reset=True)
        if answer := refusal(fault, self._request_id):
            status, headers, body = answer
            self._send(status, body, headers)
            return True
        return False

    def _wait(self, seconds: float | None) -> None:
        """Until the time is over (None: never), the faults are cleared, or the client is gone."""
        cleared = self.server.service.faults.cleared
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            left = _LOOK_S if deadline is None else min(_LOOK_S, deadline - time.monotonic())
            if cleared.wait(max(left, 0)) or self._client_left():
                return

    def _client_left(self) -> bool:
        ready = select.select([self.connection], [], [], 0)[0]
        return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)

    def _drop(self, *, reset: bool = False) -> bool:
        """Close the connection as it is; with a reset instead of an orderly end."""
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()  # for good when the handler closes its side
        self.close_connection = True
        return True

    def _send_rows(self, result: Result) -> None:
        """A result in chunks, as far as the fault lets it through."""
        fault = self._fault
        kind = fault.kind if fault else ""
        if fault and kind in ("cut", "short", *_PLACEMENTS):
            result.rows = result.rows[: fault.rows]
        if fault and kind in _PLACEMENTS:
            result.error, result.placement = limits_error(fault.text, self._request_id), _PLACEMENTS[kind]
        pieces = (
            list(v2(result, self._request_id, pieces=1)) if kind == "slow" else v2(result, self._request_id)
        )
        self._head(200, {"Content-Type": _JSON, "Transfer-Encoding": "chunked"})
        held = b""
        for piece in pieces:
            if held:
                self._chunk(held)
                if fault and kind == "slow":
                    self._wait(fault.seconds)
            held = piece
        if kind in ("cut", "short"):  # what is held is the end
            if kind == "short":
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True
            return
        self._chunk(held)
        self.wfile.write(b"0\r\n\r\n")
        if kind == "close-idle":
            self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _send_json(self, status: int, body: object) -> None:
        self._send(status, msgspec.json.encode(body), {"Content-Type": _JSON})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, {**headers, "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "x-ms-client-request-id": self._request_id}.items():
            self.send_header(name, value)
        self.end_headers()

    def _admin(self, what: str, told: dict[str, str], body: bytes) -> object:
        """What tests order and ask."""
        service = self.server.service
        order = (self.command, what)
        if order == ("POST", "ingest"):
            given = {name: json.loads(told[name]) for name in ("ingested", "delay", "lag") if name in told}
            return {"batch": service.take(told["table"], body, **given)}
        try:
            values: Any = json.loads(body) if body else {}
            if order == ("POST", "faults"):
                service.faults.order(msgspec.convert(values, Fault))
        except ValueError as error:  # msgspec.ValidationError is one
            raise RefusedError.bad_request(str(error)) from error
        if order == ("DELETE", "faults"):
            service.faults.clear()
        elif order == ("GET", "requests"):
            return list(service.requests)
        elif order == ("DELETE", "requests"):
            service.requests.clear()
        elif order == ("POST", "settings"):
            return service.change(values)
        elif order == ("POST", "reveal"):
            service.batches.reveal(values.get("batch"))
        elif order == ("POST", "seal"):
            service.batches.seal(values.get("batch"))
        elif order == ("POST", "restart-cursors"):
            service.batches.restart_cursors()
        elif order != ("POST", "faults"):
            raise RefusedError.bad_request(f"the local Eventhouse has no {self.command} {ADMIN}{what}")
        return {}

    def log_message(self, format: str, *values: object) -> None:  # noqa: A002 - the name the base class gives it
        """Requests are kept for tests, and are no news for a log."""
        _log.debug(format, *values, extra={"event": "dev.request"})


def _endpoint(method: str, path: str) -> str:
    if method == "POST" and path.startswith(STREAM) and path.count("/") == 5:
        return "ingest"
    return {("POST", QUERY): "query", ("POST", MANAGE): "mgmt", ("GET", METADATA): "metadata"}.get(
        (method, path), ""
    )


def _login(service: Service) -> str:
    return service.settings.login_endpoint

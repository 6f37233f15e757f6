"""The endpoint's listening socket, in the hands of the parent: a request waits where nobody answers yet."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket

from pipelined.config.tree import Config
from pipelined.supervisor.store import ENDPOINT, Store

__all__ = ["Listener"]

log = logging.getLogger("pipelined.supervisor")

_TYPE = "endpoint"
#: How many requests may wait for a worker.
_BACKLOG = 128


class Listener:
    """A socket that listens on ``endpoint.host`` and ``endpoint.port``, made before the workers are.

    It is taken over from the daemon before, where systemd kept it, and kept for the next one: with it those
    who asked meanwhile. A worker that has none opens its own, and says what is wrong where it cannot: so it
    is without systemd, for a host that is no IPv4 address, for a port that is taken, and after a reload that
    moved the endpoint. ``runs`` says whether this daemon may have an endpoint at all.
    """

    def __init__(self, store: Store, config: Config, *, runs: bool = True) -> None:
        self._store = store
        self._runs = runs
        self._socket = self._kept(config) if self._wanted(config) else None
        if self._socket is None:
            store.drop(ENDPOINT)
            if store.there and self._wanted(config):
                self._socket = _opened(config)
            if self._socket is not None:
                store.keep(ENDPOINT, self._socket.fileno())

    def claim(self, config: Config, worker: str) -> socket.socket | None:
        """In a worker just forked: the socket, listening, if it is the endpoint and this its address."""
        if self._socket is not None and worker == _TYPE:
            if _fits(self._socket, config):
                try:
                    self._socket.listen(_BACKLOG)  # ``shut`` may have been called
                    return self._socket.dup()
                except OSError as error:
                    log.warning("the endpoint opens a socket of its own, the one it had fails: %s", error)
            self.shut()  # it may be in the way of the one that this worker opens
        self._close()
        return None

    def shut(self) -> None:
        """Nobody will answer: have who waits told, and who asks refused, until the next ``claim``."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it is shut already
                self._socket.shutdown(socket.SHUT_RDWR)

    def adopt(self, config: Config) -> None:
        """The daemon runs on ``config`` from now on: an endpoint that is elsewhere has its own socket."""
        if self._socket is not None and not (self._wanted(config) and _fits(self._socket, config)):
            self._close()
            self._store.drop(ENDPOINT)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _wanted(self, config: Config) -> bool:
        return self._runs and config.worker(_TYPE).processes > 0

    def _kept(self, config: Config) -> socket.socket | None:
        fd = self._store.take(ENDPOINT)
        if fd is None:
            return None
        try:
            found = socket.socket(fileno=fd)
        except OSError as error:
            os.close(fd)
            why = str(error)
        else:
            try:
                if _fits(found, config):
                    found.setblocking(False)
                    found.listen(_BACKLOG)
                    log.info("the endpoint goes on listening on %s:%d", *found.getsockname())
                    return found
                why = "it is none of this address"
            except OSError as error:
                why = str(error)
            found.close()
        log.info("the endpoint's socket of the daemon before is not taken over: %s", why)
        return None


def _address(config: Config) -> str | None:
    """Where to listen, without asking anybody; None where the host is a name or no IPv4 address."""
    host = config.endpoint.host
    try:
        return str(ipaddress.IPv4Address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        return None


def _fits(found: socket.socket, config: Config) -> bool:
    if (found.family, found.type) != (socket.AF_INET, socket.SOCK_STREAM):
        return False
    host, port = found.getsockname()
    return host == _address(config) and config.endpoint.port in {0, port}


def _opened(config: Config) -> socket.socket | None:
    """A new one; None where it cannot be had, which the worker then tells."""
    host = _address(config)
    if host is None:
        return None
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, config.endpoint.port))
        made.setblocking(False)
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        return None
    return made

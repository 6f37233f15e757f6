"""Something between a client and a port of this machine: it can hold back, cut and forget connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

_CHUNK = 65536


class Proxy:
    """Forwards connections to ``port`` to ``target`` on 127.0.0.1, which may be set later."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.target = 0
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._frozen: set[socket.socket] = set()
        self._refusing = False
        #: Connections made so far.
        self.made = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End all connections there are; new ones work."""
        with self._lock:
            gone, self._open = self._open, []
        for end in gone:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def freeze(self) -> None:
        """Nothing comes over the connections there are any more, and nobody is told; new ones work."""
        with self._lock:
            self._frozen.update(self._open)

    def refuse(self, on: bool = True) -> None:
        """End each new connection at once, and those there are; or take them again."""
        self._refusing = on
        if on:
            self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._refusing:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.target))
                self.made += 1
                with self._lock:
                    self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if source not in self._frozen:
                    sink.sendall(data)
            if source not in self._frozen:
                sink.shutdown(socket.SHUT_WR)

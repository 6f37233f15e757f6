"""The control socket: requests of operators, served in the supervisor's own loop and never blocking it."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from pipelined.errors import AlreadyRunningError, UnavailableError, UsageError
from pipelined.supervisor.protocol import MOST_REQUEST, address, pack, socket_path, unpack
from pipelined.supervisor.timers import Timers

__all__ = ["Control", "Peer"]

log = logging.getLogger("pipelined.supervisor")

_IDLE_S = 5.0
_MOST_CONNECTIONS = 64
#: While no more fit, one that says nothing whole for so long makes room.
_CROWDED_S = 1.0
#: What a peer may still send after its last reply: a reply to one that is cut off while it sends is lost.
_MOST_IGNORED = 64 * 1024 * 1024
_CHUNK = 65536
_MOST_WAITING = 128
_SO_PEERGROUPS = 59  # Linux 4.13; the socket module has no name for it
_GROUPS_BYTES = 1024  # the most that getsockopt() takes: 256 groups


class Peer(NamedTuple):
    """Who is at the other end, as the kernel says."""

    pid: int
    uid: int
    gid: int


class Control:
    """Listens on ``control.sock`` in the runtime folder, for root, the daemon's user and its group.

    ``answer`` gets each request, with who asks, and returns the reply; a UsageError of it is the reply's
    error. A connection may send many requests; they are answered one at a turn of the loop, so that nobody
    who asks much holds up the others. One that says nothing whole for 5 s is told so and closed, sooner
    while many wait.
    """

    def __init__(
        self,
        runtime_dir: str,
        selector: selectors.BaseSelector,
        timers: Timers,
        answer: Callable[[dict[str, Any], Peer], dict[str, Any]],
    ) -> None:
        self.path = socket_path(runtime_dir)
        self.selector = selector
        self.timers = timers
        self.answer = answer
        self.connections: set[_Connection] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._inode = 0
        self._listening = False

    def open(self) -> None:
        """Listen. Raises AlreadyRunningError where somebody answers on that path already."""
        listener = self._listener
        listener.setblocking(False)
        try:
            if not self.path.parent.is_dir():
                self.path.parent.mkdir(mode=0o750, parents=True)
            self._take_over()
            # Nobody may connect before the mode is right, so it is right from the start.
            mask = os.umask(0o117)
            try:
                with address(self.path) as where:
                    listener.bind(where)
            finally:
                os.umask(mask)
            self._inode = self.path.stat().st_ino
        except OSError as error:
            raise UnavailableError(
                f"the control socket {self.path} cannot be made: {error.strerror}; create its folder for "
                f"this user, or set runtime_dir to one that is writable"
            ) from error
        listener.listen(_MOST_WAITING)
        self.listen()

    def _take_over(self) -> None:
        """Remove the socket that a killed daemon left behind, but never that of a living one."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, address(self.path) as where:
            probe.setblocking(False)
            try:
                probe.connect(where)
            except FileNotFoundError:
                return
            except ConnectionRefusedError:
                if self.path.is_socket():
                    self.path.unlink()
                return
            except BlockingIOError:
                pass  # its queue is full: somebody lives there
        raise AlreadyRunningError(
            f"another daemon answers on {self.path}; give this one its own runtime_dir, as well as its "
            f"own state_dir"
        )

    def close(self) -> None:
        """Close all connections and remove the socket, if it is still ours."""
        for connection in list(self.connections):
            connection.close()
        self._stop_listening()
        with contextlib.suppress(FileNotFoundError):
            if self._inode and self.path.stat().st_ino == self._inode:
                self.path.unlink()
        self.forget()

    def forget(self) -> None:
        """Close the descriptors only, as a child does."""
        self._listener.close()
        for connection in self.connections:
            connection.socket.close()

    def _accept(self, _mask: int) -> None:
        try:
            peer, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.warning("the control socket takes no connection for a second: %s", error)
            self._stop_listening()
            self.timers.set(self, 1.0, self.listen)
            return
        peer.setblocking(False)
        self.connections.add(_Connection(self, peer))
        if len(self.connections) >= _MOST_CONNECTIONS:
            self._stop_listening()  # the others wait in the kernel's queue
            for connection in self.connections:
                connection.hurry()

    def closed(self, connection: _Connection) -> None:
        """A connection is no more: there is room for another."""
        self.connections.remove(connection)
        self.listen()

    def listen(self) -> None:
        """Take connections, unless that is done already."""
        if not self._listening:
            self._listening = True
            self.selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _stop_listening(self) -> None:
        if self._listening:
            self._listening = False
            self.selector.unregister(self._listener)


class _Connection:
    """One peer: what it sent so far, and what it has not taken yet."""

    def __init__(self, control: Control, peer: socket.socket) -> None:
        self.socket = peer
        self._peer = Peer(*struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
        self._may_control = _may_control(peer, self._peer)
        self._control = control
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._last = False  # nothing more is served; closed when the outbox is empty and the peer is through
        self._ignored = 0
        self._shut = False  # the peer is through, or has to be
        self._hurried = False
        control.selector.register(peer, selectors.EVENT_READ, self._ready)
        control.timers.set(self, _IDLE_S, self._waited_enough)

    def hurry(self) -> None:
        """Others wait: there is less time to say something."""
        if not self._hurried:
            self._hurried = True
            self._control.timers.set(self, _CROWDED_S, self._waited_enough)

    def _waited_enough(self) -> None:
        if not self._last and not self._outbox:
            with contextlib.suppress(OSError):
                why = "no whole request came in time; the connection is closed"
                self.socket.send(pack({"ok": False, "error": why}))
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._control.timers.cancel(self)
        self._control.timers.cancel((self, "next"))
        self._control.selector.unregister(self.socket)
        self.socket.close()
        self._control.closed(self)

    def _ready(self, mask: int) -> None:
        try:
            if mask & selectors.EVENT_READ:
                received = self.socket.recv(_CHUNK if self._last else MOST_REQUEST)
                if not received:
                    self._shut = True
                elif self._last:
                    self._ignored += len(received)
                    self._shut = self._ignored > _MOST_IGNORED
                else:
                    self._inbox += received
        except BlockingIOError:
            return
        except OSError as error:
            self._broke(error)
            return
        if self._last or self._outbox or b"\n" not in self._inbox:
            self._go_on()
        else:  # an answer is work, and that is done as the timers have it: some of it in every turn
            self._wait()

    def _go_on(self) -> None:
        """Answer one request of what has come, if the last reply is taken; the next one in the next turn."""
        if not self._outbox and not self._last:
            line, end, rest = self._inbox.partition(b"\n")
            if len(line) > MOST_REQUEST:
                self._reject(f"a request has at most {MOST_REQUEST} bytes")
            elif end:
                self._inbox = rest
                self._serve(bytes(line))
            elif self._shut and line:
                self._reject("the request is not whole: its line has no end")
            elif self._shut:
                self._last = True
        try:
            if self._outbox:
                del self._outbox[: self.socket.send(self._outbox)]
            if self._last and not self._outbox and not self._shut:
                self.socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError as error:
            self._broke(error)
            return
        self._wait()

    def _wait(self) -> None:
        """For whatever has to come next."""
        if self._outbox:
            self._control.selector.modify(self.socket, selectors.EVENT_WRITE, self._ready)
        elif self._last and self._shut:
            self.close()
        elif not self._last and (self._shut or b"\n" in self._inbox):
            # Nothing more is read before: what waits stays with the peer.
            self._control.selector.modify(self.socket, 0, self._ready)
            self._control.timers.set((self, "next"), 0.0, self._go_on)
        else:
            self._control.selector.modify(self.socket, selectors.EVENT_READ, self._ready)

    def _serve(self, line: bytes) -> None:
        if not self._may_control:
            # Only now: a reply to a peer that is still sending could be lost.
            log.warning("a request on the control socket was refused: the peer is not of our user or group")
            self._reject("only root, the daemon's user and its group may control it")
            return
        try:
            request = unpack(line)
        except ValueError as error:
            self._reject(str(error))
            return
        try:
            reply = {"ok": True, **self._control.answer(request, self._peer)}
        except UsageError as error:
            reply = {"ok": False, "error": str(error)}
        except Exception:
            # A question must never end the daemon.
            log.exception("a request on the control socket could not be answered: %s", request)
            reply = {"ok": False, "error": "the daemon could not answer that; its log has the traceback"}
        self._outbox += pack(reply)
        self._control.timers.set(self, _IDLE_S, self._waited_enough)

    def _reject(self, why: str) -> None:
        self._outbox += pack({"ok": False, "error": why})
        self._last = True
        self._inbox.clear()
        self._control.timers.set(self, _IDLE_S, self._waited_enough)

    def _broke(self, error: OSError) -> None:
        log.debug("a connection on the control socket broke: %s", error)
        self.close()


def _may_control(connection: socket.socket, peer: Peer) -> bool:
    """Root, our own user, or a member of our group: also should the socket's mode have been changed."""
    if peer.uid in {0, os.geteuid()} or peer.gid == os.getegid():
        return True
    try:
        groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        return False  # more groups than fit: not worth guessing
    return os.getegid() in struct.unpack(f"{len(groups) // 4}I", groups)

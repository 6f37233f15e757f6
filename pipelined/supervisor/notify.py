"""What systemd is told of the daemon: sd_notify(3) over its datagram socket, and never waiting for it."""

from __future__ import annotations

import array
import faulthandler
import logging
import math
import os
import socket
import time
from collections import deque
from collections.abc import MutableMapping, Sequence

from pipelined.stats import registry
from pipelined.stats.slots import SharedStats, WorkerState
from pipelined.stats.status import SILENT_S
from pipelined.supervisor.states import Worker, WorkerSpec
from pipelined.supervisor.store import Order
from pipelined.supervisor.timers import Timers

__all__ = ["Notify"]

log = logging.getLogger("pipelined.supervisor")

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_TICK_S = 1.0
#: READY comes when every type has been started, but no later than this: a daemon whose brokers are away does
#: its duty, which is to wait for them, and must not hold up the boot of the machine.
_READY_AT_LATEST_S = 60.0
#: While it drains systemd hears once a second that it shall wait for so long from then on.
_EXTENSION_S = 15.0
#: What a drain or a reload may take beyond the deadlines of all types together before it counts as hung.
_MARGIN_S = 30.0
#: So long after its limit a worker must have been found hung. If it was not, this loop does not judge.
_JUDGING_MARGIN_S = 10.0
#: After a machine stood still all workers seem hung, for as long as they need to give a sign again.
_THAW_S = 3.0
_MOST_TOLD = 3
_MOST_STATUS = 500

_TROUBLES = (WorkerState.FATAL, WorkerState.BACKOFF, WorkerState.EXITED)
_PASSING = frozenset({"starting", "reloading", "stopping"})


class Notify:
    """Tells systemd READY, RELOADING, STOPPING and one line of status, extends its time limit for a drain,
    and feeds its watchdog.

    Does nothing where the environment has no NOTIFY_SOCKET. The variables of systemd are taken out of
    ``environ``, so that no child speaks in our name. What the socket does not take at once is sent at a
    later ``follow``, in order; so are ``orders``, those of the ``Store``.
    """

    def __init__(
        self,
        stats: SharedStats,
        timers: Timers,
        environ: MutableMapping[str, str] = os.environ,
        orders: deque[Order] | None = None,
    ) -> None:
        found = {name: environ.pop(name, "") for name in _VARIABLES}
        self._stats = stats
        self._timers = timers
        self._address = found["NOTIFY_SOCKET"]
        self._socket: socket.socket | None = None
        self._watchdog_s = _watchdog(found["WATCHDOG_USEC"], found["WATCHDOG_PID"])
        self._queue: deque[Order] = deque() if orders is None else orders
        self._state = "starting"
        self._since = time.monotonic()
        self._ready = False
        self._overlooked_since = 0.0
        self._withheld = False
        self._status = ""
        self._next_tick = 0.0
        self._next_ping = 0.0
        self._stalled = False
        if self._watchdog_s:
            faulthandler.enable()  # it ends us with SIGABRT: where we hang is then in the log
        if self._address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            if self._address[0] == "@":
                self._address = "\0" + self._address[1:]

    def follow(self, state: str, specs: Sequence[WorkerSpec], workers: Sequence[Worker]) -> None:
        """Tell what has changed: ``state`` is the daemon's, in the word of its status, or "reloading".

        To be called at each turn of the supervisor's loop: that it turns is what the watchdog is for.
        """
        if self._socket is None:
            return
        now = time.monotonic()
        if state == self._state and now < self._next_tick:
            return  # what else may have changed is told within a second
        if state != self._state:
            self._state, self._since = state, now
            if state == "stopping":
                self._queue.append(("STOPPING=1", -1))
            elif state == "reloading":
                self._ready = False
                self._queue.append((f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", -1))
        if not self._ready and (
            state not in _PASSING or (state == "starting" and now - self._since >= _READY_AT_LATEST_S)
        ):
            self._ready = True
            self._queue.append(("READY=1", -1))
        lines = []
        if now >= self._next_tick:
            self._next_tick = now + _TICK_S
            self._timers.set(self, _TICK_S, _wake)
            if state in _PASSING and now - self._since < _longest(state, specs):
                lines.append(f"EXTEND_TIMEOUT_USEC={int(_EXTENSION_S * 1e6)}")
        if (status := self._line(state, workers)) != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        if self._watchdog_s and now >= self._next_ping and self._judged(now, specs, workers):
            self._next_ping = now + self._watchdog_s / 3
            lines.append("WATCHDOG=1")
        self._flush()
        if lines and not self._queue:
            self._tell("\n".join(lines))

    def forget(self) -> None:
        """Close the descriptors, as a child does."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        while self._queue:
            self._drop()

    def _flush(self) -> None:
        while self._queue and self._tell(*self._queue[0]):
            self._drop()

    def _drop(self) -> None:
        _, fd = self._queue.popleft()
        if fd >= 0:
            os.close(fd)

    def _tell(self, message: str, fd: int = -1) -> bool:
        """Whether the message is on its way, and with it what systemd shall keep."""
        assert self._socket is not None
        told = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        try:
            self._socket.sendmsg([message.encode(errors="replace")], told, 0, self._address)
        except OSError as error:
            self._status = ""  # it is told anew
            self._next_ping = 0.0
            if not self._stalled:
                self._stalled = True
                log.warning("systemd does not take what it is told, it is told again: %s", error)
            return False
        self._stalled = False
        return True

    def _line(self, state: str, workers: Sequence[Worker]) -> str:
        running = sum(worker.state is WorkerState.RUNNING for worker in workers)
        wanted = sum(worker.wanted or worker.state is not WorkerState.STOPPED for worker in workers)
        troubled = [worker for worker in workers if worker.state in _TROUBLES and worker.wanted]
        parts = [f"{state}: {wanted} workers" if running == wanted else f"{state}: {running} of {wanted} run"]
        for trouble in _TROUBLES:
            ours = [self._trouble(worker) for worker in troubled if worker.state is trouble]
            parts += _listed(f"in {trouble.name}", ours)
        parts += _listed("starting", [_name(each) for each in workers if each.state is WorkerState.STARTING])
        parts += _listed("draining", [_name(each) for each in workers if each.state is WorkerState.STOPPING])
        parts += _listed("silent", [self._silent(worker) for worker in workers if self._is_silent(worker)])
        parts += _listed("paused", [self._pause(worker) for worker in workers if self._is_paused(worker)])
        if self._withheld:
            parts.append("a worker that hangs is not dealt with: the watchdog will end this daemon")
        return " ".join(", ".join(parts).split())[:_MOST_STATUS]

    def _trouble(self, worker: Worker) -> str:
        wait = self._stats.slot(worker.type, worker.index).parent.next_try - time.time()
        again = f", next try in {wait:.0f} s" if wait >= 1 else ""
        return f"{_name(worker)}: {worker.reason}{again}"

    def _is_silent(self, worker: Worker) -> bool:
        return worker.state is WorkerState.RUNNING and self._silence(worker) > SILENT_S

    def _silent(self, worker: Worker) -> str:
        return f"{_name(worker)}: no sign for {self._silence(worker):.0f} s"

    def _is_paused(self, worker: Worker) -> bool:
        slot = self._stats.slot(worker.type, worker.index)
        paused = slot.parent.paused or slot.child.gauge(registry.PAUSED) > 0
        return paused and worker.state is WorkerState.RUNNING

    def _pause(self, worker: Worker) -> str:
        slot = self._stats.slot(worker.type, worker.index)
        why = "by an operator" if slot.parent.paused else slot.child.says
        return f"{_name(worker)}: {why}" if why else _name(worker)

    def _judged(self, now: float, specs: Sequence[WorkerSpec], workers: Sequence[Worker]) -> bool:
        """Whether every worker that hangs was found hung: then it is not RUNNING any more, but killed."""
        limits = {spec.type: spec.settings.hang_s + _JUDGING_MARGIN_S for spec in specs}
        overlooked = [
            worker
            for worker in workers
            if worker.state is WorkerState.RUNNING
            and self._silence(worker) > limits.get(worker.type, math.inf)
        ]
        if not overlooked:
            self._overlooked_since = 0.0
            self._withheld = False
            return True
        self._overlooked_since = self._overlooked_since or now
        if now - self._overlooked_since < _THAW_S:
            return True
        if not self._withheld:
            self._withheld = True
            log.critical(
                "worker %s gave no sign for %.0f s and was not found hung: systemd's watchdog is fed no "
                "longer, so that it ends and restarts this daemon",
                _name(overlooked[0]),
                self._silence(overlooked[0]),
                extra={"child": _name(overlooked[0])},
            )
        return False

    def _silence(self, worker: Worker) -> float:
        return self._stats.slot(worker.type, worker.index).child.silent_s


def _name(worker: Worker) -> str:
    return f"{worker.type}/{worker.index}"


def _listed(what: str, told: Sequence[str]) -> list[str]:
    """One part of the line, none where there is nothing to tell."""
    if not told:
        return []
    more = [f"and {len(told) - _MOST_TOLD} more"] if len(told) > _MOST_TOLD else []
    return [f"{len(told)} {what} ({'; '.join([*told[:_MOST_TOLD], *more])})"]


def _longest(state: str, specs: Sequence[WorkerSpec]) -> float:
    """What a start, reload or drain takes at most, by the deadlines of the types one after the other."""
    drains = sum(spec.settings.drain_s for spec in specs)
    starts = sum(spec.settings.start_s for spec in specs) if state != "stopping" else 0.0
    return drains + starts + _MARGIN_S


def _watchdog(usec: str, pid: str) -> float:
    """The seconds within which systemd wants a sign of this process; 0: it wants none."""
    if not usec.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usec) / 1e6


def _wake() -> None:
    """The timer only makes the loop turn; ``follow`` is called at each turn."""

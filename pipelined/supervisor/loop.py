"""The supervisor: one process, one thread, one loop. It forks the workers and never does their work."""

from __future__ import annotations

import functools
import logging
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pipelined.config.tree import Config
from pipelined.errors import ExitCode, UsageError
from pipelined.logs.setup import tick
from pipelined.stats.rates import EVERY_S, Rates
from pipelined.stats.slots import SharedStats, WorkerState
from pipelined.stats.status import document, exit_in_words
from pipelined.supervisor.child import Entry, live
from pipelined.supervisor.control import Control, Peer
from pipelined.supervisor.events import Event, Events
from pipelined.supervisor.fleet import Fleet
from pipelined.supervisor.notify import Notify
from pipelined.supervisor.operations import Operations, Revision
from pipelined.supervisor.order import StartOrder, StopOrder
from pipelined.supervisor.pidfile import Pidfile
from pipelined.supervisor.process import Process
from pipelined.supervisor.protocol import FIELDS, in_words
from pipelined.supervisor.signals import Signals
from pipelined.supervisor.states import Worker, WorkerSpec
from pipelined.supervisor.store import Store
from pipelined.supervisor.timers import Timers
from pipelined.supervisor.trial import Trial

__all__ = ["Supervisor", "WorkerSpec"]

log = logging.getLogger("pipelined.supervisor")

#: One Ctrl-C may come twice, from the terminal and from a parent that passes it on.
_SAME_SIGNAL_S = 0.5
_SECOND_SIGNAL_S = 2.0
#: What changes nothing, and is asked so often that it is no event.
_QUESTIONS = frozenset({"status", "config", "operation", "events"})


class Supervisor:
    """Runs ``specs``, in the order of the flow, until it is told to stop or a worker's end says so.

    ``entry`` is called in each child (see ``child.Entry``), ``on_ready`` once, here, when every type has
    been started. ``stats`` must have a slot for each process; what ``store`` is to keep systemd is told.
    Make no thread in this process before or while it runs: forking would not be safe any more.
    """

    def __init__(
        self,
        config: Config,
        specs: Sequence[WorkerSpec],
        entry: Entry,
        *,
        stats: SharedStats,
        on_ready: Callable[[], None] | None = None,
        revision: Revision | None = None,
        store: Store | None = None,
    ) -> None:
        self._entry = entry
        self._stats = stats
        self._on_ready = on_ready
        self._pid = 0
        self._timers = Timers()
        self._events = Events(config.state_dir, self._timers)
        self._rates = Rates(stats)
        self._notify = Notify(stats, self._timers, orders=None if store is None else store.orders)
        self._pidfile = Pidfile(config.state_dir)
        self._selector = selectors.DefaultSelector()
        self._control = Control(config.runtime_dir, self._selector, self._timers, self._answer)
        self._signals: Signals | None = None
        self._fleet = Fleet(config, specs, stats, self._timers, self._fork, self._events)
        self.workers = self._fleet.workers
        self._operations = Operations(
            self._fleet,
            self._timers,
            revision,
            functools.partial(Trial, selector=self._selector, timers=self._timers, forget=self._forget),
            self._state,
            self._events,
        )
        self._starting: StartOrder | None = StartOrder(self._fleet.specs, self.workers, self._timers)
        self._stopping: StopOrder | None = None
        self._stop_signals: list[tuple[float, signal.Signals]] = []
        self._forced = False
        self._fatal_code = 0

    def run(self) -> int:
        """Serve until the end and return the daemon's exit code.

        0: stopped, everything drained. 78 or another code of a worker: it is FATAL, and on_fatal is
        "exit" or none is left. 124: a drain took too long and was cut off. 128 + n: cut off by a second
        signal n. 1: a worker failed while it stopped. Raises AlreadyRunningError where another daemon has
        the state folder or the control socket, UnavailableError where these cannot be made.
        """
        self._pid = os.getpid()
        self._pidfile.acquire()
        try:
            self._control.open()
            self._signals = Signals()
            self._selector.register(self._signals, selectors.EVENT_READ, self._on_signals)
            log.info("the supervisor (pid %d) starts %d workers", self._pid, len(self.workers))
            told = f"{len(self.workers)} workers"
            self._events.add(Event.DAEMON_STARTED, told, pid=self._pid)
            self._measure()
            began, used = time.monotonic_ns(), time.thread_time_ns()
            while not self._advance():
                state = "reloading" if self._operations.reloading else self._state()
                self._notify.follow(state, self._fleet.specs, self.workers)
                self._events.flush(busy=self._timers.wait() == 0)
                self._stats.turns.turned(time.monotonic_ns() - began, time.thread_time_ns() - used)
                ready = self._selector.select(self._timers.wait())
                began, used = time.monotonic_ns(), time.thread_time_ns()
                for key, mask in ready:
                    key.data(mask)
                self._timers.run()
            code = self._exit_code()
            log.info("the supervisor ends with exit code %d", code)
            self._events.add(Event.DAEMON_ENDED, exit_in_words(code), pid=self._pid)
        except Exception as error:
            self._events.add(Event.DAEMON_ENDED, f"{type(error).__name__}: {error}", pid=self._pid)
            raise
        finally:
            self._clean_up()
        return code

    def _advance(self) -> bool:
        """Take the next step of starting or stopping, if it is due; True when all is over."""
        if self._stopping is None:
            self._judge_fatal()
        if self._stopping is not None:
            return self._stopping.advance()
        if self._starting is not None and self._starting.advance():
            self._starting = None
            log.info("every worker type has been started; the daemon is %s", self._state())
            self._events.add(Event.DAEMON_UP, f"every worker type has been started: {self._state()}")
            if self._on_ready is not None:
                self._on_ready()
        self._operations.advance()
        return False

    def _measure(self) -> None:
        self._rates.look()
        tick()
        self._timers.set(self._rates, EVERY_S, self._measure)

    def _judge_fatal(self) -> None:
        fatal = [worker for worker in self.workers if worker.state is WorkerState.FATAL]
        exits = self._fleet.config.supervisor.on_fatal == "exit" or len(fatal) == len(self.workers)
        if fatal and exits and not self._operations.busy:
            code = fatal[0].last_exit
            self._fatal_code = code if code > 0 else 128 - code if code < 0 else ExitCode.SOFTWARE
            self._stop(f"worker {fatal[0].type}/{fatal[0].index} is FATAL")

    def _stop(self, why: str, *, leave: bool = False) -> None:
        if self._stopping is None:
            log.info("the daemon stops: %s", why)
            self._events.add(Event.DAEMON_STOPPING, why)
            self._starting = None
            self._operations.abandon()
            self._stopping = StopOrder(self._fleet.specs, self.workers, leave=leave)
        elif leave:
            self._stopping.leave = True

    def _on_signals(self, _mask: int) -> None:
        assert self._signals is not None
        for number in self._signals.received():
            self._events.add(Event.SIGNAL, number.name)
            match number:
                case signal.SIGHUP:
                    self._reload()
                case signal.SIGINT | signal.SIGTERM:
                    self._on_stop_signal(number)
                case signal.SIGQUIT:
                    log.info("SIGQUIT: the supervisor wrote its stacks, and goes on")
                case _:
                    log.warning("%s means nothing to this daemon, it goes on", number.name)

    def _reload(self) -> None:
        try:
            self._operations.reload("asked by SIGHUP")
        except UsageError as error:
            log.error("SIGHUP changes nothing: %s", error)

    def _on_stop_signal(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if self._stop_signals and now - self._stop_signals[-1][0] < _SAME_SIGNAL_S:
            return
        self._stop_signals.append((now, number))
        if len(self._stop_signals) == 1:
            self._stop(number.name)
        elif len(self._stop_signals) == 2:
            log.warning("a second signal: what has not drained in %g s is killed", _SECOND_SIGNAL_S)
            self._timers.set("second signal", _SECOND_SIGNAL_S, self._kill_all)
        else:
            self._kill_all()

    def _kill_all(self) -> None:
        for worker in self.workers:
            if worker.process is not None:
                self._forced = True
                worker.kill("killed on a further signal")

    def _fork(self, worker: Worker) -> Process:
        def body(death_pipe: int) -> NoReturn:
            self._forget()
            live(
                self._entry,
                worker.config,
                worker.type,
                worker.index,
                self._stats,
                parent=self._pid,
                death_pipe=death_pipe,
            )

        began = time.monotonic_ns()
        process = Process.fork(body)
        self._stats.turns.forked(time.monotonic_ns() - began)
        self._selector.register(
            process.pidfd, selectors.EVENT_READ, functools.partial(self._on_exit, worker, process)
        )
        return process

    def _on_exit(self, worker: Worker, process: Process, _mask: int) -> None:
        self._selector.unregister(process.pidfd)
        # By the timers, since it may fork a successor: that has a turn of its own.
        self._timers.set(process, 0.0, lambda: worker.exited(process.reap()), alone=True)

    def _forget(self) -> None:
        """In a child: close all that is the supervisor's alone. The lock stays, see ``Pidfile``."""
        # Only closed, never unregistered: the epoll instance itself is shared with the parent.
        self._selector.close()
        self._notify.forget()
        self._operations.forget()
        self._control.forget()
        if self._signals is not None:
            self._signals.forget()
        for worker in self.workers:
            if worker.process is not None:
                worker.process.close()

    def _clean_up(self) -> None:
        self._operations.abandon()
        for worker in self.workers:
            if worker.process is not None:  # only after an exception of our own
                worker.process.kill()
                worker.process.reap()
        self._control.close()
        self._notify.forget()
        if self._signals is not None:
            self._signals.close()
        self._selector.close()
        self._events.flush(last=True)
        self._pidfile.release()

    def _exit_code(self) -> int:
        if self._fatal_code:
            return self._fatal_code
        if self._forced:
            return 128 + self._stop_signals[-1][1]
        return self._stopping.exit_code() if self._stopping is not None else ExitCode.OK

    def _state(self) -> str:
        if self._stopping is not None:
            return "stopping"
        if self._starting is not None:
            return "starting"
        return self._fleet.state()

    def _answer(self, request: dict[str, Any], peer: Peer) -> dict[str, Any]:
        if odd := request.keys() - FIELDS:
            raise UsageError(f"unknown field {min(odd)[:40]!r}; nothing was done")
        if str(request.get("cmd")) in _QUESTIONS:
            return self._do(request)
        # Only the numbers of who asks: the name may be a network's to tell, and this loop waits for nobody.
        concerns, words = str(request.get("type", ""))[:40], in_words(request)
        who = {"uid": peer.uid, "pid": peer.pid}
        self._events.add(Event.COMMAND, words, worker=concerns, **who)
        try:
            return self._do(request)
        except UsageError as error:
            self._events.add(Event.REFUSED, f"{words}: {error}", worker=concerns, **who)
            raise

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        match request:
            case {"cmd": "events"}:
                return {"events": self._events.after(_number(request))}
            case {"cmd": "status"}:
                reasons = {(worker.type, worker.index): worker.reason for worker in self.workers}
                return {"status": document(self._stats, pid=self._pid, state=self._state(), reasons=reasons)}
            case {"cmd": "stop"} if "type" not in request:
                leave = request.get("leave") is True
                why = "asked on the control socket" + (", and leaves for good" if leave else "")
                self._stop(why, leave=leave)
            case _:
                return {**self._operations.answer(request), "state": self._state()}
        return {"state": self._state()}


def _number(request: dict[str, Any]) -> int:
    number = request.get("number", 0)
    if not isinstance(number, int):
        raise UsageError("the number of an event is a whole number")
    return number

"""One supervised worker: its states, and what leads from one to the next."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelined.config import tree
from pipelined.errors import ExitCode
from pipelined.stats.slots import Slot, WorkerState
from pipelined.stats.status import exit_in_words
from pipelined.supervisor.backoff import Backoff
from pipelined.supervisor.events import Event, Events
from pipelined.supervisor.process import Process
from pipelined.supervisor.timers import Timers

__all__ = ["Worker", "WorkerSpec"]

log = logging.getLogger("pipelined.supervisor")

_ABORT_S = 5.0  # from SIGABRT, which writes the stacks, to SIGKILL
_REMIND_S = 10.0  # a process that outlives SIGKILL waits in the kernel: all we can do is say so
_MEMORY_S = 2.0  # between two looks at its memory
_LEVELS = {
    Event.BACK_OFF: logging.WARNING,
    Event.FATAL: logging.ERROR,
    Event.HUNG: logging.WARNING,
    Event.MEMORY: logging.WARNING,
}


@dataclass(frozen=True)
class WorkerSpec:
    """A worker type to run: ``processes`` processes of it, with these settings."""

    type: str
    processes: int
    settings: tree.Worker


class Worker:
    """One place for a process of a type.

    STOPPED → STARTING → RUNNING → STOPPING → STOPPED; an end that nobody asked for leads to BACKOFF and
    then STARTING again, or to FATAL; to EXITED where the daemon is stopping anyway. ``fork`` makes the
    process and has ``exited`` called when it has ended. All its deadlines are one timer.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        slot: Slot,
        config: tree.Config,
        timers: Timers,
        fork: Callable[[Worker], Process],
        events: Events,
    ) -> None:
        self.type = spec.type
        self.index = slot.index
        self.state = WorkerState.STOPPED
        self.reason = "not started yet"
        self.process: Process | None = None
        #: Whether it shall run: an end that nobody asked for is followed by a restart.
        self.wanted = True
        self.last_exit = 0
        #: Its last drain took too long, and it was killed.
        self.drain_exceeded = False
        #: What its next process runs on.
        self.config = config
        self._settings = spec.settings
        self._slot = slot
        self._timers = timers
        self._fork = fork
        self._events = events
        self._backoff = Backoff(config.supervisor)
        self._restarts = 0
        self._next_try = 0.0
        self._asked = False  # it was told to stop, so its end is no crash
        self._trouble = ""  # why we killed it, if we did
        self._started = 0.0
        self._healthy_since = 0.0
        self._enter(WorkerState.STOPPED, self.reason, None)

    @property
    def name(self) -> str:
        """For a log line, an event and a reply."""
        return f"{self.type}/{self.index}"

    @property
    def settled(self) -> bool:
        """Whether the next type need not wait for it any longer: it runs, or failed more than once."""
        failing = self.state is WorkerState.BACKOFF and self._restarts > 0
        return not self.wanted or failing or self.state in {WorkerState.RUNNING, WorkerState.FATAL}

    def start(self) -> None:
        """Run it from now on: an operator's or the start order's wish. It clears back-off and FATAL."""
        self.wanted = True
        if self.process is None:
            self._backoff.forget()
            self._launch()

    def stop(self, *, leave: bool = False) -> None:
        """Run it no longer: drain, within its deadline. Harmless when repeated.

        With ``leave`` it is not expected back: it leaves its group, so that others have its work at once.
        """
        self.wanted = False
        if leave:  # before the signal: it looks once, when it has drained
            self._slot.parent.leave(True)
        if self.process is None:
            self._timers.cancel(self)
            if self.state is not WorkerState.STOPPED:
                self._enter(WorkerState.STOPPED, "stopped", Event.STOPPED)
        elif not self._asked:
            self._asked = True
            self.drain_exceeded = False
            self.process.terminate()
            if self.state is not WorkerState.STOPPING:  # else it is being aborted, with a nearer deadline
                self._enter(WorkerState.STOPPING, "told to drain", Event.DRAINING)
                self._timers.set(self, self._settings.drain_s, self._drain_is_over)

    def restart(self) -> None:
        """End its process, if it has one, as ``stop`` does, and run it from now on, anew."""
        if self.process is None:
            self.start()
        else:
            self.stop()
            self._backoff.forget()
            self.wanted = True

    @property
    def paused(self) -> bool:
        """Whether an operator wants it to take no more work."""
        return self._slot.parent.paused

    def pause(self, paused: bool) -> None:
        """Have it take no more work, or take work again: also after a restart, until the daemon ends."""
        if paused != self.paused:
            self._slot.parent.pause(paused)
            if self.state is WorkerState.RUNNING:
                event = Event.PAUSED if paused else Event.RESUMED
                self._enter(WorkerState.RUNNING, self._running, event)

    @property
    def _running(self) -> str:
        return "paused by an operator" if self.paused else ""

    def adopt(self, config: tree.Config, settings: tree.Worker) -> None:
        """Take over a configuration: its next process runs on it; its own deadlines from their next turn."""
        self.config = config
        self._settings = settings
        self._backoff.adopt(config.supervisor)
        self._watch_memory()

    def kill(self, why: str) -> None:
        """End its process now, for ``why``; it is restarted if it is wanted."""
        if self.process is not None:
            self._trouble = why
            self.process.kill()
            if self.state is WorkerState.STOPPING:
                self._tell(Event.KILLED, why)
            else:
                self._enter(WorkerState.STOPPING, why, Event.KILLED)
            self._timers.set(self, _REMIND_S, self._outlived)

    def exited(self, code: int) -> None:
        """Its process has ended and is reaped; ``code`` is its exit code, or minus the signal."""
        pid = self.process.pid if self.process else 0
        self.process = None
        self.last_exit = code
        self._timers.cancel(self)
        asked, self._asked = self._asked, False
        words = exit_in_words(code)
        reason = f"{self._trouble}; {words}" if self._trouble else words
        if asked:
            self._enter(WorkerState.STOPPED, "stopped" if code == 0 else reason, Event.STOPPED, pid=pid)
            if self.wanted:
                self._launch()
        elif self.wanted:
            self._crashed(reason, final=code == ExitCode.CONFIG, died=pid)
        else:
            self._enter(WorkerState.EXITED, reason, Event.DIED, pid=pid)

    def _launch(self) -> None:
        self._enter(WorkerState.STARTING, "", None)
        self._timers.set(self, 0.0, self._begin, alone=True)

    def _begin(self) -> None:
        self._begun(self._made())

    def _made(self) -> Process | OSError:
        """Fork: the longest thing that the loop does, so that each fork has a turn of its own."""
        self._trouble = ""
        self._healthy_since = 0.0
        self._started = time.monotonic()
        self._slot.parent.leave(False)
        try:
            return self._fork(self)
        except OSError as error:
            return error

    def _begun(self, made: Process | OSError) -> None:
        if isinstance(made, OSError):
            self._crashed(f"it could not be started: {made}", final=False)
            return
        self.process = made
        self._enter(WorkerState.STARTING, "", Event.STARTED)
        self._timers.set(self, 0.002, self._look_for_ready)

    def _look_for_ready(self) -> None:
        assert self.process is not None
        child = self._slot.child
        now = time.monotonic()
        age = now - self._started
        # The page may still be its predecessor's.
        ours = child.pid == self.process.pid
        # A worker that waits for its brokers says so, gives signs, and is not hung however long it takes.
        silent = child.silent_s if ours else age
        if ours and child.is_ready:
            self._healthy_since = now
            self._enter(WorkerState.RUNNING, self._running, Event.READY, seconds=round(age, 3))
            self._look_for_beat()
            self._watch_memory()
        elif silent >= self._settings.start_s:
            self._abort(f"no sign of it for {silent:.1f} s while it started")
        else:
            self._timers.set(self, 0.005 if age < 1 else 0.05, self._look_for_ready)

    def _look_for_beat(self) -> None:
        limit = self._settings.hang_s
        age = self._slot.child.silent_s
        if age >= limit:
            self._abort(f"hung: no sign of its work loop for {age:.1f} s")
        else:
            self._timers.set(self, limit - age, self._look_for_beat)

    def _watch_memory(self) -> None:
        if self._settings.memory_mb and self.state is WorkerState.RUNNING:
            self._timers.set((self, "memory"), _MEMORY_S, self._look_at_memory)
        else:
            self._timers.cancel((self, "memory"))

    def _look_at_memory(self) -> None:
        """One that has too much drains first; then it is restarted with the back-off of one that crashed."""
        limit = self._settings.memory_mb
        if self.state is WorkerState.RUNNING and self.process is not None:
            used = self.process.memory_mb()
            if used > limit:
                self._trouble = f"drained, because it used {used:.0f} MB of its {limit} (memory_mb)"
                self.process.terminate()
                why = f"uses {used:.0f} MB, more than its {limit} (memory_mb): drains"
                self._enter(WorkerState.STOPPING, why, Event.MEMORY)
                self._timers.set(self, self._settings.drain_s, self._drain_is_over)
        self._watch_memory()

    def _abort(self, why: str) -> None:
        assert self.process is not None
        self._trouble = why
        self.process.abort()
        self._enter(WorkerState.STOPPING, why, Event.HUNG)
        self._timers.set(self, _ABORT_S, lambda: self.kill(why))

    def _drain_is_over(self) -> None:
        self.drain_exceeded = True
        self.kill(f"did not drain within {self._settings.drain_s:g} s")

    def _outlived(self) -> None:
        log.error(
            "worker %s/%d (pid %d) does not die of SIGKILL: it waits in the kernel, for a disk or a mount",
            self.type,
            self.index,
            self._slot.parent.pid,
            extra={"child": f"{self.type}/{self.index}"},
        )
        self._timers.set(self, _REMIND_S, self._outlived)

    def _crashed(self, reason: str, *, final: bool, died: int = 0) -> None:
        """It failed; ``died`` is the pid of its process that did, 0 where none could be made."""
        now = time.monotonic()
        healthy_for = now - self._healthy_since if self._healthy_since else 0.0
        wait = None if final else self._backoff.failed(now, healthy_for)
        # Telling takes a quarter of the time of a fork: a successor that need not wait is made before it.
        successor = self._made() if wait == 0 and healthy_for else None
        if died:
            self._tell(Event.DIED, reason, pid=died)
        if wait is None:
            why = reason if final else f"given up after too many restarts; the last: {reason}"
            self._enter(WorkerState.FATAL, why, Event.FATAL)
        else:
            self._next_try = time.time() + wait
            self._enter(WorkerState.BACKOFF, reason, Event.BACK_OFF, seconds=round(wait, 3))
            if successor is None:
                self._timers.set(self, wait, self._restart, alone=True)
            else:
                self._restart(successor)

    def _restart(self, successor: Process | OSError | None = None) -> None:
        self._restarts += 1
        self._begun(successor or self._made())

    def _enter(self, state: WorkerState, reason: str, event: Event | None, **more: Any) -> None:
        self.state, self.reason = state, reason
        if state is not WorkerState.BACKOFF:
            self._next_try = 0.0
        self._slot.parent.write(
            state=state,
            pid=self.process.pid if self.process else 0,
            restarts=self._restarts,
            last_exit=self.last_exit,
            since=time.time(),
            next_try=self._next_try,
        )
        if event is not None:
            self._tell(event, reason, **more)
            log.log(
                _LEVELS.get(event, logging.INFO),
                "worker %s/%d is %s%s",
                self.type,
                self.index,
                state.name,
                f": {reason}" if reason else "",
                extra={"child": self.name, "state": state.name, "reason": reason},
            )

    def _tell(self, event: Event, why: str, *, pid: int = 0, **more: Any) -> None:
        if not pid and self.process is not None:
            pid = self.process.pid
        self._events.add(event, why, worker=self.name, pid=pid or None, restarts=self._restarts, **more)

"""In which order the types start and stop."""

from __future__ import annotations

from collections.abc import Sequence

from pipelined.errors import ExitCode
from pipelined.stats.slots import WorkerState
from pipelined.supervisor.states import Worker, WorkerSpec
from pipelined.supervisor.timers import Timers

__all__ = ["StartOrder", "StopOrder"]


class StartOrder:
    """Types start against the flow, sinks first, each ready before the next.

    A type that does not become ready holds up the others no longer than its own start grace, and not at
    all once it failed twice or is FATAL: what it does not take waits in Kafka.
    """

    def __init__(self, specs: Sequence[WorkerSpec], workers: Sequence[Worker], timers: Timers) -> None:
        self._rest = list(specs)
        self._workers = workers
        self._timers = timers
        self._begun = False
        self._waited_enough = False

    def advance(self) -> bool:
        """Do what can be done now; True when every type has been started."""
        while self._rest:
            spec = self._rest[-1]
            workers = [worker for worker in self._workers if worker.type == spec.type]
            if not self._begun:
                self._begun = True
                self._timers.set(self, spec.settings.start_s, self._stop_waiting)
                for worker in workers:
                    if worker.wanted:
                        worker.start()
            if not self._waited_enough and not all(worker.settled for worker in workers):
                return False
            self._rest.pop()
            self._begun = self._waited_enough = False
        self._timers.cancel(self)
        return True

    def _stop_waiting(self) -> None:
        self._waited_enough = True


class StopOrder:
    """Types stop along the flow, each drained before the next: sources first, sinks last."""

    def __init__(self, specs: Sequence[WorkerSpec], workers: Sequence[Worker], *, leave: bool) -> None:
        self._rest = [spec.type for spec in specs]
        #: Whether the workers leave their groups, because this host goes out of service.
        self.leave = leave
        self._running = [worker for worker in workers if worker.process is not None]
        for worker in workers:
            worker.wanted = False
            if worker.process is None and worker.state in {WorkerState.BACKOFF, WorkerState.STARTING}:
                worker.stop()

    def advance(self) -> bool:
        """Do what can be done now; True when nothing runs any more."""
        while self._rest:
            running = [worker for worker in self._running if worker.type == self._rest[0] and worker.process]
            for worker in running:
                worker.stop(leave=self.leave)
            if running:
                return False
            self._rest.pop(0)
        return True

    def exit_code(self) -> ExitCode:
        """What the stop as a whole came to."""
        if any(worker.drain_exceeded for worker in self._running):
            return ExitCode.DRAIN_TIMEOUT
        return ExitCode.FAILED if any(worker.last_exit != 0 for worker in self._running) else ExitCode.OK

"""One change after the other, each ready before the next; taken back where one does not come up."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipelined.config.tree import Config
from pipelined.stats.slots import WorkerState
from pipelined.supervisor.fleet import Fleet
from pipelined.supervisor.states import Worker
from pipelined.supervisor.timers import Timers

__all__ = ["Rollout", "Step"]

log = logging.getLogger("pipelined.supervisor")

_GONE_WRONG = frozenset({WorkerState.BACKOFF, WorkerState.FATAL})


@dataclass(slots=True)
class Step:
    """What happens to one process: it is ``renewed``, ``added`` or ``removed``."""

    type: str
    index: int
    kind: str
    #: It ran before, so that it has to run afterwards as well.
    must_run: bool = field(default=True, init=False)

    @property
    def name(self) -> str:
        """For a log line and a reply."""
        return f"{self.type}/{self.index}"

    def reversed(self) -> Step:
        """What takes it back."""
        return Step(
            self.type, self.index, {"renewed": "renewed", "added": "removed", "removed": "added"}[self.kind]
        )


class Rollout:
    """Takes ``steps`` one after the other towards ``new``.

    Where a process that ran before, or is a new one, does not come up within its start grace, the rest is
    left, and what was done is taken back to ``old`` in the reverse order, if there is an ``old``. ``told``
    has a line for each step; ``failure`` says why it was taken back, "" where all went well.
    """

    def __init__(
        self, fleet: Fleet, timers: Timers, steps: Iterable[Step], *, new: Config, old: Config | None
    ) -> None:
        self.told: dict[str, str] = {}
        self.failure = ""
        self._fleet = fleet
        self._timers = timers
        self._rest = list(steps)
        self._done: list[Step] = []
        self._config = new
        self._old = old
        self._now: Step | None = None
        self._late = False
        self._going_back = False

    def advance(self) -> bool:
        """Do what can be done now; True when all is over."""
        while True:
            if self._now is None:
                if not self._rest:
                    return True
                self._now = self._rest.pop(0)
                self._begin(self._now)
            outcome = self._outcome(self._now)
            if outcome is None:
                return False
            self._end(self._now, outcome)

    def abandon(self) -> None:
        """Leave everything as it is."""
        self._timers.cancel(self)

    def _worker(self, step: Step) -> Worker | None:
        return next(
            (each for each in self._fleet.workers if (each.type, each.index) == (step.type, step.index)), None
        )

    def _begin(self, step: Step) -> None:
        self._late = False
        worker = self._worker(step)
        spec = self._fleet.spec(step.type, self._config)
        if step.kind == "added" and worker is None:
            siblings = self._fleet.of(step.type)
            worker = self._fleet.add(step.type, step.index, self._config)
            worker.pause(any(each.paused for each in siblings))
            if not siblings or any(each.wanted for each in siblings):
                worker.start()
            else:  # an operator has stopped the type
                worker.stop()
        elif worker is not None and step.kind == "removed":
            worker.stop(leave=True)
        elif worker is not None:
            step.must_run = worker.state is WorkerState.RUNNING
            worker.adopt(self._config, spec.settings)
            if worker.wanted:
                worker.restart()
        self._timers.set(self, spec.settings.drain_s + spec.settings.start_s + 10, self._waited_enough)

    def _waited_enough(self) -> None:
        self._late = True

    def _outcome(self, step: Step) -> str | None:
        """What became of it, None while that is not known: "" where it is well, else what is wrong."""
        worker = self._worker(step)
        if worker is None:
            return ""
        if step.kind == "removed":
            # Once more: somebody may have started its type meanwhile. It drains, or is killed in the end.
            worker.stop(leave=True)
            if worker.process is not None:
                return None
            self._fleet.remove(worker)
            return ""
        if worker.state is WorkerState.RUNNING or not worker.wanted:
            return ""
        if worker.state in _GONE_WRONG:
            return f"{worker.state.name}: {worker.reason}"
        return "it is not ready in its time" if self._late else None

    def _end(self, step: Step, wrong: str) -> None:
        self._timers.cancel(self)
        self._now = None
        done = "put back" if self._going_back else step.kind
        self.told[step.name] = f"{done}, but {wrong}" if wrong else done
        if wrong:
            fields = {"event": "operation.worker_differs", "child": step.name}
            log.warning("%s: %s", step.name, self.told[step.name], extra=fields)
        if self._going_back:
            return
        self._done.append(step)
        if wrong and step.must_run:
            self.failure = f"{step.name} does not come up: {wrong}"
            self._go_back()

    def _go_back(self) -> None:
        for step in self._rest:
            self.told[step.name] = "left as it was"
        self._rest = []
        if self._old is not None:
            log.error("%s; going back to what was before", self.failure)
            self._going_back = True
            self._config = self._old
            self._rest = [step.reversed() for step in reversed(self._done)]

"""The workers of the daemon, and the settings that they have now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipelined.config.tree import WORKER_TYPES, Config
from pipelined.errors import UsageError
from pipelined.stats.slots import SharedStats, WorkerState
from pipelined.supervisor.events import Events
from pipelined.supervisor.levels import AS_CONFIGURED, LEVELS, SUPERVISOR, Levels
from pipelined.supervisor.process import Process
from pipelined.supervisor.states import Worker, WorkerSpec
from pipelined.supervisor.timers import Timers

__all__ = ["Fleet"]


class Fleet:
    """Every worker, by type in the order of the flow, then by index; ``config`` is what they run on."""

    def __init__(
        self,
        config: Config,
        specs: Sequence[WorkerSpec],
        stats: SharedStats,
        timers: Timers,
        fork: Callable[[Worker], Process],
        events: Events,
    ) -> None:
        self.config = config
        self.specs = list(specs)
        self.workers: list[Worker] = []
        self._stats = stats
        self._timers = timers
        self._fork = fork
        self._events = events
        self.levels = Levels(stats, config.logs.level)
        for spec in specs:
            for index in range(spec.processes):
                self._make(spec, index, config)

    @property
    def types(self) -> list[str]:
        """The types that this daemon runs, or could."""
        return [spec.type for spec in self.specs]

    def of(self, name: str) -> list[Worker]:
        """The workers of a type; UsageError where this daemon has none such."""
        if name not in self.types:
            raise UsageError(
                f"there is no worker type {name!r} here; this daemon has {', '.join(self.types)}"
            )
        return [worker for worker in self.workers if worker.type == name]

    def room(self, name: str) -> int:
        """How many processes of a type there may be: the shared memory was made for so many."""
        return self._stats.room(name)

    def spec(self, name: str, config: Config) -> WorkerSpec:
        """What ``config`` says of a type; of one that no configuration knows, what was said at first."""
        if name in WORKER_TYPES:
            return WorkerSpec(name, config.worker(name).processes, config.worker(name))
        return next(spec for spec in self.specs if spec.type == name)

    def add(self, name: str, index: int, config: Config) -> Worker:
        """A place for one process more; it is not started."""
        return self._make(self.spec(name, config), index, config)

    def remove(self, worker: Worker) -> None:
        """Give up the place of a worker that has no process any more."""
        assert worker.process is None
        self._timers.cancel(worker)
        self.workers.remove(worker)
        slot = self._stats.slot(worker.type, worker.index)
        slot.child.hold(())
        slot.parent.vacate()

    def adopt(self, config: Config) -> None:
        """``config`` is what every process that starts from now on gets."""
        self.config = config
        self.specs[:] = [self.spec(each.type, config) for each in self.specs]
        for worker in self.workers:
            worker.adopt(config, self.spec(worker.type, config).settings)

    def ask_level(self, level: str, name: object) -> dict[str, str]:
        """Log from ``level`` on in a type, the supervisor, or all of them (None); returns all levels."""
        if level not in {*LEVELS, AS_CONFIGURED}:
            raise UsageError(
                f"there is no log level {level!r}; there are {', '.join(LEVELS)}, {AS_CONFIGURED}"
            )
        known = [SUPERVISOR, *self.types]
        if name is not None and name not in known:
            raise UsageError(f"there is no worker type {name!r} here; this daemon has {', '.join(known)}")
        self.levels.ask(level, known if name is None else [str(name)])
        return {each: self.levels.of(each) for each in known}

    def state(self) -> str:
        """``running`` where all is as it should be, else ``degraded``."""
        up = all(worker.state is WorkerState.RUNNING or not worker.wanted for worker in self.workers)
        return "running" if up else "degraded"

    def _make(self, spec: WorkerSpec, index: int, config: Config) -> Worker:
        slot = self._stats.slot(spec.type, index)
        slot.parent.occupy()
        self.levels.tell()
        worker = Worker(spec, slot, config, self._timers, self._fork, self._events)
        self.workers.append(worker)
        self.workers.sort(key=lambda each: (self.types.index(each.type), each.index))
        return worker

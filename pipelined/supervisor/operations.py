"""What an operator may have done to the workers of a running daemon, one larger thing at a time."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipelined.config.diff import Change, changes, fixed, touches
from pipelined.config.leaves import leaves
from pipelined.config.tree import WITHOUT_KAFKA, WORKER_TYPES, Config
from pipelined.errors import UsageError
from pipelined.supervisor.events import Event, Events
from pipelined.supervisor.fleet import Fleet
from pipelined.supervisor.rollout import Rollout, Step
from pipelined.supervisor.timers import Timers
from pipelined.supervisor.trial import Trial

__all__ = ["Operations", "Revision"]

log = logging.getLogger("pipelined.supervisor")

#: Puts a question to a process of its own; see ``Trial``.
Ask = Callable[[Callable[[], Config], Callable[[Config | None, list[str]], None]], Trial]


class Revision(Protocol):
    """How a running daemon comes to another configuration."""

    def check(self, present: Config, wanted: Config | None) -> Config:
        """``wanted``, or without it what the sources of the configuration say now, once it is found to be
        right in whole. Called in a child. Raises PipelinedError with every problem.
        """

    def accepted(self, config: Config) -> None:
        """It is what the daemon runs on from now on."""


@dataclass
class _Operation:
    """The last larger thing that was asked for, as it is told."""

    number: int
    what: str
    #: checking, applying; at the end done, refused, failed or abandoned.
    state: str = "checking"
    problems: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    workers: dict[str, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.state not in {"checking", "applying"}


class Operations:
    """Commands for worker types. ``state`` tells whether the daemon is starting, running or stopping."""

    def __init__(
        self,
        fleet: Fleet,
        timers: Timers,
        revision: Revision | None,
        ask: Ask,
        state: Callable[[], str],
        events: Events,
    ) -> None:
        self._fleet = fleet
        self._timers = timers
        self._revision = revision
        self._ask = ask
        self._state = state
        self._events = events
        self._last = _Operation(0, "nothing", "done")
        self._concerns = ""  # the type that it is about, if it is about one
        self._trial: Trial | None = None
        self._rollout: Rollout | None = None
        self._new: Config | None = None

    @property
    def busy(self) -> bool:
        """Whether workers are being changed: one that does not come up is no reason to end then."""
        return self._rollout is not None

    @property
    def reloading(self) -> bool:
        """Whether a new configuration is being checked or taken over."""
        return not self._last.over and self._last.what.startswith("reload")

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what ``request`` asks for; UsageError where that is nothing, or not now."""
        match request:
            case {"cmd": "stop", "type": str(name)}:
                for worker in self._fleet.of(name):
                    worker.stop(leave=True)
            case {"cmd": "start", "type": str(name)}:
                self._refuse_stopping()
                for worker in self._fleet.of(name):
                    worker.start()
            case {"cmd": "pause" | "resume" as verb, "type": str(name)}:
                self._pause(name, verb == "pause")
            case {"cmd": "log-level", "level": str(level)}:
                return {"levels": self._fleet.ask_level(level, request.get("type"))}
            case {"cmd": "restart", "type": str(name)}:
                self._restart(name)
                return self._told()
            case {"cmd": "scale", "type": str(name), "processes": int(count)} if count is not True:
                self._scale(name, count)
                return self._told()
            case {"cmd": "reload"}:
                self.reload("asked on the control socket")
                return self._told()
            case {"cmd": "config"}:
                return {"values": {leaf.path: leaf.default for leaf in leaves(self._fleet.config)}}
            case {"cmd": "operation"}:
                if request.get("number", self._last.number) != self._last.number:
                    raise UsageError("another operation has begun since; its log tells of the one asked for")
                return self._told()
            case _:
                raise UsageError(
                    "unknown command; this daemon knows status, config, stop [type], reload, operation, "
                    "log-level [type], and with a type: start, restart, pause, resume and scale"
                )
        return {}

    def reload(self, why: str) -> None:
        """Read the configuration again, and take it over if it is right."""
        self._check(f"reload, {why}", None, "")

    def advance(self) -> None:
        """Take the next step, if one is due."""
        if self._rollout is not None and self._rollout.advance():
            self._finish(self._rollout)

    def abandon(self) -> None:
        """The daemon stops, or ends: leave everything as it is."""
        if self._trial is not None:
            self._trial.abandon()
        if self._rollout is not None:
            self._last.workers = dict(self._rollout.told)
            self._rollout.abandon()
        if self._trial is not None or self._rollout is not None:
            self._end("abandoned", ["the daemon stops"])
        self._trial = self._rollout = None

    def forget(self) -> None:
        """In a child: close what is the supervisor's alone."""
        if self._trial is not None:
            self._trial.forget()

    def _told(self) -> dict[str, Any]:
        operation = dataclasses.asdict(self._last)
        if self._rollout is not None:
            operation["workers"] = dict(self._rollout.told)
        return {"operation": operation}

    def _begin(self, what: str, concerns: str) -> None:
        self._refuse_stopping()
        if self._state() == "starting":
            raise UsageError("the daemon is still starting; try again when `pipelinectl status` says running")
        if not self._last.over:
            raise UsageError(f"a {self._last.what.partition(',')[0]} is under way; wait until it is over")
        self._last = _Operation(self._last.number + 1, what)
        self._concerns = concerns
        log.info("%s", what, extra={"event": "operation.begun"})

    def _refuse_stopping(self) -> None:
        if self._state() == "stopping":
            raise UsageError("the daemon is stopping; start it again when it has ended")

    def _pause(self, name: str, paused: bool) -> None:
        if name in WITHOUT_KAFKA:
            raise UsageError(f"{name} takes no records that could be held back; `stop {name}` ends it")
        for worker in self._fleet.of(name):
            worker.pause(paused)

    def _restart(self, name: str) -> None:
        workers = self._fleet.of(name)
        self._begin(f"restart of {name}", name)
        for worker in workers:
            worker.wanted = True
        steps = [Step(worker.type, worker.index, "renewed") for worker in workers]
        self._roll(steps, self._fleet.config, None)

    def _scale(self, name: str, count: int) -> None:
        self._fleet.of(name)
        if name not in WORKER_TYPES or count < 0:
            raise UsageError(f"{name} cannot have {count} processes")
        config = self._fleet.config
        settings = dataclasses.replace(config.worker(name), processes=count)
        workers = dataclasses.replace(config.workers, **{name.replace("-", "_"): settings})
        self._check(f"scale of {name} to {count}", dataclasses.replace(config, workers=workers), name)

    def _check(self, what: str, wanted: Config | None, concerns: str) -> None:
        revision, present = self._revision, self._fleet.config
        if revision is None:
            raise UsageError("this daemon cannot take over another configuration")
        self._begin(what, concerns)
        try:
            self._trial = self._ask(lambda: revision.check(present, wanted), self._checked)
        except OSError as error:
            self._end("refused", [f"it could not be checked: {error}"])

    def _checked(self, new: Config | None, problems: list[str]) -> None:
        self._trial = None
        if new is None:
            self._end("refused", problems)
            return
        differing = changes(self._fleet.config, new)
        problems = [
            f"{change.path} cannot change while the daemon runs ({change.old} → {change.new}): stop it, and "
            "start it again"
            for change in fixed(differing)
        ] + self._crowded(new)
        if problems:
            self._end("refused", problems)
            return
        self._last.changes = [str(change) for change in differing]
        for change in self._last.changes:
            log.info("%s", change, extra={"event": "operation.change"})
        self._new = new
        self._roll(self._steps(new, differing), new, self._fleet.config)

    def _crowded(self, new: Config) -> list[str]:
        counts = {name: self._fleet.spec(name, new).processes for name in self._fleet.types}
        problems = [
            f"{name} cannot have {count} processes while the daemon runs, only {self._fleet.room(name)}: "
            "supervisor.max_processes, at its next start"
            for name, count in counts.items()
            if count > self._fleet.room(name)
        ]
        if not any(counts.values()):
            problems.append("nothing would run any more: every worker type has processes = 0")
        return problems

    def _steps(self, new: Config, differing: list[Change]) -> list[Step]:
        """Against the flow, as at the start: who is sent more is ready for it."""
        steps = []
        for name in reversed(self._fleet.types):
            present = [worker.index for worker in self._fleet.of(name)]
            count = self._fleet.spec(name, new).processes
            steps += [Step(name, index, "removed") for index in reversed(present) if index >= count]
            if touches(differing, name):
                steps += [Step(name, index, "renewed") for index in present if index < count]
            steps += [Step(name, index, "added") for index in range(len(present), count)]
        return steps

    def _roll(self, steps: list[Step], new: Config, old: Config | None) -> None:
        self._last.state = "applying"
        self._rollout = Rollout(self._fleet, self._timers, steps, new=new, old=old)

    def _finish(self, rollout: Rollout) -> None:
        self._rollout = None
        self._last.workers = rollout.told
        new, self._new = self._new, None
        if rollout.failure:
            self._end("failed", [rollout.failure])
            return
        if new is not None:
            self._fleet.adopt(new)
            assert self._revision is not None
            self._revision.accepted(new)
            self._fleet.levels.adopt(new.logs.level)
        self._end("done", [])

    def _end(self, state: str, problems: list[str]) -> None:
        self._last.state, self._last.problems = state, problems
        self._new = None
        for problem in problems:
            log.error("%s is %s: %s", self._last.what, state, problem)
        words = "; ".join(problems) or _in_words(self._last)
        if state == "done":
            log.info("%s is done: %s", self._last.what, words)
        told = "; ".join([f"{self._last.what} is {state}: {words}", *self._last.changes])
        self._events.add(Event.OUTCOME, told, worker=self._concerns)


def _in_words(operation: _Operation) -> str:
    told = ", ".join(f"{name} {outcome}" for name, outcome in operation.workers.items())
    return told or ("nothing to restart" if operation.changes else "nothing has changed")

"""Checks, several at once, each in a process of its own: one that hangs is ended, and the others go on."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import selectors
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import NoReturn

from pipelined.config import Config
from pipelined.doctor.finding import Finding, Outcome, failed, warned
from pipelined.errors import PipelinedError
from pipelined.stats.status import exit_in_words
from pipelined.supervisor.child import BLOCKED, settle
from pipelined.supervisor.process import Process

__all__ = ["Check", "examine"]

#: Most checks at once.
_AT_ONCE = 6
_DYING_MS = 1000

Look = Callable[[Config], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """``look`` yields what it finds, and may raise; ``fix`` is the phrase for what it raises.

    After ``limit_s`` seconds it is ended. It is not begun where one of ``needs`` failed.
    """

    name: str
    about: str
    look: Look
    fix: str
    limit_s: float = 15.0
    needs: tuple[str, ...] = ()

    def findings(self, config: Config) -> Iterator[Finding]:
        """What it finds, here and now; what it raises is a finding as well."""
        try:
            yield from self.look(config)
        except PipelinedError as error:
            for line in str(error).splitlines():
                yield failed(line, self.fix)
        except Exception as error:  # noqa: BLE001 - told as what was found, with the name of what was raised
            yield failed(f"{type(error).__name__}: {error}", self.fix)


def examine(config: Config, checks: Sequence[Check]) -> Generator[tuple[str, Finding], None, None]:
    """The findings with the names of their checks, in the order of the checks, as soon as they are there.

    Call it in a process without threads: each check is forked. Whatever a check does, this ends: no later
    than the time limits of those that wait for each other allow.
    """
    waiting = list(checks)
    running: list[_Running] = []
    found: dict[str, list[Finding]] = {}
    told = 0
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [each.abandon() for each in running])
        while told < len(checks):
            for check in _startable(waiting, found, {each.name for each in checks}):
                if len(running) == _AT_ONCE:
                    break
                waiting.remove(check)
                if failing := [need for need in check.needs if _fails(found.get(need, ()))]:
                    found[check.name] = [_skipped(failing[0])]
                else:
                    running.append(_Running(check, config))
            for ended in _ended(running):
                running.remove(ended)
                found[ended.check.name] = ended.findings()
            while told < len(checks) and checks[told].name in found:
                yield from ((checks[told].name, each) for each in found[checks[told].name])
                told += 1


def _startable(waiting: Sequence[Check], found: dict[str, list[Finding]], names: set[str]) -> list[Check]:
    return [each for each in waiting if all(need in found or need not in names for need in each.needs)]


def _fails(findings: Iterable[Finding]) -> bool:
    return any(each.outcome is Outcome.FAIL for each in findings)


def _skipped(need: str) -> Finding:
    return warned(f"not looked at: {need} is not as it should be", f"first mend {need}")


def _ended(running: Sequence[_Running]) -> list[_Running]:
    """Those that are over; waits for one of them, or for the end of its time."""
    if not running:
        return []
    with selectors.DefaultSelector() as selector:
        for each in running:
            selector.register(each.process.pidfd, selectors.EVENT_READ)
        selector.select(max(0.0, min(each.deadline for each in running) - time.monotonic()))
        now = time.monotonic()
        over = {key.fd for key, _ in selector.select(0)}
        return [each for each in running if each.process.pidfd in over or now >= each.deadline]


class _Running:
    """A check under way. What it has found stands on its paper, a line each, also where it is ended."""

    def __init__(self, check: Check, config: Config) -> None:
        self.check = check
        self._paper = os.memfd_create("pipelined.doctor", os.MFD_CLOEXEC)
        parent = os.getpid()

        def body(death_pipe: int) -> NoReturn:
            settle("doctor", 0, parent, death_pipe)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
            _silence()
            for finding in check.findings(config):
                os.write(self._paper, json.dumps(astuple(finding)).encode() + b"\n")
            os._exit(0)

        try:
            self.process = Process.fork(body)
        except OSError:
            os.close(self._paper)
            raise
        self.deadline = time.monotonic() + check.limit_s

    def findings(self) -> list[Finding]:
        """What it found. It is over now, if need be because it is ended here."""
        late = time.monotonic() >= self.deadline
        code, found = self.abandon()
        if code == 0:
            return found
        if late:
            text = f"no answer within {self.check.limit_s:g} s"
            return [*found, failed(text, self.check.fix)]
        words = f"the check itself ended unexpectedly ({exit_in_words(code)})"
        return [
            *found,
            failed(words, f"try again; report it if it stays: pipelinectl doctor --only {self.check.name}"),
        ]

    def abandon(self) -> tuple[int, list[Finding]]:
        """End it; its exit code and what it has found so far."""
        self.process.kill()
        if _over(self.process.pidfd):
            code = self.process.reap()
        else:  # in the hands of a disk that does not answer: it ends when that does, and nobody waits
            self.process.close()
            code = -signal.SIGKILL
        lines = os.pread(self._paper, os.fstat(self._paper).st_size, 0).splitlines()
        os.close(self._paper)
        parts = map(json.loads, lines)
        return code, [Finding(Outcome(outcome), found, fix) for outcome, found, fix in parts]


def _over(pidfd: int) -> bool:
    """Whether a process that was killed has ended; a moment is left to it."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(_DYING_MS))


def _silence() -> None:
    """What is found is told by the findings alone, not by what libraries log on the way."""
    logging.disable(logging.CRITICAL)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.close(nothing)

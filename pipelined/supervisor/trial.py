"""A question that the parent must not answer itself: put to a process of its own, within a time limit."""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
from collections.abc import Callable
from typing import NoReturn

from pipelined.config.leaves import built, leaves
from pipelined.config.tree import Config
from pipelined.config.values import from_json
from pipelined.errors import ConfigError, PipelinedError
from pipelined.supervisor.child import BLOCKED, settle
from pipelined.supervisor.process import Process
from pipelined.supervisor.timers import Timers

__all__ = ["Trial"]

log = logging.getLogger("pipelined.supervisor")

_LIMIT_S = 30.0


class Trial:
    """``question`` asked in a forked child; ``answered`` gets the configuration it returned, or the
    problems that it found: what it raised, or that it did not end within ``limit`` seconds.

    What is read, imported and asked meanwhile leaves no trace in this process.
    """

    def __init__(
        self,
        question: Callable[[], Config],
        answered: Callable[[Config | None, list[str]], None],
        *,
        selector: selectors.BaseSelector,
        timers: Timers,
        forget: Callable[[], None],
        limit: float = _LIMIT_S,
    ) -> None:
        self._answered = answered
        self._selector = selector
        self._timers = timers
        self._limit = limit
        self._late = False
        self._paper = os.memfd_create("pipelined.trial", os.MFD_CLOEXEC)
        parent = os.getpid()

        def body(death_pipe: int) -> NoReturn:
            forget()
            settle("trial", 0, parent, death_pipe)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
            with open(self._paper, "wb") as paper:
                paper.write(_asked(question))
            os._exit(0)

        try:
            self._process: Process | None = Process.fork(body)
        except OSError:
            os.close(self._paper)
            raise
        selector.register(self._process.pidfd, selectors.EVENT_READ, self._ended)
        timers.set(self, limit, self._too_late)

    def abandon(self) -> None:
        """Nobody wants to know any more."""
        if self._process is not None:
            self._process.kill()
            self._close(self._process)

    def forget(self) -> None:
        """In a sibling just forked: close the descriptors."""
        if self._process is not None:
            self._process.close()
            os.close(self._paper)

    def _too_late(self) -> None:
        self._late = True
        if self._process is not None:
            self._process.kill()

    def _close(self, process: Process) -> tuple[int, bytes]:
        self._process = None
        self._timers.cancel(self)
        self._selector.unregister(process.pidfd)
        code = process.reap()
        self._paper, paper = -1, self._paper
        said = os.pread(paper, os.fstat(paper).st_size, 0)
        os.close(paper)
        return code, said

    def _ended(self, _mask: int) -> None:
        assert self._process is not None
        code, said = self._close(self._process)
        if self._late:
            self._answered(None, [f"it could not be checked within {self._limit:g} s"])
        elif code != 0 or not said:
            self._answered(None, ["its check failed; the log has the reason"])
        else:
            self._answered(*_read(said))


def _asked(question: Callable[[], Config]) -> bytes:
    values, problems = None, []
    try:
        values = {leaf.path: leaf.default for leaf in leaves(question())}
    except ConfigError as error:
        problems = error.problems
    except PipelinedError as error:
        problems = [str(error)]
    except Exception:
        log.exception("the new configuration could not be checked")
        raise
    return json.dumps({"values": values, "problems": problems}).encode()


def _read(said: bytes) -> tuple[Config | None, list[str]]:
    answer = json.loads(said)
    if answer["values"] is None:
        return None, answer["problems"]
    return built(from_json(answer["values"])), []

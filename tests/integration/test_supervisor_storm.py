"""Random operators and random kills on the real process tree: nobody is orphaned, forgotten or stuck.

Short here. ``SUPERVISOR_ACTIONS=10000`` makes it as long as one likes; see docs/how-to/tests.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from supervised import Daemon, is_alive

from waiting import until

ACTIONS = int(os.environ.get("SUPERVISOR_ACTIONS", "120"))
STEPS = 40
TYPES = ("event-ingester", "download", "upload")

types = st.sampled_from(TYPES)
deaths = st.sampled_from(
    [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGSEGV, signal.SIGSTOP, signal.SIGINT]
)


class Storm(RuleBasedStateMachine):
    """One daemon, whoever may do something to it, and what must hold whatever they do."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="storm-")
        patience = {"hang_s": 1.0, "start_s": 2.0, "drain_s": 1.0}
        self.run = Daemon(
            Path(self.folder.name),
            {
                "event-ingester": patience | {"drains": 0.02},
                "download": patience | {"processes": 2, "waits": 0.02},
                "upload": patience | {"lives": 0.7},
                "endpoint": patience,  # left alone: a daemon with nothing but FATAL workers ends
            },
            supervisor={"backoff_first_s": 0.01, "backoff_max_s": 0.05, "max_restarts": 8},
        ).start(until_ready=False)
        until(self._answers, "it listens")

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            return bool(self.run.status())
        return False

    def _victims(self) -> list[int]:
        return [w["pid"] for w in self.run.status()["workers"] if w["pid"] and w["type"] in TYPES]

    def _pids(self) -> list[int]:
        return [worker["pid"] for worker in self.run.status()["workers"] if worker["pid"]]

    @rule(name=types, verb=st.sampled_from(["stop", "start", "restart", "pause", "resume"]))
    def command(self, name: str, verb: str) -> None:
        self.run.ask(cmd=verb, type=name)

    @rule(name=types, processes=st.integers(0, 3))
    def scale(self, name: str, processes: int) -> None:
        self.run.ask(cmd="scale", type=name, processes=processes)

    @rule(form=st.sampled_from(["json", "text", "journal"]), wrong=st.booleans(), by_signal=st.booleans())
    def reload(self, form: str, wrong: bool, by_signal: bool) -> None:
        (self.run.folder / "values").write_text(json.dumps({"logs.format": form}))
        if wrong:
            (self.run.folder / "wrong").touch()
        else:
            (self.run.folder / "wrong").unlink(missing_ok=True)
        if by_signal:
            self.run.signal(signal.SIGHUP)
        else:
            self.run.ask(cmd="reload")

    @rule(which=st.integers(0, 9), number=deaths)
    def hurt(self, which: int, number: signal.Signals) -> None:
        if pids := self._victims():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[which % len(pids)], number)

    @rule()
    def hurt_all(self) -> None:
        for pid in self._victims():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @invariant()
    def it_answers(self) -> None:
        assert self.run.status()["state"] in {"starting", "running", "degraded"}, self.run.log()[-3000:]

    def teardown(self) -> None:
        try:
            self._settles()
            for pid in self._pids():  # one that was stopped drains no more: it is killed, and the code is 124
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            # 1: the death that a stopped one was dealt comes when it goes on, in the middle of the stop.
            assert self.run.stop() in {0, 1}, self.run.log()[-3000:]
            assert not any(map(is_alive, self.run.pids()))
        finally:
            self.run.kill()
            self.folder.cleanup()

    def _settles(self) -> None:
        """From wherever it is, all can be made to run again, and there is no process too many."""
        until(lambda: self._operation()["state"] not in {"checking", "applying"}, "no operation goes on")
        (self.run.folder / "wrong").unlink(missing_ok=True)
        until(lambda: self.run.ask(cmd="reload")["ok"], "a reload is taken")
        until(lambda: self._operation()["state"] not in {"checking", "applying"}, "the reload is over")
        for name in TYPES:
            self.run.ask(cmd="resume", type=name)
            self.run.ask(cmd="start", type=name)
        seen: set[tuple[str, int]] = set()

        def all_ran() -> bool:
            # Not at one moment: one type goes on dying, and comes back.
            workers = self.run.status()["workers"]
            seen.update((w["type"], w["index"]) for w in workers if w["state"] == "RUNNING")
            for worker in workers:
                if worker["state"] == "FATAL":
                    self.run.ask(cmd="start", type=worker["type"])
            return {(w["type"], w["index"]) for w in workers} <= seen

        until(all_ran, "every worker runs again")
        until(self._tree_is_clean, f"no orphan, no zombie: {self._tree()}")

    def _operation(self) -> dict[str, Any]:
        operation: dict[str, Any] = self.run.ask(cmd="operation")["operation"]
        return operation

    def _tree(self) -> tuple[set[int], set[int], set[int]]:
        """The parent's children, those that it tells of, and those that live of all that ever began."""
        children = Path(f"/proc/{self.run.pid}/task/{self.run.pid}/children").read_text().split()
        return set(map(int, children)), set(self._pids()), set(filter(is_alive, self.run.pids()))

    def _tree_is_clean(self) -> bool:
        children, told, living = self._tree()
        return children == told == living


@pytest.mark.timeout(60 + ACTIONS)
def test_whatever_operators_and_kills_do_no_worker_is_orphaned_forgotten_or_stuck() -> None:
    run_state_machine_as_test(
        Storm,
        settings=settings(
            max_examples=max(1, ACTIONS // STEPS),
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )

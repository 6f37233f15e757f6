"""One day, from the plan to the verdict."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from chaos.day import evidence
from chaos.day.faults import Faults, SkippedError
from chaos.day.hosts import Ground
from chaos.day.load import Feeder
from chaos.day.plan import Plan, Step
from chaos.day.recovery import Monitor, Recovery, Rows
from pipelined.errors import UnavailableError
from pipelined.ledger import Balance, Follower

__all__ = ["Outcome", "run"]

#: How long everything may take to come to rest once nothing fails any more.
SETTLE_S = 300.0
#: When nothing has changed for so long, nothing will.
QUIET_S = 60.0
#: Brokers that have just come back may refuse the ledger; it begins again.
LEDGER_ATTEMPTS = 3


@dataclass(slots=True)
class Outcome:
    """What became of a day. ``error`` is what kept it from being judged, or from coming to its end."""

    plan: Plan
    lines: int = 0
    seconds: float = 0.0
    settle_seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    recoveries: list[Recovery] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    balance: Balance | None = None
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is lost, doubled or unknown, and every line that was loaded is in the books."""
        return not self.error and self.balance is not None and self.balance.balanced


def run(plan: Plan, folder: Path, tell: Callable[[str], None]) -> Outcome:
    """Run the day below ``folder``, which is there and empty; at a failure its evidence stays there."""
    outcome = Outcome(plan)
    began = time.monotonic()

    def timed(text: str) -> None:
        tell(f"[{time.monotonic() - began:6.1f} s] {text}")

    with Ground(folder, plan) as ground:
        timed(f"{plan.brokers} broker(s) and {plan.hosts} host(s) are up, below {folder}")
        try:
            _work(outcome, ground, timed)
            _judge(outcome, ground, timed)
        except Exception as error:  # noqa: BLE001 - told, with the evidence
            outcome.error = f"{type(error).__name__}: {error}"
        outcome.ends = evidence.ends([host.log_file for host in ground.hosts])
        if not outcome.passed:
            timed("not passed: the evidence is being kept")
            evidence.keep(folder, ground, outcome.balance, outcome.error)
    return outcome


def _work(outcome: Outcome, ground: Ground, tell: Callable[[str], None]) -> None:
    """The faults, with load flowing; then all of them undone and the load at its end."""
    plan = outcome.plan
    feeder, monitor, rows = Feeder(ground), Monitor(ground.hosts), Rows(ground)
    faults = Faults(ground, feeder, monitor, rows, tell)
    began = time.monotonic()
    with ExitStack() as stack:
        for thread in (monitor, rows):
            thread.start()
            stack.callback(thread.stop)
        feeder.start()
        tracks = [
            _Track(plan.track(name), faults, began + 60 * plan.minutes, outcome, tell, feeder)
            for name in ("kill", "trouble")
        ]
        try:
            for track in tracks:
                track.start()
            for track in tracks:
                track.join()
            if not outcome.error:
                time.sleep(max(0.0, began + 60 * plan.minutes - time.monotonic()))
        finally:
            outcome.kills, outcome.troubles = faults.kills, faults.troubles
            outcome.recoveries = faults.recoveries
        outcome.seconds = time.monotonic() - began
        errors = [track.error for track in tracks if track.error is not None]
        outcome.error = "; ".join(f"{type(error).__name__}: {error}" for error in errors)
        tell(f"{sum(outcome.kills.values())} kills; everything is mended, and the load ends")
        ground.heal(tell)
        feeder.stop()
        outcome.lines = feeder.lines


class _Track(threading.Thread):
    """Does its steps one after another, each at its time or as soon after it as the one before has ended."""

    def __init__(
        self,
        steps: list[Step],
        faults: Faults,
        end: float,
        outcome: Outcome,
        tell: Callable[[str], None],
        feeder: Feeder,
    ) -> None:
        super().__init__(daemon=True)
        self._steps = steps
        self._faults = faults
        self._end = end
        self._outcome = outcome
        self._tell = tell
        self._feeder = feeder
        self._began = end - 60 * outcome.plan.minutes
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do them; what does not fit into the day is skipped, and after an error so is all the rest."""
        try:
            for step in self._steps:
                if self._outcome.error:
                    return
                time.sleep(max(0.0, self._began + step.at - time.monotonic()))
                if self._feeder.error is not None:  # faults without load prove nothing
                    raise self._feeder.error
                self._one(step)
        except BaseException as error:  # noqa: BLE001 - told by whoever joins it
            self.error = error
            self._outcome.error = f"{type(error).__name__}: {error}"
            self._tell(f"the day ends here: {self._outcome.error}")

    def _one(self, step: Step) -> None:
        if time.monotonic() > self._end:
            self._outcome.skipped.append(f"{step.number} {step.kind}: the day was over")
            return
        self._tell(f"{step.number}: {step}")
        try:
            self._faults.do(step)
        except SkippedError as reason:
            self._outcome.skipped.append(f"{step.number} {step.kind}: {reason}")
            self._tell(f"  {step.number}: skipped: {reason}")


def _judge(outcome: Outcome, ground: Ground, tell: Callable[[str], None]) -> None:
    began = time.monotonic()
    balance = outcome.balance = _balance(ground, tell)
    outcome.settle_seconds = time.monotonic() - began
    outcome.lines += sum(source.held for source in balance.sources.values())
    if balance.read != outcome.lines and not outcome.error:
        outcome.error = f"{outcome.lines:,} events were fed, but events.raw has {balance.read:,}"
    if outcome.passed:  # else they stay as they are, for the evidence
        codes = {host.name: host.leave() for host in ground.hosts}
        outcome.notes += [f"{name} ended with exit code {code}" for name, code in codes.items() if code]
    tell(f"judged after {outcome.settle_seconds:.1f} s: {'balanced' if balance.balanced else 'NOT BALANCED'}")


def _balance(ground: Ground, tell: Callable[[str], None]) -> Balance:
    for attempt in range(1, LEDGER_ATTEMPTS + 1):
        try:
            with Follower(ground.hosts[0].config) as follower:
                return _settle(follower) or follower.balance()
        except UnavailableError as error:
            if attempt == LEDGER_ATTEMPTS:
                raise
            tell(f"the ledger begins again: {error}")
    raise AssertionError("unreachable")


def _settle(follower: Follower) -> Balance | None:
    """The balance once everything is through; None where nothing moves any more, or not in time."""
    deadline, changed = time.monotonic() + SETTLE_S, time.monotonic()
    progress = judged = None
    while time.monotonic() < deadline:
        latest = follower.poll(0.5)
        if latest != progress:
            progress, changed = latest, time.monotonic()
        if latest.settled and latest != judged:
            balance, judged = follower.balance(), latest
            if balance.balanced:
                return balance
        if not latest.retrying and time.monotonic() - changed > QUIET_S:
            break
    return None

"""What the worker of a source tells of itself: metrics, and one line of words for the status.

The line is a state (reading, behind, quiet, stuck, held back, refused, ...), a colon, and why.
"""

from __future__ import annotations

import math
import time

from pipelined.errors import AuthError, BugError, RecordError, TransientError
from pipelined.sources.contract import Page
from pipelined.stats import registry as metrics
from pipelined.stats import source_metrics
from pipelined.stats.slots import Child
from pipelined.workers.asking import Answer
from pipelined.workers.gauges import Gauges
from pipelined.workers.pressure import Pressure

__all__ = ["SourceGauges"]

_EVERY = 1.0
#: Seconds over which the rate is levelled.
_LEVEL = 20.0


class SourceGauges:
    """Counters at each answer and each commit, gauges and words once a second."""

    def __init__(self, stats: Child, pressure: Pressure) -> None:
        self._stats = stats
        self._pressure = pressure
        self._loop = Gauges(stats)
        self._due = 0.0
        self._looked = time.monotonic()
        self._rows = 0
        self._rate = 0.0
        self._reached = 0.0
        self._skew = 0.0
        self._fallback = ""
        self._state = "starting"
        self._trouble = ""

    def asked(self, answer: Answer) -> None:
        """Note what came of a fetch, but for what becomes of its page."""
        stats, facts = self._stats, answer.facts
        result = "failed" if answer.error is not None else "empty" if answer.page is None else "page"
        stats.add(source_metrics.POLLS, 1, result)
        for seconds in facts.queries:
            stats.observe(source_metrics.QUERY_SECONDS, seconds)
        stats.add(source_metrics.THROTTLED, facts.throttled)
        stats.add(source_metrics.SHORTENED, facts.shortened)
        stats.add(source_metrics.LOST, facts.lost)
        stats.add(source_metrics.RECONNECTS, facts.reconnected)
        stats.set(source_metrics.TOKEN, facts.token_expires or 0.0)
        stats.set(source_metrics.FALLBACK, bool(facts.fallback))
        self._fallback = facts.fallback
        if answer.skew is not None:
            self._skew = answer.skew
            stats.set(source_metrics.CLOCK, time.time() + answer.skew)
        if answer.error is not None:
            return
        if answer.page is not None:
            stats.add(metrics.RECORDS_IN, len(answer.page.outputs))
            stats.set(source_metrics.WAITING, answer.page.more)
            self._state = "behind" if answer.page.more else "reading"
        elif answer.probe is not None and answer.probe.waiting:
            # What came between the fetch and the probe is there with the next fetch.
            if self._stats.gauge(source_metrics.WAITING):
                self._state = "stuck: something waits at the source, and nothing comes"
            stats.set(source_metrics.WAITING, 1)
        else:
            stats.set(source_metrics.WAITING, 0)
            stats.set(metrics.LAST_PROGRESS, time.time())
            self._state = "quiet"
            self._reached = max(self._reached, answer.began + self._skew)

    def committed(self, page: Page, seconds: float) -> None:
        """Note a page that is durable."""
        stats = self._stats
        count = len(page.outputs)
        self._rows += count
        stats.add(metrics.RECORDS_OUT, count)
        stats.add(metrics.RECORDS_DONE, count, "done")
        stats.add(metrics.TRANSACTIONS, 1, "committed")
        stats.observe(metrics.COMMIT_SECONDS, seconds)
        stats.observe(metrics.BATCH_RECORDS, count)
        stats.set(metrics.LAST_PROGRESS, time.time())
        if page.reached is not None:
            self._reached = page.reached

    def failed(self, error: RecordError, *, refused: bool = False) -> None:
        """Note what stands in the way; ``refused``: until an operator has done something."""
        self._stats.add(metrics.FAILURES, 1, str(error.category))
        self._stats.failed(f"{error.code}: {error}")
        self._stats.set(source_metrics.REFUSED, refused)
        if refused:
            state = "refused"
        elif isinstance(error, AuthError):
            state = "cannot log in"
        elif isinstance(error, BugError):
            state = "unexpected error"
        elif isinstance(error, TransientError):
            state = "in trouble"
        else:
            state = "cannot be reached"
        self._trouble = f"{state}: {error}"
        self._due = 0.0

    def mended(self) -> None:
        """Nothing stands in the way any more."""
        if self._trouble:
            self._trouble = ""
            self._stats.set(source_metrics.REFUSED, 0)

    def spent(self, state: str, since: float) -> None:
        """Account for time of the loop, from ``since`` on the monotonic clock until now."""
        self._loop.spent(state, time.monotonic() - since)

    def update(self) -> None:
        """Set gauges and words, at most once a second."""
        now = time.monotonic()
        if now < self._due:
            return
        stats, pressure = self._stats, self._pressure
        seconds, self._looked = now - self._looked, now
        if seconds > 0:
            self._rate += (self._rows / seconds - self._rate) * (1 - math.exp(-seconds / _LEVEL))
        self._rows = 0
        self._due = now + _EVERY
        stats.set(source_metrics.RATE, self._rate if self._rate > 0.005 else 0.0)
        stats.set(source_metrics.HELD, pressure.holds)
        stats.set(source_metrics.LAG, pressure.lag)
        if self._reached:
            stats.set(source_metrics.POSITION, self._reached)
            stats.set(source_metrics.DELAY, max(0.0, time.time() + self._skew - self._reached))
        stats.say(self._words())

    def clear(self) -> None:
        """Its turn is over: what it told is nobody's any more."""
        for gauge in _GAUGES:
            self._stats.set(gauge, 0)
        self._stats.say("")

    def _words(self) -> str:
        if self._trouble:
            words = self._trouble
        elif self._pressure.holds:
            return f"held back: {self._pressure.why}"
        else:
            words = self._state
        more = [f"fallback in use: {self._fallback}" if self._fallback else "", self._pressure.why]
        return "; ".join([words, *filter(None, more)])


_GAUGES = (
    metrics.PAUSED,
    source_metrics.POSITION,
    source_metrics.DELAY,
    source_metrics.RATE,
    source_metrics.WAITING,
    source_metrics.HELD,
    source_metrics.LAG,
    source_metrics.REFUSED,
    source_metrics.FALLBACK,
    source_metrics.TOKEN,
    source_metrics.CLOCK,
)

"""The loop of a worker that brings events in: a page is produced while the next one is fetched.

The position behind a page is a record of the same transaction, and read back when the worker's turn begins:
after the transactional id was taken over, so that nothing of a predecessor is under way any more. The id is
the same on every host. Where two believe that it is their turn, the later one fences the earlier one.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from pipelined.config import Config
from pipelined.crashpoints import Point, crashpoint
from pipelined.errors import (
    BugError,
    ConfigError,
    DependencyError,
    FencedError,
    PermanentError,
    RecordError,
    TransientError,
    UnavailableError,
)
from pipelined.kafka.checkpoints import read_checkpoint
from pipelined.kafka.lag import Lags
from pipelined.kafka.settings import Names
from pipelined.kafka.transactions import Aborted, Transactor
from pipelined.logs.context import context
from pipelined.sources.contract import Page, Source
from pipelined.stages.contract import Output
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child
from pipelined.workers.asking import Answer, Asker
from pipelined.workers.brakes import Pause
from pipelined.workers.office import in_turn
from pipelined.workers.pressure import Pressure
from pipelined.workers.source_gauges import SourceGauges

__all__ = ["SourceRuntime", "run_source"]

_logger = logging.getLogger("pipelined.workers")

#: Longest wait in one go: how late the worker notices that it is to stop, and how often it gives a sign.
_BEAT_S = 0.2
#: How long a source that can tell may wait for something to come.
_FETCH_S = 1.0
#: Having brought nothing for so long a source is probed, once in so long.
_PROBE_S = 60.0
#: The wait after a first failure that may be over at once; so many in a row are no hiccup any more.
_FIRST_WAIT = 0.25
_HICCUPS = 4
#: A position that was committed so long ago is committed once more.
_KEEP_S = 30.0
#: What an event's headers may take, where the limit is for all of it.
_HEADERS = 1024
#: A fenced worker that still believes that it is its turn waits so long for the news before it tries again.
_STAND_DOWN_S = 3.0


def run_source(
    config: Config,
    worker_type: str,
    index: int,
    make: Callable[[Config], Source],
    stats: Child,
    should_stop: Callable[[], bool],
    is_paused: Callable[[], bool] = lambda: False,
) -> None:
    """Read a source whenever it is this host's turn, until told to stop."""

    def work(should_stop: Callable[[], bool]) -> None:
        lags = Lags(config, config.sources.pause_stages)
        source = make(config)
        with context(source=source.key):
            SourceRuntime(
                config,
                source=source,
                # Of the source, not of the host: whoever takes it over ends what a predecessor left open.
                transactor=Transactor(config, Names(config).group(worker_type), stats.beat),
                pressure=Pressure(config.sources, lags.ask),
                stats=stats,
                should_stop=should_stop,
                is_paused=is_paused,
            ).run()

    in_turn(config, worker_type, index, stats, should_stop, work, grouped=False)


class SourceRuntime:
    """One turn at a source. ``run()`` returns when it is over; the page in hand is committed by then."""

    def __init__(
        self,
        config: Config,
        *,
        source: Source,
        transactor: Transactor,
        pressure: Pressure,
        stats: Child,
        should_stop: Callable[[], bool],
        is_paused: Callable[[], bool] = lambda: False,
        read: Callable[[Config, str], bytes | None] = read_checkpoint,
    ) -> None:
        self._config = config
        self._key = source.key
        self._rest_s = source.pause_s
        self._transactor = transactor
        self._pressure = pressure
        self._stats = stats
        self._should_stop = should_stop
        self._is_paused = is_paused
        self._read = read
        self._asker = Asker(source)
        self._asked: Future[Answer] | None = None
        self._pause = Pause(config.retry, stats)
        self._gauges = SourceGauges(stats, pressure)
        self._position: bytes | None = None
        self._kept = time.monotonic()
        self._asked_at = 0.0
        self._due = 0.0
        self._hiccups = 0
        self._probe_due = time.monotonic() + _PROBE_S

    def run(self) -> None:
        """Read on from the position until the turn is over."""
        self._gauges.update()
        try:
            if self._transactor.begin_session(self._should_stop) and self._find_position():
                crashpoint(Point.POSITIONED)
                self._pressure.start()
                self._stats.ready()
                while not self._should_stop():
                    self._turn()
                crashpoint(Point.DRAINED)
        except (FencedError, UnavailableError) as error:
            # Another host was elected and this one hears of it now, or the brokers were away: a fenced one
            # may begin another turn, of its own or later. A client that is stuck needs a new process.
            if not self._turn_is_over() and not isinstance(error, FencedError):
                raise
            _logger.warning("its turn ends: %s", error)
        finally:
            self._pressure.close()
            self._asker.close()
            self._transactor.close()
            self._gauges.clear()

    def _find_position(self) -> bool:
        """Where the last committed page ended; False when told to stop before that was known."""
        reading: Future[bytes | None] | None = None
        while not self._should_stop():
            self._stats.beat()
            self._gauges.update()
            if self._pause.active:
                time.sleep(_BEAT_S / 2)
                continue
            reading = reading or self._asker.call(lambda: self._read(self._config, self._key))
            try:
                self._position = reading.result(_BEAT_S)
            except TimeoutError:
                continue
            except UnavailableError as error:
                reading = None
                self._pause.begin(DependencyError("kafka", f"the position is not known: {error}"))
                continue
            self._recovered()
            self._asker.resume(self._position)
            words = "from its beginning" if self._position is None else "on from where it was left"
            _logger.info("reads %s %s", self._key, words)
            return True
        return False

    def _turn(self) -> None:
        """Deal with what was asked for, if it is there within a moment; ask where nothing is asked for."""
        self._stats.beat()
        self._gauges.update()
        began = time.monotonic()
        if self._asked is not None:
            try:
                answer = self._asked.result(_BEAT_S)
            except TimeoutError:
                self._gauges.spent("idle", began)
                return
            self._asked = None
            self._gauges.spent("idle", began)
            self._take(answer)
        elif self._position is not None and began - self._kept > _KEEP_S:
            self._keep(self._position)
        elif self._pause.active or self._holds:
            time.sleep(_BEAT_S / 2)
            self._gauges.spent("paused", began)
        elif (wait := self._due - began) > 0:
            time.sleep(min(wait, _BEAT_S))
            self._gauges.spent("idle", began)
        else:
            self._ask()

    @property
    def _holds(self) -> bool:
        return self._pressure.holds or self._is_paused()

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        self._asked = self._asker.ask(_FETCH_S, probe=self._asked_at >= self._probe_due)

    def _take(self, answer: Answer) -> None:
        """Have a page committed while the next one is fetched, where there is a next one already."""
        self._gauges.asked(answer)
        if answer.error is not None:
            self._failed(answer.error)
            return
        self._due = self._asked_at + self._rest_s
        page = answer.page
        if page is None:
            self._recovered()
            if answer.probe is not None and not answer.probe.waiting:
                self._probe_due = time.monotonic() + _PROBE_S
            return
        crashpoint(Point.PAGED)
        if page.more:
            self._due = 0.0
        if self._due <= time.monotonic() and not self._holds and not self._should_stop():
            self._ask()
        began = time.monotonic()
        self._commit(page)
        self._gauges.spent("commit", began)

    def _commit(self, page: Page) -> None:
        """A page and the position behind it, all or nothing."""
        began = time.monotonic()
        try:
            self._transactor.run(self._outputs(page))
        except Aborted as aborted:
            self._stats.add(metrics.TRANSACTIONS, 1, "aborted")
            self._go_back()
            self._failed(
                self._too_large(page) or TransientError("aborted", f"nothing of the page counts: {aborted}")
            )
            return
        self._position = page.position
        self._kept = time.monotonic()
        self._recovered()
        self._gauges.committed(page, time.monotonic() - began)
        if page.outputs:
            self._probe_due = time.monotonic() + _PROBE_S
            self._pressure.brought()
        self._asker.committed(page)

    def _keep(self, position: bytes) -> None:
        """Commit the position once more: who is fenced, because it was set elsewhere, learns of it here.

        One that finds nothing to read, or that waits for an operator's decision, commits nothing else.
        """
        self._kept = time.monotonic()
        try:
            self._transactor.run([self._checkpoint(position)])
        except Aborted:
            self._stats.add(metrics.TRANSACTIONS, 1, "aborted")

    def _outputs(self, page: Page) -> Iterator[Output]:
        yield from page.outputs
        yield self._checkpoint(page.position)

    def _checkpoint(self, position: bytes) -> Output:
        return Output("checkpoints", self._key.encode(), position, [])

    def _too_large(self, page: Page) -> ConfigError | None:
        """The brokers take no message above the limit, however often it is tried."""
        largest = max((len(output.value) + len(output.key or b"") for output in page.outputs), default=0)
        limit = self._config.kafka.max_message_bytes
        if largest + _HEADERS <= limit:
            return None
        return ConfigError(
            f"an event of {largest} bytes does not fit kafka.max_message_bytes ({limit}), and nothing behind "
            "it is read. Raise the limit, and run `pipelinectl topics apply`"
        )

    def _go_back(self) -> None:
        """What was fetched beyond the last committed page is fetched again."""
        self._asked = None
        self._asker.resume(self._position)

    def _failed(self, error: Exception) -> None:
        """Wait a moment, or pause, as the error asks for."""
        if isinstance(error, ConfigError):
            told: RecordError = PermanentError("configuration", f"an operator has to act: {error}")
        elif isinstance(error, UnavailableError):
            told = DependencyError("unavailable", f"it cannot go on now: {error}")
        elif isinstance(error, RecordError):
            told = error
        else:
            _logger.error("unexpected error of the source %s", self._key, exc_info=error)
            told = BugError("bug", f"unexpected {type(error).__name__}: {error}")
        if isinstance(told, BugError):
            self._go_back()
        self._gauges.failed(told, refused=isinstance(error, ConfigError))
        now = time.monotonic()
        self._due = now + (told.retry_after or 0.0)
        if isinstance(told, TransientError):
            self._hiccups += 1
            if self._hiccups < _HICCUPS:
                wait = _FIRST_WAIT * 2 ** (self._hiccups - 1) * random.uniform(0.8, 1.2)
                self._due = max(self._due, now + wait)
                _logger.warning("tried again in %.1f s: %s", self._due - now, told, extra={"code": told.code})
                return
        self._pause.begin(told)

    def _recovered(self) -> None:
        """It works."""
        self._hiccups = 0
        self._pause.over()
        self._gauges.mended()

    def _turn_is_over(self) -> bool:
        """Whether the news come, within a moment, that it is to stop."""
        deadline = time.monotonic() + _STAND_DOWN_S
        while not (over := self._should_stop()) and time.monotonic() < deadline:
            self._stats.beat()
            time.sleep(0.1)
        return over

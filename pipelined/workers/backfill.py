"""The loop of a back-fill: a range of the Eventhouse's table onto ``events.raw``, beside the poller.

It holds itself back: it sends a page only while no stage is further behind than a live event may wait for.
The position behind a page is a record of the same transaction, under a key of the range. The transactional
id is the range's too, so that a second back-fill of it ends the first one.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar

import msgspec

from pipelined.config import Config
from pipelined.crashpoints import Point, crashpoint
from pipelined.errors import ConfigError, DependencyError, TransientError, UnavailableError
from pipelined.kafka.checkpoints import read_checkpoint
from pipelined.kafka.lag import INPUTS, Lags
from pipelined.kafka.transactions import Aborted, Transactor
from pipelined.messages.codec import iso_now, parse_time
from pipelined.sources.eventhouse.pages import Read
from pipelined.sources.eventhouse.position import Key
from pipelined.sources.eventhouse.range import Backfilled, Range, RangeReader
from pipelined.sources.eventhouse.rows import Row, output
from pipelined.stages.contract import Output
from pipelined.workers.pressure import Pressure
from pipelined.workers.stored import StoredEvents

__all__ = ["MOST_LAG", "Backfill", "Filled", "Teller"]

T = TypeVar("T")

#: Most records that any stage is behind while pages are sent: a tenth of a second of the ingester's work.
MOST_LAG = 5000
#: A larger page makes no back-fill quicker that waits for its turn, but a live event wait longer.
_PAGE_ROWS = 2000
#: Retried records wait on purpose.
_STAGES = tuple(stage for stage in INPUTS if stage != "retry-scheduler")
_BEAT_S = 0.2
#: The table is looked at again so often while it must not be asked yet.
_LOOK_S = 2.0
#: The waits after failures in a row.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_TRIES = 5
#: What an event's headers may take, where the limit is for all of it.
_HEADERS = 1024


@dataclasses.dataclass(slots=True)
class Filled:
    """What one run did: rows read, of which ``known`` stood in the table, behind the ``first`` of earlier
    runs. ``total`` are the rows of the range as first counted, None where they could not be.
    """

    first: int = 0
    rows: int = 0
    known: int = 0
    total: int | None = None
    complete: bool = False


class Teller(Protocol):
    """Who is told how it goes."""

    def progress(self, filled: Filled) -> None:
        """A page is committed, or work begins."""

    def waits(self, why: str) -> None:
        """Nothing is sent for now."""


class _Stopped(Exception):  # noqa: N818 - no error: it was told to stop
    pass


class Backfill:
    """One run over a range. ``rate`` bounds the rows a second, 0 does not.

    ``run`` raises FencedError when another run of the range took over, ConfigError and AuthError where
    an operator has to act, UnavailableError and DependencyError where something cannot be reached from the
    beginning: later it is tried again. What is committed by then is kept, and the next run goes on from
    there.
    """

    def __init__(
        self,
        config: Config,
        span: Range,
        teller: Teller,
        should_stop: Callable[[], bool],
        *,
        rate: float = 0.0,
        table_known: bool = True,
        most_lag: int = MOST_LAG,
    ) -> None:
        page = min(config.eventhouse.page_rows, _PAGE_ROWS)
        self._config = config
        self._teller = teller
        self._should_stop = should_stop
        self._rate = rate
        self._reader = RangeReader(config, span, min(page, max(2, round(rate))) if rate else page)
        self._key = self._reader.key
        self._way = ("backfill", str(span).encode())
        digest = hashlib.blake2b(self._key.encode(), digest_size=8).hexdigest()
        self._transactor = Transactor(config, f"{config.domain}.backfill.{digest}", lambda: None)
        limits = dataclasses.replace(config.sources, pause_lag=most_lag, resume_lag=most_lag // 2)
        self._pressure = Pressure(limits, Lags(config, _STAGES).ask)
        self._stored = StoredEvents(config, lambda why: self._hold(why, _LOOK_S)) if table_known else None
        self._filled = Filled()
        self._worked = False
        self._due = 0.0

    def run(self, *, restart: bool = False) -> Filled:
        """Send what is left of the range, or all of it again; returns when it is done, or told to stop."""
        try:
            if self._transactor.begin_session(self._should_stop):
                position = self._begin(restart)
                self._teller.progress(self._filled)
                if not position.done:
                    self._fill(position)
                self._filled.complete = True
        except _Stopped:
            pass
        finally:
            self._reader.close()
            self._transactor.close()
        return self._filled

    def _begin(self, restart: bool) -> Backfilled:
        value = None if restart else read_checkpoint(self._config, self._key)
        position = Backfilled() if value is None else Backfilled.read(value)
        if position.done:
            self._worked = True
        else:
            self._patiently(self._reader.check)
        if value is None:
            position = msgspec.structs.replace(position, total=self._count())
        self._filled.first, self._filled.total = position.rows, position.total
        return position

    def _count(self) -> int | None:
        try:
            return self._wait_for(self._start(self._reader.count))
        except TransientError:
            return None  # too many to be counted in time: only the estimate is lost

    def _fill(self, position: Backfilled) -> None:
        asked = self._start(self._reading(position.key))
        while not position.done:
            page = self._patiently(self._reading(position.key), asked)
            if not page.finished:
                asked = self._start(self._reading(page.key))  # while this one is sent
            crashpoint(Point.PAGED)
            # What is known is looked up last: it is good for a while only, and a wait may be long.
            self._throttle(len(page.rows))
            outputs, known = self._patiently(self._judging(page))
            position = msgspec.structs.replace(
                position,
                key=page.key,
                rows=position.rows + len(page.rows),
                known=position.known + known,
                done=page.finished,
                updated_at=iso_now(),
            )
            self._send(outputs, position)
            self._filled.rows += len(page.rows)
            self._filled.known += known
            self._teller.progress(self._filled)

    def _reading(self, key: Key | None) -> Callable[[], Read]:
        return lambda: self._reader.read(key)

    def _judging(self, page: Read) -> Callable[[], tuple[list[Output], int]]:
        return lambda: self._fresh(page.rows)

    def _fresh(self, rows: Sequence[Row]) -> tuple[list[Output], int]:
        """The events of these rows that are not in the table, and how many are."""
        outputs = [output(row) for row in rows]
        for each in outputs:  # as the poller would send it, but for the way by which it came
            each.headers.append(self._way)
        if self._stored is None:
            return outputs, 0
        known = self._stored.known([each.key for each in outputs], [_day(row[4]) for row in rows])
        return [each for each, is_known in zip(outputs, known, strict=True) if not is_known], sum(known)

    def _throttle(self, count: int) -> None:
        """Wait until the page may be sent: by the rate, and by how far behind the stages are."""
        self._rest(self._due - time.monotonic())
        if self._rate:
            self._due = max(self._due, time.monotonic()) + count / self._rate
        self._pressure.look()
        while self._pressure.holds:
            self._hold(self._pressure.why)
            self._pressure.look()

    def _send(self, outputs: list[Output], position: Backfilled) -> None:
        """The events and the position behind them, all or nothing."""
        checkpoint = Output("checkpoints", self._key.encode(), position.to_bytes(), [])
        for _ in range(_TRIES):
            if self._should_stop():
                raise _Stopped
            try:
                self._transactor.run([*outputs, checkpoint])
            except Aborted as aborted:
                self._check_size(outputs)
                self._teller.waits(f"{aborted}; trying again")
            else:
                return
        raise UnavailableError(
            f"Kafka does not take the events: {_TRIES} transactions were aborted; see the log of the brokers"
        )

    def _check_size(self, outputs: Sequence[Output]) -> None:
        largest = max((len(each.value) + len(each.key or b"") for each in outputs), default=0)
        limit = self._config.kafka.max_message_bytes
        if largest + _HEADERS > limit:
            raise ConfigError(
                f"an event of {largest} bytes does not fit kafka.max_message_bytes ({limit}). Raise it, run "
                "`pipelinectl topics apply`, and the same command goes on"
            )

    def _start(self, work: Callable[[], T]) -> Future[T]:
        """Begin this in a thread of its own: what does not answer must not be in the way of an end."""
        future: Future[T] = Future()

        def do() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                future.set_exception(error)

        threading.Thread(target=do, daemon=True).start()
        return future

    def _wait_for(self, future: Future[T]) -> T:
        while not self._should_stop():
            try:
                found = future.result(_BEAT_S)
            except TimeoutError:
                if future.done():
                    raise
            else:
                self._worked = True
                return found
        raise _Stopped

    def _patiently(self, work: Callable[[], T], begun: Future[T] | None = None) -> T:
        """What this comes to, ``begun`` or not; what may pass is tried again until it has passed."""
        wait = _FIRST_WAIT_S
        while True:
            try:
                return self._wait_for(begun or self._start(work))
            except (TransientError, DependencyError, UnavailableError) as error:
                if not self._worked and not isinstance(error, TransientError):
                    raise
                asked = error.retry_after if isinstance(error, TransientError) else None
                self._teller.waits(f"{error}; tried again")
                self._rest(max(wait, asked or 0.0))
                wait = min(2 * wait, _LONGEST_WAIT_S)
                begun = None

    def _hold(self, why: str, seconds: float = _BEAT_S) -> None:
        self._teller.waits(why)
        self._rest(seconds)

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._should_stop():
                raise _Stopped
            time.sleep(min(left, _BEAT_S))


def _day(moment: object) -> dt.date | None:
    """The event date that a row has in the table; None for one that will never be there."""
    if not isinstance(moment, str):
        return None
    try:
        return parse_time(moment).date()
    except (ValueError, OverflowError):
        return None

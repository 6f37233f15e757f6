"""A turn of a source in tests: the worker between a source and a ledger that a test holds in its hands."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import cast

from kafka_tools import Working
from pipelined.config.sources import Sources
from pipelined.config.tree import Config
from pipelined.config.work import Retry
from pipelined.kafka.transactions import Transactor
from pipelined.stages.contract import Output, Stream
from pipelined.stats.slots import Child
from pipelined.workers.pressure import Pressure
from pipelined.workers.source import SourceRuntime
from source_parts import Numbered
from waiting import until

CONFIG = Config(retry=Retry(pause_s=0.05))


class Ledger:
    """A transactor that keeps what was committed, and fails as it is told."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.position: bytes | None = None
        self.faults: deque[Exception] = deque()
        self.transactions = 0
        self.closed = False
        #: While it is cleared, a commit hangs.
        self.commits = threading.Event()
        self.commits.set()
        self.committing = 0

    def begin_session(self, should_stop: Callable[[], bool]) -> bool:
        return not should_stop()

    def run(self, outputs: Iterable[Output]) -> int:
        *rows, checkpoint = outputs
        self.committing += 1
        self.commits.wait()
        if self.faults:
            raise self.faults.popleft()
        assert {row.stream for row in rows} <= {Stream.RAW}
        assert (checkpoint.stream, checkpoint.key) == ("checkpoints", Numbered.key.encode())
        self.rows += [int(row.value) for row in rows]
        self.position = checkpoint.value
        self.transactions += 1
        return len(rows) + 1

    def close(self) -> None:
        self.closed = True


class Turn:
    """A source, a ledger, and the worker between them."""

    def __init__(self, count: int = 0, **more: float) -> None:
        self.count = count
        self.source = Numbered(lambda: self.count, page=10, pause_s=more.get("pause_s", 0.02))
        self.ledger = Ledger()
        self.lag = 0
        self.unread: deque[Exception] = deque()
        self.worker: Working | None = None

    def start(self) -> Working:
        def make(stats: Child, should_stop: Callable[[], bool]) -> SourceRuntime:
            settings = Sources(pause_lag=100, resume_lag=50, lag_seconds=0.01)
            return SourceRuntime(
                CONFIG,
                source=self.source,
                transactor=cast(Transactor, self.ledger),
                pressure=Pressure(settings, lambda: {"event-ingester": self.lag}),
                stats=stats,
                should_stop=should_stop,
                read=lambda config, key: self._read(),
            )

        self.worker = Working(make)
        return self.worker.ready()

    def _read(self) -> bytes | None:
        if self.unread:
            raise self.unread.popleft()
        return self.ledger.position

    def stop(self) -> None:
        assert self.worker is not None
        self.worker.stop()
        assert self.ledger.closed
        until(lambda: self.source.closed, "the source is given back")

    def all_there(self) -> bool:
        return self.ledger.rows == list(range(self.count))


@contextlib.contextmanager
def reading(turn: Turn) -> Iterator[Working]:
    """Its worker, ready, and stopped at the end."""
    yield turn.start()
    turn.source.answers.set()
    turn.ledger.commits.set()
    turn.stop()

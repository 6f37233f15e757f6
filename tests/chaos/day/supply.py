"""The sources of a day, fed: rows into the Eventhouse, messages into the Event Hub, whatever happens."""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Iterable, Sequence

from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.local.eventhouse.remote import Remote
from pipelined.local.hub_messages import HubWriter
from pipelined.local.table_rows import TableWriter, table_row
from pipelined.local.upstream import BOTH, EVENTHOUSE, EVENTHUB

__all__ = ["Supplies", "Supply"]

#: Of the lines, for each of two sources: those that only this one has.
_ONLY = 0.05
_JOIN_S = 120.0


class Supply(threading.Thread):
    """Feeds one source in its own time; ``error`` is what ended it.

    What was not acknowledged is handed over again: the source may then have it twice, and so has
    events.raw.
    """

    def __init__(self, name: str) -> None:
        super().__init__(daemon=True, name=f"supply-{name}")
        self.error: BaseException | None = None
        self._waiting: queue.SimpleQueue[Sequence[bytes] | None] = queue.SimpleQueue()

    def give(self, lines: Sequence[bytes]) -> None:
        """Have these lines fed, behind those given before."""
        self._waiting.put(lines)

    def run(self) -> None:
        """Feed, until ``finish``."""
        try:
            while (lines := self._waiting.get()) is not None:
                self.put(lines)
        except BaseException as error:  # noqa: BLE001 - told by whoever joins it
            self.error = error

    def put(self, lines: Sequence[bytes]) -> None:
        """Feed these now, and return when the source has them, however long it is away."""
        while True:
            with contextlib.suppress(UnavailableError):
                self._put(lines)
                return
            time.sleep(0.2)

    def finish(self) -> None:
        """Feed what was given, and end when the last of it can be read."""
        self._waiting.put(None)
        self.join(_JOIN_S)
        if self.error is not None:
            raise self.error
        if self.is_alive():
            raise UnavailableError(f"{self.name} did not end within {_JOIN_S:g} s: its source takes nothing")

    def _put(self, lines: Sequence[bytes]) -> None:
        raise NotImplementedError


class _Rows(Supply):
    def __init__(self, config: Config, rng: random.Random) -> None:
        super().__init__(EVENTHOUSE)
        where = config.eventhouse
        self._writer = TableWriter(Remote(where.url, where.database), where.table, rng)

    def _put(self, lines: Sequence[bytes]) -> None:
        self._writer.put([row for row in map(table_row, lines) if row is not None])

    def finish(self) -> None:
        """And until the rows that are late have turned up."""
        super().finish()
        time.sleep(max(0.0, self._writer.done_at - time.monotonic()))


class _Messages(Supply):
    def __init__(self, config: Config, rng: random.Random) -> None:
        super().__init__(EVENTHUB)
        self._writer = HubWriter(config)
        self._rng = rng

    def _put(self, lines: Sequence[bytes]) -> None:
        self._writer.put(self._rng.sample(lines, len(lines)))


class Supplies:
    """Those of a day from ``source``, one of ``upstream.SOURCES``; none where events come from files."""

    def __init__(self, source: str, config: Config, seed: int) -> None:
        kinds = {EVENTHOUSE: _Rows, EVENTHUB: _Messages}
        names = (EVENTHOUSE, EVENTHUB) if source == BOTH else (source,)
        self._rng = random.Random(f"{seed}/supplies")
        self._all = {
            name: kinds[name](config, random.Random(f"{seed}/{name}")) for name in names if name in kinds
        }

    def __bool__(self) -> bool:
        return bool(self._all)

    def start(self) -> None:
        """Begin to feed."""
        for supply in self._all.values():
            supply.start()

    def give(self, lines: Iterable[bytes]) -> None:
        """Have these fed: most to each source, a few to one of two alone."""
        shares: dict[str, list[bytes]] = {name: [] for name in self._all}
        for line in lines:
            draw, names = self._rng.random(), list(self._all)
            alone = int(draw / _ONLY)
            for name in [names[alone]] if len(names) > 1 and alone < len(names) else names:
                shares[name].append(line)
        for name, share in shares.items():
            self._all[name].give(share)

    def put(self, name: str, lines: Sequence[bytes]) -> None:
        """Feed these to that source at once; see ``Supply.put``."""
        self._all[name].put(lines)

    def finish(self) -> None:
        """Feed what was given, and end."""
        for supply in self._all.values():
            supply.finish()

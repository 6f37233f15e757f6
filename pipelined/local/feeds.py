"""What feeds a run: the lines of a file, into each of its sources, while the pipeline takes them out."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipelined.config.tree import Config
from pipelined.local.eventhouse.remote import Remote
from pipelined.local.hub_messages import HubWriter
from pipelined.local.table_rows import TableWriter, table_row
from pipelined.local.upstream import BOTH, EVENTHOUSE, EVENTHUB
from pipelined.sources.file import load_file

__all__ = ["Feed", "HubFeed", "TableFeed", "feeds_of", "share"]

#: Where both sources are fed: the share of the events that only one of them has, for each.
_ONLY = 0.05
#: Lines a second, unless that is over too soon to be watched.
_RATE = 1_500.0
_LEAST_S = 3.0
_LEAST_BATCHES = 12
_MOST_ROWS = 800
#: In the Event Hub the events of both are in another order: within so many.
_SHUFFLED = 400


class Feed(threading.Thread):
    """Feeds a file of JSON lines to the pipeline as it is; the others feed a source.

    ``error`` is what ended it, if anything did, ``left_out`` counts the lines that the source cannot hold.
    ``shared``: the other source is fed the same file, so that a few lines of it are in one of them only.
    """

    def __init__(self, config: Config, path: Path, seed: int = 0, *, shared: bool = False) -> None:
        super().__init__(daemon=True, name=type(self).__name__)
        self.error: BaseException | None = None
        self.left_out = 0
        self._config = config
        self._path = path
        self._seed = seed
        self._shared = shared

    def run(self) -> None:
        """Feed it, to the end."""
        try:
            self._feed()
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            self.error = error

    def _feed(self) -> None:
        load_file(self._config, str(self._path), restart=True)

    def _lines(self, name: str) -> Iterator[bytes]:
        return share(self._path, self._seed, name) if self._shared else _read(self._path)

    def _pace(
        self, lines: Iterator[bytes], rng: random.Random, put: Callable[[Sequence[bytes]], None]
    ) -> None:
        """Hand the lines over in batches of many sizes, spread over a time in which the pipeline works."""
        total = sum(1 for _ in _read(self._path))
        lasts = max(_LEAST_S, total / _RATE)
        most = max(1, min(_MOST_ROWS, 2 * total // _LEAST_BATCHES))
        began, given = time.monotonic(), 0
        while some := list(itertools.islice(lines, rng.randint(1, most))):
            put(some)
            given += len(some)
            time.sleep(max(0.0, began + lasts * given / total - time.monotonic()))


class TableFeed(Feed):
    """Feeds the table of the local Eventhouse; it ends when the last row can be polled."""

    def _feed(self) -> None:
        where, rng = self._config.eventhouse, random.Random(f"{self._seed}/{EVENTHOUSE}")
        writer = TableWriter(Remote(where.url, where.database), where.table, rng)

        def put(lines: Sequence[bytes]) -> None:
            rows = [row for row in map(table_row, lines) if row is not None]
            self.left_out += len(lines) - len(rows)
            writer.put(rows)

        self._pace(self._lines(EVENTHOUSE), rng, put)
        time.sleep(max(0.0, writer.done_at - time.monotonic()))


class HubFeed(Feed):
    """Feeds the local Event Hub, which holds every line."""

    def _feed(self) -> None:
        rng = random.Random(f"{self._seed}/{EVENTHUB}")
        lines = self._lines(EVENTHUB)
        self._pace(_shuffled(lines, rng) if self._shared else lines, rng, HubWriter(self._config).put)


def feeds_of(source: str, config: Config, path: Path, seed: int) -> list[Feed]:
    """The feeds of a run from this source (one of ``upstream.SOURCES``), not started."""
    fed: dict[str, list[type[Feed]]] = {
        EVENTHOUSE: [TableFeed],
        EVENTHUB: [HubFeed],
        BOTH: [TableFeed, HubFeed],
    }
    kinds = fed.get(source, [Feed])
    return [kind(config, path, seed, shared=len(kinds) > 1) for kind in kinds]


def share(path: Path, seed: int, name: str) -> Iterator[bytes]:
    """The lines that a source has where both are fed: most are in both, a few in one of them only."""
    rng = random.Random(f"{seed}/shares")
    for line in _read(path):
        draw = rng.random()
        only = EVENTHOUSE if draw < _ONLY else EVENTHUB if draw < 2 * _ONLY else name
        # A line that no table can hold is at least in the hub.
        if only == name or (name == EVENTHUB and table_row(line) is None):
            yield line


def _shuffled(lines: Iterator[bytes], rng: random.Random) -> Iterator[bytes]:
    while some := list(itertools.islice(lines, _SHUFFLED)):
        rng.shuffle(some)
        yield from some


def _read(path: Path) -> Iterator[bytes]:
    """The lines of a file without the blank ones."""
    with path.open("rb") as opened:
        for number, line in enumerate(opened):
            text = (line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line).rstrip(b"\r\n")
            if text.strip():
                yield text

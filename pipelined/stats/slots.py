"""The shared counters: one sealed memfd, one slot for each worker process, one writer for each page.

A slot is two pages: the child writes the first (its state and its metrics), the parent the second (what
the supervisor knows of it). Every value is an aligned 8-byte word, written by one native store through a
``memoryview`` cast, so that a reader never sees half of one; there is no lock that a killed process could
keep. Nothing is reset when a child restarts: its counters go on. Why: docs/why/counters.md.

A line of text is longer than a word. Before it stands a number that is odd while the text is written, and
another one afterwards, so that a reader sees the whole of it or looks again.
"""

from __future__ import annotations

import hashlib
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipelined.stats import registry
from pipelined.stats.memory import Memory
from pipelined.stats.parent import CHANGES, Parent, WorkerState
from pipelined.stats.registry import METRICS, Kind, Metric
from pipelined.stats.turns import Turns

__all__ = ["Child", "Parent", "SharedStats", "WorkerState"]

_PAGE = 4096
_WORDS = _PAGE // 8
_HEADER_WORDS = 16
#: The words, of 64 bits each, that say which partitions a worker has.
_HELD = range(8, 16)
_WORD = (1 << 64) - 1
#: The words of the header that tell of the supervisor's own loop.
_TURNS = range(16, 23)
#: Where the lines of text begin, after the metrics: the last error, and what the worker says.
_ERROR = 352
_TEXT = 448
_MAGIC = 0x70697065_6C696E65  # "pipeline"
#: To be counted up with each change of what a word of these pages means; the metrics have their own hash.
_LAYOUT = 1

_offsets: dict[str, int] = {}
_used = _HEADER_WORDS
for _metric in METRICS:
    _offsets[_metric.name] = _used
    _used += _metric.words
assert _used <= _ERROR, f"{_used} words of metrics do not fit the {_ERROR} before the text"


class _Line:
    """A line of text in the words from ``start`` to ``end`` of a page, cut where it is too long."""

    def __init__(self, page: memoryview, start: int, end: int) -> None:
        self._number = page[8 * start : 8 * start + 8].cast("Q")
        self._bytes = page[8 * (start + 1) : 8 * end]

    def mend(self) -> None:
        """A predecessor may have died while it wrote: half a line is none, and the next can be read."""
        if self._number[0] % 2:
            self._bytes[:] = bytes(len(self._bytes))
            self._number[0] += 1

    def write(self, text: str) -> None:
        size = len(self._bytes)
        self._number[0] += 1
        self._bytes[:] = text.encode(errors="replace")[:size].ljust(size, b"\0")
        self._number[0] += 1

    def read(self) -> str:
        """The line; "" also where its writer died while it wrote."""
        for _ in range(100):
            before, text = self._number[0], bytes(self._bytes)
            if before % 2 == 0 and self._number[0] == before:
                return text.rstrip(b"\0").decode(errors="ignore")
        return ""


class Child:
    """The page that the worker itself writes. One writer: the worker's main thread."""

    def __init__(self, page: memoryview) -> None:
        self._words = page.cast("Q")
        self._floats = page.cast("d")
        self._error = _Line(page, _ERROR, _TEXT)
        self._text = _Line(page, _TEXT, _WORDS)
        self._said = ""

    def _wipe(self) -> None:
        """What was of the process before goes; its counters and its last error stay."""
        words = self._words
        for metric in METRICS:
            if metric.kind is Kind.GAUGE:
                words[_offsets[metric.name]] = 0
        words[5] = words[3] = 0
        self.hold(())
        self._error.mend()
        self._text.mend()
        self._said = ""
        self._text.write("")

    def forget(self) -> None:
        """There is no process of this daemon here yet."""
        words = self._words
        self._wipe()
        words[0] = words[2] = words[4] = 0
        words[6] = words[1]

    def begin(self, pid: int) -> None:
        """A process takes the slot over: gauges start at zero, counters go on."""
        words = self._words
        self._wipe()
        words[2] = time.monotonic_ns()
        words[1] += 1
        self.beat()
        words[0] = pid  # last: from now on the parent takes all of it for this process's

    def beat(self) -> None:
        """The work loop is alive now."""
        self._words[4] = time.monotonic_ns()

    def ready(self) -> None:
        """The worker has all it needs and works."""
        self._words[3] = 1

    def publish(self, number: int) -> None:
        """One number of the worker's own for the status, such as the port it listens on."""
        self._words[5] = number

    def say(self, text: str) -> None:
        """One line for the status, cut where it is too long: what the worker does, or what keeps it."""
        if text != self._said:
            self._said = text
            self._text.write(text)

    @property
    def says(self) -> str:
        """What the worker last said; "" also where it died while it spoke."""
        return self._text.read()

    def failed(self, text: str) -> None:
        """Note the last error, in words. It outlives the process: the next one does not take it away."""
        self._error.write(f"{time.time():.3f} {text}")

    @property
    def last_error(self) -> tuple[float, str]:
        """When something last failed, in epoch seconds, and what; (0.0, "") where nothing ever has."""
        when, _, text = self._error.read().partition(" ")
        return (float(when), text) if when else (0.0, "")

    def hold(self, partitions: Iterable[int]) -> None:
        """The numbers of the partitions of its input that the worker has now, as far as 511."""
        bits = 0
        for number in partitions:
            bits |= 1 << number
        for word in _HELD:
            self._words[word] = bits & _WORD
            bits >>= 64

    @property
    def held(self) -> list[int]:
        """The partitions that the worker said it has, ascending."""
        return [
            64 * index + bit
            for index, word in enumerate(_HELD)
            if (bits := self._words[word])
            for bit in range(64)
            if bits >> bit & 1
        ]

    @property
    def pid(self) -> int:
        """The process that last took the slot."""
        return self._words[0]

    @property
    def generation(self) -> int:
        """How many processes of this daemon have taken this slot so far."""
        return self._words[1] - self._words[6]

    @property
    def starts(self) -> int:
        """How many have in all, also of the daemons before it whose counters go on."""
        return self._words[1]

    @property
    def started_ns(self) -> int:
        """When the present process began, on the monotonic clock."""
        return self._words[2]

    @property
    def is_ready(self) -> bool:
        """Whether the worker said that it is ready."""
        return self._words[3] == 1

    @property
    def heartbeat_ns(self) -> int:
        """The last beat, on the monotonic clock."""
        return self._words[4]

    @property
    def silent_s(self) -> float:
        """How long ago the last beat was."""
        return (time.monotonic_ns() - self.heartbeat_ns) / 1e9

    @property
    def published(self) -> int:
        """What the worker published."""
        return self._words[5]

    def add(self, metric: Metric, amount: int = 1, value: str = "") -> None:
        """Add to a counter; ``value`` is the value of its label, if it has one."""
        index = _offsets[metric.name]
        if metric.values:
            index += metric.values.index(value)
        self._words[index] += amount

    def set(self, metric: Metric, amount: float) -> None:
        """Set a gauge."""
        self._floats[_offsets[metric.name]] = amount

    def observe(self, metric: Metric, amount: float, times: int = 1) -> None:
        """Count ``times`` observations of ``amount`` in a histogram."""
        index = _offsets[metric.name]
        self._floats[index] += amount * times
        self._words[index + 1 + bisect_left(metric.buckets, amount)] += times

    def counter(self, metric: Metric, value: str = "") -> int:
        """Read a counter."""
        index = _offsets[metric.name]
        if metric.values:
            index += metric.values.index(value)
        return self._words[index]

    def gauge(self, metric: Metric) -> float:
        """Read a gauge."""
        return self._floats[_offsets[metric.name]]

    def histogram(self, metric: Metric) -> tuple[float, list[int]]:
        """Read a histogram: its sum, and its buckets, each by itself, the last one unbounded."""
        index = _offsets[metric.name]
        return self._floats[index], list(self._words[index + 1 : index + metric.words])


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker process's place: its type and index, and its two pages."""

    worker: str
    index: int
    child: Child
    parent: Parent


class SharedStats:
    """The memory itself, made by the parent before it forks and inherited by every child.

    ``workers`` gives the number of workers of each type to begin with; there is room for ``room`` of each
    type, or for as many as it begins with. What nobody writes to takes no memory.

    ``before`` is the descriptor of the memory of a daemon before this one; it is closed. Where that has the
    same metrics and the same room it is gone on with: its counters, last errors and totals stand, and what
    was of its processes is wiped out. ``keep`` is called with the descriptor of a memory that is new.
    """

    def __init__(
        self,
        workers: dict[str, int],
        room: int = 0,
        *,
        before: int | None = None,
        keep: Callable[[int], None] | None = None,
    ) -> None:
        self._room = {worker: max(processes, room) for worker, processes in workers.items()}
        count = sum(self._room.values())
        size = _PAGE * (1 + 2 * count)
        head = (_MAGIC, registry.schema_hash(), count, self._layout())
        memory = Memory(size, head, before, keep)
        #: Why the memory of the daemon before is not gone on with; "" where it is, or where there was none.
        self.unfit = memory.unfit
        self._header = memory.view[:_PAGE].cast("Q")
        for word in range(len(head), _TURNS.start):
            self._header[word] = 0
        #: Of the supervisor's loop.
        self.turns = Turns(self._header[_TURNS.start : _TURNS.stop])
        self.turns.begin()
        self.started = time.time()
        self._places: dict[tuple[str, int], Slot] = {}
        self._slots: list[Slot] = []
        self._seen = 0
        position = _PAGE
        for worker, places in self._room.items():
            for index in range(places):
                child = Child(memory.view[position : position + _PAGE])
                page = memory.view[position + _PAGE : position + 2 * _PAGE]
                parent = Parent(page, self._header)
                self._places[worker, index] = Slot(worker, index, child, parent)
                if memory.goes_on and parent.used:
                    parent.inherit()
                    child.forget()
                    parent.vacate()
                if index < workers[worker]:
                    parent.occupy()
                position += 2 * _PAGE

    @property
    def slots(self) -> list[Slot]:
        """Those of the workers that there are now, by type and index; the same in every process."""
        changes = self._header[CHANGES]
        if changes != self._seen:
            self._slots = [slot for slot in self._places.values() if slot.parent.occupied]
            self._seen = changes
        return self._slots

    def slot(self, worker: str, index: int) -> Slot:
        """The slot of one worker process, there or not; raises KeyError where there is no room for it."""
        return self._places[worker, index]

    def room(self, worker: str) -> int:
        """How many workers of a type there may be."""
        return self._room[worker]

    def _layout(self) -> int:
        """A number for what stands where beside the metrics: the types of workers and the room of each."""
        text = f"{_LAYOUT} {_HEADER_WORDS} {_ERROR} {_TEXT} {self._room}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

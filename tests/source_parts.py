"""A source that a test holds in its hands: numbered rows, as many as it is told, and faults to order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from pipelined.sources.contract import Facts, Page, Probe
from pipelined.stages.contract import Output, Stream


class Numbered:
    """The rows 0, 1, 2 … up to what ``count`` says, in pages; the position is the next number."""

    name = "eventhouse"
    key = "eventhouse:test"

    def __init__(self, count: Callable[[], int], *, page: int = 10, pause_s: float = 0.02) -> None:
        self.pause_s = pause_s
        self.next = 0
        self.resumed: list[bytes | None] = []
        self.told: list[bytes] = []
        self.fetches: list[float] = []
        self.probes = 0
        self.threads: set[int] = set()
        self.closed = False
        #: What the next fetches raise, in turn; the next resumes.
        self.faults: deque[Exception] = deque()
        self.resume_faults: deque[Exception] = deque()
        #: While it is cleared, a fetch hangs.
        self.answers = threading.Event()
        self.answers.set()
        self.facts_now = Facts()
        self.waiting = False
        self._count = count
        self._page = page

    def resume(self, position: bytes | None) -> None:
        self._called()
        if self.resume_faults:
            raise self.resume_faults.popleft()
        self.resumed.append(position)
        self.next = int(position or 0)

    def fetch(self, timeout: float) -> Page | None:
        self._called()
        assert self.resumed, "resume comes first"
        self.fetches.append(time.monotonic())
        self.answers.wait()
        if self.faults:
            raise self.faults.popleft()
        count = self._count()
        end = min(self.next + self._page, count)
        if self.next >= end:
            if not self.pause_s:
                time.sleep(min(timeout, 0.02))
            return None
        source = self.name.encode()
        rows = [
            Output(Stream.RAW, b"k%d" % number, b"%d" % number, [("source", source)])
            for number in range(self.next, end)
        ]
        self.next = end
        return Page(rows, b"%d" % end, 1_000_000.0 + end, end < count)

    def committed(self, page: Page) -> None:
        self._called()
        self.told.append(page.position)

    def probe(self) -> Probe:
        self._called()
        self.probes += 1
        return Probe(self.waiting, self.facts_now.now)

    def facts(self) -> Facts:
        self._called()
        return self.facts_now

    def close(self) -> None:
        self._called()
        self.closed = True

    def _called(self) -> None:
        assert not self.closed, "nothing is asked of a closed source"
        self.threads.add(threading.get_ident())

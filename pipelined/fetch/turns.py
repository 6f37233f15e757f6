"""Who begins next: a queue for each host, so that one that is slow or dead holds up nobody else.

For ``places`` transfers at once, and ``share`` of them (S places):

* A free place goes to the host that holds the fewest, so hosts that wait at the same time come to hold as
  many places each, however long their transfers take. Taking turns would not do: the slow would end up with
  all places. A host's own jobs begin in the order they came.
* A host that answers may hold every place, its slow transfers not counted as long as these are few; most
  often there is only one host. One of which no transfer ended
  quickly of late, or with S slow ones, may hold S, for it is new, overloaded or dead, and others may come;
  and beside them the spare ones that nobody else needs.
* A transfer under way for longer than ``SLOW_S`` is slow, and gives its place back: there are S spare ones
  for such. So a host that held all the places when it fell silent leaves S of them to the others a moment
  later, and a large file takes no place from small ones.
* What would wait here for longer than it takes to come back from the first retry tier need not fill the
  window, behind which other hosts' jobs may be: it is handed out as ``surplus``.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["SLOW_S", "Turns"]

T = TypeVar("T")

#: A transfer that takes longer is slow; an answer that is older says nothing of the host any more.
SLOW_S = 2.0
#: Hosts remembered at most; beyond it those with nothing to do are forgotten.
_HOSTS = 10_000


class _Host(Generic[T]):
    """One host: what waits for it, when its transfers began, how long they take, when one last was quick."""

    __slots__ = ("begun", "quick_at", "slow", "took", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[T] = deque()
        self.begun: dict[int, float] = {}
        self.slow = 0
        self.took = 0.0
        self.quick_at = float("-inf")


class Turns(Generic[T]):
    """The jobs that wait, and the places that are held, by host. ``len()`` counts those that wait.

    ``window`` is how many jobs there may be at once, ``elsewhere_s`` how long one is away that is put off;
    None where there is no such place.
    """

    def __init__(
        self,
        places: int,
        share: float,
        *,
        window: int,
        elsewhere_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = places
        self._some = math.ceil(places * share)
        self._room = int(window * share)
        self._elsewhere = elsewhere_s
        self._clock = clock
        self._hosts: dict[str, _Host[T]] = {}
        self._order: deque[_Host[T]] = deque()  # those for which something waits
        self._quick: dict[int, _Host[T]] = {}  # what is under way, in the order it began
        self._slow: dict[int, _Host[T]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def most(self) -> int:
        """How many transfers there may be at once, the slow ones included."""
        return self._places + self._some

    def add(self, name: str, job: T) -> None:
        """A job for this host waits from now on."""
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) >= _HOSTS:
                self._hosts = {n: h for n, h in self._hosts.items() if h.waiting or h.begun}
            host = self._hosts[name] = _Host()
        if not host.waiting:
            self._order.append(host)
        host.waiting.append(job)
        self._size += 1

    def next(self) -> T | None:
        """The job that may begin now, None where there is none. Tell when it has ``begun``."""
        if not self._size:
            return None
        now = self._clock()
        self._age(now)
        if len(self._quick) + max(0, len(self._slow) - self._some) >= self._places:
            return None
        order, best = self._order, None
        for _ in range(len(order)):
            host = order[0]
            order.rotate(-1)
            held = len(host.begun)
            if held < self._limit(host, now) and (best is None or held < len(best.begun)):
                best = host
                if not held:
                    break  # as few hosts hold a place, few are looked at
        if best is None:
            return None
        self._size -= 1
        job = best.waiting.popleft()
        if not best.waiting:
            order.remove(best)
        return job

    def begun(self, name: str, number: int) -> None:
        """A transfer of this host holds a place until it ended; its number has not been used before."""
        host = self._hosts[name]
        host.begun[number] = self._clock()
        self._quick[number] = host

    def ended(self, number: int, *, cancelled: bool = False) -> None:
        """A transfer ended, well or not: its place is free. One that was ``cancelled`` says nothing."""
        host = self._quick.pop(number, None)
        if host is None:
            host = self._slow.pop(number)
            host.slow -= 1
        now = self._clock()
        seconds = now - host.begun.pop(number)
        if not cancelled:
            host.took += (seconds - host.took) / 8  # of the last few, on the average
            if seconds < SLOW_S:
                host.quick_at = now

    def surplus(self) -> Iterator[T]:
        """Jobs that would begin here later than after their time in the first retry tier; the newest first.

        Only of hosts that are slow, and only what fills more than its share of the window.
        """
        if self._elsewhere is None or self._size <= self._room:
            return
        now = self._clock()
        self._age(now)
        for host in set(self._slow.values()):
            if host.slow < self._some:
                continue
            held = len(host.begun)
            age = now - sum(host.begun.values()) / held  # where none ever ends, they become ever older
            enough = max(self._room, int(self._elsewhere * held / max(host.took, age)))
            while len(host.waiting) > enough:
                self._size -= 1
                yield host.waiting.pop()

    def drop(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Let go of waiting jobs, and return them."""
        dropped: list[T] = []
        for host in self._order:
            waiting, host.waiting = host.waiting, deque()
            for job in waiting:
                (dropped if unwanted(job) else host.waiting).append(job)
        self._order = deque(host for host in self._order if host.waiting)
        self._size -= len(dropped)
        return dropped

    def _limit(self, host: _Host[T], now: float) -> int:
        if now - host.quick_at < SLOW_S and host.slow < self._some:
            return self._places + min(host.slow, self._some // 2)
        others = len(self._slow) - host.slow
        return min(self._places, self._some + max(0, min(host.slow, self._some - others)))

    def _age(self, now: float) -> None:
        """What has been under way for long is slow from now on."""
        while self._quick:
            number, host = next(iter(self._quick.items()))
            if now - host.begun[number] < SLOW_S:
                return
            del self._quick[number]
            self._slow[number] = host
            host.slow += 1

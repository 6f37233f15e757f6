"""The plan of a day: which faults, on what, when. A function of its arguments, the seed above all.

Two tracks run side by side: kills, one after the other, each followed until its work moves again; and
troubles, faults that last for a while, into which the kills fall.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flow import RUNNING
from pipelined.local.upstream import BOTH, EVENTHOUSE, EVENTHUB, FILE

__all__ = ["ABOUT", "KILLS", "RATE", "READERS", "SESSION_S", "TROUBLES", "Plan", "Step", "draw"]

#: The session and transaction timeout of a day's hosts, as in `make run`.
SESSION_S = 10.0
#: Kind of kill → what it is, and its cards in the deck: with one broker, with three.
KILLS: Mapping[str, tuple[str, int, int]] = {
    "worker": ("SIGKILL of a worker", 14, 14),
    "workers": ("SIGKILL of two workers at the same moment", 2, 2),
    "parent": ("SIGKILL of the parent, started again at once", 2, 2),
    "broker": ("SIGKILL of a broker, started again after a while", 2, 3),
    "brokers": ("SIGKILL of two of the three brokers, both started again after a while", 0, 1),
    "host": ("SIGKILL of a whole host, away for longer than the session timeout", 1, 1),
    "eventhouse": ("SIGKILL of the Eventhouse, started again after a while", 3, 3),
    "hub": ("SIGKILL of the Event Hub, started again after a while", 3, 3),
}
#: Kind of trouble → what it is, its cards in the deck, and how long it lasts: at least, at most.
TROUBLES: Mapping[str, tuple[str, int, float, float]] = {
    "zombie": ("SIGSTOP of a worker for longer than the session timeout, then SIGCONT", 4, 11.0, 18.0),
    "storm": ("a worker type stopped and started by the operator, several times", 3, 0.1, 2.0),
    "leave": ("a host stopped by the operator, and started again", 2, 0.5, 9.0),
    "broker_restart": ("a broker stopped cleanly, and started again", 2, 0.0, 4.0),
    "broker_freeze": ("SIGSTOP of a broker, then SIGCONT", 2, 0.5, 5.0),
    "disk_cache": ("the disk full under the cache folder of a host", 1, 2.0, 6.0),
    "disk_tables": ("the disk full under the tables", 1, 2.0, 6.0),
    "disk_log": ("the disk full under the log of a host", 1, 2.0, 6.0),
    "files_stall": ("the whole file server silent, its connections open", 2, 1.0, 6.0),
    "files_cut": ("the file server killed in the middle of its transfers, and started again", 2, 0.0, 3.0),
    "loader": (
        "SIGKILL of `pipelinectl load` in the middle of a file, then the same command again",
        2,
        0.4,
        1.5,
    ),
    "clock": ("the clock of a host moved, and back", 2, 3.0, 12.0),
    "grow": (
        "more partitions for a topic of the downloads, the hosts restarted one after another",
        1,
        0.0,
        5.0,
    ),
    "answers": ("answers of the Eventhouse that are none: refused, cut, hanging, half an error", 5, 1.0, 6.0),
    "limits": ("an Eventhouse that cuts answers at a few rows", 2, 2.0, 6.0),
    "eventhouse_freeze": ("SIGSTOP of the Eventhouse, then SIGCONT", 2, 0.5, 6.0),
    "hub_restart": ("the Event Hub stopped cleanly, and started again", 2, 0.0, 4.0),
    "hub_freeze": ("SIGSTOP of the Event Hub, then SIGCONT", 2, 0.5, 6.0),
}
#: The source that a kind is about; the others are about what there always is.
ABOUT: Mapping[str, str] = {
    "eventhouse": EVENTHOUSE,
    "hub": EVENTHUB,
    "answers": EVENTHOUSE,
    "limits": EVENTHOUSE,
    "eventhouse_freeze": EVENTHOUSE,
    "hub_restart": EVENTHUB,
    "hub_freeze": EVENTHUB,
}
#: The workers that a source has beside those that always run.
READERS: Mapping[str, tuple[str, ...]] = {
    FILE: (),
    EVENTHOUSE: ("eventhouse-poller",),
    EVENTHUB: ("eventhub-reader",),
    BOTH: ("eventhouse-poller", "eventhub-reader"),
}
#: Answers of the Eventhouse, as the local one names its faults.
ANSWERS = (
    "throttled",
    "unauthorized",
    "cut",
    "short",
    "error-in-rows",
    "error-at-end",
    "partial",
    "login-page",
    "reset",
    "hang",
    "unavailable",
    "internal",
)
#: Events a second: what 200,000 in half an hour take, and some more for what outages cost.
RATE = 120.0
#: Seconds from one kill to the next, and from one trouble to the next: at least, at most.
KILL_GAP = (4.0, 9.0)
TROUBLE_GAP = (8.0, 20.0)
#: Nothing begins so soon after the start, nor so shortly before the end.
QUIET_BEGIN, QUIET_END = 4.0, 5.0
#: The topics that may grow, and to how many partitions.
GROWING = ("downloads_pending", "downloads_cached", "downloads_results")
MOST_PARTITIONS = 8
PARTITIONS = 3
#: How long a host's workers may be silent before its supervisor takes them for hung: shorter than the
#: longest SIGSTOP, so that it kills some, and much longer, so that others wake up as zombies.
HANGS = (13.0, 60.0)
#: How far a clock is moved, in seconds.
CLOCK_STEPS = (-1800.0, -600.0, -60.0, -5.0, 5.0, 60.0, 600.0, 1800.0)


@dataclass(frozen=True, slots=True)
class Step:
    """One fault, ``at`` seconds after the beginning. What does not concern its kind has its default."""

    number: int
    at: float
    track: str
    kind: str
    host: int = 0
    workers: tuple[str, ...] = ()
    brokers: tuple[int, ...] = ()
    seconds: float = 0.0
    times: int = 1
    topic: str = ""
    size: float = 0.0
    answer: str = ""

    def __str__(self) -> str:
        parts = []
        if self.workers:
            parts.append("+".join(self.workers))
        if self.brokers:
            parts.append("broker " + "+".join(map(str, self.brokers)))
        elif self.kind not in (*ABOUT, "disk_tables", "files_stall", "files_cut", "grow", "loader"):
            parts.append(f"host {self.host}")
        if self.answer:
            parts.append(self.answer)
        if self.topic:
            parts.append(f"{self.topic} to {self.size:g}")
        elif self.kind == "limits":
            parts.append(f"{self.size:g} rows")
        elif self.size:
            parts.append(f"by {self.size:+g} s")
        if self.seconds:
            parts.append(f"{self.seconds:.1f} s")
        if self.times > 1:
            parts.append(f"{self.times} times")
        return f"{self.at:7.1f} s  {self.kind}" + (f": {', '.join(parts)}" if parts else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole day: its arguments and its steps, by their time. ``source`` is one of ``upstream.SOURCES``.

    ``rate`` is in events a second, ``hang_s`` by host and worker type.
    """

    seed: int
    minutes: float
    brokers: int
    hosts: int
    rate: float
    steps: tuple[Step, ...]
    hang_s: tuple[Mapping[str, float], ...]
    source: str = FILE

    def track(self, name: str) -> list[Step]:
        """The steps of one track."""
        return [step for step in self.steps if step.track == name]

    @property
    def command(self) -> str:
        """What repeats this day."""
        source = "" if self.source == FILE else f" SOURCE={self.source}"
        return (
            f"make chaos MINUTES={self.minutes:g} SEED={self.seed} BROKERS={self.brokers} "
            f"HOSTS={self.hosts}{source}"
        )


def draw(seed: int, minutes: float, brokers: int, hosts: int, rate: float = RATE, source: str = FILE) -> Plan:
    """The plan of these arguments: the same for the same ones. The rate changes nothing in it."""
    rng = random.Random(f"{seed}/{brokers}/{hosts}" + ("" if source == FILE else f"/{source}"))
    running = (*READERS[source], *RUNNING)
    hangs = tuple({name: rng.choice(HANGS) for name in running} for _ in range(hosts))
    dealer = _Dealer(rng, brokers, hosts, source)
    end = 60.0 * minutes - QUIET_END
    steps = [*dealer.kills(end), *dealer.troubles(end)]
    steps.sort(key=lambda step: (step.at, step.track))
    numbered = (_renumbered(step, number) for number, step in enumerate(steps, 1))
    return Plan(seed, minutes, brokers, hosts, rate, tuple(numbered), hangs, source)


def _renumbered(step: Step, number: int) -> Step:
    values = {name: getattr(step, name) for name in step.__slots__}
    return Step(**values | {"number": number})


class _Dealer:
    """Deals the steps. Decks instead of dice: what is rare comes all the same, and short days are varied.

    Each track has dice of its own, so that a longer day begins as a shorter one does.
    """

    def __init__(self, rng: random.Random, brokers: int, hosts: int, source: str) -> None:
        self._kill_rng, self._trouble_rng = random.Random(rng.random()), random.Random(rng.random())
        self._brokers = brokers
        self._hosts = hosts
        self._source = source
        self._running = (*READERS[source], *RUNNING)
        self._partitions = dict.fromkeys(GROWING, PARTITIONS)

    def _possible(self, cards: Iterable[str]) -> list[str]:
        """Those that are about what this day has."""
        here = (EVENTHOUSE, EVENTHUB) if self._source == BOTH else (self._source,)
        return [kind for kind in cards if kind not in ABOUT or ABOUT[kind] in here]

    def kills(self, end: float) -> Iterator[Step]:
        rng = self._kill_rng
        three = self._brokers == 3
        cards = [kind for kind, (_, one, many) in KILLS.items() for _ in range(many if three else one)]
        cards = self._possible(cards)
        if self._hosts == 1:
            cards = [kind for kind in cards if kind != "host"]
        kinds, names = _deck(rng, cards), _deck(rng, self._running)
        at = QUIET_BEGIN
        while (at := at + rng.uniform(*KILL_GAP)) < end:
            kind, host = next(kinds), rng.randrange(self._hosts)
            brokers: tuple[int, ...] = ()
            seconds = 0.0
            if kind in ("broker", "brokers"):
                count = 2 if kind == "brokers" else 1
                brokers = tuple(sorted(rng.sample(range(self._brokers), count)))
                seconds = round(rng.choice((0.0, rng.uniform(0.5, 4.0))), 2)
            elif kind in ABOUT:
                seconds = round(rng.choice((0.0, rng.uniform(0.5, 6.0))), 2)
            elif kind == "host":
                seconds = round(SESSION_S + rng.uniform(1.0, 4.0), 2)
            workers = tuple(next(names) for _ in range({"worker": 1, "workers": 2}.get(kind, 0)))
            if len(set(workers)) < len(workers):
                workers = (workers[0], next(names))
            yield Step(0, round(at, 2), "kill", kind, host, tuple(dict.fromkeys(workers)), brokers, seconds)

    def troubles(self, end: float) -> Iterator[Step]:
        rng = self._trouble_rng
        cards = [kind for kind, (_, count, _, _) in TROUBLES.items() for _ in range(count)]
        cards = self._possible(cards)
        if self._hosts == 1:
            cards = [kind for kind in cards if kind != "leave"]
        kinds = _deck(rng, cards)
        at = QUIET_BEGIN / 2
        while (at := at + rng.uniform(*TROUBLE_GAP)) < end:
            kind = next(kinds)
            seconds = round(rng.uniform(*TROUBLES[kind][2:]), 2)
            host = rng.randrange(self._hosts)
            name = rng.choice([name for name in self._running if name != "endpoint"])
            broker, times = rng.randrange(self._brokers), rng.randint(2, 3)
            topic, more, step = rng.choice(GROWING), rng.randint(1, 2), rng.choice(CLOCK_STEPS)
            size = 0.0
            if kind == "grow":
                self._partitions[topic] = min(MOST_PARTITIONS, self._partitions[topic] + more)
                size = self._partitions[topic]
            elif kind == "clock":
                size = step
            elif kind == "limits":
                size = rng.choice((1, 20, 300))
            answer = rng.choice(ANSWERS) if kind == "answers" else ""
            yield Step(
                0,
                round(at, 2),
                "trouble",
                kind,
                host,
                (name,) if kind in ("zombie", "storm") else (),
                (broker,) if kind.startswith("broker") else (),
                seconds,
                times if kind == "storm" else 1,
                topic if kind == "grow" else "",
                size,
                answer,
            )


def _deck(rng: random.Random, cards: Sequence[str]) -> Iterator[str]:
    """The cards in a random order, and then again in another one."""
    while True:
        yield from rng.sample(cards, len(cards))

"""What a source is: pages of events, each with the position behind it, and nothing known of our Kafka.

The runtime (``workers.source``) and every source keep this contract:

* ``resume(position)`` sets the source to a position that was committed, or to its configured beginning
  where there is none (None). It is called first, and again after a page was not committed.
* ``fetch(timeout)`` returns the next page behind the last one it returned, committed or not, or None where
  there is nothing new; it waits for at most about ``timeout`` seconds for something to come where the
  source can tell, and as long as one query may take otherwise. Called by one thread at a time, not always
  the same. Raises TransientError (again soon), AuthError and DependencyError (after a pause; the position
  stays), ConfigError (an operator has to decide or mend something: the worker says so and waits), BugError.
* ``committed(page)`` tells that the page and its position are durable.
* ``probe()`` asks cheaply whether anything is waiting behind the position: what tells quiet from broken.
* ``close()`` gives everything back.

A page is produced and its position committed in one transaction: events are never dropped by a source,
and what it cannot make sense of it hands on as it came, for the ingester to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipelined.stages.contract import Output

__all__ = ["Page", "Probe", "Source"]


@dataclass(frozen=True, slots=True)
class Page:
    """Events for ``events.raw`` and the position behind them.

    ``outputs`` may be empty: the position moved all the same. ``reached`` is the position as a time
    (seconds since the epoch): what came to the source until then is taken; None where it cannot tell.
    ``more``: the next fetch finds something at once.
    """

    outputs: Sequence[Output]
    position: bytes
    reached: float | None
    more: bool


class Probe(NamedTuple):
    """``waiting``: something lies behind the position. ``now``: the source's own clock, None if untold."""

    waiting: bool
    now: float | None


class Source(Protocol):
    """The contract in the module's text.

    ``name`` is the ``source`` header of its events (eventhouse, eventhub); ``key`` is the key of its
    position on the checkpoints topic, and names the very table or hub, so that another one begins anew.
    ``pause_s`` is how long to rest when a fetch found nothing: 0 where ``fetch`` itself waits.
    """

    name: str
    key: str
    pause_s: float

    def resume(self, position: bytes | None) -> None:
        """Go on behind this position, or begin."""

    def fetch(self, timeout: float) -> Page | None:
        """The next page, or None."""

    def committed(self, page: Page) -> None:
        """The page is durable."""

    def probe(self) -> Probe:
        """Whether anything is waiting behind the position."""

    def close(self) -> None:
        """Give everything back."""

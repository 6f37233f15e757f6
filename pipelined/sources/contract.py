"""What a source is: pages of events, each with the position behind it, and nothing known of our Kafka.

The runtime (``workers.source``) and every source keep this contract:

* ``resume(position)`` sets the source to a position that was committed, or to its configured beginning
  where there is none (None). It is called first, and again after a page was not committed, or after an
  unexpected exception; the next ``fetch`` is behind that position, whatever was fetched meanwhile.
* ``fetch(timeout)`` returns the next page behind the last one it returned, committed or not, or None where
  there is nothing new; it waits for at most about ``timeout`` seconds for something to come where the
  source can tell, and as long as one query may take otherwise. After it raised, the same fetch is tried
  again: TransientError (again soon, not before its ``retry_after``), AuthError and DependencyError (after a
  pause), ConfigError (an operator has to decide or mend something: the worker says so, and asks again
  after a pause), BugError.
* ``committed(page)`` tells that the page and its position are durable.
* ``probe()`` asks cheaply whether anything is waiting behind the position: what tells quiet from broken.
  Asked only where nothing came for a while. Raises what ``fetch`` raises.
* ``facts()`` tells what happened since it was last asked, and how things stand; without any I/O. It is
  asked after each fetch, however that ended.
* ``close()`` gives everything back.

All calls are made in one thread, one after the other, never in the one that made the source. At most two
pages are alive at once: one that is committed while the next one is fetched.

A page is produced and its position committed in one transaction: events are never dropped by a source,
and what it cannot make sense of it hands on as it came, for the ingester to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipelined.stages.contract import Output

__all__ = ["Facts", "Page", "Probe", "Source"]


@dataclass(frozen=True, slots=True)
class Page:
    """Events for ``events.raw`` and the position behind them.

    ``outputs`` may be empty: the position moved all the same. ``reached`` is the position as a time
    (seconds since the epoch, by the source's clock): what came to the source until then is taken; None
    where it cannot tell. ``more``: the next fetch finds something at once.
    """

    outputs: Sequence[Output]
    position: bytes
    reached: float | None
    more: bool


class Probe(NamedTuple):
    """``waiting``: something lies behind the position. ``now``: the source's own clock, None if untold."""

    waiting: bool
    now: float | None


class Facts(NamedTuple):
    """What a source tells of itself, for metrics and status.

    ``queries``: the seconds that each request took, ``throttled``: how many were refused for being too
    many, ``shortened``: how often a page was asked for again, smaller, because of a limit, ``lost``: events
    that were removed at the source before they were read, ``reconnected``: how often a connection was made
    anew because nothing came although something waited; these five since facts were last asked for.
    ``now``: the source's own clock, where a request since told it. ``token_expires``: when the present
    login ends (seconds since the epoch), None where there is none.
    ``fallback``: why it works in a lesser way than it should, in words; "": it does not.
    """

    queries: Sequence[float] = ()
    throttled: int = 0
    shortened: int = 0
    now: float | None = None
    token_expires: float | None = None
    fallback: str = ""
    lost: int = 0
    reconnected: int = 0


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

    def facts(self) -> Facts:
        """What happened since it was last asked, and how things stand."""

    def close(self) -> None:
        """Give everything back."""

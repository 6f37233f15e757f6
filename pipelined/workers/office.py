"""Work that one host at a time does: the others stand by, and take over when it is gone."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.kafka.election import Election
from pipelined.kafka.leaving import leave
from pipelined.kafka.settings import Names
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child

__all__ = ["in_turn"]

_logger = logging.getLogger("pipelined.workers")
_WAIT_S = 0.2


def in_turn(
    config: Config,
    worker_type: str,
    index: int,
    stats: Child,
    should_stop: Callable[[], bool],
    work: Callable[[Callable[[], bool]], None],
    *,
    grouped: bool = True,
) -> None:
    """Call ``work`` whenever it is this host's turn, until told to stop.

    ``work`` gets what tells it to stop: also when the turn is over. It returns with its group left to the
    session timeout, as a worker that is restarted wants it; between two turns it leaves at once. ``grouped``
    is False where the work is not done as a member of the worker type's group.
    """
    said = False
    with Election(config, worker_type, index) as election:
        while not should_stop():
            stats.beat()
            if election.wait(_WAIT_S):
                _logger.info("it is this host's turn", extra={"group": election.group})
                stats.say("")
                with election.term() as lasts:
                    work(lambda: should_stop() or not lasts())
                said = False
                if grouped and not should_stop():
                    _make_room(config, worker_type, index, stats)
            elif not said and election.joined:
                said = True
                stats.ready()
                stats.say("stands by: another host does this work")
                _logger.info("stands by: another host does this work", extra={"group": election.group})


def _make_room(config: Config, worker_type: str, index: int, stats: Child) -> None:
    """Nothing is in hand here any more, and others need not wait until the session times out."""
    for gauge in (metrics.IN_FLIGHT, metrics.PARTITIONS, metrics.LAG, metrics.OLDEST, metrics.PAUSED):
        stats.set(gauge, 0)
    names = Names(config)
    try:
        leave(config, names.group(worker_type), [names.instance(worker_type, index)])
    except UnavailableError as error:
        _logger.warning("the turn is over, but %s", error)

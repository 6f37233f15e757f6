"""Which events stand in the events table already: for a back-fill, whose rows the ingester has forgotten.

The ingester recognises what it took within its horizon; the table has what it took before. Between the two
nothing may fall through: an event that is taken, but not stored yet when the table is looked at, must be
within the horizon still when the back-fill's copy of it is judged. So a look at the table counts only if
nothing older than a quarter of the horizon is on its way to it, and is good for another quarter.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence

from pipelined.config import Config
from pipelined.kafka.settings import Names
from pipelined.kafka.unread import committed_offsets, oldest_unread
from pipelined.lake.schemas import EVENTS
from pipelined.lake.tables import source
from pipelined.lake.traces import StoredTraces
from pipelined.messages.identity import identity
from pipelined.stages.contract import Stream

__all__ = ["StoredEvents"]

_SHARE = 4


class StoredEvents:
    """Asked for the events of a page. ``wait`` is called, with the reason, while the table must not be asked
    yet; what it raises ends the waiting.
    """

    def __init__(self, config: Config, wait: Callable[[str], None]) -> None:
        self._config = config
        self._wait = wait
        names = Names(config)
        topic = names.topic(Stream.INGESTED)
        self._age_s = config.ingest.dedup_horizon_hours * 3600 / _SHARE
        self._traces = StoredTraces(
            source(config, EVENTS),
            names.group("event-writer"),
            [(topic, number) for number in range(names.section(Stream.INGESTED).partitions)],
            lasts_s=self._age_s,
        )

    @property
    def held(self) -> int:
        """Trace ids in memory."""
        return self._traces.held

    def known(self, keys: Sequence[bytes | None], days: Sequence[dt.date | None]) -> list[bool]:
        """For each event in turn, by its key and its date, whether it is in the table.

        One without either is not. Raises AuthError and DependencyError of the table, UnavailableError of
        Kafka.
        """
        told = [False] * len(keys)
        places: dict[dt.date, list[int]] = {}
        traces: dict[dt.date, list[bytes]] = {}
        for place, (key, day) in enumerate(zip(keys, days, strict=True)):
            if key and day:
                places.setdefault(day, []).append(place)
                traces.setdefault(day, []).append(identity(key))
        if self._traces.lacks(places):
            self._look()
        for day, of_day in places.items():
            for place, known in zip(of_day, self._traces.known(day, traces[day]), strict=True):
                told[place] = known
        return told

    def _look(self) -> None:
        """Look at the table when nothing that is too old is on its way there."""
        while True:
            # What is on its way is asked for first: an event may move on meanwhile, never back.
            judged = committed_offsets(self._config, "event-ingester", Stream.RAW)
            stored = self._traces.look()
            oldest = oldest_unread(self._config, judged | stored)
            age = time.time() - oldest / 1000 if oldest is not None else 0.0
            if age <= self._age_s:
                return
            self._wait(
                f"an event that came in {age / 3600:.1f} h ago is not in the table yet, and might be taken "
                "for a new one; see the event-ingester and the event-writer (`pipelinectl status`)"
            )

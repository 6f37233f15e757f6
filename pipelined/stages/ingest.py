"""The event ingester: here, and only here, it is decided whether an event is valid and whether it is new."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterable, Sequence

from pipelined.errors import PoisonError, RecordError
from pipelined.fetch.policy import UrlPolicy
from pipelined.messages.identity import canonical, identities, identity
from pipelined.stages.contract import Done, Failed, Headers, Outcome, Output, Partition, Record, Stream
from pipelined.stages.dedup import Horizon
from pipelined.stages.event_head import EventHead, moment_of, read_head
from pipelined.stages.event_tasks import EventTasks
from pipelined.stages.failures import Envelope, unexpected
from pipelined.stages.origins import LOCAL, Brought, Tallies, flag_of, origin
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child

__all__ = ["IngestStage"]

_logger = logging.getLogger("pipelined.stages")

#: What partitions admitted within the horizon: a partition's number, trace ids, their arrivals (ms) and the
#: sources that brought them first, in batches, oldest first. Without a number, and before the others: what
#: any may have admitted before the topic was grown.
Past = tuple[int | None, Sequence[bytes], Sequence[int], Sequence[bytes]]
History = Callable[[Sequence[int]], Iterable[Past]]

_TRACE_ID_LIMIT = 512


class IngestStage:
    """Raw events in; each valid one once on ``events.ingested``, its attachments as download tasks.

    ``largest`` bounds an event, in bytes, whose ``data`` came as text and is written out as an object.
    """

    name = "event-ingester"
    waits = False

    def __init__(
        self,
        *,
        domain: str,
        horizon_hours: float,
        largest: int,
        policy: UrlPolicy,
        envelope: Envelope,
        history: History,
        stats: Child,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hours = horizon_hours
        self._largest = largest
        self._tasks = EventTasks(domain, policy, envelope)
        self._history = history
        self._stats = stats
        self._clock = clock
        self._known: dict[Partition, Horizon] = {}
        self._outcomes: list[Outcome] = []
        self._tallies = Tallies(stats)

    @property
    def in_flight(self) -> int:
        """Records whose outcome waits to be polled."""
        return len(self._outcomes)

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """Read back what these partitions admitted: the pipeline itself is the memory."""
        started = time.monotonic()
        owned = {partition.number: partition for partition in partitions}
        before: Horizon | None = None
        fresh: dict[int, Horizon] = {}
        for number, keys, arrivals, sources in self._history(list(owned)):
            by = bytes(map(flag_of, sources))
            if number is None:
                before = before or Horizon(self._hours)
                before.load(identities(keys), arrivals, by)
                continue
            known = fresh.get(number)
            if known is None:
                known = fresh[number] = Horizon(self._hours, before)
            known.load(identities(keys), arrivals, by)
        for number, partition in owned.items():
            self._known[partition] = fresh.setdefault(number, Horizon(self._hours, before))
        _logger.info(
            "%d trace ids of the last %g hours read back from %d partitions in %.2f s",
            sum(known.size for known in fresh.values()),
            self._hours,
            len(fresh),
            time.monotonic() - started,
        )
        self._tell()

    def forget(self, partitions: Iterable[Partition]) -> None:
        """What is remembered of these partitions goes with them."""
        gone = set(partitions)
        for partition in gone:
            self._known.pop(partition, None)
        self._outcomes = [outcome for outcome in self._outcomes if outcome.record.partition not in gone]
        self._tallies.forget(gone)
        self._tell()

    def submit(self, records: Sequence[Record]) -> None:
        """Judge these records now."""
        try:
            self._outcomes += self._ingest(records)
        except Exception as error:
            if len(records) > 1:  # nothing has happened yet: one by one, so that it is the bug of one record
                for record in records:
                    self.submit((record,))
                return
            (record,) = records
            _logger.exception(
                "unexpected error at %s/%d@%d",
                *record.partition,
                record.offset,
                extra={"code": "bug", **record.log_fields()},
            )
            failed = Failed(record, unexpected(error))
            self._outcomes.append(failed)
            self._refused([failed])

    def poll(self, timeout: float) -> list[Outcome]:
        """All that was submitted; never waits."""
        del timeout
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """What was admitted is durable now."""
        self._tallies.committed(outcomes)
        self._tell()

    def give_up(self, records: Sequence[Record]) -> None:
        """Nothing here takes long: each record is judged when it comes."""

    def drain(self) -> None:
        """Nothing is ever half done."""

    def close(self) -> None:
        """Nothing is held."""

    def _tell(self) -> None:
        self._stats.set(metrics.KNOWN_IDS, sum(known.size for known in self._known.values()))

    def _ingest(self, records: Sequence[Record]) -> list[Outcome]:
        """The outcomes of these records.

        What may fail unexpectedly comes before anything is remembered or counted: an event that could not
        be taken must not make its next try a duplicate.
        """
        clock = self._clock()
        now, arrived = dt.datetime.fromtimestamp(clock, dt.UTC), int(clock * 1000)
        judge, tasks_of, several = self._judge, self._tasks.of, len(records) > 1
        outcomes: list[Outcome] = []
        failed: list[Failed] = []
        lanes: dict[Partition, _Lane] = {}
        lane: _Lane | None = None
        refused: dict[int, int] = {}
        for record in records:
            try:
                event = judge(record.value)
            except RecordError as error:
                failed.append(Failed(record, error))
                outcomes.append(failed[-1])
                continue
            partition, key = record.partition, event.key
            if lane is None or lane.partition is not partition:
                lane = lanes.get(partition)
                if lane is None:
                    lane = lanes[partition] = _Lane(partition, self._known[partition])
            arrival = record.timestamp if record.timestamp > 0 else arrived
            lane.places.append(len(outcomes))
            lane.keys.append(key)
            lane.arrivals.append(arrival)
            source, flag = origin(record.headers) if record.headers else LOCAL
            lane.flags.append(flag)
            headers: Headers = [("trace_id", key), source]
            ingested = Output(Stream.INGESTED, key, event.value, headers, partition.number, arrival)
            # Among several, one that is known now may be forgotten when its turn comes.
            if event.urls and (several or identity(key) not in lane.known):
                tasks, count = tasks_of(event, record, headers, now)
                if count:
                    refused[len(outcomes)] = count
                outcomes.append(Done(record, (ingested, *tasks)))
            else:
                outcomes.append(Done(record, (ingested,)))
        for lane in lanes.values():
            told = lane.known.admit(identities(lane.keys), lane.arrivals, lane.flags)
            brought = Brought()
            brought.seen(lane.flags)
            brought.admitted(lane.flags, told)
            if any(told):
                for place, known in zip(lane.places, told, strict=True):
                    if known:
                        outcomes[place] = Done(outcomes[place].record, (), "duplicate")
                        refused.pop(place, None)
            self._tallies.hold(lane.partition, outcomes[lane.places[-1]], brought)
        if failed:
            self._refused(failed)
        if refused:
            self._stats.add(metrics.REJECTED, sum(refused.values()))
        return outcomes

    def _refused(self, failed: Sequence[Failed]) -> None:
        """Events that are none were seen, too."""
        for outcome in failed:
            brought = Brought()
            brought.seen(bytes((origin(outcome.record.headers)[1],)))
            self._tallies.hold(outcome.record.partition, outcome, brought)

    def _judge(self, given: bytes) -> EventHead:
        """What is needed of a valid event; raises PoisonError for any other."""
        body, value = read_head(given)
        trace_id = body.trace_id
        if not trace_id:
            msg = "the event has no traceId; the source must give each event one"
            raise PoisonError("no_trace_id", msg)
        trace_id = canonical(trace_id)
        key = trace_id.encode()
        if len(key) > _TRACE_ID_LIMIT:
            msg = f"the traceId has {len(key)} bytes, more than {_TRACE_ID_LIMIT}"
            raise PoisonError("trace_id_too_long", msg)
        if not body.type:
            msg = "the event has no type"
            raise PoisonError("no_type", msg)
        moment = moment_of(body.utc_date_time)
        data = body.data
        urls: Sequence[str] = ()
        if data is not None and data.attachments:
            urls = [url for url in data.attachments if url]
            if urls and not data.assignment_id:
                msg = "the event has attachments and no assignmentId: their place in the store cannot be told"
                raise PoisonError("no_assignment_id", msg)
        if len(value) > self._largest:
            msg = f"written out, the event has {len(value)} bytes, more than {self._largest}"
            raise PoisonError("too_large", msg)
        return EventHead(value, trace_id, key, body.type, moment, urls, data)


class _Lane:
    """The valid events of one partition: their places among the outcomes, trace ids, arrivals, sources."""

    __slots__ = ("arrivals", "flags", "keys", "known", "partition", "places")

    def __init__(self, partition: Partition, known: Horizon) -> None:
        self.partition = partition
        self.known = known
        self.places: list[int] = []
        self.keys: list[bytes] = []
        self.arrivals: list[int] = []
        self.flags = bytearray()

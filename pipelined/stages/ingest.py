"""The event ingester: here, and only here, it is decided whether an event is valid and whether it is new."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from pipelined.errors import PermanentError, PoisonError, RecordError
from pipelined.fetch.policy import UrlPolicy
from pipelined.messages import attachments as attachment
from pipelined.messages.codec import encode, iso
from pipelined.messages.identity import canonical, identity
from pipelined.messages.task import DownloadTask
from pipelined.stages.contract import Done, Failed, Headers, Outcome, Output, Partition, Record, Stream
from pipelined.stages.dedup import Horizon
from pipelined.stages.event_head import moment_of, read_head
from pipelined.stages.failures import Envelope, failed_result, unexpected
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child

__all__ = ["IngestStage"]

_logger = logging.getLogger("pipelined.stages")

#: What partitions admitted within the horizon: a partition's number, trace ids and their arrivals (ms), in
#: batches, oldest first. Without a number, and before the others: what any may have admitted before the
#: topic was grown.
History = Callable[[Sequence[int]], Iterable[tuple[int | None, Sequence[bytes], Sequence[int]]]]

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
        self._domain = domain
        self._hours = horizon_hours
        self._largest = largest
        self._policy = policy
        self._envelope = envelope
        self._history = history
        self._stats = stats
        self._clock = clock
        self._known: dict[Partition, Horizon] = {}
        self._outcomes: list[Outcome] = []

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
        for number, keys, arrivals in self._history(list(owned)):
            if number is None:
                before = before or Horizon(self._hours)
                before.admit(map(identity, keys), arrivals)
                continue
            known = fresh.get(number)
            if known is None:
                known = fresh[number] = Horizon(self._hours, before)
            known.admit(map(identity, keys), arrivals)
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
        self._tell()

    def submit(self, records: Sequence[Record]) -> None:
        """Judge each record now."""
        append, ingest = self._outcomes.append, self._ingest
        for record in records:
            try:
                append(ingest(record))
            except RecordError as error:
                append(Failed(record, error))
            except Exception as error:
                _logger.exception(
                    "unexpected error at %s/%d@%d", *record.partition, record.offset, extra={"code": "bug"}
                )
                append(Failed(record, unexpected(error)))

    def poll(self, timeout: float) -> list[Outcome]:
        """All that was submitted; never waits."""
        del timeout
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """What was admitted is durable now."""
        del outcomes
        self._tell()

    def drain(self) -> None:
        """Nothing is ever half done."""

    def close(self) -> None:
        """Nothing is held."""

    def _tell(self) -> None:
        self._stats.set(metrics.KNOWN_IDS, sum(known.size for known in self._known.values()))

    def _ingest(self, record: Record) -> Outcome:
        event = read_head(record.value)
        trace_id = event.trace_id
        if not trace_id:
            msg = "the event has no traceId; the source must give each event one"
            raise PoisonError("no_trace_id", msg)
        trace_id = canonical(trace_id)
        key = trace_id.encode()
        if len(key) > _TRACE_ID_LIMIT:
            msg = f"the traceId has {len(key)} bytes, more than {_TRACE_ID_LIMIT}"
            raise PoisonError("trace_id_too_long", msg)
        if not event.type:
            msg = "the event has no type"
            raise PoisonError("no_type", msg)
        moment = moment_of(event.time)
        if event.urls and not event.assignment_id:
            msg = "the event has attachments and no assignmentId: their place in the store cannot be told"
            raise PoisonError("no_assignment_id", msg)
        if len(event.value) > self._largest:
            msg = f"written out, the event has {len(event.value)} bytes, more than {self._largest}"
            raise PoisonError("too_large", msg)
        arrival = record.timestamp if record.timestamp > 0 else int(self._clock() * 1000)
        known, trace = self._known[record.partition], identity(key)
        if trace in known:
            return Done(record, (), "duplicate")
        headers: Headers = [
            ("trace_id", key),
            ("source", (record.header("source") or "local").encode()),
        ]
        ingested = Output(Stream.INGESTED, key, event.value, headers, record.partition.number, arrival)
        if not event.urls:
            known.add(trace, arrival)
            return Done(record, (ingested,))
        subtype = event.type.rpartition(".")[2]
        head = _Head(
            trace_id=trace_id,
            key=key,
            event_type=self._domain,
            subtype=subtype,
            assignment_id=event.assignment_id or "",
            estimate_version=event.estimate_version,
            moment=iso(moment),
            folder=attachment.folder(trace_id, subtype, event.assignment_id or ""),
            headers=headers,
        )
        outputs = (ingested, *self._tasks(record, head, event.urls))
        # Remembered last: an event that could not be taken must not make its next try a duplicate.
        known.add(trace, arrival)
        return Done(record, outputs)

    def _tasks(self, record: Record, head: _Head, urls: Sequence[str]) -> list[Output]:
        outputs: list[Output] = []
        names: set[str] = set()
        ids: set[str] = set()
        now = dt.datetime.fromtimestamp(self._clock(), dt.UTC)
        for url in urls:
            link = attachment.parse_link(url)
            identifier = attachment.attachment_id(head.trace_id, link)
            if identifier in ids:
                continue  # the same file, listed or signed twice
            ids.add(identifier)
            task = _task(head, url, link, identifier, names)
            error = self._refusal(url, link.expiry, now)
            if error is None:
                outputs.append(Output(Stream.PENDING, head.key, encode(task), head.headers))
                continue
            self._stats.add(metrics.REJECTED)
            origin = Record(
                record.partition, record.offset, head.key, record.value, head.headers, record.timestamp
            )
            outputs.append(failed_result(origin, task, error, at_ingest=True))
            outputs.append(self._envelope.dead_letter(Stream.DLQ, origin, error, task, encode(task)))
        return outputs

    def _refusal(self, url: str, expires: dt.datetime | None, now: dt.datetime) -> PermanentError | None:
        try:
            self._policy.check(url)
        except PermanentError as error:
            return error
        if expires is not None and expires <= now:
            return PermanentError("expired", f"the URL's signature ended at {expires.isoformat()}")
        return None


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """What all tasks of one event share; ``moment`` is its time in ISO-8601 UTC."""

    trace_id: str
    key: bytes
    event_type: str
    subtype: str
    assignment_id: str
    estimate_version: str | None
    moment: str
    folder: str
    headers: Headers


def _task(head: _Head, url: str, link: attachment.Link, identifier: str, names: set[str]) -> DownloadTask:
    name = attachment.file_name(link, head.subtype, head.assignment_id, head.estimate_version)
    if name in names:
        name = attachment.disambiguate(name, identifier)
    names.add(name)
    return DownloadTask(
        trace_id=head.trace_id,
        attachment_id=identifier,
        attachment_url=url,
        blob_path=f"{head.folder}/{name}",
        status_subtype=head.subtype,
        file_type=attachment.file_type(link.name),
        assignment_id=head.assignment_id,
        event_type=head.event_type,
        event_subtype=head.subtype,
        original_timestamp=head.moment,
        estimate_version=head.estimate_version,
        expires_at=link.expires_at,
    )

"""Which stage each worker type runs, on which topics: the drawing of the design, as code.

``run_worker`` is what a forked child does; everything heavy is made here, in the child, never before.
"""

from __future__ import annotations

import gc
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipelined.config import Config
from pipelined.config.tree import SOURCE_TYPES, WITHOUT_KAFKA
from pipelined.crashpoints import Point, crashpoint, enter
from pipelined.errors import UnavailableError
from pipelined.fetch.policy import UrlPolicy
from pipelined.kafka import limits, topics
from pipelined.kafka.history import History
from pipelined.kafka.leaving import leave
from pipelined.kafka.partitioner import partition_of
from pipelined.kafka.settings import Names, host_name
from pipelined.lake import schemas
from pipelined.lake.maintenance import Maintenance
from pipelined.lake.tables import sink, source
from pipelined.logs.setup import setup
from pipelined.sources.contract import Source
from pipelined.stages.contract import Record, Stage, Stream
from pipelined.stages.download import DownloadStage
from pipelined.stages.events_table import EventRows
from pipelined.stages.failures import Envelope
from pipelined.stages.ingest import IngestStage
from pipelined.stages.relocate import Relocating
from pipelined.stages.results_table import ResultRows
from pipelined.stages.retry import RetryStage
from pipelined.stages.upload import UploadStage
from pipelined.stats.slots import Child, SharedStats
from pipelined.workers.endpoint import serve
from pipelined.workers.maintenance import MaintenanceRuntime
from pipelined.workers.nearby import NearRouter, Neighbours, Present
from pipelined.workers.office import in_turn
from pipelined.workers.routing import Router
from pipelined.workers.runtime import Runtime
from pipelined.workers.source import run_source
from pipelined.workers.tables import CommitObserver, Converted, TableRuntime

__all__ = ["HEAVY_MODULES", "run_worker"]

_logger = logging.getLogger("pipelined.workers")

#: Imported by the parent, and never used there, so that children share them.
HEAVY_MODULES: tuple[str, ...] = (
    "pyarrow",
    "deltalake",
    "obstore",
    "pycurl",
    "msgspec",
    "confluent_kafka.admin",
    "prometheus_client",
    "http.server",
    "pipelined.workers.catalogue",
)

#: What one host at a time does.
_IN_TURN = (*SOURCE_TYPES, "event-writer", "result-processor")


@dataclass(frozen=True, slots=True)
class _Place:
    """One worker process: all that its builder needs."""

    config: Config
    worker_type: str
    index: int
    stats: SharedStats
    slot: Child
    should_stop: Callable[[], bool]
    listening: socket.socket | None = None

    @property
    def envelope(self) -> Envelope:
        group = Names(self.config).group(self.worker_type)
        return Envelope(self.worker_type, group, host_name(self.config))

    def is_paused(self) -> bool:
        """Whether an operator wants this worker to take no more work."""
        return self.stats.slot(self.worker_type, self.index).parent.paused

    def run_near(self, stage: Stage, stream: str, worker_type: str, target: str) -> None:
        """Run a worker whose outputs to ``target`` stay on this host, for its workers of that type."""
        count = Names(self.config).section(target).partitions
        neighbours = Neighbours(Present(self.stats, worker_type), count)
        router = NearRouter(self.config, self.envelope, Stream.DLQ, target, neighbours.partition)
        self.run(stage, stream, router=router)

    def run(
        self, stage: Stage, stream: str, dead_stream: str = Stream.DLQ, router: Router | None = None
    ) -> None:
        """Run a Kafka → Kafka worker."""
        Runtime(
            self.config,
            index=self.index,
            stage=stage,
            router=router or Router(self.config, self.envelope, dead_stream),
            streams=[stream],
            stats=self.slot,
            should_stop=self.should_stop,
            is_paused=self.is_paused,
        ).run()


def run_worker(
    config: Config,
    worker_type: str,
    index: int,
    stats: SharedStats,
    should_stop: Callable[[], bool],
    listening: socket.socket | None = None,
) -> int:
    """Be the worker until told to stop; returns the exit code, raises what ends it otherwise.

    ``listening`` is the endpoint's socket, where somebody has made one for it.
    """
    # A batch is many small objects that live for a moment: at the default of 700 the collector walks
    # through them a dozen times for each thousand records, and finds nothing.
    gc.set_threshold(50_000, 20, 50)
    slot = stats.slot(worker_type, index).child
    instance = Names(config).instance(worker_type, index)
    setup(config.logs, worker=worker_type, index=index, instance=instance)
    enter(worker_type)

    def told_to_stop() -> bool:
        told = should_stop()
        if told:
            crashpoint(Point.DRAINING)
        return told

    place = _Place(config, worker_type, index, stats, slot, told_to_stop, listening)
    # A restarted worker was here before: its topics fitted then, and it is wanted back at once.
    if worker_type not in WITHOUT_KAFKA and slot.generation == 1 and not _topics_fit(place):
        return 0
    _BUILDERS[worker_type](place)
    if worker_type not in WITHOUT_KAFKA and stats.slot(worker_type, index).parent.leaving:
        _leave(place)
    return 0


def _leave(place: _Place) -> None:
    """Stopped for good: let others have the partitions now. A broker that is away is no reason to fail."""
    names = Names(place.config)
    instance = names.instance(place.worker_type, place.index)
    groups = [] if place.worker_type in SOURCE_TYPES else [names.group(place.worker_type)]
    if place.worker_type in _IN_TURN:
        groups.append(names.election(place.worker_type))
    for group in groups:
        try:
            leave(place.config, group, [instance])
        except UnavailableError as error:
            _logger.warning("stopped, but %s", error, extra={"group": group})
        else:
            _logger.info("left the group %s", group, extra={"group": group})


def _topics_fit(place: _Place) -> bool:
    """Wait for the brokers, saying so; raises ConfigError for a cluster that does not fit."""
    said = 0.0
    while not place.should_stop():
        place.slot.beat()
        try:
            topics.check(place.config, timeout=2.0)
            limits.check(place.config, timeout=2.0)
        except UnavailableError as error:
            if time.monotonic() - said > 10:
                said = time.monotonic()
                _logger.warning("waiting for Kafka: %s", error)
        else:
            return True
    return False


def _eventhouse_poller(place: _Place) -> None:
    from pipelined.sources.eventhouse import EventhouseSource

    _run_source(place, EventhouseSource)


def _eventhub_reader(place: _Place) -> None:
    from pipelined.sources.eventhub import EventhubSource

    _run_source(place, EventhubSource)


def _run_source(place: _Place, make: Callable[[Config], Source]) -> None:
    run_source(
        place.config, place.worker_type, place.index, make, place.slot, place.should_stop, place.is_paused
    )


def _event_ingester(place: _Place) -> None:
    config = place.config
    hours = config.ingest.dedup_horizon_hours
    history = History(config, hours, place.slot.beat)
    stage = IngestStage(
        domain=config.domain,
        horizon_hours=hours,
        largest=config.kafka.max_message_bytes,
        policy=UrlPolicy(config.urls),
        envelope=place.envelope,
        history=history,
        stats=place.slot,
    )
    whole = Relocating(stage, lambda: history.moving, partition_of)
    place.run(whole, Stream.RAW, Stream.EVENTS_DLQ)


def _event_writer(place: _Place) -> None:
    rows = EventRows(schemas.EVENTS.schema)

    def convert(records: list[Record]) -> Converted:
        converted = rows.convert(records)
        return Converted([converted.rows], converted.poison, converted.misshapen.total())

    _run_tables(place, Stream.INGESTED, convert, schemas.EVENTS)


def _result_processor(place: _Place) -> None:
    rows = ResultRows(schemas.ATTACHMENTS.schema, schemas.FAILED.schema)

    def convert(records: list[Record]) -> Converted:
        converted = rows.convert(records)
        return Converted([converted.attachments, converted.failed], converted.poison, 0)

    _run_tables(place, Stream.RESULTS, convert, schemas.ATTACHMENTS, schemas.FAILED)


def _run_tables(
    place: _Place, stream: str, convert: Callable[[list[Record]], Converted], *tables: schemas.TableSpec
) -> None:
    config = place.config
    app = Names(config).group(place.worker_type)
    observer = CommitObserver(place.slot)

    def work(should_stop: Callable[[], bool]) -> None:
        TableRuntime(
            config,
            worker_type=place.worker_type,
            index=place.index,
            stream=stream,
            convert=lambda records: convert(list(records)),
            sinks=[sink(config, table, app=app, observer=observer) for table in tables],
            envelope=place.envelope,
            stats=place.slot,
            should_stop=should_stop,
            is_paused=place.is_paused,
        ).run()

    # Several committing to one table would be right, and in each other's way: half of their upserts conflict.
    in_turn(config, place.worker_type, place.index, place.slot, place.should_stop, work)


def _retry_scheduler(place: _Place) -> None:
    place.run(RetryStage(place.config.retry), Stream.RETRY)


def _download(place: _Place) -> None:
    # The file lies here: its record goes to an upload worker of this host, if there is one.
    place.run_near(DownloadStage(place.config, place.slot), Stream.PENDING, "upload", Stream.CACHED)


def _upload(place: _Place) -> None:
    # A file that is not here is fetched again here, and by no host whose cache is out of reach.
    place.run_near(UploadStage(place.config, place.slot), Stream.CACHED, "download", Stream.PENDING)


def _table_maintenance(place: _Place) -> None:
    settings = place.config.tables
    tables = [Maintenance(source(place.config, table), settings) for table in schemas.TABLES]
    MaintenanceRuntime(settings, tables, place.slot, place.should_stop).run()


def _endpoint(place: _Place) -> None:
    serve(place.config, place.stats, place.slot, place.should_stop, place.listening)


_BUILDERS: dict[str, Callable[[_Place], None]] = {
    "eventhouse-poller": _eventhouse_poller,
    "eventhub-reader": _eventhub_reader,
    "event-ingester": _event_ingester,
    "event-writer": _event_writer,
    "retry-scheduler": _retry_scheduler,
    "download": _download,
    "upload": _upload,
    "result-processor": _result_processor,
    "table-maintenance": _table_maintenance,
    "endpoint": _endpoint,
}

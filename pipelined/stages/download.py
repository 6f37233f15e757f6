"""The download stage: a task in; its file, complete and durable in the cache folder, out."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import logging
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pipelined.config.tree import Config
from pipelined.crashpoints import Point, crashpoint
from pipelined.errors import PermanentError, RecordError, TransientError
from pipelined.fetch.breakers import Breakers
from pipelined.fetch.filetypes import FileTypes
from pipelined.fetch.policy import UrlPolicy, host_of
from pipelined.fetch.transfers import Fetched, Transfers
from pipelined.fetch.turns import Turns
from pipelined.messages.attachments import expiry
from pipelined.messages.codec import decode, encode, iso_now, parse_time
from pipelined.messages.task import CachedDownload, DownloadTask
from pipelined.stages.contract import Done, Failed, Outcome, Output, Partition, Record, Stream
from pipelined.stages.failures import host_busy, passed_on, stuck, unexpected
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child
from pipelined.storage.cache import Cache
from pipelined.storage.durable import LARGEST_BATCH, Placed, Placer

__all__ = ["DownloadStage"]

_logger = logging.getLogger("pipelined.stages")

_UNEXPECTED = "unexpected error at %s/%d@%d"
_SWEEP_SECONDS = 3600.0
_GAUGE_SECONDS = 1.0


class _Job(NamedTuple):
    """A task that may be fetched: everything about it but its address and its content has been judged."""

    record: Record
    task: DownloadTask
    host: str
    target: str


class DownloadStage:
    """Fetches ``download.concurrency`` files at once; which task gets a place is said by ``fetch.turns``.

    An outcome is Done only when the file is durable under its final name. Make it in the process that
    uses it: it has threads and sockets.

    Its memory has a bound: the records of the window, and ``SPOOL_BYTES`` for each transfer and each file
    that waits for the disk, of which there are at most ``LARGEST_BATCH`` for each of its threads.
    """

    name = "download"
    waits = True

    def __init__(self, config: Config, stats: Child) -> None:
        self._stats = stats
        self._here = config.kafka.host or socket.gethostname()
        self._policy = UrlPolicy(config.urls)
        self._types = FileTypes(config.files)
        self._breakers = Breakers(config.breaker)
        self._cache = Cache(config.cache_dir)
        self._turns = Turns[_Job](
            config.download.concurrency,
            config.download.slow_share,
            window=config.workers.download.window_records,
            elsewhere_s=min(config.retry.delays_s, default=None),
        )
        self._transfers = Transfers(config, self._policy, self._turns.most)
        self._most_placing = config.download.fsync_threads * LARGEST_BATCH
        self._placer = Placer(config.download.fsync_threads, str(self._cache.root), self._transfers.wake)
        self._numbers = itertools.count()
        self._jobs: dict[int, _Job] = {}  # begun: under transfer or being placed
        self._placing: dict[int, Fetched] = {}
        self._outcomes: list[Outcome] = []
        self._gauge_due = 0.0
        self._stop = threading.Event()
        self._sweeper = threading.Thread(
            target=self._sweep, args=(config.cache_hours,), name="cache-sweep", daemon=True
        )
        self._sweeper.start()

    @property
    def in_flight(self) -> int:
        """Tasks queued, begun, or finished and not yet polled."""
        return len(self._turns) + len(self._jobs) + len(self._outcomes)

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """Nothing to prepare."""

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Drop the tasks of these partitions and cancel their transfers."""
        gone = set(partitions)
        self._turns.drop(lambda job: job.record.partition in gone)
        self._outcomes = [outcome for outcome in self._outcomes if outcome.record.partition not in gone]
        for number in [number for number, job in self._jobs.items() if job.record.partition in gone]:
            if self._placing.pop(number, None) is None:
                self._cancel(number)
            else:
                del self._jobs[number]

    def give_up(self, records: Sequence[Record]) -> None:
        """Let go of these records, under transfer or waiting; what is being placed is finished."""
        unwanted = {id(record) for record in records}
        for job in self._turns.drop(lambda job: id(job.record) in unwanted):
            self._outcomes.append(Failed(job.record, stuck(attempted=False), job.task))
        for number, job in list(self._jobs.items()):
            if id(job.record) in unwanted and number not in self._placing:
                self._cancel(number)
                self._outcomes.append(Failed(job.record, stuck(attempted=True), job.task))

    def submit(self, records: Sequence[Record]) -> None:
        """Judge what can be judged without the host, and queue the rest."""
        for record in records:
            task: DownloadTask | None = None
            try:
                task = decode(record.value, DownloadTask)
                job = self._judge(record, task)
                self._turns.add(job.host, job)
            except RecordError as error:
                self._outcomes.append(Failed(record, error, task))
            except Exception as error:
                _logger.exception(_UNEXPECTED, *record.partition, record.offset, extra=record.log_fields())
                self._outcomes.append(Failed(record, unexpected(error), task))

    def poll(self, timeout: float) -> list[Outcome]:
        """Fetch and place until something is finished, for at most ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            self._begin()
            self._tell()
            wait = 0.0 if self._outcomes else max(0.0, deadline - time.monotonic())
            for fetched in self._transfers.poll(wait):
                self._fetched(fetched)
            for placed in self._placer.results():
                self._placed(placed)
            if self._outcomes or time.monotonic() >= deadline:
                outcomes, self._outcomes = self._outcomes, []
                return outcomes

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """Count the bytes; the files stay until they are uploaded."""
        outputs = (outcome.outputs for outcome in outcomes if isinstance(outcome, Done))
        sizes = (decode(output.value, CachedDownload).bytes_downloaded for each in outputs for output in each)
        self._stats.add(metrics.BYTES, sum(sizes))

    def drain(self) -> None:
        """Drop what waits, finish the transfers."""
        self._turns.drop(lambda _: True)

    def close(self) -> None:
        """Cancel the transfers, finish what is being placed, end the threads."""
        self._stop.set()
        for number in list(self._jobs):
            self._transfers.cancel(number)
        self._placer.close()
        self._transfers.close()
        self._sweeper.join()
        self._cache.close()
        self._turns.drop(lambda _: True)
        self._jobs.clear()
        self._outcomes.clear()

    def _judge(self, record: Record, task: DownloadTask) -> _Job:
        """Raises a RecordError for a task that need not be tried."""
        ends = _ends(task)
        if ends is not None and ends <= dt.datetime.now(dt.UTC):
            raise PermanentError("expired", f"the URL was valid until {ends:%Y-%m-%d %H:%M:%S} UTC")
        self._policy.check(task.attachment_url)
        self._types.check_extension(_kind(task))
        return _Job(
            record, task, host_of(task.attachment_url), self._cache.target(task.trace_id, task.blob_path)
        )

    def _begin(self) -> None:
        """Start transfers as long as there are tasks and free places, and the disk keeps up."""
        while len(self._placing) < self._most_placing and (job := self._turns.next()) is not None:
            try:
                if not self._breakers.allow(job.host):
                    raise TransientError(
                        "host_circuit_open",
                        f"{job.host} has failed several times in a row and is left alone for a while",
                        retry_after=max(1.0, self._breakers.wait(job.host)),
                        attempted=False,
                    )
                number = next(self._numbers)
                self._transfers.start(number, job.task.attachment_url, self._cache.temporary())
                self._turns.begun(job.host, number)
                self._jobs[number] = job
            except RecordError as error:
                self._outcomes.append(Failed(job.record, error, job.task))
            except Exception as error:
                record = job.record
                _logger.exception(_UNEXPECTED, *record.partition, record.offset, extra=record.log_fields())
                self._outcomes.append(Failed(job.record, unexpected(error), job.task))
        for job in self._turns.surplus():
            self._outcomes.append(Failed(job.record, host_busy(job.host), job.task))

    def _cancel(self, number: int) -> None:
        """End a transfer without a result."""
        del self._jobs[number]
        self._transfers.cancel(number)
        self._turns.ended(number, cancelled=True)

    def _tell(self) -> None:
        """Set the gauge, now and then."""
        if (now := time.monotonic()) >= self._gauge_due:
            self._gauge_due = now + _GAUGE_SECONDS
            self._stats.set(metrics.OPEN_HOSTS, len(self._breakers.open_hosts()))

    def _fetched(self, fetched: Fetched) -> None:
        """A transfer ended: judge the content and hand the file to the placing threads."""
        assert isinstance(fetched.key, int)
        job = self._jobs[fetched.key]
        self._turns.ended(fetched.key)
        if isinstance(fetched.error, TransientError):
            self._breakers.failure(job.host)
        elif fetched.error is None or fetched.error.http_status is not None:
            self._breakers.success(job.host)
        try:
            if fetched.error is not None:
                raise self._explained(fetched.error, fetched.path)
            self._types.check_content(fetched.content_type, fetched.head, _kind(job.task))
        except RecordError as error:
            del self._jobs[fetched.key]
            fetched.discard()
            self._outcomes.append(Failed(job.record, error, job.task))
            return
        crashpoint(Point.FETCHED)
        self._placing[fetched.key] = fetched
        self._placer.place(fetched.key, fetched.file, fetched.body, fetched.path, job.target)

    def _placed(self, placed: Placed) -> None:
        """A file is durable under its name, or the disk failed."""
        assert isinstance(placed.key, int)
        job = self._jobs.pop(placed.key, None)
        if job is None:
            return  # forgotten meanwhile; the sweep takes the file if nobody fetches it again
        fetched = self._placing.pop(placed.key)
        if placed.error is not None:
            self._outcomes.append(Failed(job.record, self._explained(placed.error, fetched.path), job.task))
            return
        record, task = job.record, job.task
        cached = CachedDownload(
            **{name: getattr(task, name) for name in DownloadTask.__struct_fields__},
            local_cache_path=job.target,
            bytes_downloaded=fetched.size,
            sha256=fetched.sha256,
            http_status=fetched.http_status,
            downloaded_at=iso_now(),
            host=self._here,
            content_type=fetched.content_type,
        )
        headers = passed_on(record)
        self._outcomes.append(Done(record, (Output(Stream.CACHED, record.key, encode(cached), headers),)))

    def _explained(self, error: RecordError, path: str) -> RecordError:
        """A file that could not be written because the cache folder was emptied is simply fetched again."""
        if error.code != "disk_gone":
            return error
        self._cache.abandon(path)
        return TransientError(
            "cache_emptied",
            f"the cache folder was emptied while {path} was being written; it is fetched again",
            retry_after=0,
            attempted=False,
        )

    def _sweep(self, hours: float) -> None:
        while True:
            try:
                self._cache.sweep(hours, self._stop)
            except OSError as error:
                _logger.warning("the cache folder cannot be swept", extra={"error": str(error)})
            if self._stop.wait(_SWEEP_SECONDS):
                return


def _ends(task: DownloadTask) -> dt.datetime | None:
    """When the URL of a task ends, as the task says or else the URL."""
    if task.expires_at:
        with contextlib.suppress(ValueError):  # an unreadable time: the URL itself may know
            return parse_time(task.expires_at)
    return expiry(task.attachment_url)


def _kind(task: DownloadTask) -> str:
    """A name with the attachment's own extension: the blob's name may have dots of other origin."""
    return "attachment" if task.file_type == "UNKNOWN" else f"attachment.{task.file_type.lower()}"

"""The download stage: a task in; its file, complete and durable in the cache folder, out."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pipelined.config.tree import Config
from pipelined.errors import PermanentError, RecordError, TransientError
from pipelined.fetch.breakers import Breakers
from pipelined.fetch.filetypes import FileTypes
from pipelined.fetch.policy import UrlPolicy, host_of
from pipelined.fetch.transfers import Fetched, Transfers
from pipelined.messages.attachments import expiry
from pipelined.messages.codec import decode, encode, iso_now, parse_time
from pipelined.messages.task import CachedDownload, DownloadTask
from pipelined.stages.contract import Done, Failed, Outcome, Output, Partition, Record, Stream
from pipelined.stages.failures import passed_on, unexpected
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child
from pipelined.storage.cache import Cache
from pipelined.storage.durable import Placed, Placer

__all__ = ["DownloadStage"]

_logger = logging.getLogger("pipelined.stages")

_UNEXPECTED = "unexpected error at %s/%d@%d"
_SWEEP_SECONDS = 3600.0


class _Job(NamedTuple):
    """A task that may be fetched: everything about it but its address and its content has been judged."""

    record: Record
    task: DownloadTask
    host: str
    target: str


class DownloadStage:
    """Fetches ``download.concurrency`` files at once; a task waits for a free place in the order it came.

    An outcome is Done only when the file is durable under its final name. Make it in the process that
    uses it: it has threads and sockets.
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
        self._transfers = Transfers(config, self._policy)
        self._placer = Placer(config.download.fsync_threads, str(self._cache.root), self._transfers.wake)
        self._numbers = itertools.count()
        self._queue: deque[_Job] = deque()
        self._jobs: dict[int, _Job] = {}  # begun: under transfer or being placed
        self._placing: dict[int, Fetched] = {}
        self._outcomes: list[Outcome] = []
        self._stop = threading.Event()
        self._sweeper = threading.Thread(
            target=self._sweep, args=(config.cache_hours,), name="cache-sweep", daemon=True
        )
        self._sweeper.start()

    @property
    def in_flight(self) -> int:
        """Tasks queued, begun, or finished and not yet polled."""
        return len(self._queue) + len(self._jobs) + len(self._outcomes)

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """Nothing to prepare."""

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Drop the tasks of these partitions and cancel their transfers."""
        gone = set(partitions)
        self._queue = deque(job for job in self._queue if job.record.partition not in gone)
        self._outcomes = [outcome for outcome in self._outcomes if outcome.record.partition not in gone]
        for number in [number for number, job in self._jobs.items() if job.record.partition in gone]:
            del self._jobs[number]
            if self._placing.pop(number, None) is None:
                self._transfers.cancel(number)

    def submit(self, records: Sequence[Record]) -> None:
        """Judge what can be judged without the host, and queue the rest."""
        for record in records:
            task: DownloadTask | None = None
            try:
                task = decode(record.value, DownloadTask)
                self._queue.append(self._judge(record, task))
            except RecordError as error:
                self._outcomes.append(Failed(record, error, task))
            except Exception as error:
                _logger.exception(_UNEXPECTED, *record.partition, record.offset)
                self._outcomes.append(Failed(record, unexpected(error), task))

    def poll(self, timeout: float) -> list[Outcome]:
        """Fetch and place until something is finished, for at most ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            self._begin()
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
        """Drop the queue, finish the transfers."""
        self._queue.clear()

    def close(self) -> None:
        """Cancel the transfers, finish what is being placed, end the threads."""
        self._stop.set()
        for number in list(self._jobs):
            self._transfers.cancel(number)
        self._placer.close()
        self._transfers.close()
        self._sweeper.join()
        self._cache.close()
        self._queue.clear()
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
        """Start transfers as long as there are tasks and free places."""
        while self._queue and self._transfers.free:
            job = self._queue.popleft()
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
                self._jobs[number] = job
            except RecordError as error:
                self._outcomes.append(Failed(job.record, error, job.task))
            except Exception as error:
                _logger.exception(_UNEXPECTED, *job.record.partition, job.record.offset)
                self._outcomes.append(Failed(job.record, unexpected(error), job.task))

    def _fetched(self, fetched: Fetched) -> None:
        """A transfer ended: judge the content and hand the file to the placing threads."""
        assert isinstance(fetched.key, int)
        job = self._jobs[fetched.key]
        if isinstance(fetched.error, TransientError):
            self._breakers.failure(job.host)
        elif fetched.error is None or fetched.error.http_status is not None:
            self._breakers.success(job.host)
        try:
            if fetched.error is not None:
                raise fetched.error
            self._types.check_content(fetched.content_type, fetched.head, _kind(job.task))
        except RecordError as error:
            del self._jobs[fetched.key]
            fetched.discard()
            self._outcomes.append(Failed(job.record, error, job.task))
            return
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
            self._outcomes.append(Failed(job.record, placed.error, job.task))
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

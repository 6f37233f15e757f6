"""The upload stage: a cached download in; its file, stored, and the result of the attachment out.

Nothing slow happens in the worker's own thread. Files that are sent in parts, which may take minutes, have
threads of their own, so that small ones never wait behind them; the cached files are removed by another,
because a disk may take milliseconds for each, and half a second for a large one.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

from pipelined.config.tree import Config
from pipelined.crashpoints import Point, crashpoint
from pipelined.errors import RecordError, TransientError
from pipelined.logs.context import context
from pipelined.messages.attachments import unsigned
from pipelined.messages.codec import decode, encode, iso_now
from pipelined.messages.task import CachedDownload, Result, Status
from pipelined.stages.contract import Done, Failed, Outcome, Output, Partition, Record, Stream
from pipelined.stages.failures import passed_on, stuck, unexpected
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child
from pipelined.storage.cache import Cache
from pipelined.storage.stores import PART_BYTES, Store, open_store

__all__ = ["UploadStage"]

_logger = logging.getLogger("pipelined.stages")

_UNEXPECTED = "unexpected error at %s/%d@%d"
_MISSING = "cache_file_missing"
#: Missing files are told of so often at most.
_TELL_SECONDS = 60.0


class UploadStage:
    """Stores ``upload.concurrency`` files at once, and half as many large ones beside them.

    The cached file is removed when the outcome is committed. A file that is not here, because another host
    fetched it or the cache was emptied, is no failure of the attachment: where the store holds it already, by
    an upload whose outcome was never committed, it is done; else its task goes back to be fetched again.

    Its memory has a bound: the window's records, ``PART_BYTES`` for each file, 26 MB for each large one.
    """

    name = "upload"
    waits = True

    def __init__(self, config: Config, stats: Child, store: Store | None = None) -> None:
        upload = config.upload
        self._stats = stats
        self._cache = Cache(config.cache_dir)
        self._store = store or open_store(upload.url, timeout_s=upload.timeout_s, auth=upload.auth)
        self._pool = ThreadPoolExecutor(upload.concurrency, thread_name_prefix="upload")
        self._large = ThreadPoolExecutor(-(-upload.concurrency // 2), thread_name_prefix="upload-large")
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="cache-remove")
        self._numbers = itertools.count()
        self._jobs: dict[int, tuple[Record, Future[None]]] = {}
        self._ended: SimpleQueue[tuple[int, Outcome]] = SimpleQueue()
        self._outcomes: list[Outcome] = []
        self._missing = 0
        self._tell_at = 0.0

    @property
    def in_flight(self) -> int:
        """Files queued, under way, or finished and not yet polled."""
        return len(self._jobs) + len(self._outcomes)

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """Nothing to prepare."""

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Drop the records of these partitions; an upload under way ends without an outcome."""
        gone = set(partitions)
        self._outcomes = [outcome for outcome in self._outcomes if outcome.record.partition not in gone]
        for number, (record, future) in list(self._jobs.items()):
            if record.partition in gone:
                future.cancel()
                del self._jobs[number]

    def give_up(self, records: Sequence[Record]) -> None:
        """Let go of these records. A thread that is at work on one goes on, and nobody listens to it.

        Should it succeed after all, the same bytes lie under the same path as after the next attempt.
        """
        self._collect()
        unwanted = {id(record) for record in records}
        for number, (record, future) in list(self._jobs.items()):
            if id(record) in unwanted:
                error = stuck(attempted=not future.cancel())
                del self._jobs[number]
                self._outcomes.append(Failed(record, error, decode(record.value, CachedDownload).task()))

    def submit(self, records: Sequence[Record]) -> None:
        """Queue the files for the upload threads."""
        for record in records:
            try:
                cached = decode(record.value, CachedDownload)
            except RecordError as error:
                self._outcomes.append(Failed(record, error))
                continue
            number = next(self._numbers)
            pool = self._large if cached.bytes_downloaded > PART_BYTES else self._pool
            self._jobs[number] = (record, pool.submit(self._work, number, record, cached))

    def poll(self, timeout: float) -> list[Outcome]:
        """What is finished; waits for the next at most ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            wait = 0.0 if self._outcomes else max(0.0, deadline - time.monotonic())
            self._collect(wait)
            if self._outcomes or time.monotonic() >= deadline:
                outcomes, self._outcomes = self._outcomes, []
                return outcomes

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """The results are durable: have the cached files removed, count the bytes."""
        size = 0
        paths = []
        for outcome in outcomes:
            if not isinstance(outcome, Done):
                continue
            cached = decode(outcome.record.value, CachedDownload)
            size += cached.bytes_downloaded
            if self._cache.holds(cached.local_cache_path):  # else another host's, seen in the store
                paths.append(cached.local_cache_path)
            crashpoint(Point.CACHED_KEPT)
        self._stats.add(metrics.BYTES, size)
        if paths:
            self._remover.submit(self._remove, paths)

    def drain(self) -> None:
        """Drop what waits for a thread, finish what is under way."""
        for number, (_, future) in list(self._jobs.items()):
            if future.cancel():
                del self._jobs[number]

    def close(self) -> None:
        """Finish what is under way, end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._large.shutdown(wait=True, cancel_futures=True)
        self._remover.shutdown(wait=True)
        self._jobs.clear()
        self._outcomes.clear()

    def _collect(self, wait: float = 0.0) -> None:
        """Take the outcomes of the threads; wait so long for the first."""
        with contextlib.suppress(Empty):
            while True:
                number, outcome = self._ended.get(timeout=wait) if wait else self._ended.get_nowait()
                wait = 0.0
                if self._jobs.pop(number, None) is not None:  # else it was forgotten or given up
                    self._outcomes.append(outcome)
                    self._missing += isinstance(outcome, Failed) and outcome.error.code == _MISSING
        if self._missing and time.monotonic() >= self._tell_at:
            self._tell_at = time.monotonic() + _TELL_SECONDS
            _logger.warning(
                "%d cached files are not here: another host fetched them, or the cache folder was emptied; "
                "they are fetched again",
                self._missing,
                extra={"code": _MISSING, "cache_dir": str(self._cache.root)},
            )
            self._missing = 0

    def _remove(self, paths: list[str]) -> None:
        """Remove cached files, in a thread of its own."""
        for path in paths:
            try:
                self._cache.remove(path)
            except RecordError as error:  # the sweep will try again; the upload is done all the same
                _logger.warning("a cached file cannot be removed", extra={"error": str(error)})

    def _work(self, number: int, record: Record, cached: CachedDownload) -> None:
        """Store one file, in an upload thread."""
        with context(**record.log_fields()):
            outcome = self._outcome(record, cached)
        self._ended.put((number, outcome))

    def _outcome(self, record: Record, cached: CachedDownload) -> Outcome:
        try:
            self._put(cached)
            crashpoint(Point.STORED)
            result = encode(_result(cached))
            return Done(record, (Output(Stream.RESULTS, record.key, result, passed_on(record)),))
        except RecordError as error:
            return Failed(record, error, cached.task())
        except Exception as error:
            _logger.exception(_UNEXPECTED, *record.partition, record.offset)
            return Failed(record, unexpected(error), cached.task())

    def _put(self, cached: CachedDownload) -> None:
        """Return when the file is stored: by us, or by one who died before that was committed."""
        path = cached.local_cache_path
        try:
            # A path outside of the cache is none of ours: no message makes us publish another file.
            size = Path(path).stat().st_size if self._cache.holds(path) else -1
            if size == cached.bytes_downloaded:
                self._store.put(cached.blob_path, Path(path), size, cached.sha256)
                return
        except FileNotFoundError:
            size = -1
        if self._store.holds(cached.blob_path, cached.bytes_downloaded, cached.sha256):
            return
        found = "is not here" if size < 0 else f"has {size} bytes instead of {cached.bytes_downloaded}"
        raise TransientError(
            _MISSING,
            f"the cached file {path}, fetched by {cached.host}, {found}; it is fetched again",
            retry_after=0,
            attempted=False,
        )


def _result(cached: CachedDownload) -> Result:
    result = Result.of(
        cached,
        attachment_url=unsigned(cached.attachment_url),
        status=Status.COMPLETED,
        created_at=iso_now(),
    )
    result.http_status = cached.http_status
    result.bytes_downloaded = cached.bytes_downloaded
    result.sha256 = cached.sha256
    return result

"""Events from a file of JSON lines: the position in the file travels in the transaction of its events."""

from __future__ import annotations

import hashlib
import io
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from pipelined.config import Config
from pipelined.crashpoints import Point, crashpoint
from pipelined.errors import PoisonError, UnavailableError, UsageError
from pipelined.kafka.checkpoints import read_checkpoint
from pipelined.kafka.settings import Names
from pipelined.kafka.transactions import Aborted, Transactor
from pipelined.messages.codec import encode, iso_now
from pipelined.messages.identity import event_key
from pipelined.stages.contract import Output, Stream

__all__ = ["Loaded", "load_file"]

_logger = logging.getLogger("pipelined.sources")

_BATCH = 5000
_BATCH_BYTES = 8 << 20
_HEAD = 65536
_BOM = b"\xef\xbb\xbf"


class FileCheckpoint(msgspec.Struct, kw_only=True):
    """How far a file has been loaded: ``position`` bytes, ``line`` lines, behind a head of that SHA-256."""

    source: str
    path: str
    position: int
    line: int
    head_bytes: int
    head_sha256: str
    updated_at: str


@dataclass(slots=True)
class Loaded:
    """What one load did. ``first`` is the line it began behind: 0, or where an earlier load ended."""

    first: int = 0
    lines: int = 0
    events: int = 0
    unreadable: int = 0
    blank: int = 0
    complete: bool = True


#: Called after each transaction with the bytes read so far and the counts.
Progress = Callable[[int, Loaded], None]
#: Called for each line that is no event, with its number and what is wrong with it.
Report = Callable[[int, str], None]


def load_file(
    config: Config,
    path: str,
    *,
    restart: bool = False,
    progress: Progress = lambda _bytes, _loaded: None,
    report: Report = lambda _line, _text: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Loaded:
    """Put every line of ``path`` (``-``: standard input) onto ``events.raw``, each once.

    A line that is no event goes the same way, is reported, and ends in ``events.dlq``. A file that was
    begun before goes on where its last transaction ended, unless ``restart`` is set; standard input has
    no position. Raises UsageError for a file that cannot be read, changed since, or holds a line larger
    than ``kafka.max_message_bytes``: what lies before it is loaded then.
    """
    with _open(path) as stream:
        return _Loader(config, path, stream, progress, report, should_stop).run(restart)


def _open(path: str) -> BinaryIO:
    if path == "-":
        return io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False), 1 << 20)
    try:
        return Path(path).open("rb", buffering=1 << 20)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise UsageError(msg) from error


class _Loader:
    def __init__(
        self,
        config: Config,
        path: str,
        stream: BinaryIO,
        progress: Progress,
        report: Report,
        should_stop: Callable[[], bool],
    ) -> None:
        self._config = config
        self._stream = stream
        self._resumable = path != "-"
        self._path = str(Path(path).resolve()) if self._resumable else "-"
        self._progress = progress
        self._report = report
        self._should_stop = should_stop
        self._key = f"file:{self._path}"
        self._loaded = Loaded()
        self._limit = config.kafka.max_message_bytes
        digest = hashlib.blake2b(self._key.encode(), digest_size=8).hexdigest()
        place = f"load.{digest}" if self._resumable else "load.stdin"
        self._transactor = Transactor(config, f"{config.domain}.{place}", lambda: None)

    def run(self, restart: bool) -> Loaded:
        """Load; see :func:`load_file`."""
        try:
            if not self._transactor.begin_session(self._should_stop):
                self._loaded.complete = False
                return self._loaded
            start = 0 if restart or not self._resumable else self._resume()
            for outputs, position in self._batches(start):
                if self._resumable:
                    outputs.append(self._checkpoint(position))
                self._send(outputs)
                self._progress(position, self._loaded)
                crashpoint(Point.LOADED)
                if self._should_stop():
                    self._loaded.complete = False
                    break
        finally:
            self._transactor.close()
        return self._loaded

    def _resume(self) -> int:
        """Where an earlier load of this very file ended."""
        value = read_checkpoint(self._config, self._key)
        if value is None:
            return 0
        checkpoint = msgspec.json.decode(value, type=FileCheckpoint)
        size = Path(self._path).stat().st_size
        if checkpoint.position > size or checkpoint.head_sha256 != self._head(checkpoint.head_bytes):
            msg = (
                f"{self._path} is not the file of which {checkpoint.line} lines were loaded on "
                f"{checkpoint.updated_at}; use --restart to load it from its beginning"
            )
            raise UsageError(msg)
        self._loaded.first = checkpoint.line
        return checkpoint.position

    def _head(self, length: int) -> str:
        with Path(self._path).open("rb") as stream:
            return hashlib.sha256(stream.read(length)).hexdigest()

    def _checkpoint(self, position: int) -> Output:
        head = min(position, _HEAD)
        checkpoint = FileCheckpoint(
            source="file",
            path=self._path,
            position=position,
            line=self._loaded.first + self._loaded.lines,
            head_bytes=head,
            head_sha256=self._head(head),
            updated_at=iso_now(),
        )
        return Output("checkpoints", self._key.encode(), encode(checkpoint), [])

    def _batches(self, position: int) -> Iterator[tuple[list[Output], int]]:
        if position:
            self._stream.seek(position)
        outputs: list[Output] = []
        held = 0
        unsent = False
        # One more than the limit, so that a longer line is noticed and never held whole.
        while line := self._stream.readline(self._limit + 3):
            unsent = True
            number = self._loaded.first + self._loaded.lines + 1
            text = line.removeprefix(_BOM) if position == 0 else line
            text = text.rstrip(b"\r\n")
            if len(text) > self._limit:
                if outputs:
                    yield outputs, position
                self._too_large(number)
            position += len(line)
            self._loaded.lines += 1
            if not text.strip():
                self._loaded.blank += 1
                continue
            outputs.append(self._output(text, number))
            held += len(text)
            if len(outputs) >= _BATCH or held >= _BATCH_BYTES:
                yield outputs, position
                outputs, held, unsent = [], 0, False
        if unsent:
            yield outputs, position

    def _too_large(self, number: int) -> None:
        msg = (
            f"line {number} is larger than kafka.max_message_bytes ({self._limit}); the {number - 1} lines "
            "before it are loaded. Raise the limit, run `pipelinectl topics apply`, and load again to go on"
        )
        raise UsageError(msg)

    def _output(self, text: bytes, number: int) -> Output:
        headers: list[tuple[str, str | bytes | None]] = [("source", b"local"), ("line", b"%d" % number)]
        key = None
        try:
            key = event_key(text)
        except PoisonError as error:
            self._loaded.unreadable += 1
            self._report(number, str(error))
        else:
            headers.append(("trace_id", key))
            self._loaded.events += 1
        return Output(Stream.RAW, key, text, headers)

    def _send(self, outputs: list[Output]) -> None:
        for _ in range(5):
            try:
                self._transactor.run(outputs)
            except Aborted as aborted:
                _logger.warning("%s; trying again", aborted)
            else:
                return
        topic = Names(self._config).topic(Stream.RAW)
        msg = f"{topic} does not take the events: five transactions were aborted; see the log of the brokers"
        raise UnavailableError(msg)

"""A small pipeline in memory for the ledger to judge, and the hands that do its work."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping

from pipelined.ledger.balance import Balance
from pipelined.ledger.books import Books, Record
from pipelined.ledger.evidence import AttachmentRow, FoundFile, Origin
from pipelined.ledger.identity import Key, attachment_key, name_of
from pipelined.ledger.judging import judge_books

RAW, RESULTS = "xact.events.raw", "xact.downloads.results"


def trace(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def url(number: int, file: int = 0) -> str:
    return f"https://files.example.org/{number}/{file}.pdf?X-Amz-Signature=s{number}"


def identity(number: int, file: int = 0) -> str:
    return name_of(attachment_key(trace(number), url(number, file)))


class World:
    """A pipeline in memory: the topics as lists of values and headers, the tables, and the store."""

    def __init__(self) -> None:
        self.topics: dict[str, dict[int, list[tuple[bytes, dict[str, str]]]]] = {}
        self.events: list[str] | None = []
        self.attachments: list[AttachmentRow] | None = []
        self.failures: list[str] | None = []
        self.files: dict[str, bytes] = {}
        self.replayed: dict[Key, int] = {}
        self.pending: dict[Origin, bytes] = {}

    def put(
        self, section: str, value: object, headers: dict[str, str] | None = None, partition: int = 0
    ) -> int:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        log = self.topics.setdefault(section, {}).setdefault(partition, [])
        log.append((raw, headers or {}))
        return len(log) - 1

    def accept(self, number: int, files: int = 0, partition: int = 0) -> None:
        """An event that goes through, up to its row."""
        assert self.events is not None
        event = {"traceId": trace(number), "data": {"attachments": [url(number, i) for i in range(files)]}}
        self.put("events_raw", event, partition=partition)
        self.put("events_ingested", event, partition=partition)
        self.events.append(trace(number))

    def complete(self, number: int, file: int = 0) -> None:
        """An attachment that arrives."""
        assert self.attachments is not None
        content, path = b"content of %d" % number, f"docs/{trace(number)}/{file}.pdf"
        self.files[path] = content
        self.result(number, file, "completed")
        row = (trace(number), identity(number, file), "completed", path)
        self.attachments.append(AttachmentRow(*row, len(content), hashlib.sha256(content).hexdigest()))

    def fail(self, number: int, file: int = 0, status: str = "failed_permanent") -> None:
        """An attachment that fails for good."""
        assert self.attachments is not None
        assert self.failures is not None
        self.result(number, file, status)
        self.put("downloads_dlq", {"trace_id": trace(number), "attachment_id": identity(number, file)})
        self.failures.append(identity(number, file))
        self.attachments.append(AttachmentRow(trace(number), identity(number, file), status, "some/path"))

    def result(self, number: int, file: int, status: str) -> None:
        self.put(
            "downloads_results",
            {"trace_id": trace(number), "attachment_id": identity(number, file), "status": status},
        )

    def bury(self, value: bytes, origin: int, partition: int = 0) -> None:
        """A dead event's record in events.dlq."""
        self.put("events_dlq", value, origin_of(RAW, partition, origin))

    def books(self, order: Iterable[str] = ()) -> Books:
        books = Books(RAW, RESULTS)
        for section in order or self.topics:
            for partition, log in self.topics.get(section, {}).items():
                for offset, (value, headers) in enumerate(log):
                    books.add(Record(section, partition, offset, value, headers))
        return books

    def judge(self) -> Balance:
        return judge_books(self.books(), self)

    def event_rows(self) -> Iterable[str] | None:
        return self.events

    def attachment_rows(self) -> Iterable[AttachmentRow] | None:
        return self.attachments

    def failed_rows(self) -> Iterable[str] | None:
        return self.failures

    def paths(self) -> Iterable[str]:
        return list(self.files)

    def read(self, paths: Iterable[str]) -> Iterator[FoundFile]:
        for path in paths:
            content = self.files.get(path)
            if content is None:
                yield FoundFile(path, 0, None)
            else:
                yield FoundFile(path, len(content), hashlib.sha256(content).hexdigest())

    def value_at(self, origin: Origin) -> bytes | None:
        return self.pending.get(origin)

    def replays(self, keys: Collection[Key]) -> Mapping[Key, int]:
        return {key: times for key, times in self.replayed.items() if key in keys}


def origin_of(topic: str, partition: int, offset: int) -> dict[str, str]:
    return {
        "dlq_origin_topic": topic,
        "dlq_origin_partition": str(partition),
        "dlq_origin_offset": str(offset),
    }

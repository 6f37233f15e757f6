"""Topics, tables and files that the ledger judges, and the hands that fill them as the workers would."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from deltalake import write_deltalake
from obstore.store import LocalStore

from pipelined.config.cluster import Kafka
from pipelined.config.tree import Config
from pipelined.config.work import Tables, Upload
from pipelined.ledger.identity import attachment_key, name_of

PARTITIONS = 3
SECTIONS = ("events.raw", "events.ingested", "events.dlq", "downloads.results", "downloads.dlq")


class Pipeline:
    """Topics, tables and a store of one domain, and the hands that fill them."""

    def __init__(self, bootstrap: str, domain: str, folder: Path) -> None:
        self.config = Config(
            domain=domain,
            kafka=Kafka(bootstrap=bootstrap),
            tables=Tables(url=(folder / "tables").as_uri()),
            upload=Upload(url=(folder / "files").as_uri()),
        )
        self.folder = folder
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": f"{domain}.test",
                "transaction.timeout.ms": 60_000,
            }
        )
        (folder / "files").mkdir()
        self._store = LocalStore(folder / "files")

    def topic(self, name: str) -> str:
        return f"{self.config.domain}.{name}"

    def create(self, *names: str) -> None:
        topics = [NewTopic(self.topic(name), PARTITIONS, 1) for name in names]
        for created in self._admin.create_topics(topics).values():
            created.result(30)
        deadline = time.monotonic() + 30
        while not {topic.topic for topic in topics} <= set(self._admin.list_topics(timeout=15).topics):
            assert time.monotonic() < deadline, "new topics do not appear"
            time.sleep(0.02)

    def delete(self) -> None:
        there = self._admin.list_topics(timeout=15).topics
        mine = [name for name in there if name.startswith(f"{self.config.domain}.")]
        for gone in (self._admin.delete_topics(mine) if mine else {}).values():
            gone.result(30)

    def begin(self) -> None:
        if not hasattr(self, "_begun"):
            self._producer.init_transactions(30)
            self._begun = True
        self._producer.begin_transaction()

    def commit(self) -> None:
        self._producer.commit_transaction(30)

    def abort(self) -> None:
        self._producer.flush(30)
        self._producer.abort_transaction(30)

    def flush(self) -> None:
        self._producer.flush(30)

    def put(
        self, name: str, value: object, partition: int = 0, headers: dict[str, str] | None = None
    ) -> None:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        pairs: list[tuple[str, str | bytes | None]] = [
            (key, text.encode()) for key, text in (headers or {}).items()
        ]
        self._producer.produce(self.topic(name), raw, partition=partition, headers=pairs)

    def forget(self, name: str, partition: int, before: int) -> None:
        (deleted,) = self._admin.delete_records(
            [TopicPartition(self.topic(name), partition, before)]
        ).values()
        deleted.result(30)

    def append(self, table: str, rows: list[dict[str, Any]]) -> None:
        location = (self.folder / "tables" / f"{self.config.domain}_{table}").as_uri()
        write_deltalake(location, pa.Table.from_pylist(rows), mode="append")

    def store(self, path: str, content: bytes) -> None:
        obstore.put(self._store, path, content)


def trace(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def url(number: int) -> str:
    return f"https://files.example.org/{number}.pdf"


def identity(number: int) -> str:
    return name_of(attachment_key(trace(number), url(number)))


def path_of(number: int) -> str:
    return f"docs/{trace(number)}/a {number}~50%20.pdf"


def event(number: int, *attachments: str) -> dict[str, Any]:
    return {"traceId": trace(number), "data": {"attachments": attachments}}


def attachment(number: int, status: str, content: bytes = b"") -> dict[str, Any]:
    return {
        "trace_id": trace(number),
        "attachment_id": identity(number),
        "status": status,
        "blob_path": path_of(number),
        "bytes_downloaded": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def fill(pipeline: Pipeline) -> None:
    """9 events, one of them twice, one dead, one aborted; attachment 3 arrives, 4 fails."""
    pipeline.begin()
    for number in range(9):
        attachments = [url(number)] if number in {3, 4} else []
        pipeline.put("events.raw", event(number, *attachments), number % PARTITIONS)
    pipeline.put("events.raw", event(1), 1)
    pipeline.commit()
    pipeline.begin()
    pipeline.put("events.raw", event(99), 2)
    pipeline.abort()
    pipeline.begin()
    pipeline.put("events.raw", b"{broken", 2)
    pipeline.commit()
    pipeline.begin()
    for number in range(9):
        attachments = [url(number)] if number in {3, 4} else []
        pipeline.put("events.ingested", event(number, *attachments), number % PARTITIONS)
    # Behind three events, the mark of their commit, an aborted one and the mark of its abortion.
    origin = {"topic": pipeline.topic("events.raw"), "partition": "2", "offset": "6"}
    pipeline.put("events.dlq", b"{broken", headers={f"dlq_origin_{k}": v for k, v in origin.items()})
    content = b"content" * 1000
    pipeline.put("downloads.results", attachment(3, "completed", content))
    pipeline.put("downloads.results", attachment(4, "failed_permanent"), 1)
    pipeline.put("downloads.dlq", {"attachment_id": identity(4)})
    pipeline.commit()
    pipeline.store(path_of(3), content)
    pipeline.append("events", [{"trace_id": trace(number)} for number in range(4)])
    pipeline.append("events", [{"trace_id": trace(number)} for number in range(4, 9)])
    pipeline.append("attachments", [attachment(3, "completed", content), attachment(4, "failed_permanent")])
    pipeline.append("attachments_failed", [attachment(4, "failed_permanent")])

"""What is kept of a day that failed: everything needed to see why."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from chaos.day.hosts import Ground
from pipelined.config import WORKER_TYPES
from pipelined.errors import PipelinedError
from pipelined.ledger import Balance

__all__ = ["ends", "keep"]

_TIMEOUT = 30.0
_END = re.compile(r"worker ([a-z-]+)/\d+ is (?:BACKOFF|FATAL|STOPPED|EXITED): (.+?)$")
_NUMBER = re.compile(r"\d+(\.\d+)?")


def keep(folder: Path, ground: Ground, balance: Balance | None, error: str) -> None:
    """Write it below ``folder``, where logs, tables, store and the brokers' data are already.

    ``topics/*.jsonl.gz``: each record of each topic with its offset, time, key, headers and value, and
    whether its transaction was aborted; ``groups.json``: committed offsets with their metadata;
    ``balance.json``; ``status.json``; ``plan.txt``.
    """
    plan = ground.plan
    text = "\n".join(map(str, plan.steps))
    (folder / "plan.txt").write_text(f"{plan.command}\n{error}\n{plan.hang_s}\n\n{text}\n")
    (folder / "balance.json").write_text(json.dumps(balance.as_json() if balance else None, indent=1))
    status = {host.name: host.snapshot() for host in ground.hosts}
    (folder / "status.json").write_text(json.dumps(status, indent=1))
    try:
        _dump_groups(folder, ground)
        _dump_topics(folder, ground)
    except (KafkaException, PipelinedError) as failure:
        (folder / "dump-failed.txt").write_text(f"the topics could not be dumped: {failure}\n")


def ends(logs: Iterable[Path]) -> Counter[str]:
    """How workers ended, by the daemons' logs: worker type and reason, numbers left out."""
    found: Counter[str] = Counter()
    for log in logs:
        if not log.exists():
            continue
        with log.open(errors="replace") as lines:
            for line in lines:
                if match := _END.search(line):
                    found[f"{match[1]}: {_NUMBER.sub('N', match[2].strip())}"] += 1
    return found


def _dump_groups(folder: Path, ground: Ground) -> None:
    groups: dict[str, Any] = {}
    for name in WORKER_TYPES:
        consumer = _consumer(ground, f"{ground.domain}.{name}", "read_committed")
        try:
            places = [TopicPartition(*place) for place in _places(consumer, ground)]
            groups[name] = [
                {"topic": at.topic, "partition": at.partition, "offset": at.offset, "metadata": at.metadata}
                for at in consumer.committed(places, timeout=_TIMEOUT)
                if at.offset >= 0
            ]
        finally:
            consumer.close()
    (folder / "groups.json").write_text(json.dumps(groups, indent=1))


def _dump_topics(folder: Path, ground: Ground) -> None:
    target = folder / "topics"
    target.mkdir(exist_ok=True)
    committed: set[tuple[str, int, int]] = set()
    for message in _messages(ground, "read_committed"):
        committed.add((str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)))
    files: dict[str, Any] = {}
    with ExitStack() as stack:
        for message in _messages(ground, "read_uncommitted"):
            topic = str(message.topic())
            if topic not in files:
                name = target / f"{topic}.jsonl.gz"
                files[topic] = stack.enter_context(gzip.open(name, "wt", compresslevel=1))
            place = (topic, int(message.partition() or 0), int(message.offset() or 0))
            files[topic].write(json.dumps(_shown(message, place not in committed)) + "\n")


def _shown(message: Message, aborted: bool) -> dict[str, Any]:
    key = message.key()
    return {
        "partition": message.partition(),
        "offset": message.offset(),
        "at": message.timestamp()[1],
        **({"aborted": True} if aborted else {}),
        "key": _text(key),
        "headers": {name: _text(value) for name, value in list(message.headers() or [])},
        "value": _text(message.value()),
    }


def _text(value: Any) -> str | None:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _messages(ground: Ground, isolation: str) -> Iterator[Message]:
    consumer = _consumer(ground, f"{ground.domain}.evidence", isolation)
    try:
        places = _places(consumer, ground)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for topic, number in places])
        left = set(places)
        while left:
            messages = consumer.consume(5000, _TIMEOUT)
            if not messages:
                raise KafkaException(f"no more records within {_TIMEOUT:g} s; left: {sorted(left)}")
            for message in messages:
                if message.error() is None:
                    yield message
                else:
                    left.discard((str(message.topic()), int(message.partition() or 0)))
    finally:
        consumer.close()


def _places(consumer: Consumer, ground: Ground) -> Sequence[tuple[str, int]]:
    topics = consumer.list_topics(timeout=_TIMEOUT).topics
    return [
        (name, number)
        for name in sorted(topics)
        if name.startswith(f"{ground.domain}.")
        for number in sorted(topics[name].partitions)
    ]


def _consumer(ground: Ground, group: str, isolation: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": ground.cluster.bootstrap,
            "group.id": group,
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": 16384,
            "fetch.queue.backoff.ms": 10,
            "log_level": 0,
        }
    )

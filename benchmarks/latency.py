"""``latency``: from the source event to its result message and to its row, at 100 events a second."""

from __future__ import annotations

import itertools
import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import unquote

import pyarrow.parquet as pq
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.events import FILE_BYTES, Events
from benchmarks.fileserver import serving
from benchmarks.ground import PARTITIONS, Daemon, Ground, bare, wait_for
from benchmarks.report import Check, Figure, Result
from pipelined.config import Config, load
from pipelined.kafka.settings import Names, consumer_settings

NAME = "latency"

_RATE = 100
_METHOD = (
    "The whole daemon, all seven workers, default settings (flush_seconds 1). {rate} events a second, "
    "evenly paced for {seconds:g} s, each with one file of {size:,} bytes on a local server; the first "
    "{warm:g} s are not counted (the broker compiles its code). A read_committed reader notes when the "
    "result message arrives; a row counts as there when the commit that holds it appears in the log of "
    "xact_attachments (time of the log's file). Both from just before the event is given to the producer. "
    "The bare chain is three processes that consume, decode, and produce the same bytes in transactions, "
    "the same events at the same pace for {bare_seconds:g} s. In turns."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    del folder
    warm_up, seconds, bare_seconds = (2.0, 4.0, 4.0) if quick else (8.0, 30.0, 10.0)
    figures: dict[str, list[float]] = {}

    def note(name: str, latencies: Sequence[float]) -> None:
        cuts = statistics.quantiles(latencies, n=100)
        figures.setdefault(f"{name}, p50", []).append(cuts[49] * 1000)
        figures.setdefault(f"{name}, p99", []).append(cuts[98] * 1000)

    with serving(FILE_BYTES) as files_url:
        for turn in range(repetitions):
            results, rows = _daemon(ground, files_url, warm_up, seconds, turn)
            note("event to result", results)
            note("event to row", rows)
            note("bare chain of three hops", _chain(ground, files_url, warm_up, bare_seconds, turn))
    found = [Figure(name, "ms", samples) for name, samples in figures.items()]
    median = {figure.name: figure.median for figure in found}
    return Result(
        NAME,
        "Latency",
        _METHOD.format(rate=_RATE, seconds=seconds, size=FILE_BYTES, warm=warm_up, bare_seconds=bare_seconds),
        found,
        [
            Check("event to result, p50", median["event to result, p50"], "<=", 50, "ms"),
            Check("event to result, p99", median["event to result, p99"], "<=", 200, "ms"),
            Check("event to row, p50 / flush interval", median["event to row, p50"] / 1000, "<=", 0.6),
            Check("event to row, p99 / flush interval", median["event to row, p99"] / 1000, "<=", 1.3),
        ],
    )


def _daemon(
    ground: Ground, files_url: str, warm_up: float, seconds: float, turn: int
) -> tuple[Sequence[float], Sequence[float]]:
    """Seconds from each event to its result, and to its row."""
    path = ground.config(files_url=files_url)
    events = Events(files_url, every=1, files=1, series=100 + turn)
    with Daemon(path) as daemon:
        config = daemon.config
        daemon.ready()
        names = Names(config)
        table = path.parent / "tables" / f"{config.domain}_attachments"
        with arrivals(config, names.topic("downloads_results")) as arrived:
            sent = pace(config, names.topic("events_raw"), events, _RATE, warm_up + seconds)
            wait_for(lambda: len(arrived) >= len(sent), "the results")
        wait_for(lambda: len(committed_rows(table)) >= len(sent), "the rows", every=0.5)
        committed = committed_rows(table)
    counted = list(sent)[int(warm_up * _RATE) :]
    wall = time.time() - time.monotonic()
    return (
        [arrived[key] - sent[key] for key in counted],
        [committed[key] - wall - sent[key] for key in counted],
    )


def _chain(ground: Ground, files_url: str, warm_up: float, seconds: float, turn: int) -> Sequence[float]:
    """Seconds from each event to its third bare hop."""
    path = ground.config()
    config = load(path, environ={}).config
    names = Names(config)
    streams = ("events_raw", "events_ingested", "downloads_pending", "downloads_cached")
    topics = [names.topic(stream) for stream in streams]
    with ExitStack() as stack:
        for source, target in itertools.pairwise(topics):
            process = stack.enter_context(bare("bare_hop", path, source, target, 0, 100))
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
        with arrivals(config, topics[-1]) as arrived:
            events = Events(files_url, every=1, files=1, series=200 + turn)
            sent = pace(config, topics[0], events, _RATE, warm_up + seconds)
            wait_for(lambda: len(arrived) >= len(sent), "the last hop")
    return [arrived[key] - sent[key] for key in list(sent)[int(warm_up * _RATE) :]]


def pace(
    config: Config,
    topic: str,
    events: Events,
    rate: float,
    seconds: float,
    stop: threading.Event | None = None,
) -> dict[bytes, float]:
    """Produce events evenly; when each was given to the producer, by trace id, on the monotonic clock."""
    producer = Producer({"bootstrap.servers": config.kafka.bootstrap, "linger.ms": 0, "acks": "all"})
    sent: dict[bytes, float] = {}
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        wait = began + number / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        if stop is not None and stop.is_set():
            break
        key, value = events.key(number), events.value(number)
        sent[key] = time.monotonic()
        producer.produce(topic, value, key, partition=number % PARTITIONS)
        producer.poll(0)
    producer.flush(10)
    return sent


@contextmanager
def arrivals(config: Config, topic: str) -> Iterator[dict[bytes, float]]:
    """When each message of a topic arrived at a reader of committed records, by key; filled by a thread."""
    settings = consumer_settings(config, "bench.arrivals", None) | {"enable.partition.eof": False}
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    arrived: dict[bytes, float] = {}
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                arrived.setdefault(message.key() or b"", time.monotonic())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        time.sleep(0.5)  # its first fetches, before anything is measured
        yield arrived
    finally:
        ended.set()
        thread.join()
        consumer.close()


def committed_rows(table: Path) -> dict[bytes, float]:
    """When each trace id's row was committed, epoch seconds."""
    found: dict[bytes, float] = {}
    for log in sorted((table / "_delta_log").glob("*.json")):
        when = log.stat().st_mtime
        for line in log.read_text().splitlines():
            if line.startswith('{"add"'):
                file = table / unquote(json.loads(line)["add"]["path"])
                for trace in pq.read_table(file, columns=["trace_id"])["trace_id"].to_pylist():
                    found.setdefault(trace.encode(), when)
    return found

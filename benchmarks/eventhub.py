"""``event-hub``: events a second from an Event Hub onto ``events.raw``, beside the bare loop; the memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.events import Events
from benchmarks.ground import PARTITIONS, Ground, fill, run_bare
from benchmarks.report import Check, Figure, Result
from pipelined.local.kafka import Cluster

NAME = "event-hub"

_PAGE = 5000
_LARGEST_PAGE = 50_000
_BIG = 100_000
_METHOD = (
    "{count:,} events of 0.95 kB lie on a hub of {partitions} partitions: a Kafka of its own on this machine "
    "that passes for an Event Hub (SASL_SSL, PLAIN). The source with its runtime (`workers.source`), in a "
    "process of its own, puts them onto events.raw, 4 partitions, LZ4: it reads each one's trace id, adds "
    "four headers, and commits its position with them; pages and transactions of {page:,}; from the first "
    "commit to the last. The bare loop is one process with the same client settings that consumes {page:,} "
    "at once, reads nothing of them, and produces the same bytes and key in one transaction. In turns. Then "
    "the private memory (USS) of such a process, at most and at a commit, above what it was before the "
    "source began: with pages of {largest:,} of the same events, and with {big:,} bytes an event."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    count = 50_000 if quick else 300_000
    rates: list[float] = []
    bare_rates: list[float] = []
    cpu: list[float] = []
    bare_cpu: list[float] = []
    most: list[float] = []
    big_most: list[float] = []
    with Cluster(sasl=True) as hub:
        _fill(hub, "claims", Events("http://127.0.0.1:1").range(count))
        note = b"x" * _BIG
        _fill(hub, "big", ((b"", b'{"traceId":"%d","note":"%b"}' % (n, note)) for n in range(count // 100)))
        for _ in range(repetitions):
            for mode, of_mode, cpu_of_mode in (("source", rates, cpu), ("bare", bare_rates, bare_cpu)):
                commits = run_bare("bare_hub", _config(ground, folder, hub), mode, count)["commits"]
                (began, first, used), (ended, last, used_at_end) = commits[0], commits[-1]
                of_mode.append((last - first) / (ended - began))
                cpu_of_mode.append((used_at_end - used) / (last - first) * 1e6)
            for topic, number, of_topic in (("claims", count, most), ("big", count // 100, big_most)):
                path = _config(ground, folder, hub, topic, _LARGEST_PAGE)
                measured = run_bare("bare_hub", path, "memory", number)
                of_topic.append((measured["most"] - measured["before"]) / 1e6)
    source, loop = Figure("source", "events/s", rates), Figure("bare loop", "events/s", bare_rates)
    memory = Figure(f"memory, pages of {_LARGEST_PAGE:,}", "MB", most)
    big = Figure(f"memory, events of {_BIG:,} bytes", "MB", big_most)
    return Result(
        NAME,
        "From an Event Hub",
        _METHOD.format(count=count, partitions=PARTITIONS, page=_PAGE, largest=_LARGEST_PAGE, big=_BIG),
        [
            source,
            loop,
            Figure("source, CPU", "µs/event", cpu),
            Figure("bare loop, CPU", "µs/event", bare_cpu),
            memory,
            big,
        ],
        [
            Check("source / bare loop", source.median / loop.median, ">=", 0.6),
            Check(memory.name, memory.median, "<=", 60, "MB"),
            Check(big.name, big.median, "<=", 60, "MB"),
        ],
    )


def _config(ground: Ground, folder: Path, hub: Cluster, topic: str = "claims", page: int = _PAGE) -> Path:
    secret = folder / "connection-string"
    secret.write_text(hub.connection_string)
    # Nobody takes these events: their lag is no reason to wait.
    return ground.config(
        more=f"""[sources]
pause_lag = 1000000000
resume_lag = 1000000000
[eventhub]
bootstrap = "{hub.sasl_bootstrap}"
topic = "{topic}"
connection_string = "file:{secret}"
ca_file = "{hub.ca_path}"
page_records = {page}
"""
    )


def _fill(hub: Cluster, topic: str, messages: Iterable[tuple[bytes, bytes]]) -> None:
    """Put keys and values on a new topic, evenly."""
    admin = AdminClient({"bootstrap.servers": hub.bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    fill(hub.bootstrap, topic, ((key, value, []) for key, value in messages))

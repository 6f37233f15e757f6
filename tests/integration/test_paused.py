"""An operator's pause, on the real Kafka: what is in hand is done, nothing more is taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_table_runtime import writing

from kafka_tools import committed, declared, numbered, produce, small, values, working
from pipelined.config.tree import Config, Tables
from pipelined.messages.codec import encode
from pipelined.stages.contract import Stream
from pipelined.stats import registry as metrics
from records import event
from stage_parts import Ordered
from waiting import until


@pytest.fixture
def config(kafka_bootstrap: str, domain: str, tmp_path: Path) -> Iterator[Config]:
    tables = Tables(url=(tmp_path / "tables").as_uri(), flush_seconds=0.2)
    with declared(small(kafka_bootstrap, domain, 1, tables=tables)) as made:
        yield made


def test_a_paused_worker_finishes_what_it_has_and_takes_nothing_more_until_it_is_resumed(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = SimpleNamespace(paused=False)
    produce(config, Stream.PENDING, numbered(5))
    stage = Ordered()
    with working(config, stage) as worker:
        until(lambda: len(stage.waiting) == 5)
        monkeypatch.setattr(worker.runtime, "_is_paused", lambda: operator.paused)
        operator.paused = True
        spent = worker.stats.counter(metrics.LOOP_SECONDS, "paused")
        until(lambda: worker.stats.counter(metrics.LOOP_SECONDS, "paused") > spent)
        produce(config, Stream.PENDING, numbered(5, 5))
        stage.finish(*numbered(5))
        until(lambda: values(config, Stream.CACHED) == numbered(5), "what was in hand is done")
        until(lambda: worker.stats.gauge(metrics.LAG) == 5, "it sees that more has come")
        assert len(stage.waiting) == 0
        assert worker.stats.gauge(metrics.PARTITIONS) == 1, "it is a member still"
        assert worker.stats.gauge(metrics.PAUSED) == 0, "nothing is wrong with what it relies on"
        operator.paused = False
        until(lambda: len(stage.waiting) == 5, "it goes on")
        stage.finish(*numbered(5, 5))
        until(lambda: values(config, Stream.CACHED) == numbered(10))
    assert committed(config, "download", Stream.PENDING)[0][0] >= 10


def test_a_paused_writer_stores_what_it_has_buffered_and_reads_nothing_more(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = SimpleNamespace(paused=True)
    with writing(config) as worker:
        until(lambda: worker.stats.gauge(metrics.PARTITIONS) == 1)
        monkeypatch.setattr(worker.runtime, "_is_paused", lambda: operator.paused)
        spent = worker.stats.counter(metrics.LOOP_SECONDS, "paused")
        until(lambda: worker.stats.counter(metrics.LOOP_SECONDS, "paused") > spent)
        produce(config, Stream.INGESTED, [encode(event(number)) for number in range(5)])
        until(lambda: worker.stats.gauge(metrics.LAG) == 5, "it sees that something has come")
        assert worker.stats.counter(metrics.RECORDS_IN) == 0
        operator.paused = False
        until(lambda: worker.stats.counter(metrics.RECORDS_OUT) == 5, "it goes on")
